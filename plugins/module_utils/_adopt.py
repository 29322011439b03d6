# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A device whose local leg is gone, with its disk or with its whole host: it lives on from the store.

First it may only be made known here, so that its past can be looked at. Then it is opened: started from its remote leg alone, as of the newest safe point,
which takes seconds. What is written then is on the LUN, and the history goes on. Then a new local leg is built beside it: what is not zero is copied while
the bitmap lists what changes, and md brings that.
A record says that this is under way, so neither boot nor guard touches such a device, and an interruption anywhere is completed by the next run.
To build the leg takes as long as its copy does, so the lock of the host is not held meanwhile: the other devices are healed and recovered as ever.
"""

from __future__ import annotations

import contextlib
import os

from . import _catalogue, _loopfile, _md, _md_act, _recovery, _seed
from ._blank import find_content, find_use
from ._blockdev import is_block, known_as, size_of
from ._copy import Side, copy_differences
from ._core import Problem, Step, converge, host_lock, human_size, load_record, read_text, run, wait_until, write_text
from ._md_super import HEADER_SIZE, read_super
from ._nilfs import Volume
from ._points import newest_safe
from ._when import iso

STATES = ("known", "opened", "owned")
_OUT = "the remote leg was out"


def normalize(want):
    """The want with every value filled in. Keys: name, local, local_kind (file or block), remote, size (bytes), state (known, opened or owned)."""
    want = dict({"state": "owned", "check_mode": False, "local_kind": "block" if want["local"].startswith("/dev/") else "file"}, **want)
    if want["state"] not in STATES:
        raise Problem(f"{want['name']}: state {want['state']!r} is none of {', '.join(STATES)}")
    return want


def observe(want):
    """The state of the device; keys that begin with an underscore are for plan() and perform().

    state: absent (the store holds no such device), closed (it does not run), known (nor does it run, but its past can be opened here), opened (it
    runs from its remote leg alone), building (md brings the new local leg up to date) or owned (it has its local leg).
    """
    mirror = _md.observe(want)
    if mirror["_unreadable"]:
        raise Problem(f"{want['name']}: {mirror['_unreadable']}")
    record, (local, remote) = mirror["_record"], mirror["_supers"]
    ours, live = record.get("phase") == _md.PHASE_ADOPTING, mirror["_activity"] in _md.LIVE
    if local and not ours and (not remote or local.uuid == remote.uuid):
        state = "owned"
    elif live and mirror["remote"]["state"] == "in sync":
        state = "building" if mirror["local"]["state"] in ("recovering", "in sync") else "opened"
    elif remote:
        state = "known" if record.get("uuid") == remote.uuid else "closed"
    else:
        state = "absent"
    catalogue = _catalogue.load(want["remote"]) if remote else None
    if remote and record.get("unsafe_from") and record.get("uuid") == remote.uuid:  # this host had lost it before it lost its local leg
        catalogue = _catalogue.with_window(catalogue, record["unsafe_from"], _OUT)
    return {"name": want["name"], "path": mirror["path"], "state": state, "uuid": mirror["uuid"], "size": mirror["size"], "local": want["local"],
            "remote": want["remote"], "opened_as_of": record.get("opened_as_of"), "percent": mirror["recovery_percent"],
            "_mirror": mirror, "_ours": ours, "_catalogue": catalogue}


def plan(want, state):
    """Ordered list of Step; raises Problem for what must not be done."""
    name, mirror = want["name"], state["_mirror"]
    if state["state"] == "owned":
        return []
    if mirror["_linked"] and mirror["_linked"] != mirror["array"]:
        raise Problem(f"{name}: {mirror['path']} is another array ({mirror['_linked']}) that does not hold {want['remote']}; nothing was done")
    remote = mirror["_supers"][1]
    if remote is None and want["check_mode"] and not _catalogue.volume_of(want["remote"]):  # its store is not mounted yet
        return [_know_step(want) if want["state"] == "known" else Step("open", f"start {state['path']} from its remote leg alone")] + (
            [Step("build", f"build the local leg {want['local']} of {name} from the store")] if want["state"] == "owned" else [])
    if remote is None:
        raise Problem(f"{name}: {want['remote']} is {'not there' if mirror['remote']['state'] == 'absent' else 'no leg of a device'}, so there is nothing to "
                      f"build {name} from; the store holds: {', '.join(_held(want['remote'])) or 'no device'}")
    if remote.name != name:
        raise Problem(f"{name}: {want['remote']} is a leg of the array {remote.name!r} ({remote.uuid}), not of {name!r}; nothing was done")
    if remote.size != want["size"]:
        raise Problem(f"{name}: its leg on the store holds {human_size(remote.size)} ({remote.size} bytes), and {want['size']} bytes were asked for; "
                      "write its size as it is, and grow it when it is yours")
    if want["state"] == "known":
        return [_know_step(want)] if state["state"] == "closed" else []
    _check_local(want)
    steps = []
    if state["state"] in ("closed", "known"):
        point = None
        if _open_window(state["_catalogue"]):
            with Volume(_store_of(want)) as volume:
                point = newest_safe(volume, state["_catalogue"], volume.last_checkpoint())
            if point is None:
                raise Problem(f"{name}: its leg on the store was never complete, so there is no point to open it as of")
        when = f" as of {iso(point.time)} (checkpoint {point.number}), the newest safe point" if point else ""
        steps.append(Step("open", f"start {state['path']} from its remote leg alone{when}", {"checkpoint": point.number if point else None}))
    if want["state"] == "owned":
        if state["state"] != "building":
            steps.append(Step("build", f"build the local leg {want['local']} of {name} from the store"))
        steps.append(Step("finish", f"wait until {name} runs on both legs, and make it this host's own"))
    return steps


def _know_step(want):
    return Step("know", f"note {want['name']} as a device of this host, without starting it")


def _held(remote):
    folder = os.path.dirname(remote)
    return sorted(entry[:-4] for entry in os.listdir(folder) if entry.endswith(".img")) if os.path.isdir(folder) else []


def _store_of(want):
    point = _catalogue.volume_of(want["remote"])
    if not point:
        raise Problem(f"{want['name']}: {want['remote']} lies on no store that is mounted; bring its LUN back first")
    return point


def _open_window(catalogue):
    return any(window["last"] is None for window in catalogue["unsafe"])


def _thing(path):
    """What tells this very file or disk from another one that has its path, a str."""
    if not is_block(path):
        return f"inode {os.stat(path).st_ino}"
    return known_as(path)


def _check_local(want):
    """Refuse a local leg that holds something else, or has no room; not one that an earlier run began to fill."""
    name, path = want["name"], want["local"]
    if not os.path.exists(path):
        if want["local_kind"] == "block":
            raise Problem(f"{name}: the local leg {path} does not exist")
        return
    if load_record("devices", name).get("building") == _thing(path):
        return
    use = find_use(path)
    content = find_content(path, full=True)
    if use and want["local_kind"] == "block":
        raise Problem(f"{name}: the local leg {path} is {use}; nothing was done")
    if content:
        raise Problem(f"{name}: the local leg {path} is not blank: it holds {content}. Nothing was done; choose another one, or erase it yourself if "
                      "you are sure")
    if want["local_kind"] == "block" and size_of(path) < want["size"] + HEADER_SIZE:
        raise Problem(f"{name}: the local leg {path} has {size_of(path)} bytes; a device of {human_size(want['size'])} needs {want['size'] + HEADER_SIZE}")


def perform(want, step, tell=None):
    """Carry out one step; raises Problem. tell(done, size, written), in bytes, is called now and then while the leg is built."""
    if step.verb == "know":
        with host_lock():
            _know(want)
    elif step.verb == "open":
        with host_lock():
            _open(want, step.args["checkpoint"])
    elif step.verb == "build":
        _build(want, tell)
    else:
        _finish(want)


def _loops(want, side, **more):
    files = _loopfile.normalize([dict({"path": want[side]}, **more)])
    converge(files, _loopfile.observe, _loopfile.plan, _loopfile.perform, _loopfile.predict)


def _know(want):
    """Note the device, so that whatever happens it is known what was begun."""
    header = read_super(want["remote"])
    if load_record("devices", want["name"]).get("uuid") != header.uuid:
        _md_act.update_record(want, unsafe_from=None)  # of another device of that name
    _md_act.update_record(want, uuid=header.uuid, phase=_md.PHASE_ADOPTING, size=want["size"], detached=None, stopped=None)
    _md_act.hide_from_udev(want, header.uuid)


def _open(want, checkpoint):
    name = want["name"]
    _know(want)
    unsafe_from = load_record("devices", name).get("unsafe_from")
    if unsafe_from:
        _catalogue.open_window(want["remote"], unsafe_from, _OUT)
    if checkpoint:
        _put_back(want, checkpoint)
    _md_act.update_record(want, unsafe_from=None)  # before anything is written to it, for it is put back only once
    _loops(want, "remote", write_cache="write back")  # this leg is the only one: a flush has to reach the LUN
    run(["mdadm", "--assemble", f"/dev/md/{name}", "--run", _md.device_of(want["remote"])])
    array = _md.holder_of(_md.device_of(want["remote"]))
    wait_until(lambda: read_text(f"/sys/block/{array}/md/array_state") in _md.LIVE, 10, f"{array} to run")
    _md_act.start_ordered(want)
    _md_act.settle(want, array)
    with Volume(_store_of(want)) as volume:
        _md_act.update_record(want, opened_as_of=checkpoint or volume.last_checkpoint().number)


def _put_back(want, checkpoint):
    """Make the leg on the store what it was at a checkpoint: it was being healed, so it is a mixture of old and new."""
    view = _recovery.normalize({"name": f"{want['name']}.adopt", "device": want["name"], "as_of": str(checkpoint), "mode": "direct", "mount": "",
                                "unsafe": True})
    _recovery.converge_one(view)
    try:
        image, remote = _recovery.observe(view)["_image"].backing, want["remote"]
        copy_differences(Side(image, 0), Side(remote, 0), os.stat(remote).st_size)
    finally:
        _recovery.converge_one(dict(view, state="absent"))
    with Volume(_store_of(want)) as volume:
        _catalogue.save(remote, _catalogue.without_open(_catalogue.load(remote), volume.sync()))


def _build(want, tell):
    remote = read_super(want["remote"])
    with host_lock():
        # also of a device whose local leg failed while it ran: until the new one is whole, only the remote leg counts
        _md_act.update_record(want, uuid=remote.uuid, phase=_md.PHASE_ADOPTING, size=want["size"])
        _loops(want, "remote", write_cache="write back")
        _drop_failed(want)
        _check_local(want)
        if want["local_kind"] == "file" and not _md.device_of(want["local"]):
            _loops(want, "local", size=want["size"] + HEADER_SIZE, state="detached")
        _md_act.update_record(want, building=_thing(want["local"]))
        target = _md.device_of(want["local"]) or want["local"]  # past a loop its cache would not know
    _seed.fill(want["remote"], target, remote.size, tell, holes=want["local"])
    with host_lock():
        _seed.enlist(want["remote"], target, 1 - remote.roles[remote.number], False)
        if want["local_kind"] == "file":
            _loops(want, "local")
        array = _md.holder_of(_md.device_of(want["remote"]))
        run(["mdadm", f"/dev/{array}", "--re-add", _md.device_of(want["local"])])


def _drop_failed(want):
    """Take a local leg that failed out of the array."""
    device, array = _md.device_of(want["local"]), _md.holder_of(_md.device_of(want["remote"]))
    state = f"/sys/block/{array}/md/dev-{os.path.basename(device or '-')}/state"

    def removed():
        if os.path.exists(state):
            with contextlib.suppress(Problem):  # busy until the last request to it has ended
                write_text(state, "remove")
        return not os.path.exists(state)
    if "faulty" in (read_text(state) or ""):
        wait_until(removed, 60, f"the failed leg {want['local']} to leave {array}")


def _finish(want):
    local = f"dev-{os.path.basename(_md.device_of(want['local']))}"
    array = _md.holder_of(_md.device_of(want["remote"]))

    def is_there():
        words = (read_text(f"/sys/block/{array}/md/{local}/state") or "gone").split(",")
        if "faulty" in words or "gone" in words:
            raise Problem(f"{want['name']}: the new local leg {want['local']} failed while it was written; it runs on from the store. See to that disk, "
                          "then run this again")
        return "in_sync" in words and read_text(f"/sys/block/{array}/md/sync_action") == "idle"
    wait_until(is_there, 7 * 86400, f"the local leg of {want['name']}")
    with host_lock():
        _md_act.perform(want, Step("set", "", {"time_base": _md.HELD, "safe_mode_delay": 0}))
        _md_act.bound(want)
        _md_act.perform(want, Step("flag", "", {}))
        with Volume(_store_of(want)) as volume:
            volume.sync()
        # at once: between "no longer built" and "owned" the leg would be taken for a stranger's
        _md_act.update_record(want, heal=None, pending=None, compare=None, unsafe_from=None, clean_detach=None, started_events=None, replication=None,
                              alone=None, size=None, building=None, uuid=read_super(want["local"]).uuid, phase="ready")


def predict(want, state, steps):
    """The state after the steps."""
    return dict(state, state=want["state"], percent=None) if steps else state


def public(state):
    """The part of a state that is shown."""
    return {key: value for key, value in state.items() if not key.startswith("_")}
