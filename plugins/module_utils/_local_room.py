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

# A file system with local legs: names are those of the devices; free, size and wanted (what the legs may still take) are in bytes.
Room = namedtuple("Room", "names free size wanted")


def find_rooms(legs):
    """Rooms by the number of their file system (dict), given the paths of local legs by the names of their devices; what cannot be seen is left out."""
    found = {}
    for name, path in sorted(legs.items()):
        try:
            about = os.stat(path)
            if not stat.S_ISREG(about.st_mode):
                continue  # a block device has its room
            system = os.statvfs(path)
        except OSError:
            continue  # that it is not there is said by whoever needs it
        before = found.get(about.st_dev, Room([], 0, 0, 0))
        found[about.st_dev] = Room(before.names + [name], system.f_bavail * system.f_frsize, system.f_blocks * system.f_frsize,
                                   before.wanted + max(0, about.st_size - about.st_blocks * 512))
    return found


def percent_free(room):
    """Percent (float) of its file system that are free; None when the legs cannot fill it. Pure."""
    return 100.0 * room.free / room.size if room.size and room.wanted > room.free else None


def describe(room):
    """What is short, and what then happens, a sentence without its end. Pure."""
    one = len(room.names) == 1
    return (f"the file system below {'its local leg' if one else 'the local legs of ' + ', '.join(room.names)} has {human_size(room.free)} "
            f"({percent_free(room):.0f} %) free, and {'that' if one else 'those'} may still take {human_size(room.wanted)}: once it is full md takes "
            f"{'the leg' if one else 'them'} out, and the data is on the store alone. Make room there")


class LocalRooms:
    """What the guard knows of them. say(level, sentence) writes to the journal."""

    def __init__(self, say):
        self.say, self.rooms, self._told = say, {}, {}

    def look(self, legs):
        """See what is free below the local legs (paths by the names of their devices), and say so once at each level."""
        self.rooms = find_rooms(legs)
        for number, room in self.rooms.items():
            free = percent_free(room)
            level, self._told[number] = crossed(100.0 if free is None else free, LEVELS, self._told.get(number))
            if level is not None:
                self.say(4, f"device {room.names[0]}: {describe(room)}")

    def public(self, name):
        """dict(free, wanted, warning) for a device: bytes, and a sentence while a level is passed; None when it has no such leg."""
        room = next((room for room in self.rooms.values() if name in room.names), None)
        if room is None:
            return None
        free = percent_free(room)
        return {"free": room.free, "wanted": room.wanted, "warning": describe(room) if free is not None and free <= max(LEVELS) else None}
