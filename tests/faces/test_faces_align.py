"""Similarities and crops, on images that are not square."""

from __future__ import annotations

import numpy as np
import pytest

from exprtool.faces import align
from exprtool.faces.align import US_GAN_TEMPLATE, CropTemplate
from exprtool.types import Face


def turned(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return scale * points @ np.array([[cos, -sin], [sin, cos]]).T + shift


def face_with(right_eye, left_eye, right_corner, left_corner) -> Face:
    nose = (np.add(right_eye, left_eye) + np.add(right_corner, left_corner)) / 4
    five = np.array([right_eye, left_eye, nose, right_corner, left_corner], dtype=np.float64)
    return Face((0.0, 0.0, 1.0, 1.0), 1.0, five)


def test_similarity_recovers_turn_scale_and_shift():
    points = np.array([[0.0, 0.0], [30.0, 4.0], [12.0, 40.0], [-5.0, 22.0]])
    matrix = align.similarity(points, turned(points, 37.0, 1.7, (200.0, -31.0)))
    expected = 1.7 * np.array(
        [[np.cos(np.radians(37)), -np.sin(np.radians(37))], [np.sin(np.radians(37)), np.cos(np.radians(37))]]
    )
    np.testing.assert_allclose(matrix, np.column_stack([expected, [200.0, -31.0]]), atol=1e-9)


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    best = align.similarity(source, target)

    def error(matrix):
        return ((align.transform(matrix, source) - target) ** 2).sum()

    for step in rng.normal(scale=1e-3, size=(50, 4)):
        a, b, x, y = step
        assert error(best + np.array([[a, -b, x], [b, a, y]])) >= error(best)


def test_similarity_never_mirrors():
    points = np.array([[0.0, 0.0], [10.0, 0.0], [3.0, 8.0]])
    matrix = align.similarity(points, points * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0


def test_similarity_refuses_what_defines_none():
    with pytest.raises(ValueError, match="coincide"):
        align.similarity(np.ones((3, 2)), np.arange(6.0).reshape(3, 2))
    with pytest.raises(ValueError, match="shape"):
        align.similarity(np.ones((3, 2)), np.ones((4, 2)))


def test_invert_and_compose_round_trip():
    matrix = align.similarity(np.array([[0.0, 0], [4, 1], [2, 7]]), np.array([[50.0, 20], [90, 40], [60, 100]]))
    points = np.random.default_rng(0).uniform(-100, 400, size=(20, 2))
    there_and_back = align.transform(align.invert(matrix), align.transform(matrix, points))
    np.testing.assert_allclose(there_and_back, points, atol=1e-9)
    np.testing.assert_allclose(align.compose(align.invert(matrix), matrix), np.eye(2, 3), atol=1e-12)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_crop_puts_eyes_and_mouth_where_the_template_says(size):
    # a face whose proportions are the template's own, turned and shifted
    wanted = np.array([US_GAN_TEMPLATE.right_eye, US_GAN_TEMPLATE.left_eye, US_GAN_TEMPLATE.mouth])
    eye_r, eye_l, mouth = turned(wanted, -25.0, 230.0, (410.0, 120.0))
    face = face_with(eye_r, eye_l, np.add(mouth, (-20, 3)), np.add(mouth, (20, -3)))
    matrix = align.crop_from_image(face, size)
    np.testing.assert_allclose(
        align.transform(matrix, np.stack([eye_r, eye_l, mouth])), US_GAN_TEMPLATE.points(size), atol=1e-6
    )


def test_crops_of_every_size_show_the_same_part_of_the_face():
    face = face_with((310.0, 200.0), (370.0, 212.0), (315.0, 270.0), (360.0, 280.0))
    small, large = align.crop_from_image(face, 64), align.crop_from_image(face, 256)
    for fraction in (0.0, 0.5, 1.0):
        a = align.transform(align.invert(small), np.array([[fraction * 64 - 0.5, 3.5]]))
        b = align.transform(align.invert(large), np.array([[fraction * 256 - 0.5, 15.5]]))
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_template_is_free():
    template = CropTemplate((0.3, 0.4), (0.7, 0.4), (0.5, 0.8))
    face = face_with((100.0, 100.0), (140.0, 100.0), (112.0, 140.0), (128.0, 140.0))
    points = align.transform(align.crop_from_image(face, 100, template), align.anchors(face))
    np.testing.assert_allclose(points, template.points(100), atol=1e-9)


def ramp(height: int, width: int) -> np.ndarray:
    """Pixels that tell their own coordinates: x in the first channel, y in the second."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([x, y, np.zeros_like(x)], axis=-1)


@pytest.mark.parametrize("scale", [0.13, 0.4, 0.8, 1.0, 2.6])
@pytest.mark.parametrize("angle", [0.0, 33.0, 180.0])
def test_crop_shows_the_pixels_that_its_matrix_points_at(scale, angle):
    image = ramp(300, 700)  # not square: an exchange of the axes shows
    size = 40
    centre = np.array([360.0, 140.0])
    cos, sin = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    linear = np.array([[cos, -sin], [sin, cos]])
    matrix = np.column_stack([linear, (size - 1) / 2 - linear @ centre])
    got = align.crop(image, matrix, size)
    assert got.shape == (size, size, 3) and got.dtype == np.float32
    y, x = np.mgrid[0:size, 0:size]
    expected = align.transform(align.invert(matrix), np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(size, size, 2)
    # a margin at the ends: where the crop leaves the image its border goes on
    inside = ((expected > 4 / scale) & (expected < np.array([700, 300]) - 4 / scale)).all(axis=-1)
    assert inside.mean() > 0.2
    assert np.abs(got[..., :2] - expected)[inside].max() < 0.12 / min(scale, 1)


def test_shrinking_averages_instead_of_picking():
    checkers = (np.indices((400, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crop = align.crop(checkers, np.array([[0.11, 0.02, 0.3], [-0.02, 0.11, 8.0]]), 32)
    assert crop.dtype == np.uint8 and crop.shape == (32, 32)
    assert abs(crop.astype(int) - 127).max() <= 8


def test_crop_beyond_the_image_goes_on_with_its_border():
    image = np.full((50, 90, 3), 7, np.uint8)
    far = np.array([[1.0, 0.0, 5000.0], [0.0, 1.0, -5000.0]])
    assert (align.crop(image, far, 16) == 7).all()
