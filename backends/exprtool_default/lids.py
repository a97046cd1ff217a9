"""Upper lids that move in one piece, and eyes that are open up to them.

The network tells twice where an eye's upper lid goes: by the flow, and by where it paints what the lid uncovers. Either
is off by half a millimetre, and they know nothing of each other; skin may stay on what should be open, or lashes lie
half under the paint. Here both agree on one line. The skin above it follows its margin as the face model's backend lets
it (`exprtool.anatomy.eyes.follow_margin`): lashes grow from the margin and do not stretch with the lid.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.eyes import follow_margin
from exprtool.anatomy.grids import smooth
from exprtool.anatomy.margins import along, moved_rim
from exprtool_default.card import FlowCard
from exprtool_default.eyes import EYES

Floats = NDArray[Any]

_ABOVE = 2.0
"""How far above the margin, in mm, the flow is the lid's and no longer the eyeball's, which rests."""
_RIM = 0.28
"""Between the inner rim of a lid, which landmarks mark, and its margin, in mm."""
_APART = 2.4
"""By how much flow and paint may disagree about the margin, in mm; beyond, the flow is believed."""
_SOFT = 0.4
"""Standard deviation, in mm, over which the margin is smoothed along the lid."""
_OPENS = 0.35, 1.0
"""Height of what is uncovered, in mm, up to which nothing is painted for it, and from which on all."""
_INTO_EYE = 1.0
"""How far below the photo's own margin, in mm, paint goes on: lashes and the lid's shade hide the eyeball there."""


def with_lids(
    flow: NDArray[np.float32], mask: NDArray[np.float32], points: Floats, card: FlowCard
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``flow`` (H, H, 2), backward and in its own pixels, and paint ``mask`` (H, H) of a crop, made to agree along the
    upper lids. ``points`` (68, 2) are the photo's landmarks in shares of the side."""
    side = mask.shape[0]
    per_mm = card.pixels_per_mm(side)
    flow, mask = flow.copy(), mask.copy()
    for name, numbers in EYES.items():
        if name in card.windows:
            x0, y0, x1, y1 = card.box(name, side)
            if mask[y0:y1, x0:x1].max() < 0.5:
                continue  # nothing opens here, or nothing that the network has seen
            eye = np.asarray(points[numbers], np.float64) * side - 0.5
            _settle(flow, mask[y0:y1, x0:x1], (x0, y0), eye, per_mm)
    return flow, mask


def _settle(flow: Floats, mask: Floats, origin: tuple[int, int], eye: Floats, per_mm: float) -> None:
    """One eye (6, 2): ``flow`` of the crop and ``mask`` of its window are changed in place."""
    height, width = mask.shape
    left, top, lower = origin[0], origin[1], eye[[0, 5, 4, 3]]
    upper = eye[:4] if eye[0, 0] < eye[3, 0] else eye[3::-1]
    lower = lower if lower[0, 0] < lower[3, 0] else lower[::-1]
    if (np.diff(upper[:, 0]) <= 0).any() or (np.diff(lower[:, 0]) <= 0).any():
        return
    first, last = max(left, int(np.ceil(upper[0, 0]))), min(left + width - 1, int(upper[3, 0]))
    if last - first < 8:
        return
    x = np.arange(first, last + 1)
    by_flow, across = moved_rim(flow, x, upper, -_ABOVE * per_mm)
    opened = mask[:, first - left : last + 1 - left] > 0.5
    by_paint = np.where(opened.any(0), top + opened.argmax(0) - 0.5, np.nan)
    both = np.abs(by_paint - by_flow) <= _APART * per_mm
    margin = np.where(both, (by_flow + by_paint) / 2, by_flow) - _RIM * per_mm
    row = margin.astype(np.float32)[None]
    margin = cv2.GaussianBlur(row, (0, 0), _SOFT * per_mm, borderType=cv2.BORDER_REPLICATE)[0]
    before = along(upper, x + across) - _RIM * per_mm
    rows = np.arange(top, top + height)[:, None]
    here = mask[:, first - left : last + 1 - left]
    below = np.clip(rows - margin + 0.5, 0, 1)
    uncovered = smooth(((along(upper, x) - _RIM * per_mm - margin) / per_mm - _OPENS[0]) / (_OPENS[1] - _OPENS[0]))
    follow_margin(flow, first, margin, np.stack([across, before - margin], -1), 10 * per_mm, uncovered)
    floor = np.minimum(along(upper, x) + _INTO_EYE * per_mm, along(lower, x))
    strip = below * np.clip(floor - rows + 0.5, 0, 1) * uncovered
    here[:] = np.maximum(here * np.where(both | (uncovered > 0), below, 1), strip)
