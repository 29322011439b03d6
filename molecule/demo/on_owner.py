# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo does on the owner, with nothing but the standard library; prints JSON.

    write POINT VOLUME COUNT    write COUNT small files below POINT, fsync each, and tell which checkpoint of VOLUME each made
    read POINT                  drop the page cache, read the files and compare their sums
    compare LOCAL REMOTE        compare the two leg files wherever the local one holds data
    space PATH...               bytes that files have and that they occupy
"""
import fcntl
import hashlib
import json
import os
import struct
import sys
import time

GET_CPSTAT = 0x80186E83  # of nilfs2: the number of the next checkpoint, how many there are, how many are snapshots
HEADER = 4 << 20  # of each leg, before the data: md's superblock and bitmap


def newest_checkpoint(volume):
    handle = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return struct.unpack("<3Q", fcntl.ioctl(handle, GET_CPSTAT, bytes(24)))[0] - 1
    finally:
        os.close(handle)


def write(point, volume, count):
    rows = []
    for number in range(1, int(count) + 1):
        before = newest_checkpoint(volume)
        data = os.urandom(32768 << number)
        name = f"{number}.bin"
        began = time.monotonic()
        with open(f"{point}/{name}", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        took = time.monotonic() - began
        # the write is safe now; the guard commits it to the remote side a moment later
        while newest_checkpoint(volume) == before and time.monotonic() - began < 10:
            time.sleep(0.02)
        after = newest_checkpoint(volume)
        rows.append({"file": f"{point}/{name}", "size": len(data), "ms": round(took * 1000, 1), "time": time.strftime("%H:%M:%S", time.gmtime()),
                     "behind": round(time.monotonic() - began - took, 1),
                     "before": before, "after": after})
        with open(f"{point}/sums", "a", encoding="utf-8") as file:
            file.write(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    os.sync()
    return rows


def read(point):
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as file:
        file.write("3\n")
    rows = []
    with open(f"{point}/sums", encoding="utf-8") as sums:
        for line in sums:
            wanted, name = line.split()
            with open(f"{point}/{name}", "rb") as file:
                data = file.read()
            rows.append({"file": f"{point}/{name}", "size": len(data), "same": hashlib.sha256(data).hexdigest() == wanted})
    return rows


def compare(local, remote):
    os.sync()
    one, two = os.open(local, os.O_RDONLY), os.open(remote, os.O_RDONLY)
    end, at, compared, differing = os.fstat(one).st_size, HEADER, 0, 0
    while at < end:
        try:
            at = os.lseek(one, at, os.SEEK_DATA)
        except OSError:
            break
        stop = os.lseek(one, at, os.SEEK_HOLE)
        while at < stop:
            length = min(1 << 20, stop - at)
            differing += os.pread(one, length, at) != os.pread(two, length, at)
            compared, at = compared + length, at + length
    return {"compared": compared, "differing": differing}


def space(*paths):
    return {path: {"size": os.stat(path).st_size, "occupied": os.stat(path).st_blocks * 512} for path in paths}


print(json.dumps({"write": write, "read": read, "compare": compare, "space": space}[sys.argv[1]](*sys.argv[2:])))
