# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the user wrote (stores, devices, exports): every mistake in it at once, and the full values behind the short ones.

All functions are pure. Mistakes are lists of sentences, so that a user corrects them all in one go. Python standard library
only; what an address is, is told by the caller (check_portal(value) -> sentence or None), because that takes netaddr.
"""

from __future__ import annotations

import difflib
import posixpath
import re

from ._core import MIB, STATE_DIR, Problem, human_size, parse_period, parse_size

STORES_DIR = f"{STATE_DIR}/stores"
BLOCK = 4096
MINIMUM_SIZE = 16 * MIB
LEG_OVERHEAD = 4 * MIB  # what md keeps at the head of each leg: superblock and bitmap
NAME_LENGTH = 31  # an md superblock has room for 32, but mdadm ends a name with a zero byte and cuts it short
LABEL_PREFIX = "indestructible-"
NEXT = ".next"  # at the end of a store's name: what it moves to (_swap)
# The file systems that can be made, and the size below which their mkfs refuses.
FILESYSTEMS = {"btrfs": 128 * MIB, "ext4": MINIMUM_SIZE, "xfs": 300 * MIB}

DEVICE_DEFAULTS = {
    "replication": "async", "filesystem": None, "mount": None, "mount_options": "defaults",
    "write_behind": 1024, "bitmap_chunk": "8M", "time_base": None,
}
REPLICATIONS = ("async", "sync")
COMMIT_INTERVAL, COMMIT_DEADLINE = 1, 5  # seconds: how often the guard commits a store, and how long a commit may take
WARN_FREE, WARN_DAYS = (20, 10), (7, 2)  # percent and days left, at which the guard warns
WATCHDOG = 10  # seconds after which systemd ends a guard that has stopped working
TIME_BASE_MARGIN = 4  # seconds that the derived time base is above the least one
DEVICE_KEYS = ("name", "size", "store", "local") + tuple(DEVICE_DEFAULTS)
STORE_KEYS = ("name", "portal", "target", "lun", "chap", "timeouts", "device", "block_size", "reserved", "commit_interval", "commit_deadline",
              "warn_free", "warn_days", "retention")
EXPORT_KEYS = ("name", "target", "lun", "backing", "size", "serial", "portals", "allow")
ALLOW_KEYS = ("initiator", "chap")
RETENTION_KEYS = ("keep",)
CHAP_KEYS = ("username", "password", "mutual_username", "mutual_password")
REPLACEMENT_TIMEOUT = 5  # seconds, unless the deadline of a store is shorter
TIMEOUT_KEYS = ("replacement_timeout", "noop_out_interval", "noop_out_timeout", "login_timeout", "login_retries")

_ISCSI_NAME = re.compile(
    r"iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[A-Za-z0-9][A-Za-z0-9.-]*(:[^\s/]+)?|eui\.[0-9A-Fa-f]{16}|naa\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})")


def name_problem(name, of_device=True):
    """Why a device (or else a store or an export) cannot be called this (a sentence's end), or None. name is any value."""
    if not isinstance(name, str) or not name:
        return "is no name; write a word such as db"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return "is no usable name; it begins with a letter or digit and holds letters, digits, '.', '_' and '-' only"
    if len(name) > NAME_LENGTH:
        return f"is {len(name)} characters long; md allows {NAME_LENGTH}"
    if of_device and re.fullmatch(r"(md_?)?d?[0-9]+", name):
        return "would be taken for the number of an md device; choose a name with a meaning"
    return None


def iscsi_name_problem(name):
    """Why this is no iSCSI name (a sentence's end), or None. name is any value."""
    if not isinstance(name, str) or not _ISCSI_NAME.fullmatch(name) or len(name) > 223:
        return "is no iSCSI name; write one such as iqn.2026-11.org.example:vault1 (iqn., eui. and naa. names are known)"
    return None


def lun_problem(lun):
    """Why this is no LUN number (a sentence's end), or None. lun is any value; digits in a string will do."""
    if isinstance(lun, bool) or not re.fullmatch(r"[0-9]{1,5}", str(lun)) or int(lun) > 16383:
        return "is no LUN number; it lies between 0 and 16383"
    return None


def store_problems(stores, check_portal):
    """Everything that is wrong in a list of stores: a list of sentences, empty when all is well."""
    problems, items = _items(stores, "indestructible_stores", "store", STORE_KEYS)
    taken, logins = {}, {}
    for store, label in items:
        if str(store.get("name")).endswith(NEXT):
            problems.append(f"{label}: a name that ends in {NEXT} is that of the LUN to which a store moves; choose another one")
        by_network = [key for key in ("portal", "target") if _given(store, key)]
        if _given(store, "device"):
            if by_network or _given(store, "lun") or _given(store, "chap"):
                problems.append(f"{label}: it has a device and also {_and(_given_of(store, ('portal', 'target', 'lun', 'chap')))}; keep one of the two")
            problems += _path_problems(store["device"], label, "device")
            place = posixpath.normpath(str(store["device"]))
        elif len(by_network) < 2:
            missing = _and([key for key in ("portal", "target") if key not in by_network])
            problems.append(f"{label}: {missing} is missing; write portal, target and lun, or the path of a block device as device")
            place = None
        else:
            problems += _sentences(label, "portal", store["portal"], check_portal)
            problems += _sentences(label, "target", store["target"], iscsi_name_problem)
            place = (str(store["target"]).lower(), str(store.get("lun") or 0))
            # one login serves all LUNs of a target
            for key in ("chap", "timeouts"):
                first, theirs = logins.setdefault((place[0], str(store["portal"]).lower(), key), (label, store.get(key) or {}))
                if theirs != (store.get(key) or {}):
                    problems.append(f"{label}: its {key} are not those of {first}, which is on the same target; one login serves both, so write the same")
        problems += _sentences(label, "lun", store.get("lun") or 0, lun_problem)
        problems += _chap_problems(store.get("chap"), label)
        if _given(store, "block_size") and str(store["block_size"]) not in ("1024", "2048", "4096"):
            problems.append(f"{label}: block_size {store['block_size']!r} is not one of 1024, 2048 and 4096")
        problems += _range_problem(store, "reserved", 1, 50, label)
        problems += _range_problem(store, "commit_interval", 1, 3600, label)
        problems += _range_problem(store, "commit_deadline", 2, 600, label)
        problems += _levels_problems(store, "warn_free", 1, 99, label)
        problems += _levels_problems(store, "warn_days", 1, 3650, label)
        wrong = _number_problems(store.get("timeouts"), f"{label}: timeouts", TIMEOUT_KEYS)
        problems += wrong if wrong else _late_problems(store, label)
        problems += _retention_problems(store.get("retention"), f"{label}: retention")
        if place and place in taken:
            where = place if isinstance(place, str) else f"LUN {place[1]} of {place[0]}"
            problems.append(f"{label}: {where} is already the place of store {taken[place]!r}; one LUN holds one store")
        taken[place] = store.get("name")
    return problems


def device_problems(devices, stores):
    """Everything that is wrong in a list of devices, given the list of stores: a list of sentences, empty when all is well."""
    problems, items = _items(devices, "indestructible_devices", "device", DEVICE_KEYS)
    known = sorted(str(store.get("name")) for store in stores or [] if isinstance(store, dict))
    for device, label in items:
        problems += _size_problems(device, label)
        if not _given(device, "store"):
            problems.append(f"{label}: store is missing; the known ones are {_and(known) or 'none'}")
        elif device["store"] not in known:
            problems.append(f"{label}: store {device['store']!r} is unknown; the known ones are {_and(known) or 'none'}")
        if _given(device, "replication") and device["replication"] not in REPLICATIONS:
            problems.append(f"{label}: replication {device['replication']!r} is not one of {_and(REPLICATIONS)}")
        filesystem = device.get("filesystem")
        if _given(device, "filesystem") and filesystem not in FILESYSTEMS:
            problems.append(f"{label}: filesystem {filesystem!r} is not one of {_and(sorted(FILESYSTEMS))}")
        if _given(device, "mount") and not _given(device, "filesystem"):
            problems.append(f"{label}: it has a mount but no filesystem; name the file system to be made, or leave the mount out")
        for key in ("local", "mount"):
            if _given(device, key):
                problems += _path_problems(device[key], label, key)
        problems += _range_problem(device, "write_behind", 1, 16383, label)
        problems += _time_base_problems(device, label, stores)
        problems += _bitmap_chunk_problems(device, label)
    return problems + _path_conflicts(items)


def export_problems(exports, check_portal, normal_portal=str):
    """Everything that is wrong in a list of exports: a list of sentences, empty when all is well. normal_portal(value) -> host:port."""
    problems, items = _items(exports, "indestructible_exports", "export", EXPORT_KEYS)
    luns, backings = {}, {}
    for export, label in items:
        for key in ("target", "backing"):
            if not _given(export, key):
                problems.append(f"{label}: {key} is missing")
        if _given(export, "target"):
            problems += _sentences(label, "target", export["target"], iscsi_name_problem)
        lun = export.get("lun") or 0
        problems += _sentences(label, "lun", lun, lun_problem) or _range_problem(export, "lun", 0, 255, label)
        if _given(export, "backing"):
            problems += _path_problems(export["backing"], label, "backing")
            backing = posixpath.normpath(str(export["backing"]))
            if not backing.startswith("/dev/") and not _given(export, "size"):
                problems.append(f"{label}: {backing} is a file, so it needs a size, such as size: 100G")
            if backing.startswith("/dev/") and _given(export, "size"):
                problems.append(f"{label}: {backing} is a block device, whose size is its own; leave size out")
            if backing in backings:
                problems.append(f"{label}: {backing} is already the backing of export {backings[backing]!r}")
            backings[backing] = export.get("name")
        if _given(export, "size"):
            try:
                parse_size(export["size"])
            except Problem as problem:
                problems.append(f"{label}: {problem}")
        place = (export.get("target"), str(lun))
        if place in luns:
            problems.append(f"{label}: LUN {lun} of {place[0]} is already export {luns[place]!r}")
        luns[place] = export.get("name")
        for portal in _as_list(export.get("portals"), f"{label}: portals", problems):
            problems += _sentences(label, "portal", portal, check_portal)
        allowed = set()
        for allow in _as_list(export.get("allow"), f"{label}: allow", problems):
            if not isinstance(allow, dict):
                problems.append(f"{label}: allow: {allow!r} is no mapping; write initiator: and, if wanted, chap:")
                continue
            problems += _unknown_keys(allow, ALLOW_KEYS, f"{label}: allow")
            problems += _sentences(label, "initiator", allow.get("initiator"), iscsi_name_problem)
            problems += _chap_problems(allow.get("chap"), f"{label}: allow {allow.get('initiator')}")
            if allow.get("initiator") in allowed:
                problems.append(f"{label}: initiator {allow.get('initiator')} is allowed twice")
            allowed.add(str(allow.get("initiator")))
    # what is no address or name yet cannot be compared
    return problems or _target_conflicts(items, normal_portal)


def _target_conflicts(items, normal_portal):
    """Where exports of one target contradict each other: portals and credentials belong to the target, so each run would undo the other's."""
    problems, portals, credentials = [], {}, {}
    for export, label in items:
        target = str(export["target"]).lower()
        mine = sorted({normal_portal(portal) for portal in export.get("portals") or ["0.0.0.0:3260"]})
        first, theirs = portals.setdefault(target, (label, mine))
        if mine != theirs:
            problems.append(f"{label}: its portals are {_and(mine)}, but those of {first} are {_and(theirs)}; exports of one target share its portals")
        for allow in export.get("allow") or []:
            chap = {key: str(value) for key, value in (allow.get("chap") or {}).items() if value is not None and value != ""}
            first, theirs = credentials.setdefault((target, str(allow["initiator"]).lower()), (label, chap))
            if chap != theirs:
                problems.append(f"{label}: the chap of {allow['initiator']} is not the one that {first} has; an initiator has the same on all exports "
                                "of a target")
    for target in portals:
        bare = sorted(initiator for (of, initiator), (_label, chap) in credentials.items() if of == target and not chap)
        if bare and any(chap for (of, _initiator), (_label, chap) in credentials.items() if of == target):
            problems.append(f"target {target}: {_and(bare)} has no chap, while others have; a target asks all of its initiators for it, or none")
    return problems


def resolve_stores(stores, normal_portal, chap=True):
    """Stores with every value filled in; they have no problems. normal_portal(value) -> host:port as a str. chap=False leaves secrets out."""
    resolved = []
    for store in stores or []:
        local = _given(store, "device")
        resolved.append({
            "name": store["name"],
            "device": store["device"] if local else None,
            "portal": None if local else normal_portal(store["portal"]),
            "target": None if local else store["target"].lower(),  # as the initiator and sysfs write it
            "lun": None if local else int(store.get("lun") or 0),
            "chap": None if local or not chap else store.get("chap") or None,
            "timeouts": {} if local else _timeouts(store, stores),
            "block_size": int(store.get("block_size") or BLOCK),
            "reserved": int(store.get("reserved") or 5),
            "commit_interval": _commit_times(store)[0],
            "commit_deadline": _commit_times(store)[1],
            "keep": (store.get("retention") or {}).get("keep"),
            "warn_free": _levels(store, "warn_free", WARN_FREE),
            "warn_days": _levels(store, "warn_days", WARN_DAYS),
            "label": LABEL_PREFIX + store["name"],
            "mount": f"{STORES_DIR}/{store['name']}",
        })
    return resolved


def resolve_devices(devices, stores):
    """Devices with every value filled in, sizes in bytes; neither they nor the stores (a list of dicts) have problems."""
    mounts = {store["name"]: store.get("mount") or f"{STORES_DIR}/{store['name']}" for store in stores or []}
    least = {store["name"]: least_time_base(store) for store in stores or []}
    resolved = []
    for device in devices or []:
        full = {key: device[key] if _given(device, key) else default for key, default in DEVICE_DEFAULTS.items()}
        local = _local(device)
        size = parse_size(device["size"])
        full.update(
            name=device["name"], path=f"/dev/md/{device['name']}", size=size, leg_size=size + LEG_OVERHEAD, store=device["store"],
            local=local, local_kind="block" if local.startswith("/dev/") else "file",
            remote=f"{mounts[device['store']]}/{device['name']}.img",
            write_behind=int(full["write_behind"]), time_base=int(full["time_base"] or least[device["store"]] + TIME_BASE_MARGIN),
            bitmap_chunk=parse_size(full["bitmap_chunk"]))
        resolved.append(full)
    return resolved


def least_time_base(store):
    """Seconds (int) that a chunk has to be listed after its last write, given the dict of its store: until a commit that covers it must be over."""
    interval, deadline = _commit_times(store)
    return interval + deadline + WATCHDOG


def _commit_times(store):
    return int(store.get("commit_interval") or COMMIT_INTERVAL), int(store.get("commit_deadline") or COMMIT_DEADLINE)


def _time_base_problems(device, label, stores):
    wrong = _range_problem(device, "time_base", 1, 3600, label)
    store = next((store for store in stores or [] if isinstance(store, dict) and store.get("name") == device.get("store")), {})
    if wrong or not _given(device, "time_base") or any(_range_problem(store, key, 1, 3600, "") for key in ("commit_interval", "commit_deadline")):
        return wrong
    least = least_time_base(store)
    if int(device["time_base"]) < least:
        interval, deadline = _commit_times(store)
        return [f"{label}: time_base {device['time_base']} is too short; it is at least {least}: commit_interval {interval} + commit_deadline {deadline} + "
                f"{WATCHDOG} until systemd ends a guard that hangs"]
    return []


def _given(item, key):
    return item.get(key) is not None and item.get(key) != ""


def _given_of(item, keys):
    return [key for key in keys if _given(item, key)]


def _and(words):
    words = [str(word) for word in words]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def _local(device):
    return posixpath.normpath(str(device["local"])) if _given(device, "local") else f"{STATE_DIR}/{device.get('name')}.img"


def _as_list(value, label, problems):
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    problems.append(f"{label} is no list")
    return []


def _items(values, variable, noun, keys):
    """The (dict, label) pairs of a list, and what is wrong with its form, its names and its keys."""
    problems, items, seen = [], [], set()
    for number, item in enumerate(_as_list(values, variable, problems), 1):
        if not isinstance(item, dict):
            problems.append(f"{variable}: item {number} is no mapping but {item!r}")
            continue
        name = item.get("name")
        label = f"{noun} {name}" if name is not None else f"{noun} number {number}"
        why = name_problem(name, noun == "device")
        if why:
            problems.append(f"{noun} number {number}: name {name!r} {why}")
        elif name in seen:
            problems.append(f"there are two {noun}s called {name!r}; each needs a name of its own")
        seen.add(str(name))
        problems += _unknown_keys(item, keys, label)
        items.append((item, label))
    return problems, items


def _unknown_keys(item, keys, label):
    problems = []
    for key in item:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.6)
            problems.append(f"{label}: {key!r} is unknown" + (f"; did you mean {near[0]!r}?" if near else f"; known are {_and(keys)}"))
    return problems


