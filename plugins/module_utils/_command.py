# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The command `indestructible` on a host: the collection's core without Ansible."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time

from . import _generations, _host_config, _leg, _lifecycle, _md, _point, _points, _recovery, _rollback, _swap
from ._core import Problem, converge, host_lock, human_size, list_records, parse_size, run
from ._guard import Guard
from ._table import generations_table, points_table, status_table
from ._when import iso, parse_time
from ._whole import read_whole


def say(level, sentence):
    """A line for the journal; systemd reads the level (3 error, 4 warning, 5 notice, 6 information) from its beginning."""
    sys.stderr.write(f"<{level}>{sentence}\n")
    sys.stderr.flush()


def _tell(args, state, text):
    """Print what came of it, for a program or for a person."""
    sys.stdout.write((json.dumps(state, indent=1, sort_keys=True) if args.json else text) + "\n")
    return 0


def _status(args):
    state = read_whole()
    return _tell(args, state, status_table(state["devices"], state["stores"], state["recoveries"]))


def _points_of(args):
    since, until = (parse_time(text, time.time(), name) if text else None for name, text in (("--since", args.since), ("--until", args.until)))
    found = _points.read_points(args.device, since, until, args.limit, args.all)
    away = "".join(f"\nNot there: {one} (indestructible generations --help)." for one in found["not_attached"])
    more = f"\nThere are more; these are the newest {args.limit} (--limit)." if found["more"] else ""
    return _tell(args, found, f"{points_table(found['points'])}{more}\n\n{args.device}: {_points.range_text(found['oldest'], found['newest'])}.{away}")


def _checkpoint(args):
    if args.prune:
        want = {"device": args.device, "state": "pruned", "retention": _retention(args.prune), "prefix": args.prefix}
    else:
        want = {"device": args.device, "name": args.name, "note": args.note, "as_of": args.as_of, "quiesce": args.quiesce, "before": args.before,
                "after": args.after, "limit": args.limit, "state": "absent" if args.delete else "present"}
    result = _point.converge_point(_point.normalize(want))
    state = _point.public(result["after"][0])
    return _tell(args, dict(state, changed=result["changed"]), "\n".join(f"Done: {what}." for what in result["actions"]) or "Nothing to do.")


def _retention(texts):
    try:
        return {period: int(count) for period, count in (text.split("=") for text in texts)}
    except ValueError:
        raise Problem(f"--prune {' '.join(texts)}: write PERIOD=COUNT, such as hourly=24 daily=7") from None


def _recover(args):
    want = _recovery.normalize({"name": args.name, "device": args.device, "as_of": " ".join(args.as_of) or "latest",
                                "mode": "direct" if args.direct else "overlay", "mount": "" if args.no_mount else args.mount, "cow": args.cow,
                                "unsafe": args.unsafe, "generation": args.generation,
                                "cow_size": parse_size(args.cow_size, "--cow-size") if args.cow_size else None})
    with host_lock():
        result = _recovery.converge_one(want)
    state = _recovery.public(result["after"][0])
    return _tell(args, dict(state, changed=result["changed"]), _recovered(state))


def _recovered(state):
    lines = [f"{state['device']} as of {state['iso']} (checkpoint {state['checkpoint']}) is open{'' if state['safe'] else ', and NOT SAFE'}:",
             f"  block device  {state['path']} ({human_size(state['size'])}, {state['content'] or 'nothing that is known on it'})"]
    if state["mount"]:
        lines.append(f"  files         {state['mount']}")
    elif state["content"] and "partition table" in state["content"]:
        flags, missing = ("-ar", "-a")[state["mode"] == "overlay"], "" if shutil.which("kpartx") else "; the package kpartx has it"
        lines.append(f"  look inside   kpartx {flags} {state['path']} (and kpartx -d before the release{missing})")
    elif state["content"] and "LVM" in state["content"]:
        group = f"{state['name']}_past"
        lines.append(f"  look inside   vgimportclone -n {group} {state['path']} && vgchange -ay {group} (and vgchange -an {group} before the release)"
                     if state["mode"] == "overlay" else "  look inside   open it without --direct, for LVM has to give it another name than its twin's")
    if state["mode"] == "overlay":
        lines.append(f"  writable; what is written goes to {state['cow']} ({human_size(state['cow_size'])}) and is gone at the release or a reboot")
    return "\n".join(lines + [f"Close it: indestructible release {state['name']}"])


