#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_rollback
short_description: Put a device itself back to a past point
version_added: 0.1.0
description:
  - Writes to a device what was on it at a past point. Only blocks that differ are written, so that both legs and the history go on as with any write.
  - The present state is protected as a named point first; going back to that one undoes the rollback.
  - Refused while the device is mounted or otherwise in use. To look at a past state beside the device in use, see
    M(indestructible.block.nilfs_checkpoint_mount).
  - A rollback that was interrupted leaves a mixture of both states. The device is not started at boot then; asking for the same again completes it.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Says which checkpoint the device would be put back to.
  diff_mode:
    support: full
    description: Shows the last rollback before and after.
  idempotent:
    support: none
    description: A rollback is done each time that it is asked for; one without differences writes nothing but makes a point.
  platform:
    support: full
    platforms: linux
    description: Linux.
options:
  device:
    description: Name of the device.
    type: str
    required: true
  as_of:
    description: The moment, written as for M(indestructible.block.nilfs_checkpoint_mount).
    type: str
    required: true
  generation:
    description: Number of a retired generation of the store in which to look for it. Times and names are looked for in all of them unless given.
    type: int
  unsafe:
    description: Take a checkpoint that is not a recovery point, when its number is given.
    type: bool
    default: false
seealso:
  - module: indestructible.block.nilfs_checkpoint_mount
"""

EXAMPLES = r"""
- name: Back to before the upgrade
  indestructible.block.device_rollback:
    device: db
    as_of: before-upgrade
  register: back

- name: And undo it
  indestructible.block.device_rollback:
    device: db
    as_of: "{{ back.rollback.before }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
rollback:
  description:
    - The rollback. C(device), C(as_of), C(checkpoint) and its C(time) in seconds since 1970, C(before) (name of the point that undoes it), C(written) in bytes,
      C(began) and C(ended) in seconds since 1970, C(done).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge
from ansible_collections.indestructible.block.plugins.module_utils._rollback import normalize, observe, perform, plan, predict


def main():
    module = AnsibleModule(argument_spec=dict(device=dict(type="str", required=True), as_of=dict(type="str", required=True),
                                              unsafe=dict(type="bool", default=False), generation=dict(type="int")), supports_check_mode=True)
    try:
        result = converge([normalize(dict(module.params, check_mode=module.check_mode))], observe, plan, perform, predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before, after = result["before"][0], result["after"][0]
    module.exit_json(changed=result["changed"], actions=result["actions"], rollback=after["last"], diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
