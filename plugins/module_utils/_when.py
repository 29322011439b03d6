# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Points in time as people write them. Pure, but for the time zone of the host."""

from __future__ import annotations

import datetime
import re
from collections import namedtuple

from ._core import Problem

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,62}")
_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400, "w": 604800, "week": 604800}
_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+?)s?\s+ago", re.IGNORECASE)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?)?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)
_WAYS = "write a time such as 2026-11-22 10:15:30, 2026-11-22T10:15:30Z or '10 minutes ago', or latest, the name of a point, or the number of a checkpoint"

# What was asked for: kind "latest", "time" (value: seconds since the epoch, int), "number" (value int) or "name" (value str).
Wish = namedtuple("Wish", "kind value")


def parse_wish(text, now, name="as_of"):
    """Wish of a text; now in seconds since the epoch. A time without a zone is one of this host. Raises Problem naming the text."""
    plain = str(text).strip()
    if plain.lower() == "latest":
        return Wish("latest", None)
    if re.fullmatch(r"[0-9]{1,18}", plain):
        return Wish("number", int(plain))
    found = _AGO.fullmatch(plain)
    if found and found.group(2).lower() in _UNITS:
        ago = float(found.group(1)) * _UNITS[found.group(2).lower()]
        if ago > now:
            raise _too_far(plain, name)
        return Wish("time", int(now - ago))
    found = _ISO.fullmatch(plain)
    if found:
        when = _time_of(plain, found, name)
        if when < 0:
            raise _too_far(plain, name)
        if when > now:
            raise Problem(f"{name}: {plain} is in the future; it is {iso(int(now))} now")
        return Wish("time", when)
    if NAME.fullmatch(plain):
        return Wish("name", plain)
    raise Problem(f"{name}: {plain!r} is not a point in time; {_WAYS}")


def parse_time(text, now, name):
    """Seconds since the epoch (int) of a text that has to be a time. Raises Problem naming the text."""
    wish = Wish("time", int(now)) if str(text).strip().lower() == "now" else parse_wish(text, now, name)
    if wish.kind != "time":
        raise Problem(f"{name}: {str(text).strip()!r} is not a time; write one such as 2026-11-22 10:15:30 or '10 minutes ago'")
    return wish.value


def _too_far(plain, name):
    return Problem(f"{name}: {plain} is further away than the clock of a host counts; write a time between 1970 and now")


def _time_of(plain, found, name):
    numbers = [int(group or 0) for group in found.groups()[:6]]
    try:
        naive = datetime.datetime(*numbers)
    except ValueError as error:
        raise Problem(f"{name}: {plain} is no date and time that exists ({error})") from None
    zone = found.group(7)
    if zone:
        offset = datetime.timedelta(0)
        if zone.upper() != "Z":
            hours, minutes = int(zone[1:3]), int(zone[-2:])
            if hours > 14 or minutes > 59:
                raise Problem(f"{name}: {plain} has a zone that does not exist ({zone}); write Z, or an offset of at most 14 hours, such as +01:00")
            offset = datetime.timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
        return int(naive.replace(tzinfo=datetime.timezone.utc).timestamp() - offset.total_seconds())
    try:
        first, second = (naive.replace(fold=fold).astimezone() for fold in (0, 1))
    except (OverflowError, ValueError, OSError):  # in another zone it would be before the first year or after the last
        raise _too_far(plain, name) from None
    if first.utcoffset() != second.utcoffset():
        if datetime.datetime.fromtimestamp(first.timestamp()) != naive:
            raise Problem(f"{name}: {plain} does not exist on this host: its clocks were put forward over it. Write the zone too, such as "
                          f"{first.isoformat(sep=' ')}")
        raise Problem(f"{name}: {plain} was there twice on this host, as its clocks were put back. Write which one: "
                      f"{first.isoformat(sep=' ')} or {second.isoformat(sep=' ')}")
    return int(first.timestamp())


def iso(seconds):
    """A time as this host's people read it, with its offset: 2026-11-22 10:15:30+01:00."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
