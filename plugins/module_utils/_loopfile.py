# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A sparse file of an exact size and the loop over it: what there is, what has to be done, and doing it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat

from ._core import MIB, STATE_DIR, Problem, Step, human_size, parse_size
from ._blockdev import find_holder
from ._loop import WRITE_CACHE, attach, detach, loops, loops_of, set_capacity, set_direct_io, set_write_cache, size_for
from ._mount import make_directories, read_mounts

ROOM = 8 * MIB  # what a file system must have free for the metadata of a new or grown sparse file
SECTOR = 512
STORES_DIR = f"{STATE_DIR}/stores/"
_NEW_MODE = 0o600  # a leg holds what the device holds: for nobody but its owner

STATES = ("attached", "detached", "absent")


def normalize(files, check_mode=False):
    """List of plain dicts with every key, sizes in bytes, of the list a user writes; raises Problem for what cannot be meant."""
    wanted = []
    seen = {}
    shared = {}  # the loops of the host, read once for all files until something is done: looking at a loop costs milliseconds
    for given in files:
        path = given["path"]
        if not os.path.isabs(path):
            raise Problem(f"path: {path!r} is not an absolute path")
        if path.endswith("/"):
            raise Problem(f"path: {path!r} names a directory, not a file")
        want = {
            "path": os.path.normpath(path),
            "state": given.get("state") or "attached",
            "size": parse_size(given["size"], "size") if given.get("size") not in (None, "") else None,
            "offset": _whole(given.get("offset"), "offset"),
            "size_limit": _whole(given.get("size_limit"), "size_limit"),
            "read_only": bool(given.get("read_only")),
            "write_cache": given.get("write_cache") or "write back",
            "direct_io": bool(given.get("direct_io")),
            "allow_shrink": bool(given.get("allow_shrink")),
            "delete": given.get("delete") or None,
            "mode": _mode(given.get("mode")),
            "owner": _number(given.get("owner"), pwd.getpwnam, "pw_uid", "owner"),
            "group": _number(given.get("group"), grp.getgrnam, "gr_gid", "group"),
            "_shared": shared, "_check_mode": check_mode,
        }
        if want["state"] not in STATES:
            raise Problem(f"state: {want['state']!r} is not one of {', '.join(STATES)}")
        if want["write_cache"] not in WRITE_CACHE + ("keep",):
            raise Problem(f"write_cache: {want['write_cache']!r} is not one of {', '.join(WRITE_CACHE)}, keep")
        if want["size"] and want["size"] % SECTOR:
            raise Problem(f"size: {given['size']!r} for {path} is {want['size']} bytes, which is not a multiple of {SECTOR}; a loop has whole sectors only")
        for key in (want["path"], os.path.realpath(want["path"]), _inode(want["path"])):
            if key is not None and seen.get(key, want) is not want:
                raise Problem(f"{seen[key]['path']} and {want['path']} are one file; give each file once" if seen[key]["path"] != want["path"]
                              else f"{path} is given twice; give each file once")
            seen[key] = want
        wanted.append(want)
    return wanted


def _whole(value, name):
    if value in (None, "", 0, "0"):
        return 0
    size = parse_size(value, name)
    if size % SECTOR:
        raise Problem(f"{name}: {value!r} is not a multiple of {SECTOR} bytes")
    return size


