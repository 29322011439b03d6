# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The file system on a device: what is there, read from its super block, and making, growing and mounting it.

Made once and never remade. mkfs writes as little as it can: what it writes crosses the link and stays in the history for good.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import uuid
from collections import namedtuple

from ._core import GIB, MIB, TIB, Problem, Step, human_size, load_record, run, save_record
from ._blank import find_content, find_use
from ._blockdev import is_block, known_as, size_of
from ._md import refuse_mixture
from ._mount import (Entry, check_point, fstab_with, fstab_without, make_directories, mount_at, mounts_of, parse_fstab, read_fstab, read_mounts,
                     unmount, users_of, write_fstab)

TYPES = ("xfs", "ext4", "btrfs")
STATES = ("mounted", "present", "unmounted", "absent")
SLACK = 8 * MIB  # a file system may leave so much at the end of its device unused; less than that is not grown
LABEL_BYTES = {"xfs": 12, "ext4": 16, "btrfs": 255}
SMALLEST = {"xfs": 300 * MIB, "ext4": 8 * MIB, "btrfs": 114 * MIB}

# XFS_IOC_FSGEOMETRY_V1 and BTRFS_IOC_DEV_INFO: the size of a mounted one, whose super block on disk may be older.
_XFS_GEOMETRY, _BTRFS_DEVICE = 0x80705864, 0xD000941E

# What a super block says: type, uuid, label str; size in bytes; complete bool (mkfs got to its end).
Found = namedtuple("Found", "type uuid label size complete")


def _text(data):
    return data.split(b"\0")[0].decode("utf-8", "replace")


def parse_xfs(block):
    """Found of the first 512 bytes of a device, or None."""
    if len(block) < 512 or block[:4] != b"XFSB":
        return None
    block_size, = struct.unpack_from(">I", block, 4)
    blocks, = struct.unpack_from(">Q", block, 8)
    return Found("xfs", str(uuid.UUID(bytes=block[32:48])), _text(block[108:120]), blocks * block_size, block[126] == 0)


def parse_ext4(block):
    """Found of the 1024 bytes at byte 1024, or None; ext2 and ext3 are told from ext4 by their features."""
    if len(block) < 1024 or struct.unpack_from("<H", block, 56)[0] != 0xEF53:
        return None
    blocks, = struct.unpack_from("<I", block, 4)
    log_block_size, = struct.unpack_from("<I", block, 24)
    compatible, incompatible, read_only = struct.unpack_from("<3I", block, 92)
    if incompatible & 0x80:  # 64 bit
        blocks += struct.unpack_from("<I", block, 336)[0] << 32
    kind = "ext4" if incompatible & 0x2C0 or read_only & 0x78 else "ext3" if compatible & 4 else "ext2"
    return Found(kind, str(uuid.UUID(bytes=block[104:120])), _text(block[120:136]), blocks << (10 + log_block_size), True)


def parse_btrfs(block):
    """Found of the 4096 bytes at byte 65536, or None; the size is that of this device, not of the whole."""
    if len(block) < 1024 or block[64:72] not in (b"_BHRfS_M", b"!BHRfS_M"):
        return None
    size, = struct.unpack_from("<Q", block, 209)
    return Found("btrfs", str(uuid.UUID(bytes=block[32:48])), _text(block[299:555]), size, block[64:65] == b"_")


def read_filesystem(path):
    """Found of a device, or None when it has none of the three."""
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
            found = parse_xfs(head[:512]) or parse_ext4(head[1024:])
            if found is None:
                file.seek(65536)
                found = parse_btrfs(file.read(4096))
            return found
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None


def mounted_size(kind, point):
    """Bytes of a mounted XFS or btrfs as the kernel knows them; None for others and when it does not tell."""
    try:
        number = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if kind == "xfs":
                told = fcntl.ioctl(number, _XFS_GEOMETRY, bytes(112))
                return struct.unpack_from("=I", told, 0)[0] * struct.unpack_from("=Q", told, 32)[0]
            if kind == "btrfs":
                told = bytearray(4096)
                struct.pack_into("=Q", told, 0, 1)
                fcntl.ioctl(number, _BTRFS_DEVICE, told)
                return struct.unpack_from("=Q", told, 32)[0]
        finally:
            os.close(number)
    except OSError:
        pass
    return None


