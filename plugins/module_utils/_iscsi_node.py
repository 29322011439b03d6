# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a host's open-iscsi holds: node records on disk, sessions and their disks in sysfs. Nothing is run to read it.

iscsiadm takes secrets only in its arguments, which every user of the host can read in /proc; so records are made with
iscsiadm and then edited here as files of mode 0600.
"""

from __future__ import annotations

import ctypes
import fcntl
import glob
import ipaddress
import os
import re

from ._core import Problem, read_text

INITIATOR_NAME = "/etc/iscsi/initiatorname.iscsi"
_PROGRAMS = ("/usr/sbin/iscsiadm", "/sbin/iscsiadm", "/usr/bin/iscsiadm")
_SESSIONS = "/sys/class/iscsi_session"
_CONNECTIONS = "/sys/class/iscsi_connection"
_BY_ID = "/dev/disk/by-id"

# The settings of a record that this collection decides, by the option that sets them.
TIMEOUTS = {
    "replacement_timeout": "node.session.timeo.replacement_timeout",
    "noop_out_interval": "node.conn[0].timeo.noop_out_interval",
    "noop_out_timeout": "node.conn[0].timeo.noop_out_timeout",
    "login_timeout": "node.conn[0].timeo.login_timeout",
    "login_retries": "node.session.initial_login_retry_max",
}
STARTUP = "node.startup"
METHOD = "node.session.auth.authmethod"
CREDENTIALS = {
    "username": "node.session.auth.username",
    "password": "node.session.auth.password",
    "mutual_username": "node.session.auth.username_in",
    "mutual_password": "node.session.auth.password_in",
}


def program():
    """Path of iscsiadm, or None when open-iscsi is not installed."""
    for path in _PROGRAMS:
        if os.path.exists(path):
            return path
    return None


def nodes_directory():
    """Where iscsiadm keeps node records: a constant compiled into it, which no option prints (it moved in Debian 13)."""
    path = program()
    if not path:
        return None
    with open(path, "rb") as file:
        text = file.read()
    return "/var/lib/iscsi/nodes" if b"/var/lib/iscsi/nodes" in text else "/etc/iscsi/nodes"


def same_host(one, other):
    """Whether two host parts of portals name the same: addresses by value, names without regard to case."""
    try:
        return ipaddress.ip_address(one.strip("[]")) == ipaddress.ip_address(other.strip("[]"))
    except ValueError:
        return one.lower() == other.lower()


def parse_entry(name):
    """(host, port) of a file name in the record database, ADDRESS,PORT or ADDRESS,PORT,GROUP; None when it is neither."""
    parts = name.split(",")
    if len(parts) not in (2, 3) or not parts[1].isdigit():
        return None
    return parts[0], int(parts[1])


def find_record(target, host, port):
    """Path of the node record of exactly this target and portal, or None."""
    directory = nodes_directory()
    if not directory:
        return None
    try:
        names = sorted(os.listdir(f"{directory}/{target}"))
    except OSError:
        return None
    for name in names:
        place = parse_entry(name)
        if place and place[1] == port and same_host(place[0], host):
            path = f"{directory}/{target}/{name}"
            if os.path.isdir(path):
                path = f"{path}/default"
            if os.path.isfile(path):
                return path
    return None


def parse_record(text):
    """The settings (dict of str) of a node record's text."""
    settings = {}
    for line in text.splitlines():
        name, found, value = line.partition("=")
        if found and not line.lstrip().startswith("#"):
            settings[name.strip()] = value.strip()
    return settings


def edit_record(text, changes):
    """The text of a record with settings changed: a str sets one, None takes it out. All other lines stay as they are."""
    left = dict(changes)
    lines = []
    for line in text.splitlines():
        name = line.partition("=")[0].strip()
        if name in changes and not line.startswith("#"):
            value = left.pop(name, None)
            if value is not None:
                lines.append(f"{name} = {value}")
        elif line.startswith("# END RECORD"):
            lines.extend(f"{missing} = {value}" for missing, value in left.items() if value is not None)
            left = {}
            lines.append(line)
        else:
            lines.append(line)
    lines.extend(f"{missing} = {value}" for missing, value in left.items() if value is not None)
    return "\n".join(lines) + "\n"


def read_record(path):
    """Text of a record; raises Problem when it cannot be read."""
    text = read_text(path)
    if text is None:
        raise Problem(f"cannot read the node record {path}; this needs root")
    return text + "\n"


def write_record(path, text):
    """Replace a record as a whole. The new file is made outside the record's directory, where iscsiadm would take it for one."""
    temporary = f"{os.path.dirname(nodes_directory())}/.indestructible.new"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise Problem(f"cannot write the node record {path}: {error.strerror}") from None


def initiator_name():
    """The name in /etc/iscsi/initiatorname.iscsi, or None."""
    for line in (read_text(INITIATOR_NAME) or "").splitlines():
        name, found, value = line.partition("=")
        if found and name.strip() == "InitiatorName":
            return value.strip()
    return None


def _number(path):
    text = read_text(path, "")
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else None


