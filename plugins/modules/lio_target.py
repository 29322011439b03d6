#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lio_target
short_description: Export a block device or a file as an iSCSI LUN
version_added: 0.1.0
description:
  - Keeps one export of the kernel's iSCSI target (LIO) as described, live and in the configuration that the next boot restores.
  - Several exports may share a target, each with a LUN number of its own. An initiator sees the LUNs of those exports that allow it.
  - >-
    What belongs to the target as a whole is kept exactly as this export wants it: portals, authentication, and no access for anyone who is
    not allowed. So exports of one target have to name the same portals, and the same credentials for the same initiator.
  - Other targets are left alone, in the kernel and in the saved configuration.
author: The indestructible.block authors (@indestructible)
requirements:
  - python3-rtslib-fb (comes with Debian's targetcli-fb), and the system's Python (not needed for a check mode run)
attributes:
  check_mode:
    support: full
    description: Predicts on a host without rtslib too.
  diff_mode:
    support: full
    description: Shows the state before and after, without secrets.
  idempotent:
    support: full
    description: Running it twice changes nothing the second time.
  platform:
    platforms: linux
    support: full
    description: The platforms it runs on.
options:
  name:
    description: The name of the export, and of its backstore in LIO.
    type: str
    required: true
  target:
    description: The name of the target, such as V(iqn.2026-11.org.example:vault1).
    type: str
    required: true
  lun:
    description: The LUN number of this export.
    type: int
    default: 0
  backing:
    description:
      - What is exported, an absolute path of a disk, partition, logical volume or file. Required unless O(state=absent).
      - Exporting destroys nothing, so it may hold data. It is refused while it is mounted, held, opened exclusively or exported already.
      - Prefer a path below F(/dev/disk/by-id); F(/dev/sdb) may be another disk after the next boot.
      - An export that exists keeps its backing; another one is refused.
    type: path
  size:
    description:
      - The size of a backing file, such as V(100G) (powers of 1024). The file is made, sparse, when it is not there.
      - A larger size grows file and export while in use. Initiators see it when they read the capacity again. A smaller one is refused.
      - Not for a block device, which is exported as large as it is.
    type: str
  serial:
    description:
      - The unit serial number, hexadecimal digits and dashes with at least 25 digits. Initiators name the disk by it.
      - Unless it is given, it is derived from O(target) and O(name), so that an export made anew keeps its disk name.
      - An export that exists keeps its serial; another one is refused.
    type: str
  portals:
    description:
      - The addresses that the target listens on, IPv4 or C([IPv6]), with an optional port.
      - V([::]) serves IPv4 too and therefore cannot stand beside V(0.0.0.0).
    type: list
    elements: str
    default: ["0.0.0.0:3260"]
  allow:
    description: The initiators that see this LUN. An initiator that is not listed by any export of the target is locked out.
    type: list
    elements: dict
    default: []
    suboptions:
      initiator:
        description: The initiator's name.
        type: str
        required: true
      chap:
        description:
          - Its credentials. Either all initiators of a target have them or none.
          - A change takes effect at the next login; sessions that last stay.
        type: dict
        suboptions:
          username:
            description: The name the initiator proves itself with.
            type: str
          password:
            description: The secret that goes with it.
            type: str
          mutual_username:
            description: The name this target proves itself with (mutual CHAP).
            type: str
          mutual_password:
            description: The secret that goes with it. It has to differ from the other one.
            type: str
  state:
    description:
      - V(present) serves the export.
      - V(absent) takes it away and keeps the data. It is refused while an initiator that sees it is logged in.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: indestructible.block.iscsi_session
"""

EXAMPLES = r"""
- name: Export a disk to one initiator
  indestructible.block.lio_target:
    name: vault1
    target: iqn.2026-11.org.example:vault1
    lun: 0
    backing: /dev/disk/by-id/ata-EXAMPLE_123
    allow:
      - initiator: iqn.2026-11.org.example:alpha
        chap:
          username: alpha
          password: "{{ vault_chap }}"

- name: Export a sparse file, also over IPv6
  indestructible.block.lio_target:
    name: vault2
    target: iqn.2026-11.org.example:vault2
    backing: /srv/exports/vault2.img
    size: 500G
    portals: ["[::]:3260"]
    allow:
      - initiator: iqn.2026-11.org.example:alpha

- name: Take an export away, its data stays
  indestructible.block.lio_target:
    name: vault2
    target: iqn.2026-11.org.example:vault2
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, one sentence a step.
  returned: always
  type: list
  elements: str
export:
  description: The full state of the export.
  returned: success
  type: dict
  contains:
    state:
      description: V(present) when the backstore is there and is a LUN of the target, else V(absent).
      type: str
    name:
      description: The name of the export.
      type: str
    target:
      description: The name of the target.
      type: str
    lun:
      description: The LUN number; null when it is not served.
      type: int
    backing:
      description: The path of what is exported.
      type: str
    kind:
      description: V(block) or V(file).
      type: str
    size:
      description: Bytes.
      type: int
    serial:
      description: The unit serial number.
      type: str
    device:
      description: The path that the disk has, or will have, on initiators.
      type: str
    portals:
      description: The portals of the target.
      type: list
      elements: str
    allow:
      description: The initiators that see this LUN.
      type: list
      elements: dict
      contains:
        initiator:
          description: The name of the initiator.
          type: str
        chap:
          description: V(none), V(one-way) or V(mutual).
          type: str
        logged_in:
          description: Whether it has a session with the target now.
          type: bool
    enabled:
      description: Whether the target answers.
      type: bool
    saved:
      description: Whether the next boot restores just this.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils import _lio
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge
from ansible_collections.indestructible.block.plugins.module_utils._lio_act import Act


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "target": {"type": "str", "required": True},
            "lun": {"type": "int", "default": 0},
            "backing": {"type": "path"},
            "size": {"type": "str"},
            "serial": {"type": "str"},
            "portals": {"type": "list", "elements": "str", "default": ["0.0.0.0:3260"]},
            "allow": {"type": "list", "elements": "dict", "default": [], "options": {
                "initiator": {"type": "str", "required": True},
                "chap": {"type": "dict", "no_log": False, "options": {
                    "username": {"type": "str", "no_log": False},
                    "password": {"type": "str", "no_log": True},
                    "mutual_username": {"type": "str", "no_log": False},
                    "mutual_password": {"type": "str", "no_log": True},
                }},
            }},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("backing",))],
        supports_check_mode=True,
    )
    try:
        want = _lio.normalize(module.params)
        result = converge([want], _lio.observe, _lio.plan, Act(), _lio.predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before, after = _lio.public(result["before"][0]), _lio.public(result["after"][0])
    module.exit_json(changed=result["changed"], actions=result["actions"], export=after, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