def normalize(filesystems, check_mode=False):
    """List of plain dicts with every key of the list a user writes; raises Problem for what cannot be meant."""
    wanted = []
    devices, points = set(), set()
    for given in filesystems:
        device, point, kind = given["device"], given.get("mount") or None, given.get("type") or "xfs"
        state = given.get("state") or ("mounted" if point else "present")
        label = given.get("label") or None
        if not os.path.isabs(device):
            raise Problem(f"device: {device!r} is not an absolute path")
        if kind not in TYPES:
            raise Problem(f"type: {kind!r} is not one of {', '.join(TYPES)}")
        if state not in STATES:
            raise Problem(f"state: {state!r} is not one of {', '.join(STATES)}")
        if state == "mounted" and not point:
            raise Problem(f"give the path to mount the file system of {device} on")
        if label and len(label.encode()) > LABEL_BYTES[kind]:
            raise Problem(f"label: {label!r} is longer than the {LABEL_BYTES[kind]} bytes that {kind} has for it")
        if point and (not os.path.isabs(point) or os.path.normpath(point) != point or point == "/"):
            raise Problem(f"the mount point {point!r} of {device} is not an absolute, plain path below /")
        if device in devices:
            raise Problem(f"{device} is given twice; give each device once")
        if point and point in points:
            raise Problem(f"the mount point {point} is given twice; give each device one of its own")
        options = given.get("options") or ""
        options = ",".join(options) if isinstance(options, (list, tuple)) else options
        if re.search(r"\s", options):
            raise Problem(f"options: {options!r} has blanks in it; separate mount options by commas")
        devices.add(device)
        points.add(point)
        wanted.append({"device": device, "type": kind, "mount": point, "state": state, "label": label,
                       "options": [word for word in options.split(",") if word], "check_mode": check_mode,
                       "record": re.sub(r"[^A-Za-z0-9._-]", "-", device.lstrip("/"))})
    return wanted


def mount_options(want):
    """Options (list of str) to mount with; an ext4 is kept from zeroing all its inode tables behind the user's back."""
    options = [word for word in want["options"] if word != "defaults"]
    if want["type"] == "ext4" and not any("init_itable" in word for word in options):
        options.append("noinit_itable")
    return options


# At boot the mount waits for the device, not for the network, and ordinary services wait for the mount; at most 30 seconds.
_BOOT_OPTIONS = ["nofail", "x-systemd.device-timeout=30s", "x-systemd.after=indestructible-devices.service", "x-systemd.before=basic.target"]


def _entry(want):
    return Entry(want["device"], want["mount"], want["type"], ",".join(_BOOT_OPTIONS + mount_options(want)), "0", "0")


def observe(want):
    """State dict of a file system; keys that begin with "_" are for plan() only."""
    device, point = want["device"], want["mount"]
    state = {
        "device": device, "state": "absent", "type": None, "uuid": None, "label": None, "size": None, "device_size": None, "free": None,
        "mountpoint": None, "read_only": None, "fstab": False,
        "_exists": False, "_content": None, "_use": None, "_half_done": False, "_point_taken": None, "_users": [], "_fstab_text": read_fstab(),
    }
    mounts = read_mounts()
    if os.path.exists(device):
        if not is_block(device):
            raise Problem(f"{device} is not a block device")
        state.update(_exists=True, device_size=size_of(device))
        _observe_device(want, state, mounts)
    at = mount_at(point, mounts) if point else None
    if at and at.point != state["mountpoint"]:
        if not state["_exists"] and at.source == device:
            state.update(mountpoint=at.point, state="mounted", type=at.fstype)  # the device is gone, its mount is not
        else:
            state["_point_taken"] = f"{at.source} ({at.fstype})"
    entries = parse_fstab(state["_fstab_text"])
    state["fstab"] = any(entry.source == device and point in (None, entry.point) for entry in entries)
    if state["mountpoint"]:
        try:
            about = os.statvfs(state["mountpoint"])
            state["free"] = about.f_bavail * about.f_frsize
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENODEV, errno.ESHUTDOWN):
                raise Problem(f"cannot look at {state['mountpoint']}: {error.strerror}") from None
        if want["state"] in ("unmounted", "absent"):
            state["_users"] = users_of(state["mountpoint"])
    return state


