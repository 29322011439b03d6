# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark does on the owner, with nothing but the standard library; prints JSON.

    latency FOLDER SECONDS MIB [ARRAY | FILE PACED FLAT]
                                         append 4 KiB and fsync it, a hundred times a second and then as fast as it goes; then write MIB MiB in
                                         one go with an fsync at the end. ARRAY (mdN): both legs are in before and after, or the answer says
                                         that they were not; it tells what was written to the remote leg a second, WRITES,BYTES. FILE: another
                                         process writes that much to it meanwhile (PACED, FLAT)
    commit FILE VOLUME HOW KIB COUNT     dirty KIB KiB of FILE and commit them by HOW (fdatasync, fsync, sync), COUNT times
    process UNIT SECONDS                 memory and processor time of the main process of a unit over so many seconds
    write FILE SECONDS                   write and fsync 4 KiB all over a file, as fast as it goes
    rest SECONDS                         wait until all arrays have all their legs and nothing is under way, and then for so many seconds
    glance COUNT                         microseconds that it takes to read a file of sysfs
    fresh DEVICE FOLDER MKFS [OPTIONS]   make a file system on a device of the collection and mount it, with a file to overwrite and a PostgreSQL on it
    amplify ARRAY VOLUME FOLDER LOAD RATE SECONDS
                                         what LOAD (4, 16: KiB written to random places and fsynced, RATE times a second, 0: as fast as it goes; seq;
                                         pg: transactions) makes the device and the store write
    steady ARRAY VOLUME FILE KIB RATE SECONDS
                                         write and fsync all over a file; the times, and what was read from and written to the LUN meanwhile
