"""Lists for people: a table on a terminal, plain lines of the whole text where the output goes elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

Row = Sequence[str | tuple[str, str]]
"""Cells of one line: a text, or (text, style). A text may have several lines."""

GOOD, NOTE, BAD, FAINT = "green", "yellow", "red", "dim"


def show_table(headings: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table to stdout. Texts are taken as they are: brackets in a file name are no markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(" | ".join(_text(cell).split("\n")) for cell in row))
        return
    long = any("\n" in _text(cell) for row in rows for cell in row)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, leading=1 if long else 0)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(_text(cell), style="" if isinstance(cell, str) else cell[1]) for cell in row))
    Console(highlight=False).print(table)


def _text(cell: str | tuple[str, str]) -> str:
    return printable(cell if isinstance(cell, str) else cell[0])


def printable(text: str) -> str:
    """The text without characters that would steer the terminal: names come from files and from strangers' plugins."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def show_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))


def show_text(*parts: str | tuple[str, str], error: bool = False) -> None:
    """Print one line of (text, style) parts to stdout, or to stderr."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=error, highlight=False, soft_wrap=True)
    console.print(Text.assemble(*((_text(part), "" if isinstance(part, str) else part[1]) for part in parts)))
