"""Eyes: the eyeball stays where it is, lids move over it, and what they uncover is completed.

A photo shows only part of the eyeball. `complete` draws the rest: the iris continued by its own mirror image and
radial profile, the sclera by its own smoothed white. `paint` then shows the photo's eyeball wherever it was seen and
the completed one elsewhere, with the lid's contact shadow. `carry_lashes` keeps the upper lashes in one piece.

Conventions: work coordinates (see `frame`), RGB float32 in [0, 1]. Right and left are the person's.
The iris is found as in J. Daugman, "How Iris Recognition Works" (2004), eq. 1, on its sides only (lids hide the rest).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid, smooth
from exprtool.pixels.ramps import LUMA

IRIS_RADIUS = 0.59
"""cm; the visible iris of adults varies by a few percent only."""
UNSEEN_IRIS = np.array([0.42, 0.30, 0.22], np.float32)
"""Colour of an iris that hardly shows, in shares of the luma of lit skin: brown, as most are."""
_RAYS = 24
"""To either side of an iris, along which its rim is looked for."""


@dataclass(frozen=True, eq=False)
class Eye:
    """One eye on the working grid: ``window`` (rows, columns); inside it ``open`` (h, w) bool, the eyeball as seen
    in the photo, ``trusted`` (h, w) float32, 1 where its pixels are free of lid shadow and lashes, and ``completed``
    (h, w, 3)."""

    window: tuple[slice, slice]
    open: NDArray[np.bool_]
    trusted: Grid
    completed: Grid
    white: Grid | None
    openness: float
    """Height over width of the photo's lid opening."""
    shown: float = 1.0
    """How much of the eyeball is painted, in [0, 1]: nothing between lids that are shut, for good or in a blink."""


BLINK = (0.45, 0.75)
"""Opening of the lids, as a share of what is usual along the track, at which an eye counts as shut and as open."""
ALONE = 0.2
"""Opening that is taken as usual in a photo alone: shut below 0.09, open above 0.15. Of 2,349 faces in the wild 1.5 %
have both eyes narrower than 0.10; nearly all of those are closed, look down or laugh, and show no iris."""


def awake(now: float, usual: float) -> float:
    """0 for lids that are shut, 1 for open ones: how far they are open, and ``usual``ly are on the track (`ALONE`)."""
    shut, wide = BLINK
    return float(smooth((now / max(usual, 1e-6) - shut) / (wide - shut)))


def blinking(eye: Eye, usual: float) -> Eye:
    """An eye of a photo (``usual`` is `ALONE`), or of a track in which its ``openness`` is ``usual``ly that."""
    return replace(eye, shown=awake(eye.openness, usual))


def openness(corners: NDArray[np.float64]) -> float:
    """Height over width of the lid opening, from an eye's six landmarks (6, 2)."""
    width = float(np.linalg.norm(corners[3] - corners[0]))
    return float(np.linalg.norm(corners[[1, 2]].mean(0) - corners[[4, 5]].mean(0)) / max(width, 1))


