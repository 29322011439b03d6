# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""One device as the guard sees it: whether its remote leg holds the application up, which mode it runs in, and what its bitmap may forget.

The kernel's bitmap forgets a chunk some time after the last write to it, knowing nothing of the store's page cache. So the kernel is
told to wait for twenty days (_md.HELD), and the guard lets it make one pass at a time, each only after a commit that covers all that was written
before the pass before it. What is not on the LUN is therefore always listed on the local leg's disk, whatever happens to the guard.
"""

from __future__ import annotations

import os
import time

from ._core import Problem, load_record, read_text, write_text
from ._loop import keep_order, loops, set_write_cache
from ._md import HELD, UNDER_WAY, device_of, holder_of, members_of
from ._md_act import keep_listed, remove_remote, update_record
from ._nilfs import Volume

_LOOKS = 0.5  # seconds between two looks at most that count as without a gap
STUCK = 0.4  # seconds without any progress of a disk that holds the application up, after which the leg is taken out
_PASSES = 5  # passes until a chunk has left the disk: marked, cleared, written; one more for a write between, one for luck with the clock
_PASS_SECONDS = 0.05  # the kernel makes a pass as soon as it is allowed to


def numbers(path):
    """List of int of a sysfs file such as stat or inflight; empty when it cannot be read."""
    return [int(word) for word in (read_text(path) or "").split()]


def inflight_writes(name):
    """Writes under way to a block device (kernel name or None)."""
    found = numbers(f"/sys/class/block/{name}/inflight") if name else []
    return found[1] if len(found) > 1 else 0


def completed(name):
    """Requests that a block device (kernel name or None) has completed."""
    found = numbers(f"/sys/class/block/{name}/stat") if name else []
    return found[0] + found[4] if len(found) > 4 else 0


class Progress:
    """Since when a block device has had requests under way and completed none."""

    def __init__(self):
        self.name, self.done, self.since = None, None, None

    def stuck(self, name, now):
        """Seconds (float) without progress; 0.0 when nothing is under way. name is the kernel name, or None."""
        under_way = bool(name) and any(numbers(f"/sys/class/block/{name}/inflight"))
        done = completed(name) if under_way else None
        if not under_way or (name, done) != (self.name, self.done) or self.since is None:
            self.name, self.done, self.since = name, done, now if under_way else None
        return now - self.since if under_way else 0.0


class Gate:
    """When the bitmap of a device may make its next pass. Pure: times are monotonic seconds, what the kernel shows is given.

    begin(): whoever guarded before may have made one. passed(): a pass was made. Then remote(): requests to the remote leg of that moment are over; then
    commits that began later and succeeded open the gate again, once time_base seconds are over.
    """

    def __init__(self, time_base):
        self.time_base = time_base
        self.last, self.target, self.drained, self.open = None, None, None, False
        self.writes, self.left = None, 0

    def saw(self, writes):
        """Note the writes that the device has completed; new ones mean that passes are worth making."""
        if writes != self.writes:
            self.writes, self.left = writes, _PASSES

    @property
    def active(self):
        """Whether there is anything that the bitmap could forget."""
        return self.left > 0

    def begin(self, done, under_way):
        """What a guard before this one had marked may be forgotten by the first pass, so that needs a commit as well. Only the first call counts."""
        if self.target is None:
            self.target = done + under_way

    def passed(self, now, done, under_way):
        """A pass was made, when the remote leg had completed so many requests and so many were under way."""
        self.last, self.target, self.drained, self.open = now, done + under_way, None, False
        self.left -= 1

    def remote(self, now, done, under_way):
        """What the remote leg shows now."""
        if self.drained is None and self.target is not None and (done >= self.target or not under_way):
            self.drained = now

    def committed(self, began):
        """A commit that began then has succeeded."""
        if self.drained is not None and began >= self.drained:
            self.open = True

    def wants_commit(self):
        """Whether only a commit is missing for the next pass."""
        return self.active and self.drained is not None and not self.open

    def due(self, now):
        """Whether a pass may be made now."""
        return self.active and self.open and (self.last is None or now - self.last >= self.time_base)


class DeviceWatch:
    """One device (a dict of the Config) in the guard."""

    def __init__(self, device):
        self.device, self.name = device, device["name"]
        self.want = {key: device[key] for key in ("name", "local", "remote", "size")}
        self.gate = Gate(device["time_base"])
        self.array = self.remote = self.local = None  # kernel names: md127, loop1, and the local leg's device
        self.holder = None  # the array, also of a device that the guard leaves alone
        self.state = "stopped"
        self.is_last = False  # whether the remote leg is the only whole one, so that the data is there alone
        self.alone = None  # whether the record says that it is the last, as far as is known here
        self.idle_since = None  # since when (monotonic) md copies nothing, although the leg is not whole
        self.mode, self.settled, self.switched = None, False, time.monotonic()
        self.held = Progress()
        self.waiting = self.looked = None  # since when some write waits, and when that was seen last (monotonic)
        self.failing = None  # the thread that takes the leg out
        self.healing = self.failed = False  # failed: that md took the leg out after an error has been dealt with
        self.cut_short = 0  # heals that were ended because the link was silent, although nobody was seen to wait

    def record(self):
        """What is remembered of the device (dict). One that cannot be read keeps nobody from watching the legs, but the bitmap forgets nothing."""
        try:
            return load_record("devices", self.name)
        except Problem:
            return {"hold": True}

    def look(self, known=None):
        """Find the array and its legs, and say how the remote leg is: attached, recovering, faulty, out, or stopped."""
        known = loops() if known is None else known
        local = device_of(self.device["local"], known)
        # by name: to ask the store for the file may wait for a log that is being written
        remote = next((loop.device for loop in known if loop.backing == self.device["remote"]), None)
        self.holder = holder_of(local) or holder_of(remote)
        # one that is being adopted runs from its remote leg alone; the bitmap of one that is being created has yet to become clean
        self.array = None if self.record().get("phase") in UNDER_WAY else self.holder
        self.local, self.remote = (os.path.basename(path) if path else None for path in (local, remote))
        self.look_again()
        if self.state in ("attached", "recovering"):
            self.mode = "async" if read_text(f"/sys/block/{self.remote}/queue/write_cache") == "write through" else "sync"

    def look_again(self):
        """Read the state of the remote leg, with the names known from the last look."""
        words = (read_text(f"/sys/block/{self.array}/md/dev-{self.remote}/state") or "").split(",") if self.array and self.remote else []
        self.state = ("stopped" if not self.array else "faulty" if "faulty" in words else "attached" if "in_sync" in words
                      else "recovering" if any(words) else "out")
        self.failed = self.failed and not self.is_in
        whole = self._whole()
        self.is_last = bool(whole) and whole == [self.remote]

    def _whole(self):
        """Kernel names (list) of the legs in the array that are whole."""
        names = [os.path.basename(member) for member in members_of(self.holder)]
        return [name for name in names if "in_sync" in (read_text(f"/sys/block/{self.holder}/md/dev-{name}/state") or "").split(",")]

    @property
    def is_in(self):
        """Whether md writes to the remote leg."""
        return self.state in ("attached", "recovering")

    @property
    def is_taken_out(self):
        """Whether a leg that is faulty is so because a run of Ansible or the command takes it out."""
        if self.state != "faulty" or self.record().get("leaving"):
            return self.state == "faulty"
        self.look_again()  # whoever took it out may have been through with it between the look at the leg and the one at the record
        return self.state != "faulty"

    @property
    def is_idle(self):
        """Whether both legs are in and md copies nothing."""
        return self.state == "attached" and read_text(f"/sys/block/{self.array}/md/sync_action") == "idle"

    def is_unfinished(self):
        """Whether a heal was begun, and nobody has noted its end."""
        return "_began" in (self.record().get("heal") or {})

    def held_up(self, now):
        """Seconds for which the application has waited for the remote leg alone; also for one that is just taken out, or in, whose loop is not known yet."""
        waited = self.held.stuck(self.array, now)
        if not waited or inflight_writes(self.local):
            return 0.0
        return waited if inflight_writes(self.remote) or (not self.is_in and (self.failing or self.is_unfinished())) else 0.0

    def waits(self, now):
        """Seconds for which at every look a write to the device was under way that the local leg had not (any more), while others may have gone through.

        It is what a write to a chunk that is not listed yet does, beside others; but a load that never pauses looks like that by chance.
        """
        more = inflight_writes(self.array) > inflight_writes(self.local)
        if not more or self.waiting is None or now - self.looked > _LOOKS:
            self.waiting = now if more else None
        self.looked = now
        return now - self.waiting if more else 0.0

    def note_alone(self):
        """Note that the remote leg alone has what is written from now on, for at a start the local one would not know; or that both have it again.

        Returns a sentence when the local leg was lost, else None.
        """
        if not self.array or self.is_last == self.alone or not (self.is_last or self.has_local):
            return None
        if bool(load_record("devices", self.name).get("alone")) != self.is_last:
            update_record(self.want, alone=self.is_last or None)
        self.alone = self.is_last
        return (f"device {self.name}: its local leg {self.device['local']} is not whole, so it runs from its remote leg alone. Repair the disk; then the "
                "playbook indestructible.block.adopt builds a new local leg") if self.is_last else None

    def has_stopped(self, now):
        """Seconds (float) for which the heal of the remote leg has not gone on, as when a part of the local leg cannot be read; 0.0 while it goes on."""
        if self.state != "recovering" or read_text(f"/sys/block/{self.array}/md/sync_action") != "idle":
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        return now - self.idle_since if self.idle_since is not None else 0.0

    def set_mode(self):
        """Bring the mode of the remote leg to what is wanted, and hold the bitmap. Returns a sentence when the mode was changed, else None."""
        time_base = f"/sys/block/{self.array}/md/bitmap/time_base"
        if float(read_text(time_base) or 0) < HELD:
            write_text(time_base, str(HELD))
        # an acknowledged fsync has to be somewhere, and without a whole local leg that is the LUN
        wanted = "sync" if self.is_last else self.device["replication"]
        changed = self.mode != wanted
        if changed and wanted == "sync":  # before anything is read or noted: the disk of the records may be the one that failed
            set_write_cache(f"/dev/{self.remote}", "write back")
        known = load_record("devices", self.name).get("replication")
        if known is None or (known, wanted) == ("sync", "async"):
            update_record(self.want, replication=wanted)  # before: from now on the legs are only equal as far as the bitmap, held as it is, says
        if not changed:
            return None
        if wanted == "async":
            set_write_cache(f"/dev/{self.remote}", "write through")
        was, self.mode, self.settled, self.switched = self.mode, wanted, False, time.monotonic()
        why = ", because its local leg is not whole" if self.is_last else ""
        return f"device {self.name}: replication is {wanted} now, and was {was}{why}"

    def may_overtake(self):
        """Whether writes are behind in a loop that does not keep their order. To forbid that waits for the leg, so it is left to whoever attaches one."""
        return not keep_order() and self.has_local and (read_text(f"/sys/block/{self.array}/md/bitmap/backlog") or "0").strip() != "0"

    @property
    def is_unsettled(self):
        """Whether it runs in `sync` mode and a commit is wanted, after which the legs are equal."""
        return self.mode == "sync" and not self.settled

    def settle_mode(self, committed):
        """Note that the legs are equal, after a commit in `sync` mode. committed: when the last one that succeeded began, or None."""
        if self.is_unsettled and not self.healing and committed is not None and committed > self.switched:
            if self.record().get("replication") == "async":
                update_record(self.want, replication="sync")
            self.settled = True

    def watch_gate(self, now, committed):
        """Let the bitmap make a pass when it may. committed: when the last commit that succeeded began, or None."""
        if not self.is_idle:
            return
        gate, stat = self.gate, numbers(f"/sys/class/block/{self.remote}/stat")
        own = numbers(f"/sys/class/block/{self.array}/stat")
        if len(stat) < 9 or len(own) < 9:
            return
        gate.saw(own[4])
        gate.begin(stat[4], stat[8])
        gate.remote(now, stat[4], stat[8])
        if committed is not None:
            gate.committed(committed)
        # while a new leg is being filled nothing may be forgotten (_swap), nor what has yet to be healed
        if gate.due(now) and not self.record().get("hold") and not self.may_overtake():
            done = self._pass()
            if done:
                gate.passed(time.monotonic(), *done)

    def _pass(self):
        """Have the kernel make one pass; returns what the remote leg has completed and has under way, None when somebody stopped the array just now.

        It makes no second pass in this time, even if this program stops right here: it is told to wait long enough.
        """
        path = f"/sys/block/{self.array}/md/bitmap/time_base"
        try:
            write_text(path, str(self.gate.time_base - 1))
            try:
                time.sleep(_PASS_SECONDS)
            finally:
                write_text(path, str(HELD))
        except Problem:
            return None
        stat = numbers(f"/sys/class/block/{self.remote}/stat")
        return (stat[4], stat[8]) if len(stat) > 8 else None

    def leave(self, unsafe_from):
        """Take the leg out while its store still works: what it holds is committed, so that it stays whole. Waits as fail() does.

        unsafe_from: the checkpoint from which on it is not whole if that commit fails (int or None).
        """
        self.need_local()
        whole = self.state == "attached"
        write_text(f"/sys/block/{self.array}/md/dev-{self.remote}/state", "faulty")
        remove_remote(self.want, 60)
        try:
            with Volume(os.path.dirname(self.device["remote"])) as volume:
                number = volume.sync()
            # later checkpoints hold nothing newer of it
            update_record(self.want, clean_detach=whole or None, unsafe_from=load_record("devices", self.name).get("unsafe_from") or number + 1)
            if not whole:
                keep_listed(self.want)
        except Problem:
            keep_listed(self.want)
            record = load_record("devices", self.name)
            update_record(self.want, unsafe_from=record.get("unsafe_from") or unsafe_from, clean_detach=None)
            raise

    @property
    def has_local(self):
        """Whether the local leg is whole."""
        return any(name != self.remote for name in self._whole())

    def need_local(self):
        """Raise Problem unless the local leg is whole: without it the remote one is the last, and is never taken out."""
        if not self.has_local:
            raise Problem("its local leg is not whole, so the remote one stays in")

    def fail(self, unsafe_from):
        """Take the leg out, and note what is needed to heal it; waits until md has let it go, so it runs in a thread of its own."""
        self.need_local()
        if self.state != "faulty":
            write_text(f"/sys/block/{self.array}/md/dev-{self.remote}/state", "faulty")
        record = load_record("devices", self.name)
        update_record(self.want, unsafe_from=record.get("unsafe_from") or unsafe_from, clean_detach=None, leaving=None)
        keep_listed(self.want)
        remove_remote(self.want, 60)
