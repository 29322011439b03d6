# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _iscsi, _iscsi_node as node
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

TARGET = "iqn.2026-11.org.example:disk1"


@pytest.mark.parametrize("text, host, port", [
    ("192.0.2.10", "192.0.2.10", 3260),
    ("192.0.2.10:860", "192.0.2.10", 860),
    ("store1.example.org", "store1.example.org", 3260),
    ("Store1:65535", "store1", 65535),
    ("[2001:DB8:0::10]:3261", "2001:db8::10", 3261),
    ("[2001:db8::10]", "2001:db8::10", 3260),
    ("2001:db8::10", "2001:db8::10", 3260),
    ("::1", "::1", 3260),
])
def test_portal_is_read(text, host, port):
    assert _iscsi.parse_portal(text) == (host, port)
    assert _iscsi.parse_portal(_iscsi.format_portal(host, port)) == (host, port)


@pytest.mark.parametrize("text", [
    "", " ", "not an address", "300.1.2.3", "192.0.2", "192.0.2.10:", "192.0.2.10:0", "192.0.2.10:65536", "192.0.2.10:x", "[192.0.2.10]:3260",
    "[2001:db8::10", "2001:db8::10]:3260", "[2001:db8::10]3260", "[fe80::1%eth0]:3260", "-store", "store/1", "a..b", "host:3260:1", "host,1", None, 5,
])
def test_portal_that_is_none_is_refused(text):
    with pytest.raises(Problem, match="is no address"):
        _iscsi.parse_portal(text)


@pytest.mark.parametrize("name", ["iqn.2026-11.org.example:vault1", "iqn.2026-11.org.example", "eui.0123456789abcdef", "naa.0123456789abcdef"])
def test_iscsi_name_is_accepted(name):
    assert _iscsi.check_name(name.upper(), "target") == name


@pytest.mark.parametrize("name", [
    "vault1", "iqn.2026-13.org.example:a", "iqn.2026-11.org.example:a/b", "iqn.2026-11.org.example:a b", "", "iqn.2026-11.org.example:../x/",
])
def test_iscsi_name_that_is_none_is_refused(name):
    with pytest.raises(Problem, match="target: .* is no iSCSI name"):
        _iscsi.check_name(name, "target")


@pytest.mark.parametrize("chap, words", [
    ({"username": "alpha"}, "username but not password"),
    ({"password": "topsecret1234"}, "password but not username"),
    ({"mutual_username": "t", "mutual_password": "topsecret1234"}, "mutual_username but not username"),
    ({"username": "alpha", "password": " topsecret1234"}, "password must be"),
    ({"username": "alpha", "password": "topsecret\n1234"}, "password must be"),
    ({"username": "alpha", "password": "topsecret1234", "mutual_username": "t", "mutual_password": "topsecret1234"}, "are the same"),
])
def test_chap_that_cannot_work_is_refused_without_telling_it(chap, words):
    with pytest.raises(Problem, match=words) as refusal:
        _iscsi.check_chap(chap, "target x")
    assert "topsecret" not in str(refusal.value)


RECORD = """# BEGIN RECORD 2.1.8
node.name = iqn.2026-11.org.example:disk1
node.startup = manual
node.session.auth.authmethod = None
node.session.timeo.replacement_timeout = 120
node.conn[0].address = 192.0.2.10
# END RECORD
"""


def test_record_is_edited_line_by_line():
    edited = node.edit_record(RECORD, {"node.startup": "automatic", "node.session.auth.password": "a = b", "node.session.auth.authmethod": None})
    assert edited == RECORD.replace("manual", "automatic").replace("node.session.auth.authmethod = None\n", "").replace(
        "# END", "node.session.auth.password = a = b\n# END")
    assert node.parse_record(edited)["node.session.auth.password"] == "a = b"


def test_record_that_says_it_already_stays_byte_for_byte():
    assert node.edit_record(RECORD, {"node.startup": "manual", "node.session.auth.password": None}) == RECORD


@pytest.mark.parametrize("name, place", [
    ("192.0.2.10,3260", ("192.0.2.10", 3260)), ("2001:db8::10,3260,1", ("2001:db8::10", 3260)), ("default", None), ("a,b", None),
])
def test_record_file_names(name, place):
    assert node.parse_entry(name) == place


def test_hosts_are_compared_by_value():
    assert node.same_host("2001:db8:0:0::10", "[2001:db8::10]")
    assert node.same_host("Store", "store")
    assert not node.same_host("192.0.2.1", "192.0.2.10")


def wanted(**more):
    return _iscsi.normalize(dict({"portal": "192.0.2.10", "target": TARGET, "lun": 0}, **more))


