# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the kernel's target (LIO) serves and what is saved for the next boot, read from configfs and saveconfig.json.

Both are turned into the same plain form, so that they can be compared. Nothing is imported or run for it.
"""

from __future__ import annotations

import glob
import json
import os
import re

from ._core import Problem, read_text, save_file
from ._iscsi import parse_portal

CONFIGFS = "/sys/kernel/config/target"
SAVED = "/etc/rtslib-fb-target/saveconfig.json"
CHAP_FILES = {"username": "userid", "password": "password", "mutual_username": "userid_mutual", "mutual_password": "password_mutual"}
CHAP_KEYS = {"username": "chap_userid", "password": "chap_password",
             "mutual_username": "chap_mutual_userid", "mutual_password": "chap_mutual_password"}
# Nobody gets in without an entry of his own; discovery shows the target to those who have one.
ATTRIBUTES = {"generate_node_acls": 0, "demo_mode_write_protect": 1, "demo_mode_discovery": 0, "cache_dynamic_acls": 0}
KINDS = {"iblock": "block", "fileio": "file"}


def by_id(serial):
    """The path an initiator's udev gives to a LUN with this unit serial: LIO makes its name of the first 25 hexadecimal digits."""
    digits = re.sub(r"[^0-9a-f]", "", serial.lower())
    return f"/dev/disk/by-id/scsi-36001405{digits[:25]:0<25}"


def _is_on(path):
    return read_text(path, "0") == "1"


def backstores():
    """Every configured backstore of the host: dicts with name, plugin, path, backing, size (None unless a file), serial."""
    found = []
    for base in sorted(glob.glob(f"{CONFIGFS}/core/*_*/*")):
        if not os.path.isdir(base) or not _is_on(f"{base}/enable"):
            continue
        info = read_text(f"{base}/info", "")
        size = re.search(r"\bSize: ([0-9]+)", info)
        plugin = os.path.basename(os.path.dirname(base)).rpartition("_")[0]
        found.append({
            "name": os.path.basename(base),
            "plugin": plugin,
            "path": base,
            "backing": read_text(f"{base}/udev_path", ""),
            "size": int(size.group(1)) if size and plugin == "fileio" else None,
            "serial": read_text(f"{base}/wwn/vpd_unit_serial", "").partition(":")[2].strip(),
            "write_back": plugin == "fileio" and _is_on(f"{base}/attrib/emulate_write_cache"),
        })
    return found


def _linked(directory):
    """Last part of what the link in a configfs directory leads to, or None."""
    try:
        for name in os.listdir(directory):
            if os.path.islink(f"{directory}/{name}"):
                return os.path.basename(os.path.realpath(f"{directory}/{name}"))
    except OSError:
        pass
    return None


def _numbers(pattern):
    """{number: path} of directories named lun_NUMBER."""
    return {int(path.rpartition("_")[2]): path for path in glob.glob(pattern)}


def live_target(target):
    """What the kernel serves as a target, in plain form, or None. Shapes: see saved_target()."""
    base = f"{CONFIGFS}/iscsi/{target}/tpgt_1"
    if not os.path.isdir(base):
        return None
    acls = {}
    for path in glob.glob(f"{glob.escape(base)}/acls/*"):
        secrets = {option: read_text(f"{path}/auth/{name}", "") for option, name in CHAP_FILES.items()}
        acls[os.path.basename(path)] = {
            "chap": {option: "" if value == "NULL" else value for option, value in secrets.items()},
            "luns": {number: int(_linked(place).rpartition("_")[2])
                     for number, place in _numbers(f"{glob.escape(path)}/lun_*").items() if _linked(place)},
        }
    return {
        "enabled": _is_on(f"{base}/enable"),
        "portals": sorted(parse_portal(os.path.basename(path)) for path in glob.glob(f"{glob.escape(base)}/np/*")),
        "luns": {number: _linked(path) for number, path in _numbers(f"{glob.escape(base)}/lun/lun_*").items() if _linked(path)},
        "acls": acls,
        "attributes": {name: int(read_text(f"{base}/attrib/{name}", "-1")) for name in [*ATTRIBUTES, "authentication"]},
    }


