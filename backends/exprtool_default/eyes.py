"""Eyes that open show the photo's own iris: the lids move, the eyeball stays where it is.

Paint is soft in detail; the light that an eye reflects is lost in it. Where the photo shows the eyeball already, free
of lashes and the lids' shade, the photo is shown in its place instead, and paint remains for what the lids have
uncovered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from exprtool.anatomy.eyes import Eye
from exprtool.anatomy.grids import smooth
from exprtool.pixels.lift import CropAnswer
from exprtool_default.card import FlowCard

EYES = {"right_eye": slice(36, 42), "left_eye": slice(42, 48)}
"""Landmarks of each window's eye."""
_UNDER_PAINT = 0.5
"""Share of the seam in which the flow comes to rest, under the paint, before the paint opens."""


def with_own_eyes(answer: CropAnswer, eyes: Mapping[str, Eye], card: FlowCard) -> CropAnswer:
    """``answer`` for a crop (H, H) with flow and paint, made to leave eyeballs alone that its photo shows: ``eyes`` are
    what `exprtool_default.eyeballs` found by window."""
    if answer.paint_mask is None or answer.paint is None or answer.flow is None:
        return answer
    side = answer.checked()
    mask, flow = answer.paint_mask.copy(), answer.flow.copy()
    for name, eye in eyes.items():
        x0, y0, x1, y1 = card.box(name, side)
        here = slice(y0, y1), slice(x0, x1)
        still = np.zeros((side, side), np.float32)
        still[eye.window] = eye.trusted
        still = still[here]
        flow[here] *= (1 - mask[here] * smooth(still / _UNDER_PAINT))[..., None]
        mask[here] *= 1 - smooth((still - _UNDER_PAINT) / (1 - _UNDER_PAINT))
    return replace(answer, paint_mask=mask, flow=flow)
