# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A store moves to a blank LUN: its next generation.

The new volume is mounted beside the old one, and the remote legs on it are filled from the local ones while the old legs stay in; the bitmap is held meanwhile
(the guard lets it forget nothing), so it lists whatever changes. Then, in one moment, the old legs are taken out, the record of the store says which
generation it is now, and the guard, or this, brings the new legs in: md copies what the bitmap lists. Before that moment nothing has changed and it can be
undone; after it, whoever comes next completes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from . import _capacity, _catalogue, _cleaner, _generations, _loopfile, _md, _md_act, _nilfs_volume, _owner, _recovery, _seed
from ._blockdev import is_block, known_as, size_of
from ._core import (RUN_DIR, Problem, Step, converge, forget_record, guard_told, host_lock, human_size, list_records, load_record, read_text, run, save_file,
                    save_record, wait_for, wait_until)
from ._host_config import in_file, is_ours, mirror_of
from ._link import Link
from ._loop import detach as detach_loop
from ._md_super import HEADER_SIZE
from ._md_super import read_super as read_leg_super
from ._mount import fstab_without, mount_at, read_fstab, try_unmount, unmount, write_fstab
from ._nilfs import Volume, read_super, reserved_segments

_FRESH = 5  # seconds for which the guard's word counts
_MOMENT = 30  # seconds that unmounting the old volume may take before the way to it is cut
_BUSY = 10  # seconds for which whoever uses the old volume is waited for


def progress_file(store):
    """Where the progress of a swap is written down for whoever asks."""
    return f"{RUN_DIR}/swap-{store}.json"


def read_progress(store):
    """dict(device, done, size, written) of the swap of a store that is under way in this moment, or None."""
    try:
        told = json.loads(read_text(progress_file(store)) or "null")
        return told if told and os.path.exists(f"/proc/{told['process']}") else None
    except (ValueError, KeyError, TypeError):
        return None


def normalize(want, config):
    """The want with every value filled in. Keys: store (name), place (dict of portal, target, lun, device, those that differ from today's), limit (bytes a
    second or None), undo (bool). config is the Config of this host.
    """
    store = config.stores.get(want["store"])
    if not store:
        raise Problem(f"there is no store {want['store']!r} on this host; there are: {', '.join(sorted(config.stores)) or 'none'}")
    today, given = _generations.place_of(store), {key: value for key, value in (want.get("place") or {}).items() if value is not None}
    if not given and not want.get("undo"):
        raise Problem(f"{want['store']}: say where the blank LUN is: its number (lun), portal or target where they differ from today's, or its path (device)")
    if "device" in given and len(given) > 1:
        raise Problem(f"{want['store']}: a device and also {', '.join(sorted(set(given) - {'device'}))} were given; give one of the two")
    place = dict(dict.fromkeys(_generations.PLACE_KEYS), device=given["device"]) if "device" in given else dict(today, device=None, **given)
    missing = [key for key in ("portal", "target", "lun") if place[key] is None]
    if given and not place["device"] and missing:
        raise Problem(f"{want['store']}: it is on {today['device']} today, so give {', '.join(missing)} of the blank LUN too")
    devices = [device for device in config.devices.values() if device["store"] == store["name"]]
    return {"store": store["name"], "config": store, "place": place, "limit": want.get("limit"), "undo": bool(want.get("undo")),
            "check_mode": bool(want.get("check_mode")), "reserved": store["reserved"], "found": None, "all": devices,
            "devices": [device for device in devices if is_ours(device)]}


def _next(want, device=None):
    """What _nilfs_volume is to make of the new LUN while the store is still on the old one."""
    name = f"{want['store']}.next"
    return _nilfs_volume.normalize({"name": name, "label": want["config"]["label"], "mount": f"{want['config']['mount']}.next", "device": device,
                                    "block_size": want["config"]["block_size"], "reserved": want["reserved"]})


def observe(want):
    """dict(store, generation, place, generations, under_way, and what plan() needs under _)."""
    record, begun = load_record("stores", want["store"]), load_record("stores", f"{want['store']}.next")
    return {"store": want["store"], "generation": record.get("generation", 1), "uuid": record.get("uuid"),
            "place": record.get("place") or _generations.place_of(want["config"]),
            "generations": _generations.retired(want["store"]), "under_way": begun.get("place") if begun else None, "_record": record, "_begun": begun}


