"""The inside of a mouth that an edit opens: where teeth are, and what paint must be like whatever the network says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.anatomy import interior
from exprtool.anatomy.interior import Opening, edge_below_nose, fill_mouth, incisors_at, wish_of
from exprtool.anatomy.mouth_crop import (
    EYES_APART,
    HEIGHT,
    PER_MM,
    WIDTH,
    Wish,
    crop_from_points,
    grown,
    middle_of,
    told,
)
from exprtool.faces.align import transform
from exprtool.types import FacePatch
from exprtool_flow.points import mean_points

SKIN, LIPS = (200, 150, 125), (165, 90, 90)
Floats = NDArray[np.float32]


def landmarks(side: int, turn: float = 0.0) -> NDArray[np.float64]:
    """The mean face's in a picture of ``side`` pixels, turned by degrees about its centre."""
    points = mean_points().numpy().astype(np.float64) * side
    angle, centre = np.radians(turn), side / 2
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - centre) @ spin.T + centre


def opened(side: int, height_mm: float, grain: float = 0.0) -> tuple[FacePatch, NDArray[np.float64], Opening]:
    """A face whose edit opened the mouth by ``height_mm``, black so far; the hole is given on a coarser grid."""
    points = landmarks(side)
    per_mm = float(np.linalg.norm(points[42:48].mean(0) - points[36:42].mean(0))) / EYES_APART
    photo = np.empty((side, side, 3), np.uint8)
    photo[:] = SKIN
    cv2.fillPoly(photo, [np.rint(points[48:60]).astype(np.int32)], LIPS)
    centre = points[60:68].mean(0)
    half = float(np.ptp(points[60:68, 0]) / 2), height_mm * per_mm / 2
    y, x = np.mgrid[:side, :side]
    away = np.hypot((x - centre[0]) / half[0], (y - centre[1]) / half[1])
    photo[away < 1] = 0
    if grain:
        noise = np.random.default_rng(1).normal(0, grain, photo.shape[:2])[..., None]
        photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
    scale = 200 / side  # the grid has 200 pixels, whatever the photo's size
    y, x = (np.mgrid[:200, :200] + 0.5) / scale - 0.5
    whole = np.clip((1 - np.hypot((x - centre[0]) / half[0], (y - centre[1]) / half[1])) * 5 + 0.5, 0, 1)
    matrix = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]])
    alpha = np.ones((side, side), np.float32)
    patch = FacePatch(photo, alpha, None, np.zeros_like(alpha))
    whole = whole.astype(np.float32)
    return patch, points, Opening(whole, whole, matrix, incisors_at(points, edge_below_nose(points, False)), 0.3)


def filled(patch: FacePatch, points: NDArray[np.float64], opening: Opening, tone=None) -> FacePatch:
    """A copy of the patch with its mouth painted."""
    assert patch.painted is not None
    made = FacePatch(patch.pixels.copy(), patch.alpha, None, patch.painted.copy())
    fill_mouth(made, points, opening, tone or plain)
    return made


def plain(colour: Floats) -> Floats:
    return colour


