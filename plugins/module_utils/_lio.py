# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One export of this host: a block device or file as one LUN of an iSCSI target, served by the kernel (LIO).

Several exports may share a target. Portals belong to the target; an initiator sees the LUNs of the exports that allow it.
"""

from __future__ import annotations

import os
import re
import uuid

from . import _lio_config as config
from ._blank import find_use
from ._blockdev import is_block, size_of
from ._core import Problem, Step, human_size, parse_size
from ._iscsi import chap_kind, check_chap, check_name, format_portal, parse_portal

_NAMESPACE = uuid.UUID("6b0f6f4e-8a53-5c0e-9d3b-2f6f0c1f7b11")


def default_serial(target, name):
    """The unit serial of an export unless one is given: always the same for the same target and name."""
    return str(uuid.uuid5(_NAMESPACE, f"{target} {name}"))


def normalize(want):
    """The wanted export in canonical form; raises Problem for what can never be right."""
    name = want["name"]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name or ""):
        raise Problem(f"name: {name!r} is no name of an export; use up to 64 letters, digits, dots, dashes and underscores")
    clean = {"name": name, "target": check_name(want["target"], "target"), "lun": want.get("lun") or 0, "state": want.get("state") or "present"}
    if not 0 <= clean["lun"] <= 255:
        raise Problem(f"lun: {want['lun']} is no LUN number; write one from 0 to 255")
    portals = set()
    for text in want.get("portals") or ["0.0.0.0:3260"]:
        host, port = parse_portal(text)
        if not re.fullmatch(r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*", host):
            raise Problem(f"portals: {text!r} is a name; a target listens on addresses")
        portals.add((host, port))
    serial = want.get("serial")
    if serial and (not re.fullmatch(r"[0-9A-Fa-f-]{1,254}", serial) or len(serial.replace("-", "")) < 25):
        raise Problem(f"serial: {serial!r} must be hexadecimal digits and dashes with at least 25 digits, such as a UUID; initiators name the disk by them")
    allow = {}
    for entry in want.get("allow") or []:
        initiator = check_name(entry["initiator"], "allow")
        if initiator in allow:
            raise Problem(f"allow: {initiator} is listed twice")
        allow[initiator] = check_chap(entry.get("chap"), f"allow: {initiator}")
    backing = want.get("backing")
    if clean["state"] == "present":
        if not backing or not os.path.isabs(backing):
            raise Problem(f"backing: {backing!r} is no absolute path of a block device or file")
        if len(backing) > 255:
            raise Problem("backing: the path is longer than the 255 characters that the kernel takes")
    size = want.get("size")
    clean.update(backing=os.path.normpath(backing) if backing else None, size=parse_size(size) if size is not None else None,
                 portals=sorted(portals), serial=serial, allow=allow)
    if clean["size"] and clean["size"] % 512:
        raise Problem(f"size: {size!r} is not a multiple of 512 bytes")
    return clean


def _identity(path):
    """What tells a backing from another one, whatever path leads to it; None when it does not exist."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return ("block", about.st_rdev) if is_block(path) else ("file", about.st_dev, about.st_ino)


def observe(want):
    """The full state of an export; keys that begin with an underscore are for plan() alone and never returned."""
    stores = config.backstores()
    store = next((one for one in stores if one["name"] == want["name"]), None)
    target = config.live_target(want["target"])
    saved = config.load_saved()
    kept = {name: value for name, value in store.items() if name != "path"} if store else None
    mine = [number for number, name in (target or {"luns": {}})["luns"].items() if name == want["name"]]
    there = logged = None
    if want["backing"]:
        there = _identity(want["backing"])
    logged = config.logged_in(want["target"]) if target else set()
    lun = mine[0] if mine else None
    seen = {name: acl for name, acl in (target or {"acls": {}})["acls"].items() if lun is not None and lun in acl["luns"].values()}
    serial = (store or {}).get("serial") or want["serial"] or default_serial(want["target"], want["name"])
    return {
        "state": "present" if store and lun is not None else "absent",
        "name": want["name"],
        "target": want["target"],
        "lun": lun,
        "backing": store["backing"] if store else None,
        "kind": config.KINDS.get(store["plugin"]) if store else None,
        "size": (store["size"] or (size_of(store["backing"]) if is_block(store["backing"]) else None)) if store else None,
        "serial": store["serial"] if store else None,
        "device": config.by_id(serial),
        "portals": [format_portal(*place) for place in target["portals"]] if target else [],
        "allow": [{"initiator": name, "chap": chap_kind(acl["chap"]), "logged_in": name in logged} for name, acl in sorted(seen.items())],
        "enabled": bool(target and target["enabled"]),
        "saved": config.saved_backstore(saved, want["name"]) == kept and config.saved_target(saved, want["target"]) == target,
        "_store": kept,
        "_same_backing": bool(store and there and there == _identity(store["backing"])),
        "_backing_of": next((one["name"] for one in stores if there and one["name"] != want["name"] and _identity(one["backing"]) == there), None),
        "_serial_of": {config.by_id(one["serial"]): one["name"] for one in stores if one["name"] != want["name"]},
        "_use": find_use(want["backing"]) if there and not store and want["state"] == "present" else None,
        "_there": there[0] if there else None,
        "_there_size": size_of(want["backing"]) if there else None,
        "_target": target,
        "_logged_in": logged,
    }


