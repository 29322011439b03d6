# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._when import Wish, parse_time, parse_wish

NOW = 1795540651  # 2026-11-24 17:17:31 UTC


@pytest.fixture(autouse=True)
def berlin(monkeypatch):
    monkeypatch.setitem(os.environ, "TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("text, wish", [
    ("2026-11-24 18:17:31", Wish("time", NOW)), ("2026-11-24T17:17:31Z", Wish("time", NOW)), ("2026-11-24 17:17:31+0000", Wish("time", NOW)),
    ("2026-11-25 07:17:31 +14:00", Wish("time", NOW)), ("10 minutes ago", Wish("time", NOW - 600)), ("1970-01-01Z", Wish("time", 0)),
    ("4711", Wish("number", 4711)), ("latest", Wish("latest", None)), ("before-upgrade", Wish("name", "before-upgrade")),
])
def test_what_a_text_means(text, wish):
    assert parse_wish(text, NOW) == wish


@pytest.mark.parametrize("text, words", [
    ("0001-01-01", "is further away than the clock of a host counts; write a time between 1970 and now"),
    ("9999-12-31 23:59:59", "further away"), ("9999-12-31 23:59:59Z", "is in the future"), ("1969-12-31 23:59:59Z", "further away"),
    ("9999999 weeks ago", "further away"), ("9" * 400 + " weeks ago", "further away"), ("9" * 400, "is not a point in time"),
    ("2026-11-24 10:00+99:99", r"has a zone that does not exist \(\+99:99\); write Z, or an offset"), ("2026-11-24 10:00+01:60", "has a zone that does not"),
    ("2026-10-25 02:30", "was there twice on this host"), ("2026-03-29 02:30", "does not exist on this host"), ("2026-13-01", "no date and time that exists"),
])
def test_a_time_that_cannot_be_meant_is_refused_in_words(text, words):
    for parse in (parse_wish, parse_time):
        with pytest.raises(Problem, match=words if parse is parse_wish or "point in time" not in words else "9999") as caught:
            parse(text, NOW, "as_of")
        assert text in str(caught.value)
