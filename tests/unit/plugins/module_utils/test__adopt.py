# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done to a device whose local leg is lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _adopt
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

SIZE = 1 << 30


def want(**more):
    return _adopt.normalize(dict({"name": "db", "local": "/nowhere/db.img", "remote": "/nowhere/store/db.img", "size": SIZE}, **more))


def state(word, **more):
    """What observe() makes of a leg on the store, without a heal under way."""
    leg = SimpleNamespace(**dict({"name": "db", "uuid": "u", "size": SIZE}, **more))
    mirror = {"_linked": None, "array": None, "_unreadable": None, "_supers": (None, leg), "remote": {"state": "present"}}
    return {"state": word, "path": "/dev/md/db", "_mirror": mirror, "_catalogue": {"unsafe": []}}


@pytest.mark.parametrize("wanted, found, verbs", [
    ("known", "closed", ["know"]), ("known", "known", []), ("known", "opened", []), ("known", "building", []), ("known", "owned", []),
    ("opened", "closed", ["open"]), ("opened", "known", ["open"]), ("opened", "opened", []),
    ("owned", "known", ["open", "build", "finish"]), ("owned", "opened", ["build", "finish"]), ("owned", "building", ["finish"]), ("owned", "owned", [])])
def test_each_state_is_reached_from_every_one_before(wanted, found, verbs):
    assert [step.verb for step in _adopt.plan(want(state=wanted), state(found))] == verbs


@pytest.mark.parametrize("wanted", _adopt.STATES)
@pytest.mark.parametrize("more, words", [({"name": "other"}, "a leg of the array 'other'"), ({"size": SIZE - 4096}, "write its size as it is")])
def test_another_leg_is_refused(wanted, more, words):
    with pytest.raises(Problem, match=words):
        _adopt.plan(want(state=wanted), state("closed", **more))


@pytest.mark.parametrize("record, word, window", [
    ({}, "closed", None), ({"uuid": "u", "phase": "adopting"}, "known", None), ({"uuid": "u", "phase": "ready", "unsafe_from": 7}, "known", 7),
    ({"uuid": "v", "phase": "ready", "unsafe_from": 7}, "closed", None)])
def test_what_this_host_knows_of_its_own_device(monkeypatch, record, word, window):
    leg = SimpleNamespace(name="db", uuid="u", size=SIZE)
    mirror = {"_record": record, "_unreadable": None, "_supers": (None, leg), "_activity": None, "remote": {"state": "present"},
              "local": {"state": "absent"}, "path": "/dev/md/db", "uuid": "u", "size": SIZE, "recovery_percent": None}
    monkeypatch.setattr(_adopt._md, "observe", lambda want: mirror)
    monkeypatch.setattr(_adopt._catalogue, "load", lambda remote: {"since": 1, "unsafe": [], "points": []})
    found = _adopt.observe(want())
    assert found["state"] == word and [one["first"] for one in found["_catalogue"]["unsafe"]] == ([window] if window else [])


def test_a_state_that_there_is_not_is_refused():
    with pytest.raises(Problem, match="'looked' is none of known, opened, owned"):
        want(state="looked")


def test_nothing_is_said_of_a_leg_that_cannot_be_read(monkeypatch):
    monkeypatch.setattr(_adopt._md, "observe", lambda want: {"_unreadable": "cannot read it", "_record": {}, "_supers": (None, None)})
    with pytest.raises(Problem, match="db: cannot read it"):
        _adopt.observe(want())
