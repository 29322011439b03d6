# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The state of a host's devices and stores as a table that a person reads. Pure; Python standard library only."""

from __future__ import annotations

from ._core import human_size, human_span
from ._generations import place_text
from ._when import iso

NOTHING = "-"


def status_table(devices, stores, recoveries=()):
    """Text of several lines about lists of device, store and recovery states (dicts as device_info returns them)."""
    parts = []
    if devices:
        parts.append(_columns(
            ("DEVICE", "STATE", "SIZE", "LOCAL", "REMOTE", "REPLICATION", "DIRTY", "MOUNT"),
            [(device.get("name"), _device_state(device), _size(device.get("size")), _leg(device.get("local")), _leg(device.get("remote")), _replication(device),
              _size(device.get("dirty_bytes")), _mount(device)) for device in devices]))
    if stores:
        parts.append(_columns(
            ("STORE", "STATE", "SIZE", "FREE", "FULL IN", "CHECKPOINTS", "FIRST", "LAST", "DEVICE"),
            [(store.get("name"), "mounted" if store.get("mounted") else "not mounted", _size(store.get("size")), _free(store),
              _full_in(store), store.get("checkpoints"), _time(store.get("first_checkpoint")), _time(store.get("last_checkpoint")),
              _place(store)) for store in stores]))
    if recoveries:
        parts.append(recoveries_table(recoveries))
    problems = [f"{noun} {thing.get('name')}: {thing['problem']}" for noun, things in (("Device", devices), ("Store", stores), ("Recovery", recoveries))
                for thing in things if thing.get("problem")]
    problems += [f"Device {device.get('name')}: its writes wait for the remote leg, because the cgroup controller io is in use" for device in devices
                 if device.get("write_behind") == 0 and device.get("state") in ("attached", "recovering")]
    problems += [f"Device {device.get('name')}: its remote leg takes {device['queue_depth']} requests at once, so no more than that can be behind, not "
                 f"{device['write_behind']}; it is so until the next boot, or until the kernel's command line has loop.hw_queue_depth=2048"
                 for device in devices if (device.get("write_behind") or 0) > (device.get("queue_depth") or float("inf"))]
    low = {}  # one sentence for all that it is about
    for device in devices:
        low.setdefault((device.get("local_room") or {}).get("warning"), device.get("name"))
    problems += [f"Device {name}: {sentence}" for sentence, name in low.items() if sentence]
    problems += [f"Store {store.get('name')}: {store['capacity']['warning']}" for store in stores if (store.get("capacity") or {}).get("warning")]
    if problems:
        parts.append("\n".join(problems))
    return "\n\n".join(parts) or "No devices and no stores on this host."


def recoveries_table(recoveries):
    """Text of several lines about a list of recovery states."""
    return _columns(("RECOVERY", "DEVICE", "STATE", "AS OF", "CHECKPOINT", "MODE", "PATH", "MOUNT", "COW USED"),
                    [(one["name"], one["device"], one["state"], one["iso"], one["checkpoint"], one["mode"], one["path"], one["mount"],
                      f"{human_size(one['cow_used'])} of {human_size(one['cow_size'])}" if one["cow_used"] is not None else None) for one in recoveries])


def points_table(points):
    """Text of several lines about a list of points (dicts as _points.listing() gives them, with iso)."""
    if not points:
        return "No recovery points in that range."
    return _columns(("CHECKPOINT", "TIME", "CHANGE", "SAFE", "PROTECTED", "NAME", "NOTE"),
                    [(point["checkpoint"], point["iso"], human_size(point["change"]), "yes" if point["safe"] else "no", "yes" if point["protected"] else "no",
                      point["name"], point["note"]) for point in points])


def generations_table(generations):
    """Text of several lines about a list of retired generations (dicts as _generations.retired() gives them, with attached)."""
    if not generations:
        return "No retired generations."
    return _columns(("GENERATION", "FROM", "TO", "ATTACHED", "VOLUME", "PLACE"),
                    [(one["number"], iso(one["began"]), iso(one["ended"]), "yes" if one["attached"] else "no", one["uuid"], place_text(one["place"]))
                     for one in generations])


def _columns(header, rows):
    cells = [[NOTHING if cell is None or cell == "" else str(cell) for cell in row] for row in [header] + rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def _device_state(device):
    state = device.get("state")
    percent = device.get("recovery_percent")
    return f"{state} {float(percent):.0f} %" if state == "recovering" and percent is not None else state


def _size(size):
    return None if size is None else human_size(int(size))


def _leg(leg):
    return leg.get("state") if isinstance(leg, dict) else leg


def _replication(device):
    lag = device.get("lag_seconds")
    return f"{device.get('replication')}, {float(lag):.0f} s behind" if lag is not None and device.get("replication") == "async" else device.get("replication")


def _mount(device):
    if device.get("mount"):
        return f"{device['mount']} ({device['filesystem']})" if device.get("filesystem") else device["mount"]
    return device.get("filesystem")


def _free(store):
    if store.get("free") is None:
        return None
    share = f" ({100 * int(store['free']) // int(store['size'])} %)" if store.get("size") else ""
    return human_size(int(store["free"])) + share


def _full_in(store):
    capacity = store.get("capacity") or {}
    if capacity.get("full"):
        return "full"
    return None if capacity.get("left_seconds") is None else human_span(capacity["left_seconds"])


def _time(checkpoint):
    """The moment of a checkpoint {number, time, iso} as people write it, UTC; its number when only that is known."""
    if not isinstance(checkpoint, dict):
        return checkpoint
    if checkpoint.get("iso"):
        return checkpoint["iso"].replace("T", " ").replace("Z", " UTC")
    return None if checkpoint.get("number") is None else f"number {checkpoint['number']}"


def _place(store):
    if store.get("portal"):
        return f"{store.get('device') or 'no disk'} at {store['portal']}"
    return store.get("device")
