# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from ansible_collections.indestructible.block.plugins import module_utils
from ansible_collections.indestructible.block.plugins.module_utils import _program


MAKE = ("import hashlib, sys; from ansible_collections.indestructible.block.plugins import module_utils; "
        "from ansible_collections.indestructible.block.plugins.module_utils import _program; "
        "print(hashlib.sha256(_program.archive(_program.sources(module_utils.__path__), sys.executable)).hexdigest())")


def program():
    return _program.archive(_program.sources(module_utils.__path__), sys.executable)


@pytest.mark.parametrize("magic", [_program.importlib.util.MAGIC_NUMBER, b"\0\0\r\n"])
def test_the_program_runs_also_with_another_python_than_the_one_that_compiled_it(tmp_path, monkeypatch, magic):
    monkeypatch.setattr(_program.importlib.util, "MAGIC_NUMBER", magic)
    path = tmp_path / "indestructible"
    path.write_bytes(program())
    path.chmod(0o755)
    told = subprocess.run([str(path), "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "status" in told and "guard" in told


def test_the_program_is_always_the_same():
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    made = [subprocess.run([sys.executable, "-c", MAKE], check=True, stdout=subprocess.PIPE, text=True, env=dict(env, PYTHONHASHSEED=seed)).stdout.strip()
            for seed in ("1", "2")]
    assert made == [hashlib.sha256(program()).hexdigest()] * 2


def test_what_is_compiled_is_what_is_run(tmp_path):
    whole, path = tmp_path / "whole", tmp_path / "other"
    whole.write_bytes(program())
    with zipfile.ZipFile(whole) as made, zipfile.ZipFile(path, "w") as other:
        for name in made.namelist():
            other.writestr(name, made.read(name) if name.endswith(".pyc") else "raise SystemExit('the source was run')")
    subprocess.run([sys.executable, str(path), "--help"], check=True, stdout=subprocess.DEVNULL)
