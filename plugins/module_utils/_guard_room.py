# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The room of one store as the guard watches it: what is free and what is about to arrive, told of in time, and the order to take the legs out.

Nothing here waits for the store: what it reads is in sysfs and does not ask for a lock that is held while a log is written.
"""

from __future__ import annotations

import threading
import time

from ._capacity import DAY, HOUR, MINUTE, WAY_OUT, WEEK, History, Sample, crossed, fill_rate, fits, forecast, margin, no_room, out_at, usage_of
from ._core import Problem, human_size, human_span
from ._guard_device import inflight_writes, numbers
from ._nilfs import read_super

_FINE, _FINES = 5, 30  # seconds between samples that are kept in memory alone, and how many
_SAVE = 300  # seconds between writes of the history to the disk
_SECTOR = 512


class RoomWatch:
    """The room of one store (a dict of the Config). say(level, sentence) writes to the journal."""

    def __init__(self, store, say):
        self.store, self.say = store, say
        self.usage = self.history = None
        self.percent, self.known = store["reserved"], None  # reserved share; known: the disk whose super block told it
        self.limit = 0  # clean segments at which the legs go out
        self.left = None  # seconds until then, as far as can be seen
        self.rates = dict.fromkeys(("hour", "day", "week"))  # bytes a second
        self.warning = None  # a sentence while a level is passed
        self._seen, self._total, self._committed, self._request = {}, 0, 0, 0  # bytes written to the remote legs; bytes of a request
        self._second, self._peak = (0.0, 0), 0
        self._fine, self._sampled, self._saved, self._glanced = [], 0.0, 0.0, 0.0
        self._disk = None  # kernel name, at the last look
        self._recent, self._lock, self._saving = 0, threading.Lock(), threading.Lock()  # who holds the latter may wait for a disk

    def learn(self, disk):
        """Read what only the super block tells; may wait for the disk (kernel name or None), so it is for a thread that may."""
        if disk and disk != self.known:
            try:
                found = read_super(f"/dev/{disk}")
            except (Problem, OSError):
                return
            if found:
                self.percent, self.known = found.reserved, disk

    def refresh(self, disk):
        """See what is free on a volume that has just been mounted; may wait as learn() does."""
        self.learn(disk)
        self.usage = usage_of(disk, self.percent)
        if self.usage:
            self._open(self.usage)

    def _open(self, usage):
        """Have the history of this very volume at hand."""
        with self._lock:
            if self.history is None or self.history.uuid != usage.uuid:
                self.history, self._fine, self.warning, self.left = History(self.store["name"], usage.uuid), [], None, None

    # -- every tick ------------------------------------------------------------------------------------------------------------

    def look(self, now, disk, remotes):
        """See what is free; remotes: kernel names of the remote legs that are in. Returns whether they have to go out."""
        again = disk != self._disk or self.is_near or now - self._glanced >= 1
        self.usage, self._disk = usage_of(disk, self.percent, None if again else self.usage), disk
        if self.usage is None:
            return False
        usage = self.usage
        self._open(usage)
        if again or self.is_near:  # what can come within a second is in the margin
            self._glanced = now
            self._measure(now, remotes)
            # a request counts as written when it is over, so those under way are dirty too
            under_way = sum(inflight_writes(name) for name in remotes) * self._request if remotes else 0
            self.limit = out_at(usage, self._total - self._committed + under_way, self.peak)
        if now - self._sampled >= _FINE:
            self._sampled = now
            self._sample(now)
        return bool(remotes) and usage.clean <= self.limit

    @property
    def is_full(self):
        """Whether there is no room for what could come."""
        return self.usage is not None and self.usage.clean <= self.limit

    @property
    def is_near(self):
        """Whether the end may be so near that every moment counts."""
        return self.usage is not None and self.usage.clean <= self.limit + margin(self.usage, 0, self.peak)

    @property
    def peak(self):
        """The most bytes that came in a second within the last hour."""
        return max(self._peak, self._recent)

    def _measure(self, now, remotes):
        """Count what was written to the remote legs."""
        for name in remotes:
            stat = numbers(f"/sys/class/block/{name}/stat")
            if len(stat) < 7:
                continue
            requests, written = stat[4], stat[6] * _SECTOR
            before = self._seen.get(name, (requests, written))
            if written > before[1]:
                self._total += written - before[1]
                self._request = (written - before[1]) // max(1, requests - before[0])
            self._seen[name] = (requests, written)
        began, total = self._second
        self._peak = max(self._peak, int((self._total - total) / max(1.0, now - began))) if began else 0
        if now - began >= 1:
            self._second = (now, self._total)

    def mark(self):
        """What has arrived until now, to be given to committed() when a commit that begins now has succeeded."""
        return self._total

    def committed(self, mark):
        """All that had arrived at a mark is in the log."""
        self._committed = max(self._committed, mark)

    # -- the past and the future -----------------------------------------------------------------------------------------------

    def _sample(self, now):
        usage, moment = self.usage, round(time.time(), 1)
        sample = Sample(moment, usage.clean, usage.segments, self._peak)
        self._fine = [one for one in self._fine if one.time < moment][1 - _FINES:] + [sample]
        history = self.history
        if not history.samples or not 0 <= moment - history.samples[-1].time < MINUTE:
            history.add(sample)
            self._peak = 0
        self._recent = max(sample.peak for sample in history.samples if sample.time >= moment - HOUR)
        known = self.samples()
        cleaned = bool(self.store.get("keep"))
        self.left = forecast(known, moment, self.limit, cleaned)
        for name, window in (("hour", HOUR), ("day", DAY), ("week", WEEK)):
            rate = fill_rate(known, moment, window, cleaned)[0]
            self.rates[name] = None if rate is None else int(rate * usage.segment)
        if self._warn(moment) or now - self._saved >= _SAVE:
            self._saved = now
            self.save()

    def samples(self):
        """All the samples there are, those of the last minutes as dense as they were taken."""
        first = self._fine[0].time if self._fine else float("inf")
        return [sample for sample in self.history.samples if sample.time < first] + self._fine

    def save(self):
        """Write the history to the disk, which may be slow, so in a thread."""
        threading.Thread(target=self._write, args=(self.history,), daemon=True).start()

    def _write(self, history):
        try:
            with self._saving:
                history.save()
        except OSError as error:
            self.say(4, f"store {self.store['name']}: its history of free space cannot be written: {error.strerror}")

    @property
    def free_percent(self):
        """What can still be written before the legs go out, in percent of the volume (float)."""
        return 100.0 * max(0, self.usage.clean - self.limit) / max(1, self.usage.segments)

    def _warn(self, moment):
        """Say which levels are crossed, each once. Returns whether there is something new to remember."""
        told, days = self.history.told, None if self.left is None else self.left / DAY
        if self.history.out is not None or self.usage.clean <= self.limit:
            self.warning = None  # that its legs are out says it all
            return False
        free_levels, day_levels = self.store.get("warn_free", ()), self.store.get("warn_days", ())
        free, told_free = crossed(self.free_percent, free_levels, told.get("free"))
        # a forecast goes up and down with the load: once a day is enough
        near, told_days = crossed(days, day_levels, told.get("days"), moment - told.get("days_at", 0) >= DAY)
        sentence = self.describe()
        if free is not None or near is not None:
            self.say(4, f"store {self.store['name']}: {sentence}; {WAY_OUT}")
        low = self.free_percent <= max(free_levels, default=-1) or (days is not None and days <= max(day_levels, default=-1))
        self.warning = f"{sentence}; {WAY_OUT}" if low else None
        new = dict(told, free=told_free, days=told_days)
        if near is not None:
            new["days_at"] = moment
        changed, self.history.told = new != told, new
        return changed

    def describe(self):
        """How much is left and for how long, a sentence without its end."""
        usage = self.usage
        size = human_size(max(0, usage.clean - self.limit) * usage.segment)
        when = "" if self.left is None else f", and it is full in {human_span(self.left)} if it goes on like this"
        return f"{size} ({self.free_percent:.0f} %) of it are left until its legs are taken out{when}"

    # -- out and in ------------------------------------------------------------------------------------------------------------

    def note_out(self):
        """Remember that the legs are out for want of room. Returns whether that is new."""
        new = self.history.out is None
        self.history.out = max(self.limit, self.history.out or 0)
        self.warning = None
        self.save()
        return new

    def note_in(self):
        """The legs are back."""
        if self.history and self.history.out is not None:
            self.history.out = None
            self.save()

    def has_room(self, copied):
        """Whether legs may come back that take so many bytes to heal."""
        return self.usage is None or fits(self.usage, copied, self.history and self.history.out, self.peak)

    def no_room(self, copied):
        """Why not, a sentence."""
        return no_room(self.usage, copied, self.history and self.history.out, self.peak)

    def end(self):
        """The guard ends: keep what is known."""
        if self.history:
            self._write(self.history)

    def _seconds_left(self):
        """The forecast, a moment later."""
        return max(0, round(self.left - (time.monotonic() - self._sampled)))

    def public(self):
        """dict for the guard's state file; None while nothing is known. Sizes in bytes, rates in bytes a second."""
        usage = self.usage
        if usage is None or self.history is None:
            return None
        return {"free": usage.clean * usage.segment, "size": usage.segments * usage.segment, "left": max(0, usage.clean - self.limit) * usage.segment,
                "left_percent": round(self.free_percent, 1), "left_seconds": None if self.left is None else self._seconds_left(),
                "rate_hour": self.rates["hour"], "rate_day": self.rates["day"], "rate_week": self.rates["week"],
                "full": self.history.out is not None, "warning": self.warning}
