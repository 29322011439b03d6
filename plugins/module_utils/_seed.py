# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A new leg for a device that runs on its other one: filled by copying what is not zero, and then given to md as a leg that was away.

md itself would copy every byte, holes too. While the device lacks a leg its bitmap forgets nothing, so whatever is written during the copy is
listed, and md brings just that when the leg is re-added. All that this takes is a superblock that says what is true: that the leg belongs to
this array and lacks what the bitmap lists.
"""

from __future__ import annotations

import os
import struct
import uuid

from ._blank import is_zero
from ._copy import Side, copy_differences
from ._core import MIB, Problem
from ._md_super import FAULTY, HEADER_SIZE, SUPER_AT, parse_super, read_leg

_WRITE_MOSTLY = 1
_RECOVERING, _BAD_BLOCKS = 2, 8  # bits of feature_map, see _md_super
_BLOCK = 4096


def fill(source, target, size, tell=None, limit=None, holes=None):
    """Make the size payload bytes of the leg target those of the leg source (paths of files or devices), which is in use; returns bytes written.

    Any number of times: what is equal is not written again. holes is the file under target, when that is a loop. See copy_differences() for the rest.
    """
    return copy_differences(Side(source, HEADER_SIZE), Side(target, HEADER_SIZE, Side(holes, HEADER_SIZE) if holes else None), size, tell, limit)


def enlist(source, target, slot, write_mostly):
    """Write the superblock of a leg that was away to target, made from that of source, which is in the array; slot is its place in it."""
    block = craft(read_leg(source, SUPER_AT, _BLOCK), slot, write_mostly, uuid.uuid4().bytes)
    try:
        number = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for at in range(0, 0 if is_zero(target, 0, HEADER_SIZE) else HEADER_SIZE, MIB):
                os.pwrite(number, bytes(MIB), at)  # an old bitmap too: md writes its own once the leg is in
            os.pwrite(number, block, SUPER_AT)
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot write the superblock of {target}: {error.strerror}") from None


def craft(block, slot, write_mostly, identity):
    """The 4096 bytes of the superblock of another leg of the array that the superblock block belongs to. Pure; identity is 16 bytes.

    Events and data size are those of the leg that is in; the bitmap's own events tell md whether it may be believed.
    """
    found = parse_super(block)
    if found is None:
        raise Problem("there is no md superblock to make another one from")
    made = bytearray(block)
    number = next((index for index, role in enumerate(found.roles) if index != found.number and (role >= FAULTY or role == slot)), None)
    if number is None:
        raise Problem("the superblock has no place for another leg")
    features, = struct.unpack_from("<I", made, 8)
    struct.pack_into("<I", made, 8, features & ~(_RECOVERING | _BAD_BLOCKS))
    struct.pack_into("<Q", made, 152, 0)
    struct.pack_into("<I", made, 160, number)
    made[168:184] = identity
    made[184] = made[184] & ~_WRITE_MOSTLY | (_WRITE_MOSTLY if write_mostly else 0)
    struct.pack_into("<BHI", made, 185, 0, 0, 0)
    struct.pack_into("<H", made, 256 + 2 * number, slot)
    struct.pack_into("<I", made, 216, checksum(made))
    return bytes(made)


def checksum(block):
    """What md keeps at byte 216 of a superblock, computed as calc_sb_1_csum does. Pure."""
    highest, = struct.unpack_from("<I", block, 220)
    size = 256 + 2 * highest
    data = bytearray(block[:size])
    data[216:220] = bytes(4)
    total = sum(struct.unpack_from(f"<{size // 4}I", data)) + (struct.unpack_from("<H", data, size - 2)[0] if size % 4 else 0)
    return (total + (total >> 32)) & 0xFFFFFFFF