"""
import contextlib
import fcntl
import glob
import json
import os
import random
import re
import shlex
import signal
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


def stream(folder, size, name="bench.data", keep=False):
    """MB/s of a write of size MiB to a new file with an fsync at its end; keep leaves it there."""
    path, data = f"{folder}/{name}", os.urandom(1 << 20)
    began = time.monotonic()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for _chunk in range(size):
        os.write(handle, data)
    os.fsync(handle)
    took = time.monotonic() - began
    os.close(handle)
    if not keep:
        os.unlink(path)
    return size * (1 << 20) / took / 1e6


def written(array):
    """Writes to the write-mostly leg of an array and their bytes, since it appeared."""
    leg = next(path for path in glob.glob(f"/sys/block/{array}/md/dev-*") if "write_mostly" in text(f"{path}/state"))
    found = text(f"{leg}/block/stat").split()
    return int(found[4]), int(found[6]) * 512


@contextlib.contextmanager
def beside(path, writes, size):
    """Meanwhile another process writes to a file: so many writes a second, and bytes."""
    child = os.fork()
    if not child:
        try:
            pour(path, writes, max(512, int(size / max(writes, 1)) // 512 * 512))
        finally:
            os._exit(1)
    try:
        yield
    finally:
        early = os.waitpid(child, os.WNOHANG)[0]
        if not early:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if early:
        raise RuntimeError(f"the process that was to write to {path} ended early")


def pour(path, rate, block):
    """Write blocks of so many bytes to 256 MiB of a file, so many a second, for ever."""
    handle, data, done, began = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), os.urandom(block), 0, time.monotonic()
    while True:
        for number in range(done, int((time.monotonic() - began) * rate)):
            os.pwrite(handle, data, number * block % (256 << 20))
            done = number + 1
        time.sleep(0.005)


def latency(folder, seconds, size, other=None, *load):
    array = None if load else other
    whole_before = whole(array, 60) if array else True
    answers = {"written": {}}
    for number, (how, pause) in enumerate((("paced", PAUSE), ("flat", 0))):
        settle()
        before = written(array) if array else (0, 0)
        with beside(other, *(float(word) for word in load[number].split(","))) if load else contextlib.nullcontext():
            answers[how] = percentiles(append(folder, float(seconds), pause))
        answers["written"][how] = [(now - was) / float(seconds) for now, was in zip(written(array) if array else (0, 0), before)]
    settle()
    answers["speed"] = stream(folder, int(size))
    settle()
    return dict(answers, whole=whole_before and (not array or whole(array)))


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


# -- amplification

FILE, SEQUENTIAL, TEMPLATE = 128, 64, "/var/lib/postgresql/bench"  # MiB, MiB, a data directory that is copied


def postgres(*words):
    """Output of a program of PostgreSQL, run by its user."""
    home = max(glob.glob("/usr/lib/postgresql/*/bin"))
    done = subprocess.run(["runuser", "-u", "postgres", "--", f"{home}/{words[0]}", *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          cwd="/", check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ends with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def server(data):
    """A PostgreSQL that runs on a data directory meanwhile, with nothing changed but where it listens."""
    postgres("pg_ctl", "-D", data, "-w", "-l", "/tmp/bench-pg.log", "-o", "-p 5544 -k /tmp -c listen_addresses=", "start")
    try:
        yield lambda question: postgres("psql", "-h", "/tmp", "-p", "5544", "-qAt", "-c", question, "postgres").strip()
    finally:
        postgres("pg_ctl", "-D", data, "-w", "-m", "fast", "stop")


def fresh(device, folder, mkfs, options="defaults"):
    if not os.path.exists(TEMPLATE):
        postgres("initdb", "-D", TEMPLATE)
        with server(TEMPLATE):
            postgres("pgbench", "-h", "/tmp", "-p", "5544", "-q", "-i", "-s", "2", "postgres")
    subprocess.run(["umount", "-q", folder], check=False)
    os.makedirs(folder, exist_ok=True)
    for words in (["wipefs", "-qa", device], [*shlex.split(mkfs), device], ["mount", "-o", options, device, folder],
                  ["cp", "-a", TEMPLATE, f"{folder}/pg"], ["chmod", "755", folder]):
        subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stream(folder, FILE, "random", keep=True)
    return {}


def sectors(name):
    return int(text(f"/sys/class/block/{name}/stat").split()[6]) * 512


def even(array, handle):
    """Bring all that was written to the store and commit it; the number of the checkpoint."""
    for _attempt in range(2):  # the second for what the first made dirty on its way
        os.sync()
        settled, end = 0, time.monotonic() + 60
        while settled < 3 and time.monotonic() < end:
            moving = [name for name in os.listdir("/sys/class/block") if name == array or name.startswith("loop")]
            settled = 0 if any(text(f"/sys/class/block/{name}/stat").split()[8] != "0" for name in moving) else settled + 1
            time.sleep(0.05)
        number = struct.unpack("<Q", fcntl.ioctl(handle, SYNC, bytes(8)))[0]
    return number


def amplify(array, volume, folder, load, rate, seconds):
    about = os.stat(volume)
    disk = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(about.st_dev)}:{os.minor(about.st_dev)}"))
    handle = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.ExitStack() as stack:
        ask = stack.enter_context(server(f"{folder}/pg")) if load == "pg" else None
        if ask:
            ask("CHECKPOINT")
        first = even(array, handle)
        log, device, began = used(disk)[0], sectors(array), time.monotonic()
        if ask:
            start = ask("SELECT pg_current_wal_lsn()")
            said = postgres("pgbench", "-h", "/tmp", "-p", "5544", "-n", "-c", "4", "-T", seconds, *(["-R", rate] if float(rate) else []), "postgres")
            ask("CHECKPOINT")
            count, written = int(re.search(r"processed: (\d+)", said).group(1)), int(ask(f"SELECT pg_current_wal_lsn() - '{start}'::pg_lsn"))
        elif load == "seq":
            count, written = 1, stream(folder, SEQUENTIAL) and SEQUENTIAL << 20
        else:
            count = len(scatter(f"{folder}/random", int(load) * 1024, float(rate), float(seconds)))
            written = count * int(load) * 1024
        busy = time.monotonic() - began
        last = even(array, handle)
        found = {"count": count, "written": written, "device": sectors(array) - device, "log": used(disk)[0] - log, "checkpoints": last - first,
                 "seconds": busy, "whole": whole(array)}
    os.close(handle)
    return found


def scatter(path, size, rate, seconds):
    """Times of writes of size bytes to random places, each with an fsync, at that rate (0: as fast as it goes) in so many seconds."""
    handle, data, places, began, times = os.open(path, os.O_WRONLY), os.urandom(size), random.Random(), time.monotonic(), []
    slots = os.fstat(handle).st_size // size
    while time.monotonic() - began < seconds:
        start = time.monotonic()
        os.pwrite(handle, data, places.randrange(slots) * size)
        os.fsync(handle)
        times.append(time.monotonic() - start)
        if rate:
            time.sleep(max(0.0, began + len(times) / rate - time.monotonic()))
    os.close(handle)
    return times


def steady(array, volume, path, size, rate, seconds):
    about = os.stat(volume)
    disk = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(about.st_dev)}:{os.minor(about.st_dev)}"))

    def seen():
        stat = text(f"/sys/class/block/{disk}/stat").split()
        return used(disk)[0], int(stat[2]) * 512, int(stat[6]) * 512
    began, before = time.monotonic(), seen()
    found = percentiles(scatter(path, int(size) * 1024, float(rate), float(seconds)))
    log, read, written = (now - then for now, then in zip(seen(), before))
    return dict(found, seconds=time.monotonic() - began, log=log, read=read, written=written, whole=whole(array),
                clean=int(text(f"/sys/fs/nilfs2/{disk}/segments/clean_segments")), segments=int(text(f"/sys/fs/nilfs2/{disk}/segments/segments_number")))


if __name__ == "__main__":
    verbs = {"latency": latency, "commit": commit, "process": process, "write": write, "rest": rest, "glance": glance, "fresh": fresh,
             "amplify": amplify, "steady": steady}
    print(json.dumps(verbs[sys.argv[1]](*sys.argv[2:])))
