"""The 68 landmarks (iBUG/Multi-PIE layout) of a face that a detector found.

dlib's predictor (Kazemi and Sullivan, CVPR 2014) expects an upright face in the kind of box that dlib's own detector
gives. Here every face is first brought upright and to one size by its five points, whatever detector they come from,
and the box is placed from the points; the answer is taken back to the image. As the predictor answers in whole pixels
this also makes the landmarks of small faces finer than a pixel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.faces import dlib_files
from exprtool.faces.align import Matrix, crop, invert, transform
from exprtool.types import Box, Face, Image, Points

_SIDE = 256  # of the predictor's box in the upright crop, pixels
_CROP = 400
_WELL_UPRIGHT = 12.0  # degrees
_SIDE_PER_SPAN = 1.6
"""Side of dlib's boxes per span (see `_span`): the mean over 290 faces, the same to 0.5 % whether the five points are
those of SCRFD, of YuNet or of the 68; the standard deviation of 7.5 % is that of dlib's steps in scale."""
_BOX_BELOW_MIDDLE = -0.015
"""Centre of dlib's boxes below the middle between eyes and mouth, in sides."""

MIRRORED68 = np.r_[
    16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40, 54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1
]
"""The landmark on the other side of the face, for each of the 68."""


def mirrored68(points: NDArray[Any]) -> NDArray[Any]:
    """Landmarks (..., 68, 2), in shares of the picture's width, of the same face in a mirror: x becomes 1 - x."""
    across = points[..., MIRRORED68, :].copy()
    across[..., 0] = 1 - across[..., 0]
    return across


# Shifts (x, y) and growth of the predictor's box in sides, for the median.
_JITTER = [(k, k / 2, g) for k in (-0.03, 0.0, 0.03) for g in (-0.04, 0.0, 0.04)]
_CORNERS = [shift for shift in _JITTER if (shift[0] == 0.0) == (shift[2] == 0.0)]  # the farthest of them, and none


def refine68(image: Image, face: Face, *, robust: bool = False) -> Face:
    """Find the face's 68 landmarks; the answer's box, five points and roll follow from them.

    ``robust`` takes the median over nine slightly different boxes: steadier from frame to frame, for nine times the
    predictor's time (about one millisecond each). Raises `ModelError` when dlib or its landmark file is missing.
    """
    crop_from_image, pixels = _upright_pixels(image, face.landmarks5)
    found = _predict(pixels, _five_box(transform(crop_from_image, face.landmarks5)))
    if abs(roll_of(five_of(found))) > _WELL_UPRIGHT:  # the five points were wrong about it: once more from better ones
        better = transform(invert(crop_from_image), five_of(found))
        crop_from_image, pixels = _upright_pixels(image, better)
        found = _predict(pixels, _five_box(transform(crop_from_image, better)))
    box = _five_box(five_of(found))  # the 68 tell better than five where the box belongs
    jitter = _JITTER if robust else [(0.0, 0.0, 0.0)]
    found = np.median([_predict(pixels, box, shift) for shift in jitter], axis=0)
    return with_landmarks(face, transform(invert(crop_from_image), found))


def disagreement68(image: Image, face: Face) -> NDArray[np.float64]:
    """How far the predictor's answers for five slightly different boxes lie apart, (68,), in sides of the box.

    ``face`` has its 68 landmarks. The standard deviation of each point, the larger one of x and y: small where the
    picture tells where the point is, several times as large where a hand covers it and the predictor has to guess.
    """
    crop_from_image, pixels = _upright_pixels(image, face.landmarks5)
    box = _five_box(transform(crop_from_image, face.landmarks5))
    found = np.stack([_predict(pixels, box, shift) for shift in _CORNERS])
    return found.std(axis=0).max(axis=1) / box[1]


def with_landmarks(face: Face, landmarks68: Points) -> Face:
    """The face with these 68 landmarks (68, 2), and box, five points and roll that agree with them."""
    landmarks68 = np.asarray(landmarks68, dtype=np.float64)
    five = five_of(landmarks68)
    return replace(face, landmarks68=landmarks68, landmarks5=five, box=box_around(landmarks68), roll=roll_of(five))


