"""How a clip's stored pictures are turned to stand upright, from the container's display matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from exprtool.types import IntBox

Array = TypeVar("Array", bound=NDArray[Any])


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture: swap the axes first, then mirror along upright x and y.

    ``matrix`` is the display matrix as it stood in the file (nine integers, 16.16 fixed point, rows
    ``a b u / c d v / x y w``; a point maps to ``x' = a x + c y``, ``y' = b x + d y``), or None where there was none.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    matrix: tuple[int, ...] | None = None

    @classmethod
    def from_matrix(cls, matrix: Sequence[int]) -> Orientation:
        """Read a display matrix; one that is no multiple of a right angle is kept for the file but not applied."""
        values = tuple(int(value) for value in matrix)
        a, b, _, c, d = values[:5]
        if a and d and not b and not c:
            return cls(False, a < 0, d < 0, values)
        if b and c and not a and not d:
            return cls(True, c < 0, b < 0, values)
        return cls(matrix=values)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The upright (h, w) of a stored picture of this size; the same call maps back."""
        return (width, height) if self.transpose else (height, width)

    def upright(self, stored: Array) -> Array:
        """A view of a stored array (H, W, ...) that stands upright."""
        view = np.swapaxes(stored, 0, 1) if self.transpose else stored
        return view[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]  # type: ignore[return-value]

    def stored(self, upright: Array) -> Array:
        """The inverse of `upright`."""
        view = upright[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.swapaxes(view, 0, 1) if self.transpose else view  # type: ignore[return-value]

    def stored_box(self, box: IntBox, upright_size: tuple[int, int]) -> IntBox:
        """The pixel range of the stored picture that an upright one shows; ``upright_size`` is its (h, w)."""
        (x0, y0, x1, y1), (height, width) = box, upright_size
        if self.flip_x:
            x0, x1 = width - x1, width - x0
        if self.flip_y:
            y0, y1 = height - y1, height - y0
        return (y0, x0, y1, x1) if self.transpose else (x0, y0, x1, y1)