def _sentences(label, key, value, check):
    why = check(value)
    return [f"{label}: {key} {value!r} {why}"] if why else []


def _path_problems(path, label, key):
    if not isinstance(path, str) or not path.startswith("/"):
        return [f"{label}: {key} {path!r} is not an absolute path; begin it with /"]
    if posixpath.normpath(path) in ("/", "//", "/dev"):
        return [f"{label}: {key} {path!r} names nothing that can be used"]
    if re.search(r"[\x00-\x1f\x7f]", path):
        return [f"{label}: {key} {path!r} has a control character in it"]
    return []


def _size_problems(device, label):
    if not _given(device, "size"):
        return [f"{label}: size is missing; write a number and a unit, such as 100G"]
    try:
        size = parse_size(device["size"])
    except Problem as problem:
        return [f"{label}: {problem}"]
    problems = []
    if size % BLOCK:
        problems.append(f"{label}: size {device['size']!r} is {size} bytes, which is no multiple of {BLOCK}; {size - size % BLOCK + BLOCK} is")
    least = FILESYSTEMS.get(str(device.get("filesystem")), MINIMUM_SIZE)
    if size < least:
        of_what = f"an {device['filesystem']} device" if least > MINIMUM_SIZE else "a device"
        problems.append(f"{label}: size {device['size']!r} is too small; {of_what} has at least {human_size(least)}")
    return problems


