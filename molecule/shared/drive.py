#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests share that break hosts of a lab while devices are under load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lab"))

from lab import Lab, LabError  # noqa: E402  pylint: disable=wrong-import-position

# On a machine that does other things as well a second is soon over, so the tight limits are for the long proof alone.
PROOF = os.environ.get("LAB_STEP") == "1"
DEADLINE = 5  # seconds, commit_deadline of the store
STALL = (1 if PROOF else 3) * (DEADLINE + 2)  # seconds that an application may wait
LOAD = "python3 /root/load.py {seconds} /root/load.json /srv/fast/records /srv/safe/records"
NAMES = ("fast", "safe")
LAID = 96  # MiB


class Wrong(Exception):
    """A promise was broken; the message says which."""


class Drive:
    """A lab with store1 and an owner (host), and the devices fast (async) and safe (sync) on it."""

    def __init__(self):
        self.lab = Lab()
        self.host = "owner1"
        self.acked = dict.fromkeys(NAMES, 0)
        self.reader = None
        self.control = 0.0  # seconds of the longest fsync on the host's own disk during the last load

    def owner(self, command, **more):
        """Output of a shell command on the owner."""
        return self.lab.ssh(self.host, command, **more).stdout.strip()

    def store(self, command, **more):
        """Output of a shell command on the storage host."""
        return self.lab.ssh("store1", command, **more).stdout.strip()

    def play(self, playbook, *words):
        """Run a playbook of the collection with the scenario's vars.yml, as a user does; returns the finished process, its output in stdout."""
        variables = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "vars.yml")
        argv = ["ansible-playbook", "--inventory", f"{self.lab.path}/inventory.yml", f"indestructible.block.{playbook}",
                "--extra-vars", f"@{variables}", "--diff", *words]
        env = dict(os.environ, ANSIBLE_HOST_KEY_CHECKING="0", ANSIBLE_PIPELINING="1", ANSIBLE_NOCOLOR="1", ANSIBLE_FORCE_COLOR="0")
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env)

    def ask(self, command):
        """What the command indestructible answers on the owner, as JSON."""
        return json.loads(self.owner(f"indestructible {command} --json"))

    def until(self, condition, seconds, what, pause=1):
        """Wait for a condition, or be Wrong."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Wrong(f"waited {seconds} s in vain for {what}")
            time.sleep(pause)

    def start_load(self, seconds):
        """Start the writers on the owner, for so many seconds."""
        self.owner(f"rm -f /root/load.json; nohup {LOAD.format(seconds=seconds)} >/dev/null 2>&1 &")

    def end_load(self, seconds):
        """Wait so long for the writers to end; what they noted of the files, by device, and the lag. Wrong when one of them met an error."""
        self.until(lambda: self.owner("cat /root/load.json", check=False), seconds, "the writers to end")
        noted = json.loads(self.owner("cat /root/load.json"))
        for name, note in noted["files"].items():
            if note["error"]:
                raise Wrong(f"{name}: the application met an error: {note['error']}")
            self.acked[name] = note["records"]
        self.control = noted["control"]
        return noted["files"], noted["lag"]

    def start_told_load(self):
        """Start the writers and have every record told here once it is safe, for hosts that are to lose power."""
        with open(f"{self.lab.path}/acks", "w", encoding="utf-8") as out:
            self.reader = subprocess.Popen(["ssh", "-F", f"{self.lab.path}/ssh_config", self.host, LOAD.format(seconds=600)],
                                           stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)

    def make_room(self):
        """Begin with the records anew, which would fill the file systems in the end."""
        self.acked = dict.fromkeys(NAMES, 0)
        self.owner("rm -f /srv/*/records && sync")

    def dirty(self, name):
        """How many chunks the local leg of a device lists on the disk."""
        told = self.owner(f"mdadm --examine-bitmap $(losetup -nO NAME -j /var/lib/indestructible/{name}.img)")
        return int(re.search(r"(\d+) dirty", told).group(1))

    def lay(self):
        """A file `once` on each device whose blocks are all there, so that writing to it again changes nothing else."""
        self.owner(" && ".join(f"dd if=/dev/urandom of=/srv/{name}/once bs=1M count={LAID} conv=notrunc oflag=direct status=none" for name in NAMES)
                   + " && sync")

    def crash(self):
        """Pull the plug of the owner; acked has the records of which was told before."""
        early = self.lab.running(self.host) and self.reader.poll() is not None
        self.lab.power_off(self.host)
        self.reader.kill()
        self.reader.wait()
        with open(f"{self.lab.path}/acks", encoding="utf-8") as file:
            for line in file.read().splitlines():
                name, _space, number = line.partition(" ")
                if name in self.acked and number.isdigit():
                    self.acked[name] = max(self.acked[name], int(number))
        if early or not all(self.acked.values()):
            raise Wrong(f"what was acknowledged is not known{', for the writers ended before' if early else ''}: {self.acked}")

    def state(self):
        """The devices of the owner by name."""
        found = json.loads(self.owner("indestructible status --json"))
        return {device["name"]: device for device in found["devices"]}

    def is_healed(self):
        """Whether both devices have both legs, and every heal is noted as ended."""
        try:
            devices = self.state()
        except (LabError, ValueError):
            return False
        return all(devices[name]["state"] == "attached" and (devices[name]["last_heal"] or {"seconds": 0})["seconds"] is not None for name in NAMES)

    def evidence(self):
        """What the owner says of itself, to be read when a promise was broken."""
        try:
            return self.owner("cat /proc/mdstat; indestructible status --json | tr -d ' \\n'; echo; cat /run/indestructible/guard.json; echo; "
                              "systemctl list-jobs --no-pager | head -n 12; journalctl -b -u 'indestructible*' --no-pager -o short-precise | tail -n 12; "
                              "dmesg | grep -v audit | tail -n 8", check=False)
        except (LabError, subprocess.SubprocessError) as error:
            with open(f"{self.lab.path}/{self.host}/console.log", encoding="utf-8", errors="replace") as file:
                return f"the owner does not answer: {error}; the end of its console: " + "\n".join(file.read().splitlines()[-40:])

    def is_mounted(self):
        """Whether both file systems are mounted."""
        return self.owner("findmnt -n /srv/fast && findmnt -n /srv/safe", check=False).count("\n") == 1

    def units(self):
        """Wrong when one of the units of the owner has failed."""
        failed = self.owner("systemctl list-units --failed --plain --no-legend 'indestructible*' '*-indestructible*' 'srv-*'")
        if failed:
            raise Wrong(f"a unit has failed: {failed}")

    def records(self, name):
        """How many whole records a device has; Wrong when an acknowledged one is missing."""
        done = self.lab.ssh(self.host, f"python3 /root/writer.py /srv/{name}/records verify {self.acked[name]}", check=False)
        if done.returncode:
            raise Wrong(f"{name}: {done.stdout.strip()} {done.stderr.strip()}")
        return int(done.stdout)

    def compare(self):
        """Wrong unless the legs are the same, byte for byte, with the file systems at rest and everything committed."""
        for name in NAMES:
            done = self.lab.ssh(self.host, f"fsfreeze -f /srv/{name} && sync && python3 /root/compare.py "
                                f"/var/lib/indestructible/{name}.img /var/lib/indestructible/stores/vault1/{name}.img; "
                                f"status=$?; fsfreeze -u /srv/{name}; exit $status", check=False)
            if done.returncode:
                raise Wrong(f"{name}: {done.stdout.strip()} {done.stderr.strip()}")


def save(name, release, rows):
    """Note rows (list of dict) for the table of a proof."""
    with open(f"{ROOT}/.build/{name}-{release}.json", "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
