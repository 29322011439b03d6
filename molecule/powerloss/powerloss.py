#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The owner loses power while the remote leg is behind; after its boot nothing is lost, and the legs become identical by themselves.

    powerloss.py rounds COUNT      crashes at random moments; prints a line each, writes .build/proof-powerloss-RELEASE.json
    powerloss.py without WHICH     the same with one safeguard taken out of the program on the host: the legs have to differ, or this test proves nothing
    powerloss.py lease             a guard that was put out of action: the legs are compared, and identical

Safeguards: gate (the bitmap forgets only after a commit), chunks (what it lists is set again), lease (a bitmap that was free to forget is not believed).
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

from drive import NAMES, Drive, LabError, Wrong, save  # noqa: E402  pylint: disable=wrong-import-position

BURSTS = "while :; do dd if=/dev/urandom of=/srv/{name}/burst bs=256K count=4 seek=$((RANDOM % 200)) conv=notrunc oflag=direct; sleep 0.5; done"
# the kernel writes its settings down together with the flags of a leg
STREAM = (f"while :; do for name in {' '.join(NAMES)}; do "
          "dd if=/dev/urandom of=/srv/$name/burst bs=256K count=4 conv=notrunc oflag=direct; done; sleep 0.1; done")
TRICKLE = (f"for chunk in $(shuf -i 0-11); do for name in {' '.join(NAMES)}; do "
           "dd if=/dev/urandom of=/srv/$name/once bs=64K count=1 seek=$((chunk * 128)) conv=notrunc oflag=direct; done; sleep 0.4; done")
ONCE = (f"for name in {' '.join(NAMES)}; do for chunk in 0 1 2 3; do "
        "dd if=/dev/urandom of=/srv/$name/once bs=64K count=1 seek=$((chunk * 128)) conv=notrunc oflag=direct; done; done")
FORGETFUL = ("for md in /sys/block/md*/md; do echo 1 >$md/bitmap/time_base; for leg in $md/dev-loop*; do grep -q write_mostly $leg/state && "
             "echo writemostly >$leg/state; done; done; true")
NEVER_CLEAN = "for md in /sys/block/md*/md; do echo 0 >$md/safe_mode_delay; done"
KINDS = ("slow", "late", "burst", "hang")
# (file, text, what it becomes): how a safeguard is taken out of the program
CHANGES = {
    "gate": [("_md.py", "HELD = 1728000", "HELD = 1"), ("_guard_device.py", "write_text(path, str(self.gate.time_base - 1))", "pass"),
             # what the remote leg lists may by chance have reached the LUN before the data did
             ("_md_act.py", "        lists.append(header.bitmap.dirty)", "        pass")],
    "chunks": [("_md_act.py", 'lists = [[tuple(pair) for pair in record.get("pending", [])]]', "lists = [[]]"),
               ("_md_act.py", "        lists.append(header.bitmap.dirty)", "        pass"),
               ("_md_act.py", "        lists.append(local.bitmap.dirty)", "        pass")],
    "lease": [("_md.py", "    return local.clean or not guarded or bool(local.bitmap and local.bitmap.time_base >= HELD)", "    return True"),
              ("_md_act.py", "        lists.append(header.bitmap.dirty)", "        pass")],
}


