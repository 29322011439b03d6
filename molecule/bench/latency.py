# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""fsync and throughput of the devices, of what they are made of, and of their peers; and what a commit of a store costs."""

from __future__ import annotations

import statistics

from pair import LEGS, NAIVE, OWNER, SIZE, STORE
from table import Table, number, human

DELAYS = (0, 5, 20)  # ms, held back from every packet of the owner, so added to each round trip
SECONDS, MEGABYTES = 10, 32  # seconds: at a hundred a second, p99 is the tenth worst of a thousand
BARE, ALONE, NAIVELY, SYNC, ASYNC, DRBD = "bare local leg", "mirror without its remote leg", "stock mirror", "device, sync", "device, async", "DRBD, protocol A"
BESIDE = "mirror without its remote leg, as much written to the store beside it"
WORST = 1.3  # the aim for an async device against the mirror without its remote leg
FOLDERS = {BARE: "/srv/bare", ALONE: "/srv/alone", NAIVELY: "/srv/stock", SYNC: "/srv/sync", ASYNC: "/srv/async", DRBD: "/srv/drbd",
           BESIDE: "/srv/alone"}
MKFS = "mkfs.xfs -q -K -s size=4096 -l size=64m"  # as the collection makes it
RESOURCE = """resource peer {
  net { protocol A; }
  on %s { device /dev/drbd0; disk /dev/loop101; address 10.99.0.12:7789; meta-disk internal; }
  on %s { device /dev/drbd0; disk /dev/ubdd; address 10.99.0.11:7789; meta-disk internal; }
}
""" % (OWNER, STORE)


def build(pair):
    """Make the peers: the bare leg, the stock mirror, DRBD. All local legs are loops over files on the one local file system."""
    make = "truncate -s {size} /var/lib/{name}.img && mknod -m 660 /dev/loop{number} b 7 {number}; losetup /dev/loop{number} /var/lib/{name}.img"
    pair.sh(make.format(size=SIZE, name="bare", number=100), f"{MKFS} /dev/loop100", "mkdir /srv/bare", "mount /dev/loop100 /srv/bare")
    for host in (OWNER, STORE):
        pair.sh("modprobe drbd", "cat >/etc/drbd.d/peer.res", host=host, stdin=RESOURCE)
    pair.sh(make.format(size=SIZE, name="drbd", number=101))
    for host in (OWNER, STORE):
        pair.sh("drbdadm create-md --force peer", "drbdadm up peer", host=host)
    pair.sh("drbdadm wait-connect peer", "drbdadm new-current-uuid --clear-bitmap peer/0", "drbdadm primary peer", f"{MKFS} /dev/drbd0", "mkdir /srv/drbd",
            "mount /dev/drbd0 /srv/drbd")
    pair.mount_naive()
    # as a manual has it: local first, the rest left to mdadm; the initial copy, of zeros onto zeros, is left out
    pair.sh(make.format(size=SIZE, name="stock", number=102), make.format(size=SIZE, name="remote", number=103).replace("/var/lib", NAIVE),
            "mdadm --create /dev/md/stock --run --assume-clean --level=1 --raid-devices=2 --bitmap=internal --write-behind=256 "
            "/dev/loop102 --write-mostly /dev/loop103", f"{MKFS} /dev/md/stock", "mkdir /srv/stock", "mount /dev/md/stock /srv/stock")
    pair.md_mirror("alone", "detached")
    return pair.sh("mdadm --examine-bitmap /dev/loop102 | sed -n 's/ *Chunksize : //p'")


def remove(pair):
    """Take the peers away, so that they do not stand in the way of other figures."""
    pair.sh("umount /srv/bare /srv/stock /srv/drbd", "mdadm --stop /dev/md/stock", "drbdadm down peer", "losetup -d /dev/loop100 /dev/loop101 /dev/loop102 "
            "/dev/loop103", "rm /var/lib/bare.img /var/lib/drbd.img /var/lib/stock.img", f"rm {NAIVE}/remote.img")
    pair.sh("drbdadm down peer", host=STORE)
    pair.sh(f"rm {LEGS}/beside")
    pair.md_mirror("alone", "attached")


def measure(pair, rounds):
    """dict of (what, delay) -> list of answers of the program on the owner; in turn, so that another load falls upon all alike."""
    arrays = {NAIVELY: pair.array("stock"), SYNC: pair.array("sync"), ASYNC: pair.array("async")}
    found = {}
    for delay in DELAYS:
        with pair.play.step(f"fsync and write, round trip + {delay} ms, {rounds} rounds") as notes:
            pair.play.lab.delay(OWNER, delay)
            for turn in range(rounds):
                order = list(FOLDERS)[turn % len(FOLDERS):] + list(FOLDERS)[:turn % len(FOLDERS)]
                for what in order:
                    more = [arrays[what]] if what in arrays else []
                    if what == BESIDE:  # after the first round of the device
                        last = found[ASYNC, delay][-1]["written"]
                        more = [f"{LEGS}/beside", *(",".join(str(figure) for figure in last[how]) for how in ("paced", "flat"))]
                    found.setdefault((what, delay), []).append(pair.owner("latency", FOLDERS[what], SECONDS, MEGABYTES, *more))
            pair.play.lab.delay(OWNER, 0)
            notes.append(f"async p50 {number(middle(found[ASYNC, delay], 'paced', 'p50'))} ms")
    return found


