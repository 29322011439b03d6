#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store moves to a blank LUN while its devices are written to, and its old LUNs stay its history.

    swap.py CASE...     "refused", "moved", "away" and "generations" (after moved), "retained", "power", "killed COUNT", and "elsewhere" as the last;
                        done one after the other on LUNs that are blanked in between; writes .build/swap-RELEASE.json

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

from drive import DEADLINE, LOAD, NAMES, STALL, Drive, LabError, Wrong, save  # noqa: E402  pylint: disable=wrong-import-position

DISKS = {0: "ubdb", 1: "ubdc", 2: "ubdd", 3: "ubde"}
ELSEWHERE = "iqn.2026-11.org.example:vault2"  # another target, with one LUN
POINT = "/var/lib/indestructible/stores/vault1"
RECORD = "/var/lib/indestructible/records/stores/vault1.json"
TARGET = "/sys/kernel/config/target/iscsi/iqn.2026-11.org.example:vault1/tpgt_1"
ACL = f"{TARGET}/acls/iqn.2026-11.org.example:owner1"
DATA = 200 << 20  # bytes of random data on the wide device
STEPS = (("start", 1.5, 4), ("moment", 0, 4), ("after", 0, 2))  # where a swap is killed: see kill.py, between so many seconds
CODE = "import sys; sys.path.insert(0, '/usr/local/sbin/indestructible'); from indestructible_block import _owner; "


