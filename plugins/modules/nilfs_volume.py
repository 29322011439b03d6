#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nilfs_volume
short_description: A nilfs2 volume that keeps its history
version_added: 0.1.0
description:
  - Makes a nilfs2 volume on a blank block device, mounts it without its cleaner (which would delete history, unless O(keep) asks for it), enters it in
    F(/etc/fstab), and grows it when the device has grown.
  - Only a blank device is formatted - one without any signature, with zeros in its first and last 4 MiB, that nothing uses. There
    is no option to format anything else. A volume with the wanted label is taken as it is; one with another label is refused.
  - A formatting that was interrupted is completed by the next run, on the very same device only.
  - What it returns is read from the volume itself (super block, ioctl).
  - One device has one owner. Before it is formatted or mounted it is claimed - by a mark in its first 1024 bytes, which nilfs2 leaves alone,
    and by a SCSI-3 persistent reservation (Write Exclusive - Registrants Only) where it is a SCSI disk whose target has them. A device that
    another host owns is refused with a message that names that host.
author: The indestructible.block authors (@indestructible)
requirements:
  - nilfs-tools, and a kernel with nilfs2 (Debian's cloud kernels have none)
attributes:
  check_mode:
    support: full
    description: Predicts everything but what chance decides, such as the UUID of a new volume. The device may be missing.
  diff_mode:
    support: full
    description: Shows the state of the volume before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: Linux with nilfs2.
options:
  device:
    description:
      - Path of the block device, best a name from F(/dev/disk/by-id).
      - May be null or missing in check mode only, and when the volume is to be unmounted. For V(absent) the device that was claimed under the
        same name is found by itself.
    type: path
  name:
    description: Name of the store. Gives the label and the mount point when they are not given.
    type: str
  label:
    description: Label of the volume, by which it is known. V(indestructible-NAME) when not given.
    type: str
  mount:
    description: Where to mount it. V(/var/lib/indestructible/stores/NAME) when not given and O(name) is.
    type: path
  state:
    description:
      - V(mounted) makes it, mounts it without a cleaner, enters it in fstab (with C(noauto), because nothing may mount it that does not look who
        owns it) and grows it.
      - V(present) makes it only.
      - V(unmounted) unmounts it and leaves fstab as it is. This host keeps owning it, and its guard leaves it so
        until the next run that mounts it.
      - V(absent) unmounts it, takes it out of fstab, and gives it up, so that another host may claim it. Nothing but the owner mark is erased.
    type: str
    choices: [mounted, present, unmounted, absent]
    default: mounted
  adopt:
    description:
      - Takes the device over from another host that owns it. From then on the target refuses that host's writes, if it has reservations.
      - Only for a host that is gone for good. Where the target has no reservations nothing stops that host if it is not gone, and the two
        destroy the volume.
      - Changes nothing about what may be formatted, and nothing when this host owns the device.
    type: bool
    default: false
  block_size:
    description: Block size in bytes of a new volume. An existing one keeps its own.
    type: int
    choices: [1024, 2048, 4096]
    default: 4096
  reserved:
    description: Share of the segments, in percent, that a new volume keeps back. An existing one keeps its own.
    type: int
    default: 5
  keep:
    description:
      - How long history is kept, as a number and V(m), V(h), V(d) or V(w), such as V(30d). Without it all history is kept for good.
      - With it a cleaner (C(nilfs_cleanerd), as a unit of systemd) begins when less than 30 % of the segments are free, deletes checkpoints that are
        older, and goes on until 40 % are free. What is protected (snapshots) is never deleted, nor what is younger, even if the volume fills.
      - Given, changed or left out at any time, while the volume is in use. Counts with O(state=mounted) only.
    type: str
    version_added: 0.1.0
"""

EXAMPLES = r"""
- name: The volume of a store
  indestructible.block.nilfs_volume:
    name: vault1
    device: /dev/disk/by-id/wwn-0x60014050a1b2c3d4e5f60718293a4b5c

- name: A volume under a label and at a place of one's own
  indestructible.block.nilfs_volume:
    device: /dev/vg0/history
    label: history
    mount: /srv/history

- name: The volume of a store that keeps 30 days
  indestructible.block.nilfs_volume:
    name: vault1
    device: /dev/disk/by-id/wwn-0x60014050a1b2c3d4e5f60718293a4b5c
    keep: 30d

- name: Take the volume of a host over that burnt down
  indestructible.block.nilfs_volume:
    name: vault1
    device: /dev/disk/by-id/wwn-0x60014050a1b2c3d4e5f60718293a4b5c
    adopt: true

- name: Take it out of use and leave everything on it
  indestructible.block.nilfs_volume:
    name: vault1
    device: /dev/disk/by-id/wwn-0x60014050a1b2c3d4e5f60718293a4b5c
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  type: list
  elements: str
  returned: always
  sample: ["made the nilfs2 volume 'indestructible-vault1' on /dev/sdb"]
volume:
  description: The state of the volume. What can be known only of a mounted one is null for one that is not.
  type: dict
  returned: success
  contains:
    name:
      description: Name of the store.
      type: str
      returned: always
    device:
      description: The device as it was given.
      type: str
      returned: always
    state:
      description: V(mounted), V(unmounted), or V(absent) when there is no such volume.
      type: str
      returned: always
    label:
      description: Label of the volume.
      type: str
      returned: always
    uuid:
      description: UUID of the volume.
      type: str
      returned: always
    mountpoint:
      description: Where it is mounted.
      type: str
      returned: always
    fstab:
      description: Whether it is in fstab as it should be.
      type: bool
      returned: always
    block_size:
      description: Block size in bytes.
      type: int
      returned: always
    device_size:
      description: Size of the device in bytes.
      type: int
      returned: always
    size:
      description: Size of the volume in bytes.
      type: int
      returned: always
    segments:
      description: Number of segments.
      type: int
      returned: always
    segment_size:
      description: Size of a segment in bytes.
      type: int
      returned: always
    clean_segments:
      description: Number of free segments.
      type: int
      returned: always
    reserved:
      description: Reserved share in percent.
      type: int
      returned: always
    reserved_segments:
      description: Number of segments that are kept back.
      type: int
      returned: always
    free:
      description: Bytes in free segments.
      type: int
      returned: always
    available:
      description: Bytes in free segments without the reserved ones.
      type: int
      returned: always
    checkpoints:
      description: Number of checkpoints.
      type: int
      returned: always
    snapshots:
      description: Number of checkpoints that are protected.
      type: int
      returned: always
    first_checkpoint:
      description: The oldest checkpoint, with its number, its time in seconds since 1970 and the same in ISO 8601 (UTC).
      type: dict
      returned: always
      sample: {number: 1, time: 1795342530, iso: "2026-11-22T10:15:30Z"}
    last_checkpoint:
      description: The newest checkpoint, likewise; of a volume that is not mounted only the number is known.
      type: dict
      returned: always
    read_only:
      description: Whether it is mounted read-only, which nilfs2 does by itself after an error.
      type: bool
      returned: always
    error:
      description: Whether the super block has the error flag set.
      type: bool
      returned: always
    cleaner:
      description: Whether a cleaner is at work on it.
      type: bool
      returned: always
    keep:
      description: Seconds of history that its cleaner is told to keep; null when it has none and everything is kept.
      type: int
      returned: always
    owner:
      description:
        - The host that owns the device, null when none does. C(host) (its name when it claimed the device), C(id) (its lasting id),
          C(initiator) (its iSCSI name), C(since), C(how) (C(mark), C(reservation), or C(mark and reservation)), and C(here), whether it is this host.
        - What is not known is null, such as the name of a host that is known by its reservation only.
      type: dict
      returned: always
      sample: {host: alpha, id: 23fcda71-ea34-46cb-a71b-419779fa01e1, initiator: "iqn.2026-11.org.example:alpha",
               since: "2026-11-22T10:15:30Z", how: mark and reservation, here: true}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge_alone
from ansible_collections.indestructible.block.plugins.module_utils._nilfs_volume import (
    normalize, observe, perform, plan, predict, public, warnings,
)


def main():
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "path"},
            "name": {"type": "str"},
            "label": {"type": "str"},
            "mount": {"type": "path"},
            "state": {"type": "str", "choices": ["mounted", "present", "unmounted", "absent"], "default": "mounted"},
            "block_size": {"type": "int", "choices": [1024, 2048, 4096], "default": 4096},
            "reserved": {"type": "int", "default": 5},
            "keep": {"type": "str"},
            "adopt": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        want = normalize(module.params, module.check_mode)
        result = converge_alone([want], observe, plan, perform, predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    for sentence in warnings(want, result["after"][0]):
        module.warn(sentence)
    module.exit_json(changed=result["changed"], actions=result["actions"], volume=public(result["after"][0]),
                     diff={"before": public(result["before"][0]), "after": public(result["after"][0])})


if __name__ == "__main__":
    main()
