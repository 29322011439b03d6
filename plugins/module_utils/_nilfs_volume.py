# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A nilfs2 volume on a block device: made once, mounted without its cleaner (or with one that keeps a period), grown; never erased."""

from __future__ import annotations

import datetime
import os
import re
import signal

from . import _cleaner, _generations, _owner
from ._core import STATE_DIR, Problem, Step, human_period, human_size, load_record, parse_period, run, save_record, wait_until
from ._blank import describe, find_use
from ._blockdev import is_block, known_as, size_of
from ._iscsi_node import initiator_name
from ._loop import loops
from ._mount import (Entry, check_point, fstab_with, fstab_without, make_directories, mount_at, parse_fstab, read_fstab, read_mounts,
                     unmount, users_of, write_fstab)
from ._nilfs import (ERROR, MIN_RESERVED, Volume, cleaners, has_second_super, main_mount, read_super, reserved_segments, second_at,
                     snapshot_mounts)

STATES = ("mounted", "present", "unmounted", "absent")
FSTAB_OPTIONS = "noauto,_netdev,nofail,nogc,noatime"  # noauto: nothing may mount it that does not look who owns it
MOUNT_OPTIONS = "nogc,noatime,_netdev"
BLOCK_SIZES = (1024, 2048, 4096)
BLOCKS_PER_SEGMENT = 2048
MIN_USER_SEGMENTS = 8  # what mkfs.nilfs2 wants besides the reserved ones


def normalize(given, check_mode=False):
    """Dict with every key of what a user wants; raises Problem for what cannot be meant."""
    name = given.get("name") or None
    label = given.get("label") or (f"indestructible-{name}" if name else None)
    if not label:
        raise Problem("give the name of the store, or the label of the volume: that is how it is told from the volumes of others")
    if len(label.encode()) > 80:
        raise Problem(f"label: {label!r} is longer than the 80 bytes that a nilfs2 label may have")
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise Problem(f"name: {name!r} is not a name; use letters, digits, '.', '_' and '-', beginning with a letter or digit")
    point = given.get("mount") or (f"{STATE_DIR}/stores/{name}" if name else None)
    state = given.get("state") or "mounted"
    if state not in STATES:
        raise Problem(f"state: {state!r} is not one of {', '.join(STATES)}")
    if state == "mounted" and not point:
        raise Problem("give the path to mount the volume on")
    if point and (not os.path.isabs(point) or os.path.normpath(point) != point or point == "/"):
        raise Problem(f"the mount point {point!r} is not an absolute, plain path below /")
    block_size = given.get("block_size") or 4096
    if block_size not in BLOCK_SIZES:
        raise Problem(f"block_size: {block_size} is not one of {', '.join(map(str, BLOCK_SIZES))}")
    reserved = given.get("reserved") or 5
    if not 1 <= reserved <= 99:
        raise Problem(f"reserved: {reserved} is not a share from 1 to 99 percent")
    keep = parse_period(given["keep"], "keep") if given.get("keep") else None
    record = name or re.sub(r"[^A-Za-z0-9._-]", "_", label)
    device = given.get("device") or (_claimed_device(record) if state == "absent" else None)
    return {"device": device, "name": name, "label": label, "mount": point, "state": state, "block_size": block_size,
            "reserved": reserved, "keep": keep, "record": record, "adopt": bool(given.get("adopt")), "check_mode": check_mode}


def is_used(record):
    """Whether a store is this host's and was not taken out of use on purpose, given what is remembered of it (dict)."""
    return bool(record.get("claimed")) and not record.get("unmounted")


def _claimed_device(record):
    """The device that this host claimed for a store, wherever it is now, or None."""
    identity = load_record("stores", record).get("claimed")
    for name in sorted(os.listdir("/sys/block")) if identity else []:
        try:
            if is_block(f"/dev/{name}") and known_as(f"/dev/{name}") == identity:
                return f"/dev/{name}"
        except (OSError, Problem):
            continue
    return None


