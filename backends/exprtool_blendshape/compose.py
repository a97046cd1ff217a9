"""From the working grid back to the photo: the one place that samples the photo's own pixels at their own resolution.

The edited picture is the photo moved by the flow, under the gain, with what is painted laid over it. Where the edit
changes nothing, alpha is exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.types import Face
from exprtool_blendshape import shading
from exprtool_blendshape.render import Changes, FaceLook

MOVES = (0.02, 0.12)
"""Flow in region pixels from which alpha rises, and at which it is full; below, moved and unmoved look the same."""
LIGHTENS = (0.002, 0.012)
"""The same for the log gain."""


def compose(
    face: FaceLook, edit: Changes
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Pixels (h, w, 3) uint8, alpha (h, w), backward flow (h, w, 2) in region pixels and painted (h, w) of the region."""
    region = face.region.pixels
    h, w = region.shape[:2]
    pixels = np.array(region)
    alpha = np.zeros((h, w), np.float32)
    flow = np.zeros((h, w, 2), np.float32)
    painted = np.zeros((h, w), np.float32)

    y0, y1, x0, x1 = _reach(face, (h, w))
    if y1 <= y0 or x1 <= x0:
        return pixels, alpha, flow, painted
    size = (x1 - x0, y1 - y0)
    window_from_work = face.frame.region_from_work.copy()
    window_from_work[:, 2] -= [x0, y0]

    # a region coarser than the working grid needs the painted layers averaged, not picked
    soften = 0.45 / face.frame.scale if face.frame.scale > 1.3 else 0.0

    def lifted(values: NDArray[np.float32], smooth: bool = False) -> NDArray[np.float32]:
        if smooth and not soften:
            return cv2.warpAffine(values, window_from_work, size, flags=cv2.INTER_LINEAR)
        if smooth:
            values = cv2.GaussianBlur(values, (0, 0), 0.45 * face.frame.scale)
        return cv2.warpAffine(values, window_from_work, size, flags=cv2.INTER_LINEAR)

    moved = lifted(edit.flow) @ face.frame.region_from_work[:, :2].T.astype(np.float32)
    gain = lifted(edit.log_gain)
    paint = lifted(edit.alpha, smooth=True)

    columns = np.arange(x0, x1, dtype=np.float32)[None] + moved[..., 0]
    rows = np.arange(y0, y1, dtype=np.float32)[:, None] + moved[..., 1]
    warped = cv2.remap(region, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    out = shading.applied(warped.astype(np.float32) / 255, gain, 1 - face.tone.monochrome)

    here = np.flatnonzero(paint.max(1) > 0)
    if len(here):
        band = slice(here[0], here[-1] + 1)
        across = np.flatnonzero(paint.max(0) > 0)
        box = (band, slice(across[0], across[-1] + 1))
        keep = lifted(edit.keep, smooth=True)[box][..., None]
        colour = lifted(edit.colour, smooth=True)[box]
        shade = lifted(edit.shade, smooth=True)[box][..., None]
        own = region[y0:y1, x0:x1][box].astype(np.float32) / 255
        layer = (own * keep + colour * (1 - keep)) * shade
        a = paint[box][..., None]
        out[box] = out[box] * (1 - a) + layer * a

    changed = np.maximum(
        _rising(np.hypot(moved[..., 0], moved[..., 1]), MOVES), _rising(np.abs(gain), LIGHTENS)
    )
    changed = np.maximum(changed, paint)
    changed *= _off_others(face.region.others, face, (y0, y1, x0, x1))
    changed[changed < 1 / 512] = 0
    window = (slice(y0, y1), slice(x0, x1))
    patch = np.clip(out * 255 + 0.5, 0, 255).astype(np.uint8)
    pixels[window] = np.where(changed[..., None] > 0, patch, pixels[window])
    alpha[window] = changed
    flow[window] = moved * (changed > 0)[..., None]
    painted[window] = paint * (changed > 0)
    return pixels, alpha, flow, painted


def _reach(face: FaceLook, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows y0:y1 and columns x0:x1 of the region that the working grid covers."""
    h, w = face.frame.shape
    corners = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], dtype=np.float64)
    inverse = face.frame.region_from_work
    points = corners @ inverse[:, :2].T + inverse[:, 2]
    low = np.floor(points.min(0)).astype(int)
    high = np.ceil(points.max(0)).astype(int) + 1
    return max(low[1], 0), min(high[1], shape[0]), max(low[0], 0), min(high[0], shape[1])


def _rising(value: NDArray[np.float32], bounds: tuple[float, float]) -> NDArray[np.float32]:
    t = np.clip((value - bounds[0]) / (bounds[1] - bounds[0]), 0, 1)
    return t * t * (3 - 2 * t)


def _off_others(others: Sequence[Face], face: FaceLook, window: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """1, falling to 0 on the other faces of the photo, except inside this face's own outline."""
    y0, y1, x0, x1 = window
    free = np.ones((y1 - y0, x1 - x0), np.float32)
    if not others:
        return free
    u = face.fit.camera.scale
    taken = np.zeros(free.shape, np.uint8)
    for other in others:
        if other.landmarks68 is not None:
            points = face.region.to_region(other.landmarks68)
            brows, chin = points[17:27].mean(0), points[8]
            outline = np.concatenate([points, points[17:27] + 0.6 * (brows - chin)])
            hull = cv2.convexHull(np.round(outline - [x0, y0]).astype(np.int32))
        else:
            a, b, c, d = other.box
            box = face.region.to_region(np.array([[a, b], [c, b], [c, d], [a, d]])) - [x0, y0]
            hull = np.round(box).astype(np.int32)
        cv2.fillConvexPoly(taken, hull, 1)
    own = cv2.convexHull(np.round(face.fit.landmarks - [x0, y0]).astype(np.int32))
    cv2.fillConvexPoly(taken, own, 0)
    if not taken.any():
        return free
    distance = cv2.distanceTransform(1 - taken, cv2.DIST_L2, 5)
    return np.clip(distance / max(1.5, 0.5 * u), 0, 1).astype(np.float32)
