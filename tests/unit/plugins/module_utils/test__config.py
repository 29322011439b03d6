# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _config
from ansible_collections.indestructible.block.plugins.plugin_utils import _portal

STORE = {"name": "vault1", "portal": "192.0.2.10", "target": "iqn.2026-11.org.example:vault1", "lun": 0}
DEVICE = {"name": "db", "size": "100G", "store": "vault1"}
EXPORT = {"name": "vault1", "target": "iqn.2026-11.org.example:vault1", "lun": 0, "backing": "/dev/sdb",
          "allow": [{"initiator": "iqn.2026-11.org.example:alpha"}]}


def stores(*changes):
    return _config.store_problems([dict(STORE, **change) for change in changes], _portal.portal_problem)


def devices(*changes):
    return _config.device_problems([dict(DEVICE, **change) for change in changes], [STORE])


def exports(*changes):
    return _config.export_problems([dict(EXPORT, **change) for change in changes], _portal.listen_problem, _portal.normal_portal)


def shared(*changes):
    """Problems of exports of one target, each with a LUN and a backing of its own."""
    return exports(*(dict({"name": f"e{number}", "lun": number, "backing": f"/dev/disk{number}"}, **change) for number, change in enumerate(changes)))


def allow(initiator, username=None, password=None, **more):
    chap = dict({"username": username, "password": password}, **more)
    return {"initiator": f"iqn.2026-11.org.example:{initiator}", "chap": chap if username else None}


def test_the_least_a_user_writes_is_right():
    assert stores({}) == devices({}) == exports({}) == []
    assert _config.store_problems(None, _portal.portal_problem) == []
    assert _config.device_problems([], None) == []


@pytest.mark.parametrize("change, said", [
    ({"size": "100X"}, "device db: size: '100X' is not a size"),
    ({"size": None}, "device db: size is missing"),
    ({"size": "-5G"}, "device db: size: '-5G' is not a size"),
    ({"size": 104857601}, "device db: size 104857601 is 104857601 bytes, which is no multiple of 4096; 104861696 is"),
    ({"size": "4M"}, "device db: size '4M' is too small; a device has at least 16 MiB"),
    ({"size": "100M", "filesystem": "xfs"}, "device db: size '100M' is too small; an xfs device has at least 300 MiB"),
    ({"store": "vault"}, "device db: store 'vault' is unknown; the known ones are vault1"),
    ({"store": None}, "device db: store is missing"),
    ({"name": "a/b"}, "name 'a/b' is no usable name"),
    ({"name": "a b"}, "name 'a b' is no usable name"),
    ({"name": ".db"}, "name '.db' is no usable name"),
    ({"name": "db:1"}, "name 'db:1' is no usable name"),
    ({"name": "d" * 32}, "is 32 characters long; md allows 31"),
    ({"name": None}, "name None is no name"),
    ({"name": "0"}, "would be taken for the number of an md device"),
    ({"name": "md0"}, "would be taken for the number of an md device"),
    ({"name": "md_d12"}, "would be taken for the number of an md device"),
    ({"name": "d3"}, "would be taken for the number of an md device"),
    ({"replication": "often"}, "device db: replication 'often' is not one of async and sync"),
    ({"time_base": 15}, "device db: time_base 15 is too short; it is at least 16: commit_interval 1 + commit_deadline 5 + 10 until systemd ends a guard"),
    ({"filesystem": "zfs"}, "filesystem 'zfs' is not one of btrfs, ext4 and xfs"),
    ({"filesystem": "xfs", "mount": "srv/db"}, "mount 'srv/db' is not an absolute path"),
    ({"filesystem": "xfs", "mount": "/"}, "mount '/' names nothing that can be used"),
    ({"mount": "/srv/db"}, "it has a mount but no filesystem"),
    ({"local": "leg.img"}, "local 'leg.img' is not an absolute path"),
    ({"local": "/var/lib/indestructible/stores/vault1/db.img"}, "lies in /var/lib/indestructible/stores"),
    ({"write_behind": 16384}, "write_behind 16384 is no number between 1 and 16383"),
    ({"bitmap_chunk": "5M"}, "bitmap_chunk '5M' is no power of two"),
    ({"filesytem": "xfs"}, "device db: 'filesytem' is unknown; did you mean 'filesystem'?"),
    ({"colour": "red"}, "device db: 'colour' is unknown; known are name, size, store"),
])
def test_a_mistake_in_a_device_is_named(change, said):
    problems = devices(change)
    assert len(problems) == 1 and said in problems[0], problems


