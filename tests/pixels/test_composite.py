"""Pasting: what no patch claims keeps its bits, neighbours do not undo each other, and the proof notices strays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.errors import ExprtoolError, PluginError
from exprtool.images import read_image
from exprtool.pixels.composite import claimed_pixels, paste, verify_outside
from exprtool.types import Face, FacePatch, FaceRegion, IntBox

FACE = Face((0, 0, 1, 1), 1.0, np.zeros((5, 2)))


def region(image: NDArray[np.uint8], box: IntBox) -> FaceRegion:
    x0, y0, x1, y1 = box
    return FaceRegion(FACE, box, image[y0:y1, x0:x1])


def patch(region: FaceRegion, colour: object, alpha: object = 1.0) -> FacePatch:
    pixels = np.empty_like(region.pixels)
    pixels[:] = colour
    return FacePatch(pixels, np.broadcast_to(np.float32(alpha), pixels.shape[:2]).copy())


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (70, 110, 3), dtype=np.uint8)


def test_alpha_zero_keeps_every_bit_and_alpha_one_takes_the_patch(image: NDArray[np.uint8]) -> None:
    where = region(image, (20, 10, 90, 60))
    alpha = np.zeros((50, 70), np.float32)
    alpha[10:30, 5:40] = 1
    before = image.copy()
    result, changed = paste(image, [where], [patch(where, (1, 2, 3), alpha)])
    assert np.array_equal(image, before)
    claimed = np.zeros((70, 110), bool)
    claimed[20:40, 25:60] = True
    assert np.array_equal(result[~claimed], image[~claimed])
    assert (result[claimed] == (1, 2, 3)).all()
    assert np.array_equal(changed, claimed & (image != (1, 2, 3)).any(axis=2))
    assert np.array_equal(claimed_pixels((70, 110), [where], [patch(where, 0, alpha)]), claimed)
    verify_outside(image, result, claimed)


def test_blend_is_linear_and_rounds_to_nearest() -> None:
    image = np.full((4, 5, 3), 100, np.uint8)
    where = region(image, (0, 0, 5, 4))
    for alpha, expected in ((0.5, 150), (0.25, 125), (0.004, 100), (0.006, 101), (1.0, 200)):
        result, _ = paste(image, [where], [patch(where, 200, alpha)])
        assert (result == expected).all(), alpha


def test_a_patch_equal_to_the_photo_changes_nothing_at_any_alpha(image: NDArray[np.uint8]) -> None:
    where = region(image, (5, 5, 100, 60))
    alpha = np.random.default_rng(0).random((55, 95), dtype=np.float32)
    result, changed = paste(image, [where], [FacePatch(where.pixels.copy(), alpha)])
    assert np.array_equal(result, image) and not changed.any()


def test_a_neighbour_that_leaves_a_pixel_alone_does_not_undo_the_change(image: NDArray[np.uint8]) -> None:
    left, right = region(image, (0, 0, 70, 70)), region(image, (40, 0, 110, 70))
    pixels = left.pixels.copy()
    pixels[20:50, 30:60] = (250, 10, 20)
    first = FacePatch(pixels, np.ones((70, 70), np.float32))
    second = FacePatch(right.pixels.copy(), np.ones((70, 70), np.float32))
    alone, _ = paste(image, [left], [first])
    for regions, patches in (([left, right], [first, second]), ([right, left], [second, first])):
        both, changed = paste(image, regions, patches)
        assert np.array_equal(both, alone)
        assert np.array_equal(changed, (alone != image).any(axis=2))


def test_overlap_does_not_depend_on_order_and_does_not_double() -> None:
    image = np.full((20, 40, 3), 100, np.uint8)
    a, b = region(image, (0, 0, 25, 20)), region(image, (15, 0, 40, 20))
    up, down = patch(a, 130), patch(b, 130)
    result, _ = paste(image, [a, b], [up, down])
    assert (result == 130).all()  # the same wish twice is one wish
    opposite = patch(b, 60)
    one, _ = paste(image, [a, b], [up, opposite])
    other, _ = paste(image, [b, a], [opposite, up])
    assert np.array_equal(one, other)
    assert (one[:, 15:25] == 90).all()  # +30 and -40
    assert (one[:, :15] == 130).all() and (one[:, 25:] == 60).all()
    half = patch(b, 160, 0.25)
    result, _ = paste(image, [a, b], [up, half])
    assert (result[:, 15:25] == 130).all() and (result[:, 25:] == 115).all()


def test_three_faces_in_a_chain_over_many_strips(shared: Path) -> None:
    image = read_image(shared / "photos" / "pexels_angry.jpg").rgb  # taller than one strip
    boxes = [(100, 100, 700, 1500), (500, 300, 1200, 1800), (0, 1400, 800, 1920)]
    regions = [region(image, box) for box in boxes]
    rng = np.random.default_rng(1)
    patches = []
    for each in regions:
        h, w = each.pixels.shape[:2]
        alpha = np.clip(rng.random((h, w), dtype=np.float32) * 1.5 - 0.25, 0, 1)
        patches.append(FacePatch(255 - each.pixels, alpha))
    result, changed = paste(image, regions, patches)
    rise = np.zeros(image.shape, np.float64)
    fall = np.zeros(image.shape, np.float64)
    for each, answer in zip(regions, patches, strict=True):
        x0, y0, x1, y1 = each.box
        wish = answer.alpha[..., None].astype(float) * (answer.pixels.astype(float) - each.pixels)
        rise[y0:y1, x0:x1] = np.maximum(rise[y0:y1, x0:x1], wish)
        fall[y0:y1, x0:x1] = np.minimum(fall[y0:y1, x0:x1], wish)
    expected = np.clip(image + rise + fall, 0, 255)
    assert np.abs(result - expected).max() <= 0.5001
    claimed = claimed_pixels(image.shape[:2], regions, patches)
    verify_outside(image, result, claimed)
    assert not changed[~claimed].any()


def test_no_faces_gives_a_copy(image: NDArray[np.uint8]) -> None:
    result, changed = paste(image, [], [])
    assert result is not image and np.array_equal(result, image) and not changed.any()


@pytest.mark.parametrize(
    ("pixels", "alpha", "message"),
    [
        (np.zeros((30, 20, 3), np.uint8), np.zeros((20, 30), np.float32), r"\(20, 30, 3\).*\(30, 20, 3\)"),
        (np.zeros((20, 30, 3), np.uint8), np.zeros((30, 20), np.float32), r"\(20, 30\).*\(30, 20\)"),
        (np.zeros((20, 30, 3), np.float32), np.zeros((20, 30), np.float32), "uint8.*float32"),
        (np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.float64), "float32.*float64"),
        (np.zeros((20, 30, 3), np.uint8), np.full((20, 30), 1.5, np.float32), r"\[0, 1\].*1\.5"),
        (np.zeros((20, 30, 3), np.uint8), np.full((20, 30), np.nan, np.float32), "nan"),
    ],
)
def test_unfit_patches_are_refused_with_expected_and_actual(
    image: NDArray[np.uint8], pixels: NDArray[np.uint8], alpha: NDArray[np.float32], message: str
) -> None:
    where = region(image, (10, 10, 40, 30))
    with pytest.raises(PluginError, match=message):
        paste(image, [where], [FacePatch(pixels, alpha)])


def test_unfit_calls_are_refused(image: NDArray[np.uint8]) -> None:
    where = region(image, (10, 10, 40, 30))
    with pytest.raises(PluginError, match="1 regions, got 0"):
        paste(image, [where], [])
    beyond = FaceRegion(FACE, (100, 10, 130, 30), image[10:30, 80:110])
    with pytest.raises(PluginError, match="within the image"):
        paste(image, [beyond], [patch(beyond, 0)])


def test_the_proof_notices_a_single_stray_bit(image: NDArray[np.uint8]) -> None:
    claimed = np.zeros((70, 110), bool)
    claimed[10:20, 10:20] = True
    stray = image.copy()
    stray[12, 12] ^= 255
    verify_outside(image, stray, claimed)
    stray[66, 101, 2] ^= 1
    with pytest.raises(ExprtoolError, match=r"1 pixels.*x=101, y=66"):
        verify_outside(image, stray, claimed)
    with pytest.raises(ExprtoolError, match="one picture"):
        verify_outside(image, stray[:-1], claimed)
