"""The one place that prints: results on stdout, everything else on stderr.

File names, model cards and plugins' words come from outside. Whatever is printed passes `printable`, so that nothing
in them can steer the terminal or pass itself off as a line of exprtool's own. A stdout that takes no more (a full disk,
a closed pipe) is said once and ends with exit code 1; the work itself goes on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exprtool.cli.words import lose_stdout, printable, say, stdout_was_lost

if TYPE_CHECKING:
    from exprtool.cli.console import SafeConsole
    from exprtool.errors import ExprtoolError

__all__ = [
    "complain", "console", "json_line", "line", "lines", "lose_stdout", "printable", "raw_line", "say",
    "stdout_was_lost",
]  # fmt: skip


def line(text: str = "") -> None:
    """Print one line of results on stdout."""
    _to_stdout(printable(text))


def raw_line(text: str) -> None:
    """Print a line whose parts have been made `printable` one by one."""
    _to_stdout(text)


def lines(text: str) -> None:
    """Print a text of several lines on stdout, such as a table in Markdown."""
    for one in text.removesuffix("\n").split("\n"):
        line(one)


def json_line(value: Any, *, indent: int | None = None) -> None:
    """Print a JSON document on stdout, in ASCII: a file's name may hold what no encoding or terminal can."""
    _to_stdout(json.dumps(value, indent=indent))


def complain(error: ExprtoolError) -> None:
    """Print an error, each of its lines on one of its own."""
    first, *more = error.args or ("",)
    say(f"exprtool: {first}")
    for one in more:
        say(one)


def _to_stdout(text: str) -> None:
    try:
        try:
            print(text, flush=True)
        except UnicodeEncodeError:
            print(text.encode("ascii", "backslashreplace").decode("ascii"), flush=True)
    except (OSError, ValueError) as error:  # ValueError: somebody closed it
        lose_stdout(error)


def console() -> SafeConsole:
    """The console for everything that is not the result itself; stdout carries results alone."""
    from exprtool.cli.console import SafeConsole

    return SafeConsole(stderr=True, highlight=False, soft_wrap=True)
