# Copyright (c) 2026, the indestructible.block authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!
"""The command `indestructible` as one file: a zip archive of this very code that Python runs. The same code gives the same bytes.

It holds the code compiled, too, which takes half of the time from each start. Another Python than the one that made it goes by the source.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import pkgutil
import sys
import zipfile

PACKAGE = "indestructible_block"
_MAIN = f"import sys\n\nfrom {PACKAGE}._command import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNCHECKED = 1  # a .pyc that goes by the hash of its source, and is not held against it again at each start (PEP 552)
_PLAIN = 2  # the newest version of marshal whose bytes do not depend on what else holds an object


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
        if sys.version_info >= (3, 11):  # before that the bytes of a set depend on the process
            files.update({f"{name}c": _compiled(name, text) for name, text in files.items()})
        for name in sorted(files):
            about = zipfile.ZipInfo(name, _EPOCH)
            about.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(about, files[name])
    return f"#!{python} -I\n".encode() + buffer.getvalue()


def _compiled(name, text):
    """Bytes of the .pyc of a file."""
    code = compile(text, name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little") + importlib.util.source_hash(text.encode()) + marshal.dumps(code, _PLAIN)