def observed(**more):
    """A session that is just as wanted() asks for."""
    want = wanted()
    live = {name: want["timeouts"][name] for name in ("replacement_timeout", "noop_out_interval", "noop_out_timeout")}
    return dict({
        "state": "present", "portal": want["portal"], "target": TARGET, "lun": 0, "record": True, "startup": "automatic",
        "timeouts": want["timeouts"], "chap": "none", "credentials_match": True, "initiator_name": "iqn.2026-11.org.example:alpha",
        "session_id": 1, "session_state": "LOGGED_IN", "live_timeouts": live, "pending_relogin": [], "luns": [], "device": "/dev/disk/by-id/scsi-3",
        "_differing": [], "_grown": None, "_sessions": 1, "_users": [],
    }, **more)


NOTHING = dict(state="absent", record=False, startup=None, timeouts={}, chap=None, credentials_match=None, session_id=None,
               session_state=None, live_timeouts={}, device=None, _sessions=0)


def verbs(want, state):
    before = copy.deepcopy(state)
    steps = _iscsi.plan(want, state)
    assert state == before
    return [step.verb for step in steps]


def test_nothing_to_do():
    assert verbs(wanted(), observed()) == []
    assert verbs(wanted(state="absent"), observed(**NOTHING)) == []


def test_login_from_nothing_and_its_prediction():
    want, state = wanted(), observed(**NOTHING)
    steps = _iscsi.plan(want, state)
    assert [step.verb for step in steps] == ["record", "login"]
    after = _iscsi.predict(want, state, steps)
    assert after == observed(session_id=None, device=None, _sessions=0)


@pytest.mark.parametrize("change, expected", [
    ({"_differing": ["node.startup"]}, ["record"]),
    ({"session_id": None, "session_state": None}, ["login"]),
    ({"device": None}, ["find"]),
    ({"_grown": 1 << 30}, ["grow"]),
    ({"live_timeouts": {"replacement_timeout": 120, "noop_out_interval": 2, "noop_out_timeout": 2}}, ["live"]),
    ({"pending_relogin": ["chap"], "_differing": ["node.session.auth.password"]}, ["record", "relogin"]),
    ({"pending_relogin": ["chap"], "_users": ["LUN 0 (sda) is mounted on /mnt"]}, []),
])
def test_what_differs_is_all_that_changes(change, expected):
    assert verbs(wanted(), observed(**change)) == expected


def test_absent_logs_out_and_deletes_the_record():
    want, state = wanted(state="absent"), observed()
    steps = _iscsi.plan(want, state)
    assert [step.verb for step in steps] == ["logout", "forget"]
    assert _iscsi.predict(want, state, steps)["state"] == "absent"


def test_absent_is_refused_while_a_disk_is_in_use():
    with pytest.raises(Problem, match="in use: LUN 0 .sda. is mounted on /mnt. Take it out of use"):
        _iscsi.plan(wanted(state="absent"), observed(_users=["LUN 0 (sda) is mounted on /mnt"]))


def test_the_initiator_is_only_renamed_without_sessions():
    want = wanted(initiator_name="iqn.2026-11.org.example:beta")
    assert verbs(want, observed(**NOTHING)) == ["rename", "record", "login"]
    with pytest.raises(Problem, match="has 1 iSCSI sessions under that name"):
        _iscsi.plan(want, observed())


def test_secrets_reach_the_record_but_no_sentence():
    want = wanted(chap={"username": "alpha", "password": "topsecret1234"})
    assert _iscsi.wanted_settings(want)["node.session.auth.password"] == "topsecret1234"
    assert _iscsi.wanted_settings(want)["node.session.auth.password_in"] is None
    assert "topsecret" not in str([step.what for step in _iscsi.plan(want, observed(**NOTHING))])


@pytest.mark.parametrize("more, words", [
    ({"lun": -1}, "lun: -1 is no LUN number"),
    ({"timeouts": {"replacement_timeout": 0}}, "replacement_timeout 0 is not a number of seconds above zero"),
    ({"portal": "not an address"}, "is no address"),
])
def test_what_can_never_be_right(more, words):
    with pytest.raises(Problem, match=words):
        wanted(**more)


@pytest.mark.parametrize("back", [True, False])
def test_a_timeout_that_the_guard_lowers_for_a_moment_is_waited_for(monkeypatch, back):
    """times: what the session has at each look."""
    times = [1, 1, 5, 5] if back else [1]

    def session(_want):
        live = dict(_iscsi.DEFAULT_TIMEOUTS, replacement_timeout=times.pop(0) if len(times) > 1 else times[0])
        return {"id": 1, "state": "LOGGED_IN", "live": live, "secrets": wanted()["chap"], "initiator_name": None}
    monkeypatch.setattr(_iscsi, "_HASTENED", 30 if back else 0)
    monkeypatch.setattr(_iscsi, "find_session", session)
    monkeypatch.setattr(_iscsi, "_units", lambda session: [])
    monkeypatch.setattr(node, "find_record", lambda *args: None)
    monkeypatch.setattr(node, "initiator_name", lambda: None)
    monkeypatch.setattr(node, "sessions", lambda: [1])
    assert _iscsi.observe(wanted())["live_timeouts"]["replacement_timeout"] == (5 if back else 1)