def logged_in(target):
    """Names (set) of the initiators that have a session with a target now."""
    found = set()
    for path in glob.glob(f"{glob.escape(f'{CONFIGFS}/iscsi/{target}/tpgt_1')}/acls/*"):
        if not read_text(f"{path}/info", "No active").startswith("No active"):
            found.add(os.path.basename(path))
    return found


def load_saved():
    """The saved configuration (dict); an empty one when nothing is saved. Raises Problem when it is not readable."""
    text = read_text(SAVED)
    try:
        saved = json.loads(text) if text else {}
    except ValueError:
        raise Problem(f"{SAVED} is not readable JSON; move it away, or restore the copy that targetcli keeps beside it") from None
    return {"fabric_modules": [], "storage_objects": [], "targets": [], **saved}


def saved_backstore(saved, name):
    """What is saved of a backstore, like an entry of backstores() without its path, or None."""
    for one in saved["storage_objects"]:
        if one.get("name") == name:
            plugin = {"block": "iblock"}.get(one.get("plugin"), one.get("plugin"))
            is_file = plugin == "fileio"
            return {"name": name, "plugin": plugin, "backing": one.get("dev", ""), "serial": one.get("wwn", ""),
                    "size": one.get("size") if is_file else None, "write_back": bool(one.get("write_back")) and is_file}
    return None


def saved_target(saved, target):
    """What is saved of a target, in plain form, or None.

    A dict: enabled bool, portals sorted list of (host, port), luns {number: backstore name}, attributes {name: int},
    acls {initiator: {"chap": dict of four str, "luns": {number as mapped: number on the target}}}.
    """
    for one in saved["targets"]:
        if one.get("wwn") == target and one.get("fabric") == "iscsi":
            groups = [group for group in one.get("tpgs", []) if group.get("tag") == 1]
            if not groups:
                return None
            group = groups[0]
            return {
                "enabled": bool(group.get("enable")),
                "portals": sorted(parse_portal(f"[{place['ip_address'].strip('[]')}]:{place['port']}" if ":" in place["ip_address"]
                                               else f"{place['ip_address']}:{place['port']}") for place in group.get("portals", [])),
                "luns": {unit["index"]: unit["storage_object"].rpartition("/")[2] for unit in group.get("luns", [])},
                "acls": {acl["node_wwn"]: {
                    "chap": {option: acl.get(key) or "" for option, key in CHAP_KEYS.items()},
                    "luns": {unit["index"]: unit["tpg_lun"] for unit in acl.get("mapped_luns", [])},
                } for acl in group.get("node_acls", [])},
                "attributes": {name: int(group.get("attributes", {}).get(name, -1)) for name in [*ATTRIBUTES, "authentication"]},
            }
    return None


def merge_saved(saved, name, backstore, target, dumped):
    """The saved configuration with one backstore and one target replaced; None takes it out. Pure.

    All the rest stays as it was saved: what another target has live, or what a boot failed to restore, is not this call's to save.
    """
    merged = dict(saved)
    merged["storage_objects"] = [one for one in saved["storage_objects"] if one.get("name") != name] + ([backstore] if backstore else [])
    merged["targets"] = ([one for one in saved["targets"] if (one.get("wwn"), one.get("fabric")) != (target, "iscsi")]
                         + ([dumped] if dumped else []))
    return merged


def save(saved):
    """Replace the saved configuration as a whole, readable by root only."""
    try:
        save_file(SAVED, json.dumps(saved, indent=2, sort_keys=True) + "\n", 0o600)
    except OSError as error:
        raise Problem(f"cannot save the target's configuration to {SAVED}: {error.strerror}") from None
