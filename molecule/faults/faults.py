#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One fault after the other on a lab with the devices fast (async) and safe (sync) under load, and what each may do.

    faults.py FAULT...     names of FAULTS; prints a line a fault, and writes .build/faults-RELEASE.json

After each: no acknowledged record is lost, the pair heals without a hand, both legs are identical byte for byte, and the newest recovery
points before and after the fault open with records without a gap. Exit status 1 when one of that is not so.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "shared"))

from drive import DEADLINE, LAID, NAMES, PROOF, STALL, Drive, LabError, Wrong, save  # noqa: E402  pylint: disable=wrong-import-position

CHUNK = 8 << 20  # bytes, of the bitmap
LAG = DEADLINE + 2  # seconds that a remote leg may be behind while it is in: commit_interval, the deadline, and the guard's notice of it
# after these there need not be anything to heal; a flapping link may be away too shortly for anything that has to wait
SLIGHT = ("target_service", "guard_killed", "guard_stopped", "guard_hangs", "switched", "flap")
# what the kernel was told last, before a session broke, of how long it may take to come back until what waits for it fails
BREAK = "cd /sys/class/iscsi_session/session*/ && while [ \"$(cat state)\" = LOGGED_IN ]; do told=$(cat recovery_tmo); sleep 0.05; done; echo $told"
CACHES = ["write back", "write through"]  # of the remote legs of a sync device and of an async one
# nilfs2 tells a hole of what it cannot read; nobody may believe that
HOLES = """
import os, sys
sys.path.insert(0, "/usr/local/sbin/indestructible")
from indestructible_block import _blank, _core
open("/proc/sys/vm/drop_caches", "w").write("1")
path = "/var/lib/indestructible/stores/vault1/fast.img"
size = os.stat(path).st_size
try:
    sys.exit("of a volume that cannot be read all is a hole" if _blank.next_data(path, 0, size) == size else 0)
except (_core.Problem, OSError) as problem:
    print(problem)
"""


# how long the first write to a chunk takes, while another one goes on in blocks of a chunk that is listed; the chunk is in a file of which nothing was written
BESIDE = """
import mmap, os, threading, time
block, over = mmap.mmap(-1, 4096), threading.Event()
busy, new = (os.open(f"/srv/fast/{name}", os.O_RDWR | os.O_DIRECT) for name in ("busy", "new"))
def write():
    while not over.is_set():
        os.pwritev(busy, [block], 0)
        time.sleep(0.05)
thread = threading.Thread(target=write)
thread.start()
time.sleep(2)  # by when a commit hangs
start = time.monotonic()
os.pwritev(new, [block], 24 << 20)
print(round(time.monotonic() - start, 3))
over.set()
"""


