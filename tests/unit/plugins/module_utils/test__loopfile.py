# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _loop, _loopfile
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

PATH = "/data/db.img"


@pytest.mark.parametrize("controllers, version_1, kept", [("cpu memory pids", False, True), ("cpu io memory", False, False), ("iox", False, True),
                                                          ("", True, False)])
def test_block_cgroups_take_the_order_away(monkeypatch, tmp_path, controllers, version_1, kept):
    (tmp_path / "cgroup.subtree_control").write_text(controllers + "\n")
    if version_1:
        (tmp_path / "blkio").mkdir()
    monkeypatch.setattr(_loop, "_CGROUP", str(tmp_path))
    monkeypatch.setattr(_loop, "_UNORDERED", str(tmp_path / "unordered"))
    assert _loop.keep_order() == _loop.note_order() == kept
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    if not version_1:
        assert _loop.keep_order() == kept, "once in use it counts as in use"


def test_a_loop_whose_file_system_has_failed_is_known_all_the_same(monkeypatch):
    shown = {"loop/backing_file": "/disk/db.img", "loop/offset": "4096", "loop/sizelimit": "0", "ro": "0", "loop/dio": "1", "loop/autoclear": "0",
             "queue/write_cache": "write back", "size": "16"}
    monkeypatch.setattr(_loop, "read_text", lambda path, default=None: shown[path.removeprefix("/sys/block/loop3/")])

    def status(number):
        raise OSError(5, "Input/output error")
    monkeypatch.setattr(_loop, "_status", status)
    monkeypatch.setattr(_loop.os, "open", lambda path, flags: 99)
    monkeypatch.setattr(_loop.os, "close", lambda number: None)
    assert _loop.read_loop("/dev/loop3") == _loop.Loop("/dev/loop3", "/disk/db.img", None, 4096, 0, False, True, False, "write back", 8192)


def want(**more):
    return _loopfile.normalize([dict({"path": PATH, "size": "100M"}, **more)])[0]


def state(**more):
    base = {
        "path": PATH, "state": "attached", "exists": True, "size": 100 << 20, "allocated": 0, "mode": "0600", "owner": 0, "group": 0,
        "loop": "/dev/loop3", "loop_size": 100 << 20, "offset": 0, "size_limit": 0, "read_only": False, "write_cache": "write back",
        "direct_io": False, "_kind": "file", "_use": None, "_others": [], "_room": None,
        "_stray": False,
    }
    base.update(more)
    return base


NOTHING = {"_kind": "nothing", "exists": False, "state": "absent", "size": None, "loop": None, "mode": None}


def verbs(wanted, found):
    return [step.verb for step in _loopfile.plan(wanted, found)]


def test_the_structures_have_the_sizes_of_the_kernel():
    assert _loop._INFO.size == 232
    assert _loop._CONFIG.size == 304


@pytest.mark.parametrize("file_size, offset, limit, size", [(1000, 0, 0, 512), (10240, 1024, 0, 9216), (10240, 0, 512, 512), (512, 1024, 0, 0)])
def test_a_loop_has_whole_sectors(file_size, offset, limit, size):
    assert _loop.size_for(file_size, offset, limit) == size


@pytest.mark.parametrize("more, found, steps", [
    ({}, {}, []),
    ({}, NOTHING, ["create", "attach"]),
    ({"state": "detached"}, NOTHING, ["create"]),
    ({"size": "200M"}, {}, ["grow", "capacity"]),
    ({"size": None}, {"size": 7 << 20}, ["capacity"]),
    ({"write_cache": "write through", "direct_io": True}, {}, ["direct_io", "write_cache"]),
    ({"read_only": True, "write_cache": "write through"}, {}, ["detach", "attach"]),
    ({"mode": "0640", "owner": "7"}, {}, ["mode", "owner"]),
    ({"state": "detached"}, {}, ["detach"]),
    ({"state": "detached"}, {"loop": None, "state": "detached"}, []),
    ({"state": "absent", "delete": PATH}, {}, ["detach", "delete"]),
    ({"state": "absent"}, NOTHING, []),
    ({"size": "50M", "allow_shrink": True}, {}, ["shrink", "capacity"]),
    ({"read_only": True}, {"loop": None, "_others": [{"loop": "/dev/loop1", "offset": 0, "size_limit": 0, "read_only": False}]}, ["attach"]),
])
def test_plan(more, found, steps):
    wanted, seen = want(**more), state(**found)
    assert verbs(wanted, seen) == steps
    after = _loopfile.predict(wanted, seen, _loopfile.plan(wanted, seen))
    if wanted["state"] == "attached" and steps:
        after["loop"] = "/dev/loop3"
        assert verbs(wanted, after) == []


ROOM = {"point": "/data", "free": 1 << 30, "inodes": 9, "too_large": False}


@pytest.mark.parametrize("more, found, words", [
    ({"size": "50M"}, {}, "shrinking it to 52428800 would cut off"),
    ({"size": "50M", "allow_shrink": True}, {"_use": "held by md127"}, "cannot be shrunk: /dev/loop3 over it is held by md127"),
    ({"state": "detached"}, {"_use": "held by md127"}, "cannot be detached: it is held by md127"),
    ({"state": "absent"}, {}, "only when the option delete names it"),
    ({"state": "absent", "delete": "/data/other"}, {}, "but it says /data/other"),
    ({"state": "absent", "delete": PATH}, {"_others": [{"loop": "/dev/loop1"}]}, "also used by /dev/loop1"),
    ({}, {"_kind": "a directory"}, "is a directory; give the path of a file"),
    ({"size": None}, NOTHING, "does not exist and has no size"),
    ({}, dict(NOTHING, _room=dict(ROOM, free=8 << 19)), "mounted on /data has 4 MiB free and 8 MiB are needed"),
    ({}, dict(NOTHING, _room=dict(ROOM, inodes=0)), "mounted on /data has no free inode"),
    ({}, dict(NOTHING, _room=dict(ROOM, too_large=True)), "mounted on /data does not take files of that size"),
    ({}, dict(NOTHING, _stray=True), "no store is mounted there; mount the store first"),
    ({"offset": "100M"}, {}, "offset: 104857600 is not inside"),
    ({"size_limit": "101M"}, {}, "go beyond the end"),
    ({}, {"loop": None, "_others": [{"loop": "/dev/loop1", "offset": 512, "size_limit": 0, "read_only": False}]}, "already attached for writing"),
])
def test_refusals(more, found, words):
    with pytest.raises(Problem, match=words):
        _loopfile.plan(want(**more), state(**found))


@pytest.mark.parametrize("files, words", [
    ([{"path": "db.img"}], "not an absolute path"),
    ([{"path": "/data/"}], "names a directory"),
    ([{"path": PATH, "size": "big"}], "is not a size"),
    ([{"path": PATH, "size": "1000"}], "not a multiple of 512"),
    ([{"path": PATH, "offset": "100"}], "not a multiple of 512"),
    ([{"path": PATH}, {"path": "/data/../data/db.img"}], "given twice"),
    ([{"path": PATH, "mode": "rw"}], "not an octal file mode"),
    ([{"path": PATH, "owner": "no such user"}], "no owner 'no such user'"),
])
def test_what_cannot_be_meant(files, words):
    with pytest.raises(Problem, match=words):
        _loopfile.normalize(files)


def test_links_to_one_file_are_one_file(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Problem, match="are one file"):
        _loopfile.normalize([{"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b")}])
