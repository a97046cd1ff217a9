"""The tongue that is drawn into the dark of a mouth that stands wide open."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.faces.align import CropTemplate
from exprtool_default.card import FINE, FlowCard
from exprtool_default.tongue import with_tongue

Floats = NDArray[np.float32]
MIST = np.array([0.22, 0.08, 0.08], np.float32)


@pytest.fixture(scope="module")
def card() -> FlowCard:
    template = CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668))
    return FlowCard(128, template, ("jawOpen",), {}, {"mouth": (36, 60, 92, 116)})


def opened(card: FlowCard, height: int) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Paint and mask of an oval mouth, open by so many rows and 60 wide, and the pixels' places about its middle."""
    side = FINE * card.size
    y, x = np.mgrid[:side, :side] - np.round(side * np.array(card.template.mouth[::-1])).astype(int)[:, None, None]
    mask = ((2 * y / height) ** 2 + (x / 30) ** 2 < 1).astype(np.float32)
    paint = np.zeros((side, side, 3), np.float32)
    paint[:] = MIST
    return paint, mask, y, x


def test_a_wide_mouth_shows_a_tongue_below_and_is_dark_above(card: FlowCard) -> None:
    paint, mask, y, x = opened(card, 36)
    found = with_tongue(paint, mask, card).mean(-1)
    back, room = (np.abs(y - 4) < 2) & (np.abs(x) < 14), (np.abs(y + 8) < 3) & (np.abs(x) < 14)
    assert found[back].mean() > 1.15 * MIST.mean() > 1.5 * found[room].mean() > 0
    side = (np.abs(y - 4) < 2) & (np.abs(x) > 25) & (mask > 0)
    assert found[side].mean() < 0.8 * found[back].mean(), "it does not reach the corners"
    middle, beside = (np.abs(y - 6) < 2) & (np.abs(x) < 2), (np.abs(y - 6) < 2) & (np.abs(np.abs(x) - 8) < 2)
    assert found[middle].mean() < 0.97 * found[beside].mean(), "a furrow"
    low = (np.abs(y - 15) < 2) & (np.abs(np.abs(x) - 8) < 2)
    assert found[low].mean() < 0.9 * found[beside].mean(), "it goes down behind the lip"
    edge = np.abs(np.diff(found[(x == 8)]))
    assert edge.max() < 0.5 * MIST.mean(), "nothing is cut out with scissors"


def test_it_comes_gradually_and_not_into_a_narrow_mouth(card: FlowCard) -> None:
    changes = []
    for height in (8, 12, 14, 22):
        paint, mask, _, _ = opened(card, height)
        changes.append(float(np.abs(with_tongue(paint, mask, card) - paint).max()))
    assert changes[0] == 0 and 0 < changes[2] < changes[3]


def test_nothing_but_the_dark_of_the_mouth_is_touched(card: FlowCard) -> None:
    paint, mask, y, _ = opened(card, 36)
    paint[y < -8] = 0.7  # teeth
    found = with_tongue(paint, mask, card)
    assert np.array_equal(found[mask == 0], paint[mask == 0])
    assert np.array_equal(found[y < -8], paint[y < -8])
    assert np.array_equal(with_tongue(paint, np.zeros_like(mask), card), paint)
    light = np.full_like(paint, 0.7)
    assert np.array_equal(with_tongue(light, mask, card), light)
