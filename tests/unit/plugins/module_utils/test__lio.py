# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _lio, _lio_config as config
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

TARGET = "iqn.2026-11.org.example:vault1"
ALPHA, BETA = "iqn.2026-11.org.example:alpha", "iqn.2026-11.org.example:beta"
CHAP = {"username": "alpha", "password": "topsecret1234", "mutual_username": "", "mutual_password": ""}
NO_CHAP = dict.fromkeys(CHAP, "")


def wanted(**more):
    return _lio.normalize(dict({"name": "vault1", "target": TARGET, "backing": "/dev/sdb", "allow": [{"initiator": ALPHA, "chap": CHAP}]}, **more))


def served(**more):
    """What the kernel serves when wanted() is fulfilled."""
    return dict({
        "enabled": True, "portals": [("0.0.0.0", 3260)], "luns": {0: "vault1"}, "acls": {ALPHA: {"chap": CHAP, "luns": {0: 0}}},
        "attributes": dict(config.ATTRIBUTES, authentication=1),
    }, **more)


def store(**more):
    serial = _lio.default_serial(TARGET, "vault1")
    return dict({"name": "vault1", "plugin": "iblock", "backing": "/dev/sdb", "size": None, "serial": serial, "write_back": False}, **more)


def observed(**more):
    """The state in which wanted() has nothing to do."""
    serial = _lio.default_serial(TARGET, "vault1")
    return dict({
        "state": "present", "name": "vault1", "target": TARGET, "lun": 0, "backing": "/dev/sdb", "kind": "block", "size": 1 << 30, "serial": serial,
        "device": config.by_id(serial), "portals": ["0.0.0.0:3260"], "allow": [{"initiator": ALPHA, "chap": "one-way", "logged_in": False}],
        "enabled": True, "saved": True, "_store": store(), "_same_backing": True, "_backing_of": None, "_serial_of": {}, "_use": None,
        "_there": "block", "_there_size": 1 << 30, "_target": served(), "_logged_in": set(),
    }, **more)


BLANK = dict(state="absent", lun=None, backing=None, kind=None, size=None, serial=None, portals=[], allow=[], enabled=False,
             _store=None, _same_backing=False, _target=None)


def verbs(want, state):
    before = copy.deepcopy(state)
    steps = _lio.plan(want, state)
    assert state == before
    return [step.verb for step in steps]


def test_nothing_to_do():
    assert verbs(wanted(), observed()) == []
    assert verbs(wanted(state="absent"), observed(**BLANK)) == []


def test_export_from_nothing_and_its_prediction():
    want, state = wanted(), observed(**BLANK)
    steps = _lio.plan(want, state)
    assert [step.verb for step in steps] == ["open_store", "make_target", "set_attributes", "add_lun", "add_acl", "set_chap", "map_lun",
                                             "add_portal", "enable", "save"]
    assert _lio.public(_lio.predict(want, state, steps)) == _lio.public(observed())
    assert "topsecret" not in str([step.what for step in steps])


def test_a_file_is_made_and_grown_but_never_shrunk():
    want = wanted(backing="/srv/a.img", size="2G")
    assert verbs(want, observed(**dict(BLANK, _there=None, _there_size=None)))[:2] == ["make_file", "open_store"]
    file = store(plugin="fileio", backing="/srv/a.img", size=1 << 30)
    assert verbs(want, observed(_there="file", _store=file, kind="file")) == ["grow_file", "grow_store", "save"]
    with pytest.raises(Problem, match="has 3 GiB, more than 2 GiB; it is never made smaller"):
        _lio.plan(want, observed(**dict(BLANK, _there="file", _there_size=3 << 30)))


@pytest.mark.parametrize("more, words", [
    ({"_use": "mounted on /mnt"}, "/dev/sdb is mounted on /mnt; a device in use is not exported"),
    ({"_backing_of": "other"}, "/dev/sdb is already exported as other"),
    ({"_there": None, "_there_size": None}, "/dev/sdb does not exist"),
    ({"_serial_of": {config.by_id(_lio.default_serial(TARGET, "vault1")): "other"}}, "same disk name as the export other"),
])
def test_a_backing_that_cannot_be_exported(more, words):
    with pytest.raises(Problem, match=words):
        _lio.plan(wanted(), observed(**dict(BLANK, **more)))


@pytest.mark.parametrize("more, state, words", [
    ({}, {"_same_backing": False}, "is backed by /dev/sdb, not by /dev/sdb; remove it first"),
    ({"serial": "0" * 32}, {}, "has the serial"),
    ({"lun": 1}, {}, "is LUN 0 of .*, not 1; remove it first"),
    ({}, {"_store": store(plugin="fileio", size=1 << 30, write_back=True)}, "from a write-back cache"),
    ({}, {"lun": None, "_target": served(luns={0: "other"})}, "lun: 0 of .* is the export other"),
    ({"size": "1G"}, {}, "is a block device, which has a size of its own"),
])
def test_an_export_is_not_turned_into_another(more, state, words):
    with pytest.raises(Problem, match=words):
        _lio.plan(wanted(**more), observed(**state))


