"""rich's console, made safe for words that come from outside; see `exprtool.cli.printing`."""

from __future__ import annotations

import contextlib
from typing import Any

from rich.console import Console
from rich.text import Text

from exprtool.cli.printing import lose_stdout, printable


class SafeConsole(Console):
    """Every text is printed by `printable`; brackets in it are no markup unless ``markup=True`` is given.

    Cells of tables and descriptions of bars are not texts of their own: who makes them calls `printable`.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        options.setdefault("markup", False)
        try:
            super().print(*map(_harmless, objects), **options)
        except (OSError, ValueError) as error:
            if not self.stderr:
                lose_stdout(error)

    def trace(self, text: str) -> None:
        """Print the many lines of a traceback."""
        for line in text.splitlines():
            self.print(line)

    def __exit__(self, *exc: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().__exit__(*exc)


def _harmless(content: Any) -> Any:
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, Text):
        content = content.copy()
        content.plain = printable(content.plain)
    return content
