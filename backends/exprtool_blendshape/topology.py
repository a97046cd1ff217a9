"""Parts of the face model that drawing needs, found once per model: what is drawn, what carries skin, where lips are.

All of it is in template coordinates (cm on the model's neutral head), so nothing here depends on a photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid
from exprtool_blendshape.model import FaceModel, Region
from exprtool_blendshape.raster import vertex_normals

SKIN, MOUTH, EYE_LEFT, EYE_RIGHT = range(4)
"""Labels of what is drawn (`Topology.label`). An eye is eyeball and eye socket together."""

_FRONT_FACING = 0.18
"""Least z of a template normal for skin that moves photo pixels; beyond it (neck, jaw underside) flow is extended."""


@dataclass(frozen=True, eq=False)
class Topology:
    """``triangles`` (n, 3) of skin, sockets and eyeballs: what lies in the mouth is painted, not drawn.

    ``label`` (n,) int8; ``front`` (V,) float32 is 1 on skin that drives the warp; ``lip`` (V,) int8 is 1 on the upper
    and -1 on the lower lip and its inside, else 0.
    """

    triangles: NDArray[np.int32]
    label: NDArray[np.int8]
    front: Grid
    lip: NDArray[np.int8]
    template: Grid
    edge_upper: NDArray[np.int64]
    """Vertices along the lower rim of the upper lip, from the person's right corner of the mouth to the left one."""
    edge_lower: NDArray[np.int64]


@lru_cache(maxsize=2)
def topology_of(model: FaceModel) -> Topology:
    """The parts of one model; computed at the first call and kept."""
    region = model.region.astype(int)
    label = np.full(len(region), -1, np.int8)
    label[(region == Region.FACE) & model.narrow_face] = SKIN
    label[region == Region.SOCKET] = MOUTH
    label[np.isin(region, (Region.EYE_SOCKET_LEFT, Region.EYE_LEFT))] = EYE_LEFT
    label[np.isin(region, (Region.EYE_SOCKET_RIGHT, Region.EYE_RIGHT))] = EYE_RIGHT
    drawn = np.flatnonzero(label >= 0)

    lip = np.zeros(len(model.vertices), np.int8)
    lip[model.upper_lip] = 1
    lip[model.lower_lip] = -1
    return Topology(
        triangles=np.ascontiguousarray(model.triangles[drawn]),
        label=np.ascontiguousarray(label[drawn]),
        front=_front(model),
        lip=lip,
        template=model.template,
        edge_upper=_chain(model, model.landmarks[[48, 60, 61, 62, 63, 64, 54]]),
        edge_lower=_chain(model, model.landmarks[[48, 60, 67, 66, 65, 64, 54]]),
    )


def _front(model: FaceModel) -> Grid:
    """1 on the connected patch of skin around the nose tip that faces the viewer of a frontal head."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    faces = model.triangles[model.narrow_face & (model.region == Region.FACE)]
    normal = vertex_normals(model.vertices, model.triangles[model.region <= Region.HEAD])
    on_face = np.zeros(len(model.vertices), np.bool_)
    on_face[faces.ravel()] = True
    facing = on_face & (normal[:, 2] > _FRONT_FACING)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = edges[facing[edges[:, 0]] & facing[edges[:, 1]]]
    size = len(model.vertices)
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(size, size))
    _, part = connected_components(graph, directed=False)
    nose_tip = model.landmarks[30]
    return (part == part[nose_tip]).astype(np.float32)


def _chain(model: FaceModel, stations: NDArray[np.int32]) -> NDArray[np.int64]:
    """The shortest path over edges of the face through the given vertices, in order."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    faces = model.triangles[model.narrow_face & (model.region == Region.FACE)]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    length = np.linalg.norm(model.vertices[edges[:, 0]] - model.vertices[edges[:, 1]], axis=1)
    size = len(model.vertices)
    graph = coo_matrix((length, (edges[:, 0], edges[:, 1])), shape=(size, size)).tocsr()
    path = [int(stations[0])]
    for start, end in pairwise(stations):
        _, before = dijkstra(graph, directed=False, indices=int(start), return_predecessors=True, limit=3.0)
        leg = [int(end)]
        while leg[-1] != start:
            leg.append(int(before[leg[-1]]))
        path += leg[-2::-1]
    return np.array(path)
