"""Lips that all but close meet, and leave no line of teeth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.faces.align import CropTemplate
from exprtool_default.card import FINE, FlowCard
from exprtool_default.lips import with_closed_lips
from exprtool_flow.points import mean_points

CARD = FlowCard(
    128,
    CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668)),
    ("jawOpen",),
    {},
    {"mouth": (36, 60, 92, 116)},
)
SIDE = FINE * CARD.size
OPEN = 12
"""Height of the photo's mouth in pixels of the doubled crop, some 8 mm."""
SKIN, LIPS, TEETH = (200, 150, 125), (150, 75, 75), (235, 235, 230)


@pytest.fixture(scope="module")
def points() -> NDArray[np.float64]:
    found = mean_points().numpy().astype(np.float64)
    line = found[60:68, 1].mean()
    found[[61, 62, 63], 1], found[[65, 66, 67], 1] = line, line + OPEN / SIDE
    found[[60, 64], 1] = line + OPEN / 2 / SIDE
    return found


def closing(points: NDArray[np.float64], left: float) -> NDArray[np.float32]:
    """The flow by which lips come together but for ``left`` pixels."""
    flow = np.zeros((SIDE, SIDE, 2), np.float32)
    middle = (points[62, 1] + points[66, 1]) / 2 * SIDE - 0.5
    off = np.arange(SIDE) - middle
    gives = np.clip(1 - (np.abs(off) - 10) / 30, 0, 1)
    flow[..., 1] = (np.clip(off / (left / 2), -1, 1) * (OPEN - left) / 2 * gives)[:, None]
    return flow


def shown(points: NDArray[np.float64], flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    photo = np.empty((SIDE, SIDE, 3), np.uint8)
    photo[:] = SKIN
    for outline, colour in ((points[48:60], LIPS), (points[60:68], TEETH)):
        cv2.fillConvexPoly(photo, cv2.convexHull(np.rint(outline * SIDE - 0.5).astype(np.int32)), colour)
    cv2.polylines(photo, [np.rint(points[60:68] * SIDE - 0.5).astype(np.int32)], True, LIPS, 3)
    x, y = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))
    return np.asarray(cv2.remap(photo, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR), np.uint8)


def test_a_mouth_that_all_but_closes_is_closed(points: NDArray[np.float64]) -> None:
    flow, mask = closing(points, 2.5), np.zeros((SIDE, SIDE), np.float32)
    mask[150:190, 100:156] = 1
    assert (shown(points, flow)[..., 2] > 180).any(), "a line of teeth"
    closed, painted, shade = with_closed_lips(flow, mask, points, CARD)
    middle = slice(116, 140)
    assert not (shown(points, closed)[:, middle, 2] > 180).any(), "none is left"
    assert not painted.any(), "and nothing to paint"
    assert shade is not None and -1 < shade.min() < -0.5 and shade.max() == 0
    row = int(shade[:, 128].argmin())
    assert abs(row - ((points[62, 1] + points[66, 1]) / 2 * SIDE - 0.5)) < 2, "dark where the lips meet"
    far = np.abs(np.arange(SIDE) - row) > 20
    assert np.array_equal(closed[far], flow[far])
    assert mask.max() == 1, "what was given is left alone"
    rows = np.arange(SIDE) + closed[:, 128, 1]
    above, below = rows[:row], rows[row + 1 :]
    assert (np.diff(above) > 0).all() and (np.diff(below) > 0).all(), "nothing folds over"


@pytest.mark.parametrize("left", [6.0, 11.9])
def test_a_mouth_that_stays_open_stays_as_it_is(points: NDArray[np.float64], left: float) -> None:
    flow, mask = closing(points, left), np.ones((SIDE, SIDE), np.float32)
    closed, painted, shade = with_closed_lips(flow, mask, points, CARD)
    assert closed is flow and painted is mask and shade is None


def test_a_mouth_that_was_closed_has_nothing_to_close() -> None:
    points = mean_points().numpy().astype(np.float64)
    points[[61, 62, 63], 1] = points[[65, 66, 67], 1] = points[60:68, 1].mean()
    flow, mask = np.zeros((SIDE, SIDE, 2), np.float32), np.zeros((SIDE, SIDE), np.float32)
    closed, _, shade = with_closed_lips(flow, mask, points, CARD)
    assert closed is flow and shade is None
