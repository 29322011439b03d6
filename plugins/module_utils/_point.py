# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Named recovery points: made now, given to a checkpoint that is there, released, and pruned. Their names travel with the LUN."""

from __future__ import annotations

import contextlib
import os
import time

from . import _catalogue, _md_act
from ._core import Problem, Step, list_records, load_record, run, wait_until
from ._freeze import held_still
from ._loop import loops
from ._md import device_of
from ._guard_device import numbers
from ._mount import mounts_of
from ._nilfs import Volume
from ._points import PERIODS, catalogue_of, choose, device_named, newest_full, retained
from ._when import NAME, iso, parse_wish

_DRAIN = 60  # seconds for what was written to reach the store


def normalize(want):
    """The want with every value filled in. Keys: device, state (present, absent or pruned), name, note, as_of, quiesce (bool or None for: when
    mounted), before and after (lists of shell commands), limit (seconds), retention (dict), prefix (str).
    """
    want = dict({"state": "present", "name": None, "note": None, "as_of": None, "quiesce": None, "before": [], "after": [], "limit": 30, "retention": {},
                 "prefix": ""}, **want)
    name, device = want["name"], want["device"]
    if want["state"] == "present" and name is None:
        name = want["name"] = time.strftime("point-%Y%m%dT%H%M%SZ", time.gmtime())
    if want["state"] != "pruned" and (not name or not NAME.fullmatch(name) or name.lower() in ("latest", "now")):
        raise Problem(f"{device}: {name!r} is no name for a point; write a letter and then letters, digits, dots, dashes, colons or underscores")
    if want["state"] == "pruned":
        unknown = sorted(set(want["retention"]) - set(PERIODS))
        if unknown or not want["retention"]:
            raise Problem(f"{device}: retention {unknown[0] if unknown else 'is empty and'!r} is not of {', '.join(PERIODS)}, each with how many to keep")
        for period, count in want["retention"].items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise Problem(f"{device}: retention {period}: {count!r} is not a number of points to keep")
    if not 1 <= want["limit"] <= 3600:
        raise Problem(f"{device}: limit {want['limit']} is not between 1 and 3600 seconds")
    return want


def observe(want):
    """dict(device, points (list of dict name, checkpoint, time, iso, note), and what plan() needs under _)."""
    device = device_named(want["device"])
    catalogue = catalogue_of(device)
    points = [dict(point, iso=iso(point["time"])) for point in catalogue["points"]]
    with Volume(device.point) as volume:
        protected = {point["checkpoint"] for point in points if any(one.number == point["checkpoint"] and one.snapshot
                                                                    for one in volume.checkpoints(point["checkpoint"], 1))}
    return {"device": want["device"], "points": points, "_device": device, "_catalogue": catalogue, "_protected": protected}


def plan(want, state):
    """Ordered list of Step; raises Problem."""
    device, catalogue, name = state["_device"], state["_catalogue"], want["name"]
    there = next((point for point in catalogue["points"] if point["name"] == name), None)
    if want["state"] == "pruned":
        ours = [point for point in catalogue["points"] if point["name"].startswith(want["prefix"])]
        kept = retained(ours, want["retention"])
        return [_release_step(point) for point in ours if point["name"] not in kept]
    if want["state"] == "absent":
        return [_release_step(there)] if there else []
    if there:
        if there["checkpoint"] not in state["_protected"]:
            return [Step("protect", f"protect checkpoint {there['checkpoint']} of {name} again", {"checkpoint": there["checkpoint"]})]
        return []
    if want["as_of"]:
        with Volume(device.point) as volume:
            point = choose(volume, device, catalogue, parse_wish(want["as_of"], time.time()))
        return [Step("name", f"name checkpoint {point.number} of {iso(point.time)} {name} and protect it", {"checkpoint": point.number, "time": point.time})]
    refuse_out(device)
    return [Step("make", f"make the recovery point {name} of {device.name} now", {})]


