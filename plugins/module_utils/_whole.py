# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The whole state of a host: every device and store that it knows, from its records and from what the kernel shows."""

from __future__ import annotations

import os
import time

from . import _generations, _md, _nilfs_volume, _recovery, _swap
from ._cleaner import unit_of
from ._core import Problem, guard_told, human_size, list_records, load_record, read_text
from ._filesystem import read_filesystem
from ._host_config import late
from ._iscsi_node import luns, sessions
from ._mount import mounts_of
from ._owner import who

_FRESH = 15  # seconds for which the guard's word counts


def read_whole():
    """dict(devices, stores, recoveries): lists of state dicts by name. A part that cannot be read has the reason under `problem`."""
    guarded = _guarded()
    return {"devices": [_device(name, guarded) for name in list_records("devices")], "stores": [_store(name, guarded) for name in list_records("stores")],
            "recoveries": [found for found in map(_opened, list_records(_recovery.KIND)) if found]}


def _guarded():
    """What the guard told last: dict(stores, devices), dicts by name; empty ones when there is no guard that could know."""
    try:
        told = guard_told()
        fresh = time.time() - told["time"] < _FRESH
        return {kind: told[kind] if fresh else {} for kind in ("stores", "devices")}
    except (KeyError, TypeError, ValueError):
        return {"stores": {}, "devices": {}}


def _opened(name):
    """The state of a recovery; None for one that was released while it was looked at."""
    try:
        state = _recovery.observe({"name": name})
    except Problem:
        state = _recovery.observe({"name": name})  # a part of it went just then
    return _recovery.public(state) if state["state"] != "absent" or load_record(_recovery.KIND, name) else None


def _device(name, guarded):
    record = load_record("devices", name)
    want = {"name": name, "local": record.get("local", ""), "remote": record.get("remote", "")}
    more = {"filesystem": None, "mount": None, "store": None, "problem": None, "lag_seconds": None, "queue_depth": None,
            "local_room": guarded["devices"].get(name, {}).get("local_room")}
    try:
        seen = _md.observe(want)
        state, more["problem"] = _md.public(seen), seen["_unreadable"]
        if state["array"]:
            found = read_filesystem(state["path"])
            mounts = mounts_of(state["path"])
            more.update(filesystem=found.type if found else None, mount=mounts[0].point if mounts else None)
    except (OSError, Problem) as problem:
        state = {"name": name, "path": f"/dev/md/{name}", "state": "unknown", "local": {"path": want["local"]}, "remote": {"path": want["remote"]}}
        more["problem"] = str(problem)
    more["store"] = next((store for store in list_records("stores")
                          if want["remote"].startswith((load_record("stores", store).get("mount") or "\0") + "/")), None)
    if record.get("phase") == _md.PHASE_ADOPTING:
        more["problem"] = "its adoption is under way or was interrupted; run the playbook indestructible.block.adopt to complete it"
    elif name in late():
        more["problem"] = f"it does not run, because it could not be started at boot; the guard starts it once its local leg {want['local']} is there"
    last = _md.unfinished_rollback(name)
    if last:
        more["problem"] = f"a rollback was interrupted, so it is a mixture of two states; complete it: indestructible rollback {name} '{last['as_of']}'"
    if state["state"] in ("attached", "recovering"):
        more["lag_seconds"] = guarded["stores"].get(more["store"], {}).get("lag_seconds")
        depth = read_text(f"/sys/block/{os.path.basename(state['remote']['device'])}/queue/nr_requests")
        more["queue_depth"] = int(depth) if depth else None
    return dict(state, **more)


def _store(name, guarded):
    record = load_record("stores", name)
    device = f"/dev/disk/by-uuid/{record.get('uuid')}"
    want = _nilfs_volume.normalize({"name": name, "label": record.get("label"), "mount": record.get("mount"),
                                    "device": device if os.path.exists(device) else None})
    try:
        state = dict(_nilfs_volume.public(_nilfs_volume.observe(want)), problem=guarded["stores"].get(name, {}).get("problem"),
                     capacity=guarded["stores"].get(name, {}).get("capacity"))
        if state["owner"] and not state["owner"]["here"]:
            state["problem"] = f"its LUN is owned by {who(state['owner'])}"
        elif state["keep"] and state["cleaner"] is False:
            state["problem"] = state["problem"] or f"its cleaner does not run, so nothing keeps it from filling up; systemctl status {unit_of(name)}"
    except (OSError, Problem) as problem:
        state = {"name": name, "state": "unknown", "problem": str(problem), "capacity": None}
    state.update(mounted=state["state"] == "mounted", portal=None, target=None, lun=None, generation=_generations.current(name),
                 swap=_swap.read_progress(name))
    if state["swap"] and not state["problem"]:
        state["problem"] = "it moves to a blank LUN: {device}, {percent} % of {size} looked at".format(
            device=state["swap"]["device"], percent=100 * state["swap"]["done"] // state["swap"]["size"], size=human_size(state["swap"]["size"]))
    disk = os.path.basename(os.path.realpath(device))
    for session in sessions():
        for unit in luns(session["id"]):
            if unit["kernel_name"] == disk:
                host = f"[{session['host']}]" if ":" in session["host"] else session["host"]
                state.update(device=unit["device"], portal=f"{host}:{session['port']}", target=session["target"], lun=unit["lun"], session=session["state"])
    return state