def _observe_device(want, state, mounts):
    device = want["device"]
    found = read_filesystem(device)
    mounted = mounts_of(device, mounts)
    if found and found.complete and found.type == want["type"]:
        state.update(state="unmounted", type=found.type, uuid=found.uuid, label=found.label, size=found.size)
        if mounted:
            mount = mounted[0]
            for other in mounted:
                mount = other if other.point == want["mount"] else mount
            state.update(state="mounted", mountpoint=mount.point, read_only="ro" in mount.options or "ro" in mount.super_options,
                         size=mounted_size(found.type, mount.point) or found.size)
        else:
            state["_use"] = find_use(device)
        return
    state["_use"] = find_use(device)
    if want["state"] in ("mounted", "present"):
        record = load_record("filesystems", want["record"])
        state["_half_done"] = record.get("phase") == "formatting" and record.get("device_id") == known_as(device) and (
            found is None or (found.type == want["type"] and not found.complete))
    state["_content"] = find_content(device)


def plan(want, state):
    """List of Step from state to want; raises Problem for refusals. Pure but for a look at an unused mount point."""
    device, point = want["device"], want["mount"]
    if want["state"] in ("unmounted", "absent"):
        return _plan_out(want, state)
    steps = []
    if not state["_exists"]:
        if not want["check_mode"]:
            raise Problem(f"the device {device} does not exist on this host")
        steps.append(_make(want))
    elif state["type"] is None:
        _check_free(want, state)
        steps.append(_make(want))
    elif state["size"] - state["device_size"] > 0:
        raise Problem(f"the {state['type']} file system on {device} has {state['size']} bytes but the device only {state['device_size']}: "
                      "the device has become smaller; give it back its size before it is used")
    if want["state"] == "mounted":
        if state["mountpoint"] is None:
            if state["_use"]:
                raise Problem(f"{device} cannot be mounted: it is {state['_use']}")
            if state["_point_taken"]:
                raise Problem(f"the mount point {point} of {device} is in use by {state['_point_taken']}")
            if device.startswith("/dev/md/"):
                refuse_mixture(os.path.basename(device))
            check_point(point)
            steps.append(Step("mount", f"mounted {device} on {point}"))
        elif state["mountpoint"] != point:
            raise Problem(f"{device} is mounted on {state['mountpoint']} and not on {point}; unmount it there first")
        if fstab_with(state["_fstab_text"], _entry(want)) != state["_fstab_text"]:
            steps.append(Step("fstab", f"entered {point} in /etc/fstab"))
            if state["mountpoint"]:
                steps.append(Step("options", f"mounted {point} again with its options"))
    mounted = state["mountpoint"] or want["state"] == "mounted"
    if mounted and state["size"] is not None and state["device_size"] - state["size"] >= SLACK and not state["read_only"]:
        steps.append(Step("grow", f"grew the {state['type']} file system on {device} from {human_size(state['size'])} to "
                                  f"{human_size(state['device_size'])}", {"point": state["mountpoint"] or point}))
    return steps


def _make(want):
    return Step("format", f"made an {want['type']} file system on {want['device']}" if want["type"] != "btrfs"
                else f"made a btrfs file system on {want['device']}")


def _check_free(want, state):
    device, kind = want["device"], want["type"]
    if state["_use"]:
        raise Problem(f"no {kind} file system is made on {device}: it is {state['_use']}")
    if state["_content"] and not state["_half_done"]:
        raise Problem(f"no {kind} file system is made on {device}: it holds {state['_content']}; a file system is made only on a blank device, "
                      "once, and never remade")
    if state["device_size"] < SMALLEST[kind]:
        raise Problem(f"{device} has {human_size(state['device_size'])}, too small for {kind}, which needs {human_size(SMALLEST[kind])}")