def _moment(checkpoint):
    if checkpoint is None:
        return None
    moment = datetime.datetime.fromtimestamp(checkpoint.time, datetime.timezone.utc)
    return {"number": checkpoint.number, "time": checkpoint.time, "iso": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _blank_state(want):
    return {
        "name": want["name"], "device": want["device"], "state": "absent", "label": None, "uuid": None, "mountpoint": None, "fstab": False,
        "block_size": None, "device_size": None, "size": None, "segments": None, "segment_size": None, "clean_segments": None,
        "reserved": None, "reserved_segments": None, "free": None, "available": None, "checkpoints": None, "snapshots": None,
        "first_checkpoint": None, "last_checkpoint": None, "read_only": None, "error": None, "cleaner": None, "keep": None, "owner": None,
        "_marked": False, "_held": None, "_owner_problem": None,
        "_exists": False, "_content": None, "_use": None, "_half_done": False, "_other_point": None, "_point_taken": None,
        "_users": [], "_fstab_text": "", "_record": {}, "_loose": [], "_cleaner_written": False,
    }


def observe(want):
    """State dict of the volume; keys that begin with "_" are for plan() only."""
    state = _blank_state(want)
    state["_record"] = load_record("stores", want["record"])
    state["_fstab_text"] = read_fstab()
    state["keep"] = _cleaner.kept(want["record"])
    mounts = read_mounts()
    device, point = want["device"], want["mount"]
    if device and os.path.exists(device):
        if not is_block(device):
            raise Problem(f"{device} is not a block device")
        state["_exists"] = True
        state["device_size"] = size_of(device)
        _observe_volume(want, state, device, mounts)
    at = mount_at(point, mounts) if point else None
    if at and at.point != state["mountpoint"]:
        state["_point_taken"] = f"{at.source} ({at.fstype})"
        if not state["_exists"] and at.fstype == "nilfs2" and state["_record"].get("mount") == point:
            # The LUN is gone, what was mounted from it is not: it can still be unmounted.
            state.update(mountpoint=point, state="mounted", uuid=state["_record"].get("uuid"), _point_taken=None)
    if not state["uuid"] and not state["_exists"]:
        state["uuid"] = state["_record"].get("uuid")
    if state["uuid"] and point:
        wanted = _entry(state["uuid"], point)
        entries = parse_fstab(state["_fstab_text"])
        state["fstab"] = wanted in entries
        state["_in_fstab"] = any((entry.source, entry.point) == (wanted.source, wanted.point) for entry in entries)
    if state["mountpoint"] and (want["state"] in ("unmounted", "absent") or state["read_only"]):
        state["_users"] = _users(device, state["mountpoint"], mounts)
    return state


def _observe_owner(state, device):
    try:
        state["owner"], state["_marked"], state["_held"] = _owner.look(device)
    except Problem as problem:
        state["_owner_problem"] = str(problem)


def _observe_volume(want, state, device, mounts):
    _observe_owner(state, device)
    found = read_super(device)
    record = state["_record"]
    state["_half_done"] = record.get("phase") == "formatting" and record.get("device_id") == known_as(device)
    if found and state["_half_done"] and not has_second_super(device) and not main_mount(device, mounts):
        found = None  # mkfs ended between its two super blocks, and the kernel would never write the second one
    if found is None or found.label != want["label"]:
        state["_use"] = find_use(device)
        if want["state"] in ("mounted", "present"):
            state["_content"] = f"a nilfs2 file system labelled {found.label!r}" if found else _owner.find_content(device)
            if state["_content"] and not state["owner"]:
                _observe_owner(state, device)  # it was blank a moment ago, to this host, and may be what another one makes right now
        elif found:
            state["_content"] = f"a nilfs2 file system labelled {found.label!r}"
        return
    mount = main_mount(device, mounts)
    state.update(state="mounted" if mount else "unmounted", label=found.label, uuid=found.uuid, block_size=found.block_size, size=found.size,
                 segments=found.segments, segment_size=found.segment_size, reserved=found.reserved,
                 reserved_segments=reserved_segments(found.segments, found.reserved), error=bool(found.state & ERROR))
    if mount is None:
        state["last_checkpoint"] = {"number": found.last_checkpoint, "time": None, "iso": None}
        state["_use"] = find_use(device)
        return
    state.update(mountpoint=mount.point, read_only="ro" in mount.options or "ro" in mount.super_options,
                 cleaner=bool(cleaners(device, mount.point)), _loose=_cleaner.loose(device, mount.point, want["record"]),
                 _cleaner_written=bool(want["keep"]) and _cleaner.is_written(want["record"], found.uuid, mount.point, want["keep"]))
    with Volume(mount.point) as volume:
        usage = volume.usage()
        _next, checkpoints, snapshots = volume.counts()
        state.update(segments=usage.segments, clean_segments=usage.clean, checkpoints=checkpoints, snapshots=snapshots,
                     reserved_segments=reserved_segments(usage.segments, found.reserved),
                     first_checkpoint=_moment(volume.first_checkpoint()), last_checkpoint=_moment(volume.last_checkpoint()))
    state["free"] = usage.clean * found.segment_size
    state["available"] = max(0, usage.clean - state["reserved_segments"]) * found.segment_size


def _entry(number, point):
    return Entry(f"UUID={number}", point, "nilfs2", FSTAB_OPTIONS, "0", "0")


def _users(device, point, mounts):
    """What keeps a mounted volume busy, in words: loops over its files, mounted snapshots, processes."""
    prefix = point.rstrip("/") + "/"
    found = [f"{loop.device} over {loop.backing}" for loop in loops() if loop.backing.startswith(prefix)]
    if device and os.path.exists(device):
        found += [f"a snapshot mounted on {mount.point}" for mount in snapshot_mounts(device, mounts)]
    return found + [user for user in users_of(point) if not user.startswith("nilfs_cleanerd ")]  # a cleaner is stopped before


def plan(want, state):
    """List of Step from state to want; raises Problem for refusals. Pure but for a look at an unused mount point."""
    if want["state"] in ("unmounted", "absent"):
        return _plan_out(want, state)
    device, name = want["device"], want["name"] or want["label"]
    if not state["_exists"]:
        if want["check_mode"]:
            return _plan_new(want, state)
        raise Problem(f"the device {device} of the store {name} does not exist on this host; log in to its target first" if device
                      else f"the store {name} has no device")
    known, place = state["_record"].get("uuid"), state["_record"].get("place")
    # not when mkfs was cut short just before this was noted, nor after the store was given up
    if state["uuid"] and known and state["uuid"] != known and not state["_half_done"] and state["_record"].get("claimed"):
        number = state["_record"].get("generation", 1)
        where = f", which is generation {number}, on {_generations.place_text(place)}: write that place in the variables" if place else ""
        raise Problem(f"{device} holds the volume {state['uuid']}, and the store {name} is the volume {known}{where}; nothing was done")
    steps = _plan_owner(want, state)
    if state["uuid"] is None:
        _check_free(want, state)
        return _plan_new(want, state, steps)
    if state["size"] > state["device_size"]:
        raise Problem(f"the volume on {device} has {state['size']} bytes but the device only {state['device_size']}: the device has become smaller; "
                      "give it back its size before it is used")
    return steps + (_plan_mounted(want, state) if want["state"] == "mounted" else [])


def _plan_owner(want, state):
    """Steps that make the device this host's own; none when it is. Raises Problem when it is another host's."""
    device, owner, fresh = want["device"], state["owner"], {"format": state["uuid"] is None}
    if state["_owner_problem"]:
        raise Problem(f"it cannot be told who owns {device}: {state['_owner_problem']}")
    if owner and not owner["here"]:
        if not want["adopt"]:
            raise _owner.refusal(device, owner)
        if state["mountpoint"]:
            raise Problem(f"{device} is still mounted on {state['mountpoint']} of this host, although {_owner.who(owner)} owns it; unmount it "
                          "(state: unmounted) before it is taken over")
        return [Step("take_over", f"took {device} over from {_owner.who(owner)}", fresh)]
    marked = state["_marked"] or bool(state["mountpoint"])  # what is mounted without a mark gets it before its next mount
    if state["_held"] is None and marked or state["_held"] and marked:
        return []
    return [Step("claim", f"claimed {device} for this host", fresh)]


def _check_free(want, state):
    device = want["device"]
    if state["_use"]:
        raise Problem(f"{device} is not made into the volume {want['label']!r}: it is {state['_use']}")
    content = state["_content"]
    # Only what an interrupted mkfs leaves is overwritten, on the very same device: bytes without a signature, or one super block.
    if content and not (state["_half_done"] and (content.startswith("data at byte") or content == _half_made(want))):
        raise Problem(f"{device} is not made into the volume {want['label']!r}: it holds {content}; only a blank device is formatted "
                      "(to give that up for good, blank it yourself: wipefs -a and zeros over its first and last 4 MiB)")
    segments = second_at(state["device_size"]) // (BLOCKS_PER_SEGMENT * want["block_size"])
    if segments < reserved_segments(segments, want["reserved"]) + MIN_USER_SEGMENTS:
        smallest = (MIN_USER_SEGMENTS + MIN_RESERVED) * BLOCKS_PER_SEGMENT * want["block_size"]
        raise Problem(f"{device} has {human_size(state['device_size'])}, too small for a volume with {want['reserved']} % reserved; "
                      f"at least {human_size(smallest)} are needed, and more with a large share")


def _half_made(want):
    return describe({"TYPE": "nilfs2", "LABEL": want["label"], "USAGE": "filesystem"})


def _plan_new(want, state, steps=()):
    if want["state"] == "mounted":
        for entry in parse_fstab(state["_fstab_text"]):
            if entry.point == want["mount"] and entry.source != f"UUID={state['_record'].get('uuid')}":
                raise Problem(f"/etc/fstab mounts {entry.source} on {want['mount']}; remove that line or choose another mount point "
                              f"for {want['label']!r}")
    steps = list(steps or [Step("claim", "claimed its device for this host")] if not state["_exists"] else steps)
    steps += [Step("format", f"made the nilfs2 volume {want['label']!r} on {want['device'] or 'its device'}")]
    if want["state"] == "mounted":
        _check_point(want, state)
        steps += [Step("mount", f"mounted it on {want['mount']} without a cleaner"), Step("fstab", f"entered {want['mount']} in /etc/fstab")]
        steps += _plan_cleaner(want, state, True)
    return steps


def _plan_cleaner(want, state, mounted):
    """Steps that let history older than wanted be deleted, or have all of it kept. mounted: whether it is mounted anew by a step before."""
    point, keep = want["mount"], want["keep"]
    if keep and (mounted or state["keep"] != keep or not state["cleaner"] or state["_loose"] or not state["_cleaner_written"]):
        return [Step("clean", f"had the cleaner of {point} keep the history of {human_period(keep)} and delete what is older when space is short")]
    if state["keep"] and not keep:
        return [Step("keep_all", f"stopped the cleaner of {point}, so that all history is kept from now on")]
    if state["cleaner"] and not keep and not mounted and not state["read_only"]:
        return [Step("no_cleaner", f"stopped the cleaner of {point}, which deletes history")]
    return []


def _check_point(want, state):
    if state["_point_taken"]:
        raise Problem(f"the mount point {want['mount']} of {want['label']!r} is in use by {state['_point_taken']}")
    check_point(want["mount"])


def _plan_mounted(want, state):
    device, point = want["device"], want["mount"]
    steps = []
    if state["mountpoint"] is None:
        if state["_use"]:
            raise Problem(f"{device} cannot be mounted: it is {state['_use']}")
        _check_point(want, state)
        steps.append(Step("mount", f"mounted {device} on {point} without a cleaner"))
    elif state["mountpoint"] != point:
        raise Problem(f"the volume {want['label']!r} on {device} is mounted on {state['mountpoint']} and not on {point}; unmount it there first")
    elif state["read_only"] and not state["_users"]:
        steps.append(Step("remount", f"unmounted {point}, which had become read-only, and mounted it again"))
    if not state["read_only"] or steps:
        steps += _plan_cleaner(want, state, bool(steps))
    if fstab_with(state["_fstab_text"], _entry(state["uuid"], point)) != state["_fstab_text"]:
        steps.append(Step("fstab", f"entered {point} in /etc/fstab"))
    if state["size"] < state["device_size"] and (not state["read_only"] or not state["_users"]):
        steps.append(Step("grow", f"grew the volume on {point} from {human_size(state['size'])} to {human_size(state['device_size'])}"))
    return steps


def _plan_out(want, state):
    if state["_content"]:
        raise Problem(f"{want['device']} is not the volume {want['label']!r}: it holds {state['_content']}")
    steps = []
    if state["mountpoint"]:
        if want["mount"] and state["mountpoint"] != want["mount"]:
            raise Problem(f"the volume {want['label']!r} is mounted on {state['mountpoint']} and not on {want['mount']}; unmount it there")
        if state["_users"]:
            raise Problem(f"cannot unmount {state['mountpoint']}: it is used by {', '.join(state['_users'])}")
        steps.append(Step("unmount", f"unmounted {state['mountpoint']}", {"point": state["mountpoint"]}))
    if want["state"] == "absent" and state.get("_in_fstab"):
        steps.append(Step("no_fstab", f"took {want['mount']} out of /etc/fstab", {"uuid": state["uuid"]}))
    if want["state"] == "absent" and state["owner"] and state["owner"]["here"]:
        steps.append(Step("release", f"gave {want['device']} up, so that another host may claim it"))
    if want["state"] == "absent" and state["keep"]:
        steps.append(Step("keep_all", "removed its cleaner"))
    return steps


def warnings(want, state):
    """Sentences about what a state shows to be wrong and what was left alone."""
    found = []
    if state["read_only"] and state["_users"] and want["state"] == "mounted":
        found.append(f"the volume on {state['mountpoint']} is read-only after an error and is left so, because it is used by "
                     f"{', '.join(state['_users'])}; take the remote legs out of their mirrors, then run this again")
    if state["error"]:
        found.append(f"the super block of the volume {state['label']!r} has the error flag set; check the kernel's messages and the link")
    if want["state"] == "absent" and state["_record"].get("claimed") and (not state["_exists"] or state["_owner_problem"]):
        found.append(f"the device of {want['label']!r} does not answer, so this host still owns it and another one is refused; run this again when it is "
                     "back, or take it over there with adopt")
    if state["mountpoint"] and state["_held"] is None and not state["_marked"] and state["_exists"] and not state["_owner_problem"]:
        found.append(f"{want['device']} has no owner mark, which can be written only while it is not mounted: unmount it and run this again")
    return found


def perform(want, step):
    """Carry one step out."""
    device, point = want["device"], want["mount"]
    if step.verb in ("claim", "take_over"):
        _claim(want, step)
    elif step.verb == "release":
        _owner.release(device)
        _remember(want, {"claimed": None})
        _forget_move(want)
    elif step.verb == "format":
        _format(want)
    elif step.verb == "mount":
        _mount(want)
    elif step.verb == "remount":
        take_down(want["record"], point)
        _mount(want)
    elif step.verb == "no_cleaner":
        _stop_loose(want)
    elif step.verb == "clean":
        _cleaner.stop(want["record"])
        if cleaners(device, point):
            _stop_loose(want)
        _cleaner.start(device, want["record"], read_super(device).uuid, point, want["keep"])
    elif step.verb == "keep_all":
        _cleaner.remove(want["record"])
        if device and cleaners(device, point):
            _stop_loose(want)
    elif step.verb == "fstab":
        number = read_super(device).uuid
        write_fstab(fstab_with(read_fstab(), _entry(number, point)))
        _remember(want, {"phase": "ready", "uuid": number, "mount": point})
    elif step.verb == "no_fstab":
        write_fstab(fstab_without(read_fstab(), f"UUID={step.args['uuid']}", point))
        _remember_out(want)
    elif step.verb == "grow":
        with Volume(point) as volume:
            volume.resize(size_of(device))
    elif step.verb == "unmount":
        take_down(want["record"], step.args["point"])
        _remember_out(want)


def take_down(record, point):
    """Unmount a volume, given the name of its record; its cleaner, which holds the mount point, ends before."""
    _cleaner.stop(record)
    unmount(point)


def _stop_loose(want):
    """Stop a cleaner that mount.nilfs2 or somebody started."""
    device, point = want["device"], want["mount"]
    run(["mount", "-t", "nilfs2", "-o", "remount,rw," + MOUNT_OPTIONS, device, point])
    for number in cleaners(device, point):  # one that mount does not know of, such as one started by hand
        try:
            os.kill(number, signal.SIGTERM)
        except ProcessLookupError:
            pass
    wait_until(lambda: not cleaners(device, point), 15, f"the cleaner of {point} to end")


def _remember(want, more):
    record = load_record("stores", want["record"])
    record.update(more)
    save_record("stores", want["record"], record)


def _forget_move(want):
    """The volume that a swap moved the store to is not the store's any more, so that it is where the variables say."""
    if load_record("stores", want["record"]).get("left"):
        _remember(want, {"left": None, "place": None})


def _remember_out(want):
    """Note that the guard is not to mount it again; the next run that mounts it takes that back."""
    if load_record("stores", want["record"]):
        _remember(want, {"unmounted": True})


def _claim(want, step):
    device = want["device"]
    (_owner.claim if step.verb == "claim" else _owner.take_over)(device)
    _remember(want, {"claimed": known_as(device)})
    if main_mount(device):
        return
    # Until now another host may have written to it: look again, past what is cached, before anything is made of it.
    _owner.forget_cache(device)
    if any(other.verb == "format" for other in plan(want, observe(want))) != step.args.get("format"):
        raise Problem(f"what {device} holds has changed while it was claimed; run this again")


def _format(want):
    device = want["device"]
    identity = known_as(device)
    old = load_record("stores", want["record"]).get("uuid")
    if old and want["mount"]:
        # The store had a volume before, on a LUN that is no more: its line would keep the new one out.
        text = read_fstab()
        if fstab_without(text, f"UUID={old}", want["mount"]) != text:
            write_fstab(fstab_without(text, f"UUID={old}", want["mount"]))
    _forget_move(want)
    _remember(want, {"phase": "formatting", "device_id": identity, "label": want["label"]})
    run(["mkfs.nilfs2", "-q", "-K", "-f", "-b", str(want["block_size"]), "-B", str(BLOCKS_PER_SEGMENT), "-m", str(want["reserved"]),
         "-L", want["label"], device], timeout=600)
    found = read_super(device)
    if found is None or found.label != want["label"]:
        raise Problem(f"mkfs.nilfs2 ended well, but {device} holds no nilfs2 volume labelled {want['label']!r}")
    _owner.claim(device)  # mkfs has wiped the mark; the reservation, where there is one, has kept others away meanwhile
    _remember(want, {"phase": "ready", "uuid": found.uuid})


def _mount(want):
    """Mount through the helper of nilfs-tools, which alone knows nogc, and see that it did what was asked."""
    device, point = want["device"], want["mount"]
    make_directories(point)
    number = read_super(device).uuid
    if os.path.isdir("/run/udev"):
        # systemd takes a mount away again whose device it does not know yet: let udev see the new UUID first.
        try:
            wait_until(lambda: os.path.exists(f"/dev/disk/by-uuid/{number}"), 5, f"udev to see the UUID of {device}")
        except Problem:
            run(["udevadm", "trigger", "--settle", "--action=change", os.path.realpath(device)], ok=None, timeout=30)
    run(["mount", "-t", "nilfs2", "-o", MOUNT_OPTIONS, device, point], timeout=300)
    mount = main_mount(device)
    if mount is None or mount.point != os.path.realpath(point):
        raise Problem(f"{device} was mounted on {point} but is not seen there")
    if cleaners(device, point):
        raise Problem(f"{device} was mounted on {point} with a cleaner although nogc was asked for; see that mount.nilfs2 of nilfs-tools is installed")
    _remember(want, {"uuid": number, "mount": point, "unmounted": None})
    if want["name"]:
        _generations.learn(point, want["name"])


def predict(want, state, steps):
    """The state after the steps, as far as it can be known before (the UUID and the times of a new volume cannot)."""
    after = dict(state)
    for step in steps:
        if step.verb in ("claim", "take_over"):
            after["owner"] = {"host": os.uname().nodename, "id": _owner.identity(), "initiator": initiator_name(), "since": None, "how": None, "here": True}
        elif step.verb == "release":
            after["owner"] = None
        elif step.verb == "format":
            size = state["device_size"]
            segment = BLOCKS_PER_SEGMENT * want["block_size"]
            segments = second_at(size) // segment if size else None
            after.update(state="unmounted", label=want["label"], block_size=want["block_size"], size=size, segment_size=segment,
                         segments=segments, reserved=want["reserved"], error=False,
                         reserved_segments=reserved_segments(segments, want["reserved"]) if segments else None)
        elif step.verb in ("mount", "remount"):
            after.update(state="mounted", mountpoint=want["mount"], read_only=False, cleaner=False)
        elif step.verb == "no_cleaner":
            after["cleaner"] = False
        elif step.verb == "clean":
            after.update(cleaner=True, keep=want["keep"])
        elif step.verb == "keep_all":
            after.update(cleaner=False if after["state"] == "mounted" else None, keep=None)
        elif step.verb == "fstab":
            after["fstab"] = True
        elif step.verb == "no_fstab":
            after["fstab"] = False
        elif step.verb == "grow":
            segments = second_at(state["device_size"]) // state["segment_size"]
            after.update(size=state["device_size"], segments=segments, reserved_segments=reserved_segments(segments, state["reserved"]))
        elif step.verb == "unmount":
            after.update(state="unmounted", mountpoint=None, read_only=None, cleaner=None, clean_segments=None, free=None, available=None,
                         checkpoints=None, snapshots=None, first_checkpoint=None)
    return after


def public(state):
    """The part of a state that a module returns."""
    return {key: value for key, value in state.items() if not key.startswith("_")}
