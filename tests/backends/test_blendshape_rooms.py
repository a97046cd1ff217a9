"""Each room of the blendshape backend on made-up input: flow, lips, light, lines, eyes, tones, glasses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from exprtool.anatomy import eyes, occluders
from exprtool.anatomy.tone import tone_of
from exprtool.types import Face, FaceRegion
from exprtool_blendshape import field, lips, shading, wrinkles
from exprtool_blendshape.frame import work_frame

# --- the working frame


def _landmarks(angle: float, u: float, centre: tuple[float, float]) -> np.ndarray:
    """68 points of which only what the frame reads is in place: outline and eyes, ``u`` pixels per cm."""
    points = np.zeros((68, 2))
    points[:36] = np.random.default_rng(0).uniform([-7, -5], [7, 7], (36, 2))
    points[36:42], points[42:48] = [-3.2, -1], [3.2, -1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T * u + centre


@pytest.mark.parametrize("angle", [-0.5, 0.0, 0.4])
@pytest.mark.parametrize("u", [4.0, 20.0, 90.0])
def test_frame_is_upright_and_bounded(angle, u):
    frame = work_frame(_landmarks(angle, u, (12 * u, 13 * u)), u, (int(25 * u), int(24 * u)))
    right, left = frame.points(_landmarks(angle, u, (12 * u, 13 * u))[[36, 42]])
    assert abs(left[1] - right[1]) < 1e-6
    assert left[0] - right[0] == pytest.approx(6.4 * frame.u)
    assert 16 <= frame.u <= 34
    assert frame.angle == pytest.approx(angle)
    back = frame.points(np.array([[3.0, 5.0], [40.0, 9.0]]))
    inverse = frame.region_from_work
    np.testing.assert_allclose(back @ inverse[:, :2].T + inverse[:, 2], [[3, 5], [40, 9]], atol=1e-6)


@pytest.mark.parametrize("u", [6.0, 60.0])
def test_frame_puts_pixels_where_it_puts_points(u):
    size = int(24 * u)
    picture = np.zeros((size, size, 3), np.float32)
    y, x = int(12.4 * u), int(10.3 * u)
    cv2.circle(picture, (x, y), int(0.5 * u), (1, 1, 1), -1)
    frame = work_frame(_landmarks(0.2, u, (12 * u, 13 * u)), u, (size, size))
    drawn = frame.picture(picture)[..., 0]
    ys, xs = np.mgrid[0 : drawn.shape[0], 0 : drawn.shape[1]]
    centre = np.array([(drawn * xs).sum(), (drawn * ys).sum()]) / drawn.sum()
    np.testing.assert_allclose(centre, frame.points(np.array([[x, y]]))[0], atol=0.35)


# --- its border


def _region(box: tuple[int, int, int, int], photo: tuple[int, int] | None) -> FaceRegion:
    x0, y0, x1, y1 = box
    pixels = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    return FaceRegion(Face((0, 0, 1, 1), 1.0, np.zeros((5, 2))), box, pixels, image_size=photo)


@pytest.mark.parametrize("angle", [0.0, 0.15])
def test_edits_fade_within_the_photo_but_not_at_its_end(angle):
    u, box = 20.0, (100, 200, 500, 600)
    frame = work_frame(_landmarks(angle, u, (200, 200)), u, (400, 400))
    inside, at_bottom = (field.at_border(frame, _region(box, photo)) for photo in ((1000, 1000), (600, 1000)))
    h, w = frame.shape
    for each in (inside, at_bottom, field.at_border(frame, _region(box, None))):
        assert each[h // 2, w // 2] == 1 and not each[0, w // 2] and not each[h // 2, [0, -1]].any()
    assert not inside[-1, w // 2]
    assert at_bottom[-1, w // 2] == 1, "here the photo ends"


# --- flow


@pytest.fixture(scope="module")
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A disc of skin that moves, in a grid of 20 pixels per cm."""
    ys, xs = np.mgrid[0:320, 0:260]
    known = np.hypot(xs - 130, ys - 160) < 60
    flow = np.zeros((320, 260, 2), np.float32)
    flow[..., 0], flow[..., 1] = 4 * np.cos(ys / 50), 12 * np.cos(xs / 60)
    return flow, known