def complete(picture: Grid, hole: NDArray[np.bool_], corners: NDArray[np.float64], skin: float, u: float) -> Eye | None:
    """Complete one eye. ``hole`` (H, W) is where the mesh shows the eye, ``corners`` its six landmarks, ``skin``
    the luma of lit skin, by which the white of an eye is judged that hardly shows. None where the eye is off the
    grid."""
    centre = corners.mean(0)
    width = float(np.linalg.norm(corners[3] - corners[0]))
    height, columns = hole.shape
    x0, x1 = int(centre[0] - 0.85 * width), int(centre[0] + 0.85 * width)
    y0, y1 = int(centre[1] - 0.7 * width), int(centre[1] + 0.7 * width)
    x0, x1, y0, y1 = max(x0, 0), min(x1, columns), max(y0, 0), min(y1, height)
    if x1 - x0 < 8 or y1 - y0 < 8:
        return None
    window = (slice(y0, y1), slice(x0, x1))
    crop = picture[window]
    outline = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillPoly(outline, [np.round(corners - [x0, y0]).astype(np.int32)], 1)
    seen = hole[window]
    inside = seen & (cv2.dilate(outline, np.ones((3, 3), np.uint8)) > 0)
    opening = openness(corners)

    grey = cv2.GaussianBlur(crop @ LUMA, (0, 0), 0.045 * u)
    gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    from_lid = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
    cx, cy, radius = _find_iris(
        gx, gy, grey, from_lid, float(centre[0] - x0), float(centre[1] - y0), width, IRIS_RADIUS * u, 0.05 * u
    )
    rows, cols = np.mgrid[0 : crop.shape[0], 0 : crop.shape[1]].astype(np.float32)
    r = np.hypot(cols - cx, rows - cy) / radius

    top = np.where(inside.any(0), inside.argmax(0), 10**6)
    below_lid = rows - top[None]
    inner = from_lid > 0.045 * u
    good = inner & (below_lid > 0.11 * u)

    # between half-closed lids lies more lash and shade than eye
    hidden = 1 - float(smooth((opening - 0.16) / 0.10))
    sclera = good & (r > 1.12)
    if sclera.sum() < 30:
        sclera = inner & (r > 1.1)
    if sclera.sum() < 20:
        sclera = inside & (r > 1.05)
    white = None
    luma = crop @ LUMA
    if sclera.sum() >= 12:
        floor = np.percentile(luma[sclera], 40)
        weight = (sclera & (luma >= floor)).astype(np.float32)
        spread = 0.22 * width
        total = cv2.GaussianBlur(weight, (0, 0), spread)[..., None]
        middle = np.median(crop[weight > 0], axis=0)
        mean = cv2.GaussianBlur(crop * weight[..., None], (0, 0), spread)
        ball = (mean + 2e-3 * middle) / (total + 2e-3)
        white = np.percentile(crop[sclera], 80, axis=0).astype(np.float32)
        lift = max(1.0, 0.80 * min(skin, 0.8) / max(float(middle @ LUMA), 1e-3))
        pale = np.float32(middle @ LUMA) * np.array([1.01, 1.0, 0.99], np.float32) * np.float32(lift)
        ball = ball * (1 - hidden) + pale * hidden
        white = white * (1 - hidden) + np.maximum(white, pale) * hidden
    else:
        middle = np.float32(0.80 * min(skin, 0.8)) * np.array([1.01, 1.0, 0.99], np.float32)
        ball = np.broadcast_to(middle, crop.shape).astype(np.float32)

    iris = good & (r <= 1.0)
    steps = np.linspace(0, 1, 21)
    profile = np.zeros((21, 3), np.float32)
    dark = crop[inside & (r < 1.0)]
    start = np.percentile(dark, 20, axis=0) if len(dark) > 6 else np.full(3, 0.08)
    away, shown = r[iris], crop[iris]
    for i, step in enumerate(steps):
        ring = np.abs(away - step) < 0.05
        if ring.sum() > 4:
            profile[i] = np.median(shown[ring], axis=0)
        else:
            profile[i] = profile[i - 1] if i else start
    profile = profile * (1 - hidden) + np.minimum(profile, UNSEEN_IRIS * skin * _iris_shade(steps)[:, None]) * hidden
    drawn = np.stack([np.interp(np.clip(r, 0, 1), steps, profile[:, k]) for k in range(3)], -1).astype(np.float32)
    mirror_row = np.clip(np.round(2 * cy - rows).astype(int), 0, crop.shape[0] - 1)
    column = cols.astype(int)
    mirror_good = (good[mirror_row, column] & (r < 1)).astype(np.float32)
    mirror_weight = ((1 - hidden) * 0.7 * cv2.GaussianBlur(mirror_good, (0, 0), 2) * mirror_good)[..., None]
    drawn = drawn * (1 - mirror_weight) + crop[mirror_row, column] * mirror_weight
    rim = smooth((r - 0.92) / 0.20)[..., None]
    # the eyeball turns away from the light towards its rim
    falloff = (1 - 0.16 * np.clip((np.abs(cols - centre[0] + x0) / (0.5 * width)), 0, 1.2) ** 2)[..., None]
    completed = drawn * (1 - rim) + ball * falloff * rim
    trusted = cv2.GaussianBlur(good.astype(np.float32), (0, 0), max(1.0, 0.05 * u)) * good
    trusted = np.clip(trusted * 1.6 - 0.6, 0, 1).astype(np.float32)
    return Eye(window, seen, trusted, completed.astype(np.float32), white, opening)


