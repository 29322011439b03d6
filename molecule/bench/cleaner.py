# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store with a retention costs while its cleaner works, whether it keeps the store from filling, and what can be recovered then."""

from __future__ import annotations

import json
import time

from pair import Hosts, OWNER
from play import Failed
from table import Table, human, number

DISK, SIZE, FILE = 1280, "400M", 160  # MiB of the LUN; the device; MiB of the file that is overwritten
KEEP, RATE, KIB = 60, 150, 16  # seconds, writes a second, KiB of each
VOLUME, DATA = "/var/lib/indestructible/stores/vault", "/srv/db/random"


class Cleaner(Hosts):
    """The part `cleaner`, on two hosts of its own."""

    def steady(self, rate, seconds):
        """The program's answer about a steady writer."""
        found = self.owner("steady", self.array("db"), VOLUME, DATA, KIB, rate, seconds)
        if not found["whole"]:
            raise Failed("the remote leg was taken out; the guard's journal tells why")
        return found

    def indestructible(self, *words):
        """(whether the command ended well, what it said)."""
        said = self.play.ssh(OWNER, f"indestructible {' '.join(words)} 2>&1; echo $?").rstrip().rpartition("\n")
        return said[2] == "0", said[0]

    def want(self, condition, words):
        """Fail unless what was expected is so."""
        if not condition:
            raise Failed(words)

    def run(self):
        """Everything; returns tables."""
        play = self.play
        self.build({"vault": {"retention": {"keep": f"{KEEP // 60}m"}}},
                   {"db": {"size": SIZE, "store": "vault", "filesystem": "xfs", "mount": "/srv/db"}}, DISK)
        self.sh(f"dd if=/dev/urandom of={DATA} bs=1M count={FILE} conv=fsync status=none")
        with play.step("A named point, and a recovery that stays open") as notes:
            for words in (("checkpoint", "db", "--name", "first"), ("recover", "db", "latest", "--name", "kept", "--no-mount"),
                          ("recover", "db", "first", "--name", "named", "--no-mount")):
                done, said = self.indestructible(*words)
                self.want(done, said)
            told = [self.sum_of(f"/dev/mapper/indestructible-{name}") for name in ("kept", "named")]
            self.sh("indestructible release named")
            began = int(self.sh("date +%s")) + 5
            notes.append(f"md5 {told[0][:8]}")
        phases = {}
        for words, rate, seconds in (("paced, before it cleans", RATE, 30), ("as fast as it goes, before it cleans", 0, 3)):
            with play.step(words):
                phases[words] = self.steady(rate, seconds)
        with play.step("Write on until it cleans, and the size of the LUN more") as notes:
            least, log, end = None, 0, time.monotonic() + 900
            while log < DISK << 20 and time.monotonic() < end:
                found = self.steady(2 * RATE if least is None else RATE, 20)
                if found["clean"] < 0.4 * found["segments"]:
                    least = min(least or found["clean"], found["clean"])
                log += found["log"] if least else 0
            self.want(least and log >= DISK << 20, "the writer was too slow")
            notes.append(f"{human(log)} written, at least {least} of {found['segments']} segments free")
        for words, rate, seconds in (("paced, while it cleans", RATE, 60), ("as fast as it goes, while it cleans", 0, 3)):
            with play.step(words) as notes:
                phases[words] = self.steady(rate, seconds)
                notes.append(f"{phases[words]['clean']} segments free")
        with play.step("What can be recovered") as notes:
            notes.append(self.recover(began, told))
        with play.step("The cleaner stopped by hand, killed, and after a power loss"):
            self.survive()
        return [self.table(phases, least, found["segments"], log)]

    def sum_of(self, path):
        """Check sum of a block device."""
        return self.sh(f"md5sum <{path}").split()[0]

    def recover(self, began, told):
        """Try what was promised; a phrase."""
        points = json.loads(self.indestructible("points", "db", "--limit", "1", "--json")[1])
        now, oldest = int(self.sh("date +%s")), points["oldest"]["time"]
        self.want(now - oldest >= KEEP - 5, f"the oldest point is only {now - oldest} s old")
        self.want(oldest > began + 30, "nothing was deleted")
        for age in (KEEP - 20, KEEP // 2, 10):  # opening one takes seconds here, and the period goes on
            done, said = self.indestructible("recover", "db", self.at(int(self.sh("date +%s")) - age), "--name", "young")
            self.want(done, said)
            self.sh("test -s /mnt/indestructible/young/random", "indestructible release young")
        done, said = self.indestructible("recover", "db", self.at(began), "--name", "old")
        self.want(not done and "is before its first recovery point; protected points" in said and "it can be recovered as of any second from" in said, said)
        self.want(self.sum_of("/dev/mapper/indestructible-kept") == told[0], "the recovery in use has changed")
        self.sh("indestructible release kept")
        done, said = self.indestructible("recover", "db", "first", "--no-mount")
        self.want(done and self.sum_of("/dev/mapper/indestructible-db") == told[1], f"the named point has changed: {said}")
        self.sh("indestructible release db")
        return f"as of {now - oldest} s ago and later; older is refused"

    def survive(self):
        """The cleaner is missed when it does not run, and comes back by itself."""
        unit = "indestructible-cleaner-vault"
        self.sh(f"systemctl stop {unit}")
        said = self.indestructible("status")[1]
        self.want(f"Store vault: its cleaner does not run, so nothing keeps it from filling up; systemctl status {unit}.service" in said, said)
        self.sh(f"systemctl start {unit}", "sleep 1", "pkill -9 -x nilfs_cleanerd", "sleep 10", "pgrep -x nilfs_cleanerd")
        self.play.lab.power_off(OWNER)
        self.play.lab.boot(OWNER)
        self.sh("for try in $(seq 120); do pgrep -x nilfs_cleanerd && break; sleep 0.5; done", "pgrep -x nilfs_cleanerd")
        said = self.indestructible("status")[1]
        self.want("cleaner" not in said, said)

    @staticmethod
    def at(seconds):
        """A time as the command reads it."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

    @staticmethod
    def table(phases, least, segments, log):
        """The table of what was measured."""
        result = Table(f"A store of {human(DISK << 20)} that keeps {KEEP} s, {KIB} KiB overwritten at random with fsync", [
            "", "fsyncs a second", "ms p50 / p99 / longest", "LUN: written a second", "read a second"])
        for words, one in phases.items():
            result.add(words, number(one["count"] / one["seconds"]), f"{number(one['p50'])} / {number(one['p99'])} / {number(one['longest'])}",
                       human(one["written"] / one["seconds"]), human(one["read"] / one["seconds"]))
        result.note = (f"Meanwhile {human(log)} were written to the log with the cleaner at work, and at least {least} of {segments} segments were free. "
                       "What is read is read by the cleaner; what is written more than before it cleaned is what it copied.")
        return result
