"""The small upright picture of a mouth that the network of `exprtool.anatomy.interior` paints in, and what it is told.

Conventions: crop pixels, (x, y), (0, 0) the centre of the top left one; x to the viewer's right along the line through
the eyes, y down. Lengths in mm of the face count `EYES_APART` for the distance between the eyes' centres.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

EYES_APART = 63.0
"""Distance between the pupils in mm: mean of men and women (N. A. Dodgson, "Variation and extrema of human
interpupillary distance", 2004)."""
PER_MM = 1.8
"""Pixels of the crop for each mm of the face."""
WIDTH, HEIGHT = 128, 96
"""Size of the crop: 71 x 53 mm hold the widest smile and the lowest jaw."""
_SOFT = 0.4
"""Over how many mm the edge of a row of teeth comes and goes."""
CHANNELS = 10
"""Of the network's input: 3 of the picture, hole, opening, 2 zones of teeth, tongue, dark, distance from the middle."""


@dataclass(frozen=True, eq=False)
class Wish:
    """What is to be seen in an open mouth.

    ``upper`` and ``lower`` (n, 2) are lines in crop pixels, x rising: above the first and below the second are teeth.
    None where no such teeth show. ``tongue`` and ``dark`` in [0, 1] are shares of the opening that are tongue, and that
    are all but black.
    """

    upper: NDArray[np.floating] | None
    lower: NDArray[np.floating] | None
    tongue: float
    dark: float


def crop_from_points(landmarks68: NDArray[np.floating], middle: NDArray[np.floating]) -> NDArray[np.float64]:
    """The matrix (2, 3) from the points of a picture to the crop, of the size that the eyes in ``landmarks68`` (68, 2)
    tell, with ``middle`` (2,), in the same picture, in its centre."""
    right, left = landmarks68[36:42].mean(0), landmarks68[42:48].mean(0)
    across = (left - right) / (np.hypot(*(left - right)) ** 2) * EYES_APART * PER_MM
    linear = np.array([[across[0], across[1]], [-across[1], across[0]]])
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    return np.c_[linear, centre - linear @ middle].astype(np.float64)


def middle_of(landmarks68: NDArray[np.floating], opening: NDArray[np.floating]) -> NDArray[np.float64]:
    """The centre of the crop: across under the middle of the upper lip, where the teeth's is, down that of the
    ``opening`` (n, 2), points around it."""
    right, left = landmarks68[36:42].mean(0), landmarks68[42:48].mean(0)
    across = (left - right) / np.hypot(*(left - right))
    down = np.array([-across[1], across[0]])
    lip = (landmarks68[51] + landmarks68[62] + landmarks68[33]) / 3
    along = opening @ down
    return np.asarray((lip @ across) * across + (along.min() + along.max()) / 2 * down, np.float64)


def told(opening: Floats, hole: Floats, wish: Wish) -> Floats:
    """The network's input but for the picture, (CHANNELS - 3, H, W).

    ``opening`` (H, W) in [0, 1] is what is between the lips, ``hole`` (H, W) what is to be painted.
    """
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    columns = np.arange(WIDTH, dtype=np.float32)

    def zone(line: NDArray[np.floating] | None, sign: int) -> Floats:
        if line is None:
            return np.zeros_like(opening)
        away = sign * (rows - np.interp(columns, line[:, 0], line[:, 1])[None].astype(np.float32))
        return (opening / (1 + np.exp(np.clip(-away / (_SOFT * PER_MM), -30, 30)))).astype(np.float32)

    aside = np.abs(columns - (WIDTH - 1) / 2) / (WIDTH / 2)
    return np.stack(
        [
            hole,
            opening,
            zone(wish.upper, -1),
            zone(wish.lower, 1),
            opening * np.float32(wish.tongue),
            opening * np.float32(wish.dark),
            np.broadcast_to(aside, opening.shape),
        ]
    ).astype(np.float32)


def grown(opening: Floats, beyond: float) -> Floats:
    """The opening (H, W) and what lies within ``beyond`` mm of it; soft over a pixel."""
    away = cv2.distanceTransform((opening < 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return np.maximum(opening, np.clip(beyond * PER_MM + 0.5 - away, 0, 1)).astype(np.float32)
