#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small store is filled through the devices fast (async) and safe (sync), and what happens at its end.

    capacity.py PART...    below, grow, forecast, stopped, swap, or a KIND-KIND of fill.py for the two devices, such as buffered-direct
Prints a line a part, and writes .build/capacity-RELEASE.json. Each part fills the store, looks at what is left of it, and grows it; grow only does that, under
load and by site, below fills the file system of the local legs, and swap, the last one, moves it to another LUN. Exit status 1 when a promise was broken.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "shared"))

from drive import LOAD, NAMES, STALL, Drive, LabError, Wrong, save  # noqa: E402  pylint: disable=wrong-import-position

GROWTH = 1000 << 11  # sectors by which the LUN grows each time
RATE = 8  # MiB a second of the steady writer
PARTS = ("below", "grow", "forecast", "stopped", "swap")  # and these, for each of the two devices:
KINDS = ("buffered", "direct", "fsync", "small")
FULL = "full but for a reserve"
DIRTY = 128  # MiB of the store that may be dirty at any moment: what the guard makes room for
# how much of the volume was dirty at most, in blocks of 4 KiB, until the writers stop
WATCH = """
import os, sys, time
worst = 0
while not os.path.exists("/root/stop"):
    try:
        worst = max(worst, int(open(f"/sys/fs/nilfs2/{sys.argv[1]}/segctor/dirty_data_blocks_count").read()))
    except (OSError, ValueError):
        pass
    time.sleep(0.05)
print(worst)
"""


