# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How much room a store has left: what is kept of its past, how fast it fills, when its legs have to go out, and whether they may come back.

The kernel refuses a write once the clean segments are no more than the reserved ones, one more, and those that the dirty blocks will take. So the
legs go out earlier, by what can still arrive until md has let go of them: what is dirty now and what comes while the guard reacts.
"""

from __future__ import annotations

import json
import os
from collections import namedtuple

from ._core import MIB, STATE_DIR, human_size, read_text, save_file
from ._md_super import count_ranges, merge_ranges
from ._nilfs import read_super, reserved_segments

DIR = f"{STATE_DIR}/capacity"
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 604800
WINDOWS = (MINUTE, 10 * MINUTE, HOUR, DAY, WEEK)
BURST = 128 * MIB  # what is made room for in any case: twice the dirty data at which the guard commits without waiting
_REACTION = 1.0  # seconds from a look to the moment when md has let go of the leg, on a busy host
_KEPT = ((HOUR, MINUTE), (DAY, 900), (8 * DAY, 7200))  # samples up to that age are so far apart, in seconds
_SPARE = 3  # segments beyond the kernel's limit: for the log's own blocks, and for the files beside the legs
_OUTRUN = 0.25  # share of clean segments below which a cleaner, which begins when 30 % are clean, does not keep up
_CREDIBLE = 2  # a rate tells about a future of so many times the past that it was measured over

# What was seen at a time (seconds): clean and all segments, and the most bytes that came in a second since the sample before.
Sample = namedtuple("Sample", "time clean segments peak")

# A volume as sysfs and its super block tell: clean, segments and reserved are numbers of segments, segment their size in bytes.
Usage = namedtuple("Usage", "uuid clean segments reserved segment")


def usage_of(disk, percent, known=None):
    """The Usage of a mounted volume by the kernel name of its disk (or None), percent being the reserved share; waits for nothing. None when there is none.

    known: a Usage of the same volume, of which only what is free is asked anew.
    """
    base = f"/sys/fs/nilfs2/{disk}"
    clean = read_text(f"{base}/segments/clean_segments") if disk else None
    if clean is None:
        return None
    try:
        if known:
            return known._replace(clean=int(clean))
        segments, blocks, size = (int(read_text(f"{base}/{name}") or 0) for name in ("segments/segments_number", "segments/blocks_per_segment", "blocksize"))
        return Usage(read_text(f"{base}/uuid"), int(clean), segments, reserved_segments(segments, percent), blocks * size)
    except ValueError:
        return None


def margin(usage, dirty=0, peak=0):
    """Segments (int) that have to be free beyond the kernel's limit, when so many bytes are dirty and peak bytes a second may come. Pure."""
    burst = min(BURST, usage.segments * usage.segment // 8)
    return _SPARE + -(-int(max(burst, dirty * 1.1 + peak * _REACTION)) // usage.segment)


def out_at(usage, dirty=0, peak=0):
    """Clean segments (int) at which the legs have to go out. Pure."""
    return usage.reserved + 1 + margin(usage, dirty, peak)


def fits(usage, copied, out=None, peak=0):
    """Whether legs may come back that take so many bytes to heal. out: at how many clean segments they went out, or None. Pure.

    They have to stay in for a while afterwards: as much room again as the margin is left.
    """
    return usage.clean >= room_wanted(usage, copied, out, peak)


def room_wanted(usage, copied, out=None, peak=0):
    """Clean segments (int) at which fits() says yes. Pure."""
    return max(out_at(usage, 0, peak), out or 0) + margin(usage) + -(-int(copied * 1.1) // usage.segment)


def to_copy(local, record):
    """Bytes that the heal of a leg will copy, given the Super of the local leg (or None) and the record of the device. Pure."""
    if not local or not local.bitmap:
        return 0
    return count_ranges(merge_ranges([tuple(pair) for pair in record.get("pending") or []], local.bitmap.dirty)) * local.bitmap.chunk


# -- the past --------------------------------------------------------------------------------------------------------------

def thin(samples, now):
    """The samples (in order of time) that are worth keeping: dense for the last hour, coarser before, none of the future. Pure."""
    kept, last = [], None
    for sample in samples:
        age = now - sample.time
        apart = next((apart for limit, apart in _KEPT if age <= limit), None)
        if age < 0 or apart is None:
            continue
        if last is None or sample.time // apart != last // apart:
            kept.append(sample)
            last = sample.time
    return kept


def fill_rate(samples, now, window, cleaned=False):
    """(segments a second, seconds it was measured over) for the last window seconds; (None, 0) when too little is known. Pure.

    A volume that has grown has as many segments in use as before. Where a little was freed once, that moment is left out; where it is freed all
    the time, or by a cleaner of its own (cleaned), what remains counts.
    """
    points = [(sample.time, sample.segments - sample.clean) for sample in samples if sample.time <= now]
    inside = [point for point in points if point[0] >= now - window]
    before = [point for point in points if point[0] < now - window]
    if before and inside and inside[0][0] > now - window:
        (early, used), (late, more) = before[-1], inside[0]
        inside.insert(0, (now - window, used + (more - used) * (now - window - early) / (late - early)))
    steps = [(second[0] - first[0], second[1] - first[1]) for first, second in zip(inside, inside[1:])]
    falls = [step for step in steps if step[1] < 0]
    if not cleaned and len(falls) * 8 <= len(steps):
        steps = [step for step in steps if step[1] >= 0]
    span = sum(step[0] for step in steps)
    if span < MINUTE / 3:
        return None, 0
    return max(0.0, sum(step[1] for step in steps) / span), span


def forecast(samples, now, limit, cleaned=False):
    """Seconds until no more than limit segments are clean, or None when that is not in sight. Pure.

    A short past tells about a short future only: the shortest window is taken whose own rate fills the store within about its length. A longer one
    cannot say that it is sooner than the shorter ones have seen. A store with a cleaner (cleaned) fills on purpose until that begins, and the past tells
    nothing of what comes then: only one whose cleaner does not keep up will be full.
    """
    if not samples:
        return None
    left = samples[-1].clean - limit
    if left <= 0:
        return 0.0
    if cleaned and samples[-1].clean > _OUTRUN * samples[-1].segments:
        return None
    found, span, seen = float("inf"), 0, 0.0
    for window in WINDOWS:
        rate, span = fill_rate(samples, now, window, cleaned)
        own = left / rate if rate else float("inf")
        found = max(seen, own)
        if found <= _CREDIBLE * span and own >= 0.8 * seen:
            return found
        seen = max(seen, _CREDIBLE * span)
    return found if found < float("inf") and span >= DAY else None


def crossed(value, levels, told, rearm=True):
    """(level that has to be told of now or None, the one that counts as told from now on or None). Pure.

    value: what is left, None when it is not known; levels: warn at or below these. rearm: whether a level may be told of again once value has risen.
    """
    if value is None:
        return None, told
    reached = min((level for level in levels if value <= level), default=None)
    if reached is not None and (told is None or reached < told):
        return reached, reached
    if told is not None and rearm and value > told * 1.25:
        return None, reached
    return None, told


class History:
    """The past of one volume, kept on the host's disk: samples, what was told of, and at how many clean segments the legs went out (or None)."""

    def __init__(self, name, uuid):
        self.name, self.uuid = name, uuid
        self.samples, self.told, self.out = [], {}, None
        try:
            found = json.loads(read_text(f"{DIR}/{name}.json") or "{}")
            if found.get("uuid") == uuid:  # another volume is another story
                self.samples = [Sample(*sample) for sample in found["samples"]]
                self.told, self.out = found["told"], found["out"]
        except (KeyError, TypeError, ValueError):
            pass  # begun anew

    def add(self, sample):
        """Note a Sample."""
        self.samples = thin(self.samples + [sample], sample.time)

    def save(self):
        """Write it to the disk."""
        text = json.dumps({"uuid": self.uuid, "out": self.out, "told": self.told, "samples": self.samples})
        save_file(f"{DIR}/{self.name}.json", text + "\n", 0o600)


def out_of(uuid):
    """At how many clean segments the legs on a volume went out because it was full, or None."""
    try:
        for name in os.listdir(DIR):
            found = json.loads(read_text(f"{DIR}/{name}") or "{}") if name.endswith(".json") else {}
            if found.get("uuid") == uuid:
                return found.get("out")
    except (AttributeError, OSError, ValueError):
        pass
    return None


def usage_at(mount):
    """The Usage of the volume of a Mount (or None); None when that cannot be told."""
    disk = os.path.basename(os.path.realpath(f"/sys/dev/block/{mount.device}")) if mount else None
    header = read_super(f"/dev/{disk}") if disk and os.path.exists(f"/dev/{disk}") else None
    return usage_of(disk, header.reserved) if header else None


def room_problem(name, mount, local, record):
    """Why the leg of a device cannot come back onto the volume of a Mount (a sentence), or None. local: the Super of the local leg, or None."""
    usage = usage_at(mount)
    if usage is None:
        return None
    copied, out = to_copy(local, record), out_of(usage.uuid)
    if fits(usage, copied, out):
        return None
    return f"{name}: {no_room(usage, copied, out)}"


def no_room(usage, copied, out=None, peak=0):
    """A sentence that tells how much room is missing. Pure."""
    return (f"the store has no room for the leg: {human_size(usage.clean * usage.segment)} of it are free, and "
            f"{human_size(room_wanted(usage, copied, out, peak) * usage.segment)} are needed to bring the leg up to date and keep the reserve; {WAY_OUT}")


WAY_OUT = "grow its LUN and run the playbook indestructible.block.site, or move to a blank one with indestructible.block.swap"
