"""Soft steps for the compiled loops."""

from __future__ import annotations

from numba import njit

from exprtool.pixels.ramps import cubic

eased = njit(cache=True)(cubic)
"""`exprtool.pixels.ramps.cubic`, compiled."""


@njit(cache=True)
def rise(value, low, high):  # pragma: no cover - compiled
    """`exprtool.pixels.ramps.Ramp` for one number."""
    return eased(min(max((value - low) / (high - low), 0.0), 1.0))