def plan(want, state):
    """Ordered list of Step; raises Problem for what must not be done. want["found"] is the path of the new LUN (locate())."""
    name, begun, device = want["store"], state["_begun"], want["found"]
    if begun and begun.get("uuid") == state["uuid"]:
        return [Step("complete", f"completed the move of {name} to generation {state['generation']}")]
    if want["undo"]:
        return [Step("undo", f"gave up the swap of {name} to {_generations.place_text(begun['place'])}")] if begun else []
    where = _generations.place_text(want["place"])
    if not begun and want["place"] == state["place"]:
        # of a swap that is complete this is the second run; nobody swaps a store to where it is
        if state["generations"]:
            return []
        raise Problem(f"{name}: {where} is where it is today; give a blank LUN")
    if begun and begun.get("place") != want["place"]:
        raise Problem(f"{name}: a swap to {_generations.place_text(begun['place'])} was begun; complete that one (the same command with that place), or "
                      "give it up (--undo) first")
    for one in want["all"]:
        if load_record("devices", one["name"]).get("phase") == _md.PHASE_ADOPTING:
            raise Problem(f"{name}: the adoption of {one['name']} is not complete; run the playbook indestructible.block.adopt first")
        if _md.unfinished_rollback(one["name"]):
            raise Problem(f"{name}: a rollback of {one['name']} was interrupted; complete it first (indestructible status)")
    if not want["devices"]:
        raise Problem(f"{name}: it has no devices, so there is nothing to move; take it out of use and write another LUN in the variables")
    if device is None and want["check_mode"]:
        return [Step("switch", f"moved {', '.join(one['name'] for one in want['devices'])} to generation {state['generation'] + 1} of {name} on {where}")]
    if device is None or not is_block(device):
        raise Problem(f"{name}: {device or where} is not a block device of this host")
    _check_device(want, state, device)
    _check_room(want, device)
    steps = [Step("volume", f"made generation {state['generation'] + 1} of {name} on {where}", {"device": device})]
    for one in want["devices"]:
        steps.append(Step("fill", f"filled the new leg of {one['name']}", {"device": one["name"]}))
    return steps + [Step("switch", f"moved {', '.join(one['name'] for one in want['devices'])} to generation {state['generation'] + 1} of {name}; "
                                   f"generation {state['generation']} is kept", {"device": device})]


def _check_device(want, state, device):
    """Refuse a LUN that is not blank, or not to be had."""
    name, owner = want["store"], _owner.look(device).owner
    if known_as(device) == state["_record"].get("claimed"):
        raise Problem(f"{name}: {device} is the LUN that it is on today; give another one")
    if owner and not owner["here"]:
        raise _owner.refusal(device, owner)
    found, begun = read_super(device), state["_begun"]
    if found and begun and found.uuid == begun.get("uuid") or begun.get("phase") == "formatting" and begun.get("device_id") == known_as(device):
        return
    for generation in state["generations"]:
        if found and found.uuid == generation["uuid"]:
            raise Problem(f"{name}: {device} holds {_generations.describe(name, generation)}; history is not overwritten. Forget it and blank it first, or "
                          "give another LUN")
    content = _owner.find_content(device)
    if content:
        raise Problem(f"{name}: {device} is not blank: it holds {content}. Nothing was done; give a blank LUN")


def _check_room(want, device):
    """Refuse a LUN that cannot take the data, and the legs with it."""
    size, data = size_of(device), sum(_occupied(one) for one in want["devices"])
    problem = room_problem(size, data, want["config"]["block_size"], want["reserved"])
    if problem:
        names = ", ".join(one["name"] for one in want["devices"])
        raise Problem(f"{want['store']}: {device} has {human_size(size)}, and the data of {names} ({human_size(data)}) {problem}. Give a larger LUN")


