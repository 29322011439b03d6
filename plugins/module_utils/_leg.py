# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The remote leg of a device that runs: taken out, and brought back, by the guard or by a person. Under the lock of the host."""

from __future__ import annotations

import os

from . import _loopfile, _md, _md_act
from ._core import Problem, converge
from ._host_config import mirror_of


def take_out(device):
    """Take the remote leg of a device (a dict of the Config) out until somebody brings it back. Returns what converge() does."""
    return _converge(device, "detached")


def bring(device):
    """Add the remote leg of a device (a dict of the Config); what is copied then goes on by itself. Returns what converge() does."""
    if not os.path.exists(device["remote"]):
        raise Problem(f"the remote leg {device['remote']} does not exist; run the playbook indestructible.block.site for this host")
    files = _loopfile.normalize([{"path": device["remote"], "write_cache": "keep"}])
    converge(files, _loopfile.observe, _loopfile.plan, _loopfile.perform, _loopfile.predict)
    return _converge(device, "attached")


def _converge(device, state):
    want = mirror_of(device, state)
    found = _md.observe(want)
    if found["state"] in ("stopped", "absent"):
        raise Problem(f"device {device['name']} does not run")
    want["size"] = found["size"]  # growing is for the playbook
    return converge([want], _md.observe, _md.plan, _md_act.perform, _md.predict)
