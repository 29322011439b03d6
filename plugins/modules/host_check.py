#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Check whether a host can carry indestructible devices
version_added: 0.1.0
author: The indestructible.block authors (@indestructible)
description:
  - >-
    Tells in one call which packages are not installed, which kernel modules there are (without loading any), which units are enabled and active,
    and which files hold something else than they should.
  - >-
    Refuses a host whose running kernel lacks a module that is asked for. When C(md_mod), C(nilfs2) or C(raid1) is among them it also
    refuses kernels that are known to lose data in such a mirror. The message names the remedy.
  - It needs nothing but Python on the host.
attributes:
  check_mode:
    description: Can run in check mode and return the same as in a normal run.
    support: full
  diff_mode:
    description: Returns details on what has changed. This module changes nothing.
    support: full
  idempotent:
    description: Running it twice in a row gives the same result.
    support: full
  platform:
    description: Operating systems it runs on.
    platforms: linux
    support: full
options:
  packages:
    description: Names of Debian packages that are wanted. None of them has to be there.
    type: list
    elements: str
    default: []
  kernel_modules:
    description: Names of kernel modules that have to be there, loaded, built in or ready to be loaded.
    type: list
    elements: str
    default: []
  units:
    description: Names of systemd units. None of them has to be there.
    type: list
    elements: str
    default: []
  files:
    description: Text files that are wanted. None of them has to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the file is.
        type: path
        required: true
      content:
        description: What has to be in it, and nothing else.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Look at the host before anything is changed on it
  indestructible.block.host_check:
    packages: [nilfs-tools]
    kernel_modules: [nilfs2]
  register: host

- name: Install what is missing
  ansible.builtin.apt:
    name: "{{ host.missing_packages }}"
  when: host.missing_packages | length > 0
"""

RETURN = r"""
actions:
  description: What was done; always empty.
  returned: always
  type: list
  elements: str
  sample: []
missing_packages:
  description: Those of O(packages) that are not installed, in their order.
  returned: success
  type: list
  elements: str
  sample: [nilfs-tools]
modules:
  description: For each of O(kernel_modules), V(loaded), V(builtin) or V(available).
  returned: success
  type: dict
  sample:
    nilfs2: available
units:
  description: For each of O(units), whether it is enabled, whether it is active, and whether its file is newer than what systemd has read of it.
  returned: success
  type: dict
  sample:
    iscsid.service: {enabled: true, active: true, outdated: false}
differing_files:
  description: Paths of those O(files) that are not there or hold something else.
  returned: success
  type: list
  elements: str
  sample: []
kernel:
  description: The release of the running kernel.
  returned: success
  type: str
  sample: 6.1.0-37-amd64
kernel_version:
  description: The upstream version that kernel is made from.
  returned: success
  type: str
  sample: 6.1.140
os:
  description: The variables of the host's os-release file.
  returned: success
  type: dict
  sample:
    ID: debian
    VERSION_ID: "12"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _host
from ..module_utils._core import Problem


def main():
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "kernel_modules": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "dict", "default": [],
                      "options": {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True}}},
        },
        supports_check_mode=True,
    )
    try:
        host = _host.observe(*(module.params[option] for option in ("packages", "kernel_modules", "units", "files")))
        _host.refuse_unfit(host)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=[])
    module.exit_json(changed=False, actions=[], diff={"before": {}, "after": {}}, **host)


if __name__ == "__main__":
    main()
