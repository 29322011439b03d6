#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_info
short_description: Read the state of all indestructible devices and stores of a host
version_added: 0.1.0
author: The indestructible.block authors (@indestructible)
description:
  - Returns every device and every store that the host knows, in one call, with their legs, file systems, volumes and iSCSI sessions.
  - What cannot be read is said in C(problem) of that device or store; the module does not fail for it.
attributes:
  check_mode:
    description: Changes nothing anyway.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
  platform:
    description: Linux.
    support: full
    platforms: linux
options: {}
seealso:
  - module: indestructible.block.md_mirror
  - module: indestructible.block.nilfs_volume
"""

EXAMPLES = r"""
- name: Read everything
  indestructible.block.device_info:
  register: host

- name: Refuse to go on while a device has lost a leg
  ansible.builtin.assert:
    that: host.devices | rejectattr('state', 'equalto', 'attached') | length == 0
"""

RETURN = r"""
devices:
  description:
    - The devices, by name, as RV(indestructible.block.md_mirror#module:mirrors) has them. In addition C(filesystem), C(mount) (where it is mounted
      now), C(store) (the store of its remote leg),
      C(lag_seconds) (how far the LUN is behind, as the guard knows it), C(queue_depth) (requests that the remote leg takes at once), C(problem) and
      C(local_room).
    - C(local_room) is what the guard knows of the file system below a local leg that is a file, or null. C(free), and what all such legs there may still
      take (C(wanted)), are in bytes; C(warning) is a sentence while they can fill it and little is left.
  returned: success
  type: list
  elements: dict
stores:
  description:
    - The stores, by name, as RV(indestructible.block.nilfs_volume#module:volume) has them. In addition C(mounted), C(portal), C(target), C(lun),
      C(session) (state of the iSCSI session), C(problem), such as what keeps its legs out, and C(capacity).
    - C(capacity) is what the guard knows of the room of the volume, or null. C(free), C(size) and C(left) (until the legs are taken out) are in bytes,
      C(rate_hour), C(rate_day) and C(rate_week) in bytes a second, C(left_seconds) is the forecast. In addition C(left_percent), C(full) (whether legs are
      out for want of room) and C(warning).
  returned: success
  type: list
  elements: dict
recoveries:
  description: The recoveries that are open or half-open, by name, as RV(indestructible.block.nilfs_checkpoint_mount#module:recovery) has them.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._whole import read_whole


def main():
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **read_whole())
    except Problem as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
