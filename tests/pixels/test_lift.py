"""From the crop's answer to the photo's own pixels: analytic cases on rotated, scaled, non-square regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.errors import PluginError
from exprtool.images import read_image
from exprtool.pixels.composite import paste
from exprtool.pixels.lift import CropAnswer, _Window, crop_from_region, lift
from exprtool.types import Face, FaceRegion

SIDE = 64
BOX = (90, 30, 320, 260)
CENTRE = np.array([205.0, 145.0])
MATRICES = {
    "upright, enlarged": (0.0, 0.4),
    "tilted, enlarged": (30.0, 0.4),
    "upside down": (178.0, 0.35),
    "tilted, life size": (-50.0, 1.0),
    "reduced": (20.0, 2.0),
}


def matrix(degrees: float, scale: float, centre: NDArray[np.float64] = CENTRE) -> NDArray[np.float64]:
    """The similarity (2, 3) from the photo to the crop that puts ``centre`` in its middle."""
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([linear, ((SIDE - 1) / 2 - linear @ centre)[:, np.newaxis]])


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.float32)
    return np.clip((smooth - 127) * 3 + 127, 30, 225).astype(np.uint8)


@pytest.fixture(scope="module")
def region(photo: NDArray[np.uint8]) -> FaceRegion:
    x0, y0, x1, y1 = BOX
    return FaceRegion(Face((100, 40, 300, 240), 1.0, np.zeros((5, 2))), BOX, photo[y0:y1, x0:x1])


def crop_points(region: FaceRegion, similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crop coordinates (h, w, 2) of the region's pixels, straight from the definition."""
    h, w = region.pixels.shape[:2]
    x, y = np.meshgrid(np.arange(w) + BOX[0], np.arange(h) + BOX[1])
    return np.stack([x, y], axis=-1) @ similarity[:, :2].T + similarity[:, 2]


@pytest.mark.parametrize("case", MATRICES)
def test_an_answer_that_asks_nothing_changes_no_bit(region: FaceRegion, case: str) -> None:
    nothing = CropAnswer(
        flow=np.zeros((SIDE, SIDE, 2)),
        shading=np.ones((SIDE, SIDE)),
        residual=np.zeros((SIDE, SIDE, 3)),
        paint=np.full((SIDE, SIDE, 3), 200.0),
        paint_mask=np.zeros((SIDE, SIDE)),
    )
    patch = lift(region, matrix(*MATRICES[case]), nothing)
    assert np.array_equal(patch.pixels, region.pixels)
    assert patch.flow is not None and not patch.flow.any()
    assert patch.painted is not None and not patch.painted.any()


@pytest.mark.parametrize("case", MATRICES)
def test_alpha_covers_the_crop_and_fades_at_its_border(region: FaceRegion, case: str) -> None:
    similarity = matrix(*MATRICES[case])
    patch = lift(region, similarity, CropAnswer(residual=np.ones((SIDE, SIDE, 3))), feather=0.1)
    at = crop_points(region, similarity)
    inner = np.minimum(at + 0.5, SIDE - 0.5 - at).min(axis=-1)
    h, w = inner.shape
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    edge = np.minimum(np.minimum(x, w - 1 - x), np.minimum(y, h - 1 - y))
    far_from_edge = edge > 0.11 * SIDE / MATRICES[case][1]
    assert (patch.alpha[inner <= 0] == 0).all()
    assert (patch.alpha[(inner > 0.1 * SIDE) & far_from_edge] == 1).all()
    assert (patch.alpha[0] < 0.1).all() and (patch.alpha[:, -1] < 0.1).all()
    steps = max(np.abs(np.diff(patch.alpha, axis=axis)).max() for axis in (0, 1))
    assert steps < 2.2 * MATRICES[case][1] / (0.1 * SIDE)  # no jump: smoothstep's slope is at most 1.5


@pytest.mark.parametrize("case", MATRICES)
def test_a_linear_residual_lands_where_it_belongs(region: FaceRegion, case: str) -> None:
    similarity = matrix(*MATRICES[case])
    y, x = np.mgrid[:SIDE, :SIDE]
    ramp = np.stack([0.4 * x, 0.2 * y, 0.3 * x - 0.1 * y], axis=-1) - 5
    patch = lift(region, similarity, CropAnswer(residual=ramp))
    at = crop_points(region, similarity)
    expected = np.stack([0.4 * at[..., 0], 0.2 * at[..., 1], 0.3 * at[..., 0] - 0.1 * at[..., 1]], axis=-1) - 5
    core = patch.alpha >= 1
    assert core.sum() > 300
    difference = patch.pixels[core].astype(float) - np.clip(region.pixels[core] + expected[core], 0, 255)
    assert np.abs(difference).max() < 0.6  # rounding to 8 bits, and a little for the interpolation


