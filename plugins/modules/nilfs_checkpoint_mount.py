#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nilfs_checkpoint_mount
short_description: Open a device as it was at any second of its past
version_added: 0.1.0
description:
  - Opens a past state of a device as a block device of its own, and mounts the file system that is on it. The device in use and its history stay as
    they are.
  - The newest recovery point that is not newer than the wanted time is taken.
  - By default a copy-on-write overlay lies over it, so that journals are replayed and it can be written to. What is written is gone when the recovery is
    released, and after a reboot of the host.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Predicts which checkpoint would be opened; what is on it is null then.
  diff_mode:
    support: full
    description: Shows the recovery before and after.
  idempotent:
    support: full
    description: A recovery that is open as asked for is left as it is. C(latest) and C(10 minutes ago) mean the moment of its opening.
  platform:
    support: full
    platforms: linux
    description: Linux with device-mapper (dmsetup).
options:
  device:
    description: Name of the device. Needed for V(present).
    type: str
  name:
    description: Name of the recovery, for several of one device at once. The name of the device, unless given.
    type: str
  as_of:
    description:
      - The moment. V(2026-11-22 10:15:30) in the host's time zone, the same with a zone (V(2026-11-22T10:15:30Z), V(2026-11-22 10:15:30+01:00)),
        V(10 minutes ago), V(latest), the name of a point, or the number of a checkpoint.
    type: str
    default: latest
  state:
    description: V(present) opens it; V(absent) closes everything that it opened, also what an interrupted run left, and lets the checkpoint go.
    type: str
    choices: [present, absent]
    default: present
  mode:
    description:
      - V(overlay) can be written to, and its journal is replayed.
      - V(direct) shows the image as it is, read-only. Without a replay of the journal the last files may be missing.
    type: str
    choices: [overlay, direct]
    default: overlay
  mount:
    description: Where its file system is mounted; empty for the block device alone. F(/mnt/indestructible/NAME) unless given.
    type: str
  cow:
    description: The file that takes what is written to it. F(/var/lib/indestructible/recoveries/NAME.cow) unless given.
    type: path
  cow_size:
    description:
      - How much can be written to it, such as V(2G). 1 GiB, or half of what is free there, unless given. When it is full the overlay is lost, and said so.
    type: str
  generation:
    description: Number of a retired generation of the store in which to look for it. Times and names are looked for in all of them unless given.
    type: int
  unsafe:
    description: Open a checkpoint that is not a recovery point, when its number is given.
    type: bool
    default: false
seealso:
  - module: indestructible.block.nilfs_checkpoint_info
  - module: indestructible.block.device_rollback
"""

EXAMPLES = r"""
- name: The database as it was
  indestructible.block.nilfs_checkpoint_mount:
    device: db
    as_of: "2026-11-22 10:15:30"
  register: recovery

- name: Two moments side by side
  indestructible.block.nilfs_checkpoint_mount:
    device: db
    name: "{{ item.name }}"
    as_of: "{{ item.as_of }}"
  loop:
    - {name: db-before, as_of: 2 hours ago}
    - {name: db-after, as_of: 1 hour ago}

- name: Close it
  indestructible.block.nilfs_checkpoint_mount:
    name: db
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
recovery:
  description:
    - The recovery. C(name), C(state) (V(open), V(half-open) or V(absent)), C(device), C(checkpoint), its C(time) in seconds since 1970 and C(iso), C(as_of) as
      it was asked for, C(safe), C(mode), C(path) of the block device, C(size) in bytes, C(content) (what is on it, in words), C(mount), C(cow), C(cow_size) and
      C(cow_used) in bytes, and C(problem), such as an overlay that is full.
  returned: success
  type: dict
  sample: {"name": "db", "state": "open", "path": "/dev/mapper/indestructible-db", "mount": "/mnt/indestructible/db"}
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, host_lock, parse_size
from ansible_collections.indestructible.block.plugins.module_utils._recovery import converge_one, normalize, public


def main():
    module = AnsibleModule(
        argument_spec=dict(
            device=dict(type="str"), name=dict(type="str"), as_of=dict(type="str", default="latest"),
            state=dict(type="str", choices=["present", "absent"], default="present"), mode=dict(type="str", choices=["overlay", "direct"], default="overlay"),
            mount=dict(type="str"), cow=dict(type="path"), cow_size=dict(type="str"), unsafe=dict(type="bool", default=False), generation=dict(type="int")),
        required_if=[("state", "present", ["device"])], required_one_of=[("device", "name")], supports_check_mode=True)
    asked = module.params
    try:
        want = normalize(dict(asked, check_mode=module.check_mode, cow_size=parse_size(asked["cow_size"], "cow_size") if asked["cow_size"] else None))
        with contextlib.nullcontext() if module.check_mode else host_lock():
            result = converge_one(want, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before, after = public(result["before"][0]), public(result["after"][0])
    module.exit_json(changed=result["changed"], actions=result["actions"], recovery=after, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