@pytest.mark.parametrize("change, said", [
    ({}, "there are two devices called 'db'"),
    ({"name": "log", "local": "/var/lib/indestructible/db.img"}, "device log: local /var/lib/indestructible/db.img is already the local of device db"),
    ({"name": "log", "local": "/var/lib/indestructible/x/../db.img"}, "is already the local of device db"),
])
def test_two_devices_do_not_share(change, said):
    assert any(said in problem for problem in devices({}, change))


def test_mounts_are_not_shared_and_hold_no_local_leg():
    one = {"name": "one", "filesystem": "xfs", "mount": "/srv/db"}
    problems = devices(one, dict(one, name="two", mount="/srv/db/"))
    assert problems == ["device two: mount /srv/db is already the mount of device one; one path serves one purpose"]
    problems = devices(one, {"name": "two", "local": "/srv/db/two.img"})
    assert len(problems) == 1 and "local /srv/db/two.img lies in the mount of device one" in problems[0]


def test_all_mistakes_come_at_once():
    assert len(devices({"size": "x", "store": "y", "replication": "often", "filesystem": "zfs"}, {"name": "a b"})) == 5


@pytest.mark.parametrize("change, said", [
    ({"portal": "192.0.2.300"}, "store vault1: portal '192.0.2.300' is no portal"),
    ({"portal": "192.0.2.10:0"}, "has the port 0"),
    ({"portal": "0.0.0.0"}, "is an address that no host has"),
    ({"target": "vault1"}, "store vault1: target 'vault1' is no iSCSI name"),
    ({"target": "iqn.2026-13.org.example:x"}, "is no iSCSI name"),
    ({"lun": 16384}, "lun 16384 is no LUN number; it lies between 0 and 16383"),
    ({"lun": -1}, "lun -1 is no LUN number"),
    ({"target": None}, "target is missing; write portal, target and lun, or the path of a block device as device"),
    ({"portal": None, "target": None}, "portal and target is missing"),
    ({"device": "/dev/sdb"}, "it has a device and also portal, target and lun; keep one of the two"),
    ({"chap": {"username": "alpha"}}, "store vault1: chap has a username but no password"),
    ({"chap": {"mutual_username": "t", "mutual_password": "p"}}, "mutual chap also needs username and password"),
    ({"timeouts": {"replacement": 5}}, "'replacement' is unknown; did you mean 'replacement_timeout'?"),
    ({"name": "vault1.next"}, "a name that ends in .next is that of the LUN to which a store moves"),
    ({"commit_interval": 0}, "commit_interval 0 is no number between 1 and 3600"),
    ({"commit_deadline": 1}, "commit_deadline 1 is no number between 2 and 600"),
    ({"warn_free": 20}, "store vault1: warn_free 20 is no list of numbers, such as [20, 10]"),
    ({"warn_free": [20, 100]}, "store vault1: warn_free 100 is no number between 1 and 99"),
    ({"warn_days": [7, 0]}, "store vault1: warn_days 0 is no number between 1 and 3650"),
    ({"warn_days": ["soon"]}, "store vault1: warn_days 'soon' is no number between 1 and 3650"),
    ({"warn_days": [7, 7]}, "store vault1: warn_days [7, 7] has a number twice"),
    ({"portl": "x"}, "'portl' is unknown; did you mean 'portal'?"),
    ({"retention": "30d"}, "store vault1: retention is no mapping; write keep: and a period, such as retention: {keep: 30d}"),
    ({"retention": {}}, "store vault1: retention: keep is missing; write a period such as 30d, or leave retention out to keep everything"),
    ({"retention": {"keep": "30 days"}},
     "store vault1: retention: keep: '30 days' is not a period; write a number and m, h, d or w, such as 30d, 12h, 90m or 2w"),
    ({"retention": {"keep": 30}}, "store vault1: retention: keep: 30 is not a period; write a number and m, h, d or w, such as 30d, 12h, 90m or 2w"),
    ({"retention": {"keep": "0d"}}, "store vault1: retention: keep: '0d' is not a period"),
    ({"retention": {"keep": "30d", "kep": 1}}, "store vault1: retention: 'kep' is unknown; did you mean 'keep'?"),
])
def test_a_mistake_in_a_store_is_named(change, said):
    problems = stores(change)
    assert len(problems) == 1 and said in problems[0], problems