def _iris_shade(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brightness of an iris from its centre to its rim: the pupil, the iris, the dark ring around it."""
    return 0.15 + 0.85 * smooth((radius - 0.32) / 0.10) * (1 - 0.5 * smooth((radius - 0.75) / 0.25))


def _find_iris(
    gx: Grid, gy: Grid, grey: Grid, from_lid: Grid, x: float, y: float, width: float, radius: float, clear: float
) -> tuple[float, float, float]:
    """Centre and radius (work pixels) of the circle near (x, y) across whose sides the picture brightens most."""
    height, columns = grey.shape
    angles = np.tile(np.linspace(-0.75, 0.6, _RAYS), 2)
    away, down = np.repeat([1.0, -1.0], _RAYS) * np.cos(angles), np.sin(angles)
    radii = radius * (0.88 + 0.04 * np.arange(7))
    xs, ys = x + 0.022 * width * np.arange(-10, 11), y + 0.022 * width * np.arange(-6, 7)
    at_x = (xs[:, None] + (radii[:, None] * away)[:, None, None]).astype(int)  # (7, 1, 21, rays)
    at_y = (ys[:, None, None] + (radii[:, None] * down)[:, None, None]).astype(int)  # (7, 13, 1, rays)
    on = (at_x >= 0) & (at_x < columns) & (at_y >= 0) & (at_y < height)
    place = np.clip(at_y, 0, height - 1) * columns + np.clip(at_x, 0, columns - 1)
    seen = on & (from_lid.ravel() > clear)[place]
    rise = seen * (gx.ravel()[place] * away + gy.ravel()[place] * down)
    right, left = seen[..., :_RAYS].sum(-1), seen[..., _RAYS:].sum(-1)
    mid_x, mid_y = np.clip(xs.astype(int), 0, columns - 1), np.clip(ys.astype(int), 0, height - 1)
    score = rise.sum(-1) / np.maximum(right + left, 1) - 0.05 * grey[mid_y[:, None], mid_x]
    score[(right < 4) | (left < 4)] = 0
    best = np.unravel_index(score.argmax(), score.shape)
    if score[best] <= 0:
        return x, y, radius
    return float(xs[best[2]]), float(ys[best[1]]), float(radii[best[0]])


@dataclass(frozen=True, eq=False)
class EyePaint:
    """What to paint in a window of the working grid: ``alpha`` (h, w); ``keep`` (h, w), how much of the photo's own
    pixel in place to show there, the rest being ``colour`` (h, w, 3); ``shade`` (h, w) multiplies both."""

    window: tuple[slice, slice]
    alpha: Grid
    keep: Grid
    colour: Grid
    shade: Grid


def paint(eye: Eye, hole: NDArray[np.bool_], flow: Grid, u: float) -> EyePaint:
    """Paint one eye whose opening is now ``hole`` (H, W); ``flow`` (H, W, 2) tells how far the lids moved."""
    now = hole[eye.window]
    alpha = cv2.GaussianBlur(now.astype(np.float32), (0, 0), 0.7)
    moved = np.hypot(flow[eye.window][..., 0], flow[eye.window][..., 1]) / u
    moved = cv2.GaussianBlur(moved.astype(np.float32), (0, 0), 0.08 * u)
    moved = smooth(moved / 0.06)
    was_open = cv2.erode(eye.open.astype(np.uint8), np.ones((2, 2), np.uint8)).astype(np.float32)
    keep = moved * eye.trusted + (1 - moved) * np.where(now, np.maximum(was_open, 1 - moved), 0)
    shadow = 1 - moved * (1 - lid_shadow(now, u))
    alpha *= np.float32(eye.shown)
    return EyePaint(eye.window, alpha, keep.astype(np.float32), eye.completed, shadow.astype(np.float32))


def lid_shadow(hole: NDArray[np.bool_], u: float) -> Grid:
    """What the lids leave of the light on an eyeball that shows in ``hole`` (h, w), a factor."""
    upper, lower = (run_length(hole, down=each) / u for each in (True, False))
    return 1 - 0.40 * np.exp(-upper / 0.07) - 0.16 * np.exp(-lower / 0.05)


def run_length(mask: NDArray[np.bool_], down: bool) -> Grid:
    """How many mask pixels lie above (``down``) or below each one without a break, itself included."""
    out = mask.astype(np.float32)
    rows = out if down else out[::-1]
    for above, row in pairwise(rows):
        row *= 1 + above
    return out


LASHES, LASHES_END = 0.50, 1.10
"""The upper lashes reach this far (cm) above the lid's margin; beyond, up to the second figure, skin takes up the
rest."""


def carry_lashes(flow: Grid, hole: NDArray[np.bool_], u: float) -> None:
    """Let the band above an eye's upper margin follow the margin rigidly (in place).

    Lashes grow from the margin. Skin above it stretches when the lid moves; were they to follow that skin, they
    would be dragged up onto the lid.
    """
    columns = np.flatnonzero(hole.any(0))
    if len(columns) < 6:
        return
    x0, x1 = columns[0], columns[-1] + 1
    xs = np.arange(x0, x1)
    some = hole[:, x0:x1].any(0)
    top = np.interp(xs, xs[some], hole[:, x0:x1].argmax(0)[some])
    kernel = (1, 0)
    top = cv2.GaussianBlur(top.astype(np.float32)[None], kernel, 0.06 * u)[0]
    at = np.clip((top - 0.07 * u).round().astype(int), 0, flow.shape[0] - 1)
    margin = cv2.GaussianBlur(flow[at, xs][None], kernel, 0.12 * u)[0]  # (n, 2)
    follow_margin(flow, int(x0), top, margin, u)


def follow_margin(flow: Grid, x0: int, top: Grid, margin: Grid, u: float, share: Grid | float = 1.0) -> None:
    """Move the band above a lid's margin as the margin moves (in place).

    The margin lies at the rows ``top`` (n,) of the columns from ``x0`` on, and ``margin`` (n, 2) is its flow;
    ``share`` (n,) in [0, 1] of the band follows it.
    """
    xs = np.arange(x0, x0 + len(top))
    x1 = x0 + len(top)
    first = max(0, int(top.min() - LASHES_END * u) - 1)
    last = min(flow.shape[0], int(top.max()) + 2)
    above = (top[None] - np.arange(first, last)[:, None]) / u
    weight = (1 - smooth((above - LASHES) / (LASHES_END - LASHES))) * smooth((above + 0.1) / 0.1)
    side = np.minimum(xs - x0, x1 - 1 - xs) / (0.25 * u)
    weight = (weight * share * smooth(side)[None])[..., None]
    band = flow[first:last, x0:x1]
    flow[first:last, x0:x1] = band * (1 - weight) + margin[None] * weight