class Crashes(Drive):
    """Power losses of the owner."""

    def load(self):
        """Records on both devices, until the hard case is there."""
        self.start_told_load()
        self.until(lambda: all(device["events"] == device["events_cleared"] for device in self.state().values()), 90, "events_cleared == events", pause=2)

    def burst(self):
        """Many chunks are written once, and never again, just before the link is cut: the leg is taken out before they are on the LUN."""
        self.lab.delay("owner1", 5, "8mbit")
        self.owner(" && ".join(f"dd if=/dev/urandom of=/srv/{name}/once bs=1M count=24 seek=$((RANDOM % 64)) conv=notrunc oflag=direct status=none"
                               for name in NAMES))
        self.lab.cut("store1")
        time.sleep(15)

    def trickle(self):
        """One chunk after the other is written once while each commit takes long: what came before it began is not on the LUN, and nothing reminds md of it."""
        self.lay()
        self.lab.delay("owner1", 5, "20mbit")
        self.owner(f"nohup bash -c '{STREAM}' >/dev/null 2>&1 &")
        time.sleep(3)
        self.owner(f"nohup bash -c '{TRICKLE}' >/dev/null 2>&1 &")
        time.sleep(random.uniform(4, 8))

    def hang(self):
        """The LUN stands still, and then a few chunks are written once: the remote leg has taken them, and the commit that has them does not end."""
        self.store("dmsetup suspend --nolockfs --noflush lun")
        self.owner(f"nohup bash -c '{ONCE}' >/dev/null 2>&1 &")

    def forgotten(self):
        """Nothing is written, the LUN stands still, one chunk is written, and md forgets it before both hosts lose their power."""
        self.load()
        self.lay()
        # a write elsewhere, or a super block of md, would wait for the remote leg, and md would forget nothing meanwhile
        self.owner(f"pkill -STOP -f '[l]oad.py'; sync; {NEVER_CLEAN}")
        self.until(lambda: not any(map(self.dirty, NAMES)) and self.rests(3), 90, "md to forget what was written before, and the store to rest")
        self.store("dmsetup suspend --nolockfs --noflush lun")
        # one, for the next would wait for the commit
        self.owner("dd if=/dev/urandom of=/srv/fast/once bs=64K count=1 seek=768 conv=notrunc oflag=direct status=none")  # a chunk of which it has all
        if not self.dirty("fast"):
            raise Wrong("md did not list what was written")
        # md looks at its bitmap only when something wakes it, as a write elsewhere would
        wake = "echo idle >/sys/block/$(basename $(readlink -f /dev/md/fast))/md/sync_action"
        self.until(lambda: self.owner(wake) == "" and not self.dirty("fast"), 50, "md to forget it")
        self.crash()
        return self.boot_both("forgotten")

    def rests(self, seconds):
        """Whether the store has had nothing to commit for so many seconds: what is written now is in its page cache before the next commit begins."""
        told = json.loads(self.owner("cat /run/indestructible/guard.json"))
        return told["time"] - told["stores"]["vault1"]["commit_time"] >= seconds

    def boot_both(self, kind):
        """The storage host loses its power as well, and with it what it had taken while its LUN stood still."""
        self.lab.power_off("store1")
        self.lab.boot("store1")
        self.lab.boot("owner1")
        return self.after(kind)

    def one(self, kind):
        """Crash once and heal; returns a row.

        kind: slow (the link is, commits lag), late (each commit is), burst (the leg is out when the power goes) or hang (the LUN does; both lose power).
        """
        self.load()
        if kind == "slow":
            self.owner(" ".join(f"nohup bash -c '{BURSTS.format(name=name)}' >/dev/null 2>&1 &" for name in NAMES))
            self.lab.delay("owner1", 5, f"{random.randint(30, 80)}mbit")
            time.sleep(random.uniform(2, 8))
        elif kind == "late":
            self.trickle()
        elif kind == "hang":
            self.lay()
            self.hang()
            time.sleep(random.uniform(1, 8))  # the leg is out after five
        else:
            self.burst()
        self.crash()
        if kind == "hang":
            return self.boot_both(kind)
        self.lab.mend("store1")
        self.lab.boot("owner1")
        return self.after(kind)

    def after(self, kind):
        """What is there after a boot."""
        self.until(self.is_healed, 180, "both devices to heal")
        self.until(self.is_mounted, 30, "the file systems to be mounted")
        row = {"kind": kind, "devices": {}}
        for name in NAMES:
            device = self.state()[name]
            row["devices"][name] = {"acknowledged": self.acked[name], "found": self.records(name), "start": device["last_start"], "heal": device["last_heal"]}
        self.compare()
        self.units()
        return row

    def equalize(self):
        """Have the legs compared and made equal, whatever they are, and Wrong unless that is so: a safeguard was out before, perhaps."""
        for name in NAMES:
            record = f"/var/lib/indestructible/records/devices/{name}.json"
            self.owner(f"indestructible detach {name} && sed -i '0,/{{/s//{{\"compare\": true,/' {record} && indestructible attach {name}")
        self.until(self.is_healed, 120, "the legs to be compared")
        for name, device in self.state().items():
            if device["last_heal"]["kind"] != "compare":
                raise Wrong(f"{name}: the legs were not compared but healed by {device['last_heal']['kind']}")
        self.compare()

    def change(self, which):
        """Take a safeguard out of the program on the host."""
        self.make_room()
        self.owner(f"python3 /root/edit.py {shlex.quote(json.dumps(CHANGES[which]))} && systemctl restart indestructible-guard")
        if which == "gate":  # a commit has to last longer than it takes md to forget
            self.owner("sed -i 's/\"commit_deadline\": [0-9]*/\"commit_deadline\": 60/' /etc/indestructible.json")
            self.owner(FORGETFUL)

    def unguarded(self):
        """The guard is put out of action behind systemd's back, and the kernel left to forget by itself, as if async had no guard at all."""
        self.load()
        self.owner("systemctl mask --runtime indestructible-guard; systemctl stop indestructible-guard; "
                   "for loop in /sys/block/loop*; do grep -qs /stores/ $loop/loop/backing_file && echo 'write through' > $loop/queue/write_cache; done; "
                   + FORGETFUL)
        self.burst()
        self.crash()
        self.lab.mend("store1")
        self.lab.boot("owner1")


