"""Teeth where the network paints light: it knows where they show, but its paint is their average, a pale blur.

The row of upper teeth is drawn with the measures of grown-ups (mesiodistal widths by Wheeler's Dental Anatomy: central
incisor 8.5 mm, lateral 6.5, canine 7.5, premolar 7), as it looks from the front: the further from the middle, the more
a tooth is turned away. The distance between the eyes, 63 mm on average, gives the scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import smooth
from exprtool.anatomy.skin import LUMA, Skin, filled, redness_of
from exprtool.anatomy.tone import enamel_of
from exprtool.types import Image
from exprtool_default.card import FlowCard

Floats = NDArray[Any]

_EDGES = (0.0, 8.5, 14.6, 20.3, 24.9, 28.4)
"""Boundaries between teeth to one side of the middle, in mm across a face seen from the front."""
_LENGTHS = (7.6, 6.8, 7.4, 6.4, 6.0)
"""How much of each crown shows under a lifted lip, in mm; the rest of its 9 to 11 mm is covered."""
_FILLED, _WHOLE = 0.85, 1.4
"""Share of a tall opening that crowns fill, and how much more of them shows then at most: all of it."""
_ROUND = 0.7
"""How much shorter, in mm, a crown is at its sides."""
_EDGE = 2.4
"""Pixels of the doubled crop over which a crown ends: enamel is translucent there."""
_RIM, _RIM_WIDE = 0.6, 1.9
"""How bright teeth are right beside a lip, whose shadow falls on them, and over how many mm that rises to 1."""
_TOP, _TOP_DEEP = 0.85, 4.7
"""The same under the upper lip, which keeps off the light from above."""
_TURNED = 0.68
"""How much darker the last tooth of the row is than those in the middle: it is turned away and lies deeper."""
_BELOW = 0.35
"""Brightness under the edge of the crowns, as a share of the paint's: there is only the dark of the mouth."""
_BRIGHTEST, _BESIDE_EYES = 0.85, 1.22
"""Quantile of an eye's luma that is its white, in the shade of the lids; and how much brighter lit teeth are."""
_ENOUGH, _OWN, _BRIGHTER = 60, 0.8, 1.05
"""From how many pixels between the lips on their colour is trusted; quantile of their luma that is enamel; and how much
brighter that is where no lip casts a shadow."""
_BESIDE_SKIN = 0.92
"""What teeth have at least of the luma of lit skin: eyes may lie in the dark."""
_LIGHT, _DARK = 0.74, 0.22
"""Luma of the network's paint, as a share of the enamel's, from which on it surely means teeth, and up to which not."""
_PALE = 0.14, 0.3
"""The same up to which paint keeps its own colour, and from which on it takes the enamel's."""
_RED = 0.12
"""By how much more than `Skin.red` paint surely is lips and not teeth."""
_GAP = 0.13
"""How dark it is between two teeth."""


def with_teeth(
    paint: Floats, mask: Floats, photo: Image, points: Floats, skin: Skin, own: Floats | None, card: FlowCard,
    *, shown: bool = False,
) -> Floats:  # fmt: skip
    """``paint`` (H, W, 3) in [0, 1] with teeth drawn where it is light, inside the mouth's window.

    ``mask`` (H, W) tells what is painted at all, ``photo`` (H, W, 3) is the crop itself and ``points`` (68, 2) are its
    landmarks in shares of the side: eyes and ``skin`` tell how bright the light is that falls on the teeth, where
    ``own`` (3,), the colour of those that the photo shows, does not. The paint is returned as it is where nothing, or
    nothing light, is painted: the photo's own teeth, where they are only moved, are not painted at all. Where these are
    ``shown`` already, no others are: it is dark around them.
    """
    x0, y0, x1, y1 = card.box("mouth", paint.shape[0])
    inside = mask[y0:y1, x0:x1]
    if inside.max() < 0.5:
        return paint
    here = paint[y0:y1, x0:x1]
    luma = here @ LUMA
    enamel = _enamel(photo, points * paint.shape[0] - 0.5, skin) if own is None else np.minimum(_BRIGHTER * own, 1)
    bright, bare = luma / (enamel @ LUMA), 1 - smooth((redness_of(here) - skin.red) / _RED)
    share = (smooth((bright - _DARK) / (_LIGHT - _DARK)) * np.clip(2 * inside, 0, 1) * bare)[..., None]
    if not share.any():
        return paint
    per_mm = card.pixels_per_mm(paint.shape[0])
    row, crown = _row(share[..., 0], per_mm)
    row = row * beside_lips(inside, per_mm)
    if shown:
        crown = np.zeros_like(crown)
    # The network's blur of teeth is grey: nowhere does it know the colour of the light.
    pale = (smooth((bright - _PALE[0]) / (_PALE[1] - _PALE[0])) * bare)[..., None]
    here = here + pale * (luma[..., None] * enamel / (enamel @ LUMA) - here)
    drawn = crown[..., None] * enamel * row[..., None] + (1 - crown[..., None]) * _BELOW * here
    out = paint.copy()
    out[y0:y1, x0:x1] = here + share * (drawn - here)
    return out


