# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guard itself costs, with twenty devices on one store."""

from __future__ import annotations

import json
import sys
import threading

from pair import HERE, MODES
from play import Failed
from table import Table, human

UNIT = "indestructible-guard.service"
DEVICES, SECONDS = 20, 60


def guard(pair, _rounds):
    """The part `guard`; returns tables."""
    play = pair.play
    with play.step(f"Run site: {DEVICES} devices on one store"):
        pair.site(DEVICES - len(MODES))
        if pair.owner("rest", 10) != {"arrays": DEVICES, "whole": True}:
            raise Failed("not all devices have both legs")
    found = {}
    for words, busy in (("idle", False), ("one busy writer", True)):
        with play.step(f"The guard of {DEVICES} devices for {SECONDS} s, {words}") as notes:
            found[words] = sample(pair, busy)
            notes.append(f"{found[words]['share']:.2%} of a core, {human(found[words]['resident'] * 1024)}")
    native = json.loads(play.run(sys.executable, f"{HERE}/on_owner.py", "glance", "3000"))["us"]
    return [table_of(found, pair.owner("glance", 3000)["us"], native, pair.sh(f"systemd-analyze security --no-pager {UNIT} | tail -n 1"))]


def sample(pair, busy):
    """The program's answer about the guard's process, with or without a writer; writes tells how many writes that made."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(pair.owner("write", "/dev/md/disk01", SECONDS + 2)))
    if busy:
        thread.start()
    found = pair.owner("process", UNIT, SECONDS)
    if busy:
        thread.join()
    if set(pair.sh("cat /sys/block/md*/md/degraded").split()) != {"0"}:
        raise Failed("a remote leg was taken out while the guard was measured; its journal tells why")
    if pair.owner("process", UNIT, 0)["pid"] != found["pid"]:
        raise Failed("the guard was started again while it was measured; its journal tells why")
    return dict(found, writes=answers[0]["writes"] if answers else 0)


def table_of(found, slow, fast, exposure):
    """The table of two samples; slow and fast are the microseconds of a look at sysfs on the lab's host and on the machine itself."""
    samples = list(found.values())
    shares = [one["share"] * fast / slow for one in samples]
    table = Table(f"The guard with {DEVICES} devices on one store, over {SECONDS} s", ["", *found, "aim", "met"])
    table.add("resident memory", *(human(one["resident"] * 1024) for one in samples), "under 40 MB",
              "yes" if all(one["peak"] * 1024 < 40e6 for one in samples) else "no")
    table.add("growth of it", *(f"{one['growth']} KiB" for one in samples), "none", "")
    table.add("share of a core, as measured in User-Mode Linux", *(f"{one['share']:.2%}" for one in samples), "under 1 %",
              "yes" if max(one["share"] for one in samples) < 0.01 else "no")
    table.add("the same at native speed, reckoned", *(f"{share:.2%}" for share in shares), "under 1 %", "likely" if max(shares) < 0.01 else "no")
    table.note = (f"A look at a file of sysfs, which is most of what the guard does, takes {slow:.0f} us on the lab's host and {fast:.0f} us on the machine "
                  f"that it runs on: that is the reckoning. The writer made {samples[1]['writes']} fsyncs. "
                  f"`systemd-analyze security`: {exposure.partition(':')[2].strip(' →')}.")
    return table
