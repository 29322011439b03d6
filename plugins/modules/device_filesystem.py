#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_filesystem
short_description: File systems on indestructible devices, made once and never remade
version_added: 0.1.0
description:
  - Makes a file system on a blank block device, mounts it, enters it in F(/etc/fstab), and grows it when the device has grown.
    All are planned before the first change, so that a refusal changes nothing.
  - Only a blank device is formatted - one without any signature, with zeros in its first and last 4 MiB, that nothing uses. There
    is no option to format anything else. A file system of the wanted type is taken as it is; anything else is refused.
  - mkfs is told to write little, because every byte crosses the link and stays in the history. Nothing is discarded, the log of
    XFS has 64 MiB (256 MiB from 1 TiB on), and ext4 is mounted with C(noinit_itable), which fills its inode tables as they are used.
  - The line in fstab has C(nofail) and options for systemd, by which the mount waits for the device for at most 30 seconds, and not for the network.
author: The indestructible.block authors (@indestructible)
requirements:
  - xfsprogs, e2fsprogs or btrfs-progs, for the type in use
attributes:
  check_mode:
    support: full
    description: Predicts everything but the UUID of a new file system. The device may be missing.
  diff_mode:
    support: full
    description: Shows the state of each file system before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: Linux.
options:
  filesystems:
    description: The file systems. One call for many costs hardly more than for one.
    type: list
    elements: dict
    required: true
    suboptions:
      device:
        description: Path of the block device, by a name that stays, such as V(/dev/md/db). May be missing in check mode only.
        type: path
        required: true
      type:
        description: Type of the file system.
        type: str
        choices: [xfs, ext4, btrfs]
        default: xfs
      mount:
        description: Where to mount it.
        type: path
      options:
        description: Mount options, separated by commas, besides those that this module puts in fstab.
        type: str
      label:
        description: Label of a new file system. An existing one keeps its own.
        type: str
      state:
        description:
          - V(mounted) makes it, mounts it, enters it in fstab and grows it. The default when O(filesystems[].mount) is given.
          - V(present) makes it, and grows it when it is mounted. The default otherwise.
          - V(unmounted) unmounts it and leaves fstab as it is.
          - V(absent) unmounts it and takes it out of fstab. Nothing is erased.
        type: str
        choices: [mounted, present, unmounted, absent]
"""

EXAMPLES = r"""
- name: File systems of two devices
  indestructible.block.device_filesystem:
    filesystems:
      - device: /dev/md/db
        type: xfs
        mount: /srv/db
      - device: /dev/md/mail
        type: ext4
        mount: /srv/mail
        options: noatime

- name: Take one out of use and leave everything on it
  indestructible.block.device_filesystem:
    filesystems:
      - device: /dev/md/db
        type: xfs
        mount: /srv/db
        state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  type: list
  elements: str
  returned: always
  sample: ["made an xfs file system on /dev/md/db", "mounted /dev/md/db on /srv/db"]
filesystems:
  description: The state of each file system, in the order given.
  type: list
  elements: dict
  returned: success
  contains:
    device:
      description: The device as it was given.
      type: str
      returned: always
      sample: /dev/md/db
    state:
      description: V(mounted), V(unmounted), or V(absent) when there is no file system of the wanted type.
      type: str
      returned: always
    type:
      description: Type of the file system.
      type: str
      returned: always
      sample: xfs
    uuid:
      description: UUID of the file system.
      type: str
      returned: always
    label:
      description: Label of the file system.
      type: str
      returned: always
    size:
      description: Size of the file system in bytes.
      type: int
      returned: always
    device_size:
      description: Size of the device in bytes.
      type: int
      returned: always
    free:
      description: Bytes that are free in it, when it is mounted.
      type: int
      returned: always
    mountpoint:
      description: Where it is mounted.
      type: str
      returned: always
      sample: /srv/db
    read_only:
      description: Whether it is mounted read-only.
      type: bool
      returned: always
    fstab:
      description: Whether fstab has the device, at the wanted mount point when one is given.
      type: bool
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge
from ansible_collections.indestructible.block.plugins.module_utils._filesystem import normalize, observe, perform, plan, predict, public
from ansible_collections.indestructible.block.plugins.module_utils._mount import one_reload


def main():
    module = AnsibleModule(
        argument_spec={
            "filesystems": {
                "type": "list", "elements": "dict", "required": True,
                "options": {
                    "device": {"type": "path", "required": True},
                    "type": {"type": "str", "choices": ["xfs", "ext4", "btrfs"], "default": "xfs"},
                    "mount": {"type": "path"},
                    "options": {"type": "str"},
                    "label": {"type": "str"},
                    "state": {"type": "str", "choices": ["mounted", "present", "unmounted", "absent"]},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        wanted = normalize(module.params["filesystems"], module.check_mode)
        with one_reload():
            result = converge(wanted, observe, plan, perform, predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before = [public(state) for state in result["before"]]
    after = [public(state) for state in result["after"]]
    module.exit_json(changed=result["changed"], actions=result["actions"], filesystems=after,
                     diff={"before": {state["device"]: state for state in before}, "after": {state["device"]: state for state in after}})


if __name__ == "__main__":
    main()