def sessions():
    """Every iSCSI session of the host, as dicts; from sysfs, so that nothing depends on the wording of a command."""
    found = []
    for base in sorted(glob.glob(f"{_SESSIONS}/session*")):
        number = int(base.rpartition("session")[2])
        connection = f"{_CONNECTIONS}/connection{number}:0"
        secrets = {}
        for option, attribute in (("username", "username"), ("password", "password"),
                                  ("mutual_username", "username_in"), ("mutual_password", "password_in")):
            value = read_text(f"{base}/{attribute}", "")
            secrets[option] = "" if value in ("(null)", "<NULL>") else value
        found.append({
            "id": number,
            "target": read_text(f"{base}/targetname", ""),
            "host": read_text(f"{connection}/persistent_address", ""),
            "port": _number(f"{connection}/persistent_port"),
            "local_port": _number(f"{connection}/local_port"),
            "state": read_text(f"{base}/state", "FREE"),
            "initiator_name": read_text(f"{base}/initiatorname", ""),
            "live": {
                "replacement_timeout": _number(f"{base}/recovery_tmo"),
                "noop_out_interval": _number(f"{connection}/recv_tmo"),
                "noop_out_timeout": _number(f"{connection}/ping_tmo"),
            },
            "secrets": secrets,
        })
    return found


def recovery_attribute(number):
    """The sysfs file with the replacement timeout of a live session."""
    return f"{_SESSIONS}/session{number}/recovery_tmo"


def state_attribute(number):
    """The sysfs file with the state of a live session."""
    return f"{_SESSIONS}/session{number}/state"


def _by_id():
    """by-id links by the device number they lead to, best first: scsi-3..., then wwn-..., then the rest."""
    links = {}
    try:
        names = os.listdir(_BY_ID)
    except OSError:
        names = []
    for name in sorted(names, key=lambda text: (not text.startswith("scsi-3"), not text.startswith("wwn-"), text)):
        try:
            links.setdefault(os.stat(f"{_BY_ID}/{name}").st_rdev, f"{_BY_ID}/{name}")
        except OSError:
            continue
    return links


def _unit_serial(path):
    """Text of a SCSI unit serial number page (sysfs vpd_pg80), or None."""
    try:
        with open(path, "rb") as file:
            return file.read()[4:].decode("ascii", "replace").strip("\0 ") or None
    except OSError:
        return None


def luns(number):
    """The logical units of a session, by LUN: dicts with lun, kernel_name, device (by-id path), size, serial, wwn, state.

    A unit whose disk or by-id link has not appeared yet has None there.
    """
    found = []
    links = _by_id()
    for base in glob.glob(f"{_SESSIONS}/session{number}/device/target*/*:*:*:*"):
        disks = sorted(os.listdir(f"{base}/block")) if os.path.isdir(f"{base}/block") else []
        disk = disks[0] if disks else None
        major, found_number, minor = read_text(f"/sys/class/block/{disk}/dev", "").partition(":") if disk else ("", "", "")
        sectors = _number(f"/sys/class/block/{disk}/size") if disk else None
        found.append({
            "lun": int(base.rpartition(":")[2]),
            "kernel_name": disk,
            "device": links.get(os.makedev(int(major), int(minor))) if found_number else None,
            "size": sectors * 512 if sectors is not None else None,
            "serial": _unit_serial(f"{base}/vpd_pg80"),
            "wwn": read_text(f"{base}/wwid"),
            "state": read_text(f"{base}/state"),
        })
    return sorted(found, key=lambda unit: unit["lun"])


class _SgRequest(ctypes.Structure):
    """struct sg_io_hdr of <scsi/sg.h>."""

    _fields_ = [
        ("interface_id", ctypes.c_int), ("direction", ctypes.c_int), ("command_length", ctypes.c_ubyte), ("sense_size", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort), ("length", ctypes.c_uint), ("data", ctypes.c_void_p), ("command", ctypes.c_void_p),
        ("sense", ctypes.c_void_p), ("timeout", ctypes.c_uint), ("flags", ctypes.c_uint), ("pack_id", ctypes.c_int), ("user", ctypes.c_void_p),
        ("status", ctypes.c_ubyte), ("masked_status", ctypes.c_ubyte), ("message_status", ctypes.c_ubyte), ("sense_length", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort), ("driver_status", ctypes.c_ushort), ("residue", ctypes.c_int), ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    ]


def served_size(disk):
    """Bytes that the target says a disk has (READ CAPACITY), or None when it does not answer.

    The kernel asks only once: a LUN that has grown keeps its old size here until it is told to ask again.
    """
    command = ctypes.create_string_buffer(bytes([0x9E, 0x10] + [0] * 11 + [32, 0, 0]), 16)
    data, sense = ctypes.create_string_buffer(32), ctypes.create_string_buffer(32)
    request = _SgRequest(interface_id=ord("S"), direction=-3, command_length=16, sense_size=32, length=32, timeout=3000,
                         data=ctypes.addressof(data), command=ctypes.addressof(command), sense=ctypes.addressof(sense))
    try:
        number = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(number, 0x2285, request)  # SG_IO
        finally:
            os.close(number)
    except OSError:
        return None
    if request.status or request.host_status or request.driver_status or request.residue > 20:
        return None
    return (int.from_bytes(data.raw[0:8], "big") + 1) * int.from_bytes(data.raw[8:12], "big")


def rescan_attribute(disk):
    """The sysfs file that makes the kernel ask for a disk's size again."""
    return f"/sys/class/block/{disk}/device/rescan"


def scan_attributes(number):
    """The sysfs files that make the kernel look for new LUNs of a session."""
    host = os.path.realpath(f"{_SESSIONS}/session{number}/device/..")
    return glob.glob(f"{host}/scsi_host/host*/scan")
