# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import types

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _capacity, _cleaner, _generations, _swap
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

TARGET = {"portal": "10.0.0.1:3260", "target": "iqn.2026-11.org.example:vault1", "device": None}
STORE = dict(TARGET, name="vault1", lun=0, label="indestructible-vault1", mount="/stores/vault1", block_size=4096, reserved=5, keep=None)
DEVICE = {"name": "db", "store": "vault1", "remote": "/stores/vault1/db.img", "local": "/db.img", "size": 1 << 30}


@pytest.fixture(name="records")
def records_fixture(monkeypatch):
    records = {"db": {"phase": "ready"}}
    monkeypatch.setattr(_swap, "load_record", lambda kind, name: records.get(name, {}) if kind == "devices" else {})
    monkeypatch.setattr(_swap, "is_ours", lambda device: records.get(device["name"], {}).get("phase") == "ready")
    return records


def want(records, **given):
    undo = given.pop("undo", False)
    config = types.SimpleNamespace(stores={"vault1": STORE}, devices={"db": DEVICE} if records else {})
    return _swap.normalize({"store": "vault1", "place": given, "undo": undo, "check_mode": True}, config)


def state(begun=None, generations=(), uuid="old"):
    return {"store": "vault1", "generation": len(generations) + 1, "uuid": uuid, "place": _generations.place_of(STORE), "generations": list(generations),
            "_record": {}, "_begun": begun or {}}


def verbs(wanted, seen):
    return [step.verb for step in _swap.plan(wanted, seen)]


def test_a_place_is_completed_from_todays(records):
    assert want(records, lun=1)["place"] == dict(TARGET, lun=1)
    assert want(records, device="/dev/sdx")["place"] == {"portal": None, "target": None, "lun": None, "device": "/dev/sdx"}


@pytest.mark.parametrize("given, words", [
    ({}, "say where the blank LUN is"),
    ({"device": "/dev/sdx", "lun": 1}, "a device and also lun were given"),
])
def test_a_place_that_cannot_be_meant(records, given, words):
    with pytest.raises(Problem, match=words):
        want(records, **given)


def test_a_check_run_predicts_without_the_lun(records):
    assert verbs(want(records, lun=1), state()) == ["switch"]


def test_where_it_is_today_is_refused_until_it_has_moved(records):
    with pytest.raises(Problem, match="is where it is today"):
        _swap.plan(want(records, lun=0), state())
    assert verbs(want(records, lun=0), state(generations=[{"uuid": "first"}])) == []


def test_one_that_was_begun_is_completed_or_given_up_first(records):
    begun = {"uuid": "new", "place": dict(TARGET, lun=2)}
    with pytest.raises(Problem, match="a swap to LUN 2 of .* was begun; complete that one"):
        _swap.plan(want(records, lun=1), state(begun))
    assert verbs(want(records, undo=True), state(begun)) == ["undo"]
    assert verbs(want(records, undo=True), state()) == []


def test_after_its_moment_it_is_only_completed(records):
    begun = {"uuid": "new", "place": dict(TARGET, lun=1)}
    for wanted in (want(records, lun=1), want(records, undo=True)):
        assert verbs(wanted, state(begun, uuid="new")) == ["complete"]


def test_what_is_not_at_rest_is_refused(records, monkeypatch):
    records["db"] = {"phase": "adopting"}
    with pytest.raises(Problem, match="the adoption of db is not complete"):
        _swap.plan(want(records, lun=1), state())
    records["db"] = {"phase": "ready"}
    monkeypatch.setattr(_swap._md, "load_record", lambda kind, name: {"done": False} if kind == "rollbacks" else {})
    with pytest.raises(Problem, match="a rollback of db was interrupted"):
        _swap.plan(want(records, lun=1), state())


