"""Faces that touch: what one edit does must not reach into the other face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exprtool.types import FaceRegion, Points

_FOREHEAD = 0.6
"""How far a face goes on above its brows, as a share of the height from chin to brows."""


def off_others(
    region: FaceRegion, own: Points, feather: float, window: tuple[int, int, int, int] | None = None
) -> NDArray[np.float32]:
    """1, falling to 0 over ``feather`` pixels toward the other faces of the photo, (h, w). What lies in the outlines of
    both is this face's own.

    ``own`` (68, 2) are this face's landmarks in the region's coordinates, ``window`` (y0, y1, x0, x1) the part of the
    region that is asked about, all of it where there is none.
    """
    import cv2

    y0, y1, x0, x1 = window or (0, region.pixels.shape[0], 0, region.pixels.shape[1])
    free = np.ones((y1 - y0, x1 - x0), np.float32)
    if not region.others:
        return free
    taken = np.zeros(free.shape, np.uint8)
    for other in region.others:
        if other.landmarks68 is not None:
            points = region.to_region(other.landmarks68)
            brows, chin = points[17:27].mean(0), points[8]
            outline = np.concatenate([points, points[17:27] + _FOREHEAD * (brows - chin)]) - [x0, y0]
        else:
            a, b, c, d = other.box
            outline = region.to_region(np.array([[a, b], [c, b], [c, d], [a, d]])) - [x0, y0]
        cv2.fillConvexPoly(taken, cv2.convexHull(np.round(outline).astype(np.int32)), (1,))
    cv2.fillConvexPoly(taken, cv2.convexHull(np.round(own - [x0, y0]).astype(np.int32)), (0,))
    if not taken.any():
        return free
    distance = cv2.distanceTransform(1 - taken, cv2.DIST_L2, 5)
    return np.clip(distance / feather, 0, 1).astype(np.float32)
