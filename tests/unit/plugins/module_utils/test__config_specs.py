# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the argument specs of the roles tell of stores and devices is what the core knows."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from ansible_collections.indestructible.block.plugins.module_utils import _config

ROLES = pathlib.Path(__file__).parents[4] / "roles"
FULL = _config.resolve_stores([{"name": "a", "portal": "192.0.2.10", "target": "iqn.2026-11.org.example:a"}], str)[0]


@pytest.mark.parametrize("role, variable, keys, defaults", [
    ("guard", "indestructible_stores", _config.STORE_KEYS, FULL),
    ("mirror", "indestructible_devices", _config.DEVICE_KEYS, _config.DEVICE_DEFAULTS)])
def test_the_argument_specs_tell_all_keys_and_defaults(role, variable, keys, defaults):
    spec = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = spec["argument_specs"]["main"]["options"][variable]["options"]
    assert sorted(options) == sorted(keys)
    told = {name: option["default"] for name, option in options.items() if "default" in option}
    assert told == {name: defaults[name] for name in told}
    # a type would refuse values that are accepted, such as an empty string for what is left out
    assert {option["type"] for option in options.values()} == {"raw", "str"} and all(options[name]["type"] == "raw" for name in told)
