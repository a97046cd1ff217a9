"""The rasteriser against a slow reference, and what it promises about windows, facing and interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool_blendshape import raster


def slow_reference(vertices: NDArray, triangles: NDArray, shape: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """Depth and triangle index by testing every pixel against every triangle, with numpy alone."""
    depth = np.full(shape, raster.FAR, np.float64)
    seen = np.full(shape, -1)
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]]
    for number, corners in enumerate(triangles):
        (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = vertices[corners]
        matrix = np.array([[x1 - x0, x2 - x0], [y1 - y0, y2 - y0]])
        if np.linalg.det(matrix) > -1e-9:
            continue
        inverse = np.linalg.inv(matrix)
        p = inverse[0, 0] * (xs - x0) + inverse[0, 1] * (ys - y0)
        q = inverse[1, 0] * (xs - x0) + inverse[1, 1] * (ys - y0)
        z = z0 * (1 - p - q) + z1 * p + z2 * q
        closer = (p >= -1e-7) & (q >= -1e-7) & (p + q <= 1 + 1e-7) & (z > depth)
        depth[closer], seen[closer] = z[closer], number
    return depth, seen


@pytest.fixture(scope="module")
def soup() -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Random triangles of all sizes, both facings, some partly outside the picture."""
    rng = np.random.default_rng(5)
    centres = rng.uniform([-5, -5, 0], [65, 45, 30], (80, 1, 3))
    vertices = (centres + rng.normal(0, 6, (80, 3, 3))).reshape(-1, 3)
    return vertices, np.arange(240, dtype=np.int32).reshape(80, 3)


def test_equals_slow_reference(soup):
    vertices, triangles = soup
    drawn = raster.blank((40, 60))
    raster.draw(drawn, vertices, triangles)
    depth, seen = slow_reference(vertices, triangles, (40, 60))
    assert (drawn.triangle >= 0).mean() > 0.25
    np.testing.assert_array_equal(drawn.triangle, seen)
    np.testing.assert_allclose(drawn.depth, depth, rtol=1e-5, atol=1e-4)


def test_backs_are_not_drawn():
    vertices = np.array([[2.0, 2, 0], [2, 12, 0], [12, 2, 0]])
    front, back = raster.blank((16, 16)), raster.blank((16, 16))
    raster.draw(front, vertices, np.array([[0, 1, 2]], np.int32))
    raster.draw(back, vertices, np.array([[0, 2, 1]], np.int32))
    assert (front.triangle >= 0).sum() == 66  # rows of 11, 10, ... 1 pixels
    assert (back.triangle >= 0).sum() == 0


def test_interpolates_linearly(soup):
    vertices, triangles = soup
    drawn = raster.blank((40, 60))
    raster.draw(drawn, vertices, triangles)
    values = raster.interpolate(drawn, triangles, np.c_[vertices, np.ones(len(vertices))])
    ys, xs = np.mgrid[0:40, 0:60]
    seen = drawn.triangle >= 0
    np.testing.assert_allclose(values[seen][:, 0], xs[seen], atol=2e-3)
    np.testing.assert_allclose(values[seen][:, 1], ys[seen], atol=2e-3)
    np.testing.assert_allclose(values[seen][:, 2], drawn.depth[seen], atol=2e-3)
    np.testing.assert_allclose(values[seen][:, 3], 1, atol=1e-5)
    assert not values[~seen].any()


def test_normals_point_out_of_a_sphere():
    rows, columns = 16, 24
    theta = np.linspace(0.3, np.pi - 0.3, rows)[:, None]
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    y = np.broadcast_to(np.cos(theta), (rows, columns))
    points = np.stack([np.sin(theta) * np.sin(phi), y, np.sin(theta) * np.cos(phi)], -1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b = index[:-1], np.roll(index, -1, 1)[:-1]
    c, d = index[1:], np.roll(index, -1, 1)[1:]
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    normals = raster.vertex_normals(points, triangles.astype(np.int32))
    inner = index[2:-2].ravel()
    assert ((normals * points).sum(1)[inner] > 0.98).all()


def test_every_second_pixel(soup):
    vertices, triangles = soup
    drawn = raster.blank((41, 60))
    raster.draw(drawn, vertices, triangles)
    half = drawn.every(2)
    assert half.shape == (21, 30)
    np.testing.assert_array_equal(half.triangle, drawn.triangle[::2, ::2])
