# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _mount
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem, Result

MOUNTINFO = r"""22 1 98:0 / / rw,noatime shared:1 - ext4 /dev/ubda rw
37 18 98:16 / /srv/with\040blank rw,noatime shared:17 - nilfs2 /dev/ubdb rw,pp=0
38 18 98:16 / /mnt/past ro shared:18 master:3 - nilfs2 /dev/ubdb ro,cp=7
39 22 0:31 / /srv/over rw - tmpfs none rw
40 22 7:0 / /srv/over rw - xfs /dev/loop0 rw
broken line
"""

FSTAB = """# a comment
UUID=1 / ext4 defaults 0 1

/dev/a\\040b  /mnt\\040x  xfs  noauto
"""


def entry(source="UUID=9", point="/srv/new", fstype="nilfs2", options="nofail"):
    return _mount.Entry(source, point, fstype, options, "0", "0")


def test_mountinfo():
    mounts = _mount.parse_mounts(MOUNTINFO)
    assert len(mounts) == 5
    assert mounts[1] == ("/srv/with blank", "/dev/ubdb", "98:16", "/", "nilfs2", ("rw", "noatime"), ("rw", "pp=0"))
    assert mounts[2].super_options == ("ro", "cp=7")


def test_systemd_reads_fstab_once_however_often_it_is_written(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(_mount, "run", lambda argv, ok: ran.append(argv))
    monkeypatch.setattr(_mount.os.path, "isdir", lambda path: True)
    path = str(tmp_path / "fstab")
    _mount.write_fstab("one\n", path)
    assert ran == [["systemctl", "daemon-reload"]]
    with pytest.raises(Problem):
        with _mount.one_reload():
            _mount.write_fstab("two\n", path)
            _mount.write_fstab("three\n", path)
            assert len(ran) == 1
            raise Problem("another device")
    assert len(ran) == 2
    with _mount.one_reload():
        pass
    assert len(ran) == 2


def test_the_last_mount_hides_the_others():
    assert _mount.mount_at("/srv/over", _mount.parse_mounts(MOUNTINFO)).source == "/dev/loop0"
    assert _mount.mount_at("/srv/ove", _mount.parse_mounts(MOUNTINFO)) is None


def test_fstab_is_read():
    assert _mount.parse_fstab(FSTAB)[1] == ("/dev/a b", "/mnt x", "xfs", "noauto", "0", "0")


def test_fstab_gets_a_line_once_and_keeps_the_rest():
    once = _mount.fstab_with(FSTAB, entry())
    assert once == FSTAB + "UUID=9 /srv/new nilfs2 nofail 0 0\n"
    assert _mount.fstab_with(once, entry()) == once
    assert _mount.fstab_without(once, "UUID=9", "/srv/new") == FSTAB
    assert _mount.fstab_without(once, "UUID=9", "/srv/other") == once
    assert _mount.fstab_without(once, "UUID=", None) == once


def test_a_line_of_the_same_source_is_replaced_where_it_stands():
    text = "UUID=9 /srv/new nilfs2 defaults 0 2\n" + FSTAB
    assert _mount.fstab_with(text, entry()) == "UUID=9 /srv/new nilfs2 nofail 0 0\n" + FSTAB


def test_a_missing_newline_is_added():
    assert _mount.fstab_with("UUID=1 / ext4", entry()) == "UUID=1 / ext4\nUUID=9 /srv/new nilfs2 nofail 0 0\n"


def test_blanks_are_written_in_octal():
    text = _mount.fstab_with("", entry(point="/srv/a b\\c"))
    assert text == "UUID=9 /srv/a\\040b\\134c nilfs2 nofail 0 0\n"
    assert _mount.parse_fstab(text)[0].point == "/srv/a b\\c"


@pytest.mark.parametrize("wanted, words", [
    (entry(point="/"), "mounts UUID=1 on /; remove that line or choose another mount point for UUID=9"),
    (entry(source="UUID=1"), "mounts UUID=1 on / and not on /srv/new"),
])
def test_lines_of_others_are_refused(wanted, words):
    with pytest.raises(Problem, match=words):
        _mount.fstab_with(FSTAB, wanted)


def test_mount_points(tmp_path):
    _mount.check_point(str(tmp_path / "new"))
    _mount.check_point(str(tmp_path))
    (tmp_path / "file").write_text("x")
    for point, words in ((str(tmp_path), "a directory with files in it"), (str(tmp_path / "file"), "is not a directory"),
                         ("relative", "not an absolute"), ("/", "not an absolute"), ("/srv/../etc", "plain path")):
        with pytest.raises(Problem, match=words):
            _mount.check_point(point)


@pytest.mark.parametrize("answer, ended", [(0, True), (32, True), (124, False), (137, False), (Problem("it did not end"), False)])
def test_an_umount_that_is_refused_has_ended_and_one_that_was_killed_has_not(monkeypatch, answer, ended):
    def run(argv, **more):
        if isinstance(answer, Problem):
            raise answer
        return Result(answer, "", "")
    monkeypatch.setattr(_mount, "run", run)
    assert _mount.try_unmount("/store", 10) is ended
