# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import types

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _core, _recovery


@pytest.fixture(name="place")
def place_fixture(monkeypatch, tmp_path):
    """A host without any layer of a recovery, whose records, run-time files and mount points are below a folder; the kernel is not asked."""
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(_core, "STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(_recovery, "RUN_DIR", str(tmp_path / "link/run"))
    monkeypatch.setattr(_recovery, "run", lambda argv, **more: types.SimpleNamespace(rc=1, out="", err=""))
    monkeypatch.setattr(_recovery, "_unprotect", lambda name, record: (tmp_path / "unprotected").touch())
    monkeypatch.setattr(_recovery, "loops", lambda: [])
    monkeypatch.setattr(_recovery, "detach", lambda device: (tmp_path / "detached").touch())
    (tmp_path / "mnt").mkdir()
    (tmp_path / "cow").touch()
    return tmp_path


def record(place, **given):
    found = dict({"name": "db", "mode": "overlay", "point": str(place / "mnt"), "made_point": False, "cow": str(place / "link/cow"), "checkpoint": 7}, **given)
    _core.save_record("recoveries", "db", found)


@pytest.mark.parametrize("given, left", [({}, ["mnt"]), ({"made_point": True}, []), ({"mode": "direct"}, ["cow", "mnt"])])
def test_only_what_was_made_for_a_recovery_is_removed(place, given, left):
    record(place, **given)
    _recovery._close("db")
    assert [name for name in ("cow", "mnt") if (place / name).exists()] == left
    assert (place / "unprotected").exists() and not _core.load_record("recoveries", "db")


def test_a_recovery_that_is_opened_again_at_its_checkpoint_keeps_that_protected(place):
    record(place)
    _recovery._close("db", keep=True)
    assert not (place / "unprotected").exists() and _core.load_record("recoveries", "db")["checkpoint"] == 7


@pytest.mark.parametrize("backing", ["cow", "run/view/db/db.img"])
def test_a_loop_is_found_by_its_file_whatever_links_lead_there(place, monkeypatch, backing):
    record(place)
    monkeypatch.setattr(_recovery, "loops", lambda: [types.SimpleNamespace(backing=str(place / backing), device="/dev/loop7")])
    state = _recovery.observe({"name": "db"})
    assert [bool(state["_cow"]), bool(state["_image"])] == [backing == "cow", backing != "cow"]
    _recovery._close("db")
    assert (place / "detached").exists()


@pytest.mark.parametrize("released", [True, False])
def test_an_overlay_that_is_released_while_it_is_looked_at_is_not_lost(place, monkeypatch, released):
    record(place)
    node = place / "node"
    node.touch()

    def ask(argv, **_more):
        if released:
            node.unlink()
        return types.SimpleNamespace(rc=1, out="", err="")
    monkeypatch.setattr(_recovery, "node_of", lambda name: str(node))
    monkeypatch.setattr(_recovery, "mounts_of", lambda path: [])
    monkeypatch.setattr(_recovery, "run", ask)
    state = _recovery.observe({"name": "db"})
    assert (state["problem"], state["path"]) == (None, None) if released else "is lost" in state["problem"] and state["path"] == str(node)
