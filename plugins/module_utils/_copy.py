# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Make one stretch of bytes equal to another: only blocks that differ are written, and what is a hole on both sides is not even read."""

from __future__ import annotations

import mmap
import os
import time
from collections import namedtuple

from ._blank import next_data
from ._blockdev import is_block
from ._core import MIB, Problem

BLOCK = 4096
_DURABLE = 64 * MIB  # bytes after which what was written is made durable, so that little is dirty at any time
_TELL = 0.5  # seconds

# One side: path (file or block device) and the byte at which the stretch begins there; holes, a Side too, is the file whose holes are those of
# this one (None: its own).
Side = namedtuple("Side", "path at holes")
Side.__new__.__defaults__ = (None,)


def copy_differences(source, target, size, tell=None, limit=None):
    """Make size bytes of the Side target equal to those of the Side source; returns how many bytes were written.

    tell(done, size, written), all in bytes, is called now and then. limit is how many bytes may be written a second, or None. Raises Problem.
    """
    written, durable, told, began = 0, 0, 0.0, time.monotonic()
    ends = [_holes(side, size) for side in (source, target)]
    numbers = [_open(source, os.O_RDONLY), _open(target, os.O_RDWR)]
    try:
        with mmap.mmap(-1, MIB) as old, mmap.mmap(-1, MIB) as new:
            at = 0
            while at < size:
                # list: both are asked, so that both keep up
                at = max(at, min([next_at(at) for next_at in ends]) // MIB * MIB)
                if at >= size:
                    break
                length = min(MIB, size - at)
                for side, number, buffer in ((source, numbers[0], old), (target, numbers[1], new)):
                    with memoryview(buffer) as view, view[:length] as part:
                        if os.preadv(number, [part], side.at + at) != length:
                            raise Problem(f"{side.path} ended before byte {side.at + at + length}")
                for first, last in differences(old[:length], new[:length], length):
                    with memoryview(old) as view, view[first:last] as part:
                        os.pwritev(numbers[1], [part], target.at + at + first)
                    written += last - first
                at += length
                if written - durable >= _DURABLE:
                    os.fsync(numbers[1])
                    durable = written
                now = time.monotonic()
                if tell and now - told > _TELL:
                    told = now
                    tell(at, size, written)
                if limit and written / limit > now - began:
                    time.sleep(written / limit - (now - began))
        os.fsync(numbers[1])
    except OSError as error:
        raise Problem(f"copying {source.path} to {target.path} failed at byte {at}: {error.strerror}") from None
    finally:
        for number in numbers:
            os.close(number)
    if tell:
        tell(size, size, written)
    return written


def _open(side, flags):
    """A number of the open file; of a block device past the page cache, and to write to alone."""
    if is_block(side.path):
        flags |= os.O_DIRECT | (os.O_EXCL if flags & os.O_RDWR else 0)
    try:
        return os.open(side.path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise Problem(f"cannot open {side.path}: {error.strerror}") from None


def _holes(side, size):
    """A function at -> the first byte of the stretch at or after at that is no hole; asked in ascending order."""
    path, start = (side.holes or side)[:2]
    seen = {"next": -1}

    def next_at(at):
        if seen["next"] < at:
            seen["next"] = next_data(path, start + at, start + size) - start
        return seen["next"]
    return next_at


def differences(old, new, length):
    """(first, last) byte ranges of whole blocks in which two buffers are not the same; neighbours are one range. Pure."""
    if old == new:
        return []
    found = []
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        if old[first:last] != new[first:last]:
            if found and found[-1][1] == first:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
    return found
