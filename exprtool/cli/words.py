"""Words for the terminal: made harmless, and lost without a traceback where nobody takes them; see `printing`."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata

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


def say(text: str) -> None:
    """Print one line on stderr."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens
        print(printable(text), file=sys.stderr, flush=True)


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