def test_secrets_are_not_told():
    secret = "open sesame"
    problems = stores({"chap": {"username": "a", "password": secret, "mutual_username": "b", "mutual_password": secret, "pasword": secret}})
    assert len(problems) == 2 and not any(secret in problem for problem in problems)


def test_one_lun_holds_one_store():
    assert "one LUN holds one store" in stores({}, {"name": "vault2"})[0]
    assert stores({}, {"name": "vault2", "lun": 1}) == []
    assert "one LUN holds one store" in stores({}, {"name": "vault2", "target": STORE["target"].upper().replace("IQN", "iqn")})[0]


@pytest.mark.parametrize("key, one, other", [
    ("chap", {"username": "alpha", "password": "open sesame"}, None), ("timeouts", {"replacement_timeout": 5}, {"replacement_timeout": 4}),
])
def test_stores_on_one_target_share_its_login(key, one, other):
    two = {"name": "vault2", "lun": 1}
    assert stores({key: one}, dict(two, **{key: one})) == []
    said, = stores({key: one}, dict(two, **{key: other}))
    assert f"store vault2: its {key} are not those of store vault1" in said and "sesame" not in said
    assert stores({key: one}, dict(two, target="iqn.2026-11.org.example:vault2", **{key: other})) == []


@pytest.mark.parametrize("change, said", [
    ({"backing": None}, "export vault1: backing is missing"),
    ({"backing": "/srv/lun.img"}, "/srv/lun.img is a file, so it needs a size"),
    ({"size": "1G"}, "/dev/sdb is a block device, whose size is its own"),
    ({"lun": 256}, "lun 256 is no number between 0 and 255"),
    ({"lun": 16384}, "lun 16384 is no LUN number"),
    ({"portals": ["storage.example"]}, "is no address; a target listens at an address"),
    ({"allow": [{"initiator": "alpha"}]}, "initiator 'alpha' is no iSCSI name"),
    ({"allow": EXPORT["allow"] * 2}, "is allowed twice"),
    ({"allow": "all"}, "allow is no list"),
])
def test_a_mistake_in_an_export_is_named(change, said):
    problems = exports(change)
    assert len(problems) == 1 and said in problems[0], problems


def test_two_exports_do_not_share():
    problems = exports({}, {"name": "other"})
    assert len(problems) == 2 and "is already the backing" in problems[0] and "is already export" in problems[1]


