# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The acts on the kernel's target: one method a step of _lio.plan(), through rtslib, in this process."""

from __future__ import annotations

import os

from . import _lio_config as config
from ._core import Problem

try:
    import rtslib_fb
except Exception as error:  # it also fails when pyudev or six is broken; told when it is needed, for observing does not need it
    rtslib_fb = None
    RTSLIB_ERROR = error
else:
    RTSLIB_ERROR = None

LIBRARY_PLUGINS = {"block": "BlockStorageObject", "file": "FileIOStorageObject"}


class Act:
    """Carries the steps of a plan out."""

    def __init__(self):
        self._root = None

    def __call__(self, want, step):
        if rtslib_fb is None:
            raise Problem(f"rtslib is not usable on this host ({RTSLIB_ERROR}); install the packages targetcli-fb and python3-rtslib-fb, "
                          "and let the modules run with the system's own Python")
        try:
            if self._root is None:
                os.makedirs(os.path.dirname(config.SAVED), exist_ok=True)
                self._root = rtslib_fb.RTSRoot()
            getattr(self, f"_do_{step.verb}")(want, **step.args)
        except (rtslib_fb.RTSLibError, OSError) as error:
            raise Problem(f"{step.what}: failed with {getattr(error, 'strerror', None) or error}") from None

    def _store(self, want):
        return next((one for one in self._root.storage_objects if one.name == want["name"]), None)

    def _fabric(self):
        return rtslib_fb.FabricModule("iscsi")

    def _target(self, want, mode="lookup"):
        return rtslib_fb.Target(self._fabric(), want["target"], mode)

    def _group(self, want):
        return rtslib_fb.TPG(self._target(want), 1, "lookup")

    def _acl(self, want, initiator):
        return rtslib_fb.NodeACL(self._group(want), initiator, "lookup")

    @staticmethod
    def _address(host):
        return f"[{host}]" if ":" in host else host

    def _do_make_file(self, want, size):
        directory = os.path.dirname(want["backing"])
        os.makedirs(directory, exist_ok=True)
        number = os.open(want["backing"], os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(number, size)
            os.fsync(number)
        finally:
            os.close(number)
        number = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    def _do_grow_file(self, want, size):
        number = os.open(want["backing"], os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(number).st_size > size:
                raise Problem(f"size: {want['backing']} has become larger than {size} bytes; it is never made smaller")
            os.ftruncate(number, size)
            os.fsync(number)
        finally:
            os.close(number)

    def _do_open_store(self, want, kind, size, serial):
        half_made = self._store(want)  # a run that was killed may have left it without its backing
        if half_made and not half_made.is_configured():
            half_made.delete()
        if kind == "block":
            rtslib_fb.BlockStorageObject(want["name"], dev=want["backing"], wwn=serial)
        else:
            # write_back would keep acknowledged writes in memory and tell initiators that they are on disk.
            rtslib_fb.FileIOStorageObject(want["name"], dev=want["backing"], size=size, wwn=serial, write_back=False)

    def _do_grow_store(self, want, size):
        """The kernel takes a new size for a file that is being served; initiators see it when they read the capacity again."""
        with open(f"{self._store(want).path}/control", "w", encoding="ascii") as file:
            file.write(f"fd_dev_size={size}")

    def _do_set_serial(self, want, serial):
        self._store(want).wwn = serial

    def _do_remove_store(self, want):
        store = self._store(want)
        if store:
            store.delete()

    def _do_make_target(self, want):
        rtslib_fb.TPG(self._target(want, "any"), 1, "any")

    def _do_remove_target(self, want):
        target = self._target(want)
        groups = list(target.tpgs)
        for group in groups:
            if group.tag == 1:
                group.delete()
        if len(groups) == 1:
            target.delete()

    def _do_set_attributes(self, want, attributes):
        group = self._group(want)
        for name, value in attributes.items():
            group.set_attribute(name, value)

    def _do_add_lun(self, want):
        group = self._group(want)
        if os.path.isdir(f"{group.path}/lun/lun_{want['lun']}"):  # left without its backstore by a run that was killed
            rtslib_fb.LUN(group, want["lun"]).delete()
        rtslib_fb.LUN(group, want["lun"], self._store(want))

    def _do_remove_lun(self, want, lun):
        rtslib_fb.LUN(self._group(want), lun).delete()

    def _do_add_acl(self, want, initiator):
        rtslib_fb.NodeACL(self._group(want), initiator, "create")

    def _do_remove_acl(self, want, initiator):
        self._acl(want, initiator).delete()

    def _do_set_chap(self, want, initiator):
        acl = self._acl(want, initiator)
        for option, attribute in config.CHAP_KEYS.items():
            setattr(acl, attribute, want["allow"][initiator][option])

    def _do_map_lun(self, want, initiator):
        acl = self._acl(want, initiator)
        if os.path.isdir(f"{acl.path}/lun_{want['lun']}"):
            rtslib_fb.MappedLUN(acl, want["lun"]).delete()
        rtslib_fb.MappedLUN(acl, want["lun"], want["lun"])

    def _do_unmap_lun(self, want, initiator):
        for mapped in list(self._acl(want, initiator).mapped_luns):
            if mapped.tpg_lun.lun == want["lun"]:
                mapped.delete()

    def _do_add_portal(self, want, portal):
        rtslib_fb.NetworkPortal(self._group(want), self._address(portal[0]), portal[1], "create")

    def _do_remove_portal(self, want, portal):
        for place in list(self._group(want).network_portals):
            if config.parse_portal(f"{place.ip_address}:{place.port}") == portal:
                place.delete()

    def _do_enable(self, want):
        self._group(want).enable = True

    def _do_save(self, want):
        store = self._store(want)
        target = next((one for one in self._root.targets if one.wwn == want["target"] and one.fabric_module.name == "iscsi"), None)
        config.save(config.merge_saved(config.load_saved(), want["name"], store.dump() if store else None,
                                       want["target"], target.dump() if target else None))
