#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iscsi_session
short_description: Log in to an iSCSI target and find the disk of a LUN
version_added: 0.1.0
description:
  - Keeps one node record and one session of Debian's C(open-iscsi) as described, and returns the stable path of each LUN.
  - No discovery takes place. Targets and portals are compared as a whole, so C(disk1) is never taken for C(disk10).
  - Secrets are written into the node record (mode 0600); they appear neither in arguments of commands nor in what is returned.
  - When a login or the search for the LUN fails, what this call made is taken back.
author: The indestructible.block authors (@indestructible)
requirements:
  - open-iscsi on the host (not needed for a check mode run)
attributes:
  check_mode:
    support: full
    description: Predicts on a host without open-iscsi too. The portal is not contacted, so session number and disks stay unknown.
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
  portal:
    description:
      - Where the target is served, an IPv4 address or a host name with an optional port, or C([IPv6]:port).
      - The port is 3260 unless it is given.
    type: str
    required: true
  target:
    description: The name of the target, such as V(iqn.2026-11.org.example:vault1).
    type: str
    required: true
  lun:
    description:
      - The LUN whose disk is wanted. It has to be there, or the call fails and lists those that are.
      - When the LUN has grown, its disk is given the new size.
      - Without it no particular LUN is looked for.
    type: int
  chap:
    description:
      - Credentials, when the target asks for them. Leave it out for a target that does not.
      - >-
        A change is written to the node record at once. A session that lasts keeps the credentials it was logged in with, also when it
        reconnects by itself; they are used from the next login. A session whose disks nothing uses is therefore logged out and in again,
        one that is in use gets V(chap) in RV(session.pending_relogin).
    type: dict
    suboptions:
      username:
        description: The name this host proves itself with.
        type: str
      password:
        description: The secret that goes with O(chap.username).
        type: str
      mutual_username:
        description: The name the target has to prove itself with (mutual CHAP).
        type: str
      mutual_password:
        description: The secret that goes with O(chap.mutual_username). It has to differ from O(chap.password).
        type: str
  timeouts:
    description:
      - >-
        How soon a failed link is noticed and given up. The defaults suit one side of a mirror, which has to fail quickly; they do not suit
        a disk that holds the root file system.
    type: dict
    default: {}
    suboptions:
      replacement_timeout:
        description: Seconds after which requests to a lost session fail. Applied to a live session too.
        type: int
        default: 5
      noop_out_interval:
        description:
          - Seconds between pings of the target; V(0) turns them off.
          - A live session takes it at its next login. See RV(session.pending_relogin).
        type: int
        default: 2
      noop_out_timeout:
        description: Seconds to wait for the answer to a ping. Takes effect like O(timeouts.noop_out_interval).
        type: int
        default: 2
      login_timeout:
        description: Seconds to wait for the answer to a login.
        type: int
        default: 5
      login_retries:
        description: How many times O(timeouts.login_timeout) a first login is tried, here and at boot.
        type: int
        default: 2
  startup:
    description: Whether C(open-iscsi.service) logs in at boot.
    type: str
    choices: [automatic, manual]
    default: automatic
  initiator_name:
    description:
      - The name of this host's initiator. Without it the host keeps the one it has.
      - A change is refused as long as the host has any iSCSI session, because the name takes effect when iscsid is restarted.
    type: str
  state:
    description:
      - V(present) makes the record and the session.
      - V(absent) logs out and deletes the record. It is refused when any disk of the session is mounted, held or opened exclusively.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: indestructible.block.lio_target
"""

EXAMPLES = r"""
- name: Log in to a target and find LUN 0
  indestructible.block.iscsi_session:
    portal: 192.0.2.10
    target: iqn.2026-11.org.example:vault1
    lun: 0
    chap:
      username: alpha
      password: "{{ vault_chap }}"
  register: vault

- name: Show the stable path of its disk
  ansible.builtin.debug:
    var: vault.device

- name: Log out and delete the record
  indestructible.block.iscsi_session:
    portal: "[2001:db8::10]:3260"
    target: iqn.2026-11.org.example:vault1
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, one sentence a step.
  returned: always
  type: list
  elements: str
device:
  description: Stable path of the wanted LUN's disk below F(/dev/disk/by-id); null when it is not known or not there.
  returned: success
  type: str
  sample: /dev/disk/by-id/scsi-36001405a0b1c2d3e4f5061728394a5b6
session:
  description: The full state of the record and the session.
  returned: success
  type: dict
  contains:
    state:
      description: V(present) when there is a record or a session, else V(absent).
      type: str
    portal:
      description: The portal in its canonical spelling.
      type: str
    target:
      description: The target.
      type: str
    lun:
      description: The wanted LUN.
      type: int
    record:
      description: Whether there is a node record.
      type: bool
    startup:
      description: The startup mode in the record.
      type: str
    timeouts:
      description: The timeouts in the record.
      type: dict
    chap:
      description: V(none), V(one-way) or V(mutual), as the record has it.
      type: str
    credentials_match:
      description: Whether the record holds the wanted credentials.
      type: bool
    initiator_name:
      description: The name of this host's initiator.
      type: str
    session_id:
      description: The number of the session; null when there is none.
      type: int
    session_state:
      description: V(LOGGED_IN), V(FAILED) or V(FREE); null when there is no session.
      type: str
    live_timeouts:
      description: The timeouts that the live session has.
      type: dict
    pending_relogin:
      description: What the live session will only take up at its next login.
      type: list
      elements: str
    luns:
      description: Every LUN of the session.
      type: list
      elements: dict
      contains:
        lun:
          description: Its number.
          type: int
        device:
          description: Its path below F(/dev/disk/by-id).
          type: str
        kernel_name:
          description: The kernel's name of the disk, which may differ after every login.
          type: str
        size:
          description: Bytes.
          type: int
        serial:
          description: The unit serial number.
          type: str
        wwn:
          description: The world wide name.
          type: str
        state:
          description: The state of the disk, such as V(running) or V(transport-offline).
          type: str
    device:
      description: Like the return value RV(device).
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils import _iscsi
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge


def main():
    module = AnsibleModule(
        argument_spec={
            "portal": {"type": "str", "required": True},
            "target": {"type": "str", "required": True},
            "lun": {"type": "int"},
            "chap": {"type": "dict", "no_log": False, "options": {
                "username": {"type": "str", "no_log": False},
                "password": {"type": "str", "no_log": True},
                "mutual_username": {"type": "str", "no_log": False},
                "mutual_password": {"type": "str", "no_log": True},
            }},
            "timeouts": {"type": "dict", "default": {}, "apply_defaults": True, "options": {
                name: {"type": "int", "default": value} for name, value in _iscsi.DEFAULT_TIMEOUTS.items()
            }},
            "startup": {"type": "str", "choices": ["automatic", "manual"], "default": "automatic"},
            "initiator_name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    act = _iscsi.Act()
    try:
        want = _iscsi.normalize(module.params)
        result = converge([want], _iscsi.observe, _iscsi.plan, act, _iscsi.predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=[] if act.undone else getattr(problem, "done", []))
    before, after = _iscsi.public(result["before"][0]), _iscsi.public(result["after"][0])
    module.exit_json(changed=result["changed"], actions=result["actions"], session=after, device=after["device"],
                     diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
