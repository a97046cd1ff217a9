"""What the photo's own mouth tells: whether it is open, and which teeth it shows.

Closed lips are told from lips a little open by their pixels, as the face model's backend does it
(`exprtool.anatomy.lipline`); landmarks cannot tell. Where a mouth shows teeth already and the photo's own, moved,
look as the paint wants it, they are shown: the network paints a mouth that changes as a whole, and its paint is an
average. Teeth that only have to be where the lips carry them are better left to the photo. A mouth is judged as a
whole, so that no tooth is half drawn. Where lips open much further, the upper teeth stay where they are in the photo:
they hang from the skull.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import smooth
from exprtool.anatomy.lipline import CLOSED_GAP, find_lips, with_closed_lips
from exprtool.anatomy.margins import along
from exprtool.anatomy.skin import LUMA, Skin, filled, redness_of
from exprtool.types import Image
from exprtool_default.card import FlowCard

_FEW, _MOST = 0.72, 0.82
"""Share of what is painted that must agree for any of it to be left to the photo, and for all that agrees."""
_LARGER = 3.3, 4.0
"""How many times as large as in the photo an open mouth may be that shows the photo's teeth, and from where on it does
not: a glimpse of teeth does not make a row."""
_AGREES, _DIFFERS = 0.3, 0.6
"""Difference of luma, as a share of the teeth's, up to which teeth that lips cast a shadow on are still teeth, and from
which on dark or lips are wanted in their place."""
_DIM, _ENAMEL = 0.5, 0.7
"""Luma, as a share of the teeth's, up to which what lies between lips is no tooth, and from which on it surely is."""
_HANGS = 6.0, 9.0
"""How far below the upper lip, in mm, teeth may be the upper ones, and from where on they are the jaw's."""
_ENOUGH = 0.08
"""Share of the painted mouth that such teeth must fill."""
_SOFT = 0.5
"""Standard deviation of the teeth's outline in mm."""
_UNDER_PAINT = 0.5
"""Share of the outline in which the flow comes to rest, under the paint, before the paint opens."""
_AROUND = 4.0
"""Over how much of a mouth colours are compared (standard deviation, pixels of the doubled crop): about a tooth."""


_RED = 0.12
"""By how much more than `Skin.red` something surely is lips and not teeth."""
_TOLD, _OWN = 60, 0.8
"""From how many pixels between the lips on their colour is trusted; quantile of their luma that is enamel."""
_RIM, _RIM_WIDE = 0.6, 1.9
"""How bright teeth are right beside a lip, whose shadow falls on them, and over how many mm that rises to 1."""


def look_at_mouth(
    photo: Image, points: NDArray[Any], per_mm: float, *, moving: bool = False
) -> tuple[NDArray[Any], bool]:
    """The landmarks (68, 2), in shares of the side of the photo's crop (H, H, 3), with a closed mouth's inner lips
    together; and whether there are teeth between open ones. ``per_mm`` are its pixels for each millimetre of the face,
    ``moving`` tells that it is a frame of a clip."""
    side = photo.shape[0]
    here, per_cm = points * side - 0.5, 10 * per_mm
    if (np.linalg.norm(here[[61, 62, 63]] - here[[67, 66, 65]], axis=1) <= CLOSED_GAP * per_cm).all():
        return points, False
    lips = find_lips(photo, here, per_cm, moving)
    if not lips.open:
        return (with_closed_lips(here, lips) + 0.5) / side, False
    return points, bool(lips.teeth)


def own_teeth(photo: Image, points: NDArray[Any], skin: Skin) -> NDArray[Any] | None:
    """The colour (3,) in [0, 1] of the teeth that the ``photo`` (H, W, 3) shows between the inner lips, None where
    there is too little to see, or what there is is as red as lips. ``points`` (68, 2) are the landmarks in its
    pixels."""
    inside = photo[filled(photo, points[60:68]) > 0] / np.float32(255)
    if len(inside) < _TOLD:
        return None
    luma = inside @ LUMA
    colour = np.median(inside[luma >= np.quantile(luma, _OWN)], axis=0)
    return None if redness_of(colour) > skin.red + _RED else colour


