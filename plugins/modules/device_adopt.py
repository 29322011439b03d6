#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_adopt
short_description: Bring devices whose local leg is lost back to life from their store
version_added: 0.1.0
description:
  - For the day on which a host is gone for good, or its local disk. The store has to be mounted on this host, which has to own it.
  - A device is first started from its remote leg alone, which takes seconds. It can be used at once; what is written then goes to the store, and the history
    goes on. If the leg was being healed when its host died, it is put back to the newest safe point before.
  - Then a new local leg is built while the device is used. What is not zero is copied, and md brings what changed meanwhile.
  - A device that has its local leg is left as it is. An interrupted run is completed by the next one; until then neither boot nor guard touches the device.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Says what would be done, and refuses what it would refuse.
  diff_mode:
    support: full
    description: Shows the devices before and after.
  idempotent:
    support: full
    description: A device that is there is left alone.
  platform:
    support: full
    platforms: linux
    description: Linux.
options:
  devices:
    description: The devices. All are checked before the first one is touched.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the device.
        type: str
        required: true
      local:
        description: The local leg to be built, a file or a blank block device.
        type: path
        required: true
      remote:
        description: The leg on the store, a file.
        type: path
        required: true
      size:
        description: Size of the device as it is, such as V(100G).
        type: str
        required: true
  state:
    description:
      - V(known) starts nothing, and makes the devices known to this host, so that their past can be opened with M(indestructible.block.nilfs_checkpoint_mount).
      - V(opened) starts the devices from the store alone; V(owned) builds their local legs too, and waits for that.
    type: str
    choices: [known, opened, owned]
    default: owned
seealso:
  - module: indestructible.block.md_mirror
  - module: indestructible.block.nilfs_volume
"""

EXAMPLES = r"""
- name: Serve the data of a host that is no more
  indestructible.block.device_adopt:
    state: opened
    devices:
      - name: db
        local: /var/lib/indestructible/db.img
        remote: /var/lib/indestructible/stores/vault1/db.img
        size: 100G
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
  sample: ["start /dev/md/db from its remote leg alone"]
devices:
  description:
    - The devices with C(name), C(path), C(state) (V(absent), V(closed), V(known), V(opened), V(building) or V(owned)), C(uuid) of the array, C(size) in
      bytes, C(local) and C(remote) (paths), C(opened_as_of) (the checkpoint that it was opened as of, or null) and C(percent) (how far md is with the new
      leg, or null).
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._adopt import STATES, normalize, observe, perform, plan, predict, public
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge_alone, parse_size


def main():
    module = AnsibleModule(
        argument_spec=dict(
            devices=dict(type="list", elements="dict", required=True, options=dict(
                name=dict(type="str", required=True), local=dict(type="path", required=True), remote=dict(type="path", required=True),
                size=dict(type="str", required=True))),
            state=dict(type="str", choices=list(STATES), default="owned")),
        supports_check_mode=True)
    try:
        wants = [normalize(dict(item, size=parse_size(item["size"], f"{item['name']}: size"), state=module.params["state"],
                                check_mode=module.check_mode))
                 for item in module.params["devices"]]
        result = converge_alone(wants, observe, plan, perform, predict, module.check_mode, part="adopt")
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before, after = ([public(state) for state in result[key]] for key in ("before", "after"))
    module.exit_json(changed=result["changed"], actions=result["actions"], devices=after, diff={"before": {"devices": before}, "after": {"devices": after}})


if __name__ == "__main__":
    main()
