# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The LUNs that a store has had, one after the other: its generations. The newest takes what is written; older ones are history.

They are known to this host (records of the store) and written to every LUN when it is retired or begun, so that they travel with each of them.
A retired one is brought back read-only, on a mount point of its own; only to protect a checkpoint it is made writable for a moment.
"""

from __future__ import annotations

import contextlib
import json
import os

from . import _catalogue, _owner
from ._blockdev import is_block
from ._core import STATE_DIR, Problem, list_records, load_record, read_text, run, save_file, save_record
from ._link import Link
from ._loop import loops
from ._mount import make_directories, mount_at, unmount
from ._nilfs import main_mount, read_super, snapshot_mounts
from ._when import iso

PLACE_KEYS = ("portal", "target", "lun", "device")
FILE = "generations.json"  # in the root of each volume


def place_of(store):
    """Where a store (a dict of resolve_stores, or a record's place) is: dict of PLACE_KEYS."""
    return {key: store.get(key) for key in PLACE_KEYS}


def place_text(place):
    """A place in words."""
    return place["device"] if place.get("device") else f"LUN {place['lun']} of {place['target']} at {place['portal']}"


def current(store):
    """Number (int, from 1) of the newest generation of a store, by its name."""
    return load_record("stores", store).get("generation", 1)


def retired(store):
    """Retired generations of a store (by its name), newest first: dicts with number, uuid, place, identity, began and ended (seconds since 1970, it was in
    use in between), last (its last checkpoint), devices (dict name -> dict uuid, unsafe_from as in the record of a device, since, points: list of named
    points). The last two, and last, are missing of one whose LUN was away when it was retired.
    """
    return sorted(load_record("stores", store).get("generations", []), key=lambda one: -one["number"])


def one_of(store, number):
    """The retired generation of that number; raises Problem when there is none."""
    for generation in retired(store):
        if generation["number"] == number:
            return generation
    known = ", ".join(str(one["number"]) for one in reversed(retired(store))) or "none"
    raise Problem(f"store {store}: there is no retired generation {number}; there are: {known} ({current(store)} is in use)")


def point_of(store, number):
    """Where a retired generation is mounted."""
    return f"{STATE_DIR}/generations/{store}.{number}"


def is_attached(store, number):
    """Whether a retired generation is mounted."""
    mount = mount_at(point_of(store, number))
    return bool(mount and mount.fstype == "nilfs2")


def write_down(point, store, ended=None):
    """Write what this host knows of the generations of a store to the volume on point. ended: when that one is retired (seconds since 1970)."""
    record = load_record("stores", store)
    told = {key: record.get(key) for key in ("generation", "generations", "uuid", "began")}
    save_file(f"{point}/{FILE}", json.dumps(dict(told, store=store, ended=ended), indent=1, sort_keys=True) + "\n", 0o600)


def learn(point, store):
    """Note when the generation of a store on point began; a host that knows none of them (it adopted the store) takes them from its volume."""
    record, text = load_record("stores", store), read_text(f"{point}/{FILE}")
    new = dict(record)
    if text and not record.get("generation"):
        try:
            told = json.loads(text)
            new.update(generation=int(told["generation"]), generations=list(told["generations"] or []), began=told.get("began"))
        except (ValueError, KeyError, TypeError):
            raise Problem(f"{point}/{FILE} is not readable; move it away to go on without the older generations of {store}") from None
    found = read_super(mount_at(point).source) if new.get("generation", 1) == 1 else None
    if found:
        new["began"] = found.made  # of a later one the swap notes it: its volume was made some time before that
    if new != record:
        save_record("stores", store, new)


def describe(store, generation):
    """One line about a generation."""
    return (f"generation {generation['number']} of {store} ({place_text(generation['place'])}, volume {generation['uuid']}, "
            f"{iso(generation['began'])} to {iso(generation['ended'])})")


def is_there(store, number):
    """Whether a retired generation is known and its LUN is to be seen, without a login."""
    return any(one["number"] == number and (is_attached(store, number) or find_disk(one["uuid"])) for one in retired(store))


def find_disk(uuid):
    """Path of the block device with a nilfs2 volume of that UUID, or None."""
    path = f"/dev/disk/by-uuid/{uuid}"
    if os.path.exists(path):
        return os.path.realpath(path)
    for name in sorted(os.listdir("/sys/block")):
        path = f"/dev/{name}"
        if name.startswith(("loop", "md", "dm-", "ram", "zram")) or not is_block(path):
            continue
        with contextlib.suppress(Problem, OSError):
            found = read_super(path)
            if found and found.uuid == uuid:
                return path
    return None


def _held(found):
    return f"holds the volume {found.uuid}" if found else "holds no nilfs2 volume"


def attach(store, number, device=None):
    """Mount a retired generation read-only; returns its mount point. device: where it is, when that is not where it was. Nothing happens when it is."""
    generation, point = one_of(store, number), point_of(store, number)
    if is_attached(store, number):
        return point
    if device:
        found = read_super(device) if os.path.exists(device) else None
        if found is None or found.uuid != generation["uuid"]:
            raise Problem(f"{device} {_held(found) if os.path.exists(device) else 'does not exist'}, and not {describe(store, generation)}; nothing was done")
    device = device or find_disk(generation["uuid"])
    if not device:
        try:
            place = Link(dict(generation["place"], mount=point, timeouts={})).find()
        except Problem as problem:
            raise Problem(f"{describe(store, generation)} is not there ({problem}); attach its LUN, then: indestructible generations {store} --attach {number}"
                          ) from None
        found = read_super(place)
        if found is None or found.uuid != generation["uuid"]:
            raise Problem(f"{describe(store, generation)} is not there: {place} {_held(found)} now; attach its LUN, then: "
                          f"indestructible generations {store} --attach {number} --device PATH")
        device = place
    owner = _owner.holder(device)
    # this host has the store, so its history comes along when the store was adopted; an owner that lives is found out
    (_owner.take_over if owner and not owner["here"] else _owner.claim)(device)
    make_directories(point)
    run(["mount", "-t", "nilfs2", "-o", "ro,nogc,noatime", device, point], timeout=300)
    _learn_points(store, number, point)
    return point


def _learn_points(store, number, point):
    """Read what the catalogues on a retired generation tell, when its LUN was away as it was retired."""
    def told(name, known):
        image = f"{point}/{os.path.basename(load_record('devices', name).get('remote') or '')}"
        if "points" in known or not read_text(_catalogue.path_of(image)):
            return known
        catalogue = _catalogue.load(image)
        return dict(known, since=catalogue["since"], points=catalogue["points"])

    record = load_record("stores", store)
    new = [one if one["number"] != number else dict(one, devices={name: told(name, known) for name, known in one["devices"].items()})
           for one in record.get("generations", [])]
    if new != record.get("generations", []):
        save_record("stores", store, dict(record, generations=new))


def _refuse_used(store, generation):
    """Raise Problem while recoveries of a retired generation are on record, half-open ones included."""
    point = point_of(store, generation["number"])
    known = {name: load_record("recoveries", name) for name in list_records("recoveries")}
    used = [name for name, recovery in known.items() if recovery.get("store_point") == point or recovery.get("volume") == generation["uuid"]]
    if not used and is_attached(store, generation["number"]):
        used = [mount.point for mount in snapshot_mounts(mount_at(point).source)]
    if used:
        raise Problem(f"generation {generation['number']} of {store} is in use by the recovery {', '.join(used)}; release it first")


def detach(store, number):
    """Unmount a retired generation; raises Problem while recoveries use it. Nothing happens when it is not mounted."""
    point, generation = point_of(store, number), one_of(store, number)
    if not is_attached(store, number):
        return
    _refuse_used(store, generation)
    unmount(point)
    with contextlib.suppress(OSError):
        os.rmdir(point)


def forget(store, number):
    """Forget a retired generation: it is not asked for any more, and its LUN may be given to something else. What the LUN holds stays.

    Raises Problem while recoveries of it are on record, for only they know what has to be taken down.
    """
    generation = one_of(store, number)
    _refuse_used(store, generation)
    detach(store, number)
    disk = find_disk(generation["uuid"])
    if disk and not main_mount(disk):
        _owner.release(disk)
    record = load_record("stores", store)
    save_record("stores", store, dict(record, generations=[one for one in record.get("generations", []) if one["number"] != number]))
    if record.get("mount") and mount_at(record["mount"]):
        with contextlib.suppress(OSError):  # what cannot be written now is written by the next swap
            write_down(record["mount"], store)


@contextlib.contextmanager
def writable(point):
    """Make the volume on a mount point writable for a moment, when it is a retired generation; else nothing."""
    mount = mount_at(point)
    was_read_only = bool(mount) and "ro" in mount.options + mount.super_options and point.startswith(f"{STATE_DIR}/generations/")
    if was_read_only:
        run(["mount", "-t", "nilfs2", "-o", "remount,rw,nogc,noatime", mount.source, point], timeout=300)
    try:
        yield
    finally:
        if was_read_only:
            run(["mount", "-t", "nilfs2", "-o", "remount,ro,nogc,noatime", mount.source, point], timeout=300)


def loops_on(point):
    """Loops (list of Loop) over files on a mount point."""
    return [loop for loop in loops() if loop.backing.startswith(point + "/")]
