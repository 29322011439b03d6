# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Hold file systems and whatever uses them still for a moment, and let them go again whatever happens to this program."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shlex
import socket
import subprocess
import time

from ._core import Problem

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878

_GRACE = 2  # seconds from the request to end, which a command may ignore, to its end
_STILL, _WELL = b"still", b"well"
_SAID = 1 << 16  # bytes, more than the two processes ever tell each other


@contextlib.contextmanager
def held_still(points, before, after, seconds):
    """Run the commands before, freeze the file systems on points, and undo both at the end: thaw, then the commands after.

    points is a list of mount points, before and after are lists of shell commands (str). All but the commands after has to be over within seconds;
    they are run whether or not all went well, for as long each. A process of its own does all of it, so that it knows what it froze, and undoes it
    when this one says so, has died, or the time is over. Raises Problem when it was over before the end, or when a command failed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper = os.fork()  # before the freeze: a program that is not in memory could not be started any more
    if helper == 0:
        ours.close()
        _hold(theirs, points, before, after, seconds)
    theirs.close()
    with ours:
        said = ours.recv(_SAID)
        try:
            if said == _STILL:
                yield
        finally:
            if said == _STILL:
                ours.shutdown(socket.SHUT_WR)
                said = ours.recv(_SAID)
                for point in [] if said else reversed(points):  # nobody else is left to do it
                    with contextlib.suppress(Problem):
                        _control(point, FITHAW, "thaw")
            os.waitpid(helper, 0)
    if said != _WELL:
        raise Problem(said.decode("utf-8", "replace") or "the process that holds everything still was killed; there is no point, and the commands after "
                                                         "the thaw were not run")


def _hold(peer, points, before, after, seconds):
    """The process that does it. It ends here, and says _STILL and at its end _WELL, or only what went wrong."""
    try:
        os.setsid()
        frozen, problems, deadline = [], [], time.monotonic() + seconds

        def attempt(act, *words):
            try:
                act(*words)
            except (Problem, OSError, ValueError) as problem:
                problems.append(str(problem))

        attempt(_freeze, peer, points, before, deadline, seconds, frozen)
        for point in reversed(frozen):
            attempt(_control, point, FITHAW, "thaw")
        for command in after:
            attempt(_shell, "after the thaw", command, seconds)
        peer.send("; ".join(problems).encode("utf-8", "replace")[:_SAID] or _WELL)
    finally:
        os._exit(0)


def _freeze(peer, points, before, deadline, seconds, frozen):
    """Come to hold everything still, say so, and wait for the other process to end it; frozen gets what was frozen. Raises Problem at the deadline."""
    for command in [*before] + [f"sync -f {shlex.join(points)}"] * bool(points):  # so that there is little left to write for what waits meanwhile
        _shell("before the freeze", command, deadline - time.monotonic())
    for point in points:
        _left(deadline, seconds)
        _control(point, FIFREEZE, "freeze")
        frozen.append(point)
    left = _left(deadline, seconds)  # to freeze takes as long as it takes
    peer.send(_STILL)
    if not select.select([peer], [], [], left)[0]:
        raise _late(seconds)


def _late(seconds):
    return Problem(f"the time limit of {seconds} seconds was over before the point was made, so everything was let go and there is no point; "
                   "raise the limit or see what is slow")


def _left(deadline, seconds):
    """Seconds until a moment of the monotonic clock; raises Problem when it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise _late(seconds)
    return left


def _shell(when, command, seconds):
    """Run a shell command for at most so many seconds; raises Problem with the end of its output unless it ends well."""
    # what it leaves in the background may keep its output open, so that is no pipe
    with os.fdopen(os.memfd_create("output"), "w+b") as output:
        done = subprocess.run(["timeout", f"--kill-after={_GRACE}", f"{max(seconds, 0.001):.3f}", "sh", "-c", command],  # pylint: disable=ansible-bad-function
                              stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False)
        output.seek(max(0, output.seek(0, os.SEEK_END) - 500))
        said = output.read().decode("utf-8", "replace").strip()
    if done.returncode:
        how = "did not end within the time limit" if done.returncode in (124, 137, -9) else f"failed with status {done.returncode}"
        raise Problem(f"the command {when} {how}: {command}: {said}")


def _control(point, request, what):
    try:
        number = os.open(point, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(number, request, 0)
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot {what} the file system on {point}: {error.strerror}") from None
