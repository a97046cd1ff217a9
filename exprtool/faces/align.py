"""Aligned crops: where a network wants eyes and mouth to be, and the similarity that brings them there.

Convention
----------
Points are (x, y) with (0, 0) at the centre of the top left pixel, as OpenCV's ``warpAffine`` has it. A matrix is
(2, 3) and maps ``p -> A p + t``; its name says the direction: ``crop_from_image`` takes image points to crop points.
A template gives positions as fractions of the crop's side, measured from the outer edge of the first pixel to the
outer edge of the last; fraction f of side S is the pixel coordinate ``f * S - 0.5``. Crops of different sizes from
one template therefore show exactly the same part of the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from exprtool.types import Face, Points

Matrix = NDArray[np.float64]
"""Similarity or affine map of the plane, shape (2, 3)."""

Pixels = TypeVar("Pixels", bound=NDArray[np.generic])


@dataclass(frozen=True)
class CropTemplate:
    """Where the centres of the eyes and of the mouth lie in a square crop, as fractions (x, y) of its side.

    ``right_eye`` is the person's right eye, the one on the left in the picture. The mouth's centre is the middle
    between its corners, which stays put when the jaw drops.
    """

    right_eye: tuple[float, float]
    left_eye: tuple[float, float]
    mouth: tuple[float, float]

    def points(self, size: int) -> Points:
        """Pixel coordinates (3, 2) of right eye, left eye and mouth in a crop of ``size`` x ``size``."""
        return np.array([self.right_eye, self.left_eye, self.mouth]) * size - 0.5


US_GAN_TEMPLATE = CropTemplate(right_eye=(0.28, 0.35), left_eye=(0.73, 0.35), mouth=(0.5, 0.73))
"""Measured on the faces that the authors of US-GAN test with."""


def anchors(face: Face) -> Points:
    """The face's right eye, left eye and mouth centre in image coordinates, shape (3, 2)."""
    right_eye, left_eye, _, right_corner, left_corner = np.asarray(face.landmarks5, dtype=np.float64)
    return np.stack([right_eye, left_eye, (right_corner + left_corner) / 2])


def crop_from_image(face: Face, size: int, template: CropTemplate = US_GAN_TEMPLATE) -> Matrix:
    """The similarity (2, 3) that takes image points to a ``size`` x ``size`` crop of the face.

    Rotation, uniform scale and shift that bring eyes and mouth nearest to the template in the least squares sense.
    """
    return similarity(anchors(face), template.points(size))


def similarity(source: Points, target: Points) -> Matrix:
    """The similarity (2, 3) that takes ``source`` (n, 2) nearest to ``target`` (n, 2), without reflection.

    The least squares solution of Umeyama (PAMI 1991), which in the plane is one complex division: with the points as
    complex numbers about their means, ``a = sum(conj(s) t) / sum(|s|^2)`` turns and scales. Raises ValueError where
    the source points coincide.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise ValueError(f"expected two arrays of one shape (n, 2), got {source.shape} and {target.shape}")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s = (source - source_mean) @ np.array([1, 1j])
    t = (target - target_mean) @ np.array([1, 1j])
    spread = np.vdot(s, s).real
    if spread <= 0:
        raise ValueError("the points coincide: no similarity is defined by them")
    a = np.vdot(s, t) / spread
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.asarray(np.column_stack([linear, target_mean - linear @ source_mean]), dtype=np.float64)


def transform(matrix: Matrix, points: Points) -> Points:
    """Points (..., 2) through a (2, 3) matrix."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: Matrix) -> Matrix:
    """The matrix (2, 3) of the other direction."""
    linear = np.linalg.inv(np.asarray(matrix[:, :2], dtype=np.float64))
    return np.asarray(np.column_stack([linear, -linear @ matrix[:, 2]]), dtype=np.float64)


def compose(second: Matrix, first: Matrix) -> Matrix:
    """The matrix (2, 3) that does ``first`` and then ``second``."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]])


def scale_of(matrix: Matrix) -> float:
    """How many target pixels one source pixel becomes (the geometric mean over directions)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


_DENSE = 0.75
"""Shrinking by less than this, sampling between two pixels at a time passes none over."""


def crop(image: Pixels, matrix: Matrix, size: int) -> Pixels:
    """Sample the square crop that ``matrix`` (crop from image) describes.

    ``image`` is (H, W) or (H, W, C), uint8 or float32; the answer is (size, size) or (size, size, C) of the same type.
    A crop smaller than what it shows is averaged over area, so that fine detail does not alias; a larger one is
    interpolated with cubics. Beyond the image its border pixels go on.
    """
    import cv2

    scale = scale_of(matrix)
    if scale >= 1:
        enlarged: Any
        enlarged, matrix = _part(image, matrix, size)
        flags, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
        enlarged = cv2.warpAffine(enlarged, matrix, (size, size), flags=flags, borderMode=border)
        return enlarged
    # Twice the size first, from an image that is already averaged down to that scale, then 2 x 2 means: rotation and
    # shift cost no more sharpness than the shrinking itself, and there is no frequency left to alias.
    double = compose(np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5]]), matrix)
    part: Any
    part, double = _part(image, double, 2 * size)
    shrink = 2 * scale
    if shrink < _DENSE:
        height, width = part.shape[:2]
        small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
        fx, fy = width / small[0], height / small[1]
        part_from_small = np.array([[fx, 0.0, (fx - 1) / 2], [0.0, fy, (fy - 1) / 2]])
        double = compose(double, part_from_small)
    large: Any = cv2.warpAffine(
        part, double, (2 * size, 2 * size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def _part(image: Pixels, matrix: Matrix, size: int) -> tuple[Pixels, Matrix]:
    """The rectangle of the image that the crop can see, and the matrix from there: a large photo is not walked over."""
    height, width = image.shape[:2]
    corners = np.array([[-1.0, -1.0], [size, -1.0], [-1.0, size], [size, size]])
    seen = transform(invert(matrix), corners)
    x0, y0 = np.floor(seen.min(axis=0)).astype(int) - 2
    x1, y1 = np.ceil(seen.max(axis=0)).astype(int) + 3
    x0, x1 = int(np.clip(x0, 0, width - 1)), int(np.clip(x1, 1, width))
    y0, y1 = int(np.clip(y0, 0, height - 1)), int(np.clip(y1, 1, height))
    return image[y0:y1, x0:x1], compose(matrix, np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]]))  # type: ignore[return-value]
