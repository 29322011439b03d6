# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _catalogue, _guard, _guard_device, _guard_store, _link
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._guard_device import Gate

DEVICE = {"name": "db", "local": "/l.img", "remote": "/r.img", "size": 1 << 30, "time_base": 16, "replication": "async"}
STORE = {"name": "vault1", "portal": None, "device": "/dev/sdb", "mount": "/store", "reserved": 5, "commit_interval": 60, "commit_deadline": 5}


def gate_after_a_pass(under_way=0):
    gate = Gate(20)
    gate.saw(7)
    gate.begin(done=40, under_way=0)
    gate.remote(98, done=40, under_way=0)
    gate.committed(99)
    assert gate.due(100)
    gate.passed(100, done=50, under_way=under_way)
    return gate


def test_the_first_pass_needs_a_commit_as_well():
    """Chunks that a guard before this one has marked are forgotten by it."""
    gate = Gate(20)
    gate.saw(7)
    assert not gate.due(100)
    gate.begin(done=40, under_way=2)
    gate.remote(101, done=41, under_way=1)
    gate.committed(102)
    assert not gate.due(200)
    gate.begin(done=41, under_way=0)
    gate.remote(103, done=41, under_way=1)
    assert not gate.wants_commit()
    gate.remote(104, done=42, under_way=1)
    gate.committed(103.5)
    assert gate.wants_commit() and not gate.due(200)
    gate.committed(105)
    assert gate.due(105)


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
    gate.begin(0, 0)
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
    watch = _guard_device.DeviceWatch(DEVICE)
    watch.look(known=[])
    assert watch.state == state


@pytest.mark.parametrize("leaving, state, taken", [(True, "faulty", True), (None, "faulty", False), (True, "attached", False)])
def test_a_leg_that_a_run_takes_out_is_no_error(monkeypatch, leaving, state, taken):
    monkeypatch.setattr(_guard_device, "load_record", lambda kind, name: {"leaving": leaving})
    watch = _guard_device.DeviceWatch(DEVICE)
    watch.state = state
    monkeypatch.setattr(watch, "look_again", lambda: None)
    assert watch.is_taken_out == taken


@pytest.mark.parametrize("limit, ordered, local, overtaken", [
    ("1024", True, "in_sync", False), ("1024", False, "in_sync", True), ("0", False, "in_sync", False), ("1024", False, "faulty", False),
    (None, False, "in_sync", False)])
def test_writes_may_be_overtaken(monkeypatch, limit, ordered, local, overtaken):
    monkeypatch.setattr(_guard_device, "keep_order", lambda: ordered)
    monkeypatch.setattr(_guard_device, "read_text", lambda path: limit if path.endswith("backlog") else local)
    monkeypatch.setattr(_guard_device, "members_of", lambda array: ["/dev/loop0"])
    watch = _guard_device.DeviceWatch(DEVICE)
    assert watch.may_overtake() == overtaken


@pytest.fixture
def legs(monkeypatch):
    """A device whose legs are loop0 (local) and loop1 (remote), and the states that the kernel shows of them."""
    shown = {"loop0": "in_sync", "loop1": "in_sync,write_mostly"}
    monkeypatch.setattr(_guard_device, "load_record", lambda kind, name: {"phase": "ready", "replication": "async"})
    monkeypatch.setattr(_guard_device, "members_of", lambda array: [f"/dev/{name}" for name in shown])
    monkeypatch.setattr(_guard_device, "read_text", lambda path: next((shown[name] for name in shown if f"/dev-{name}/" in path), None))
    monkeypatch.setattr(_guard_device, "write_text", lambda path, text: None)
    monkeypatch.setattr(_guard_device, "update_record", lambda want, **values: None)
    watch = _guard_device.DeviceWatch(DEVICE)
    watch.array = watch.holder = "md127"
    watch.local, watch.remote = "loop0", "loop1"
    return watch, shown


@pytest.mark.parametrize("local, remote, is_last", [
    ("in_sync", "in_sync,write_mostly", False), ("faulty", "in_sync,write_mostly", True), ("spare", "in_sync", True), ("in_sync", "faulty", False),
    (None, "in_sync", True), ("in_sync", None, False)])
def test_the_last_leg_is_known(legs, local, remote, is_last):
    watch, shown = legs
    shown.update(loop0=local, loop1=remote)
    for name in [name for name in shown if shown[name] is None]:
        del shown[name]
    watch.look_again()
    assert watch.is_last == is_last


def test_the_last_leg_takes_every_flush_although_no_record_can_be_read(legs, monkeypatch):
    watch, shown = legs
    caches = []

    def load(kind, name):
        raise Problem("db.json cannot be read: Input/output error")
    monkeypatch.setattr(_guard_device, "load_record", load)
    monkeypatch.setattr(_guard_device, "set_write_cache", lambda device, mode: caches.append((device, mode)))
    shown["loop0"] = "faulty"
    watch.look_again()
    watch.mode = "async"
    with pytest.raises(Problem):
        watch.set_mode()
    assert caches == [("/dev/loop1", "write back")]


def test_that_the_remote_leg_is_alone_is_noted_once_and_taken_back(legs, monkeypatch):
    watch, shown = legs
    noted = []
    monkeypatch.setattr(_guard_device, "load_record", lambda kind, name: {"alone": bool(noted and noted[-1]["alone"])})
    monkeypatch.setattr(_guard_device, "update_record", lambda want, **values: noted.append(values))
    watch.look_again()
    assert watch.note_alone() is None and noted == []
    shown["loop0"] = "faulty"
    watch.look_again()
    assert "/l.img is not whole, so it runs from its remote leg alone" in watch.note_alone()
    assert watch.note_alone() is None and noted == [{"alone": True}]
    shown["loop0"] = "in_sync"
    watch.look_again()
    assert watch.note_alone() is None and noted == [{"alone": True}, {"alone": None}]
    shown.clear()  # neither leg can be seen, which tells nothing
    watch.look_again()
    watch.alone = True
    assert watch.note_alone() is None and len(noted) == 2


