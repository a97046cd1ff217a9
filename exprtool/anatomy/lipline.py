"""Where the lips of the photo are: the seam of a closed mouth, the inner edges of an open one.

Everything is measured in the mouth's own frame (x along the line between the corners, y across it, towards the chin),
on a patch of fixed resolution, so that tilted heads and large photos cost and behave the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.types import Image, Points

_PATCH_SCALE = 20.0
"""Pixels per cm of the patch."""
_SEARCH = 0.30
"""How far (cm) the seam may lie from the landmarks."""
OPEN_GAP = 0.22
"""Gap (cm) between the inner lip landmarks from which on a mouth counts as open. The landmarker draws closed lips up
to 0.15 cm apart."""
CLOSED_GAP = 0.12
"""Gap (cm) that the inner landmarks of a closed mouth have at most, once it is known to be closed."""
SEEN_GAP = 2.2
"""Gap in pixels that a clip must show besides: over less the landmarks wander, and the mouth would open and shut."""
_SAMPLES = 65
_OPEN_SHARE, _TEETH_SHARE = 0.15, 0.15
"""Shares of an opening that must be teeth or dark for it to be one, and teeth for them to show."""


@dataclass(frozen=True, eq=False)
class MouthFrame:
    """A frame in the image: ``origin`` midway between the corners, unit vectors ``along`` (to the right of an upright
    image) and ``across`` (towards the chin), ``half`` half the distance of the corners in pixels."""

    origin: NDArray[np.float64]
    along: NDArray[np.float64]
    across: NDArray[np.float64]
    half: float

    @classmethod
    def of(cls, landmarks: Points) -> MouthFrame:
        """The frame of 68 landmarks (68, 2)."""
        right, left = landmarks[48], landmarks[54]
        step = left - right
        length = max(float(np.hypot(*step)), 1e-6)
        along = step / length
        return cls((right + left) / 2, along, np.array([-along[1], along[0]]), length / 2)

    def to_frame(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Image points (n, 2) to frame coordinates (n, 2), in pixels."""
        moved = points[:, :2] - self.origin
        return np.stack([moved @ self.along, moved @ self.across], 1)

    def to_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Frame coordinates (n, 2) back to the image."""
        return self.origin + points[:, :1] * self.along + points[:, 1:2] * self.across


@dataclass(frozen=True, eq=False)
class Lips:
    """The inner lips in region pixels, from the person's right corner of the mouth to the left one.

    ``upper`` and ``lower`` (n, 2) are the inner edges, ``seam`` (n, 2) the line where the lips meet, or midway between
    the edges of an open mouth. Closed: all three are the same. ``gap`` is the mean opening in cm, ``teeth`` whether
    teeth show in it.
    """

    open: bool
    teeth: bool
    gap: float
    frame: MouthFrame
    seam: Points
    upper: Points
    lower: Points


def find_lips(pixels: Image, landmarks: Points, scale: float, moving: bool = False) -> Lips:
    """Measure the lips. ``landmarks`` (68, 2) and ``pixels`` share coordinates; ``scale`` is in pixels per cm;
    ``moving`` tells that it is a frame of a clip."""
    frame = MouthFrame.of(landmarks)
    marks = frame.to_frame(landmarks[48:68])
    upper_marks = marks[[0, 12, 13, 14, 15, 16, 6]]
    lower_marks = marks[[0, 12, 19, 18, 17, 16, 6]]
    gap = float(np.mean(lower_marks[2:5, 1] - upper_marks[2:5, 1])) / scale
    x = np.linspace(-frame.half, frame.half, _SAMPLES)
    upper, lower = _curve(upper_marks, x), _curve(lower_marks, x)
    least = max(OPEN_GAP, SEEN_GAP / scale) if moving else OPEN_GAP
    teeth, dark = _shares(pixels, frame, x, upper, lower, scale) if gap > least else (0.0, 0.0)
    is_open = teeth + dark > _OPEN_SHARE
    if is_open:
        upper, lower = _inner_edges(pixels, frame, x, upper, lower, scale)
        seam = (upper + lower) / 2
    else:
        # a landmarker takes a pale or shining lip for an opening: then the seam lies anywhere within it
        search = _SEARCH + max(0.0, gap / 2 - 0.1)
        seam = _dark_path(pixels, frame, x, (upper + lower) / 2, scale, search)
        upper = lower = seam
    image = [frame.to_image(np.stack([x, y], 1)) for y in (seam, upper, lower)]
    return Lips(is_open, teeth > _TEETH_SHARE, max(gap, 0.0) if is_open else 0.0, frame, *image)


def with_closed_lips(landmarks: Points, lips: Lips) -> Points:
    """The landmarks (68, 2) with the inner lip points no further apart than a closed mouth's are.

    A landmarker may take a pale lip for an opening; the fit would then open the jaw to explain it.
    """
    scale = 2 * lips.frame.half / 5.0  # a mouth is about 5 cm wide
    across = lips.frame.to_frame(landmarks)[:, 1]
    seam = lips.frame.to_frame(lips.seam)
    closed = landmarks.copy()
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        middle = lips.frame.to_frame((landmarks[[upper]] + landmarks[[lower]]) / 2)[0]
        half = min(across[lower] - across[upper], CLOSED_GAP * scale) / 2
        y = np.interp(middle[0], seam[:, 0], seam[:, 1])
        if across[lower] - across[upper] > CLOSED_GAP * scale:
            closed[upper] += (y - half - across[upper]) * lips.frame.across
            closed[lower] += (y + half - across[lower]) * lips.frame.across
    return closed


def _curve(marks: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(marks[:, 0], kind="stable")
    return np.interp(x, marks[order, 0], marks[order, 1])


def _patch(
    pixels: Image, frame: MouthFrame, half_width: float, half_height: float, scale: float
) -> tuple[NDArray[np.float32], float]:
    """The mouth as a patch (h, w, 3) float32 of `_PATCH_SCALE` pixels per cm, and its pixels per region pixel.

    The patch's centre is the frame's origin. Where the photo is finer than the patch, its pixels are averaged first.
    """
    zoom = _PATCH_SCALE / scale
    h, w = (2 * int(np.ceil(side * zoom)) + 1 for side in (half_height, half_width))
    corners = frame.to_image(
        np.array([[sx * half_width, sy * half_height] for sx in (-1, 1) for sy in (-1, 1)], dtype=float)
    )
    # a mouth cut off by the edge of the region repeats its last pixels
    size = np.array([pixels.shape[1], pixels.shape[0]])
    low = np.clip(np.floor(corners.min(0)).astype(int) - 4, 0, size - 1)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 5, low + 1, size)
    source = np.ascontiguousarray(pixels[low[1] : high[1], low[0] : high[0]])
    shrink = np.ones(2)
    if zoom < 0.7:
        small = np.maximum(np.round((high - low) * zoom * 1.2), 1).astype(int)
        source = cv2.resize(source, (int(small[0]), int(small[1])), interpolation=cv2.INTER_AREA)
        shrink = small / (high - low)
    region_from_patch = np.stack([frame.along, frame.across], 1) / zoom
    start = frame.origin - region_from_patch @ np.array([(w - 1) / 2, (h - 1) / 2]) - low
    source_from_patch = np.concatenate([region_from_patch, start[:, None]], 1) * shrink[:, None]
    source_from_patch[:, 2] += shrink / 2 - 0.5
    patch = cv2.warpAffine(
        source,
        source_from_patch,
        (w, h),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return patch.astype(np.float32), zoom


def _dark_path(
    pixels: Image,
    frame: MouthFrame,
    x: NDArray[np.float64],
    guess: NDArray[np.float64],
    scale: float,
    search: float,
) -> NDArray[np.float64]:
    """The seam: the darkest path from corner to corner.

    Returns y (n,) in the frame at ``x`` (n,), no further than ``search`` cm from ``guess``.
    """
    reach = float(np.abs(guess).max()) + (search + 0.5) * scale
    patch, zoom = _patch(pixels, frame, frame.half * 1.05, reach, scale)
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
    fine = cv2.GaussianBlur(grey, (0, 0), 0.043 * _PATCH_SCALE)
    detail = fine - cv2.GaussianBlur(grey, (0, 0), 0.35 * _PATCH_SCALE)
    cost = np.asarray(detail / (float(detail.std()) + 1e-6), dtype=np.float32)
    return _cheapest_path(cost, zoom, frame, x, guess, search, 0.12)


def _inner_edges(
    pixels: Image,
    frame: MouthFrame,
    x: NDArray[np.float64],
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    scale: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The inner edges of open lips, where teeth or the dark of the mouth begin.

    Landmarks draw the opening as a lens; a smile is square at the corners, and teeth that are taken for lip there stay
    behind when the mouth closes. Here each edge is the path along which the colour of the lips changes most, near
    the landmarks.
    """
    reach = float(max(np.abs(upper).max(), np.abs(lower).max())) + (_SEARCH + 0.6) * scale
    patch, zoom = _patch(pixels, frame, frame.half * 1.05, reach, scale)
    lab = cv2.cvtColor(cv2.GaussianBlur(patch, (0, 0), 0.03 * _PATCH_SCALE) / 255, cv2.COLOR_RGB2Lab)
    rows, columns = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]]
    at = (columns - (patch.shape[1] - 1) / 2) / zoom
    y = (rows - (patch.shape[0] - 1) / 2) / zoom
    top, bottom = np.interp(at, x, upper), np.interp(at, x, lower)
    middle = abs(at) < 0.7 * frame.half
    band = 0.25 * scale
    lip = middle & (((y < top - 0.06 * scale) & (y > top - band)) | ((y > bottom + 0.06 * scale) & (y < bottom + band)))
    if lip.sum() < 20:
        return upper, lower
    colour = np.median(lab[lip], axis=0)
    spread = 1.5 * np.median(np.abs(lab[lip] - colour), axis=0) + [4.0, 2.0, 2.0]
    inside = (1 - np.exp(-0.5 * (((lab - colour) / spread) ** 2).sum(-1))).astype(np.float32)
    width = max(2, round(0.10 * _PATCH_SCALE))
    box = np.ones((width, 1), np.float32) / width
    above = cv2.filter2D(inside, -1, box, anchor=(0, width - 1), borderType=cv2.BORDER_REPLICATE)
    below = cv2.filter2D(inside, -1, box, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    step = 2.0 * (below - above)  # positive where the inside of the mouth begins, going down
    found_upper = _cheapest_path(-step, zoom, frame, x, upper, 0.8 * _SEARCH, 0.06)
    found_lower = _cheapest_path(step, zoom, frame, x, lower, 1.3 * _SEARCH, 0.06)
    return found_upper, np.maximum(found_upper, found_lower)


def _cheapest_path(
    cost: NDArray[np.float32],
    zoom: float,
    frame: MouthFrame,
    x: NDArray[np.float64],
    guess: NDArray[np.float64],
    search: float,
    smooth: float,
) -> NDArray[np.float64]:
    """Follow the least ``cost`` (a patch with ``zoom`` pixels per region pixel) from corner to corner, by dynamic
    programming: no further than ``search`` cm from ``guess``, and smoothed over ``smooth`` cm."""
    centre_x, centre_y = (cost.shape[1] - 1) / 2, (cost.shape[0] - 1) / 2
    columns = np.arange(int(np.ceil(-frame.half * zoom)), int(np.floor(frame.half * zoom)) + 1)
    reach = max(1, int(search * _PATCH_SCALE))
    steps = np.arange(-reach, reach + 1)
    base = np.interp(columns / zoom, x, guess) * zoom
    map_x = np.repeat((columns + centre_x)[:, None], len(steps), 1).astype(np.float32)
    map_y = (base[:, None] + steps[None] + centre_y).astype(np.float32)
    near = cv2.remap(cost, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    near = near + 0.6 * (steps / reach) ** 2
    best = near[0].astype(np.float64)
    came_from = np.zeros(near.shape, dtype=np.int64)
    number = np.arange(len(steps))
    for i in range(1, len(columns)):
        choices = np.stack([best, np.r_[np.inf, best[:-1] + 0.15], np.r_[best[1:] + 0.15, np.inf]])
        chosen = choices.argmin(0)
        came_from[i] = number + np.array([0, -1, 1])[chosen]
        best = choices[chosen, number] + near[i]
    path = np.empty(len(columns), dtype=np.int64)
    path[-1] = best.argmin()
    for i in range(len(columns) - 1, 0, -1):
        path[i - 1] = came_from[i, path[i]]
    rough = (base + steps[path]).astype(np.float32)
    found = cv2.GaussianBlur(rough[None], (0, 0), smooth * _PATCH_SCALE, borderType=cv2.BORDER_REFLECT)[0]
    return np.interp(x, columns / zoom, found / zoom)


def _shares(
    pixels: Image,
    frame: MouthFrame,
    x: NDArray[np.float64],
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    scale: float,
) -> tuple[float, float]:
    """What shares of the opening between the edges are teeth (bright, colourless) and dark, against the skin around.

    Lips are told from teeth by their magenta, which even pale ones have more of than the skin.
    """
    reach = float(max(np.abs(upper).max(), np.abs(lower).max())) + 0.9 * scale
    patch, zoom = _patch(pixels, frame, frame.half * 1.05, reach, scale)
    rows, columns = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]]
    at = (columns - (patch.shape[1] - 1) / 2) / zoom
    y = (rows - (patch.shape[0] - 1) / 2) / zoom
    top, bottom = np.interp(at, x, upper), np.interp(at, x, lower)
    middle = abs(at) < 0.8 * frame.half
    inside = (y > top + 0.04 * scale) & (y < bottom - 0.04 * scale) & middle
    around = ((y < top - 0.12 * scale) | (y > bottom + 0.12 * scale)) & middle
    if inside.sum() < 8 or around.sum() < 8:
        return 0.0, 0.0
    light = patch.max(-1)
    magenta = ((patch[..., 0] + patch[..., 2]) / 2 - patch[..., 1]) / (light + 1)
    usual = float(np.median(light[around]))
    dark = light < 0.55 * usual
    teeth = (light > 0.75 * usual) & (magenta < np.median(magenta[around]) + 0.01)
    return float(teeth[inside].mean()), float((dark & ~teeth)[inside].mean())
