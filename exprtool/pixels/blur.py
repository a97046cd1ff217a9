"""How sharp a photo is: the blur of its lens, measured from the picture itself.

Pictures of the same thing in other sizes have power spectra that fall by the same law, P(f) ~ f^-p (D. Field,
"Relations between the statistics of natural images and the response properties of cortical cells", 1987). Behind a
Gaussian of variance s^2 the energy of the Laplacian then is proportional to (s^2)^(p / 2 - 3), and blurring the picture
further adds to s^2 what is known. From two such energies follows s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.types import Image

USUAL = 0.6
"""Standard deviation, in pixels, of what an ordinary camera makes of a point: modulation is one half at 0.31 cycles per
pixel, in the middle of what lenses and colour filters leave of a well focused picture."""
LARGEST = 2.0
"""What is more blurred than that has no detail that could be lost."""
_ADDED = 0.6, 1.5
"""Standard deviations of the blurs that are added. Without the first, noise and compression would be measured."""
_SLOPE = 1.7
"""The power 3 - p / 2 of faces: with it, faces that are made 1.5 to 2.5 times as large are as much more blurred."""
_STRIPS, _ROWS = 4, 48
"""Of a large picture no more than so many strips, each of so many rows, are looked at."""
_LEAST = 12
"""Rows or columns below which there is nothing to measure."""


def measured_blur(image: Image) -> float:
    """Standard deviation in pixels of the blur of a picture (H, W, 3), of a face say, in [0, `LARGEST`]; `USUAL` where
    it is too small or shows too little to tell."""
    import cv2

    height, width = image.shape[:2]
    if min(height, width) < _LEAST:
        return USUAL
    energies = np.zeros(2)
    for start in _starts(height):
        grey = cv2.cvtColor(image[start : start + _ROWS], cv2.COLOR_RGB2GRAY).astype(np.float32)
        for place, sigma in enumerate(_ADDED):
            energies[place] += _energy(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), sigma), cv2.CV_32F))
    if energies.min() <= 0:
        return USUAL
    less, more = np.square(_ADDED)
    ratio = (energies[0] / energies[1]) ** (1 / _SLOPE)  # (s^2 + more) / (s^2 + less)
    if ratio <= 1:
        return LARGEST
    return float(np.sqrt(np.clip((more - ratio * less) / (ratio - 1), 0, LARGEST**2)))


def _starts(height: int) -> list[int]:
    if height <= _STRIPS * _ROWS:
        return list(range(0, height - _LEAST + 1, _ROWS))
    return [round(start) for start in np.linspace(0, height - _ROWS, _STRIPS)]


def _energy(laplacian: NDArray[Any]) -> float:
    """Away from the border, where blurs have made up what they did not know."""
    inner = laplacian[3:-3, 3:-3]
    return float((inner * inner).sum())
