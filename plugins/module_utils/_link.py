# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The way from this host to a store's disk: its session, whether the disk answers, and how to end a wait for it.

A request to a disk that does not answer keeps everything behind it waiting, md's bitmap writes and so the application included, until
the initiator's timers give up (9 s at best). Ending the connection makes the kernel fail it at once; iscsid then logs in again by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time

from . import _iscsi_node as node
from ._config import REPLACEMENT_TIMEOUT
from ._core import Problem, read_text, run, write_text
from ._iscsi import parse_portal
from ._mount import mount_at

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # the same on all architectures
_ESTABLISHED = "01"  # in /proc/net/tcp
_RESENT = 2  # which is so 0.6 seconds after the first loss, the round trip being short
_ABORT = 5  # seconds for which the connection may take to break that abort() has ended


class Link:
    """The link of one store (a dict of resolve_stores)."""

    def __init__(self, store):
        self.store = store
        self.place = parse_portal(store["portal"]) if store["portal"] else None
        self._state = self._broken = self._aborted = None  # path of the session's state, since when it is broken, when it was aborted
        self._haste = False, 0  # what hasten() was told last

    def session(self):
        """The session to the store's target through its portal, or None; also None for a store that is not reached over iSCSI."""
        if not self.place:
            return None
        for found in node.sessions():
            if found["target"] == self.store["target"] and found["port"] == self.place[1] and node.same_host(found["host"], self.place[0]):
                return found
        return None

    def disk(self):
        """Kernel name (sdb) of the disk that the store is mounted from, or None when it is not mounted or the disk is gone."""
        mount = mount_at(self.store["mount"])
        path = f"/sys/dev/block/{mount.device}" if mount and mount.fstype == "nilfs2" else ""
        return os.path.basename(os.path.realpath(path)) if os.path.exists(path) else None

    def unit(self):
        """Kernel name of the disk that the session shows under the store's LUN, or None."""
        session = self.session()
        return next((unit["kernel_name"] for unit in node.luns(session["id"]) if unit["lun"] == self.store["lun"]), None) if session else None

    def ensure(self):
        """Log in when there is no session at all; raises Problem when the disk cannot be expected to answer. What fails comes back by itself (iscsid)."""
        if not self.place:
            return
        session = self.session()
        if session is None:
            socket_probe(self.place, self.store["portal"])
            result = run([node.program() or "iscsiadm", "-m", "node", "-T", self.store["target"], "-p", self.store["portal"], "--login"],
                         ok=None, timeout=30)
            if result.rc not in (0, 15):
                raise Problem(f"the login to {self.store['target']} at {self.store['portal']} failed: {' / '.join(result.err.split())}")
            session = self.session()
        if session is None or session["state"] != "LOGGED_IN":
            raise Problem(f"the session to {self.store['target']} at {self.store['portal']} is not back yet")
        self._wait_at_most(session, self._seconds(session))
        if not self.unit():  # it may have been added since the login
            for attribute in node.scan_attributes(session["id"]):
                write_text(attribute, "- - -")
        disk = self.unit()
        state = read_text(f"/sys/class/block/{disk}/device/state")
        if state != "running":
            raise Problem(f"the disk of {self.store['target']} is {state or 'not there yet'}")

    def find(self):
        """Path of the block device that the store is on, after a login where that is needed; raises Problem when it is not there."""
        self.ensure()
        path = self.store["device"] or f"/dev/{self.unit()}"
        if not os.path.exists(path):
            raise Problem(f"the device {path} does not exist on this host")
        return path

    def _seconds(self, session):
        """The replacement timeout (int, seconds) that a session should have now."""
        usual, (hastened, deadline) = self.store["timeouts"].get("replacement_timeout", REPLACEMENT_TIMEOUT), self._haste
        if not hastened:
            return usual
        found_out = sum(session["live"][key] or 0 for key in ("noop_out_interval", "noop_out_timeout"))
        return min(usual, max(1, deadline - found_out) if deadline else 0)

    @staticmethod
    def _wait_at_most(session, seconds):
        """How long a session that is broken may take to come back until what waits for it fails."""
        if session["live"]["replacement_timeout"] != seconds:
            with contextlib.suppress(Problem):  # it broke just now, and takes none until it is back
                write_text(node.recovery_attribute(session["id"]), str(seconds))

    def broken(self, now):
        """Seconds (float) for which the session has been broken, 0.0 while it works, as far as known since the last look_up(). Costs one glance."""
        is_broken = bool(self._state) and read_text(self._state) not in ("LOGGED_IN", None)
        self._broken = (self._broken or now) if is_broken else None
        return now - self._broken if is_broken else 0.0

    def look_up(self, hastened, deadline):
        """Find the session anew, and see that it has the timeout that it should have, also when it had broken while hasten() was needed."""
        session = self.session()
        self._state = session and node.state_attribute(session["id"])
        self._hasten(session, hastened, deadline)

    def reaches(self, disk):
        """Whether a disk (kernel name) is one of the session's."""
        session = self.session()
        return bool(session) and any(unit["kernel_name"] == disk for unit in node.luns(session["id"]))

    def hasten(self, wanted, deadline):
        """While wanted, a session that is found to be broken fails what waits for it by the deadline (seconds since the disk fell silent; 0: at once).

        For then there is no connection any more that abort() could end, and the replacement timeout would come on top of the time that the noops took.
        """
        self._hasten(self.session(), wanted, deadline)

    def _hasten(self, session, *haste):
        self._haste = haste
        if session and session["state"] == "LOGGED_IN":  # else the kernel takes no other timeout; ensure() sets it when the session is back
            seconds = self._seconds(session)
            aborted = self._aborted is not None and time.monotonic() - self._aborted < _ABORT
            if not aborted or seconds < (session["live"]["replacement_timeout"] or 0):  # its connection may be about to break: then not for longer
                self._wait_at_most(session, seconds)

    def is_unanswered(self, times=_RESENT):
        """Whether what was sent to the target last was sent again so often, and no answer came: twice, and the link is cut, and not slow."""
        silent = unanswered(self.place[1], times) if self.place else []
        session = self.session() if silent else None
        return bool(session) and session["local_port"] in silent

    def abort(self):
        """Fail what waits for the disk, now. Nothing happens for a store that is not reached over iSCSI, or whose session is down already."""
        session = self.session()
        if not session or session["state"] != "LOGGED_IN":
            return
        self._aborted = time.monotonic()
        self._wait_at_most(session, 0)
        for number in _processes("iscsid"):
            _disconnect(number, session["local_port"], session["port"])


