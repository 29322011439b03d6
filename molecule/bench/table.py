# Copyright (c) 2026, the indestructible.block authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that are Markdown and can be read as they stand."""

from __future__ import annotations

from play import human_size


class Table:
    """A title, a header, rows of text, and a note below."""

    def __init__(self, title, header, note=""):
        self.title, self.header, self.rows, self.note = title, list(header), [], note

    def add(self, *cells):
        """Add a row."""
        self.rows.append([str(cell) for cell in cells])

    def lines(self):
        """The lines of the table, without its title."""
        cells = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.header))]
        cells.insert(1, ["-" * width for width in widths])
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
        return lines + ["", self.note] if self.note else lines


def number(value):
    """A figure with as many digits as it deserves."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}" if value < 1 else f"{value:.3g}"


def human(size):
    """Bytes, rounded."""
    return human_size(round(size))
