#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: md_mirror
short_description: Mirror a local and a remote leg as indestructible devices
version_added: 0.1.0
author: The indestructible.block authors (@indestructible)
description:
  - Makes, starts, heals, grows and stops md RAID1 arrays of a local and a remote leg, with metadata 1.2, an internal bitmap, the remote leg
    write-mostly with write-behind, and no bad-block log. The stable path of a device is F(/dev/md/NAME).
  - A device is created only from two legs whose every byte is zero; nothing is copied then. Legs that hold anything else are refused.
  - A device that was not stopped cleanly is started from its local leg alone. Every chunk that the bitmap of either leg lists is then
    copied from the local to the remote leg, never the other way.
  - A leg that belongs to another array, and a local leg that is older than the remote one, are refused.
  - udev is kept from assembling a device from a lone leg by a file in F(/etc/mdadm/mdadm.conf.d).
attributes:
  check_mode:
    description: Predicts without changing anything, also where legs and tools do not exist yet.
    support: full
  diff_mode:
    description: Shows the state of each device before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
  platform:
    description: Linux with md RAID1 and mdadm 4.2 or newer.
    support: full
    platforms: linux
options:
  mirrors:
    description: The devices. All are checked before the first one is changed.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the device, at most 31 letters, digits, V(.), V(_) and V(-).
        type: str
        required: true
      local:
        description: Local leg. A block device, or a file over which a loop device is attached.
        type: path
        required: true
      remote:
        description: Remote leg. A block device, or a file over which a loop device is attached.
        type: path
        required: true
      size:
        description:
          - Size of the device, such as V(100G); powers of 1024, a multiple of 4096 bytes. Each leg needs 4 MiB more.
          - Growing it grows the running device; the added parts of both legs must be zeros. It is never made smaller.
          - Required unless O(mirrors[].state) is V(stopped) or V(absent).
        type: str
      state:
        description:
          - V(attached), the device runs on both legs; a remote leg that was out is healed.
          - V(detached), the device runs on its local leg alone and its bitmap notes what changes; the guard, which brings back what it has taken out itself,
            leaves it so.
          - V(stopped), the device does not run.
          - V(absent), the device does not run and this host forgets it; its legs stay as they are.
        type: str
        choices: [attached, detached, stopped, absent]
        default: attached
      write_behind:
        description:
          - Writes that may be under way to the remote leg alone; beyond, a write waits for the remote leg.
          - It is changed while the remote leg is in, or else when it comes back.
          - While the cgroup controller C(io) is in use no write is, because a loop then does not keep the order of writes.
        type: int
        default: 1024
      bitmap_chunk:
        description: Bytes that one bit of the bitmap stands for, a power of two. Settled when the device is created.
        type: str
        default: 8M
      time_base:
        description:
          - Seconds. The kernel by itself notes a chunk as changed for two to three times as long after its last write. It must be longer than an
            acknowledged write can be on its way to the disk of the remote leg, so at least 10; the roles, which know how often and for how long
            the guard commits, ask for C(commit_interval) + C(commit_deadline) + 10.
          - With the default, twenty days, it is the guard that lets the bitmap forget, after a commit.
        type: int
        default: 1728000
      wait:
        description: Seconds to wait for the remote leg to be healed. When they are over, the copy goes on and the state is V(recovering).
        type: int
        default: 600
seealso:
  - module: indestructible.block.loopfile
  - module: indestructible.block.nilfs_volume
"""

EXAMPLES = r"""
- name: Two devices
  indestructible.block.md_mirror:
    mirrors:
      - name: db
        local: /var/lib/indestructible/db.img
        remote: /var/lib/indestructible/stores/vault1/db.img
        size: 100G
      - name: vm
        local: /dev/vg0/vm
        remote: /var/lib/indestructible/stores/vault1/vm.img
        size: 50G

- name: Take the remote leg out, for work on the store
  indestructible.block.md_mirror:
    mirrors:
      - name: db
        local: /var/lib/indestructible/db.img
        remote: /var/lib/indestructible/stores/vault1/db.img
        size: 100G
        state: detached
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
  sample: ["create /dev/md/db (100 GiB) from /var/lib/indestructible/db.img and /var/lib/indestructible/stores/vault1/db.img"]
