"""Weak perspective: how the head in centimetres becomes pixels.

Convention
----------
Model space is x to the person's left, y up, z towards the viewer (cm); image space is x right, y down, and z towards
the viewer in pixels of the same scale. An image point is ``scale * (R p) * (1, -1, 1) + (tx, ty, 0)``.
Angles are in radians: ``yaw`` > 0 turns the face to the right of the image, ``pitch`` > 0 lifts it, ``roll`` > 0 tilts
it clockwise in the image. R = roll * pitch * yaw (yaw is applied first).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """Where a head stands in a region: angles in radians, ``scale`` in pixels per cm, (``tx``, ``ty``) in pixels."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    tx: float
    ty: float

    @property
    def rotation(self) -> NDArray[np.float64]:
        """View-from-model rotation (3, 3), both with y up."""
        roll, pitch, yaw = _factors(self.yaw, self.pitch, self.roll)
        return roll @ pitch @ yaw

    @property
    def translation(self) -> NDArray[np.float64]:
        return np.array([self.tx, self.ty])

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Model points (n, 3) in cm to image points (n, 3) in pixels, depth included."""
        matrix = self.rotation * np.array([[self.scale], [-self.scale], [self.scale]])
        return points @ matrix.T + np.array([self.tx, self.ty, 0.0])

    def lifted(self, shifts: NDArray[np.floating]) -> NDArray[np.float64]:
        """Shifts (n, 2) in the image, in pixels, as offsets (n, 3) in model space, in cm, that keep the depth."""
        view = np.zeros((len(shifts), 3))
        view[:, 0] = shifts[:, 0] / self.scale
        view[:, 1] = -shifts[:, 1] / self.scale
        return view @ self.rotation

    def moved(self, dx: float, dy: float) -> Camera:
        """The same camera seen from a region whose origin lies at (-dx, -dy)."""
        return replace(self, tx=self.tx + dx, ty=self.ty + dy)

    def derivatives(self, points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Image positions (n, 2) and their derivatives (n, 2, 6) by (yaw, pitch, roll, log scale, tx, ty)."""
        roll, pitch, yaw = _factors(self.yaw, self.pitch, self.roll)
        d_roll, d_pitch, d_yaw = _factor_derivatives(self.yaw, self.pitch, self.roll)
        flip = np.array([[self.scale], [-self.scale]])
        jacobian = np.zeros((len(points), 2, 6))
        turned = points @ ((roll @ pitch @ yaw)[:2] * flip).T
        jacobian[:, :, 0] = points @ ((roll @ pitch @ d_yaw)[:2] * flip).T
        jacobian[:, :, 1] = points @ ((roll @ d_pitch @ yaw)[:2] * flip).T
        jacobian[:, :, 2] = points @ ((d_roll @ pitch @ yaw)[:2] * flip).T
        jacobian[:, :, 3] = turned
        jacobian[:, 0, 4] = 1
        jacobian[:, 1, 5] = 1
        return turned + self.translation, jacobian

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The linear part of the projection to the image plane, (2, 3) in pixels per cm."""
        return self.rotation[:2] * np.array([[self.scale], [-self.scale]])


def _factors(yaw: float, pitch: float, roll: float) -> tuple[NDArray, NDArray, NDArray]:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    return (
        np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1.0]]),
        np.array([[1.0, 0, 0], [0, cp, sp], [0, -sp, cp]]),
        np.array([[cy, 0, sy], [0, 1.0, 0], [-sy, 0, cy]]),
    )


def _factor_derivatives(yaw: float, pitch: float, roll: float) -> tuple[NDArray, NDArray, NDArray]:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    return (
        np.array([[-sr, cr, 0], [-cr, -sr, 0], [0, 0, 0.0]]),
        np.array([[0.0, 0, 0], [0, -sp, cp], [0, -cp, -sp]]),
        np.array([[-sy, 0, cy], [0, 0.0, 0], [-cy, 0, -sy]]),
    )
