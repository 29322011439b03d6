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
  - Files that belong to it, such as its units, can be written by the same call. Each file is replaced as a whole, and is on the disk
    before the next one, so that a power loss leaves the old or the new one.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Says which files would change.
  diff_mode:
    support: full
    description: Shows the checksum of the command, and the texts of the other files, before and after.
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
  files:
    description: Text files that belong to the command. They are written before it.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the file is.
        type: path
        required: true
      content:
        description: What is in it. With O(state=absent) it does not matter.
        type: str
        required: true
      mode:
        description: Permissions, octal, as text.
        type: str
        default: "0644"
  state:
    description: V(absent) removes the command and the files.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: indestructible.block.device_info
"""

EXAMPLES = r"""
- name: The command indestructible
  indestructible.block.host_command:

- name: The command, and what the host owns
  indestructible.block.host_command:
    files:
      - path: /etc/indestructible.json
        content: "{{ owned | to_nice_json }}\n"
        mode: "0600"
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
  sample: ["installed /usr/local/sbin/indestructible"]
changed_files:
  description: Paths of the files that were written or removed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/usr/local/sbin/indestructible]
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
import re
import sys

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins import module_utils
# the command itself is what brings all the files that it needs along
from ansible_collections.indestructible.block.plugins.module_utils import _command  # pylint: disable=unused-import
from ansible_collections.indestructible.block.plugins.module_utils._core import save_file
from ansible_collections.indestructible.block.plugins.module_utils._program import archive, sources


def read(path):
    """Bytes and permissions (int) of a file, or (None, None) when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mode & 0o777
    except FileNotFoundError:
        return None, None


def permissions(text):
    """The int of permissions such as 0644; raises ValueError with the value."""
    if not re.fullmatch("[0-7]{3,4}", text):
        raise ValueError(f"mode: {text!r} is not an octal file mode such as '0600'")
    return int(text, 8)


def shown(path, data, command):
    """What a diff shows of a file: the text, or of the command the checksum."""
    if data is None:
        return None
    return hashlib.sha256(data).hexdigest() if path == command else data.decode(errors="replace")


def main():
    module = AnsibleModule(
        argument_spec=dict(path=dict(type="path", default="/usr/local/sbin/indestructible"),
                           files=dict(type="list", elements="dict", default=[], options=dict(
                               path=dict(type="path", required=True), content=dict(type="str", required=True), mode=dict(type="str", default="0644"))),
                           state=dict(type="str", choices=["present", "absent"], default="present")),
        supports_check_mode=True)
    command, present = module.params["path"], module.params["state"] == "present"
    result = {"path": command, "checksum": None, "actions": [], "changed_files": [], "diff": {"before": {}, "after": {}}}
    path = command
    try:
        wanted = [(one["path"], one["content"].encode() if present else None, permissions(one["mode"])) for one in module.params["files"]]
        wanted.append((command, archive(sources(module_utils.__path__), sys.executable) if present else None, 0o755))
        for path, data, mode in wanted:
            before, mode_before = read(path)
            result["diff"]["before"][path], result["diff"]["after"][path] = shown(path, before, command), shown(path, data, command)
            if before == data and (data is None or mode == mode_before):
                continue
            if not module.check_mode:
                if data is None:
                    os.unlink(path)
                else:
                    save_file(path, data, mode)
            result["changed_files"].append(path)
            result["actions"].append(f"{'installed' if present else 'removed'} {path}")
    except ValueError as error:
        module.fail_json(msg=str(error), **result)
    except OSError as error:
        module.fail_json(msg=f"cannot install {path}: {error.strerror}", **result)
    result["checksum"] = result["diff"]["after"][command]
    module.exit_json(changed=bool(result["changed_files"]), **result)


if __name__ == "__main__":
    main()