def room_problem(size, data, block_size, percent):
    """What a blank LUN of so many bytes lacks for legs that take data bytes (the end of a sentence), or None; percent is the reserved share. Pure.

    It is the question that is asked before the legs are brought in (_capacity.fits), of all that has to be written.
    """
    segment = _nilfs_volume.BLOCKS_PER_SEGMENT * block_size
    segments = size // segment
    reserved = reserved_segments(segments, percent)
    usage = _capacity.Usage(None, segments, segments, reserved, segment)
    if _capacity.fits(usage, data):
        return None
    return (f"needs {human_size(_capacity.room_wanted(usage, data) * segment)} with what nilfs2 takes for itself and what has to stay free "
            f"({percent} % reserved, {human_size(reserved * segment)}, among it)")


def _occupied(device):
    """Bytes that the data of a device takes, as far as its legs tell: a sparse file counts what it holds."""
    sizes = [os.stat(path).st_blocks * 512 for path in (device["remote"], device["local"]) if os.path.isfile(path)]
    return min(sizes) if sizes else device["size"]


def perform(want, step, tell=None):
    """Carry out one step; raises Problem. tell(device, done, size, written), in bytes, is called now and then."""
    {"volume": _volume, "fill": _fill, "switch": _switch, "complete": _complete, "undo": _undo}[step.verb](want, step.args, tell)


def _volume(want, args, _tell):
    new = _next(want, args["device"])
    with host_lock():
        # before anything is written to it, so that it can be given up whatever happens
        save_record("stores", new["record"], dict(load_record("stores", new["record"]), place=want["place"], mount=new["mount"], label=new["label"],
                                                  identity=known_as(new["device"])))
        try:
            converge([new], _nilfs_volume.observe, _nilfs_volume.plan, _nilfs_volume.perform, _nilfs_volume.predict)
        except Problem:
            if not load_record("stores", new["record"]).get("claimed"):  # it was refused, and nothing was begun
                forget_record("stores", new["record"])
            raise
        for device in want["devices"]:
            _md_act.update_record(mirror_of(device), hold=True)
    began = time.time()
    wait_until(lambda: not began - _FRESH < guard_told().get("time", 0) < began + 0.5, 3 * _FRESH, "the guard to hold the bitmaps")


def _new_leg(want, device):
    return f"{_next(want)['mount']}/{os.path.basename(device['remote'])}"


def _fill(want, args, tell):
    device = next(one for one in want["devices"] if one["name"] == args["device"])
    leg = _new_leg(want, device)
    size = _md.observe(mirror_of(device))["size"]
    files = _loopfile.normalize([{"path": leg, "size": size + HEADER_SIZE, "state": "detached"}])
    converge(files, _loopfile.observe, _loopfile.plan, _loopfile.perform, _loopfile.predict)

    def note(done, size, written):
        save_file(progress_file(want["store"]), json.dumps({"device": device["name"], "done": done, "size": size, "written": written, "process": os.getpid()}))
        if tell:
            tell(device["name"], done, size, written)
    _seed.fill(device["local"], leg, size, note, want["limit"])


def _switch(want, args, _tell):
    store, new, device = want["store"], _next(want, args["device"]), args["device"]
    with host_lock():
        record, fresh, identity = load_record("stores", store), load_record("stores", new["record"]), known_as(device)
        left = _generations.place_of(in_file(store))
        for one in want["devices"]:
            _check_held(want, one)
        _check_legs(want, new)
        for one in want["devices"]:
            mirror = mirror_of(one, "detached")
            if _md_act.remote_state(mirror) != "gone":
                _md_act.perform(mirror, Step("detach", "", {}))
            # whatever the bitmap lists is brought to the new leg, also what the old one had already
            _md_act.keep_listed(mirror)
            _md_act.update_record(mirror, clean_detach=None, hold=None)
        old = _retire(want, record)
        for one in want["devices"]:
            _seed.enlist(one["local"], _new_leg(want, one), 0, True)
        with Volume(new["mount"]) as volume:
            first = volume.counts()[0]
        # until it is healed a leg is a mixture, in whatever checkpoints arise on the way; that of a device that is stopped has yet to be made
        window = {"first": first, "last": None, "why": "the remote leg was being filled", "good": None}
        for known in _known(want).values():
            _catalogue.save(_new_leg(want, known), {"since": first, "unsafe": [window], "points": []})
        _leave(want["config"])
        unmount(new["mount"])
        # the moment: from here on the store is on the new LUN
        save_record("stores", store, dict(record, uuid=fresh["uuid"], claimed=identity, place=want["place"], left=left,
                                          generation=old["number"] + 1, began=old["ended"], generations=[old] + record.get("generations", [])))
        for known in _known(want).values():
            # a number of the old volume, which old has; where an interruption leaves it, it can but widen the window that is open
            if known.get("unsafe_from"):
                _md_act.update_record(known, unsafe_from=None)
    _complete(want, {}, None)