def _release(args):
    names = [args.name] if args.name in list_records(_recovery.KIND) else _recovery.names_of(args.name)
    if args.all:
        names = list_records(_recovery.KIND)
    elif not names:
        raise Problem(f"no recovery {args.name!r} is open, and none of a device of that name; there are: {', '.join(list_records(_recovery.KIND)) or 'none'}")
    with host_lock():
        results = [_recovery.converge_one(_recovery.normalize({"name": name, "device": None, "state": "absent"})) for name in names]
    actions = [what for result in results for what in result["actions"]]
    return _tell(args, {"released": names, "actions": actions}, "\n".join(f"Done: {what}." for what in actions) or "Nothing was open.")


def _roll_back(args):
    want = _rollback.normalize({"device": args.device, "as_of": " ".join(args.as_of), "unsafe": args.unsafe, "generation": args.generation})
    state = _rollback.observe(want)
    for step in _rollback.plan(want, state):
        _rollback.perform(want, step, _progress if sys.stderr.isatty() and not args.json else None)
    last = _rollback.observe(want)["last"]
    return _tell(args, last, f"{args.device} is as it was at {iso(last['time'])} (checkpoint {last['checkpoint']}); "
                             f"{human_size(last['written'])} were written.\nUndo it: indestructible rollback {args.device} {last['before']}")


def _progress(done, size, written, what=""):
    sys.stderr.write(f"\r{what}{100 * done // size:3d} % of {human_size(size)} looked at, {human_size(written)} written" + ("\n" if done == size else ""))
    sys.stderr.flush()


def _set_leg(args):
    devices = _host_config.load().devices
    if args.device not in devices:
        raise Problem(f"no device {args.device!r} on this host; there are: {', '.join(sorted(devices)) or 'none'}")
    with host_lock():
        result = {"detach": _leg.take_out, "attach": _leg.bring}[args.verb](devices[args.device])
    state = _md.public(result["after"][0])
    lines = [f"Done: {what}." for what in result["actions"]] or ["Nothing to do."]
    if args.verb == "detach":
        lines.append(f"{args.device} runs on from its local leg. Bring the other one back: indestructible attach {args.device}")
    elif result["changed"]:
        lines.append("What changed meanwhile is copied now; indestructible status shows how far it is.")
    return _tell(args, dict(state, changed=result["changed"], actions=result["actions"]), "\n".join(lines))


def _swap_store(args):
    config = _host_config.load()
    want = _swap.normalize({"store": args.store, "place": {key: getattr(args, key) for key in _generations.PLACE_KEYS}, "undo": args.undo,
                            "limit": parse_size(args.limit, "--limit") if args.limit else None}, config)
    if not want["undo"]:
        want["found"] = _swap.locate(want)
    show = _progress if sys.stderr.isatty() and not args.json else None
    result = converge([want], _swap.observe, _swap.plan,
                      lambda want, step: _swap.perform(want, step, show and (lambda device, *numbers: show(*numbers, what=f"{device}: "))), _swap.predict)
    state = _swap.public(result["after"][0])
    lines = [f"Done: {what}." for what in result["actions"]] or ["Nothing to do."]
    if result["changed"] and not want["undo"]:
        lines.append(f"Write the new place of {args.store} in indestructible_stores: {_generations.place_text(state['place'])}.")
    return _tell(args, dict(state, changed=result["changed"], actions=result["actions"]), "\n".join(lines))


