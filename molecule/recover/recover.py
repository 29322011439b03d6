#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be opened of a device's past, on the devices of vars.yml.

    recover.py PART [COUNT]

Parts: prefix (recoveries of COUNT checkpoints of each device hold a prefix of what was written), postgres (the server runs on COUNT recoveries),
untouched (the device in use stays as it is), memory (which runs short between recoveries), refusals, unprotected (recoveries leave nothing protected,
and nothing less), quiesce (everything is let go at the limit), inside (btrfs, a partition table and LVM on a device), rollback, killed (COUNT kills
of recover, release and rollback, and the power gone), long (a history of COUNT checkpoints costs no more than a short one). Each prints what it found
as JSON and adds it to .build/recover-RELEASE.json.
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
         "ls /var/lib/indestructible/records/recoveries 2>/dev/null | grep -v '[.]new-'; true")  # half a record goes with the next one
FORGET = "for turn in 1 2 3; do echo 3 >/proc/sys/vm/drop_caches; done"  # what nobody uses, as when memory is short
SNAPSHOTS = "lscp -s $(findmnt -no SOURCE /var/lib/indestructible/stores/vault1) | sed 1d | awk '{print $1}'"


class Recover(Drive):
    """The parts, as methods with a docstring of one line."""

    def clean(self):
        """Wrong when anything of a recovery is left; named points stay protected."""
        left = self.owner(STRAY)
        if left:
            raise Wrong(f"left behind: {left}")
        told = self.owner("for file in /var/lib/indestructible/stores/vault1/*.json; do tr -d '\\n' <$file; echo; done")
        catalogues = [json.loads(line) for line in told.splitlines() if '"points"' in line]
        if not catalogues:
            raise Wrong(f"there are no catalogues: {told}")
        named = {str(point["checkpoint"]) for catalogue in catalogues for point in catalogue["points"]}
        pinned = {str(window["good"]) for catalogue in catalogues for window in catalogue["unsafe"]}
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

    def memory(self, _count):
        """The kernel drops what it has of checkpoints that nobody uses, while others are opened."""
        points = {}
        for number in range(1, 5):
            self.owner(f"echo content {number} >/srv/ax/which && indestructible checkpoint ax --name which{number}")
            points[f"which{number}"] = f"content {number}"
        seen = []

        def look():
            for name, content in points.items():
                opened = self.ask(f"recover ax {name} --direct --name which")
                found = self.owner(f"cat {opened['mount']}/which")
                self.until(lambda number=opened["checkpoint"]: number in self.kept(), 30, "the guard to keep what was opened")
                self.owner("indestructible release which")
                seen.append(found == content)
                if found != content:
                    raise Wrong(f"the point {name} was opened and has {found!r}, not {content!r}")
                self.owner(FORGET)
        for _turn in range(3):
            look()
        self.owner("systemctl restart indestructible-guard")
        look()
        # what keeps the kernel from it is lost with a guard that is stopped
        self.owner(f"systemctl stop indestructible-guard; systemctl start indestructible-guard; {FORGET}; {FORGET}")
        self.owner("echo content 5 >/srv/ax/which && indestructible checkpoint ax --name which5")
        self.refused("indestructible recover ax which5 --direct --name which", "The volume has to be mounted anew; the guard does that within seconds")
        self.until(lambda: self.lab.ssh("owner1", "indestructible recover ax which5 --direct --name which", check=False).returncode == 0, 60,
                   "the guard to mount the volume anew", pause=2)
        self.owner("indestructible release which")
        points["which5"] = "content 5"
        look()
        self.until(lambda: all(device["state"] == "attached" for device in self.state().values()), 60, "all legs to be back")
        for name in points:
            self.owner(f"indestructible checkpoint ax --name {name} --delete")
        self.clean()
        return [{"opened": len(seen)}]

    def kept(self):
        """Checkpoints that the guard keeps."""
        return [number for numbers in json.loads(self.owner("cat /run/indestructible/guard.json"))["kept"].values() for number in numbers]

    def refused(self, command, words):
        """Wrong unless a command of the owner fails with these words."""
        done = self.lab.ssh("owner1", command, check=False)
        if done.returncode == 0 or words not in done.stderr:
            raise Wrong(f"{command} ended with {done.returncode} and said {done.stderr.strip()!r}, without {words!r}")
        return done

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
            "recover sx --cow /root/fixed/sx.cow --cow-size 1M": "for the overlay: Read-only file system",
            "recover ax 9999999 weeks ago": "write a time between 1970 and now",
            "rollback ax latest": "is in use (mounted on /srv/ax), so it cannot be put back",
            "checkpoint ax --name latest": "is no name for a point",
            "checkpoint ax --prune sometimes=3": "is not of hourly, daily, weekly, monthly, yearly",
        }
        self.owner("mkdir -p /root/fixed && mount -t tmpfs -o ro,size=64M tmpfs /root/fixed")
        before = self.owner("cat /proc/mounts; dmsetup ls; " + SNAPSHOTS)
        for command, words in told.items():
            if json.loads(self.refused(f"indestructible {command} --json", words).stdout)["error"].find(words) < 0:
                raise Wrong(f"indestructible {command} --json does not tell a program {words!r}")
        self.refused("TZ=Europe/Berlin indestructible recover ax '2026-10-25 02:30:00'",
                     "Write which one: 2026-10-25 02:30:00+02:00 or 2026-10-25 02:30:00+01:00")
        if self.owner("cat /proc/mounts; dmsetup ls; " + SNAPSHOTS) != before:
            raise Wrong("a refusal changed something")
        self.owner("umount /root/fixed; indestructible release there")
        # an overlay that is full is told, not hidden
        top = self.ask("recover ax --name small --cow-size 4M")["mount"]
        self.owner(f"dd if=/dev/urandom of={top}/big bs=1M count=32 conv=fsync", check=False)
        if "its COW store was too small" not in self.owner("indestructible status"):
            raise Wrong("an overlay that is full is not told")
        self.owner("indestructible release small")
        self.clean()
        return [{"refused": len(told) + 1}]

    def unprotected(self, _count):
        """Recoveries that end in other ways than most leave nothing protected, and nothing less than there was."""
        number = self.ask("points ax --limit 1")["points"][0]["checkpoint"]
        again = f"set -e; indestructible recover ax {number}; "
        self.owner(f"{again} umount /mnt/indestructible/ax; dmsetup remove indestructible-ax; {again} indestructible release ax")  # as after a reboot
        self.clean()
        self.owner("set -e; indestructible checkpoint ax --name gone; indestructible recover ax gone; indestructible checkpoint ax --name gone --delete; "
                   "indestructible release ax")
        self.clean()
        # a folder that was there, a link in the path of the overlay's file, and a checkpoint that a person protected
        self.owner(f"set -e; disk=$(findmnt -no SOURCE /var/lib/indestructible/stores/vault1); chcp ss $disk {number}; mkdir /root/here; "
                   f"ln -s /var/tmp /root/link; indestructible recover ax {number} --mount /root/here --cow /root/link/ax.cow; "
                   "indestructible status --json | grep -q '\"state\": \"open\"'; indestructible release ax; "
                   f"rmdir /root/here; rm /root/link; test ! -e /var/tmp/ax.cow; lscp -s $disk | grep -qw {number}; chcp cp $disk {number}")
        self.clean()
        return [{"ends": 3}]

    def quiesce(self, _count):
        """Whatever hangs while a device is held still, it is let go at the limit; what somebody else has frozen stays so."""
        self.owner("mkdir -p /root/slow; "
                   "printf '#!/bin/sh\ntest \"$1\" = -f || sleep 4\nexec /bin/sync \"$@\"\n' >/root/slow/sync; chmod +x /root/slow/sync")
        make = "indestructible checkpoint ax --name late --after 'touch /root/after' --limit"
        for command, words in ((f"{make} 2 --before 'trap \"\" TERM; sleep 77'", "did not end within the time limit"),
                               (f"PATH=/root/slow:$PATH {make} 2", "the time limit of 2 seconds was over before the point was made"),
                               (f"PATH=/root/slow:$PATH {make} 60 --before 'touch /root/begun' & until test -e /root/begun; do sleep 0.1; done; "
                                "sleep 1; kill -9 $!; echo killed >&2; exit 1", "killed")):
            self.owner("rm -f /root/after /root/begun")
            self.refused(command, words)
            self.until(lambda: self.owner("test -e /root/after && timeout 5 touch /srv/ax/probe && echo yes", check=False) == "yes", 5,
                       "the thaw and what is after it")
        self.owner("fsfreeze -f /srv/ax")
        self.refused(f"{make} 5", "cannot freeze the file system on /srv/ax: Device or resource busy")
        self.owner("fsfreeze -u /srv/ax")  # which fails when it is not frozen any more
        if "late" in [point["name"] for point in self.ask("points ax")["points"]]:
            raise Wrong("a point was made of what was not held still")
        # a file system on a volume on the device
        self.owner("set -e; umount /srv/se; dmsetup create volume --table \"0 $(blockdev --getsz /dev/md/se) linear /dev/md/se 0\"; "
                   "mount /dev/mapper/volume /srv/se; indestructible checkpoint se --name below --quiesce; indestructible checkpoint se --name below --delete; "
                   "umount /srv/se; dmsetup remove --retry volume; mount /srv/se")
        self.clean()
        return [{"let_go": 3}]

    def inside(self, _count):
        """What else may be on a device, opened beside its twin in use: btrfs, a partition table, LVM; the command to look inside is as it was told."""
        links = "ls -l /dev/disk/by-uuid /dev/disk/by-label | awk '{print $9, $11}'"
        self.owner("umount /srv/se")
        made = {
            "btrfs": ("mkfs.btrfs -q -f /dev/md/se; mount /dev/md/se /srv/se", "umount /srv/se"),
            "partition": ("echo ',,L' | sfdisk -q /dev/md/se; udevadm settle; mkfs.ext4 -q /dev/md/se1; mount /dev/md/se1 /srv/se", "umount /srv/se"),
            "LVM": ("pvcreate -qq /dev/md/se; vgcreate -qq data /dev/md/se; lvcreate -qq -y -n one -l 100%FREE data; mkfs.ext4 -q /dev/data/one; "
                    "mount /dev/data/one /srv/se", "umount /srv/se; vgchange -qq -an data"),
        }
        looks = {"btrfs": ("true", "true"),
                 "partition": ("mount /dev/mapper/indestructible-se1 /mnt", "umount /mnt && kpartx -d /dev/mapper/indestructible-se"),
                 "LVM": ("mount /dev/se_past/one /mnt", "umount /mnt && vgchange -qq -an se_past")}
        for kind, (make, end) in made.items():
            self.owner(f"wipefs -qa /dev/md/se && blockdev --rereadpt /dev/md/se; set -e; {make}; echo early >/srv/se/file; "
                       "indestructible checkpoint se --name look; echo late >/srv/se/file; sync -f /srv/se")
            before = self.owner(links)
            told = self.owner("indestructible recover se look")
            if kind.lower() not in told.lower():
                raise Wrong(f"{kind} is not told: {told}")
            look, close = looks[kind]
            command = next((line.partition("look inside")[2].partition(" (")[0].strip() for line in told.splitlines() if "look inside" in line), "true")
            if (command == "true") != (kind == "btrfs"):
                raise Wrong(f"how to look inside is not told: {told}")
            if self.owner(links) != before:
                raise Wrong(f"{kind}: links in /dev/disk lead to a recovery")
            if kind == "LVM":
                self.owner("lvchange -qq --addtag used data/one")  # of a volume group that it sees twice LVM changes nothing
            top = "/mnt" if command != "true" else "/mnt/indestructible/se"
            found = self.owner(f"set -e; {command} >/dev/null; {look}; cat {top}/file /srv/se/file; echo new >{top}/file; sync -f {top}").split()
            if found != ["early", "late"]:
                raise Wrong(f"{kind}: the recovery and the device hold {found}")
            if command != "true":
                self.refused("indestructible release se", "is held by")
            self.owner(f"set -e; {close}; indestructible release se; {end}; indestructible checkpoint se --name look --delete")
            self.clean()
        self.owner("wipefs -qa /dev/md/se; blockdev --rereadpt /dev/md/se; set -e; mkfs.ext4 -q /dev/md/se; mount /srv/se")
        return [{"kinds": len(made)}]

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
        self.until(lambda: self.owner("findmnt -n /var/lib/indestructible/stores/vault1", check=False), 60, "the store to be mounted")
        if self.owner("test -e /dev/md/big && echo there", check=False) or "complete it first" not in self.lab.ssh(
                "owner1", "indestructible rollback big latest", check=False).stderr:
            raise Wrong("a mixture was started, or put to another time")
        done = self.play("site", "--limit", "owner1", "--tags", "mirror_run")
        if done.returncode == 0 or "its rollback was interrupted" not in " ".join(done.stdout.split()):
            raise Wrong(f"site does not refuse a mixture: {done.stdout[-2000:]}")
        if self.owner(f"sha256sum <{self.ask('recover big latest --name newest')['mount']}/data") != bad:
            raise Wrong("a mixture is offered as a recovery point, or not the state before the rollback")
        self.owner("indestructible release newest")
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

    def done(self, command, words):
        """Whether a command went well, or was refused with these words; what a kill has left behind may be at work for a moment yet."""
        done = self.lab.ssh("owner1", f"indestructible {command}", check=False)
        return done.returncode == 0 or words in done.stderr

    def killed(self, count):
        """recover and release are killed at any moment, and the power goes; the next call completes or undoes it."""
        for turn in range(count):
            verb = ("recover sx 1 minute ago --name k", "release k")[turn % 2]
            if turn % 2:
                self.owner("indestructible recover sx --name k latest || indestructible release k && indestructible recover sx --name k latest")
            after = 0.3 + 1.6 * (turn // 2) / max(1, count // 2)
            self.owner(f"timeout -s KILL {after:.2f} indestructible {verb}", check=False)
            if turn % 4 < 2:
                self.until(lambda: self.done("recover sx --name k 1 minute ago", "a recovery of that name is open"), 10, "a recovery after a kill")
            self.until(lambda: self.done("release k", "no recovery 'k' is open"), 10, "a release after a kill")
            self.clean()
        verbs = ("recover sx latest --name k", "release k", "release k, to its end")
        verbs = verbs if count > 4 else verbs[-1:]
        for verb in verbs:
            if verb.startswith("release"):
                self.owner("indestructible recover sx latest --name k")
            if verb.endswith("end"):
                self.owner("date >/srv/sx/now && indestructible checkpoint sx --name kept && indestructible release k")
            else:
                self.owner(f"(setsid indestructible {verb} >/dev/null 2>&1 &)")
                time.sleep(random.uniform(0.2, 1.2))
            self.lab.power_off("owner1")
            self.lab.boot("owner1")
            self.until(self.all_attached, 180, "the devices to heal")
            self.owner("indestructible recover sx latest --name k && indestructible release k")
            self.clean()
        kept = next(point["checkpoint"] for point in json.loads(self.owner("cat /var/lib/indestructible/stores/vault1/sx.json"))["points"]
                    if point["name"] == "kept")
        if str(kept) not in self.owner(SNAPSHOTS).split():
            raise Wrong("a point that was told to be there is not protected after the power had gone")
        self.owner("indestructible checkpoint sx --name kept --delete")
        if self.owner("ls /var/lib/indestructible/records/*/*.new-*", check=False):
            raise Wrong("halves of records are left behind")
        return [{"kills": count, "power": len(verbs)}]

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
    if part not in ("prefix", "postgres", "untouched", "memory", "refusals", "unprotected", "quiesce", "inside", "rollback", "killed", "long"):
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