def _bitmap_chunk_problems(device, label):
    if not _given(device, "bitmap_chunk"):
        return []
    try:
        chunk = parse_size(device["bitmap_chunk"], "bitmap_chunk")
    except Problem as problem:
        return [f"{label}: {problem}"]
    if chunk & (chunk - 1) or not 64 * 1024 <= chunk <= 1024 * MIB:
        return [f"{label}: bitmap_chunk {device['bitmap_chunk']!r} is no power of two between 64K and 1G"]
    return []


def _range_problem(item, key, least, most, label):
    if _given(item, key) and (isinstance(item[key], bool) or not re.fullmatch(r"[0-9]{1,9}", str(item[key])) or not least <= int(item[key]) <= most):
        return [f"{label}: {key} {item[key]!r} is no number between {least} and {most}"]
    return []


def _levels(store, key, default):
    """The levels of a store, highest first; an empty list is a wish of its own: no warning."""
    return sorted((int(level) for level in (default if store.get(key) is None else store[key])), reverse=True)


def _levels_problems(store, key, least, most, label):
    levels = store.get(key)
    if levels is None:
        return []
    if not isinstance(levels, (list, tuple)):
        return [f"{label}: {key} {levels!r} is no list of numbers, such as [20, 10]"]
    problems = []
    for level in levels:
        problems += _range_problem({key: level}, key, least, most, label)
    if not problems and len({int(level) for level in levels}) < len(levels):
        problems.append(f"{label}: {key} {levels!r} has a number twice")
    return problems