@pytest.mark.parametrize("one, other", [
    ({}, {}),
    ({"portals": None}, {"portals": ["0.0.0.0"]}),
    ({"portals": []}, {"portals": ["0.0.0.0:3260"]}),
    ({"portals": ["192.0.2.1", "[2001:db8::1]"]}, {"portals": ["2001:DB8:0::1", "192.0.2.1:3260"]}),
    ({"portals": ["192.0.2.1"]}, {"portals": ["192.0.2.2"], "target": "iqn.2026-11.org.example:other"}),
    ({"allow": [allow("a", "u", "p")]}, {"allow": [allow("b", "v", "q")]}),
    ({"allow": [allow("a", "u", "p")]}, {"allow": [allow("A", "u", "p", mutual_username="")]}),
    ({"allow": [allow("a", "u", 12345)]}, {"allow": [allow("a", "u", "12345")]}),
    ({"allow": [allow("a", "u", "p")]}, {"allow": [allow("a", "v", "q")], "target": "iqn.2026-11.org.example:other"}),
    ({"allow": [allow("a", "u", "p")]}, {"allow": []}),
    ({"allow": [allow("a", "u", "p")]}, {"allow": [allow("b")], "target": "iqn.2026-11.org.example:other"}),
])
def test_exports_of_one_target_agree(one, other):
    assert shared(one, other) == shared(other, one) == []


@pytest.mark.parametrize("one, other, said", [
    ({}, {"portals": ["192.0.2.1"]}, "export e1: its portals are 192.0.2.1:3260, but those of export e0 are 0.0.0.0:3260; exports of one target share"),
    ({"portals": ["192.0.2.1", "192.0.2.2"]}, {"portals": ["192.0.2.1"]}, "but those of export e0 are 192.0.2.1:3260 and 192.0.2.2:3260"),
    ({"portals": ["192.0.2.1"]}, {"portals": ["192.0.2.1:860"]}, "its portals are 192.0.2.1:860, but"),
    ({"portals": ["192.0.2.1"]}, {"portals": ["192.0.2.2"], "target": EXPORT["target"].upper().replace("IQN", "iqn")}, "its portals are 192.0.2.2:3260"),
    ({"allow": [allow("a", "u", "p")]}, {"allow": [allow("a", "u", "q")]}, "export e1: the chap of iqn.2026-11.org.example:a is not the one that"),
    ({"allow": [allow("a", "u", "p")]}, {"allow": [allow("A", "v", "p")]}, "is not the one that export e0 has"),
    ({"allow": [allow("a", "u", "p", mutual_username="m", mutual_password="n")]}, {"allow": [allow("a", "u", "p")]}, "is not the one that export e0 has"),
    ({"allow": [allow("a", "u", "p")]}, {"allow": [allow("b")]}, "iqn.2026-11.org.example:b has no chap, while others have"),
    ({"allow": [allow("a", "u", "p"), allow("b")]}, {"target": "iqn.2026-11.org.example:other"}, "iqn.2026-11.org.example:b has no chap, while others have"),
])
def test_exports_of_one_target_that_contradict_each_other_are_named(one, other, said):
    """Each would undo the other's portals or credentials, so that no run were ever the last."""
    problems = shared(one, other)
    assert len(problems) == 1 and said in problems[0], problems
    assert not any(f"'{secret}'" in problems[0] for secret in "pqn")


def test_contradictions_are_looked_for_when_nothing_else_is_wrong():
    assert len(shared({"portals": ["storage.example"]}, {"portals": ["192.0.2.1"]})) == 1
    assert len(shared({"allow": ["x"]}, {"target": None})) == 2


def test_a_device_is_resolved():
    resolved = _config.resolve_devices([dict(DEVICE, filesystem="xfs", mount="/srv/db")], [STORE])[0]
    size = 100 << 30
    assert resolved["size"] == size and resolved["leg_size"] == size + (4 << 20)
    assert resolved["local"] == "/var/lib/indestructible/db.img" and resolved["local_kind"] == "file"
    assert resolved["remote"] == "/var/lib/indestructible/stores/vault1/db.img"
    assert resolved["path"] == "/dev/md/db" and resolved["replication"] == "async" and resolved["bitmap_chunk"] == 8 << 20
    assert _config.resolve_devices([dict(DEVICE, local="/dev/vg/db")], [STORE])[0]["local_kind"] == "block"


