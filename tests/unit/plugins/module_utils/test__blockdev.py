# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _blockdev
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem


@pytest.fixture(name="disk")
def make_disk(tmp_path, monkeypatch):
    (tmp_path / "sda" / "sda1").mkdir(parents=True)
    (tmp_path / "sda" / "sda1" / "partition").write_text("1")
    (tmp_path / "sda" / "device").mkdir()
    monkeypatch.setattr(_blockdev, "sysfs_of", lambda path: str(tmp_path / path))
    return tmp_path / "sda" / "device" / "ioerr_cnt"


@pytest.mark.parametrize("path", ["sda", "sda/sda1"])
def test_what_was_read_while_a_disk_had_errors_is_not_used(disk, path):
    disk.write_text("0xf\n")
    with _blockdev.without_failures(path):
        pass
    with pytest.raises(Problem, match=f"{path} answered with errors"):
        with _blockdev.without_failures(path):
            disk.write_text("0x10\n")


def test_a_disk_that_counts_no_errors_is_read_all_the_same(disk):
    assert not disk.exists()
    with _blockdev.without_failures("sda"):
        pass
