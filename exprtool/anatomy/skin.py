"""The light on a face and the tones of its photo, as its skin tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.tone import Tone, tone_of
from exprtool.pixels.ramps import LUMA
from exprtool.types import Image

"""How much red, green and blue count for brightness (ITU-R BT.601)."""
_LIT = 0.75
"""Quantile of the skin's luma that is fully lit."""
_PALE, _PALER = 0.36, 0.8
"""Redness of what is no tooth: this much, or in warm light a share of the skin's."""
_DARKEST, _BLACK, _HAZE = 0.005, 0.07, 0.7
"""Quantile of a face's luma that is as dark as it gets (pupils, nostrils, lashes), how dark that usually is, and how
much of what it is brighter lies over the photo: mouths are darker than nostrils."""
_STEP = 3
"""Every third pixel of every third row is enough of them."""
_ENOUGH = 70
"""Pixels of skin from which on they tell whether a photo has colours."""
_COLOURED = Tone(0.0, np.zeros((3, 2), np.float32))


@dataclass(frozen=True, eq=False)
class Skin:
    """``lit`` is the luma in [0, 1] of fully lit skin, None where none is to be seen; ``tone`` brings painted colours
    to those of a grey or sepia photo; ``redness`` (`redness_of`) and ``colour`` in [0, 1] are the skin's; ``haze`` in
    [0, 1) is the light that lies over all of the photo, its darkest parts included."""

    lit: float | None = None
    tone: Tone = _COLOURED
    redness: float = 0.0
    colour: tuple[float, float, float] = (0.75, 0.56, 0.48)
    haze: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def red(self) -> float:
        """Redness from which on something in the mouth is lip, gum or tongue and no tooth."""
        return max(_PALE, _PALER * self.redness)

    def plain(self, shading: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log factors (..., 3) without the warmth that skin's shadows have, in a photo that has no colours."""
        if self.tone.monochrome <= 0:
            return shading
        grey = np.asarray(shading @ LUMA, np.float32)[..., None]
        return np.asarray(shading + self.tone.monochrome * (grey - shading), np.float32)


def look_at_skin(photo: Image, points: NDArray[Any]) -> Skin:
    """The skin of a face with landmarks ``points`` (68, 2) in the pixels of the ``photo`` (H, W, 3)."""
    features = filled(photo, points[17:22], points[22:27], points[36:42], points[42:48], points[48:60])
    outline, reach = filled(photo, points), np.ones((9, 9), np.uint8)
    bare = outline > cv2.dilate(features, reach)
    pixels = photo[::_STEP, ::_STEP][bare[::_STEP, ::_STEP]] / np.float32(255)
    if not len(pixels):
        return Skin()
    tone = tone_of(pixels) if len(pixels) >= _ENOUGH else _COLOURED
    red, green, blue = np.median(pixels, axis=0)
    around = cv2.dilate(outline, reach) > 0
    face = photo[::_STEP, ::_STEP][around[::_STEP, ::_STEP]] / np.float32(255)
    luma = face @ LUMA
    darkest = face[luma <= np.quantile(luma, _DARKEST)].mean(0)
    haze = _HAZE * np.maximum(darkest - _BLACK, 0)
    return Skin(
        float(np.quantile(pixels @ LUMA, _LIT)),
        tone,
        float(np.median(redness_of(pixels))),
        (float(red), float(green), float(blue)),
        (float(haze[0]), float(haze[1]), float(haze[2])),
    )


def redness_of(colour: NDArray[Any]) -> NDArray[Any]:
    """How much more red than blue, beside the luma, (...,) of colours (..., 3) in [0, 1]."""
    return (colour[..., 0] - colour[..., 2]) / (colour @ LUMA + 0.02)


def filled(photo: Image, *outlines: NDArray[Any]) -> NDArray[np.uint8]:
    """1 inside the convex hulls of points (n, 2) in pixels, (H, W)."""
    area = np.zeros(photo.shape[:2], np.uint8)
    for outline in outlines:
        cv2.fillConvexPoly(area, cv2.convexHull(np.rint(outline).astype(np.int32)), (1,))
    return area
