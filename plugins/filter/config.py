# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters over what the user wrote; each has its documentation in a YAML file beside this one."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

from ansible_collections.indestructible.block.plugins.module_utils import _config, _table
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.plugin_utils import _portal


def _need_netaddr():
    if _portal.NETADDR_IMPORT_ERROR is not None:
        raise AnsibleFilterError(
            "The Python package netaddr is missing on the control node; install it for the Python that runs Ansible, for example with"
            " 'python3 -m pip install netaddr'.") from _portal.NETADDR_IMPORT_ERROR


def _or_filter_error(function, *args):
    try:
        return function(*args)
    except (Problem, KeyError, TypeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise AnsibleFilterError(f"{why}. The *_problems filters tell everything that is wrong.") from error


def portal(value):
    """An iSCSI portal with its port, or an error that says why it is none."""
    _need_netaddr()
    try:
        return _portal.normal_portal(value)
    except ValueError as error:
        raise AnsibleFilterError(f"{value!r} {error}") from error


def store_problems(stores):
    """Sentences about the mistakes in a list of stores."""
    _need_netaddr()
    return _config.store_problems(stores, _portal.portal_problem)


def device_problems(devices, stores):
    """Sentences about the mistakes in a list of devices."""
    return _config.device_problems(devices, stores)


def export_problems(exports):
    """Sentences about the mistakes in a list of exports."""
    _need_netaddr()
    return _config.export_problems(exports, _portal.listen_problem, _portal.normal_portal)


def resolve_stores(stores, chap=True):
    """Stores with every value filled in."""
    _need_netaddr()
    return _or_filter_error(_config.resolve_stores, stores, _portal.normal_portal, chap)


def resolve_devices(devices, stores):
    """Devices with every value filled in."""
    return _or_filter_error(_config.resolve_devices, devices, stores)


def status_table(state):
    """The state that device_info returns, as a table."""
    return _or_filter_error(_table.status_table, state["devices"], state["stores"], state.get("recoveries", ()))


class FilterModule:
    """Filters for the variables of this collection."""

    def filters(self):
        """The filters by their names."""
        return {
            "device_problems": device_problems,
            "export_problems": export_problems,
            "portal": portal,
            "resolve_devices": resolve_devices,
            "resolve_stores": resolve_stores,
            "status_table": status_table,
            "store_problems": store_problems,
        }
