"""The working frame: an upright, bounded grid around one face, in which everything but the final sampling happens.

Conventions
-----------
* A region is a rectangle of the photo; its points are (x, y) in the photo's pixels with (0, 0) at the centre of the
  region's first pixel. Work points are (x, y) on the working grid, likewise.
* ``work_from_region`` is a similarity: the head's roll is taken out, and the face is brought to between `SMALLEST` and
  `LARGEST` work pixels per cm. A small face is worked on at more pixels than it has (its edges come out smooth), a
  large one at fewer (its geometry carries no finer detail); the photo's own pixels are sampled only at the end, at
  their own resolution.
* z is scaled like x and y.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid

SMALLEST, LARGEST = 16.0, 34.0
"""Bounds of the work pixels per cm. A face is about 16 cm wide and its detector's box about as high."""
FINER = 1.4
"""Between the bounds the grid has this many times the photo's pixels per cm: edges of lips and lids come out smooth."""
AROUND = (2.6, 5.6, 2.6, 4.6)
"""How far (cm) the grid reaches beyond the landmarks to the left, above, to the right and below: motion fades out
there."""
COARSE_FROM = 22.0
"""Work pixels per cm from which light is worked out on every second pixel only; it has no finer detail."""


@dataclass(frozen=True, eq=False)
class WorkFrame:
    """``work_from_region`` (2, 3), ``shape`` (h, w) of the grid, ``u`` work pixels per cm, ``scale`` work pixels per
    region pixel, ``angle`` the roll taken out, in radians (positive: the head leans clockwise in the photo)."""

    work_from_region: NDArray[np.float64]
    shape: tuple[int, int]
    u: float
    scale: float
    angle: float

    @property
    def coarse(self) -> int:
        """Step of the coarse grid for light: its pixel (i, j) is the work pixel (coarse * i, coarse * j)."""
        return 2 if self.u > COARSE_FROM else 1

    @property
    def region_from_work(self) -> NDArray[np.float64]:
        return np.asarray(cv2.invertAffineTransform(self.work_from_region), dtype=np.float64)

    def points(self, region_points: Grid) -> NDArray[np.float64]:
        """Region points (n, 2) or (n, 3) as work points; z is only scaled."""
        points = np.asarray(region_points, dtype=np.float64)
        moved = points[:, :2] @ self.work_from_region[:, :2].T + self.work_from_region[:, 2]
        return moved if points.shape[1] == 2 else np.c_[moved, points[:, 2] * self.scale]

    def picture(self, region_pixels: Grid, border: int = cv2.BORDER_REPLICATE) -> Grid:
        """A region's picture on the working grid, float32, same channels and range."""
        source = region_pixels
        matrix = self.work_from_region
        if self.scale < 0.75:  # more photo pixels than work pixels: average them instead of picking some
            step = 1 / self.scale
            size = (max(1, round(source.shape[1] / step)), max(1, round(source.shape[0] / step)))
            fx, fy = size[0] / source.shape[1], size[1] / source.shape[0]
            source = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
            small_from_region = np.array([[fx, 0, fx / 2 - 0.5], [0, fy, fy / 2 - 0.5], [0, 0, 1]])
            matrix = (np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(small_from_region))[:2]
        h, w = self.shape
        warped = cv2.warpAffine(source, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=border)
        return warped.astype(np.float32)


def work_frame(landmarks: NDArray[np.float64], u: float, region_shape: tuple[int, int]) -> WorkFrame:
    """The frame for a face with 68 landmarks (68, 2) in its region's coordinates, ``u`` region pixels per cm."""
    right, left = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    scale = float(np.clip(FINER * u, SMALLEST, LARGEST) / u)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = landmarks @ turn.T
    low, high = upright.min(0), upright.max(0)
    low = low - np.array(AROUND[:2]) * u * scale
    high = high + np.array(AROUND[2:]) * u * scale
    # not beyond what the region shows (its corners, turned)
    rows, columns = region_shape
    corners = np.array([[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]]) @ turn.T
    low = np.maximum(low, corners.min(0))
    high = np.minimum(high, corners.max(0))
    origin = np.floor(low)
    size = np.maximum(np.ceil(high - origin).astype(int) + 1, 8)
    matrix = np.c_[turn, -origin]
    return WorkFrame(matrix, (int(size[1]), int(size[0])), u * scale, scale, angle)
