# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The recovery points of a device: which checkpoint holds it as it was at a time, and which of them are safe.

Checkpoints are found by halving the range of their numbers, so that a long history costs no more than a short one. Times follow the host's
clock; while that was put back, numbers decide.
"""

from __future__ import annotations

import datetime
import os
from collections import namedtuple

from . import _catalogue, _generations
from ._core import Problem, list_records, load_record
from ._nilfs import Volume
from ._when import iso

# A device as recoveries see it: name, local, remote (path of the image on the store), uuid of its array, store (name or None), point (where
# the store is mounted), disk (the store's device), unsafe_from (the first checkpoint that lacks the remote leg, or None while it is in), generation
# (number of a retired one, or None for the one in use).
Device = namedtuple("Device", "name local remote uuid store point disk unsafe_from generation")


class NotMounted(Problem):
    """The store of a device is not mounted."""


def record_of(name):
    """(record of a device, name of its store or None); raises Problem when this host knows no such device."""
    record = load_record("devices", name)
    if not record.get("remote"):
        known = ", ".join(list_records("devices")) or "none"
        raise Problem(f"there is no device {name!r} on this host; there are: {known}")
    mounts = {store: load_record("stores", store).get("mount") or "\0" for store in list_records("stores")}
    return record, next((store for store, mount in mounts.items() if record["remote"].startswith(mount + "/")), None)


def device_named(name, generation=None):
    """The Device of that name from this host's records; raises Problem when there is none or its store is not mounted.

    generation: the number of a retired generation of its store, which is brought back read-only where that is possible; None for the one in use.
    """
    record, store = record_of(name)
    remote = record["remote"]
    if generation is not None:
        point = _generations.attach(store, generation)
        old = f"{point}/{os.path.basename(remote)}"
        return Device(name, record.get("local"), old, record.get("uuid"), store, point, _catalogue.mount_of(old).source,
                      _generations.one_of(store, generation)["devices"].get(name, {}).get("unsafe_from"), generation)
    mount = _catalogue.mount_of(remote)
    if not mount:
        retired = _generations.retired(store) if store else []
        older = f". What was there until {iso(retired[0]['ended'])} can be opened by its time, or with generation (--generation)" if retired else ""
        raise NotMounted(f"the store {store or ''} of {name} is not mounted, so its history is out of reach; bring its LUN back, and the guard mounts it "
                         f"(systemctl status indestructible-guard, iscsiadm -m session){older}")
    return Device(name, record.get("local"), remote, record.get("uuid"), store, mount.point, mount.source, record.get("unsafe_from"), None)


def catalogue_of(device):
    """The catalogue of a Device, with what has happened to its remote leg since as an open window."""
    catalogue = _catalogue.load(device.remote)
    if device.unsafe_from:
        catalogue = _catalogue.with_window(catalogue, device.unsafe_from, "the remote leg is out")
    return catalogue


def floor(volume, number):
    """The newest Checkpoint that exists with a number not above that one, or None."""
    found = volume.checkpoints(number, 1)
    if found and found[0].number == number:
        return found[0]
    low, high, best = 1, number - 1, None
    while low <= high:
        middle = (low + high) // 2
        found = volume.checkpoints(middle, 1)
        if found and found[0].number <= number:
            best, low = found[0], found[0].number + 1
        else:
            high = middle - 1
    return best


def newest_before(volume, when):
    """The newest Checkpoint that was made not after that time (seconds since the epoch), or None."""
    low, high, best = 1, volume.counts()[0] - 1, None
    while low <= high:
        middle = (low + high) // 2
        found = volume.checkpoints(middle, 1)
        if not found or found[0].number > high:
            high = middle - 1
        elif found[0].time <= when:
            best, low = found[0], found[0].number + 1
        else:
            high = middle - 1
    return best


def unbroken(volume, start):
    """The first Checkpoint from that number on behind which none is missing, or None. Those before it are single ones that were protected while a cleaner
    deleted the others.
    """
    while True:
        part = volume.checkpoints(start, 64)
        holes = [after.number for before, after in zip(part, part[1:]) if after.number != before.number + 1]
        if not holes:
            return part[0] if part else None
        start = holes[-1]


def newest_full(volume, number):
    """The newest Checkpoint up to that number which is not a minor one, whose files are those of the last full one before it. Raises Problem without one."""
    found = floor(volume, number)
    while found and found.minor:
        found = floor(volume, found.number - 1)
    if not found:
        raise Problem(f"there is no full checkpoint up to {number}")
    return found


def newest_safe(volume, catalogue, start):
    """The newest recovery point that is not newer than the Checkpoint start (or None), as a Checkpoint or None."""
    found = start
    while found and found.number >= catalogue["since"]:
        window = _catalogue.window_of(catalogue, found.number)
        if window is None and not found.minor:
            return found
        number = window["first"] - 1 if window else found.number - 1
        found = floor(volume, number) if number > 0 else None
    return None


def oldest_safe(volume, catalogue):
    """The oldest recovery point of the unbroken history, a Checkpoint or None."""
    first = unbroken(volume, catalogue["since"])
    number = first.number if first else 0
    while number:
        found = volume.checkpoints(number, 1)
        if not found:
            return None
        window = _catalogue.window_of(catalogue, found[0].number)
        if window is None and not found[0].minor:
            return found[0]
        if window and window["last"] is None:
            return None
        number = (window["last"] if window else found[0].number) + 1
    return None


def describe_range(volume, catalogue):
    """A phrase for the range that can be recovered."""
    ends = oldest_safe(volume, catalogue), newest_safe(volume, catalogue, volume.last_checkpoint())
    return range_text(*({"checkpoint": end.number, "iso": iso(end.time)} if end else None for end in ends))


def range_text(oldest, newest):
    """The phrase for two ends as read_points() gives them. Pure."""
    if newest and not oldest:
        return f"only single protected points can be recovered, the newest of them checkpoint {newest['checkpoint']} of {newest['iso']}"
    if not oldest or not newest:
        return "there is no recovery point yet"
    return (f"it can be recovered as of any second from {oldest['iso']} (checkpoint {oldest['checkpoint']}) to {newest['iso']} "
            f"(checkpoint {newest['checkpoint']})")


def choose(volume, device, catalogue, wish, unsafe=False):
    """The Checkpoint that a Wish means for a Device: the newest safe one not after it. unsafe takes one that is not safe, if it is named by number."""
    def nothing(why):
        return Problem(f"{device.name}: {why}; {describe_range(volume, catalogue)}")

    if wish.kind == "latest":
        found = newest_safe(volume, catalogue, volume.last_checkpoint())
        if not found:
            raise nothing("nothing to recover")
        return found
    if wish.kind == "time":
        found, oldest = newest_safe(volume, catalogue, newest_before(volume, wish.value)), oldest_safe(volume, catalogue)
        if not found or not oldest or found.number < oldest.number:
            older = f"; protected points before that can be opened by name or number, the newest of them {found.number} of {iso(found.time)}" if found else ""
            raise nothing(f"{iso(wish.value)} is before its first recovery point{older}")
        return found
    number = wish.value
    if wish.kind == "name":
        number = next((point["checkpoint"] for point in catalogue["points"] if point["name"] == wish.value), None)
        if number is None:
            names = ", ".join(point["name"] for point in catalogue["points"]) or "none"
            raise nothing(f"{wish.value!r} is neither a time nor the name of one of its points (there are: {names})")
    found = volume.checkpoints(number, 1) if number else []
    if not found or found[0].number != number:
        raise nothing(f"there is no checkpoint {number}")
    if number < catalogue["since"]:
        raise nothing(f"checkpoint {number} is older than the device")
    window = _catalogue.window_of(catalogue, number)
    if (window or found[0].minor) and not unsafe:
        raise nothing(f"checkpoint {number} is not safe to recover from ({window['why'] if window else 'it is no full checkpoint'}); "
                      "to open it all the same, ask for unsafe points")
    return found[0]


class Away(Problem):
    """What is asked for is in a retired generation that is not attached."""


def locate(name, wish, unsafe=False, generation=None, attach=True):
    """(Device, Checkpoint, whether it is safe) that a Wish means for a device, in whichever generation of its store that is.

    generation: only that one, by its number; a checkpoint number means the one in use unless it is given. The one in use need not be there when it is
    not asked. Without attach a retired generation is not brought back: Away is raised. Raises Problem.
    """
    store = record_of(name)[1]
    current, retired = (_generations.current(store), _generations_of(name, store)) if store else (1, [])
    number = first_asked(retired, current, wish) if generation is None else generation
    while True:
        if not attach and number != current and not _generations.is_attached(store, number):
            raise Away(f"attach {_generations.describe(store, _generations.one_of(store, number))}")
        device = device_named(name, None if number == current else number)
        with Volume(device.point) as volume:
            catalogue = catalogue_of(device)
            older = _older(volume, catalogue, [one for one in retired if one["number"] < number], number, name, wish) if generation is None else None
            if older is None:
                point = choose(volume, device, catalogue, wish, unsafe)
                return device, point, _catalogue.is_safe(catalogue, point.number) and not point.minor
        number = older


def _generations_of(name, store):
    """The retired generations that may hold a device, newest first."""
    return [one for one in _generations.retired(store) if name in one["devices"] or not one["devices"]]


def first_asked(retired, current, wish):
    """Number of the generation that is asked first for a Wish: the one that was in use at that time, as the retired ones are noted. Pure.

    current: the one in use, which is asked for all that no retired one (list of dict, newest first) is known to hold.
    """
    if wish.kind != "time":
        return current
    return next((one["number"] for one in retired if one["began"] < wish.value <= one["ended"]), current)


def _older(volume, catalogue, older, number, name, wish):
    """Number of the generation out of older (dicts, newest first) to be asked for a Wish next; None when this one, of that number, has to answer."""
    if wish.kind == "name":
        if any(point["name"] == wish.value for point in catalogue["points"]):
            return None
        points = {one["number"]: one["devices"].get(name, {}).get("points") for one in older}
        named = [one for one, known in points.items() if any(point["name"] == wish.value for point in known or [])]
        unknown = [one for one, known in points.items() if known is None]  # their LUNs were away when they were retired
        return next(iter(named + unknown), None)
    if wish.kind == "number" or not older:
        return None
    first = oldest_safe(volume, catalogue)
    if first and (wish.kind == "latest" or wish.value >= first.time):
        return None
    if wish.kind == "latest":
        return older[0]["number"]
    # Until its first recovery point what the one before it ended with is the newest there is; not where a cleaner has deleted recovery points since.
    kept = unbroken(volume, catalogue["since"])
    is_next = older[0]["number"] == number - 1 and older[0]["began"] < wish.value
    return older[0]["number"] if is_next and not (kept and kept.number > catalogue["since"]) else None


def listing(volume, catalogue, since=None, until=None, limit=1000, unsafe=False):
    """Points (list of dict, newest first) made in [since, until] (seconds, None: no limit), at most limit; without unsafe only recovery points.

    Each: checkpoint int, time int (seconds), change (bytes that the store took for it), safe and protected bool, name and note (str or None).
    """
    named = {point["checkpoint"]: point for point in catalogue["points"]}
    last = volume.last_checkpoint() if until is None else newest_before(volume, until)
    found, number, room = [], last.number if last else 0, 64
    while number >= catalogue["since"] and len(found) < limit:
        start = max(catalogue["since"], number - room + 1)
        part = [one for one in volume.checkpoints(start, room) if one.number <= number]
        for one in reversed(part):
            if since is not None and one.time < since:
                return found
            safe = _catalogue.is_safe(catalogue, one.number) and not one.minor
            if (safe or unsafe) and len(found) < limit:
                point = named.get(one.number, {})
                found.append({"checkpoint": one.number, "time": one.time, "change": one.added * volume.block_size, "safe": safe,
                              "protected": one.snapshot, "name": point.get("name"), "note": point.get("note")})
        number, room = start - 1, 584
    return found


def read_points(name, since=None, until=None, limit=100, unsafe=False):
    """dict(device, points as listing() with iso, more: whether there are more than limit, oldest and newest recovery point: dict(checkpoint, time, iso) or
    None, not_attached: lines about the retired generations that were not looked at).
    """
    store = record_of(name)[1]
    retired, current = (_generations.retired(store), _generations.current(store)) if store else ([], 1)
    numbers = [current] + [one["number"] for one in retired if _generations.is_attached(store, one["number"])]
    points, ends, away = [], [], []
    for number in numbers:
        try:
            one = device_named(name, None if number == current else number)
            catalogue = catalogue_of(one)
            with Volume(one.point) as volume:
                found = listing(volume, catalogue, since, until, limit + 1 - len(points), unsafe)
                ends += [oldest_safe(volume, catalogue), newest_safe(volume, catalogue, volume.last_checkpoint())]
        except Problem:
            if number != current or len(numbers) == 1:
                raise
            away.append(f"generation {current} of {store}, which is in use")  # its LUN is gone, the others are there
            continue
        points += [dict(point, generation=number) for point in found]
    ends = sorted((end for end in ends if end), key=lambda end: end.time)
    oldest, newest = ({"checkpoint": end.number, "time": end.time, "iso": iso(end.time)} for end in (ends[0], ends[-1])) if ends else (None, None)
    away += [_generations.describe(store, one) for one in retired if one["number"] not in numbers]
    return {"device": name, "points": [dict(point, iso=iso(point["time"])) for point in points[:limit]], "more": len(points) > limit, "oldest": oldest,
            "newest": newest, "not_attached": away}


def retained(points, retention, zone=iso):
    """Names of the points (list of dict with name and time) that a retention rule keeps. Pure.

    retention: dict of hourly, daily, weekly, monthly, yearly -> how many; the newest point of each of so many newest hours, days and so on is kept.
    """
    kept = set()
    for period, count in retention.items():
        seen = []
        for point in sorted(points, key=lambda point: -point["time"]):
            slot = _SLOTS[period](zone(point["time"]))
            if slot not in seen:
                if len(seen) == count:
                    break
                seen.append(slot)
                kept.add(point["name"])
    return kept


def _week(text):
    return tuple(datetime.date.fromisoformat(text[:10]).isocalendar())[:2]


# the offset from UTC tells the hour that comes twice, when clocks are put back, from the one before
_SLOTS = {"hourly": lambda text: text[:13] + text[19:], "daily": lambda text: text[:10], "weekly": _week, "monthly": lambda text: text[:7],
          "yearly": lambda text: text[:4]}
PERIODS = tuple(_SLOTS)
