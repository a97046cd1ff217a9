"""Backward flow over the whole working grid: from the skin that the mesh covers out to where nothing moves.

Conventions
-----------
* Flow is backward: the edited picture at p shows what the photo had at p + flow(p). (H, W, 2) float32, x then y, in
  work pixels.
* Only skin that faces the viewer and belongs to the front of the face drives the flow. Around it (ears, hair, neck,
  background) and in the holes (eyes, mouth) the flow of the nearest skin goes on and fades out, the wider the more
  there is to lose, so that nothing folds over: a fade over 2.6 times the displacement keeps the slope below 0.6.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid, smooth
from exprtool.types import FaceRegion
from exprtool_blendshape.frame import WorkFrame

FADE_AT_BORDER = 0.5
"""Over this many cm an edit fades where the working grid ends."""
CELL = 0.25
"""Size (cm) of the cells in which the flow outside the mesh is worked out; it is smooth there."""
SHORTEST_FADE, FADE_SLOPE = 0.8, 2.6
"""The fade reaches this far (cm), or this many times the displacement, whichever is more."""


def extended(flow: Grid, known: NDArray[np.bool_], u: float) -> Grid:
    """The flow, kept where ``known`` (H, W), continued and faded out elsewhere; ``u`` is work pixels per cm."""
    height, width = known.shape
    cell = max(1, round(CELL * u))
    h, w = -(-height // cell), -(-width // cell)
    padded = ((0, h * cell - height), (0, w * cell - width))
    weight = np.pad(known.astype(np.float32), padded)
    share = weight.reshape(h, cell, w, cell).mean((1, 3))
    coarse = np.empty((h, w, 2), np.float32)
    for axis in range(2):
        moved = np.pad(flow[..., axis] * known, padded)
        coarse[..., axis] = moved.reshape(h, cell, w, cell).mean((1, 3)) / np.maximum(share, 1e-3)
    inside = share > 0.6
    if not inside.any():
        return np.zeros_like(flow)

    distance, nearest = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    origin = np.zeros(int(nearest.max()) + 1, np.int64)
    origin[nearest[inside]] = np.flatnonzero(inside)
    carried = coarse.reshape(-1, 2)[origin[nearest]]
    distance_cm = distance * (cell / u)
    size_cm = cv2.GaussianBlur(np.hypot(carried[..., 0], carried[..., 1]) / u, (0, 0), 0.9 / (cell / u))
    reach = distance_cm / np.maximum(SHORTEST_FADE, FADE_SLOPE * size_cm)
    fade = 1 - smooth(reach)
    carried = carried * fade[..., None]
    for sigma_cm, beyond_cm in (
        (0.5, 0.0),
        (1.0, 1.0),
        (2.0, 2.5),
    ):  # seams between nearest-skin cells, wider farther out
        blurred = cv2.GaussianBlur(carried, (0, 0), sigma_cm / (cell / u))
        mix = np.where(inside, 0, smooth((distance_cm - beyond_cm) / 1.0)).astype(np.float32)[..., None]
        carried = carried * (1 - mix) + blurred * mix

    carried = carried * (1 - smooth((reach - 1) / 0.6))[..., None]  # blurring spreads it a little; here it ends

    outside = cv2.resize(carried, (w * cell, h * cell), interpolation=cv2.INTER_CUBIC)[:height, :width]
    keep = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 0.05 * u)
    out = np.empty((height, width, 2), np.float32)
    _joined(flow, outside, keep, known, out)
    return out


@njit(cache=True)
def _joined(flow, outside, keep, known, out):  # pragma: no cover - compiled
    """The known flow where ``keep`` is near 1, with that outside where it falls to a half; all (H, W, ...)."""
    one = np.float32(1)
    for i in range(known.shape[0]):
        for j in range(known.shape[1]):
            share = min(max(keep[i, j] * np.float32(2) - one, np.float32(0)), one) if known[i, j] else np.float32(0)
            for k in range(2):
                out[i, j, k] = flow[i, j, k] * share + outside[i, j, k] * (one - share)


def at_border(frame: WorkFrame, region: FaceRegion) -> Grid:
    """1 inside the working grid (H, W), falling to 0 over 0.5 cm where it ends within the photo: no edit may end in a
    hard edge. Where the photo itself ends no edge can be seen, and a jaw may drop out of the picture."""
    height, width = frame.shape
    margin = max(2.0, FADE_AT_BORDER * frame.u)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    ends = (
        (x[None], np.c_[np.zeros_like(y), y]),
        (width - 1 - x[None], np.c_[np.full_like(y, width - 1), y]),
        (y[:, None], np.c_[x, np.zeros_like(x)]),
        (height - 1 - y[:, None], np.c_[x, np.full_like(x, height - 1)]),
    )
    free = np.ones((height, width), np.float32)
    for away, points in ends:
        within = smooth(_within_photo(points, frame, region) / margin)
        free *= 1 - within.reshape(-1, 1 if len(away) == 1 else width) * (1 - smooth(away / margin))
    return free


def _within_photo(points: Grid, frame: WorkFrame, region: FaceRegion) -> Grid:
    """How far work points (n, 2) lie inside the photo, in work pixels, (n,); far where its size is not known."""
    if region.image_size is None:
        return np.full(len(points), np.inf, np.float32)
    back = frame.region_from_work
    at = points @ back[:, :2].T + back[:, 2] + region.box[:2]
    last = np.array(region.image_size[::-1]) - 1
    return (np.minimum(at, last - at).min(1) * frame.scale - 1).astype(np.float32)


def sample(values: Grid, flow: Grid) -> Grid:
    """What values (H, W) or (H, W, C) hold at p + flow(p)."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None] + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
