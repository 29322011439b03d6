# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Whether a file or block device is blank, what it holds when it is not, and what uses it.

Only what is blank may be formatted or become a leg. Blank means: no signature that libblkid knows anywhere on it, and its
first and last 4 MiB are zeros (every byte, when asked in full).
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import struct

from ._core import MIB, Problem, run
from ._blockdev import find_holder, is_block, size_of
from ._loop import loops_of

__all__ = ["EDGE", "find_content", "find_data", "find_use", "is_zero", "size_of"]

EDGE = 4 * MIB
_BLOCK = 1 * MIB
_PAGE = 4096  # bytes
_ZEROS = bytes(_BLOCK)

# struct fiemap: start, length, flags, mapped extents, room for extents, reserved. struct fiemap_extent: logical, physical and
# length in bytes, two reserved words, flags, three reserved words.
FS_IOC_FIEMAP, FIEMAP_SYNC = 0xC020660B, 1
_FIEMAP = struct.Struct("=2Q4I")
_EXTENT = struct.Struct("=5Q4I")

_RAID = {
    "linux_raid_member": "an md array member",
    "LVM2_member": "an LVM physical volume",
    "LVM1_member": "an LVM physical volume",
    "crypto_LUKS": "a LUKS encrypted volume",
    "DM_snapshot_cow": "a device-mapper snapshot store",
    "drbd": "a DRBD member",
    "swap": "swap space",
    "ceph_bluestore": "a Ceph object store",
    "bcache": "a bcache device",
    "zfs_member": "a ZFS pool member",
    "LIO": "an LIO backing store",
}


def is_zero(path, start, length):
    """Whether the bytes [start, start + length) of a file or block device are all zeros; holes are not read."""
    return find_data(path, start, start + length) is None


def find_data(path, start=0, end=None):
    """Offset (int) of the first byte that is not zero in [start, end), or None. Skips the holes of a file."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    try:
        end = size_of(path) if end is None else min(end, size_of(path))
        known = start
        while start < end:
            if start >= known:
                start, known = _next_data(number, start, end)
            if start >= end:
                break
            block = os.pread(number, min(_BLOCK, end - start), start)
            if not block:
                break
            if block != (_ZEROS if len(block) == _BLOCK else bytes(len(block))):
                return start + len(block) - len(block.lstrip(b"\0"))
            start += len(block)
        return None
    except OSError as error:
        raise Problem(f"cannot read {path} at byte {start}: {error.strerror}") from None
    finally:
        os.close(number)


def next_data(path, start, end):
    """Offset of the first byte in [start, end) of a file or block device that is not in a hole, or end."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _next_data(number, start, end)[0]
    finally:
        os.close(number)


def _next_data(number, start, end):
    """(first byte at or after start that is not in a hole, where this stretch of data ends); (end, end) when only holes follow.

    Asks for the extents of the file, because nilfs2 has them and knows no SEEK_DATA; where neither is to be had all is data.
    """
    try:
        found = _first_extent(number, start, end)
    except OSError:
        try:
            return os.lseek(number, start, os.SEEK_DATA), start
        except OSError as error:
            return (end, end) if error.errno == errno.ENXIO else (start, end)
    disk = None if found else _nilfs_disk(number)
    if disk:
        # nilfs2 says so, too, when it cannot read what it would have to tell; it tries that again when it is asked again
        _check_answers(disk)
        found = _first_extent(number, start, end)
        _check_answers(disk)
    return (max(start, found[0]), max(start, sum(found))) if found else (end, end)


def _first_extent(number, start, end):
    """(first byte, length) of the first extent in [start, end) of an open file, or None. Raises OSError."""
    answer = fcntl.ioctl(number, FS_IOC_FIEMAP, _FIEMAP.pack(start, end - start, FIEMAP_SYNC, 0, 1, 0) + bytes(_EXTENT.size))
    logical, _physical, length = _EXTENT.unpack_from(answer, _FIEMAP.size)[:3]
    return (logical, length) if _FIEMAP.unpack_from(answer)[3] else None


def _nilfs_disk(number):
    """Path of the disk of the nilfs2 volume that an open file is on, or None."""
    device = os.fstat(number).st_dev
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    return f"/dev/{name}" if os.path.isdir(f"/sys/fs/nilfs2/{name}") else None


def _check_answers(disk):
    """Raise Problem unless a disk can be read right now."""
    try:
        number = os.open(disk, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, _PAGE) as page:
                os.preadv(number, [page], 0)
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"{disk} cannot be read ({error.strerror}), so what is in its files cannot be told; once it answers again, try again") from None


def find_content(path, full=False):
    """A phrase for what a file or block device holds ("an ext4 file system labelled 'x'"), or None when it is blank.

    full reads every byte that is not a hole; else the first and last 4 MiB are read. Raises Problem when it cannot be read.
    """
    size = size_of(path)
    if size == 0:
        return None
    for content in (_probe, _wipefs):
        found = content(path)
        if found:
            return found
    at = find_data(path) if full else find_data(path, 0, EDGE)
    if at is None and not full and size > EDGE:
        at = find_data(path, max(EDGE, size - EDGE), size)
    return f"data at byte {at}" if at is not None else None


def describe(tags):
    """A phrase for what `blkid -p -o export` said (dict), or None when it names nothing."""
    kind = tags.get("TYPE")
    label = f" labelled {tags['LABEL']!r}" if tags.get("LABEL") else ""
    if kind in _RAID:
        return f"{_RAID[kind]}{label}"
    if kind:
        article = "an" if kind[0] in "aeiouAEIOUx" else "a"
        what = {"raid": "RAID member", "filesystem": "file system"}.get(tags.get("USAGE", "filesystem"), "signature")
        return f"{article} {kind} {what}{label}"
    if tags.get("PTTYPE"):
        table = {"gpt": "a GPT partition table", "dos": "an MBR (dos) partition table"}
        return table.get(tags["PTTYPE"], f"a {tags['PTTYPE']} partition table")
    return None


def probe(path):
    """What the low-level probe of blkid says of a file or block device: dict of its export tags; empty when it knows nothing.

    When two signatures contradict each other the dict has TYPE "ambivalent".
    """
    result = run(["blkid", "-p", "-o", "export", path], ok=(0, 2, 8))
    if result.rc == 8:
        return {"TYPE": "ambivalent", "USAGE": "other"}
    tags = {}
    for line in result.out.splitlines():
        name, found, value = line.partition("=")
        if found:
            tags[name] = value.replace("\\ ", " ")
    return tags


def _probe(path):
    return describe(probe(path))


def _wipefs(path):
    """The probe stops at the first signature of a kind and passes some over; wipefs lists every one."""
    result = run(["wipefs", "--json", "--no-act", path], ok=None)
    if result.rc != 0 or not result.out.strip():
        return None
    try:
        found = json.loads(result.out).get("signatures") or []
    except ValueError:
        return None
    if not found:
        return None
    first = found[0]
    return f"a {first.get('type', 'unknown')} signature at byte {int(str(first.get('offset', '0')), 0)}"


def find_use(path):
    """A phrase for what uses a file or block device ("mounted on /mnt", "held by md127", "used by /dev/loop3"), or None."""
    if not os.path.exists(path):
        return None
    loops = loops_of(path)
    if loops:
        return f"used by {', '.join(loop.device for loop in loops)}"
    if is_block(path):
        return find_holder(path)
    return None
