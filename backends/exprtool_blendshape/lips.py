"""Lips that meet, part, and never show teeth where lip should be.

Three things a linear face model cannot do by itself:

* its lips lie near the photo's lips, not on them: `on_photo` moves the rims onto the curves that were found there;
* added up, shapes that should close a mouth leave a slit or overshoot: `settled` gives the wanted opening, in
  proportion to what the model opens or closes;
* the inner side of a lip, hidden in the photo, rolls out when the mouth opens or closes over what was open: `texture`
  mirrors it about the rim, so that it shows lip, and never teeth or the dark of the mouth.

Conventions: work coordinates (see `frame`), in which the mouth runs along x; y grows downwards. A curve is (x, y) with
x increasing from the person's right corner of the mouth to the left one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exprtool.pixels.ramps import Ramp
from exprtool_blendshape.topology import Topology

OVERLAP = 0.03
"""How far (cm) closed lips reach past the seam, so that no sliver of the mouth shows."""
REACH = 0.45
"""Standard range (cm) over which moving a rim takes the lip along."""
_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class LipCurves:
    """The rims of the lips on the working grid: y of the upper lip's lower rim and the lower lip's upper rim at x
    (n,)."""

    x: NDArray[np.float64]
    upper: NDArray[np.float64]
    lower: NDArray[np.float64]

    @property
    def gap(self) -> NDArray[np.float64]:
        return self.lower - self.upper

    def along(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 at the right corner, 1 at the left one."""
        return (x - self.x[0]) / (self.x[-1] - self.x[0])

    def at(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.interp(x, self.x, self.upper), np.interp(x, self.x, self.lower)


def curves(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> LipCurves:
    """Resample two rims (n, 2), (m, 2) in work coordinates at common x."""
    low = max(upper[:, 0].min(), lower[:, 0].min())
    high = min(upper[:, 0].max(), lower[:, 0].max())
    x = np.linspace(low, high, _SAMPLES)

    def sampled(points: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(points[:, 0], kind="stable")
        return np.interp(x, points[order, 0], points[order, 1])

    return LipCurves(x, sampled(upper), sampled(lower))


def mesh_curves(vertices: NDArray[np.float64], topology: Topology) -> LipCurves:
    """The rims of the mesh, vertices (V, 3) in work coordinates."""
    return curves(vertices[topology.edge_upper, :2], vertices[topology.edge_lower, :2])


def _moved(
    vertices: NDArray[np.float64],
    topology: Topology,
    mesh: LipCurves,
    up: NDArray[np.float64],
    down: NDArray[np.float64],
    u: float,
) -> NDArray[np.float64]:
    """Vertices whose upper rim is moved by ``up`` and lower rim by ``down`` (y, at mesh.x), the lips following."""
    moved = vertices.copy()
    for sign, rim, shift in ((1, mesh.upper, up), (-1, mesh.lower, down)):
        part = np.flatnonzero(topology.lip == sign)
        x, y = vertices[part, 0], vertices[part, 1]
        along = mesh.along(x)
        weight = np.exp(-(((y - np.interp(x, mesh.x, rim)) / (REACH * u)) ** 2)) * _taper(along)
        moved[part, 1] += np.interp(x, mesh.x, shift) * weight
    return moved


def _taper(along: NDArray[np.float64]) -> NDArray[np.float64]:
    return Ramp(0.0, 0.10)(along) * (1 - Ramp(0.90, 1.0)(along))


def on_photo(vertices: NDArray[np.float64], topology: Topology, photo: LipCurves, u: float) -> NDArray[np.float64]:
    """Offset (V, 3) that takes the mesh's rims onto the photo's; closed lips overlap by `OVERLAP`."""
    mesh = mesh_curves(vertices, topology)
    upper, lower = photo.at(mesh.x)
    closed = lower - upper < OVERLAP * u
    overlap = np.where(closed, OVERLAP * u, 0.0)
    return _moved(vertices, topology, mesh, upper + overlap - mesh.upper, lower - overlap - mesh.lower, u) - vertices


SLIT = 0.05
"""Openings (cm) below this are closed: frowns and presses leave slits in the model that lips do not."""

PARTED = 0.09
"""Mean opening (cm) from which on a mouth is not closed: pressed lips gape at their sides in the model."""


def wanted_gap(
    photo: LipCurves, source: LipCurves, target: LipCurves, taken_off: float, u: float
) -> NDArray[np.float64]:
    """The opening (y) of the mouth after the edit, evenly from corner to corner; negative where closed lips overlap.

    ``photo`` is the opening that is there, ``source`` and ``target`` the model's before and after. What the model does
    not explain of the photo's opening stays as far as the worn expression does: ``taken_off`` in [0, 1] is how much of
    it the edit removes.
    """
    share = np.linspace(0, 1, _SAMPLES)

    def opening(lips: LipCurves) -> NDArray[np.float64]:
        return np.maximum(np.interp(share, lips.along(lips.x), lips.gap) - SLIT * u, 0)

    own = np.maximum(np.interp(share, photo.along(photo.x), photo.gap), 0)
    gap = opening(target) + (own - opening(source)) * (1 - min(1.0, taken_off))
    shut = np.full_like(gap, -2 * OVERLAP * u)
    parted = gap[_SAMPLES // 5 : -(_SAMPLES // 5)].mean() > PARTED * u
    settled_gap = np.where(gap < 0.06 * u, shut, gap) if parted else shut
    # what hardly moves is left as it is
    gap = np.where((gap < OVERLAP * u) & (own < OVERLAP * u), shut, gap)
    return gap + (settled_gap - gap) * Ramp(0.0, 0.1)(np.abs(np.maximum(gap, 0) - own).max() / u)


def settled(
    vertices: NDArray[np.float64], topology: Topology, gap: NDArray[np.float64], u: float
) -> NDArray[np.float64]:
    """Vertices with the mouth opened or closed to ``gap`` (y, at the mesh's own curve positions), both lips sharing."""
    mesh = mesh_curves(vertices, topology)
    half = (mesh.gap - gap) / 2
    return _moved(vertices, topology, mesh, half, -half, u)


def texture(
    vertices: NDArray[np.float64], topology: Topology, photo: LipCurves, u: float, pixel: float = 1.0
) -> NDArray[np.float64]:
    """Where in the photo each vertex (V, 3) of the source mesh takes its colour: (V, 2) work coordinates.

    ``pixel`` is the size of the photo's own pixel on the working grid: over that much teeth spill into the lips.
    """
    source = vertices[:, :2].copy()
    margin = np.where(photo.gap > 0.05 * u, max(0.09 * u, 1.3 * pixel), 0.012 * u)
    for sign, rim in ((1, photo.upper), (-1, photo.lower)):
        part = np.flatnonzero(topology.lip == sign)
        x, y = vertices[part, 0], vertices[part, 1]
        edge = np.interp(x, photo.x, rim)
        away = np.abs(y - edge)
        keep = np.interp(x, photo.x, margin) * np.exp(-((away / max(0.2 * u, 2.2 * margin.max())) ** 2))
        mirrored = edge - sign * (away + keep)
        weight = _taper(photo.along(x)) * (1 - Ramp(0.5 * u, 0.9 * u)(away))
        source[part, 1] = y * (1 - weight) + mirrored * weight
    return source
