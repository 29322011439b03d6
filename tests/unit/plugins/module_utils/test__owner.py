# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _owner
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._reservation import Registrant

ME, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
MARK = {"id": OTHER, "host": "beta", "initiator": "iqn.2026-11.org.example:beta", "since": "2026-11-22T10:15:30Z"}


def test_a_mark_comes_back():
    sector = _owner.build_mark(MARK["id"], MARK["host"], MARK["initiator"], MARK["since"])
    assert len(sector) == 512 and _owner.parse_mark(sector) == MARK


def test_long_names_are_left_out_of_a_mark():
    found = _owner.parse_mark(_owner.build_mark(OTHER, "beta", "iqn." + "x" * 500, "now"))
    assert found == {"id": OTHER, "host": "beta", "initiator": None, "since": "now"}
    found = _owner.parse_mark(_owner.build_mark(OTHER, "é" * 253, "iqn." + "x" * 500, "now"))
    assert found == {"id": OTHER, "host": None, "initiator": None, "since": "now"}


def test_a_longest_name_of_an_initiator_fits():
    name = "iqn." + "x" * 219
    assert _owner.parse_mark(_owner.build_mark(OTHER, "h" * 64, name, "2026-11-22T10:15:30Z"))["initiator"] == name


def test_no_mark():
    assert _owner.parse_mark(bytes(512)) is None and _owner.parse_mark(b"") is None
    assert _owner.parse_mark(b"\xeb\x63\x90" + bytes(509)) is None


@pytest.mark.parametrize("at", [8, 12, 40])
def test_a_damaged_mark_is_somebodys(at):
    sector = bytearray(_owner.build_mark(ME, "alpha", None, "now"))
    sector[at] ^= 1
    found = _owner.parse_mark(bytes(sector))
    assert found == {"id": None, "host": None, "initiator": None, "since": None}
    owner = _owner.judge(found, None, [], ME)
    assert not owner["here"]
    assert "/dev/sdb is owned by an unknown host (its mark is damaged): its mark is on the LUN" in str(_owner.refusal("/dev/sdb", owner))


def test_keys_differ_and_last():
    assert _owner.key_of(ME) != _owner.key_of(OTHER)
    assert _owner.key_of(ME) == 0x62A0DDC3A273D445
    assert 0 < _owner.key_of(ME) < 1 << 64


def judge(mark=None, key=None, registrants=(), me=ME):
    owner = _owner.judge(mark, key, list(registrants), me)
    return owner and (owner["id"], owner["how"], owner["here"])


def test_who_owns_a_lun():
    ours = dict(MARK, id=ME)
    assert judge() is None and judge(me=None) is None
    assert judge(MARK) == (OTHER, "mark", False)
    assert judge(MARK, me=None) == (OTHER, "mark", False)
    assert judge(MARK, _owner.key_of(OTHER)) == (OTHER, "mark and reservation", False)
    assert judge(ours, _owner.key_of(ME)) == (ME, "mark and reservation", True)
    # the target has lost its reservations
    assert judge(ours) == (ME, "mark", True)
    # the mark decides: a target may come back from a power loss with reservations of long ago
    assert judge(ours, _owner.key_of(OTHER)) == (ME, "mark", True)
    assert judge(MARK, _owner.key_of(ME)) == (OTHER, "mark", False)
    # no mark: who holds the reservation
    assert judge(key=_owner.key_of(ME)) == (ME, "reservation", True)
    assert judge(key=_owner.key_of(OTHER)) == (None, "reservation", False)
    assert judge(key=0, me=None) == (None, "reservation", False)


def test_a_holder_without_a_mark_is_named_by_its_initiator():
    owner = _owner.judge(None, 7, [Registrant(8, False, "iqn.x:c", None), Registrant(7, True, "iqn.x:b", "1")], ME)
    text = str(_owner.refusal("/dev/sdb", owner))
    assert "/dev/sdb is owned by another host (initiator iqn.x:b): it holds the reservation of the LUN" in text
    assert "only if that host is gone for good" in text


