# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrite blocks at once from another block cgroup, and tell how many of them are not the same on both legs.

    overtake.py FILE LOCAL REMOTE STORE COUNT   FILE is on a device whose legs are LOCAL and REMOTE (paths of files), and STORE is where the file
                                                system of the remote one is mounted; with a COUNT of 0 FILE is only made

A process of one cgroup keeps the remote leg busy, writes block after block and has each, as soon as it was acknowledged, written again by a
process of another cgroup. The controller io has to be in use. Meanwhile the store stands still, so that all of it is on its way at once; where
writes wait for the remote leg, that is let go after three seconds.
"""

import contextlib
import fcntl
import mmap
import os
import sys
import threading
import time

FIFREEZE, FITHAW, STILL = 0xC0045877, 0xC0045878, 3  # ioctls of <linux/fs.h>, and seconds
BLOCK, BUSY, AREA = 4096, 65536, 16 << 20  # bytes of a block, of a write that keeps the leg busy, and of the part of the file for those
OLD, NEW = (os.urandom(16) for _text in range(2))  # what a block begins with, of this run


def join(name):
    """Put this process into a cgroup of its own."""
    path = f"/sys/fs/cgroup/{name}"
    os.makedirs(path, exist_ok=True)
    with open(f"{path}/cgroup.procs", "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))


def write(handle, text, at):
    """Write a block that begins with a text past the page cache."""
    with mmap.mmap(-1, BLOCK) as data:
        data[:len(text)] = text
        os.pwrite(handle, data, at)


@contextlib.contextmanager
def still(store):
    """Freeze a file system, at most for STILL seconds."""
    handle, over = os.open(store, os.O_RDONLY), threading.Event()

    def thaw():
        over.wait(STILL)
        fcntl.ioctl(handle, FITHAW, 0)
    fcntl.ioctl(handle, FIFREEZE, 0)
    thread = threading.Thread(target=thaw)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.close(handle)


def rewrite(path, store, count):
    """Write count blocks twice, the second time from another cgroup."""
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.write(bytes(2 * AREA))  # so that nothing is allocated later
            file.flush()
            os.fsync(file.fileno())
    if not count:
        return
    handle = os.open(path, os.O_RDWR | os.O_DIRECT)
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    child = os.fork()
    if not child:
        join("overtake-second")
        for number in range(count):
            os.read(asked, 1)
            write(handle, NEW, AREA + 8 * number * BLOCK)
            os.write(answer, b".")
        os._exit(0)
    join("overtake-first")
    with mmap.mmap(-1, BUSY) as data, still(store):
        data[:] = os.urandom(BUSY)
        for number in range(count):
            for turn in range(6):
                os.pwrite(handle, data, (6 * number + turn) * 2 * BUSY % AREA)
            write(handle, OLD, AREA + 8 * number * BLOCK)
            os.write(ask, b".")
            os.read(answered, 1)
    os.waitpid(child, 0)


def blocks(path):
    """dict of position -> text of the blocks of a leg that this program wrote."""
    found, at = {}, 0
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            for start in range(0, len(part), BLOCK):
                text = part[start:start + len(OLD)]
                if text in (OLD, NEW):
                    found[at + start] = text
            at += len(part)
    return found


def main():
    path, local, remote, store, count = sys.argv[1:]
    rewrite(path, store, int(count))
    os.sync()
    time.sleep(5)  # what is behind arrives
    one, other = blocks(local), blocks(remote)
    if list(one.values()) != [NEW] * int(count):
        sys.exit(f"the local leg has {len(one)} blocks, {list(one.values()).count(OLD)} of them old")
    print(sum(one.get(at) != other.get(at) for at in {*one, *other}))


if __name__ == "__main__":
    main()