@pytest.mark.parametrize("state, action, seconds", [("recovering", "idle", 12), ("recovering", "recover", 0), ("attached", "idle", 0)])
def test_a_heal_that_md_has_stopped_is_seen(legs, monkeypatch, state, action, seconds):
    watch, _shown = legs
    monkeypatch.setattr(_guard_device, "read_text", lambda path: action)
    watch.state = state
    assert watch.has_stopped(100) == 0 and watch.has_stopped(112) == seconds
    watch.state = "out"
    assert watch.has_stopped(113) == 0
    watch.state = state
    assert watch.has_stopped(114) == 0


def test_the_last_leg_takes_every_flush(legs, monkeypatch):
    watch, shown = legs
    caches = []
    monkeypatch.setattr(_guard_device, "set_write_cache", lambda device, mode: caches.append((device, mode)))
    watch.look_again()
    watch.mode = "async"
    assert watch.set_mode() is None and caches == []
    shown["loop0"] = "faulty"
    watch.look_again()
    assert watch.set_mode() == "device db: replication is sync now, and was async, because its local leg is not whole"
    assert caches == [("/dev/loop1", "write back")] and watch.set_mode() is None


def test_legs_are_equal_after_a_commit_that_began_after_the_switch(legs, monkeypatch):
    watch, _shown = legs
    noted = []
    monkeypatch.setattr(_guard_device, "update_record", lambda want, **values: noted.append(values))
    watch.mode, watch.switched = "sync", 10.0
    for committed, unsettled in ((None, True), (9.5, True), (10.5, False)):
        watch.settle_mode(committed)
        assert watch.is_unsettled == unsettled and bool(noted) != unsettled
    assert noted == [{"replication": "sync"}]


def test_a_record_that_cannot_be_read_keeps_the_bitmap(monkeypatch):
    def broken(kind, name):
        raise Problem("not readable JSON")
    monkeypatch.setattr(_guard_device, "load_record", broken)
    monkeypatch.setattr(_guard_device, "device_of", lambda path, known=None: "/dev/loop0")
    monkeypatch.setattr(_guard_device, "holder_of", lambda device: "md127")
    watch = _guard_device.DeviceWatch(DEVICE)
    watch.look(known=[])
    assert watch.state == "out" and watch.record().get("hold")


def test_an_array_that_is_stopped_in_a_pass(legs, monkeypatch):
    watch, _shown = legs

    def gone(path, text):
        raise Problem(f"cannot write to {path}")
    monkeypatch.setattr(_guard_device, "write_text", gone)
    assert watch._pass() is None


class Leg:
    """What a StoreWatch asks of a device."""

    def __init__(self, name, is_last=False, state="attached"):
        self.name, self.is_last, self.state, self.remote, self.device = name, is_last, state, "loop1", dict(DEVICE, name=name)
        self.failing = self.failed = self.healing = None
        self.cut_short = 0
        self.is_taken_out = False
        self.is_in = state in ("attached", "recovering")

    @property
    def mode(self):
        return self.device["replication"]

    @mode.setter
    def mode(self, replication):
        self.device["replication"] = replication

    def look(self):
        pass

    def waits(self, now):
        return 0.0

    def look_again(self):
        pass


@pytest.fixture
def store(monkeypatch):
    said, done = [], []
    watch = _guard_store.StoreWatch(STORE, [], lambda level, sentence: said.append(sentence))
    monkeypatch.setattr(watch.link, "abort", lambda: done.append("abort"))
    monkeypatch.setattr(watch.link, "ensure", lambda: None)
    monkeypatch.setattr(watch, "_let_go", lambda devices, **more: done.extend(device.name for device in devices))
    monkeypatch.setattr(watch, "_bring_store", lambda: done.append("store"))
    monkeypatch.setattr(_guard_store, "host_lock", lambda seconds: contextlib.nullcontext())
    monkeypatch.setattr(_guard_store, "LEAVING", "/nowhere/leaving")
    return watch, said, done


def test_a_store_whose_disk_does_not_answer_holds_nobody_up(store, monkeypatch):
    """Whoever holds the lock of the host while it waits for a disk keeps all other stores from being healed."""
    watch, said, done = store
    watch.devices = [Leg("db", state="out")]
    monkeypatch.setattr(watch, "_wanting", lambda: (watch.devices, []))
    monkeypatch.setattr(watch, "_is_wanted", lambda devices: True)
    monkeypatch.setattr(_guard_store.time, "monotonic", lambda: 200.0)
    watch.began = 194.0
    watch._join(200.0)
    assert done == [] and watch.next_try > 200
    assert said == ["store vault1: its disk does not answer: a commit has not ended within 5 seconds; trying again"]


@pytest.mark.parametrize("stale, last, views, users, may", [
    (True, False, [], [], True), (True, False, [], ["nilfs_cleanerd (pid 7)", f"indestructible (pid {os.getpid()})"], True), (False, False, [], [], False),
    (True, True, [], [], False), (True, False, ["a view"], [], False), (True, False, [], ["bash (pid 8)"], False)])
