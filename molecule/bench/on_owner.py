# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark does on the owner, with nothing but the standard library; prints JSON.

    latency FOLDER SECONDS MIB [ARRAY]   append 4 KiB and fsync it, a hundred times a second and then as fast as it goes; then write MIB MiB in
                                         one go with an fsync at the end. ARRAY (mdN): both legs are in before and after, or the answer says
                                         that they were not
    commit FILE VOLUME HOW KIB COUNT     dirty KIB KiB of FILE and commit them by HOW (fdatasync, fsync, sync), COUNT times
    process UNIT SECONDS                 memory and processor time of the main process of a unit over so many seconds
    write FILE SECONDS                   write and fsync 4 KiB all over a file, as fast as it goes
    rest SECONDS                         wait until all arrays have all their legs and nothing is under way, and then for so many seconds
    glance COUNT                         microseconds that it takes to read a file of sysfs
"""
import fcntl
import json
import os
import random
import re
import statistics
import struct
import subprocess
import sys
import time

BLOCK = 4096
PAUSE = 0.01  # seconds between fsyncs that leave the other side time to keep up
SYNC = 0x80086E8A  # of nilfs2: commit, and tell the number of the checkpoint


def text(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def settle(seconds=60):
    """Wait until everything that was written has arrived everywhere."""
    os.sync()
    end = time.monotonic() + seconds
    while os.path.exists("/proc/drbd") and re.search(" pe:[1-9]", text("/proc/drbd")) and time.monotonic() < end:
        time.sleep(0.02)


def whole(array, seconds=0):
    """Whether an array has all its legs, now or within so many seconds."""
    end = time.monotonic() + seconds
    while True:
        base = f"/sys/block/{array}/md"
        if text(f"{base}/degraded") == "0" and text(f"{base}/sync_action") == "idle":
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)


def percentiles(times):
    """p50, p99 and the longest of times in seconds, as ms."""
    ordered = sorted(times)
    return {"count": len(ordered), "p50": statistics.median(ordered) * 1000, "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
            "longest": ordered[-1] * 1000}


def append(folder, seconds, pause):
    """Times of writes of 4 KiB at the end of a new file, each with an fsync, for so many seconds with pauses of so many between them."""
    path, data, times, at = f"{folder}/bench.log", os.urandom(BLOCK), [], 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if began >= end:
            break
        os.pwrite(handle, data, at)
        os.fsync(handle)
        times.append(time.monotonic() - began)
        at += BLOCK
        time.sleep(pause)
    os.close(handle)
    os.unlink(path)
    return times


def stream(folder, size):
    """MB/s of a write of size MiB to a new file with an fsync at its end."""
    path, data = f"{folder}/bench.data", os.urandom(1 << 20)
    began = time.monotonic()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for _chunk in range(size):
        os.write(handle, data)
    os.fsync(handle)
    took = time.monotonic() - began
    os.close(handle)
    os.unlink(path)
    return size * (1 << 20) / took / 1e6


def latency(folder, seconds, size, array=None):
    before = whole(array, 60) if array else True
    answers = []
    for work in (lambda: percentiles(append(folder, float(seconds), PAUSE)), lambda: percentiles(append(folder, float(seconds), 0)),
                 lambda: stream(folder, int(size))):
        settle()
        answers.append(work())
    settle()
    return {"paced": answers[0], "flat": answers[1], "speed": answers[2], "whole": before and (not array or whole(array))}


def used(disk):
    """Bytes of the log that a nilfs2 volume has filled, and bytes that were written to its disk."""
    base = f"/sys/fs/nilfs2/{disk}"
    blocks = (int(text(f"{base}/segctor/current_seg_sequence")) * int(text(f"{base}/segments/blocks_per_segment"))
              + int(text(f"{base}/segctor/next_pseg_offset")))
    return blocks * int(text(f"{base}/blocksize")), int(text(f"/sys/class/block/{disk}/stat").split()[6]) * 512


def commit(path, volume, how, size, count):
    about = os.stat(volume)
    disk = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(about.st_dev)}:{os.minor(about.st_dev)}"))
    handle, folder = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    data, places = os.urandom(int(size) * 1024), random.Random(1)
    span = (os.fstat(handle).st_size - len(data)) // BLOCK
    acts = {"fdatasync": lambda: os.fdatasync(handle), "fsync": lambda: os.fsync(handle), "sync": lambda: fcntl.ioctl(folder, SYNC, bytes(8))}
    fcntl.ioctl(folder, SYNC, bytes(8))
    times, (log, written), number = [], used(disk), struct.unpack("<Q", fcntl.ioctl(folder, SYNC, bytes(8)))[0]
    for _attempt in range(int(count)):
        os.pwrite(handle, data, places.randrange(span) * BLOCK)
        began = time.monotonic()
        acts[how]()
        times.append(time.monotonic() - began)
    now = used(disk)
    last = struct.unpack("<Q", fcntl.ioctl(folder, SYNC, bytes(8)))[0]
    return {"ms": statistics.median(times) * 1000, "log": (now[0] - log) / len(times), "written": (now[1] - written) / len(times),
            "log_after": (used(disk)[0] - log) / len(times), "checkpoints": (last - number) / len(times)}


def memory(pid):
    """Resident KiB of a process, and those of them that no other process has."""
    lines = dict(line.split(":", 1) for line in text(f"/proc/{pid}/smaps_rollup").splitlines()[1:])
    own = sum(int(lines[key].split()[0]) for key in ("Private_Clean", "Private_Dirty"))
    return int(lines["Rss"].split()[0]), own


def process(unit, seconds):
    pid = subprocess.run(["systemctl", "show", "--property=MainPID", "--value", unit], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def busy():  # user and system time of all threads, those that have ended included, in seconds
        return sum(int(word) for word in text(f"/proc/{pid}/stat").rpartition(")")[2].split()[11:13]) / os.sysconf("SC_CLK_TCK")
    began, spent, (first, _own) = time.monotonic(), busy(), memory(pid)
    time.sleep(float(seconds))
    last, own = memory(pid)
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        peak = int(next(line for line in file if line.startswith("VmHWM")).split()[1])
    return {"pid": int(pid), "share": (busy() - spent) / (time.monotonic() - began), "resident": last, "own": own, "growth": last - first, "peak": peak}


def write(path, seconds):
    handle, data, places, end, count = os.open(path, os.O_WRONLY), os.urandom(BLOCK), random.Random(1), time.monotonic() + float(seconds), 0
    blocks = os.lseek(handle, 0, os.SEEK_END) // BLOCK
    while time.monotonic() < end:
        os.pwrite(handle, data, places.randrange(blocks) * BLOCK)
        os.fsync(handle)
        count += 1
    return {"writes": count}


def rest(seconds):
    arrays = [name for name in os.listdir("/sys/block") if os.path.exists(f"/sys/block/{name}/md/degraded")]
    waited = [whole(array, 60) for array in arrays]  # for every one, whatever another one is like
    found = all(waited)
    settle()
    time.sleep(float(seconds))
    return {"arrays": len(arrays), "whole": found}


def glance(count):
    began = time.monotonic()
    for _attempt in range(int(count)):
        with open("/sys/class/block/loop0/stat", encoding="utf-8") as file:
            file.read()
    return {"us": (time.monotonic() - began) / int(count) * 1e6}


if __name__ == "__main__":
    verbs = {"latency": latency, "commit": commit, "process": process, "write": write, "rest": rest, "glance": glance}
    print(json.dumps(verbs[sys.argv[1]](*sys.argv[2:])))
