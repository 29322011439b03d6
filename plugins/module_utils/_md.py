# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The mirror of a local and a remote leg: md RAID1, metadata 1.2, internal bitmap, the remote leg write-mostly.

The rules that keep it safe:
- The remote leg has slot 0: many kernels write behind only when the lowest active slot is the write-mostly one.
- After a stop that was not clean the local leg is the authority: it is started alone and the remote leg is re-added. The
  kernel forgets dirty chunks in that start, so those of both legs' disks are noted first and set again before the re-add.
- The bitmap of a device that was guarded is believed only if it was held, that is, forgot nothing by itself; otherwise the legs are compared.
- Legs are believed to be equal without a comparison only when every byte of both is known to be zero.
- A write may be behind only where the loop keeps the order of writes. Where it does not, one that was acknowledged could be overtaken by the next
  one to the same block, and the remote leg would keep the older.
"""

from __future__ import annotations

import os

from ._blank import find_content, find_use, is_zero
from ._blockdev import is_block, size_of
from ._capacity import room_problem
from ._catalogue import mount_of
from ._core import MIB, Problem, Step, human_size, load_record, read_text, wait_for
from ._loop import find as find_loop
from ._loop import keep_order, loops
from ._md_super import FAULTY, HEADER_SIZE, SPARE, SUPER_AT, count_ranges, merge_ranges, read_super

CONF_DIR = "/etc/mdadm/mdadm.conf.d"
LIVE = ("clean", "active", "active-idle", "write-pending", "readonly", "read-auto")
# Seconds: the kernel's time base while the guard lets it forget chunks (Gate). Long, so that a chunk stays listed when nobody does, also for as
# long as a new LUN is filled (_swap); not longer than the kernel can count when it reads it (32 bits, times HZ).
HELD = 1728000
BEHIND = 64 * MIB  # bytes that may be behind, a second or two of a LUN
REQUEST = "../queue/max_sectors_kb"  # beside an array's other attributes: the KiB that a write to it may have
PHASE_CREATING = "creating"  # in the record of a device whose legs are made an array; "ready" when that is done
PHASE_ADOPTING = "adopting"  # in the record of a device that lives from its remote leg alone (_adopt)
UNDER_WAY = (PHASE_CREATING, PHASE_ADOPTING)  # phases in which the guard leaves a device to whoever works on it
CREATION_TIME_BASE = 0.1  # seconds: a new bitmap starts wholly dirty and is quickly clean with this


# -- observe ---------------------------------------------------------------------------------------------------------------

def device_of(path, known=None):
    """The block device to use for a leg: the loop over a file, or the device that a path leads to; None when there is none.

    known is the list of loops read before, for whoever asks for many legs: looking at a loop costs half a millisecond.
    """
    if is_block(path):
        return os.path.realpath(path)
    return find_loop(path, known=known) if os.path.isfile(path) else None


def thing_of(path, known=None):
    """What stands for a leg whatever its path: its block device, or the path with all links resolved."""
    return device_of(path, known) or os.path.realpath(path)


def conf_file(name):
    """The file that keeps udev from assembling a device by itself."""
    return f"{CONF_DIR}/indestructible-{name}.conf"


def holder_of(device):
    """Name (mdN) of the array that a block device (or None) belongs to, or None."""
    try:
        return next((name for name in sorted(os.listdir(f"/sys/class/block/{os.path.basename(device or '-')}/holders")) if name.startswith("md")), None)
    except OSError:
        return None


def members_of(array):
    """Paths (list of str) of the block devices that an array (mdN, or None) has, those that failed included."""
    try:
        return [f"/dev/{entry[4:]}" for entry in sorted(os.listdir(f"/sys/block/{array}/md")) if entry.startswith("dev-")]
    except OSError:
        return []


def _attribute(array, name, default=None):
    return read_text(f"/sys/block/{array}/md/{name}", default)


def _number(text, default=0):
    try:
        return int(float(text))
    except (TypeError, ValueError):
        return default


def _leg(path, device, array):
    """State of one leg: the public dict, its Super or None, and why it cannot be read or None."""
    leg = {"path": path, "device": device, "size": None, "state": "absent", "slot": None, "write_mostly": None}
    header = unreadable = None
    if os.path.exists(path):
        try:
            leg["size"] = size_of(path)
            header = read_super(path) if leg["size"] > HEADER_SIZE else None
            leg["state"] = "blank"
        except Problem as problem:
            leg["state"], unreadable = "unreadable", str(problem)
        if header:
            leg["state"], leg["write_mostly"] = "outside", header.write_mostly
    base = f"/sys/block/{array}/md/dev-{os.path.basename(device)}" if array and device else None
    if base and os.path.isdir(base):
        words = (read_text(f"{base}/state") or "").split(",")
        leg["state"] = "faulty" if "faulty" in words else "in sync" if "in_sync" in words else "recovering"
        leg["write_mostly"] = "write_mostly" in words
        leg["slot"] = _number(read_text(f"{base}/slot"), None)
    return leg, header, unreadable


def observe(want):
    """State of a mirror. want: dict(name, local, remote, ...) with paths; returns the dict that describe() makes public."""
    name = want["name"]
    path = f"/dev/md/{name}"
    record = load_record("devices", name)
    known = loops()
    devices = [device_of(want["local"], known), device_of(want["remote"], known)]
    array = next((found for found in (holder_of(device) for device in devices) if found), None)
    local, local_super, unreadable = _leg(want["local"], devices[0], array)
    if unreadable:
        raise Problem(unreadable)
    # a LUN that is gone must not keep anybody from knowing what else there is
    remote, remote_super, unreadable = _leg(want["remote"], devices[1], array)
    linked = os.path.basename(os.path.realpath(path)) if os.path.exists(path) else None
    activity = _attribute(array, "array_state") if array else None
    live = activity in LIVE
    header = local_super or remote_super
    bitmap = header.bitmap if header else None
    state = {
        "name": name, "path": path, "array": array, "state": "absent", "uuid": header.uuid if header else None, "size": header.size if header else 0,
        "local": local, "remote": remote, "bitmap_chunk": bitmap.chunk if bitmap else 0, "time_base": bitmap.time_base if bitmap else 0,
        "write_behind": bitmap.write_behind if bitmap else 0, "bad_block_log": any(leg.bad_blocks for leg in (local_super, remote_super) if leg),
        "events": header.events if header else 0, "events_cleared": bitmap.cleared if bitmap else 0,
        "dirty_bytes": count_ranges(bitmap.dirty) * bitmap.chunk if bitmap else 0, "max_backlog_used": 0, "recovery_percent": None,
        "last_heal": _heal_of(record), "last_start": record.get("last_start"), "replication": record.get("replication"),
        "_record": record, "_supers": (local_super, remote_super), "_unreadable": unreadable, "_linked": linked, "_activity": activity, "_present": devices,
        "_strangers": [member for member in members_of(array) if member not in devices], "_ordered": keep_order(),
    }
    if live:
        state.update(
            size=_number(read_text(f"/sys/block/{array}/size")) * 512, time_base=_number(_attribute(array, "bitmap/time_base")),
            write_behind=_number(_attribute(array, "bitmap/backlog")), bitmap_chunk=_number(_attribute(array, "bitmap/chunksize")),
            max_backlog_used=_number(_attribute(array, "bitmap/max_backlog_used")), _safe_mode=_attribute(array, "safe_mode_delay"),
            _request=_number(_attribute(array, REQUEST)))
        if state["time_base"] < HELD and state["replication"]:
            # the guard may let the bitmap make one pass just now, and holds it again in a moment
            wait_for(lambda: _number(_attribute(array, "bitmap/time_base")) >= HELD, 0.5)
            state["time_base"] = _number(_attribute(array, "bitmap/time_base"))
        states = (local["state"], remote["state"])
        state["state"] = {"in sync": "attached", "recovering": "recovering"}.get(states[1], "detached") if states[0] == "in sync" else "local failed"
        if state["state"] == "recovering":
            done, found, total = (_attribute(array, "sync_completed") or "").partition(" / ")
            state["recovery_percent"] = round(100 * _number(done) / _number(total), 1) if found and _number(total) else 0
    elif local_super or remote_super:
        state["state"] = "stopped"
    return state


def _heal_of(record):
    """The last heal as a user sees it; its seconds are null while it is under way."""
    heal = record.get("heal")
    return {key: value for key, value in heal.items() if not key.startswith("_")} if heal else None


def public(state):
    """The part of a state that a user gets: everything that does not begin with an underscore."""
    return {key: value for key, value in state.items() if not key.startswith("_")}


# -- plan ------------------------------------------------------------------------------------------------------------------

def request_limit(write_behind):
    """KiB (int) that a write may have, so that all that may be behind are together no more than BEHIND: whatever has to wait for the remote leg, such as
    the bitmap and an fsync of a `sync` device, waits behind them. Pure.
    """
    return max(4, BEHIND // 1024 // max(1, write_behind) // 4 * 4)


def limited(want, ordered):
    """want with a write_behind of 0 where loops do not keep the order of writes (bool)."""
    return want if ordered else dict(want, write_behind=0)


def plan(want, state, check_mode=False):
    """Steps (list of Step) from a state to want: dict(name, local, remote, size, write_behind, bitmap_chunk, time_base, state, wait).

    Sizes are bytes, times seconds; state is attached, detached, stopped or absent. Raises Problem for what must not be done.
    """
    name, live, want = want["name"], state["_activity"] in LIVE, limited(want, state["_ordered"])
    if state["_linked"] and state["_linked"] != state["array"]:
        raise Problem(f"{name}: {state['path']} is another array ({state['_linked']}) that does not hold {want['local']}; stop it or choose another name")
    _check_identity(want, state)
    # What a leg lacks that is still in, and whether a device may start without the other one, cannot be known unread. One that is out already may stay out.
    if state["_unreadable"] and (state["remote"]["state"] != "unreadable" or want["state"] == "attached" or (want["state"] == "detached" and not live)):
        raise Problem(f"{name}: {state['_unreadable']}; nothing was done")
    if want["state"] in ("stopped", "absent"):
        return _plan_end(want, state, live)
    steps = []
    if live:
        return _plan_live(want, state, check_mode)
    if state["_activity"]:
        steps.append(Step("stop", f"stop {state['array']}, which udev assembled from a lone leg of {name}"))
    local, remote = state["_supers"]
    again = _is_half_made(want, state)  # with both headers written too: its bitmap may list everything, which would all be copied
    if again or not (local or remote):
        return steps + _plan_create(want, state, check_mode, again)
    if not local:
        raise Problem(f"{name}: {want['local']} {'does not exist' if state['local']['state'] == 'absent' else 'is no leg of this device'}, but "
                      f"{want['remote']} holds it (array {remote.uuid}); its local leg is lost. "
                      "Nothing was done: bring the local leg back, or build a new one from the store with the playbook indestructible.block.adopt")
    _need_device(state["local"], check_mode)
    _check_room(want, state)
    if not want.get("mixture"):
        refuse_mixture(name)
    return steps + _plan_assemble(want, state, check_mode)


def unfinished_rollback(name):
    """The record (dict) of a rollback of the device that has yet to be completed; {} when there is none."""
    last = load_record("rollbacks", name)
    return {} if last.get("done", True) else last


def refuse_mixture(name):
    """Raise Problem for a device whose rollback was interrupted: nobody may take a mixture of two states for data."""
    last = unfinished_rollback(name)
    if last:
        raise Problem(f"{name}: its rollback was interrupted, so it is a mixture of two states and is neither started nor mounted; complete it: "
                      f"indestructible rollback {name} '{last['as_of']}'")


def _need_device(leg, check_mode):
    if not leg["device"] and not check_mode:
        what = "there is no loop device over it; attach it with the module loopfile first" if os.path.isfile(leg["path"]) else "it does not exist"
        raise Problem(f"leg {leg['path']}: {what}")


def _check_identity(want, state):
    """Refuse legs that belong to something else."""
    known = state["_record"].get("uuid")
    for path, header in zip((want["local"], want["remote"]), state["_supers"]):
        if not header:
            continue
        if header.name != want["name"]:
            raise Problem(f"{want['name']}: {path} is a leg of the array {header.name!r} ({header.uuid}), not of {want['name']!r}; nothing was done")
        if known and header.uuid != known:
            raise Problem(f"{want['name']}: {path} belongs to the array {header.uuid}, but this host knows {want['name']} as {known}; nothing was done")
    local, remote = state["_supers"]
    if local and remote and local.uuid != remote.uuid:
        raise Problem(f"{want['name']}: the legs belong to different arrays: {want['local']} to {local.uuid}, {want['remote']} to {remote.uuid}; "
                      "nothing was done")


def _check_room(want, state):
    """Refuse legs that have become smaller than what md noted on them."""
    for side, header in zip(("local", "remote"), state["_supers"]):
        if header and state[side]["size"] < header.data_offset + header.data_size:
            raise Problem(f"{want['name']}: the {side} leg {want[side]} has {state[side]['size']} bytes, but held {header.data_offset + header.data_size} "
                          "when it was last used; something cut it short. Nothing was done: give it its size back, and check the data")


def _is_half_made(want, state):
    """Whether the creation of this device from these very legs was begun, and nothing but md's own header was ever written to them."""
    record = state["_record"]
    if record.get("phase") != PHASE_CREATING or any(record.get(side) != want[side] or state[side]["state"] == "absent" for side in ("local", "remote")):
        return False
    return all(is_zero(leg["path"], 0, SUPER_AT) and is_zero(leg["path"], HEADER_SIZE, max(0, leg["size"] - HEADER_SIZE))
               for leg in (state["local"], state["remote"]))


