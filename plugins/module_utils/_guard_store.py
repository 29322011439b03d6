# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""One store as the guard sees it: commits with a deadline, legs taken out when it fails, and the way back."""

from __future__ import annotations

import os
import threading
import time

from . import _capacity, _cleaner, _leg, _md_act, _nilfs_volume, _owner, _swap
from ._catalogue import mount_of
from ._core import RUN_DIR, Locked, Problem, converge, host_lock, human_size, is_locked, list_records, load_record, parse_period, wait_for
from ._guard_device import STUCK, DeviceWatch, Progress, completed
from ._guard_room import RoomWatch
from ._host_config import is_ours
from ._link import Link
from ._loop import detach as detach_loop
from ._loop import loops
from ._md import PHASE_ADOPTING
from ._md_super import read_super as read_leg_super
from ._mount import mount_at, mounts_of, users_of
from ._nilfs import Volume, attribute, read_super
from ._snapshots import end_stale, is_stale

LEAVING = f"{RUN_DIR}/leaving"  # a file that is there from the moment at shutdown from which nothing may be brought back
_MANY = 16384  # dirty blocks (64 MiB of 4 KiB) that are committed without waiting for the interval
_RENEW, _GLANCE = 5, 1  # seconds
_RETRY_FIRST, _RETRY_LAST = 1, 60  # seconds between attempts to bring legs back
_STALL = 10  # seconds without a copy after which a heal has stopped
_QUICK = 0.05  # seconds; a commit that takes longer is looked at often
_FORGET = 3600  # seconds between looks at what the history that is no more had protected
_IDLE = 5  # seconds between looks whether there is anything to bring back
_CUT_SHORT = 2  # heals of a device that end after a short silence of the link; from then on they have until the deadline, or none would be completed
_LOOK_FOR_ROOM = 5  # seconds between looks whether a full store has room again
_CALM = 30  # seconds for which a healed leg has to stay in until attempts are quick again, and a store has to be well until it fails anew


def next_pause(pause, calm):
    """Seconds (float) until the attempt after this one. Pure: pause is the last one, calm the seconds that the legs had stayed in before."""
    return _RETRY_FIRST if calm >= _CALM or not pause else min(_RETRY_LAST, pause * 2)


def _is_async(device):
    """Whether its application may count on a short wait: also while a leg that just came in still takes part in every fsync, but not if it has no other."""
    return not device.is_last and "async" in (device.mode, device.device["replication"])


