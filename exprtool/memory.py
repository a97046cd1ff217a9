"""How large a photo may be here, and how many may be in memory at once."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from exprtool.pictures.reading import MAX_PIXELS

BYTES_PER_PIXEL = 40
"""What reading and writing a photo takes at its peak, for each of its pixels: measured at 16 and 36 megapixels, 14 for
JPEG and 36 for 16-bit TIFF with alpha; the rest is for the faces."""
_SHARE = 0.6
"""Of the machine's memory: other programs and the models need theirs."""
_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9}


def machine_memory() -> int | None:
    """Bytes of memory that this process may use, as far as the system tells (physical memory, cgroup's limit)."""
    sizes: list[int] = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return min(sizes, default=None)


def default_max_pixels() -> int:
    """The largest photo that this machine has memory for, in pixels; at most `MAX_PIXELS`."""
    memory = machine_memory()
    return MAX_PIXELS if memory is None else min(MAX_PIXELS, int(memory * _SHARE / BYTES_PER_PIXEL))


def parse_pixels(text: str) -> int:
    """A number of pixels as users write it: 50000000, 50M, 50MP. Raises ValueError for anything else and for 0."""
    number = text.strip().lower().removesuffix("pixels").removesuffix("p").strip()
    factor = _SUFFIXES.get(number[-1:], 1.0)
    pixels = float(number[:-1] if number[-1:] in _SUFFIXES else number) * factor
    if not 1 <= pixels <= 1e12:
        raise ValueError(text)
    return int(pixels)


class Closed(Exception):
    """The run ended while a photo waited for its turn."""


class PixelBudget:
    """Lets photos into memory in their order, as long as all that are in have no more than ``total`` pixels together.

    One photo is always let in, however large it is. Each takes a `ticket` in the order of its turn, `enter`s once and
    `leave`s with the same number of pixels.
    """

    def __init__(self, total: int) -> None:
        self._total, self._used = total, 0
        self._tickets = self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets - 1

    def enter(self, ticket: int, pixels: int) -> None:
        """Wait until it is this ticket's turn and there is room; raises `Closed` where the run ends before."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed or (self._turn == ticket and (self._used == 0 or self._used + pixels <= self._total))
                )
            )
            if self._closed:
                raise Closed
            self._turn += 1
            self._used += pixels
            self._changed.notify_all()

    def leave(self, pixels: int) -> None:
        with self._changed:
            self._used -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Send away all that still wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