def with_own_mouth(
    mask: NDArray[np.float32], paint: NDArray[np.float32], flow: NDArray[np.float32], photo: Image,
    points: NDArray[Any], own: NDArray[Any] | None, card: FlowCard,
) -> NDArray[np.float32]:  # fmt: skip
    """``mask`` (H, H), smaller in the mouth's window where the photo will do.

    ``paint`` (H, H, 3) in [0, 1]; ``flow`` (H, H, 2) backward, in its own pixels; ``photo`` (H, H, 3) is the crop,
    ``points`` (68, 2) its landmarks in shares of the side and ``own`` (3,) the colour of its teeth. The mask is
    returned as it is where nothing is painted, or the photo shows no teeth.
    """
    side = mask.shape[0]
    x0, y0, x1, y1 = card.box("mouth", side)
    here = slice(y0, y1), slice(x0, x1)
    inside = mask[here]
    if own is None or inside.max() < 0.5:
        return mask
    at = flow[here] + np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1).astype(np.float32)
    shown = cv2.remap(photo, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.GaussianBlur(inside, (0, 0), _AROUND) + 1e-3
    difference = cv2.GaussianBlur((paint[here] @ LUMA - shown @ LUMA / 255) * inside, (0, 0), _AROUND) / weight
    agrees = 1 - smooth((np.abs(difference) / (own @ LUMA) - _AGREES) / (_DIFFERS - _AGREES))
    share = float((agrees * inside).sum() / inside.sum())
    kept = float(smooth((share - _FEW) / (_MOST - _FEW)))
    kept *= 1 - _larger(inside, points * side - 0.5)
    if kept == 0:
        return mask
    out = mask.copy()
    out[here] = inside * (1 - kept * agrees)
    return out


def with_teeth_in_place(
    mask: NDArray[np.float32], flow: NDArray[np.float32], photo: Image, points: NDArray[Any], own: NDArray[Any] | None,
    card: FlowCard,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:  # fmt: skip
    """``mask`` (H, H) and backward ``flow`` (H, H, 2), at rest where the mouth's window is painted and the photo's crop
    (H, H, 3) shows upper teeth of the colour ``own`` (3,); and the logarithm (H, H) of the shade that falls on them,
    None where none are to be seen. ``points`` (68, 2) are the landmarks in shares of the side."""
    side = mask.shape[0]
    x0, y0, x1, y1 = card.box("mouth", side)
    here = slice(y0, y1), slice(x0, x1)
    inside = mask[here]
    if own is None or inside.max() < 0.5:
        return mask, flow, None
    at, per_mm = np.asarray(points, np.float64) * side - 0.5, card.pixels_per_mm(side)
    between = filled(photo, at[60:68])[here].astype(np.float32)
    luma = photo[here] @ LUMA / 255
    lip = along(at[60:65], np.arange(x0, x1)) if (np.diff(at[60:65, 0]) > 0).all() else at[61:64, 1].mean()
    below = (np.arange(y0, y1)[:, None] - lip) / per_mm
    tooth = between * smooth((luma / (own @ LUMA) - _DIM) / (_ENAMEL - _DIM))
    tooth *= 1 - smooth((below - _HANGS[0]) / (_HANGS[1] - _HANGS[0]))
    still = smooth(2 * cv2.GaussianBlur(tooth.astype(np.float32), (0, 0), _SOFT * per_mm) - 0.5)
    if (still * inside).sum() < _ENOUGH * inside.sum() or _larger(inside, at) > 0.5:
        return mask, flow, None
    shade = np.zeros_like(mask)
    shade[here] = np.log(_beside_lips(inside, per_mm)) * inside * still
    mask, flow = mask.copy(), flow.copy()
    flow[here] *= (1 - inside * smooth(still / _UNDER_PAINT))[..., None]
    mask[here] = inside * (1 - smooth((still - _UNDER_PAINT) / (1 - _UNDER_PAINT)))
    return mask, flow, shade


def _larger(painted: NDArray[np.float32], points: NDArray[Any]) -> float:
    """0 where what is ``painted`` of a mouth (h, w) may show the teeth that are seen between the photo's lips, 1 where
    it is far too large for that. ``points`` (68, 2) are the landmarks in pixels of the same size."""
    opening = cv2.contourArea(np.asarray(points[60:68], np.float32))
    times = float(painted.sum()) / max(1.0, opening)
    return float(smooth((times - _LARGER[0]) / (_LARGER[1] - _LARGER[0])))


def _beside_lips(inside: NDArray[np.float32], per_mm: float) -> NDArray[np.float32]:
    """What lips leave of the light, a factor (h, w), between those that enclose what is painted, (h, w)."""
    away = cv2.distanceTransform((inside > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(_RIM + (1 - _RIM) * smooth(away / (_RIM_WIDE * per_mm)), np.float32)
