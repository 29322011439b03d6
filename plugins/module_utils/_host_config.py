# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The host's own description of its stores and devices, for what runs without Ansible: the guard, the units, the command.

The role guard writes it from the variables, every value filled in and without secrets.
"""

from __future__ import annotations

import json
import os
from collections import namedtuple

from ._core import RUN_DIR, STATE_DIR, Problem, host_lock, load_record, read_text, save_file, save_record
from ._md import HELD

PATH = "/etc/indestructible.json"
LATE = f"{RUN_DIR}/late"  # a file with the names of the devices that late() tells, a line each

# stores and devices: dicts of dicts by name, as resolve_stores and resolve_devices give them; stamp tells one version of the file from another
Config = namedtuple("Config", "stores devices stamp")


def stamp():
    """What changes when the file changes, or what is known of where stores are; None when there is none."""
    try:
        about = os.stat(PATH)
    except OSError:
        return None
    try:
        records = os.stat(f"{STATE_DIR}/records/stores").st_mtime_ns
    except OSError:
        records = None
    return (about.st_mtime_ns, about.st_ino, records)


def load():
    """The Config of this host; raises Problem when there is none or it cannot be read."""
    seen, found = stamp(), _read()
    return Config({name: dict(store, **_moved(store)) for name, store in found["stores"].items()}, found["devices"], seen)


def _read():
    """What the file says: dict of stores and devices, dicts of dicts by name; raises Problem."""
    text = read_text(PATH)
    if text is None:
        raise Problem(f"{PATH} does not exist; run the playbook indestructible.block.site for this host")
    try:
        found = json.loads(text)
        return {part: {one["name"]: one for one in found[part]} for part in ("stores", "devices")}
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(f"{PATH} is not usable ({error}); run the playbook indestructible.block.site for this host") from None


def _moved(store):
    """Where a store (a dict as in the file) is while the file names the place that a swap took it away from: part of its dict, else an empty one."""
    try:
        record = load_record("stores", store["name"])
    except Problem:
        return {}  # whoever acts on that store is told; the others go on
    return record["place"] if record.get("left") and _names(store, record["left"]) else {}


def _names(store, place):
    return all(store.get(key) == value for key, value in place.items())


def in_file(name):
    """A store (dict) as the file has it, whether it was moved since or not; raises Problem when it has none of that name."""
    stores = _read()["stores"]
    if name not in stores:
        raise Problem(f"{PATH} names no store {name} any more")
    return stores[name]


def settle_moves():
    """Forget where stores were moved away from, once the file names where they are: the old place may be given to something else one day.

    Does not wait for the lock of the host; raises Problem or OSError when it has to be called again.
    """
    for name, store in _read()["stores"].items():
        left = load_record("stores", name).get("left")
        if left and not _names(store, left) and not load_record("stores", f"{name}.next"):
            with host_lock(0):
                record = load_record("stores", name)
                if record.get("left") == left:
                    save_record("stores", name, {key: value for key, value in record.items() if key not in ("left", "place")})


def mirror_of(device, state="attached", wait=0):
    """What _md wants to know of a device."""
    return {"name": device["name"], "local": device["local"], "remote": device["remote"], "size": device["size"], "write_behind": device["write_behind"],
            "bitmap_chunk": device["bitmap_chunk"], "time_base": HELD, "state": state, "wait": wait}


def is_ours(device):
    """Whether the device is made and not taken out of use on purpose."""
    record = load_record("devices", device["name"])
    return record.get("phase") == "ready" and not record.get("stopped")


def late():
    """Names (list of str) of the devices that could not be started at boot and have not run since."""
    return (read_text(LATE) or "").split()


def note_late(names):
    """Note which devices late() tells; names is any iterable of str."""
    os.makedirs(RUN_DIR, mode=0o700, exist_ok=True)
    save_file(LATE, "".join(f"{name}\n" for name in names))
