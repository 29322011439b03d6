# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _command
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem


@pytest.mark.parametrize("words, as_of", [
    (["recover", "db", "1", "minute", "ago", "--name", "k"], ["1", "minute", "ago"]),
    (["recover", "db", "--name", "k", "1", "minute", "ago"], ["1", "minute", "ago"]),
    (["recover", "--name", "k", "db", "latest"], ["latest"]),
    (["recover", "db", "--name", "k"], []),
])
def test_a_time_may_stand_before_or_behind_the_options(monkeypatch, words, as_of):
    seen = []
    monkeypatch.setitem(_command.VERBS, "recover", (lambda args: seen.append((args.device, args.as_of)) or 0, *_command.VERBS["recover"][1:]))
    assert _command.main(words) == 0
    assert seen == [("db", as_of)]


@pytest.mark.parametrize("words", [["recover", "db", "--name", "k", "--nmae", "x"], ["status", "x"], ["recover", "db", "latest", "--name", "k", "now"]])
def test_a_word_that_means_nothing_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        _command.main(words)
    assert "unrecognized arguments" in capsys.readouterr().err


def test_a_program_gets_what_went_wrong_as_json(monkeypatch, capsys):
    def refuse(_args):
        raise Problem("no such thing")
    monkeypatch.setitem(_command.VERBS, "status", (refuse, *_command.VERBS["status"][1:]))
    assert (_command.main(["status", "--json"]), _command.main(["status"])) == (1, 1)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"error": "no such thing"}
    assert said.err == "indestructible: no such thing\n" * 2


@pytest.mark.parametrize("content, mode, there, words", [
    ("a GPT partition table", "overlay", True, "kpartx -a /dev/mapper/x (and kpartx -d before the release)"),
    ("an MBR (dos) partition table", "direct", False, "kpartx -ar /dev/mapper/x (and kpartx -d before the release; the package kpartx has it)"),
    ("an LVM physical volume", "overlay", True,
     "vgimportclone -n db_past /dev/mapper/x && vgchange -ay db_past (and vgchange -an db_past before the release)"),
    ("an LVM physical volume", "direct", True, "open it without --direct, for LVM has to give it another name than its twin's"),
])
def test_a_way_to_look_inside_is_named(monkeypatch, content, mode, there, words):
    monkeypatch.setattr(_command.shutil, "which", lambda name: name if there else None)
    state = {"device": "db", "iso": "now", "checkpoint": 1, "safe": True, "path": "/dev/mapper/x", "size": 1 << 30, "content": content, "mount": None,
             "mode": mode, "cow": "/cow", "cow_size": 1 << 20, "name": "db"}
    assert f"  look inside   {words}\n" in _command._recovered(state)


def test_what_could_not_be_started_for_a_broken_configuration_is_late(monkeypatch, capsys):
    noted = []

    def refuse():
        raise Problem("/etc/indestructible.json is not readable JSON")
    monkeypatch.setattr(_command._host_config, "load", refuse)
    monkeypatch.setattr(_command._host_config, "note_late", noted.extend)
    monkeypatch.setattr(_command, "list_records", lambda kind: ["db", "mail"] if kind == "devices" else [])
    assert _command.main(["start"]) == 1
    assert noted == ["db", "mail"] and "not readable" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, tmp_path):
    def points(_args):
        raise BrokenPipeError
    with open(tmp_path / "out", "w", encoding="utf-8") as out:
        monkeypatch.setattr(_command.sys, "stdout", out)
        monkeypatch.setitem(_command.VERBS, "points", (points, *_command.VERBS["points"][1:]))
        assert _command.main(["points", "db"]) == 1
        out.write("more")  # which goes nowhere
    assert (tmp_path / "out").read_text() == ""