def test_a_store_is_resolved():
    resolved = _config.resolve_stores([STORE, {"name": "disk", "device": "/dev/sdb"}], _portal.normal_portal)
    assert resolved[0]["keep"] is None
    capital = dict(STORE, target="iqn.2026-11.org.example:Vault1", timeouts={"replacement_timeout": None, "login_timeout": 9})
    capital = _config.resolve_stores([capital], _portal.normal_portal)[0]
    assert capital["target"] == "iqn.2026-11.org.example:vault1" and capital["timeouts"] == {"login_timeout": 9, "replacement_timeout": 5}
    assert _config.resolve_stores([dict(STORE, retention={"keep": "30d"})], _portal.normal_portal)[0]["keep"] == "30d"
    assert resolved[0]["portal"] == "192.0.2.10:3260" and resolved[0]["device"] is None and resolved[0]["label"] == "indestructible-vault1"
    assert resolved[1]["device"] == "/dev/sdb" and resolved[1]["portal"] is None and resolved[1]["lun"] is None


@pytest.mark.parametrize("given, deadlines, found", [
    (None, (5, 5), 5), (None, (5, 2), 2), (None, (60, 60), 5), ("3", (5, 5), 3), (60, (60, 60), 60)])
def test_a_broken_session_fails_what_waits_by_the_deadline_of_every_store_on_it(given, deadlines, found):
    two = [dict(STORE, name=f"vault{number}", lun=number, commit_deadline=deadline, timeouts={"replacement_timeout": given})
           for number, deadline in enumerate(deadlines)]
    assert stores(*two) == []
    two.append({"name": "disk", "device": "/dev/sdb", "commit_deadline": 2})
    assert [store["timeouts"] for store in _config.resolve_stores(two, _portal.normal_portal)] == [{"replacement_timeout": found}] * 2 + [{}]


def test_a_replacement_timeout_beyond_the_deadline_is_refused():
    said, = stores({"timeouts": {"replacement_timeout": "6"}})
    assert "replacement_timeout 6 is longer than commit_deadline 5" in said and "write at most 5" in said
    assert stores({"timeouts": {"replacement_timeout": 6}, "commit_deadline": 6}) == []
    assert len(stores({"timeouts": {"replacement_timeout": "soon"}, "commit_deadline": "later"})) == 2


def test_secrets_are_left_out_when_not_wanted():
    store = dict(STORE, chap={"username": "alpha", "password": "open sesame"})
    assert _config.resolve_stores([store], _portal.normal_portal)[0]["chap"] == store["chap"]
    assert _config.resolve_stores([store], _portal.normal_portal, chap=False)[0]["chap"] is None


@pytest.mark.parametrize("portal, normal", [
    ("192.0.2.10", "192.0.2.10:3260"), ("192.0.2.10:860", "192.0.2.10:860"), ("2001:DB8::10", "[2001:db8::10]:3260"),
    ("[2001:db8::10]", "[2001:db8::10]:3260"), ("[2001:db8:0::10]:3261", "[2001:db8::10]:3261"), ("Storage-1.example", "storage-1.example:3260"),
    ("storage:3261", "storage:3261"),
])
def test_portals_are_normalised(portal, normal):
    assert _portal.normal_portal(portal) == normal
    assert _portal.normal_portal(normal) == normal


@pytest.mark.parametrize("portal", [
    "", None, 5, "192.0.2", "192.0.2.256", "10.1", "1", "host:port", "host:", "host:70000", "[192.0.2.1]:3260", "[2001:db8::10", "a b", "-a", "a..b", "a/b",
])
def test_what_is_no_portal_is_refused(portal):
    assert _portal.portal_problem(portal)


def test_the_levels_of_warnings_have_defaults_and_an_order():
    plain, own, none = (_config.resolve_stores([dict(STORE, **change)], str)[0] for change in ({}, {"warn_free": [5, "15"], "warn_days": [30]},
                                                                                               {"warn_free": [], "warn_days": []}))
    assert (plain["warn_free"], plain["warn_days"]) == ([20, 10], [7, 2])
    assert (own["warn_free"], own["warn_days"]) == ([15, 5], [30])
    assert (none["warn_free"], none["warn_days"]) == ([], [])
