#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: loopfile
short_description: Sparse files of an exact size, and the loop devices over them
version_added: 0.1.0
description:
  - Makes sparse files of an exact size and attaches them to loop devices. All files are planned before the first change, so
    that a refusal changes nothing.
  - A loop is found by the device and inode of its file, never by its number or by a name.
  - A file is never shrunk and never deleted unless that is asked for in so many words; a file that exists is attached as it is.
  - A file below F(/var/lib/indestructible/stores) is not attached unless a store is mounted there, so that a remote leg is never made on the
    host's own disk by mistake.
  - Needs no program on the host; everything goes through the kernel's own interface.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Predicts everything but the number of a new loop device, which is null then.
  diff_mode:
    support: full
    description: Shows the state of each file before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: Linux 5.8 or newer.
options:
  files:
    description: The files. One call for many files costs hardly more than for one.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path of the file. Missing directories are made.
        type: path
        required: true
      size:
        description:
          - Exact size, such as V(100G) or V(512M) (powers of 1024), a multiple of 512 bytes.
          - May be left out for a file that exists. A smaller file grows to it, and so does the loop.
        type: str
      state:
        description:
          - V(attached) makes the file and the loop over it.
          - V(detached) makes and keeps the file, with no loop over this part of it.
          - V(absent) detaches the loop and deletes the file, and is refused unless O(files[].delete) names it.
        type: str
        choices: [attached, detached, absent]
        default: attached
      read_only:
        description: Whether the loop is read-only.
        type: bool
        default: false
      offset:
        description: Where in the file the loop begins, a multiple of 512 bytes.
        type: str
        default: '0'
      size_limit:
        description: How many bytes of the file the loop covers, a multiple of 512; V(0) is all of it.
        type: str
        default: '0'
      write_cache:
        description:
          - What the block layer does with flushes to the loop. V(write back) lets them reach the file, V(write through) drops them.
          - Written explicitly at every attach and set to V(write back) again before a detach, because newer kernels keep it.
          - V(keep) attaches with V(write back) and leaves the mode of a loop that is there to whoever manages it, such as the guard.
          - Not used for a read-only loop.
        type: str
        choices: [write back, write through, keep]
        default: write back
      direct_io:
        description: Whether the loop goes past the page cache.
        type: bool
        default: false
      allow_shrink:
        description: Whether a file that is larger than O(files[].size) may be cut off.
        type: bool
        default: false
      delete:
        description: The path of the file once more, to say that with O(files[].state=absent) it may be deleted with all that is in it.
        type: path
      mode:
        description: Mode of the file, octal. A new file gets V(0600) when it is not given, an existing one keeps its own.
        type: str
      owner:
        description: Owner of the file, name or number. Left as it is when not given.
        type: str
      group:
        description: Group of the file, name or number. Left as it is when not given.
        type: str
"""

EXAMPLES = r"""
- name: Two local legs
  indestructible.block.loopfile:
    files:
      - path: /var/lib/indestructible/db.img
        size: 100G
      - path: /var/lib/indestructible/mail.img
        size: 50G

- name: A read-only view of the payload of a leg
  indestructible.block.loopfile:
    files:
      - path: /mnt/past/db.img
        read_only: true
        offset: 4M

- name: Take the loop away and keep the file
  indestructible.block.loopfile:
    files:
      - path: /var/lib/indestructible/mail.img
        state: detached

- name: Delete a file for good
  indestructible.block.loopfile:
    files:
      - path: /var/lib/indestructible/mail.img
        state: absent
        delete: /var/lib/indestructible/mail.img
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  type: list
  elements: str
  returned: always
  sample: ["made /var/lib/indestructible/db.img, a sparse file of 100 GiB"]
files:
  description: The state of each file, in the order given.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: Path of the file.
      type: str
      returned: always
      sample: /var/lib/indestructible/db.img
    state:
      description: Whether it is V(attached), V(detached) or V(absent).
      type: str
      returned: always
      sample: attached
    exists:
      description: Whether the file exists.
      type: bool
      returned: always
    size:
      description: Size of the file in bytes.
      type: int
      returned: always
      sample: 107374182400
    allocated:
      description: Bytes that the file takes up on its file system.
      type: int
      returned: always
      sample: 0
    mode:
      description: Mode, octal.
      type: str
      returned: always
      sample: "0600"
    owner:
      description: Number of the owner.
      type: int
      returned: always
      sample: 0
    group:
      description: Number of the group.
      type: int
      returned: always
      sample: 0
    loop:
      description: The loop device; null when there is none, and in check mode when it would be attached.
      type: str
      returned: always
      sample: /dev/loop0
    loop_size:
      description: Size of the loop device in bytes.
      type: int
      returned: always
      sample: 107374182400
    offset:
      description: Where in the file the loop begins.
      type: int
      returned: always
      sample: 0
    size_limit:
      description: How many bytes of the file the loop covers; 0 is all of it.
      type: int
      returned: always
      sample: 0
    read_only:
      description: Whether the loop is read-only.
      type: bool
      returned: always
    write_cache:
      description: Write cache mode of the loop.
      type: str
      returned: always
      sample: write back
    direct_io:
      description: Whether the loop goes past the page cache.
      type: bool
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, converge_alone
from ansible_collections.indestructible.block.plugins.module_utils._loopfile import normalize, observe, perform, plan, predict, public


def main():
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list", "elements": "dict", "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "size": {"type": "str"},
                    "state": {"type": "str", "choices": ["attached", "detached", "absent"], "default": "attached"},
                    "read_only": {"type": "bool", "default": False},
                    "offset": {"type": "str", "default": "0"},
                    "size_limit": {"type": "str", "default": "0"},
                    "write_cache": {"type": "str", "choices": ["write back", "write through", "keep"], "default": "write back"},
                    "direct_io": {"type": "bool", "default": False},
                    "allow_shrink": {"type": "bool", "default": False},
                    "delete": {"type": "path"},
                    "mode": {"type": "str"},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        wanted = normalize(module.params["files"], module.check_mode)
        result = converge_alone(wanted, observe, plan, perform, predict, module.check_mode)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=getattr(problem, "done", []))
    before = [public(state) for state in result["before"]]
    after = [public(state) for state in result["after"]]
    module.exit_json(changed=result["changed"], actions=result["actions"], files=after,
                     diff={"before": {state["path"]: state for state in before}, "after": {state["path"]: state for state in after}})


if __name__ == "__main__":
    main()
