"""Mouths that show teeth already keep them where the paint would only blur them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.anatomy.skin import look_at_skin
from exprtool.faces.align import CropTemplate
from exprtool.types import Image
from exprtool_default.card import FINE, FlowCard
from exprtool_default.mouth import look_at_mouth, own_teeth, with_own_mouth, with_teeth_in_place
from exprtool_flow.points import mean_points

SKIN, LIPS, TEETH, DARK = (200, 150, 125), (150, 75, 75), (215, 210, 195), (25, 12, 12)
SIDE = 256
OWN = np.array(TEETH) / 255


@pytest.fixture(scope="module")
def card() -> FlowCard:
    template = CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668))
    return FlowCard(SIDE // FINE, template, ("jawOpen",), {}, {"mouth": (36, 60, 92, 116)})


@pytest.fixture(scope="module")
def points() -> NDArray[np.float64]:
    """The mean face's landmarks with a mouth that stands open by 14 pixels."""
    open_ = mean_points().numpy().astype(np.float64)
    open_[64:68, 1] += 14 / SIDE
    open_[54:60, 1] += 14 / SIDE
    return open_


def face(points: NDArray[np.float64], inside: tuple[int, int, int]) -> Image:
    photo = np.empty((SIDE, SIDE, 3), np.uint8)
    photo[:] = SKIN
    for outline, colour in ((points[48:60], LIPS), (points[60:68], inside)):
        cv2.fillConvexPoly(photo, cv2.convexHull(np.rint(outline * SIDE - 0.5).astype(np.int32)), colour)
    return photo


