"""Which pixels between open lips are teeth: bright for that mouth, and paler than its lips, in whatever light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.pixels.ramps import LUMA

_RING = 4.5, 11.0
"""From which to which distance from the opening, in mm, what surrounds it tells the light."""
_LIT = 0.7
"""Quantile of its luma that is fully lit skin."""
_GREY = 6
"""Difference between the channels, of 255, up to which a picture is grey."""
_LIPS = 2.2
"""Width in mm of the lips around the opening that teeth are compared with."""
_LEAST_LIGHT, _BRIGHTEST = 0.33, 0.55
"""Luma of teeth at least, as a share of the lit skin's and of the brightest in the mouth."""
_RED = 0.85, 0.8
"""Redness of teeth at most, as a share of the skin's and of the lips'."""
_ENAMEL = np.array([[0.87, 0.33, -0.02], [-0.06, 0.48, 0.02]], np.float32)
"""Chroma (R - Y, B - Y) / Y of teeth from (skin's, skin's, 1), by least squares over 83 people who show both: error .08
and .07, leaving each out in turn. The white of their eyes, which lies in the shade, tells it half as well."""
_ENOUGH = 30
"""Pixels between the lips below which there is nothing to tell."""


@dataclass(frozen=True)
class Surroundings:
    """Of the skin around a mouth: ``lit``, the luma of what is fully lit, in levels of 255; its ``redness``
    (`redness_of`); whether the picture is ``grey``; and its ``colour``, at luma 1."""

    lit: float = 160.0
    redness: float = 0.3
    grey: bool = False
    colour: tuple[float, float, float] = (1.25, 0.93, 0.8)


def redness_of(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Red over green, above 1, (...,) of colours (..., 3) in levels of 255."""
    return np.maximum(rgb[..., 0] / (rgb[..., 1] + 4) - 1, 0).astype(np.float32)


def surroundings_of(rgb: NDArray[np.float32], inside: NDArray[np.bool_], per_mm: float) -> Surroundings:
    """``rgb`` (H, W, 3) in levels of 255, ``inside`` (H, W) what is between the lips."""
    near, far = (_within(inside, away * per_mm) for away in _RING)
    ring = far & ~near
    if not ring.any():
        return Surroundings()
    around = rgb[ring]
    lit = max(20.0, float(np.quantile(around @ LUMA, _LIT)))
    red = max(0.08, float(np.median(redness_of(around))))
    red_, green, blue = np.median(around, axis=0) / max(float(np.median(around @ LUMA)), 1.0)
    grey = float(np.median(np.ptp(around, axis=-1))) < _GREY
    return Surroundings(lit, red, grey, (float(red_), float(green), float(blue)))


def enamel_of(skin: NDArray[np.float32]) -> NDArray[np.float32]:
    """The colour (3,) of luma 1 that teeth have in the light that falls on ``skin`` (3,): warm in a lamp's, blue in the
    shade's."""
    luma = max(float(skin @ LUMA), 1e-3)
    red, blue = _ENAMEL @ np.array([skin[0] / luma - 1, skin[2] / luma - 1, 1], np.float32)
    green = -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1]
    return np.maximum(1 + np.array([red, green, blue], np.float32), 0).astype(np.float32)


def teeth_in(
    rgb: NDArray[np.float32], inside: NDArray[np.bool_], around: Surroundings, per_mm: float
) -> NDArray[np.bool_]:
    """Where between the lips, ``inside`` (H, W), a picture (H, W, 3) in levels of 255 shows teeth."""
    nothing = np.zeros_like(inside)
    if inside.sum() < _ENOUGH:
        return nothing
    luma = rgb @ LUMA
    least = max(_LEAST_LIGHT * around.lit, _BRIGHTEST * float(np.quantile(luma[inside], 0.95)))
    bright = inside & (luma > least)
    lips = _within(inside, _LIPS * per_mm) & ~inside
    if not around.grey and lips.any() and bright.any():
        redness = redness_of(rgb)
        lips_red, palest = max(float(np.median(redness[lips])), 0.05), float(np.quantile(redness[bright], 0.15))
        if palest > _RED[0] * around.redness or palest > _RED[1] * lips_red:
            return nothing
        bright &= redness < min(0.5 * (palest + lips_red), around.redness)
    gap = np.ones((2 * round(0.5 * per_mm) + 1, 2 * round(per_mm) + 1))
    return (cv2.morphologyEx(bright.astype(np.uint8), cv2.MORPH_CLOSE, gap) > 0) & inside


def _within(inside: NDArray[np.bool_], away: float) -> NDArray[Any]:
    """Where something ``inside`` is no further away than so many pixels, along rows and columns."""
    side = 2 * round(away) + 1
    return cv2.blur(inside.astype(np.float32), (side, side), borderType=cv2.BORDER_CONSTANT) > 0.5 / side**2