mirrors:
  description: The state of each device, in the order of O(mirrors).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the device.
      type: str
    path:
      description: Its stable path.
      type: str
      sample: /dev/md/db
    array:
      description: Name of the running array in the kernel, or null.
      type: str
      sample: md127
    state:
      description: One of V(attached), V(recovering), V(detached), V(local failed), V(stopped) and V(absent).
      type: str
    uuid:
      description: UUID of the array as mdadm writes it.
      type: str
    size:
      description: Bytes of the device.
      type: int
    local:
      description: The local leg with C(path), C(device), C(size) in bytes, C(state), C(slot) and C(write_mostly).
      type: dict
    remote:
      description: The remote leg, likewise. Its C(state) is V(unreadable) when its LUN answers with errors; a leg that is out already may be so.
      type: dict
    bitmap_chunk:
      description: Bytes that one bit stands for.
      type: int
    time_base:
      description: Time base of the bitmap in seconds.
      type: int
    write_behind:
      description:
        - Writes that may be under way to the remote leg alone.
        - None while the cgroup controller C(io) is in use, because a loop then does not keep the order of writes.
      type: int
    max_backlog_used:
      description: The most that ever were under way since the device was started.
      type: int
    events:
      description: Event count of the superblock of the local leg.
      type: int
    events_cleared:
      description: Event count at which the bitmap last forgot a chunk; a leg that is older can only be healed in full.
      type: int
    dirty_bytes:
      description: Bytes of the chunks that the bitmap lists as changed.
      type: int
    bad_block_log:
      description: Whether a leg keeps a list of bad blocks.
      type: bool
    recovery_percent:
      description: How far a copy to the remote leg is, or null when none is under way.
      type: float
    last_heal:
      description:
        - The last time that the remote leg was added, or null. C(kind) is V(bitmap) when only what changed was copied, else V(full);
          V(compare) when the legs were compared for what differs; C(dirty_bytes) what was to be copied, C(copied_bytes) what was written to the
          remote leg meanwhile, C(seconds) how long it took.
          The last two are null while the copy is under way.
      type: dict
    last_start:
      description:
        - How the local leg was when the device was last started, or null. C(clean) whether it had been stopped, C(events) and C(events_cleared) of
          then, C(listed_bytes) of the chunks that its bitmap listed.
      type: dict
    replication:
      description: How the guard ran the device last, V(async) or V(sync), or null when none ever did.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._config import name_problem
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge_alone, parse_size
from ansible_collections.indestructible.block.plugins.module_utils._loop import loops
from ansible_collections.indestructible.block.plugins.module_utils._md import observe, plan, predict, public, thing_of
from ansible_collections.indestructible.block.plugins.module_utils._md_act import perform


def wanted(item):
    """One entry of mirrors, with bytes for sizes."""
    name = item["name"]
    problem = name_problem(name)
    if problem:
        raise Problem(f"name {name!r} {problem}")
    if item["size"] is None and item["state"] in ("attached", "detached"):
        raise Problem(f"{name}: size is missing")
    want = dict(item, size=parse_size(item["size"], f"{name}: size") if item["size"] else None,
                bitmap_chunk=parse_size(item["bitmap_chunk"], f"{name}: bitmap_chunk"))
    if want["size"] and want["size"] % 4096:
        raise Problem(f"{name}: size {item['size']!r} is not a multiple of 4096 bytes")
    if want["bitmap_chunk"] < 4096 or want["bitmap_chunk"] & (want["bitmap_chunk"] - 1):
        raise Problem(f"{name}: bitmap_chunk {item['bitmap_chunk']!r} is not a power of two of at least 4K")
    if not 1 <= want["write_behind"] <= 16383:
        raise Problem(f"{name}: write_behind {want['write_behind']} is not between 1 and 16383")
    if want["time_base"] < 10:
        raise Problem(f"{name}: time_base {want['time_base']} is too short: an acknowledged write can be on its way to the disk of the remote leg for "
                      "about 10 seconds, and the bitmap must remember it for longer; use 10 or more")
    return want


def main():
    module = AnsibleModule(
        argument_spec=dict(mirrors=dict(type="list", elements="dict", required=True, options=dict(
            name=dict(type="str", required=True), local=dict(type="path", required=True), remote=dict(type="path", required=True), size=dict(type="str"),
            state=dict(type="str", choices=["attached", "detached", "stopped", "absent"], default="attached"), write_behind=dict(type="int", default=1024),
            bitmap_chunk=dict(type="str", default="8M"), time_base=dict(type="int", default=1728000), wait=dict(type="int", default=600)))),
        supports_check_mode=True)
    try:
        wants = [wanted(item) for item in module.params["mirrors"]]
        for key in ("name", "local", "remote"):
            values = [want[key] for want in wants]
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice:
                raise Problem(f"{key} {twice!r} is given twice; every device needs its own")
        legs, known = {}, loops()
        for want in wants:
            for side in ("local", "remote"):
                path = thing_of(want[side], known)
                if path in legs:
                    raise Problem(f"{want['name']}: the {side} leg {want[side]} is also the {legs[path]}; every leg needs a place of its own")
                legs[path] = f"{side} leg of {want['name']}"
        result = converge_alone(wants, observe, lambda want, state: plan(want, state, module.check_mode), perform, predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before, after = ([public(state) for state in result[key]] for key in ("before", "after"))
    module.exit_json(changed=result["changed"], actions=result["actions"], mirrors=after, diff={"before": {"mirrors": before}, "after": {"mirrors": after}})


if __name__ == "__main__":
    main()
