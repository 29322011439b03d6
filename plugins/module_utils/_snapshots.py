# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""Whether a volume can be trusted to open another checkpoint, and how it is kept so.

nilfs2 has an object (nilfs_root) for each checkpoint that was opened since the volume was mounted, and finds a checkpoint's table of inodes (its ifile)
in the kernel's cache of inodes by the address of that object. When memory runs short the kernel drops an object of which nothing is in use, but
not the table that belonged to it. A later object that happens to have the same address is then given the old table: another checkpoint's content
(Linux 6.1), or a NULL pointer for which the kernel stops whoever mounts it (6.12). Until the volume is unmounted nothing takes the table away.

So no object may ever be dropped: the guard has an inotify watch on the root directory of each checkpoint that is opened, which keeps the object without
keeping the mount. And where one was dropped all the same, which sysfs shows, no other checkpoint is opened until the volume was mounted anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import time

from ._core import RUN_DIR, Problem, guard_told, read_text, save_file, wait_for
from ._mount import mount_at

OPENED = f"{RUN_DIR}/opened"  # a folder with a file for each disk (by kernel name): what was opened on the volume on it
_SYSFS = "/sys/fs/nilfs2"
_FRESH = 5  # seconds for which what the guard told counts; it tells something each second
_ONLYDIR, _DELETE_SELF, _CLOEXEC = 0x01000000, 0x00000400, 0o2000000  # of inotify


def _name(disk):
    return os.path.basename(os.path.realpath(disk))


def _instance(name):
    """What tells one mount of a volume from the next one (int), or None when none is mounted."""
    try:
        return os.stat(f"{_SYSFS}/{name}").st_ino
    except OSError:
        return None


def _alive(name):
    """Numbers (set of int) of the checkpoints of which the kernel has an object."""
    try:
        return {int(entry) for entry in os.listdir(f"{_SYSFS}/{name}/mounted_snapshots") if entry.isdigit()}
    except OSError:
        return set()


def _object(name, number):
    """What tells one object of a checkpoint from the next one (int), or 0 when there is none."""
    try:
        return os.stat(f"{_SYSFS}/{name}/mounted_snapshots/{number}").st_ino
    except OSError:
        return 0


def _load(name):
    """dict(instance, opened: dict of number as str -> where it was mounted, stale: bool) of the volume as it is mounted now."""
    instance = _instance(name)
    try:
        found = json.loads(read_text(f"{OPENED}/{name}") or "{}")
    except ValueError:
        found = {}
    known = instance is not None and found.get("instance") == instance
    return found if known else {"instance": instance, "opened": {}, "stale": False}


@contextlib.contextmanager
def _changing(name, wait=True):
    """What _load() tells, to be changed; the guard and whoever opens a checkpoint do so one after the other. wait: whether to, while another one does."""
    try:
        os.makedirs(OPENED, mode=0o700, exist_ok=True)
        with open(f"{OPENED}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            found = _load(name)
            yield found
            save_file(f"{OPENED}/{name}", json.dumps(found))
    except OSError as error:
        raise Problem(f"cannot note in {OPENED}/{name} which checkpoints are open: {error.strerror}") from None


_own = []  # a Keeper, so that what this process opens is kept for as long as it runs, whatever the guard does


def note(disk, number, view):
    """Note that a checkpoint is mounted now."""
    with _changing(_name(disk)) as found:
        found["opened"][str(number)] = view
    if not _own:
        _own.append(Keeper())
    _own[0].watch(view, number)


def see(disk, wait=True):
    """Note what was opened by somebody else; without wait Problem is raised while another one notes something."""
    name = _name(disk)
    if not {str(one) for one in _alive(name)}.difference(_load(name)["opened"]):
        return
    with _changing(name, wait) as found:
        # read after what is known, so that nothing of one mount is noted of the next
        found["opened"] = {**dict.fromkeys(map(str, _alive(name))), **found["opened"]}


def end_stale(disk):
    """The volume cannot be mounted anew now; the next one who cannot open a checkpoint asks for it again."""
    with _changing(_name(disk)) as found:
        found["stale"] = False


def is_stale(disk):
    """Whether the volume on a disk (path or kernel name) has to be mounted anew, because somebody could not open a checkpoint."""
    return _load(_name(disk))["stale"]


def check(disk, number, name, way_out=None, trusted=None):
    """Raise Problem unless the volume on a disk can be trusted to open that checkpoint.

    Called before it is mounted, and right after it with what the first call returned: what tells the object (int) that the kernel had of that very
    checkpoint, so that nothing that was dropped matters, or 0. name is what is being opened, way_out what to do instead of waiting for the guard.
    """
    see(disk)
    disk = _name(disk)
    found, alive = _load(disk), _alive(disk)
    lost = sorted({int(one) for one in found["opened"]} - alive)
    # those that are doubted may have got what belonged to another one
    known = 0 if number in found.get("doubted", []) else _object(disk, number)
    if trusted is not None and trusted != known:
        known = 0
    if lost and not known:
        with _changing(disk) as now:
            if now["instance"] == found["instance"]:
                now.update(stale=True, doubted=now.get("doubted", []) + ([number] if trusted is not None else []))
        raise Problem(f"{name}: the kernel has dropped a part of what it had of checkpoint {lost[0]}, which was open before, and could now show the content of "
                      f"that one instead of {number}'s. Nothing was opened. {way_out or _way_out()}")
    return known


def _way_out():
    if _is_guarded():
        return ("The volume has to be mounted anew; the guard does that within seconds, once nobody uses it, no other checkpoint of it is open and no device "
                "runs from its remote leg alone: then run this again")
    return "Unmount the store, have it mounted again (by indestructible.block.site or adopt), and then run this again"


def _is_guarded():
    told = guard_told()
    return "kept" in told and abs(time.time() - told["time"]) < _FRESH


def wait_until_kept(disk, number, seconds=3):
    """Give the guard, if one is at work, the time to keep what belongs to a checkpoint, before it is unmounted."""
    name = _name(disk)

    def is_kept():
        return number in guard_told().get("kept", {}).get(name, [])
    if _is_guarded():
        wait_for(is_kept, seconds)


class Keeper:
    """The guard's inotify watches on the checkpoints that are open; number (or None) is the descriptor that an earlier process had them in."""

    def __init__(self, number=None):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.number = self._libc.inotify_init1(_CLOEXEC) if number is None else number
        self._seen, self._watched = None, set()  # (disk, instance, number of the checkpoint)

    @property
    def kept(self):
        """Numbers (list of int) of the checkpoints that are kept, by the kernel name of the disk."""
        found = {}
        for name, _instance_of, number in sorted(self._watched):
            found.setdefault(name, []).append(number)
        return found

    def tick(self):
        """Watch what was opened since; returns whether anything is new."""
        try:
            seen = os.stat(OPENED).st_mtime_ns
        except OSError:
            return False
        if seen == self._seen:
            return False
        self._seen, before, self._watched = seen, self._watched, set()
        for name in os.listdir(OPENED):
            found = _load(name)
            for number, view in found["opened"].items():
                this = (name, found["instance"], int(number))
                if this in before or (view and self.watch(view, int(number))):
                    self._watched.add(this)
        return self._watched != before

    def watch(self, view, number):
        """Keep the checkpoint that is mounted on view; returns whether that was done."""
        mount = mount_at(view)
        return bool(mount) and f"cp={number}" in mount.super_options and \
            self._libc.inotify_add_watch(self.number, os.fsencode(view), _ONLYDIR | _DELETE_SELF) >= 0
