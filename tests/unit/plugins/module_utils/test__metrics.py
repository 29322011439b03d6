# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

from ansible_collections.indestructible.block.plugins.module_utils._metrics import metrics

STORE = {"checkpoint": 7, "commit_seconds": 0.02, "lag_seconds": 0.4, "problem": None, "capacity": {
    "free": 100, "size": 400, "left": 60, "left_percent": 15, "left_seconds": 86400 * 3, "rate_hour": 5, "rate_day": 4, "rate_week": None,
    "full": False, "warning": "x"}}


def test_every_line_is_in_the_text_format():
    text = metrics({"vault1": STORE, "vault2": {"capacity": None, "problem": "away"}}, {
        "db": {"state": "attached", "store": "vault1", "local_room": {"free": 5, "wanted": 9, "warning": "x"}}, "raw": {"state": "out", "local_room": None}})
    kinds = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            assert line.split()[2] not in kinds
            kinds.add(line.split()[2])
        elif not line.startswith("# HELP "):
            assert re.fullmatch(r'indestructible_\w+\{(\w+="[^"]*",?)+\} [0-9.]+', line), line
            assert line.split("{")[0] in kinds
    assert 'indestructible_store_left_days{store="vault1"} 3.0' in text and 'indestructible_store_warning{store="vault1"} 1' in text
    assert 'window="week"' not in text and 'indestructible_store_problem{store="vault2"} 1' in text
    assert 'indestructible_device_leg{device="db",store="vault1",state="attached"} 1' in text
    assert 'indestructible_device_leg{device="db",store="vault1",state="out"} 0' in text
    assert 'indestructible_device_local_free_bytes{device="db"} 5\n' in text and 'local_wanted_bytes{device="raw"}' not in text
    assert metrics({}, {}) == ""
