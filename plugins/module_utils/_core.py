# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What every thing of the domain shares: refusals, commands, waiting, and observe - plan - act.

Python standard library only: this code also runs on a host without Ansible.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import namedtuple

STATE_DIR = "/var/lib/indestructible"
RUN_DIR = "/run/indestructible"
GUARD_STATE = f"{RUN_DIR}/guard.json"

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
PERIODS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}  # seconds
_READ = 1 << 16  # bytes at a time
_RESERVES, _RESERVE = 16, 16 * KIB  # files, and bytes of each: room for records on a disk that is full
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB, "P": 1 << 50}


class Problem(Exception):
    """A refusal or a failure in words for the user: what is wrong, with which value, and what to do."""


class CommandFailed(Problem):
    """A command ended with a status that was not expected. Shapes: argv list, rc int, out and err str."""

    def __init__(self, argv, rc, out, err):
        said = (err.strip() or out.strip() or "it said nothing").splitlines()
        super().__init__(f"{os.path.basename(argv[0])} failed with status {rc}: {' / '.join(said[-5:])} (command: {' '.join(argv)})")
        self.argv, self.rc, self.out, self.err = argv, rc, out, err


class Locked(Problem):
    """Somebody else acts on this host's devices."""


Result = namedtuple("Result", "rc out err")


def run(argv, stdin=None, ok=(0,), timeout=120):
    """Run one command and return Result(rc int, out str, err str).

    argv is a list, never a shell string. stdin is text or None (empty). ok lists the accepted exit statuses; None accepts
    any. timeout is in seconds. Raises CommandFailed, or Problem when the program is missing or does not end in time.
    """
    env = dict(os.environ, LC_ALL="C", LANGUAGE="C", PATH=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    try:
        # AnsibleModule.run_command is not there when this runs without Ansible.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, input=stdin if stdin is not None else "", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=env, timeout=timeout, universal_newlines=True, errors="replace", check=False)
    except FileNotFoundError:
        raise Problem(f"the program {argv[0]} is not installed on this host") from None
    except subprocess.TimeoutExpired:
        raise Problem(f"{' '.join(argv)} did not end within {timeout} seconds") from None
    if ok is not None and done.returncode not in ok:
        raise CommandFailed(argv, done.returncode, done.stdout, done.stderr)
    return Result(done.returncode, done.stdout, done.stderr)


def wait_for(condition, seconds):
    """Call condition() until it returns something true, or seconds are over; returns what it returned last."""
    end = time.monotonic() + seconds
    pause = 0.01
    while True:
        value = condition()
        if value or time.monotonic() >= end:
            return value
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


def wait_until(condition, seconds, what):
    """Call condition() until it returns something true, and return that; raise Problem naming what after seconds."""
    value = wait_for(condition, seconds)
    if not value:
        raise Problem(f"waited {seconds} seconds in vain for {what}")
    return value


def parse_size(value, name="size"):
    """Bytes (int) of a size such as 100G, 512 MiB, 1.5T or 1048576; units are powers of 1024. Raises Problem naming the value."""
    if isinstance(value, bool) or value is None:
        found = None
    else:
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGTP]?)(?:i?B)?\s*", str(value), re.IGNORECASE)
    if not found:
        raise Problem(f"{name}: {value!r} is not a size; write a number and a unit, such as 100G or 512M (powers of 1024)")
    number, unit = found.group(1), found.group(2).upper()
    if "." in number:
        whole, fraction = number.split(".")
        scaled = int(whole + fraction) * _UNITS[unit]
        size, rest = divmod(scaled, 10 ** len(fraction))
        if rest:
            raise Problem(f"{name}: {value!r} is not a whole number of bytes")
    else:
        size = int(number) * _UNITS[unit]
    if size <= 0:
        raise Problem(f"{name}: {value!r} is not a size above zero")
    return size


