"""How much of the person is still there: ACD as in the paper, and a local verification score.

Both compare dlib's embeddings (ageitgey/face_recognition, the paper's footnote 1) of input and output. They are two
readings of one number and neither is the paper's FVS, which needs the Face++ service (`exprtool.measures.facepp`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exprtool.faces.embed import SAME_PERSON, Embedding, embedding, squared_distance
from exprtool.measures.stats import Stat
from exprtool.types import Face, Image

FaceFinder = Callable[[Image], Face | None]


@dataclass(frozen=True, eq=False)
class Identity:
    """Squared embedding distances (N,) of input and output, NaN where no face could be measured."""

    squared: NDArray[np.float64]

    @property
    def acd(self) -> Stat:
        """Average content distance: mean and spread of eq. 9 over the pictures; lower keeps more of the person."""
        return Stat.of(self.squared)

    @property
    def distance(self) -> Stat:
        """The same without the square: Euclidean distances, of which dlib takes those below 0.6 for one person."""
        return Stat.of(np.sqrt(self.squared))

    @property
    def local_verification(self) -> Stat:
        """Likeness in [0, 100] from the same embeddings: 100 for equal ones, 50 at dlib's decision threshold (Euclidean
        distance 0.6), 0 from twice that on. Not the paper's FVS."""
        return Stat.of(100 * np.clip(1 - np.sqrt(self.squared) * (1 - SAME_PERSON) / 0.6, 0, 1))

    @property
    def accepted(self) -> float:
        """Share of the measured pictures that dlib's threshold takes for the same person, in [0, 1]; NaN for none."""
        measured = self.squared[np.isfinite(self.squared)]
        return float((measured < 0.6**2).mean()) if len(measured) else float("nan")


def identity(
    inputs: Sequence[Image] | NDArray[np.uint8],
    outputs: Sequence[Image] | NDArray[np.uint8],
    landmarks: NDArray[np.floating] | None = None,
    *,
    landmarks_after: NDArray[np.floating] | None = None,
    find: FaceFinder | None = None,
    known: dict[int, Embedding] | None = None,
) -> Identity:
    """Compare each input (H, W, 3) uint8 with its output.

    ``landmarks`` (N, 68, 2) are those of the inputs in their own pixels; input and output are then cut out alike, so
    that only what the network changed counts, unless ``landmarks_after`` (N, 68, 2) says where the face lies in the
    outputs (another photo of the person). Without them (or where they are NaN) ``find`` looks for the face in
    the input. A picture without a face counts as missing. ``known`` caches the inputs' embeddings by index between
    calls on the same inputs.
    """
    squared = np.full(len(inputs), np.nan)
    cache = {} if known is None else known
    for i, (before, after) in enumerate(zip(inputs, outputs, strict=True)):
        face = face_from_landmarks(landmarks[i]) if landmarks is not None else None
        face = face or (find(np.ascontiguousarray(before)) if find else None)
        if face is None:
            continue
        if i not in cache:
            cache[i] = embedding(np.ascontiguousarray(before), face)
        if landmarks_after is None and np.array_equal(before, after):
            squared[i] = 0.0  # as the embeddings would have it, without computing one
            continue
        after_face = face if landmarks_after is None else face_from_landmarks(landmarks_after[i])
        if after_face is not None:
            squared[i] = squared_distance(cache[i], embedding(np.ascontiguousarray(after), after_face))
    return Identity(squared)


def acd(inputs: NDArray[np.uint8], outputs: NDArray[np.uint8], landmarks: NDArray[np.floating] | None = None) -> Stat:
    """ACD (eq. 9) of crops (N, S, S, 3) uint8; landmarks (N, 68, 2) in crop pixels as in a prepared set."""
    return identity(inputs, outputs, landmarks).acd


def face_from_landmarks(points: NDArray[np.floating]) -> Face | None:
    """A face with these 68 landmarks (68, 2); None where they are NaN."""
    from exprtool.faces.landmarks import five_of, with_landmarks

    if not np.isfinite(points).all():
        return None
    points = np.asarray(points, dtype=np.float64)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return with_landmarks(Face((x0, y0, x1, y1), 1.0, five_of(points), detector="landmarks"), points)
