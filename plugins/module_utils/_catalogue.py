# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is known of a device's checkpoints beyond what nilfs2 keeps: a small file beside its remote leg, so that it travels with the LUN.

A window is a range of checkpoints that are not safe to recover from: md was copying to the remote leg, so it was neither old nor new. A point
is a checkpoint that somebody gave a name to.
"""

from __future__ import annotations

import glob
import json
import os

from ._core import Problem, list_records, load_record, save_file
from ._mount import read_mounts
from ._nilfs import Volume


def path_of(remote):
    """Path of the catalogue that belongs to a remote leg."""
    return os.path.splitext(remote)[0] + ".json"


def mount_of(path):
    """The Mount of the nilfs2 volume that a file lies on, or None when it lies on something else."""
    path = os.path.realpath(path)
    mounts = [mount for mount in read_mounts() if path.startswith(mount.point.rstrip("/") + "/")]
    mount = max(mounts, key=lambda mount: len(mount.point), default=None)
    return mount if mount and mount.fstype == "nilfs2" else None


def volume_of(path):
    """Mount point of the nilfs2 volume that a file lies on, or None when it lies on something else."""
    mount = mount_of(path)
    return mount.point if mount else None


def load(remote):
    """The catalogue: dict(since: int, the first checkpoint with the device; unsafe: list of dict(first, last or None while it is open, why,
    good: the checkpoint before it); points: list of dict(name, checkpoint, time, note)). foreign of a window or point: its checkpoint was protected by
    somebody else before.
    """
    try:
        with open(path_of(remote), encoding="utf-8") as file:
            found = json.loads(file.read() or "{}")
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError):
        raise Problem(f"{path_of(remote)} is not readable JSON; it lists the checkpoints that are not safe, so nothing is done without it") from None
    return dict({"since": 1, "unsafe": [], "points": []}, **found)


def save(remote, catalogue):
    """Write the catalogue to the store; it is on the LUN when this returns."""
    save_file(path_of(remote), json.dumps(catalogue, indent=1, sort_keys=True) + "\n", 0o600)


def with_window(catalogue, first, why, good=None, foreign=False):
    """The catalogue with a window open from checkpoint first on; one that is still open is only widened. good: the checkpoint before it, and whether
    somebody else had protected that. Pure.
    """
    unsafe = [dict(window) for window in catalogue["unsafe"]]
    for window in unsafe:
        if window["last"] is None:
            if first < window["first"]:
                window.update(first=first, good=good, foreign=foreign)
            return dict(catalogue, unsafe=unsafe)
    return dict(catalogue, unsafe=unsafe + [{"first": first, "last": None, "why": why, "good": good, "foreign": foreign}])


def without_open(catalogue, last):
    """The catalogue with its open window ended at checkpoint last. Pure."""
    return dict(catalogue, unsafe=[dict(window, last=last) if window["last"] is None else window for window in catalogue["unsafe"]])


def window_of(catalogue, number):
    """The window of a checkpoint that is no recovery point of the device, or None."""
    return next((window for window in catalogue["unsafe"] if window["first"] <= number and (window["last"] is None or number <= window["last"])), None)


def is_safe(catalogue, number):
    """Whether a checkpoint is a recovery point of the device."""
    return window_of(catalogue, number) is None


def is_named(catalogue, number):
    """Whether a checkpoint is to stay protected for the device: it is one of its points, or the last good one before a window."""
    return any(point["checkpoint"] == number for point in catalogue["points"]) or any(window.get("good") == number for window in catalogue["unsafe"])


def claims(point, number):
    """What of this collection needs a checkpoint of the store on a mount point to stay protected: dict of (kind, of, name) -> what is known of it.

    Those are recoveries (a rollback under way has one, too), and of any device of the store, also one that this host does not know, the named points and
    the last good checkpoints before unsafe windows. The key foreign tells that somebody else had protected it before.
    """
    found = {}
    for name in list_records("recoveries"):
        record = load_record("recoveries", name)
        if record.get("checkpoint") == number and os.path.realpath(record.get("store_point") or "/") == os.path.realpath(point):
            found[("recoveries", None, name)] = record
    for image in glob.glob(f"{glob.escape(point)}/*.img"):
        catalogue, of = load(image), os.path.basename(path_of(image))
        found.update({("points", of, one["name"]): one for one in catalogue["points"] if one["checkpoint"] == number})
        found.update({("unsafe", of, window["first"]): window for window in catalogue["unsafe"] if window.get("good") == number})
    return found


def is_foreign(volume, number):
    """Whether a checkpoint is protected by somebody else, such as by a person with chcp, so that it has to stay so; to be noted with a new claim."""
    if not _is_protected(volume, number):
        return False
    ours = claims(volume.point, number)
    return not ours or any(claim.get("foreign") for claim in ours.values())


def is_last_claim(volume, number, *keys):
    """Whether the protection of a checkpoint is to end with these of its claims: nothing else needs it, and it was not somebody else's."""
    ours = claims(volume.point, number)
    ending = [ours.pop(key, {}) for key in keys]
    return not any(claim.get("foreign") for claim in ending) and not ours and _is_protected(volume, number)


def let_go(volume, number, *keys):
    """End the protection of a checkpoint unless something but these claims needs it; returns whether they can be forgotten. To be called before they are:
    what is protected and known to nobody would stay so for ever.
    """
    try:
        if is_last_claim(volume, number, *keys):
            volume.release(number)
    except Problem:
        return False  # somebody has it mounted
    return True


def _is_protected(volume, number):
    found = volume.checkpoints(number, 1)
    return bool(found) and found[0].number == number and found[0].snapshot


def begin(remote):
    """Note at a new device that its history begins now."""
    point = volume_of(remote)
    if point:
        with Volume(point) as volume:
            save(remote, {"since": volume.sync(), "unsafe": [], "points": []})


def open_window(remote, first, why):
    """Mark everything from checkpoint first (int, or None for the next one) on as unsafe, and protect the last good checkpoint before it."""
    point = volume_of(remote)
    if not point:
        return
    catalogue = load(remote)
    with Volume(point) as volume:
        first = first or volume.counts()[0]
        if not any(window["last"] is None and window["first"] <= first for window in catalogue["unsafe"]):
            good = [found for found in volume.checkpoints(max(1, first - 8), 16) if found.number < first]
            number = good[-1].number if good else None
            for wider in (window for window in catalogue["unsafe"] if window["last"] is None and window.get("good")):
                let_go(volume, wider["good"], ("unsafe", os.path.basename(path_of(remote)), wider["first"]))
            catalogue = with_window(catalogue, first, why, number, bool(number) and is_foreign(volume, number))
            save(remote, catalogue)  # first, so that nothing is protected that nobody knows of
        wanted = next(window.get("good") for window in catalogue["unsafe"] if window["last"] is None)
        if wanted and any(found.number == wanted for found in volume.checkpoints(wanted, 1)):
            volume.protect(wanted)


def close_window(remote):
    """Commit, and end the window: checkpoints from that one on are recovery points again."""
    point = volume_of(remote)
    if not point:
        return
    with Volume(point) as volume:
        good = volume.sync()
    save(remote, without_open(load(remote), good - 1))
