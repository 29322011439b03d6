# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host's own description says of a store that was moved."""

from __future__ import annotations

import contextlib
import json

import pytest
from ansible_collections.indestructible.block.plugins.module_utils import _generations, _host_config

OLD, NEW = ({"portal": "10.0.0.1:3260", "target": "iqn.2026-11.org.example:a", "lun": lun, "device": None} for lun in (0, 1))


@pytest.fixture(name="host")
def host_fixture(monkeypatch, tmp_path):
    """The record of the store vault1, a dict; write(place) writes the file."""
    record, path = {}, tmp_path / "indestructible.json"

    def write(place):
        path.write_text(json.dumps({"stores": [dict(place, name="vault1", mount="/stores/vault1")], "devices": []}))
    monkeypatch.setattr(_host_config, "PATH", str(path))
    monkeypatch.setattr(_host_config, "STATE_DIR", str(tmp_path))
    monkeypatch.setattr(_host_config, "host_lock", lambda seconds: contextlib.nullcontext())
    monkeypatch.setattr(_host_config, "load_record", lambda kind, name: dict(record) if name == "vault1" else dict(record.get("begun", {})))

    def save(_kind, _name, values):
        record.clear()
        record.update(values)
    monkeypatch.setattr(_host_config, "save_record", save)
    return record, write


def place():
    store = _host_config.load().stores["vault1"]
    return {key: store[key] for key in OLD}


def test_a_moved_store_is_where_it_was_moved_to_until_the_file_says_so(host):
    record, write = host
    write(OLD)
    assert place() == OLD
    record.update(uuid="new", place=NEW, left=_generations.place_of(_host_config.in_file("vault1")))
    assert place() == NEW
    _host_config.settle_moves()
    assert place() == NEW and record["left"] == OLD
    write(NEW)
    assert place() == NEW
    record["begun"] = {"phase": "completing"}  # while the swap is not through
    _host_config.settle_moves()
    assert record["left"] == OLD
    del record["begun"]
    _host_config.settle_moves()
    assert record == {"uuid": "new"}
    write(OLD)  # somebody put the same LUN there
    assert place() == OLD


def test_a_store_that_was_moved_twice_is_known_by_what_the_file_says(host):
    record, write = host
    write(OLD)
    record.update(place=dict(NEW, lun=2), left=_generations.place_of(_host_config.in_file("vault1")))
    assert place()["lun"] == 2
    assert _generations.place_of(_host_config.in_file("vault1")) == OLD
    write(dict(NEW, lun=5))  # what the file says anew counts, also before the guard has settled it
    assert place()["lun"] == 5
