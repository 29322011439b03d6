# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _freeze
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem


@pytest.fixture(name="told")
def told_fixture(monkeypatch, tmp_path):
    """A function -> list of what was done to the file systems and by the commands, in order; one named busy is frozen by somebody else."""
    log = tmp_path / "log"

    def control(point, _request, what):
        if "busy" in point:
            raise Problem(f"cannot {what} the file system on {point}: Device or resource busy")
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{what} {os.path.basename(point)}\n")
    monkeypatch.setattr(_freeze, "_control", control)
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "busy"):
        (tmp_path / name).mkdir()
    return lambda: log.read_text().splitlines() if log.exists() else []


SAY = "echo {} >>$LOG"
AFTER = [SAY.format("after")]


def test_all_is_undone_in_reverse_and_what_a_command_leaves_in_the_background_is_not_waited_for(told):
    begun = time.monotonic()
    with _freeze.held_still(["a", "b"], [SAY.format("before"), "sleep 20 &"], AFTER, 10):
        assert told() == ["before", "freeze a", "freeze b"]
    assert told()[3:] == ["thaw b", "thaw a", "after"]
    assert time.monotonic() - begun < 5


def test_the_commands_before_share_one_limit_and_nothing_is_frozen_behind_it(told):
    begun = time.monotonic()
    with pytest.raises(Problem, match="the command before the freeze did not end within the time limit: sleep 0.71"):
        with _freeze.held_still(["a"], ["sleep 0.7", "sleep 0.71"], AFTER, 1):
            raise AssertionError("frozen behind the deadline")
    assert told() == ["after"]
    assert time.monotonic() - begun < 3


def test_everything_is_let_go_at_the_deadline_and_what_is_made_later_is_no_point(told):
    with pytest.raises(Problem, match="the time limit of 0.5 seconds was over before the point was made"):
        with _freeze.held_still(["a"], [], AFTER, 0.5):
            end = time.monotonic() + 10
            while told() != ["freeze a", "thaw a", "after"] and time.monotonic() < end:
                time.sleep(0.05)
            assert time.monotonic() < end


def test_what_somebody_else_has_frozen_stays_so(told):
    with pytest.raises(Problem, match="cannot freeze the file system on busy: Device or resource busy$"):
        with _freeze.held_still(["a", "busy", "b"], [], AFTER, 10):
            raise AssertionError("not all is frozen")
    assert told() == ["freeze a", "thaw a", "after"]


def test_everything_is_let_go_when_the_program_is_killed(told):
    child = os.fork()
    if child == 0:
        with _freeze.held_still(["a"], [], AFTER, 60):
            os._exit(9)
    os.waitpid(child, 0)
    end = time.monotonic() + 10
    while told() != ["freeze a", "thaw a", "after"]:
        assert time.monotonic() < end, told()
        time.sleep(0.05)


def test_a_command_after_that_fails_is_told_with_what_it_said(told):
    with pytest.raises(Problem, match="^the command after the thaw failed with status 3: echo so it is; exit 3: so it is$"):
        with _freeze.held_still([], [], ["echo so it is; exit 3", *AFTER], 10):
            pass
    assert told() == ["after"]


def test_nothing_is_frozen_after_the_deadline(monkeypatch):
    asked = []
    monkeypatch.setattr(_freeze, "_shell", lambda when, command, seconds: None)
    monkeypatch.setattr(_freeze, "_control", lambda point, request, what: asked.append(point))
    with pytest.raises(Problem, match="the time limit of 2 seconds was over before the point was made"):
        _freeze._freeze(None, ["/srv/db"], [], time.monotonic() - 0.1, 2, [])
    assert asked == []