def refuse_out(device):
    """Raise Problem unless the remote leg of a Device is in, so that a point made now holds what is on the device."""
    remote = _md_act.remote_state({"name": device.name, "local": device.local, "remote": device.remote})
    if remote != "in sync":
        raise Problem(f"{device.name}: its remote leg is {'being healed' if remote == 'recovering' else 'out'}, so no point of now can be made; "
                      "indestructible status shows why, and the guard brings it back")


def _release_step(point):
    return Step("release", f"release the point {point['name']} (checkpoint {point['checkpoint']})", {"name": point["name"], "checkpoint": point["checkpoint"]})


def perform(want, step):
    """Carry out one step; raises Problem."""
    device = device_named(want["device"])
    if step.verb == "release":
        release(device, step.args["name"], step.args["checkpoint"])
    elif step.verb == "protect":
        with Volume(device.point) as volume:
            volume.protect(step.args["checkpoint"])
    elif step.verb == "name":
        keep(device, want["name"], step.args["checkpoint"], step.args["time"], want["note"])
    else:
        make(device, want["name"], want["note"], want["quiesce"], want["before"], want["after"], want["limit"])


def make(device, name, note=None, quiesce=None, before=(), after=(), limit=30):
    """Make a recovery point of all that was written to a Device until now; returns its checkpoint number."""
    path = f"/dev/md/{device.name}"
    mounts = mounts_of(path)
    point = mounts[0].point if mounts else None
    if quiesce and not point:
        raise Problem(f"{device.name}: it is not mounted, so no file system can be frozen")
    with contextlib.ExitStack() as stack:
        if before or after or (point and quiesce is not False):
            stack.enter_context(held_still(point if quiesce is not False else None, before, after, limit))
        if point:
            run(["sync", "-f", point], timeout=limit + 10)
        else:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        drain(device)
        with Volume(device.point) as volume:
            made = newest_full(volume, volume.sync())
    refuse_out(device)
    keep(device, name, made.number, made.time, note)
    return made.number


def drain(device):
    """Wait until what was written to a Device before now has been given to its store."""
    remote = next((loop.device for loop in loops() if loop.backing == device.remote), None) or device_of(device.remote)
    path = f"/sys/class/block/{os.path.basename(remote)}/stat"
    first = numbers(path)
    target = first[4] + first[8]

    def drained():
        seen = numbers(path)
        return seen[4] >= target or not seen[8]
    wait_until(drained, _DRAIN, f"the writes to {device.name} to reach the store")


def keep(device, name, number, when, note):
    """Give a checkpoint a name and protect it; the name first, so that nothing is protected that nobody knows of."""
    catalogue = _catalogue.load(device.remote)
    point = {"name": name, "checkpoint": number, "time": when, "note": note}
    _catalogue.save(device.remote, dict(catalogue, points=[one for one in catalogue["points"] if one["name"] != name] + [point]))
    with Volume(device.point) as volume:
        volume.protect(number)


def release(device, name, number):
    """Take the name of a point away, and its protection unless something else wants it."""
    catalogue = _catalogue.load(device.remote)
    catalogue = dict(catalogue, points=[one for one in catalogue["points"] if one["name"] != name])
    remotes = [load_record("devices", other).get("remote") or "" for other in list_records("devices") if other != device.name]
    wanted = _catalogue.is_named(catalogue, number) or any(
        _catalogue.is_named(_catalogue.load(remote), number) for remote in remotes if _catalogue.volume_of(remote) == device.point)
    wanted = wanted or any(load_record("recoveries", other).get("checkpoint") == number for other in list_records("recoveries"))
    if not wanted:
        with Volume(device.point) as volume:
            volume.release(number)
    _catalogue.save(device.remote, catalogue)


def predict(want, state, steps):
    """The state after the steps; the checkpoint and time of a point that would be made now are null."""
    points = list(state["points"])
    for step in steps:
        if step.verb == "release":
            points = [point for point in points if point["name"] != step.args["name"]]
        elif step.verb in ("make", "name"):
            when = step.args.get("time")
            points.append({"name": want["name"], "checkpoint": step.args.get("checkpoint"), "time": when, "iso": iso(when) if when else None,
                           "note": want["note"]})
    return dict(state, points=points)


def public(state):
    """The part of a state that is shown."""
    return {key: value for key, value in state.items() if not key.startswith("_")}
