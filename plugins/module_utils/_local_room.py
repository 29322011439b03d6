# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The room below local legs that are files: sparse ones can ask their file system for more than it has, and then md takes them out."""

from __future__ import annotations

import os
import stat
from collections import namedtuple

from ._capacity import crossed
from ._core import human_size

LEVELS = (20, 10, 5)  # percent of the file system that are free

# A file system with local legs: paths by the names of their devices; in bytes what is free, what is kept for root, which a loop may use as well, its size,
# and what the legs may still take.
Room = namedtuple("Room", "paths free kept size wanted")


def find_rooms(legs):
    """Rooms by the number of their file system (dict), given the paths of local legs by the names of their devices; what cannot be seen is left out."""
    found = {}
    for name, path in sorted(legs.items()):
        try:
            about = os.stat(path)
            if not stat.S_ISREG(about.st_mode):
                continue  # of a block device nothing is known
            system = os.statvfs(path)
        except OSError:
            continue  # that it is not there is said by whoever needs it
        before = found.get(about.st_dev)
        free, kept, size = (blocks * system.f_frsize for blocks in (system.f_bavail, system.f_bfree - system.f_bavail, system.f_blocks))
        found[about.st_dev] = Room(dict(before.paths if before else {}, **{name: path}), free, kept, size,
                                   (before.wanted if before else 0) + max(0, about.st_size - about.st_blocks * 512))
    return found


def is_short(room):
    """Whether the legs can fill their file system. Pure."""
    return room.wanted > room.free + room.kept


def percent_free(room):
    """Percent (float) of its file system that are free. Pure."""
    return 100.0 * room.free / max(1, room.size)


def describe(room):
    """What is short, and what then happens, a sentence without its end. Pure."""
    one = len(room.paths) == 1
    below = f"its local leg {room.paths[min(room.paths)]}" if one else f"the local legs of {', '.join(sorted(room.paths))}"
    return (f"the file system below {below} has {human_size(room.free)} ({percent_free(room):.0f} %) free, and {'that' if one else 'those'} may still take "
            f"{human_size(room.wanted)}. Once it is full md takes {'the leg' if one else 'them'} out, or, if the remote leg is out already, the application "
            "meets errors: make room there")


class LocalRooms:
    """What the guard knows of them. say(level, sentence) writes to the journal."""

    def __init__(self, say):
        self.say, self.rooms, self._told = say, {}, {}

    def look(self, legs):
        """See what is free below the local legs (paths by the names of their devices), and say so once at each level."""
        self.rooms = find_rooms(legs)
        for number, room in self.rooms.items():
            level, self._told[number] = crossed(percent_free(room), LEVELS if is_short(room) else (), self._told.get(number))
            if level is not None:
                self.say(4, f"device {min(room.paths)}: {describe(room)}")

    def public(self, name):
        """dict(free, wanted, warning) for a device: bytes, and a sentence while a level is passed; None when it has no such leg."""
        room = next((room for room in self.rooms.values() if name in room.paths), None)
        if room is None:
            return None
        low = is_short(room) and percent_free(room) <= max(LEVELS)
        return {"free": room.free, "wanted": room.wanted, "warning": describe(room) if low else None}
