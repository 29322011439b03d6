# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a run of site without changes takes, for more devices and for more hosts."""

from __future__ import annotations

import json
import os
import statistics
import time

from play import Failed
from table import Table

STORE = "store1"
NAME = "iqn.2026-11.org.example"
DISK = 4096  # MiB, of each of the storage host's disks; sparse


FEW, MANY = 1, 10  # devices of an owner


def devices(count):
    """So many devices of a host."""
    return [{"name": f"disk{number:02}", "size": "320M", "store": "vault", "filesystem": "xfs", "mount": f"/srv/disk{number:02}"}
            for number in range(1, count + 1)]


def variables(owners, rich):
    """Variables of the storage host and of so many owners: a LUN, a disk and a store of its own for each. rich: the owner with MANY devices, or None."""
    exports = [{"name": f"vault{number}", "target": f"{NAME}:vault{number}", "lun": 0, "backing": f"/dev/ubd{chr(ord('a') + number)}",
                "allow": [{"initiator": f"{NAME}:owner{number}"}]} for number in range(1, owners + 1)]
    owner = "{{ inventory_hostname | regex_search('[0-9]+$') }}"
    return {"all": {
        "hosts": {rich: {"indestructible_devices": devices(MANY)}} if rich else {},
        "vars": {
            "indestructible_exports": exports,
            "indestructible_initiator_name": f"{NAME}:{{{{ inventory_hostname }}}}",
            "indestructible_stores": [{"name": "vault", "portal": "10.99.0.11", "target": f"{NAME}:vault{owner}", "lun": 0}],
            "indestructible_devices": devices(FEW)}}}


class Runs:
    """The part `site`: runs of site on an owner with one and on one with ten devices, and on one and on several owners."""

    def __init__(self, play, repeat, owners):
        self.play, self.repeat, self.owners = play, repeat, max(2, owners)
        self.inventory = f"{os.path.dirname(play.log_path)}/bench-inventory.yml"
        self.table = Table(f"A run of site without changes, seconds: median of {repeat}, in turn", ["", "first", "second", "ratio", "aim"])

    def want(self, rich=None):
        """Let an owner have MANY devices from now on."""
        with open(self.inventory, "w", encoding="utf-8") as file:
            json.dump(variables(self.owners, rich), file)

    def site(self, *owners):
        """Run site on the storage host and some owners; how many changes it made."""
        return self.play.playbook("site", "--limit", ",".join([STORE, *owners]))[1]

    def compare(self, one, other, words, aim=""):
        """Runs of site without changes for two lists of owners. They take turns, so that another load on the machine falls upon both."""
        rounds = []
        with self.play.step(f"Site without changes: {words}, {self.repeat} times in turn") as notes:
            for _attempt in range(self.repeat):
                times = []
                for owners in (one, other):
                    began = time.monotonic()
                    changes = self.site(*owners)
                    times.append(time.monotonic() - began)
                    if changes:
                        raise Failed(f"a run that should change nothing made {changes} changes; see {self.play.relative_log()}")
                rounds.append(times)
            first, second = (statistics.median(times) for times in zip(*rounds))
            notes.append(f"{first:.3g} s and {second:.3g} s")
        self.table.add(words, f"{first:.1f}", f"{second:.1f}", f"{second / first:.2f}", aim)

    def run(self):
        """Everything, in the order that needs the fewest hosts and devices made; returns tables."""
        play, owners = self.play, [f"owner{number}" for number in range(1, self.owners + 1)]
        play.inventories[:] = [self.inventory, play.lab.path + "/inventory.yml"]
        self.want()
        with play.step(f"Boot a storage host and {self.owners} owners"):
            play.up([STORE, *owners], [DISK] * self.owners)
        with play.step(f"Run site: one device on each of {self.owners} owners, a LUN each"):
            play.playbook("site")
        self.compare(owners[:1], owners, f"1 owner / {self.owners} owners")
        for name in owners[2:]:
            play.lab.power_off(name)
        self.want(rich=owners[1])
        with play.step("Run site: ten devices on one owner"):
            self.site(owners[1])
        self.compare(owners[:1], owners[1:2], f"{FEW} device / {MANY} devices", "at most 1.5")
        return [self.table]
