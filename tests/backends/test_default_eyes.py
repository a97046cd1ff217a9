"""The photo's own iris, shown where the network would have painted it softly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from exprtool.anatomy.skin import Skin
from exprtool.faces.align import CropTemplate
from exprtool.pixels.lift import CropAnswer
from exprtool.types import Image
from exprtool_default.card import FINE, FlowCard
from exprtool_default.eyeballs import eyeballs, with_eyeballs
from exprtool_default.eyes import with_own_eyes

CARD = FlowCard(
    128,
    CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668)),
    ("jawOpen",),
    {},
    {"right_eye": (24, 28, 60, 56), "left_eye": (68, 28, 104, 56)},
)
SIDE = FINE * CARD.size
SKIN = Skin(0.66)
CENTRES = {"right_eye": (86, 84), "left_eye": (170, 84)}


def points() -> np.ndarray:
    """Eyes 32 pixels wide and 12 high, in shares of the side."""
    found = np.full((68, 2), 0.5)
    hexagon = np.array([(-16, 0), (-6, -6), (6, -6), (16, 0), (6, 6), (-6, 6)])
    for (x, y), first in zip(CENTRES.values(), (36, 42), strict=True):
        found[first : first + 6] = (hexagon + (x, y) + 0.5) / SIDE
    return found


def photo(iris: int = 6) -> Image:
    """Skin, whites with a dark iris of some radius, and the light in it."""
    skin = np.full((SIDE, SIDE, 3), (200, 160, 140), np.uint8)
    image, between_lids = skin.copy(), np.zeros((SIDE, SIDE, 1), np.uint8)
    for x, y in CENTRES.values():
        cv2.ellipse(between_lids, (x, y), (16, 7), 0, 0, 360, 1, -1)
        cv2.ellipse(image, (x, y), (16, 7), 0, 0, 360, (225, 220, 215), -1)
        cv2.circle(image, (x, y), iris, (60, 40, 30), -1)
    image = np.where(between_lids > 0, image, skin)
    for x, y in CENTRES.values():
        image[y - 4 : y - 2, x + 1 : x + 3] = 255
    return image


def opened(image: Image) -> CropAnswer:
    """Lids that rise by 5 pixels from eyes painted half as high again, softly."""
    paint = cv2.GaussianBlur(image, (0, 0), 1.2).astype(np.float32)
    mask = np.zeros((SIDE, SIDE), np.float32)
    for x, y in CENTRES.values():
        cv2.ellipse(mask, (x, y - 2), (17, 10), 0, 0, 360, 1.0, -1)
    flow = np.zeros((SIDE, SIDE, 2), np.float32)
    flow[..., 1] = 5
    return CropAnswer(flow=flow, paint=paint, paint_mask=mask)


@pytest.mark.parametrize("eye", CENTRES)
def test_an_opened_eye_keeps_its_own_eyeball_and_is_completed_from_it(eye: str) -> None:
    image = photo(iris=9)  # whose top the lid hides
    answer = opened(image)
    assert answer.paint is not None and answer.paint_mask is not None
    assert not eyeballs(image, np.zeros_like(answer.paint_mask), points(), SKIN, CARD), "where nothing is painted"
    found = eyeballs(image, answer.paint_mask, points(), SKIN, CARD)
    assert set(found) == set(CENTRES)
    grey = np.full_like(answer.paint, 0.55)  # what a network paints that does not know
    paint = with_eyeballs(grey, answer.paint_mask, image, found, CARD)
    x, y = CENTRES[eye]
    assert paint[y - 7, x - 2 : x + 3].mean() < 0.4, "the iris goes on under the lid that has risen"
    assert paint[y - 4 : y + 3, x + 12].mean() > 0.6, "beside it the white does"
    assert np.array_equal(paint[answer.paint_mask == 0], grey[answer.paint_mask == 0])
    kept = with_own_eyes(answer, found, CARD)
    assert kept.paint_mask is not None and kept.flow is not None
    assert kept.paint_mask[y - 1 : y + 3, x - 4 : x + 5].max() < 0.05, "the photo's own pixels"
    assert kept.paint_mask[y - 10, x] == 1 and kept.flow[y - 20, x, 1] == 5


def test_an_eye_that_is_hardly_open_gets_the_iris_that_most_people_have() -> None:
    narrow = points()
    narrow[36:48, 1] = CENTRES["right_eye"][1] / SIDE + (narrow[36:48, 1] - CENTRES["right_eye"][1] / SIDE) / 5
    image = np.full((SIDE, SIDE, 3), (200, 160, 140), np.uint8)  # closed: skin alone
    milky, mask = np.full((SIDE, SIDE, 3), 0.55, np.float32), np.zeros((SIDE, SIDE), np.float32)
    for x, y in CENTRES.values():
        cv2.ellipse(mask, (x, y), (16, 9), 0, 0, 360, 1.0, -1)
    paint = with_eyeballs(milky, mask, image, eyeballs(image, mask, narrow, SKIN, CARD), CARD)
    for x, y in CENTRES.values():
        iris, white = paint[y + 1, x + 3], paint[y + 1, x + 13]
        assert iris.mean() < 0.7 * white.mean() and iris[0] > 1.2 * iris[2], "brown beside a white"


@pytest.mark.parametrize("eye", CENTRES)
def test_the_eyeball_stays_and_what_is_uncovered_is_painted(eye: str) -> None:
    image = photo()
    answer = opened(image)
    assert answer.paint_mask is not None
    found = with_own_eyes(answer, eyeballs(image, answer.paint_mask, points(), SKIN, CARD), CARD)
    assert found.paint_mask is not None and found.flow is not None
    x, y = CENTRES[eye]
    inside = np.s_[y - 1 : y + 3, x - 5 : x + 6]
    assert found.paint_mask[inside].max() < 0.05 and np.abs(found.flow[inside]).max() < 0.05, "the light in it as well"
    assert found.paint_mask[y - 10, x] == 1, "what the lid has uncovered is painted still"
    assert found.flow[y - 20, x, 1] == 5, "the lid moves"
    at_rest = np.abs(found.flow[..., 1]) < 0.05
    assert found.paint_mask[~at_rest & (answer.paint_mask == 1)].min() > 0.95, "nothing comes to rest in sight"


def test_an_answer_that_paints_nothing_is_left_alone() -> None:
    image = photo()
    answer = opened(image)
    assert answer.paint_mask is not None
    found = eyeballs(image, answer.paint_mask, points(), SKIN, CARD)
    bare = CropAnswer(flow=answer.flow)
    assert with_own_eyes(bare, found, CARD) is bare
