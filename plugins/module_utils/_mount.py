# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is mounted where, and what /etc/fstab says of it.

The mount table is read from the kernel; fstab is edited line by line, so that everything else in it stays byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import namedtuple

from ._core import STATE_DIR, Problem, run, save_file

FSTAB = "/etc/fstab"

# One mount: point and source str, device "MAJOR:MINOR", root str within the file system, fstype str, options and
# super_options tuples of str ("ro", "pp=0", ...).
Mount = namedtuple("Mount", "point source device root fstype options super_options")

# One line of fstab that mounts something; all str.
Entry = namedtuple("Entry", "source point fstype options dump check")


def unescape(text):
    """Text of a field of mountinfo or fstab: \\040 is a space, and so on."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text) if "\\" in text else text


def escape(text):
    """A field for fstab, with what would end or comment it written in octal."""
    return re.sub(r"[\s\\\\#]", lambda found: f"\\{ord(found.group(0)):03o}", text)


def parse_mounts(text):
    """List of Mount of the text of /proc/self/mountinfo, in the order of mounting."""
    mounts = []
    for line in text.splitlines():
        front, found, back = line.partition(" - ")
        fields, rest = front.split(" "), back.split(" ")
        if not found or len(fields) < 6 or len(rest) < 3:
            continue
        mounts.append(Mount(unescape(fields[4]), unescape(rest[1]), fields[2], unescape(fields[3]), rest[0],
                            tuple(fields[5].split(",")), tuple(rest[2].split(","))))
    return mounts


def read_mounts():
    """List of Mount: everything mounted in this mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_mounts(file.read())


def mounts_of(device, mounts=None):
    """Mounts (list) of a block device, found by its number, and by its node where the file system shows none (btrfs)."""
    try:
        about = os.stat(device)
    except OSError:
        return []
    if not stat.S_ISBLK(about.st_mode):
        return []
    number = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
    return [mount for mount in (read_mounts() if mounts is None else mounts)
            if mount.device == number or (mount.device.startswith("0:") and _is_node(mount.source, about.st_rdev))]


def _is_node(path, number):
    if not path.startswith("/dev/"):
        return False
    try:
        about = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(about.st_mode) and about.st_rdev == number


def mount_at(point, mounts=None):
    """The Mount that is seen at exactly this mount point, or None."""
    path = os.path.realpath(point)
    found = None
    for mount in read_mounts() if mounts is None else mounts:
        if mount.point == path:
            found = mount
    return found


def check_point(point):
    """Raise Problem unless path is fit to be mounted on: absolute, and an empty directory or nothing yet."""
    if not os.path.isabs(point) or os.path.normpath(point) != point or point == "/":
        raise Problem(f"the mount point {point!r} is not an absolute, plain path below /")
    if os.path.lexists(point) and not os.path.isdir(point):
        raise Problem(f"the mount point {point} is not a directory")
    if os.path.isdir(point) and os.listdir(point):
        raise Problem(f"the mount point {point} is a directory with files in it, which the mount would hide; move them away first")


def make_directories(path):
    """Make a directory with its parents; those of the collection's own state are for root alone."""
    if os.path.isdir(path):
        return
    make_directories(os.path.dirname(path))
    try:
        os.mkdir(path)
        os.chmod(path, 0o700 if path == STATE_DIR or path.startswith(f"{STATE_DIR}/") else 0o755)
    except FileExistsError:
        pass  # made by someone else meanwhile; a file in its place is reported by whoever uses it as a directory
    except OSError as error:
        raise Problem(f"cannot make the directory {path}: {error.strerror}") from None


def unmount(point):
    """Unmount; raises Problem naming the processes that hold the mount point when it is busy."""
    result = run(["umount", point], ok=None)
    if result.rc != 0 and mount_at(point):
        users = users_of(point)
        told = f"; it is used by {', '.join(users)}" if users else ""
        raise Problem(f"cannot unmount {point}: {result.err.strip() or result.rc}{told}")


