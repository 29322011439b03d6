# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill ansible-playbook, all of it and without a warning, once so many of its tasks are over (INTERRUPT_AFTER)."""

from __future__ import annotations

import os
import signal

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: interrupt
type: aggregate
short_description: Kill the run after a number of tasks
description: For tests of what an interruption leaves.
requirements: []
"""


class CallbackModule(CallbackBase):
    """Counts tasks as they start: when one more starts than may end, the run is killed."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "interrupt"

    def __init__(self):
        super().__init__()
        self.left = int(os.environ.get("INTERRUPT_AFTER", "0"))

    def v2_playbook_on_task_start(self, task, is_conditional):
        if self.left == 0:
            print(f"interrupted before: {task.get_name()}", flush=True)
            os.killpg(0, signal.SIGKILL)
        self.left -= 1