def _list_generations(args):
    with host_lock():
        for act in ("attach", "detach", "forget"):
            number = getattr(args, act)
            if number is not None:
                getattr(_generations, act)(args.store, number, *([args.device] if act == "attach" else []))
    found = [dict(one, attached=_generations.is_attached(args.store, one["number"])) for one in _generations.retired(args.store)]
    number = _generations.current(args.store)
    return _tell(args, {"store": args.store, "current": number, "retired": found}, generations_table(found) + f"\n\nGeneration {number} is in use.")


def _guard(_args):
    guard = Guard(say)
    signal.signal(signal.SIGTERM, guard.stop)
    signal.signal(signal.SIGINT, guard.stop)
    guard.run()
    return 0


def _start(_args):
    # a device that cannot be started must not keep the others, or the boot, from going on: the journal tells
    try:
        config = _host_config.load()
    except Problem:
        _host_config.note_late(list_records("devices"))  # the guard starts them once it can read what is wanted
        raise
    _lifecycle.start(config, say)
    return 0


def _stop(_args):
    _lifecycle.stop(_host_config.load(), say)
    return 0


def _leave(_args):
    # an ExecStop: only at shutdown are the remote legs left; a guard that is restarted finds everything as it was
    if run(["systemctl", "is-system-running"], ok=None).out.strip() == "stopping":
        _lifecycle.leave(_host_config.load(), say)
    return 0


def _safe(_args):
    _lifecycle.make_safe(say)
    return 0


def _add_device(one):
    one.add_argument("device", help="name of a device")


def _add_points(one):
    one.add_argument("device", help="name of a device")
    one.add_argument("--since", metavar="TIME", help="only those made since then")
    one.add_argument("--until", metavar="TIME", help="only those made until then")
    one.add_argument("--limit", type=int, default=100, help="at most so many, the newest first (100)")
    one.add_argument("--all", action="store_true", help="also checkpoints that are not safe to recover from")


def _add_checkpoint(one):
    one.add_argument("device", help="name of a device")
    one.add_argument("--name", help="name of the point (point-TIME)")
    one.add_argument("--note", help="a sentence to remember it by")
    one.add_argument("--as-of", metavar="WHEN", help="name the point of that time instead of making one now")
    one.add_argument("--quiesce", action=argparse.BooleanOptionalAction, default=None, help="freeze the file system meanwhile (when it is mounted)")
    one.add_argument("--before", action="append", default=[], metavar="COMMAND", help="run this first, to hold an application still; may be repeated")
    one.add_argument("--after", action="append", default=[], metavar="COMMAND",
                     help="run this at the end, whatever happened, for at most --limit; may be repeated")
    one.add_argument("--limit", type=int, default=30, metavar="SECONDS",
                     help="so long --before and the freeze may take in all; then everything is let go whatever happens (30)")
    one.add_argument("--delete", action="store_true", help="release the point --name instead")
    one.add_argument("--prune", nargs="+", metavar="PERIOD=COUNT", help="release all points but the newest of so many hourly, daily, weekly, monthly, yearly")
    one.add_argument("--prefix", default="", help="prune only points whose names begin so")


def _add_when(one, default):
    one.add_argument("device", help="name of a device")
    one.add_argument("as_of", nargs="*" if default else "+", metavar="WHEN",
                     help="2026-11-22 10:15:30 (with or without a zone), '10 minutes ago', latest, the name of a point, or a checkpoint number"
                          + (" (latest)" if default else ""))
    one.add_argument("--unsafe", action="store_true", help="open a checkpoint that is not a recovery point, named by its number")
    one.add_argument("--generation", type=int, metavar="N", help="look for it in this retired generation of the store (found by time otherwise)")


def _add_recover(one):
    _add_when(one, True)
    one.add_argument("--name", help="name of the recovery, when several of one device are to be open (the device's name)")
    one.add_argument("--mount", metavar="PATH", help="where to mount its file system (/mnt/indestructible/NAME)")
    one.add_argument("--no-mount", action="store_true", help="only the block device")
    one.add_argument("--direct", action="store_true", help="read-only and without replaying the journal: the last files may be missing")
    one.add_argument("--cow", metavar="PATH", help="file that takes what is written to it")
    one.add_argument("--cow-size", metavar="SIZE", help="how much may be written (1G, or half of what is free)")