def _plan_create(want, state, check_mode, again=False):
    """Two blank legs become a device. again: an earlier creation was cut short, and only its header may be on them (_is_half_made)."""
    need = want["size"] + HEADER_SIZE
    for side in ("local", "remote"):
        leg = state[side]
        if leg["state"] == "absent":
            if not check_mode:
                raise Problem(f"{want['name']}: the {side} leg {leg['path']} does not exist")
            continue
        _need_device(leg, check_mode)
        if leg["size"] < need:
            raise Problem(f"{want['name']}: the {side} leg {leg['path']} has {leg['size']} bytes; a device of {human_size(want['size'])} needs "
                          f"{need} ({human_size(HEADER_SIZE)} more, for md's superblock and bitmap)")
        # what udev made of a creation that was cut short holds the legs too, and is stopped first
        use = find_use(leg["device"]) if leg["device"] and not (state["_activity"] and holder_of(leg["device"]) == state["array"]) else None
        if use:
            raise Problem(f"{want['name']}: the {side} leg {leg['path']} is {use}; nothing was done")
        content = None if again else find_content(leg["path"], full=True)
        if content:
            raise Problem(f"{want['name']}: the {side} leg {leg['path']} is not blank: it holds {content}. Nothing was done; choose another one, or "
                          "erase it yourself if you are sure")
    what = f"create {state['path']} ({human_size(want['size'])}) from {want['local']} and {want['remote']}"
    steps = [Step("create", what + (", again, after an interruption" if again else ""))]
    if want["state"] == "detached":
        steps.append(Step("detach", f"take the remote leg {want['remote']} out of {want['name']}", {"by_wish": True}))
    return steps