def middle(answers, *keys):
    """The median of the rounds; keys lead to the figure in an answer."""
    values = []
    for answer in answers:
        for key in keys:
            answer = answer[key]
        values.append(answer)
    return statistics.median(values)


def tables(found, chunk):
    """The tables of what measure() found."""
    titles = [f"+ {delay} ms" for delay in DELAYS]
    words = {"paced": "fsync of 4 KiB a hundred times a second", "flat": "fsync of 4 KiB as fast as it goes"}
    fsync = {how: Table(f"{words[how]}: ms p50 / p99 (times the bare local leg)", ["", *titles]) for how in words}
    rates = Table(f"{words['flat']}: how many a second, and ms of the longest", ["", *titles])
    speed = Table(f"write of {MEGABYTES} MiB with an fsync at its end: MB/s (times the bare local leg)", ["", *titles])
    for what in FOLDERS:
        for how, table in fsync.items():
            table.add(what, *(cell(found[what, delay], None if what == BARE else found[BARE, delay], how) for delay in DELAYS))
        rates.add(what, *(f"{number(middle(found[what, delay], 'flat', 'count') / SECONDS)}, "
                          f"{number(max(answer['flat']['longest'] for answer in found[what, delay]))}" for delay in DELAYS))
        if what == BESIDE:  # where nothing is written beside it
            continue
        ratios = [middle(found[what, delay], "speed") / middle(found[BARE, delay], "speed") for delay in DELAYS]
        speed.add(what, *(number(middle(found[what, delay], "speed")) + ("" if what == BARE else f" ({number(ratio)})")
                          for delay, ratio in zip(DELAYS, ratios)))
    fewest = min(answer["flat"]["count"] for answers in found.values() for answer in answers)
    rates.note = (f"Columns: what is added to each round trip. Medians of rounds of {SECONDS} s in turn; the fewest fsyncs in a round were {fewest}, so there "
                  f"p99 is the longest but few. Stock mirror: bitmap chunk {chunk}.")
    if any(not answer["whole"] for answers in found.values() for answer in answers):
        rates.note += " !: the remote leg was out at some moment of it."
    return [*fsync.values(), rates, speed, aims(found, titles)]


def cell(mine, bare, how):
    """p50 and p99 as text, with what they are times those of the bare leg, if given."""
    figures = [middle(mine, how, key) for key in ("p50", "p99")]
    text = " / ".join(number(figure) for figure in figures)
    if bare:
        text += f" ({' / '.join(number(figure / middle(bare, how, key)) for figure, key in zip(figures, ('p50', 'p99')))})"
    return text + ("" if all(answer["whole"] for answer in mine) else " !")


def aims(found, titles):
    """The table of an async device against what it should keep up with."""
    table = Table("An async device against what it should keep up with: p50, p99", ["", *titles, "aim", "met"])
    for how, words in (("paced", "a hundred a second"), ("flat", "as fast as it goes")):
        for other, limit, aim in ((ALONE, WORST, f"at most {WORST}"), (BESIDE, None, ""), (DRBD, 1, "below 1")):
            ratios = [[middle(found[ASYNC, delay], how, key) / middle(found[other, delay], how, key) for key in ("p50", "p99")] for delay in DELAYS]
            met = limit and all(ratio <= limit for pair in ratios for ratio in pair)
            table.add(f"{other}, {words}", *(", ".join(f"{ratio:.2f}" for ratio in pair) for pair in ratios), aim, "" if not limit else "yes" if met else "no")
    return table


def latency(pair, rounds):
    """The part `latency`; returns tables."""
    with pair.play.step("Make the peers: bare leg, stock mirror, DRBD") as notes:
        chunk = build(pair)
        notes.append(f"stock bitmap chunk {chunk}")
    found = measure(pair, rounds)
    remove(pair)
    return tables(found, chunk)


def commit(pair, rounds):
    """The part `commit`: what makes a store durable, and what it costs. On a volume of its own, so that the guard commits nothing meanwhile."""
    pair.mount_naive()
    result = Table("A commit of a nilfs2 store, ms and bytes of the LUN", [
        "", "4 KiB dirty", "round trip + 20 ms", "LUN", "1 MiB dirty", "round trip + 20 ms", "LUN", "checkpoints"])
    with pair.play.step(f"Commits, three ways, {rounds} rounds") as notes:
        pair.sh(f"truncate -s 64M {NAIVE}/commit")
        found = {}
        for delay in (0, 20):
            pair.play.lab.delay(OWNER, delay)
            for _turn in range(rounds):
                for how in ("fdatasync", "fsync", "sync"):
                    for size in (4, 1024):
                        found.setdefault((how, size, delay), []).append(pair.owner("commit", f"{NAIVE}/commit", NAIVE, how, size, 10))
            pair.play.lab.delay(OWNER, 0)
        pair.sh(f"rm {NAIVE}/commit")
        notes.append(f"SYNC of 4 KiB {number(middle(found['sync', 4, 0], 'ms'))} ms")
    for how, words in (("fdatasync", "fdatasync of the remote file"), ("fsync", "fsync of it"), ("sync", "SYNC ioctl (the guard's)")):
        cells = []
        for size in (4, 1024):
            cells += [number(middle(found[how, size, delay], "ms")) for delay in (0, 20)] + [human(middle(found[how, size, 0], "log"))]
        result.add(words, *cells, number(middle(found[how, 4, 0], "checkpoints")))
    result.note = "LUN: what a commit fills of the log. Checkpoints: how many one commit makes; what fdatasync leaves is in none until nilfs2's timer (5 s)."
    return [result]