def plan(want, state):
    """Steps (list) from the observed to the wanted state; raises Problem for a refusal. Pure."""
    steps = _plan_absent(want, state) if want["state"] == "absent" else [*_plan_backing(want, state), *_plan_target(want, state)]
    if steps or not state["saved"]:
        steps.append(Step("save", f"Save the configuration of {want['target']} for the next boot"))
    return steps


def _plan_absent(want, state):
    name, target = want["name"], state["_target"]
    if state["lun"] is None and not state["_store"]:
        return []
    busy = [entry["initiator"] for entry in state["allow"] if entry["logged_in"]]
    if busy:
        raise Problem(f"export {name} is in use: {', '.join(busy)} is logged in to {want['target']}; log it out there before the export is removed")
    steps = []
    left = {number: store for number, store in (target or {"luns": {}})["luns"].items() if store != name}
    if state["lun"] is not None:
        steps.append(Step("remove_lun", f"Take LUN {state['lun']} ({name}) out of {want['target']}", {"lun": state["lun"]}))
        for initiator, acl in sorted(target["acls"].items()):
            if left and set(acl["luns"].values()) <= {state["lun"]}:
                steps.append(Step("remove_acl", f"Allow {initiator} on {want['target']} no more", {"initiator": initiator}))
        if not left:
            steps.append(Step("remove_target", f"Remove the target {want['target']}, which has no LUN left"))
    if state["_store"]:
        steps.append(Step("remove_store", f"Close {state['backing']}; its data stays"))
    return steps


def _plan_backing(want, state):
    name, backing, store = want["name"], want["backing"], state["_store"]
    is_device = state["_there"] == "block"
    if is_device and want["size"]:
        raise Problem(f"size: {backing} is a block device, which has a size of its own; leave size out")
    if not state["_there"] and (backing.startswith("/dev/") or not want["size"]):
        raise Problem(f"backing: {backing} does not exist" + ("" if backing.startswith("/dev/") else "; give a size to have a file made"))
    if state["_there_size"] == 0 and not want["size"]:
        raise Problem(f"backing: {backing} is empty; give a size")
    if store:
        if not state["_same_backing"]:
            raise Problem(f"export {name} is backed by {store['backing']}, not by {backing}; remove it first (state: absent keeps the data)")
        if want["serial"] and store["serial"] and want["serial"] != store["serial"]:
            raise Problem(f"export {name} has the serial {store['serial']}, not {want['serial']}; remove it first (state: absent keeps the data)")
        if store["plugin"] not in config.KINDS or store["write_back"]:
            raise Problem(f"export {name} is served {'from a write-back cache' if store['write_back'] else 'by ' + store['plugin']}, which may lose "
                          "acknowledged writes; remove it first (state: absent keeps the data)")
    else:
        if state["_backing_of"]:
            raise Problem(f"backing: {backing} is already exported as {state['_backing_of']}")
        if state["_use"]:
            raise Problem(f"backing: {backing} is {state['_use']}; a device in use is not exported")
        if state["device"] in state["_serial_of"]:
            raise Problem(f"serial: {want['serial']} gives the same disk name as the export {state['_serial_of'][state['device']]}; choose another one")
    steps = []
    size = None if is_device else want["size"] or (store or {}).get("size") or state["_there_size"]
    there = state["_there_size"]
    if not is_device:
        for has, where in ((there, backing), ((store or {}).get("size"), f"export {name}")):
            if has and has > size:
                raise Problem(f"size: {where} has {human_size(has)}, more than {human_size(size)}; it is never made smaller")
        if there is None:
            steps.append(Step("make_file", f"Make the sparse file {backing} of {human_size(size)}", {"size": size}))
        elif there < size:
            steps.append(Step("grow_file", f"Grow {backing} from {human_size(there)} to {human_size(size)}", {"size": size}))
    serial = want["serial"] or default_serial(want["target"], name)
    if not store:
        kind = "block" if is_device else "file"
        steps.append(Step("open_store", f"Open {backing} as the backstore {name}", {"kind": kind, "size": size, "serial": serial}))
    elif not is_device and store["size"] < size:
        steps.append(Step("grow_store", f"Grow the export {name} from {human_size(store['size'])} to {human_size(size)}", {"size": size}))
    if store and not store["serial"]:
        steps.append(Step("set_serial", f"Give the export {name} the serial {serial}", {"serial": serial}))
    return steps