def judge(local, remote):
    """How to start from two Supers of one array (remote may be None): ("both" | "local", sentence saying why). Raises Problem.

    The direction is always local to remote. A local leg that the remote one knows to have been thrown out is refused: the array
    ran on without it and it lacks acknowledged writes. So is one that is behind the remote leg by more than the one event that a
    crash can leave between them: it was put back to an earlier state.
    """
    if remote and local.number < len(remote.roles) and remote.roles[local.number] in (FAULTY, SPARE):
        raise Problem(f"the local leg is older than the remote one (event {local.events} against {remote.events}): the array ran on without it, so writes "
                      "that were acknowledged are on the remote leg alone. Nothing was done; recover from the store, or erase the remote leg to lose them")
    if remote and remote.events > local.events + 1:
        raise Problem(f"the local leg is older than the remote one (event {local.events} against {remote.events}), as if it had been put back to an earlier "
                      "state. Nothing was done; recover from the store, or erase the remote leg to lose what only it holds")
    if local.recovering:
        raise Problem("the local leg was only partly rebuilt; nothing was done")
    if not remote:
        return "local", "the remote leg holds nothing of it that can be read"
    if not (local.clean and remote.clean):
        return "local", "it was not stopped cleanly"
    if remote.recovering:
        return "local", "the remote leg was being rebuilt"
    if remote.events > local.events:
        return "local", f"a stop came between the legs (event {remote.events} on the remote one, {local.events} on the local one)"
    if local.events != remote.events or remote.number >= len(local.roles) or local.roles[remote.number] in (FAULTY, SPARE):
        return "local", f"the remote leg is older (event {remote.events} against {local.events})"
    if not local.bitmap or not remote.bitmap or local.bitmap.dirty or remote.bitmap.dirty:
        return "local", "the bitmap lists changes that may not be on both legs"
    return "both", "both legs were stopped cleanly"


