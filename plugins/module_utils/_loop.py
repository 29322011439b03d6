# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Loop devices: a file as a block device, found by the file's device and inode and never by a name.

Everything goes through the kernel's own interface (ioctl and sysfs): no command is run, and a loop is set up in one act.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections import namedtuple

from ._core import RUN_DIR, Problem, read_text, wait_until, write_text
from ._blockdev import find_holder, openers_of

CLR_FD, SET_STATUS64, GET_STATUS64, SET_CAPACITY, SET_DIRECT_IO, CONFIGURE = 0x4C01, 0x4C04, 0x4C05, 0x4C07, 0x4C08, 0x4C0A
CTL_GET_FREE = 0x4C82
READ_ONLY, AUTOCLEAR, DIRECT_IO = 1, 4, 16

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt type, key size, flags; file name, crypt
# name, key; two init words. struct loop_config: file descriptor, block size, loop_info64, eight reserved words.
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct("=2I232s64x")

WRITE_CACHE = ("write back", "write through")

_CGROUP = "/sys/fs/cgroup"
_UNORDERED = f"{RUN_DIR}/unordered"  # there once the controller io was seen in use: it may come and go, and what it left in queues may not be over

# One loop in use: device path, backing (the path as the kernel shows it), file (device number, inode; None when it cannot be asked for), offset and sizelimit
# in bytes (0: none), read_only, direct_io and autoclear bool, write_cache str, size in bytes.
Loop = namedtuple("Loop", "device backing file offset sizelimit read_only direct_io autoclear write_cache size")


def _status(number):
    return _INFO.unpack(fcntl.ioctl(number, GET_STATUS64, bytes(_INFO.size)))


def _queue(device):
    return f"/sys/block/{os.path.basename(device)}/queue/write_cache"


def keep_order():
    """Whether loops carry out all that they are told in the order in which they are told.

    A loop has a queue of its own for each block cgroup, and the queues do not wait for each other. Without the controller `io` (`blkio` of
    version 1) all belong to the one root group. Once seen in use it counts until the next boot (note_order).
    """
    in_use = "io" in (read_text(f"{_CGROUP}/cgroup.subtree_control") or "").split() or os.path.isdir(f"{_CGROUP}/blkio")
    return not in_use and not os.path.exists(_UNORDERED)


def note_order():
    """Whether loops keep the order, as keep_order() tells; that they do not is noted for the time until the next boot."""
    ordered = keep_order()
    if not ordered and not os.path.exists(_UNORDERED):
        os.makedirs(RUN_DIR, mode=0o700, exist_ok=True)
        with open(_UNORDERED, "w", encoding="utf-8"):
            pass
    return ordered


def backing_of(device):
    """Path of the file behind a loop as the kernel shows it, or None when the loop is idle or not there."""
    return read_text(f"/sys/block/{os.path.basename(device)}/loop/backing_file")


