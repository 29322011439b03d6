#!/usr/bin/env python
# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""make demo: two real hosts, one LUN, two indestructible devices, and a look at what was built. The lab stays up."""

from __future__ import annotations

import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lab"))

from play import Failed, Play, human_size, main, style  # noqa: E402

INVENTORY = "docs/examples/inventory.yml"
STORE, OWNER = "store1", "owner1"
DISK = 8192  # MiB; sparse
WIDTH = 96


def heading(text):
    """A line that begins a part of the output."""
    print(f"\n{style(text, 'bold')}\n")


def centre(*texts, width=WIDTH):
    """Print lines centred over the whole picture."""
    for text in texts:
        print(f"  {text:^{width}}".rstrip())


def side_by_side(left, right):
    """Print two lists of lines beside each other, each centred in its half."""
    half = WIDTH // 2
    for one, two in zip(left, right):
        print(f"  {one:^{half}}{two:^{half}}".rstrip())


def box(lines, width):
    """A frame around centred lines, as a list of lines."""
    return ["┌" + "─" * (width - 2) + "┐", *(f"│{line:^{width - 2}}│" for line in lines), "└" + "─" * (width - 2) + "┘"]


def device_lines(device, space):
    """The drawing of a device with its two legs: a list of lines, one column of the picture."""
    local, remote = device["local"], device["remote"]

    def leg(title, state):
        return [title, state["device"], os.path.basename(state["path"]), state["state"], f"holds {human_size(space[state['path']]['occupied'])}"]
    top = box([f"{device['path']}   {human_size(device['size'])}", f"{device['filesystem']} on {device['mount']}",
               f"{device['array']}: RAID1, {device['state']}", f"bitmap of {human_size(device['bitmap_chunk'])} chunks",
               f"{device['replication']}, at most {device['write_behind']} behind"], 34)
    legs = zip(box(leg("local leg", local), 20), box(leg("remote leg", remote), 20))
    return [*top, f"{'│':<22}│", *(f"{one}  {two}" for one, two in legs)]


def junction():
    """The line that gathers what hangs from the remote legs of both columns and leads it to the middle."""
    middle, ends = (WIDTH - 1) // 2, (WIDTH // 4 + 11, WIDTH // 2 + WIDTH // 4 + 11)
    return f"{'':{ends[0]}}└{'─' * (middle - ends[0] - 1)}┬{'─' * (ends[1] - middle - 1)}┘"


def picture(state, space, release, backing):
    """Draw what was built, with the values that were read from it."""
    store, devices = state["stores"][0], state["devices"]
    centre(f"{OWNER}: {release[OWNER]}", "")
    side_by_side(*(device_lines(device, space) for device in devices))
    print("  " + junction())
    first, last = store["first_checkpoint"], store["last_checkpoint"]
    for line in box([f"store {store['name']}: nilfs2, {human_size(store['size'])}, {human_size(store['free'])} free, no cleaner",
                     store["mountpoint"],
                     f"{store['checkpoints']} checkpoints: {first['number']} to {last['number']}, {first['iso'][11:19]} to {last['iso'][11:19]} UTC"], 72):
        centre(line)
    centre("│", store["device"], "│",
           f"iSCSI   {store['portal']}   LUN {store['lun']}   session {store['session']}", store["target"], "│")
    centre("~ ~ ~ ~ ~ ~ ~ ~ ~ ~  network  ~ ~ ~ ~ ~ ~ ~ ~ ~ ~", "│")
    for line in box([f"{STORE}: {release[STORE]}",
                     f"LIO exports {backing['path']}, {human_size(backing['size'])}, written so far {human_size(backing['occupied'])}"], 72):
        centre(line)


def writes(rows, store):
    """A table of the writes and the checkpoints they made."""
    print(f"  {'FILE':<20} {'SIZE':>9} {'FSYNC':>10}   {'REMOTE AFTER':>12}   {'AT (UTC)':<10} CHECKPOINTS OF {store.upper()}")
    for row in rows:
        made = str(row["after"]) if row["after"] == row["before"] + 1 else f"{row['before'] + 1} to {row['after']}"
        print(f"  {row['file']:<20} {human_size(row['size']):>9} {row['ms']:>7} ms   {row['behind']:>10} s   {row['time']:<10} {style(made, 'cyan')}")


