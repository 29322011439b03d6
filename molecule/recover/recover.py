#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be opened of a device's past, on the devices of vars.yml.

    recover.py PART [COUNT]

Parts: prefix (recoveries of COUNT checkpoints of each device hold a prefix of what was written), postgres (the server runs on COUNT recoveries),
untouched (the device in use stays as it is), refusals, rollback, killed (COUNT kills of recover, release and rollback, and the power gone), long (a history of
COUNT checkpoints costs no more than a short one). Each prints what it found as JSON and adds it to .build/recover-RELEASE.json.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "shared"))

from drive import ROOT, Drive, LabError, Wrong, save  # noqa: E402  pylint: disable=wrong-import-position

HISTORIES = ("ax", "sx", "ae", "se")
# what may be left of recoveries: nothing
STRAY = ("dmsetup ls | grep indestructible; grep -l /view/ /sys/block/loop*/loop/backing_file; grep /run/indestructible/view /proc/mounts; "
         "cat /sys/block/loop*/loop/backing_file | grep -F .cow; ls /var/lib/indestructible/recoveries 2>/dev/null; ls /run/indestructible/view 2>/dev/null; "
         "ls /var/lib/indestructible/records/recoveries 2>/dev/null; true")
SNAPSHOTS = "lscp -s $(findmnt -no SOURCE /var/lib/indestructible/stores/vault1) | sed 1d | awk '{print $1}'"


