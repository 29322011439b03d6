#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_command
short_description: The command indestructible on a host
version_added: 0.1.0
description:
  - Installs the code of this collection on the host as one file, the command C(indestructible). It needs Python and nothing else,
    so that a host can start, guard and recover its devices without its control node.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Says whether the file would change.
  diff_mode:
    support: full
    description: Shows the checksum of the file before and after.
  idempotent:
    support: full
    description: The same code gives the same file.
  platform:
    support: full
    platforms: linux
    description: Linux.
options:
  path:
    description: Where the command is.
    type: path
    default: /usr/local/sbin/indestructible
  state:
    description: V(absent) removes the file.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: indestructible.block.device_info
"""

EXAMPLES = r"""
- name: The command indestructible
  indestructible.block.host_command:
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
  sample: ["installed /usr/local/sbin/indestructible"]
path:
  description: Where the command is.
  returned: always
  type: str
  sample: /usr/local/sbin/indestructible
checksum:
  description: SHA-256 of the file, or null when it is absent.
  returned: always
  type: str
"""

import hashlib
import os
import sys

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins import module_utils
# the command itself is what brings all the files that it needs along
from ansible_collections.indestructible.block.plugins.module_utils import _command  # pylint: disable=unused-import
from ansible_collections.indestructible.block.plugins.module_utils._core import save_file
from ansible_collections.indestructible.block.plugins.module_utils._program import archive, sources


def checksum(data):
    """SHA-256 of bytes, or None of None."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def main():
    module = AnsibleModule(
        argument_spec=dict(path=dict(type="path", default="/usr/local/sbin/indestructible"),
                           state=dict(type="str", choices=["present", "absent"], default="present")),
        supports_check_mode=True)
    path = module.params["path"]
    wanted = archive(sources(module_utils.__path__), sys.executable) if module.params["state"] == "present" else None
    try:
        before, mode = None, None
        if os.path.exists(path):
            mode = os.stat(path).st_mode & 0o777
            with open(path, "rb") as file:
                before = file.read()
        changed = before != wanted or (wanted is not None and mode != 0o755)
        if changed and not module.check_mode:
            if wanted is None:
                os.unlink(path)
            else:
                save_file(path, wanted, 0o755)
    except OSError as error:
        module.fail_json(msg=f"cannot install the command at {path}: {error.strerror}", actions=[], path=path, checksum=None)
    actions = [f"{'removed' if wanted is None else 'installed'} {path}"] if changed else []
    states = [{"path": path, "checksum": checksum(data)} for data in (before, wanted)]
    module.exit_json(changed=changed, actions=actions, diff={"before": states[0], "after": states[1]}, **states[1])


if __name__ == "__main__":
    main()
