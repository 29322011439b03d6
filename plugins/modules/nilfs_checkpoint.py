#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nilfs_checkpoint
short_description: Named recovery points of a device
version_added: 0.1.0
description:
  - Makes a recovery point of a device now, gives a name to one that is there, releases it, or prunes them by a retention rule. A named point is protected
    from every cleaner.
  - Recovery points arise by themselves all the time; a named one holds a moment that is worth a name, such as before an upgrade.
  - The names are kept beside the image on the store, so that they travel with the LUN.
  - A point that is made now holds everything that was written before. The file systems that are mounted of the device, or of
    partitions and logical volumes on it, are frozen for that moment.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Predicts everything but the number and the time of a point that would be made.
  diff_mode:
    support: full
    description: Shows the named points before and after.
  idempotent:
    support: full
    description: A point that is there under that name is left as it is.
  platform:
    support: full
    platforms: linux
    description: Linux.
options:
  device:
    description: Name of the device.
    type: str
    required: true
  name:
    description: Name of the point. Without one, V(present) makes a new point at every run and names it after the time.
    type: str
  state:
    description: V(present) makes or names a point, V(absent) releases it, V(pruned) releases those that O(retention) does not keep.
    type: str
    choices: [present, absent, pruned]
    default: present
  note:
    description: A sentence to remember the point by.
    type: str
  as_of:
    description:
      - Name the newest recovery point that is not newer than this, instead of making one now; written as for
        M(indestructible.block.nilfs_checkpoint_mount).
    type: str
  quiesce:
    description: Whether the file systems are frozen while the point is made. Left out, those are that are mounted.
    type: bool
  before:
    description: Shell commands that hold an application still; run first, in this order. When one fails, no point is made.
    type: list
    elements: str
    default: []
  after:
    description: Shell commands that let it go again; run at the end in any case, also when this module is killed. Each is ended after O(limit).
    type: list
    elements: str
    default: []
  limit:
    description:
      - Seconds that O(before) and the freeze may take in all. Then the file systems are thawed and O(after) is run whatever happens; there is no point then.
    type: int
    default: 30
  retention:
    description:
      - How many points to keep of each period, of C(hourly), C(daily), C(weekly), C(monthly) and C(yearly). The newest one of each of the newest hours, days
        and so on is kept, as sanoid and zrepl do.
    type: dict
    default: {}
  prefix:
    description: Prune only points whose names begin so.
    type: str
    default: ''
seealso:
  - module: indestructible.block.nilfs_checkpoint_info
  - module: indestructible.block.nilfs_checkpoint_mount
"""

EXAMPLES = r"""
- name: A point before the upgrade
  indestructible.block.nilfs_checkpoint:
    device: db
    name: before-upgrade
    note: version 15 still ran

- name: A point at which the application holds still
  indestructible.block.nilfs_checkpoint:
    device: db
    name: "auto-{{ now(utc=true, fmt='%Y%m%dT%H%M') }}"
    before: [systemctl stop myapp]
    after: [systemctl start myapp]

- name: Keep some of them
  indestructible.block.nilfs_checkpoint:
    device: db
    state: pruned
    prefix: auto-
    retention: {hourly: 24, daily: 7, weekly: 4}
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
  sample: ["make the recovery point before-upgrade of db now"]
device:
  description: Name of the device.
  returned: success
  type: str
  sample: db
points:
  description:
    - The named points of the device, in the order of naming; C(checkpoint) and C(time) (seconds since 1970) are null where check mode cannot know them.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "before-upgrade", "checkpoint": 4711, "time": 1795540651, "iso": "2026-11-24 17:17:31+00:00", "note": null}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem
from ansible_collections.indestructible.block.plugins.module_utils._point import converge_point, normalize, public


def main():
    module = AnsibleModule(
        argument_spec=dict(
            device=dict(type="str", required=True), name=dict(type="str"), state=dict(type="str", choices=["present", "absent", "pruned"], default="present"),
            note=dict(type="str"), as_of=dict(type="str"), quiesce=dict(type="bool"), before=dict(type="list", elements="str", default=[]),
            after=dict(type="list", elements="str", default=[]), limit=dict(type="int", default=30), retention=dict(type="dict", default={}),
            prefix=dict(type="str", default="")),
        required_if=[("state", "absent", ["name"]), ("state", "pruned", ["retention"])], supports_check_mode=True)
    try:
        result = converge_point(normalize(module.params), module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before, after = public(result["before"][0]), public(result["after"][0])
    module.exit_json(changed=result["changed"], actions=result["actions"], diff={"before": before, "after": after}, **after)


if __name__ == "__main__":
    main()
