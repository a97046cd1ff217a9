"""Teeth told from lips, and the colour that light gives them."""

from __future__ import annotations

import numpy as np
import pytest

from exprtool.anatomy.teeth import Surroundings, enamel_of, surroundings_of, teeth_in
from exprtool.pixels.ramps import LUMA

SKIN, LIPS, TEETH, TONGUE, DARK = (200, 150, 125), (165, 85, 85), (215, 205, 185), (185, 90, 95), (20, 12, 12)


def mouth(light: tuple[float, float, float] = (1, 1, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Lips around teeth, dark and tongue, from top to bottom; and where between the lips is."""
    picture = np.empty((90, 140, 3), np.float32)
    picture[:] = SKIN
    picture[30:66, 30:110] = LIPS
    inside = np.zeros((90, 140), np.bool_)
    inside[38:58, 40:100] = True
    for rows, colour in (((38, 46), TEETH), ((46, 50), DARK), ((50, 58), TONGUE)):
        picture[slice(*rows), 40:100] = colour
    return picture * np.float32(light), inside


@pytest.mark.parametrize("light", [(1, 1, 1), (1, 0.75, 0.45), (0.35, 0.4, 0.45), (0.2, 0.15, 0.12)])
def test_teeth_are_found_in_any_light(light: tuple[float, float, float]) -> None:
    picture, inside = mouth(light)
    found = teeth_in(picture, inside, surroundings_of(picture, inside, 1.8), 1.8)
    assert found[39:45, 42:98].all() and not found[48:].any() and not found[~inside].any()


def test_a_grey_photo_tells_teeth_by_their_light_and_a_tongue_alone_is_none() -> None:
    picture, inside = mouth()
    grey = np.repeat((picture @ LUMA)[..., None], 3, axis=-1)
    around = surroundings_of(grey, inside, 1.8)
    assert around.grey and teeth_in(grey, inside, around, 1.8)[40:44, 50:90].all()
    picture[38:46, 40:100] = TONGUE
    assert not teeth_in(picture, inside, surroundings_of(picture, inside, 1.8), 1.8).any()
    assert not teeth_in(picture, np.zeros_like(inside), Surroundings(), 1.8).any()


@pytest.mark.parametrize("light", [(1.0, 1.0, 1.0), (1.0, 0.75, 0.45), (0.8, 0.95, 1.0)])
def test_teeth_take_the_colour_of_the_light(light: tuple[float, float, float]) -> None:
    skin = np.array([0.75, 0.56, 0.48], np.float32) * np.array(light, np.float32)
    colour = enamel_of(skin)
    assert colour @ LUMA == pytest.approx(1, abs=1e-3)
    warmth, skins = colour[0] / colour[2], skin[0] / skin[2]
    assert 1 < warmth < skins, "teeth are paler than skin in any light"
