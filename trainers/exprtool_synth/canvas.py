"""A portrait as raw material: cut out around the face, a little reshaped, relit and turned, with its landmarks.

Conventions: a canvas is a square RGB uint8 image. The crop that a network will see (`SYNTH_TEMPLATE`, side ``size``)
lies in its middle, at `supersampling` times its resolution, with `MARGIN` of the side around it, so that motion at
the crop's border has somewhere to come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.faces.align import CropTemplate, crop, crop_from_image, transform
from exprtool.faces.landmarks import box_around, five_of, refine68
from exprtool.types import Face, FaceRegion, Image, Points

SYNTH_TEMPLATE = CropTemplate(right_eye=(0.34, 0.332), left_eye=(0.66, 0.332), mouth=(0.5, 0.668))
"""Wider than US-GAN's, which cuts off a jaw that drops: here the chin of a surprised face stays inside."""

_NOSE, _MOUTH_HALF = (0.5, 0.5), 0.11
"""Where in the crop the nose's tip lies, about, and half the mouth's width: enough to begin to look for landmarks."""

MARGIN = 0.2
_ENOUGH = 256
"""Side from which on a crop is drawn at its own size: there lids and teeth are many pixels wide, and a second factor
of two costs twice the time for detail that most portraits do not have."""

_TURN = np.radians(8.0)
_SCALE, _SHIFT, _STRETCH, _SHEAR = 0.05, 0.02, 0.035, 0.02
_LIGHT, _EXPOSURE, _TINT = 0.22, 0.12, 0.04


@dataclass(frozen=True, eq=False)
class Canvas:
    """The varied portrait and its face, in canvas pixels; ``size`` is the side of the crop that is made of it."""

    region: FaceRegion
    size: int

    @property
    def supersampling(self) -> int:
        return supersampling(self.size)

    @property
    def image(self) -> Image:
        return self.region.pixels

    @cached_property
    def crop_points(self) -> Points:
        """The 68 landmarks (68, 2) that are found in the network's crop, in its pixels."""
        return crop_landmarks(self.crop(self.image))

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that the network's crop shows."""
        side = self.size * self.supersampling
        start = (self.image.shape[0] - side) // 2
        return slice(start, start + side), slice(start, start + side)

    def crop(self, image: NDArray) -> NDArray:
        """The network's crop of a canvas-sized image, (size, size[, c])."""
        return self.shrunk(image[self.window])

    def shrunk(self, part: NDArray) -> NDArray:
        """What lies in `window`, of an image or map, averaged down to (size, size[, c])."""
        return cv2.resize(np.ascontiguousarray(part), (self.size, self.size), interpolation=cv2.INTER_AREA)


def supersampling(size: int) -> int:
    """How many canvas pixels there are for each pixel of a crop of ``size``, along either side."""
    return 1 if size >= _ENOUGH else 2


def crop_landmarks(image: Image) -> Points:
    """The 68 landmarks (68, 2) of the face in a crop (S, S, 3), in the crop's pixels.

    They are looked for where the template puts the face, so that they depend on nothing but the crop.
    """
    template, (mouth_x, mouth_y) = SYNTH_TEMPLATE, SYNTH_TEMPLATE.mouth
    corners = (mouth_x - _MOUTH_HALF, mouth_y), (mouth_x + _MOUTH_HALF, mouth_y)
    side = image.shape[0]
    five = np.array([template.right_eye, template.left_eye, _NOSE, *corners]) * side - 0.5
    face = Face(box=(0.0, 0.0, float(side), float(side)), score=1.0, landmarks5=five)
    found = refine68(image, face, robust=True).landmarks68
    assert found is not None  # that is what refine68 is for
    return found


def cut(image: Image, face: Face, size: int, random: np.random.Generator | None = None) -> Canvas:
    """Cut the canvas for a face; with ``random`` varied in pose, proportions and light, else as it is.

    Raises ValueError for a face without 68 landmarks.
    """
    if face.landmarks68 is None:
        raise ValueError("a canvas needs the 68 landmarks of its face")
    inner = size * supersampling(size)
    side = round(inner * (1 + 2 * MARGIN))
    matrix = crop_from_image(face, inner, SYNTH_TEMPLATE).copy()
    matrix[:, 2] += (side - inner) / 2
    if random is not None:
        matrix = _varied(matrix, side, random)
    pixels = crop(image, matrix, side)
    if random is not None:
        pixels = _relit(pixels, random)
    landmarks = transform(matrix, face.landmarks68)
    moved = replace(face, box=box_around(landmarks), landmarks5=five_of(landmarks), landmarks68=landmarks, roll=0.0)
    return Canvas(FaceRegion(moved, (0, 0, side, side), pixels), size)


def _varied(matrix: NDArray[np.float64], side: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Turn, scale and shift about the canvas's middle; stretch and shear make a slightly different person.

    Nothing is mirrored: that exchanges left and right controls, and training does it together with the condition.
    """
    angle = random.normal(0, _TURN / 2)
    scale = np.exp(random.normal(0, _SCALE / 2))
    stretch = np.exp(random.normal(0, _STRETCH))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = np.array([[stretch, random.normal(0, _SHEAR)], [0.0, 1 / stretch]])
    linear = turn @ shape
    centre = np.full(2, (side - 1) / 2)
    shift = random.normal(0, _SHIFT * side / 2, 2)
    return np.c_[linear @ matrix[:, :2], linear @ (matrix[:, 2] - centre) + centre + shift]


def _relit(pixels: Image, random: np.random.Generator) -> Image:
    """A gradient of light over the picture, more or less exposure, a tint: all in linear light."""
    side = pixels.shape[0]
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    dx, dy = random.normal(0, _LIGHT, 2)
    gain = np.exp(dx * x + dy * y + random.normal(0, _EXPOSURE))[..., None]
    tint = np.exp(random.normal(0, _TINT, 3)).astype(np.float32)
    table = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
    linear = table[pixels] * gain * tint
    return np.clip(linear ** (1 / 2.2) * 255 + 0.5, 0, 255).astype(np.uint8)