def _plan_assemble(want, state, check_mode):
    name, (local, remote) = want["name"], state["_supers"]
    try:
        start, why = judge(local, remote)
    except Problem as problem:
        raise Problem(f"{name}: {problem}") from None
    if state["_record"].get("alone") and not remote and state["remote"]["state"] != "blank":
        raise Problem(f"{name}: its local leg {want['local']} failed while it ran, and what was written since is on its remote leg {want['remote']} alone, "
                      "which is not there. Nothing was done; once the store is mounted, the playbook indestructible.block.adopt builds a new local leg")
    if start == "both" and want["state"] == "attached" and state["remote"]["device"]:
        steps = [Step("assemble", f"start {state['path']} from both legs: {why}", {"both": True, "bad_blocks": state["bad_block_log"]})]
        return steps + _plan_settings(want, dict(state, size=local.size), check_mode)
    if start == "both":
        why = "its remote leg is to stay out" if want["state"] == "detached" else "its remote leg is not there"
    pending = merge_ranges(*(leg.bitmap.dirty for leg in (local, remote) if leg and leg.bitmap and start == "local"))
    steps = [Step("assemble", f"start {state['path']} from its local leg alone: {why}",
                  {"both": False, "bad_blocks": state["bad_block_log"], "pending": pending, "compare": not _is_trusted(state, local)})]
    if want["state"] == "attached":
        _need_device(state["remote"], check_mode)
        steps.append(_attach_step(want, state, check_mode))
    elif not want.get("passing"):
        steps += _plan_wish(want, state)
    return steps + _plan_settings(want, dict(state, size=local.size), check_mode)