def parse_period(value, name="period"):
    """Seconds (int) of a period such as 30d, 12h, 90m or 2w. Raises Problem naming the value."""
    found = None if isinstance(value, bool) else re.fullmatch(r"([0-9]{1,6})([mhdw])", str(value).strip())
    if not found or not int(found.group(1)):
        raise Problem(f"{name}: {value!r} is not a period; write a number and m, h, d or w, such as 30d, 12h, 90m or 2w")
    return int(found.group(1)) * PERIODS[found.group(2)]


def human_period(seconds):
    """A period in seconds as parse_period() reads it, in the largest unit that divides it: 30d, 90m."""
    unit = next(unit for unit in ("w", "d", "h", "m") if seconds % PERIODS[unit] == 0 and (unit != "w" or seconds < 5 * PERIODS["w"]))
    return f"{seconds // PERIODS[unit]}{unit}"


def human_size(size):
    """A size in bytes as a person reads it: 100 GiB, 1.5 MiB, 512 B."""
    for unit, name in ((1 << 50, "PiB"), (TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"


def human_span(seconds):
    """A time span as a person reads it: 6.3 days, 40 minutes."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.0f} seconds"


def read_text(path, default=None):
    """The stripped text of a small file such as a sysfs attribute, or default when it cannot be read.

    By bare system calls, because the guard does little else: open() makes twice as many, and takes four times as long.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while not parts or parts[-1]:
                parts.append(os.read(number, _READ))
        finally:
            os.close(number)
    except OSError:
        return default
    return b"".join(parts).decode(errors="replace").strip()


def write_text(path, text):
    """Write one value to a sysfs attribute; raises Problem naming the path and the value."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(number, text.encode())
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot write {text!r} to {path}: {error.strerror}") from None


def save_file(path, text, mode=0o644):
    """Replace a file as a whole (text is str or bytes), so that a crash leaves the old or the new one; directories are made, data reaches the disk."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.new-{os.getpid()}-{threading.get_ident()}"  # nobody else writes to this one
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text if isinstance(text, bytes) else text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sweep(os.path.dirname(path))
    _sync_directory(os.path.dirname(path))


def _sync_directory(path):
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _sweep(folder):
    """Remove what save_file() of a process that was killed has left in a folder."""
    for name in os.listdir(folder):
        found = re.search(r"\.new-([0-9]+)-[0-9]+$", name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            with contextlib.suppress(FileNotFoundError):  # another one was quicker
                os.unlink(f"{folder}/{name}")


def guard_told():
    """What the guard told last of the stores and devices (dict, see Guard), in this boot; empty when there was none."""
    try:
        return json.loads(read_text(GUARD_STATE) or "{}")
    except ValueError:
        return {}


def load_record(kind, name):
    """What this host remembers of a thing (dict; empty when nothing): kind is 'devices', 'stores' or 'recoveries'."""
    path = f"{STATE_DIR}/records/{kind}/{name}.json"
    text = read_text(path)
    try:
        if text is None and os.stat(path):  # it was made just now, or a disk that fails must not make anybody forget
            with open(path, encoding="utf-8") as file:
                text = file.read()
        return json.loads(text) if text else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Problem(f"{path} is not readable JSON; move it away to go on without it") from None


def save_record(kind, name, record):
    """Remember a dict about a thing on this host's disk, durably, even if that is full, as of the local legs that lie on it."""
    path, text = f"{STATE_DIR}/records/{kind}/{name}.json", json.dumps(record, indent=2, sort_keys=True) + "\n"
    try:
        save_file(path, text)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not _save_in_reserve(path, text.encode()):
            raise
    with contextlib.suppress(OSError):  # made once there is room
        _keep_reserve()


def _keep_reserve():
    """See that there are files whose blocks are written already; one more at each call."""
    folder = f"{STATE_DIR}/records/reserve"
    os.makedirs(folder, exist_ok=True)
    missing = {str(number) for number in range(_RESERVES)}.difference(os.listdir(folder))
    if missing:
        save_file(f"{folder}/{min(missing)}", bytes(_RESERVE))


def _save_in_reserve(path, data):
    """Save a file in the blocks of one of the reserve, so that whoever fills the disk cannot take them first. Returns whether that was done."""
    if len(data) > _RESERVE:
        return False
    mine = f"{path}.new-{os.getpid()}-{threading.get_ident()}"
    for number in range(_RESERVES):
        with contextlib.suppress(FileNotFoundError):  # used up, or somebody else's now
            os.rename(f"{STATE_DIR}/records/reserve/{number}", mine)
            with open(mine, "r+b") as file:
                file.write(data)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            os.replace(mine, path)
            _sync_directory(os.path.dirname(path))
            return True
    return False


def forget_record(kind, name):
    """Remove what is remembered of a thing, and with the last one the reserve; nothing happens when nothing is."""
    records = f"{STATE_DIR}/records"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{records}/{kind}/{name}.json")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # the latter of a file that is none of ours
        if not any(list_records(other) for other in os.listdir(records)):
            shutil.rmtree(f"{records}/reserve", ignore_errors=True)


def list_records(kind):
    """Names of all the things of a kind that this host remembers, sorted."""
    try:
        return sorted(name[:-5] for name in os.listdir(f"{STATE_DIR}/records/{kind}") if name.endswith(".json"))
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def host_lock(seconds=120, part="lock"):
    """Keep others of this host (runs of Ansible, the guard, the command) from acting at the same time; raises Locked after seconds.

    What takes a failing leg out does not ask for it: that is safe at any time, and cannot wait. What takes hours has a lock of its own,
    whose name is part, and asks for the one of the host only for the moments in which it acts on more than its own device.
    """
    os.makedirs(RUN_DIR, mode=0o700, exist_ok=True)
    path = f"{RUN_DIR}/{part}"
    with open(path, "w", encoding="utf-8") as file:
        def locked():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                return False
        try:
            wait_until(locked, seconds, f"another run that acts on this host's devices (it holds {path})")
        except Problem as problem:
            raise Locked(str(problem)) from None
        yield


def is_locked():
    """Whether somebody on this host holds host_lock() now."""
    try:
        with host_lock(0):
            return False
    except Locked:
        return True


# One planned change: verb names it in the code, what is the sentence the user reads, args is what the act needs.
Step = namedtuple("Step", "verb what args")
Step.__new__.__defaults__ = ({},)


def converge(wanted, observe, plan, perform, predict, check_mode=False):
    """Bring several things to their wanted states; plan them all before the first act, so that a refusal changes nothing.

    wanted: a list of plain dicts, one a thing. observe(want) -> state dict. plan(want, state) -> list of Step; raises Problem.
    perform(want, step) carries one step out and returns when it is done. predict(want, state, steps) -> the state dict after
    the steps, for check mode. Returns dict(changed bool, actions list of str, before list of dict, after list of dict).
    A Problem raised by an act gets the attribute `done`, the list of sentences of the steps that were carried out.
    """
    before = [observe(want) for want in wanted]
    plans = [plan(want, state) for want, state in zip(wanted, before)]
    done = []
    after = []
    for want, state, steps in zip(wanted, before, plans):
        for step in steps:
            if not check_mode:
                try:
                    perform(want, step)
                except Problem as problem:
                    problem.done = done
                    raise
            done.append(step.what)
        if not steps:
            after.append(state)
        elif check_mode:
            after.append(predict(want, state, steps))
        else:
            after.append(observe(want))
    return {"changed": bool(done), "actions": done, "before": before, "after": after}


def converge_alone(wanted, observe, plan, perform, predict, check_mode=False, part="lock"):
    """converge() under host_lock(part=part); check mode, which changes nothing, does not wait for anybody."""
    with contextlib.nullcontext() if check_mode else host_lock(part=part):
        return converge(wanted, observe, plan, perform, predict, check_mode)
