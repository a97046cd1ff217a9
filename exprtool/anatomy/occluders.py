"""What lies over the skin: hair on the forehead, and glasses.

* Hair moves with the forehead but is not skin: it takes no shading and no lines. `skin_likeness` tells skin by the
  face's own colours.
* Frames of glasses are stiff: they rest on the nose and stay where they are. `glasses` finds them by the dark lines
  that cross the bridge of the nose and run below the eyes, where faces have none; `hold` keeps the flow off them.

Conventions: work coordinates (see `frame`), RGB float32 in [0, 1], lengths in cm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid
from exprtool.pixels.ramps import LUMA


def skin_likeness(picture: Grid, template: Grid, skin: NDArray[np.bool_], u: float) -> Grid:
    """How much each pixel looks like this face's skin, (H, W) in [0, 1].

    The reference is what the mesh shows of cheeks, nose and chin; ``template`` (H, W, 2) are template coordinates,
    ``skin`` (H, W) where the mesh shows skin.
    """
    smooth = cv2.GaussianBlur(picture, (0, 0), max(0.8, 0.06 * u))
    luma = np.maximum(smooth @ LUMA, 0.02)
    log = np.log(luma)
    red, blue = smooth[..., 0] / luma - 1, smooth[..., 2] / luma - 1
    x, y = template[..., 0], template[..., 1]
    sample = skin & (np.abs(x) < 5.0) & (y < 1.8) & (y > -2.2)
    if sample.sum() < 60:
        return np.ones(luma.shape, np.float32)
    total = np.zeros_like(luma)
    for channel, least, side in ((log, 0.20, -1), (red, 0.06, 0), (blue, 0.06, 0)):
        middle = float(np.median(channel[sample]))
        spread = max(least, 1.48 * float(np.median(np.abs(channel[sample] - middle))))
        off = (channel - middle) / spread
        if side:  # brighter than the cheeks is a highlight, not hair, unless by far (grey hair is told by its hue)
            off = np.where(off > 0, 0.4 * off, off)
        total += off * off
    likeness = np.exp(-0.5 * np.maximum(np.sqrt(total) - 2.0, 0) ** 2)
    return cv2.GaussianBlur(likeness.astype(np.float32), (0, 0), 0.10 * u)


@dataclass(frozen=True, eq=False)
class Glasses:
    """``frame`` (H, W) float32 in [0, 1] where the frame is, with soft edges; ``distance`` (H, W) from it in work
    pixels; ``score`` how sure."""

    frame: Grid
    distance: Grid
    score: float


HELD = "wears glasses; their frame is held still"
"""Remark for the report."""
CERTAIN = 0.5
"""Share of the nose bridge's width that a thin dark line must cross for glasses to be seen there."""
FAINT, PLAIN = 0.12, 0.20
"""Contrast (log luma) of a faint and of a plain line."""
FROWNING, SHUT = 0.9, 0.2
"""Fitted frown above which, over eyes with an opening below this share of their width, the folds of a face that is
screwed up draw lines like a frame's."""


def frown(weights: Mapping[str, float]) -> float:
    """How much a face frowns that wears these weights."""
    stems = ("browDown", "corrugator")
    return sum(weights.get(f"{stem}{side}", 0.0) for stem in stems for side in ("Left", "Right")) / 2


