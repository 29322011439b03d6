# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _md_act

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
