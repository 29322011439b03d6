# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Reading a nilfs2 volume: its super block from the device, and through ioctl on its mount point what changes by the second.

Structures are those of the kernel's nilfs2_api.h and nilfs2_ondisk.h; everything on disk is little-endian.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import uuid
import zlib
from collections import namedtuple

from ._core import Problem, read_text
from ._blockdev import number_of, size_of
from ._mount import mounts_of

MAGIC = 0x3434
MIN_RESERVED = 8  # segments; the kernel never reserves fewer
VALID, ERROR = 1, 2  # bits of the state in the super block: unmounted cleanly, an error was found

CHANGE_CPMODE, GET_CPINFO, GET_CPSTAT, GET_SUSTAT = 0x40106E80, 0x80186E82, 0x80186E83, 0x80306E85
SYNC, RESIZE = 0x80086E8A, 0x40086E8B

_SUPER_AT, _SUPER_SIZE = 1024, 1024
_SUM_AT = 16
_ARGV = struct.Struct("<QIHHQ")
_CPINFO = struct.Struct("<IIQQQQQQ")

# The super block. label str; uuid str as blkid writes it; sizes in bytes; reserved in percent; times in seconds.
Super = namedtuple("Super", "label uuid block_size segments segment_size size reserved last_checkpoint free made written state")

# A checkpoint: number int, time int (seconds), snapshot bool, minor bool (no file but the volume's own
# changed since the one before, NILFS_SC_HAVE_DELTA in segment.h of the kernel), blocks int, added int (blocks that were written for it).
Checkpoint = namedtuple("Checkpoint", "number time snapshot minor blocks added")

Usage = namedtuple("Usage", "segments clean dirty")


def parse_super(block):
    """Super of the 1024 bytes of a super block, or None when they are none or their check sum is wrong."""
    if len(block) < 264 or struct.unpack_from("<H", block, 6)[0] != MAGIC:
        return None
    length, seed, checksum = struct.unpack_from("<H", block, 8)[0], *struct.unpack_from("<2I", block, 12)
    if not 264 <= length <= len(block) or _crc(block[:_SUM_AT] + bytes(4) + block[_SUM_AT + 4:length], seed) != checksum:
        return None
    log_block_size, = struct.unpack_from("<I", block, 20)
    segments, size, _first = struct.unpack_from("<3Q", block, 24)
    blocks, reserved = struct.unpack_from("<2I", block, 48)
    last, = struct.unpack_from("<Q", block, 56)
    free, made = struct.unpack_from("<2Q", block, 80)
    written, = struct.unpack_from("<Q", block, 104)
    state, = struct.unpack_from("<H", block, 116)
    block_size = 1024 << log_block_size
    label = block[168:248].split(b"\0")[0].decode("utf-8", "replace")
    return Super(label, str(uuid.UUID(bytes=bytes(block[152:168]))), block_size, segments, blocks * block_size, size, reserved, last,
                 free * block_size, made, written, state)


