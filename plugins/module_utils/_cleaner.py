# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The cleaner of a store whose history is kept for a period only: nilfs_cleanerd with rules of its own, as a unit that systemd starts again.

Whoever mounts the volume starts it afterwards and stops it before it is unmounted, for it holds the mount point open.
"""

from __future__ import annotations

import os
import time

from . import _catalogue
from ._core import STATE_DIR, human_period, list_records, load_record, read_text, run, save_file, wait_until
from ._nilfs import Volume, cleaners
from ._points import unbroken

_UNITS = "/etc/systemd/system"
# It begins when less than 30 % is free and goes on until 40 % is, so that it is done before anything warns, and what it copies is little: the longer
# a segment lies, the less of it is still in use. One segment at a time, because commits wait for what it writes.
_RULES = """# Written by indestructible.block, and again by its next run.
protection_period {seconds}
min_clean_segments 30%
max_clean_segments 40%
clean_check_interval 10
nsegments_per_clean 1
mc_nsegments_per_clean 1
cleaning_interval 1
mc_cleaning_interval 0.2
retry_interval 10
min_reclaimable_blocks 10%
mc_min_reclaimable_blocks 1%
selection_policy timestamp
use_mmap
use_set_suinfo
log_priority info
"""
_UNIT = """[Unit]
Description=Cleaner of {point}, which keeps the history of {period}
StartLimitIntervalSec=0

[Service]
Type=forking
# it forks twice, and the first child must not be taken for it
GuessMainPID=no
ExecStart=/sbin/nilfs_cleanerd -c {rules} /dev/disk/by-uuid/{uuid} {point}
Restart=always
RestartSec=5
TimeoutStopSec=5
Nice=10
IOSchedulingClass=idle
"""


def unit_of(record):
    """Name of the unit that cleans a store, given the name of its record."""
    return f"indestructible-cleaner-{record}.service"


def _rules_of(record):
    return f"{STATE_DIR}/cleaner/{record}.conf"


def files(record, uuid, point, seconds):
    """dict of paths and texts of what makes the cleaner of a volume keep the history of so many seconds. Pure."""
    rules = _rules_of(record)
    unit = _UNIT.format(point=point, period=human_period(seconds), rules=rules, uuid=uuid)
    return {rules: _RULES.format(seconds=seconds), f"{_UNITS}/{unit_of(record)}": unit}


def kept(record):
    """Seconds of history that the cleaner of a store is told to keep, or None when it has none."""
    words = (read_text(_rules_of(record)) or "").split()
    return int(words[words.index("protection_period") + 1]) if "protection_period" in words else None


def is_written(record, uuid, point, seconds):
    """Whether all files are as they should be."""
    return all(read_text(path) == text.strip() for path, text in files(record, uuid, point, seconds).items())


def loose(device, point, record):
    """Process numbers (list) of cleaners of a volume that are not the unit's: those that mount.nilfs2 or somebody started."""
    return [number for number in cleaners(device, point) if unit_of(record) not in (read_text(f"/proc/{number}/cgroup") or "")]


def start(device, record, uuid, point, seconds):
    """Write the files and have the cleaner run by them."""
    for path, text in files(record, uuid, point, seconds).items():
        save_file(path, text)
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "restart", unit_of(record)], timeout=60)
    wait_until(lambda: any(_is_settled(number, point) for number in cleaners(device, point)), 10, f"the cleaner of {point} to start")


def _is_settled(number, point):
    """Whether a cleaner has forked for the last time: only then does it open its volume. Before that whoever looks may miss it between two forks."""
    try:
        return any(os.readlink(f"/proc/{number}/fd/{name}") == point for name in os.listdir(f"/proc/{number}/fd"))
    except OSError:
        return False


def stop(record):
    """Stop the cleaner of a store, if it has one; it starts again with start() or at the next mount."""
    if os.path.exists(f"{_UNITS}/{unit_of(record)}"):
        run(["systemctl", "stop", unit_of(record)], ok=None, timeout=60)


def resume(record):
    """Start the cleaner of a store again that stop() has stopped, if it has one."""
    if os.path.exists(f"{_UNITS}/{unit_of(record)}"):
        run(["systemctl", "start", unit_of(record)], ok=None, timeout=60)


def remove(record):
    """Stop the cleaner for good."""
    stop(record)
    for path in (f"{_UNITS}/{unit_of(record)}", _rules_of(record)):
        if os.path.exists(path):
            os.unlink(path)
    run(["systemctl", "daemon-reload"])


def forget(point, seconds):
    """Let go of the last good checkpoints before windows that are older than the period, and of windows that nothing is left of."""
    with Volume(point) as volume:
        for name in list_records("devices"):
            remote = load_record("devices", name).get("remote") or ""
            if _catalogue.volume_of(remote) != point:
                continue
            catalogue = _catalogue.load(remote)
            first = unbroken(volume, catalogue["since"])
            if not first:
                continue
            old = [window for window in catalogue["unsafe"] if window.get("good") and window["last"] is not None
                   and _is_older(volume, window["last"], time.time() - seconds)]
            of = os.path.basename(_catalogue.path_of(remote))
            dropped = {number for number in {window["good"] for window in old}
                       if _catalogue.let_go(volume, number, *(("unsafe", of, window["first"]) for window in old if window["good"] == number))}
            less = without_old(catalogue, dropped, first.number)
            if less != catalogue:
                _catalogue.save(remote, less)


def _is_older(volume, number, when):
    found = volume.checkpoints(number, 1)
    return bool(found) and (found[0].number > number or found[0].time < when)


def without_old(catalogue, old, first):
    """A catalogue that wants none of the last good checkpoints in old (their numbers), and is without windows that ended before the checkpoint first. Pure."""
    windows = [dict(window, good=None) if window.get("good") in old else window for window in catalogue["unsafe"]]
    return dict(catalogue, unsafe=[window for window in windows if window["last"] is None or window["last"] >= first or window.get("good")])
