"""What lids uncover: the eyeball as the photo shows it, completed from itself.

The network knows where an eye opens, but paints what appears there as an average: irises with milky tops. The eyeball
of the photo, its iris continued by its own mirror image and its white by its own colour, is the better paint; the face
model's backend completes it by the same code (`exprtool.anatomy.eyes`), which needs no face model. Behind lids that
are all but closed it assumes what most people have: brown irises that look straight ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.eyes import Eye, complete, lid_shadow
from exprtool.anatomy.grids import smooth
from exprtool.anatomy.skin import Skin
from exprtool.types import Image
from exprtool_default.card import FlowCard
from exprtool_default.eyes import EYES

Floats = NDArray[Any]
_USUAL_SKIN = 0.6
"""Luma of lit skin where none is to be seen."""
_EDGE = 0.35, 0.65
"""Of a paint mask, between which its colour goes over from the network's to the eyeball's."""


def eyeballs(photo: Image, mask: Floats, points: NDArray[np.floating], skin: Skin, card: FlowCard) -> Mapping[str, Eye]:
    """The completed eyes by window, of a crop (H, H, 3) with landmarks (68, 2) in shares of its side, where ``mask``
    (H, H) paints in them. ``skin`` tells how bright the white of an eye may be."""
    wanted = [name for name in EYES if name in card.windows and _painted(mask, name, card)]
    if not wanted:
        return {}
    side = photo.shape[0]
    at, per_cm = points * side - 0.5, 10 * card.pixels_per_mm(side)
    picture = photo.astype(np.float32) / 255
    lit = _USUAL_SKIN if skin.lit is None else skin.lit
    found = {}
    for name in wanted:
        numbers = EYES[name]
        outline = np.zeros((side, side), np.uint8)
        cv2.fillPoly(outline, [np.rint(at[numbers]).astype(np.int32)], (1,))
        if (eye := complete(picture, outline > 0, at[numbers], lit, per_cm)) is not None:
            found[name] = eye
    return found


def with_eyeballs(paint: Floats, mask: Floats, photo: Image, eyes: Mapping[str, Eye], card: FlowCard) -> Floats:
    """``paint`` (H, W, 3) in [0, 1] with the completed ``eyes`` where ``mask`` (H, W) paints in their windows; the
    paint is returned as it is where it does in none."""
    out = paint
    per_cm = 10 * card.pixels_per_mm(paint.shape[0])
    for name, eye in eyes.items():
        x0, y0, x1, y1 = card.box(name, paint.shape[0])
        if not _painted(mask, name, card):
            continue
        out = out.copy() if out is paint else out
        painted = np.zeros_like(mask)
        painted[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
        painted = painted[eye.window]
        share = smooth((painted - _EDGE[0]) / (_EDGE[1] - _EDGE[0]))[..., None]
        own = photo[eye.window] / np.float32(255)
        ball = eye.completed + eye.trusted[..., None] * (own - eye.completed)
        ball = ball * lid_shadow((painted > 0.5) | eye.open, per_cm)[..., None]
        here = out[eye.window]
        out[eye.window] = here + share * (ball - here)
    return out


def _painted(mask: Floats, name: str, card: FlowCard) -> bool:
    """Whether anything is painted in a window."""
    x0, y0, x1, y1 = card.box(name, mask.shape[0])
    return bool(mask[y0:y1, x0:x1].max() >= 0.5)