def test_the_refusal_names_the_host():
    text = str(_owner.refusal("/dev/sdb", _owner.judge(MARK, _owner.key_of(OTHER), [], ME)))
    assert f"owned by the host beta (initiator iqn.2026-11.org.example:beta, id {OTHER}) since 2026-11-22T10:15:30Z: its mark is on the LUN, and it" in text


@pytest.fixture
def here(tmp_path, monkeypatch):
    texts = {}
    monkeypatch.setattr(_owner, "STATE_DIR", str(tmp_path / "state"))
    real = _owner.read_text
    monkeypatch.setattr(_owner, "read_text", lambda path, default=None: texts.get("machine") if path == "/etc/machine-id" else real(path, default))
    texts["machine"] = "m1"
    return tmp_path / "state" / "host.json", texts


def test_the_id_is_made_on_first_need_and_lasts(here):
    path, _texts = here
    assert _owner.identity() is None and not path.exists()
    number = _owner.identity(make=True)
    assert _owner.identity() == number == _owner.identity(make=True)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_copy_of_the_disk_on_another_machine_is_another_host(here):
    path, texts = here
    number = _owner.identity(make=True)
    texts["machine"] = "m2"
    assert _owner.identity() is None
    assert _owner.identity(make=True) != number
    assert json.loads(path.read_text())["machine_id"] == "m2"


def test_a_host_without_a_machine_id_keeps_its_id(here):
    _path, texts = here
    texts["machine"] = ""
    number = _owner.identity(make=True)
    texts["machine"] = "m2"
    assert _owner.identity() == number


def test_a_broken_id_is_not_replaced(here):
    path, _texts = here
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(Problem, match="not readable JSON"):
        _owner.identity(make=True)


@pytest.fixture
def lun(monkeypatch):
    """A LUN with a mark, and with a reservation of a key, either None; what is asked of the target is done."""
    found = {"mark": None, "key": None, "secured": 0}
    holding = []
    monkeypatch.setattr(_owner, "identity", lambda make=False: ME)
    monkeypatch.setattr(_owner, "read_mark", lambda device: found["mark"])
    monkeypatch.setattr(_owner._reservation, "is_scsi_disk", lambda device: True)
    monkeypatch.setattr(_owner._reservation, "supported", lambda device: True)
    monkeypatch.setattr(_owner._reservation, "holds", lambda device, key: bool(holding))
    monkeypatch.setattr(_owner._reservation, "read_reservation", lambda device: found["key"] and Registrant(found["key"], True, None, None))

    def secure(device, key, force):
        found["secured"] += 1
        if found.get("given_up_meanwhile"):
            found["mark"] = None
    monkeypatch.setattr(_owner, "_secure", secure)
    monkeypatch.setattr(_owner, "_let_go", lambda device, key: found.update(secured=found["secured"] - 1))
    return found


@pytest.mark.parametrize("mark, key", [(ME, None), (ME, ME), (ME, OTHER), (None, ME)])
def test_a_lun_of_this_host_is_renewed(lun, mark, key):
    lun.update(mark=mark and dict(MARK, id=mark), key=key and _owner.key_of(key))
    _owner.renew("/dev/sdb")
    assert lun["secured"] == 1


@pytest.mark.parametrize("key, says", [(None, "neither the mark nor the reservation of this host, so it was given up"), (OTHER, "is owned by another host")])
def test_a_lun_that_was_given_up_is_not_taken_back(lun, monkeypatch, key, says):
    monkeypatch.setattr(_owner, "_winner", lambda device: _owner.judge(None, key and _owner.key_of(key), [], ME))
    lun.update(key=key and _owner.key_of(key))
    with pytest.raises(Problem, match=says):
        _owner.renew("/dev/sdb")
    assert lun["secured"] == 0


def test_a_lun_that_is_given_up_meanwhile_is_let_go(lun):
    lun.update(mark=dict(MARK, id=ME), given_up_meanwhile=True)
    with pytest.raises(Problem, match="it was given up"):
        _owner.renew("/dev/sdb")
    assert lun["secured"] == 0