def _plan_target(want, state):
    name, iqn = want["name"], want["target"]
    fresh = {"enabled": False, "portals": [], "luns": {}, "acls": {}, "attributes": {}}
    target = state["_target"] or fresh
    steps = []
    taken = target["luns"].get(want["lun"])
    if taken not in (None, name):
        raise Problem(f"lun: {want['lun']} of {iqn} is the export {taken}; choose another number")
    if state["lun"] not in (None, want["lun"]):
        raise Problem(f"export {name} is LUN {state['lun']} of {iqn}, not {want['lun']}; remove it first (state: absent keeps the data)")
    others = {initiator: acl for initiator, acl in target["acls"].items() if initiator not in want["allow"] and set(acl["luns"].values()) - {want["lun"]}}
    kinds = {initiator: bool(chap["username"]) for initiator, chap in want["allow"].items()}
    kinds.update({initiator: bool(acl["chap"]["username"]) for initiator, acl in others.items()})
    if len(set(kinds.values())) > 1:
        bare = ", ".join(sorted(initiator for initiator, has in kinds.items() if not has))
        raise Problem(f"allow: {bare} has no chap on {iqn}, while others have; a target asks all of its initiators for it, or none")
    if not state["_target"]:
        steps.append(Step("make_target", f"Make the target {iqn}"))
    attributes = dict(config.ATTRIBUTES, authentication=int(any(kinds.values())))
    differing = {key: value for key, value in attributes.items() if target["attributes"].get(key) != value}
    if differing:
        steps.append(Step("set_attributes", f"Set {', '.join(f'{key} {value}' for key, value in differing.items())} on {iqn}", {"attributes": differing}))
    if taken is None:
        steps.append(Step("add_lun", f"Serve {name} as LUN {want['lun']} of {iqn}"))
    for initiator, chap in want["allow"].items():
        acl = target["acls"].get(initiator)
        if acl is None:
            steps.append(Step("add_acl", f"Allow {initiator} on {iqn}", {"initiator": initiator}))
        if (acl or {"chap": check_chap(None, "")})["chap"] != chap:
            steps.append(Step("set_chap", f"Set the credentials of {initiator} on {iqn}", {"initiator": initiator}))
        if (acl or {"luns": {}})["luns"].get(want["lun"]) != want["lun"]:
            if acl and want["lun"] in acl["luns"]:
                raise Problem(f"lun: {initiator} sees LUN {acl['luns'][want['lun']]} of {iqn} as {want['lun']}; undo that mapping first")
            steps.append(Step("map_lun", f"Show LUN {want['lun']} of {iqn} to {initiator}", {"initiator": initiator}))
    for initiator, acl in sorted(target["acls"].items()):
        if initiator in want["allow"]:
            continue
        if initiator in others:
            if want["lun"] in acl["luns"].values():
                steps.append(Step("unmap_lun", f"Show LUN {want['lun']} of {iqn} to {initiator} no more", {"initiator": initiator}))
        else:
            steps.append(Step("remove_acl", f"Allow {initiator} on {iqn} no more", {"initiator": initiator}))
    # The old portals go first: a wildcard address and one that it covers cannot both be listened on.
    for place in target["portals"]:
        if place not in want["portals"]:
            steps.append(Step("remove_portal", f"Serve {iqn} on {format_portal(*place)} no more", {"portal": place}))
    for place in want["portals"]:
        if place not in target["portals"]:
            steps.append(Step("add_portal", f"Serve {iqn} on {format_portal(*place)}", {"portal": place}))
    if not target["enabled"]:
        steps.append(Step("enable", f"Enable the target {iqn}"))
    return steps


def predict(want, state, steps):
    """The state after the steps. Only a size that a device grows to by itself cannot be known."""
    after = dict(state, saved=True)
    if want["state"] == "absent":
        left = {number for number in (state["_target"] or {"luns": {}})["luns"] if number != state["lun"]}
        after.update(state="absent", device=config.by_id(want["serial"] or default_serial(want["target"], want["name"])), lun=None,
                     backing=None, kind=None, size=None, serial=None, allow=[],
                     portals=state["portals"] if left else [], enabled=state["enabled"] if left else False)
        return after
    for step in steps:
        if step.verb == "open_store":
            is_device = step.args["kind"] == "block"
            after.update(backing=want["backing"], kind=step.args["kind"], serial=step.args["serial"],
                         size=state["_there_size"] if is_device else step.args["size"])
        if step.verb == "set_serial":
            after["serial"] = step.args["serial"]
        if step.verb == "grow_store":
            after["size"] = step.args["size"]
    live = {entry["initiator"]: entry["logged_in"] for entry in state["allow"]}
    after.update(state="present", lun=want["lun"], portals=[format_portal(*place) for place in want["portals"]], enabled=True,
                 allow=[{"initiator": name, "chap": chap_kind(chap), "logged_in": live.get(name, name in state["_logged_in"])}
                        for name, chap in sorted(want["allow"].items())])
    return after


def public(state):
    """The state without what is for plan() alone."""
    return {name: value for name, value in state.items() if not name.startswith("_")}
