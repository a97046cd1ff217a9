"""Moving pixels: exact where nothing moves, sharper than the usual kernels in between, the border goes on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.images import read_image
from exprtool.pixels.resample import doubled, resample

Coordinates = NDArray[np.float32]


def places(height: int, width: int, dx: float = 0.0, dy: float = 0.0) -> tuple[Coordinates, Coordinates]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x + np.float32(dx), y + np.float32(dy)


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_whole_pixels_keep_their_bits(noise: NDArray[np.uint8]) -> None:
    assert np.array_equal(resample(noise, *places(40, 50)), noise)
    columns, rows = places(20, 30, 7, 11)
    assert np.array_equal(resample(noise, columns, rows), noise[11:31, 7:37])
    assert np.array_equal(doubled(noise)[::2, ::2], noise)


@pytest.mark.parametrize("period, most", [(3.0, 1.8), (4.0, 1.2), (5.0, 1.0), (8.0, 1.0)])
def test_detail_between_pixels_is_what_it_was_in_the_scene(period: float, most: float) -> None:
    """A wave of 100 levels sampled anew at other places, against the wave itself; two pixels a period are the finest
    that there can be."""

    def wave(x: NDArray, y: NDArray) -> NDArray:
        each = 127 + 100 * np.sin(2 * np.pi * x / period) * np.cos(2 * np.pi * y / 11)
        return np.repeat(each[..., np.newaxis], 3, axis=2)

    picture = np.rint(wave(*places(64, 64))).astype(np.uint8)
    columns, rows = places(40, 40, 12.37, 12.61)
    columns += 0.4 * np.sin(rows / 9)
    truth = wave(columns.astype(float), rows.astype(float))
    error = np.abs(resample(picture, columns, rows) - truth).mean()
    assert error < most
    if period <= 3:
        cubic = np.abs(cv2.remap(picture, columns, rows, cv2.INTER_CUBIC).astype(float) - truth).mean()
        assert error < 0.5 * cubic


def test_a_photo_stays_as_sharp_as_by_lanczos(shared: Path) -> None:
    photo = read_image(shared / "faces/london/neutral/034.jpg").rgb[400:700, 400:700]
    columns, rows = places(260, 260, 20.5, 20.5)

    def sharpness(picture: NDArray) -> float:
        return float(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32), cv2.CV_32F).var())

    assert sharpness(resample(photo, columns, rows)) > sharpness(cv2.remap(photo, columns, rows, cv2.INTER_LANCZOS4))


def test_beyond_the_picture_its_border_goes_on(noise: NDArray[np.uint8]) -> None:
    assert np.array_equal(resample(noise, *places(5, 6, -80, -90)), np.broadcast_to(noise[0, 0], (5, 6, 3)))
    assert np.array_equal(resample(noise, *places(5, 6, 300, 200)), np.broadcast_to(noise[-1, -1], (5, 6, 3)))
    one = noise[:1, :1]
    assert np.array_equal(resample(one, *places(3, 3, -1.3, 0.2)), np.broadcast_to(one[0, 0], (3, 3, 3)))


def test_a_part_is_what_it_is_in_the_whole(noise: NDArray[np.uint8]) -> None:
    columns, rows = places(40, 50, 0.4, -0.7)
    columns += 5 * np.sin(rows / 7)
    whole = resample(noise, columns, rows)
    part = resample(noise, columns[10:25, 5:30], rows[10:25, 5:30])
    assert np.array_equal(part, whole[10:25, 5:30])
