"""A tongue in mouths that stand wide open: the network knows that it is there, but paints its average, a red mist.

Its back is a low arch over the lower lip, lit from above where it is highest, with a furrow along the middle; over it
the mouth is dark. The network's own colour for the lower half of the opening tells its hue and how much light there is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import smooth
from exprtool.anatomy.skin import LUMA
from exprtool_default.card import FlowCard

Floats = NDArray[Any]

_NARROW, _WIDE = 7.0, 12.0
"""Height of the opening in mm up to which no tongue is seen, and from which on all of it."""
_HEIGHT, _HALF_WIDTH = 0.46, 0.74
"""Of the tongue, as shares of the opening's height and half width."""
_LIT, _DARK = 1.45, 0.6
"""Brightness of the tongue's back and of the room above it, as shares of the paint's."""
_FALL, _FURROW = 0.45, 0.16
"""How much darker it is where it goes down behind the lower lip, and along the middle."""
_EDGE = 2.2
"""Pixels over which it rises from the dark."""
_BRIGHT = (0.3, 0.42)
"""Luma from which on paint may be teeth or lips, and from which on it surely is."""


def with_tongue(paint: Floats, mask: Floats, card: FlowCard) -> Floats:
    """``paint`` (H, W, 3) in [0, 1] with a tongue in the dark of the mouth's window; ``mask`` (H, W) tells what is
    painted at all. The paint is returned as it is where nothing stands wide open."""
    x0, y0, x1, y1 = card.box("mouth", paint.shape[0])
    here = paint[y0:y1, x0:x1]
    light = smooth((here @ LUMA - _BRIGHT[0]) / (_BRIGHT[1] - _BRIGHT[0]))
    dark = np.clip(2 * mask[y0:y1, x0:x1] - 1, 0, 1) * (1 - light)
    rows, columns = np.nonzero(dark > 0.5)
    if len(rows) == 0:
        return paint
    left, right = int(columns.min()), int(columns.max()) + 1
    heights = (dark[:, left:right] > 0.5).sum(0)
    tall = float(np.quantile(heights, 0.8))
    per_mm = card.pixels_per_mm(paint.shape[0])
    share = float(smooth((tall / per_mm - _NARROW) / (_WIDE - _NARROW)))
    if share == 0:
        return paint
    middle, half = (left + right - 1) / 2, (right - left) / 2
    y, x = np.mgrid[: here.shape[0], : here.shape[1]].astype(np.float32)
    across = (x - middle) / (_HALF_WIDTH * half)
    floor = float(np.quantile(rows[np.abs(columns - middle) < 0.3 * half], 0.98)) + 1
    top = floor - _HEIGHT * tall * np.sqrt(np.clip(1 - across**2, 0, 1))
    back = smooth((y - top) / _EDGE + 0.5) * smooth((1 - np.abs(across)) * 4)
    down = np.clip((y - top) / (_HEIGHT * tall), 0, 1)
    lit = (_LIT - _DARK) * (1 - _FALL * down) * (1 - _FURROW * np.exp(-(((x - middle) / (1.3 * per_mm)) ** 2)))
    low = here[(dark > 0.5) & (y > floor - 0.5 * tall)].mean(0)
    drawn = here * _DARK + (back * lit)[..., None] * low
    out = paint.copy()
    out[y0:y1, x0:x1] = here + share * dark[..., None] * (drawn - here)
    return out
