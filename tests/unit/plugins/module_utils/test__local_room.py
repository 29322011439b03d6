# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _local_room
from ansible_collections.indestructible.block.plugins.module_utils._local_room import LocalRooms, Room, describe, find_rooms, is_short


def test_what_sparse_files_may_still_take_is_counted_by_file_system(tmp_path):
    for name, size in (("db", 1 << 30), ("mail", 1 << 20)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    (tmp_path / "full").write_bytes(os.urandom(1 << 16))
    rooms = find_rooms({"db": f"{tmp_path}/db", "mail": f"{tmp_path}/mail", "full": f"{tmp_path}/full", "raw": "/dev/null", "gone": f"{tmp_path}/gone"})
    assert len(rooms) == 1
    room = rooms[next(iter(rooms))]
    assert sorted(room.paths) == ["db", "full", "mail"] and abs(room.wanted - (1 << 30) - (1 << 20)) < 1 << 16
    assert 0 < room.free <= room.free + room.kept <= room.size


def of(free, wanted=9000, kept=0, names=("db", "mail")):
    return Room({name: f"/legs/{name}.img" for name in names}, free, kept, 1000, wanted)


@pytest.mark.parametrize("room, short", [(of(50, 60), True), (of(50, 50), False), (of(50, 60, 10), False), (of(50, 61, 10), True)])
def test_legs_that_have_all_their_room_are_no_reason_to_warn(room, short):
    assert is_short(room) is short


def test_a_level_is_told_of_once_and_again_when_it_was_left(monkeypatch):
    said, rooms = [], {}
    monkeypatch.setattr(_local_room, "find_rooms", lambda legs: rooms)
    watch = LocalRooms(lambda level, sentence: said.append((level, sentence)))
    for free, warned in ((500, 0), (200, 1), (190, 1), (90, 2), (230, 2), (60, 3), (0, 4), (0, 4)):
        rooms[7] = of(free)
        watch.look({})
        assert len(said) == warned, free
        assert bool(watch.public("mail")["warning"]) is (free <= 200)
    assert said[-1] == (4, f"device db: {describe(rooms[7])}") and watch.public("raw") is None
    for turn in range(10):  # somebody else writes and deletes there
        rooms[7] = of(91 - turn % 2 * 2, 90)
        watch.look({})
        assert watch.public("db") == {"free": rooms[7].free, "wanted": 90, "warning": describe(rooms[7]) if turn % 2 else None}
    assert len(said) == 5


@pytest.mark.parametrize("names, words", [
    (["db"], "below its local leg /legs/db.img has 500 B (50 %) free, and that may still take 1 GiB. Once it is full md takes the leg out, or"),
    (["mail", "db"], "below the local legs of db, mail has 500 B (50 %) free, and those may still take 1 GiB. Once it is full md takes them out, or")])
def test_the_warning_says_what_happens(names, words):
    assert words in describe(of(500, 1 << 30, names=names))
