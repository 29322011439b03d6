# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The command `indestructible` as one file: a zip archive of this very code that Python runs. The same code gives the same bytes."""

from __future__ import annotations

import io
import pkgutil
import zipfile

PACKAGE = "indestructible_block"
_MAIN = f"import sys\n\nfrom {PACKAGE}._command import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def sources(package):
    """dict of file names and texts of the modules of a package (list of str: its __path__), from wherever it was imported."""
    found = {}
    for entry in pkgutil.iter_modules(package):
        if entry.name.startswith("_"):
            finder = entry.module_finder.find_spec(entry.name)
            found[f"{entry.name}.py"] = finder.loader.get_source(finder.name if "." in finder.name else entry.name)
    return found


def archive(texts, python):
    """Bytes of the program: texts is what sources() gave, python the path of the interpreter."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        files = {"__main__.py": _MAIN, f"{PACKAGE}/__init__.py": "", **{f"{PACKAGE}/{name}": text for name, text in texts.items()}}
        for name in sorted(files):
            about = zipfile.ZipInfo(name, _EPOCH)
            about.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(about, files[name])
    return f"#!{python} -I\n".encode() + buffer.getvalue()