def test_flow_is_kept_where_known_and_fades_to_nothing(disc):
    flow, known = disc
    whole = field.extended(flow * known[..., None], known, 20.0)
    deep = cv2.erode(known.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    np.testing.assert_allclose(whole[deep], flow[deep], atol=0.1)
    assert np.abs(whole[:20]).max() == 0 and np.abs(whole[-20:]).max() == 0


def test_flow_does_not_fold(disc):
    flow, known = disc
    whole = field.extended(flow * known[..., None], known, 20.0)
    outside = cv2.dilate(known.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    dx, dy = np.gradient(whole, axis=1), np.gradient(whole, axis=0)
    area = (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]
    assert area[outside].min() > 0.1


def test_flow_without_skin_is_zero():
    assert not field.extended(np.ones((40, 30, 2), np.float32), np.zeros((40, 30), np.bool_), 16.0).any()


# --- lips


def _curves(upper: float, lower: float, n: int = 64) -> lips.LipCurves:
    x = np.linspace(100, 200, n)
    arch = 1 - ((x - 150) / 50) ** 2
    return lips.LipCurves(x, 80 + upper * arch, 80 + lower * arch)


def test_closing_takes_the_whole_opening_away():
    u = 20.0
    gap = lips.wanted_gap(_curves(-8, 10), _curves(-8, 10), _curves(0.5, -0.5), 1.0, u)
    assert (gap < 0).all()


def test_unexplained_opening_goes_with_the_expression():
    u = 20.0
    closed = _curves(0.5, -0.5)
    kept = lips.wanted_gap(_curves(-8, 10), closed, closed, 0.0, u)
    half = lips.wanted_gap(_curves(-8, 10), closed, closed, 0.5, u)
    gone = lips.wanted_gap(_curves(-8, 10), closed, closed, 1.0, u)
    assert kept.max() == pytest.approx(18, rel=0.01)
    assert half.max() == pytest.approx(9, rel=0.01)
    assert (gone < 0).all()


def test_opening_adds():
    u = 20.0
    gap = lips.wanted_gap(_curves(-3, 3), _curves(-3, 3), _curves(-6, 10), 0.0, u)
    assert gap.max() == pytest.approx(16, rel=0.03)


# --- light


def test_light_is_recovered_and_ratio_is_exact():
    rng = np.random.default_rng(2)
    normals = rng.normal(size=(4000, 3))
    normals[:, 2] = np.abs(normals[:, 2]) + 0.5
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    truth = np.array([0.5, 0.1, 0.08, 0.15, 0.02, 0.01, 0.02, 0.01, 0.01])
    luminance = (shading.basis(normals) @ truth).astype(np.float32)
    luminance[::15] *= 0.2  # moles
    light = shading.fit_light(luminance, normals.astype(np.float32))
    error = shading.basis(normals) @ light.harmonics - shading.basis(normals) @ truth
    assert np.abs(error).max() < 0.04
    assert light.trust > 0.95
    before = np.zeros((2, 2, 3), np.float32)
    before[..., 2] = 1
    after = before.copy()
    after[..., 0] = 0.4
    after /= np.linalg.norm(after, axis=-1, keepdims=True)
    expected = np.log(shading.basis(after) @ light.harmonics) - np.log(shading.basis(before) @ light.harmonics)
    np.testing.assert_allclose(shading.log_ratio(light, before, after), expected, rtol=1e-3)
    assert not shading.log_ratio(light, before, before).any()


def test_unexplained_light_is_not_trusted():
    rng = np.random.default_rng(3)
    normals = rng.normal((0, 0, 2), 1, (3000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    patches = np.where(rng.random(3000) < 0.5, 0.15, 0.8)
    assert shading.fit_light(patches.astype(np.float32), normals.astype(np.float32)).trust < 0.5


def test_cavity_is_a_hollow():
    ys, xs = np.mgrid[0:120, 0:140]
    hollow = -6 * np.exp(-((xs - 70) ** 2 + (ys - 60) ** 2) / 40.0)
    found = shading.cavity((500 + hollow).astype(np.float32), np.ones((120, 140), np.bool_), 20.0)
    assert found[60, 70] > 0.1
    assert abs(found[10, 10]) < 0.01


def test_gain_is_limited():
    limited = shading.limited(np.array([[-9.0, -0.1, 0.0, 0.1, 9.0]], np.float32))[0]
    assert limited[0] >= -shading.MOST_DARKENING and limited[4] <= shading.MOST_BRIGHTENING
    assert limited[2] == 0
    assert (np.diff(limited) > 0).all()


def test_burnt_highlights_are_found():
    picture = np.full((60, 60, 3), 0.5, np.float32)
    picture[20:40, 20:40] = [1.0, 0.99, 0.96]
    burnt = shading.burnt(picture, 20.0)
    assert burnt[30, 30] > 0.9 and burnt[2, 2] < 0.01


# --- lines


def test_lines_come_with_their_muscle_and_only_there():
    ys, xs = np.mgrid[0:300, 0:300]
    template = np.stack([(xs - 150) / 15.0, (200 - ys) / 15.0], -1).astype(np.float32)
    skin = np.ones((300, 300), np.float32)
    lines = wrinkles.lay_out(1)
    rest = wrinkles.drivers({})
    raised = wrinkles.drivers({f"brow{part}Up{side}": 1.0 for part in ("Inner", "Outer") for side in ("Left", "Right")})
    assert not wrinkles.drawn(lines, rest, template, skin, 0.05).any()
    drawn = wrinkles.drawn(lines, raised, template, skin, 0.05)
    forehead = template[..., 1] > 6.0
    assert drawn[forehead].min() < -0.2
    assert np.abs(drawn[~forehead & (template[..., 1] < 5)]).max() == 0
    assert not wrinkles.drawn(lines, raised, template, np.zeros_like(skin), 0.05).any()


def test_own_lines_deepen_and_soften():
    ys, xs = np.mgrid[0:300, 0:300]
    template = np.stack([(xs - 150) / 15.0, (200 - ys) / 15.0], -1).astype(np.float32)
    picture = np.full((300, 300, 3), 0.6, np.float32)
    for y in (7.3, 8.3, 9.3):
        picture[np.abs(template[..., 1] - y) < 0.06] *= 0.7
    skin = np.ones((300, 300), np.float32)
    own = wrinkles.measure(picture, template, skin, skin, 15.0)
    smooth = wrinkles.measure(np.full_like(picture, 0.6), template, skin, skin, 15.0)
    assert own.lined > 0.3 and smooth.lined == 0
    rest, raised = wrinkles.drivers({}), wrinkles.drivers({f"browInnerUp{side}": 1.0 for side in ("Left", "Right")})
    assert wrinkles.own_change(own, rest, raised).min() < -0.05
    assert wrinkles.own_change(own, raised, rest).max() > 0.05
    assert not wrinkles.own_change(own, raised, raised).any()


# --- eyes


def test_lashes_move_with_the_margin():
    u = 20.0
    hole = np.zeros((200, 160), np.bool_)
    hole[100:125, 40:120] = True
    flow = np.zeros((200, 160, 2), np.float32)
    flow[..., 1] = np.clip((np.arange(200)[:, None] - 60) / 40, 0, 1) * 6  # 6 px at the margin, none 2 cm above it
    eyes.carry_lashes(flow, hole, u)
    band = flow[100 - int(0.45 * u) : 98, 70:90, 1]
    np.testing.assert_allclose(band, band[-1:].repeat(len(band), 0), atol=0.25)
    assert np.abs(flow[60, 80, 1]) < 0.1
    assert (1 + np.diff(flow[40:99, 80, 1]) > 0.2).all()  # nothing folds


def test_iris_is_found_and_hidden_part_completed():
    u = 30.0
    picture = np.full((160, 220, 3), 0.62, np.float32)
    truth = (108, 82)
    outline = np.array([[70, 80], [92, 66], [128, 66], [150, 80], [128, 96], [92, 96]], float)
    eye = np.zeros((160, 220), np.uint8)
    cv2.fillPoly(eye, [outline.astype(np.int32)], 1)
    ball = np.full((160, 220, 3), 0.85, np.float32)
    cv2.circle(ball, truth, int(0.59 * u), (0.3, 0.4, 0.5), -1)
    cv2.circle(ball, truth, 6, (0.02, 0.02, 0.02), -1)
    picture[eye > 0] = ball[eye > 0]
    made = eyes.complete(picture, eye > 0, outline, 0.62, u)
    assert made is not None
    y0, x0 = made.window[0].start, made.window[1].start
    completed = made.completed
    assert completed[truth[1] - y0, truth[0] - x0].mean() < 0.2
    hidden_iris = completed[truth[1] - int(0.5 * u) - y0, truth[0] - x0]  # above the lid's margin
    assert hidden_iris.mean() < 0.6
    hidden_white = completed[truth[1] - int(0.4 * u) - y0, truth[0] + int(0.95 * u) - x0]
    assert hidden_white.mean() > 0.7
    assert made.white is not None and made.white.mean() == pytest.approx(0.85, abs=0.03)


# --- tones


def test_paint_takes_the_photos_tones():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.uniform(0.2, 0.8, (500, 1)), 3, 1).astype(np.float32)
    sepia = grey * np.array([1.1, 1.0, 0.8], np.float32)
    colour = np.clip(grey * [1.2, 0.95, 0.8] + rng.normal(0, 0.04, (500, 3)), 0, 1).astype(np.float32)
    lip = np.array([0.7, 0.3, 0.3], np.float32)
    assert np.ptp(tone_of(grey)(lip)) < 0.01
    brown = tone_of(sepia)(lip)
    assert brown[0] / brown[2] == pytest.approx(1.1 / 0.8, rel=0.08)
    np.testing.assert_array_equal(tone_of(colour)(lip), lip)


# --- glasses


def test_flow_never_reaches_for_the_frame():
    u = 20.0
    frame = np.zeros((120, 160), np.uint8)
    cv2.rectangle(frame, (30, 40), (130, 90), 1, 4)
    distance = cv2.distanceTransform(1 - frame, cv2.DIST_L2, 5)
    glasses = occluders.Glasses(frame.astype(np.float32), distance, 1.0)
    flow = np.full((120, 160, 2), 0.5 * u, np.float32)
    held = occluders.hold(flow, glasses)
    assert np.abs(held[frame > 0]).max() < 1e-3
    ys, xs = np.mgrid[0:120, 0:160]
    x, y = np.round(xs + held[..., 0]).astype(int), np.round(ys + held[..., 1]).astype(int)
    inside = (x >= 0) & (x < 160) & (y >= 0) & (y < 120) & (distance > 2)
    assert not frame[y[inside], x[inside]].any()
