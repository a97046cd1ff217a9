"""Teeth that are drawn where a network's paint is light."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.anatomy.skin import look_at_skin
from exprtool.faces.align import CropTemplate
from exprtool.types import Image
from exprtool_default.card import FINE, FlowCard
from exprtool_default.teeth import with_teeth
from exprtool_flow.points import mean_points

POINTS = mean_points().numpy()
SKIN, LIPS, DARK = (200, 150, 125), (170, 85, 85), (25, 12, 12)


@pytest.fixture(scope="module")
def card() -> FlowCard:
    template = CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668))
    return FlowCard(128, template, ("jawOpen",), {}, {"mouth": (36, 60, 92, 116)})


def face(card: FlowCard, skin: tuple[int, int, int] = SKIN, white: int = 190) -> Image:
    side = FINE * card.size
    photo = np.empty((side, side, 3), np.uint8)
    photo[:] = skin
    for eye in (POINTS[36:42], POINTS[42:48]):
        cv2.fillConvexPoly(photo, np.rint(eye * side - 0.5).astype(np.int32), (white, white, white))
    x, y = (round(side * value) for value in card.template.mouth)
    photo[y - 8 : y + 9, x - 36 : x + 37] = LIPS
    return photo


def painting(card: FlowCard, upper: float, lower: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A mouth that opens by 20 rows, painted with these luminances above and below."""
    side = FINE * card.size
    x, y = (round(side * value) for value in card.template.mouth)
    mask, paint = np.zeros((side, side), np.float32), np.zeros((side, side, 3), np.float32)
    mask[y - 10 : y + 10, x - 32 : x + 33] = 1
    paint[y - 10 : y, x - 32 : x + 33], paint[y : y + 10, x - 32 : x + 33] = upper, lower
    return paint, mask


def drawn(paint: NDArray[np.float32], mask: NDArray[np.float32], photo: Image, card: FlowCard) -> NDArray[np.float32]:
    skin = look_at_skin(photo, POINTS * photo.shape[0] - 0.5)
    return with_teeth(paint, mask, photo, POINTS, skin, None, card)


def test_a_light_blur_becomes_a_row_of_teeth_and_the_dark_stays(card: FlowCard) -> None:
    paint, mask = painting(card, 0.6, 0.08)
    found = drawn(paint, mask, face(card), card)
    x, y = (round(found.shape[0] * value) for value in card.template.mouth)
    row = found[y - 5, x - 28 : x + 29].mean(-1)
    assert row.max() > 0.65 and row.std() > 0.04, "bright, and one tooth apart from the next"
    gaps = np.flatnonzero((row[1:-1] < row[:-2]) & (row[1:-1] <= row[2:]))
    assert 4 <= len(gaps) <= 9
    assert row[28] > row[2] and row[28] > row[-3], "the far ones are turned away"
    assert np.array_equal(found[y + 4 :], paint[y + 4 :]), "where it is dark nothing is drawn"
    assert np.array_equal(found[mask == 0], paint[mask == 0])


def test_the_light_on_the_face_is_the_light_on_the_teeth(card: FlowCard) -> None:
    paint, mask = painting(card, 0.6, 0.08)
    bright, dim = (drawn(paint, mask, image, card) for image in (face(card), face(card) // 3))
    inside = mask > 0
    assert dim[inside].max() < 0.75 * bright[inside].max()
    dark = drawn(paint, mask, face(card, skin=(60, 42, 35)), card)
    assert dark[inside].max() == pytest.approx(bright[inside].max(), rel=0.02), (
        "the skin is dark, the eyes say, not the room"
    )
    shaded = drawn(paint, mask, face(card, white=50), card)
    assert shaded[inside].max() > 1.5 * drawn(paint, mask, face(card, (80, 60, 50), 50), card)[inside].max(), (
        "eyes in the shade: it is skin that is lit"
    )


def test_crowns_end_and_the_dark_of_the_mouth_begins(card: FlowCard) -> None:
    paint, mask = painting(card, 0.6, 0.6)  # all light, 20 rows: as long as crowns never show
    found = drawn(paint, mask, face(card), card)
    x, y = (round(found.shape[0] * value) for value in card.template.mouth)
    column = found[y - 10 : y + 10, x + 4].mean(-1)
    assert column[3:8].min() > 0.5 and column[-4:].max() < 0.3
    assert column[:3].mean() < column[3:8].mean(), "a shade under the lip"


def test_nothing_is_drawn_where_nothing_light_is_painted(card: FlowCard) -> None:
    paint, mask = painting(card, 0.08, 0.08)
    assert np.array_equal(drawn(paint, mask, face(card), card), paint), "an open mouth without light in it"
    paint, mask = painting(card, 0.6, 0.08)
    assert np.array_equal(drawn(paint, mask * 0.2, face(card), card), paint), "hardly painted at all"