@pytest.mark.parametrize("case", MATRICES)
def test_a_constant_flow_moves_the_photos_own_pixels(region: FaceRegion, case: str) -> None:
    similarity = matrix(*MATRICES[case])
    shift = np.array([3.0, -2.0])  # photo pixels
    flow = np.tile(similarity[:, :2] @ shift, (SIDE, SIDE, 1))
    patch = lift(region, similarity, CropAnswer(flow=flow))
    assert patch.flow is not None
    core = patch.alpha >= 1
    assert np.abs(patch.flow[core] - shift).max() < 1e-3
    y, x = np.nonzero(core)
    inside = (y >= 2) & (x < region.pixels.shape[1] - 3)
    y, x = y[inside], x[inside]
    assert np.array_equal(patch.pixels[y, x], region.pixels[y - 2, x + 3])


def test_a_varying_flow_in_a_rotated_crop(region: FaceRegion) -> None:
    """A turn about the crop's centre is the same turn about the same point in the photo."""
    similarity = matrix(35.0, 0.4)
    turn = np.deg2rad(4)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    y, x = np.mgrid[:SIDE, :SIDE]
    from_centre = np.stack([x, y], axis=-1) - (SIDE - 1) / 2
    patch = lift(region, similarity, CropAnswer(flow=from_centre @ (rotation - np.eye(2)).T))
    assert patch.flow is not None
    h, w = region.pixels.shape[:2]
    px, py = np.meshgrid(np.arange(w), np.arange(h))
    offset = np.stack([px + BOX[0], py + BOX[1]], axis=-1) - CENTRE
    expected = offset @ (rotation - np.eye(2)).T
    core = patch.alpha >= 1
    assert np.abs(patch.flow[core] - expected[core]).max() < 0.05
    source = (offset + expected + CENTRE - BOX[:2]).astype(np.float32)
    sampled = cv2.remap(region.pixels, source[..., 0], source[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(patch.pixels[core].astype(int) - sampled[core]).mean() < 1.5


def test_flow_keeps_detail_that_the_crop_cannot_hold() -> None:
    """Stripes of one pixel, far finer than the crop's pixels, come through a shift untouched."""
    stripes = np.zeros((230, 230, 3), np.uint8)
    stripes[:, ::2] = 255
    face = FaceRegion(Face((0, 0, 1, 1), 1.0, np.zeros((5, 2))), BOX, stripes)
    similarity = matrix(0.0, 0.3)
    flow = np.tile(similarity[:, :2] @ np.array([0.0, 7.0]), (SIDE, SIDE, 1))
    assert np.array_equal(lift(face, similarity, CropAnswer(flow=flow)).pixels, stripes)


def test_shading_multiplies_and_paint_replaces(region: FaceRegion) -> None:
    similarity = matrix(10.0, 0.4)
    dark = lift(region, similarity, CropAnswer(shading=np.full((SIDE, SIDE), 0.5)))
    core = dark.alpha >= 1
    assert np.abs(dark.pixels[core] - region.pixels[core] * 0.5).max() <= 0.51
    tinted = lift(region, similarity, CropAnswer(shading=np.full((SIDE, SIDE, 3), (1.0, 0.5, 0.25))))
    assert np.abs(tinted.pixels[core] - region.pixels[core] * (1.0, 0.5, 0.25)).max() <= 0.51
    mask = np.zeros((SIDE, SIDE))
    mask[20:44, 16:48] = 1
    painted = lift(region, similarity, CropAnswer(paint=np.full((SIDE, SIDE, 3), (240.0, 5.0, 60.0)), paint_mask=mask))
    assert painted.painted is not None
    at = crop_points(region, similarity)
    inside = (np.abs(at[..., 0] - 31.5) < 13) & (np.abs(at[..., 1] - 31.5) < 9)
    outside = (np.abs(at[..., 0] - 31.5) > 19) | (np.abs(at[..., 1] - 31.5) > 15)
    assert np.abs(painted.pixels[inside].astype(int) - (240, 5, 60)).max() <= 1
    assert (painted.painted[inside] > 0.99).all() and (painted.painted[outside] < 0.01).all()
    assert np.array_equal(painted.pixels[outside], region.pixels[outside])


@pytest.mark.parametrize(("degrees", "scale"), [(0.0, 0.4), (90.0, 0.4), (-35.0, 0.7)])
@pytest.mark.parametrize("squeeze", [1.0, 1.25, 1.6])
@pytest.mark.parametrize("blur", [0.6, 1.1])
def test_what_is_squeezed_is_as_soft_as_the_camera_would_take_it(
    degrees: float, scale: float, squeeze: float, blur: float
) -> None:
    x, y = np.meshgrid(np.arange(420.0), np.arange(300.0))
    per_pixel = 0.9  # radians
    for along, across in ((x, y), (y, x)):
        stripes = np.repeat(127 + 80 * np.sin(per_pixel * along)[..., None], 3, axis=2).round().astype(np.uint8)
        face = Face((100, 40, 300, 240), 1.0, np.zeros((5, 2)))
        region = FaceRegion(face, (0, 0, 420, 300), stripes)
        similarity = matrix(degrees, scale)
        centre = CENTRE[0] if along is x else CENTRE[1]
        # backward flow in the photo, and so turned in the crop: it squeezes along the stripes' change
        photo_at = (
            np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1) - similarity[:, 2]
        ) @ np.linalg.inv(similarity[:, :2]).T
        flow = np.zeros((SIDE, SIDE, 2))
        place = 0 if along is x else 1
        flow[..., place] = (squeeze - 1) * (photo_at[..., place] - centre)
        patch = lift(region, similarity, CropAnswer(flow=flow @ similarity[:, :2].T), blur=blur)
        assert patch.flow is not None
        middle = (slice(130, 160), slice(190, 220))
        plain = 127 + 80 * np.sin(per_pixel * (along + patch.flow[..., place]))
        lacking = blur**2 * (1 - 1 / squeeze**2) / 2
        passes = max(1, np.ceil(lacking / 0.25))
        kept = (1 - 2 * lacking / passes * (1 - np.cos(per_pixel * squeeze))) ** passes
        found = patch.pixels[middle][..., 0] - 127.0
        ratio = float((found * (plain[middle] - 127)).sum() / ((plain[middle] - 127) ** 2).sum())
        assert ratio == pytest.approx(kept, abs=0.03), across.shape


@pytest.mark.parametrize("case", MATRICES)
@pytest.mark.parametrize("place", [(28, 34), (0, 5), (50, 64)])
def test_work_is_done_only_where_the_answer_acts_and_nothing_is_missed(
    region: FaceRegion, case: str, place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bump = np.zeros((SIDE, SIDE), np.float32)  # rises where it begins, and is cut off at the crop's border
    rows = np.arange(*place)
    bump[rows, 20:34] = np.minimum(1, np.minimum(rows + 1 - place[0], place[1] - rows) / 3)[:, None] * np.hanning(14)
    colours = np.linspace(0, 255, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3)
    answer = CropAnswer(
        flow=bump[..., None] * (1.5, -0.8),
        shading=1 + bump[..., None] * (0.3, 0.1, -0.4),
        residual=bump[..., None] * (20.0, 0.0, -20.0),
        paint=colours,
        paint_mask=0.6 * bump,
    )
    worked: list[int] = []
    acting = _Window.acting

    def watched(self: _Window, acts: NDArray[np.bool_], margin: int) -> _Window | None:
        if part := acting(self, acts, margin):
            worked.append((part.x1 - part.x0) * (part.y1 - part.y0))
        return part

    monkeypatch.setattr(_Window, "acting", watched)
    frugal = lift(region, matrix(*MATRICES[case]), answer)
    monkeypatch.setattr(_Window, "acting", lambda self, acts, margin: self)
    whole = lift(region, matrix(*MATRICES[case]), answer)
    assert frugal.flow is not None and whole.flow is not None
    difference = np.abs(frugal.pixels.astype(int) - whole.pixels)
    assert difference.max() <= 3 and difference.mean() < 0.02, "OpenCV counts places in 32nds of a pixel"
    assert np.abs(frugal.flow - whole.flow).max() < 0.05 * np.abs(whole.flow).max()
    assert sum(worked) < 4 * region.pixels.shape[0] * region.pixels.shape[1] * 0.6


def test_alpha_of_the_network_is_respected(region: FaceRegion) -> None:
    alpha = np.zeros((SIDE, SIDE))
    alpha[:, : SIDE // 2] = 1
    similarity = matrix(0.0, 0.4)
    patch = lift(region, similarity, CropAnswer(residual=np.full((SIDE, SIDE, 3), 20.0), alpha=alpha))
    at = crop_points(region, similarity)
    assert (patch.alpha[at[..., 0] > SIDE / 2 + 2] == 0).all()
    assert patch.alpha.min() >= 0 and patch.alpha.max() <= 1
    assert (patch.alpha[(np.abs(at[..., 0] - 16) < 8) & (np.abs(at[..., 1] - 32) < 20)] > 0.9999).all()


def test_fades_at_the_regions_border_unless_the_photo_ends_there(photo: NDArray[np.uint8]) -> None:
    h, w = photo.shape[:2]
    whole = FaceRegion(Face((0, 0, 1, 1), 1.0, np.zeros((5, 2))), (0, 0, w, h), photo, image_size=(h, w))
    similarity = matrix(0.0, SIDE / 900, np.array([210.0, 150.0]))  # the crop is larger than the photo
    answer = CropAnswer(residual=np.ones((SIDE, SIDE, 3)))
    assert (lift(whole, similarity, answer).alpha == 1).all()
    part = FaceRegion(whole.face, (0, 0, 200, h), photo[:, :200], image_size=(h, w))
    alpha = lift(part, similarity, answer).alpha
    assert (alpha[:, -1] < 0.1).all() and (alpha[:, 0] == 1).all()


def test_motion_goes_on_beyond_the_crop_and_folds_nothing(region: FaceRegion) -> None:
    similarity = matrix(0.0, 0.4)
    flow = np.zeros((SIDE, SIDE, 2))
    flow[SIDE // 2 :, :, 1] = np.linspace(0, -4, SIDE // 2)[:, None]  # a jaw that drops, furthest at the lower border
    flow[:, : SIDE // 4] = flow[:, -SIDE // 4 :] = 0
    within, beyond = (lift(region, similarity, CropAnswer(flow=flow), beyond=each) for each in (False, True))
    assert within.flow is not None and beyond.flow is not None
    at = crop_points(region, similarity)
    border = (np.abs(at[..., 1] - (SIDE - 1)) < 0.3) & (np.abs(at[..., 0] - SIDE / 2) < 4)
    assert np.abs(within.flow[border]).max() < 0.1 * 4 / 0.4
    assert np.allclose(beyond.flow[border], (0, -4 / 0.4), atol=0.8)
    below = (at[..., 1] > SIDE + 1) & (np.abs(at[..., 0] - SIDE / 2) < 4)
    assert (beyond.pixels[below] != region.pixels[below]).any()
    assert np.array_equal(within.pixels[below], region.pixels[below])
    column = beyond.flow[:, int(np.abs(at[0, :, 0] - SIDE / 2).argmin()), 1]
    assert np.diff(column).max() < 0.65, "where it fades out, rows keep their order"
    still = (at[..., 0] < -2) | (at[..., 0] > SIDE + 1) | (at[..., 1] < -2)
    assert still.any() and np.array_equal(beyond.pixels[still], region.pixels[still])
    assert not beyond.alpha[still].any()


def test_a_crop_beside_the_region_changes_nothing(region: FaceRegion) -> None:
    patch = lift(region, matrix(0.0, 0.4, np.array([2000.0, 100.0])), CropAnswer(residual=np.ones((SIDE, SIDE, 3))))
    assert not patch.alpha.any() and np.array_equal(patch.pixels, region.pixels)


def test_crop_from_region_undoes_the_shift_of_the_box(region: FaceRegion) -> None:
    similarity = matrix(17.0, 0.6)
    point = np.array([250.0, 99.0])
    in_crop = similarity[:, :2] @ point + similarity[:, 2]
    of_region = crop_from_region(region, similarity)
    assert np.allclose(of_region[:, :2] @ (point - BOX[:2]) + of_region[:, 2], in_crop)


def test_no_seam_on_a_real_photo(shared: Path) -> None:
    image = read_image(shared / "photos" / "pexels_neutral.jpeg").rgb
    box = (200, 150, 800, 900)
    face = FaceRegion(Face((300, 250, 700, 800), 1.0, np.zeros((5, 2))), box, image[150:900, 200:800])
    similarity = matrix(12.0, 0.12, np.array([500.0, 520.0]))
    patch = lift(face, similarity, CropAnswer(residual=np.full((SIDE, SIDE, 3), 60.0)))
    result, changed = paste(image, [face], [patch])
    assert changed.any()
    added = result.astype(int) - image
    room = np.asarray((image < 190).all(axis=2))  # where nothing is cut off at 255
    pairs = room[:, 1:] & room[:, :-1]
    assert np.abs(np.diff(added, axis=1))[pairs].max() <= 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "empty"),
        ({"flow": np.zeros((64, 64, 3))}, r"flow.*\(64, 64, 2\).*\(64, 64, 3\)"),
        ({"residual": np.zeros((64, 32, 3))}, r"\(64, 64, 3\).*\(64, 32, 3\)"),
        ({"residual": np.zeros((64, 64, 3)), "shading": np.ones((32, 32))}, r"\(32, 32"),
        ({"paint": np.zeros((64, 64, 3))}, "paint_mask"),
        ({"residual": np.full((64, 64, 3), np.nan)}, "finite"),
        ({"alpha": np.full((64, 64), 1.2)}, r"alpha.*\[0, 1\].*1\.2"),
        ({"shading": np.full((64, 64), -0.1)}, "negative"),
    ],
)
def test_parts_that_do_not_fit_are_refused(region: FaceRegion, answer: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        lift(region, matrix(0.0, 0.4), CropAnswer(**answer))


def test_matrices_that_are_no_similarity_are_refused(region: FaceRegion) -> None:
    answer = CropAnswer(residual=np.zeros((SIDE, SIDE, 3)))
    for wrong in (np.eye(3), [[1, 0.5, 0], [0, 1, 0]], [[-1, 0, 0], [0, 1, 0]], [[np.nan, 0, 0], [0, 1, 0]]):
        with pytest.raises(PluginError, match="crop_from_image"):
            lift(region, np.asarray(wrong, dtype=np.float64), answer)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("far", [0.5, 6.0])
def test_what_lies_beyond_the_photo_is_not_brought_in(photo: NDArray[np.uint8], up: bool, far: float) -> None:
    h, w = photo.shape[:2]
    whole = FaceRegion(Face((0, 0, 1, 1), 1.0, np.zeros((5, 2))), (0, 0, w, h), photo, image_size=(h, w))
    similarity = matrix(0.0, SIDE / 900, np.array([210.0, 150.0]))  # the crop is larger than the photo
    flow = np.zeros((SIDE, SIDE, 2))
    flow[..., 1] = far if up else -far
    found = lift(whole, similarity, CropAnswer(flow=flow)).flow
    assert found is not None
    outward, inward = (-1, 0) if up else (0, -1)  # the border that the flow leads out of, and the other
    assert np.abs(found[outward]).max() < 1e-3 and np.abs(found[inward, :, 1]).min() > 0.8 * far * 900 / SIDE
    rows = np.arange(h)[:, None] + found[..., 1]
    assert rows.min() >= -1e-3 and rows.max() <= h - 1 + 1e-3, "all that is shown lies in the photo"
    assert (np.diff(rows, axis=0) > 0).all(), "and nothing folds over"


def test_softening_leaves_no_seams_between_tiles_and_turns_nothing_around() -> None:
    random = np.random.default_rng(0)
    grain = cv2.GaussianBlur(random.normal(0, 60, (420, 700, 3)).astype(np.float32), (0, 0), 1.0)
    photo = np.uint8(np.clip(128 + grain, 0, 255))
    h, w = photo.shape[:2]
    region = FaceRegion(Face((0, 0, 1, 1), 1.0, np.zeros((5, 2))), (0, 0, w, h), photo)
    similarity = matrix(0.0, SIDE / 900, np.array([350.0, 210.0]))
    at = (np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1) - similarity[:, 2]) * 900 / SIDE
    squeeze = 1.5 * (at - (350, 210)) * SIDE / 900  # to two fifths, along both axes
    tiled = lift(region, similarity, CropAnswer(flow=squeeze), blur=2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exprtool.pixels.lift._TILE", (10_000, 10_000))
        whole = lift(region, similarity, CropAnswer(flow=squeeze), blur=2.0)
    middle = np.s_[132:288, 222:478]  # across the tiles' borders
    difference = np.abs(tiled.pixels[middle].astype(int) - whole.pixels[middle])
    assert difference.max() <= 3 and difference.mean() < 0.2, "OpenCV counts places in 32nds of a pixel"
    assert whole.pixels[middle].std() < 0.4 * photo.std(), "grain that is pushed together is all but gone"


def test_what_is_not_free_keeps_its_bits(region: FaceRegion) -> None:
    free = np.ones(region.pixels.shape[:2], np.float32)
    free[:, 120:] = 0
    flow = np.full((SIDE, SIDE, 2), 2.0)
    patch = lift(region, matrix(0.0, 0.4), CropAnswer(flow=flow), free=free)
    assert not patch.alpha[:, 120:].any() and np.array_equal(patch.pixels[:, 120:], region.pixels[:, 120:])
    assert patch.flow is not None and not patch.flow[:, 120:].any() and patch.alpha[:, :119].any()
