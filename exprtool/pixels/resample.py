"""A picture between its pixels: moved without getting softer.

Half-way between two pixels, cubic interpolation keeps half of the finest detail. Here the picture is doubled first, its
own pixels kept and those between them found by windowed sinc over eight neighbours (C. Duchon, "Lanczos filtering in
one and two dimensions", 1979); in the doubled picture detail is twice as coarse, and cubics lose little of it. Those of
OpenCV even exaggerate it, as linear interpolation weakens it: mixed, they leave it as it was. That keeps as much as
sampling by Lanczos directly, in two thirds of the time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.types import Image

_LOBES = 4
_CUBIC = 0.75
"""Share of cubics in the mix with which the detail that the picture had neither gains nor loses."""
_REACH = _LOBES + 2
"""Pixels beyond a point that its value depends on."""


def resample(image: Image, columns: NDArray[np.float32], rows: NDArray[np.float32]) -> Image:
    """The picture (H, W, 3) at the points with these ``columns`` and ``rows``, both (h, w): (h, w, 3).

    At a pixel's centre it is that pixel's value to the bit. Beyond the picture its border goes on.
    """
    import cv2

    height, width = image.shape[:2]
    x0, x1 = _span(columns, width)
    y0, y1 = _span(rows, height)
    fine = doubled(image[y0:y1, x0:x1])
    columns, rows = 2 * (columns - x0), 2 * (rows - y0)
    cubic, linear = (
        cv2.remap(fine, columns, rows, kind, borderMode=cv2.BORDER_REPLICATE)
        for kind in (cv2.INTER_CUBIC, cv2.INTER_LINEAR)
    )
    return np.asarray(cv2.addWeighted(cubic, _CUBIC, linear, 1 - _CUBIC, 0), np.uint8)


def doubled(image: Image) -> Image:
    """(H, W, 3) -> (2H, 2W, 3): pixel (2y, 2x) is pixel (y, x), the others lie half-way between."""
    import cv2

    height, width = image.shape[:2]
    border, before = cv2.BORDER_REPLICATE, _LOBES - 1
    alone = np.ones(1, np.float32)
    across: Any = cv2.sepFilter2D(image, -1, _half_way(), alone, anchor=(before, 0), borderType=border)
    # Six channels of one picture lie in memory as three of one twice as wide; to merge takes a seventh of stacking.
    wide: Any = cv2.merge([image, across]).reshape(height, 2 * width, 3)
    down: Any = cv2.sepFilter2D(wide, -1, alone, _half_way(), anchor=(0, before), borderType=border)
    return np.stack([wide, down], axis=1).reshape(2 * height, 2 * width, 3)


@cache
def _half_way() -> NDArray[np.float32]:
    at = np.arange(2 * _LOBES) - _LOBES + 0.5
    weights = np.sinc(at) * np.sinc(at / _LOBES)
    return (weights / weights.sum()).astype(np.float32)


def _span(at: NDArray[np.float32], count: int) -> tuple[int, int]:
    """From where to where, of ``count``, pixels decide about the values at these coordinates; one at least."""
    low = int(np.clip(np.floor(at.min()) - _REACH, 0, count - 1))
    return low, int(np.clip(np.ceil(at.max()) + _REACH + 1, low + 1, count))