def _crc(data, seed):
    """The kernel's crc32_le with a seed of its own; zlib's inverts before and after."""
    return zlib.crc32(data, seed ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def second_at(size):
    """Offset of the second super block on a device of that many bytes."""
    return ((size >> 12) - 1) << 12


def read_super(path):
    """Super of a device or file: the first copy, or the second when the first is broken; None when it is no nilfs2 volume."""
    size = size_of(path)
    if size < 2 * (_SUPER_AT + _SUPER_SIZE):
        return None
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = parse_super(os.pread(number, _SUPER_SIZE, _SUPER_AT))
            return found or parse_super(os.pread(number, _SUPER_SIZE, second_at(size)))
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot read the super block of {path}: {error.strerror}") from None


def has_second_super(path):
    """Whether a device has a sound second super block where one belongs; mkfs writes it last."""
    try:
        with open(path, "rb") as file:
            file.seek(second_at(size_of(path)))
            return parse_super(file.read(_SUPER_SIZE)) is not None
    except OSError as error:
        raise Problem(f"cannot read the second super block of {path}: {error.strerror}") from None


def reserved_segments(segments, percent):
    """How many segments the kernel keeps back of so many, at that reserved share."""
    return max(MIN_RESERVED, -(-segments * percent // 100))


def main_mount(device, mounts=None):
    """The Mount of the current state of a volume, or None; mounts of snapshots (cp=N) are other ones."""
    for mount in mounts_of(device, mounts):
        if mount.fstype == "nilfs2" and not _is_snapshot(mount):
            return mount
    return None


def snapshot_mounts(device, mounts=None):
    """Mounts (list) of snapshots of a volume."""
    return [mount for mount in mounts_of(device, mounts) if mount.fstype == "nilfs2" and _is_snapshot(mount)]


def _is_snapshot(mount):
    return any(option.startswith("cp=") for option in mount.super_options)


def cleaners(device, point=None):
    """Process numbers (list of int) of the cleaner daemons at work on a volume, told by its device or its mount point."""
    wanted = os.stat(device).st_rdev if device and os.path.exists(device) else None
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or read_text(f"/proc/{name}/comm") != "nilfs_cleanerd":
            continue
        for word in (read_text(f"/proc/{name}/cmdline") or "").split("\0")[1:]:
            try:
                if word == point or (wanted and word.startswith("/dev/") and os.stat(word).st_rdev == wanted):
                    found.append(int(name))
                    break
            except OSError:
                continue
    return found


def attribute(device, name):
    """Text of an attribute below /sys/fs/nilfs2/DEVICE (segctor/dirty_data_blocks_count, ...), or None."""
    base = os.path.basename(os.path.realpath(f"/sys/dev/block/{number_of(device)}"))
    return read_text(f"/sys/fs/nilfs2/{base}/{name}")


class Volume:
    """A mounted volume, open for reading: a context manager over its mount point."""

    def __init__(self, point):
        self.point = point
        self._number = None

    def __enter__(self):
        try:
            self._number = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Problem(f"cannot open {self.point}: {error.strerror}") from None
        return self

    def __exit__(self, *_ignored):
        os.close(self._number)
        self._number = None

    def _ask(self, request, data, what):
        try:
            return fcntl.ioctl(self._number, request, data)
        except OSError as error:
            raise Problem(f"cannot {what} of the nilfs2 volume on {self.point}: {error.strerror}") from None

    def counts(self):
        """(next checkpoint number, checkpoints, snapshots), all int."""
        return struct.unpack("<3Q", self._ask(GET_CPSTAT, bytes(24), "read the checkpoint counts"))

    def usage(self):
        """Usage(segments, clean, dirty): numbers of segments."""
        return Usage(*struct.unpack("<6Q", self._ask(GET_SUSTAT, bytes(48), "read the segment usage"))[:3])

    def checkpoints(self, start, count=64):
        """List of Checkpoint: up to count existing ones with numbers from start on, ascending; empty behind the last."""
        found = []
        while len(found) < count:
            wanted = min(count - len(found), 73)  # what a page holds, so that the kernel answers in one go
            buffer = ctypes.create_string_buffer(wanted * _CPINFO.size)
            argument = bytearray(_ARGV.pack(ctypes.addressof(buffer), wanted, _CPINFO.size, 0, start))
            try:
                fcntl.ioctl(self._number, GET_CPINFO, argument)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise Problem(f"cannot read checkpoint {start} of the nilfs2 volume on {self.point}: {error.strerror}") from None
            got = _ARGV.unpack(argument)[1]
            for at in range(got):
                flags, _pad, number, created, added, _inodes, blocks, _next = _CPINFO.unpack_from(buffer.raw, at * _CPINFO.size)
                if number >= start and not flags & 2:
                    found.append(Checkpoint(number, created, bool(flags & 1), bool(flags & 8), blocks, added))
            if got < wanted or not found:
                break
            start = found[-1].number + 1
        return found

    def first_checkpoint(self):
        """The oldest Checkpoint, or None."""
        found = self.checkpoints(1, 1)
        return found[0] if found else None

    def last_checkpoint(self):
        """The newest Checkpoint, or None."""
        newest = self.counts()[0] - 1
        found = self.checkpoints(max(1, newest), 1)
        return found[0] if found else None

    def sync(self):
        """Commit what is dirty and return the number of the newest checkpoint."""
        return struct.unpack("<Q", self._ask(SYNC, bytes(8), "commit the dirty data"))[0]

    def protect(self, number):
        """Make a snapshot of a checkpoint, which nothing deletes then."""
        self._change_mode(number, 1, f"protect checkpoint {number}")

    def release(self, number):
        """Make a plain checkpoint of a snapshot again; raises Problem while it is mounted."""
        if number >= self.counts()[0] - 1:
            os.utime(self._number)  # the kernel keeps the newest one as it is, so there has to be a newer one
            self.sync()
        self._change_mode(number, 0, f"release checkpoint {number}")

    def _change_mode(self, number, mode, what):
        self._ask(CHANGE_CPMODE, struct.pack("<QII", number, mode, 0), what)
        self.sync()  # until then it is in memory alone, and a power loss takes it back

    @property
    def block_size(self):
        """Bytes of a block."""
        return os.fstatvfs(self._number).f_bsize

    def resize(self, size):
        """Grow the volume to size bytes."""
        self._ask(RESIZE, struct.pack("<Q", size), f"change the size to {size} bytes")
