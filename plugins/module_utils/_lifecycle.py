# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Devices at boot and at shutdown, and what is done when nobody guards them."""

from __future__ import annotations

import contextlib
import os
import time

from . import _cleaner, _loopfile, _md, _md_act
from ._blank import find_use
from ._core import Locked, Problem, converge, host_lock, list_records, load_record, run, save_file, wait_until
from ._guard_store import LEAVING
from ._host_config import is_ours, late, mirror_of, note_late
from ._link import Link
from ._loop import detach as detach_loop
from ._loop import find as find_loop
from ._loop import loops, set_write_cache
from ._mount import mount_at, parse_fstab, read_fstab, try_unmount

UNIT = "indestructible-devices.service"  # runs start() and stop()


def start(config, say):
    """Start every device that is not running, from its local leg alone; the guard brings the remote legs. Returns how many failed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(LEAVING)  # of the shutdown before, when the kernel runs on (systemctl soft-reboot)
    failed = []
    note_late(config.devices)  # until each was tried, for boot does not wait for ever
    for device in config.devices.values():
        try:
            if is_ours(device) and start_one(device):
                say(6, f"device {device['name']}: started from its local leg")
        except (Problem, OSError) as problem:
            failed.append(device["name"])
            say(3, f"device {device['name']}: {problem}")
    note_late(failed)
    return len(failed)


def start_one(device, mixture=False):
    """Start one device of a Config from its local leg; returns whether there was anything to do. mixture: also one whose rollback was interrupted."""
    with host_lock(30):
        return _start_one(device, mixture)


def _start_one(device, mixture=False):
    want = dict(mirror_of(device, "detached"), mixture=mixture, passing=True)
    if _md.observe(want)["_activity"] in _md.LIVE:
        return False
    if not os.path.exists(device["local"]):
        raise Problem(f"its local leg {device['local']} is not there, so it does not run; it is started as soon as that leg appears")
    if device["local_kind"] == "file":
        files = _loopfile.normalize([{"path": device["local"]}])
        converge(files, _loopfile.observe, _loopfile.plan, _loopfile.perform, _loopfile.predict)
    state = _md.observe(want)
    if state["state"] != "stopped":
        raise Problem(f"its local leg {device['local']} is no leg of a device, so it does not run; see whether the right disk is there")
    want["size"] = state["size"] or want["size"]
    converge([want], _md.observe, _md.plan, _md_act.perform, _md.predict)
    return True


def start_late(config, name):
    """Start a device that late() names, as at boot; returns the dict of it when it was started just now, else None.

    Once it runs, whoever started it, or is out of use, it is late no more: one that a person stops later stays stopped.
    """
    with host_lock(5):
        device = config.devices.get(name)
        if name not in late() or os.path.exists(LEAVING):
            return None
        started = bool(device) and is_ours(device) and _start_one(device)
        note_late(other for other in late() if other != name)
        return device if started else None


def mount(device):
    """Mount what fstab says of a device, as systemd does at boot, where it has given up by now. Returns the mount points (list of str)."""
    points = [entry.point for entry in parse_fstab(read_fstab())
              if entry.source == device["path"] and entry.point.startswith("/") and "noauto" not in entry.options.split(",")]
    for point in points:
        run(["systemctl", "start", point], timeout=600)
    return points


def leave(config, say, seconds=20):
    """At shutdown, once file systems are unmounted (at most so many seconds are waited): commit, take the remote legs out, unmount the stores."""
    devices = []
    for device in config.devices.values():
        try:
            devices += [device] if is_ours(device) else []
        except Problem as problem:
            say(4, f"device {device['name']}: {problem}")
    with contextlib.suppress(Problem):
        wait_until(lambda: not any(find_use(device["path"]) for device in devices), seconds, "the file systems to be unmounted")
    save_file(LEAVING, "")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(host_lock(10))
        except Locked as problem:  # the system goes down all the same
            say(4, str(problem))
        for store in config.stores.values():
            if not mount_at(store["mount"]):
                continue
            for device in devices:
                if device["store"] == store["name"]:
                    _leave_one(device, say)
            prefix = store["mount"] + "/"
            try:
                for loop in loops():
                    if loop.backing.startswith(prefix):
                        detach_loop(loop.device)
            except Problem as problem:
                say(4, f"store {store['name']}: {problem}")
            with contextlib.suppress(Problem):
                _cleaner.stop(store["name"])
            # what cannot be unmounted now is not waited for: all that matters is on the LUN or in a bitmap
            if not try_unmount(store["mount"], 10):
                Link(store).abort()
            if mount_at(store["mount"]):  # or somebody uses it
                run(["umount", "--lazy", store["mount"]], ok=None, timeout=20)


def _leave_one(device, say):
    want = mirror_of(device, "detached")
    try:
        if _md.observe(want)["state"] == "local failed":  # its last leg is in the store
            _md_act.perform(want, _md.Step("stop", "", {}))
        elif _md_act.remote_state(want) in ("in sync", "recovering"):
            _md_act.perform(want, _md.Step("detach", "", {}))
    except Problem as problem:
        say(4, f"device {device['name']}: {problem}")


def stop(config, say, seconds=10):
    """Stop every device and detach its local loop, once they are free (for all of them so many seconds are waited).

    Returns how many could not be stopped: what still uses them ends with the kernel.
    """
    failed, end = 0, time.monotonic() + seconds
    note_late([])
    for device in config.devices.values():
        want = mirror_of(device, "stopped")
        try:
            with host_lock(30):
                state = _md.observe(want)
                if state["array"]:
                    with contextlib.suppress(Problem):  # whatever uses it is named by the stop below
                        wait_until(lambda array=state["array"]: not find_use(f"/dev/{array}"), end - time.monotonic(), "the device to be free")
                    _md_act.perform(want, _md.Step("stop", "", {}))
                loop = find_loop(device["local"]) if device["local_kind"] == "file" else None
                if loop:
                    detach_loop(loop)
        except Problem as problem:
            failed += 1
            say(4, f"device {device['name']}: {problem}")
    return failed


def make_safe(say):
    """Without a guard no leg stays behind: every flush reaches the remote again. Of devices of which there is a record, whatever the configuration is like."""
    remotes = {}
    for name in list_records("devices"):
        try:
            remotes[load_record("devices", name).get("remote")] = name
        except Problem as problem:
            say(4, str(problem))
    for loop in loops():
        name = remotes.get(loop.backing)
        if name and loop.write_cache != "write back":
            set_write_cache(loop.device, "write back")
            say(5, f"device {name}: nothing guards it, so its replication is sync for now")
