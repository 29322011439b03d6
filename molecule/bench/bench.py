#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""make bench: what a device costs against what it is made of and against its peers, what the guard costs, and how long a run of site takes.

Everything is measured in one run on one machine and told as a ratio: User-Mode Linux is slow, and equally so for both sides.
Parts: latency, commit, guard, site, amplification, cleaner; all of them unless some are named. Environment: LAB_RELEASE (12 or 13).
"""

from __future__ import annotations

import argparse
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "lab"), HERE]

from play import Play, main, style  # noqa: E402
from amplification import Amplification  # noqa: E402
from cleaner import Cleaner  # noqa: E402
from latency import commit, latency  # noqa: E402
from pair import OWNER, Pair  # noqa: E402
from runs import Runs  # noqa: E402
from watch import guard  # noqa: E402

PAIRED = {"latency": latency, "commit": commit, "guard": guard}  # parts that share two hosts, in this order
PARTS = (*PAIRED, "site", "amplification", "cleaner")


def measure(play, parts, arguments):
    """Carry the parts out; the tables, each with the load of the machine during its part."""
    tables = []

    def part(work):
        began = time.monotonic()
        found = work()
        loads = os.getloadavg()
        load = loads[2] if time.monotonic() - began > 600 else loads[1] if time.monotonic() - began > 120 else loads[0]
        tables.extend((table, load) for table in found)
    release = None
    if set(parts) & set(PAIRED):
        pair = Pair(play)
        pair.up()
        release = about(play)
        for name, work in PAIRED.items():
            if name in parts:
                part(lambda work=work: work(pair, arguments.rounds))
    if "site" in parts:
        part(Runs(play, arguments.repeat, arguments.owners).run)
        release = release or about(play)
    for name, work in (("amplification", Amplification), ("cleaner", Cleaner)):
        if name in parts:
            part(work(play).run)
            release = release or about(play)
    return release, tables


def about(play):
    """Which system the hosts run."""
    return play.ssh(OWNER, '. /etc/os-release; echo "Debian $VERSION_ID, Linux $(uname -r)"').strip()


def show(play, release, tables, seconds):
    """Print the tables, and keep them as Markdown below .build."""
    head = f"{release}, User-Mode Linux, {os.cpu_count()} processors, {time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} minutes"
    text = [f"## {head}"]
    print(f"\n{style(head, 'bold')}")
    for table, load in tables:
        title = f"{table.title} (load {load:.1f})"
        print(f"\n{style(title, 'cyan')}\n")
        print("\n".join(table.lines()))
        text += ["", f"### {title}", "", *table.lines()]
    path = f"{os.path.dirname(play.log_path)}/bench-debian-{play.lab.release}.md"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(text) + "\n")
    print(f"\nThe same as Markdown: {os.path.relpath(path)}")


def bench():
    """The whole benchmark; the lab goes with it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("part", nargs="*", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="how often latency and commits are measured, in turn; the median counts")
    parser.add_argument("--repeat", type=int, default=3, help="how often runs of site are measured, in turn; the median counts")
    parser.add_argument("--owners", type=int, default=6, help="how many owners are compared with one")
    arguments = parser.parse_args()
    unknown = set(arguments.part) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    play = Play("bench")
    os.environ["LAB_UNTIL_EXIT"] = play.env["LAB_UNTIL_EXIT"] = str(os.getpid())
    print(f"Everything the commands say is in {play.relative_log()}.\n")
    began = time.monotonic()
    try:
        release, tables = measure(play, arguments.part or PARTS, arguments)
        show(play, release, tables, time.monotonic() - began)
    finally:
        play.lab.down()


if __name__ == "__main__":
    main(bench)