def rounds(count):
    """So many crashes, of all kinds in turn."""
    crashes, rows = Crashes(), []
    for number in range(count):
        if number % 10 == 9:
            crashes.make_room()
        row = crashes.one(KINDS[number % len(KINDS)])
        print(json.dumps(row), flush=True)
        rows.append(row)
        save("proof-powerloss", crashes.lab.release, rows)
    starts = [device["start"] for row in rows for device in row["devices"].values()]
    if any(start["clean"] for start in starts):
        raise Wrong("a device was clean after a power loss: nothing was tested")
    hard = sum(start["events"] == start["events_cleared"] for start in starts)
    if hard < (len(starts) / 2 if count >= 10 else 1):
        raise Wrong(f"only {hard} of {len(starts)} devices had events_cleared == events, the hard case")
    if not any((device["heal"]["copied_bytes"] or 0) > 0 for row in rows for device in row["devices"].values()):
        raise Wrong("no leg ever lacked anything")


def lease():
    """A bitmap that was not held is not believed: the legs are compared."""
    crashes = Crashes()
    crashes.unguarded()
    row = crashes.after("unguarded")
    print(json.dumps(row), flush=True)
    for name, device in row["devices"].items():
        kind = device["heal"]["kind"]
        if kind not in ("compare", "full"):
            raise Wrong(f"{name}: the legs were not compared, but healed by {kind}")


def without(which):
    """The legs differ when a safeguard is missing."""
    crashes = Crashes()
    crashes.equalize()
    crashes.change(which)
    for _attempt in range(6):
        try:
            if which == "gate":
                crashes.forgotten()
            elif which == "chunks":
                crashes.one("slow")
            else:
                crashes.unguarded()
                crashes.after("unguarded")
        except Wrong as wrong:
            if "differ" in str(wrong):
                print(f"without {which}: {wrong}")
                return
            raise
    raise Wrong(f"the legs are identical without {which}: this test would not notice")


def main():
    verb, *words = sys.argv[1:] or [""]
    try:
        if verb == "rounds":
            rounds(int(words[0]))
        elif verb == "lease":
            lease()
        elif verb == "without" and words and words[0] in CHANGES:
            without(words[0])
        else:
            sys.exit(__doc__)
    except (Wrong, LabError, subprocess.SubprocessError) as error:
        sys.exit(f"{Crashes().evidence()}\nWRONG: {error}")


if __name__ == "__main__":
    main()