def test_a_volume_is_mounted_anew_only_if_that_harms_nobody(monkeypatch, stale, last, views, users, may):
    watch = _guard_store.StoreWatch(STORE, [], print)
    watch.disk, watch.devices = "sdb", [Leg("db", is_last=last)]
    monkeypatch.setattr(_guard_store, "is_stale", lambda disk: stale)
    monkeypatch.setattr(_guard_store, "mounts_of", lambda device: ["the store", *views])
    monkeypatch.setattr(_guard_store, "users_of", lambda point: users)
    assert watch.may_renew() == may


@pytest.mark.parametrize("last, done_then", [(False, ["clear", "down"]), (True, [])])
def test_a_volume_that_another_host_owns_is_unmounted(monkeypatch, last, done_then):
    said, done = [], []
    watch = _guard_store.StoreWatch(STORE, [], lambda level, sentence: said.append(sentence))
    watch.devices = [Leg("db", is_last=last)]
    monkeypatch.setattr(watch, "_clear", lambda: done.append("clear"))
    monkeypatch.setattr(watch.link, "disk", lambda: "sdb")
    monkeypatch.setattr(_guard_store, "mount_at", lambda point: SimpleNamespace(super_options=[]))
    monkeypatch.setattr(_guard_store._nilfs_volume, "take_down", lambda name, point: done.append("down"))

    def renew(device):
        raise _guard_store._owner.Owned(f"{device} is owned by the host b")
    monkeypatch.setattr(_guard_store._owner, "renew", renew)
    with pytest.raises(Problem, match="owned by the host b"):
        watch._bring_store()
    assert done == done_then


def test_a_volume_that_cannot_be_mounted_anew_goes_on_as_it_is(store, monkeypatch):
    watch, said, done = store
    monkeypatch.undo()
    watch.disk = "sdb"
    watch.say = lambda level, sentence: said.append(sentence)
    monkeypatch.setattr(watch, "may_renew", lambda: True)
    monkeypatch.setattr(watch, "_clear", lambda: None)
    monkeypatch.setattr(watch, "_answers", lambda: True)
    monkeypatch.setattr(watch.link, "disk", lambda: "sdb")
    monkeypatch.setattr(watch.room, "refresh", lambda disk: None)
    monkeypatch.setattr(_guard_store, "mount_at", lambda point: SimpleNamespace(super_options=[]))
    monkeypatch.setattr(_guard_store, "is_stale", lambda disk: False)
    monkeypatch.setattr(_guard_store, "end_stale", lambda disk: done.append(f"end {disk}"))
    monkeypatch.setattr(_guard_store._owner, "renew", lambda device: None)
    monkeypatch.setattr(_guard_store._cleaner, "resume", lambda name: done.append(f"resume {name}"))

    def take_down(name, point):
        raise Problem("/store is in use")
    monkeypatch.setattr(_guard_store._nilfs_volume, "take_down", take_down)
    watch._bring_store()
    assert done == ["resume vault1", "end sdb"] and not watch.stale
    assert said == ["store vault1: its volume could not be mounted anew, and goes on as it is: /store is in use"]
    watch.devices = [Leg("db")]  # which is in yet
    watch._bring_store()
    assert len(done) == 2


def test_a_heal_that_has_stopped_is_said_once_and_tried_less_and_less_often(store):
    watch, said, done = store
    leg = Leg("db", state="recovering")
    leg.idle_since = 88.0
    watch._give_up_heal(leg, 100.0)
    assert leg.idle_since is None
    watch._give_up_heal(leg, 120.0)
    assert done == ["db", "db"] and len(said) == 1 and "the heal of db stopped before its end" in said[0]
    assert watch.pause == 2 and watch.next_try == 122


def test_a_leg_that_could_not_be_taken_out_is_not_taken_out_for_ever(monkeypatch):
    said = []
    watch = _guard_store.StoreWatch(STORE, [], lambda level, sentence: said.append(sentence))
    leg = Leg("db")

    def fail(first):
        raise OSError(28, "No space left on device")
    leg.fail, leg.failing = fail, True
    watch._fail_one(leg, 5, False)
    assert leg.failing is None and said == ["device db: [Errno 28] No space left on device"]


def test_a_store_that_fails_keeps_the_last_leg_of_a_device(store):
    watch, said, done = store
    watch.devices = [Leg("db"), Leg("mail", is_last=True)]
    watch.fail("a commit has not ended within 5 seconds", 100.0)
    assert done == ["db"]  # and nothing that waits is given up, for mail waits too
    assert said == ["store vault1: a commit has not ended within 5 seconds; mail runs from its remote leg alone, which stays in",
                    "store vault1: a commit has not ended within 5 seconds; took the remote leg of db out; it runs on from the local one"]


def test_that_a_last_leg_stays_is_said_once_a_change(store):
    watch, said, done = store
    watch.devices = [Leg("mail", is_last=True)]
    for now in range(100, 160):
        watch.fail(f"the disk has not answered for {now} seconds", now)
    assert len(said) == 1 and not done and not watch.next_try
    watch.fail("the disk has not answered", 300)
    watch.devices.append(Leg("web", is_last=True))
    watch.fail("the disk has not answered", 301)
    assert len(said) == 3 and said[2].endswith("mail, web run from their remote legs alone, which stay in")


def test_without_a_last_leg_what_waits_is_given_up(store):
    watch, _said, done = store
    watch.devices = [Leg("db")]
    watch.fail("why", 100.0)
    assert done == ["db", "abort"]


