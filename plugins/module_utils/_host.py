# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Whether a host can do the work: its packages, its kernel's modules, and kernels known to lose data. Changes and loads nothing."""

from __future__ import annotations

import os
import re

from ._core import Problem, read_text, run

DPKG_STATUS = "/var/lib/dpkg/status"
# Kernels that must not carry a mirror with a write-mostly leg: (first bad, first good again, why).
BAD_KERNELS = (
    # From commit e879a0d9cb08 (6.15, and 6.14.2) to 93dec51e716d. 6.6 and 6.12 took both in one release (6.6.136, 6.12.46), so they never had it.
    ((6, 14, 2), (6, 16, 6), "it loses writes to a write-mostly leg (kernel bug 220507)"),
)
# Whoever asks for one of these is going to build a mirror, so that the list above applies.
MIRROR_MODULES = ("md_mod", "nilfs2", "raid1")


def observe(packages, modules, units=(), files=()):
    """The host as it is: dict(kernel, kernel_version, os, missing_packages, modules, units, differing_files).

    packages, modules and units are lists of names, files of dict(path, content).
    """
    kernel = os.uname().release
    return {
        "kernel": kernel,
        "kernel_version": ".".join(str(part) for part in kernel_version(kernel, os.uname().version, read_text("/proc/version_signature", ""))),
        "os": parse_os_release(read_text("/etc/os-release") or read_text("/usr/lib/os-release", "")),
        "missing_packages": missing_packages(packages, read_text(DPKG_STATUS)) if packages else [],
        "modules": module_states(modules, kernel),
        "units": unit_states(units, _show(units)) if units else {},
        "differing_files": [file["path"] for file in files if not holds(file["path"], file["content"])],
    }


def refuse_unfit(host):
    """Raise Problem, in one message, for everything about an observed host that rules it out; packages can be installed."""
    problems = []
    missing = sorted(name for name, state in host["modules"].items() if state == "missing")
    if missing:
        problems.append(missing_modules_text(missing, host["kernel"], host["os"], os.path.isdir(f"/lib/modules/{host['kernel']}")))
    if any(name in MIRROR_MODULES for name in host["modules"]):
        version = tuple(int(part) for part in host["kernel_version"].split("."))
        for first, good, why in BAD_KERNELS:
            if first <= version < good:
                line, level = "%d.%d" % good[:2], ".".join(str(part) for part in good)
                problems.append(
                    f"The kernel {host['kernel']} must not be used: {why}. Install {level} or a later {line}, or a kernel of another"
                    f" line such as 6.12, and reboot.")
    if problems:
        raise Problem(" ".join(problems))


def missing_modules_text(missing, kernel, system, has_modules):
    """Sentences that say which modules a kernel lacks and what to do. missing is a list, system a dict from parse_os_release."""
    what = f"The running kernel {kernel} has no module {' and no module '.join(missing)}."
    family = [system.get("ID", "")] + system.get("ID_LIKE", "").split()
    if not has_modules:
        return f"{what} It has no modules at all in /lib/modules/{kernel}: if another kernel was installed since the last boot, reboot into it."
    if "cloud" in kernel and "debian" in family:
        return f"{what} Debian's cloud kernels leave it out: install linux-image-amd64 (or the linux-image package of the architecture) and reboot into it."
    if "ubuntu" in family:
        return f"{what} Install linux-modules-extra-{kernel}, or linux-image-generic and reboot into it."
    if "fedora" in family and system.get("ID") == "fedora":
        return f"{what} Install kernel-modules-extra for this kernel."
    if any(name in family for name in ("rhel", "centos", "fedora")):
        return f"{what} No kernel of this distribution has it: use a host with Debian 12, Debian 13 or Ubuntu."
    return f"{what} Install a kernel that has it (on Debian: linux-image-amd64) and reboot into it."


def kernel_version(release, version="", signature=""):
    """The upstream version as (x, y, z) of a kernel: its release, the build text of uname, Ubuntu's version signature."""
    # Debian's release names an ABI (6.1.0-37) and Ubuntu's does too; both tell the upstream version elsewhere.
    found = re.search(r"\bDebian (\d+)\.(\d+)\.(\d+)", version) or re.search(r" (\d+)\.(\d+)\.(\d+)$", signature)
    found = found or re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if not found:
        raise Problem(f"the kernel release {release!r} cannot be understood")
    return tuple(int(part or 0) for part in found.groups())


def parse_os_release(text):
    """The variables of an os-release file as a dict."""
    found = re.findall(r"^([A-Z][A-Z0-9_]*)=(['\"]?)(.*)\2\s*$", text, re.MULTILINE)
    return {name: value for name, quote, value in found}


def missing_packages(packages, status):
    """Those of the packages that are not wholly installed, in their order; status is dpkg's status file (str), None without dpkg."""
    if status is None:
        raise Problem(
            f"this host has no {DPKG_STATUS}, so its packages cannot be checked; supported are Debian 12, Debian 13 and Ubuntu")
    installed = set()
    for paragraph in status.split("\n\n"):
        if "\nStatus: install ok installed" in paragraph:
            installed.add(paragraph.split("\n", 1)[0].partition(":")[2].strip())
    return [package for package in packages if package not in installed]


def _show(units):
    return run(["systemctl", "show", "--property=UnitFileState,ActiveState,NeedDaemonReload", "--", *units], ok=None).out


def unit_states(names, text):
    """For each unit dict(enabled, active, outdated), all bool, from what systemctl show tells of them, in their order; what it does not tell is False."""
    told = [set(part.splitlines()) for part in text.split("\n\n")] + [set()] * len(names)
    words = {"enabled": "UnitFileState=enabled", "active": "ActiveState=active", "outdated": "NeedDaemonReload=yes"}
    return {name: {key: word in lines for key, word in words.items()} for name, lines in zip(names, told)}


def holds(path, content):
    """Whether a file holds this text (str) and nothing else."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read() == content
    except OSError:  # whoever writes it will tell why
        return False


def module_states(names, kernel, root=""):
    """For each kernel module asked for: 'loaded', 'builtin', 'available' or 'missing'. root serves tests."""
    folder = f"{root}/lib/modules/{kernel}"
    loaded = {line.split(" ", 1)[0] for line in read_text(f"{root}/proc/modules", "").splitlines()}
    builtin = set(_modules_in(read_text(f"{folder}/modules.builtin", "")))
    available = set(_modules_in(read_text(f"{folder}/modules.dep", "")))
    # A kernel without a modules folder still lists what file systems it has.
    filesystems = {line.split()[-1] for line in read_text(f"{root}/proc/filesystems", "").splitlines() if line.strip()}
    states = {}
    for name in names:
        plain = name.replace("-", "_")
        if plain in loaded:
            states[name] = "loaded"
        elif plain in builtin or plain in filesystems:
            states[name] = "builtin"
        else:
            states[name] = "available" if plain in available else "missing"
    return states


def _modules_in(text):
    for line in text.splitlines():
        name = os.path.basename(line.split(":", 1)[0].strip())
        yield name.split(".ko", 1)[0].replace("-", "_")
