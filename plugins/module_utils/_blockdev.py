# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A block device or file as a thing with a size, a number and users. Read from stat, ioctl and sysfs; nothing is run."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from ._core import Problem, read_text
from ._mount import mounts_of

BLKGETSIZE64 = 0x80081272


def is_block(path):
    """Whether path is (a link to) a block device."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def size_of(path):
    """Bytes (int) that a file or a block device holds; raises Problem when it is neither or cannot be read."""
    try:
        about = os.stat(path)
        if stat.S_ISREG(about.st_mode):
            return about.st_size
        if not stat.S_ISBLK(about.st_mode):
            raise Problem(f"{path} is neither a file nor a block device")
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return struct.unpack("=Q", fcntl.ioctl(number, BLKGETSIZE64, bytes(8)))[0]
        finally:
            os.close(number)
    except FileNotFoundError:
        raise Problem(f"{path} does not exist") from None
    except OSError as error:
        raise Problem(f"cannot read the size of {path}: {error.strerror}") from None


def number_of(path):
    """"MAJOR:MINOR" of a block device, as sysfs and mountinfo write it; raises Problem when it is none."""
    try:
        about = os.stat(path)
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from None
    if not stat.S_ISBLK(about.st_mode):
        raise Problem(f"{path} is not a block device")
    return f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"


def sysfs_of(path):
    """The sysfs directory of a block device, links resolved, such as /sys/devices/.../block/sdb."""
    return os.path.realpath(f"/sys/dev/block/{number_of(path)}")


def identity_of(path):
    """What tells this very device or file from another one, also after a reboot, as far as the kernel knows it.

    A str: the world wide name or serial of a disk, the UUID of a device-mapper or md device, the device and inode of a loop's
    file; None when the device has no name of its own and only its path and size are known.
    """
    if not is_block(path):
        about = os.stat(path)
        return f"inode {about.st_dev}:{about.st_ino}"
    base = sysfs_of(path)
    partition = read_text(f"{base}/partition")
    disk = os.path.dirname(base) if partition else base
    suffix = f" partition {partition}" if partition else ""
    for attribute in ("wwid", "device/wwid", "dm/uuid", "device/serial", "serial"):
        value = read_text(f"{disk}/{attribute}")
        if value and value != "(null)":
            return f"{os.path.basename(attribute)} {' '.join(value.split())}{suffix}"
    array = _array_of(disk)
    if array:
        return f"md {array}{suffix}"
    backing = read_text(f"{disk}/loop/backing_file")
    if backing:
        return f"loop on {backing} at {read_text(f'{disk}/loop/offset')}{suffix}"
    return None


def known_as(device):
    """The name (str) by which a record tells this very device from another; where the kernel knows none, its path and size have to do."""
    return identity_of(device) or f"{os.path.realpath(device)} of {size_of(device)} bytes"


def _array_of(disk):
    """UUID of the md array that a sysfs directory stands for, from the superblock of a member (older kernels do not tell it)."""
    try:
        members = sorted(os.listdir(f"{disk}/slaves")) if os.path.isdir(f"{disk}/md") else []
    except OSError:
        members = []
    for member in members:
        try:
            with open(f"/dev/{member}", "rb") as file:
                file.seek(4096)
                block = file.read(32)
        except OSError:
            continue
        if block[:4] == b"\xfc\x4e\x2b\xa9":
            return block[16:32].hex()
    return None


def find_holder(path):
    """What uses a block device, in words ("mounted on /mnt", "held by md127", ...), or None when nothing does.

    Looks at mounts, swap, holders in sysfs, the partitions of a disk, and at last tries to open it exclusively.
    """
    mounts = mounts_of(path)
    if mounts:
        return f"mounted on {mounts[0].point}"
    base = sysfs_of(path)
    name = os.path.basename(base)
    for line in (read_text("/proc/swaps") or "").splitlines()[1:]:
        if os.path.realpath(line.split()[0]) == os.path.realpath(path):
            return "used as swap space"
    try:
        holders = sorted(os.listdir(f"{base}/holders"))
    except OSError:
        holders = []
    if holders:
        names = [read_text(f"/sys/class/block/{holder}/dm/name") or holder for holder in holders]
        return f"held by {', '.join(names)}"
    for part in sorted(os.listdir(base)):
        if os.path.exists(f"{base}/{part}/partition") and os.path.exists(f"/dev/{part}"):
            use = find_holder(f"/dev/{part}")
            if use:
                return f"in use: its partition {part} is {use}"
    try:
        os.close(os.open(f"/dev/{name}" if is_block(f"/dev/{name}") else path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return "opened exclusively by the kernel or by another program"
        if error.errno not in (errno.ENXIO, errno.ENOMEDIUM):
            raise Problem(f"cannot open {path}: {error.strerror}") from None
    return None


def openers_of(path):
    """Names (list of str) of processes that have a block device open by its node; for messages."""
    wanted = os.stat(path).st_rdev
    found = []
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                about = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISBLK(about.st_mode) and about.st_rdev == wanted and int(pid) != os.getpid():
                    found.append(f"{read_text(f'/proc/{pid}/comm', '?')} (pid {pid})")
                    break
        except OSError:
            continue
    return found