def _number_problems(numbers, label, keys):
    if numbers is None:
        return []
    if not isinstance(numbers, dict):
        return [f"{label} is no mapping"]
    problems = _unknown_keys(numbers, keys, label)
    for key in keys:
        problems += _range_problem(numbers, key, 0, 86400, label)
    return problems


def _late_problems(store, label):
    """A session that has broken has to fail what waits for it by the deadline: nothing ends that earlier."""
    given = (store.get("timeouts") or {}).get("replacement_timeout")
    if given in (None, "") or _range_problem(store, "commit_deadline", 2, 600, label) or int(given) <= _commit_times(store)[1]:
        return []
    deadline = _commit_times(store)[1]
    return [f"{label}: timeouts: replacement_timeout {given} is longer than commit_deadline {deadline}, the time for which an application may wait; write at "
            f"most {deadline}, or a longer commit_deadline"]


def _timeouts(store, stores):
    """Those that are given, in seconds, and the replacement timeout in any case: at most the deadline of every store on the same target."""
    given = {key: int(value) for key, value in (store.get("timeouts") or {}).items() if value not in (None, "")}
    same = [one for one in stores if _given(one, "target") and one["target"].lower() == store["target"].lower()]
    return dict({"replacement_timeout": min([REPLACEMENT_TIMEOUT] + [_commit_times(one)[1] for one in same])}, **given)


