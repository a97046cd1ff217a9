"""Where a photo ends: what lies beyond is not known, and no edit may bring it in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_YIELD = 0.6
"""Share of its distance from the photo's border by which a pixel is moved toward it at most: all that is shown lies in
the photo, and nothing folds over."""
_FAR = 25.0
"""Where the border is so many times as far away as anything moves, it matters to nothing."""


def hold_within(flow: NDArray[np.float32], origin: tuple[int, int], image_size: tuple[int, int] | None) -> None:
    """Let a backward ``flow`` (h, w, 2), in the photo's pixels, come to rest toward the borders of a photo of
    ``image_size`` (h, w) that it leads out of, in place.

    Its first pixel is the photo's at ``origin`` (x, y). Motion away from a border, as of a jaw that drops out of the
    picture, stays. Nothing is done where the photo's size is not known.
    """
    if image_size is None or not flow.size:
        return
    for axis in (0, 1):
        along: NDArray[Any] = flow[..., axis]
        furthest = float(np.abs(along).max())
        count, last = along.shape[1 - axis], image_size[1 - axis] - 1
        if min(origin[axis], last - (origin[axis] + count - 1)) > _FAR * furthest:
            continue
        at = np.arange(origin[axis], origin[axis] + count, dtype=np.float32)
        before, after = (_YIELD * np.maximum(away, 0) for away in (at, last - at))
        if axis == 1:
            before, after = before[:, None], after[:, None]
        allowed = np.where(along < 0, before, after)
        along *= allowed / np.sqrt(allowed**2 + along**2 + 1e-12)  # a soft minimum: the slowing has no edge
