# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The acts on a mirror: each carries one step of _md.plan out and returns when the kernel shows that it is done."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid

from . import _catalogue
from ._blank import next_data
from ._core import (MIB, RUN_DIR, STATE_DIR, CommandFailed, Problem, forget_record, guard_told, load_record, read_text, run, save_file, save_record,
                    wait_until, write_text)
from ._loop import note_order
from ._md import CREATION_TIME_BASE, HELD, LIVE, PHASE_CREATING, REQUEST, conf_file, device_of, holder_of, request_limit, unfinished_rollback
from ._md_super import HEADER_SIZE, count_ranges, merge_ranges, read_leg, read_super
from ._nilfs import Volume

# Options that only a configuration file can give: no bad-block log (an error must fail the leg at once), no host in the name.
_CREATE_CONF = "HOMEHOST <none>\nCREATE bbl=no names=no\n"

_SETTINGS = {"write_behind": "bitmap/backlog", "time_base": "bitmap/time_base", "safe_mode_delay": "safe_mode_delay"}


def perform(want, step):
    """Carry out one step; raises Problem."""
    {"create": _create, "assemble": _assemble, "attach": _attach, "detach": _detach, "grow": _grow, "set": _set, "flag": _flag,
     "bound": bound, "remember": _remember, "stop": _stop, "forget": _forget, "wish": _wish}[step.verb](want, step.args)


def _array(want):
    array = holder_of(device_of(want["local"])) or holder_of(device_of(want["remote"]))
    if not array:
        raise Problem(f"{want['name']}: no array runs on its legs")
    return array


def _md(array, attribute):
    return f"/sys/block/{array}/md/{attribute}"


def _member(array, device):
    return _md(array, f"dev-{os.path.basename(device)}")


