# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The guard: a service that watches the stores and devices of this host, takes failing legs out and brings them back."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time

from . import _host_config, _lifecycle
from ._core import GUARD_STATE, RUN_DIR, Locked, Problem, guard_told, is_locked, run
from ._generations import place_of
from ._guard_store import StoreWatch
from ._local_room import LocalRooms
from ._loop import keep_order, loops, note_order
from ._metrics import metrics
from ._snapshots import Keeper, see

METRICS_DIR = "/run/indestructible-metrics"  # apart from RUN_DIR, which is for root alone
METRICS = f"{METRICS_DIR}/indestructible.prom"
_METRICS = 5.0  # seconds
_TICK, _BUSY_TICK, _LOOK = 0.25, 0.1, 5.0  # seconds


def notify(text, *numbers):
    """Tell systemd, when it started this (sd_notify), and give it descriptors (numbers) to keep for the next process."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.connect("\0" + path[1:] if path.startswith("@") else path)
            socket.send_fds(channel, [text.encode()], numbers)
        except OSError:
            pass  # without an answer systemd starts the guard again


def inherited(name):
    """The descriptor (int) that an earlier process gave systemd under a name, or None."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":") if os.environ.get("LISTEN_PID") == str(os.getpid()) else []
    return 3 + names.index(name) if name in names else None


def _program():
    """What changes when this very program is replaced; None when it is gone."""
    try:
        about = os.stat(sys.argv[0])
    except OSError:
        return None
    return (about.st_ino, about.st_mtime_ns)


