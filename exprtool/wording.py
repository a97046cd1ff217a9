"""Numbers in messages."""

from __future__ import annotations


def told_apart(value: float, limit: float, digits: int = 0) -> tuple[str, str]:
    """Both numbers with at least ``digits`` decimals, and with as many more as it takes to see that they differ."""
    while f"{value:.{digits}f}" == f"{limit:.{digits}f}" and value != limit and digits < 9:
        digits += 1
    return f"{value:.{digits}f}", f"{limit:.{digits}f}"