@pytest.mark.parametrize("live, wanted, written", [(0, True, ["1"]), (0, False, ["5"]), (1, True, []), (1, False, ["5"]), (120, True, ["1"])])
def test_what_a_connection_that_is_aborted_was_given_last_stays(monkeypatch, live, wanted, written):
    told, has = [], {"replacement_timeout": live, "noop_out_interval": 2, "noop_out_timeout": 2}
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": {}})
    monkeypatch.setattr(link, "session", lambda: {"id": 3, "state": "LOGGED_IN", "live": has})

    def tell(path, text):
        told.append(text)
        has["replacement_timeout"] = int(text)
    monkeypatch.setattr(_link, "write_text", tell)
    monkeypatch.setattr(_link, "_processes", lambda name: [])
    link.hasten(wanted, 5)
    assert told == written
    link.abort()
    assert has["replacement_timeout"] == 0
    told.clear()
    link.hasten(wanted, 5)
    assert told == []  # it breaks in a moment, and what waits for it must not wait for longer than that
    link._aborted -= 60
    link.hasten(wanted, 5)
    assert told == ["1" if wanted else "5"]


def test_a_session_that_came_back_after_it_was_aborted_is_hastened_at_once_when_it_is_silent_again(monkeypatch):
    told, has = [], {"replacement_timeout": 5, "noop_out_interval": 2, "noop_out_timeout": 2}
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": {}})
    monkeypatch.setattr(link, "session", lambda: {"id": 3, "state": "LOGGED_IN", "live": has})
    monkeypatch.setattr(_link, "write_text", lambda path, text: told.append(text))
    monkeypatch.setattr(_link, "_processes", lambda name: [])
    link.abort()
    told.clear()  # ensure() found it back since, and gave it its own timeout again
    link.hasten(True, 0)
    assert told == ["0"]


@pytest.mark.parametrize("hastened, written", [(True, []), (False, ["5"])])
def test_an_attempt_to_bring_legs_back_leaves_a_hastened_session_so(monkeypatch, hastened, written):
    told, has = [], {"replacement_timeout": 0, "noop_out_interval": 2, "noop_out_timeout": 2}
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": {}})
    monkeypatch.setattr(link, "session", lambda: {"id": 3, "state": "LOGGED_IN", "live": has})
    monkeypatch.setattr(link, "unit", lambda: "sdb")
    monkeypatch.setattr(_link, "read_text", lambda path: "running")
    monkeypatch.setattr(_link, "write_text", lambda path, text: told.append(text))
    link._haste = (hastened, 0)
    link.ensure()
    assert told == written


def test_a_session_that_breaks_while_it_is_told_takes_nothing(monkeypatch):
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": {}})
    monkeypatch.setattr(link, "session", lambda: {"id": 3, "state": "LOGGED_IN", "local_port": 1, "port": 2, "live": {
        "replacement_timeout": 5, "noop_out_interval": 2, "noop_out_timeout": 2}})
    monkeypatch.setattr(_link, "_processes", lambda name: [])

    def refuse(path, text):
        raise Problem(f"cannot write to {path}: Device or resource busy")
    monkeypatch.setattr(_link, "write_text", refuse)
    link.hasten(True, 5)
    link.abort()


def test_since_when_a_session_is_broken(monkeypatch, tmp_path):
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": {}})
    file = tmp_path / "state"
    monkeypatch.setattr(_link.node, "state_attribute", lambda number: str(file))
    monkeypatch.setattr(link, "session", lambda: {"id": 3, "state": "FAILED", "live": {}})
    assert link.broken(1.0) == 0.0
    link.look_up(False, 5)
    found = []
    for now, state in ((2.0, "LOGGED_IN"), (3.0, "FAILED"), (4.5, "FAILED"), (5.0, "LOGGED_IN"), (6.0, "FREE"), (7.0, "FREE")):
        file.write_text(state + "\n")
        found.append(link.broken(now))
    assert found == [0.0, 0.0, 1.5, 0.0, 0.0, 1.0]
    file.unlink()
    assert link.broken(8.0) == 0.0  # logged out: the disk is gone, too


@pytest.mark.parametrize("state, local, remote, going, held", [
    ("attached", 0, 1, False, 2.0), ("attached", 1, 1, False, 0.0), ("attached", 0, 0, False, 0.0), ("out", 0, 0, True, 2.0), ("out", 1, 0, True, 0.0),
    ("faulty", 0, 0, True, 2.0), ("out", 0, 0, False, 0.0)])
def test_an_application_waits_for_the_remote_leg_also_while_md_takes_it_in(monkeypatch, state, local, remote, going, held):
    watch = _guard_device.DeviceWatch(DEVICE)
    monkeypatch.setattr(watch, "is_unfinished", lambda: going)
    watch.array, watch.local, watch.remote, watch.state = "md127", "loop0", "loop1", state
    monkeypatch.setattr(watch.held, "stuck", lambda name, now: 2.0)
    monkeypatch.setattr(_guard_device, "inflight_writes", lambda name: {"loop0": local, "loop1": remote}[name])
    assert watch.held_up(100.0) == held


def test_a_write_that_waits_is_seen_beside_others_that_go_through(monkeypatch):
    watch, under_way = _guard_device.DeviceWatch(DEVICE), {}
    watch.array, watch.local = "md127", "loop0"
    monkeypatch.setattr(_guard_device, "inflight_writes", under_way.get)
    found = []
    for now, array, local in ((1.0, 1, 0), (1.2, 3, 2), (1.6, 1, 0), (1.7, 2, 2), (1.8, 1, 0), (2.0, 1, 0), (2.6, 1, 0), (3.0, 1, 0)):
        under_way.update(md127=array, loop0=local)
        found.append(round(watch.waits(now), 1))
    assert found == [0.0, 0.2, 0.6, 0.0, 0.0, 0.2, 0.0, 0.4]  # between 2.0 and 2.6 nobody looked


