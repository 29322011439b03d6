# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""SCSI-3 persistent reservations of a disk, as SPC-4 has them, through the kernel's SG_IO; nothing is run.

One type only: Write Exclusive - Registrants Only. Who is not registered may read and is refused every write, by the target itself.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from collections import namedtuple

from ._core import Problem
from ._blockdev import is_block, sysfs_of

TYPE = 5  # Write Exclusive - Registrants Only
SG_IO = 0x2285
SECONDS = 10

_IN, _OUT = 0x5E, 0x5F
_READ_KEYS, _READ_RESERVATION, _REPORT_CAPABILITIES, _READ_FULL_STATUS = 0, 1, 2, 3
_REGISTER, _RESERVE, _RELEASE, _CLEAR, _PREEMPT, _PREEMPT_AND_ABORT, _REGISTER_AND_IGNORE = range(7)
_ANSWER = 8192

# struct sg_io_hdr of the kernel's scsi/sg.h
_HEADER = struct.Struct("@2i2BHI3P2IiP4B2HiII0P")
_TO_DEVICE, _FROM_DEVICE = -2, -3
_GOOD, _CHECK_CONDITION, _BUSY, _CONFLICT, _TASK_SET_FULL = 0x00, 0x02, 0x08, 0x18, 0x28
_ILLEGAL_REQUEST, _UNIT_ATTENTION = 5, 6

Reservation = namedtuple("Reservation", "key type")  # both int
Capabilities = namedtuple("Capabilities", "persist types")  # bool: survives a power loss of the target; the types (set of int) or None
# One registration: key int, holder bool, name str of the initiator or None, port str (the session of an iSCSI initiator) or None.
Registrant = namedtuple("Registrant", "key holder name port")


class Conflict(Problem):
    """The target refused a command because of a registration or reservation."""


class Unsupported(Problem):
    """The target does not know a command, or not in this form."""


class Failed(Problem):
    """The target answered that a command failed; it was not the way there."""


# what travels


def in_command(action):
    """The bytes of a PERSISTENT RESERVE IN that asks for an answer of up to 8 KiB."""
    return struct.pack(">BB5xHx", _IN, action, _ANSWER)


def out_command(action):
    """The bytes of a PERSISTENT RESERVE OUT for the whole logical unit, with the one type that is used here."""
    return struct.pack(">BBB2xIx", _OUT, action, TYPE, 24)


def out_parameters(key, action_key=0, persist=False):
    """The 24 bytes that follow a PERSISTENT RESERVE OUT; persist asks the target to keep it over a power loss (APTPL)."""
    return struct.pack(">QQ4xB3x", key, action_key, 1 if persist else 0)


def parse_keys(answer):
    """List of the registered keys (int), one a registration, of the answer to READ KEYS."""
    length = _length(answer)
    return [struct.unpack_from(">Q", answer, at)[0] for at in range(8, 8 + length - 7, 8)]


def parse_reservation(answer):
    """Reservation of the answer to READ RESERVATION, or None when nobody holds one."""
    if _length(answer) < 16:
        return None
    return Reservation(struct.unpack_from(">Q", answer, 8)[0], answer[21] & 15)


def parse_capabilities(answer):
    """Capabilities of the answer to REPORT CAPABILITIES."""
    if len(answer) < 8:
        raise Problem("the answer about persistent reservations is too short")
    bits = {15: 7, 14: 6, 13: 5, 11: 3, 9: 1, 0: 8}
    mask, = struct.unpack_from(">H", answer, 4)
    return Capabilities(bool(answer[2] & 1), {kind for bit, kind in bits.items() if mask >> bit & 1} if answer[3] & 0x80 else None)


def parse_full_status(answer):
    """List of Registrant of the answer to READ FULL STATUS."""
    found, at, end = [], 8, 8 + _length(answer)
    while at + 24 <= end:
        key, = struct.unpack_from(">Q", answer, at)
        length, = struct.unpack_from(">I", answer, at + 20)
        found.append(Registrant(key, bool(answer[at + 12] & 1), *_initiator(answer[at + 24:at + 24 + length])))
        at += 24 + length
    return found


def _length(answer):
    """How many bytes of an answer follow its head of 8, as it says and as there are."""
    if len(answer) < 8:
        raise Problem("the answer about persistent reservations is too short")
    return min(struct.unpack_from(">I", answer, 4)[0], len(answer) - 8)


def _initiator(transport):
    """(name, port) of a TransportID: of an iSCSI initiator its name and session; of another a number in hexadecimal, and None."""
    if len(transport) < 4:
        return None, None
    protocol = transport[0] & 15
    if protocol == 5:
        text = transport[4:4 + struct.unpack_from(">H", transport, 2)[0]].split(b"\0")[0].decode("utf-8", "replace")
        name, found, port = text.partition(",i,0x")
        return name, port.lower() if found else None
    number = {0: transport[8:16], 6: transport[4:12]}.get(protocol, transport[4:])  # Fibre Channel and SAS have 8 bytes
    return number.hex(), None


def parse_sense(sense):
    """(key, code, qualifier), all int, of sense data in either format; zeros when there is none."""
    if len(sense) >= 14 and sense[0] & 0x7E == 0x70:
        return sense[2] & 15, sense[12], sense[13]
    if len(sense) >= 4 and sense[0] & 0x7E == 0x72:
        return sense[1] & 15, sense[2], sense[3]
    return 0, 0, 0


# how it travels


