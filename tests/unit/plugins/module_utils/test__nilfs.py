# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _nilfs, _nilfs_volume
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._mount import Mount

UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
LINE = f"UUID={UUID} {{}} nilfs2 noauto,_netdev,nofail,nogc,noatime 0 0\n"


def crc(data, value):
    for byte in data:
        value ^= byte
        for _bit in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value


def super_block(label=b"indestructible-v1", seed=0x12345678):
    block = bytearray(1024)
    struct.pack_into("<IHHHHII", block, 0, 2, 0, 0x3434, 280, 0, seed, 0)
    struct.pack_into("<I3QII4Q", block, 20, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    struct.pack_into("<I", block, 20, 2)
    struct.pack_into("<3Q", block, 24, 24, 200 << 20, 1)
    struct.pack_into("<2I", block, 48, 2048, 5)
    struct.pack_into("<Q", block, 56, 77)
    struct.pack_into("<2Q", block, 80, 1000, 1600000000)
    struct.pack_into("<Q", block, 104, 1600000001)
    struct.pack_into("<H", block, 116, 3)
    block[152:168] = bytes(range(16))
    block[168:168 + len(label)] = label
    struct.pack_into("<I", block, 16, crc(block[:280], seed))
    return bytes(block)


def test_super_block():
    found = _nilfs.parse_super(super_block())
    assert found == ("indestructible-v1", UUID, 4096, 24, 8 << 20, 200 << 20, 5, 77, 4096000, 1600000000, 1600000001, 3)


def test_a_broken_super_block_is_none():
    block = bytearray(super_block())
    block[60] ^= 1
    assert _nilfs.parse_super(bytes(block)) is None
    assert _nilfs.parse_super(bytes(1024)) is None
    assert _nilfs.parse_super(b"") is None


def test_the_second_super_block_serves_when_the_first_is_broken(tmp_path):
    path = tmp_path / "volume"
    with open(path, "wb") as file:
        file.truncate(200 << 20)
        file.seek(_nilfs.second_at(200 << 20))
        file.write(super_block())
    assert _nilfs.read_super(str(path)).label == "indestructible-v1"
    assert _nilfs.has_second_super(str(path))


@pytest.mark.parametrize("segments, percent, reserved", [(24, 5, 8), (161, 5, 9), (12800, 5, 640), (12800, 1, 128)])
def test_reserved_segments(segments, percent, reserved):
    assert _nilfs.reserved_segments(segments, percent) == reserved


def test_snapshots_are_not_the_main_mount():
    assert _nilfs._is_snapshot(Mount("/mnt", "/dev/sdb", "8:16", "/", "nilfs2", ("ro",), ("ro", "cp=7")))
    assert not _nilfs._is_snapshot(Mount("/mnt", "/dev/sdb", "8:16", "/", "nilfs2", ("rw",), ("rw", "pp=0")))


def want(tmp_path, check_mode=False, **more):
    given = dict({"device": "/dev/sdb", "name": "v1", "mount": str(tmp_path / "point")}, **more)
    return _nilfs_volume.normalize(given, check_mode)


def state(wanted, **more):
    base = _nilfs_volume._blank_state(wanted)
    point = wanted["mount"]
    base.update(_exists=True, device_size=1 << 30, state="mounted", label="indestructible-v1", uuid=UUID, mountpoint=point, fstab=True,
                size=1 << 30, segments=127, segment_size=8 << 20, reserved=5, read_only=False, error=False, cleaner=False,
                _fstab_text=LINE.format(point), _in_fstab=True, owner=OURS, _marked=True, _held=True)
    base.update(more)
    return base


OURS = {"host": "alpha", "id": "1", "initiator": None, "since": "2026-11-22T10:15:30Z", "how": "mark and reservation", "here": True}
THEIRS = dict(OURS, host="beta", id="2", here=False)
FREE = {"owner": None, "_marked": False, "_held": False}
BLANK = {"uuid": None, "label": None, "state": "absent", "mountpoint": None, "size": None, "fstab": False, "_in_fstab": False, "_fstab_text": ""}
OUT = {"mountpoint": None, "state": "unmounted", "read_only": None, "cleaner": None}


@pytest.mark.parametrize("more, found, steps", [
    ({}, {}, []),
    ({}, BLANK, ["format", "mount", "fstab"]),
    ({"state": "present"}, BLANK, ["format"]),
    ({}, dict(BLANK, _half_done=True, _content="data at byte 4096"), ["format", "mount", "fstab"]),
    ({}, dict(BLANK, _half_done=True, _content="a nilfs2 file system labelled 'indestructible-v1'"), ["format", "mount", "fstab"]),
    ({}, OUT, ["mount"]),
    ({}, {"cleaner": True}, ["no_cleaner"]),
    ({}, {"read_only": True}, ["remount"]),
    ({}, {"read_only": True, "_users": ["/dev/loop3"]}, []),
    ({}, {"device_size": 2 << 30}, ["grow"]),
    ({}, dict(OUT, device_size=2 << 30), ["mount", "grow"]),
    ({}, {"_fstab_text": ""}, ["fstab"]),
    ({"state": "present"}, OUT, []),
    ({"state": "unmounted"}, {}, ["unmount"]),
    ({"state": "absent"}, {}, ["unmount", "no_fstab", "release"]),
    ({"state": "absent"}, BLANK, ["release"]),
    ({"state": "absent"}, dict(BLANK, **FREE), []),
    ({"state": "absent"}, {"owner": THEIRS, "_held": False}, ["unmount", "no_fstab"]),
    ({"state": "unmounted"}, {"_owner_problem": "it does not answer"}, ["unmount"]),
    ({}, dict(BLANK, **FREE), ["claim", "format", "mount", "fstab"]),
    ({"state": "present"}, dict(BLANK, **FREE), ["claim", "format"]),
    ({}, dict(OUT, **FREE), ["claim", "mount"]),
    ({}, dict(FREE), ["claim"]),
    ({}, {"_held": False}, ["claim"]),
    ({}, {"_marked": False}, []),
    ({}, {"_held": None}, []),
    ({}, dict(OUT, _held=None, _marked=False, owner=None), ["claim", "mount"]),
    ({}, {"_held": None, "_marked": False, "owner": None}, []),
    ({"adopt": True}, {}, []),
    ({"adopt": True}, dict(OUT, owner=THEIRS, _held=False), ["take_over", "mount"]),
    ({"adopt": True}, dict(BLANK, owner=THEIRS, _held=False), ["take_over", "format", "mount", "fstab"]),
])
def test_plan(tmp_path, more, found, steps):
    wanted = want(tmp_path, **more)
    assert [step.verb for step in _nilfs_volume.plan(wanted, state(wanted, **found))] == steps


def test_a_missing_device_is_predicted_in_check_mode_only(tmp_path):
    wanted = want(tmp_path, True, device=None)
    seen = _nilfs_volume._blank_state(wanted)
    steps = _nilfs_volume.plan(wanted, seen)
    assert [step.verb for step in steps] == ["claim", "format", "mount", "fstab"]
    assert _nilfs_volume.predict(wanted, seen, steps)["mountpoint"] == wanted["mount"]
    with pytest.raises(Problem, match="the store v1 has no device"):
        _nilfs_volume.plan(dict(wanted, check_mode=False), seen)


@pytest.mark.parametrize("more, found, words", [
    ({}, dict(BLANK, _content="a GPT partition table"), "it holds a GPT partition table; only a blank device"),
    ({}, dict(BLANK, _half_done=True, _content="an ext4 file system"), "it holds an ext4 file system"),
    ({}, dict(BLANK, _content="data at byte 4096"), "it holds data at byte 4096"),
    ({}, dict(BLANK, _use="held by md127"), "it is held by md127"),
    ({}, dict(BLANK, device_size=64 << 20), "too small for a volume with 5 % reserved; at least 128 MiB"),
    ({}, dict(BLANK, _point_taken="none (tmpfs)"), "is in use by none"),
    ({}, dict(OUT, _use="held by dm-0"), "cannot be mounted: it is held by dm-0"),
    ({}, {"mountpoint": "/mnt"}, "is mounted on /mnt and not on"),
    ({}, {"device_size": 1 << 29}, "the device has become smaller"),
    ({"state": "unmounted"}, {"_users": ["/dev/loop3 over /x"]}, "it is used by /dev/loop3 over /x"),
    ({"state": "absent"}, dict(BLANK, _content="an ext4 file system"), "is not the volume 'indestructible-v1'"),
    ({}, {"owner": THEIRS}, "/dev/sdb is owned by the host beta .id 2. since 2026-11-22T10:15:30Z: its mark is on the LUN, and it holds the reservation"),
    ({}, dict(OUT, owner=THEIRS), "only if that host is gone for good"),
    ({"state": "present"}, dict(BLANK, owner=dict(THEIRS, host=None, initiator="iqn.x:b", how="reservation")),
     "another host .initiator iqn.x:b, id 2. since .*: it holds the reservation of the LUN"),
    ({"adopt": True}, {"owner": THEIRS}, "is still mounted on .* of this host, although the host beta .id 2. owns it; unmount it"),
    ({"adopt": True}, dict(BLANK, owner=THEIRS, _content="an ext4 file system"), "only a blank device is formatted"),
    ({}, dict(OUT, _owner_problem="it does not answer"), "it cannot be told who owns /dev/sdb: it does not answer"),
])
def test_refusals(tmp_path, more, found, words):
    wanted = want(tmp_path, **more)
    with pytest.raises(Problem, match=words):
        _nilfs_volume.plan(wanted, state(wanted, **found))


def test_a_mount_point_of_others_in_fstab_is_refused_before_anything_is_formatted(tmp_path):
    wanted = want(tmp_path)
    found = dict(BLANK)
    found["_fstab_text"] = LINE.format(wanted["mount"])
    blank = state(wanted, **found)
    with pytest.raises(Problem, match="/etc/fstab mounts UUID="):
        _nilfs_volume.plan(wanted, blank)
    assert _nilfs_volume.plan(wanted, dict(blank, _record={"uuid": UUID}))  # its own volume on a LUN that is no more


@pytest.mark.parametrize("given, words", [
    ({}, "give the name of the store"),
    ({"name": "a/b"}, "is not a name"),
    ({"label": "x" * 81, "mount": "/m"}, "longer than the 80 bytes"),
    ({"label": "x"}, "give the path to mount"),
    ({"name": "a", "mount": "m"}, "not an absolute"),
    ({"name": "a", "block_size": 512}, "block_size: 512 is not one of"),
    ({"name": "a", "reserved": 100}, "not a share from 1 to 99"),
])
def test_what_cannot_be_meant(given, words):
    with pytest.raises(Problem, match=words):
        _nilfs_volume.normalize(given)


@pytest.mark.parametrize("content, looks", [("data at byte 4096", 2), (None, 1)])
def test_what_another_host_makes_of_a_blank_device_in_this_moment_is_known_as_its_own(monkeypatch, content, looks):
    theirs = {"here": False, "host": "beta"}
    found = [(None, False, None), (theirs, True, False)]
    monkeypatch.setattr(_nilfs_volume._owner, "look", lambda device: found.pop(0))
    monkeypatch.setattr(_nilfs_volume._owner, "find_content", lambda device: content)
    monkeypatch.setattr(_nilfs_volume, "read_super", lambda device: None)
    monkeypatch.setattr(_nilfs_volume, "find_use", lambda device: None)
    monkeypatch.setattr(_nilfs_volume, "known_as", lambda device: "serial")
    state = {"owner": None, "_record": {}}
    _nilfs_volume._observe_volume({"label": "indestructible-vault1", "state": "present"}, state, "/dev/sdb", [])
    assert state["owner"] == (theirs if content else None) and len(found) == 2 - looks
