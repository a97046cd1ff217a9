"""What skin tells: how bright it is where light falls on it, and whether the photo has colours at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exprtool import Session
from exprtool.anatomy.skin import look_at_skin
from exprtool.images import read_image
from exprtool.types import Edit, Image
from exprtool_flow.points import mean_points

POINTS = mean_points().numpy() * 256 - 0.5
PAINTED = np.array([[0.6, 0.2, 0.2], [0.9, 0.85, 0.7]], np.float32)


def face(lit: tuple[int, int, int], shaded: tuple[int, int, int]) -> Image:
    photo = np.empty((256, 256, 3), np.uint8)
    photo[:, :160], photo[:, 160:] = lit, shaded
    return photo


def test_light_and_colours_of_skin() -> None:
    skin = look_at_skin(face((200, 160, 140), (90, 60, 55)), POINTS)
    assert skin.lit == pytest.approx((0.299 * 200 + 0.587 * 160 + 0.114 * 140) / 255, abs=0.01)
    noise = np.random.default_rng(0).normal(0, 4, (256, 256, 3))
    coloured = look_at_skin(np.uint8(face((200, 160, 140), (90, 60, 55)) + noise), POINTS)
    assert np.allclose(coloured.tone(PAINTED), PAINTED)
    grey = look_at_skin(face((170, 170, 170), (70, 70, 70)), POINTS).tone(PAINTED)
    assert np.ptp(grey, axis=1).max() < 0.01, "a grey photo gets grey paint"
    sepia = look_at_skin(face((190, 170, 140), (81, 72, 60)), POINTS).tone(PAINTED)
    assert (sepia[:, 0] > sepia[:, 2]).all() and (np.ptp(sepia, axis=1) < np.ptp(PAINTED, axis=1).max()).all()


def test_where_no_skin_is_seen_nothing_is_told() -> None:
    outside = np.full((68, 2), -50.0)
    skin = look_at_skin(face((170, 170, 170), (70, 70, 70)), outside)
    assert skin.lit is None and np.array_equal(skin.tone(PAINTED), PAINTED)


@pytest.mark.parametrize("expression", ["happy", "surprised"])
def test_a_grey_photo_stays_grey(shared: Path, expression: str) -> None:
    photo = read_image(shared / "faces" / "london" / "neutral" / "014.jpg").rgb
    grey = np.repeat(np.rint(photo @ [0.299, 0.587, 0.114]).astype(np.uint8)[..., None], 3, axis=2)
    result = Session(backend="default").edit_image(grey, Edit({expression: 1.0}))
    assert result.changed.any()
    assert np.ptp(result.image, axis=2).max() <= 2


def test_haze_lies_over_paint_and_a_clear_photo_has_none() -> None:
    clear = face((200, 160, 140), (90, 60, 55))
    clear[120:126, 100:130] = 5  # a pupil
    assert look_at_skin(clear, POINTS).haze == (0, 0, 0)
    hazy = np.uint8(70 + 0.7 * clear.astype(np.float32))
    assert np.allclose(look_at_skin(hazy, POINTS).haze, 0.7 * ((70 + 3.5) / 255 - 0.07), atol=0.01)