def _check_legs(want, new):
    """Refuse to go on with a volume that would not take the legs now, for after the moment there is no way back."""
    usage = _capacity.usage_at(mount_at(new["mount"]))
    copied = sum(_capacity.to_copy(read_leg_super(one["local"]), load_record("devices", one["name"])) for one in want["devices"])
    if usage and not _capacity.fits(usage, copied):
        raise Problem(f"{want['store']}: on {new['device']} {human_size(usage.clean * usage.segment)} are free, and "
                      f"{human_size(_capacity.room_wanted(usage, copied) * usage.segment)} are needed to bring the legs up to date and keep the reserve. "
                      f"Nothing was changed: grow that LUN and run this again, or give it up (indestructible swap {want['store']} --undo)")


def _check_held(want, device):
    """Refuse a leg whose filling the bitmap has not watched from its beginning to now."""
    name, state = device["name"], _md.observe(mirror_of(device))
    if not load_record("devices", name).get("hold") or state["state"] not in ("attached", "detached", "recovering"):
        raise Problem(f"{name} was stopped or started while its new leg was filled, so it is not known what the leg lacks; run this again")
    if size_of(_new_leg(want, device)) != state["size"] + HEADER_SIZE:
        raise Problem(f"{name} has grown while its new leg was filled; run this again")


def _known(want):
    """Records (dict of dict by name) of the devices that have a leg on the store, whether they run or not."""
    records = {name: load_record("devices", name) for name in list_records("devices")}
    return {name: known for name, known in records.items() if (known.get("remote") or "").startswith(want["config"]["mount"] + "/")}


def _retire(want, record):
    """The old generation, as it is remembered; it is written to its LUN too, where that can be reached."""
    point, known = want["config"]["mount"], _known(want)
    old = {"number": record.get("generation", 1), "uuid": record.get("uuid"), "place": _generations.place_of(want["config"]), "identity": record.get("claimed"),
           "began": record.get("began") or max((one["ended"] for one in record.get("generations", [])), default=0), "ended": int(time.time()), "last": None,
           # what this host alone knows: from which checkpoint on a leg that failed cannot be relied upon
           "devices": {name: {key: found.get(key) for key in ("uuid", "unsafe_from")} for name, found in known.items()}}
    if not mount_at(point):
        return old
    try:
        Link(want["config"]).ensure()  # a commit would wait for a LUN that does not answer
        for name, found in known.items():
            if read_text(_catalogue.path_of(found["remote"])):
                catalogue = _catalogue.load(found["remote"])
                old["devices"][name].update(since=catalogue["since"], points=catalogue["points"])
        with contextlib.suppress(OSError):  # a full one may have no room for it
            _generations.write_down(point, want["store"], old["ended"])
        with Volume(point) as volume:
            old["last"] = volume.sync()
    except (Problem, OSError):
        pass  # its LUN is gone; what it holds is read when it is attached again
    return old


def _leave(config):
    """Unmount the old volume. Its way is cut when it does not answer, for all that matters is in the local legs; raises Problem while somebody uses it."""
    point, hung = config["mount"], False
    for loop in _generations.loops_on(point):
        detach_loop(loop.device)
    if not mount_at(point):
        return
    with contextlib.suppress(Problem):
        _cleaner.stop(config["name"])

    def is_over():
        nonlocal hung
        hung = not try_unmount(point, _MOMENT)
        return hung or not mount_at(point)
    wait_for(is_over, _BUSY)
    if hung:
        Link(config).abort()
        if mount_at(point):
            run(["umount", "--lazy", point], ok=None, timeout=20)
    elif mount_at(point):
        try:
            unmount(point)  # which names who uses it
        except Problem:
            _cleaner.resume(config["name"])
            raise


def _complete(want, _args, _tell):
    with host_lock():
        finish(want["config"])
    for one in want["devices"]:
        _bring(one)


