# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What an md leg says of itself on its disk: the version 1.2 superblock and the bitmap that belongs to it.

Layout: struct mdp_superblock_1 and bitmap_super_t of the kernel's md (include/uapi/linux/raid/md_p.h, drivers/md/md-bitmap.h).
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections import namedtuple

from ._core import MIB, Problem

SUPER_AT = 4096
HEADER_SIZE = 4 * MIB  # of each leg, before the data: superblock and bitmap
_MAGIC = 0xA92B4EFC
_BITMAP_MAGIC = 0x6D746962
_CLEAN = 0xFFFFFFFFFFFFFFFF
_RECOVERING, _BAD_BLOCKS = 2, 8  # feature_map: recovery_offset is valid; a list of bad blocks is kept
SPARE, FAULTY = 0xFFFF, 0xFFFE

# One leg. uuid and device_uuid str (of the array, of the leg), name str (without host), events int, clean bool (no write was
# under way), size, data_offset and data_size in bytes, number int (index in roles), roles list of int (slot, SPARE or FAULTY),
# recovering bool (it was being rebuilt), write_mostly and bad_blocks bool, bitmap a Bitmap or None.
Super = namedtuple("Super", "uuid device_uuid name events clean size data_offset data_size number roles recovering write_mostly bad_blocks bitmap")

# events and cleared int, chunk in bytes, time_base in seconds, write_behind int, size in bytes, dirty a list of (first, last)
# chunk numbers, both included.
Bitmap = namedtuple("Bitmap", "events cleared chunk time_base write_behind size dirty")


def read_leg(path, offset, length):
    """Bytes of a leg past the page cache (md writes a block device beside it); a plain file is coherent as it is."""
    length = (length + 4095) // 4096 * 4096
    try:
        direct = os.O_DIRECT if stat.S_ISBLK(os.stat(path).st_mode) else 0
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | direct)
        try:
            with mmap.mmap(-1, length) as buffer:
                return buffer[:os.preadv(number, [buffer], offset)]
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot read {path} at byte {offset}: {error.strerror}") from None


def read_super(path):
    """The Super of a leg (file or block device), or None when it carries no md superblock of version 1.2."""
    block = read_leg(path, SUPER_AT, 4096)
    found = parse_super(block)
    if found is None:
        return None
    offset = struct.unpack_from("<i", block, 96)[0]
    if not offset or not struct.unpack_from("<I", block, 8)[0] & 1:
        return found
    at = SUPER_AT + offset * 512
    head = read_leg(path, at, 4096)
    if len(head) < 256 or struct.unpack_from("<I", head)[0] != _BITMAP_MAGIC:
        return found
    size, chunk = struct.unpack_from("<Q", head, 40)[0] * 512, struct.unpack_from("<I", head, 52)[0]
    length = 256 + (-(-size // chunk) + 7) // 8 if chunk else 256
    return found._replace(bitmap=parse_bitmap(head if length <= len(head) else read_leg(path, at, length)))


def parse_super(block):
    """The Super (without its bitmap) in a 4096-byte block, or None."""
    if len(block) < 4096 or struct.unpack_from("<II", block) != (_MAGIC, 1):
        return None
    features = struct.unpack_from("<I", block, 8)[0]
    data_offset, data_size = struct.unpack_from("<QQ", block, 128)
    events, clean_until = struct.unpack_from("<QQ", block, 200)
    number, highest = struct.unpack_from("<I", block, 160)[0], min(struct.unpack_from("<I", block, 220)[0], 1920)
    name = block[32:64].rstrip(b"\0").decode("utf-8", "replace")
    return Super(
        uuid=_uuid(block[16:32]), device_uuid=_uuid(block[168:184]), name=name.split(":", 1)[-1], events=events, clean=clean_until == _CLEAN,
        size=struct.unpack_from("<Q", block, 80)[0] * 512, data_offset=data_offset * 512, data_size=data_size * 512, number=number,
        roles=list(struct.unpack_from(f"<{highest}H", block, 256)), recovering=bool(features & _RECOVERING), write_mostly=bool(block[184] & 1),
        bad_blocks=bool(features & _BAD_BLOCKS) or struct.unpack_from("<H", block, 186)[0] > 0, bitmap=None)


def _uuid(raw):
    text = raw.hex()
    return ":".join(text[at:at + 8] for at in range(0, 32, 8))


def parse_bitmap(block):
    """The Bitmap in bytes that begin with its superblock, or None when its state says that it is not to be believed."""
    events, cleared, size = struct.unpack_from("<QQQ", block, 24)
    state, chunk, time_base, write_behind = struct.unpack_from("<IIII", block, 48)
    if state & 2 or not chunk:  # BITMAP_STALE
        return None
    size *= 512
    return Bitmap(events, cleared, chunk, time_base, write_behind, size, dirty_ranges(block[256:], -(-size // chunk)))


def dirty_ranges(bits, count):
    """List of (first, last) of the runs of set bits among the first count bits, least significant bit of a byte first."""
    ranges = []
    for index, byte in enumerate(bits[:(count + 7) // 8]):
        if not byte:
            continue
        for bit in range(8):
            number = index * 8 + bit
            if byte >> bit & 1 and number < count:
                if ranges and ranges[-1][1] == number - 1:
                    ranges[-1] = (ranges[-1][0], number)
                else:
                    ranges.append((number, number))
    return ranges


def merge_ranges(*lists):
    """The union of lists of (first, last) ranges as one sorted list without overlaps."""
    merged = []
    for first, last in sorted(tuple(pair) for ranges in lists for pair in ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def count_ranges(ranges):
    """How many numbers a list of (first, last) ranges holds."""
    return sum(last - first + 1 for first, last in ranges)
