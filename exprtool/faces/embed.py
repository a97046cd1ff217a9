"""Who is it: dlib's face embedding, the one that the US-GAN paper measures identity with.

The network (128 numbers, trained so that two photos of one person lie within a distance of 0.6) and the five-point
alignment before it are those that ``ageitgey/face_recognition`` uses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exprtool.faces import dlib_files
from exprtool.faces.landmarks import upright_crop
from exprtool.types import Face, Image

Embedding = NDArray[np.float64]
"""Shape (128,)."""

SAME_PERSON = 0.5
"""The least similarity of two photos of one person: the distance 0.6 that dlib's network was trained for."""


def embedding(image: Image, face: Face, *, jitters: int = 0) -> Embedding:
    """The face's embedding, shape (128,) float64.

    ``jitters`` > 0 averages over that many slightly moved and mirrored copies. The face is brought upright first, so
    that its in-plane rotation does not matter. Raises `ModelError` when dlib or its files are missing.
    """
    import dlib

    network = dlib_files.embedding_network()
    pixels, box = upright_crop(image, face)
    rectangle = dlib.rectangle(*(round(value) for value in box))  # type: ignore[attr-defined]
    shape = dlib_files.predictor(5)(pixels, rectangle)
    return np.array(network.compute_face_descriptor(pixels, shape, jitters), dtype=np.float64)


def squared_distance(a: Embedding, b: Embedding) -> float:
    """Squared Euclidean distance of two embeddings: the term that the paper's ACD averages (eq. 9)."""
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return float(difference @ difference)


def similarity_of(a: Embedding, b: Embedding) -> float:
    """1 for the same picture, falling evenly with the Euclidean distance: `SAME_PERSON` at 0.6 and 0 at 1.2."""
    return max(0.0, 1.0 - float(np.sqrt(squared_distance(a, b))) / 1.2)