@pytest.mark.parametrize("replication, state, stuck, waits, cut, done", [
    ("async", "attached", 0.5, 0.5, True, ["db", "abort"]), ("async", "attached", 0.5, 0.5, False, []), ("async", "attached", 0.3, 0.5, True, []),
    ("async", "attached", 0.5, 0.3, True, []), ("sync", "attached", 3.0, 3.0, True, []),
    ("async", "recovering", 0.5, 0.0, True, ["db", "abort"]), ("async", "again", 0.5, 0.0, True, []), ("async", "again", 0.5, 0.5, True, ["db", "abort"]),
    ("async", "recovering", 0.5, 0.0, False, []), ("async", "recovering", 0.3, 0.0, True, []),
    ("sync", "recovering", 3.0, 0.0, True, [])])
def test_one_that_waits_for_a_link_that_is_cut_does_not_wait_for_long(store, monkeypatch, replication, state, stuck, waits, cut, done):
    watch, said, let_go = store
    leg = Leg("db", state="recovering" if state == "again" else state)
    leg.cut_short = 2 if state == "again" else 0
    leg.mode, leg.held_up, leg.waits = replication, lambda now: 0.0, lambda now: waits
    watch.devices, watch.disk, watch.next_try = [leg], "sdb", 1000.0
    monkeypatch.setattr(watch.room, "look", lambda *args: False)
    monkeypatch.setattr(watch, "_keep", lambda joined, now: None)
    monkeypatch.setattr(watch.link, "hasten", lambda *args: None)
    monkeypatch.setattr(watch.link, "is_unanswered", lambda: cut)
    monkeypatch.setattr(watch.progress, "stuck", lambda disk, now: stuck)
    watch.tick(100.0)
    assert let_go == done and len(said) == bool(done)
    assert leg.cut_short == 2 * (state == "again") + (bool(done) and state == "recovering")


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0CBC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1 0000000000000000 100 0 0 10 0
   1: 0B00630A:8F2A 0B00630A:0CBC 01 00000120:00000000 {timer}:0000002A {times}     0        0 9 2 0000000000000000 25 4 30 10 -1