@pytest.mark.parametrize("size, data, percent, fitting", [
    (256 << 20, 100 << 20, 5, False),  # the reserve and what has to stay free take it all
    (4 << 30, 1 << 30, 5, True),
    (4 << 30, 3 << 30, 5, True),
    (4 << 30, 4000 << 20, 5, False),  # it would hold the data, but the legs could not be brought in
    (4 << 30, 3 << 30, 20, False),
])
def test_a_lun_has_to_take_the_legs_too(size, data, percent, fitting):
    problem = _swap.room_problem(size, data, 4096, percent)
    assert (problem is None) == fitting
    assert fitting or problem.startswith("needs ") and f"({percent} % reserved, " in problem
    segment = 8 << 20
    usage = _capacity.Usage(None, size // segment, size // segment, max(8, -(-(size // segment) * percent // 100)), segment)
    assert fitting == _capacity.fits(usage, data)


def test_a_volume_that_cannot_take_the_legs_now_is_refused_before_the_moment(records, monkeypatch):
    wanted = want(records, lun=1)
    monkeypatch.setattr(_swap, "mount_at", lambda point: point)
    monkeypatch.setattr(_swap, "read_leg_super", lambda leg: None)
    monkeypatch.setattr(_capacity, "to_copy", lambda leg, record: 800 << 20)
    for clean, fitting in ((300, True), (150, False)):
        monkeypatch.setattr(_capacity, "usage_at", lambda mount, clean=clean: _capacity.Usage("new", clean, 512, 26, 8 << 20))
        if fitting:
            _swap._check_legs(wanted, {"mount": "/stores/vault1.next", "device": "/dev/sdx"})
            continue
        with pytest.raises(Problem, match="1.172 GiB are free, and .* are needed to bring the legs up to date.*--undo"):
            _swap._check_legs(wanted, {"mount": "/stores/vault1.next", "device": "/dev/sdx"})


@pytest.mark.parametrize("mounted", [False, True])
def test_what_only_this_host_knows_of_a_dead_lun_is_kept(records, monkeypatch, mounted):
    records["db"] = {"phase": "ready", "uuid": "1:2", "unsafe_from": 70, "remote": "/stores/vault1/db.img"}
    records["idle"] = {"phase": "ready", "stopped": True, "uuid": "3:4", "remote": "/stores/vault1/idle.img", "unsafe_from": 50}
    records["other"] = {"phase": "ready", "uuid": "5:6", "remote": "/stores/vault2/other.img", "unsafe_from": 7}
    monkeypatch.setattr(_swap, "list_records", lambda kind: sorted(records))
    monkeypatch.setattr(_swap, "mount_at", lambda point: mounted)

    def ensure(link):
        raise Problem("the session is not back yet")
    monkeypatch.setattr(_swap.Link, "ensure", ensure)
    old = _swap._retire(want(records, lun=1), {"uuid": "old", "generation": 2, "began": 100})
    assert old["devices"] == {"db": {"uuid": "1:2", "unsafe_from": 70}, "idle": {"uuid": "3:4", "unsafe_from": 50}}
    assert (old["number"], old["began"], old["last"]) == (2, 100, None) and old["ended"] > 100


def test_what_its_lun_knows_of_it_is_noted_and_its_end_on_the_lun(records, monkeypatch, tmp_path):
    records["db"] = {"phase": "ready", "uuid": "1:2", "remote": f"{tmp_path}/db.img"}
    (tmp_path / "db.json").write_text('{"since": 5, "points": [{"name": "early", "checkpoint": 9}]}')
    wanted = want(records, lun=1)
    wanted["config"] = dict(STORE, mount=str(tmp_path))
    monkeypatch.setattr(_swap, "list_records", lambda kind: sorted(records))
    monkeypatch.setattr(_swap, "mount_at", lambda point: True)
    monkeypatch.setattr(_swap.Link, "ensure", lambda link: None)
    monkeypatch.setattr(_swap, "Volume", lambda point: contextlib.nullcontext(types.SimpleNamespace(sync=lambda: 77)))
    monkeypatch.setattr(_generations, "load_record", lambda kind, name: {"uuid": "old", "generation": 2})
    old = _swap._retire(wanted, {"uuid": "old", "generation": 2, "generations": [{"number": 1, "ended": 100}]})
    assert old["devices"] == {"db": {"uuid": "1:2", "unsafe_from": None, "since": 5, "points": [{"name": "early", "checkpoint": 9}]}}
    assert (old["began"], old["last"]) == (100, 77)
    assert json.loads((tmp_path / _generations.FILE).read_text())["ended"] == old["ended"]


def test_a_store_on_a_device_needs_the_whole_place():
    config = types.SimpleNamespace(stores={"vault1": dict(STORE, portal=None, target=None, lun=None, device="/dev/sdb")}, devices={})
    with pytest.raises(Problem, match="it is on /dev/sdb today, so give portal, target of the blank LUN too"):
        _swap.normalize({"store": "vault1", "place": {"lun": 1}}, config)
    place = dict(TARGET, lun=1)
    assert _swap.normalize({"store": "vault1", "place": dict(place, device=None)}, config)["place"] == place


class Umount:
    """An umount that is busy, hangs, or works, and what is done about it."""

    def __init__(self, monkeypatch, *answers, patience=30):
        self.answers, self.mounted, self.acts = list(answers), True, []
        monkeypatch.setattr(_swap, "_BUSY", patience)
        monkeypatch.setattr(_generations, "loops_on", lambda point: [])
        monkeypatch.setattr(_cleaner, "stop", lambda record: None)
        monkeypatch.setattr(_cleaner, "resume", lambda record: self.acts.append("resume"))
        monkeypatch.setattr(_swap, "mount_at", lambda point: self.mounted)
        monkeypatch.setattr(_swap, "try_unmount", self.umount)
        monkeypatch.setattr(_swap, "unmount", self.refuse)
        monkeypatch.setattr(_swap, "run", lambda argv, **more: self.acts.append(argv[1]))
        monkeypatch.setattr(_swap.Link, "abort", lambda link: self.acts.append("abort"))

    def umount(self, _point, _seconds):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.mounted = answer != "works"
        return answer != "hangs"

    def refuse(self, point):
        raise Problem(f"cannot unmount {point}: target is busy; it is used by sh (pid 7)")


def test_a_busy_volume_is_waited_for_and_only_one_that_hangs_is_cut_off(monkeypatch):
    calm = Umount(monkeypatch, "busy", "busy", "works")
    _swap._leave(STORE)
    assert calm.acts == []
    hung = Umount(monkeypatch, "busy", "hangs")
    _swap._leave(STORE)
    assert hung.acts == ["abort", "--lazy"]
    busy = Umount(monkeypatch, "busy", patience=0.05)
    with pytest.raises(Problem, match="it is used by sh"):
        _swap._leave(STORE)
    assert busy.acts == ["resume"]


def test_a_refused_lun_leaves_no_swap_behind(records, monkeypatch):
    saved = {}
    monkeypatch.setattr(_swap, "host_lock", contextlib.nullcontext)
    monkeypatch.setattr(_swap, "known_as", lambda device: f"identity of {device}")
    monkeypatch.setattr(_swap, "load_record", lambda kind, name: saved.get(name, {}))
    monkeypatch.setattr(_swap, "save_record", lambda kind, name, record: saved.update({name: record}))
    monkeypatch.setattr(_swap, "forget_record", lambda kind, name: saved.pop(name))

    def refuse(_wants, *_acts):
        saved["vault1.next"].update(more)
        raise Problem("in use")
    monkeypatch.setattr(_swap, "converge", refuse)
    for more, left in (({}, []), ({"claimed": "it"}, ["vault1.next"])):
        with pytest.raises(Problem, match="in use"):
            _swap._volume(want(records, lun=1), {"device": "/dev/sdx"}, None)
        assert list(saved) == left
    assert saved["vault1.next"]["identity"] == "identity of /dev/sdx"