def unanswered(port, least):
    """The local ports (list of int) of TCP connections to a port that have sent the same data again so often at least, without an answer until now."""
    found, there = [], f":{port:04X} {_ESTABLISHED} "  # a host may have thousands of other connections
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (read_text(path) or "").splitlines():
            if there in line:
                _number, local, _remote, _state, _queues, timer, times = line.split()[:7]
                if timer.startswith("01:") and int(times, 16) >= least:  # 01: waiting to send it again
                    found.append(int(local.rpartition(":")[2], 16))
    return found


def socket_probe(place, portal, seconds=3):
    """Raise Problem when nothing answers at a portal; iscsiadm would hang on it for longer."""
    try:
        socket.create_connection(place, seconds).close()
    except OSError as error:
        raise Problem(f"portal {portal} is unreachable ({error})") from None


def _processes(name):
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and read_text(f"/proc/{entry}/comm") == name]


def _disconnect(process, local_port, port):
    """Reset the connection of a process from one port to another: through a copy of its socket, because not every kernel can do it by address.

    By its own port, which it shares with no other session; the address of a portal may have been given as a name.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(_PIDFD_OPEN, process, 0)
    if handle < 0:
        return
    try:
        for name in os.listdir(f"/proc/{process}/fd"):
            try:
                if not os.readlink(f"/proc/{process}/fd/{name}").startswith("socket:"):
                    continue
            except OSError:
                continue
            copy = libc.syscall(_PIDFD_GETFD, handle, int(name), 0)
            if copy < 0:
                continue
            with socket.socket(fileno=copy) as connection:
                try:
                    if connection.family in (socket.AF_INET, socket.AF_INET6) and \
                            (connection.getsockname()[1], connection.getpeername()[1]) == (local_port, port):
                        libc.connect(copy, ctypes.create_string_buffer(16), 16)  # to no address at all: the kernel drops the connection
                        connection.shutdown(socket.SHUT_RDWR)  # and this tells the initiator that it is gone
                except OSError:
                    continue  # no connection, or none any more: ENOTCONN is what shutdown says after the reset
    except OSError:
        pass
    finally:
        os.close(handle)