def _add_swap(one):
    one.add_argument("store", help="name of a store")
    one.add_argument("--lun", type=int, metavar="N", help="the blank LUN, of today's target unless another one is given")
    one.add_argument("--portal", metavar="HOST:PORT", help="where the target is, when it is another one than today's")
    one.add_argument("--target", metavar="IQN", help="the target, when it is another one than today's; this host has logged in to it once")
    one.add_argument("--device", metavar="PATH", help="a blank block device instead")
    one.add_argument("--limit", metavar="SIZE", help="copy at most so much a second, such as 50M")
    one.add_argument("--undo", action="store_true", help="give a swap up that was begun")


def _add_generations(one):
    one.add_argument("store", help="name of a store")
    which = one.add_mutually_exclusive_group()
    which.add_argument("--attach", type=int, metavar="N", help="bring a retired generation back, read-only")
    which.add_argument("--detach", type=int, metavar="N", help="unmount it again")
    which.add_argument("--forget", type=int, metavar="N", help="forget it; what its LUN holds stays")
    one.add_argument("--device", metavar="PATH", help="with --attach: the block device that it is on now")


def _add_release(one):
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", help="name of a recovery; when there is none of that name, of a device for all of its recoveries")
    which.add_argument("--all", action="store_true", help="every recovery of this host")


VERBS = {
    "status": (_status, "show the devices, stores and recoveries of this host", lambda one: None),
    "points": (_points_of, "list the recovery points of a device, newest first", _add_points),
    "checkpoint": (_checkpoint, "make a recovery point now and protect it, or release or prune points", _add_checkpoint),
    "recover": (_recover, "open a device as it was, beside the device in use", _add_recover),
    "release": (_release, "close a recovery and everything that it opened", _add_release),
    "rollback": (_roll_back, "put a device itself back to a past point", lambda one: _add_when(one, False)),
    "detach": (_set_leg, "take the remote leg of a device out, and leave it out", _add_device),
    "attach": (_set_leg, "bring the remote leg of a device back; only what changed is copied", _add_device),
    "swap": (_swap_store, "move a store to a blank LUN; the old one is kept as history", _add_swap),
    "generations": (_list_generations, "list the LUNs that a store has had, and attach, detach or forget one", _add_generations),
    "guard": (_guard, "watch the stores and heal the devices (the service indestructible-guard)", None),
    "start": (_start, "start the devices from their local legs (at boot)", None),
    "stop": (_stop, "stop the devices (at shutdown)", None),
    "leave": (_leave, "at shutdown, take the remote legs out cleanly", None),
    "safe": (_safe, "make every flush wait for the remote legs, because nothing guards them", None),
}

_EPILOG = """On a bad day:
  indestructible status                              what is there
  indestructible points db --since '2 hours ago'     what it can be put back to
  indestructible recover db 2026-11-22 10:15:30      look at it as it was then, under /mnt/indestructible/db
  indestructible release db                          close that again
  indestructible rollback db 2026-11-22 10:15:30     put the device itself back (it must not be mounted)
"""


def main(arguments=None):
    """Run one verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="indestructible", description="Indestructible block devices of this host.", epilog=_EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (_function, what, options) in VERBS.items():
        one = verbs.add_parser(verb, help=what, description=what.capitalize() + ".")
        if options:
            options(one)
            one.add_argument("--json", action="store_true", help='as JSON, for programs; what went wrong is {"error": "..."}, with exit status 1')
    args, rest = parser.parse_known_args(arguments)
    # before Python 3.12 a WHEN behind the options is left over, because its place before them was empty
    if rest and not any(word.startswith("-") for word in rest) and getattr(args, "as_of", None) == []:
        args.as_of, rest = rest, []
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return VERBS[args.verb][0](args)
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Problem as problem:
        if getattr(args, "json", False):
            _tell(args, {"error": str(problem)}, "")
        sys.stderr.write(f"indestructible: {problem}\n")
        return 1
