# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a run of site without changes takes, for more devices and for more hosts, and how soon a login that cannot succeed is refused."""

from __future__ import annotations

import json
import os
import statistics
import time

from play import Failed
from table import Table, number

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
    """The part `site`: runs of site on an owner with one and on one with ten devices, and on one and on several owners; logins that are refused."""

    def __init__(self, play, repeat, owners):
        self.play, self.repeat, self.owners = play, repeat, max(2, owners)
        self.inventory = f"{os.path.dirname(play.log_path)}/bench-inventory.yml"
        self.table = Table(f"A run of site without changes, seconds: median of {repeat}, in turn", ["", "first", "second", "ratio", "aim"])
        self.refused = Table("A login that is refused, seconds of the call of iscsi_session", ["", "seconds", "times a call that changes nothing", "aim"],
                             f"Median of {repeat}, in turn. A call that changes nothing has no login to make.")

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

    def refuse(self):
        """Logins that cannot succeed, beside a session that is there already."""
        play, secret = self.play, {"username": "owner1", "password": "secret-of-owner1"}
        play.module(STORE, "lio_target", name="locked", target=f"{NAME}:locked", lun=0, backing="/var/tmp/locked.img", size="64M",
                    allow=[{"initiator": f"{NAME}:owner1", "chap": secret}])
        there = {"portal": "10.99.0.11", "target": f"{NAME}:vault1", "lun": 0, "startup": "manual"}
        cases = {
            "the session that is there": (there, None),
            "a wrong secret": (dict(there, target=f"{NAME}:locked", chap=dict(secret, password="another-secret")), "authentication"),
            "a target that is not there": (dict(there, target=f"{NAME}:nothing"), "answers, but not to a login"),
            "a LUN that is not there": (dict(there, target=f"{NAME}:locked", chap=secret, lun=7), "has no LUN 7"),
            "a portal that nobody has": (dict(there, target=f"{NAME}:nothing", portal="10.99.0.99"), "is unreachable"),
            "a port that is closed": (dict(there, target=f"{NAME}:nothing", portal="10.99.0.11:3999"), "is unreachable"),
        }
        took = {words: [] for words in cases}
        with play.step(f"Refused logins, {self.repeat} times in turn") as notes:
            for _attempt in range(self.repeat):
                for words, (options, said) in cases.items():
                    began = time.monotonic()
                    try:
                        wrong = f"{words}: it was not refused" if play.module("owner1", "iscsi_session", **options) and said else None
                    except Failed as problem:
                        wrong = None if said and said in str(problem) else str(problem)
                    took[words].append(time.monotonic() - began)
                    if wrong:
                        raise Failed(wrong)
            middle = {words: statistics.median(times) for words, times in took.items()}
            notes.append(f"{number(max(middle.values()))} s at most")
        for words, seconds in middle.items():
            self.refused.add(words, f"{seconds:.1f}", number(seconds / middle["the session that is there"]), "at most 20 s" if cases[words][1] else "")

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
        self.refuse()
        for name in owners[2:]:
            play.lab.power_off(name)
        self.want(rich=owners[1])
        with play.step("Run site: ten devices on one owner"):
            self.site(owners[1])
        self.compare(owners[:1], owners[1:2], f"{FEW} device / {MANY} devices", "at most 1.5")
        return [self.table, self.refused]
