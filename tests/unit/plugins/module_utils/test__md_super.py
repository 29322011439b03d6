# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _md_super
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

MIB = 1 << 20
IDENTITY = "11111111:22222222:33333333:44444444"

# Bytes 4096 to 12287 of real legs, written by mdadm 4.2 and kernel 6.1: superblock and bitmap of a device of 16 MiB with chunks of
# 64 KiB, whose remote leg was taken out before the chunks 3 to 7 and 200 were written. LOCAL_LIVE is the local leg while the
# device ran, LOCAL after it was stopped.
LOCAL_LIVE = """
eNrt2DEKwjAUxvEXreAiqJOTqKuT9grO3sEiYhE3h4JLwCM4ewBBEG/hZdwdhJqAQRvUzqX/HzwyvLyEjF8e0+FRiYgtq2UMjNCYGPNI/kpm1ZV8zIt+9yqm6pKjl53z97tz9+PFcqQ6
1/h2CE+XZt/1d6/7a97ctt04a8mXpspUeQkAAAAAoBSieLMOvuR+P0+Lzqbyrl2C4r///quh3P8AAAAAAADF9wQTv+aA
"""
LOCAL = """
eNrt2LEKwjAQgOGLluIiqJOTqKuT9hWcfQeLiEXcHBwcCj6Csw8gCOJb+DLuDkJMIVVT1M6l/wdHCHeXkPHymAyOSkSSSDSNvhEYY2MWyl+baXUpH/0Sv3MVEzXJ0XX7svXpufvRfDFU
7Wt0OwSnS6OX5nf2ft/utbVt1c+x5NNavXrKSAAAAAAApRBG65X3Ze73s4WxO5V3ksUr/vvvvxLK/U8AAAAAAKDIntsr7ns=
"""
REMOTE = """
eNrt1y0LwnAQx/H7zwXjbEaxGk0Dk6wJdqNDGCI2wzD927LNvObr8B34Enwd4ryJTxs+5e37gUt3Pw6u3Wnc2xkRySvXUl3VV4GahfJVPG0s5CUv9tlztJryQ6eY+zQ/9IL0kKTn7caf
rI9R+77PlvZnN/tRNLDyD/PI1JEAAAAAAGohnK+W7pu/35QHbfFnvvbd6t8nAwAAAACgAi69t+0v
"""


def unpack(text):
    return zlib.decompress(base64.b64decode("".join(text.split())))


def leg_file(path, data, offset=_md_super.SUPER_AT):
    path.write_bytes(bytes(offset) + data + bytes(4096))
    return str(path)


def superblock(**more):
    """A superblock as struct mdp_superblock_1 lays it out, all fields different from each other."""
    value = dict(magic=0xA92B4EFC, major=1, features=1, name=b"db", size=200, bitmap_offset=8, data_offset=8192, data_size=300, number=1, flags=0,
                 bad_blocks=0, events=77, resync=0xFFFFFFFFFFFFFFFF, roles=[0, 1])
    value.update(more)
    block = struct.pack("<4I16s32sQIIQIIi", value["magic"], value["major"], value["features"], 0, bytes(range(16)), value["name"], 12345,
                        1, 0, value["size"], 0, 2, value["bitmap_offset"])
    block = block.ljust(128, b"\0") + struct.pack("<4QII16sBBH", value["data_offset"], value["data_size"], 8, 0, value["number"], 0,
                                                  bytes(range(16, 32)), value["flags"], 0, value["bad_blocks"])
    block = block.ljust(192, b"\0") + struct.pack("<3QII", 54321, value["events"], value["resync"], 0, len(value["roles"]))
    return (block.ljust(256, b"\0") + struct.pack(f"<{len(value['roles'])}H", *value["roles"])).ljust(4096, b"\0")