def own_teeth(photo: Image, points: Floats, skin: Skin) -> Floats | None:
    """The colour (3,) in [0, 1] of the teeth that the ``photo`` (H, W, 3) shows between the inner lips, None where
    there is too little to see, or what there is is as red as lips. ``points`` (68, 2) are the landmarks in its
    pixels."""
    inside = photo[filled(photo, points[60:68]) > 0] / np.float32(255)
    if len(inside) < _ENOUGH:
        return None
    luma = inside @ LUMA
    colour = np.median(inside[luma >= np.quantile(luma, _OWN)], axis=0)
    return None if redness_of(colour) > skin.red + _RED else colour


def _enamel(photo: Image, points: Floats, skin: Skin) -> Floats:
    """The colour (3,) of lit teeth: as bright as the white of the eyes tells, in the light that is on the skin.
    ``points`` (68, 2) are the landmarks in pixels of the ``photo`` (H, W, 3)."""
    import cv2

    whites = []
    for eye in (points[36:42], points[42:48]):
        pixels = photo[cv2.erode(filled(photo, eye), np.ones((3, 3), np.uint8)) > 0] / np.float32(255)
        if len(pixels) >= 12:
            luma = pixels @ LUMA
            whites.append(luma[luma >= np.quantile(luma, _BRIGHTEST)].mean())
    bright = float(np.clip(_BESIDE_EYES * np.mean(whites), 0.38, 0.98)) if whites else 0.8
    if skin.lit is not None:
        bright = max(bright, _BESIDE_SKIN * skin.lit)
    return np.minimum(bright * enamel_of(np.array(skin.colour, np.float32)), 1).astype(np.float32)


def beside_lips(inside: Floats, per_mm: float) -> Floats:
    """What lips leave of the light, a factor (h, w), between those that enclose what is painted, (h, w)."""
    import cv2

    away = cv2.distanceTransform((inside > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return _RIM + (1 - _RIM) * smooth(away / (_RIM_WIDE * per_mm))


def _row(share: Floats, per_mm: float) -> tuple[Floats, Floats]:
    """Brightness of the row of teeth (h, w), 1 in the middle of a tooth that faces the viewer; and where its crowns
    are, (h, w) in [0, 1]."""
    height, width = share.shape
    columns = share.sum(0)
    middle = float((columns * np.arange(width)).sum() / columns.sum())
    across = np.abs(np.arange(width) - middle) / per_mm
    edges = np.array(_EDGES)
    tooth = np.clip(np.searchsorted(edges, across, side="right") - 1, 0, len(edges) - 2)
    low, high = edges[tooth], edges[tooth + 1]
    within = np.clip((across - low) / (high - low), 0, 1)  # 0 and 1 at the gaps to the neighbours
    round_ = 1 - 0.16 * (2 * within - 1) ** 4
    near = np.minimum(np.abs(across[:, None] - edges[None, :]).min(1) * per_mm, 9)
    gap = 1 - _GAP * np.exp(-((near / 0.85) ** 2))
    gap[across < 0.35] = np.maximum(gap[across < 0.35], 0.72)  # the two in the middle stand close
    turned = np.clip(1.01 - _TURNED * (across / edges[-1]) ** 2, 0.25, 1)
    # Down from where the row begins under the lip: gums' shade above, a brighter edge below.
    rows = np.arange(height)[:, None]
    top = np.where(columns > 0.5, np.argmax(share > 0.4, axis=0), np.nan)
    good = np.isfinite(top)
    if good.any():  # an arch, whatever a column or two say
        weights = np.sqrt(np.minimum(columns[good], 8))
        bend = min(2, int(good.sum()) - 1)
        top = np.polyval(np.polyfit(np.flatnonzero(good), top[good], bend, w=weights), np.arange(width))
    else:
        top = np.zeros(width)
    down = (rows - top) / per_mm
    shadow = _TOP + (1 - _TOP) * smooth(down / _TOP_DEEP)
    tall = float(np.quantile(columns[columns > 1], 0.75)) / per_mm if (columns > 1).any() else 0.0
    longer = np.clip(_FILLED * tall / max(_LENGTHS), 1, _WHOLE)
    edge = np.array(_LENGTHS)[tooth] * longer - _ROUND * (2 * within - 1) ** 4
    crown = smooth((edge - down) * per_mm / _EDGE + 0.5)
    return (round_ * gap * turned * shadow).astype(np.float32), crown.astype(np.float32)
