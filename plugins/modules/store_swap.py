#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_swap
short_description: Move a store to a blank LUN
version_added: 0.1.0
description:
  - A nilfs2 volume without its cleaner fills for certain. This makes a blank LUN the next generation of a store, while its devices are in use, and keeps
    the old one as history.
  - The new remote legs are filled from the local ones while the old legs stay in; regions that were never written are not copied. Then the legs are
    exchanged, and md copies what changed meanwhile. Only for that moment, seconds, is there no remote leg that takes what is written.
  - Until then nothing has changed, and it can be given up. An interrupted run is completed by the next one. Progress shows in C(indestructible status).
  - Afterwards the variables have to name the new place of the store; a run of the role P(indestructible.block.store#role) with the old one is refused.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Says what would be done, and refuses what it would refuse.
  diff_mode:
    support: full
    description: Shows generation and place before and after.
  idempotent:
    support: full
    description: A store that is there already is left alone.
  platform:
    support: full
    platforms: linux
    description: Linux.
options:
  store:
    description: Name of the store. The role P(indestructible.block.guard#role) has described it to the host.
    type: str
    required: true
  lun:
    description: Number of the blank LUN.
    type: int
  portal:
    description: Portal of its target, unless it is today's.
    type: str
  target:
    description: Its target, unless it is today's. This host has logged in to it once, with M(indestructible.block.iscsi_session).
    type: str
  device:
    description: A blank block device, instead of O(lun), O(portal) and O(target).
    type: path
  limit:
    description: How many bytes may be copied a second, such as V(50M). Unlimited unless given.
    type: str
  state:
    description: V(swapped) moves the store; V(undone) gives up a swap that was begun and has not come to its moment.
    type: str
    choices: [swapped, undone]
    default: swapped
seealso:
  - module: indestructible.block.store_generation
"""

EXAMPLES = r"""
- name: Move vault1 to LUN 1 of the same target
  indestructible.block.store_swap:
    store: vault1
    lun: 1
    limit: 50M
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
  sample: ["filled the new leg of db"]
swap:
  description:
    - The store. C(store), C(generation) (number of the one in use), C(uuid) of its volume, C(place) (C(portal), C(target), C(lun), C(device)),
      C(generations) (the retired ones) and C(under_way) (the place of a swap that was begun, or null).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils import _host_config, _swap
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge, parse_size


def main():
    module = AnsibleModule(
        argument_spec=dict(store=dict(type="str", required=True), lun=dict(type="int"), portal=dict(type="str"), target=dict(type="str"),
                           device=dict(type="path"), limit=dict(type="str"), state=dict(type="str", choices=["swapped", "undone"], default="swapped")),
        supports_check_mode=True)
    given = module.params
    try:
        want = _swap.normalize({"store": given["store"], "place": {key: given[key] for key in ("lun", "portal", "target", "device")},
                                "limit": parse_size(given["limit"], "limit") if given["limit"] else None, "undo": given["state"] == "undone",
                                "check_mode": module.check_mode},
                               _host_config.load())
        if not want["undo"]:
            want["found"] = _swap.locate(want)
        result = converge([want], _swap.observe, _swap.plan, _swap.perform, _swap.predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before, after = (_swap.public(result[key][0]) for key in ("before", "after"))
    module.exit_json(changed=result["changed"], actions=result["actions"], swap=after, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