@pytest.mark.parametrize("turn", [0.0, 25.0])
def test_the_crop_is_upright_and_of_one_size(turn: float) -> None:
    points = landmarks(300, turn)
    middle = middle_of(points, points[60:68])
    matrix = crop_from_points(points, middle)
    eyes = transform(matrix, np.stack([points[36:42].mean(0), points[42:48].mean(0)]))
    assert eyes[1] - eyes[0] == pytest.approx([EYES_APART * PER_MM, 0], abs=1e-6)
    assert transform(matrix, middle[None])[0] == pytest.approx([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    lips = transform(matrix, points[60:68])
    assert (lips > 0).all() and (lips < [WIDTH, HEIGHT]).all() and abs(lips[:, 0].mean() - WIDTH / 2) < 3


def test_what_is_told_has_teeth_above_one_line_and_below_the_other() -> None:
    whole = np.zeros((HEIGHT, WIDTH), np.float32)
    whole[30:70, 30:100] = 1
    lines = [np.array([[0, y], [WIDTH, y]], np.float64) for y in (40.0, 60.0)]
    given = told(whole, whole, Wish(lines[0], lines[1], 0.5, 0.2))
    upper, lower = given[2], given[3]
    assert upper[32, 60] > 0.95 and upper[48, 60] < 0.05 and lower[66, 60] > 0.95 and lower[52, 60] < 0.05
    assert given[4].max() == 0.5 and given[5].max() == pytest.approx(0.2)
    assert not given[:6, :, :30].any(), "nothing is told about what is not the mouth"
    assert not told(whole, whole, Wish(None, None, 0, 0))[2:4].any()
    assert given[6, 0, 0] == given[6, 0, -1] > given[6, 0, WIDTH // 2]


def test_upper_teeth_hang_from_the_skull_and_lower_ones_go_with_the_jaw() -> None:
    points = landmarks(300)

    def edge(points: NDArray[np.float64], teeth: bool) -> float:
        return float(incisors_at(points, edge_below_nose(points, teeth))[1])

    closed = edge(points, False)
    wide = points.copy()
    wide[65:68, 1] += 40  # the jaw drops in the photo itself
    assert edge(wide, False) == pytest.approx(closed, abs=4)
    assert edge(wide, True) > closed + 10, "a smile's teeth show as far as they do"
    whole = np.zeros((HEIGHT, WIDTH), np.float32)
    whole[20:80, 30:100] = 1
    at = np.array([WIDTH / 2, 30.0])
    high = wish_of(whole, at - [0, 25], 0.3).upper
    assert high is not None and high[:, 1].max() > 24, "a few mm of them show below the lip in any case"
    shut, ajar, low = (wish_of(whole, at, jaw) for jaw in (0.0, 0.2, 0.6))
    for wish in (shut, ajar, low):
        assert wish.upper is not None and np.array_equal(wish.upper, shut.upper)
        assert wish.upper[:, 1].max() == pytest.approx(30, abs=0.5), "highest at the sides"
    tops = [wish.lower[:, 1].max() for wish in (shut, ajar, low) if wish.lower is not None]
    assert tops[0] > 30 and tops[2] - tops[1] > 15 > tops[1] - tops[0] > 3
    assert low.dark > 0 and 0 < low.tongue < 1


@pytest.mark.parametrize("side", [120, 400, 1600])
def test_paint_fills_the_mouth_and_nothing_else_at_any_size(side: int) -> None:
    patch, points, opening = opened(side, 14.0)
    before = patch.pixels.copy()
    made = filled(patch, points, opening)
    again = filled(patch, points, opening)
    assert np.array_equal(made.pixels, again.pixels), "the same paint twice"
    black = (before == 0).all(-1)
    assert made.painted is not None and made.painted[black].mean() > 0.97
    assert made.pixels[black].mean() > 15, "no black hole"
    per_mm = side / 300
    far = cv2.dilate(black.astype(np.uint8), np.ones((2 * int(4 * per_mm) + 5,) * 2)) == 0
    assert np.array_equal(made.pixels[far], before[far]) and not made.painted[far].any()


def same(one: FacePatch, other: FacePatch) -> bool:
    return np.array_equal(one.pixels, other.pixels) and one.painted is not None and not one.painted.any()


def test_a_slit_shows_nothing_and_no_mouth_no_paint() -> None:
    patch, points, opening = opened(300, 0.6)
    assert same(filled(patch, points, opening), patch)
    patch, points, opening = opened(300, 12.0)
    none = Opening(0 * opening.whole, 0 * opening.hole, opening.grid_from_region, opening.incisors, 0.0)
    assert not same(filled(patch, points, opening), patch)
    assert same(filled(patch, points, none), patch)
    kept = Opening(opening.whole, 0 * opening.hole, opening.grid_from_region, opening.incisors, 0.0)
    assert same(filled(patch, points, kept), patch), "all of it is the photo's own"


def test_what_the_photo_shows_of_its_teeth_stays() -> None:
    patch, points, opening = opened(400, 14.0)
    hole = opening.hole.copy()
    rows = np.flatnonzero(opening.whole.max(1) > 0.5)
    middle = (rows[0] + rows[-1]) // 2
    hole[: middle + 1] = 0
    made = filled(patch, points, Opening(opening.whole, hole, opening.grid_from_region, opening.incisors, 0.3))
    line = int(middle * 2) - 6
    column = int(points[62, 0])
    top = int(rows[0] * 2) + 4
    assert np.array_equal(made.pixels[top:line, column], patch.pixels[top:line, column])
    assert not np.array_equal(made.pixels[line + 16 :, column], patch.pixels[line + 16 :, column])


def test_paint_takes_the_photos_tones_and_keeps_off_where_the_edit_does() -> None:
    patch, points, opening = opened(400, 14.0)

    def grey(colour: Floats) -> Floats:
        return np.repeat(colour.mean(-1, keepdims=True), 3, axis=-1)

    patch.alpha[:, :200] = 0
    made = filled(patch, points, opening, grey)
    changed = (made.pixels != patch.pixels).any(-1)
    assert changed.any() and not changed[:, :200].any()
    inside = made.painted == 1
    assert np.ptp(made.pixels[inside].astype(int), axis=-1).max() == 0


def test_paint_has_the_photos_grain() -> None:
    def fine(side: int, grain: float) -> float:
        patch, points, opening = opened(side, 16.0, grain)
        made = filled(patch, points, opening)
        luma = made.pixels.mean(-1)
        inside = cv2.erode((made.painted == 1).astype(np.uint8), np.ones((5, 5))) > 0
        detail = np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 1.0))[inside]
        return float(np.median(detail))

    assert fine(800, 6.0) > 2 * fine(800, 0.0)
    assert interior._grain(opened(800, 16.0)[0].pixels, np.zeros((800, 800), np.float32)) == 0


def test_grown_reaches_so_far() -> None:
    opening = np.zeros((HEIGHT, WIDTH), np.float32)
    opening[40:60, 40:90] = 1
    found = grown(opening, 2.0)
    reach = 2.0 * PER_MM
    assert found[50, 90 + int(reach) - 1] > 0.5 and found[50, 90 + int(reach) + 2] == 0
