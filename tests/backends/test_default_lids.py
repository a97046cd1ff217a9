"""Lids whose flow and paint tell different things agree on one line, and their skin follows it."""

from __future__ import annotations

import numpy as np
import pytest

from exprtool.faces.align import CropTemplate
from exprtool_default.card import FINE, FlowCard
from exprtool_default.lids import with_lids

CARD = FlowCard(
    128,
    CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668)),
    ("eyeWideLeft",),
    {},
    {"right_eye": (24, 28, 60, 56), "left_eye": (68, 28, 104, 56)},
)
SIDE = FINE * CARD.size
EYES = {36: (86, 90), 42: (170, 90)}
LID = 84
"""Row of the upper lids."""


def points() -> np.ndarray:
    found = np.full((68, 2), 0.5)
    hexagon = np.array([(-18, 0), (-9, -6), (9, -6), (18, 0), (9, 6), (-9, 6)])
    for first, middle in EYES.items():
        found[first : first + 6] = (hexagon + middle + 0.5) / SIDE
    return found


def rising(by_flow: float, by_paint: float) -> tuple[np.ndarray, np.ndarray]:
    """Lids that rise by so many pixels as the flow says, and by so many as the paint mask says."""
    flow, mask = np.zeros((SIDE, SIDE, 2), np.float32), np.zeros((SIDE, SIDE), np.float32)
    flow[: LID + 1, :, 1] = by_flow
    flow[LID - 20 : LID - 4, :, 1] += np.linspace(2, 0, 16)[:, None]  # the skin above it stretches
    for x, y in EYES.values():
        mask[round(LID - by_paint) : y, x - 12 : x + 13] = 1
    return flow, mask


@pytest.mark.parametrize(("by_flow", "by_paint"), [(5.0, 4.0), (4.0, 5.0), (5.0, 5.0)])
def test_flow_and_paint_meet_half_way(by_flow: float, by_paint: float) -> None:
    flow, mask = rising(by_flow, by_paint)
    settled, opened = with_lids(flow, mask, points(), CARD)
    rim = 0.28 * CARD.pixels_per_mm(SIDE)
    expected = LID - (by_flow + by_paint) / 2 - rim
    for x, _ in EYES.values():
        top = float(np.argmax(opened[:, x] > 0.5))
        assert top == pytest.approx(expected, abs=1.2), "open up to there"
        band = settled[int(expected) - 7 : int(expected), x, 1]
        assert band == pytest.approx((by_flow + by_paint) / 2, abs=0.5), "and the lashes come from the photo's margin"
        assert np.ptp(band) < 0.1, "in one piece"
        assert settled[int(expected) - 18, x, 1] == flow[int(expected) - 18, x, 1], "far above all stays as it was"
    assert np.array_equal(settled[:, 128], flow[:, 128]) and not opened[:, 128].any(), "between the eyes as well"
    assert flow.max() == by_flow + 2, "what was given is left alone"


def test_nothing_is_opened_that_the_network_does_not_open() -> None:
    flow, mask = rising(5.0, 5.0)
    mask[:, :128] = 0
    settled, opened = with_lids(flow, mask, points(), CARD)
    assert np.array_equal(settled[:, :128], flow[:, :128]) and not opened[:, :128].any()
    assert opened[:, 128:].any()


def test_eyes_that_do_not_open_keep_their_skin_and_paint() -> None:
    flow, mask = rising(-2.0, 0.0)
    flow[..., 1] = -2
    settled, opened = with_lids(flow, mask, points(), CARD)
    assert np.array_equal(settled, flow)
    assert (opened <= mask).all()
