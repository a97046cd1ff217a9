"""Eyes that open show the photo's own iris: the lids move, the eyeball stays where it is.

Paint is soft in detail; the light that an eye reflects is lost in it. Where the photo shows the eyeball already, free
of lashes and the lids' shade, the photo is shown in its place instead, and paint remains for what the lids have
uncovered. In eyes that are hardly open it is shown where it agrees with the paint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.lift import CropAnswer
from exprtool.types import Image
from exprtool_blendshape.eyes import Eye
from exprtool_blendshape.grids import smooth
from exprtool_default.card import FlowCard

EYES = {"right_eye": slice(36, 42), "left_eye": slice(42, 48)}
"""Landmarks of each window's eye."""
_EDGE = 1.2
"""Standard deviation of the seam along the lids, in pixels of the doubled crop."""
_AROUND = 2.5
"""Over how much of an eye colours are compared (standard deviation, the same pixels)."""
_AGREES, _DIFFERS = 0.07, 0.2
"""Difference of colour, of [0, 1], up to which paint and photo are taken for the same, and from which on not."""
_UNDER_PAINT = 0.5
"""Share of the seam in which the flow comes to rest, under the paint, before the paint opens."""


def with_own_eyes(
    answer: CropAnswer, photo: Image, points: NDArray[np.floating], eyes: Mapping[str, Eye], card: FlowCard
) -> CropAnswer:
    """``answer`` for a crop (H, H) with flow and paint, made to leave eyeballs alone that ``photo`` (H, H, 3), the crop
    itself, shows. ``points`` (68, 2) are the photo's landmarks in shares of the side, ``eyes`` what
    `exprtool_default.eyeballs` found by window."""
    if answer.paint_mask is None or answer.paint is None or answer.flow is None:
        return answer
    side = answer.checked()
    mask, flow = answer.paint_mask.copy(), answer.flow.copy()
    for name, eye in EYES.items():
        if name not in card.windows:
            continue
        x0, y0, x1, y1 = card.box(name, side)
        here = slice(y0, y1), slice(x0, x1)
        if mask[here].max() < 0.5:
            continue
        ball = eyes.get(name)
        shown = 0.0 if ball is None else ball.shown
        still = np.zeros((side, side), np.float32)
        if ball is not None:
            still[ball.window] = shown * ball.trusted
        still = still[here]
        if shown < 1:
            agrees = _agreement(answer.paint[here] / 255 - photo[here] / np.float32(255), mask[here])
            lids = _between_lids(points[eye] * side - 0.5 - (x0, y0), (y1 - y0, x1 - x0))
            still = still + (1 - shown) * lids * agrees
        flow[here] *= (1 - mask[here] * smooth(still / _UNDER_PAINT))[..., None]
        mask[here] *= 1 - smooth((still - _UNDER_PAINT) / (1 - _UNDER_PAINT))
    return replace(answer, paint_mask=mask, flow=flow)


def _between_lids(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[Any]:
    """1 inside the eye (6, 2), falling to 0 at its lids, (h, w)."""
    fraction = 4
    inside = np.zeros(size, np.uint8)
    cv2.fillPoly(inside, [np.rint(points * 2**fraction).astype(np.int32)], 255, cv2.LINE_AA, fraction)
    return smooth(2 * cv2.GaussianBlur(inside.astype(np.float32) / 255, (0, 0), _EDGE) - 0.5)


def _agreement(difference: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """1 where paint and photo differ little in colour over the painted surroundings, 0 where by much, (h, w)."""
    weight = cv2.GaussianBlur(mask, (0, 0), _AROUND) + 1e-3
    mean = cv2.GaussianBlur(np.ascontiguousarray(difference * mask[..., None], np.float32), (0, 0), _AROUND)
    error = np.abs(mean / weight[..., None]).mean(-1)
    return 1 - smooth((error - _AGREES) / (_DIFFERS - _AGREES))
