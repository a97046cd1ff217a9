"""Where a photo ends: what lies beyond is not known, and no edit may bring it in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_YIELD = 0.6
"""Share of its distance from the photo's border by which a pixel is moved toward it at most: all that is shown lies in
the photo, and nothing folds over."""


def hold_within(flow: NDArray[np.float32], origin: tuple[int, int], image_size: tuple[int, int] | None) -> None:
    """Let a backward ``flow`` (h, w, 2), in the photo's pixels, come to rest toward the borders of a photo of
    ``image_size`` (h, w) that it leads out of, in place.

    Its first pixel is the photo's at ``origin`` (x, y). Motion away from a border, as of a jaw that drops out of the
    picture, stays. Nothing is done where the photo's size is not known.
    """
    if image_size is None or not flow.size:
        return
    for axis in (0, 1):
        along = flow[..., axis].T if axis == 0 else flow[..., axis]  # a view, the coordinate in question first
        count, last = len(along), image_size[1 - axis] - 1
        reach = 2 / _YIELD * float(np.abs(along).max())
        away = origin[axis] + np.arange(count, dtype=np.float32)
        for outward, distance in ((-1, away), (1, last - away)):
            near = np.flatnonzero(distance < reach)
            if len(near):
                part = along[near[0] : near[-1] + 1]
                part *= _yielding(part * outward, np.maximum(distance[near, None], 0))


def _yielding(toward: NDArray[np.float32], distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Factor on motion ``toward`` a border at some ``distance``: it is slowed smoothly from where the border is 3.3
    times as far away as it moves, to `_YIELD` of the distance."""
    share = np.minimum(np.float32(_YIELD) * distance / np.maximum(toward, np.float32(1e-6)), np.float32(2))
    return np.where(toward > 0, share - share * share / 4, np.float32(1))