def _plan_wish(want, state):
    """A remote leg that is out, but by nobody's wish, is one that the guard would bring back."""
    return [] if state["_record"].get("detached") else [Step("wish", f"note that the remote leg of {want['name']}, which is out, is to stay out")]


def _is_trusted(state, local):
    """Whether the bitmap of a local leg (a Super) lists all that the remote leg may lack, given how the device was run."""
    guarded = state["_record"].get("replication") is not None
    return local.clean or not guarded or bool(local.bitmap and local.bitmap.time_base >= HELD)


def _attach_step(want, state, check_mode):
    local, remote = state["_supers"]
    started = state["_record"].get("started_events")
    if remote and local and remote.number < len(remote.roles) and remote.roles[local.number] in (FAULTY, SPARE):
        raise Problem(f"{want['name']}: the remote leg {want['remote']} ran on without the local one, so writes that were acknowledged are on it alone. "
                      "Nothing was done; recover from the store, or erase the remote leg to lose them")
    if remote and started is not None and remote.events > started + 1:
        raise Problem(f"{want['name']}: the local leg was older than the remote one when it was started (event {started} against {remote.events}), as if it "
                      "had been put back to an earlier state. Nothing was done; recover from the store, or erase the remote leg to lose what only it holds")
    if not remote and state["remote"]["state"] != "absent":
        content = find_content(want["remote"], full=True)
        if content:
            raise Problem(f"{want['name']}: the remote leg {want['remote']} holds {content} and is no leg of this device; nothing was done")
        need = state["size"] + HEADER_SIZE
        if state["remote"]["size"] < need:
            raise Problem(f"{want['name']}: the remote leg {want['remote']} has {state['remote']['size']} bytes; this device needs {need}")
    problem = room_problem(want["name"], mount_of(want["remote"]), local, state["_record"])
    if problem and not check_mode:  # the run itself may grow the store first
        raise Problem(problem)
    how = "copy everything to this blank leg" if not remote else "compare the legs and copy what differs" if state["_record"].get("compare") \
        else "copy what changed"
    return Step("attach", f"add the remote leg {want['remote']} to {want['name']} and {how}")


