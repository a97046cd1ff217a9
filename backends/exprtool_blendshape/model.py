"""The morphable face model: neutral head, identity and expression shapes, and the names of its parts.

Conventions
-----------
* Model space is in centimetres: x to the person's left (the right of an upright photo), y up, z towards the viewer.
* A *control* is one expression shape, named as in ARKit with the side spelled out (``mouthSmileLeft``). Shapes that
  ICT-FaceKit splits and ARKit does not (``browInnerUp``, ``cheekPuff``) exist as two halves; the whole name, like the
  stem of any other pair (``mouthSmile``), stands for both.
* Shapes are linear: a mesh is ``vertices + sum(identity) + sum(expression)``, all (V, 3).

Source: R. Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020 (ICT-FaceKit, light model).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.names import CONTROLS, SHAPES, expand
from exprtool.errors import ModelError
from exprtool.pixels.ramps import Ramp
from exprtool_blendshape.weights import FACE_MODEL


class Region(IntEnum):
    """Parts of the mesh, in the order of upstream's polygon table."""

    FACE = 0
    HEAD = 1
    SOCKET = 2
    """The inside of the mouth and of the nostrils."""
    EYE_SOCKET_LEFT = 3
    EYE_SOCKET_RIGHT = 4
    GUMS = 5
    """Gums and tongue."""
    TEETH = 6
    EYE_LEFT = 7
    EYE_RIGHT = 8
    LACRIMAL_LEFT = 9
    LACRIMAL_RIGHT = 10
    BLEND_LEFT = 11
    BLEND_RIGHT = 12
    OCCLUSION_LEFT = 13
    OCCLUSION_RIGHT = 14
    LASHES_LEFT = 15
    LASHES_RIGHT = 16


# First polygon of each region after the first, and the end of the narrow face (upstream's README).
_REGION_STARTS = (9230, 11144, 13226, 13630, 14034, 17006, 21496, 23094, 24692, 24855, 25018, 25033, 25048, 25176,
                  25304, 25844)  # fmt: skip
_NARROW_FACE_END = 6560
FACE_VERTICES = 9409
"""Vertices [0, FACE_VERTICES) are the skin of the face."""
SOCKET_VERTICES = (11248, 13294)
GUMS_AND_TEETH_VERTICES = (14062, 21451)
UPPER_INCISOR_VERTICES = (18067, 18219)

LANDMARK_VERTICES = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443,
    268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509,
    978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360,
    1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732,
    5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841,
    5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
"""The vertex under each of the 68 iBUG/Multi-PIE landmarks of a frontal head (upstream's README)."""
CONTOUR_RIGHT = (1280, 1278, 1275, 1272, 1248, 12, 820, 1834, 1902, 243, 844, 781, 1673, 2199, 801, 1447, 800)
CONTOUR_LEFT = (3041, 3661, 3042, 4390, 3880, 3022, 3085, 2484, 4102, 4036, 3061, 2253, 3466, 3490, 3493, 3496, 3498)
"""Vertices along which landmarks 0-7 and 9-16 slide when the head turns."""

LIP_OVERLAP = 0.03
"""How far (cm) each closed lip reaches past the seam, so that no sliver of the socket shows between them."""