class StoreWatch:
    """One store (a dict of the Config) and its devices in the guard. say(level, sentence) writes to the journal."""

    def __init__(self, store, devices, say):
        self.store, self.name, self.say = store, store["name"], say
        self.devices = [DeviceWatch(device) for device in devices]
        self.link = Link(store)
        self.room = RoomWatch(store, say)
        self.disk = None
        self._given_up = set()  # names of the devices of which it was said that their heal stopped
        self.stale = False  # whether its volume has to be mounted anew, see _snapshots
        self.progress = Progress()
        self.problem = None  # what keeps the legs out, a sentence
        self.neighbours = []  # the watches of other stores that are reached through the same session
        self.endured = None  # the devices that run from their remote legs alone while the store fails, and when it was last seen to
        self.pause, self.next_try, self.joined = 0, 0.0, None
        self.busy = self.ending = None  # the threads that bring legs back, and that note the end of a heal
        self.sound = None  # the newest checkpoint (int) of a time in which loops kept the order of writes
        self.even = None  # since when (monotonic) the LUN may lack something
        # of the commit: when the one under way began, when the last good one began (monotonic), its checkpoint, duration, wall time
        self.began = self.good = self.checkpoint = self.took = self.wall = None
        self.error = None
        self.last_start = self.renewed = self.glanced = 0.0
        self.forgot, self.closed, self.hastened = None, False, False
        # whether the link was cut when that was asked last, when that was, and what the disk had completed until then
        self.cut, self.asked, self.done = False, 0.0, None
        self._dirty = 0  # blocks, when it was last asked for
        self._lock, self._go, self._worker, self._force = threading.Lock(), threading.Event(), None, False

    # -- commits: in a thread, because nothing can end one that hangs, and even to ask what is dirty waits for a log that is being written ------

    def commit(self, now, force=False):
        """Have what is dirty committed, if it is time; with force in any case. Nothing happens while a commit is under way."""
        with self._lock:
            if self.began is not None:
                return
            self.began = now
        self._force = force
        if self._worker is None:
            self._worker = threading.Thread(target=self._commits, daemon=True)
            self._worker.start()
        self._go.set()

    def _commits(self):
        while self._go.wait() and not self.closed:
            self._go.clear()
            began, number, error, arrived = self.began, None, None, self.room.mark()
            try:
                disk = self.link.disk() if began - self.renewed >= _RENEW else None  # asked anew: what was just given up is left alone
                if disk:
                    self.renewed = began
                    _owner.renew(f"/dev/{disk}")  # the target may have forgotten it, and another host may have taken the store over
                self.room.learn(self.disk)
                if self._is_due(began):
                    self.last_start = began
                    with Volume(self.store["mount"]) as volume:
                        number = volume.sync()
            except (Problem, OSError) as problem:
                error = str(problem)
            with self._lock:
                self.began = None
                if error:
                    self.error = error
                    continue
                if number or not self._dirty:
                    self.even = began
                    self.room.committed(arrived)
                if number:
                    self.error, self.good, self.checkpoint, self.wall = None, began, number, time.time()
                    self.took = time.monotonic() - began

    def _is_due(self, began):
        if self._force:
            return True
        since = began - self.last_start
        wanted = any(device.is_in and (device.gate.wants_commit() or device.healing or device.is_unsettled) for device in self.devices)
        if since >= self.store["commit_interval"] and wanted:
            return True
        text = attribute(f"/dev/{self.disk}", "segctor/dirty_data_blocks_count") if self.disk else None
        dirty = self._dirty = int(text) if text and text.isdigit() else 0
        return dirty > _MANY or (dirty > 0 and since >= self.store["commit_interval"])

    def close(self):
        """End the threads: another watch takes over."""
        self.closed = True
        self._go.set()

    # -- every tick ------------------------------------------------------------------------------------------------------------

    def tick(self, now):
        """Watch, commit, and begin to bring legs back. Returns True while something is under way that has to be looked at often."""
        joined = [device for device in self.devices if device.is_in and not device.failing]
        last = [device for device in self.devices if device.is_last]
        broken_for = self.link.broken(now)
        if self.room.look(now, self.disk, [device.remote for device in joined]):
            leaving, joined = [device for device in joined if device not in last], [device for device in joined if device in last]
            if leaving:
                self.leave(leaving, now)
            self._endure(last, "it is full but for a reserve", now)
        if self.stale and joined and not last and not self.busy:
            self.say(5, f"store {self.name}: its volume is mounted anew, so that another checkpoint can be opened")
            self._let_go(joined, cleanly=True)
            joined, self.next_try = [], now
        broken = [device for device in self.devices if device.state == "faulty" and not device.failing and not device.failed]
        taken = [device for device in broken if device.is_taken_out]
        if len(broken) > len(taken) and not self.busy:  # seen by nobody until now, such as while there was no guard
            self.fail(f"md took the remote leg of {next(device.name for device in broken if device not in taken)} out after an error", now)
        elif any(device.state == "faulty" for device in taken) and not is_locked():  # whoever began that did not live to end it; the store is well
            self._let_go([device for device in taken if device.state == "faulty"])
        stuck = self.progress.stuck(self.disk, now)
        committing = now - self.began if self.began is not None else 0.0
        # every glance at a device costs; once a second will do while the disk answers
        close = stuck > 0 or broken_for > 0 or committing > _QUICK or now - self.glanced >= _GLANCE
        if joined and (close or self.error):
            self.glanced = now
            why = self._judge(joined, now, stuck, committing, broken_for)
            if why:
                self.fail(why, now)
            else:
                self._keep(joined, now)
        elif joined or (self.disk and not stuck and now - self.renewed >= _RENEW):  # whoever knocks has to find out that this host lives
            self.commit(now)
        if joined and self.store.get("keep") and (self.forgot is None or now - self.forgot >= _FORGET):
            self.forgot = now
            threading.Thread(target=self._forget, daemon=True).start()
        silent = stuck > STUCK or self._is_cut(joined, now)
        if (silent and not last and (self.hastened or not self._is_shared())) != self.hastened:
            self.hastened = not self.hastened
            self.link.hasten(*self.haste)
        apart = [device for device in self.devices if device not in joined] if stuck > STUCK else []
        held = any(device.held_up(now) > self._patience(device) for device in apart)
        # since Linux 6.7 a device takes no write while md attaches a leg, and does not show that one waits
        held = held or (any(_is_async(device) and device.is_unfinished() for device in apart) and is_locked() and self.link.is_unanswered())
        if (held or stuck > self.store["commit_deadline"]) and not last and not self._is_shared():
            self.link.abort()  # whatever waits there, also an attempt to bring legs back, during which md may keep the application waiting
        if self.busy and not self.busy.is_alive():
            self.busy = None
        wanted = not self.disk or (self.stale and not last) or any(device.state in ("out", "faulty") and not device.failing for device in self.devices)
        if wanted and not self.busy and now >= self.next_try:
            self.busy = threading.Thread(target=self._join, args=(now,), daemon=True)
            self.busy.start()
        elif not wanted and not self.busy and joined and len(joined) == len(self.devices):
            self._is_well()  # also when it was somebody else who brought the legs back
        return stuck > 0 or broken_for > 0 or committing > _QUICK or bool(self.busy) or (bool(joined) and self.room.is_near)

    def _judge(self, joined, now, stuck, committing, broken_for):
        """Why the legs have to be taken out now, or None."""
        deadline = self.store["commit_deadline"]
        if self.error:
            return self.error
        if committing > deadline:
            return f"a commit has not ended within {deadline} seconds"
        # before anything waits for it: then nothing could end the wait but the replacement timeout
        if broken_for > STUCK and any(_is_async(device) for device in joined):
            return f"its session has been broken for {broken_for:.1f} seconds"
        silent = None
        for device in joined:
            device.look_again()
            if device.state == "faulty" and not device.is_taken_out:
                return f"md took the remote leg of {device.name} out after an error"
            held, waits = device.held_up(now), device.waits(now)
            if held > self._patience(device) and stuck > STUCK:
                return f"the disk has not answered for {stuck:.1f} seconds and {device.name} waits for it"
            if held > deadline:
                return f"{device.name} has waited for it for {held:.1f} seconds"
            # what waits for a copy under way is not counted by the kernel
            hidden = device.state == "recovering" and device.cut_short < _CUT_SHORT
            if (waits > STUCK or hidden) and stuck > STUCK and _is_async(device):
                silent = silent or (device, waits > STUCK)
        if silent and self.link.is_unanswered():
            device, waits = silent
            device.cut_short += not waits
            return f"its link does not answer, and {device.name} {'waits for it' if waits else 'is being healed'}"
        return None

    def _is_cut(self, joined, now):
        """Whether the link of a disk that completes nothing does not answer, and an async device has its leg there; found out once a second.

        Not even noops are answered then. Who begins to wait for the disk just before they give up must not wait for the replacement timeout as well.
        """
        if now - self.asked >= _GLANCE:
            before, self.asked, self.done = self.done, now, completed(self.disk)
            self.cut = self.done == before and any(_is_async(device) for device in joined) and self.link.is_unanswered(1)
        return self.cut

    @property
    def grace(self):
        """Seconds from when the disk fell silent until a session that is found to be broken has to fail what waits; 0: at once.

        What is left of the time until an application may wait no more is too short for the kernel's timer, which knows whole seconds.
        """
        return 0 if any(_is_async(device) for device in self.devices) else self.store["commit_deadline"]

    @property
    def haste(self):
        """Whether what waits for the session has to fail soon when it breaks, for any store that is reached through it, and by when, as grace says."""
        hastened = [watch for watch in [self] + self.neighbours if watch.hastened]
        return bool(hastened), min((watch.grace for watch in hastened), default=self.grace)

    def _patience(self, device):
        """Seconds that an application may wait for a disk that does not answer."""
        return STUCK if _is_async(device) else self.store["commit_deadline"]

    def _keep(self, joined, now):
        """Commit what is due, let bitmaps forget, and see heals end."""
        self.commit(now)
        for device in joined:
            device.watch_gate(now, self.good)
            if device.healing and device.is_idle and not (self.ending and self.ending.is_alive()):
                self.ending = threading.Thread(target=self._end_heal, args=(device,), daemon=True)
                self.ending.start()
            elif device.has_stopped(now) > _STALL and not is_locked():
                self._give_up_heal(device, now)
            else:
                device.settle_mode(self.good)

    def _give_up_heal(self, device, now):
        """Take a leg out that md has stopped to bring up to date, and try again later."""
        self.pause = next_pause(self.pause, 0)
        self.next_try = now + self.pause
        why = (f"the heal of {device.name} stopped before its end, as when a part of {device.device['local']} cannot be read; see what the kernel says of its "
               "disk")
        if device.name not in self._given_up:
            self._given_up.add(device.name)
            self.say(3, f"store {self.name}: {why}. It is tried again")
        self.problem, device.idle_since = why, None
        self._let_go([device])

    def _end_heal(self, device):
        try:
            with host_lock(5):
                if not _md_act.is_healed(device.want):  # whoever held the lock may have begun something else with it
                    return
                note = _md_act.finish_attach(device.want)
            device.healing, device.cut_short = False, 0
            self.joined = time.monotonic()
            self._given_up.discard(device.name)
            if note:
                self.say(5, f"device {device.name}: both legs are equal again ({note['kind']}, {note['copied_bytes']} bytes copied in "
                            f"{note['seconds']} seconds)")
        except (Problem, OSError):
            pass  # the store failed just now, or a run of Ansible goes first: the next tick sees that

    def _forget(self):
        try:
            with host_lock(5):
                _cleaner.forget(self.store["mount"], parse_period(self.store["keep"]))
        except (Problem, OSError):
            self.forgot = time.monotonic() - _FORGET + 60  # a run of Ansible goes first, or the store failed just now

    def fail(self, why, now):
        """Take all legs on this store out, but for those without which there would be no data."""
        for device in self.devices:
            device.look_again()
        last = [device for device in self.devices if device.is_last]
        hurt = [device for device in self.devices
                if device.state in ("attached", "recovering", "faulty") and not device.failing and device not in last]
        self._let_go(hurt)
        if not self.room.is_full and not last and not self._is_shared():  # when it is full the disk is well, and it is nilfs2 that refused
            self.link.abort()
        self.error = None
        self._endure(last, why, now)
        if hurt or not last:
            self.pause = next_pause(self.pause, now - self.joined if self.joined else 0)
            self.next_try = now + self.pause
        if hurt:
            names = ", ".join(device.name for device in hurt)
            self.problem = why
            self.say(4, f"store {self.name}: {why}; took the remote {'leg' if len(hurt) == 1 else 'legs'} of {names} out; "
                        f"{'it runs' if len(hurt) == 1 else 'they run'} on from the local one")

    def _is_shared(self):
        """Whether the session has to be left alone, because another store that is reached through it has the only whole leg of a device."""
        if any(device.is_last for watch in self.neighbours for device in watch.devices):
            return True
        known = [device.name for watch in [self] + self.neighbours for device in watch.devices]
        for name in list_records("devices"):
            try:
                record = load_record("devices", name) if name not in known else {}
            except Problem:  # the disk of the records may have failed as well; a connection that is dead is given up all the same
                continue
            if record.get("phase") == PHASE_ADOPTING:  # of a store that the configuration does not name yet
                mount = mount_of(record.get("remote") or "/")
                if mount and self.link.reaches(os.path.basename(os.path.realpath(mount.source))):
                    return True
        return False

    def _endure(self, last, why, now):
        """Say, once until the store is well for a while, that legs stay in whatever happens, because their devices have no other."""
        if not last:
            return
        names, before = ", ".join(device.name for device in last), self.endured
        self.endured = (names, now)
        if not before or before[0] != names or now - before[1] >= _CALM:
            they = "runs from its remote leg alone, which stays" if len(last) == 1 else "run from their remote legs alone, which stay"
            self.say(3, f"store {self.name}: {why}; {names} {they} in")

    def doubt(self, device, now):
        """Have a leg healed whose writes may have overtaken each other: the bitmap still lists all that was written since the commits before."""
        self.say(4, f"device {device.name}: the cgroup controller io is in use, so that a loop may carry writes out in another order; its remote leg is taken "
                    "out and healed, and each write waits for it from then on")
        self._let_go([device], first=self.sound + 1 if self.sound else None)
        self.next_try = now

    def _let_go(self, devices, cleanly=False, first=None):
        """Begin to take legs out; cleanly: nothing has failed, so what they hold is committed. first: the checkpoint from which on it is not whole."""
        first = first or (self.checkpoint + 1 if self.checkpoint else None)
        for device in devices:
            device.healing, device.failed = False, not cleanly
            device.failing = threading.Thread(target=self._fail_one, args=(device, first, cleanly), daemon=True)
            device.failing.start()

    def leave(self, joined, now):
        """Take the legs out because the store has no room for what may come next; the volume stays as it is."""
        self._let_go(joined, cleanly=True)
        names, free = ", ".join(device.name for device in joined), human_size(self.room.usage.clean * self.room.usage.segment)
        legs, they = (f"leg of {names} is", "it runs") if len(joined) == 1 else (f"legs of {names} are", "they run")
        self.problem = f"it is full but for a reserve of {free}, so the remote {legs} out"
        self.next_try = now + _LOOK_FOR_ROOM
        self.room.note_out()
        self.say(3, f"store {self.name}: {self.problem}; {they} on from the local one, and its history stays. To have them back: {_capacity.WAY_OUT}")

    def _fail_one(self, device, first, cleanly):
        try:
            (device.leave if cleanly else device.fail)(first)
        except (Problem, OSError) as problem:
            self.say(4, f"device {device.name}: {problem}")
        finally:
            device.failing = None
            device.look_again()

    # -- the way back ----------------------------------------------------------------------------------------------------------

    def _join(self, now):
        """Bring the store and then the legs back; in a thread, under the lock of the host."""
        try:
            devices, problems = self._wanting()
            if devices and self.room.usage and not self.stale and not self._with_room(devices):
                self.next_try = now + _LOOK_FOR_ROOM
                return
            if any(device.failing for device in self.devices):
                self.next_try = now + 1
                return
            # a store is brought also when no device wants it, for its history and for whoever asks whether its owner lives
            if not self._is_wanted(devices):
                self.next_try = now + _IDLE
                if problems:
                    raise Problem("; ".join(problems))
                if any(device.is_in for device in self.devices):
                    self._is_well()
                return
            self.link.ensure()
            # whoever acts on another store must not wait for this one
            began, deadline = self.began, self.store["commit_deadline"]
            if began is not None and time.monotonic() - began > deadline:
                raise Problem(f"its disk does not answer: a commit has not ended within {deadline} seconds")
            with host_lock(5):
                devices, problems = self._wanting()  # whoever held the lock may have taken a leg out by wish
                if not self._is_wanted(devices):
                    self.next_try = now + _IDLE
                    return
                self._bring_store()
                fitting = self._with_room(devices)
                for device in fitting:
                    try:
                        self._bring_leg(device)
                    except Problem as problem:  # which keeps no other device out
                        problems.append(str(problem))
            self.joined = time.monotonic()
            if problems:
                raise Problem("; ".join(problems))
            if len(fitting) < len(devices):
                self.next_try = time.monotonic() + _LOOK_FOR_ROOM
                return
            if devices:
                self._is_well()
            self.problem = None
        except Locked:
            self.next_try = time.monotonic() + _RETRY_FIRST
        except (Problem, OSError) as problem:
            self.pause = next_pause(self.pause, 0)
            self.next_try = time.monotonic() + self.pause
            if str(problem) != self.problem:
                self.problem = str(problem)
                self.say(4, f"store {self.name}: {problem}; trying again")

    def _is_well(self):
        """All legs are in that are wanted in."""
        self.room.note_in()
        self.problem = None

    def _wanting(self):
        """The devices that run and want their remote legs back (list), and why that cannot be told of others (list of str)."""
        devices, problems = [], []
        for device in self.devices:
            device.look()
            try:
                if device.state in ("out", "faulty") and is_ours(device.device) and not load_record("devices", device.name).get("detached"):
                    devices.append(device)
            except Problem as problem:
                problems.append(str(problem))
        return devices, problems

    def _is_wanted(self, devices):
        """Whether there is anything to bring: legs of these devices, or the store itself. Raises Problem when they want one that is out of use."""
        if self.closed or os.path.exists(LEAVING) or (not devices and self.link.disk() and not self.stale):
            return False
        if mount_at(self.store["mount"]) or _nilfs_volume.is_used(load_record("stores", self.name)):
            return True
        if devices:
            raise Problem("it was unmounted or given up on purpose, and stays so until the playbook indestructible.block.site is run")
        return False

    def _with_room(self, devices):
        """Those of the devices whose legs the store has room for, the smallest first. That others have none is said once."""
        fitting, total = [], 0
        sizes = {device.name: _capacity.to_copy(read_leg_super(device.device["local"]), load_record("devices", device.name)) for device in devices}
        for device in sorted(devices, key=lambda device: sizes[device.name]):
            if self.room.has_room(total + sizes[device.name]):
                fitting.append(device)
                total += sizes[device.name]
        kept = [device for device in devices if device not in fitting]
        if kept:
            names = ", ".join(device.name for device in kept)
            why = f"{self.room.no_room(total + sizes[kept[0].name])} (out: {names})"
            if self.room.note_out():
                self.say(3, f"store {self.name}: {why}")
            self.problem = why
        return fitting

    def _bring_store(self):
        """See that the volume is mounted and takes a commit; mounted anew when it is broken or its disk has gone."""
        point = self.store["mount"]
        mount, disk = mount_at(point), self.disk
        # what main thread and users do meanwhile changes nothing of this; a leg that is still in is let go first
        self.stale = renew = self.may_renew() and not any(device.is_in for device in self.devices)
        if mount and self.link.disk():
            try:
                _owner.renew(f"/dev/{self.link.disk()}")
            except _owner.Owned:
                self._give_up(point)
                raise
        if mount and (not self.link.disk() or renew or "ro" in mount.super_options or (self.pause > 2 * _RETRY_FIRST and not self._answers())):
            last = ", ".join(device.name for device in self.devices if device.is_last)
            if last:
                raise Problem(f"its volume is broken, and is not mounted again because of what runs from its remote leg alone ({last})")
            if not renew:
                self.say(5, f"store {self.name}: its volume is broken and is mounted again")
            try:
                self._clear()
                _nilfs_volume.take_down(self.name, point)
                mount = None
            except Problem as problem:
                if not renew:
                    raise
                self.say(4, f"store {self.name}: its volume could not be mounted anew, and goes on as it is: {problem}")
                _cleaner.resume(self.name)
                end_stale(disk)  # it works, but for another checkpoint
        if not mount:
            _swap.finish(self.store)
            mount = mount_at(point)
        if not mount:
            record = load_record("stores", self.name)
            device = self.store["device"] or (f"/dev/{self.link.unit()}" if self.link.unit() else None)
            found = read_super(device) if device and os.path.exists(device) else None
            if found is None or found.uuid != record.get("uuid"):
                raise Problem(f"{device or 'its disk'} holds {'the volume ' + found.uuid if found else 'no nilfs2 volume'} and not the one of this store "
                              f"({record.get('uuid')})")
            want = _nilfs_volume.normalize({"name": self.name, "label": self.store["label"], "mount": point, "device": device,
                                            "block_size": found.block_size, "reserved": self.store["reserved"],
                                            "keep": self.store.get("keep")})
            converge([want], _nilfs_volume.observe, _nilfs_volume.plan, _nilfs_volume.perform, _nilfs_volume.predict)
        self.disk, self.stale = self.link.disk(), False
        if renew and self.disk and is_stale(self.disk):  # somebody has a mount of it that cannot be seen from here
            end_stale(self.disk)
        self.room.refresh(self.disk)
        self.renewed = 0.0  # a new login has to be registered before anything is written
        if not self._answers():
            raise Problem(f"its volume takes no commit ({self.error or 'none ended in time'})")

    def may_renew(self):
        """Whether its volume has to be mounted anew for the sake of a checkpoint, and can be without anybody's harm."""
        disk = self.disk
        if not disk or not is_stale(disk) or any(device.is_last for device in self.devices) or len(mounts_of(f"/dev/{disk}")) > 1:
            return False
        own = ("nilfs_cleanerd", f"(pid {os.getpid()})")
        return not [user for user in users_of(self.store["mount"]) if not user.startswith(own[0]) and own[1] not in user]

    def _give_up(self, point):
        """Unmount a volume that another host owns by now, so that nothing of here is written to it, whatever becomes of the reservation."""
        if any(device.is_last for device in self.devices):
            return
        try:
            self._clear()
            _nilfs_volume.take_down(self.name, point)
            self.say(4, f"store {self.name}: another host owns it, so it was unmounted")
        except Problem as problem:
            self.say(4, f"store {self.name}: another host owns it, and it cannot be unmounted: {problem}")

    def _answers(self):
        """Whether the volume takes a commit within the deadline."""
        began = time.monotonic()
        self.error = None

        def told():
            if self.began is not None:
                return False
            if self.error or (self.good or 0) >= began:
                return True
            self.commit(time.monotonic(), force=True)
            return False
        wait_for(told, self.store["commit_deadline"])
        return self.error is None and (self.good or 0) >= began

    def _clear(self):
        """Take the loops off the volume, so that it can be unmounted."""
        for device in self.devices:
            if device.state == "faulty":
                _md_act.remove_remote(device.want, 20)
        prefix = self.store["mount"] + "/"
        for loop in loops():
            if loop.backing.startswith(prefix):
                detach_loop(loop.device)

    def _bring_leg(self, device):
        """Attach the remote leg of a device and put it into its mode."""
        _leg.bring(device.device)
        device.look()
        device.healing = device.is_in
        self.say(5, f"device {device.name}: its remote leg is back and takes what changed meanwhile")
        device.set_mode()