def painting(colour: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mask, paint = np.zeros((SIDE, SIDE), np.float32), np.empty((SIDE, SIDE, 3), np.float32)
    mask[172:184, 100:157] = 1
    paint[:] = np.array(colour) / 255
    return mask, paint


def test_a_look_tells_teeth_from_the_dark_and_from_a_tongue(card: FlowCard, points: NDArray[np.float64]) -> None:
    def look(photo: Image, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        same, shown = look_at_mouth(photo, points, card.pixels_per_mm(SIDE))
        here = same * SIDE - 0.5
        return same, own_teeth(photo, here, look_at_skin(photo, here)) if shown else None

    same, teeth = look(face(points, TEETH), points)
    assert teeth == pytest.approx(np.array(TEETH) / 255, abs=0.02) and np.array_equal(same, points)
    for inside, why in ((DARK, "an open mouth without teeth in it"), ((225, 110, 130), "light, but red: a tongue")):
        same, teeth = look(face(points, inside), points)
        assert teeth is None, why
    closed = mean_points().numpy().astype(np.float64)
    closed[60:68, 1] = closed[60:68, 1].mean()
    same, teeth = look(face(points, TEETH), closed)
    assert teeth is None and np.array_equal(same, closed), "nothing to see between these lips"


def test_wet_lips_are_no_teeth(points: NDArray[np.float64]) -> None:
    photo, here = face(points, (250, 153, 135)), points * SIDE - 0.5
    assert own_teeth(photo, here, look_at_skin(photo, here)) is None
    warm = face(points, (250, 205, 160))  # teeth in the light of a lamp, on skin in the same light
    skin = look_at_skin(np.where((warm == SKIN).all(-1, keepdims=True), np.uint8((200, 130, 70)), warm), here)
    assert own_teeth(warm, here, skin) is not None


def test_lips_that_only_the_landmarks_part_are_closed(card: FlowCard) -> None:
    points = mean_points().numpy().astype(np.float64)
    points[[61, 62, 63], 1] = 0.671 - 1.3 / SIDE  # 2 mm apart, as landmarkers draw closed lips
    points[[67, 66, 65], 1] = 0.671 + 1.3 / SIDE
    found, teeth = look_at_mouth(face(points, LIPS), points, card.pixels_per_mm(SIDE))
    assert not teeth
    gap = (found[[67, 66, 65], 1] - found[[61, 62, 63], 1]) * SIDE
    assert (gap < 1.8).all() and (gap >= 0).all()
    others = np.setdiff1d(np.arange(68), [61, 62, 63, 65, 66, 67])
    assert np.allclose(found[others], points[others], atol=1e-12)


def test_the_photos_teeth_stay_where_the_paint_agrees(card: FlowCard, points: NDArray[np.float64]) -> None:
    still = np.zeros((SIDE, SIDE, 2), np.float32)
    mask, paint = painting((200, 190, 180))
    kept = with_own_mouth(mask, paint, still, face(points, TEETH), points, OWN, card)
    assert kept[mask > 0].mean() < 0.05 and mask.max() == 1, "what was given is left alone"
    mask, dark = painting(DARK)
    assert with_own_mouth(mask, dark, still, face(points, TEETH), points, OWN, card) is mask, (
        "the mouth opens: it is painted"
    )
    mask, paint = painting((200, 190, 180))
    assert with_own_mouth(mask, paint, still, face(points, DARK), points, None, card) is mask, (
        "the photo has none to show"
    )
    nothing = np.zeros_like(mask)
    assert with_own_mouth(nothing, paint, still, face(points, TEETH), points, OWN, card) is nothing


def test_teeth_are_not_spread_over_a_mouth_that_opens_far(card: FlowCard, points: NDArray[np.float64]) -> None:
    still = np.zeros((SIDE, SIDE, 2), np.float32)
    mask, paint = painting((200, 190, 180))
    slit = points.copy()
    slit[64:68, 1] -= 14 / SIDE
    shown = face(points, TEETH)  # where the flow looks there are teeth, but the mouth was a slit
    assert with_own_mouth(mask, paint, still, shown, slit, OWN, card) is mask


def test_a_mouth_is_judged_as_a_whole(card: FlowCard, points: NDArray[np.float64]) -> None:
    still = np.zeros((SIDE, SIDE, 2), np.float32)
    mask, paint = painting((200, 190, 180))
    paint[:, 128:] = np.array(DARK) / 255  # half of it dark: no half row of teeth is kept
    assert with_own_mouth(mask, paint, still, face(points, TEETH), points, OWN, card) is mask


def test_upper_teeth_stay_where_they_are_when_the_mouth_opens(card: FlowCard, points: NDArray[np.float64]) -> None:
    photo = face(points, TEETH)
    mask, _ = painting(DARK)
    mask[172:200, 100:157] = 1
    flow = np.full((SIDE, SIDE, 2), 3, np.float32)
    opened, still, shade = with_teeth_in_place(mask, flow, photo, points, OWN, card)
    x, y = 128, int(points[62, 1] * SIDE) + 5
    assert opened[y, x] < 0.05 and np.abs(still[y, x]).max() < 0.05, "the photo's own, unmoved"
    assert shade is not None and shade.max() <= 0 and shade[:, x].min() < -0.1, "in the shade of lips"
    below = int(points[66, 1] * SIDE) + 4
    assert opened[below, x] == 1 and (still[below, x] == 3).all(), "what opens below is painted"
    far = mask == 0
    assert np.array_equal(still[far], flow[far]) and not shade[far].any()
    for inside, own in ((DARK, OWN), (TEETH, None)):
        found, same, none = with_teeth_in_place(mask, flow, face(points, inside), points, own, card)
        assert found is mask and same is flow and none is None, "no teeth in the photo"


def test_lower_teeth_go_with_the_jaw(card: FlowCard, points: NDArray[np.float64]) -> None:
    wide = points.copy()
    wide[64:68, 1] += 14 / SIDE
    photo = face(wide, TEETH)
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[165:205, 100:157] = 1
    opened, _, _ = with_teeth_in_place(mask, np.zeros((SIDE, SIDE, 2), np.float32), photo, wide, OWN, card)
    upper, lower = int(wide[62, 1] * SIDE) + 5, int(wide[66, 1] * SIDE) - 4
    assert opened[upper, 128] < 0.05 and opened[lower, 128] == 1
