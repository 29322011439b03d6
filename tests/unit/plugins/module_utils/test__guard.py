# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _catalogue, _guard_device, _guard_store
from ansible_collections.indestructible.block.plugins.module_utils._guard_device import Gate


def gate_after_a_pass(under_way=0):
    gate = Gate(20)
    gate.saw(7)
    assert gate.due(100)
    gate.passed(100, done=50, under_way=under_way)
    return gate


def test_an_idle_device_makes_no_pass():
    assert not Gate(20).due(100)


def test_a_pass_needs_a_commit_that_began_after_the_one_before():
    gate = gate_after_a_pass()
    gate.remote(101, done=50, under_way=0)
    assert gate.wants_commit() and not gate.due(200)
    gate.committed(100.5)  # it began while writes of before the pass may have been on their way
    assert not gate.due(200)
    gate.committed(101)
    assert gate.due(200) and not gate.due(119)


def test_writes_that_are_under_way_to_the_remote_leg_are_waited_for():
    """On newer kernels a write behind no longer keeps its chunk listed: it has to be in the store before the commit begins."""
    gate = gate_after_a_pass(under_way=3)
    gate.remote(101, done=52, under_way=9)
    gate.committed(102)
    assert not gate.due(200) and not gate.wants_commit()
    gate.remote(103, done=53, under_way=9)
    gate.committed(102.9)
    assert not gate.due(200)
    gate.committed(103)
    assert gate.due(200)


def test_passes_end_once_everything_can_be_forgotten():
    gate, made = Gate(20), 0
    gate.saw(7)
    for now in range(0, 2000, 20):
        gate.saw(7)
        gate.remote(now, 0, 0)
        gate.committed(now)
        if gate.due(now):
            gate.passed(now, 0, 0)
            made += 1
    assert made == 5
    gate.saw(8)
    assert gate.active


def test_every_pass_is_followed_by_the_same_wait():
    gate = gate_after_a_pass()
    gate.remote(101, 50, 0)
    gate.committed(101)
    gate.passed(120, 60, 0)
    gate.remote(120.5, 60, 0)
    gate.committed(119)
    assert not gate.due(1000)


@pytest.mark.parametrize("pause, calm, then", [(0, 0, 1), (1, 0, 2), (32, 5, 60), (60, 29, 60), (60, 30, 1)])
def test_attempts_become_rare_and_quick_again(pause, calm, then):
    assert _guard_store.next_pause(pause, calm) == then


def test_progress(monkeypatch):
    shown = {"inflight": "0 0", "stat": "0 " * 17}
    monkeypatch.setattr(_guard_device, "read_text", lambda path: shown[path.rpartition("/")[2]])
    progress = _guard_device.Progress()
    assert progress.stuck("sda", 1) == 0
    shown["inflight"] = "0 2"
    assert progress.stuck("sda", 2) == 0 and progress.stuck("sda", 2.5) == 0.5
    shown["stat"] = "1 " * 17
    assert progress.stuck("sda", 3) == 0
    assert progress.stuck(None, 4) == 0


@pytest.mark.parametrize("phase, state", [("creating", "stopped"), ("adopting", "stopped"), ("ready", "out"), (None, "out")])
def test_a_device_that_is_being_made_is_left_alone(monkeypatch, phase, state):
    monkeypatch.setattr(_guard_device, "load_record", lambda kind, name: {"phase": phase})
    monkeypatch.setattr(_guard_device, "device_of", lambda path, known=None: "/dev/loop0")
    monkeypatch.setattr(_guard_device, "holder_of", lambda device: "md127")
    device = {"name": "db", "local": "/l.img", "remote": "/r.img", "size": 1 << 30, "time_base": 16}
    watch = _guard_device.DeviceWatch(device)
    watch.look(known=[])
    assert watch.state == state


@pytest.mark.parametrize("leaving, state, taken", [(True, "faulty", True), (None, "faulty", False), (True, "attached", False)])
def test_a_leg_that_a_run_takes_out_is_no_error(monkeypatch, leaving, state, taken):
    monkeypatch.setattr(_guard_device, "load_record", lambda kind, name: {"leaving": leaving})
    watch = _guard_device.DeviceWatch({"name": "db", "local": "/l.img", "remote": "/r.img", "size": 1 << 30, "time_base": 16})
    watch.state = state
    assert watch.is_taken_out == taken


@pytest.mark.parametrize("limit, ordered, local, overtaken", [
    ("1024", True, "in_sync", False), ("1024", False, "in_sync", True), ("0", False, "in_sync", False), ("1024", False, "faulty", False),
    (None, False, "in_sync", False)])
def test_writes_may_be_overtaken(monkeypatch, limit, ordered, local, overtaken):
    monkeypatch.setattr(_guard_device, "keep_order", lambda: ordered)
    monkeypatch.setattr(_guard_device, "read_text", lambda path: limit if path.endswith("backlog") else local)
    watch = _guard_device.DeviceWatch({"name": "db", "local": "/l.img", "remote": "/r.img", "size": 1 << 30, "time_base": 16})
    assert watch.may_overtake() == overtaken


def test_windows():
    none = {"unsafe": []}
    assert _catalogue.is_safe(none, 1)
    opened = _catalogue.with_window(none, 5, "heal")
    assert [_catalogue.is_safe(opened, number) for number in (4, 5, 99)] == [True, False, False]
    wider = _catalogue.with_window(opened, 3, "again")
    assert len(wider["unsafe"]) == 1 and not _catalogue.is_safe(wider, 3)
    ended = _catalogue.without_open(wider, 8)
    assert [_catalogue.is_safe(ended, number) for number in (2, 8, 9)] == [True, False, True]
    assert len(_catalogue.with_window(ended, 20, "later")["unsafe"]) == 2 and none == {"unsafe": []}