def finish(store):
    """Mount the new volume of a store (a dict of the Config) where the old one was, when a swap has come to that; the caller holds the lock of the host."""
    record, name = load_record("stores", store["name"]), f"{store['name']}.next"
    if not record.get("uuid") or load_record("stores", name).get("uuid") != record["uuid"]:
        return
    text, point, before = read_fstab(), store["mount"], f"{store['mount']}.next"
    for uuid, where in [(record["uuid"], before)] + [(one["uuid"], point) for one in record["generations"]]:
        text = fstab_without(text, f"UUID={uuid}", where)
    if text != read_fstab():
        write_fstab(text)
    device = _generations.find_disk(record["uuid"])
    if not device:
        place = _generations.place_text(_generations.place_of(store))
        raise Problem(f"the new volume of {store['name']} ({record['uuid']}) is not there; bring its LUN back ({place})")
    if mount_at(before):
        unmount(before)
    for known, recovery in [(known, load_record(_recovery.KIND, known)) for known in list_records(_recovery.KIND)]:
        number = next((one["number"] for one in record["generations"] if one["uuid"] == recovery.get("volume")), None)
        if number and recovery.get("store_point") == point:  # it stays open, and is of a retired generation now
            save_record(_recovery.KIND, known, dict(recovery, store_point=_generations.point_of(store["name"], number), generation=[store["name"], number]))
    final = _nilfs_volume.normalize({"name": store["name"], "label": store["label"], "mount": point, "device": device, "block_size": store["block_size"],
                                     "reserved": store["reserved"], "keep": store.get("keep")})
    converge([final], _nilfs_volume.observe, _nilfs_volume.plan, _nilfs_volume.perform, _nilfs_volume.predict)
    _generations.write_down(point, store["name"])
    with contextlib.suppress(OSError):
        os.rmdir(before)
    forget_record("stores", name)


def _bring(device):
    """Bring a new leg in, unless the guard was quicker; what it lacks is copied then."""
    with host_lock():
        files = _loopfile.normalize([{"path": device["remote"], "write_cache": "keep"}])
        converge(files, _loopfile.observe, _loopfile.plan, _loopfile.perform, _loopfile.predict)
        want = mirror_of(device)
        state = _md.observe(want)
        want["size"] = state["size"]
        converge([want], _md.observe, _md.plan, _md_act.perform, _md.predict)


def _undo(want, _args, _tell):
    new = _next(want)
    with host_lock():
        record = load_record("stores", new["record"])
        for one in want["devices"]:
            _md_act.update_record(mirror_of(one), hold=None)
        for loop in _generations.loops_on(new["mount"]):
            detach_loop(loop.device)
        disk = _begun_disk(want, record)
        if mount_at(new["mount"]):
            unmount(new["mount"])
        if record.get("uuid"):
            write_fstab(fstab_without(read_fstab(), f"UUID={record['uuid']}", new["mount"]))
        if disk:
            _owner.release(disk)
        forget_record("stores", new["record"])


def _begun_disk(want, record):
    """Path of the LUN that a swap was begun on, given its record, or None when it is not there. Without a volume it may be this host's all the same."""
    if record.get("uuid"):
        return _generations.find_disk(record["uuid"])
    with contextlib.suppress(Problem):
        device = Link(dict(want["config"], **record["place"])).find()
        return device if known_as(device) == record.get("identity") else None
    return None


def predict(want, state, steps):
    """The state after the steps."""
    if not steps:
        return state
    if want["undo"]:
        return dict(state, under_way=None)
    return dict(state, generation=state["generation"] + 1, uuid=None, place=want["place"], under_way=None)


def public(state):
    """The part of a state that is shown."""
    return {key: value for key, value in state.items() if not key.startswith("_")}


def locate(want):
    """Path of the new LUN, after a login where that is needed; None when it is not there. In check mode nothing is done to see it."""
    link = Link(dict(want["config"], **want["place"]))
    if want["check_mode"]:
        path = want["place"]["device"] or (f"/dev/{link.unit()}" if link.unit() else None)
        return path if path and os.path.exists(path) else None
    try:
        return link.find()
    except Problem:
        if want["place"]["device"]:
            return None
        raise
