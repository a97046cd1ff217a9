"""A smooth offset for every vertex from what landmarks are off by: a thin-plate spline over the template.

The spline lives on the template and not in the image, so that a head turned aside does not mix the nose with the cheek
that it hides. The template is taken with a half open jaw: there the lips are apart, and upper and lower lip move on
their own. Because it does not depend on the photo, its kernel is computed once; a fit solves a small system and
multiplies.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exprtool.pixels.ramps import Ramp
from exprtool_blendshape.model import CONTOUR_LEFT, CONTOUR_RIGHT, LANDMARK_VERTICES, FaceModel

_SMOOTHING = 0.02
_RING = (14.0, 17.0)
"""Half axes (cm) of the ellipse on which the offset is zero."""
_RING_POINTS = 24


class TemplateSpline:
    """Spreads offsets of landmark vertices over the whole mesh."""

    def __init__(self, model: FaceModel) -> None:
        half_open = model.vertices + 0.5 * model.expression[model.index["jawOpen"]].astype(np.float64)
        self._flat = half_open[:, :2]
        self._anchors = sorted({*LANDMARK_VERTICES, *CONTOUR_RIGHT, *CONTOUR_LEFT})
        self._centre = self._flat[list(LANDMARK_VERTICES[27:48])].mean(0)
        angle = np.linspace(0, 2 * np.pi, _RING_POINTS, endpoint=False)
        self._ring = self._centre + np.stack([np.cos(angle) * _RING[0], np.sin(angle) * _RING[1]], 1)
        distance = np.hypot(*((self._flat - self._centre) / _RING).T)
        self._fade = (1 - Ramp(0.75, 1.0)(distance))[:, None]

    @cached_property
    def _kernel(self) -> NDArray[np.float32]:
        """Spline kernel between every vertex and every possible knot, (V, anchors + ring)."""
        knots = np.concatenate([self._flat[self._anchors], self._ring])
        return _thin_plate(self._flat.astype(np.float32), knots.astype(np.float32))

    def spread(self, vertices: NDArray[np.integer], offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Offsets (n, d) known at ``vertices`` (n,), spread to all, (V, d); any unit.

        Every vertex must be one of the landmarks or of the sliding contours.
        """
        knots = np.concatenate([self._flat[vertices], self._ring])
        values = np.concatenate([offsets, np.zeros((_RING_POINTS, offsets.shape[1]))])
        n = len(knots)
        system = np.zeros((n + 3, n + 3))
        system[:n, :n] = _thin_plate(knots, knots) + _SMOOTHING * np.eye(n)
        system[:n, n] = system[n, :n] = 1
        system[:n, n + 1 :] = knots
        system[n + 1 :, :n] = knots.T
        right = np.concatenate([values, np.zeros((3, offsets.shape[1]))])
        solved = np.linalg.solve(system, right)
        columns = [self._anchors.index(int(v)) for v in vertices]
        columns += [len(self._anchors) + i for i in range(_RING_POINTS)]
        spread = self._kernel[:, columns] @ solved[:n].astype(np.float32)
        spread = spread + solved[n] + self._flat @ solved[n + 1 :]
        return spread * self._fade


def _thin_plate(points: NDArray, knots: NDArray) -> NDArray:
    """r^2 log r between points (n, 2) and knots (m, 2)."""
    squared = ((points[:, None, :] - knots[None, :, :]) ** 2).sum(-1)
    return 0.5 * squared * np.log(np.maximum(squared, 1e-12))
