# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What an iSCSI portal is: an IPv4 or IPv6 address or a host name, and a port."""

from __future__ import annotations

import re

try:
    import netaddr
except ImportError as error:
    netaddr = None
    NETADDR_IMPORT_ERROR = error
else:
    NETADDR_IMPORT_ERROR = None

DEFAULT_PORT = 3260
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


def normal_portal(value):
    """A portal as host:port or [address]:port, the port always there. Raises ValueError with a sentence's end."""
    host, port = _split(value)
    if not 1 <= port <= 65535:
        raise ValueError(f"has the port {port}; a port lies between 1 and 65535")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def portal_problem(value):
    """Why nothing can be reached at this portal (a sentence's end), or None. value is anything."""
    try:
        host = normal_portal(value).rpartition(":")[0].strip("[]")
    except ValueError as error:
        return str(error)
    address = _address(host)
    if address is not None and (address.is_multicast() or int(address) == 0 or str(address) == "255.255.255.255"):
        return "is an address that no host has"
    return None


def listen_problem(value):
    """Why a target cannot listen at this portal (a sentence's end), or None. value is anything."""
    try:
        host = normal_portal(value).rpartition(":")[0].strip("[]")
    except ValueError as error:
        return str(error)
    if _address(host) is None:
        return "is no address; a target listens at an address, such as 192.0.2.10 or [2001:db8::10]"
    return None


def _address(text):
    try:
        return netaddr.IPAddress(text, flags=netaddr.INET_PTON)
    except (netaddr.AddrFormatError, ValueError, TypeError):
        return None


def _split(value):
    wrong = ValueError("is no portal; write an address or a host name, and a port if it is not 3260: 192.0.2.10, [2001:db8::10]:3260")
    if not isinstance(value, str):
        raise wrong
    address = _address(value)
    if address is not None:
        return str(address), DEFAULT_PORT
    found = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?", value)
    if found:
        address = _address(found.group(1))
        if address is None or address.version != 6:
            raise wrong
        return str(address), int(found.group(2) or DEFAULT_PORT)
    found = re.fullmatch(r"([^:\[\]]+)(?::([0-9]{1,5}))?", value)
    if not found:
        raise wrong
    host = found.group(1)
    address = _address(host)
    if address is None:
        labels = host[:-1].split(".") if host.endswith(".") else host.split(".")
        # A last label of digits is an address with a mistake in it, never a name.
        if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
            raise wrong
        return host.lower(), int(found.group(2) or DEFAULT_PORT)
    return str(address), int(found.group(2) or DEFAULT_PORT)
