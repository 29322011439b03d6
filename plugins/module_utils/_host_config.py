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

from ._core import RUN_DIR, STATE_DIR, Problem, load_record, read_text, save_file
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
    seen, text = stamp(), read_text(PATH)
    if text is None:
        raise Problem(f"{PATH} does not exist; run the playbook indestructible.block.site for this host")
    try:
        found = json.loads(text)
        # after a swap, until the variables say so too
        stores = {store["name"]: dict(store, **_place_of(store["name"])) for store in found["stores"]}
        return Config(stores, {device["name"]: device for device in found["devices"]}, seen)
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(f"{PATH} is not usable ({error}); run the playbook indestructible.block.site for this host") from None


def _place_of(name):
    try:
        return load_record("stores", name).get("place") or {}
    except Problem:
        return {}  # whoever acts on that store is told; the others go on


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