def bitmap(bits, **more):
    """A bitmap as bitmap_super_t lays it out, and its bits."""
    value = dict(magic=0x6D746962, events=77, cleared=70, size=10 * 128, state=0, chunk=65536, time_base=30, write_behind=256)
    value.update(more)
    return struct.pack("<II16s3Q6I", value["magic"], 4, bytes(16), value["events"], value["cleared"], value["size"], value["state"], value["chunk"],
                       value["time_base"], value["write_behind"], 0, 0).ljust(256, b"\0") + bits


def test_a_superblock_is_read_field_by_field():
    found = _md_super.parse_super(superblock())
    assert found == _md_super.Super(
        uuid="00010203:04050607:08090a0b:0c0d0e0f", device_uuid="10111213:14151617:18191a1b:1c1d1e1f", name="db", events=77, clean=True,
        size=200 * 512, data_offset=4 * MIB, data_size=300 * 512, number=1, roles=[0, 1], recovering=False, write_mostly=False, bad_blocks=False, bitmap=None)


@pytest.mark.parametrize("written, field, value", [
    ({"resync": 0}, "clean", False),
    ({"resync": 4096}, "clean", False),
    ({"features": 1 | 2}, "recovering", True),
    ({"features": 1 | 8}, "bad_blocks", True),
    ({"bad_blocks": 8}, "bad_blocks", True),
    ({"flags": 1}, "write_mostly", True),
    ({"flags": 2}, "write_mostly", False),
    ({"name": b"alpha:db"}, "name", "db"),
    ({"name": b"d" * 32}, "name", "d" * 32),
    ({"roles": [0xFFFF, 1, 0xFFFE]}, "roles", [_md_super.SPARE, 1, _md_super.FAULTY]),
])
def test_a_superblock_says(written, field, value):
    plain, found = _md_super.parse_super(superblock()), _md_super.parse_super(superblock(**written))
    assert getattr(found, field) == value
    assert found == plain._replace(**{field: value})


@pytest.mark.parametrize("block", [b"", bytes(4096), superblock()[:4095], superblock(magic=0xA92B4EFD), superblock(major=0), b"\xff" * 4096])
def test_what_is_no_superblock_is_none(block):
    assert _md_super.parse_super(block) is None


def test_a_superblock_that_counts_more_roles_than_it_has_room_for_is_no_accident():
    block = bytearray(superblock())
    struct.pack_into("<I", block, 220, 0xFFFFFFFF)
    assert len(_md_super.parse_super(bytes(block)).roles) == (4096 - 256) // 2


def test_a_bitmap_is_read_field_by_field():
    found = _md_super.parse_bitmap(bitmap(b"\x81\x02"))
    assert found == _md_super.Bitmap(events=77, cleared=70, chunk=65536, time_base=30, write_behind=256, size=10 * 65536, dirty=[(0, 0), (7, 7), (9, 9)])


@pytest.mark.parametrize("more", [{"state": 2}, {"chunk": 0}])
def test_a_bitmap_that_is_not_to_be_believed_is_none(more):
    assert _md_super.parse_bitmap(bitmap(b"\0\0", **more)) is None


def test_bits_past_the_end_are_not_chunks():
    # 9.5 chunks: the last one is half a chunk, and md leaves the rest of the page as it is
    assert _md_super.parse_bitmap(bitmap(b"\xff" * 16, size=9 * 128 + 64)).dirty == [(0, 9)]


