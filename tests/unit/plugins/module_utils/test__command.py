# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _command


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