def five_of(landmarks68: Points) -> Points:
    """Eye centres, nose tip and mouth corners (5, 2) of 68 landmarks (68, 2)."""
    eyes = landmarks68[36:42].mean(axis=0), landmarks68[42:48].mean(axis=0)
    return np.stack([*eyes, landmarks68[30], landmarks68[48], landmarks68[54]])


def roll_of(landmarks5: Points) -> float:
    """In-plane rotation of the head in degrees, clockwise in the image, in (-180, 180]; 0 is upright.

    Taken from eyes and mouth together: the line between the eyes alone shortens and tips when the head is turned.
    """
    across, down = _axes(landmarks5)
    # "across" turned clockwise by a quarter points down, too
    x, y = down[0] - across[1], down[1] + across[0]
    return float(np.degrees(np.arctan2(-x, y)))


def box_around(landmarks68: Points) -> Box:
    """Box from the middle of the forehead to the chin and from temple to temple, axis-aligned in the image.

    The 68 points end at the brows; the box goes further up by 40 % of the height from brows to chin.
    """
    down = _axes(five_of(landmarks68))[1]
    down = down / np.linalg.norm(down)
    along = landmarks68 @ down
    brows = landmarks68[17:27]
    forehead = brows - down * 0.4 * (along.max() - (brows @ down).min())
    points = np.concatenate([landmarks68, forehead])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def upright_crop(image: Image, face: Face) -> tuple[Image, Box]:
    """The face brought upright, (512, 512, 3), and the square in it in which dlib's predictors expect the face."""
    matrix = centred(face.landmarks5, _SIDE, 2 * _SIDE)
    first, last = (2 * _SIDE - 1 - _SIDE) / 2, (2 * _SIDE - 1 + _SIDE) / 2
    return np.ascontiguousarray(crop(image, matrix, 2 * _SIDE)), (first, first, last, last)


def _axes(landmarks5: Points) -> tuple[Points, Points]:
    """Vectors from right to left eye and from the eyes' middle to the mouth's, each (2,)."""
    right_eye, left_eye, _, right_corner, left_corner = landmarks5
    return left_eye - right_eye, (right_corner + left_corner - right_eye - left_eye) / 2


def _span(landmarks5: Points) -> float:
    """Hypotenuse of eye distance and eye-mouth distance: shrinks less than either when the head turns or nods."""
    across, down = _axes(landmarks5)
    return float(np.hypot(np.linalg.norm(across), np.linalg.norm(down)))


def _five_box(landmarks5: Points) -> tuple[Points, float]:
    """Centre (2,) and side of dlib's box for five points of an upright face."""
    side = _SIDE_PER_SPAN * _span(landmarks5)
    middle = landmarks5[[0, 1, 3, 4]].mean(axis=0)
    return middle + np.array([0.0, _BOX_BELOW_MIDDLE * side]), side


def centred(landmarks5: Points, side: float, size: int) -> Matrix:
    """The similarity (2, 3) to a ``size`` x ``size`` crop with the face upright and dlib's box, ``side`` wide, in the
    middle."""
    landmarks5 = np.asarray(landmarks5, dtype=np.float64)
    angle = np.radians(roll_of(landmarks5))
    scale = side / (_SIDE_PER_SPAN * _span(landmarks5))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])
    middle = landmarks5[[0, 1, 3, 4]].mean(axis=0)
    target = np.full(2, (size - 1) / 2) - np.array([0.0, _BOX_BELOW_MIDDLE * side])
    return np.column_stack([linear, target - linear @ middle])


def _upright_pixels(image: Image, landmarks5: Points) -> tuple[Matrix, Image]:
    crop_from_image = centred(landmarks5, _SIDE, _CROP)
    return crop_from_image, np.ascontiguousarray(crop(image, crop_from_image, _CROP))


def _predict(pixels: Image, box: tuple[Points, float], shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Points:
    import dlib

    (x, y), side = box
    right, down, growth = (part * side for part in shift)
    half = side / 2 + growth
    rectangle = dlib.rectangle(  # type: ignore[attr-defined]
        round(x + right - half), round(y + down - half), round(x + right + half), round(y + down + half)
    )
    parts = dlib_files.predictor(68)(pixels, rectangle).parts()
    return np.array([(part.x, part.y) for part in parts], dtype=np.float64)
