"""Lips that close meet: a smile that is taken off leaves no line of teeth.

The flow of a network is smooth, and brings lips together but for a millimetre or two, in which the photo's teeth, or
their paint, go on to shine. Where it all but closes a mouth, each lip takes its half of the rest, and the line between
them is as dark as lips are where they meet.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import smooth
from exprtool.anatomy.margins import along, moved_rim
from exprtool_default.card import FlowCard

Floats = NDArray[Any]

_UPPER, _LOWER = [60, 61, 62, 63, 64], [60, 67, 66, 65, 64]
"""Landmarks of the inner lips."""
_BESIDE = 1.0
"""How far from its rim, in mm, the flow is a lip's."""
_SHUT, _AJAR = 2.4, 3.4
"""Opening in mm up to which lips are meant to be closed, and from which on not."""
_WAS_SHUT, _WAS_OPEN = 2.5, 4.0
"""Opening in the photo, in mm, up to which there is nothing to close, and from which on there is."""
_MOST, _LESS = 0.5, 0.35
"""Share of the photo's opening that is left where a mouth closes, at most, and surely."""
_MARGIN = 1.0
"""Over how much of a lip's rim, in mm, the teeth behind it shine."""
_GIVES = 6.0
"""How far from the line, in mm, lips give way."""
_CORNER = 0.15
"""Share of the mouth's width over which the corners, which meet anyway, are left alone."""
_DEPTH, _WIDE = 0.75, 0.45
"""Log darkness of the line between lips, and its width in mm."""


def with_closed_lips(
    flow: NDArray[np.float32], mask: NDArray[np.float32], points: Floats, card: FlowCard
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
    """``flow`` (H, H, 2) and paint ``mask`` (H, H) with lips that meet where they all but do, and the logarithm (H, H)
    of the shade between them, None where nothing closes. ``points`` (68, 2) are the photo's landmarks in shares of the
    side; all is at that of ``mask``."""
    side = mask.shape[0]
    per_mm = card.pixels_per_mm(side)
    at = np.asarray(points, np.float64) * side - 0.5
    upper, lower = at[_UPPER], at[_LOWER]
    x0, y0, x1, y1 = card.box("mouth", side)
    if (np.diff(upper[:, 0]) <= 0).any() or (np.diff(lower[:, 0]) <= 0).any():
        return flow, mask, None
    ends = [_column(flow, corner) for corner in (upper[0], upper[-1])]
    x = np.arange(max(x0, int(np.ceil(ends[0]))), min(x1 - 1, int(ends[1])) + 1)
    if len(x) < 12:
        return flow, mask, None
    (above, across), (below, _) = (
        moved_rim(flow, x, rim, away) for rim, away in ((upper, -_BESIDE * per_mm), (lower, _BESIDE * per_mm))
    )
    was = along(lower, x + across) - along(upper, x + across)
    middle = slice(len(x) // 5, -(len(x) // 5))
    gap, before = (float(each[middle].mean()) / per_mm for each in (below - above, was))
    closed = (1 - _rises(gap, _SHUT, _AJAR)) * _rises(before, _WAS_SHUT, _WAS_OPEN)
    closed *= 1 - _rises(gap / max(before, 1e-6), _LESS, _MOST)
    if closed == 0:
        return flow, mask, None
    taper = closed * smooth(np.minimum(x - x[0], x[-1] - x) / (_CORNER * len(x)))
    line = cv2.GaussianBlur(((above + below) / 2)[None].astype(np.float32), (0, 0), per_mm)[0]
    rows = np.arange(y0, y1, dtype=np.float32)[:, None]
    place = slice(y0, y1), slice(int(x[0]), int(x[-1]) + 1)
    off = rows - line
    down = np.where(
        off <= 0, np.minimum(above - line, 0) - _MARGIN * per_mm, np.maximum(below - line, 0) + _MARGIN * per_mm
    )
    down = down * (taper * (1 - smooth(np.abs(off) / (_GIVES * per_mm))))
    out = flow.copy()
    columns = np.broadcast_to(x.astype(np.float32), off.shape)
    out[place] = cv2.remap(
        flow, columns, (rows + down).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    out[place][..., 1] += down
    shade = np.zeros_like(mask)
    near = off / (_WIDE * per_mm)
    shade[place] = -_DEPTH * taper * (0.7 * np.exp(-(near**2)) + 0.3 * np.exp(-((near / 3) ** 2)))
    painted = mask.copy()
    painted[y0:y1, x0:x1] *= 1 - closed
    return out, painted, shade


def _column(flow: Floats, corner: Floats) -> float:
    """The column in which a corner of the mouth (2,) comes to lie."""
    x, y = corner
    for _ in range(6):
        row, column = (int(np.clip(np.rint(each), 0, len(flow) - 1)) for each in (y, x))
        x, y = corner - flow[row, column]
    return float(x)


def _rises(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, smooth between."""
    return float(smooth((value - low) / (high - low)))
