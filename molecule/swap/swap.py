#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store moves to a blank LUN while its devices are written to, and its old LUNs stay its history.

    swap.py CASE...     "refused", "moved", "generations" (after moved), "power", "killed COUNT"; done one after the other on LUNs that are blanked in between;
                        writes .build/swap-RELEASE.json

After each move: no acknowledged record is lost, the legs are identical byte for byte, points from before and after it open.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "shared"))

from drive import DEADLINE, NAMES, Drive, LabError, Wrong, save  # noqa: E402  pylint: disable=wrong-import-position

DISKS = {0: "ubdb", 1: "ubdc", 2: "ubdd", 3: "ubde"}
POINT = "/var/lib/indestructible/stores/vault1"
DATA = 200 << 20  # bytes of random data on the wide device


class Swap(Drive):
    """The cases, as methods with a docstring of one line."""

    place = 0  # the LUN that the store is on

    def site(self, place=None):
        """Run site with the store on that LUN; returns the finished process."""
        return self.play("site", "--extra-vars", f"place={self.place if place is None else place}")

    def refuse(self, command, words):
        """A command of the host is refused in these words, and changes nothing."""
        state = "cat /proc/mounts /etc/fstab; ls -R /var/lib/indestructible/records; cat /var/lib/indestructible/records/*/*"
        before = self.owner(state)
        done = self.lab.ssh(self.host, f"indestructible {command}", check=False)
        if done.returncode == 0 or words not in done.stderr:
            raise Wrong(f"indestructible {command} ended with {done.returncode} and said {done.stderr.strip()!r}, without {words!r}")
        if self.owner(state) != before:
            raise Wrong(f"indestructible {command} was refused and changed something")

    def blank(self, lun):
        """Make a LUN blank that the store has left, as its administrator would."""
        number = self.generation_on(lun)
        if number:
            self.owner(f"indestructible generations vault1 --forget {number}")
        self.store(f"wipefs -qa /dev/{DISKS[lun]}; dd if=/dev/zero of=/dev/{DISKS[lun]} bs=4M status=none; sync", check=False)
        self.owner("for disk in /sys/block/sd*; do blockdev --flushbufs /dev/${disk##*/}; done")

    def generation_on(self, lun):
        """Number of the retired generation on a LUN, or None."""
        return next((one["number"] for one in self.generations() if one["place"]["lun"] == lun), None)

    def generations(self):
        return json.loads(self.owner("indestructible generations vault1 --json"))["retired"]

    def is_healed(self):
        try:
            devices = self.state()
        except (LabError, ValueError):
            return False
        return all(device["state"] == "attached" and (device["last_heal"] or {"seconds": 0})["seconds"] is not None for device in devices.values())

    def check(self):
        """What has to be so after a move."""
        self.until(self.is_healed, 120, "the devices to run on both legs")
        for name in NAMES:
            self.records(name)
        self.compare()
        sums = self.owner("sync -f /srv/wide; sha256sum </srv/wide/data")
        if sums != self.sum:
            raise Wrong("the data of the wide device has changed")

    def fill(self):
        """Random data on the wide device."""
        self.owner(f"test -e /srv/wide/data || dd if=/dev/urandom of=/srv/wide/data bs=1M count={DATA >> 20} conv=fsync status=none")
        self.sum = self.owner("sync -f /srv/wide; sha256sum </srv/wide/data")

    def target(self):
        """A LUN that the store is not on, blank."""
        lun = 1 if self.place != 1 else 3
        self.blank(lun)
        return lun

    # the cases

    def refused(self, _count):
        """what a store is not moved to"""
        self.fill()
        self.owner("iscsiadm -m session --rescan >/dev/null")
        where = "$(readlink -f /dev/disk/by-path/*-lun-{lun})"
        self.refuse("swap vault2 --lun 1", "there is no store 'vault2' on this host; there are: vault1")
        self.refuse("swap vault1", "say where the blank LUN is")
        self.refuse("swap vault1 --lun 0", "is where it is today; give a blank LUN")
        self.refuse(f"swap vault1 --device {where.format(lun=0)}", "is the LUN that it is on today; give another one")
        self.refuse("swap vault1 --lun 9", "is not there yet")
        self.refuse("swap vault1 --device /dev/nothing", "is not a block device of this host")
        self.refuse("swap vault1 --lun 2", "needs")
        self.owner(f"mkfs.ext4 -q -L somebody {where.format(lun=1)}")
        self.refuse("swap vault1 --lun 1", "is not blank: it holds an ext4 file system labelled 'somebody'")
        self.store("wipefs -qa /dev/ubdc; dd if=/dev/zero of=/dev/ubdc bs=1M count=8 status=none; sync")
        self.owner(f"blockdev --flushbufs {where.format(lun=1)}")
        # the mark of another host
        mark = ("import sys; sys.path.insert(0, '/usr/local/sbin/indestructible'); from indestructible_block import _owner; "
                "_owner._write_mark(sys.argv[1], _owner.build_mark('11111111-1111-4111-8111-111111111111', 'beta', None, 'now'))")
        self.owner(f"python3 -c \"{mark}\" {where.format(lun=1)}")
        self.refuse("swap vault1 --lun 1", "is owned by the host beta")
        self.blank(1)
        return {}

    def moved(self, _count):
        """a move by the playbook, under load"""
        self.fill()
        for name in NAMES:
            self.owner(f"indestructible checkpoint {name} --name early")
        old, lun = self.place, self.target()
        self.start_load(60)
        time.sleep(5)
        before = self.used(lun)
        begun = time.monotonic()
        done = self.play("swap", "--extra-vars", f"place={old} store=vault1 lun={lun}")
        if done.returncode or f"lun: {lun}" not in done.stdout:
            raise Wrong(f"swap failed: {done.stdout[-4000:]}")
        row = {"seconds": round(time.monotonic() - begun, 1)}
        self.until(self.is_healed, 60, "the devices to run on both legs")
        row["written"] = self.used(lun) - before
        row["data"] = int(self.owner("stat -c '%b' /var/lib/indestructible/*.img | awk '{sum += $1 * 512} END {printf \"%.0f\", sum}'"))
        self.until(lambda: self.owner("cat /root/load.json", check=False), 140, "the writers to end")
        noted = json.loads(self.owner("cat /root/load.json"))["files"]
        for name in NAMES:
            row[f"{name}_stall"], self.acked[name] = noted[name]["longest"], noted[name]["records"]
        self.place = lun
        self.check()
        if row["fast_stall"] > DEADLINE + 2:
            raise Wrong(f"the application waited for {row['fast_stall']} s")
        if row["written"] > 1.3 * row["data"] + (64 << 20):
            raise Wrong(f"{row['written']} bytes were written to the new LUN for {row['data']} of data")
        done = self.site(old)
        if done.returncode == 0 or "write that place in the variables" not in " ".join(done.stdout.split()):
            raise Wrong(f"site with the old place says something else: {done.stdout[-4000:]}")
        for changes in (None, "changed=0"):
            done = self.site()
            if done.returncode or (changes and "changed=1" in done.stdout):
                raise Wrong(f"site with the new place fails or changes something: {done.stdout[-4000:]}")
        return row

    def used(self, lun):
        """Bytes that were written to a LUN until now, as its storage host counts them."""
        return int(self.store(f"awk '{{printf \"%.0f\", $7 * 512}}' /sys/block/{DISKS[lun]}/stat"))

    def generations_are_found(self):
        """Points of both generations open, by time, by name and by number."""
        for name in NAMES:
            told = self.ask(f"recover {name} early --name old")
            self.owner(f"test -f {told['mount']}/records; indestructible release old")
            number = self.generations()[0]["number"]
            if f"/generations/vault1.{number}" not in self.owner("findmnt -n"):
                raise Wrong("the old generation was not brought back")
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told["time"]))
            back = self.ask(f"recover {name} {when} --name old")
            if back["time"] > told["time"] or self.ask("status")["recoveries"][0]["state"] != "open":
                raise Wrong(f"by time {back['checkpoint']} was opened, and by name {told['checkpoint']}")
            self.owner("indestructible release old")
            new = self.ask(f"recover {name} latest")
            found = int(self.owner(f"python3 /root/writer.py {new['mount']}/records verify {self.acked[name]}; indestructible release {name} >/dev/null"))
            if found < self.acked[name]:
                raise Wrong(f"the new generation has {found} records of {self.acked[name]}")

    def generations_case(self, _count):
        """history on both sides of a move, with the old LUN there, away, and another one in its place"""
        self.generations_are_found()
        old = self.generations()[0]
        number, lun = old["number"], old["place"]["lun"]
        disk = self.owner(f"readlink -f /dev/disk/by-path/*-lun-{lun}")
        self.ask("recover fast early --name busy")
        self.refuse(f"generations vault1 --detach {number}", "is in use by the recovery busy; release it first")
        self.owner("indestructible release busy")
        self.owner(f"indestructible generations vault1 --detach {number}")
        # away: the LUN is taken from the host
        self.owner(f"echo 1 >/sys/block/{os.path.basename(disk)}/device/delete; udevadm settle")
        acl = "/sys/kernel/config/target/iscsi/iqn.2026-11.org.example:vault1/tpgt_1/acls/iqn.2026-11.org.example:owner1"
        self.store(f"find {acl}/lun_{lun} -type l -delete; rmdir {acl}/lun_{lun}")
        self.refuse("recover fast early", "attach its LUN, then: indestructible generations vault1 --attach")
        wrong = self.owner("readlink -f /dev/disk/by-path/*-lun-2")
        self.refuse(f"generations vault1 --attach {number} --device {wrong}", "holds no nilfs2 volume, and not generation")
        if "not attached" not in self.owner("indestructible points fast"):
            raise Wrong("points does not tell what is away")
        done = self.site()  # which maps it again
        if done.returncode:
            raise Wrong(f"site failed: {done.stdout[-3000:]}")
        self.owner("iscsiadm -m session --rescan >/dev/null; udevadm settle")
        self.generations_are_found()
        self.owner(f"indestructible generations vault1 --forget {number}")
        self.refuse("recover fast early", "is neither a time nor the name of one of its points")
        return {}

    def killed(self, count):
        """a swap that is killed at any moment"""
        self.fill()
        for turn in range(count):
            self.acked = dict.fromkeys(NAMES, 0)
            lun = self.target()
            self.start_load(600)
            for attempt in range(3):
                after = random.uniform(0.5, 6) if count > 5 else (1, 3, 5)[turn % 3] + attempt
                self.owner(f"timeout -s KILL {after:.2f} indestructible swap vault1 --lun {lun}", check=False)
            if turn % 3 == 2 and self.ask("generations vault1")["current"] == len(self.generations()) + 1 and self.owner(
                    "ls /var/lib/indestructible/records/stores").count(".next"):
                self.owner("indestructible swap vault1 --undo", check=False)
            self.owner(f"indestructible swap vault1 --lun {lun}", check=False)
            self.owner(f"test -e {POINT}.next || indestructible swap vault1 --lun {lun}", check=False)
            if self.ask("status")["stores"][0]["lun"] != lun or len(self.ask("status")["stores"]) != 1:
                raise Wrong(f"the next run did not complete the swap to LUN {lun}")
            self.place = lun
            self.owner("pkill -f '[l]oad.py'; true")
            for name in NAMES:
                self.acked[name] = 0
            self.check()
        self.site()
        return {"kills": 3 * count}

    def power(self, _count):
        """the owner loses its power in the middle of a swap, before and after its moment"""
        self.fill()
        for moment in (2, 8):
            self.acked = dict.fromkeys(NAMES, 0)
            lun = self.target()
            self.owner("rm -f /srv/*/records")
            self.start_told_load()
            time.sleep(3)
            self.owner(f"(setsid indestructible swap vault1 --lun {lun} --limit 40M >/dev/null 2>&1 &)")
            time.sleep(moment)
            self.crash()
            self.lab.boot(self.host)
            self.until(lambda: self.owner("findmnt -n /srv/wide", check=False), 60, "the file systems to be mounted")
            again = f"indestructible swap vault1 --lun {lun} >/dev/null 2>&1 && echo through"
            self.until(lambda again=again: self.owner(again, check=False), 180, "the next run to complete the swap", pause=3)
            self.place = lun
            self.check()
        self.site()
        return {}


CASES = {"refused": Swap.refused, "moved": Swap.moved, "generations": Swap.generations_case, "killed": Swap.killed, "power": Swap.power}


def main():
    words = [word.partition(" ") for word in sys.argv[1:]]
    if not words or {name for name, _space, _count in words} - set(CASES):
        sys.exit(__doc__)
    swap, rows = Swap(), []
    for name, _space, count in words:
        try:
            swap.place = swap.ask("status")["stores"][0]["lun"]
            rows.append(dict(CASES[name](swap, int(count or 1)), case=CASES[name].__doc__))
            print(json.dumps(rows[-1]), flush=True)
        except (Wrong, LabError, ValueError, subprocess.SubprocessError) as error:
            sys.exit(f"{swap.evidence()}\nWRONG {name}: {error}")
        save("swap", swap.lab.release, rows)


if __name__ == "__main__":
    main()
