# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Put a device back to a past point: the blocks that differ are written to it, so both legs and the history go on as with any write.

The present state becomes a named point first, so that a rollback can be undone by another one. Until it is through the device is a mixture of both;
a record says so to this host, and the next run goes on. A window in the catalogue on the store says so to whoever recovers or adopts the device.
The copy takes as long as it takes, so the lock of the host is not held meanwhile: the other devices are healed and recovered as ever.
"""

from __future__ import annotations

import os
import time

from . import _catalogue, _host_config, _lifecycle, _md, _md_act, _recovery
from ._blank import find_use
from ._copy import Side, copy_differences
from ._core import Problem, Step, host_lock, load_record, run, save_record
from ._md_super import read_super
from ._point import await_heal, drain, make, refuse_out
from ._points import device_named, locate
from ._when import iso, parse_wish

KIND = "rollbacks"


def normalize(want):
    """The want with every value filled in. Keys: device, as_of, unsafe (bool), generation (number of a retired one, or None)."""
    want = dict({"unsafe": False, "generation": None, "check_mode": False}, **want)
    parse_wish(want["as_of"], time.time())
    return want


def observe(want):
    """dict(device, path, last: the rollback that was completed last or is under way, or None)."""
    record = load_record(KIND, want["device"])
    return {"device": want["device"], "path": f"/dev/md/{want['device']}", "last": record or None}


def plan(want, state):
    """Ordered list of Step; raises Problem."""
    name, path = want["device"], state["path"]
    device = device_named(name)
    use = find_use(path)
    last = state["last"]
    under_way = last and not last.get("done")
    if not os.path.exists(path) and not under_way:
        raise Problem(f"{name}: {path} is not there; start the device first (indestructible start)")
    if use:
        raise Problem(f"{name}: {path} is in use ({use}), so it cannot be put back; end that first (for a mount: umount {use.split()[-1]})")
    if under_way and last["as_of"] != str(want["as_of"]):
        raise Problem(f"{name}: a rollback as of {last['as_of']} was interrupted, so the device is a mixture; complete it first "
                      f"(indestructible rollback {name} '{last['as_of']}'), its state before is kept as {last['before']}")
    if not under_way:
        await_heal(device)
        refuse_out(device)
    wish = parse_wish(last["checkpoint"] if under_way else want["as_of"], time.time())
    past, point, _safe = locate(name, wish, want["unsafe"] or under_way, last.get("generation") if under_way else want["generation"],
                                not want["check_mode"])
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    args = {"checkpoint": point.number, "time": point.time, "before": last["before"] if under_way else f"before-rollback-{stamp}", "new": not under_way,
            "generation": past.generation}
    return [Step("rollback", f"put {name} back to {iso(point.time)} (checkpoint {point.number}); its present state is kept as {args['before']}", args)]


def perform(want, step, tell=None):
    """Carry the rollback out; tell(done, size in bytes, written in bytes) is called now and then."""
    name = want["device"]
    device = device_named(name)
    with host_lock(5, f"rollback-{name}"):
        if bool(_md.unfinished_rollback(name)) == step.args["new"]:
            raise Problem(f"{name}: another rollback of it has begun or ended just now; look at indestructible status, and run this again if it is still "
                          "wanted")
        _put_back(want, step, device, tell)


def _put_back(want, step, device, tell):
    name = device.name
    record = {"device": name, "as_of": str(want["as_of"]), "checkpoint": step.args["checkpoint"], "time": step.args["time"], "before": step.args["before"],
              "generation": step.args["generation"], "began": int(time.time()), "written": None, "done": False}
    if step.args["new"]:
        with host_lock():  # a refusal changes nothing, as long as nothing is noted
            _recovery.check_kernel(device_named(name, record["generation"]), record["checkpoint"], name)
        make(device, step.args["before"], f"before the rollback as of {want['as_of']}")
    with host_lock():
        if step.args["new"]:  # again, for much may have been written meanwhile
            _recovery.check_kernel(device_named(name, record["generation"]), record["checkpoint"], name)
        save_record(KIND, name, record)
        _catalogue.open_window(device.remote, None, "a rollback was under way")
    if not os.path.exists(f"/dev/md/{name}"):  # the power went in the middle of it, and a mixture is not started at boot
        _lifecycle.start_one(_host_config.load().devices[name], mixture=True)
    view = _recovery.normalize({"name": f"{name}.rollback", "device": name, "as_of": str(record["checkpoint"]), "mode": "direct", "mount": "",
                                "unsafe": True, "generation": record["generation"]})
    with host_lock():
        _recovery.converge_one(view)
    _copy(device, record, _recovery.observe(view), tell)  # until it is through the view stays, so that its checkpoint stays protected
    with host_lock():
        if "_began" not in load_record("devices", name).get("heal", {}) and _md_act.remote_state(_legs(device)) == "in sync":
            drain(device)
            _catalogue.close_window(device.remote)  # else the end of the heal does so
        _recovery.converge_one(dict(view, state="absent"))
        record.update(done=True, ended=int(time.time()))
        save_record(KIND, name, record)


def _legs(device):
    return {"name": device.name, "local": device.local, "remote": device.remote}


def _copy(device, record, opened, tell):
    """Make the device what a recovery (the state of its view) shows; how many bytes that took is added to the record."""
    name, image = device.name, opened["_image"].backing
    header = read_super(image)
    size = min(int(os.path.getsize(image)) - header.data_offset, header.size)
    with open(f"/sys/class/block/{os.path.basename(os.path.realpath(f'/dev/md/{name}'))}/size", encoding="utf-8") as file:
        present = int(file.read()) * 512
    leg = Side(device.local if os.path.exists(device.local) else device.remote, header.data_offset)
    try:
        record["written"] = copy_differences(Side(opened["path"], 0, Side(image, header.data_offset)), Side(f"/dev/md/{name}", 0, leg),
                                             min(size, present), tell)
    except Problem as problem:
        raise Problem(f"{name}: {problem}; the device is a mixture now, run the rollback again") from None
    if present > size:  # it has grown since: what is behind was not there
        record["written"] += wipe(f"/dev/md/{name}", size, present)


def wipe(device, first, last):
    """Have the bytes [first, last) of a block device read as zeros; returns their number."""
    run(["blkdiscard", "--zeroout", "--offset", str(first), "--length", str(last - first), device], timeout=3600)
    return last - first


def predict(want, state, steps):
    """The state after the steps."""
    after = dict(state)
    for step in steps:
        after["last"] = {"device": want["device"], "as_of": str(want["as_of"]), "checkpoint": step.args["checkpoint"], "time": step.args["time"],
                         "before": step.args["before"], "done": True}
    return after
