#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The owner of a store is lost while it writes, and another host becomes its owner.

    adopt.py CASE...     names of CASES, done one after the other; the hosts owner1 and owner2 take turns; writes .build/adopt-RELEASE.json

After each: what is missing is at most the promised lag, the legs are identical byte for byte, and points from before open on the new owner.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "shared"))

from drive import NAMES, Drive, LabError, Wrong, save  # noqa: E402  pylint: disable=wrong-import-position

LAG = 6  # seconds: commit_interval and commit_deadline
VARS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vars.yml")


class Adopt(Drive):
    """The cases, as methods with a docstring of one line."""

    def other(self):
        """The host that does not own the store now."""
        return "owner2" if self.host == "owner1" else "owner1"

    def on(self, host, playbook, *words):
        """Run a playbook on one host."""
        return self.play(playbook, "--limit", host, *words)

    def adopt(self, host=None):
        """Have the other host, or this one, adopt the store."""
        self.host = host or self.other()
        done = self.on(self.host, "adopt", "--extra-vars", "store=vault1")
        if done.returncode:
            raise Wrong(f"adopt failed: {done.stdout[-3000:]}")
        return done.stdout

    def write(self):
        """Start to write, and go on until the store has to have what was acknowledged early; returns how many records of each device that were."""
        self.make_room()
        self.start_told_load()
        time.sleep(5)
        early = self.told()
        time.sleep(LAG + 1)
        return early

    def write_and_die(self, before=None):
        """Write until the owner is destroyed; acked has what an async device must have at least, and a sync one exactly."""
        early = self.write()
        if before:
            before()
        self.crash()
        self.acked["fast"] = early["fast"]
        if before:  # the legs were out, or only half healed
            self.acked["safe"] = early["safe"]
        if min(early.values()) < 10:
            raise Wrong(f"hardly anything was written: {early}")

    def told(self):
        """How many records of each device were acknowledged until now."""
        found = dict.fromkeys(NAMES, 0)
        with open(f"{self.lab.path}/acks", encoding="utf-8") as file:
            for line in file.read().splitlines():
                name, _space, number = line.partition(" ")
                if name in found and number.isdigit():
                    found[name] = max(found[name], int(number))
        return found

    def check(self, row):
        """What has to be so after each adoption."""
        self.until(self.is_healed, 120, "both devices to run on both legs")
        for name in NAMES:
            row[name] = {"acknowledged": self.acked[name], "found": self.records(name)}
        self.compare()
        for name in NAMES:
            number, records = (int(word) for word in self.owner(f"cd /root && python3 point.py {name} last").split())
            if records < row[name]["found"]:
                raise Wrong(f"{name}: checkpoint {number} of the new owner has {records} records of {row[name]['found']}")
            old = next((one for one in self.ask(f"points {name} --limit 6000")["points"] if one["time"] <= self.died - LAG), None)
            if old is None:
                raise Wrong(f"{name}: there is no point from before the loss")
            self.owner(f"test -d {self.open(name, old['checkpoint'])} && indestructible release {name}")
        done = self.on(self.host, "site")
        if done.returncode or "changed=0" not in done.stdout:
            raise Wrong(f"site changes something afterwards: {done.stdout[-3000:]}")
        self.owner("systemctl is-active indestructible-guard")

    def open(self, name, checkpoint):
        """Where a checkpoint of a device is opened."""
        return self.ask(f"recover {name} {checkpoint}")["mount"]

    def crash(self):
        super().crash()
        self.died = time.time()

    # the cases

    def refused(self):
        """an owner that lives, and is idle"""
        before = self.owner("journalctl -u indestructible-guard -o cat | grep -c took || true")
        done = self.on(self.other(), "adopt", "--extra-vars", "store=vault1")
        if done.returncode == 0 or "that host is alive and uses it" not in " ".join(done.stdout.split()):
            raise Wrong(f"it was not refused as it should be: {done.stdout[-3000:]}")
        if not self.is_healed() or self.owner("journalctl -u indestructible-guard -o cat | grep -c took || true") != before:
            raise Wrong("the owner was disturbed")
        return {}

    def destroyed(self):
        """the owner is destroyed while it writes"""
        self.write_and_die()
        self.look()
        begun = time.monotonic()
        self.adopt(self.host)
        row = {"seconds": round(time.monotonic() - begun, 1)}
        self.check(row)
        if self.owner("ls /srv/*/lost", check=False):
            raise Wrong("what was written to a recovery is on the device")
        # the one that was lost comes back, and is told
        self.lab.boot(self.other())
        done = self.on(self.other(), "site")
        if done.returncode == 0 or f"is owned by the host {self.host}" not in " ".join(done.stdout.split()):
            raise Wrong(f"the lost host was not refused: {done.stdout[-3000:]}")
        self._forget(self.other())
        return row

    def look(self):
        """The other host takes the store over, and opens what is newest in it, without starting a device."""
        self.host = self.other()
        for changes in (True, False):
            done = self.on(self.host, "adopt", "--extra-vars", "store=vault1 overlay=true")
            if done.returncode or (not changes and "changed=0" not in done.stdout):
                raise Wrong(f"adopt with the overlay failed, or changed something again: {done.stdout[-3000:]}")
        for name in NAMES:
            top = f"/mnt/indestructible/{name}"
            self.owner(f"python3 /root/writer.py {top}/records verify {self.acked[name]} && echo lost >{top}/lost")
        if self.owner("ls /sys/block | grep -c ^md", check=False) != "0":
            raise Wrong("a device was started")
        for name in NAMES:
            done = self.on(self.host, "release", "--extra-vars", f"device={name}")
            if done.returncode:
                raise Wrong(f"release failed: {done.stdout[-3000:]}")

    def _forget(self, host):
        """Make a host that lost its store one that never had it."""
        self.lab.ssh(host, "pkill -9 -f '[l]oad.py'; systemctl disable --now indestructible-guard indestructible-devices; umount /srv/fast /srv/safe; "
                     "mdadm --stop --scan; losetup -D; rm -rf /var/lib/indestructible /etc/indestructible.json /etc/mdadm/mdadm.conf.d/indestructible-*; "
                     "sed -i '/indestructible/d; /srv/d' /etc/fstab; iscsiadm -m node -u", check=False)
        left = self.lab.ssh(host, "cat /proc/mdstat | grep -c ^md; ls /var/lib/indestructible 2>/dev/null", check=False).stdout.split()
        if left != ["0"]:
            raise Wrong(f"{host} still has something: {left}")

    def interrupted(self):
        """the new owner loses its power while it builds the local legs"""
        self.write_and_die()
        lost, self.host = self.host, self.other()
        words = ["ansible-playbook", "--inventory", f"{self.lab.path}/inventory.yml", "indestructible.block.adopt", "--extra-vars", f"@{VARS}",
                 "--limit", self.host, "--extra-vars", "store=vault1"]
        self.owner("echo 1000 >/proc/sys/dev/raid/speed_limit_max")
        with open(f"{self.lab.path}/adopt.log", "w", encoding="utf-8") as log:
            run = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ, ANSIBLE_HOST_KEY_CHECKING="0"))
            served = "findmnt -n /srv/fast && ls /var/lib/indestructible/fast.img"
            self.until(lambda: self.owner(served, check=False), 300, "the device to be served", pause=0.2)
            self.owner("echo later >/srv/fast/later && sync -f /srv/fast")
            self.lab.power_off(self.host)
            run.kill()
            run.wait()
        self.lab.boot(self.host)
        if "adopt" not in self.owner("indestructible status"):
            raise Wrong("status does not tell what was interrupted")
        self.adopt(self.host)
        if self.owner("cat /srv/fast/later") != "later":
            raise Wrong("what was written to the opened device is gone")
        row = {}
        self.check(row)
        self.lab.boot(lost)
        self._forget(lost)
        return row

    def healing(self):
        """the owner is destroyed while its legs are healed"""
        def cut_and_mend():
            self.lab.cut("store1")
            time.sleep(12)
            self.owner("echo 1000 >/proc/sys/dev/raid/speed_limit_max; echo 1000 >/proc/sys/dev/raid/speed_limit_min")
            self.lab.mend("store1")
            self.until(lambda: "recover" in self.owner("cat /proc/mdstat"), 40, "the heal to begin", pause=0.1)
            time.sleep(2)
        self.write_and_die(cut_and_mend)
        new, begun = self.other(), time.time()
        self.lab.ssh(new, "rm -f /root/served; (until findmnt -n /srv/fast && findmnt -n /srv/safe; do sleep 0.2; done; date +%s >/root/served) "
                     ">/dev/null 2>&1 &")
        told = self.adopt()
        if "the newest safe point" not in told:
            raise Wrong(f"the half-healed legs were taken as they were: {told[-3000:]}")
        row = {"served": int(self.owner("cat /root/served")) - int(begun)}
        self.check(row)
        self.lab.boot(self.other())
        self._forget(self.other())
        return row

    def disk(self):
        """the disk with the local legs is lost, and the host lives"""
        self.write_and_die()
        self.lose_legs()
        row = {}
        self.check(row)
        return row

    def disk_degraded(self):
        """the disk with the local legs is lost while the remote legs are out"""
        def cut():
            self.lab.cut("store1")
            self.until(lambda: all(device["state"] == "detached" for device in self.state().values()), 30, "the legs to be taken out")
        self.write_and_die(cut)
        if "the newest safe point" not in self.lose_legs():
            raise Wrong("legs that were out were taken as they were")
        row = {}
        self.check(row)
        return row

    def leg_fails(self):
        """a local leg fails while the device is written to, and the host loses its power"""
        self.write()
        image = "/var/lib/indestructible/fast.img"
        self.owner(f"echo faulty >/sys/block/$(basename $(readlink -f /dev/md/fast))/md/dev-$(basename $(losetup -nO NAME -j {image}))/state")
        self.until(lambda: self.owner("grep alone /var/lib/indestructible/records/devices/fast.json", check=False), 20, "the guard to note it")
        time.sleep(5)  # what is written now only the remote leg has
        self.crash()
        self.lab.boot(self.host)
        self.until(lambda: self.owner("journalctl -b -u indestructible-guard -o cat | grep 'so writes that were acknowledged are on the remote leg alone'",
                                      check=False), 90, "the guard to see that the local leg is the older one")
        self.owner("journalctl -b -u indestructible-devices -o cat | grep 'device fast: fast: its local leg .* failed while it ran' && findmnt -n /srv/safe")
        if self.owner("findmnt -n /srv/fast", check=False):
            raise Wrong("the device runs from a local leg that lacks acknowledged writes")
        self.owner(f"losetup -d $(losetup -nO NAME -j {image}); rm {image}")
        self.adopt(self.host)
        row = {}
        self.check(row)
        return row

    def leg_full(self):
        """the file system of the local legs gets full while the devices are written to, and the host loses its power"""
        self.write()
        self.owner("fallocate -l $(($(stat -fc '%a * %S' /) - 8388608)) /ballast; rm -f /root/enough; "
                   "nohup sh -c 'while [ ! -e /root/enough ]; do dd if=/dev/zero bs=4K >>/ballast; done' >/dev/null 2>&1 &")
        self.until(lambda: all(self.owner(f"grep alone /var/lib/indestructible/records/devices/{name}.json", check=False) for name in NAMES), 60,
                   "the guard to note in spite of it that both devices run from their remote legs")
        if any(device["state"] != "local failed" for device in self.state().values()):
            raise Wrong(f"they run from other legs: {self.state()}")
        self.owner("touch /root/enough; rm /ballast")
        time.sleep(5)  # what is written now only the remote legs have
        self.crash()
        self.lab.boot(self.host)
        said = "journalctl -b -u indestructible-guard -o cat | grep -c 'so writes that were acknowledged are on the remote leg alone'"
        self.until(lambda: int(self.owner(said, check=False)) >= 2, 90, "the guard to see that the local legs are the older ones")
        if self.owner("findmnt -n /srv/fast; findmnt -n /srv/safe", check=False):
            raise Wrong("a device runs from a local leg that lacks acknowledged writes")
        self.owner("for name in fast safe; do image=/var/lib/indestructible/$name.img; losetup -d $(losetup -nO NAME -j $image); rm $image; done")
        self.adopt(self.host)
        row = {}
        self.check(row)
        return row

    def cut_off(self):
        """the owner is cut off while it writes, and comes back once another host has adopted the store"""
        early = self.write()
        self.lab.cut(self.host)
        self.died, lost = time.time(), self.host
        self.reader.kill()
        self.reader.wait()
        self.acked = dict(self.told(), fast=early["fast"])
        self.adopt()
        self.lab.mend(lost)
        self.until(lambda: self.lab.ssh(lost, "journalctl -u indestructible-guard -o cat | grep 'another host owns it, so it was unmounted'",
                                        check=False).stdout, 120, "the lost host to let the volume go")
        if self.lab.ssh(lost, "findmnt -n --types nilfs2", check=False).stdout:
            raise Wrong("the lost host still has the volume mounted")
        row = {}
        self.check(row)
        self._forget(lost)
        return row

    def lose_legs(self):
        """The owner comes back without its local legs, with the link mended, and adopts its own store; returns what the playbook said."""
        self.lab.boot(self.host)
        self.owner("systemctl stop indestructible-guard; umount /srv/fast /srv/safe; systemctl stop indestructible-devices; rm /var/lib/indestructible/*.img")
        self.lab.mend("store1")
        done = self.on(self.host, "site")
        if done.returncode == 0 or "its local leg is lost" not in " ".join(done.stdout.split()):
            raise Wrong(f"site says something else: {done.stdout[-3000:]}")
        return self.adopt(self.host)


CASES = ("refused", "destroyed", "interrupted", "healing", "disk", "disk_degraded", "leg_fails", "leg_full", "cut_off")


def main():
    names = sys.argv[1:]
    if not names or set(names) - set(CASES):
        sys.exit(__doc__)
    adopt, rows = Adopt(), []
    for name in names:
        try:
            rows.append(dict(getattr(adopt, name)(), case=getattr(Adopt, name).__doc__))
            print(json.dumps(rows[-1]), flush=True)
        except (Wrong, LabError, ValueError, subprocess.SubprocessError) as error:
            sys.exit(f"{adopt.evidence()}\nWRONG {name}: {error}")
        save("adopt", adopt.lab.release, rows)


if __name__ == "__main__":
    main()