def _plan_out(want, state):
    device, point = want["device"], want["mount"]
    if state["_content"]:
        raise Problem(f"{device} has no {want['type']} file system: it holds {state['_content']}")
    steps = []
    if state["mountpoint"]:
        if point and state["mountpoint"] != point:
            raise Problem(f"{device} is mounted on {state['mountpoint']} and not on {point}; unmount it there")
        if state["_users"]:
            raise Problem(f"cannot unmount {state['mountpoint']}: it is used by {', '.join(state['_users'])}")
        steps.append(Step("unmount", f"unmounted {state['mountpoint']}", {"point": state["mountpoint"]}))
    if want["state"] == "absent" and state["fstab"]:
        steps.append(Step("no_fstab", f"took {device} out of /etc/fstab"))
    return steps


def make_command(want, size):
    """The mkfs command (argv list) for a device of size bytes: no discard, a small log, nothing zeroed that is zero already."""
    kind, device = want["type"], want["device"]
    label = ["-L", want["label"]] if want["label"] else []
    if kind == "xfs":
        # mkfs.xfs zeroes the whole log, through both legs; 64 MiB is the smallest it makes, and its default grows to 2 GiB.
        log = 64 * MIB if size < TIB else 256 * MIB
        # Sectors of 4 KiB: a log written in smaller pieces makes the store read its blocks over the link before it can change them.
        return ["mkfs.xfs", "-q", "-K", "-f", "-s", "size=4096", "-l", f"size={log}"] + label + [device]
    if kind == "ext4":
        # The journal needs no zeros on a blank device, and the inode tables get theirs as they are used (noinit_itable).
        journal = ["-J", "size=64"] if GIB <= size < TIB else []
        return ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"] + journal + label + [device]
    return ["mkfs.btrfs", "-q", "-K", "-f"] + label + [device]


def perform(want, step):
    """Carry one step out."""
    device, point = want["device"], want["mount"]
    if step.verb == "format":
        save_record("filesystems", want["record"], {"phase": "formatting", "device_id": known_as(device), "type": want["type"]})
        run(make_command(want, size_of(device)), timeout=1800)
        os.sync()
        found = read_filesystem(device)
        if found is None or found.type != want["type"]:
            raise Problem(f"mkfs.{want['type']} ended well, but {device} holds no such file system")
        save_record("filesystems", want["record"], {"phase": "ready", "device_id": known_as(device), "type": want["type"], "uuid": found.uuid})
    elif step.verb == "mount":
        make_directories(point)
        options = mount_options(want)
        run(["mount", "-t", want["type"]] + (["-o", ",".join(options)] if options else []) + [device, point], timeout=600)
    elif step.verb == "options":
        run(["mount", "-o", ",".join(["remount"] + mount_options(want)), point])
    elif step.verb == "fstab":
        write_fstab(fstab_with(read_fstab(), _entry(want)))
    elif step.verb == "no_fstab":
        write_fstab(fstab_without(read_fstab(), device, point))
    elif step.verb == "unmount":
        unmount(step.args["point"])
    elif step.verb == "grow":
        _grow(want["type"], device, step.args["point"])


def _grow(kind, device, point):
    if kind == "xfs":
        run(["xfs_growfs", "-d", point], timeout=600)
    elif kind == "ext4":
        run(["resize2fs", os.path.realpath(device)], timeout=1800)
    else:
        run(["btrfs", "filesystem", "resize", "max", point], timeout=600)


def predict(want, state, steps):
    """The state after the steps, as far as it can be known before (the UUID of a new file system cannot)."""
    after = dict(state)
    for step in steps:
        if step.verb == "format":
            after.update(state="unmounted", type=want["type"], label=want["label"] or "", size=state["device_size"])
        elif step.verb == "mount":
            after.update(state="mounted", mountpoint=want["mount"], read_only="ro" in want["options"])
        elif step.verb in ("fstab", "no_fstab"):
            after["fstab"] = step.verb == "fstab"
        elif step.verb == "grow":
            after["size"] = state["device_size"]
        elif step.verb == "unmount":
            after.update(state="unmounted", mountpoint=None, read_only=None, free=None)
    return after


def public(state):
    """The part of a state that a module returns."""
    return {key: value for key, value in state.items() if not key.startswith("_")}
