# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import types

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _host_config, _lifecycle
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, Result

CONFIG = types.SimpleNamespace(devices={name: {"name": name, "path": f"/dev/md/{name}", "local": f"/legs/{name}.img"} for name in ("a", "b", "c")})


@pytest.fixture
def host(tmp_path, monkeypatch):
    """What is_ours() and a start say of each device (a bool, or a Problem), and what was said."""
    answers, said = {"ours": {}, "starts": {}}, []

    def asked(which):
        def answer(device, mixture=False):
            value = answers[which].get(device["name"], True)
            if isinstance(value, Problem):
                raise value
            return value
        return answer
    monkeypatch.setattr(_host_config, "RUN_DIR", str(tmp_path))
    monkeypatch.setattr(_host_config, "LATE", str(tmp_path / "late"))
    monkeypatch.setattr(_lifecycle, "LEAVING", str(tmp_path / "leaving"))
    monkeypatch.setattr(_lifecycle, "host_lock", lambda seconds: contextlib.nullcontext())
    monkeypatch.setattr(_lifecycle, "is_ours", asked("ours"))
    monkeypatch.setattr(_lifecycle, "_start_one", asked("starts"))
    return answers, said, lambda level, sentence: said.append((level, sentence))


def test_one_device_that_is_broken_keeps_no_other_from_starting(host):
    answers, said, say = host
    answers["ours"]["a"] = Problem("a.json is not readable JSON")
    answers["starts"]["b"] = Problem("its local leg /legs/b.img is not there")
    assert _lifecycle.start(CONFIG, say) == 2
    assert said == [(3, "device a: a.json is not readable JSON"), (3, "device b: its local leg /legs/b.img is not there"),
                    (6, "device c: started from its local leg")]
    assert _lifecycle.late() == ["a", "b"]


def test_flushes_reach_the_remote_legs_whatever_the_configuration_is_like(monkeypatch):
    set_to, said = [], []
    loop = types.SimpleNamespace
    records = {"a": {"remote": "/stores/v/a.img"}, "b": Problem("b.json is not readable JSON"), "c": {"remote": "/stores/v/c.img"}}

    def load(kind, name):
        if isinstance(records[name], Problem):
            raise records[name]
        return records[name]
    monkeypatch.setattr(_lifecycle, "list_records", lambda kind: sorted(records))
    monkeypatch.setattr(_lifecycle, "load_record", load)
    monkeypatch.setattr(_lifecycle, "loops", lambda: [loop(backing="/stores/v/a.img", write_cache="write through", device="/dev/loop1"),
                                                      loop(backing="/stores/v/c.img", write_cache="write back", device="/dev/loop2"),
                                                      loop(backing="/else.img", write_cache="write through", device="/dev/loop3")])
    monkeypatch.setattr(_lifecycle, "set_write_cache", lambda device, mode: set_to.append((device, mode)))
    _lifecycle.make_safe(lambda level, sentence: said.append(sentence))
    assert set_to == [("/dev/loop1", "write back")]
    assert said == ["b.json is not readable JSON", "device a: nothing guards it, so its replication is sync for now"]


@pytest.mark.parametrize("state, remote, done", [("local failed", "in sync", ["stop"]), ("attached", "in sync", ["detach"]), ("detached", "gone", [])])
def test_at_shutdown_the_last_leg_is_not_taken_out(monkeypatch, state, remote, done):
    steps = []
    monkeypatch.setattr(_lifecycle, "mirror_of", lambda device, state: device)
    monkeypatch.setattr(_lifecycle._md, "observe", lambda want: {"state": state})
    monkeypatch.setattr(_lifecycle._md_act, "remote_state", lambda want: remote)
    monkeypatch.setattr(_lifecycle._md_act, "perform", lambda want, step: steps.append(step.verb))
    _lifecycle._leave_one({"name": "a"}, print)
    assert steps == done


def test_a_start_ends_what_the_shutdown_before_had_noted(host, tmp_path):
    (tmp_path / "leaving").touch()
    _lifecycle.start(CONFIG, host[2])
    assert not (tmp_path / "leaving").exists() and _lifecycle.late() == []


