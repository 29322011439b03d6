# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _cleaner, _nilfs_volume

NONE = {"keep": None, "cleaner": False, "_loose": [], "_cleaner_written": False, "read_only": False}
HOUR = {"keep": 3600, "cleaner": True, "_loose": [], "_cleaner_written": True, "read_only": False}


@pytest.mark.parametrize("keep, state, mounted, verbs", [
    (None, NONE, False, []),
    (None, NONE, True, []),
    (None, dict(NONE, cleaner=True, _loose=[7]), False, ["no_cleaner"]),
    (None, HOUR, False, ["keep_all"]),
    (None, dict(HOUR, cleaner=None), True, ["keep_all"]),
    (3600, NONE, False, ["clean"]),
    (3600, HOUR, False, []),
    (3600, HOUR, True, ["clean"]),
    (7200, HOUR, False, ["clean"]),
    (3600, dict(HOUR, cleaner=False), False, ["clean"]),
    (3600, dict(HOUR, _loose=[7]), False, ["clean"]),
    (3600, dict(HOUR, _cleaner_written=False), False, ["clean"]),
])
def test_the_cleaner_is_started_and_stopped_only_when_that_changes_something(keep, state, mounted, verbs):
    assert [step.verb for step in _nilfs_volume._plan_cleaner({"keep": keep, "mount": "/store"}, state, mounted)] == verbs


def test_the_cleaner_is_told_the_period_and_one_volume():
    texts = _cleaner.files("vault1", "1234-uuid", "/var/lib/indestructible/stores/vault1", 2592000)
    rules, unit = texts["/var/lib/indestructible/cleaner/vault1.conf"], texts["/etc/systemd/system/indestructible-cleaner-vault1.service"]
    assert "protection_period 2592000\n" in rules
    assert "vault1.conf /dev/disk/by-uuid/1234-uuid /var/lib/indestructible/stores/vault1\n" in unit and "the history of 30d" in unit
