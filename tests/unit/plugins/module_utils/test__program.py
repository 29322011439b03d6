# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys

from ansible_collections.indestructible.block.plugins import module_utils
from ansible_collections.indestructible.block.plugins.module_utils import _program


def test_the_program_runs_and_is_always_the_same(tmp_path):
    made = _program.archive(_program.sources(module_utils.__path__), sys.executable)
    assert made == _program.archive(_program.sources(module_utils.__path__), sys.executable)
    path = tmp_path / "indestructible"
    path.write_bytes(made)
    path.chmod(0o755)
    told = subprocess.run([str(path), "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "status" in told and "guard" in told
