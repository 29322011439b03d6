# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import types

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _generations, _recovery
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem


@pytest.mark.parametrize("recovery", [
    {"store_point": "/var/lib/indestructible/generations/vault1.1"}, {"volume": "first", "store_point": "/stores/vault1"},
])
def test_a_generation_with_a_recovery_on_record_is_not_forgotten(monkeypatch, recovery):
    saved = {"vault1": {"generation": 2, "generations": [{"number": 1, "uuid": "first", "devices": {}}]}, "db": recovery}
    monkeypatch.setattr(_generations, "load_record", lambda kind, name: saved.get(name, {}))
    monkeypatch.setattr(_generations, "list_records", lambda kind: ["db"] if "db" in saved else [])
    monkeypatch.setattr(_generations, "save_record", lambda kind, name, record: saved.update({name: record}))
    monkeypatch.setattr(_generations, "is_attached", lambda store, number: False)
    monkeypatch.setattr(_generations, "find_disk", lambda uuid: None)
    with pytest.raises(Problem, match="generation 1 of vault1 is in use by the recovery db; release it first"):
        _generations.forget("vault1", 1)
    del saved["db"]
    _generations.forget("vault1", 1)
    assert saved["vault1"]["generations"] == []


def test_points_are_learnt_when_a_lun_that_was_away_comes_back(monkeypatch, tmp_path):
    here, gone = {"uuid": "1:2", "unsafe_from": 70}, {"uuid": "3:4", "unsafe_from": None}
    saved = {"vault1": {"generations": [{"number": 2, "devices": {"db": here}}, {"number": 1, "devices": {"db": here, "gone": gone}}]},
             "db": {"remote": "/stores/vault1/db.img"}, "gone": {"remote": "/stores/vault1/gone.img"}}
    monkeypatch.setattr(_generations, "load_record", lambda kind, name: saved.get(name, {}))
    monkeypatch.setattr(_generations, "save_record", lambda kind, name, record: saved.update({name: record}))
    (tmp_path / "db.img").write_text("")
    (tmp_path / "db.json").write_text('{"since": 5, "points": [{"name": "early", "checkpoint": 9}]}')
    _generations._learn_points("vault1", 1, str(tmp_path))
    learnt = dict(here, since=5, points=[{"name": "early", "checkpoint": 9}])
    assert saved["vault1"]["generations"] == [{"number": 2, "devices": {"db": here}}, {"number": 1, "devices": {"db": learnt, "gone": gone}}]


def test_when_a_generation_began_is_noted(monkeypatch, tmp_path):
    saved = {"vault1": {"uuid": "first"}}
    monkeypatch.setattr(_generations, "load_record", lambda kind, name: saved.get(name, {}))
    monkeypatch.setattr(_generations, "save_record", lambda kind, name, record: saved.update({name: record}))
    monkeypatch.setattr(_generations, "mount_at", lambda point: types.SimpleNamespace(source="/dev/sdx"))
    monkeypatch.setattr(_generations, "read_super", lambda device: types.SimpleNamespace(made=100))
    _generations.learn(str(tmp_path), "vault1")
    assert saved["vault1"] == {"uuid": "first", "began": 100}
    saved["vault1"] = {"uuid": "second", "generation": 2, "generations": [{"number": 1}], "began": 500}
    _generations.learn(str(tmp_path), "vault1")
    assert saved["vault1"]["began"] == 500  # the swap has noted it, the volume was made earlier
    _generations.write_down(str(tmp_path), "vault1", 900)
    saved["adopted"] = {"uuid": "second"}
    _generations.learn(str(tmp_path), "adopted")
    assert saved["adopted"] == saved["vault1"]
    assert json.loads((tmp_path / _generations.FILE).read_text())["ended"] == 900


def test_what_is_left_of_a_recovery_is_cleared_away_without_its_generation(monkeypatch):
    record = {"checkpoint": 9, "generation": ["vault1", 1], "store_point": "/var/lib/indestructible/generations/vault1.1"}
    state = {"state": "half-open", "_mounts": [], "path": None, "_record": record}
    monkeypatch.setattr(_generations, "retired", lambda store: [])
    step, = _recovery._plan_close({"name": "db"}, state)
    assert step.what.endswith("checkpoint 9 stays protected on generation 1 of vault1, which is not there")

    def volume(point):
        raise AssertionError(f"{point} was opened")
    monkeypatch.setattr(_recovery, "Volume", volume)
    _recovery._unprotect("db", record)  # there is no such generation any more
    with pytest.raises(Problem, match="the store is not mounted on /nowhere"):
        _recovery._unprotect("db", dict(record, generation=None, store_point="/nowhere"))
