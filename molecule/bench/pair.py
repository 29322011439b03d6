# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A storage host and an owner, made by the collection; as a Pair with a second LUN that is set up by hand as a peer to compare with."""

from __future__ import annotations

import json
import os

from play import Failed

HERE = os.path.dirname(os.path.abspath(__file__))
STORE, OWNER = "store1", "owner1"
NAME = "iqn.2026-11.org.example"
SIZE = "640M"
MODES = {"async": "async", "sync": "sync", "alone": "async"}  # devices with a file system, and their replication
LEGS = "/var/lib/indestructible/stores/vault"  # where the store is mounted
NAIVE = "/mnt/naive"  # where the second LUN is mounted, with nothing set that the manuals do not ask for
DISKS = (16384, 8192, 1024)  # MiB, sparse: the LUN of the devices, the second LUN, the disk of DRBD


class Hosts:
    """The two hosts. build() makes stores on LUNs of their own (dict of names and what differs from the default) and devices (of names and dicts)."""

    def __init__(self, play):
        self.play = play
        self.inventory = f"{os.path.dirname(play.log_path)}/bench-inventory.yml"
        with open(f"{HERE}/on_owner.py", encoding="utf-8") as file:
            self.program = file.read()

    def owner(self, *words):
        """What the program on the owner answers."""
        return json.loads(self.play.ssh(OWNER, "python3 - " + " ".join(f"'{word}'" for word in words), self.program))

    def sh(self, *lines, host=OWNER, stdin=None):
        """Run lines of shell on a host, each only if the one before succeeded; what they printed."""
        return self.play.ssh(host, " && ".join(lines), stdin).strip()

    def array(self, name):
        """mdN of a device."""
        return os.path.basename(self.sh(f"readlink -f /dev/md/{name}"))

    def build(self, stores, devices, disk):
        """Boot with disks of so many MiB, and run site."""
        play = self.play
        play.inventories[:] = [self.inventory, play.lab.path + "/inventory.yml"]
        with open(self.inventory, "w", encoding="utf-8") as file:
            json.dump({"all": {"vars": {
                "indestructible_initiator_name": f"{NAME}:{OWNER}",
                "indestructible_exports": [{"name": name, "target": f"{NAME}:{name}", "lun": 0, "backing": f"/dev/ubd{letter}",
                                            "allow": [{"initiator": f"{NAME}:{OWNER}"}]} for name, letter in zip(stores, "bcdefg")],
                "indestructible_stores": [dict({"name": name, "portal": "10.99.0.11", "target": f"{NAME}:{name}", "lun": 0}, **more)
                                          for name, more in stores.items()],
                "indestructible_devices": [dict({"name": name}, **more) for name, more in devices.items()]}}}, file)
        with play.step("Boot a storage host and an owner"):
            play.up([STORE, OWNER], [disk] * len(stores))
        with play.step(f"Run site: {len(devices)} devices on {len(stores)} stores"):
            play.playbook("site")


class Pair(Hosts):
    """The two hosts; up() is to be called first. add(number) gives the store so many small devices more."""

    def __init__(self, play):
        super().__init__(play)
        self.naive = False

    def up(self):
        """Boot and build."""
        play = self.play
        play.inventories[:] = [self.inventory, play.lab.path + "/inventory.yml"]
        with play.step("Boot a storage host and an owner"):
            play.up([STORE, OWNER], DISKS)
        with play.step("Run site: three devices on one store"):
            self.site(0)

    def site(self, more):
        """Run site for the three devices and so many small ones."""
        exports = [{"name": name, "target": f"{NAME}:{name}", "lun": 0, "backing": backing, "allow": [{"initiator": f"{NAME}:{OWNER}"}]}
                   for name, backing in (("vault", "/dev/ubdb"), ("naive", "/dev/ubdc"))]
        devices = [{"name": name, "size": SIZE, "store": "vault", "replication": mode, "filesystem": "xfs", "mount": f"/srv/{name}"}
                   for name, mode in MODES.items()]
        devices += [{"name": f"disk{number:02}", "size": "64M", "store": "vault"} for number in range(1, more + 1)]
        with open(self.inventory, "w", encoding="utf-8") as file:
            json.dump({"all": {"vars": {
                "indestructible_exports": exports, "indestructible_initiator_name": f"{NAME}:{OWNER}", "indestructible_devices": devices,
                "indestructible_stores": [{"name": "vault", "portal": "10.99.0.11", "target": f"{NAME}:vault", "lun": 0}]}}}, file)
        self.play.playbook("site")

    def mount_naive(self):
        """Log in to the second LUN with the initiator's own defaults and put nilfs2 on it; returns at once when that was done before."""
        if self.naive:
            return
        record = f"iscsiadm -m node -T {NAME}:naive -p 10.99.0.11"
        self.sh(f"{record} -o new", f"{record} --login",
                "for try in $(seq 50); do disk=$(ls /dev/disk/by-path/*:naive-lun-0) && break; sleep 0.1; done", f"mkfs.nilfs2 -q $disk && mkdir -p {NAIVE}",
                f"mount -t nilfs2 -o nogc $disk {NAIVE}")
        self.naive = True

    def md_mirror(self, name, state):
        """Attach or detach the remote leg of a device, and leave it so."""
        folder = "/var/lib/indestructible"
        mirror = {"name": name, "local": f"{folder}/{name}.img", "remote": f"{folder}/stores/vault/{name}.img", "size": SIZE, "state": state}
        self.play.ansible("ansible", OWNER, "--module-name", "indestructible.block.md_mirror", "--args", json.dumps({"mirrors": [mirror]}))
        if state == "detached" and self.sh(f"cat /sys/block/{self.array(name)}/md/degraded") != "1":
            raise Failed(f"the remote leg of {name} is not out")
