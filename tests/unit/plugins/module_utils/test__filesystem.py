# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _filesystem
from ansible_collections.indestructible.block.plugins.module_utils._core import GIB, TIB, Problem

UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
NUMBER = bytes(range(16))


def test_xfs():
    block = bytearray(512)
    struct.pack_into(">4sIQ", block, 0, b"XFSB", 4096, 102400)
    block[32:48] = NUMBER
    block[108:112] = b"data"
    assert _filesystem.parse_xfs(bytes(block)) == ("xfs", UUID, "data", 419430400, True)
    block[126] = 1
    assert not _filesystem.parse_xfs(bytes(block)).complete
    assert _filesystem.parse_xfs(bytes(512)) is None


@pytest.mark.parametrize("features, kind", [((0x3C, 0x2C2, 0x46B), "ext4"), ((4, 2, 3), "ext3"), ((0, 2, 3), "ext2")])
def test_ext(features, kind):
    block = bytearray(1024)
    struct.pack_into("<I", block, 4, 51200)
    struct.pack_into("<I", block, 24, 2)
    struct.pack_into("<H", block, 56, 0xEF53)
    struct.pack_into("<3I", block, 92, *features)
    block[104:120] = NUMBER
    assert _filesystem.parse_ext4(bytes(block)) == (kind, UUID, "", 209715200, True)


def test_btrfs():
    block = bytearray(4096)
    block[32:48], block[64:72] = NUMBER, b"_BHRfS_M"
    struct.pack_into("<Q", block, 209, 1 << 30)
    assert _filesystem.parse_btrfs(bytes(block)) == ("btrfs", UUID, "", 1 << 30, True)
    block[64:65] = b"!"
    assert not _filesystem.parse_btrfs(bytes(block)).complete


BOOT = ("nofail,x-systemd.device-timeout=30s,x-systemd.after=indestructible-devices.service,"
        "x-systemd.before=basic.target")


def want(check_mode=False, **more):
    return _filesystem.normalize([dict({"device": "/dev/md/db", "mount": "/srv/none/db"}, **more)], check_mode)[0]


def state(wanted, **more):
    base = {
        "device": "/dev/md/db", "state": "mounted", "type": "xfs", "uuid": UUID, "label": "", "size": GIB, "device_size": GIB, "free": 0,
        "mountpoint": wanted["mount"], "read_only": False, "fstab": True, "_exists": True, "_content": None, "_use": None, "_half_done": False,
        "_point_taken": None, "_users": [], "_fstab_text": f"/dev/md/db /srv/none/db xfs {BOOT} 0 0\n",
    }
    base.update(more)
    return base


BLANK = {"state": "absent", "type": None, "uuid": None, "size": None, "mountpoint": None, "fstab": False, "_fstab_text": ""}
OUT = {"state": "unmounted", "mountpoint": None}


@pytest.mark.parametrize("more, found, steps", [
    ({}, {}, []),
    ({}, BLANK, ["format", "mount", "fstab"]),
    ({"mount": None}, BLANK, ["format"]),
    ({}, dict(BLANK, _half_done=True, _content="data at byte 9"), ["format", "mount", "fstab"]),
    ({}, OUT, ["mount"]),
    ({"options": "noatime"}, {}, ["fstab", "options"]),
    ({}, {"device_size": 2 * GIB}, ["grow"]),
    ({}, {"device_size": GIB + (7 << 20)}, []),
    ({}, dict(OUT, device_size=2 * GIB), ["mount", "grow"]),
    ({"mount": None}, dict(OUT, device_size=2 * GIB), []),
    ({"state": "unmounted"}, {}, ["unmount"]),
    ({"state": "absent"}, {}, ["unmount", "no_fstab"]),
    ({"state": "absent"}, BLANK, []),
])
def test_plan(more, found, steps):
    wanted = want(**more)
    assert [step.verb for step in _filesystem.plan(wanted, state(wanted, **found))] == steps


@pytest.mark.parametrize("more, found, words", [
    ({}, dict(BLANK, _content="an ext4 file system"), "it holds an ext4 file system; a file system is made only on a blank device, once"),
    ({}, dict(BLANK, _use="held by dm-0"), "it is held by dm-0"),
    ({}, dict(BLANK, device_size=GIB // 8), "too small for xfs, which needs 300 MiB"),
    ({}, {"_exists": False, "type": None}, "does not exist on this host"),
    ({}, {"mountpoint": "/mnt"}, "is mounted on /mnt and not on /srv/none/db"),
    ({}, dict(OUT, _point_taken="tmpfs"), "is in use by tmpfs"),
    ({}, {"device_size": GIB // 2}, "the device has become smaller"),
    ({"state": "absent"}, {"_users": ["postgres (pid 7)"]}, "it is used by postgres"),
    ({}, {"_fstab_text": "/dev/sdx /srv/none/db xfs defaults 0 0\n"}, "mounts /dev/sdx on /srv/none/db"),
])
def test_refusals(more, found, words):
    wanted = want(**more)
    with pytest.raises(Problem, match=words):
        _filesystem.plan(wanted, state(wanted, **found))


def test_a_missing_device_is_predicted_in_check_mode():
    wanted = want(True)
    seen = state(wanted, **dict(BLANK, _exists=False, device_size=None))
    steps = _filesystem.plan(wanted, seen)
    assert [step.verb for step in steps] == ["format", "mount", "fstab"]
    assert _filesystem.predict(wanted, seen, steps)["mountpoint"] == "/srv/none/db"


def test_mkfs_writes_little():
    assert _filesystem.make_command(want(label="db"), 100 * GIB) == [
        "mkfs.xfs", "-q", "-K", "-f", "-s", "size=4096", "-l", "size=67108864", "-L", "db", "/dev/md/db"]
    assert "size=268435456" in _filesystem.make_command(want(), 2 * TIB)
    assert "nodiscard,lazy_itable_init=1,lazy_journal_init=1" in _filesystem.make_command(want(type="ext4"), GIB)
    assert "-K" in _filesystem.make_command(want(type="btrfs"), GIB)


def test_ext4_does_not_zero_its_inode_tables_unless_told():
    assert _filesystem.mount_options(want(type="ext4", options="noatime")) == ["noatime", "noinit_itable"]
    assert _filesystem.mount_options(want(type="ext4", options="init_itable=10")) == ["init_itable=10"]
    assert _filesystem.mount_options(want(options="defaults")) == []


@pytest.mark.parametrize("filesystems, words", [
    ([{"device": "md/db"}], "not an absolute path"),
    ([{"device": "/dev/a", "type": "zfs"}], "is not one of"),
    ([{"device": "/dev/a", "state": "mounted"}], "give the path to mount"),
    ([{"device": "/dev/a", "label": "x" * 13}], "longer than the 12 bytes that xfs has"),
    ([{"device": "/dev/a", "mount": "srv"}], "not an absolute, plain path"),
    ([{"device": "/dev/a", "options": "a, b"}], "has blanks in it"),
    ([{"device": "/dev/a"}, {"device": "/dev/a"}], "/dev/a is given twice"),
    ([{"device": "/dev/a", "mount": "/m"}, {"device": "/dev/b", "mount": "/m"}], "mount point /m is given twice"),
])
def test_what_cannot_be_meant(filesystems, words):
    with pytest.raises(Problem, match=words):
        _filesystem.normalize(filesystems)
