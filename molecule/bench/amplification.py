# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many bytes of a LUN are used up by a byte that an application writes, with one setting after the other changed from its default."""

from __future__ import annotations

from pair import Hosts
from play import Failed
from table import Table, human, number

DISK = 12288  # MiB, of each LUN; sparse
SIZE = "640M"
XFS = "mkfs.xfs -q -K -f -s size=4096 -l size=64m"  # as the collection makes it
EXT4 = "mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -J size=32"
DEFAULT = "defaults"
# what a store or a device has in place of the default: a store and a LUN each for what belongs to stores
STORES = {"vault": {}, "b2048": {"block_size": 2048}, "b1024": {"block_size": 1024}, "slow": {"commit_interval": 5}, "slower": {"commit_interval": 30}}
DEVICES = {"default": ("vault", {}), "sync": ("vault", {"replication": "sync"}), "fine": ("vault", {"bitmap_chunk": "64K"}),
           "coarse": ("vault", {"bitmap_chunk": "64M"}), "b2048": ("b2048", {}), "b1024": ("b1024", {}), "slow": ("slow", {}), "slower": ("slower", {})}
SETTINGS = (  # words, device, how its file system is made and mounted, the least seconds of a load
    (DEFAULT, "default", XFS, "defaults", 10),
    ("block_size 2048", "b2048", XFS, "defaults", 10),
    ("block_size 1024", "b1024", XFS, "defaults", 10),
    ("commit_interval 5", "slow", XFS, "defaults", 20),
    ("commit_interval 30", "slower", XFS, "defaults", 60),
    ("replication sync", "sync", XFS, "defaults", 10),
    ("bitmap_chunk 64K", "fine", XFS, "defaults", 10),
    ("bitmap_chunk 64M", "coarse", XFS, "defaults", 10),
    ("xfs, lazytime", "default", XFS, "lazytime", 10),
    ("xfs, log of 128 MiB", "default", XFS.replace("64m", "128m"), "defaults", 10),
    ("ext4", "default", EXT4, "defaults", 10),
    ("ext4, lazytime", "default", EXT4, "lazytime", 10),
    ("ext4, fast_commit", "default", EXT4 + " -O fast_commit", "defaults", 10),
)
LOADS = {"4": "4 KiB random, fsync", "16": "16 KiB random, fsync", "seq": "sequential", "pg": "PostgreSQL"}
RATE = 50  # a second: random writes, transactions
RATES = (1, 10, 100, 0)  # of random writes of 4 KiB, to tell what a commit costs from what a write costs; 0: as fast as it goes
RATED = (DEFAULT, "block_size 2048", "block_size 1024", "replication sync")


class Amplification(Hosts):
    """The part `amplification`, on two hosts of its own."""

    def measure(self, words, device, load, rate, seconds):
        """The program's answer for one load on one device."""
        store = DEVICES[device][0]
        found = self.owner("amplify", self.array(device), f"/var/lib/indestructible/stores/{store}", f"/srv/{device}", load, rate, seconds)
        if not found["whole"]:
            raise Failed(f"the remote leg of {device} was taken out during {words}, {load}; the guard's journal tells why")
        return found

    def run(self):
        """Everything; returns tables."""
        self.build(STORES, {name: dict({"size": SIZE, "store": store}, **more) for name, (store, more) in DEVICES.items()}, DISK)
        result = Table(f"Bytes of the LUN for each byte written (of the device), {RATE} a second", ["", *LOADS.values(), "KiB a transaction"])
        rates = Table("4 KiB to random places, each with an fsync: KiB of the LUN a write (KiB of the device)", [
            "", *(f"{rate} a second" if rate else "as fast as it goes" for rate in RATES)])
        for words, device, mkfs, options, least in SETTINGS:
            with self.play.step(words) as notes:
                self.owner("fresh", f"/dev/md/{device}", f"/srv/{device}", mkfs, options)
                found = {load: self.measure(words, device, load, RATE, least) for load in LOADS}
                cells = [f"{number(one['log'] / one['written'])} ({number(one['device'] / one['written'])})" for one in found.values()]
                result.add(words, *cells, number(found["pg"]["log"] / found["pg"]["count"] / 1024))
                notes.append(", ".join(cells))
                if words in RATED:
                    rated = [self.measure(words, device, "4", rate, 40 if rate == 1 else 15) for rate in RATES]
                    rates.add(words, *(f"{number(one['log'] / one['count'] / 1024)} ({number(one['device'] / one['count'] / 1024)})"
                                       + ("" if rate else f", {number(one['count'] / one['seconds'])} a second") for rate, one in zip(RATES, rated)))
        result.note = (f"In brackets: bytes that the file system gave to the device for each byte. Sequential: {human(64 << 20)} in one go. PostgreSQL: "
                       "pgbench, for each byte of its WAL. Used bytes are the difference of the log's position, in blocks from the beginning of all history "
                       "(current_seg_sequence, blocks_per_segment and next_pseg_offset in /sys/fs/nilfs2), between two commits with everything at rest, so "
                       "it is exact to the block and counts what is left over at the ends of segments.")
        rates.note = "With one write a second each has a commit of its own, and the less there is in a commit, the more each write bears of what that costs."
        return [result, rates]