"""


@pytest.mark.parametrize("family", ["tcp", "tcp6"])
@pytest.mark.parametrize("timer, times, port, found", [
    ("01", "00000002", 3260, [0x8F2A]), ("01", "0000000A", 3260, [0x8F2A]), ("01", "00000001", 3260, []), ("00", "00000000", 3260, []),
    ("04", "00000003", 3260, []), ("01", "00000002", 3261, [])])
def test_which_connections_sent_something_in_vain(monkeypatch, family, timer, times, port, found):
    text = TCP.format(timer=timer, times=times)
    if family == "tcp6":
        text = text.replace("0B00630A", "0000000000000000FFFF00000B00630A")
    monkeypatch.setattr(_link, "read_text", lambda path: text if path == f"/proc/net/{family}" else None)
    assert _link.unanswered(port, 2) == found


@pytest.mark.parametrize("mine, cut", [(0x8F2A, True), (1, False), (None, False)])
def test_a_link_is_cut_when_its_own_connection_is(monkeypatch, mine, cut):
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": {}})
    monkeypatch.setattr(_link, "read_text", lambda path: TCP.format(timer="01", times="00000002") if path == "/proc/net/tcp" else None)
    monkeypatch.setattr(link, "session", lambda: mine and {"local_port": mine})
    assert link.is_unanswered() is cut


@pytest.mark.parametrize("mode, done, cut, told", [
    ("async", [7, 7, 7, 9, 9], True, [True, False, True]), ("async", [7, 7, 7, 9, 9], False, []), ("sync", [7, 7, 7, 9, 9], True, []),
    ("async", [7, 8, 9, 10, 11], True, [])])
def test_a_disk_that_nobody_uses_has_less_time_to_come_back_too_when_its_link_is_cut(store, monkeypatch, mode, done, cut, told):
    watch, found = store[0], []
    leg = Leg("db")
    leg.mode, leg.held_up = mode, lambda now: 0.0
    watch.devices, watch.disk, watch.next_try = [leg], "sdb", 1000.0
    monkeypatch.setattr(watch.room, "look", lambda *args: False)
    monkeypatch.setattr(watch, "_keep", lambda joined, now: None)
    monkeypatch.setattr(watch, "commit", lambda now: None)
    monkeypatch.setattr(watch.link, "is_unanswered", lambda times: cut and times == 1)
    monkeypatch.setattr(watch.link, "hasten", lambda wanted, deadline: found.append(wanted))
    monkeypatch.setattr(watch.progress, "stuck", lambda disk, now: 0.0)
    for second, number in enumerate(done):
        monkeypatch.setattr(_guard_store, "completed", lambda disk, number=number: number)
        for quarter in range(4):
            watch.tick(100.0 + second + quarter / 4)
    assert found == told


@pytest.mark.parametrize("replication, stuck, held, attaching, cut, done", [
    ("async", 0.5, 0.5, False, False, ["abort"]), ("async", 0.3, 0.5, False, False, []), ("async", 0.5, 0.0, False, True, []),
    ("async", 0.5, 0.0, True, True, ["abort"]), ("async", 0.5, 0.0, True, False, []), ("async", 0.3, 0.0, True, True, []),
    ("async", 0.5, 0.0, "noted", True, []),
    ("sync", 0.5, 0.0, True, True, []), ("sync", 0.5, 0.5, True, True, []), ("sync", 5.5, 5.5, False, False, ["abort"])])
def test_a_leg_that_is_being_brought_back_holds_nobody_up_for_long(store, monkeypatch, replication, stuck, held, attaching, cut, done):
    watch, said, aborted = store
    leg = Leg("db", state="out")
    leg.mode, leg.held_up, leg.is_unfinished = replication, lambda now: held, lambda: bool(attaching)
    monkeypatch.setattr(_guard_store, "is_locked", lambda: attaching is True)
    monkeypatch.setattr(watch.link, "is_unanswered", lambda: cut)
    watch.devices, watch.disk, watch.next_try = [leg], "sdb", 1000.0
    monkeypatch.setattr(watch.room, "look", lambda *args: False)
    monkeypatch.setattr(watch.link, "hasten", lambda *args: None)
    monkeypatch.setattr(watch, "commit", lambda now: None)
    monkeypatch.setattr(watch.progress, "stuck", lambda disk, now: stuck)
    watch.tick(100.0)
    assert aborted == done and not said


@pytest.mark.parametrize("state, wanted, noops, timeouts, written", [
    ("LOGGED_IN", True, 2, {}, ["1"]), ("LOGGED_IN", True, 1, {}, ["3"]), ("LOGGED_IN", True, 10, {}, ["1"]), ("LOGGED_IN", True, 0, {}, []),
    ("LOGGED_IN", True, 1, {"replacement_timeout": 2}, ["2"]), ("LOGGED_IN", False, 2, {}, []), ("LOGGED_IN", False, 2, {"replacement_timeout": 120}, ["120"]),
    ("FAILED", True, 2, {}, [])])
def test_a_session_that_breaks_fails_what_waits_by_the_deadline(monkeypatch, state, wanted, noops, timeouts, written):
    told = []
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": timeouts})
    session = {"id": 3, "state": state, "live": {"replacement_timeout": 5, "noop_out_interval": noops, "noop_out_timeout": noops}}
    monkeypatch.setattr(link, "session", lambda: session)
    monkeypatch.setattr(_link, "write_text", lambda path, text: told.append(text))
    link.hasten(wanted, 5)
    assert told == written


@pytest.mark.parametrize("replication, broken, done", [("async", 0.5, ["db", "abort"]), ("async", 0.3, []), ("sync", 4.0, [])])
def test_nobody_begins_to_wait_for_a_session_that_is_broken(store, monkeypatch, replication, broken, done):
    watch, said, let_go = store
    leg = Leg("db")
    leg.mode, leg.held_up = replication, lambda now: 0.0
    watch.devices, watch.disk, watch.next_try = [leg], "sdb", 1000.0
    monkeypatch.setattr(watch.room, "look", lambda *args: False)
    monkeypatch.setattr(watch, "_keep", lambda joined, now: None)
    monkeypatch.setattr(watch.link, "broken", lambda now: broken)
    assert watch.tick(100.0)  # which is looked at often
    assert let_go == done and len(said) == bool(done)


def test_a_session_is_left_alone_while_another_store_has_the_only_leg_of_a_device(store, monkeypatch):
    watch, _said, done = store
    other = _guard_store.StoreWatch(dict(STORE, name="vault2"), [], lambda level, sentence: None)
    told = []
    monkeypatch.setattr(watch.link, "hasten", lambda wanted, deadline: told.append(wanted))
    monkeypatch.setattr(watch.room, "look", lambda *args: False)
    monkeypatch.setattr(watch, "commit", lambda now: None)
    monkeypatch.setattr(watch.progress, "stuck", lambda disk, now: 9.0)
    watch.devices, watch.neighbours, watch.next_try = [Leg("db")], [other], 1000.0
    watch.devices[0].held_up = lambda now: 9.0
    other.devices = [Leg("mail", is_last=True)]
    watch.disk = "sdb"
    watch.tick(100.0)
    assert done == ["db"] and not told
    other.devices = []
    watch.tick(101.0)
    assert done[1:] == ["db", "abort", "abort"] and told == [True]


@pytest.mark.parametrize("phase, disk, shared", [("adopting", "sdb", True), ("adopting", "sdc", False), ("ready", "sdb", False)])
def test_a_store_that_is_being_adopted_is_known_by_its_device(store, monkeypatch, phase, disk, shared):
    watch, _said, _done = store
    monkeypatch.setattr(_guard_store, "list_records", lambda kind: ["mail"])
    monkeypatch.setattr(_guard_store, "load_record", lambda kind, name: {"phase": phase, "remote": "/other/mail.img"})
    monkeypatch.setattr(_guard_store, "mount_of", lambda path: SimpleNamespace(source=f"/dev/{disk}"))
    monkeypatch.setattr(watch.link, "reaches", lambda name: name == "sdb")
    assert watch._is_shared() is shared


def test_only_while_the_disk_is_silent_a_session_has_less_time_to_come_back(store, monkeypatch):
    watch, _said, done = store
    told = []
    monkeypatch.setattr(watch.link, "hasten", lambda wanted, deadline: told.append((wanted, deadline)))
    monkeypatch.setattr(watch.room, "look", lambda *args: False)
    monkeypatch.setattr(watch, "commit", lambda now: None)
    watch.disk, watch.next_try = "sdb", 1000.0
    for now, stuck in ((100, 0.0), (101, 0.3), (102, 1.3), (103, 2.3), (104, 0.0), (105, 0.0)):
        monkeypatch.setattr(watch.progress, "stuck", lambda disk, now, stuck=stuck: stuck)
        watch.tick(now)
    assert told == [(True, STORE["commit_deadline"]), (False, STORE["commit_deadline"])] and not done
    watch.devices = [Leg("mail", is_last=True)]
    monkeypatch.setattr(watch, "_judge", lambda *args: None)
    monkeypatch.setattr(watch.progress, "stuck", lambda disk, now: 9.0)
    monkeypatch.setattr(watch, "_keep", lambda joined, now: None)
    watch.tick(106)
    assert len(told) == 2  # what it holds is nowhere else


def test_what_shares_a_session_hastens_it_together(store):
    watch = store[0]
    other = _guard_store.StoreWatch(dict(STORE, name="vault2"), [], lambda level, sentence: None)
    other.devices, watch.neighbours, other.neighbours = [Leg("db")], [other], [watch]
    assert watch.haste == (False, 5) and other.haste == (False, 0)
    watch.hastened = True
    assert watch.haste == other.haste == (True, 5)
    other.hastened = True
    assert watch.haste == other.haste == (True, 0)
    other.devices[0].is_last = True  # which is never taken out
    assert watch.haste == other.haste == (True, 5)


@pytest.mark.parametrize("modes, grace, written", [((), 5, "1"), (("sync",), 5, "1"), (("sync", "async"), 0, "0")])
def test_nobody_waits_for_a_second_of_a_session_that_broke_while_an_async_device_is_there(store, monkeypatch, modes, grace, written):
    watch, told = store[0], []
    for number, mode in enumerate(modes):
        watch.devices.append(Leg(f"db{number}"))
        watch.devices[-1].mode = mode
    assert watch.grace == grace
    link = _link.Link({"portal": "10.0.0.1", "target": "t", "timeouts": {}})
    monkeypatch.setattr(link, "session", lambda: {"id": 3, "state": "LOGGED_IN", "live": {
        "replacement_timeout": 5, "noop_out_interval": 2, "noop_out_timeout": 2}})
    monkeypatch.setattr(_link, "write_text", lambda path, text: told.append(text))
    link.hasten(True, watch.grace)
    assert told == [written]


def join(store, monkeypatch, record, disk=None, mounted=False):
    watch, said, done = store
    monkeypatch.setattr(_guard_store, "load_record", lambda kind, name: record if kind == "stores" else {"detached": True})
    monkeypatch.setattr(_guard_store, "mount_at", lambda point: mounted)
    monkeypatch.setattr(_guard_store, "is_ours", lambda device: True)
    monkeypatch.setattr(watch.link, "disk", lambda: disk)
    watch._join(100.0)
    return watch, said, done


def test_a_store_is_mounted_though_no_device_wants_it(store, monkeypatch):
    store[0].devices = [Leg("db", state="out")]
    assert join(store, monkeypatch, {"claimed": "lun"})[2] == ["store"]


@pytest.mark.parametrize("record, disk", [({"claimed": None}, None), ({"claimed": "lun", "unmounted": True}, None), ({"claimed": "lun"}, "sdb"), ({}, None)])
def test_a_store_that_is_there_or_out_of_use_is_left_alone(store, monkeypatch, record, disk):
    watch, said, done = join(store, monkeypatch, record, disk)
    assert not done and not said and watch.next_try > 100


def test_a_store_that_somebody_mounted_again_is_in_use(store, monkeypatch):
    assert join(store, monkeypatch, {"unmounted": True}, mounted=True)[2] == ["store"]


def test_nothing_comes_back_at_shutdown_and_no_attempt_is_made_each_moment(store, monkeypatch, tmp_path):
    (tmp_path / "leaving").touch()
    monkeypatch.setattr(_guard_store, "LEAVING", str(tmp_path / "leaving"))
    watch, _said, done = join(store, monkeypatch, {"claimed": "lun"})
    assert not done and watch.next_try > 100


def test_one_device_whose_record_is_broken_keeps_no_other_out(store, monkeypatch):
    watch = store[0]
    watch.devices = [Leg("bad", state="out"), Leg("db", state="out")]

    def load(kind, name):
        if name == "bad":
            raise Problem("bad.json is not readable JSON")
        return {}
    monkeypatch.setattr(_guard_store, "load_record", load)
    monkeypatch.setattr(_guard_store, "is_ours", lambda device: True)
    devices, problems = watch._wanting()
    assert [device.name for device in devices] == ["db"] and problems == ["bad.json is not readable JSON"]


def while_the_lock_is_held(monkeypatch, act):
    """Have somebody act while the guard waits for the lock of the host."""
    @contextlib.contextmanager
    def lock(_seconds):
        act()
        yield
    monkeypatch.setattr(_guard_store, "host_lock", lock)


@pytest.mark.parametrize("wish", [True, False])
def test_a_leg_that_is_taken_out_by_wish_while_the_guard_waits_stays_out(store, monkeypatch, wish):
    watch, _said, done = store
    record = {}
    watch.devices = [Leg("db", state="out")]
    monkeypatch.setattr(_guard_store, "load_record", lambda kind, name: {"claimed": "lun"} if kind == "stores" else record)
    monkeypatch.setattr(_guard_store, "mount_at", lambda point: True)
    monkeypatch.setattr(_guard_store, "is_ours", lambda device: True)
    monkeypatch.setattr(watch.link, "disk", lambda: "sdb")
    monkeypatch.setattr(watch, "_with_room", lambda devices: devices)
    monkeypatch.setattr(watch, "_bring_leg", lambda device: done.append(device.name))
    while_the_lock_is_held(monkeypatch, lambda: record.update(detached=wish))
    watch._join(100.0)
    assert done == ([] if wish else ["store", "db"])


@pytest.mark.parametrize("state, ended", [("in sync", True), ("recovering", False), ("gone", False)])
def test_the_end_of_a_heal_is_noted_only_of_a_leg_that_is_still_in(store, monkeypatch, state, ended):
    watch, said, done = store
    leg, seen = Leg("db"), {"state": "in sync"}
    leg.healing, leg.want, leg.cut_short = True, {}, 2

    def is_healed(_want):
        if seen["state"] == "gone":
            raise Problem("db: the remote leg is gone")
        return seen["state"] == "in sync"
    monkeypatch.setattr(_guard_store._md_act, "is_healed", is_healed)
    monkeypatch.setattr(_guard_store._md_act, "finish_attach", lambda want: done.append("finished"))
    while_the_lock_is_held(monkeypatch, lambda: seen.update(state=state))
    watch._end_heal(leg)
    assert done == (["finished"] if ended else []) and leg.healing is not ended and not said
    assert leg.cut_short == (0 if ended else 2)


@pytest.mark.parametrize("dirty, even", [("1000", 7.0), ("0", 100.0)])
def test_dirty_blocks_that_wait_for_the_interval_are_lag(store, monkeypatch, dirty, even):
    watch = store[0]
    monkeypatch.setattr(_guard_store, "attribute", lambda device, name: dirty)
    monkeypatch.setattr(watch.room, "learn", lambda disk: None)
    watch.disk, watch.even, watch.last_start = "sdb", 7.0, 90.0
    watch.began, watch.renewed = 100.0, 99.0

    class Once:
        left = [True]

        def wait(self):
            return bool(self.left) and self.left.pop()

        def clear(self):
            pass
    watch._go = Once()
    watch._commits()
    assert watch.even == even


def test_what_is_wrong_is_said_once_until_it_is_another_thing():
    said = []
    guard = _guard.Guard(lambda level, sentence: said.append(sentence))
    for sentence in ("a", "a", "b", None, "b"):
        guard._once("it", sentence)
    assert said == ["a", "b", "b"]


def test_a_configuration_that_is_gone_is_said_once(monkeypatch):
    said = []
    guard = _guard.Guard(lambda level, sentence: said.append(sentence))

    def load():
        raise Problem("/etc/indestructible.json does not exist")
    monkeypatch.setattr(_guard._host_config, "load", load)
    for config in (None, "the one before", "the one before"):
        guard.config = config
        guard._load()
    assert said == ["/etc/indestructible.json does not exist. Until then nothing is guarded",
                    "/etc/indestructible.json does not exist. It goes on as before"]


@pytest.mark.parametrize("store", [{"name": "vault1"}, {"name": "vault1", "portal": "no address", "target": "t"}])
def test_a_configuration_that_cannot_be_used_leaves_everything_as_it_is(monkeypatch, store):
    said = []
    guard = _guard.Guard(lambda level, sentence: said.append(sentence))
    before = guard.config, guard.stores = SimpleNamespace(stamp=1, stores={}, devices={}), [SimpleNamespace(name="mail")]
    monkeypatch.setattr(_guard._host_config, "load", lambda: SimpleNamespace(stamp=2, stores={"vault1": store}, devices={}))
    guard._load()
    assert (guard.config, guard.stores) == before
    assert len(said) == 1 and said[0].endswith(". It goes on as before")


def test_what_cannot_be_looked_at_is_said_and_ends_nothing(monkeypatch):
    said = []
    guard = _guard.Guard(lambda level, sentence: said.append(sentence))

    def loops():
        raise OSError(5, "Input/output error")
    monkeypatch.setattr(_guard, "loops", loops)
    monkeypatch.setattr(_guard, "note_order", lambda: True)
    guard._look(1.0)
    guard._look(6.0)
    assert len(said) == 1 and said[0].startswith("not all of the loops and arrays can be looked at: ")


def test_a_look_leaves_a_session_as_any_of_its_stores_wants_it(monkeypatch):
    guard, told = _guard.Guard(lambda level, sentence: None), []
    guard.stores = [_guard_store.StoreWatch(dict(STORE, name=name), [], lambda level, sentence: None) for name in ("vault1", "vault2")]
    guard.stores[0].neighbours, guard.stores[1].neighbours = guard.stores[1:], guard.stores[:1]
    guard.stores[0].hastened = True
    monkeypatch.setattr(_guard, "loops", lambda: [])
    monkeypatch.setattr(_guard, "note_order", lambda: True)
    for watch in guard.stores:
        monkeypatch.setattr(watch.link, "look_up", lambda *haste: told.append(haste))
    guard._look_around(1.0)
    assert told == [(True, 5), (True, 5)]


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


@pytest.mark.parametrize("leaving, later, taken", [(True, "faulty", True), (None, "faulty", False), (None, "out", True), (None, "attached", True)])
def test_a_leg_that_was_taken_out_just_now_is_not_one_that_failed(monkeypatch, leaving, later, taken):
    watch = _guard_device.DeviceWatch(DEVICE)
    watch.state = "faulty"
    monkeypatch.setattr(watch, "record", lambda: {"leaving": leaving})
    monkeypatch.setattr(watch, "look_again", lambda: setattr(watch, "state", later))
    assert watch.is_taken_out is taken


class Leaving(Leg):
    """One that a run takes out, and is through with when its record is read (later is the state then)."""

    def __init__(self, name, later):
        super().__init__(name, state="faulty")
        self.later = later

    @property
    def is_taken_out(self):
        self.state = self.later
        return True

    @is_taken_out.setter
    def is_taken_out(self, _value):
        pass


def test_a_leg_that_has_gone_meanwhile_is_let_go_by_nobody(store, monkeypatch):
    watch, said, done = store
    monkeypatch.setattr(watch.room, "look", lambda *args: False)
    monkeypatch.setattr(watch, "commit", lambda now: None)
    monkeypatch.setattr(_guard_store, "is_locked", lambda: False)
    watch.devices, watch.disk, watch.next_try = [Leaving("db", "faulty"), Leaving("mail", "out")], "sdb", 1000.0
    watch.tick(100.0)
    assert done == ["db"] and not said