class Guard:
    """The service. say(level, sentence) writes to the journal; run() returns after stop()."""

    def __init__(self, say):
        self.say = say
        self.stores, self.config, self.started = [], None, False
        self._stop = threading.Event()
        self._looked = self._published = self._measured = 0.0
        self._unsettled = False  # whether the moves of stores have to be looked at
        self._ordered = self._starter = self._keeper = None
        self._local = LocalRooms(say)
        self._told = {}  # what was said last of what is wrong with something, a sentence
        self._program = _program()

    def stop(self, *_ignored):
        """End run(), from a signal handler."""
        self._stop.set()

    def run(self):
        """Watch until stop(), or until the program is replaced, for the run that replaced it may not live to start the guard anew; systemd does."""
        self._keeper = Keeper(inherited("snapshots"))
        notify("FDSTORE=1\nFDNAME=snapshots", self._keeper.number)
        self._load()
        notify("READY=1")
        while not self._stop.is_set():
            now = time.monotonic()
            if _host_config.stamp() != (self.config.stamp if self.config else None):
                self._load()
            if now - self._looked >= _LOOK or (now - self._published >= 1 and keep_order() != self._ordered):
                self._look(now)
            if self._keeper.tick():
                self._published = 0.0
            busy = False
            for store in self.stores:
                try:
                    busy = store.tick(now) or busy
                    self._once(f"store {store.name}")
                except (Problem, OSError) as problem:  # which keeps no other store from being watched
                    self._once(f"store {store.name}", f"store {store.name}: {problem}")
            if now - self._published >= 1:
                self._published = now
                try:
                    self._publish(now)
                    self._once("what it tells")
                except OSError as error:  # nobody is told, but all is watched
                    self._once("what it tells", f"what is known of the stores cannot be written down: {error}")
                notify("WATCHDOG=1")
                if _program() not in (None, self._program):
                    self.say(5, "the command was replaced, so the guard starts anew")
                    break
            self._stop.wait(_BUSY_TICK if busy else _TICK)
        for store in self.stores:
            store.room.end()

    def _once(self, about, sentence=None):
        """Say what is wrong with something, once until it is another thing; without a sentence it is well."""
        if sentence and sentence != self._told.get(about):
            self.say(4, sentence)
        self._told[about] = sentence

    def _load(self):
        old = {store.name: store for store in self.stores}
        try:
            config, watches = _host_config.load(), []
            for store in config.stores.values():
                devices = [device for device in config.devices.values() if device["store"] == store["name"]]
                before = old.get(store["name"])
                same = before and (before.store, [device.device for device in before.devices]) == (store, devices)
                watches.append(before if same else StoreWatch(store, devices, self.say))
        except (Problem, KeyError, TypeError, ValueError) as problem:
            said = str(problem) if isinstance(problem, Problem) else f"{_host_config.PATH} is not usable ({problem!r}); run indestructible.block.site"
            self._once("the configuration", f"{said}. {'It goes on as before' if self.config else 'Until then nothing is guarded'}")
            return
        self._once("the configuration")
        self.config, self._unsettled, self.stores = config, True, watches
        before_us = {} if self.started else guard_told()
        for watch in watches:
            before, store = old.pop(watch.name, None), watch.store
            if before is watch:
                continue
            if before:  # what the commits have shown stays known
                before.close()
            if before and place_of(before.store) == place_of(store):
                watch.good, watch.checkpoint, watch.wall, watch.took = before.good, before.checkpoint, before.wall, before.took
                watch.room, watch.room.store = before.room, store
        for gone in old.values():
            gone.close()
        for store in self.stores:
            store.neighbours = [other for other in self.stores if other is not store and store.store["target"]
                                and all(other.store[key] == store.store[key] for key in ("portal", "target"))]
        for store in self.stores:
            store.sound = store.sound or before_us.get("stores", {}).get(store.name, {}).get("checkpoint")
        self._look(time.monotonic())
        if not self.started:
            self.started = True
            for store in self.stores:
                # md took a leg out while nobody watched: only what a guard committed before is known to be whole
                if any(device.state == "faulty" for device in store.devices):
                    store.checkpoint = before_us.get("stores", {}).get(store.name, {}).get("checkpoint")

    def _look(self, now):
        """What costs more than a glance: find arrays and loops, and put every leg into its mode."""
        self._looked = now
        try:
            self._look_around(now)
            self._once("loops and arrays")
        except (Problem, OSError) as problem:  # what is known of them still has to be watched
            self._once("loops and arrays", f"not all of the loops and arrays can be looked at: {problem}")

    def _look_around(self, now):
        self._ordered = note_order()
        if self._unsettled:
            with contextlib.suppress(Problem, OSError):  # a run of Ansible goes first; at the next look
                _host_config.settle_moves()
                self._unsettled = False
        known = loops()
        for store in self.stores:
            store.disk = store.link.disk()
            if store.disk:
                with contextlib.suppress(Problem):  # at the next look; and whoever opens a checkpoint sees for himself
                    see(store.disk, wait=False)
            store.stale = store.may_renew()
            store.link.look_up(*store.haste)
            if self._ordered:
                store.sound = store.checkpoint or store.sound
            for device in store.devices:
                if device.failing:
                    continue
                was = device.state
                try:
                    device.look(known)
                    if device.is_in and not store.busy and not store.hastened:  # to set a mode may wait for a disk that is silent
                        # also one that somebody else brought in, and did not live to see healed
                        if was not in ("attached", "recovering") or device.is_unfinished():
                            device.healing = True
                        said = device.set_mode()
                        if said:
                            self.say(5, said)
                        if device.may_overtake() and not is_locked():
                            store.doubt(device, now)
                    self._once(f"device {device.name}")
                except (Problem, OSError) as problem:
                    self._once(f"device {device.name}", f"device {device.name}: {problem}")
                try:
                    lost = device.note_alone()
                    if lost:
                        self.say(3, lost)
                    self._once(f"record {device.name}")
                except (Problem, OSError) as problem:  # the disk of the records may be the one that failed
                    self._once(f"record {device.name}", f"device {device.name}: that it runs from its remote leg alone cannot be noted: {problem}")
        # one that runs from its remote leg alone takes no more of the room below the local one
        self._local.look({device.name: device.device["local"] for store in self.stores for device in store.devices if not device.is_last})
        if self.config and _lifecycle.late() and not (self._starter and self._starter.is_alive()):
            self._starter = threading.Thread(target=self._start_late, args=(self.config,), daemon=True)
            self._starter.start()

    def _start_late(self, config):
        """Start the devices whose local legs have come since the boot, and mount their file systems; in a thread, for both may take a while.

        Once all run, the unit that starts them counts as started too, for else systemd would not stop them at shutdown.
        """
        for name in _lifecycle.late():
            try:
                device = _lifecycle.start_late(config, name)
                if device:
                    points = _lifecycle.mount(device)
                    mounted = f", and {', '.join(points)} mounted" if points else ""
                    self.say(5, f"device {name}: it could not be started at boot; now it was started from its local leg{mounted}")
                self._once(f"late {name}")
            except Locked:
                pass  # a run of Ansible goes first
            except (Problem, OSError) as problem:
                self._once(f"late {name}", f"device {name}: {problem}")
        if not _lifecycle.late():
            try:
                run(["systemctl", "start", _lifecycle.UNIT], timeout=60)
            except Problem as problem:
                self.say(4, str(problem))

    def _publish(self, now):
        """Write down how far behind the stores are, for whoever asks; in memory, a moment old."""
        stores = {store.name: {
            "checkpoint": store.checkpoint, "commit_time": store.wall, "commit_seconds": store.took and round(store.took, 3),
            "lag_seconds": round(now - store.even, 1) if store.even and any(device.is_in for device in store.devices) else None,
            "capacity": store.room.public(), "problem": store.problem, "next_try_seconds": round(store.next_try - now, 1) if store.next_try > now else None,
        } for store in self.stores}
        devices = {device.name: {"replication": device.mode, "state": device.state, "store": store.name, "local_room": self._local.public(device.name)}
                   for store in self.stores for device in store.devices}
        os.makedirs(RUN_DIR, mode=0o700, exist_ok=True)
        with open(f"{GUARD_STATE}.new", "w", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 1), "stores": stores, "devices": devices,
                                   "kept": self._keeper.kept if self._keeper else {}}))
        os.replace(f"{GUARD_STATE}.new", GUARD_STATE)
        if now - self._measured >= _METRICS:
            self._measured = now
            os.makedirs(METRICS_DIR, mode=0o755, exist_ok=True)
            os.chmod(METRICS_DIR, 0o755)  # whatever the umask: it is for whoever collects
            with open(f"{METRICS}.new", "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(metrics(stores, devices))
            os.replace(f"{METRICS}.new", METRICS)