class Faults(Drive):
    """The faults, as methods with a docstring of one line; each returns when it is over."""

    def __init__(self):
        super().__init__()
        self.took = {}  # what a fault has to say of itself, for its row

    # the faults

    def cut(self, seconds):
        self.lab.cut("store1")
        time.sleep(seconds)
        self.lab.mend("store1")

    def cut_5(self):
        """link cut for 5 s"""
        self.cut(5)

    def cut_60(self):
        """link cut for 60 s"""
        self.cut(60)

    def cut_quiet(self):
        """link cut while nothing is written"""
        self.owner("pkill -f '[l]oad.py'; true")
        time.sleep(8)  # by when all is committed
        self.lab.cut("store1")
        told = self.owner(f"timeout 15 sh -c {shlex.quote(BREAK)}")
        if told != "0":
            raise Wrong(f"a session that nobody waited for broke with a replacement timeout of {told} s, for which a write of that moment would wait")
        self.until(self.is_out, 3, "the legs to be out before anything waits", pause=0.1)
        self.start_load(30)
        time.sleep(8)
        self.lab.mend("store1")

    def cut_joining(self):
        """link cut for 5 s, and again while md takes the leg in"""
        self.cut(5)
        self.owner("timeout 60 sh -c 'until grep -q _began /var/lib/indestructible/records/devices/fast.json; do sleep .02; done'")
        self.cut(4)

    def cut_beside(self):
        """link cut, and one write to a chunk beside others that go through"""
        self.owner("rm -f /srv/fast/new && fallocate -l 48M /srv/fast/new && "
                   "dd if=/dev/urandom of=/srv/fast/busy bs=1M count=1 oflag=direct status=none && sync")
        self.lab.cut("store1")
        self.took["new_stall"] = float(self.owner(f"python3 -c {shlex.quote(BESIDE)}"))
        time.sleep(3)
        self.lab.mend("store1")

    def cut_known(self):
        """link cut, and one write to each of twelve chunks"""
        self.owner("pkill -f '[l]oad.py'; true")
        self.lay()
        self.until(lambda: not any(map(self.dirty, NAMES)), 240, "md to list nothing any more")
        before = {name: self.state()[name]["last_heal"] for name in NAMES}
        self.lab.cut("store1")
        self.until(self.is_out, 30, "the legs to be out")
        chunks = LAID * 2**20 // CHUNK
        self.owner(" && ".join(f"for chunk in $(seq 0 {chunks - 1}); do dd if=/dev/urandom of=/srv/{name}/once bs=64K count=1 seek=$((chunk * {CHUNK >> 16})) "
                               "conv=notrunc oflag=direct status=none || exit 1; done" for name in NAMES) + " && sync -f /srv/fast && sync -f /srv/safe")
        self.lab.mend("store1")
        self.until(lambda: self.is_healed() and all(self.state()[name]["last_heal"] != before[name] for name in NAMES), 90, "both legs to be healed")
        for name in NAMES:
            copied = self.state()[name]["last_heal"]["copied_bytes"]
            self.took[f"{name}_copied_of_written"] = round(copied / (chunks * CHUNK), 2)
            if not chunks * CHUNK // 2 < copied <= 1.5 * chunks * CHUNK:
                raise Wrong(f"{name}: {copied} bytes were copied, although {chunks} chunks of {CHUNK} were written to")
        self.start_load(5)

    def cut_renamed(self):
        """link cut, and the LUN comes back under another device name"""
        find = "realpath /dev/disk/by-path/*vault1-lun-0"
        before = self.owner(find)
        self.lab.cut("store1")
        self.until(self.is_out, 30, "the legs to be out")
        # the old disk keeps its name for as long as the volume on it is mounted
        self.owner("findmnt -n /var/lib/indestructible/stores/vault1 && iscsiadm -m node -u")
        self.lab.mend("store1")
        self.owner("iscsiadm -m node -l", check=False)  # the guard may have been first
        self.until(self.is_healed, 90, "both legs to be healed")
        if self.owner(find) == before:
            raise Wrong(f"the LUN is {before} again, so that this shows nothing")

    def is_out(self):
        return all(device["state"] == "detached" for device in self.state().values())

    def flap(self):
        """link flapping every 3 s for a minute"""
        for _turn in range(10):
            self.cut(3)
            time.sleep(3)

    def target_power(self):
        """target host: power loss and return"""
        self.lab.power_off("store1")
        time.sleep(5)
        self.lab.boot("store1")

    def target_service(self):
        """target service restarted"""
        self.store("systemctl restart rtslib-fb-targetctl")

    def lun_errors(self):
        """a LUN that returns errors for 10 s"""
        size = self.store("blockdev --getsz /dev/mapper/lun")
        self._reload(f"0 {size} error")
        self.owner(f"python3 -c {shlex.quote(HOLES)}")
        time.sleep(8)
        self._reload(f"0 {size} linear /dev/ubdb 0")

    def lun_hangs(self):
        """a LUN that hangs without an error for 25 s"""
        self.store("dmsetup suspend --nolockfs --noflush lun")
        time.sleep(25)
        self.store("dmsetup resume lun")

    def _reload(self, table):
        self.store(f"dmsetup load lun --table '{table}' && dmsetup suspend --nolockfs --noflush lun && dmsetup resume lun")

    def owner_power(self):
        """owner: power loss while healthy"""
        self._crash()

    def owner_power_degraded(self):
        """owner: power loss while degraded"""
        self.lab.cut("store1")
        time.sleep(8)
        self._crash(boot=False)
        self.lab.mend("store1")
        self.lab.boot("owner1")

    def owner_power_healing(self):
        """owner: power loss while healing"""
        self.owner("echo 2000 >/proc/sys/dev/raid/speed_limit_max")  # KiB/s, so that there is a while to hit
        self.lab.cut("store1")
        time.sleep(8)
        self.lab.mend("store1")
        self.until(lambda: "recover" in self.owner("cat /proc/mdstat"), 30, "the heal to begin", pause=0.1)
        self._crash()

    def guard_killed(self):
        """guard killed with -9"""
        self.owner("systemctl kill -s KILL indestructible-guard")

    def guard_stopped(self):
        """guard stopped for 10 s, link cut meanwhile for 5 s"""
        self.owner("systemctl stop indestructible-guard")
        if self.caches() != ["write back", "write back"]:
            raise Wrong(f"a leg stayed in async without a guard: {self.caches()}")
        self.cut(5)
        time.sleep(5)
        self.owner("systemctl start indestructible-guard")

    def caches(self):
        """The write caches of the remote legs, which are what makes a device sync or async."""
        return sorted(self.owner("for loop in /sys/block/loop*; do grep -qs /stores/ $loop/loop/backing_file && cat $loop/queue/write_cache; done; true")
                      .splitlines())

    def guard_hangs(self):
        """guard hanging (SIGSTOP)"""
        before = self.owner("systemctl show -P MainPID indestructible-guard")
        self.owner("systemctl kill -s STOP indestructible-guard")
        self.until(lambda: self.owner("systemctl show -P MainPID indestructible-guard") not in (before, "0"), 30, "systemd to start the guard anew")

    def block_cgroups(self):
        """two block cgroups rewrite the same blocks while writes are behind"""
        self._overtake(0)
        self.owner("systemctl stop indestructible-guard")  # which would not let writes be behind
        self.owner("echo +io >/sys/fs/cgroup/cgroup.subtree_control")
        if not any(self._overtake(50) for _turn in range(6)):  # which of two threads goes first is chance
            raise Wrong("nothing was overtaken with writes behind, so that this shows nothing")
        self.owner("systemctl start indestructible-guard")
        self.until(lambda: set(self.owner("cat /sys/block/md*/md/bitmap/backlog").split()) == {"0"} and self.is_healed(), 60,
                   "the guard to have writes wait for the remote leg, and to heal both")
        wrong = self._overtake(50)
        if wrong:
            raise Wrong(f"{wrong} blocks differ although no write is behind")

    def switched(self):
        """replication of both devices switched by site, and back"""
        for fast, safe in (("sync", "async"), ("async", "sync")):
            done = self.play("site", "--extra-vars", f"fast={fast} safe={safe}")
            if done.returncode:
                raise Wrong(f"site failed: {done.stdout[-3000:]}")
            self.until(lambda modes=(fast, safe): tuple(self.state()[key]["replication"] for key in NAMES) == modes, 15, "the guard to switch")
        self.owner("pkill -USR1 -f '[l]oad.py'")  # which fails if the writers had ended before

    def _overtake(self, count):
        """How many of count blocks of fast are not the same on both legs after another cgroup rewrote them while the store stood still."""
        store = "/var/lib/indestructible/stores/vault1"
        return int(self.owner(f"python3 /root/overtake.py /srv/fast/overtake /var/lib/indestructible/fast.img {store}/fast.img {store} {count}"))

    def owner_reboot(self):
        """owner: reboot"""
        self._shut_down()
        self._boot_quickly()

    def owner_reboot_cut(self):
        """owner: reboot with the link cut"""
        self.lab.cut("store1")
        time.sleep(3)
        self._shut_down()
        self._boot_quickly()
        self.lab.mend("store1")

    def owner_reboot_later(self):
        """owner: reboot, the target returning later"""
        self._shut_down()
        self.lab.cut("store1")
        self._boot_quickly()
        time.sleep(10)
        self.lab.mend("store1")

    def owner_reboot_detached(self):
        """owner: reboot with both legs detached by wish, one of which the guard had taken out before"""
        self.owner("indestructible detach fast")
        self.lab.cut("store1")
        self.until(lambda: self.state()["safe"]["remote"]["state"] not in ("in sync", "recovering", "faulty"), 30, "the other leg to be taken out")
        self.owner("indestructible detach safe")
        self.lab.mend("store1")
        self._shut_down()
        self._boot_quickly()
        self.until(lambda: self.owner("findmnt -n /var/lib/indestructible/stores/vault1", check=False), 60, "the store, which no device wants, to be mounted")
        time.sleep(10)  # by when the guard has brought what it means to bring
        if any(device["state"] != "detached" for device in self.state().values()):
            raise Wrong("a leg that is to stay out was brought back")
        self.owner("indestructible recover fast latest && indestructible release fast")
        for name in NAMES:
            self.owner(f"indestructible attach {name}")

    def leg_late(self):
        """owner: reboot, one local leg not there until later"""
        leg, away, unit = "/var/lib/indestructible/fast.img", "/var/lib/indestructible/fast.away", "/etc/systemd/system/indestructible-devices.service.d"
        self.owner(f"mkdir {unit} && printf '[Service]\\nExecStartPre=/bin/mv {leg} {away}\\n' >{unit}/late.conf && sync")
        self._shut_down()
        self._boot_quickly(lambda: self.owner("findmnt -n /srv/safe", check=False), 10)
        self.owner(f"rm -r {unit} && systemctl daemon-reload")
        if self.owner("findmnt -n /srv/fast", check=False):
            raise Wrong("fast is mounted without its local leg")
        self.owner(f"journalctl -b -u indestructible-devices -o cat | grep 'device fast: its local leg {leg} is not there'")
        self.owner(f"mv {away} {leg}")
        self.until(self.is_mounted, 60, "the late device to be started and mounted by the guard")

    def _shut_down(self):
        """A clean shutdown, which nothing may hold up; all that was acknowledged before is there afterwards."""
        begun = time.monotonic()
        self.owner("systemctl poweroff", check=False)
        self.until(lambda: not self.lab.running("owner1"), 60 if PROOF else 180, "the owner to shut down", pause=0.2)
        self.took["shutdown_seconds"] = round(time.monotonic() - begun, 1)
        self.crash()

    def _boot_quickly(self, is_there=None, more=0):
        """Boot; by 30 seconds, and so many more, the file systems have to be there."""
        begun = time.monotonic()
        self.lab.boot("owner1")
        self.until(is_there or self.is_mounted, 180, "the file systems to be there after the boot", pause=0.2)
        self.took["boot_seconds"] = seconds = round(time.monotonic() - begun, 1)
        limit = (1 if PROOF else 3) * (30 + more)
        if seconds > limit:
            raise Wrong(f"the file systems were there {seconds} s after the boot began, and not within {limit}")

    def both_power(self):
        """both hosts: power loss at once"""
        self._crash(boot=False)
        self.lab.power_off("store1")
        self.lab.boot("store1")
        self.lab.boot("owner1")

    def _crash(self, boot=True):
        self.crash()
        if boot:
            self.lab.boot("owner1")

    def run(self, name):
        """One fault with all that is checked; returns the row of the table, a dict."""
        fault = getattr(self, name)
        crash = name.startswith("owner_") or name in ("both_power", "leg_late")
        seconds = {"cut_60": 85, "flap": 80, "lun_hangs": 45, "cut_renamed": 45, "cut_joining": 80, "switched": 400}.get(name, 30)
        before = {key: device["last_heal"] for key, device in self.state().items()}
        self.took = {}
        self.make_room()
        if crash:
            self.start_told_load()
        else:
            self.start_load(seconds)
        time.sleep(1)
        floor = {key: int(self.owner(f"stat -c %s /srv/{key}/records || echo 0")) // 4096 - 1 for key in NAMES}
        time.sleep(LAG)
        begun, since = time.monotonic(), self.owner("date +%s")
        fault()
        over = time.monotonic()
        self.until(self.is_healed, 180, "both devices to heal")
        row = {"fault": fault.__doc__, "heal_seconds": round(time.monotonic() - over, 1), "fault_seconds": round(over - begun, 1), **self.took}
        row["journal"] = int(self.owner(f"journalctl -u indestructible-guard --since @{since} -o cat --no-pager | wc -l"))
        if crash:
            self.until(self.is_mounted, 30, "the file systems to be mounted")
            row["lag"] = None
        else:
            noted, row["lag"] = self.end_load(seconds + 30)
            for key in NAMES:
                row[f"{key}_stall"] = noted[key]["longest"]
            row["own_stall"] = self.control
            self.until(self.is_healed, 60, "both devices to heal")
        for key in NAMES:
            row[f"{key}_acknowledged"], row[f"{key}_found"] = self.acked[key], self.records(key)
            heal = self.state()[key]["last_heal"]
            row[f"{key}_heal"] = None if heal == before[key] else heal
        self.compare()
        self.units()
        self.points(row, floor)
        self.judge(name, row)
        return row

    def points(self, row, floor):
        """The newest recovery point has all records, the one before the fault those of LAG seconds before it; those during the heal are refused."""
        for key in NAMES:
            _number, records = (int(word) for word in self.owner(f"cd /root && python3 point.py {key} last").split())
            if records < self.acked[key]:
                raise Wrong(f"{key}: the newest recovery point has {records} records of {self.acked[key]}")
            if row[f"{key}_heal"]:
                row[f"{key}_before"] = int(self.owner(f"cd /root && python3 point.py {key} before").split()[1])
                if row[f"{key}_before"] < floor[key]:
                    raise Wrong(f"{key}: the recovery point before the fault has {row[f'{key}_before']} records of {floor[key]}")
                during = json.loads(self.owner(f"cat /var/lib/indestructible/stores/vault1/{key}.json"))["unsafe"][-1]["first"]
                done = self.lab.ssh("owner1", f"indestructible recover {key} {during}", check=False)
                if done.returncode == 0 or "is not safe to recover from (" not in done.stderr:
                    raise Wrong(f"{key}: checkpoint {during} of the heal was not refused: {done.stdout}{done.stderr}")

    def judge(self, name, row):
        for key in NAMES:
            if row.get(f"{key}_stall", 0) > STALL:
                raise Wrong(f"{key}: the application waited for {row[f'{key}_stall']} s, more than {STALL}")
        if row.get("new_stall", 0) >= (1 if PROOF else 2):
            raise Wrong(f"async: a write that was the first to its chunk waited for {row['new_stall']} s when the link was cut")
        if PROOF and name in ("cut_5", "cut_60", "cut_quiet", "cut_beside", "cut_joining") and row["fast_stall"] >= 1:
            raise Wrong(f"async: a plain link cut held the application up for {row['fast_stall']} s, and the host's own disk for {row['own_stall']} s")
        for key in NAMES:
            heal = row[f"{key}_heal"]
            if not heal and name not in SLIGHT:
                raise Wrong(f"{key}: nothing had to be healed, so that this shows nothing")
            if heal and heal["kind"] != "bitmap":
                raise Wrong(f"{key}: it was healed by {heal['kind']}, although its bitmap can be trusted")
            if heal and heal["copied_bytes"] > 1.5 * heal["dirty_bytes"] + CHUNK:
                raise Wrong(f"{key}: {heal['copied_bytes']} bytes were copied for {heal['dirty_bytes']} that were listed")
        if PROOF and (row["lag"] or 0) > LAG:
            raise Wrong(f"the store was {row['lag']} s behind, more than {LAG}")
        if PROOF and row["journal"] > (20 if name != "flap" else 80):
            raise Wrong(f"the guard wrote {row['journal']} lines to the journal")
        self.until(lambda: self.caches() == CACHES, 30, f"the remote legs to be {CACHES} again")


FAULTS = [name for name, value in vars(Faults).items() if callable(value) and not name.startswith("_") and value.__doc__ and "\n" not in value.__doc__
          and value.__doc__[0].islower()]


def main():
    names = sys.argv[1:]
    unknown = [name for name in names if name not in FAULTS]
    if unknown or not names:
        sys.exit(f"usage: faults.py FAULT...; no fault: {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    faults, rows, failed = Faults(), [], 0
    for name in names:
        try:
            row = faults.run(name)
            print(json.dumps(row), flush=True)
        except (Wrong, LabError, ValueError, subprocess.SubprocessError) as error:
            row = {"fault": getattr(faults, name).__doc__, "wrong": str(error)}
            print(f"{faults.evidence()}\nWRONG {name}: {error}", flush=True)
            failed += 1
        rows.append(row)
        save("faults", faults.lab.release, rows)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
