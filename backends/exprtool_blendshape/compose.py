"""From the working grid back to the photo: the one place that samples the photo's own pixels at their own resolution.

The edited picture is the photo moved by the flow, under the gain, with what is painted laid over it. Where the edit
changes nothing, alpha is exactly 0. Only the part of the region that changes is touched.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid
from exprtool.faces.neighbours import off_others
from exprtool.pixels.photo_border import hold_within
from exprtool_blendshape.compiled import rise
from exprtool_blendshape.render import Changes, FaceLook
from exprtool_blendshape.shading import GAMMA, SHADOW_EXPONENTS

MOVES = (0.02, 0.12)
"""Flow in region pixels from which alpha rises, and at which it is full; below, moved and unmoved look the same."""
LIGHTENS = (0.002, 0.012)
"""The same for the log gain of gamma-encoded values."""
_Window = tuple[int, int, int, int]


def compose(face: FaceLook, edit: Changes) -> tuple[NDArray[np.uint8], Grid, Grid, Grid]:
    """Pixels (h, w, 3) uint8, alpha (h, w), backward flow (h, w, 2) in region pixels and painted (h, w) of the
    region."""
    region = face.region.pixels
    h, w = region.shape[:2]
    pixels = np.array(region)
    alpha = np.zeros((h, w), np.float32)
    flow = np.zeros((h, w, 2), np.float32)
    painted = np.zeros((h, w), np.float32)
    y0, y1, x0, x1 = _reach(face, edit)
    if y1 <= y0 or x1 <= x0:
        return pixels, alpha, flow, painted

    def lifted(
        values: Grid, window: _Window, step: int = 1, painting: bool = False, border: int = cv2.BORDER_CONSTANT
    ) -> Grid:
        """Values on the working grid (or on every ``step``-th pixel of it) at the region's pixels of a window; beyond
        the grid none, or by OpenCV's ``border``."""
        if painting and face.frame.scale > 1.3:  # a region coarser than the grid: average what is painted, not pick
            values = cv2.GaussianBlur(values, (0, 0), 0.45 * face.frame.scale)
        matrix = face.frame.work_from_region.copy()
        matrix[:, 2] += matrix[:, :2] @ [window[2], window[0]]
        size = (window[3] - window[2], window[1] - window[0])
        return cv2.warpAffine(
            values, matrix / step, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
        )

    window = (y0, y1, x0, x1)
    # Flow and light reach the grid's end only where the photo ends as well, up to half a pixel beyond it.
    moved = lifted(edit.flow, window, border=cv2.BORDER_REPLICATE)
    gain = lifted(edit.log_gain, window, face.frame.coarse, border=cv2.BORDER_REPLICATE)
    paint = np.minimum(
        lifted(edit.alpha, window, painting=True) * np.float32(1.0001), 1
    )  # a sum of weights is 1 but for rounding
    _to_region(moved, face.frame.region_from_work[:, :2].astype(np.float32))
    hold_within(moved, (x0 + face.region.box[0], y0 + face.region.box[1]), face.region.image_size)
    columns = moved[..., 0] + np.arange(x0, x1, dtype=np.float32)[None]
    rows = moved[..., 1] + np.arange(y0, y1, dtype=np.float32)[:, None]
    warped = cv2.remap(region, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    free = off_others(face.region, face.fit.landmarks, max(1.5, 0.5 * face.fit.camera.scale), window)
    exponents = 1 + (1 - face.tone.monochrome) * (SHADOW_EXPONENTS - 1)
    photo = np.ascontiguousarray(region[y0:y1, x0:x1])
    out = np.empty((y1 - y0, x1 - x0, 3), np.float32)
    changed = np.empty(paint.shape, np.float32)
    _light_up(warped, moved, gain, paint, free, exponents.astype(np.float32), out, changed)

    for box in _painted_boxes(paint):
        top, left = y0 + box[0].start, x0 + box[1].start
        part = (top, y0 + box[0].stop, left, x0 + box[1].stop)
        keep = lifted(edit.keep, part, painting=True)[..., None]
        colour = lifted(edit.colour, part, painting=True)
        shade = lifted(edit.shade, part, painting=True)[..., None]
        layer = (photo[box] * (keep / np.float32(255)) + colour * (1 - keep)) * shade
        a = paint[box][..., None]
        out[box] = out[box] * (1 - a) + layer * a

    here = (slice(y0, y1), slice(x0, x1))
    _store(out, changed, photo, pixels[here])
    alpha[here] = changed
    changes = changed > 0
    flow[here] = moved * changes[..., None]
    painted[here] = np.minimum(paint, 1) * changes
    return pixels, alpha, flow, painted


@njit(cache=True)
def _to_region(flow, matrix):  # pragma: no cover - compiled
    """Turn flow in work pixels into flow in region pixels, in place."""
    for i in range(flow.shape[0]):
        for j in range(flow.shape[1]):
            x, y = flow[i, j, 0], flow[i, j, 1]
            flow[i, j, 0] = matrix[0, 0] * x + matrix[0, 1] * y
            flow[i, j, 1] = matrix[1, 0] * x + matrix[1, 1] * y


@njit(cache=True, fastmath=True)
def _light_up(warped, flow, log_gain, paint, free, exponents, out, alpha):  # pragma: no cover - compiled
    """The moved photo under its gain, (h, w, 3) in [0, 1], and how much of it to take, (h, w).

    Brightening fades out towards clipped channels: a highlight that misses a channel would change its hue.
    """
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            size = np.sqrt(flow[i, j, 0] ** 2 + flow[i, j, 1] ** 2)
            gain = log_gain[i, j] / GAMMA
            a = max(rise(size, MOVES[0], MOVES[1]), rise(abs(gain), LIGHTENS[0], LIGHTENS[1]))
            a = min(max(a, paint[i, j]), 1.0) * free[i, j]
            alpha[i, j] = a if a >= 1 / 512 else 0.0
            most = max(warped[i, j, 0], warped[i, j, 1], warped[i, j, 2])
            if gain > 0:
                gain *= min(max((252.0 - most) / 64.0, 0.0), 1.0)
            for k in range(3):
                factor = 1 / 255
                if gain > 0:
                    factor *= np.exp(gain)
                elif gain < 0:
                    factor *= np.exp(gain * exponents[k])
                out[i, j, k] = warped[i, j, k] * factor


@njit(cache=True)
def _store(colour, alpha, photo, pixels):  # pragma: no cover - compiled
    for i in range(colour.shape[0]):
        for j in range(colour.shape[1]):
            for k in range(3):
                if alpha[i, j] > 0:
                    pixels[i, j, k] = np.uint8(min(max(colour[i, j, k] * 255 + 0.5, 0.0), 255.0))
                else:
                    pixels[i, j, k] = photo[i, j, k]


def _painted_boxes(paint: Grid) -> list[tuple[slice, slice]]:
    """Boxes around what is painted: the eyes and the mouth, apart from each other."""
    small = (cv2.resize(paint, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(small, np.ones((3, 3), np.uint8)))
    taken = np.zeros(small.shape, np.bool_)
    boxes = []
    for x, y, w, h, _ in stats[1:count]:
        if taken[y : y + h, x : x + w].any():  # overlapping boxes would be painted twice
            rows, columns = np.flatnonzero(paint.max(1) > 0), np.flatnonzero(paint.max(0) > 0)
            return [(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))]
        taken[y : y + h, x : x + w] = True
        bottom, right = min(4 * (y + h), paint.shape[0]), min(4 * (x + w), paint.shape[1])
        boxes.append((slice(4 * y, bottom), slice(4 * x, right)))
    return boxes


def _reach(face: FaceLook, edit: Changes) -> _Window:
    """Rows y0:y1 and columns x0:x1 of the region in which the edit changes anything."""
    # the larger of two channels: asked along the last axis, NumPy takes ten times as long
    furthest = np.maximum(np.abs(edit.flow[..., 0]), np.abs(edit.flow[..., 1]))
    moves = furthest * (1 / face.frame.scale) > MOVES[0] / 2
    moves |= edit.alpha > 0
    c = face.frame.coarse
    lights = np.abs(edit.log_gain) > LIGHTENS[0]
    rows = np.any(moves, 1)
    columns = np.any(moves, 0)
    rows[::c] |= lights.any(1)
    columns[::c] |= lights.any(0)
    if not rows.any():
        return 0, 0, 0, 0
    top, bottom = np.flatnonzero(rows)[[0, -1]]
    left, right = np.flatnonzero(columns)[[0, -1]]
    corners = np.array([[x, y] for x in (left - 3, right + 3) for y in (top - 3, bottom + 3)], dtype=np.float64)
    inverse = face.frame.region_from_work
    points = corners @ inverse[:, :2].T + inverse[:, 2]
    low = np.floor(points.min(0)).astype(int)
    high = np.ceil(points.max(0)).astype(int) + 1
    h, w = face.region.pixels.shape[:2]
    return max(int(low[1]), 0), min(int(high[1]), h), max(int(low[0]), 0), min(int(high[0]), w)
