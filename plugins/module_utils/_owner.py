# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which host owns a LUN: a mark on the LUN says it, and a persistent reservation, where the target has them, enforces it.

The mark is the authority. Reservations come and go: a target may lose them with its power, or come back with an older state of
them, and a host's new iSCSI session is a stranger to what its last one reserved. So a host whose mark is on the LUN takes the
reservation back from whoever has it, and a LUN without a mark belongs to whoever holds its reservation.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import hashlib
import json
import mmap
import os
import struct
import uuid
import zlib
from collections import namedtuple

from . import _blank, _reservation
from ._core import STATE_DIR, Problem, read_text, save_file, wait_until
from ._iscsi_node import initiator_name
from ._mount import make_directories

# nilfs2 begins at byte 1024. The first sector stays empty, where text could be taken for a partition table.
MARK_AT, MARK_SIZE = 512, 512
MAGIC = b"indstrct"
_HEAD = struct.Struct("<8sII")  # magic, length of the JSON text, its CRC-32
_BLOCK = 4096
_BLKSSZGET, _BLKFLSBUF = 0x1268, 0x1261
KNOCK = 20  # seconds for which an owner that lives is waited for; it looks every 5 (renew() by its guard)

# owner as judge() has it; marked whether a mark is there; held whether this very session holds the reservation, None without any.
Look = namedtuple("Look", "owner marked held")


class Owned(Problem):
    """Another host owns it."""


class Busy(Problem):
    """The device is in use on this host."""


# who this host is


def key_of(number):
    """The reservation key (int) of a host, from its id."""
    return int.from_bytes(hashlib.sha256(f"indestructible {number}".encode()).digest()[:8], "big") or 1


def identity(make=False):
    """The id (str) of this host; None when it has none yet and make is false.

    It is tied to the machine id, so that a copy of the host's disk on another machine is another host.
    """
    path = f"{STATE_DIR}/host.json"
    machine = read_text("/etc/machine-id") or None
    text = read_text(path)
    try:
        known = json.loads(text) if text else {}
        number = known.get("id")
    except (ValueError, AttributeError):
        raise Problem(f"{path} is not readable JSON; move it away, and this host is another one for the LUNs that it owns") from None
    if number and (not machine or known.get("machine_id") in (None, machine)):
        return number
    if not make:
        return None
    number = str(uuid.uuid4())
    make_directories(STATE_DIR)
    save_file(path, json.dumps({"id": number, "machine_id": machine}, indent=2, sort_keys=True) + "\n", 0o600)
    return number


# the mark


def build_mark(number, host, initiator, since):
    """The 512 bytes of a mark."""
    given = {"id": number, "host": host, "initiator": initiator, "since": since}
    for left_out in (None, "initiator", "host"):  # names can be long; the id alone always fits
        given.pop(left_out, None)
        text = json.dumps(given, sort_keys=True).encode()
        if len(text) <= MARK_SIZE - _HEAD.size:
            break
    return (_HEAD.pack(MAGIC, len(text), zlib.crc32(text)) + text).ljust(MARK_SIZE, b"\0")


def parse_mark(sector):
    """dict(id, host, initiator, since) of the 512 bytes of a mark, None when they are none; all None when it is damaged."""
    if sector[:len(MAGIC)] != MAGIC:
        return None
    found = {}
    if len(sector) >= _HEAD.size:
        _magic, length, checksum = _HEAD.unpack_from(sector)
        text = sector[_HEAD.size:_HEAD.size + length]
        if len(text) == length and zlib.crc32(text) == checksum:
            found = json.loads(text.decode())
    return {name: found.get(name) for name in ("id", "host", "initiator", "since")}


def read_mark(device):
    """dict(id, host, initiator, since) of the mark on a device, or None; from the disk itself, because another host may have written it."""
    return parse_mark(_head(device)[MARK_AT:MARK_AT + MARK_SIZE])


def _head(device):
    """The first 4096 bytes of a device, past this host's cache."""
    try:
        number = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, _BLOCK) as buffer:
                got = os.preadv(number, [buffer], 0)
                return buffer[:got]
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot read the owner mark of {device}: {error.strerror}") from None


