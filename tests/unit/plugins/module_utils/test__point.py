# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.indestructible.block.plugins.module_utils import _point


def test_what_lies_on_a_device_is_found_through_partitions_and_holders(tmp_path):
    for path in ("md127/holders", "md127/queue", "md127/md127p1", "md127p1/holders/dm-0", "md127p2/holders/dm-0", "dm-0/holders/dm-1", "dm-1/holders"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "md127/md127p2").mkdir()
    for part in ("1", "2"):
        (tmp_path / f"md127/md127p{part}/partition").write_text(part)
    assert _point.stack_of("md127", str(tmp_path)) == ["dm-1", "dm-0", "md127p1", "md127p2", "md127"]
