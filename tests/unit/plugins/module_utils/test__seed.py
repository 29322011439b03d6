# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import struct

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _copy, _md_super, _seed
from ansible_collections.indestructible.block.plugins.module_utils._core import MIB, Problem

from test__md_super import LOCAL, LOCAL_LIVE, REMOTE, unpack

BLOCK = 4096


@pytest.mark.parametrize("written", [LOCAL, LOCAL_LIVE, REMOTE])
def test_the_checksum_is_the_kernels(written):
    block = unpack(written)[:BLOCK]
    assert _seed.checksum(block) == struct.unpack_from("<I", block, 216)[0]


def test_a_remote_leg_is_made_from_the_local_one_that_lacks_it():
    local = unpack(LOCAL)[:BLOCK]
    before, made = _md_super.parse_super(local), _seed.craft(local, 0, True, b"x" * 16)
    found = _md_super.parse_super(made)
    assert _seed.checksum(made) == struct.unpack_from("<I", made, 216)[0]
    assert (found.uuid, found.name, found.events, found.size, found.data_offset) == (before.uuid, before.name, before.events, before.size, before.data_offset)
    assert found.number != before.number and found.roles[found.number] == 0 and found.roles[before.number] == before.roles[before.number] == 1
    assert found.write_mostly and not found.recovering and found.device_uuid != before.device_uuid


def test_a_local_leg_is_made_from_the_remote_one():
    made = _seed.craft(unpack(REMOTE)[:BLOCK], 1, False, b"x" * 16)
    found = _md_super.parse_super(made)
    assert found.roles[found.number] == 1 and not found.write_mostly


def test_nothing_is_made_from_nothing():
    with pytest.raises(Problem, match="no md superblock"):
        _seed.craft(bytes(BLOCK), 0, True, bytes(16))


def test_only_what_differs_is_written(tmp_path):
    data = bytearray(os.urandom(3 * MIB + BLOCK))
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(MIB) + data)
    data[5 * BLOCK] ^= 1
    data[6 * BLOCK] ^= 1
    data[3 * MIB] ^= 1
    target.write_bytes(data)
    told = []
    written = _copy.copy_differences(_copy.Side(str(source), MIB), _copy.Side(str(target), 0), 3 * MIB + BLOCK, lambda *now: told.append(now))
    assert written == 3 * BLOCK
    assert target.read_bytes() == source.read_bytes()[MIB:]
    assert told[-1] == (3 * MIB + BLOCK, 3 * MIB + BLOCK, written)


def test_holes_stay_holes(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as file:
        file.truncate(64 * MIB)
        file.seek(40 * MIB)
        file.write(b"x" * BLOCK)
    with open(target, "wb") as file:
        file.truncate(64 * MIB)
    assert _copy.copy_differences(_copy.Side(str(source), 0), _copy.Side(str(target), 0), 64 * MIB) == BLOCK
    assert os.stat(target).st_blocks * 512 <= 2 * MIB and target.read_bytes() == source.read_bytes()


def test_a_source_that_is_too_short_is_told(tmp_path):
    for name in ("source", "target"):
        (tmp_path / name).write_bytes(bytes(range(256)) * 16)
    with pytest.raises(Problem, match="ended before byte 8192"):
        _copy.copy_differences(_copy.Side(str(tmp_path / "source"), 0), _copy.Side(str(tmp_path / "target"), 0), 8192)