def _mode(value):
    if value in (None, ""):
        return None
    try:
        mode = int(str(value), 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise Problem(f"mode: {value!r} is not an octal file mode such as '0600'")
    return mode


def _number(value, look_up, field, name):
    if value in (None, ""):
        return None
    if str(value).isdigit():
        return int(value)
    try:
        return getattr(look_up(str(value)), field)
    except KeyError:
        raise Problem(f"{name}: there is no {name} {value!r} on this host") from None


def _inode(path):
    try:
        about = os.stat(path)
    except OSError:
        return None
    return (about.st_dev, about.st_ino)


def observe(want):
    """State dict of the file and its loop; keys that begin with "_" are for plan() only. What cannot matter is not looked for."""
    path = want["path"]
    state = {
        "path": path, "state": "absent", "exists": False, "size": None, "allocated": None, "mode": None, "owner": None, "group": None,
        "loop": None, "loop_size": None, "offset": None, "size_limit": None, "read_only": None, "write_cache": None, "direct_io": None,
        "_kind": _kind(path), "_use": None, "_others": [], "_room": None,
        "_stray": path.startswith(STORES_DIR) and not _mount_point(_existing(path)).startswith(STORES_DIR),
    }
    if state["_kind"] == "file":
        about = os.stat(path)
        state.update(exists=True, state="detached", size=about.st_size, allocated=about.st_blocks * 512,
                     mode=f"{stat.S_IMODE(about.st_mode):04o}", owner=about.st_uid, group=about.st_gid)
        if "loops" not in want["_shared"]:
            want["_shared"]["loops"] = loops()
        for loop in loops_of(path, want["_shared"]["loops"]):
            if state["loop"] is None and (loop.offset, loop.sizelimit) == (want["offset"], want["size_limit"]):
                state.update(state="attached", loop=loop.device, loop_size=loop.size, offset=loop.offset, size_limit=loop.sizelimit,
                             read_only=loop.read_only, write_cache=loop.write_cache, direct_io=loop.direct_io)
            else:
                state["_others"].append({"loop": loop.device, "offset": loop.offset, "size_limit": loop.sizelimit, "read_only": loop.read_only})
        if state["loop"] and (want["state"] != "attached" or want["read_only"] != state["read_only"] or _shrinks(want, state)):
            state["_use"] = find_holder(state["loop"])
    if want["state"] != "absent" and want["size"] and want["size"] > (state["size"] or 0) and state["_kind"] in ("file", "nothing"):
        state["_room"] = _room(path, want["size"])
    return state


def _kind(path):
    """What is at path: "file", "nothing", or a phrase for what is there instead."""
    if os.path.islink(path) and not os.path.exists(path):
        return f"a symbolic link to {os.readlink(path)}, which does not exist"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "nothing"
    except NotADirectoryError:
        return "below something that is not a directory"
    if stat.S_ISREG(mode):
        return "file"
    for test, word in ((stat.S_ISDIR, "a directory"), (stat.S_ISBLK, "a block device, which needs no loop"), (stat.S_ISCHR, "a character device")):
        if test(mode):
            return word
    return "a pipe or socket"


def _room(path, size):
    """What the file system of path has for a sparse file of that size: dict(point, free, inodes, too_large)."""
    place = _existing(os.path.realpath(path))
    about = os.statvfs(place)
    too_large = False
    try:
        # An unnamed file is gone with its descriptor: the only way to ask a file system how large a file it takes.
        number = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(number, size)
        finally:
            os.close(number)
    except OverflowError:
        too_large = True
    except OSError as error:
        too_large = error.errno in (errno.EFBIG, errno.EINVAL, errno.EOVERFLOW)
    inodes = about.f_favail if about.f_files else None
    return {"point": _mount_point(place), "free": about.f_bavail * about.f_frsize, "inodes": inodes, "too_large": too_large}


def _existing(path):
    """The nearest directory above path that exists."""
    place = os.path.dirname(path)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


def _mount_point(place):
    points = [mount.point for mount in read_mounts() if place == mount.point or mount.point == "/" or place.startswith(f"{mount.point}/")]
    return max(points, key=len) if points else "/"


def _shrinks(want, state):
    return bool(want["size"]) and state["size"] is not None and want["size"] < state["size"]


def plan(want, state):
    """List of Step from state to want; raises Problem for refusals. Pure."""
    path = want["path"]
    if state["_kind"] not in ("file", "nothing"):
        raise Problem(f"{path} is {state['_kind']}; give the path of a file")
    if want["state"] == "absent":
        return _plan_absent(want, state)
    if state["_stray"] and want["state"] == "attached" and not want["_check_mode"]:
        # On the host's own disk it would look like a remote leg and be none. In check mode the store may be yet to come.
        raise Problem(f"{path} belongs into a store, but no store is mounted there; mount the store first (role store)")
    steps = []
    if not state["exists"]:
        if want["state"] == "detached" and not want["size"]:
            raise Problem(f"{path} does not exist; give its size so that it can be made")
        if not want["size"]:
            raise Problem(f"{path} does not exist and has no size; give its size, such as 100G")
        _check_room(want, state)
        steps.append(Step("create", f"made {path}, a sparse file of {human_size(want['size'])}", {"size": want["size"]}))
    else:
        steps += _plan_size(want, state)
    size = want["size"] or state["size"]
    if want["offset"] >= size:
        raise Problem(f"offset: {want['offset']} is not inside {path}, which has {size} bytes")
    if want["size_limit"] and want["offset"] + want["size_limit"] > size:
        raise Problem(f"size_limit: {want['size_limit']} bytes from offset {want['offset']} go beyond the end of {path} ({size} bytes)")
    steps += _plan_access(want, state)
    if want["state"] == "detached":
        if state["loop"]:
            steps.append(_detach(want, state))
    else:
        steps += _plan_loop(want, state, size)
    return steps


def _plan_absent(want, state):
    path = want["path"]
    if not state["exists"]:
        return []
    if want["delete"] is None or os.path.normpath(want["delete"]) != path:
        told = f", but it says {want['delete']}" if want["delete"] else ""
        raise Problem(f"{path} is deleted with all that is in it only when the option delete names it (delete: {path}){told}; "
                      "state detached keeps the file")
    if state["_others"]:
        raise Problem(f"{path} cannot be deleted: it is also used by {', '.join(other['loop'] for other in state['_others'])}")
    steps = [_detach(want, state)] if state["loop"] else []
    return steps + [Step("delete", f"deleted {path} ({human_size(state['size'])}, {human_size(state['allocated'])} in use)")]


def _detach(want, state):
    if state["_use"]:
        raise Problem(f"{state['loop']} over {want['path']} cannot be detached: it is {state['_use']}")
    return Step("detach", f"detached {state['loop']} from {want['path']}", {"loop": state["loop"]})


def _check_room(want, state):
    room = state["_room"]
    size, path = want["size"], want["path"]
    if not room:
        return
    if room["too_large"]:
        raise Problem(f"{path} cannot have {human_size(size)}: the file system mounted on {room['point']} does not take files of that size")
    if room["inodes"] == 0:
        raise Problem(f"{path} cannot be made: the file system mounted on {room['point']} has no free inode; remove files there or choose another place")
    if room["free"] < ROOM:
        raise Problem(f"{path} cannot be made or grown: the file system mounted on {room['point']} has {human_size(room['free'])} free and "
                      f"{human_size(ROOM)} are needed for the file's metadata alone; make room there or choose another place")


def _plan_size(want, state):
    path, wanted, size = want["path"], want["size"], state["size"]
    if not wanted or wanted == size:
        return []
    if wanted > size:
        if want["read_only"] and state["loop"]:
            raise Problem(f"{path} has {size} bytes and not {wanted}; a read-only loop does not grow its file")
        _check_room(want, state)
        return [Step("grow", f"grew {path} from {human_size(size)} to {human_size(wanted)}", {"size": wanted})]
    if not want["allow_shrink"]:
        raise Problem(f"{path} has {size} bytes and shrinking it to {wanted} would cut off what is behind; "
                      f"give a size of at least {size}, or allow_shrink: true when that data may go")
    if state["_use"]:
        raise Problem(f"{path} cannot be shrunk: {state['loop']} over it is {state['_use']}")
    if state["_others"]:
        raise Problem(f"{path} cannot be shrunk: it is also used by {', '.join(other['loop'] for other in state['_others'])}")
    return [Step("shrink", f"shrank {path} from {human_size(size)} to {human_size(wanted)}", {"size": wanted})]


def _plan_access(want, state):
    steps = []
    if state["exists"] and want["mode"] is not None and state["mode"] != f"{want['mode']:04o}":
        steps.append(Step("mode", f"set the mode of {want['path']} to {want['mode']:04o}", {"mode": want["mode"]}))
    owner, group = want["owner"], want["group"]
    if state["exists"] and ((owner is not None and owner != state["owner"]) or (group is not None and group != state["group"])):
        steps.append(Step("owner", f"set the owner of {want['path']}", {"owner": owner, "group": group}))
    return steps


def _new_cache(want):
    """The write cache mode of a loop that is attached now."""
    return "write back" if want["write_cache"] == "keep" else want["write_cache"]


def _plan_loop(want, state, size):
    path = want["path"]
    mode = f"write cache {_new_cache(want)}" if not want["read_only"] else "read-only"
    if not state["loop"]:
        writers = [other for other in state["_others"] if not other["read_only"]]
        if writers and not want["read_only"]:
            raise Problem(f"{path} is already attached for writing as {writers[0]['loop']}, at offset {writers[0]['offset']} with size limit "
                          f"{writers[0]['size_limit']}; detach that first or attach it read-only")
        return [Step("attach", f"attached {path} to a loop ({mode})")]
    if state["read_only"] != want["read_only"]:
        return [_detach(want, state), Step("attach", f"attached {path} to a loop ({mode})")]
    steps = []
    loop = state["loop"]
    if state["loop_size"] != size_for(size, want["offset"], want["size_limit"]):
        steps.append(Step("capacity", f"made {loop} notice the size of {path}", {"loop": loop}))
    if state["direct_io"] != want["direct_io"]:
        steps.append(Step("direct_io", f"set direct I/O of {loop} {'on' if want['direct_io'] else 'off'}", {"loop": loop}))
    if not want["read_only"] and want["write_cache"] not in ("keep", state["write_cache"]):
        steps.append(Step("write_cache", f"set the write cache of {loop} to {want['write_cache']}", {"loop": loop}))
    return steps


def perform(want, step):
    """Carry one step out."""
    path, args = want["path"], step.args
    want["_shared"].clear()
    try:
        if step.verb == "create":
            _create(want)
        elif step.verb in ("grow", "shrink"):
            _set_size(path, args["size"])
        elif step.verb == "mode":
            os.chmod(path, args["mode"])
        elif step.verb == "owner":
            os.chown(path, -1 if args["owner"] is None else args["owner"], -1 if args["group"] is None else args["group"])
        elif step.verb == "delete":
            os.unlink(path)
        elif step.verb == "detach":
            detach(args["loop"])
        elif step.verb == "attach":
            attach(path, want["offset"], want["size_limit"], want["read_only"], want["direct_io"], _new_cache(want))
        elif step.verb == "capacity":
            set_capacity(args["loop"])
        elif step.verb == "direct_io":
            set_direct_io(args["loop"], want["direct_io"])
        elif step.verb == "write_cache":
            set_write_cache(args["loop"], want["write_cache"])
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from None


def _create(want):
    path = os.path.realpath(want["path"])
    make_directories(os.path.dirname(path))
    number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(number, want["size"])
        os.fchmod(number, _NEW_MODE if want["mode"] is None else want["mode"])
        if want["owner"] is not None or want["group"] is not None:
            os.fchown(number, -1 if want["owner"] is None else want["owner"], -1 if want["group"] is None else want["group"])
        os.fsync(number)
    finally:
        os.close(number)


def _set_size(path, size):
    number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(number, size)
        os.fsync(number)
    finally:
        os.close(number)


def predict(want, state, steps):
    """The state after the steps, as far as it can be known before (a loop's number cannot)."""
    after = dict(state)
    for step in steps:
        if step.verb == "create":
            after.update(exists=True, state="detached", size=want["size"], allocated=0,
                         mode=f"{_NEW_MODE if want['mode'] is None else want['mode']:04o}",
                         owner=want["owner"] or 0, group=want["group"] or 0)
        elif step.verb in ("grow", "shrink"):
            after["size"] = step.args["size"]
        elif step.verb == "mode":
            after["mode"] = f"{want['mode']:04o}"
        elif step.verb == "owner":
            after.update({key: want[key] for key in ("owner", "group") if want[key] is not None})
        elif step.verb == "delete":
            after.update(exists=False, state="absent", size=None, allocated=None, mode=None, owner=None, group=None)
        elif step.verb == "detach":
            after.update(state="detached", loop=None, loop_size=None, offset=None, size_limit=None, read_only=None, write_cache=None, direct_io=None)
        elif step.verb == "attach":
            after.update(state="attached", offset=want["offset"], size_limit=want["size_limit"], read_only=want["read_only"],
                         write_cache="write through" if want["read_only"] else _new_cache(want), direct_io=want["direct_io"])
        elif step.verb in ("direct_io", "write_cache"):
            after[step.verb] = want[step.verb]
    if after["state"] == "attached":
        after["loop_size"] = size_for(after["size"], want["offset"], want["size_limit"])
    return after


def public(state):
    """The part of a state that a module returns."""
    return {key: value for key, value in state.items() if not key.startswith("_")}
