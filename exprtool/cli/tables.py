"""Lists for people: a table on a terminal, plain lines of the whole text where the output goes elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from exprtool.cli import printing
from exprtool.cli.printing import printable

Row = Sequence[str | tuple[str, str]]
"""Cells of one line: a text, or (text, style). A text may have several lines: whoever joins them calls `printable` on
what comes from outside."""

GOOD, NOTE, BAD, FAINT = "green", "yellow", "red", "dim"


def show_table(headings: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table to stdout. Texts are taken as they are: brackets in a file name are no markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from exprtool.cli.console import SafeConsole

    if not sys.stdout.isatty():
        for row in rows:
            # Columns are told apart by tabs, which no cell can hold.
            printing.raw_line("\t".join(" | ".join(_text(cell).split("\n")) for cell in row))
        return
    long = any("\n" in _text(cell) for row in rows for cell in row)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, leading=1 if long else 0)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(_text(cell), style="" if isinstance(cell, str) else cell[1]) for cell in row))
    SafeConsole(highlight=False).print(table)


def _text(cell: str | tuple[str, str]) -> str:
    return "\n".join(printable(line) for line in (cell if isinstance(cell, str) else cell[0]).split("\n"))


def show_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    printing.json_line(value, indent=2)


def show_text(*parts: str | tuple[str, str], error: bool = False) -> None:
    """Print one line of (text, style) parts to stdout, or to stderr."""
    from rich.text import Text

    from exprtool.cli.console import SafeConsole

    console = SafeConsole(stderr=error, highlight=False, soft_wrap=True)
    console.print(Text.assemble(*parts))
