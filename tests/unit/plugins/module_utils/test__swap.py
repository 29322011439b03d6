# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import types

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _generations, _points, _swap
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._when import Wish

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


@pytest.mark.parametrize("wish, number", [
    (Wish("time", 500), None), (Wish("time", 399), 2), (Wish("time", 250), 2), (Wish("time", 199), 1), (Wish("time", 5), 1),
    (Wish("name", "here"), None), (Wish("name", "there"), 1), (Wish("name", "nowhere"), None), (Wish("latest", None), None),
])
def test_the_generation_that_answers(monkeypatch, wish, number):
    retired = [{"number": 2, "began": 200, "devices": {"db": {"points": []}}}, {"number": 1, "began": 100, "devices": {"db": {"points": [{"name": "there"}]}}}]
    monkeypatch.setattr(_generations, "retired", lambda store: retired)
    monkeypatch.setattr(_points, "oldest_safe", lambda volume, catalogue: types.SimpleNamespace(time=400))
    device = types.SimpleNamespace(name="db", store="vault1")
    assert _points._older(None, device, {"points": [{"name": "here"}]}, wish) == number