def test_credentials_initiators_and_portals_are_reconciled():
    other = {ALPHA: {"chap": dict(CHAP, password="old"), "luns": {0: 0}}, BETA: {"chap": CHAP, "luns": {0: 0}}}
    state = observed(_target=served(acls=other, portals=[("192.0.2.1", 3260)]))
    assert verbs(wanted(), state) == ["set_chap", "remove_acl", "remove_portal", "add_portal", "save"]


def test_an_initiator_of_another_export_of_the_target_keeps_that_one():
    acls = {ALPHA: {"chap": CHAP, "luns": {0: 0, 1: 1}}, BETA: {"chap": CHAP, "luns": {0: 0, 1: 1}}}
    assert verbs(wanted(), observed(_target=served(luns={0: "vault1", 1: "vault2"}, acls=acls))) == ["unmap_lun", "save"]


def test_all_initiators_have_credentials_or_none():
    acls = {ALPHA: {"chap": CHAP, "luns": {0: 0}}, BETA: {"chap": NO_CHAP, "luns": {1: 1}}}
    with pytest.raises(Problem, match=f"{BETA} has no chap on"):
        _lio.plan(wanted(), observed(_target=served(luns={0: "vault1", 1: "vault2"}, acls=acls)))


def test_absent_keeps_the_target_for_other_exports():
    acls = {ALPHA: {"chap": CHAP, "luns": {0: 0, 1: 1}}, BETA: {"chap": CHAP, "luns": {0: 0}}}
    assert verbs(wanted(state="absent"), observed()) == ["remove_lun", "remove_target", "remove_store", "save"]
    shared = observed(_target=served(luns={0: "vault1", 1: "vault2"}, acls=acls))
    assert verbs(wanted(state="absent"), shared) == ["remove_lun", "remove_acl", "remove_store", "save"]


def test_absent_is_refused_while_an_initiator_is_logged_in():
    with pytest.raises(Problem, match=f"export vault1 is in use: {ALPHA} is logged in"):
        _lio.plan(wanted(state="absent"), observed(allow=[{"initiator": ALPHA, "chap": "one-way", "logged_in": True}]))


def test_what_is_only_live_is_saved():
    assert verbs(wanted(), observed(saved=False)) == ["save"]


def test_serials_are_stable_and_name_the_disk():
    assert _lio.default_serial(TARGET, "vault1") == _lio.default_serial(TARGET, "vault1") != _lio.default_serial(TARGET, "vault2")
    assert config.by_id("01234567-89ab-cdef-0123-456789abcdef") == "/dev/disk/by-id/scsi-360014050123456789abcdef012345678"


@pytest.mark.parametrize("more, words", [
    ({"name": "a/b"}, "is no name of an export"),
    ({"backing": "b.img"}, "is no absolute path"),
    ({"lun": 256}, "lun: 256 is no LUN number"),
    ({"serial": "vault1"}, "at least 25 digits"),
    ({"portals": ["store1:3260"]}, "is a name; a target listens on addresses"),
    ({"allow": [{"initiator": ALPHA}, {"initiator": ALPHA.upper()}]}, "is listed twice"),
    ({"size": "much"}, "is not a size"),
])
def test_what_can_never_be_right(more, words):
    with pytest.raises(Problem, match=words):
        wanted(**more)


def test_saving_replaces_just_one_export():
    saved = {"fabric_modules": [], "storage_objects": [{"name": "vault1"}, {"name": "other"}],
             "targets": [{"wwn": TARGET, "fabric": "iscsi"}, {"wwn": "iqn.2026-11.org.example:vault10", "fabric": "iscsi"}]}
    merged = config.merge_saved(saved, "vault1", {"name": "vault1", "dev": "/dev/sdb"}, TARGET, None)
    assert merged["storage_objects"] == [{"name": "other"}, {"name": "vault1", "dev": "/dev/sdb"}]
    assert [one["wwn"] for one in merged["targets"]] == ["iqn.2026-11.org.example:vault10"]


def test_saved_configuration_compares_with_what_is_live():
    saved = {"targets": [{"wwn": TARGET, "fabric": "iscsi", "tpgs": [{
        "tag": 1, "enable": True, "portals": [{"ip_address": "0.0.0.0", "port": 3260}], "attributes": dict(config.ATTRIBUTES, authentication=1, x=5),
        "luns": [{"index": 0, "storage_object": "/backstores/block/vault1"}],
        "node_acls": [{"node_wwn": ALPHA, "chap_userid": "alpha", "chap_password": "topsecret1234", "mapped_luns": [{"index": 0, "tpg_lun": 0}]}],
    }]}], "storage_objects": [{"name": "vault1", "plugin": "block", "dev": "/dev/sdb", "wwn": store()["serial"], "write_back": False}]}
    assert config.saved_target(saved, TARGET) == served()
    assert config.saved_backstore(saved, "vault1") == store()
