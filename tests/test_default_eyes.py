"""The photo's own iris, shown where the network would have painted it softly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from exprtool.faces.align import CropTemplate
from exprtool.lift import CropAnswer
from exprtool.types import Image
from exprtool_default.card import FINE, FlowCard
from exprtool_default.eyes import with_own_eyes

CARD = FlowCard(
    128,
    CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668)),
    ("jawOpen",),
    {},
    {"right_eye": (24, 28, 60, 56), "left_eye": (68, 28, 104, 56)},
)
SIDE = FINE * CARD.size
CENTRES = {"right_eye": (86, 84), "left_eye": (170, 84)}


def points() -> np.ndarray:
    """Eyes 32 pixels wide and 12 high, in shares of the side."""
    found = np.full((68, 2), 0.5)
    hexagon = np.array([(-16, 0), (-6, -6), (6, -6), (16, 0), (6, 6), (-6, 6)])
    for (x, y), first in zip(CENTRES.values(), (36, 42), strict=True):
        found[first : first + 6] = (hexagon + (x, y) + 0.5) / SIDE
    return found


def photo() -> Image:
    """Skin, whites with a dark iris, and the light in it."""
    image = np.full((SIDE, SIDE, 3), (200, 160, 140), np.uint8)
    for x, y in CENTRES.values():
        cv2.ellipse(image, (x, y), (16, 7), 0, 0, 360, (225, 220, 215), -1)
        cv2.circle(image, (x, y), 6, (60, 40, 30), -1)
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
def test_the_eyeball_stays_and_what_is_uncovered_is_painted(eye: str) -> None:
    image = photo()
    found = with_own_eyes(opened(image), image, points(), CARD)
    assert found.paint_mask is not None and found.flow is not None
    x, y = CENTRES[eye]
    inside = np.s_[y - 3 : y + 4, x - 6 : x + 7]
    assert found.paint_mask[inside].max() < 0.05 and np.abs(found.flow[inside]).max() < 0.05, "the light in it as well"
    assert found.paint_mask[y - 10, x] == 1, "what the lid has uncovered is painted still"
    assert found.flow[y - 20, x, 1] == 5, "the lid moves"
    at_rest = np.abs(found.flow[..., 1]) < 0.05
    assert found.paint_mask[~at_rest & (opened(image).paint_mask == 1)].min() > 0.95, "nothing comes to rest in sight"


def test_an_eye_that_becomes_another_one_is_painted() -> None:
    image = photo()
    answer = opened(image)
    assert answer.paint is not None
    lids = CropAnswer(
        flow=answer.flow, paint=np.full_like(answer.paint, 255) * np.float32([0, 0.8, 0]), paint_mask=answer.paint_mask
    )
    found = with_own_eyes(lids, image, points(), CARD)
    assert np.array_equal(found.paint_mask, answer.paint_mask) and np.array_equal(found.flow, answer.flow)
    bare = CropAnswer(flow=answer.flow)
    assert with_own_eyes(bare, image, points(), CARD) is bare
