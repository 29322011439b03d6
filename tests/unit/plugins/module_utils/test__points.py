# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _cleaner, _points
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._nilfs import Checkpoint
from ansible_collections.indestructible.block.plugins.module_utils._when import Wish

DEVICE = _points.Device("db", "/db.img", "/store/db.img", None, "vault1", "/store", "/dev/sdb", None, None)
CATALOGUE = {"since": 1, "unsafe": [], "points": [{"name": "before", "checkpoint": 3, "time": 3, "note": None}]}


class Volume:
    """A history in memory: the numbers that exist; a checkpoint was made in the second of its number."""

    def __init__(self, *numbers):
        self.all = [Checkpoint(number, number, number < 100, False, 1, 1) for number in numbers]

    def checkpoints(self, start, count=64):
        return [one for one in self.all if one.number >= start][:count]

    def counts(self):
        return self.all[-1].number + 1, len(self.all), 0

    def last_checkpoint(self):
        return self.all[-1]


CLEANED = Volume(3, 7, 8, *range(500, 900))


@pytest.mark.parametrize("volume, first", [
    (Volume(*range(1, 200)), 1), (CLEANED, 500), (Volume(3, 7, 8), 7), (Volume(*range(1, 400, 2), *range(400, 600)), 399),
])
def test_history_is_unbroken_from_the_first_checkpoint_behind_which_none_is_missing(volume, first):
    assert _points.unbroken(volume, 1).number == first


def test_a_time_that_was_deleted_is_refused_and_the_range_is_named():
    assert _points.oldest_safe(CLEANED, CATALOGUE).number == 500
    with pytest.raises(Problem) as caught:
        _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("time", 400))
    assert "is before its first recovery point; protected points before that can be opened by name or number, the newest of them 8 of" in str(caught.value)
    assert "it can be recovered as of any second from" in str(caught.value) and "(checkpoint 500) to" in str(caught.value)
    assert _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("time", 600)).number == 600
    assert _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("name", "before")).number == 3
    with pytest.raises(Problem, match="there is no checkpoint 400; it can be recovered"):
        _points.choose(CLEANED, DEVICE, CATALOGUE, Wish("number", 400))


def test_what_lies_in_an_unsafe_window_behind_a_gap_is_not_taken_from_before_the_gap():
    catalogue = dict(CATALOGUE, unsafe=[{"first": 500, "last": 520, "why": "a heal", "good": 8}])
    with pytest.raises(Problem, match="is before its first recovery point"):
        _points.choose(CLEANED, DEVICE, catalogue, Wish("time", 510))
    assert _points.oldest_safe(CLEANED, catalogue).number == 521


def test_only_single_points_are_named_as_such():
    catalogue = dict(CATALOGUE, unsafe=[{"first": 500, "last": None, "why": "out", "good": 8}])
    assert _points.describe_range(CLEANED, catalogue).startswith("only single protected points can be recovered, the newest of them checkpoint 8 of")


def test_windows_are_forgotten_with_the_history_around_them():
    windows = [{"first": 10, "last": 20, "why": "a", "good": 9}, {"first": 600, "last": 610, "why": "b", "good": 599},
               {"first": 700, "last": None, "why": "c", "good": 699}]
    assert _cleaner.without_old(dict(CATALOGUE, unsafe=windows), [9, 599], 500)["unsafe"] == [dict(windows[1], good=None), windows[2]]
    assert _cleaner.without_old(dict(CATALOGUE, unsafe=windows), [], 500)["unsafe"] == windows


def test_a_point_is_made_of_the_newest_checkpoint_that_is_full():
    volume = Volume(*range(1, 12))
    volume.all = [one._replace(minor=one.number in (1, 9, 10)) for one in volume.all]
    assert [_points.newest_full(volume, number).number for number in (11, 10, 9, 8)] == [11, 8, 8, 8]
    with pytest.raises(Problem, match="no full checkpoint up to 1"):
        _points.newest_full(volume, 1)