def _retention_problems(retention, label):
    if retention is None or retention == "":
        return []
    if not isinstance(retention, dict):
        return [f"{label} is no mapping; write keep: and a period, such as retention: {{keep: 30d}}"]
    problems = _unknown_keys(retention, RETENTION_KEYS, label)
    if not _given(retention, "keep"):
        return problems + [f"{label}: keep is missing; write a period such as 30d, or leave retention out to keep everything"]
    try:
        parse_period(retention["keep"], f"{label}: keep")
    except Problem as problem:
        problems.append(str(problem))
    return problems


def _chap_problems(chap, label):
    """What is wrong with CHAP credentials; their values are never told."""
    if not chap:
        return []
    if not isinstance(chap, dict):
        return [f"{label}: chap is no mapping; write username: and password:"]
    problems = _unknown_keys(chap, CHAP_KEYS, f"{label}: chap")
    for user, secret in (("username", "password"), ("mutual_username", "mutual_password")):
        if _given(chap, user) != _given(chap, secret):
            there, missing = (user, secret) if _given(chap, user) else (secret, user)
            problems.append(f"{label}: chap has a {there} but no {missing}")
    if _given(chap, "mutual_username") and not _given(chap, "username"):
        problems.append(f"{label}: mutual chap also needs username and password")
    if _given(chap, "password") and chap.get("password") == chap.get("mutual_password"):
        problems.append(f"{label}: the two passwords of mutual chap have to differ")
    return problems


def _path_conflicts(items):
    """Paths that two of the devices, or a device and a store, would both use."""
    problems, used = [], {}
    mounts = [(posixpath.normpath(str(device["mount"])), label) for device, label in items if _given(device, "mount")]
    for device, label in items:
        local = _local(device)
        mine = [("local", local)]
        if _given(device, "mount"):
            mine.append(("mount", posixpath.normpath(str(device["mount"]))))
        for key, path in mine:
            if path in used:
                problems.append(f"{label}: {key} {path} is already {used[path]}; one path serves one purpose")
            used.setdefault(path, f"the {key} of {label}")
            if path == STORES_DIR or path.startswith(STORES_DIR + "/"):
                problems.append(f"{label}: {key} {path} lies in {STORES_DIR}, where the stores are mounted; choose another place")
            if key == "mount" and path == STATE_DIR:
                problems.append(f"{label}: mount {path} would hide the collection's own files; choose another place")
        for mount, owner in mounts:
            if local.startswith(mount + "/"):
                problems.append(f"{label}: local {local} lies in the mount of {owner}; a local leg has to be there before any device is")
    return problems
