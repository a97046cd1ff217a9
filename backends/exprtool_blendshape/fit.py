"""Fit the face model to one face: camera, identity, and the expression that the face wears.

Method
------
68 landmarks are explained by a weak perspective camera, identity coefficients and expression weights together, by
Gauss-Newton steps on one quadratic with bounds. Identity has a normal prior; expression weights are >= 0 with a
quadratic and a linear penalty, so that what identity explains as well stays zero (a ridge alone lets neutral faces wear
small smiles, a tight one lets identity explain real ones). The landmarks of the jaw line slide along it. What remains
of the landmarks' residual is spread over the mesh as a smooth offset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.lipline import Lips, MouthFrame, find_lips, with_closed_lips
from exprtool.anatomy.names import mirrored
from exprtool.anatomy.visibility import Visibility, measure
from exprtool.errors import ExprtoolError
from exprtool.types import FaceRegion, Points
from exprtool_blendshape.camera import Camera
from exprtool_blendshape.model import CONTOUR_LEFT, CONTOUR_RIGHT, FaceModel, face_model
from exprtool_blendshape.points68 import landmark_shifts
from exprtool_blendshape.solve import bounded_minimum
from exprtool_blendshape.warp import TemplateSpline

IDENTITIES = 50
"""How many identity coefficients are fitted."""
_IDENTITY_SD = 0.7
"""Standard deviation of a coefficient; with the landmarks' definition accounted for, faces vary less than upstream's
unit variance."""
_LANDMARK_SD = 0.086
"""Standard deviation (cm) of a landmark of weight 1."""
_ITERATIONS = 9
_YAW_SD, _PITCH_SD = math.radians(30), math.radians(9)
_ESTABLISHED = 0.12
"""Weight from which on a control is taken to be there; see `_Prior`."""
_LEFT_RIGHT_SD = 0.2
"""Standard deviation of the difference between a left and a right control."""


@dataclass(frozen=True)
class _Prior:
    """Of an expression weight: standard deviation, cost, upper bound.

    The cost keeps what a neutral face has at zero. It is taken back as a weight grows beyond `_ESTABLISHED`, so that
    it takes little off a strong expression (E. Candes et al., "Enhancing sparsity by reweighted l1 minimization",
    2008). It is in units of the fit's energy per centimetre that the control moves the landmarks (root of their summed
    squares), so that one strong shape (jawOpen) is no cheaper than several weak ones that explain the same.
    """

    sd: float = 0.5
    cost: float = 11.0
    high: float = 1.2


_PRIORS: Mapping[str, _Prior] = {
    "browDown": _Prior(0.4, 9.0), "browInnerUp": _Prior(0.4, 9.0), "browOuterUp": _Prior(0.4, 9.0),
    "corrugator": _Prior(0.4, 9.0),
    "eyeBlink": _Prior(high=1.0), "eyeSquint": _Prior(), "eyeWide": _Prior(),
    "jawOpen": _Prior(sd=0.8, high=1.0), "jawLeft": _Prior(sd=0.15), "jawRight": _Prior(sd=0.15),
    "mouthDimple": _Prior(), "mouthFrown": _Prior(), "mouthFunnel": _Prior(cost=16.0), "mouthLeft": _Prior(sd=0.15),
    "mouthLowerDown": _Prior(), "mouthPress": _Prior(), "mouthPucker": _Prior(), "mouthRight": _Prior(sd=0.15),
    "mouthRollLower": _Prior(), "mouthRollUpper": _Prior(), "mouthShrugLower": _Prior(), "mouthShrugUpper": _Prior(),
    "mouthSmile": _Prior(sd=0.6, cost=0.9), "mouthStretch": _Prior(), "mouthUpperUp": _Prior(), "noseSneer": _Prior(),
}  # fmt: skip
"""Of the controls that landmarks can see. Tuned on 38 of the London Set's neutral and smiling pairs: neutral faces near
zero, the same identity from both photos, and a smile that, taken off, leaves the neutral face."""
_FOLLOWERS: Mapping[str, Mapping[str, float]] = {"mouthSmile": {"cheekSquint": 0.45}}
"""Controls that landmarks hardly see but that go with one they do see: a smile lifts the cheeks."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A face in the model's terms. Image coordinates are the region's.

    ``source`` holds the weight of every control that the face wears; what it lacks is 0. ``neutral`` (V, 3) is the
    identity's own mesh, ``offset`` (V, 3) what the landmarks add to it, both in cm in model space.
    ``landmark_vertices`` (68,) are the vertices under the landmarks, with the jaw line's where they slid to.
    ``visibility`` tells whether eyes and mouth can be seen; it is not measured in every frame of a track.
    ``residual`` is the root mean square distance in cm between the landmarks but for the jaw line's and the mesh before
    the offset.
    """

    model: FaceModel
    camera: Camera
    identity: NDArray[np.float64]
    source: dict[str, float]
    neutral: NDArray[np.float64]
    offset: NDArray[np.float64]
    landmarks: Points
    landmark_vertices: NDArray[np.int64]
    residual: float
    lips: Lips
    visibility: Visibility | None = None

    @property
    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch and roll in degrees; signs as in `Camera`."""
        return math.degrees(self.camera.yaw), math.degrees(self.camera.pitch), math.degrees(self.camera.roll)

    def mesh(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """The head with absolute ``weights`` in model space, (V, 3) cm, without the landmarks' offset."""
        return self.neutral + self.model.offsets(weights)

    def posed(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """The head with absolute ``weights`` in the image, (V, 3) pixels, with the landmarks' offset.

        With ``source`` it lies on the photo, but for the inner edges of the lips (see `exprtool_blendshape.lips`).
        """
        return self.camera.project(self.mesh(weights) + self.offset)


@dataclass(frozen=True, eq=False)
class TrackShape:
    """What stays the same along a track: identity coefficients, the neutral mesh (V, 3) and the landmarks' offset
    (V, 3) in cm."""

    identity: NDArray[np.float64]
    neutral: NDArray[np.float64]
    offset: NDArray[np.float64]


def fit_face(region: FaceRegion, track_state: TrackShape | None = None, model: FaceModel | None = None) -> Fit:
    """Fit one face. With ``track_state`` identity and offset are taken from it and only pose and expression fitted.

    Raises `ExprtoolError` where the face has no 68 landmarks.
    """
    model = model or face_model()
    if track_state is not None:
        fit, _ = _fit(region, model, track_state.identity, track_state)
        return fit
    fit, tangents = _fit(region, model)
    return replace(fit, offset=_landmark_offset(fit, tangents), visibility=measure(region.pixels, fit.landmarks))


def worn_by_landmarks(landmarks: Points, model: FaceModel | None = None) -> dict[str, float]:
    """What 68 landmarks (68, 2) alone say that a face wears, weights by control. Pixels, which `fit_face` looks at as
    well, only tell closed lips from lips a little open."""
    return _solve(landmarks, _basis(model or face_model())).weights


def _fit(
    region: FaceRegion,
    model: FaceModel,
    identity: NDArray[np.float64] | None = None,
    track: TrackShape | None = None,
) -> tuple[Fit, NDArray[np.float64]]:
    """A fit with the track's offset or none, and the tangents (68, 2) of the jaw line."""
    landmarks = region.landmarks68
    if landmarks is None:
        raise ExprtoolError(
            "The blendshape backend needs 68 landmarks, and this face has only five. "
            "Find faces with `exprtool.faces.find_faces`, which refines them."
        )
    basis = _basis(model)
    lips = find_lips(region.pixels, landmarks, _first_camera(landmarks, basis).scale, moving=track is not None)
    seen = landmarks if lips.open else with_closed_lips(landmarks, lips)
    solution = _solve(seen, basis, identity, None if track is None else track.offset)
    neutral = _neutral(model, solution.identity) if track is None else track.neutral
    fit = Fit(
        model=model,
        camera=solution.camera,
        identity=solution.identity,
        source=solution.weights,
        neutral=neutral,
        offset=np.zeros_like(neutral) if track is None else track.offset,
        landmarks=landmarks,
        landmark_vertices=solution.vertices,
        residual=solution.residual,
        lips=lips,
    )
    return fit, solution.tangents


def _neutral(model: FaceModel, identity: NDArray[np.float64]) -> NDArray[np.float64]:
    return model.vertices + np.tensordot(identity.astype(np.float32), model.identity[: len(identity)], 1)


def begin_track(samples: Sequence[FaceRegion], model: FaceModel | None = None) -> TrackShape | None:
    """Identity and offset over several frames of one person; None without a usable sample.

    Identity is the mean of the fits of the frames, the offset the mean of what is left over once they share it.
    """
    model = model or face_model()
    samples = [sample for sample in samples if sample.landmarks68 is not None]
    if not samples:
        return None
    identity = np.mean([_fit(sample, model)[0].identity for sample in samples], 0)
    shared = [_fit(sample, model, identity) for sample in samples]
    offset = np.mean([_landmark_offset(fit, tangents) for fit, tangents in shared], 0)
    return TrackShape(identity, shared[0][0].neutral, offset)


# --- landmarks -> camera, identity, expression


@dataclass(frozen=True, eq=False)
class _Basis:
    """The model at the vertices that landmarks can lie on (n of them), and the priors of the fitted controls."""

    rows: NDArray[np.int64]
    neutral: NDArray[np.float64]
    identity: NDArray[np.float64]
    expression: NDArray[np.float64]
    shapes: tuple[dict[str, float], ...]
    quadratic: NDArray[np.float64]
    linear: NDArray[np.float64]
    high: NDArray[np.float64]
    frontal: NDArray[np.int64]
    contours: tuple[tuple[range, NDArray[np.int64]], ...]

    def shaped(self, identity: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The vertices (n, 3) with identity coefficients and expression weights."""
        return self.neutral + np.tensordot(identity, self.identity, 1) + np.tensordot(weights, self.expression, 1)


@lru_cache(maxsize=2)
def _basis(model: FaceModel) -> _Basis:
    rows = np.unique([*model.landmarks, *CONTOUR_RIGHT, *CONTOUR_LEFT])
    place = {int(v): i for i, v in enumerate(rows)}
    controls: list[str] = []
    priors: list[_Prior] = []
    shapes: list[dict[str, float]] = []
    for stem, prior in _PRIORS.items():
        for name in model.expand({stem: 1.0}):
            controls.append(name)
            priors.append(prior)
            side = name[len(stem) :]
            shapes.append({name: 1.0} | {f"{other}{side}": w for other, w in _FOLLOWERS.get(stem, {}).items()})
    expression = np.stack([model.offsets_at(shape, rows) for shape in shapes])
    seen = [place[int(v)] for v in model.landmarks[17:]]
    motion = np.sqrt((expression[:, seen, :2] ** 2).sum((1, 2)))
    return _Basis(
        rows=rows,
        # landmarkers draw closed lips with the small gap of upstream's neutral
        neutral=(model.vertices - model.lip_gap)[rows],
        identity=model.identity[:IDENTITIES, rows].astype(np.float64),
        expression=expression,
        shapes=tuple(shapes),
        quadratic=np.diag([1 / p.sd**2 for p in priors]) + _left_right(controls),
        linear=np.array([p.cost for p in priors]) * motion,
        high=np.array([p.high for p in priors]),
        frontal=np.array([place[int(v)] for v in model.landmarks]),
        contours=(
            (range(0, 8), np.array([place[v] for v in CONTOUR_RIGHT])),
            (range(9, 17), np.array([place[v] for v in CONTOUR_LEFT])),
        ),
    )


def _left_right(controls: list[str]) -> NDArray[np.float64]:
    """The energy (k, k) that holds the two halves of a pair together."""
    energy = np.zeros((len(controls), len(controls)))
    for i, name in enumerate(controls):
        other = mirrored(name)
        if name.endswith("Left") and name not in ("jawLeft", "mouthLeft"):
            difference = np.zeros(len(controls))
            difference[[i, controls.index(other)]] = 1, -1
            energy += np.outer(difference, difference) / _LEFT_RIGHT_SD**2
    return energy


@dataclass(frozen=True, eq=False)
class _Solution:
    camera: Camera
    identity: NDArray[np.float64]
    weights: dict[str, float]
    vertices: NDArray[np.int64]
    residual: float
    tangents: NDArray[np.float64]


def _landmark_weights() -> NDArray[np.float64]:
    weights = np.ones(68)
    weights[0:17] = 0.15
    weights[17:27] = 0.8
    weights[36:60] = 1.2
    return weights


def _solve(
    landmarks: Points,
    basis: _Basis,
    identity: NDArray[np.float64] | None = None,
    offset: NDArray[np.float64] | None = None,
) -> _Solution:
    """Explain landmarks (68, 2). ``identity`` and ``offset`` (V, 3) are given where they are known from a track."""
    free_identity = identity is None
    coefficients = np.zeros(IDENTITIES) if identity is None else identity.copy()
    weights = np.zeros(len(basis.shapes))
    places = basis.frontal.copy()
    camera = _first_camera(landmarks, basis)
    tangents = _jaw_tangents(landmarks)
    # with its offset the mesh lies on the landmarks wherever they are matters of edges (`_surface_shifts`)
    known = 0.0 if offset is None else offset[basis.rows]
    shifts = landmark_shifts() if offset is None else _surface_shifts()
    # where identity is known nothing competes with expression, and a cost would only make it jump from frame to frame
    cost = basis.linear if free_identity else np.zeros_like(basis.linear)
    # the jaw line is where the silhouette is: along it a landmark says little
    filters = np.repeat(np.eye(2)[None], 68, 0)
    filters[:17] -= 0.8 * tangents[:17, :, None] * tangents[:17, None, :]
    filters *= _landmark_weights()[:, None, None]
    n = IDENTITIES if free_identity else 0
    k = len(basis.shapes)
    for iteration in range(_ITERATIONS):
        shape = basis.shaped(coefficients, weights) + known
        if iteration:
            places = _slid(landmarks, camera, shape, basis, places)
        points, by_pose = camera.derivatives(shape[places] + shifts)
        matrix = camera.matrix
        by_shape = [np.einsum("ab,knb->nak", matrix, basis.expression[:, places])]
        if free_identity:
            by_shape.insert(0, np.einsum("ab,knb->nak", matrix, basis.identity[:, places]))
        jacobian = np.concatenate([by_pose, *by_shape], 2)
        sd = _LANDMARK_SD * camera.scale
        jacobian = (filters @ jacobian).reshape(136, -1) / sd
        missing = np.einsum("nab,nb->na", filters, landmarks - points).reshape(136) / sd
        now = np.concatenate([np.zeros(6), coefficients[:n], weights])
        hessian = jacobian.T @ jacobian
        gradient = jacobian.T @ (missing + jacobian @ now)
        hessian[0, 0] += 1 / _YAW_SD**2
        gradient[0] -= camera.yaw / _YAW_SD**2
        hessian[1, 1] += 1 / _PITCH_SD**2
        gradient[1] -= camera.pitch / _PITCH_SD**2
        hessian[np.arange(6, 6 + n), np.arange(6, 6 + n)] += 1 / _IDENTITY_SD**2
        hessian[6 + n :, 6 + n :] += basis.quadratic
        # a control that has come up is worth its cost and pays less: the penalty is in effect that of its logarithm
        gradient[6 + n :] -= cost / (1 + (weights if iteration > 2 else 0) / _ESTABLISHED)
        low = np.concatenate([[-0.5, -0.5, -0.5, -0.5, -np.inf, -np.inf], np.full(n, -3.0), np.zeros(k)])
        high = np.concatenate([[0.5, 0.5, 0.5, 0.5, np.inf, np.inf], np.full(n, 3.0), basis.high])
        step = bounded_minimum(hessian, gradient, low, high, start=now)
        camera = Camera(
            camera.yaw + step[0],
            camera.pitch + step[1],
            camera.roll + step[2],
            camera.scale * math.exp(step[3]),
            camera.tx + step[4],
            camera.ty + step[5],
        )
        if free_identity:
            coefficients = step[6 : 6 + n]
        weights = step[6 + n :]
    shape = basis.shaped(coefficients, weights) + known
    error = (camera.project(shape[places] + shifts)[:, :2] - landmarks)[17:]
    return _Solution(
        camera=camera,
        identity=coefficients,
        weights=_named(weights, basis),
        vertices=basis.rows[places],
        residual=float(np.sqrt((error**2).sum(1).mean())) / camera.scale,
        tangents=tangents,
    )


def _named(weights: NDArray[np.float64], basis: _Basis) -> dict[str, float]:
    named: dict[str, float] = {}
    for amount, shape in zip(weights, basis.shapes, strict=True):
        if amount > 1e-4:
            for name, share in shape.items():
                named[name] = named.get(name, 0.0) + float(amount) * share
    return named


def _first_camera(landmarks: Points, basis: _Basis) -> Camera:
    """A frontal camera that puts the nose's and eyes' landmarks in place: a similarity in least squares."""
    at = np.arange(27, 48)
    model = basis.neutral[basis.frontal[at], :2] * [1, -1]
    image = landmarks[at]
    a, b = model - model.mean(0), image - image.mean(0)
    cosine, sine = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    roll = math.atan2(sine, cosine)
    scale = math.hypot(cosine, sine) / (a**2).sum()
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    tx, ty = image.mean(0) - scale * turn @ model.mean(0)
    return Camera(0.0, 0.0, roll, scale, float(tx), float(ty))


def _jaw_tangents(landmarks: Points) -> NDArray[np.float64]:
    """Unit vectors (68, 2) along the jaw line at landmarks 0-16, zero elsewhere."""
    tangents = np.zeros((68, 2))
    for i in range(17):
        step = landmarks[min(i + 1, 16)] - landmarks[max(i - 1, 0)]
        tangents[i] = step / max(float(np.hypot(*step)), 1e-9)
    return tangents


def _slid(
    landmarks: Points, camera: Camera, shape: NDArray[np.float64], basis: _Basis, places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Let each landmark of the jaw line lie on the nearest vertex of its contour."""
    places = places.copy()
    for numbers, candidates in basis.contours:
        seen = camera.project(shape[candidates])[:, :2]
        for i in numbers:
            places[i] = candidates[((seen - landmarks[i]) ** 2).sum(1).argmin()]
    return places


# --- what the landmarks leave over


@lru_cache(maxsize=2)
def _spline(model: FaceModel) -> TemplateSpline:
    return TemplateSpline(model)


@cache
def _surface_shifts() -> NDArray[np.float64]:
    """Where on the surface a landmark belongs, (68, 3) cm from its vertex.

    Eyes and lips have edges that the mesh must lie on, wherever the mean face has them: there only the points' places
    along the lips are a matter of definition.
    """
    shifts = landmark_shifts().copy()
    shifts[36:48] = 0
    shifts[48:, 1] = 0
    return shifts


def _landmark_offset(fit: Fit, tangents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets (V, 3) in cm that bring the mesh onto the outer landmarks."""
    mesh = fit.mesh(fit.source)[fit.landmark_vertices]
    missing = fit.landmarks - fit.camera.project(mesh + _surface_shifts())[:, :2]
    sides = np.r_[0:8, 9:17]
    missing[sides] -= tangents[sides] * (missing[sides] * tangents[sides]).sum(1, keepdims=True)
    at = np.arange(60)
    vertices, first = np.unique(fit.landmark_vertices[at], return_index=True)
    spread = _spline(fit.model).spread(vertices, missing[at][first] / fit.camera.scale)
    return fit.camera.lifted(spread * fit.camera.scale)


__all__ = ["Camera", "Fit", "Lips", "MouthFrame", "TrackShape", "begin_track", "fit_face", "worn_by_landmarks"]
