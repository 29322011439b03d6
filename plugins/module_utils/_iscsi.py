# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One iSCSI session of this host: its node record, its login, its timeouts, and the disk of the wanted LUN.

Discovery is not used: a record is made for exactly the target and the portal that are named.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket

from . import _iscsi_node as node
from ._blockdev import find_holder
from ._core import Problem, Step, human_size, run, save_file, wait_for, wait_until, write_text

DEFAULT_PORT = 3260
PROBE_SECONDS = 5
DEFAULT_TIMEOUTS = {"replacement_timeout": 5, "noop_out_interval": 2, "noop_out_timeout": 2, "login_timeout": 5, "login_retries": 2}
_NAMING = 3  # seconds that udev is given to name disks
_HASTENED = 6  # seconds that the guard is given to put a timeout back
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NAME = re.compile(r"iqn\.[0-9]{4}-(?:0[1-9]|1[0-2])\.[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[a-z0-9.:_-]+)?|eui\.[0-9a-f]{16}|naa\.(?:[0-9a-f]{16}){1,2}")


def parse_portal(text, default_port=DEFAULT_PORT):
    """(host str, port int) of a portal: an IPv4 address or a name with or without :port, [IPv6]:port, or a bare IPv6 address.

    The host comes back in one canonical spelling. Raises Problem naming the text.
    """
    refusal = Problem(f"portal: {text!r} is no address; write an IPv4 address, a host name or [IPv6], with :port unless it is {default_port}")
    if not isinstance(text, str) or not text:
        raise refusal
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?", text)
    if bracketed:
        host, port = bracketed.groups()
        if ":" not in host:
            raise refusal
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, port = text.partition(":")
        if colon and not re.fullmatch(r"[0-9]{1,5}", port):
            raise refusal
    number = int(port) if port else default_port
    if not 1 <= number <= 65535:
        raise refusal
    try:
        if "%" in host:
            raise refusal
        return str(ipaddress.ip_address(host)), number
    except ValueError:
        pass
    host = host.lower()
    labels = host.rstrip(".").split(".")
    if ":" in host or len(host) > 253 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        raise refusal
    return host, number