def try_unmount(point, seconds):
    """Call umount; returns whether it ended by itself within so many seconds, well or not. It does not end while the disk does not answer."""
    try:
        return run(["timeout", "--kill-after=1", str(seconds), "umount", point], ok=None, timeout=seconds + 10).rc not in (124, 137)
    except Problem:
        return False  # it cannot even be killed


def users_of(point, limit=5):
    """Names (list of str, "name (pid N)") of processes that have files of the mount open or live in it."""
    prefix = point.rstrip("/") + "/"
    found = []
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        base = f"/proc/{pid}"
        links = [f"{base}/cwd", f"{base}/root"]
        try:
            links += [f"{base}/fd/{name}" for name in os.listdir(f"{base}/fd")]
        except OSError:
            continue
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target == point or target.startswith(prefix):
                try:
                    with open(f"{base}/comm", encoding="utf-8", errors="replace") as file:
                        found.append(f"{file.read().strip()} (pid {pid})")
                except OSError:
                    pass
                break
        if len(found) >= limit:
            break
    return found


# fstab


def _entry(line):
    """Entry of one line of fstab, or None for a comment, an empty line and a broken one."""
    fields = line.split()
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    fields += ["defaults", "0", "0"][len(fields) - 3:]
    return Entry(unescape(fields[0]), unescape(fields[1]), fields[2], fields[3], fields[4], fields[5])


def parse_fstab(text):
    """List of Entry of the text of an fstab."""
    return [entry for entry in map(_entry, text.splitlines()) if entry]


def read_fstab(path=FSTAB):
    """Text of fstab; empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def fstab_with(text, wanted):
    """Text of fstab with the Entry wanted in it, once; the same text when it is there already.

    A line for the same mount point and source is replaced where it stands. Raises Problem when the mount point belongs to
    another source there, or the source is mounted elsewhere: whoever wrote that line meant something by it.
    """
    lines = text.splitlines(keepends=True)
    placed = False
    kept = []
    for line in lines:
        entry = _entry(line)
        if entry and entry.point == wanted.point and entry.source != wanted.source:
            raise Problem(f"{FSTAB} mounts {entry.source} on {wanted.point}; remove that line or choose another mount point for {wanted.source}")
        if entry and entry.source == wanted.source and entry.point != wanted.point and wanted.point != "none":
            raise Problem(f"{FSTAB} mounts {wanted.source} on {entry.point} and not on {wanted.point}; "
                          f"unmount it there first and remove that line")
        if entry and entry.source == wanted.source:
            if not placed:
                kept.append(line if entry == wanted else _line(wanted))
            placed = True
        else:
            kept.append(line)
    if not placed:
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        kept.append(_line(wanted))
    return "".join(kept)


def fstab_without(text, source, point):
    """Text of fstab without the lines that mount exactly this source on exactly this point (None: on any)."""
    kept = []
    for line in text.splitlines(keepends=True):
        entry = _entry(line)
        if not (entry and entry.source == source and point in (None, entry.point)):
            kept.append(line)
    return "".join(kept)


def _line(entry):
    return " ".join([escape(entry.source), escape(entry.point), entry.fstype, entry.options, entry.dump, entry.check]) + "\n"


def write_fstab(text, path=FSTAB):
    """Replace fstab as a whole with text, keeping its mode; a symlink is followed."""
    path = os.path.realpath(path)
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        mode = 0o644
    save_file(path, text, mode)
    with one_reload():
        _reload["due"] = os.path.isdir("/run/systemd/system")


_reload = {"depth": 0, "due": False}


@contextlib.contextmanager
def one_reload():
    """Have systemd read anew once, at the end, whatever fstab is given meanwhile: it keeps units of its own made from the old text."""
    _reload["depth"] += 1
    try:
        yield
    finally:
        _reload["depth"] -= 1
        if _reload["due"] and not _reload["depth"]:
            _reload["due"] = False
            run(["systemctl", "daemon-reload"], ok=None)