@pytest.mark.parametrize("bits, count, ranges", [
    (b"", 0, []),
    (b"\0\0\0", 24, []),
    (b"\x01", 8, [(0, 0)]),
    (b"\x80", 8, [(7, 7)]),
    (b"\x80\x01", 16, [(7, 8)]),
    (b"\xff\xff", 16, [(0, 15)]),
    (b"\xff\xff", 11, [(0, 10)]),
    (b"\x05\x00\x30", 24, [(0, 0), (2, 2), (20, 21)]),
    (b"\x00\x01", 8, []),
])
def test_runs_of_bits(bits, count, ranges):
    assert _md_super.dirty_ranges(bits, count) == ranges
    assert _md_super.count_ranges(ranges) == sum(bin(byte).count("1") for byte in bits[:count // 8]) + (3 if count == 11 else 0)


@pytest.mark.parametrize("lists, merged", [
    ([], []),
    ([[], []], []),
    ([[(5, 6)], [(1, 2)]], [(1, 2), (5, 6)]),
    ([[(1, 2)], [(3, 4)]], [(1, 4)]),
    ([[(1, 9)], [(3, 4)]], [(1, 9)]),
    ([[(1, 4)], [(3, 9)]], [(1, 9)]),
    ([[(1, 1), (3, 3)], [(2, 2)]], [(1, 3)]),
    ([[[1, 2]], [(2, 3)]], [(1, 3)]),  # a record comes back from JSON with lists
])
def test_ranges_are_merged(lists, merged):
    assert _md_super.merge_ranges(*lists) == merged


def test_the_legs_of_a_real_device(tmp_path):
    local = _md_super.read_super(leg_file(tmp_path / "local", unpack(LOCAL)))
    remote = _md_super.read_super(leg_file(tmp_path / "remote", unpack(REMOTE)))
    assert (local.uuid, local.name, local.size, local.data_offset) == (IDENTITY, "db", 16 * MIB, 4 * MIB)
    assert remote.uuid == local.uuid and remote.device_uuid != local.device_uuid
    assert (local.number, remote.number) == (1, 0) and (local.events, remote.events) == (6, 1)
    assert (local.write_mostly, remote.write_mostly) == (False, True)
    assert not local.bad_blocks and not remote.bad_blocks and not local.recovering and not remote.recovering
    assert local.roles[:2] == [_md_super.SPARE, 1] and remote.roles[:2] == [0, 1]
    assert local.clean and remote.clean
    assert local.bitmap == _md_super.Bitmap(events=6, cleared=0, chunk=65536, time_base=30, write_behind=1024, size=16 * MIB, dirty=[(3, 7), (200, 200)])
    assert remote.bitmap.dirty == [] and remote.bitmap.events == 1


def test_a_real_device_that_runs_is_not_clean(tmp_path):
    live = _md_super.read_super(leg_file(tmp_path / "live", unpack(LOCAL_LIVE)))
    assert not live.clean and live.events == 5 and live.bitmap.dirty == [(3, 7), (200, 200)]


def test_a_bitmap_longer_than_a_block_is_read_in_full(tmp_path):
    chunks = 8 * 4096
    bits = bytes(4096 - 1) + b"\x80"
    path = leg_file(tmp_path / "leg", superblock() + bitmap(bits, size=chunks * 128))
    assert _md_super.read_super(path).bitmap.dirty == [(chunks - 1, chunks - 1)]
    fits = 8 * (4096 - 256)
    path = leg_file(tmp_path / "one more", superblock() + bitmap(bytes(fits // 8) + b"\x01", size=(fits + 1) * 128))
    assert _md_super.read_super(path).bitmap.dirty == [(fits, fits)]


def test_a_bitmap_lies_where_the_superblock_says(tmp_path):
    assert _md_super.read_super(leg_file(tmp_path / "far", superblock(bitmap_offset=16) + bytes(4096) + bitmap(b"\x01"))).bitmap.dirty == [(0, 0)]
    assert _md_super.read_super(leg_file(tmp_path / "none", superblock(features=0) + bitmap(b"\x01"))).bitmap is None
    assert _md_super.read_super(leg_file(tmp_path / "other", superblock() + bitmap(b"\x01", magic=1))).bitmap is None


def test_a_leg_without_superblock_is_none(tmp_path):
    assert _md_super.read_super(leg_file(tmp_path / "blank", bytes(8192))) is None
    (tmp_path / "short").write_bytes(b"x")
    assert _md_super.read_super(str(tmp_path / "short")) is None
    with pytest.raises(Problem, match=r"cannot read .*gone at byte 4096: No such file"):
        _md_super.read_super(str(tmp_path / "gone"))