class Swap(Drive):
    """The cases, as methods with a docstring of one line."""

    place = 0  # the LUN that the store is on

    def site(self, place=None, **more):
        """Run site with the store on that LUN and more variables; returns the finished process."""
        return self.play("site", "--extra-vars", json.dumps(dict(more, place=self.place if place is None else place)))

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

    def complete(self, lun):
        """The next run completes a swap that was interrupted."""
        self.until(lambda: self.is_through(lun), 180, f"the next run to complete the swap to LUN {lun}", pause=3)
        stores = self.ask("status")["stores"]
        if self.begun() != "none" or [store["lun"] for store in stores] != [lun]:
            raise Wrong(f"the next run did not complete the swap to LUN {lun}: {stores}")
        self.place = lun
        self.check()

    def is_through(self, lun):
        """Whether the next run completes a swap; what keeps it from that is noted on the owner, to be read by evidence()."""
        return self.owner(f"indestructible swap vault1 --lun {lun} >/dev/null 2>/root/said && echo through", check=False)

    def evidence(self):
        return f"{super().evidence()}\nswap said last: {self.owner('cat /root/said', check=False)}"

    def begun(self):
        """How far a swap is, see kill.py."""
        return self.owner("python3 /root/kill.py")

    def past(self):
        """A time of now that can be opened later, as people write it; fast, the async device, is seconds behind."""
        time.sleep(DEADLINE + 2)
        return self.owner("date -u +%Y-%m-%dT%H:%M:%SZ")

    def opens(self, name, when, least):
        """A past of a device opens, and has at least so many records."""
        told = self.ask(f"recover {name} {when} --name test")
        found = int(self.owner(f"python3 /root/writer.py {told['mount']}/records verify {least}; indestructible release test >/dev/null"))
        if found < least:
            raise Wrong(f"{name} as of {when} has {found} records of {least}")

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
        mark = f"{CODE}_owner._write_mark(sys.argv[1], _owner.build_mark('11111111-1111-4111-8111-111111111111', 'beta', None, 'now'))"
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
        self.start_load(65)
        time.sleep(5)
        held = self.ask("recover safe latest --name held")
        found = self.owner(f"sha256sum <{held['mount']}/records")
        before, own = self.used(lun), self.used(old)
        time.sleep(5)
        own = (self.used(old) - own) // 5  # bytes a second that the writers themselves cost a LUN
        begun = time.monotonic()
        done = self.play("swap", "--extra-vars", f"place={old} store=vault1 lun={lun}")
        if done.returncode or f"lun: {lun}" not in done.stdout:
            raise Wrong(f"swap failed: {done.stdout[-4000:]}")
        row = {"seconds": round(time.monotonic() - begun, 1)}
        self.until(self.is_healed, 60, "the devices to run on both legs")
        row.update(written=self.used(lun) - before, writers=own)
        row["data"] = int(self.owner("stat -c '%b' /var/lib/indestructible/*.img | awk '{sum += $1 * 512} END {printf \"%.0f\", sum}'"))
        noted, _lag = self.end_load(140)
        for name in NAMES:
            row[f"{name}_stall"] = noted[name]["longest"]
        self.place = lun
        self.check()
        self.held_across(held, found)
        if row["fast_stall"] > STALL:
            raise Wrong(f"the application waited for {row['fast_stall']} s")
        if row["written"] > 1.3 * row["data"] + (64 << 20) + own * row["seconds"]:
            raise Wrong(f"{row['written']} bytes were written to the new LUN for {row['data']} of data: {row}, {noted}")
        done = self.site(old)
        if done.returncode == 0 or "write that place in the variables" not in " ".join(done.stdout.split()):
            raise Wrong(f"site with the old place says something else: {done.stdout[-4000:]}")
        for changes in (None, "changed=0"):
            done = self.site()
            if done.returncode or (changes and "changed=1" in done.stdout):
                raise Wrong(f"site with the new place fails or changes something: {done.stdout[-4000:]}")
        return row

    def held_across(self, held, found):
        """A recovery that was open when the store moved is as it was, can be written to, and leaves nothing behind."""
        if self.owner(f"sha256sum <{held['mount']}/records; echo new >{held['mount']}/new; sync -f {held['mount']}") != found:
            raise Wrong("a recovery that was open across the move has changed")
        state = {one["name"]: one["state"] for one in self.ask("status")["recoveries"]}
        if state != {"held": "open"}:
            raise Wrong(f"of the recovery that is open across the move status tells {state}")
        number = self.generations()[0]["number"]
        self.owner("indestructible release held")
        self.owner(f"indestructible generations vault1 --attach {number}")
        disk = self.owner(f"findmnt -no SOURCE /var/lib/indestructible/generations/vault1.{number}")
        if str(held["checkpoint"]) in self.owner(f"lscp -s {disk} | awk '{{print $1}}'").split():
            raise Wrong(f"checkpoint {held['checkpoint']} of the retired generation stays protected for nobody")

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
        self.store(f"find {ACL}/lun_{lun} -type l -delete; rmdir {ACL}/lun_{lun}")
        self.refuse("recover fast early", "attach its LUN, then: indestructible generations vault1 --attach")
        wrong = self.owner("readlink -f /dev/disk/by-path/*-lun-2")
        self.refuse(f"generations vault1 --attach {number} --device {wrong}", "holds no nilfs2 volume, and not generation")
        self.owner(f"mkfs.nilfs2 -q -f -L other {wrong}; udevadm settle")
        self.refuse(f"generations vault1 --attach {number} --device {wrong}", "holds the volume")
        self.blank(2)
        told = self.owner("indestructible points fast")
        if f"Not there: generation {number} of vault1" not in told:
            raise Wrong(f"points does not tell what is away: {told}")
        done = self.site()  # which maps it again
        if done.returncode:
            raise Wrong(f"site failed: {done.stdout[-3000:]}")
        self.owner("iscsiadm -m session --rescan >/dev/null; udevadm settle")
        self.generations_are_found()
        self.owner(f"indestructible generations vault1 --forget {number}")
        self.refuse("recover fast early", "is neither a time nor the name of one of its points")
        return {}

    def retained(self, _count):
        """a store with a retention"""
        self.fill()
        kept = {"retention": {"keep": "2h"}}
        done = self.site(**kept)
        if done.returncode:
            raise Wrong(f"site failed: {done.stdout[-4000:]}")
        lun, left = self.target(), self.owner(f"grep -o '\"uuid\": \"[^\"]*' {RECORD} | cut -d'\"' -f4")
        self.start_load(20)
        self.ask(f"swap vault1 --lun {lun}")
        self.place = lun
        self.end_load(60)
        self.check()
        new = self.owner(f"findmnt -no UUID {POINT}")
        told = self.owner("systemctl is-active indestructible-cleaner-vault1; pgrep -a nilfs_cleanerd").splitlines()
        if new == left or len(told) != 2 or told[0] != "active" or new not in told[1]:
            raise Wrong(f"the volume was {left} and is {new}, and of cleaners is told: {told}")
        for more, words in ((kept, "changed="), (kept, "changed=0"), ({}, "changed="), ({}, "changed=0")):
            done = self.site(**more)
            if done.returncode or not all(words in line for line in done.stdout.splitlines() if line.startswith(self.host)):
                raise Wrong(f"site with {more or 'no retention'} fails, or changes something: {done.stdout[-4000:]}")
        if self.owner("pgrep -a nilfs_cleanerd", check=False):
            raise Wrong("a cleaner is left of a store without a retention")
        return {}

    def away(self, _count):
        """the LUN in use is away, and what is on a retired one opens all the same"""
        old = self.generations()[0]
        link = self.store(f"find {ACL}/lun_{self.place} -type l")
        lun = self.store(f"readlink -f {link}")
        disk = self.owner(f"basename $(readlink -f /dev/disk/by-path/*-lun-{self.place})")
        self.store(f"rm {link}; rmdir {ACL}/lun_{self.place}")
        self.owner(f"echo 1 >/sys/block/{disk}/device/delete; touch /srv/safe/away; sync -f /srv/safe")
        self.until(lambda: {device["state"] for device in self.state().values()} == {"detached"}, 60, "the legs to be taken out")
        loops = f"losetup -nlO NAME,BACK-FILE | awk '$2 ~ \"^{POINT}/\" {{print $1}}' | xargs -r losetup -d"
        self.until(lambda: self.owner(f"{loops}; umount {POINT}; findmnt -n {POINT} || echo gone", check=False) == "gone", 30, "the volume to be unmounted")
        done = self.lab.ssh(self.host, "indestructible recover fast latest", check=False)
        if done.returncode == 0 or "can be opened by its time" not in done.stderr:
            raise Wrong(f"without its LUN latest ended with {done.returncode}: {done.stderr.strip()}")
        state = f"cat /sys/block/$(basename $(readlink -f /dev/disk/by-uuid/{old['uuid']}))/device/state"
        self.until(lambda: self.owner(state, check=False) == "running", 30, "the session to be back")
        self.opens("fast", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(old["ended"])), 1)
        if not self.ask(f"recover safe early --generation {old['number']} --name test")["mount"]:  # it may be from before the first record
            raise Wrong("a named point of a retired generation is not mounted")
        self.owner("indestructible release test")
        told = self.ask("points fast")
        if {point["generation"] for point in told["points"]} != {old["number"]} or "which is in use" not in told["not_attached"][0]:
            raise Wrong(f"points of a store that is away: {told}")
        self.store(f"mkdir {ACL}/lun_{self.place}; ln -s {lun} {link}")
        self.until(self.is_healed, 90, "the devices to run on both legs")
        return {}

    def elsewhere(self, _count):
        """a move to another target, because the one in use is gone; it is off until the end"""
        self.fill()
        old = self.place
        self.acked = dict.fromkeys(NAMES, 0)
        self.store(f"echo 0 >{TARGET}/enable")
        self.owner("sync -f /srv/fast; sync -f /srv/safe", check=False)
        self.until(lambda: {device["state"] for device in self.state().values()} == {"detached"}, 60, "the legs to be taken out")
        self.start_load(20)
        done = self.play("swap", "--extra-vars", f"place={old} store=vault1 target={ELSEWHERE} lun=0")
        if done.returncode or f"target: {ELSEWHERE}" not in " ".join(done.stdout.split()):
            raise Wrong(f"swap failed: {done.stdout[-4000:]}")
        self.end_load(90)
        self.check()
        # nothing but what the swap noted says where the store is
        self.owner("systemctl restart indestructible-guard; sleep 10")
        self.check()
        self.lab.power_off(self.host)
        self.lab.boot(self.host)
        self.until(lambda: self.owner("findmnt -n /srv/wide", check=False), 60, "the file systems to be mounted")
        self.check()
        done = self.site(old)
        if done.returncode == 0 or "write that place in the variables" not in " ".join(done.stdout.split()):
            raise Wrong(f"site with the old place says something else: {done.stdout[-4000:]}")
        for changes in (None, "changed=0"):
            done = self.site(0, target=ELSEWHERE)
            if done.returncode or (changes and "changed=1" in done.stdout):
                raise Wrong(f"site with the new place fails or changes something: {done.stdout[-4000:]}")
            self.check()
        self.store(f"echo 1 >{TARGET}/enable")
        self.opens("fast", "latest", self.acked["fast"])
        return {}

    def killed(self, count):
        """a swap that is killed at any moment"""
        self.fill()
        found, undone = dict.fromkeys(("before", "after", "none"), 0), 0
        for turn in range(count):
            lun = self.target()
            self.owner(f"rm -f /root/load.json /root/acks; nohup {LOAD.format(seconds=600)} >/root/acks 2>&1 &")
            when = self.past()
            # while legs are filled, while they are exchanged, and while the new volume takes the place of the old one
            for where, least, most in (STEPS, STEPS[1:], STEPS[:1])[turn % 3]:
                step = self.owner(f"python3 /root/kill.py {lun} {random.uniform(least, most):.2f} {where}")
                found[step] += 1
            if turn % 3 == 2 and step == "before":
                self.undo(lun)
                undone += 1
            self.complete_under_load(lun, when)
        if count > 2 and not undone:
            raise Wrong("no swap was killed in time to be given up")
        self.site()
        return {"kills": found, "undone": undone}

    def undo(self, lun):
        """A swap that was begun is given up: nothing of it is left, and its LUN is free."""
        if self.ask("swap vault1 --undo")["under_way"] or self.begun() != "none":
            raise Wrong("the swap was not given up")
        left = self.owner(f"findmnt -n {POINT}.next; grep -F {POINT}.next /etc/fstab; grep -l hold /var/lib/indestructible/records/devices/*", check=False)
        owner = self.owner(f"python3 -c \"{CODE}print(_owner.look(sys.argv[1]).owner)\" $(readlink -f /dev/disk/by-path/*-lun-{lun})")
        if left or owner != "None":
            raise Wrong(f"a swap that was given up has left this: {left}, owner of its LUN: {owner}")
        self.blank(lun)

    def complete_under_load(self, lun, when):
        """A swap that was killed is completed while the devices are written to; then what is told to be safe is there, now, at its end and at a time before."""
        end = time.monotonic() + 180
        while not self.is_through(lun) and time.monotonic() < end:
            time.sleep(1)
        self.owner("pkill -f '[l]oad.py'; true")
        for line in self.owner("tail -n 40 /root/acks").splitlines():
            name, _space, number = line.partition(" ")
            if name in NAMES and number.isdigit():
                self.acked[name] = int(number)
        self.complete(lun)
        for name in NAMES:
            self.opens(name, when, 1)
            self.opens(name, "latest", self.acked[name])

    def power(self, _count):
        """the owner loses its power in the middle of a swap, before and after its moment"""
        self.fill()
        for moment in ("before", "after"):
            self.acked = dict.fromkeys(NAMES, 0)
            lun = self.target()
            self.owner("rm -f /srv/*/records")
            self.start_told_load()
            when = self.past()
            self.owner(f"(setsid indestructible swap vault1 --lun {lun} --limit 40M >/dev/null 2>&1 &)")
            # what is begun is soon through, so that only the number tells that its moment has come
            number = self.owner(f"grep generation.: {RECORD}") if moment == "after" else None
            self.until(lambda number=number: self.owner(f"grep generation.: {RECORD}") != number if number else self.begun() == "before", 120,
                       f"the swap to be {moment} its moment", pause=0.1)
            time.sleep(0 if number else 2)
            self.crash()
            self.lab.boot(self.host)
            self.until(lambda: self.owner("findmnt -n /srv/wide", check=False), 60, "the file systems to be mounted")
            self.complete(lun)
            for name in NAMES:
                self.opens(name, when, 1)
                self.opens(name, "latest", self.acked[name])
        self.site()
        return {}


CASES = {"refused": Swap.refused, "moved": Swap.moved, "away": Swap.away, "generations": Swap.generations_case,
         "retained": Swap.retained, "killed": Swap.killed, "power": Swap.power, "elsewhere": Swap.elsewhere}


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