def glasses(picture: Grid, landmarks: NDArray[np.float64], frown: float, u: float) -> Glasses | None:
    """Find frames of glasses; None where there are none.

    ``landmarks`` (68, 2) are in work coordinates, ``frown`` is the one that the face wears.
    """
    openings = []
    for eye in (landmarks[36:42], landmarks[42:48]):
        height = np.linalg.norm(eye[[1, 2]].mean(0) - eye[[4, 5]].mean(0))
        openings.append(height / max(float(np.linalg.norm(eye[3] - eye[0])), 1e-6))
    if frown > FROWNING and np.mean(openings) < SHUT:
        return None
    # all that follows looks at the eyes' surroundings alone
    centre = landmarks[36:48].mean(0)
    shape = picture.shape[:2]
    top, bottom = (int(np.clip(centre[1] + side * 4.0 * u, 0, shape[0])) for side in (-1, 1))
    if bottom - top < 2 * u:
        return None
    luma = np.log(np.maximum(picture[top:bottom] @ LUMA, 0.03))
    landmarks = landmarks - [0, top]
    sharp = cv2.GaussianBlur(luma, (0, 0), max(0.6, 0.06 * u))
    broad = np.maximum(cv2.GaussianBlur(luma, (0, 0), 0.40 * u) - sharp, 0)
    level, upright = _thin_lines(sharp, max(1, int(0.22 * u)))
    score = frame_score(level, broad, landmarks, u)
    if score < CERTAIN:
        return None
    shape = luma.shape
    dark = np.maximum(broad, 1.8 * np.maximum(level, upright))
    # frame: dark structures around the eyes that are neither eye nor (unless they touch the frame) brow
    zone = np.zeros(shape, np.uint8)
    for eye in (landmarks[36:42], landmarks[42:48]):
        centre = eye.mean(0)
        cv2.ellipse(zone, (int(centre[0]), int(centre[1] + 0.2 * u)), (int(3.7 * u), int(2.9 * u)), 0, 0, 360, 1, -1)
    eyes = np.zeros(shape, np.uint8)
    for eye in (landmarks[36:42], landmarks[42:48]):
        cv2.fillPoly(eyes, [np.round(eye).astype(np.int32)], 1)
    reach = 2 * int(0.35 * u) + 1
    eyes = cv2.dilate(eyes, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    found = (dark > 0.18) & (zone > 0) & (eyes == 0)
    reach = 2 * int(0.12 * u) + 1
    found = cv2.morphologyEx(
        found.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    )
    count, part, stats, _ = cv2.connectedComponentsWithStats(found)
    for i in range(1, count):
        if max(stats[i, cv2.CC_STAT_WIDTH], stats[i, cv2.CC_STAT_HEIGHT]) < 1.2 * u:
            found[part == i] = 0
    found = cv2.dilate(found, np.ones((3, 3), np.uint8))
    whole = np.zeros(picture.shape[:2], np.uint8)
    whole[top:bottom] = found
    distance = cv2.distanceTransform(1 - whole, cv2.DIST_L2, 5)
    frame = cv2.GaussianBlur(whole.astype(np.float32), (0, 0), 0.08 * u)
    return Glasses(np.clip(frame * 1.3, 0, 1), distance.astype(np.float32), score)


def _thin_lines(log_luma: Grid, reach: int) -> tuple[Grid, Grid]:
    """How much darker each pixel is than both of its neighbours at ``reach`` above and below, and left and right."""
    padded = np.pad(log_luma, reach, mode="edge")
    rows, columns = slice(reach, -reach), slice(reach, -reach)
    level = np.minimum(padded[: -2 * reach, columns], padded[2 * reach :, columns]) - log_luma
    upright = np.minimum(padded[rows, : -2 * reach], padded[rows, 2 * reach :]) - log_luma
    return np.maximum(level, 0), np.maximum(upright, 0)


def frame_score(level: Grid, broad: Grid, landmarks: NDArray[np.float64], u: float) -> float:
    """How sure it is that a frame crosses the bridge of the nose, 0 to 1.

    ``level`` are thin lines that run from left to right, ``broad`` what is darker than its wider surroundings. Faces
    have no lines across the bridge of the nose but frowns, whose lines are broad; thick frames are broad as well, and
    then their lower rims must be seen, too.
    """
    height, width = level.shape
    inner = landmarks[[39, 42]]
    middle = inner.mean(0)
    half = 0.30 * float(inner[1, 0] - inner[0, 0])

    def crossed(lines: Grid, least: float, x0: float, x1: float, y0: float, y1: float) -> float:
        a, b = max(int(x0), 0), min(int(x1), width)
        c, d = max(int(y0), 0), min(int(y1), height)
        if b - a < 3 or d - c < 3:
            return 0.0
        return float((lines[c:d, a:b].max(0) > least).mean())

    bridge = (middle[0] - half, middle[0] + half, middle[1] - 1.3 * u, middle[1] + 1.2 * u)
    rims = 0.0
    for eye in (landmarks[36:42], landmarks[42:48]):
        bottom = eye[[4, 5], 1].mean()
        rims = max(rims, crossed(broad, 0.22, eye[:, 0].min(), eye[:, 0].max(), bottom + 0.65 * u, bottom + 2.0 * u))
    thick = min(crossed(broad, 0.22, *bridge), rims)
    # a faint line counts only where it crosses nearly the whole bridge
    faint = crossed(level, FAINT, *bridge) - 0.3
    return max(thick, crossed(level, PLAIN, *bridge), faint)


YIELD = 0.6
"""Skin moves by at most this share of its distance from the frame: so none of it takes frame along, or folds."""


def hold(flow: Grid, glasses: Glasses) -> Grid:
    """The flow (H, W, 2), still where the frame is and slowed beside it.

    The head does not move, and so neither does what rests on it. Nowhere does the flow reach for a pixel of the frame.
    """
    size = np.hypot(flow[..., 0], flow[..., 1])
    allowed = YIELD * glasses.distance
    # a soft minimum, so that the slowing has no edge
    share = allowed / np.sqrt(allowed**2 + size**2 + 1e-6)
    return flow * share[..., None]
