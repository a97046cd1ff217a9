"""The photo's own tones: whatever is painted anew must be as grey, as sepia or as warm as the photo is.

Colours are RGB in [0, 1], gamma-encoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exprtool.anatomy.grids import Grid
from exprtool.pixels.ramps import LUMA, Ramp

_PLAIN, _COLOURED = 0.006, 0.0095
"""Scatter of chroma about its curve below which a photo is monochrome, above which it is in colour."""


@dataclass(frozen=True, eq=False)
class Tone:
    """``monochrome`` in [0, 1]; ``curve`` (3, 2): chroma (R - Y, B - Y) as a quadratic in luma."""

    monochrome: float
    curve: Grid

    def __call__(self, colour: Grid) -> Grid:
        """Painted colour (..., 3) in the photo's tones."""
        if self.monochrome <= 0:
            return colour
        luma = colour @ LUMA
        powers = np.stack([np.ones_like(luma), luma, luma * luma], -1)
        red_blue = powers @ self.curve
        red, blue = luma + red_blue[..., 0], luma + red_blue[..., 1]
        green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
        plain = np.stack([red, green, blue], -1)
        return (colour + np.float32(self.monochrome) * (plain - colour)).astype(np.float32)


def tone_of(face: Grid) -> Tone:
    """The tones of a face's pixels (n, 3) in [0, 1]: monochrome where chroma is a function of luma alone."""
    luma = face @ LUMA
    chroma = np.stack([face[:, 0] - luma, face[:, 2] - luma], -1)
    powers = np.stack([np.ones_like(luma), luma, luma * luma], -1)
    gram = powers.T @ powers + 1e-4 * len(luma) * np.diag([0.0, 0.01, 0.01])
    curve = np.linalg.solve(gram, powers.T @ chroma)
    scatter = float(np.sqrt(np.mean((chroma - powers @ curve) ** 2)))
    return Tone(1 - float(Ramp(_PLAIN, _COLOURED)(scatter)), curve.astype(np.float32))