def _write_mark(device, sector):
    """Replace the mark of a device that nothing on this host uses; nothing else is written."""
    try:
        number = os.open(device, os.O_RDWR | os.O_DIRECT | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Busy(f"the owner mark of {device} cannot be written while the device is in use on this host") from None
        raise Problem(f"cannot open {device}: {error.strerror}") from None
    try:
        try:
            os.fsync(number)
        except OSError:
            pass  # an earlier write of this host that failed, such as one that a reservation refused, is told to the first who asks
        head = _head(device)
        if parse_mark(head[MARK_AT:]) is None and any(head[MARK_AT:MARK_AT + MARK_SIZE]):
            raise Problem(f"{device} holds something at byte {MARK_AT} that is no owner mark; it is left alone")
        unit, = struct.unpack("=i", fcntl.ioctl(number, _BLKSSZGET, bytes(4)))
        at, data = (MARK_AT, sector) if unit <= MARK_SIZE else (0, head[:MARK_AT] + sector + head[MARK_AT + MARK_SIZE:])
        with mmap.mmap(-1, _BLOCK) as buffer:
            buffer[:len(data)] = data
            with memoryview(buffer) as view, view[:len(data)] as part:
                os.pwritev(number, [part], at)
        os.fsync(number)
    except OSError as error:
        raise Problem(f"cannot write the owner mark of {device}: {error.strerror}") from None
    finally:
        os.close(number)


# who owns it


def judge(mark, key, registrants, me):
    """The owner as dict(host, id, initiator, since, how, here), or None; pure.

    mark is what read_mark() says, key the key of who holds the reservation or None, registrants a list of Registrant or empty,
    me the id of this host or None. `here` is whether it is this host.
    """
    if mark:
        held = key is not None and mark["id"] is not None and key == key_of(mark["id"])
        return dict(mark, how="mark and reservation" if held else "mark", here=mark["id"] is not None and mark["id"] == me)
    if key is None:
        return None
    if me is not None and key == key_of(me):
        return {"host": os.uname().nodename, "id": me, "initiator": initiator_name(), "since": None, "how": "reservation", "here": True}
    name = next((one.name for one in registrants if one.holder), None)
    return {"host": None, "id": None, "initiator": name, "since": None, "how": "reservation", "here": False}


def holder(device):
    """Who owns a device, as judge() has it; None when it is free. Changes nothing."""
    return look(device).owner


def look(device):
    """Look: who owns a device, and what of it is there. Changes nothing."""
    me = identity()
    mark = read_mark(device)
    if not _reservation.supported(device):
        return Look(judge(mark, None, [], me), mark is not None, None)
    held = _reservation.read_reservation(device)
    key = held.key if held else None
    mine = me is not None and key == key_of(me)
    owner = judge(mark, key, [] if mark or mine or held is None else _reservation.read_registrants(device), me)
    # When the key of the holder is ours, asking for the reservation can only confirm it.
    return Look(owner, mark is not None, mine and _reservation.holds(device, key))


def who(owner):
    """The owner in words."""
    names = [f"initiator {owner['initiator']}"] if owner["initiator"] else []
    names += [f"id {owner['id']}"] if owner["id"] else []
    told = f" ({', '.join(names)})" if names else ""
    if owner["host"]:
        return f"the host {owner['host']}{told}"
    return f"another host{told}" if told else "an unknown host (its mark is damaged)" if owner["how"] == "mark" else "another host"


def refusal(device, owner):
    """The Owned of a device that another host owns."""
    since = f" since {owner['since']}" if owner["since"] else ""
    by = {"mark": "its mark is on the LUN", "reservation": "it holds the reservation of the LUN"}.get(
        owner["how"], "its mark is on the LUN, and it holds the reservation")
    return Owned(f"{device} is owned by {who(owner)}{since}: {by}. Two hosts on one LUN destroy what is on it. Take the store out of use on that "
                 "host first; run this with adopt (indestructible_adopt) only if that host is gone for good")


def claim(device):
    """Make a device this host's own, or raise Problem naming who owns it. Nothing happens when it is.

    The reservation comes first, because only one host can get it. A device that this host uses without a mark gets its mark later.
    """
    me = identity(make=True)
    key = key_of(me)
    mark = read_mark(device)
    _refuse_other(device, mark, me)
    scsi = _reservation.supported(device)
    if scsi:
        _secure(device, key, bool(mark))
        mark = read_mark(device)
        if mark and mark["id"] != me:
            _let_go(device, key)
            _refuse_other(device, mark, me)
    if mark is None:
        try:
            _write_mark(device, _own_mark(me))
        except Busy:
            if not scsi:
                raise
        _refuse_other(device, read_mark(device), me)


def renew(device):
    """See that a device is still this host's: one command when it is. What the target forgot is registered again.

    Raises Problem when another host owns it, when nobody does, for what was given up is not taken back by this, or when it cannot be told.
    """
    me = identity()
    if me is None:
        raise Problem(f"{device} was never claimed by this host")
    try:
        if _reservation.is_scsi_disk(device) and _reservation.holds(device, key_of(me)):
            _evict(device, key_of(me))  # somebody knocks: see take_over()
            return
    except _reservation.Unsupported:
        pass
    mark = read_mark(device)
    _refuse_other(device, mark, me)
    if not _reservation.supported(device):
        return
    held = _reservation.read_reservation(device)
    if not mark and held and held.key != key_of(me):
        raise refusal(device, _winner(device))
    _refuse_free(device, mark or held)
    _secure(device, key_of(me), bool(mark))
    try:
        after = read_mark(device)
        _refuse_other(device, after, me)
        _refuse_free(device, after or not mark)  # one that was there is wiped by release() alone
    except Problem:
        _let_go(device, key_of(me))
        raise


def release(device):
    """Give a device up that this host owns, so that another may claim it. What another host owns is left alone."""
    me = identity()
    if me is None:
        return
    mark = read_mark(device)
    if mark and mark["id"] != me:
        return
    if mark:
        _write_mark(device, bytes(MARK_SIZE))
    if _reservation.supported(device):
        _let_go(device, key_of(me))


def take_over(device):
    """Make a device this host's own, when its owner is dead: from then on the target refuses the writes of that one.

    An owner that lives is found out first, and disturbed by nothing: this host registers, which its guard undoes within seconds. Where there are
    no reservations, what is written to the head of the device tells. Raises Problem when it lives.
    """
    me = identity(make=True)
    scsi = _reservation.supported(device)
    owner = holder(device)
    if owner and not owner["here"] and _lives(device, key_of(me) if scsi else None):
        raise Problem(f"{device} is not taken over from {who(owner)}: that host is alive and uses it. Shut it down, or take the store out of use there "
                      "(playbook indestructible.block.teardown); nothing was changed")
    # A living owner takes the reservation back while the mark is still its own, so this may need another try.
    for _attempt in range(5):
        try:
            if scsi:
                _secure(device, key_of(me), True)
            mark = read_mark(device)
            if mark is None or mark["id"] != me:
                _write_mark(device, _own_mark(me))
                mark = read_mark(device)
            if mark and mark["id"] == me and (not scsi or _reservation.holds(device, key_of(me))):
                return
        except Busy:
            raise
        except Problem:
            if not scsi or _reservation.holds(device, key_of(me)):
                raise
    raise Problem(f"{device} could not be taken over: its owner takes it back each time; shut that host down first")


def find_content(device):
    """What a device holds besides the mark of its owner, in words, or None when it is blank; see _blank.find_content()."""
    found = _blank.find_content(device)
    if found != f"data at byte {MARK_AT}" or read_mark(device) is None:
        return found
    size = _blank.size_of(device)
    for start, end in ((MARK_AT + MARK_SIZE, _blank.EDGE), (max(_blank.EDGE, size - _blank.EDGE), size)):
        at = _blank.find_data(device, start, end)
        if at is not None:
            return f"data at byte {at}"
    return None


def forget_cache(device):
    """Drop what this host has cached of a device: another host may have written to it while this one had it open."""
    try:
        number = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(number, _BLKFLSBUF, 0)
        finally:
            os.close(number)
    except OSError as error:
        raise Problem(f"cannot drop what is cached of {device}: {error.strerror}") from None


def _own_mark(me):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return build_mark(me, os.uname().nodename, initiator_name(), now)


def _refuse_other(device, mark, me):
    if mark and mark["id"] != me:
        raise refusal(device, judge(mark, None, [], me))


def _refuse_free(device, found):
    if not found:
        raise Problem(f"{device} has neither the mark nor the reservation of this host, so it was given up; the playbook indestructible.block.site claims it "
                      "again")


def _secure(device, key, force):
    """Get the reservation for this session, as the only one registered; force takes it from another key, else that is refused."""
    if _reservation.holds(device, key):
        return
    _reservation.register(device, key)
    if not _reservation.holds(device, key):
        held = _reservation.read_reservation(device)
        if held is None:
            raise Problem(f"the target of {device} gives the reservation to nobody")
        if held.key != key and not force:
            _let_go(device, key)
            raise refusal(device, _winner(device))
        # Its own key: that of an earlier session of this host, which is no more.
        _reservation.preempt(device, key, held.key, abort=held.key != key)
        if not _reservation.holds(device, key):
            raise Problem(f"the reservation of {device} was taken away again at once")
    _evict(device, key)


def _evict(device, key):
    """Take the registrations of everybody else away."""
    for other in sorted(set(_reservation.read_keys(device)) - {key}):
        try:
            _reservation.preempt(device, key, other)
        except _reservation.Conflict:
            pass  # it went by itself


def _lives(device, key):
    """Whether the owner of a device gives a sign of life within KNOCK seconds; key is that of this host, or None without reservations."""
    first = _head(device)
    if key is not None:
        _reservation.register(device, key)

    def sign():
        return _head(device) != first if key is None else key not in _reservation.read_keys(device)
    try:
        wait_until(sign, KNOCK, "a sign of life")
    except Problem:
        return sign()  # which raises when it was the target that did not answer
    return True


def _winner(device):
    """The owner of a device that was quicker; its mark comes a moment after its reservation."""
    try:
        mark = wait_until(lambda: read_mark(device), 3, "the mark")
    except Problem:
        mark = None
    held = _reservation.read_reservation(device)
    return judge(mark, held.key if held else 0, _reservation.read_registrants(device), None)


def _let_go(device, key):
    """Take this host's registrations away; those of its earlier sessions cannot be seen by the target as the same host's."""
    try:
        if key in _reservation.read_keys(device):
            _reservation.register(device, key)
            if _reservation.read_keys(device).count(key) > 1:
                _reservation.preempt(device, key, key)
            _reservation.unregister(device, key)
    except (_reservation.Conflict, _reservation.Failed):
        if key in _reservation.read_keys(device):
            raise
