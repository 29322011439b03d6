#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nilfs_checkpoint_info
short_description: Recovery points of a device in a range of time
version_added: 0.1.0
description:
  - Lists the recovery points of a device, newest first. The range is searched for, so that a long history costs no more than a short one.
author: The indestructible.block authors (@indestructible)
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
options:
  device:
    description: Name of the device.
    type: str
    required: true
  since:
    description: Only points made at or after this time, such as V(2026-11-22 10:00:00) or V(2 hours ago).
    type: str
  until:
    description: Only points made at or before this time.
    type: str
  limit:
    description: At most so many, the newest ones.
    type: int
    default: 100
  unsafe:
    description: List checkpoints that are not safe to recover from too.
    type: bool
    default: false
seealso:
  - module: indestructible.block.nilfs_checkpoint
  - module: indestructible.block.nilfs_checkpoint_mount
"""

EXAMPLES = r"""
- name: The points of the last hour
  indestructible.block.nilfs_checkpoint_info:
    device: db
    since: 1 hour ago
  register: history
"""

RETURN = r"""
device:
  description: Name of the device.
  returned: success
  type: str
  sample: db
points:
  description:
    - The points, newest first. C(checkpoint) its number, C(time) in seconds since 1970 and C(iso), C(change) how many bytes the store took for it (of all
      devices), C(safe), C(protected), C(name) and C(note) of a named one.
  returned: success
  type: list
  elements: dict
more:
  description: Whether there are more points than O(limit) in that range, older than these.
  returned: success
  type: bool
oldest:
  description: The oldest recovery point, C(checkpoint), C(time) and C(iso), or null when there is none.
  returned: success
  type: dict
newest:
  description: The newest recovery point, C(checkpoint), C(time) and C(iso), or null when there is none.
  returned: success
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._points import read_points
from ansible_collections.indestructible.block.plugins.module_utils._when import parse_time


def main():
    module = AnsibleModule(argument_spec=dict(device=dict(type="str", required=True), since=dict(type="str"), until=dict(type="str"),
                                              limit=dict(type="int", default=100), unsafe=dict(type="bool", default=False)), supports_check_mode=True)
    asked = module.params
    try:
        since, until = (parse_time(asked[key], time.time(), key) if asked[key] else None for key in ("since", "until"))
        module.exit_json(changed=False, **read_points(asked["device"], since, until, asked["limit"], asked["unsafe"]))
    except Problem as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