class Capacity(Drive):
    """The parts, as methods that return the row of the table, a dict."""

    def room(self):
        """What the guard knows of the store's room; None while it knows nothing."""
        try:
            return json.loads(self.owner("cat /run/indestructible/guard.json"))["stores"]["vault1"]["capacity"]
        except (LabError, ValueError, KeyError):
            return None

    def said(self, since, words):
        """How often the guard's journal has said something since a time of the owner."""
        return int(self.owner(f"journalctl -b -u indestructible-guard --since @{since} --no-pager | grep -c '{words}' || true"))

    def start_fill(self, kinds, rate=""):
        """Start writers of these kinds on the devices."""
        self.owner("rm -f /root/stop /root/fill-* /root/dirty")
        self.owner(f"nohup python3 -c {shlex.quote(WATCH)} $(basename $(findmnt -no SOURCE /var/lib/indestructible/stores/vault1)) >/root/dirty 2>&1 &")
        for name, kind in zip(NAMES, kinds):
            self.owner(f"nohup python3 /root/fill.py /srv/{name}/fill {kind} /root/stop {rate} >/root/fill-{name} 2>&1 &")

    def start_records(self, seconds):
        """Start the writer of records, whose waits are noted, for so many seconds."""
        self.owner(f"rm -f /root/load.json; nohup {LOAD.format(seconds=seconds)} >/root/acks 2>&1 &")

    def told(self):
        """Records that are safe by now, by device."""
        found = dict.fromkeys(NAMES, 0)
        for line in self.owner("tail -n 40 /root/acks").splitlines():
            name, _space, number = line.partition(" ")
            if name in found and number.isdigit():
                found[name] = int(number)
        return found

    def end_fill(self, row, kinds):
        """No writer has met an error, and none has waited for too long."""
        self.owner("touch /root/stop")
        for name, _kind in zip(NAMES, kinds):
            self.until(lambda name=name: self.owner(f"cat /root/fill-{name}"), 60, f"the writer on {name} to end")
            told = self.owner(f"cat /root/fill-{name}").split()
            if len(told) != 2:
                raise Wrong(f"{name}: the application met an error: {' '.join(told)}")
            row[f"{name}_written"], row[f"{name}_wait"] = int(told[0]), float(told[1])
        self.until(lambda: self.owner("cat /root/dirty"), 30, "the watch of what is dirty to end")
        row["dirty_mib"] = round(int(self.owner("cat /root/dirty")) / 256, 2)
        noted, _lag = self.end_load(150)
        for name in NAMES:
            row[f"{name}_stall"] = noted[name]["longest"]
            row[f"{name}_records"] = self.records(name)
            if row[f"{name}_stall"] > STALL:
                raise Wrong(f"{name}: the application waited for {row[f'{name}_stall']} s")

    def mark(self):
        """A moment of the owner, from which on its journal and its kernel's messages count."""
        self.owner("echo capacity-mark >/dev/kmsg")
        return int(float(self.owner("date +%s")))

    def kernel_said(self):
        """What the kernel said of the store since the mark, that it must not say."""
        return self.owner("dmesg | tac | sed '/capacity-mark/q' | grep -iE 'nilfs|I/O error|no space|critical' | tail -n 3 || true")

    def fill_until_out(self, kinds, seconds=180):
        """Start the writers, and wait until both legs are out and what they held is committed; returns the records that were safe before."""
        self.until(lambda: all(self.told().values()), 30, "the first records")
        safe = self.told()  # before the fill: with slow logins it can be over by the first look at the legs
        self.start_fill(kinds)
        end = time.monotonic() + seconds
        while True:
            told = self.told()  # first: what is acknowledged after the look at the legs may be on the local ones alone
            states = {device["state"] for device in self.state().values()}
            if states == {"detached"}:
                break
            if states == {"attached"}:
                safe = told
            if time.monotonic() > end:
                raise Wrong(f"the legs are still in after {seconds} s")
            time.sleep(0.5)
        # a leg counts as out from the moment in which it takes nothing new; what was under way to it is written and committed after that
        record = "/var/lib/indestructible/records/devices/{}.json"
        self.until(lambda: all(json.loads(self.owner(f"cat {record.format(name)}")).get("clean_detach") for name in NAMES), 60, "the legs to be committed")
        return safe

    def note_segments(self, row):
        """Note the free segments, and at how many nilfs2 refuses a write even when nothing is dirty."""
        clean, segments = (int(self.owner(f"cat /sys/fs/nilfs2/sd*/segments/{name}")) for name in ("clean_segments", "segments_number"))
        row.update(clean=clean, limit=max(8, -(-segments * 5 // 100)) + 1)

    def look_at_the_end(self, row, since, safe):
        """The legs are out: before nilfs2 refused anything, said once, shown, and the history opens with what was safe."""
        self.note_segments(row)
        heard = self.kernel_said()
        if heard:
            raise Wrong(f"the kernel met an error: {heard}")
        self.owner("systemctl restart indestructible-guard")
        time.sleep(8)
        if self.said(since, FULL) != 1 or self.said(since, "no room"):
            raise Wrong(f"the journal says {self.said(since, FULL)} times that the store is full, and {self.said(since, 'no room')} times that it has no room")
        status = self.owner("indestructible status")
        if "indestructible.block.swap" not in status or " full " not in status:
            raise Wrong(f"status does not say that the store is full: {status}")
        measured = self.owner("cat /run/indestructible-metrics/indestructible.prom")
        if 'indestructible_store_full{store="vault1"} 1' not in measured or 'device="fast",store="vault1",state="out"} 1' not in measured:
            raise Wrong("the metrics do not say that the store is full")
        for name in NAMES:
            path = json.loads(self.owner(f"indestructible recover {name} --name test --json"))["mount"]
            found = int(self.owner(f"cd /root && python3 -c 'import writer; print(writer.whole_records(\"{path}/records\"))'"))
            self.owner("indestructible release test")
            if found < safe[name]:
                raise Wrong(f"{name}: the newest recovery point has {found} records of {safe[name]} that were safe before the leg went out")
            row[f"{name}_recovered"] = found

    def grow_lun(self):
        """The LUN grows on the target; returns its sectors."""
        size = int(self.store("blockdev --getsz /dev/mapper/lun")) + GROWTH
        self.store(f"dmsetup load lun --table '0 {size} linear /dev/ubdb 0' && dmsetup suspend --nolockfs lun && dmsetup resume lun")
        return size

    def give_room(self):
        """Give the store room: its LUN and the volume on it grow. The guard does the rest by itself."""
        size = self.grow_lun()
        disk = os.path.basename(self.owner("findmnt -no SOURCE /var/lib/indestructible/stores/vault1"))
        self.owner(f"echo 1 >/sys/block/{disk}/device/rescan")
        self.until(lambda: int(self.owner(f"blockdev --getsz /dev/{disk}")) == size, 20, "the LUN to have grown")
        self.owner(f"nilfs-resize -y /dev/{disk}")

    def heal(self, row):
        """With room the legs come back by themselves, and are then the same."""
        begun = time.monotonic()
        self.give_room()
        self.until(self.is_healed, 180, "both devices to heal")
        row["heal_seconds"] = round(time.monotonic() - begun, 1)
        row["copied"] = sum(device["last_heal"]["copied_bytes"] for device in self.state().values()) >> 20
        self.compare()

    def fill(self, first, second):
        """The fastest writers that there are, one a device."""
        since, row = self.mark(), {"part": f"{first} on fast, {second} on safe"}
        self.start_records(30)
        safe = self.fill_until_out((first, second))
        time.sleep(3)
        self.end_fill(row, (first, second))
        self.look_at_dirty(row)
        self.look_at_the_end(row, since, safe)
        self.heal(row)
        return row

    @staticmethod
    def look_at_dirty(row):
        """However fast the writers are, the guard commits before much is dirty."""
        if not 0 < row["dirty_mib"] <= DIRTY:
            raise Wrong(f"{row['dirty_mib']} MiB of the store were dirty, and not at most {DIRTY}")

    def warned(self, since):
        """What was left, in percent, each time that the guard warned of the end."""
        said = self.owner(f"journalctl -b -u indestructible-guard --since @{since} --no-pager -o cat")
        return [int(percent) for percent in re.findall(r"\((\d+) %\) of it are left until its legs are taken out", said)]

    def forecast(self):
        """A steady writer, and what a guard that has not seen more than its beginning says of its end."""
        since, row = self.mark(), {"part": f"{RATE} MiB/s on fast"}
        self.start_records(3)
        self.end_load(60)
        safe = self.told()
        self.owner("systemctl stop indestructible-guard; rm -f /var/lib/indestructible/capacity/*; true")
        self.start_fill(("direct",), RATE)
        self.owner("systemctl start indestructible-guard")
        begun, seen = time.monotonic(), []
        while True:
            room = self.room()
            if room and room["full"]:
                break
            if room and room["left_seconds"] is not None:
                seen.append((time.monotonic(), room["left_seconds"]))
            if time.monotonic() - begun > 240:
                raise Wrong("the steady writer did not fill the store")
            time.sleep(1)
        end = time.monotonic()
        self.end_fill(row, ("direct",))
        half = [(moment, left) for moment, left in seen if 0.4 <= (moment - begun) / (end - begun) <= 0.6]
        errors = [abs(moment + left - end) / (end - moment) for moment, left in half]
        row.update(fill_seconds=round(end - begun, 1), forecast_error=round(max(errors, default=9), 3),
                   forecasts=[[round(moment - begun, 1), left] for moment, left in seen])
        if not errors or row["forecast_error"] > 0.2:
            raise Wrong(f"the forecasts at half time were wrong by up to {row['forecast_error']:.0%}: {half}, full after {row['fill_seconds']} s; "
                        f"history: {self.owner('cat /var/lib/indestructible/capacity/*')}")
        self.look_at_the_end(row, since, safe)  # which restarts the guard, and that says nothing again
        low = [percent for percent in self.warned(since) if percent <= 20]
        if len(low) != 2 or not low[0] > 10 >= low[1]:
            raise Wrong(f"the guard warned at {self.warned(since)} %, and not once each at 20 and at 10")
        self.heal(row)
        return row

    def stopped(self):
        """The guard is stopped beforehand: nilfs2 refuses a write, and md takes the legs out."""
        since, row = self.mark(), {"part": "guard stopped"}
        self.owner("systemctl stop indestructible-guard")
        known = json.loads(self.owner("cat /run/indestructible/guard.json"))["stores"]["vault1"]["checkpoint"]
        self.start_records(30)
        self.start_fill(("buffered", "direct"))
        self.until(lambda: self.owner("cat /proc/mdstat").count("(F)") == 2, 240, "md to take both legs out")
        time.sleep(3)
        self.end_fill(row, ("buffered", "direct"))
        self.note_segments(row)
        row["kernel"] = self.kernel_said()
        self.owner("systemctl start indestructible-guard")
        self.until(lambda: self.said(since, "no room") == 1, 60, "the guard to say that there is no room")
        time.sleep(7)
        if self.said(since, "no room") != 1 or any(device["state"] != "detached" for device in self.state().values()):
            raise Wrong("the guard brings legs back into a full store, or does not stop speaking of it")
        self.heal(row)
        for name in NAMES:  # a write that nilfs2 took a part of may have been called a success: only what the guard had committed is known to be whole
            window = json.loads(self.owner(f"cat /var/lib/indestructible/stores/vault1/{name}.json"))["unsafe"][-1]
            if window["first"] > known + 1:
                raise Wrong(f"{name}: checkpoints between {known} and {window['first']} count as safe, although md took the leg out after an error")
        return row

    def grow(self):
        """A device, its file system and the store grow under load, each by a number in the variables; nothing is made smaller."""
        row = {"part": "grown by site, under load"}
        self.start_load(60)
        sectors, before = self.grow_lun(), self.ask("status")["stores"][0]["size"]
        done = self.play("site", "--extra-vars", "size=512M")
        if done.returncode:
            raise Wrong(f"site failed: {done.stdout[-3000:]}")
        (noted, _lag), state = self.end_load(90), self.ask("status")
        row.update(store=[before, state["stores"][0]["size"]], fast_stall=noted["fast"]["longest"], safe_stall=noted["safe"]["longest"])
        if state["stores"][0]["size"] != sectors << 9 or self.state()["fast"]["size"] != 512 << 20:
            raise Wrong(f"they have not grown: {row}, {self.state()['fast']['size']}")
        if int(self.owner("stat -fc '%b %S' /srv/fast | awk '{printf \"%.0f\", $1 * $2}'")) < 400 << 20:
            raise Wrong("the file system has not grown")
        for name in NAMES:
            self.records(name)
        self.until(self.is_healed, 60, "both devices to be attached")
        self.compare()
        done = self.play("site", "--extra-vars", "size=384M")
        if done.returncode == 0 or "shrinking it to 406847488 would cut off what is behind" not in " ".join(done.stdout.split()):
            raise Wrong(f"site with a smaller size says something else: {done.stdout[-3000:]}")
        return row

    def below(self):
        """The file system of the local legs has less free than they may still take."""
        since, row, left = self.mark(), {"part": "below the local legs"}, 100 << 20
        self.owner(f"fallocate -l $(($(stat -fc '%a * %S' /) - {left})) /ballast")
        told, metric = "the file system below the local legs of fast, safe has ", r'indestructible_device_local_free_bytes\{device="safe"\} \d{8,9}\n'
        self.until(lambda: f"Device fast: {told}" in self.owner("indestructible status"), 30, "status to tell it")
        self.until(lambda: re.search(metric, self.owner("cat /run/indestructible-metrics/indestructible.prom")), 30, "the metrics to tell it")
        rooms, said, status = [device["local_room"] for device in self.state().values()], self.said(since, told), self.owner("indestructible status")
        row.update(free=rooms[0]["free"], wanted=rooms[0]["wanted"])
        if status.count(told) != 1 or rooms[0] != rooms[1] or not left // 2 < rooms[0]["free"] < left * 2 < rooms[0]["wanted"]:
            raise Wrong(f"{rooms} is told as: {status}")
        self.owner("rm /ballast")
        self.until(lambda: told not in self.owner("indestructible status"), 30, "the warning to end")
        if not 0 < said == self.said(since, told):
            raise Wrong(f"the guard said {said} times what is free below the local legs, and {self.said(since, told)} times in the end")
        return row

    def swap(self):
        """The store is full, and moves to another LUN while the devices are written to."""
        since, row = self.mark(), {"part": "full, then swapped under load"}
        self.start_records(90)
        safe = self.fill_until_out(("buffered", "direct"))
        time.sleep(3)
        begun = time.monotonic()
        for name in NAMES:
            self.owner(f"indestructible checkpoint {name} --name last --as-of latest")
        self.owner("iscsiadm -m session --rescan >/dev/null; indestructible swap vault1 --lun 1", timeout=600)
        self.owner("touch /root/stop")  # as fast as they are, the next LUN would soon be full as well
        self.until(self.is_healed, 120, "both devices to heal")
        row["heal_seconds"] = round(time.monotonic() - begun, 1)
        self.end_fill(row, ("buffered", "direct"))
        self.look_at_dirty(row)
        self.note_segments(row)
        if self.said(since, FULL) != 1:
            raise Wrong(f"the journal says {self.said(since, FULL)} times that the store is full")
        self.until(self.is_healed, 60, "both devices to heal")
        row["copied"] = sum(device["last_heal"]["copied_bytes"] for device in self.state().values()) >> 20
        self.compare()
        for name in NAMES:
            for when, least in (("last", safe[name]), ("latest", self.acked[name])):
                path = self.ask(f"recover {name} {when} --name test")["mount"]
                found = int(self.owner(f"cd /root && python3 -c 'import writer; print(writer.whole_records(\"{path}/records\"))'"))
                self.owner("indestructible release test")
                if found < least:
                    raise Wrong(f"{name}: {when} opens with {found} records of {least}")
            row[f"{name}_recovered"] = found
        return row

    def run(self, part):
        """One part by its name."""
        if part in PARTS:
            return getattr(self, part)()
        return self.fill(*part.split("-"))


def main():
    parts = sys.argv[1:]
    known = [*PARTS] + [f"{first}-{second}" for first in KINDS for second in KINDS]
    if not parts or any(part not in known for part in parts):
        sys.exit(f"usage: capacity.py PART...; there are: {', '.join(known)}")
    capacity, rows, failed = Capacity(), [], 0
    for part in parts:
        try:
            row = capacity.run(part)
            print(json.dumps(row), flush=True)
        except (Wrong, LabError, ValueError, subprocess.SubprocessError) as error:
            row = {"part": part, "wrong": str(error)}
            print(f"{capacity.evidence()}\nWRONG {part}: {error}", flush=True)
            failed += 1
        rows.append(row)
        save("capacity", capacity.lab.release, rows)
        if failed:
            break  # what comes next would begin with a store in an unknown state
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
