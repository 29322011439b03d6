# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A recovery: a past state of a device as a block device of its own, beside the device in use.

Its layers, each found by what the kernel shows, so that any interruption leaves something the next run completes or takes down:
the checkpoint is protected, mounted read-only (view), its image is a read-only loop (image), a device-mapper snapshot over it takes what is written
(overlay, unless mode is direct), a linear map offers what is behind the leg's header (node), and that is mounted. But for the node, all of them begin with
that header, so that LVM sees members of an array and no twins of what is in use: it changes no volume group while there are twins of it.
"""

from __future__ import annotations

import contextlib
import os
import time

from . import _catalogue, _generations, _snapshots
from ._blank import describe, probe
from ._blockdev import find_holder, openers_of, size_of
from ._core import (MIB, RUN_DIR, STATE_DIR, Problem, Step, converge, forget_record, human_size, list_records, load_record, read_text, run, save_file,
                    save_record, wait_until)
from ._loop import attach, detach, loops
from ._md_super import read_super
from ._mount import check_point, make_directories, mount_at, mounts_of, unmount, users_of
from ._nilfs import Volume
from ._points import Away, device_named, locate, record_of
from ._when import NAME, iso, parse_wish

KIND = "recoveries"
MODES = ("overlay", "direct")
COW_SIZE = 1 << 30  # bytes, unless another size is wanted; the file is sparse
_CHUNK = 8  # sectors that the overlay copies at once
_RULES = "/run/udev/rules.d/56-indestructible.rules"
# Twins of what is in use must not get its links in /dev/disk, nor be brought into use by what looks for its members (LVM, btrfs, md).
_RULES_TEXT = ('SUBSYSTEM=="block", ENV{DM_NAME}=="indestructible-*", ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1"\n'
               f'SUBSYSTEM=="block", KERNEL=="loop*", ATTR{{loop/backing_file}}=="{RUN_DIR}/view/*|*.cow", '
               'ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1"\n')
# How a file system is mounted beside its twin; of a direct recovery, whose journal cannot be replayed, without looking at it.
_OPTIONS = {"xfs": ("nouuid", "ro,norecovery,nouuid"), "ext4": ("defaults", "ro,noload"), "ext3": ("defaults", "ro,noload"), "ext2": ("defaults", "ro"),
            "btrfs": ("defaults", "ro,rescue=nologreplay")}


def view_of(name):
    """Where the store is seen as it was."""
    return f"{RUN_DIR}/view/{name}"


def node_of(name):
    """The block device of a recovery."""
    return f"/dev/mapper/{_dm(name)}"


def _dm(name):
    return f"indestructible-{name}"


def _dm_overlay(name):
    return f"indestructible-{name}+overlay"  # no name of a recovery has a plus


def names_of(device):
    """Names (list) of the recoveries of a device that this host knows, also of half-open ones."""
    return [name for name in list_records(KIND) if load_record(KIND, name).get("device") == device]


def normalize(want):
    """The want of one recovery with every value filled in; raises Problem for values that make no sense.

    Keys: name, state (present or absent), device, as_of, mode, mount (path, "" for none), cow (path), cow_size (bytes), unsafe (bool), generation (number,
    for a checkpoint of a retired one).
    """
    want = dict({"state": "present", "as_of": "latest", "mode": "overlay", "mount": None, "cow": None, "cow_size": None, "unsafe": False,
                 "generation": None, "check_mode": False}, **want)
    name = want["name"] = want.get("name") or want["device"]
    if not name or not NAME.fullmatch(name) or ":" in name:
        raise Problem(f"name {name!r} is no name for a recovery; write a letter and then letters, digits, dots, dashes or underscores")
    if want["state"] == "absent":
        return want
    if want["mode"] not in MODES:
        raise Problem(f"{name}: mode {want['mode']!r} is neither of {' and '.join(MODES)}")
    parse_wish(want["as_of"], time.time())
    if want["mount"] is None:
        want["mount"] = f"/mnt/indestructible/{name}"
    want["cow"] = want["cow"] or f"{STATE_DIR}/recoveries/{name}.cow"
    for key in ("mount", "cow"):
        if want[key] and (not os.path.isabs(want[key]) or os.path.normpath(want[key]) != want[key]):
            raise Problem(f"{name}: {key} {want[key]!r} is not an absolute, plain path")
    if want["cow_size"] is not None and (want["cow_size"] < MIB or want["cow_size"] % 512):
        raise Problem(f"{name}: cow_size {want['cow_size']} is not a multiple of 512 bytes of at least 1 MiB")
    return want


# observe


def observe(want):
    """The state of one recovery; sizes in bytes, times in seconds. Keys with a leading underscore are for plan() and perform()."""
    name = want["name"]
    record, node = load_record(KIND, name), node_of(name)
    view = mount_at(view_of(name))
    known = loops()
    image = next((loop for loop in known if _is_in(loop, view_of(name))), None)
    cow = next((loop for loop in known if _is_over(loop, record.get("cow"))), None)
    there = os.path.exists(node)
    mounts = mounts_of(node) if there else []
    used, problem = _overlay_use(name) if there and record.get("mode") == "overlay" else (None, None)
    if problem and not os.path.exists(node):  # it is being released
        there, problem = False, None
    layers = [bool(record.get("checkpoint")), bool(view), bool(image), there]
    if record.get("mode") == "overlay":
        layers += [bool(cow), os.path.exists(f"/dev/mapper/{_dm_overlay(name)}")]
    if record.get("mounts"):
        layers.append(bool(mounts))
    state = "absent" if not any(layers) else "open" if all(layers) and record.get("phase") == "open" else "half-open"
    return {
        "name": name, "state": state, "device": record.get("device"), "checkpoint": record.get("checkpoint"), "time": record.get("time"),
        "iso": iso(record["time"]) if record.get("time") else None, "as_of": record.get("as_of"), "safe": record.get("safe"), "mode": record.get("mode"),
        "path": node if there else None, "size": size_of(node) if there else None, "content": record.get("content"),
        "mount": mounts[0].point if mounts else None, "cow": record.get("cow"), "cow_size": record.get("cow_size"), "cow_used": used, "problem": problem,
        "_record": record, "_view": view, "_image": image, "_cow": cow, "_mounts": mounts}


def _is_in(loop, folder):
    """Whether a Loop is over a file below a folder; the kernel shows what it is over with every link resolved."""
    return loop.backing.startswith(os.path.realpath(folder) + "/")


def _is_over(loop, path):
    """Whether a Loop is over exactly the file at a path (or None)."""
    return bool(path) and loop.backing == os.path.realpath(path)


def _overlay_use(name):
    """(bytes of the COW store that are in use or None, a sentence when it is broken or None)."""
    words = run(["dmsetup", "status", _dm_overlay(name)], ok=None).out.split()
    if len(words) > 3 and "/" in words[3]:
        return int(words[3].partition("/")[0]) * 512, None
    said = words[3] if len(words) > 3 else "unknown"
    return None, (f"the overlay is lost ({said}): its COW store was too small for what was written. The device and its history are as they were; "
                  "release this recovery and open it again with a larger cow_size")


# plan


def plan(want, state):
    """Ordered list of Step. Raises Problem for what must not be done."""
    record = state["_record"]
    if want["state"] == "absent":
        if state["state"] == "absent":
            if not record and want.get("strict"):
                raise Problem(f"no recovery {want['name']!r} is open; there are: {', '.join(list_records(KIND)) or 'none'}")
            return []
        return _plan_close(want, state)
    record_of(want["device"])
    same = record and all(record.get(key) == want[key] for key in ("device", "as_of", "mode", "cow")) and record.get("point") == want["mount"] \
        and want["cow_size"] in (None, record.get("cow_size"))
    if state["state"] == "open" and not state["problem"]:
        if same:
            return []
        raise Problem(f"{want['name']}: a recovery of that name is open, of {record['device']} as of {state['iso']} at {state['mount'] or state['path']}; "
                      f"release it first (indestructible release {want['name']}), or give this one another name")
    steps = _plan_close(want, state) if record or state["state"] != "absent" else []
    if want["mount"]:
        taken = mount_at(want["mount"])
        if taken and not any(mount.point == taken.point for mount in state["_mounts"]):
            raise Problem(f"{want['name']}: {taken.source} is mounted on {want['mount']}; choose another mount point")
        if not taken:
            check_point(want["mount"])
        for other in list_records(KIND):
            point = load_record(KIND, other).get("point")
            if other != want["name"] and point and os.path.realpath(point) == os.path.realpath(want["mount"]):
                raise Problem(f"{want['name']}: the recovery {other} is open on {want['mount']}; choose another mount point, or release that one")
    if want["cow"] != record.get("cow") and os.path.lexists(want["cow"]):
        raise Problem(f"{want['name']}: {want['cow']} exists already, and is not the COW store of this recovery; choose another path")
    try:
        device, point, safe = locate(want["device"], parse_wish(want["as_of"], time.time()), want["unsafe"], want["generation"], not want["check_mode"])
    except Away as away:
        return steps + [Step("open", f"{away}, and open {want['device']} as of {want['as_of']} from it", {"checkpoint": None, "time": None, "safe": None})]
    if (record.get("store_point"), record.get("checkpoint")) == (device.point, point.number):
        for step in steps:
            step.args["keep"] = True  # protected as it is, so that no cleaner gets at it in between
    args = {"checkpoint": point.number, "time": point.time, "generation": device.generation, "safe": safe}
    if want["mode"] == "overlay":
        args["cow_size"] = _cow_size(want)
    where = f" on {want['mount']}" if want["mount"] else ""
    return steps + [Step("open", f"open {want['device']} as of {iso(point.time)} (checkpoint {point.number}){where}", args)]


def _cow_size(want):
    """Bytes of the COW store; raises Problem when they do not fit."""
    folder = os.path.dirname(want["cow"])
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize
    if want["cow_size"] is None:
        size = min(COW_SIZE, free // 2 // MIB * MIB)
        if size < 16 * MIB:
            raise Problem(f"{want['name']}: {folder} has only {human_size(free)} free, too little for the overlay; choose another place for cow, "
                          "or mode direct")
        return size
    if want["cow_size"] > free:
        raise Problem(f"{want['name']}: cow_size {human_size(want['cow_size'])} does not fit: {folder} has {human_size(free)} free")
    return want["cow_size"]


def _plan_close(want, state):
    for mount in state["_mounts"]:
        _refuse_busy(want, mount.point)
    if not state["_mounts"] and state["path"]:
        users = openers_of(state["path"])
        use = f"in use by {', '.join(users)}" if users else find_holder(state["path"])  # such as what kpartx made of its partitions
        if use:
            raise Problem(f"{want['name']}: {state['path']} is {use}; end that first")
    what = f"close the recovery {want['name']}" if state["state"] != "half-open" else f"clear away what is left of the recovery {want['name']}"
    record = state["_record"]
    if record.get("generation") and not record.get("foreign") and not _generations.is_there(*record["generation"]):
        store, number = record["generation"]
        what += f"; checkpoint {record['checkpoint']} stays protected on generation {number} of {store}, which is not there"
    return [Step("close", what, {})]


def _refuse_busy(want, point):
    users = users_of(point)
    if users:
        raise Problem(f"{want['name']}: {point} is in use by {', '.join(users)}; end that first")


# act


def perform(want, step):
    """Carry out one step; raises Problem."""
    if step.verb == "close":
        _close(want["name"], step.args.get("keep"))
    else:
        _open(want, step.args)


def check_kernel(device, checkpoint, name, trusted=None):
    """Raise Problem when the kernel could show another checkpoint of the volume of a device (as device_named() has it); see _snapshots.check()."""
    way_out = None
    if device.generation is not None:
        way_out = (f"The volume has to be mounted anew: release what else is open of it, run indestructible generations {device.store} --detach "
                   f"{device.generation}, and then this again")
    return _snapshots.check(device.disk, checkpoint, name, way_out, trusted)


def _open(want, args):
    name, device = want["name"], device_named(want["device"], args["generation"])
    trusted = check_kernel(device, args["checkpoint"], name)
    record = {"name": name, "device": want["device"], "as_of": want["as_of"], "mode": want["mode"], "point": want["mount"], "cow": want["cow"],
              "checkpoint": args["checkpoint"], "time": args["time"], "safe": args["safe"], "disk": device.disk, "store_point": device.point,
              "cow_size": args.get("cow_size"), "phase": "opening", "made_point": bool(want["mount"]) and not os.path.isdir(want["mount"]),
              "volume": load_record("stores", device.store).get("uuid") if device.generation is None and device.store else None,
              "generation": None if device.generation is None else [device.store, device.generation]}
    with Volume(device.point) as volume:
        record["foreign"] = _catalogue.is_foreign(volume, args["checkpoint"])
    save_record(KIND, name, record)  # before the first act, so that whatever happens it is known what to take down
    if read_text(_RULES) != _RULES_TEXT.strip():
        save_file(_RULES, _RULES_TEXT)
        run(["udevadm", "control", "--reload"], ok=None)
    with _generations.writable(device.point), Volume(device.point) as volume:
        volume.protect(args["checkpoint"])
    view = view_of(name)
    make_directories(view)
    run(["mount", "-t", "nilfs2", "-o", f"ro,cp={args['checkpoint']}", device.disk, view])
    _snapshots.note(device.disk, args["checkpoint"], view)
    check_kernel(device, args["checkpoint"], name, trusted)
    image = os.path.join(view, os.path.relpath(os.path.realpath(device.remote), os.path.realpath(device.point)))
    if not os.path.exists(image):
        raise Problem(f"{name}: the checkpoint {args['checkpoint']} has no {os.path.basename(image)}: the device is younger")
    header = read_super(image)
    if header is None or (device.uuid and header.uuid != device.uuid):
        raise Problem(f"{name}: {os.path.basename(image)} of checkpoint {args['checkpoint']} is "
                      f"{'no leg' if header is None else 'a leg of the array ' + header.uuid} and not of the device {want['device']} ({device.uuid})")
    # with a limit that changes nothing it is not taken for the loop of the leg itself, whose inode and device this is
    under = attach(image, sizelimit=header.data_offset + header.size, read_only=True)
    if want["mode"] == "overlay":
        make_directories(os.path.dirname(want["cow"]))
        try:
            with open(want["cow"], "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.truncate(args["cow_size"])
        except OSError as error:
            raise Problem(f"{name}: cannot make {want['cow']} of {human_size(args['cow_size'])} for the overlay: {error.strerror}; choose another place for "
                          "cow or another cow_size, or mode direct") from None
        cow = attach(want["cow"])
        under = _map(_dm_overlay(name), header.data_offset + header.size, f"snapshot {under} {cow} N {_CHUNK}")
    node = _map(_dm(name), header.size, f"linear {under} {header.data_offset // 512}", *(["--readonly"] if want["mode"] == "direct" else []))
    if want["mode"] == "overlay":
        _begin_overlay(node)
    tags = probe(node)
    kind = tags.get("TYPE") if tags.get("TYPE") in _OPTIONS else None
    record.update(content=describe(tags), mounts=bool(kind and want["mount"]))
    save_record(KIND, name, record)
    if record["mounts"]:
        if kind == "btrfs":
            _tell_apart(want, node)
        make_directories(want["mount"])
        run(["mount", "-t", kind, "-o", _OPTIONS[kind][MODES.index(want["mode"])], node, want["mount"]], timeout=600)
    record["phase"] = "open"
    save_record(KIND, name, record)


def _map(name, size, target, *options):
    """Make a device of device-mapper of that size (bytes) and return its node."""
    node = f"/dev/mapper/{name}"
    run(["dmsetup", "create", name, *options, "--table", f"0 {size // 512} {target}"])
    wait_until(lambda: os.path.exists(node), 10, f"the node {node}")
    return node


def _begin_overlay(node):
    """Have the COW store begin with the last chunk of the device. It begins with whatever is written first, and with the first chunk LVM and others would
    take it for one more twin of the device.
    """
    try:
        with open(node, "r+b", buffering=0) as file:
            place = file.seek(-_CHUNK * 512, os.SEEK_END)
            chunk = file.read(_CHUNK * 512)
            file.seek(place)
            file.write(chunk)
            os.fsync(file.fileno())
    except OSError as error:
        raise Problem(f"{node} cannot be written to: {error.strerror}") from None


def _tell_apart(want, node):
    """btrfs takes two devices with one UUID for one, so the overlay gets a new one."""
    if want["mode"] == "direct":
        raise Problem(f"{want['name']}: a btrfs cannot be mounted beside its twin as it is; use mode overlay, which gives it another UUID, or mount ''")
    run(["btrfstune", "-m", "-f", node], timeout=600)


def _close(name, keep=False):
    """Take down whatever is there of a recovery, from the top; each step only where it is needed. With keep its checkpoint stays protected for it."""
    record, node = load_record(KIND, name), node_of(name)
    if os.path.exists(node):
        for mount in mounts_of(node):
            unmount(mount.point)
    for layer in (_dm(name), _dm_overlay(name)):
        if run(["dmsetup", "info", layer], ok=None).rc == 0:
            run(["dmsetup", "remove", "--retry", layer])
    view = view_of(name)
    for loop in loops():
        if _is_in(loop, view) or _is_over(loop, record.get("cow")):
            detach(loop.device)
    if mount_at(view):
        if record.get("disk"):
            _snapshots.wait_until_kept(record["disk"], record["checkpoint"])
        unmount(view)
    for path, remove in ((record.get("mode") == "overlay" and record["cow"], os.unlink), (view, os.rmdir),
                         (record.get("made_point") and record["point"], os.rmdir)):
        if path:
            try:
                remove(path)
            except OSError:
                pass  # not there, or not empty and thus not ours alone
    if not keep:
        _unprotect(name, record)
        forget_record(KIND, name)


def _unprotect(name, record):
    """Release the checkpoint, unless something else needs it."""
    if not record.get("checkpoint") or record.get("foreign"):
        return
    if record.get("generation"):
        try:
            _generations.attach(*record["generation"])
        except Problem:
            return  # its LUN is not there, or not known any more; nothing is ever deleted on it, so what stays protected there is in nobody's way
    point, number = record["store_point"], record["checkpoint"]
    if not mount_at(point):
        raise Problem(f"{name}: the store is not mounted on {point}, so checkpoint {number} cannot be released; everything else is closed. Bring its LUN "
                      "back and release the recovery again; until then give others another name (--name)")
    with Volume(point) as volume:
        ends = _catalogue.is_last_claim(volume, number, (KIND, None, name))
    if ends:
        with _generations.writable(point), Volume(point) as volume:
            volume.release(number)


def converge_one(want, check_mode=False):
    """converge() one recovery; the caller holds the lock of the host. What an open that fails has opened already is closed again."""
    try:
        return converge([want], observe, plan, perform, predict, check_mode)
    except Problem:
        if not check_mode and want["state"] == "present" and load_record(KIND, want["name"]).get("phase") == "opening":
            with contextlib.suppress(Problem):  # what cannot be closed now is closed by the next run
                _close(want["name"])
        raise


def predict(want, state, steps):
    """The state after the steps, as far as it can be known before."""
    after = dict(state)
    for step in steps:
        if step.verb == "close":
            after.update({key: None for key in state if not key.startswith("_") and key != "name"}, state="absent")
        else:
            after.update(state="open", device=want["device"], checkpoint=step.args["checkpoint"], time=step.args["time"],
                         iso=iso(step.args["time"]) if step.args["time"] else None,
                         as_of=want["as_of"], safe=step.args["safe"], mode=want["mode"], path=node_of(want["name"]), mount=want["mount"] or None,
                         cow=want["cow"] if want["mode"] == "overlay" else None, cow_size=step.args.get("cow_size"))
    return after


def public(state):
    """The part of a state that is shown."""
    return {key: value for key, value in state.items() if not key.startswith("_")}