def read_loop(device):
    """Loop of a loop device, or None when nothing is attached to it."""
    name = os.path.basename(device)
    backing = backing_of(device)
    if backing is None:
        return None
    cache, size = read_text(_queue(device), ""), int(read_text(f"/sys/block/{name}/size", "0")) * 512
    try:
        number = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            info = _status(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return None
        # the kernel asks the file system below the file, which may have failed; all the others have to be known all the same
        told = {key: int(read_text(f"/sys/block/{name}/{key}", "0") or 0) for key in ("loop/offset", "loop/sizelimit", "ro", "loop/dio", "loop/autoclear")}
        return Loop(device, backing, None, told["loop/offset"], told["loop/sizelimit"], bool(told["ro"]), bool(told["loop/dio"]),
                    bool(told["loop/autoclear"]), cache, size)
    flags = info[8]
    return Loop(device, backing, (info[0], info[1]), info[3], info[4], bool(flags & READ_ONLY), bool(flags & DIRECT_IO),
                bool(flags & AUTOCLEAR), cache, size)


def loops():
    """List of Loop: every loop in use on this host, by number."""
    found = []
    try:
        names = [name for name in os.listdir("/sys/block") if re.fullmatch(r"loop[0-9]+", name)]
    except OSError:
        return found
    for name in sorted(names, key=lambda name: int(name[4:])):
        if os.path.exists(f"/sys/block/{name}/loop"):
            loop = read_loop(f"/dev/{name}")
            if loop:
                found.append(loop)
    return found


def loops_of(path, known=None):
    """List of Loop over exactly this file, whatever name it was attached by; empty when there is no such file."""
    try:
        about = os.stat(path)
    except OSError:
        return []
    return [loop for loop in (loops() if known is None else known) if loop.file == (about.st_dev, about.st_ino)]


def find(path, offset=0, sizelimit=0, known=None):
    """The device (/dev/loopN) over exactly this file, offset and size limit, or None. known: a list of Loop read before."""
    for loop in loops_of(path, known):
        if (loop.offset, loop.sizelimit) == (offset, sizelimit):
            return loop.device
    return None


def attach(path, offset=0, sizelimit=0, read_only=False, direct_io=False, write_cache="write back"):
    """Attach a file to a free loop and return its device, with the write cache mode set explicitly (it survives a detach)."""
    try:
        backing = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    except OSError as error:
        raise Problem(f"cannot open {path}: {error.strerror}") from None
    try:
        device = _configure(path, backing, offset, sizelimit, (READ_ONLY if read_only else 0) | (DIRECT_IO if direct_io else 0))
    finally:
        os.close(backing)
    try:
        if not read_only:
            set_write_cache(device, write_cache)
    except Problem:
        detach(device)
        raise
    return device


def _configure(path, backing, offset, sizelimit, flags):
    """Set a free loop up in one ioctl. Another program may take the free one first (the number is not reserved): try the next."""
    name = os.fsencode(os.path.realpath(path))[-63:]
    info = _INFO.pack(0, 0, 0, offset, sizelimit, 0, 0, 0, flags, name, b"", b"", 0, 0)
    for _attempt in range(64):
        try:
            control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
            try:
                device = f"/dev/loop{fcntl.ioctl(control, CTL_GET_FREE)}"
            finally:
                os.close(control)
        except OSError as error:
            raise Problem(f"cannot get a free loop device: {error.strerror}; load the kernel module loop") from None
        wait_until(lambda node=device: os.path.exists(node), 5, f"the node {device}")
        try:
            number = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(number, CONFIGURE, _CONFIG.pack(backing, 0, info))
                return device
            finally:
                os.close(number)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise Problem(f"cannot attach {path} to {device}: {error.strerror}") from None
    raise Problem(f"cannot attach {path}: other programs took every free loop device first")


def detach(device, seconds=10):
    """Detach a loop; returns when it is really gone. Raises Problem, with the loop as it was, when something uses it.

    The kernel reports success for a busy loop too and only marks it to go later, so the mark is taken back when it stays.
    """
    before = read_loop(device)
    if before is None:
        return
    use = find_holder(device)
    if use:
        raise Problem(f"{device} over {before.backing} cannot be detached: it is {use}")
    if not before.read_only:
        set_write_cache(device, "write back")
    try:
        number = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(number, CLR_FD)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise Problem(f"cannot detach {device} from {before.backing}: {error.strerror}") from None
    try:
        wait_until(lambda: _file_of(device) != before.file, seconds, f"{device} to let {before.backing} go")
    except Problem:
        _keep(device, before)
        users = openers_of(device)
        told = f"{', '.join(users)} has it open" if users else "something has it open"
        raise Problem(f"{device} over {before.backing} cannot be detached: {told}") from None


def _file_of(device):
    loop = read_loop(device)
    return loop.file if loop else None


def _keep(device, before):
    """Take the kernel's mark to detach at the last close back, and the write cache mode with it."""
    try:
        number = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            info = list(_status(number))
            info[8] &= ~AUTOCLEAR
            fcntl.ioctl(number, SET_STATUS64, _INFO.pack(*info))
        finally:
            os.close(number)
        if not before.read_only:
            set_write_cache(device, before.write_cache)
    except OSError:
        pass  # it went away after all, or the kernel keeps the mark: the message that follows says who has it open


def set_capacity(device):
    """Make a loop notice that its file has grown."""
    _control(device, SET_CAPACITY, 0, "read the new size of its file")


def set_direct_io(device, wanted):
    """Let a loop read and write its file past the page cache, or through it."""
    _control(device, SET_DIRECT_IO, 1 if wanted else 0, "change to direct I/O" if wanted else "change to buffered I/O")


def _control(device, request, value, what):
    try:
        number = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(number, request, value)
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"{device} cannot {what}: {error.strerror}") from None


def set_write_cache(device, mode):
    """Write the cache mode of a loop explicitly: "write back" (flushes reach the file) or "write through" (they are dropped)."""
    if mode not in WRITE_CACHE:
        raise Problem(f"{mode!r} is not a write cache mode; use {' or '.join(WRITE_CACHE)}")
    write_text(_queue(device), mode)
    if read_text(_queue(device)) != mode:
        raise Problem(f"{device} did not take the write cache mode {mode!r}")


def size_for(file_size, offset=0, sizelimit=0):
    """Bytes that a loop over a file of file_size bytes has: the kernel cuts it to whole sectors."""
    size = max(0, file_size - offset)
    if sizelimit:
        size = min(size, sizelimit)
    return size // 512 * 512


def is_loop(path):
    """Whether path is (a link to) a loop device."""
    try:
        about = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(about.st_mode) and os.major(about.st_rdev) == 7
