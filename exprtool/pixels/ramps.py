"""Soft steps between two values, and the weights by which colours become brightness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness (ITU-R BT.601, equation for E'Y)."""


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 up to ``x`` = 0, 1 from ``x`` = 1, and between them 3x^2 - 2x^3, which starts and ends level."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True)
class Ramp:
    """A soft step: 0 up to ``low``, 1 from ``high`` on, smooth between. With ``high`` below ``low`` it falls."""

    low: float
    high: float

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        """Where each ``x`` stands on the way from ``low`` to ``high``, in [0, 1]; the shape of ``x``."""
        return smoothstep((np.asarray(x) - self.low) / (self.high - self.low))
