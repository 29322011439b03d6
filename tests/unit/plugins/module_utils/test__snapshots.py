# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _snapshots
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem


class Kernel:
    """What sysfs shows of the volume on sda."""

    def __init__(self, path):
        self.path, self.number = path / "sda", 0
        self.mount()

    def mount(self):
        """Mount the volume (anew): another directory."""
        self.number += 1
        if self.path.exists():
            self.path.rename(self.path.parent / f"old{self.number}")  # its inode number is not free yet
        (self.path / "mounted_snapshots").mkdir(parents=True)

    def open(self, number):
        (self.path / "mounted_snapshots" / str(number)).mkdir()

    def drop(self, number):
        (self.path / "mounted_snapshots" / str(number)).rmdir()


@pytest.fixture(name="kernel")
def fixture_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(_snapshots, "_SYSFS", str(tmp_path))
    monkeypatch.setattr(_snapshots, "OPENED", str(tmp_path / "opened"))
    monkeypatch.setattr(_snapshots, "_own", [])
    monkeypatch.setattr(_snapshots, "guard_told", dict)
    return Kernel(tmp_path)


def test_while_nothing_was_dropped_anything_may_be_opened(kernel):
    _snapshots.check("/dev/sda", 5, "db")
    kernel.open(5)
    _snapshots.note("/dev/sda", 5, "/view/db")
    _snapshots.check("/dev/sda", 7, "db")
    assert not _snapshots.is_stale("sda")


@pytest.mark.parametrize("by_hand", [False, True])
def test_once_something_was_dropped_nothing_else_is_opened_until_it_is_mounted_anew(kernel, by_hand):
    kernel.open(5)
    if by_hand:
        _snapshots.see("sda")
    else:
        _snapshots.note("/dev/sda", 5, "/view/db")
    kernel.open(6)
    _snapshots.note("/dev/sda", 6, "/view/mail")
    kernel.drop(5)
    _snapshots.check("/dev/sda", 6, "mail")  # of which the kernel has the right one
    assert not _snapshots.is_stale("sda")
    with pytest.raises(Problem, match="^db: the kernel has dropped a part of what it had of checkpoint 5, .* instead of 7's. Nothing was opened"):
        _snapshots.check("/dev/sda", 7, "db")
    assert _snapshots.is_stale("/dev/sda")
    _snapshots.end_stale("sda")
    assert not _snapshots.is_stale("sda")
    kernel.mount()
    assert _snapshots.check("/dev/sda", 7, "db") == 0


def test_what_two_note_at_once_is_kept_of_both(kernel, monkeypatch):
    kernel.open(5)
    load, others = _snapshots._load, []

    def slow(name):
        found = load(name)
        if not others:  # while one has read and not yet written
            others.append(threading.Thread(target=_snapshots.note, args=("/dev/sda", 6, "/view/mail")))
            others[0].start()
            others[0].join(0.2)
        return found
    monkeypatch.setattr(_snapshots, "_load", slow)
    _snapshots.note("/dev/sda", 5, "/view/db")
    others[0].join(5)
    assert load("sda")["opened"] == {"5": "/view/db", "6": "/view/mail"}


def test_what_was_open_before_the_volume_was_mounted_anew_is_not_noted_of_it(kernel, monkeypatch):
    kernel.open(5)
    real = _snapshots._alive

    def alive(name):
        found = real(name)
        kernel.mount()
        return found
    monkeypatch.setattr(_snapshots, "_alive", alive)
    _snapshots.see("sda")
    monkeypatch.setattr(_snapshots, "_alive", real)
    assert _snapshots.check("sda", 7, "db") == 0


def test_the_guard_does_not_wait_for_one_who_notes_something(kernel):
    kernel.open(5)
    with _snapshots._changing("sda"):
        with pytest.raises(Problem, match="cannot note"):
            _snapshots.see("sda", wait=False)
    _snapshots.see("sda", wait=False)
    assert list(_snapshots._load("sda")["opened"]) == ["5"]


