# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _reservation
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

KEY = 0x0102030405060708


def answer(body, length=None, generation=7):
    return struct.pack(">II", generation, len(body) if length is None else length) + body


def test_commands():
    assert _reservation.in_command(0) == bytes.fromhex("5e 00 0000 00 00 00 2000 00")
    assert _reservation.in_command(1) == bytes.fromhex("5e 01 0000 00 00 00 2000 00")
    # service action, scope (logical unit) and type, length of the parameters
    assert _reservation.out_command(6) == bytes.fromhex("5f 06 05 0000 00000018 00")
    assert _reservation.out_command(1) == bytes.fromhex("5f 01 05 0000 00000018 00")


def test_parameters():
    plain = _reservation.out_parameters(KEY, 0x1112131415161718)
    assert plain == bytes.fromhex("0102030405060708 1112131415161718 00000000 00 00 0000")
    assert _reservation.out_parameters(0, KEY, persist=True) == bytes.fromhex("0000000000000000 0102030405060708 00000000 01 00 0000")


def test_keys():
    assert _reservation.parse_keys(answer(b"")) == []
    assert _reservation.parse_keys(answer(struct.pack(">QQ", KEY, 2)) + bytes(100)) == [KEY, 2]


def test_keys_of_an_answer_that_was_cut_off():
    assert _reservation.parse_keys(answer(struct.pack(">QQ", KEY, 2) + b"abc", length=8000)) == [KEY, 2]


def test_reservation():
    assert _reservation.parse_reservation(answer(b"") + bytes(50)) is None
    held = answer(struct.pack(">QIBBH", KEY, 0, 0, 0x05, 0))
    assert _reservation.parse_reservation(held) == (KEY, 5)
    assert _reservation.parse_reservation(answer(struct.pack(">QIBBH", 0, 0, 0, 0x08, 0))) == (0, 8)


def test_capabilities():
    # LIO: 8 bytes; CRH no, SIP yes, ATP yes, PTPL yes; TMV yes, PTPL activated; all six types
    lio = _reservation.parse_capabilities(bytes.fromhex("0008 0d 81 ea01 0000"))
    assert lio == (True, {1, 3, 5, 6, 7, 8})
    assert _reservation.parse_capabilities(bytes.fromhex("0008 0c 80 2200 0000")) == (False, {1, 5})
    assert _reservation.parse_capabilities(bytes.fromhex("0008 01 01 ffff 0000")) == (True, None)


def iscsi(name, isid=None):
    text = (name + (f",i,0x{isid}" if isid else "")).encode() + b"\0"
    text += bytes(-len(text) % 4)
    return bytes([0x45 if isid else 0x05, 0]) + struct.pack(">H", len(text)) + text


def registration(key, holder, transport):
    return struct.pack(">Q4xBB4xHI", key, 1 if holder else 0, 5 if holder else 0, 1, len(transport)) + transport


def test_full_status():
    body = registration(KEY, True, iscsi("iqn.2026-11.org.example:alpha", "00023D000001")) + registration(2, False, iscsi("iqn.x:b"))
    body += registration(3, False, bytes([0] * 8 + list(range(8)) + [0] * 8)) + registration(4, False, bytes([6, 0, 0, 0] + list(range(8)) + [0] * 12))
    assert _reservation.parse_full_status(answer(body)) == [
        (KEY, True, "iqn.2026-11.org.example:alpha", "00023d000001"), (2, False, "iqn.x:b", None),
        (3, False, "0001020304050607", None), (4, False, "0001020304050607", None)]
    assert _reservation.parse_full_status(answer(b"")) == []


def test_full_status_without_a_transport():
    assert _reservation.parse_full_status(answer(registration(KEY, False, b""))) == [(KEY, False, None, None)]


@pytest.mark.parametrize("parse", [
    _reservation.parse_keys, _reservation.parse_reservation, _reservation.parse_full_status, _reservation.parse_capabilities])
def test_an_answer_that_is_too_short(parse):
    with pytest.raises(Problem, match="too short"):
        parse(b"\0\0\0")


@pytest.mark.parametrize("sense, found", [
    ("70 00 06 00000000 0a 00000000 2a 03 0000", (6, 0x2A, 3)),
    ("72 05 20 00 00000000", (5, 0x20, 0)),
    ("", (0, 0, 0)),
    ("00 00 00 00", (0, 0, 0)),
])
def test_sense(sense, found):
    assert _reservation.parse_sense(bytes.fromhex(sense)) == found


def test_what_is_no_scsi_disk_has_no_reservations(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    assert not _reservation.supported(str(path)) and not _reservation.supported("/dev/null") and not _reservation.supported(str(tmp_path / "none"))
