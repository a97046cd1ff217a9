"""Soft steps between two values, and the weights by which colours become brightness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in brightness (ITU-R BT.601, equation for E'Y)."""


def cubic(t: Any) -> Any:
    """3t^2 - 2t^3: from 0 to 1 for t in [0, 1], level at both ends. Takes numbers, arrays and tensors."""
    return t * t * (3 - 2 * t)


def smoothstep(x: Any) -> Any:
    """0 up to ``x`` = 0, 1 from ``x`` = 1, `cubic` between; the shape and float type of ``x``."""
    return cubic(np.clip(x, 0, 1))


@dataclass(frozen=True)
class Ramp:
    """A soft step: 0 up to ``low``, 1 from ``high`` on, smooth between. With ``high`` below ``low`` it falls."""

    low: float
    high: float

    def __call__(self, x: Any) -> Any:
        """Where each ``x`` stands on the way from ``low`` to ``high``, in [0, 1]; the shape and float type of ``x``."""
        return smoothstep((x - self.low) / (self.high - self.low))