class Recover(Drive):
    """The parts, as methods with a docstring of one line."""

    def clean(self):
        """Wrong when anything of a recovery is left; named points stay protected."""
        left = self.owner(STRAY)
        if left:
            raise Wrong(f"left behind: {left}")
        named = {str(point["checkpoint"]) for name in self.state() for point in self.ask(f"points {name} --limit 100000 --all")["points"] if point["name"]}
        store = "/var/lib/indestructible/stores/vault1"
        pinned = {str(window["good"]) for name in self.state() for window in json.loads(self.owner(f"cat {store}/{name}.json"))["unsafe"]}
        stray = set(self.owner(SNAPSHOTS).split()) - named - pinned
        if stray:
            raise Wrong(f"checkpoints are protected for nobody: {', '.join(sorted(stray))}")

    def prefix(self, count):
        """Recoveries of checkpoints chosen at random."""
        self.owner(f"cd /root && python3 history.py write {max(25, count)} {' '.join(HISTORIES)} && sleep 7")
        rows = [json.loads(line) for line in self.owner(f"cd /root && python3 history.py prove {count} {' '.join(HISTORIES)}", timeout=3600).splitlines()]
        self.clean()
        return rows

    def postgres(self, count):
        """PostgreSQL on recoveries to random times."""
        self.owner(f"cd /root && python3 postgres.py prepare && python3 postgres.py load {20 + 4 * count} && sleep 7", timeout=300)
        rows = [json.loads(line) for line in self.owner(f"cd /root && python3 postgres.py prove {count}", timeout=1800).splitlines()]
        self.clean()
        return rows

    def untouched(self, _count):
        """The device in use is not touched by recoveries of it."""
        sums = "for name in ax ae; do blkid -o value -s UUID /dev/md/$name; dd if=/dev/md/$name bs=4M iflag=direct status=none | sha256sum; done"
        # in use, but not written to: XFS writes to its log now and then by itself
        self.owner("for name in ax ae; do mount -o remount,ro /srv/$name; sync -f /srv/$name; done")
        # nothing but the protection of the first is new for the second, whose own checkpoint is a minor one then
        self.owner("set -e; for name in one two; do indestructible checkpoint ax --name $name; done; indestructible recover ax two --name two; "
                   "indestructible release two; for name in one two; do indestructible checkpoint ax --name $name --delete; done")
        before, uuids = self.owner(sums), self.owner("ls -l /dev/disk/by-uuid /dev/disk/by-label | awk '{print $9, $11}'")
        self.owner("dmesg -C")
        for mode in ("", "--direct"):
            for name in ("ax", "ae"):
                top = self.ask(f"recover {name} {mode} --name {name}{mode[1:]}")["mount"]
                if not mode:
                    self.owner(f"echo written >{top}/new && rm -rf {top}/many && sync -f {top}")
        if self.owner("ls -l /dev/disk/by-uuid /dev/disk/by-label | awk '{print $9, $11}'") != uuids:
            raise Wrong("links in /dev/disk lead to a recovery")
        self.owner("indestructible release --all")
        if self.owner(sums) != before:
            raise Wrong("a device is not what it was")
        self.owner("for name in ax ae; do mount -o remount,rw /srv/$name; done")
        said = self.owner("dmesg | grep -iE 'md[0-9]+.*(error|corrupt|fail)' || true")
        if said:
            raise Wrong(f"the kernel complained: {said}")
        self.clean()
        return [{"same": True}]

    def refusals(self, _count):
        """What is refused, and in which words."""
        self.owner("indestructible recover ax --name there")
        told = {
            "recover ax 2001-01-01": "is before its first recovery point; it can be recovered as of any second from",
            "recover ax 2201-01-01": "is in the future",
            "recover ax 'soon or later'": "is not a point in time; write a time such as",
            "recover ax 2026-13-01": "is no date and time that exists",
            "recover ax nobody": "is neither a time nor the name of one of its points",
            "recover nope": "there is no device 'nope' on this host; there are: ae, ax, big, pg, se, sx",
            "release nope": "no recovery 'nope' is open",
            "recover sx --mount /mnt/indestructible/there": "choose another mount point",
            "recover sx --mount /srv/ax": "choose another mount point",
            "recover ax latest --name there --direct": "release it first",
            "recover sx --cow-size 3X": "'3X' is not a size",
            "recover sx --cow-size 900G": "does not fit",
            "rollback ax latest": "is in use (mounted on /srv/ax), so it cannot be put back",
            "checkpoint ax --name latest": "is no name for a point",
            "checkpoint ax --prune sometimes=3": "is not of hourly, daily, weekly, monthly, yearly",
        }
        before = self.owner("cat /proc/mounts; dmsetup ls; " + SNAPSHOTS)
        for command, words in told.items():
            done = self.lab.ssh("owner1", f"indestructible {command}", check=False)
            if done.returncode == 0 or words not in done.stderr:
                raise Wrong(f"indestructible {command} ended with {done.returncode} and said {done.stderr.strip()!r}, without {words!r}")
        zone = self.lab.ssh("owner1", "TZ=Europe/Berlin indestructible recover ax '2026-10-25 02:30:00'", check=False)
        if "was there twice" not in zone.stderr or "2026-10-25 02:30:00+01:00" not in zone.stderr:
            raise Wrong(f"an ambiguous time was taken: {zone.stderr}")
        if self.owner("cat /proc/mounts; dmsetup ls; " + SNAPSHOTS) != before:
            raise Wrong("a refusal changed something")
        self.owner("indestructible release there")
        # an overlay that is full is told, not hidden
        top = self.ask("recover ax --name small --cow-size 4M")["mount"]
        self.owner(f"dd if=/dev/urandom of={top}/big bs=1M count=32 conv=fsync", check=False)
        if "its COW store was too small" not in self.owner("indestructible status"):
            raise Wrong("an overlay that is full is not told")
        self.owner("indestructible release small")
        self.clean()
        return [{"refused": len(told) + 1}]

    def rollback(self, _count):
        """100 MB of damage on a sparse device of 100 GiB is put back, and that is undone; a mixture is not started."""
        fill = "dd if=/dev/urandom of=/srv/big/data bs=1M count=100 conv=notrunc,fsync status=none && sha256sum </srv/big/data"
        good = self.owner(fill)
        self.owner("indestructible checkpoint big --name good --note 'before the damage'")
        bad = self.owner(fill)
        begun = time.monotonic()
        self.owner("umount /srv/big")
        told = self.ask("rollback big good")
        seconds = round(time.monotonic() - begun, 1)
        if self.owner("mount /srv/big && sha256sum </srv/big/data") != good:
            raise Wrong("the rollback did not bring the data back")
        if not 95e6 < told["written"] < 125e6:
            raise Wrong(f"{told['written']} bytes were written for 100 MiB of damage")
        self.owner("umount /srv/big")
        self.ask(f"rollback big {told['before']}")
        if self.owner("mount /srv/big && sha256sum </srv/big/data") != bad:
            raise Wrong("the rollback was not undone")
        # the power goes in the middle of one
        self.owner("umount /srv/big; (setsid indestructible rollback big good >/dev/null 2>&1 &)")
        self.until(lambda: "direct" in self.owner("indestructible status"), 30, "the rollback to begin", pause=0.1)
        self.lab.power_off("owner1")
        self.lab.boot("owner1")
        self.until(lambda: "a rollback was interrupted" in self.owner("indestructible status"), 60, "the mixture to be told")
        if self.owner("test -e /dev/md/big && echo there", check=False) or "complete it first" not in self.lab.ssh(
                "owner1", "indestructible rollback big latest", check=False).stderr:
            raise Wrong("a mixture was started, or put to another time")
        self.ask("rollback big good")
        if self.owner("mount /srv/big && sha256sum </srv/big/data") != good:
            raise Wrong("the rollback was not completed")
        self.until(self.all_attached, 180, "the devices to heal")
        self.clean()
        return [{"damage": 100 << 20, "written": told["written"], "seconds": seconds}]

    def all_attached(self):
        """Whether every device has both legs."""
        try:
            return all(device["state"] == "attached" for device in self.state().values())
        except (LabError, ValueError):
            return False

    def killed(self, count):
        """recover and release are killed at any moment, and the power goes; the next call completes or undoes it."""
        for turn in range(count):
            verb = ("recover sx 1 minute ago --name k", "release k")[turn % 2]
            if turn % 2:
                self.owner("indestructible recover sx --name k latest || indestructible release k && indestructible recover sx --name k latest")
            after = 0.3 + 1.6 * (turn // 2) / max(1, count // 2)
            self.owner(f"timeout -s KILL {after:.2f} indestructible {verb}", check=False)
            self.owner("indestructible recover sx --name k 1 minute ago" if turn % 4 < 2 else "true", check=False)
            self.owner("indestructible release k 2>/dev/null; indestructible release k", check=False)
            self.clean()
        for verb in ("recover sx latest --name k", "release k"):
            if verb.startswith("release"):
                self.owner("indestructible recover sx latest --name k")
            self.owner(f"(setsid indestructible {verb} >/dev/null 2>&1 &)")
            time.sleep(random.uniform(0.3, 1.5))
            self.lab.power_off("owner1")
            self.lab.boot("owner1")
            self.until(self.all_attached, 180, "the devices to heal")
            self.owner("indestructible recover sx latest --name k && indestructible release k")
            self.clean()
        return [{"kills": count, "power": 2}]

    def long(self, count):
        """A long history costs no more than a short one."""
        def measure():
            points = self.ask("points ax --limit 100000 --since '1 day ago'")["points"]
            first, last = points[-1]["time"], points[0]["time"]
            took = {"recover": [], "points": []}
            for _turn in range(7):
                when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(random.randint(first, last)))
                took["recover"].append(float(self.owner(f"s=$(date +%s.%N); indestructible recover ax {when} --name l >/dev/null; e=$(date +%s.%N); "
                                                        "indestructible release l >/dev/null; echo \"$e $s\" | awk '{print $1-$2}'")))
                took["points"].append(float(self.owner("s=$(date +%s.%N); indestructible points ax --since '1 hour ago' --limit 100 >/dev/null; "
                                                       "e=$(date +%s.%N); echo \"$e $s\" | awk '{print $1-$2}'")))
            return {key: sorted(values)[3] for key, values in took.items()}
        short, before = measure(), self.ask("points ax --limit 1")["points"][0]["checkpoint"]
        after = int(self.owner(f"cd /root && python3 history.py lengthen {count}", timeout=3600))
        later = measure()
        row = {"checkpoints": [before, after], "recover": [round(one["recover"], 2) for one in (short, later)],
               "points": [round(one["points"], 2) for one in (short, later)]}
        if later["recover"] > 1.3 * short["recover"] + 0.1 or later["recover"] > 5 or later["points"] > 1:
            raise Wrong(f"a long history costs more: {json.dumps(row)}")
        return [row]


def main():
    recover = Recover()
    part, count = sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2] if len(sys.argv) > 2 else "4"
    if part not in ("prefix", "postgres", "untouched", "refusals", "rollback", "killed", "long"):
        sys.exit(__doc__)
    try:
        rows = getattr(recover, part)(int(count))
    except (Wrong, LabError, ValueError, subprocess.SubprocessError) as error:
        sys.exit(f"{recover.evidence()}\nWRONG {shlex.quote(part)}: {error}")
    name = f"recover-{recover.lab.release}"
    path = f"{ROOT}/.build/{name}.json"
    noted = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            noted = json.load(file)
    save("recover", recover.lab.release, dict(noted, **{part: rows}))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
