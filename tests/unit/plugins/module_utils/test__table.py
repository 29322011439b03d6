# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.indestructible.block.plugins.module_utils._table import status_table


def test_the_table_is_read_by_people():
    device = {"name": "db", "size": 100 << 30, "state": "recovering", "recovery_percent": 41.7, "local": {"path": "/x", "state": "in_sync"},
              "remote": {"path": "/y", "state": "spare"}, "dirty_bytes": 8 << 20, "replication": "async",
              "lag_seconds": 1.2, "filesystem": "xfs", "mount": "/srv/db"}
    store = {"name": "vault1", "device": "/dev/sda", "portal": "192.0.2.10:3260", "mounted": True, "size": 200 << 30, "free": 150 << 30,
             "checkpoints": 12, "first_checkpoint": {"number": 1, "time": 1795341600, "iso": "2026-11-22T10:00:00Z"},
             "last_checkpoint": {"number": 12, "time": None, "iso": None}, "problem": "its disk is gone"}
    lines = status_table([device], [store]).splitlines()
    assert lines[0].split() == ["DEVICE", "STATE", "SIZE", "LOCAL", "REMOTE", "REPLICATION", "DIRTY", "MOUNT"]
    assert lines[1] == "db      recovering 42 %  100 GiB  in_sync  spare   async, 1 s behind  8 MiB  /srv/db (xfs)"
    assert "150 GiB (75 %)" in lines[4] and "2026-11-22 10:00:00 UTC" in lines[4] and "number 12" in lines[4] and "/dev/sda at 192.0.2.10:3260" in lines[4]
    assert lines[-1] == "Store vault1: its disk is gone"
    assert not any(line.endswith(" ") for line in lines)


def test_the_room_of_a_store_is_shown():
    store = {"name": "vault1", "mounted": True, "size": 100, "free": 20, "capacity": {"full": False, "left_seconds": 6.31 * 86400, "warning": "little is left"}}
    assert "6.31 days" in status_table([], [store]) and status_table([], [store]).endswith("Store vault1: little is left")
    assert " full " in status_table([], [dict(store, capacity={"full": True, "left_seconds": 0, "warning": None})])


def test_a_file_system_that_legs_can_fill_is_told_of_once():
    devices = [{"name": name, "state": "attached", "local_room": room} for name, room in (
        ("db", {"warning": "little is left"}), ("mail", {"warning": "little is left"}), ("vm", {"warning": None}), ("raw", None))]
    assert status_table(devices, []).endswith("\n\nDevice db: little is left")


def test_a_device_that_cannot_be_behind_is_told():
    device = {"name": "db", "state": "attached", "replication": "async", "write_behind": 0}
    assert status_table([device], []).endswith("Device db: its writes wait for the remote leg, because the cgroup controller io is in use")
    for more in ({"write_behind": 1024}, {"state": "detached"}):
        assert "cgroup" not in status_table([dict(device, **more)], [])


def test_a_remote_leg_that_takes_too_little_is_told():
    device = {"name": "db", "state": "attached", "replication": "async", "write_behind": 1024, "queue_depth": 128}
    assert "Device db: its remote leg takes 128 requests at once, so no more than that can be behind, not 1024" in status_table([device], [])
    for more in ({"queue_depth": 2048}, {"queue_depth": None}, {"write_behind": 0}):
        assert "at once" not in status_table([dict(device, **more)], [])


def test_an_absent_device_and_an_empty_host_are_shown():
    assert "absent" in status_table([{"name": "db", "state": "absent"}], [])
    assert status_table([], []) == "No devices and no stores on this host."