def test_an_object_that_was_dropped_and_made_again_is_not_the_one_that_was_trusted(kernel):
    for number in (5, 6):
        kernel.open(number)
        _snapshots.note("/dev/sda", number, "/view/db")
    kernel.drop(5)
    trusted = _snapshots.check("/dev/sda", 6, "mail")
    assert trusted == _snapshots.check("/dev/sda", 6, "mail", trusted=trusted) != 0
    (kernel.path / "mounted_snapshots" / "6").rename(kernel.path / "old")  # its inode number is not free yet
    kernel.open(6)
    with pytest.raises(Problem):
        _snapshots.check("/dev/sda", 6, "mail", trusted=trusted)


def test_what_was_dropped_while_a_checkpoint_was_mounted_is_seen_and_that_one_trusted_no_more(kernel):
    kernel.open(5)
    _snapshots.note("/dev/sda", 5, "/view/db")
    trusted = _snapshots.check("/dev/sda", 6, "mail")
    kernel.drop(5)
    kernel.open(6)
    _snapshots.note("/dev/sda", 6, "/view/mail")
    for way in (trusted, None):
        with pytest.raises(Problem, match="mail: the kernel has dropped a part"):
            _snapshots.check("/dev/sda", 6, "mail", trusted=way)


def test_a_half_written_file_is_no_note(kernel, tmp_path):
    (tmp_path / "opened").mkdir()
    for name in ("sda", "sdz.new-1-2"):
        (tmp_path / "opened" / name).write_text("")
    keeper = _snapshots.Keeper()
    assert not keeper.tick() and not _snapshots.is_stale("sdz")


def test_the_guard_watches_each_checkpoint_once_a_mount(kernel, monkeypatch):
    watched, mounts = [], {}

    class Libc:
        """inotify."""

        @staticmethod
        def inotify_init1(flags):
            return 9

        @staticmethod
        def inotify_add_watch(number, path, mask):
            watched.append((number, path))
            return len(watched)
    monkeypatch.setattr(_snapshots.ctypes, "CDLL", lambda name, use_errno: Libc)
    monkeypatch.setattr(_snapshots, "mount_at", mounts.get)
    monkeypatch.setattr(_snapshots, "_own", [SimpleNamespace(watch=lambda view, number: None)])
    keeper = _snapshots.Keeper()
    assert not keeper.tick()
    mounts["/view/db"] = SimpleNamespace(super_options=("rw", "cp=5"))
    _snapshots.note("/dev/sda", 5, "/view/db")
    assert keeper.tick() and keeper.kept == {"sda": [5]} and watched == [(9, b"/view/db")]
    assert not keeper.tick()
    del mounts["/view/db"]
    _snapshots.note("/dev/sda", 6, "/view/gone")
    keeper._seen = None
    assert not keeper.tick() and keeper.kept == {"sda": [5]} and len(watched) == 1
    kernel.mount()
    _snapshots.note("/dev/sda", 5, "/view/db")  # the kernel knows nothing of the watch of before
    mounts["/view/db"] = SimpleNamespace(super_options=("rw", "cp=8"))
    keeper._seen = None
    assert keeper.tick() and keeper.kept == {}, "another checkpoint is mounted there by now"


@pytest.mark.parametrize("told, waits", [
    ({}, False), ({"kept": {}, "time": 1000}, True), ({"kept": {"sda": [5]}, "time": 1003}, True), ({"kept": {"sdb": [5]}, "time": 1003}, True),
    ({"kept": {}, "time": 900}, False)])  # of a guard that is stopped
def test_a_checkpoint_is_unmounted_once_it_is_kept(monkeypatch, told, waits):
    asked = []
    monkeypatch.setattr(_snapshots, "guard_told", lambda: told)
    monkeypatch.setattr(_snapshots.time, "time", lambda: 1004)
    monkeypatch.setattr(_snapshots, "wait_for", lambda condition, seconds: asked.append(condition()))
    _snapshots.wait_until_kept("/dev/sda", 5)
    assert asked == ([told["kept"].get("sda") == [5]] if waits else [])
