# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _md, _md_act
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

WANT = {"name": "db", "local": "/l", "remote": "/r", "time_base": 1728000}


@pytest.mark.parametrize("devices, written", [
    ({"/l": "/dev/loop0", "/r": "/dev/loop1"}, {"dev-loop0/state": "-writemostly", "dev-loop1/state": "writemostly"}),
    ({"/l": "/dev/loop0", "/r": "/dev/loop7"}, {"dev-loop0/state": "-writemostly"}),  # there, but out of the array
    ({"/l": "/dev/loop0", "/r": None}, {"dev-loop0/state": "-writemostly"}),
])
def test_a_time_base_is_set_and_noted_whether_the_remote_leg_is_there_or_not(tmp_path, monkeypatch, devices, written):
    for leg in ("loop0", "loop1"):
        (tmp_path / f"dev-{leg}").mkdir()
        (tmp_path / f"dev-{leg}" / "state").write_text("")
    (tmp_path / "bitmap").mkdir()
    noted = SimpleNamespace(time_base=1)
    monkeypatch.setattr(_md_act, "_array", lambda want: "md127")
    monkeypatch.setattr(_md_act, "_md", lambda array, attribute: str(tmp_path / attribute))
    monkeypatch.setattr(_md_act, "device_of", devices.get)
    monkeypatch.setattr(_md_act, "read_super", lambda leg: SimpleNamespace(bitmap=noted))

    def write(path, text):
        tmp_path.joinpath(path).write_text(text)
        if path.endswith("dev-loop0/state"):
            noted.time_base = int((tmp_path / "bitmap" / "time_base").read_text())
    monkeypatch.setattr(_md_act, "write_text", write)
    _md_act._set(WANT, {"time_base": WANT["time_base"]})
    found = {f"dev-{leg}/state": (tmp_path / f"dev-{leg}" / "state").read_text() for leg in ("loop0", "loop1")}
    assert {path: text for path, text in found.items() if text} == written
    assert noted.time_base == 1728000


@pytest.mark.parametrize("fails, known, expected", [
    (False, None, {"clean_detach": True, "unsafe_from": 51}),
    (True, None, {"clean_detach": None, "unsafe_from": 41}),  # what came after the last commit of the guard
    (True, 30, {"clean_detach": None, "unsafe_from": 30}),
])
def test_checkpoints_are_no_points_from_a_commit_on_that_failed_when_a_leg_was_detached(monkeypatch, fails, known, expected):
    class Store:
        def __init__(self, point):
            assert point == "/store"

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            return False

        def sync(self):
            if fails:
                raise Problem("no space left on device")
            return 50
    noted, kept = {"unsafe_from": known}, []
    monkeypatch.setattr(_md_act, "remote_state", lambda want: "in sync")
    monkeypatch.setattr(_md_act, "fail_remote", lambda want: None)
    monkeypatch.setattr(_md_act, "remove_remote", lambda want: None)
    monkeypatch.setattr(_md_act, "Volume", Store)
    monkeypatch.setattr(_md_act._catalogue, "volume_of", lambda remote: "/store")
    monkeypatch.setattr(_md_act, "load_record", lambda kind, name: noted)
    monkeypatch.setattr(_md_act, "keep_listed", kept.append)
    monkeypatch.setattr(_md_act, "guard_told", lambda: {"stores": {"vault": {"checkpoint": 40}}, "devices": {"db": {"store": "vault"}}})
    monkeypatch.setattr(_md_act, "update_record", lambda want, **values: noted.update(values))
    _md_act.perform(WANT, _md.Step("detach", "", {"by_wish": True}))
    assert {key: noted[key] for key in expected} == expected and noted["detached"] is True and bool(kept) is fails
