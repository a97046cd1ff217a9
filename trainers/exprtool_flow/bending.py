"""Bending a face into the shape of another: portraits are few, and a network that has seen few faces knows these.

Source and target are bent alike, smoothly and a little; the motion between them follows exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.types import Points

Field = NDArray[np.float32]
_KNOTS = 5
_ITERATIONS = 5


@dataclass(frozen=True, eq=False)
class Bend:
    """The bent crop shows at q what the crop has at q + ``shift``(q): (S, S, 2), in pixels of the crop."""

    shift: Field

    @classmethod
    def drawn(cls, size: int, amount: float, random: np.random.Generator) -> Bend:
        """``amount`` is the standard deviation at the knots of a grid over the crop, as a share of its side."""
        knots = random.normal(0, amount * size, (_KNOTS, _KNOTS, 2)).astype(np.float32)
        return cls(np.asarray(cv2.resize(knots, (size, size), interpolation=cv2.INTER_CUBIC), np.float32))

    def places(self, side: int) -> Field:
        """Where to look in a crop of ``side`` pixels for each of its pixels, (side, side, 2)."""
        size = self.shift.shape[0]
        shift = self.shift
        if side != size:
            shift = cv2.resize(shift, (side, side), interpolation=cv2.INTER_LINEAR) * np.float32(side / size)
        return _grid(side) + shift

    def flow(self, found: Field) -> Field:
        """The backward flow (S, S, 2) of the bent crops, of the flow that was found at `places`.

        The bent target shows at p the target's p + d(p), and so the source's p + d(p) + f; that lies in the bent source
        at the q with q + d(q) = p + d(p) + f, which a fixed-point iteration finds.
        """
        here = _grid(len(found))
        wanted = here + self.shift + found
        there = here + found
        for _ in range(_ITERATIONS):
            there = wanted - self._at(there)
        return there - here

    def points(self, points: Points) -> Points:
        """Where points (n, 2) of the crop, in its pixels, lie in the bent one."""
        wanted = np.asarray(points, np.float32)[None]
        there = wanted
        for _ in range(_ITERATIONS):
            there = wanted - self._at(there)
        return there[0].astype(np.float64)

    def _at(self, places: Field) -> Field:
        x, y = places[..., 0], places[..., 1]
        return np.asarray(cv2.remap(self.shift, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _grid(side: int) -> Field:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).astype(np.float32)