def build(play):
    """Boot the hosts, run site, write and read; what was read of it, for the drawing."""
    on_owner = open(f"{HERE}/on_owner.py", encoding="utf-8").read()

    def owner(*words):
        return json.loads(play.ssh(OWNER, f"python3 - {' '.join(words)}", on_owner))
    with play.step("Boot a storage host and an owner (the first time: build them)"):
        play.up([STORE, OWNER], [DISK])
    with play.step("Run indestructible.block.site") as notes:
        notes.append(f"{play.playbook('site')[1]} changes")
        state = play.module(OWNER, "device_info")
    seen, store = {"devices": state["devices"]}, state["stores"][0]
    with play.step("Write files on both devices, fsync each") as notes:
        seen["writes"] = [row for device in seen["devices"] for row in owner("write", device["mount"], store["mountpoint"], "3")]
        notes.append(f"{len(seen['writes'])} files")
    with play.step("Drop the page cache and read them back") as notes:
        rows = [row for device in seen["devices"] for row in owner("read", device["mount"])]
        if not all(row["same"] for row in rows):
            raise Failed(f"a file is not what was written: {rows}")
        notes.append(f"{len(rows)} files, all sums right")
    with play.step("Compare the two legs of each device, byte by byte") as notes:
        for device in seen["devices"]:
            for _attempt in range(5):  # a file system at rest may still write its log
                found = owner("compare", device["local"]["path"], device["remote"]["path"])
                if not found["differing"]:
                    break
            if found["differing"]:
                raise Failed(f"the legs of {device['name']} differ in {found['differing']} places")
            notes.append(f"{device['name']} {human_size(found['compared'])}")
        notes.append("identical")
    with play.step("Run indestructible.block.site again") as notes:
        changes = play.playbook("site")[1]
        if changes:
            raise Failed(f"the second run of site made {changes} changes; see {play.relative_log()}")
        notes.append("no change")
    with play.step("Look at it"):
        seen["state"] = play.module(OWNER, "device_info")
        legs = [device[side]["path"] for device in seen["state"]["devices"] for side in ("local", "remote")]
        seen["space"] = owner("space", *legs)
        seen["status"] = table(play.playbook("status")[0])
        seen["release"] = {host: play.ssh(host, '. /etc/os-release; echo "Debian $VERSION_ID, Linux $(uname -r)"').strip() for host in (STORE, OWNER)}
    about = os.stat(f"{play.lab.path}/{STORE}/disk0")
    seen["backing"] = {"path": "/dev/ubdb", "size": about.st_size, "occupied": about.st_blocks * 512}
    return seen


def table(text):
    """The lines of the status playbook's table, out of what Ansible printed; a last column that is too far right goes below."""
    found = re.search(r'^ok: [^\n]*=> (\{\n.*?^\})', text, re.MULTILINE | re.DOTALL)
    lines, cut = [], None
    for line in json.loads(found.group(1))["msg"] if found else []:
        if line.startswith("STORE") and "DEVICE" in line:
            cut = line.rindex("DEVICE")
        if cut and len(line) > cut:
            lines += [line[:cut].rstrip(), "         " + line[cut:]]
        else:
            lines.append(line)
    return lines


def demo():
    """The whole demonstration."""
    play = Play("demo")
    play.inventories.insert(0, INVENTORY)
    print(f"{style('indestructible.block', 'bold')}, shown on real kernels. Everything the commands say is in {play.relative_log()}.\n")
    seen = build(play)
    heading("What was built")
    picture(seen["state"], seen["space"], seen["release"], seen["backing"])
    heading("Each write runs at local speed, and a moment later it is a checkpoint on the remote side")
    writes(seen["writes"], seen["state"]["stores"][0]["name"])
    heading("ansible-playbook indestructible.block.status")
    for line in seen["status"]:
        print(f"  {line}".rstrip())
    heading("The hosts are running; they are yours")
    lab = f"LAB_NAME={play.lab.name} molecule/lab/lab"
    rows = [(f"{lab} ssh {OWNER}", "a shell on the owner; try lsblk, lscp, cat /proc/mdstat"),
            (f"{lab} ssh {STORE}", "a shell on the storage host; try targetcli ls"),
            (f"{lab} cut {OWNER}", "unplug its network cable; mend plugs it in"),
            ("make demo-down", "take everything down")]
    width = max(len(command) for command, _words in rows)
    for command, words in rows:
        print(f"  {style(command.ljust(width), 'green')}  {words}")
    print(f"\n  What it was built from, to copy: {INVENTORY}")


if __name__ == "__main__":
    main(demo)
