"""The one place that prints: results on stdout, everything else on stderr.

File names, model cards and plugins' words come from outside. Whatever is printed passes `printable`, so that nothing
in them can steer the terminal or pass itself off as a line of exprtool's own. A stdout that takes no more (a full disk,
a closed pipe) is said once and ends with exit code 1; the work itself goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exprtool.cli.console import SafeConsole
    from exprtool.errors import ExprtoolError

_STEERING = frozenset(("Cc", "Cf", "Cs", "Cn", "Zl", "Zp"))
"""Unicode's categories of characters without a shape: controls, directions of writing, halves of characters, lines."""
_JOINERS = "\u200c\u200d"
"""Of the category Cf, but a part of words in Persian and Hindi, and of emoji; they steer nothing."""

_stdout_lost = False


def printable(text: str) -> str:
    """The text on one line, characters that would steer the terminal written as in Python's strings."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if unicodedata.category(character) not in _STEERING or character in _JOINERS
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


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


def say(text: str) -> None:
    """Print one line on stderr."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens
        print(printable(text), file=sys.stderr, flush=True)


def complain(error: ExprtoolError) -> None:
    """Print an error, each of its lines on one of its own."""
    first, *more = error.args or ("",)
    say(f"exprtool: {first}")
    for one in more:
        say(one)


def stdout_was_lost() -> bool:
    """Whether something that belonged on stdout could not be printed."""
    return _stdout_lost


def lose_stdout(error: OSError | ValueError) -> None:
    """Say that stdout takes no more, and print there no longer."""
    global _stdout_lost
    if not _stdout_lost:
        say(f"exprtool: standard output cannot be written ({getattr(error, 'strerror', None) or error}); going on.")
    _stdout_lost = True
    # What could not be written is still in the buffer, and would be tried, and complained about, once more at the end.
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


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