def _send(device, command, data=b"", receive=0):
    """One SCSI command; returns the bytes received. Unit attentions and a busy target are asked again."""
    try:
        # Read-only, because closing a disk that was open for writing makes udev look at all of it again.
        number = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Problem(f"cannot open {device}: {error.strerror}") from None
    try:
        for _attempt in range(8):
            status, sense, answer = _ask(number, device, command, data, receive)
            key, code, qualifier = parse_sense(sense)
            if status == _GOOD:
                return answer
            if status == _CONFLICT:
                raise Conflict(f"{device} answers with a reservation conflict")
            if status == _CHECK_CONDITION and key == _ILLEGAL_REQUEST:
                raise Unsupported(f"the target of {device} refuses a command for persistent reservations ({code:02x}/{qualifier:02x})")
            if status in (_BUSY, _TASK_SET_FULL):
                time.sleep(0.2)
            elif status != _CHECK_CONDITION or key != _UNIT_ATTENTION:
                break
        raise Failed(f"the target of {device} failed a command for persistent reservations (status {status:#x}, sense {key:x}/{code:02x}/{qualifier:02x})")
    finally:
        os.close(number)


def _ask(number, device, command, data, receive):
    """(status, sense bytes, bytes received) of one SCSI command, sent once."""
    buffer = ctypes.create_string_buffer(data, len(data)) if data else ctypes.create_string_buffer(receive)
    order = ctypes.create_string_buffer(command, len(command))
    sense = ctypes.create_string_buffer(64)
    header = bytearray(_HEADER.pack(
        ord("S"), _TO_DEVICE if data else _FROM_DEVICE, len(command), len(sense), 0, len(buffer),
        ctypes.addressof(buffer), ctypes.addressof(order), ctypes.addressof(sense), SECONDS * 1000, 0, 0, 0, *[0] * 9))
    try:
        fcntl.ioctl(number, SG_IO, header)
    except OSError as error:
        kind = Unsupported if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EPERM) else Problem
        raise kind(f"{device} takes no SCSI commands: {error.strerror}") from None
    result = _HEADER.unpack(header)
    status, sensed, host, left = result[13], result[16], result[17], result[19]
    if host:
        raise Problem(f"{device} does not answer (SCSI host status {host:#x}); check the link and the target")
    return status, sense.raw[:sensed], buffer.raw[:max(0, len(buffer) - left)]


def is_scsi_disk(device):
    """Whether a path is a whole SCSI disk of this host. A partition is none: a reservation is always for all of the disk."""
    if not is_block(device):
        return False
    base = sysfs_of(device)
    return os.path.isdir(f"{base}/device/scsi_disk") and not os.path.exists(f"{base}/partition")


# what can be asked


def supported(device):
    """Whether a device is a SCSI disk whose target has persistent reservations; raises Problem when the target does not answer."""
    try:
        return is_scsi_disk(device) and read_keys(device) is not None
    except Unsupported:
        return False


def read_keys(device):
    """List of the registered keys (int); a key that several registered is there several times."""
    return parse_keys(_send(device, in_command(_READ_KEYS), receive=_ANSWER))


def read_reservation(device):
    """The Reservation that somebody holds, or None."""
    return parse_reservation(_send(device, in_command(_READ_RESERVATION), receive=_ANSWER))


def read_capabilities(device):
    """Capabilities of the target; those of the plainest one when it does not tell."""
    try:
        return parse_capabilities(_send(device, in_command(_REPORT_CAPABILITIES), receive=_ANSWER))
    except Unsupported:
        return Capabilities(False, None)


def read_registrants(device):
    """List of Registrant; empty when the target does not tell."""
    try:
        return parse_full_status(_send(device, in_command(_READ_FULL_STATUS), receive=_ANSWER))
    except Unsupported:
        return []


# what can be done; Conflict when a registration or reservation of another stands against it


def register(device, key):
    """Register this host's key whatever it had registered before, to be kept over a power loss of the target where that is possible.

    Returns whether the target keeps it.
    """
    if read_capabilities(device).persist:
        try:
            _out(device, _REGISTER_AND_IGNORE, 0, key, True)
            return True
        except Failed:
            pass  # a target can know how and have no place to write it
    try:
        _out(device, _REGISTER_AND_IGNORE, 0, key)
    except Failed:
        # Where LIO's folder for it is missing each registration is reported as failed (2/08/00) and is made all the same.
        if key not in read_keys(device):
            raise
    return False


def unregister(device, key):
    """Take this host's key away, and with it a reservation that it holds."""
    try:
        _out(device, _REGISTER, key, 0)
    except Failed:
        if key in read_keys(device):  # see register()
            raise


def reserve(device, key):
    """Take the reservation as a registrant; nothing happens when it is this very session's already."""
    _out(device, _RESERVE, key)


def holds(device, key):
    """Whether this very session holds the reservation with the key; one that is registered takes it when nobody has it.

    Reading the reservation would not tell: the key may have been registered by a session that is no more.
    """
    try:
        reserve(device, key)
        return True
    except (Conflict, Failed):  # LIO reports a failure (2/08/00) to a session that is not registered
        return False


def release(device, key):
    """Give the reservation back and stay registered."""
    _out(device, _RELEASE, key)


def preempt(device, key, other, abort=False):
    """Throw out every other registration with the key other, and take the reservation if it was that one's."""
    _out(device, _PREEMPT_AND_ABORT if abort else _PREEMPT, key, other)


def clear(device, key):
    """Remove the reservation and all registrations, those of others too."""
    _out(device, _CLEAR, key)


def _out(device, action, key, action_key=0, persist=False):
    _send(device, out_command(action), out_parameters(key, action_key, persist))