def update_record(want, **values):
    """Note values in the record of a device; None takes one out. The guard does so without the lock of the host, so there is one for this alone."""
    os.makedirs(RUN_DIR, mode=0o700, exist_ok=True)
    with open(f"{RUN_DIR}/records.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = load_record("devices", want["name"])
        record.update(name=want["name"], local=want["local"], remote=want["remote"], **values)
        save_record("devices", want["name"], {key: value for key, value in record.items() if value is not None})


def keep_listed(want):
    """Note what the bitmap lists now that the remote leg is out, and may lack it: md forgets it when the array is stopped."""
    header = read_super(want["local"])
    if header and header.bitmap and header.bitmap.dirty:
        update_record(want, pending=merge_ranges(load_record("devices", want["name"]).get("pending", []), header.bitmap.dirty))


def _remember(want, args=None):
    header = read_super(want["local"])
    hide_from_udev(want, header.uuid)
    update_record(want, uuid=header.uuid, phase="ready", alone=None)


def hide_from_udev(want, identity):
    """Without this line mdadm's udev rule would assemble a lone leg by itself (mdadm before 4.3 does so with every loop)."""
    save_file(conf_file(want["name"]), f"# The device {want['name']} is assembled by indestructible.block alone.\nARRAY <ignore> UUID={identity}\n")


def settle(want, array):
    """Wait until udev has made /dev/md/NAME."""
    path = f"/dev/md/{want['name']}"
    wait_until(lambda: os.path.basename(os.path.realpath(path)) == array, 20, f"{path} to lead to {array}")


def _create(want, _args):
    local, remote = device_of(want["local"]), device_of(want["remote"])
    record = load_record("devices", want["name"])
    identity = record.get("uuid") if record.get("phase") == PHASE_CREATING else None
    identity = identity or str(uuid.uuid4()).replace("-", "")
    identity = ":".join(identity.replace(":", "")[at:at + 8] for at in range(0, 32, 8))
    update_record(want, uuid=identity, phase=PHASE_CREATING, size=want["size"])
    hide_from_udev(want, identity)
    for device in (local, remote):
        header = read_super(device)
        if header and header.uuid == identity:
            run(["mdadm", "--zero-superblock", device])
    conf = f"{STATE_DIR}/mdadm-create.conf"
    save_file(conf, _CREATE_CONF)
    # mdadm 4.2 flags every device after --write-mostly; the local one's flag is taken off below
    run(["mdadm", "--create", f"/dev/md/{want['name']}", f"--config={conf}", "--run", "--level=1", "--raid-devices=2", "--metadata=1.2", "--homehost=<none>",
         f"--name={want['name']}", f"--uuid={identity}", "--bitmap=internal", f"--bitmap-chunk={want['bitmap_chunk'] // 1024}K",
         "--delay=1", f"--write-behind={want['write_behind']}", f"--data-offset={HEADER_SIZE // 1024}K",
         f"--size={want['size'] // 1024}", "--assume-clean", "--write-mostly", remote, local])
    array = _array(want)
    settle(want, array)
    _flag(want)
    start_ordered(want)
    write_text(_md(array, _SETTINGS["time_base"]), str(CREATION_TIME_BASE))  # mdadm takes whole seconds only
    wait_until(lambda: not read_super(local).bitmap.dirty, 60, f"the bitmap of {want['name']} to become clean")
    _set(want, {"time_base": want["time_base"], "safe_mode_delay": 0})
    bound(want)
    _catalogue.begin(want["remote"])
    _remember(want)


def _assemble(want, args):
    local, remote = device_of(want["local"]), device_of(want["remote"])
    header = read_super(local)
    hide_from_udev(want, header.uuid)
    # noted before the start: the kernel drops what the bitmap says when one leg is started alone
    record = load_record("devices", want["name"])
    pending = merge_ranges(record.get("pending", []), args.get("pending", []))
    more = {"compare": True} if args.get("compare") else {}
    update_record(want, uuid=header.uuid, phase="ready", pending=pending or None, stopped=None, clean_detach=None, hold=None, alone=None,
                  started_events=None if args["both"] else header.events, last_start={
                      "clean": header.clean, "events": header.events, "events_cleared": header.bitmap.cleared if header.bitmap else None,
                      "listed_bytes": count_ranges(header.bitmap.dirty) * header.bitmap.chunk if header.bitmap else None}, **more)
    update = ["--update=no-bbl"] if args["bad_blocks"] else []
    legs = [remote, local] if args["both"] else [local]
    run(["mdadm", "--assemble", f"/dev/md/{want['name']}", "--run", *update, *legs])
    array = _array(want)
    wait_until(lambda: read_text(_md(array, "array_state")) in LIVE, 10, f"{array} to run")
    _set(want, {"safe_mode_delay": 0})
    bound(want)
    if args["both"]:
        start_ordered(want)
    settle(want, array)


def _attach(want, _args):
    """Add the remote leg; by the bitmap where md accepts that, in full otherwise. Waits for the copy, at most want['wait'] seconds."""
    begin_attach(want)
    try:
        wait_until(lambda: is_healed(want), want["wait"], "the copy")
    except Problem:
        if remote_state(want) in ("faulty", "gone"):
            raise Problem(f"{want['name']}: the remote leg {want['remote']} failed while it was copied to; the device runs from its local leg") from None
        return  # it goes on; the guard, or the next run, sees its end
    finish_attach(want)


def begin_attach(want):
    """Mark the checkpoints from now on as unsafe, and add the remote leg; what is copied then goes on by itself."""
    array, remote = _array(want), device_of(want["remote"])
    record, header, local = load_record("devices", want["name"]), read_super(remote), read_super(want["local"])
    _catalogue.open_window(want["remote"], record.get("unsafe_from"), "the remote leg was healed")
    chunk = int(read_text(_md(array, "bitmap/chunksize")))
    lists = [[tuple(pair) for pair in record.get("pending", [])]]
    if header and header.bitmap and header.bitmap.chunk == chunk:
        lists.append(header.bitmap.dirty)
    if not record.get("clean_detach"):
        # chunks that were listed when the leg failed: md would not copy them, although what it wrote to them may never have reached the LUN
        lists.append(local.bitmap.dirty)
    if header and record.get("compare"):
        lists.append(differing_chunks(want["local"], want["remote"], local.size, chunk))
    for first, last in merge_ranges(*lists):
        write_text(_md(array, "bitmap_set_bits"), f"{first}-{last}")
    dirty = count_ranges(read_super(want["local"]).bitmap.dirty) * chunk
    kind = "compare" if record.get("compare") else "bitmap"
    heal = {"kind": kind if header else "full", "dirty_bytes": dirty if header else local.size, "copied_bytes": None, "seconds": None,
            "_before": _sectors_written(remote), "_began": time.time()}
    # before: whoever sees the leg in also sees that its heal is not noted as ended
    update_record(want, detached=None, leaving=None, heal=heal)
    _limit_alone(want)
    if header:
        try:
            run(["mdadm", f"/dev/{array}", "--re-add", "--write-mostly", remote])
        except CommandFailed:  # its events are older than the bitmap's memory
            heal.update(kind="full", dirty_bytes=local.size)
    if heal["kind"] == "full":
        run(["mdadm", f"/dev/{array}", "--add", "--write-mostly", remote])
    _flag(want)
    update_record(want, started_events=None, heal=heal)


def remote_state(want):
    """How the remote leg is in the running array: "in sync", "recovering", "faulty" or "gone"."""
    array, remote = holder_of(device_of(want["local"])), device_of(want["remote"])
    words = (read_text(f"{_member(array, remote)}/state") or "gone").split(",") if array and remote else ["gone"]
    return next((word for word in ("gone", "faulty") if word in words), "in sync" if "in_sync" in words else "recovering")


def is_healed(want):
    """Whether the copy to the remote leg is over; raises Problem when the leg is out again."""
    state = remote_state(want)
    if state in ("faulty", "gone"):
        raise Problem(f"{want['name']}: the remote leg {want['remote']} is {state}")
    return state == "in sync" and read_text(_md(_array(want), "sync_action")) == "idle"


def finish_attach(want):
    """Commit the healed leg, end its unsafe window, and note what it took. Returns the note, a dict, or None when nothing was open."""
    record = load_record("devices", want["name"])
    heal = record.get("heal") or {}
    if "_began" not in heal:
        return None
    if not unfinished_rollback(want["name"]):  # whose end ends the window
        _catalogue.close_window(want["remote"])
    heal["copied_bytes"] = (_sectors_written(device_of(want["remote"])) - heal.pop("_before")) * 512
    heal["seconds"] = round(max(0, time.time() - heal.pop("_began")), 1)
    # only now: an interruption before leaves all that has to be copied on record
    update_record(want, heal=heal, pending=None, compare=None, unsafe_from=None, clean_detach=None)
    return heal


def differing_chunks(local, remote, size, chunk):
    """Ranges of the chunks of two legs' payloads that are not the same; size and chunk in bytes. Regions that are holes in both are not read."""
    found = []
    ends = [leg_data(path, size) for path in (local, remote)]
    for number in range(-(-size // chunk)):
        start, end = HEADER_SIZE + number * chunk, HEADER_SIZE + min(size, (number + 1) * chunk)
        filled = [has_data(start, end) for has_data in ends]  # both are asked, so that both keep up
        if any(filled) and any(
                read_leg(local, at, min(MIB, end - at)) != read_leg(remote, at, min(MIB, end - at)) for at in range(start, end, MIB)):
            found.append((number, number))
    return merge_ranges(found)


def leg_data(path, size):
    """A function (start, end in bytes) -> whether a leg may hold anything there; asked in ascending order."""
    position = {"next": 0}

    def has_data(start, end):
        if position["next"] < start:
            position["next"] = next_data(path, start, HEADER_SIZE + size)
        return position["next"] < end
    return has_data


def _sectors_written(device):
    return int(read_text(f"/sys/class/block/{os.path.basename(device)}/stat").split()[6])


def fail_remote(want):
    """Take the remote leg out of use at once, without waiting for anything. Nothing happens when it is out already."""
    array, remote = holder_of(device_of(want["local"])), device_of(want["remote"])
    state = f"{_member(array, remote)}/state" if array and remote else ""
    if "faulty" not in (read_text(state) or "faulty"):
        write_text(state, "faulty")


def remove_remote(want, seconds=60):
    """Take a failed remote leg out of the array; returns when md has let it go."""
    array, remote = _array(want), device_of(want["remote"])
    state = f"{_member(array, remote)}/state" if remote else ""

    def removed():
        try:
            if os.path.exists(state):
                write_text(state, "remove")
        except Problem:
            pass  # busy until the last request to it has ended
        return not os.path.exists(state)
    wait_until(removed, seconds, f"the remote leg {want['remote']} to leave {array}")
    wait_until(lambda: holder_of(remote) is None, 10, f"{array} to let {remote} go")


def _detach(want, args):
    """Take the remote leg out. What it holds is committed, where that can be done, so that only what changes from now on has to be copied.

    With doubt in args all that the bitmap lists is copied to it later; all of it is compared if the bitmap was free to forget.
    """
    more = {"compare": True} if args.get("doubt") and float(read_text(_md(_array(want), "bitmap/time_base"))) < HELD else {}
    failed = remote_state(want) == "faulty"
    if not failed:
        update_record(want, leaving=True)  # so that the guard does not take it for an error
    recovering = remote_state(want) == "recovering"
    fail_remote(want)
    remove_remote(want)
    point = _catalogue.volume_of(want["remote"])
    committed = None
    if point and not failed and not recovering and not args.get("doubt"):
        with contextlib.suppress(Problem), Volume(point) as volume:  # a store that fails now leaves what the bitmap lists to be copied
            committed = volume.sync()
    if committed:  # later checkpoints hold nothing newer of it
        more["unsafe_from"] = load_record("devices", want["name"]).get("unsafe_from") or committed + 1
    else:
        keep_listed(want)
        told = guard_told()
        good = told.get("stores", {}).get(told.get("devices", {}).get(want["name"], {}).get("store"), {}).get("checkpoint")
        if good and not recovering:  # what has come after it may be incomplete
            more["unsafe_from"] = load_record("devices", want["name"]).get("unsafe_from") or good + 1
    update_record(want, clean_detach=bool(committed) or None, detached=args.get("by_wish") or None, leaving=None, **more)


def _wish(want, _args):
    """The remote leg is out already: note that it is to stay so."""
    update_record(want, detached=True)


def _grow(want, _args):
    array = _array(want)
    run(["mdadm", "--grow", f"/dev/{array}", f"--size={want['size'] // 1024}", "--assume-clean"])
    wait_until(lambda: int(read_text(f"/sys/block/{array}/size")) * 512 == want["size"], 10, f"{array} to have {want['size']} bytes")


def _set(want, values):
    array = _array(want)
    for key, value in values.items():
        write_text(_md(array, _SETTINGS[key]), str(value))
    if values.get("write_behind"):
        bound(want)
    if "time_base" in values:
        # md notes it on the legs only with something else of theirs, and refuses a bitmap on which it is below a second, as it may be at the creation
        if read_text(_md(array, "array_state")) == "read-auto":  # until the first write, on Debian; such an array notes nothing
            run(["mdadm", "--readwrite", f"/dev/{array}"])
        _flag(want)
        wait_until(lambda: read_super(want["local"]).bitmap.time_base == values["time_base"], 20, f"{array} to note the time base {values['time_base']}")


def bound(want, _args=None):
    """Have the array make no larger writes than what keeps all that may be behind below the limit, see request_limit()."""
    path = _md(_array(want), REQUEST)
    limit = request_limit(int(read_text(_md(_array(want), _SETTINGS["write_behind"])) or 0))
    if int(read_text(path) or 0) > limit:
        write_text(path, str(limit))


def _flag(want, _args=None):
    array = _array(want)
    write_text(f"{_member(array, device_of(want['local']))}/state", "-writemostly")
    remote = device_of(want["remote"])  # None when the device was started without it
    member = f"{_member(array, remote)}/state" if remote else ""
    if os.path.exists(member):
        write_text(member, "writemostly")


def start_ordered(want):
    """Flag the remote leg of an array that was just started once more, while nothing is written, and let no write be behind if loops keep no order.

    A leg that is write-mostly when the array starts has each write wait for those to the same blocks that are still behind, and on kernels before
    7.1 (6.12.y has the change) also for those to the blocks next to them, so that whoever appends waits for the LUN. A leg that is flagged
    later waits for none: its loop keeps the order.
    """
    state = f"{_member(_array(want), device_of(want['remote']))}/state"
    write_text(state, "-writemostly")
    write_text(state, "writemostly")
    if not note_order():
        _set(want, {"write_behind": 0})


def _limit_alone(want):
    """Let no write be behind from the first moment on in which a remote leg is in, if loops keep no order; the local leg is alone."""
    array = _array(want)
    if note_order() or not int(read_text(_md(array, _SETTINGS["write_behind"]))):
        return
    state = f"{_member(array, device_of(want['local']))}/state"
    write_text(state, "writemostly")  # md takes the limit only while it has such a leg
    try:
        _set(want, {"write_behind": 0})
    finally:
        write_text(state, "-writemostly")


def _stop(want, args):
    array = _array(want)
    run(["mdadm", "--stop", f"/dev/{array}"])
    wait_until(lambda: not read_text(_md(array, "array_state")) or read_text(_md(array, "array_state")) == "clear", 20, f"{array} to stop")
    local = device_of(want["local"])
    wait_until(lambda: holder_of(local) is None, 10, f"{array} to let {local} go")
    if load_record("devices", want["name"]):
        update_record(want, stopped=True if args.get("by_wish") else None)


def _forget(want, _args):
    forget_record("devices", want["name"])
    try:
        os.unlink(conf_file(want["name"]))
    except FileNotFoundError:
        pass