def test_a_late_device_is_started_once(host):
    answers, _said, _say = host
    _lifecycle.note_late(["b", "c"])
    answers["starts"]["b"] = Problem("its local leg /legs/b.img is not there")
    with pytest.raises(Problem):
        _lifecycle.start_late(CONFIG, "b")
    assert _lifecycle.late() == ["b", "c"]
    answers["starts"]["b"] = True
    assert _lifecycle.start_late(CONFIG, "b") == CONFIG.devices["b"]
    assert _lifecycle.late() == ["c"]
    assert _lifecycle.start_late(CONFIG, "b") is None  # somebody has stopped it since


@pytest.mark.parametrize("what", ["runs", "out of use", "not configured"])
def test_a_device_that_is_late_no_more(host, what):
    name = "z" if what == "not configured" else "b"
    _lifecycle.note_late([name])
    host[0]["starts"]["b"] = False
    host[0]["ours"]["b"] = what != "out of use"
    assert _lifecycle.start_late(CONFIG, name) is None and _lifecycle.late() == []


def test_no_late_device_is_started_at_shutdown(host, tmp_path):
    _lifecycle.note_late(["b"])
    (tmp_path / "leaving").touch()
    assert _lifecycle.start_late(CONFIG, "b") is None and _lifecycle.late() == ["b"]


@pytest.mark.parametrize("state, exists, says", [
    ("absent", False, "its local leg /legs/a is not there"), ("stopped", False, "its local leg /legs/a is not there"),
    ("absent", True, "its local leg /legs/a is no leg of a device")])
def test_a_missing_leg_is_told(monkeypatch, state, exists, says):
    monkeypatch.setattr(_lifecycle, "mirror_of", lambda device, state: {})
    monkeypatch.setattr(_lifecycle._md, "observe", lambda want: {"state": state, "_activity": None})
    monkeypatch.setattr(_lifecycle.os.path, "exists", lambda path: exists)
    with pytest.raises(Problem, match=says):
        _lifecycle._start_one({"local": "/legs/a", "local_kind": "block"})


def test_what_fstab_says_of_a_device_is_mounted(monkeypatch):
    started = []
    fstab = "/dev/md/a /srv/a xfs nofail 0 0\n/dev/md/a /srv/never xfs noauto,nofail 0 0\n/dev/md/b /srv/b xfs nofail 0 0\n/dev/md/a none swap sw 0 0\n"
    monkeypatch.setattr(_lifecycle, "read_fstab", lambda: fstab)
    monkeypatch.setattr(_lifecycle, "run", lambda argv, timeout: started.append(argv) or Result(0, "", ""))
    assert _lifecycle.mount(CONFIG.devices["a"]) == ["/srv/a"]
    assert started == [["systemctl", "start", "/srv/a"]]


@pytest.mark.parametrize("ended, mounted, acts", [(True, False, []), (True, True, ["--lazy"]), (False, True, ["abort", "--lazy"])])
def test_at_shutdown_only_a_store_that_does_not_answer_is_cut_off(host, monkeypatch, ended, mounted, acts):
    done, shown = [], iter([True, mounted])
    monkeypatch.setattr(_lifecycle, "find_use", lambda path: None)
    monkeypatch.setattr(_lifecycle, "mount_at", lambda point: next(shown))
    monkeypatch.setattr(_lifecycle, "loops", list)
    monkeypatch.setattr(_lifecycle._cleaner, "stop", lambda record: None)
    monkeypatch.setattr(_lifecycle, "try_unmount", lambda point, seconds: ended)
    monkeypatch.setattr(_lifecycle, "run", lambda argv, **more: done.append(argv[1]))
    monkeypatch.setattr(_lifecycle.Link, "abort", lambda link: done.append("abort"))
    store = {"name": "vault1", "mount": "/store", "portal": None}
    _lifecycle.leave(types.SimpleNamespace(devices={}, stores={"vault1": store}), host[2])
    assert done == acts
