# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _blank
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

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


def volume(monkeypatch, answers, works):
    """A nilfs2 volume: answers are what FIEMAP gives in turn, works whether its disk can be read when it is tried. Returns how often it was tried, a list."""
    asked, answers, works = [], iter(answers), iter(works)

    def check(disk):
        asked.append(disk)
        if not next(works):
            raise Problem(f"{disk} cannot be read")
    monkeypatch.setattr(_blank, "_nilfs_disk", lambda number: "/dev/sda")
    monkeypatch.setattr(_blank, "_check_answers", check)
    monkeypatch.setattr(_blank, "_first_extent", lambda number, start, end: next(answers))
    return asked


def test_data_that_could_not_be_read_at_first_is_no_hole(tmp_path, monkeypatch):
    (tmp_path / "leg").write_bytes(bytes(4096))
    volume(monkeypatch, [None, (1024, 512)], [True, True])
    assert _blank.next_data(str(tmp_path / "leg"), 0, 4096) == 1024


@pytest.mark.parametrize("works", [[False], [True, False]])
def test_nothing_is_told_of_a_file_whose_disk_cannot_be_read(tmp_path, monkeypatch, works):
    (tmp_path / "leg").write_bytes(bytes(4096))
    volume(monkeypatch, [None, None], works)
    with pytest.raises(Problem, match="/dev/sda cannot be read"):
        _blank.next_data(str(tmp_path / "leg"), 0, 4096)


def test_a_disk_is_asked_only_when_a_hole_goes_to_the_end(tmp_path, monkeypatch):
    (tmp_path / "leg").write_bytes(bytes(4096))
    asked = volume(monkeypatch, [(0, 512), None, None], [True, True])
    assert _blank.next_data(str(tmp_path / "leg"), 0, 4096) == 0 and not asked
    assert _blank.next_data(str(tmp_path / "leg"), 512, 4096) == 4096 and asked == ["/dev/sda"] * 2