@dataclass(frozen=True, eq=False)
class FaceModel:
    """The model's arrays. V = 26719 vertices, T triangles, K controls.

    ``vertices`` (V, 3) float64, the mean neutral head with its lips closed (`_closed_lips`); ``triangles`` (T, 3)
    int32, counter-clockwise seen from outside; ``region`` (T,) int8 values of `Region`; ``narrow_face`` (T,) bool, the
    skin in front of the ears; ``identity`` (60, V, 3) float32 for coefficients of unit variance; ``expression``
    (K, V, 3) float32 for weights of about 0 to 1, in the order of ``controls``. ``lip_gap`` (V, 3) float64 is what
    was added to upstream's neutral to close its lips.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    region: NDArray[np.int8]
    narrow_face: NDArray[np.bool_]
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    upper_lip: NDArray[np.bool_]
    lower_lip: NDArray[np.bool_]
    lip_gap: NDArray[np.float64]
    controls: tuple[str, ...] = CONTROLS

    @cached_property
    def index(self) -> dict[str, int]:
        """Row of ``expression`` by control name."""
        return {name: row for row, name in enumerate(self.controls)}

    @cached_property
    def landmarks(self) -> NDArray[np.int32]:
        """Vertex of each of the 68 landmarks of a frontal head, (68,)."""
        return np.array(LANDMARK_VERTICES, dtype=np.int32)

    @cached_property
    def template(self) -> NDArray[np.float32]:
        """Coordinates (V, 2) in which marks on the skin (wrinkles, masks) are laid out: x, y of the neutral, in cm."""
        return np.ascontiguousarray(self.vertices[:, :2], dtype=np.float32)

    def expand(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Weights by canonical control names; see `exprtool.anatomy.names.expand`."""
        return expand(weights)

    def offsets(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        """What the expression adds to the neutral, (V, 3) cm. Takes stems (``mouthSmile``) as well as controls."""
        moved = np.zeros(self.vertices.shape, dtype=np.float32)
        for name, amount in expand(weights).items():
            if amount:
                moved += np.float32(amount) * self.expression[self.index[name]]
        return moved

    def offsets_at(self, weights: Mapping[str, float], vertices: NDArray[np.integer]) -> NDArray[np.float64]:
        """`offsets` at some vertices (n,) alone, (n, 3) cm, float64."""
        moved = np.zeros((len(vertices), 3))
        for name, amount in expand(weights).items():
            moved += amount * self.expression[self.index[name], vertices].astype(np.float64)
        return moved


@lru_cache(maxsize=1)
def face_model() -> FaceModel:
    """The model from the cache of weights; raises `ModelError` with the remedy where it is not there."""
    from exprtool.weights.catalogue import weight_path

    return load_face_model(weight_path(FACE_MODEL))


@lru_cache(maxsize=2)
def load_face_model(path: Path) -> FaceModel:
    """Read a packed model file (see `exprtool_blendshape.weights`)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            vertices = file["vertices"].astype(np.float64)
            quads = file["quads"]
            identity = file["identity"].astype(np.float32)
            shapes = file["expression"].astype(np.float32)
            names = [str(name) for name in file["expression_names"]]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is not a readable face model ({error}). Run `exprtool models fetch {FACE_MODEL.name}` again."
        ) from error
    missing = sorted(set(SHAPES) - set(names))
    if missing:
        raise ModelError(
            f"{path} lacks the shapes {', '.join(missing)}. Run `exprtool models fetch {FACE_MODEL.name}` again."
        )
    own = {"corrugatorLeft": _corrugator(vertices, 1.0), "corrugatorRight": _corrugator(vertices, -1.0)}
    upstream = {control: shapes[names.index(shape)] for shape, control in SHAPES.items()}
    expression = np.stack([upstream[name] if name in upstream else own[name] for name in CONTROLS])
    triangles, polygon = _triangulate(quads)
    upper, lower, closing = _closed_lips(vertices, upstream["jawOpen"].astype(np.float64))
    return FaceModel(
        vertices=vertices + closing,
        triangles=triangles,
        region=np.searchsorted(np.array(_REGION_STARTS), polygon, side="right").astype(np.int8),
        narrow_face=polygon < _NARROW_FACE_END,
        identity=identity,
        expression=np.ascontiguousarray(expression),
        upper_lip=upper,
        lower_lip=lower,
        lip_gap=closing,
    )


def _triangulate(quads: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Triangles (T, 3) and the polygon each came from (T,). A triangle is a quad that ends in a repetition."""
    real = quads[:, 2] != quads[:, 3]
    polygon = np.repeat(np.arange(len(quads)), np.where(real, 2, 1))
    second = np.r_[False, polygon[1:] == polygon[:-1]]
    triangles = np.where(second[:, None], quads[polygon][:, [0, 2, 3]], quads[polygon][:, [0, 1, 2]])
    return np.ascontiguousarray(triangles, dtype=np.int32), polygon


def _corrugator(vertices: NDArray[np.float64], side: float) -> NDArray[np.float32]:
    """The frown muscle that ICT-FaceKit lacks: the inner end of one brow goes down and towards the other.

    ICT's browDown lowers the brow as a whole. ``side`` is 1 for the person's left. Fades out above the eyelid, so that
    a frown does not close the eye.
    """
    x, y, z = vertices.T
    amount = np.exp(-(((x - side * 1.15) / 1.15) ** 2) - ((y - 5.75) / 1.0) ** 2)
    amount *= 1 / (1 + np.exp(-(y - 4.5) / 0.18))
    amount *= (z > 8) & (np.arange(len(vertices)) < FACE_VERTICES)
    return np.stack([-side * 0.16 * amount, -0.50 * amount, 0.10 * amount], 1).astype(np.float32)


def _closed_lips(
    vertices: NDArray[np.float64], jaw_open: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Which vertices are upper and lower lip (V,), and the offset (V, 3) that closes upstream's parted lips.

    Upstream's neutral leaves a gap of about 0.1 cm. Upper and lower are told apart by how far opening the jaw takes
    them, with a threshold per column because towards the corners of the mouth both move alike.
    """
    x, y, z = vertices.T
    marks = np.array(LANDMARK_VERTICES)
    corners = vertices[marks[[48, 54]]]
    upper_edge = vertices[marks[[48, 60, 61, 62, 63, 64, 54]]]
    lower_edge = vertices[marks[[48, 60, 67, 66, 65, 64, 54]]]
    upper_y = np.interp(x, upper_edge[:, 0], upper_edge[:, 1])
    lower_y = np.interp(x, lower_edge[:, 0], lower_edge[:, 1])
    seam = (upper_y + lower_y) / 2
    along = (x - corners[0, 0]) / (corners[1, 0] - corners[0, 0])
    number = np.arange(len(vertices))
    soft = (number < FACE_VERTICES) | ((number >= SOCKET_VERTICES[0]) & (number < SOCKET_VERTICES[1]))
    near = soft & (along > -0.01) & (along < 1.01) & (abs(y - seam) < 1.3) & (z > corners[0, 2] - 1.2)
    column = np.clip((along * 24).astype(int), 0, 23)
    dropped = -jaw_open[:, 1]
    threshold = np.full(24, np.inf)
    for i in range(24):
        here = dropped[near & (column == i)]
        if len(here):
            threshold[i] = (np.percentile(here, 95) + np.percentile(here, 5)) / 2
    lower = near & (dropped > threshold[column])
    upper = near & ~lower
    taper = Ramp(0, 0.12)(along) * (1 - Ramp(0.88, 1)(along))
    weight = taper * np.exp(-(((y - seam) / 0.45) ** 2))
    closing = np.zeros_like(vertices)
    closing[upper, 1] = ((seam - LIP_OVERLAP - upper_y) * weight)[upper]
    closing[lower, 1] = ((seam + LIP_OVERLAP - lower_y) * weight)[lower]
    return upper, lower, closing