def _plan_live(want, state, check_mode):
    name = want["name"]
    if state["_strangers"]:
        where = ", ".join(read_text(f"/sys/class/block/{os.path.basename(device)}/loop/backing_file") or device for device in state["_strangers"])
        raise Problem(f"{name}: it runs on {where}, which is neither {want['local']} nor {want['remote']}. Nothing was done: give the path of the leg that it "
                      "has, or stop it first")
    if state["state"] == "local failed":
        raise Problem(f"{name}: its local leg {want['local']} is {state['local']['state']} and the device runs from its remote leg alone. Nothing was done: "
                      "save the data, repair the disk, then recover from the store")
    if not state["_linked"]:
        raise Problem(f"{name}: {want['local']} is already part of the running array {state['array']}, which is not {state['path']}; stop it first")
    steps = []
    if state["remote"]["state"] == "faulty" or (want["state"] == "detached" and state["remote"]["state"] in ("in sync", "recovering")):
        steps.append(Step("detach", f"take the remote leg {want['remote']} out of {name}", {"by_wish": want["state"] == "detached"}))
    doubted = want["state"] == "attached" and state["remote"]["state"] in ("in sync", "recovering") and state["write_behind"] > want["write_behind"] == 0
    if doubted:
        steps.append(Step("detach", f"take the remote leg {want['remote']} of {name} out, because writes may have overtaken each other on their way to it",
                          {"doubt": True}))
        state = dict(state, write_behind=0)
    if want["state"] == "detached" and not steps:
        steps += _plan_wish(want, state)
    if want["state"] == "attached" and (doubted or state["state"] == "detached"):
        if not state["remote"]["device"]:
            raise Problem(f"{name}: the remote leg {want['remote']} is not there (no file, or no loop device over it); the device runs from its local leg")
        steps.append(_attach_step(want, state, check_mode))
    return steps + _plan_settings(want, state, check_mode)


