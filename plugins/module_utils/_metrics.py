# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the guard knows, in the text format of Prometheus, for node_exporter's textfile collector. Pure; Python standard library only."""

from __future__ import annotations

# name, help, and what is told of a store (a dict as in the guard's state file)
_STORE = (
    ("free_bytes", "Bytes of the volume that hold nothing.", lambda store: _capacity(store, "free")),
    ("size_bytes", "Bytes of the volume.", lambda store: _capacity(store, "size")),
    ("left_bytes", "Bytes that can be written until the remote legs are taken out.", lambda store: _capacity(store, "left")),
    ("left_days", "Days until then, if it goes on like this; absent when that is not in sight.", lambda store: _days(_capacity(store, "left_seconds"))),
    ("full", "Whether remote legs are out for want of room.", lambda store: _capacity(store, "full")),
    ("warning", "Whether a level of warn_free or warn_days is passed.", lambda store: bool(_capacity(store, "warning")) if store.get("capacity") else None),
    ("lag_seconds", "Seconds that the LUN is behind; absent while no remote leg is in.", lambda store: store.get("lag_seconds")),
    ("commit_seconds", "How long the last commit took.", lambda store: store.get("commit_seconds")),
    ("checkpoint", "Number of the last checkpoint that the guard has committed.", lambda store: store.get("checkpoint")),
    ("problem", "Whether something keeps remote legs out.", lambda store: bool(store.get("problem"))),
)
_STATES = ("attached", "recovering", "faulty", "out", "stopped")


def metrics(stores, devices):
    """Text about stores and devices (dicts of dicts by name, as in the guard's state file)."""
    lines = []
    for name, told, value_of in _STORE:
        _add(lines, f"store_{name}", told, [({"store": store}, value_of(stores[store])) for store in sorted(stores)])
    _add(lines, "store_fill_bytes_per_second", "Bytes of log a second, over the last hour, day and week.",
         [({"store": store, "window": window}, _capacity(stores[store], f"rate_{window}")) for store in sorted(stores) for window in ("hour", "day", "week")])
    _add(lines, "device_leg", "State of the remote leg: 1 for the one that it is in.",
         [({"device": device, "store": devices[device].get("store"), "state": state}, devices[device].get("state") == state)
          for device in sorted(devices) for state in _STATES])
    for key, told in (("free", "Bytes that are free below the local leg, if that is a file."), ("wanted", "Bytes that all local legs there may still take.")):
        _add(lines, f"device_local_{key}_bytes", told, [({"device": device}, (devices[device].get("local_room") or {}).get(key)) for device in sorted(devices)])
    return "\n".join(lines) + "\n" if lines else ""


def _capacity(store, key):
    return (store.get("capacity") or {}).get(key)


def _days(seconds):
    return None if seconds is None else round(seconds / 86400, 3)


def _add(lines, name, told, values):
    known = [(labels, value) for labels, value in values if value is not None]
    if known:
        lines += [f"# HELP indestructible_{name} {told}", f"# TYPE indestructible_{name} gauge"]
    for labels, value in known:
        text = ",".join(f'{key}="{label}"' for key, label in labels.items())
        lines.append(f"indestructible_{name}{{{text}}} {int(value) if isinstance(value, bool) else value}")
