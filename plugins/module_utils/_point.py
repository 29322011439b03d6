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
from ._core import Problem, Step, converge_alone, run, wait_for, wait_until
from ._freeze import held_still
from ._loop import loops
from ._md import device_of
from ._guard_device import numbers
from ._mount import mounts_of, read_mounts
from ._nilfs import Volume
from ._points import PERIODS, catalogue_of, choose, device_named, newest_full, retained
from ._when import NAME, iso, parse_wish

_DRAIN = 60  # seconds for what was written to reach the store
_HEAL_END = 15  # seconds for the guard to note the end of a heal


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
    points = [dict({key: point[key] for key in ("name", "checkpoint", "time", "note")}, iso=iso(point["time"])) for point in catalogue["points"]]
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


def refuse_out(device, number=None):
    """Raise Problem unless the remote leg of a Device is in, so that a point made now, or just now as checkpoint number, holds what is on the device."""
    remote = _remote_state(device)
    if remote != "in sync":
        raise Problem(f"{device.name}: its remote leg is {'being healed' if remote == 'recovering' else 'out'}, so no point of now can be made; "
                      "indestructible status shows why, and the guard brings it back")
    catalogue = catalogue_of(device_named(device.name))
    window = _catalogue.window_of(catalogue, number) if number else _open_window(catalogue)
    if window:
        raise Problem(f"{device.name}: a point of now is not safe to recover from ({window['why']}), so none is made; try again when indestructible status "
                      "shows no problem of it and calls it attached")


def await_heal(device):
    """Give the guard a moment to note the end of a heal of a Device, if all is copied. It needs the lock of the host for that, so the caller has it not."""
    wait_for(lambda: _remote_state(device) != "in sync" or not _open_window(catalogue_of(device_named(device.name))), _HEAL_END)


def _remote_state(device):
    return _md_act.remote_state({"name": device.name, "local": device.local, "remote": device.remote})


def _open_window(catalogue):
    return next((window for window in catalogue["unsafe"] if window["last"] is None), None)


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
    names = stack_of(os.path.basename(os.path.realpath(f"/dev/md/{device.name}")))
    points = _points_on(names)
    if quiesce and not points:
        raise Problem(f"{device.name}: it is not mounted, so no file system can be frozen")
    with contextlib.ExitStack() as stack:
        if before or after or (points and quiesce is not False):
            stack.enter_context(held_still(points if quiesce is not False else [], before, after, limit))
        if points:
            run(["sync", "-f", *points], timeout=limit + 10)
        run(["sync", *(f"/dev/{name}" for name in names)], timeout=limit + 10)  # each has a page cache of its own for what is written past a file system
        drain(device)
        with Volume(device.point) as volume:
            made = newest_full(volume, volume.sync())
    refuse_out(device, made.number)
    keep(device, name, made.number, made.time, note)
    return made.number


def stack_of(name, blocks="/sys/class/block"):
    """Kernel names (list of str) of a block device and all that lies on it, such as partitions and logical volumes; the uppermost first."""
    base, found = f"{blocks}/{name}", []
    above = os.listdir(f"{base}/holders") + [part for part in os.listdir(base) if os.path.exists(f"{base}/{part}/partition")]
    for one in sorted(above):
        found += [upper for upper in stack_of(one, blocks) if upper not in found]
    return found + [name]


def _points_on(names):
    """One mount point (list of str) of each file system on block devices."""
    mounts = read_mounts()
    return list({mount.device: mount.point for name in names for mount in reversed(mounts_of(f"/dev/{name}", mounts))}.values())


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
    with Volume(device.point) as volume:
        point = {"name": name, "checkpoint": number, "time": when, "note": note, "foreign": _catalogue.is_foreign(volume, number)}
        _catalogue.save(device.remote, dict(catalogue, points=[one for one in catalogue["points"] if one["name"] != name] + [point]))
        volume.protect(number)


def release(device, name, number):
    """Take the name of a point away, and its protection unless something else wants it."""
    with Volume(device.point) as volume:
        if _catalogue.is_last_claim(volume, number, ("points", os.path.basename(_catalogue.path_of(device.remote)), name)):
            volume.release(number)
    catalogue = _catalogue.load(device.remote)
    _catalogue.save(device.remote, dict(catalogue, points=[one for one in catalogue["points"] if one["name"] != name]))


def converge_point(want, check_mode=False):
    """converge_alone() one want; a heal that has just ended gets a moment to be noted first."""
    if want["state"] == "present" and not want["as_of"] and not check_mode:
        await_heal(device_named(want["device"]))
    return converge_alone([want], observe, plan, perform, predict, check_mode)


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
