"""The irises that are drawn into eyes that were closed in the photo."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.faces.align import CropTemplate
from exprtool_default.card import FINE, FlowCard
from exprtool_default.irises import with_irises

Floats = NDArray[np.float32]
WHITE = np.array([0.7, 0.66, 0.64], np.float32)
EYE = np.array([[-0.06, 0.0], [-0.02, -0.5], [0.02, -0.5], [0.06, 0.0], [0.02, 0.5], [-0.02, 0.5]])
"""Landmarks 36 to 41 about the eye's middle: across in shares of the side, up and down in heights."""


@pytest.fixture(scope="module")
def card() -> FlowCard:
    template = CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668))
    return FlowCard(128, template, ("eyeWide",), {}, {"right_eye": (24, 28, 60, 56), "left_eye": (68, 28, 104, 56)})


def face(card: FlowCard, right: float, left: float) -> Floats:
    """Landmarks (68, 2) of a face whose eyes are open so far, height by width."""
    points = np.full((68, 2), 0.5)
    for start, middle, opening in ((36, card.template.right_eye, right), (42, card.template.left_eye, left)):
        points[start : start + 6] = np.array(middle) + EYE * [1, 0.12 * opening]
    return points.astype(np.float32)


def opened(card: FlowCard) -> tuple[Floats, Floats]:
    """Eyes painted white, as ovals 30 wide and 16 high."""
    side = FINE * card.size
    y, x = np.mgrid[:side, :side].astype(np.float32)
    mask = np.zeros((side, side), np.float32)
    for at in (card.template.right_eye, card.template.left_eye):
        mask[((x - side * at[0]) / 15) ** 2 + ((y - side * at[1]) / 8) ** 2 < 1] = 1
    return np.broadcast_to(WHITE, (side, side, 3)).copy(), mask


def distance(card: FlowCard, at: tuple[float, float]) -> Floats:
    side = FINE * card.size
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return np.hypot(x - side * at[0], y - side * at[1])


def test_closed_eyes_that_open_look_at_you(card: FlowCard) -> None:
    paint, mask = opened(card)
    found = with_irises(paint, mask, face(card, 0.1, 0.1), card)
    for at in (card.template.right_eye, card.template.left_eye):
        away = distance(card, at)
        luma = found.mean(-1)
        rim, pupil = (away > 4) & (away < 6), away < 1.5
        assert luma[rim].mean() < 0.5 * WHITE.mean()
        assert luma[pupil].mean() < 0.6 * luma[rim].mean(), "a pupil"
        assert luma[away < 5].max() > 0.55, "with a light in it"
        beside = (away > 10) & (away < 20)
        assert np.array_equal(found[beside], paint[beside]), "the white stays white"
        iris = found[(away < 5) & (away > 3.5)].mean(0)
        assert iris[0] > iris[1] > iris[2], "brown"
    assert np.array_equal(found[mask == 0], paint[mask == 0])


def test_each_eye_is_judged_by_itself_and_open_ones_keep_their_own(card: FlowCard) -> None:
    paint, mask = opened(card)
    assert with_irises(paint, mask, face(card, 0.33, 0.33), card) is paint
    found = with_irises(paint, mask, face(card, 0.33, 0.1), card)
    half = paint.shape[1] // 2
    assert np.array_equal(found[:, :half], paint[:, :half])
    assert not np.array_equal(found[:, half:], paint[:, half:])


def test_where_the_network_knows_an_iris_none_is_drawn(card: FlowCard) -> None:
    paint, mask = opened(card)
    for at in (card.template.right_eye, card.template.left_eye):
        paint[distance(card, at) < 6] *= 0.4
    assert with_irises(paint, mask, face(card, 0.1, 0.1), card) is paint
    white, nothing = opened(card)[0], np.zeros_like(mask)
    assert with_irises(white, nothing, face(card, 0.1, 0.1), card) is white
