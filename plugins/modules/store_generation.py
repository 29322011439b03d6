#!/usr/bin/python
# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_generation
short_description: A retired LUN of a store, for its history
version_added: 0.1.0
description:
  - Brings a retired generation of a store back, read-only, so that its recovery points can be opened, or unmounts or forgets it. Recoveries find the right
    generation by time, and bring it back themselves when its LUN is there.
  - A LUN is known by the UUID of its volume. Another one in its place is refused.
author: The indestructible.block authors (@indestructible)
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: full
    description: Shows the generation before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: Linux.
options:
  store:
    description: Name of the store.
    type: str
    required: true
  number:
    description: Number of the generation.
    type: int
    required: true
  state:
    description:
      - V(attached), its volume is mounted read-only. V(detached), it is not.
      - V(forgotten), it is not asked for any more, and its LUN is given up. What it holds stays.
    type: str
    choices: [attached, detached, forgotten]
    default: attached
  device:
    description: Block device that it is on now, when that is not where it was.
    type: path
seealso:
  - module: indestructible.block.store_swap
"""

EXAMPLES = r"""
- name: Bring the first LUN of vault1 back
  indestructible.block.store_generation:
    store: vault1
    number: 1
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, one sentence each.
  returned: always
  type: list
  elements: str
generation:
  description:
    - The generation with C(number), C(state), C(uuid) of its volume, C(place) (where it was last), C(began) and C(ended) in seconds since 1970, C(last) (number of its
      last checkpoint) and C(devices). Only C(number) and C(state) of one that is forgotten.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.indestructible.block.plugins.module_utils import _generations
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, host_lock


def state_of(store, number):
    """The generation as it is returned."""
    for generation in _generations.retired(store):
        if generation["number"] == number:
            return dict(generation, state="attached" if _generations.is_attached(store, number) else "detached")
    return {"number": number, "state": "forgotten"}


def main():
    module = AnsibleModule(
        argument_spec=dict(store=dict(type="str", required=True), number=dict(type="int", required=True), device=dict(type="path"),
                           state=dict(type="str", choices=["attached", "detached", "forgotten"], default="attached")),
        supports_check_mode=True)
    store, number, wanted = module.params["store"], module.params["number"], module.params["state"]
    try:
        before = state_of(store, number)
        changed = before["state"] != wanted
        actions = [f"generation {number} of {store} is {wanted} now"] if changed else []
        after = dict(before, state=wanted)
        if changed and not module.check_mode:
            with host_lock():
                if wanted == "attached":
                    _generations.attach(store, number, module.params["device"])
                else:
                    (_generations.detach if wanted == "detached" else _generations.forget)(store, number)
            after = state_of(store, number)
    except Problem as problem:
        module.fail_json(msg=str(problem), actions=[])
    module.exit_json(changed=changed, actions=actions, generation=after, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
