# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Hold a file system and whatever uses it still for a moment, and let it go again whatever happens to this program."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys

from ._core import Problem

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


@contextlib.contextmanager
def held_still(point, before, after, seconds):
    """Run the commands before, freeze the file system on point (None: none), and undo both at the end: thaw, then the commands after.

    before and after are lists of shell commands (str), after is run whether or not all went well. A process of its own does the undoing, when this
    one says so, has died, or seconds are over. Raises Problem when they were over before the end, or when a command failed.
    """
    listen, tell = os.pipe()
    helper = os.fork()  # before the freeze: a program that is not in memory could not be started any more
    if helper == 0:
        _undo(listen, tell, point, after, seconds)
    os.close(listen)
    try:
        for command in before:
            done = subprocess.run(["timeout", str(seconds), "sh", "-c", command], stdin=subprocess.DEVNULL,  # pylint: disable=ansible-bad-function
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, universal_newlines=True)
            if done.returncode:
                raise Problem(f"the command before the freeze failed with status {done.returncode}: {command}: {done.stdout.strip()[-500:]}")
        if point:
            _control(point, FIFREEZE, "freeze")
        yield
    finally:
        os.close(tell)
        status = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if status == 1:
        raise Problem(f"the time limit of {seconds} seconds was over before the point was made, so everything was let go and there is no point; "
                      "raise the limit or see what is slow")
    if status:
        raise Problem("a command after the thaw failed; its output is above, and in the journal")


def _undo(listen, tell, point, after, seconds):
    """The process that lets go; ends with status 0, 1 when the time was over, or 2 when a command failed."""
    status = 3
    try:
        os.close(tell)
        os.setsid()
        ready = select.select([listen], [], [], seconds)[0]
        status = 0 if ready else 1
        _thaw(point)
        for command in after:
            # what it says belongs to no answer of this program
            done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=sys.stderr,  # pylint: disable=ansible-bad-function
                                  check=False)
            status = status or (2 if done.returncode else 0)
        if not ready:
            select.select([listen], [], [])  # the other one may freeze it yet, just before it sees that the time is over
            _thaw(point)
    finally:
        os._exit(status)


def _thaw(point):
    if point:
        with contextlib.suppress(Problem):  # it was not frozen
            _control(point, FITHAW, "thaw")


def _control(point, request, what):
    try:
        number = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(number, request, 0)
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot {what} the file system on {point}: {error.strerror}") from None
