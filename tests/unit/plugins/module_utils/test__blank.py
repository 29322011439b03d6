# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _blank

PART = 1 << 20


@pytest.mark.parametrize("tags, words", [
    ({"TYPE": "ext4", "LABEL": "mine", "USAGE": "filesystem"}, "an ext4 file system labelled 'mine'"),
    ({"TYPE": "xfs", "USAGE": "filesystem"}, "an xfs file system"),
    ({"TYPE": "btrfs", "USAGE": "filesystem"}, "a btrfs file system"),
    ({"TYPE": "linux_raid_member", "USAGE": "raid", "LABEL": "host:db"}, "an md array member labelled 'host:db'"),
    ({"TYPE": "LVM2_member", "USAGE": "raid"}, "an LVM physical volume"),
    ({"TYPE": "crypto_LUKS", "USAGE": "crypto"}, "a LUKS encrypted volume"),
    ({"TYPE": "isw_raid_member", "USAGE": "raid"}, "an isw_raid_member RAID member"),
    ({"PTTYPE": "gpt"}, "a GPT partition table"),
    ({"PTTYPE": "sun"}, "a sun partition table"),
    ({"TYPE": "ambivalent", "USAGE": "other"}, "an ambivalent signature"),
    ({}, None),
])
def test_words_for_what_blkid_says(tags, words):
    assert _blank.describe(tags) == words


def test_zeros_and_holes(tmp_path):
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(20 * PART)
    assert _blank.find_data(str(path)) is None
    with open(path, "r+b") as file:
        file.seek(9 * PART)
        file.write(bytes(4096) + b"x")
    assert _blank.find_data(str(path)) == 9 * PART + 4096
    assert _blank.is_zero(str(path), 0, 9 * PART + 4096)
    assert not _blank.is_zero(str(path), 0, 9 * PART + 4097)
    assert _blank.find_data(str(path), 10 * PART) is None


def test_a_byte_at_either_end_is_found(tmp_path):
    path = tmp_path / "file"
    for at in (0, _blank.EDGE - 1, 20 * PART - _blank.EDGE, 20 * PART - 1):
        with open(path, "wb") as file:
            file.truncate(20 * PART)
            file.seek(at)
            file.write(b"x")
        assert _blank.find_content(str(path)) == f"data at byte {at}"


def test_a_byte_in_the_middle_is_found_in_full_only(tmp_path):
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(20 * PART)
        file.seek(10 * PART)
        file.write(b"x")
    assert _blank.find_content(str(path)) is None
    assert _blank.find_content(str(path), full=True) == f"data at byte {10 * PART}"
