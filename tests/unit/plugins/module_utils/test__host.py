# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.indestructible.block.plugins.module_utils import _host
from ansible_collections.indestructible.block.plugins.module_utils._core import Problem

STATUS = """Package: nilfs-tools
Status: install ok installed
Version: 2.2.9

Package: mdadm
Status: deinstall ok config-files
Version: 4.2

Package: open-iscsi
Status: install ok unpacked
"""
DEBIAN = {"ID": "debian", "VERSION_ID": "12"}


def host(kernel_version="6.1.140", kernel="6.1.0-37-amd64", modules=None, system=None):
    return {"kernel": kernel, "kernel_version": kernel_version, "os": system or DEBIAN, "missing_packages": [],
            "modules": modules or {"nilfs2": "available"}}


def test_only_wholly_installed_packages_count():
    assert _host.missing_packages(["nilfs-tools", "mdadm", "open-iscsi", "xfsprogs"], STATUS) == ["mdadm", "open-iscsi", "xfsprogs"]
    with pytest.raises(Problem, match="supported are Debian 12"):
        _host.missing_packages(["mdadm"], None)


def test_what_systemd_does_not_tell_of_a_unit_is_false():
    told = "ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n\nActiveState=inactive\nUnitFileState=\nNeedDaemonReload=yes\n"
    assert _host.unit_states(["a", "b", "c"], told) == {
        "a": {"enabled": True, "active": True, "outdated": False},
        "b": {"enabled": False, "active": False, "outdated": True},
        "c": {"enabled": False, "active": False, "outdated": False}}
    assert _host.unit_states(["a"], "ActiveState=activating\nUnitFileState=enabled-runtime\n")["a"] == {
        "enabled": False, "active": False, "outdated": False}


def test_a_file_holds_a_text_or_it_does_not(tmp_path):
    path = tmp_path / "file"
    assert not _host.holds(str(path), "text\n")
    path.write_bytes(b"text\n")
    assert _host.holds(str(path), "text\n") and not _host.holds(str(path), "text")
    path.write_bytes(b"text\r\n")
    assert not _host.holds(str(path), "text\n")
    assert not _host.holds(str(tmp_path), "text\n")


@pytest.mark.parametrize("release, version, signature, expected", [
    ("6.1.0-37-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)", "", (6, 1, 140)),
    ("6.12.38+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.38-1 (2025-07-16)", "", (6, 12, 38)),
    ("6.1.176", "#1 Debian 6.1.176-1", "", (6, 1, 176)),
    ("6.8.0-45-generic", "#45-Ubuntu SMP", "Ubuntu 6.8.0-45.45-generic 6.8.12", (6, 8, 12)),
    ("6.17", "#1", "", (6, 17, 0)),
])
def test_the_upstream_version_is_found(release, version, signature, expected):
    assert _host.kernel_version(release, version, signature) == expected


@pytest.mark.parametrize("version, bad", [
    ("6.1.176", False), ("6.6.135", False), ("6.12.101", False), ("6.14.1", False), ("6.14.2", True), ("6.15.9", True),
    ("6.16.0", True), ("6.16.5", True), ("6.16.6", False), ("6.17.1", False),
])
def test_kernels_that_lose_data_are_refused(version, bad):
    if bad:
        with pytest.raises(Problem, match="Install 6.16.6 or a later 6.16"):
            _host.refuse_unfit(host(version))
    else:
        _host.refuse_unfit(host(version))


def test_a_storage_host_may_run_any_kernel():
    _host.refuse_unfit(host("6.16.0", modules={"target_core_mod": "available"}))


@pytest.mark.parametrize("kernel, system, remedy", [
    ("6.1.0-37-cloud-amd64", DEBIAN, "install linux-image-amd64"),
    ("6.8.0-45-kvm", {"ID": "ubuntu", "ID_LIKE": "debian"}, "Install linux-modules-extra-6.8.0-45-kvm"),
    ("5.14.0-503.el9", {"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "No kernel of this distribution has it"),
    ("6.14.0-1.fc42", {"ID": "fedora"}, "kernel-modules-extra"),
])
def test_the_remedy_for_a_missing_module_is_named(kernel, system, remedy):
    text = _host.missing_modules_text(["nilfs2"], kernel, system, True)
    assert f"The running kernel {kernel} has no module nilfs2." in text and remedy in text


def test_a_kernel_that_was_replaced_wants_a_reboot():
    assert "reboot into it" in _host.missing_modules_text(["nilfs2"], "6.1.0-37-amd64", DEBIAN, False)


def test_module_states(tmp_path):
    folder = tmp_path / "lib/modules/6.1"
    folder.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/modules").write_text("dm_snapshot 45056 0 - Live 0x0\n")
    (folder / "modules.builtin").write_text("kernel/drivers/md/md-mod.ko\n")
    (folder / "modules.dep").write_text("kernel/fs/nilfs2/nilfs2.ko.xz:\nkernel/drivers/md/raid1.ko: kernel/lib/x.ko\n")
    assert _host.module_states(["dm-snapshot", "md_mod", "nilfs2", "raid1", "raid"], "6.1", str(tmp_path)) == {
        "dm-snapshot": "loaded", "md_mod": "builtin", "nilfs2": "available", "raid1": "available", "raid": "missing"}


def test_os_release():
    assert _host.parse_os_release('ID=debian\nVERSION_ID="12"\n# x\n') == {"ID": "debian", "VERSION_ID": "12"}
