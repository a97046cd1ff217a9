"""Which triangle is seen at each pixel, and attributes interpolated over it.

Conventions
-----------
* Vertices are (x, y, z) in pixels of the raster: x to the right, y down, z towards the viewer, so the larger z wins.
  Pixel (i, j) of the raster is the point (x=j, y=i): pixel centres lie on whole numbers.
* The projection is parallel; barycentric coordinates need no perspective correction.
* Triangles that turn their back to the viewer are not drawn. The model's triangles are counter-clockwise seen from
  outside with y up, hence clockwise (negative cross product) with y down.
* ``triangle`` holds the index of the triangle seen, -1 where none is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid

FAR = np.float32(-1e9)


@dataclass(frozen=True, eq=False)
class Raster:
    """What is seen: depth (H, W) float32, triangle (H, W) int32, weights (H, W, 2) of the 2nd and 3rd corner."""

    depth: Grid
    triangle: NDArray[np.int32]
    weights: Grid

    @property
    def shape(self) -> tuple[int, int]:
        return self.depth.shape[0], self.depth.shape[1]

    def labels(self, triangle_labels: NDArray[np.int8]) -> NDArray[np.int8]:
        """The label of the triangle at each pixel, -1 where there is none."""
        return np.append(triangle_labels, np.int8(-1))[self.triangle]  # no triangle is -1, the last place

    def every(self, step: int) -> Raster:
        """Every ``step``-th pixel of it."""
        if step == 1:
            return self
        return Raster(
            np.ascontiguousarray(self.depth[::step, ::step]),
            np.ascontiguousarray(self.triangle[::step, ::step]),
            np.ascontiguousarray(self.weights[::step, ::step]),
        )


def blank(shape: tuple[int, int]) -> Raster:
    """A raster of (h, w) pixels on which nothing is seen yet."""
    return Raster(np.full(shape, FAR, np.float32), np.full(shape, -1, np.int32), np.zeros((*shape, 2), np.float32))


def draw(raster: Raster, vertices: NDArray[np.float64], triangles: NDArray[np.int32]) -> None:
    """Draw triangles (n, 3) into the raster, nearer ones over farther ones."""
    v = np.ascontiguousarray(vertices, dtype=np.float64)
    _draw(v, triangles, raster.depth, raster.triangle, raster.weights)


@njit(cache=True)
def _draw(v, triangles, depth, seen, weights):  # pragma: no cover - compiled
    height, width = depth.shape
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, x1, y1, x2, y2 = v[a, 0], v[a, 1], v[b, 0], v[b, 1], v[c, 0], v[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area > -1e-9:
            continue
        top = max(0, int(np.ceil(min(y0, y1, y2))))
        bottom = min(height - 1, int(np.floor(max(y0, y1, y2))))
        left = max(0, int(np.ceil(min(x0, x1, x2))))
        right = min(width - 1, int(np.floor(max(x0, x1, x2))))
        if left > right or top > bottom:
            continue
        z0, z1, z2 = v[a, 2], v[b, 2], v[c, 2]
        inverse = 1.0 / area
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                p = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) * inverse
                q = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) * inverse
                if p < -1e-7 or q < -1e-7 or p + q > 1 + 1e-7:
                    continue
                z = np.float32(z0 * (1 - p - q) + z1 * p + z2 * q)
                if z > depth[y, x]:
                    depth[y, x] = z
                    seen[y, x] = t
                    weights[y, x, 0] = p
                    weights[y, x, 1] = q


def interpolate(raster: Raster, triangles: NDArray[np.int32], attributes: Grid) -> Grid:
    """Attributes (V, K) of the vertices at each pixel, shape (H, W, K); 0 where nothing is seen."""
    values = np.ascontiguousarray(attributes, dtype=np.float32)
    out = np.zeros((*raster.shape, values.shape[1]), np.float32)
    _interpolate(triangles, raster.triangle, raster.weights, values, out)
    return out


@njit(cache=True, fastmath=True)
def _interpolate(triangles, seen, weights, values, out):  # pragma: no cover - compiled
    height, width = seen.shape
    for y in range(height):
        for x in range(width):
            t = seen[y, x]
            if t < 0:
                continue
            p, q = weights[y, x, 0], weights[y, x, 1]
            r = np.float32(1) - p - q
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            for k in range(values.shape[1]):
                out[y, x, k] = values[a, k] * r + values[b, k] * p + values[c, k] * q


def vertex_normals(vertices: NDArray[np.float64], triangles: NDArray[np.int32]) -> NDArray[np.float64]:
    """Unit normals (V, 3), area weighted, in the axes of the vertices; 0 for vertices of no triangle."""
    out = np.zeros((len(vertices), 3))
    _normals(np.ascontiguousarray(vertices, dtype=np.float64), triangles, out)
    return out


@njit(cache=True)
def _normals(v, triangles, out):  # pragma: no cover - compiled
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1], v[b, 2] - v[a, 2]
        wx, wy, wz = v[c, 0] - v[a, 0], v[c, 1] - v[a, 1], v[c, 2] - v[a, 2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for corner in (a, b, c):
            out[corner, 0] += nx
            out[corner, 1] += ny
            out[corner, 2] += nz
    for i in range(len(out)):
        size = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + 1e-12
        out[i, 0] /= size
        out[i, 1] /= size
        out[i, 2] /= size