def _plan_settings(want, state, check_mode):
    """Steps for what can be changed while the device runs."""
    name, steps = want["name"], []
    if want["size"] < state["size"]:
        raise Problem(f"{name}: it has {human_size(state['size'])} ({state['size']} bytes) and cannot be made smaller ({human_size(want['size'])} asked for)")
    if state["bitmap_chunk"] and want["bitmap_chunk"] != state["bitmap_chunk"]:
        raise Problem(f"{name}: its bitmap has chunks of {human_size(state['bitmap_chunk'])}; this is settled when a device is created "
                      f"({human_size(want['bitmap_chunk'])} asked for)")
    if want["size"] > state["size"]:
        need = want["size"] + HEADER_SIZE
        for side in ("local", "remote"):
            size = state[side]["size"]
            if size is not None and size < need:
                if check_mode:
                    continue  # the run itself grows the leg first
                raise Problem(f"{name}: to grow to {human_size(want['size'])} its {side} leg {want[side]} must have {need} bytes; it has {size}")
            added = state["size"] + HEADER_SIZE
            if size is not None and not is_zero(want[side], added, need - added):
                raise Problem(f"{name}: the part that would be added of its {side} leg {want[side]} is not blank; nothing was done")
        steps.append(Step("grow", f"grow {name} from {human_size(state['size'])} to {human_size(want['size'])}"))
    for key, words in (("write_behind", "write-behind limit"), ("time_base", "bitmap time base")):
        # kernels from 6.5 on take the limit only while a write-mostly leg is in
        if want[key] != state[key] and (key != "write_behind" or want["state"] == "attached"):
            steps.append(Step("set", f"set the {words} of {name} to {want[key]} (was {state[key]})", {key: want[key]}))
    if state.get("_request", 0) > request_limit(want["write_behind"]):
        steps.append(Step("bound", f"have {name} make writes of at most {request_limit(want['write_behind'])} KiB, so that no more than {human_size(BEHIND)} "
                                   "are behind"))
    if state.get("_safe_mode") and float(state["_safe_mode"]):
        steps.append(Step("set", f"keep {name} from writing its superblock whenever it is idle", {"safe_mode_delay": 0}))
    local, remote = state["local"], state["remote"]
    if local["state"] == "in sync" and (local["write_mostly"] or (remote["slot"] is not None and not remote["write_mostly"])):
        steps.append(Step("flag", f"make the remote leg of {name}, and it alone, write-mostly"))
    if state["_record"].get("phase") != "ready" or state["_record"].get("local") != want["local"] or state["_record"].get("remote") != want["remote"]:
        steps.append(Step("remember", f"note the legs of {name} on this host"))
    return steps


def _plan_end(want, state, live):
    steps = []
    if state["array"]:
        use = find_use(f"/dev/{state['array']}") if live else None
        if use:
            raise Problem(f"{want['name']}: {state['path']} is {use}; end that first")
        steps.append(Step("stop", f"stop {state['path']}", {"by_wish": True}))
    if want["state"] == "absent" and (state["_record"] or os.path.exists(conf_file(want["name"]))):
        steps.append(Step("forget", f"forget {want['name']} on this host; its legs stay as they are"))
    return steps


def predict(want, state, steps):
    """The state after the steps, as far as it can be known without taking them."""
    want = limited(want, state["_ordered"])
    after = dict(state, local=dict(state["local"]), remote=dict(state["remote"]), recovery_percent=None)
    verbs = [step.verb for step in steps]
    if "forget" in verbs:
        after.update(last_heal=None, last_start=None, replication=None)
    if want["state"] in ("stopped", "absent"):
        for leg, header in zip((after["local"], after["remote"]), state["_supers"]):
            leg.update(state="outside" if header else leg["state"], slot=None, write_mostly=header.write_mostly if header else None)
        return dict(after, state="stopped" if state["uuid"] else "absent", array=None, max_backlog_used=0)
    after.update(state=want["state"], size=want["size"], time_base=want["time_base"], bitmap_chunk=want["bitmap_chunk"],
                 bad_block_log=False if "create" in verbs else state["bad_block_log"])
    if want["state"] == "attached" or "create" in verbs:
        after["write_behind"] = want["write_behind"]
    after["local"].update(state="in sync", write_mostly=False, slot=1)
    if want["state"] == "attached":
        after["remote"].update(state="in sync", write_mostly=True, slot=0)
    else:
        was = after["remote"]["state"]
        after["remote"].update(state=was if was in ("absent", "blank", "unreadable") and "create" not in verbs else "outside", slot=None)
        if "create" in verbs:
            after["remote"]["write_mostly"] = True
    return after
