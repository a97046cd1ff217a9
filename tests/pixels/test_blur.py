"""The blur of a photo, measured on faces in many sizes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from exprtool.images import read_image
from exprtool.pixels.blur import LARGEST, USUAL, measured_blur
from exprtool.types import Image

FACES = {"london/neutral/014.jpg": (170, 200, 560, 600), "london/happy/092.jpg": (170, 200, 560, 600)}


def face(shared: Path, name: str) -> Image:
    x0, y0, x1, y1 = FACES[name]
    return read_image(shared / "faces" / name).rgb[y0:y1, x0:x1]


@pytest.mark.parametrize("name", FACES)
def test_a_sharp_photo_is_sharp_and_enlarging_it_enlarges_its_blur(shared: Path, name: str) -> None:
    photo = face(shared, name)
    sharp = measured_blur(photo)
    assert sharp < 0.8
    larger = [measured_blur(np.asarray(cv2.resize(photo, None, fx=by, fy=by, interpolation=cv2.INTER_CUBIC), np.uint8))
              for by in (1.5, 2.5)]  # fmt: skip
    assert sharp < larger[0] < larger[1]
    assert larger[1] == pytest.approx(2.5 * max(sharp, 0.42), rel=0.2)


@pytest.mark.parametrize("added", [0.8, 1.2, 1.6])
def test_blurs_add_up(shared: Path, added: float) -> None:
    photo = face(shared, "london/neutral/014.jpg")
    blurred = np.asarray(cv2.GaussianBlur(photo, (0, 0), added), np.uint8)
    assert measured_blur(blurred) == pytest.approx(np.hypot(measured_blur(photo), added), rel=0.15)


def test_what_tells_nothing_is_taken_for_usual() -> None:
    assert measured_blur(np.full((300, 200, 3), 90, np.uint8)) == USUAL, "one tone"
    assert measured_blur(np.zeros((5, 300, 3), np.uint8)) == USUAL, "too low"
    assert measured_blur(np.zeros((0, 0, 3), np.uint8)) == USUAL, "nothing at all"
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    assert measured_blur(noise) == 0
    ramp = np.repeat(np.linspace(0, 255, 300)[None, :, None], 200, 0).repeat(3, 2)
    assert 0 <= measured_blur(np.asarray(ramp, np.uint8)) <= LARGEST