def format_portal(host, port):
    """A portal as one text: HOST:PORT, or [IPv6]:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_name(text, what):
    """An iSCSI name as it is compared everywhere (lower case); raises Problem naming what it should have been."""
    name = str(text).lower()
    if len(name) > 223 or not _NAME.fullmatch(name):
        raise Problem(f"{what}: {text!r} is no iSCSI name; write one such as iqn.2026-11.org.example:vault1")
    return name


def check_chap(chap, whose):
    """The credentials as a dict of four str ("" where not used); raises Problem without telling a secret."""
    names = ("username", "password", "mutual_username", "mutual_password")
    clean = {name: str((chap or {}).get(name) or "") for name in names}
    for first, second in (("username", "password"), ("mutual_username", "mutual_password")):
        if bool(clean[first]) != bool(clean[second]):
            raise Problem(f"{whose}: chap has {first if clean[first] else second} but not {second if clean[first] else first}; give both or neither")
    if clean["mutual_username"] and not clean["username"]:
        raise Problem(f"{whose}: chap has mutual_username but not username; mutual authentication comes on top of the one-way kind")
    for name, value in clean.items():
        if value and (value != value.strip() or len(value) > 255 or not value.isprintable() or not value.isascii() or value == "NULL"):
            raise Problem(f"{whose}: chap {name} must be 1 to 255 printable ASCII characters without a space at either end, and not the word NULL")
    if clean["password"] and clean["password"] == clean["mutual_password"]:
        raise Problem(f"{whose}: chap password and mutual_password are the same; initiators refuse that, choose two")
    return clean


def chap_kind(chap):
    """"none", "one-way" or "mutual": what a dict of credentials amounts to."""
    return "none" if not chap.get("username") else "mutual" if chap.get("mutual_username") else "one-way"


def normalize(want):
    """The wanted session in canonical form; raises Problem for what can never be right.

    Takes portal, target, lun, chap, timeouts, startup, state and initiator_name; returns a dict of the same plus host and port.
    """
    host, port = parse_portal(want["portal"])
    lun = want.get("lun")
    if lun is not None and not 0 <= lun <= 16383:
        raise Problem(f"lun: {lun} is no LUN number; write one from 0 to 16383")
    timeouts = dict(DEFAULT_TIMEOUTS)
    timeouts.update({name: value for name, value in (want.get("timeouts") or {}).items() if value is not None})
    for name, value in timeouts.items():
        if value < (0 if name.startswith("noop") else 1):
            raise Problem(f"timeouts: {name} {value} is not a number of {'tries' if name == 'login_retries' else 'seconds'} above zero")
    name = want.get("initiator_name")
    return {
        "host": host, "port": port, "portal": format_portal(host, port), "target": check_name(want["target"], "target"), "lun": lun,
        "chap": check_chap(want.get("chap"), f"target {want['target']}"), "timeouts": timeouts,
        "startup": want.get("startup") or "automatic", "state": want.get("state") or "present",
        "initiator_name": check_name(name, "initiator_name") if name else None,
    }


def wanted_settings(want):
    """What the node record has to say (dict of str, None for what must not be there)."""
    settings = {node.TIMEOUTS[name]: str(value) for name, value in want["timeouts"].items()}
    settings[node.STARTUP] = want["startup"]
    settings[node.METHOD] = "CHAP" if want["chap"]["username"] else "None"
    settings.update({key: want["chap"][name] or None for name, key in node.CREDENTIALS.items()})
    return settings


def find_session(want):
    """The session (dict) of exactly this target and portal, or None; raises Problem when the target is logged in elsewhere."""
    others = []
    for session in node.sessions():
        if session["target"] == want["target"]:
            if session["port"] == want["port"] and node.same_host(session["host"], want["host"]):
                return session
            others.append(session)
    if others and want["state"] == "present":
        other = format_portal(others[0]["host"], others[0]["port"])
        raise Problem(f"target {want['target']} is logged in already through the portal {other}; a second session would show each of its LUNs "
                      f"as two disks. Name that portal, or log it out first (state: absent with portal: '{other}')")
    return None


def _is_named(unit):
    """Whether a logical unit has the by-id link that it will keep: udev makes them one by one, scsi-3... not always first."""
    return bool(unit["device"]) and ("/scsi-3" in unit["device"] or not (unit["wwn"] or "").startswith("naa."))


def _units(session):
    """The logical units of a session; udev may take a by-id link away for a moment while it handles an event, so that is waited for."""
    units = []

    def named():
        units[:] = node.luns(session["id"])
        return all(_is_named(unit) for unit in units if unit["kernel_name"])
    wait_for(named, _NAMING)
    return units


def observe(want):
    """The full state of a session; keys that begin with an underscore are for plan() alone and hold no secret either."""
    path = node.find_record(want["target"], want["host"], want["port"])
    record = node.parse_record(node.read_record(path)) if path else {}
    session = find_session(want)
    if session and want["state"] == "present" and _is_hastened(session, want):
        # the guard lowers the timeout while a disk is silent, and puts it back
        wait_for(lambda: not _is_hastened(find_session(want), want), _HASTENED)
        session = find_session(want)
    units = _units(session) if session else []
    wanted = wanted_settings(want)
    differing = sorted(name for name, value in wanted.items() if (record.get(name) or None) != value) if record else []
    pending = []
    if session:
        pending = [name for name in ("noop_out_interval", "noop_out_timeout") if session["live"][name] != want["timeouts"][name]]
        pending += ["chap"] if session["secrets"] != want["chap"] else []
        pending += ["initiator_name"] if want["initiator_name"] not in (None, session["initiator_name"]) else []
    state = {
        "state": "present" if record or session else "absent",
        "portal": want["portal"],
        "target": want["target"],
        "lun": want["lun"],
        "record": bool(record),
        "startup": record.get(node.STARTUP),
        "timeouts": {name: _integer(record.get(key)) for name, key in node.TIMEOUTS.items()} if record else {},
        "chap": chap_kind({name: record.get(key) for name, key in node.CREDENTIALS.items()}) if record else None,
        "credentials_match": not any(name in differing for name in [node.METHOD, *node.CREDENTIALS.values()]) if record else None,
        "initiator_name": node.initiator_name(),
        "session_id": session["id"] if session else None,
        "session_state": session["state"] if session else None,
        "live_timeouts": session["live"] if session else {},
        "pending_relogin": pending if want["state"] == "present" else [],
        "luns": units,
        "device": next((unit["device"] for unit in units if unit["lun"] == want["lun"]), None),
        "_differing": differing,
        "_grown": None,
        "_sessions": len(node.sessions()),
        "_users": [],
    }
    unit = next((one for one in units if one["lun"] == want["lun"] and one["kernel_name"]), None)
    if unit and session["state"] == "LOGGED_IN" and unit["state"] == "running" and want["state"] == "present":
        size = node.served_size(unit["kernel_name"])
        state["_grown"] = size if size and unit["size"] is not None and size > unit["size"] else None
    if session and (want["state"] == "absent" or pending):
        state["_users"] = users_of(units)
    return state


def _is_hastened(session, want):
    """Whether a session fails what waits for it sooner than wanted."""
    return bool(session) and (session["live"]["replacement_timeout"] or 0) < want["timeouts"]["replacement_timeout"]


def _integer(text):
    return int(text) if text and re.fullmatch(r"-?[0-9]+", text) else None


def users_of(units):
    """Sentences naming what uses the disks of these LUNs. Asked only before a logout, for it opens the disks exclusively."""
    found = []
    for unit in units:
        path = f"/dev/{unit['kernel_name']}"
        use = find_holder(path) if unit["kernel_name"] and os.path.exists(path) else None
        if use:
            found.append(f"LUN {unit['lun']} ({unit['kernel_name']}) is {use}")
    return found


def plan(want, state):
    """Steps (list) from the observed to the wanted state; raises Problem for a refusal. Pure."""
    portal, target = want["portal"], want["target"]
    steps = []
    if want["state"] == "absent":
        if state["session_id"] is not None:
            if state["_users"]:
                raise Problem(f"target {target} at {portal} is in use: {'; '.join(state['_users'])}. Take it out of use before it is logged out")
            steps.append(Step("logout", f"Log out of {target} at {portal}"))
        if state["record"]:
            steps.append(Step("forget", f"Delete the node record of {target} at {portal}"))
        return steps
    name = want["initiator_name"]
    if name and name != state["initiator_name"]:
        if state["_sessions"]:
            raise Problem(f"initiator_name: this host is called {state['initiator_name']} and has {state['_sessions']} iSCSI sessions under that name; "
                          f"log them out before it is renamed to {name}")
        steps.append(Step("rename", f"Name this host's initiator {name}"))
    if not state["record"]:
        steps.append(Step("record", f"Make a node record of {target} at {portal}", {"new": True}))
    elif state["_differing"]:
        steps.append(Step("record", f"Change {', '.join(state['_differing'])} in the node record of {target} at {portal}", {"new": False}))
    if state["session_id"] is None:
        steps.append(Step("login", f"Log in to {target} at {portal}"))
        return steps
    if state["pending_relogin"] and not state["_users"]:
        steps.append(Step("relogin", f"Log out of {target} at {portal} and in again for {', '.join(state['pending_relogin'])}; nothing uses its disks"))
        return steps
    if state["live_timeouts"]["replacement_timeout"] != want["timeouts"]["replacement_timeout"]:
        steps.append(Step("live", f"Set the replacement timeout of session {state['session_id']} to {want['timeouts']['replacement_timeout']} s"))
    if state["_grown"]:
        steps.append(Step("grow", f"Take up the new size of LUN {want['lun']}, {human_size(state['_grown'])}", {"size": state["_grown"]}))
    if want["lun"] is not None and not state["device"]:
        steps.append(Step("find", f"Look for LUN {want['lun']} of {target} at {portal}"))
    return steps


def predict(want, state, steps):
    """The state after the steps, as far as it can be known before a login."""
    after = dict(state)
    verbs = [step.verb for step in steps]
    if "rename" in verbs:
        after["initiator_name"] = want["initiator_name"]
    if "record" in verbs:
        after.update(record=True, startup=want["startup"], timeouts=dict(want["timeouts"]), chap=chap_kind(want["chap"]), credentials_match=True)
    live = {name: want["timeouts"][name] for name in ("replacement_timeout", "noop_out_interval", "noop_out_timeout")}
    if "login" in verbs or "relogin" in verbs:
        after.update(session_state="LOGGED_IN", live_timeouts=live, pending_relogin=[])
    if "grow" in verbs:
        after["luns"] = [dict(unit, size=state["_grown"]) if unit["lun"] == want["lun"] else unit for unit in state["luns"]]
    if "live" in verbs:
        after["live_timeouts"] = dict(state["live_timeouts"], replacement_timeout=live["replacement_timeout"])
    if "logout" in verbs:
        after.update(session_id=None, session_state=None, live_timeouts={}, luns=[], device=None)
    if "forget" in verbs:
        after.update(record=False, startup=None, timeouts={}, chap=None, credentials_match=None)
    after["state"] = "present" if after["record"] or after["session_state"] else "absent"
    return after


def public(state):
    """The state without what is for plan() alone."""
    return {name: value for name, value in state.items() if not name.startswith("_")}


class Act:
    """Carries steps out, and takes back what this call made when one of them fails."""

    def __init__(self):
        self._undo = []
        self._reached = False
        self.undone = False

    def __call__(self, want, step):
        try:
            getattr(self, f"_do_{step.verb}")(want, **step.args)
        except Problem:
            while self._undo:
                self.undone = True
                try:
                    self._undo.pop()()
                except Problem:
                    continue  # the first failure is the one to be told
            raise

    def _iscsiadm(self, want, *arguments, ok=(0,), timeout=60):
        program = node.program()
        if not program:
            raise Problem("open-iscsi is not installed on this host; install the package open-iscsi")
        return run([program, "-m", "node", "-T", want["target"], "-p", want["portal"], *arguments], ok=ok, timeout=timeout)

    def _reach(self, want):
        """Refuse a portal that does not answer before anything is made: iscsid would go on trying in the background."""
        if self._reached:
            return
        try:
            socket.create_connection((want["host"], want["port"]), PROBE_SECONDS).close()
        except socket.gaierror as error:
            raise Problem(f"portal {want['portal']} is unreachable: the name cannot be resolved ({error.strerror})") from None
        except socket.timeout:
            raise Problem(f"portal {want['portal']} is unreachable: no answer within {PROBE_SECONDS} seconds; "
                          "check the address, the network and the target host") from None
        except OSError as error:
            raise Problem(f"portal {want['portal']} is unreachable: {error.strerror}; check the address, the network and the target host") from None
        self._reached = True

    def _do_rename(self, want):
        before = node.initiator_name()
        self._set_name(want["initiator_name"])
        if before:
            self._undo.append(lambda: self._set_name(before))

    def _set_name(self, name):
        """iscsid reads the name only when it starts; no session exists now, so a restart disturbs nothing."""
        save_file(node.INITIATOR_NAME, f"## The iSCSI daemon does not start without this file.\nInitiatorName={name}\n", 0o600)
        run(["systemctl", "try-restart", "iscsid.service"])

    def _do_record(self, want, new):
        if find_session(want) is None:
            self._reach(want)
        path = node.find_record(want["target"], want["host"], want["port"])
        if new and not path:
            self._undo.append(lambda: self._iscsiadm(want, "-o", "delete", ok=(0, 21)))
            self._iscsiadm(want, "-o", "new")
            path = node.find_record(want["target"], want["host"], want["port"])
            if not path:
                raise Problem(f"iscsiadm made no node record of {want['target']} at {want['portal']} below {node.nodes_directory()}")
            text = node.read_record(path)
        else:
            text = node.read_record(path)
            self._undo.append(lambda: node.write_record(path, text))
        node.write_record(path, node.edit_record(text, wanted_settings(want)))

    def _login(self, want):
        bound = max(14, want["timeouts"]["login_timeout"] * (want["timeouts"]["login_retries"] + 1))
        try:
            result = self._iscsiadm(want, "--login", ok=None, timeout=bound)
        except Problem:
            self._logout(want)
            raise Problem(f"portal {want['portal']} is reachable, but the login to {want['target']} was not answered within {bound} seconds") from None
        if result.rc in (0, 15):
            return
        where = f"target {want['target']} at {want['portal']}"
        said = " / ".join((result.err.strip() or result.out.strip()).splitlines()[-2:])
        if result.rc == 24:
            raise Problem(f"{where} refused the login: authentication failed; check the chap user names and passwords, "
                          f"and that the target allows the initiator {node.initiator_name()}")
        if result.rc == 19:
            raise Problem(f"{where} refused the login for good: the portal does not serve this target, or mutual authentication failed ({said})")
        if result.rc in (4, 8):
            raise Problem(f"portal {want['portal']} answers, but not to a login to {want['target']}; check that it serves this target ({said})")
        raise Problem(f"the login to {where} failed with status {result.rc}: {said}")

    def _logout(self, want):
        self._iscsiadm(want, "--logout", ok=(0, 21))

    def _do_login(self, want):
        self._reach(want)
        self._undo.append(lambda: self._logout(want))
        self._login(want)
        self._settle(want)

    def _do_relogin(self, want):
        self._reach(want)
        # Should the new login fail, the step before puts the old record back, and only then is the old login of use again.
        self._undo.insert(0, lambda: self._login(want))
        self._logout(want)
        self._login(want)
        self._settle(want)

    def _settle(self, want):
        """After a login: live settings, the wanted LUN, and time for the disks of the other LUNs to get their names."""
        self._do_live(want)
        if want["lun"] is not None:
            self._do_find(want)
        session = find_session(want)
        if session:
            wait_for(lambda: all(_is_named(unit) for unit in node.luns(session["id"])), _NAMING)

    def _do_live(self, want):
        session = find_session(want)
        if session and session["live"]["replacement_timeout"] != want["timeouts"]["replacement_timeout"]:
            write_text(node.recovery_attribute(session["id"]), str(want["timeouts"]["replacement_timeout"]))

    def _do_find(self, want):
        """Wait for the LUN's disk and udev's name of it; the kernel is asked to look again when the login did not show it."""
        session = wait_until(lambda: find_session(want), 5, f"the session with {want['target']} at {want['portal']}")

        def unit():
            return next((one for one in node.luns(session["id"]) if one["lun"] == want["lun"]), None)

        try:
            wait_until(unit, 1, "the LUN")
        except Problem:
            for attribute in node.scan_attributes(session["id"]):
                write_text(attribute, "- - -")  # returns when the scan is done, so a LUN missing now is not there
        if not unit():
            there = ", ".join(str(one["lun"]) for one in node.luns(session["id"])) or "none"
            raise Problem(f"target {want['target']} at {want['portal']} has no LUN {want['lun']} for this host; LUNs that are there: {there}")
        wait_until(lambda: unit()["device"], 10, f"the by-id name of LUN {want['lun']} of {want['target']}")

    def _do_grow(self, want, size):
        session = find_session(want)
        unit = next((one for one in node.luns(session["id"]) if one["lun"] == want["lun"]), None) if session else None
        if not unit or not unit["kernel_name"]:
            raise Problem(f"LUN {want['lun']} of {want['target']} went away before its new size was taken up; run this again")
        write_text(node.rescan_attribute(unit["kernel_name"]), "1")
        wait_until(lambda: next((one["size"] for one in node.luns(session["id"]) if one["lun"] == want["lun"]), None) == size, 10,
                   f"the new size of LUN {want['lun']} of {want['target']}")

    def _do_logout(self, want):
        self._logout(want)
        wait_until(lambda: find_session(want) is None, 10, f"the end of the session with {want['target']}")

    def _do_forget(self, want):
        self._iscsiadm(want, "-o", "delete", ok=(0, 21))
