"""What nobody should learn from: faces that the model fits badly, and renders that are no face or another person's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from exprtool.faces import dlib_files
from exprtool.faces.embed import Embedding, embedding, squared_distance
from exprtool.types import Face, Image

MAX_RESIDUAL = 0.32
"""Largest residual of the fit in cm (rms over the landmarks)."""

MAX_TURN = 25.0
"""Largest yaw or pitch in degrees: beyond, the far side of the face is guesswork."""

SMALLEST = 60.0
"""Smallest face in the portrait, in pixels of its box."""

SAME_PERSON = 0.36
"""Largest squared distance of embeddings: dlib's own limit, 0.6 squared."""


@dataclass(frozen=True, eq=False)
class Gate:
    """Judges the renders of one canvas against the canvas as it was, ``image``, with its ``face``."""

    image: Image
    face: Face

    @cached_property
    def _portrait(self) -> Embedding:
        return embedding(self.image, self.face)

    def why_not(self, render: Image, *, identity: bool) -> str | None:
        """The reason to throw a render (S, S, 3) away, or None.

        An embedding costs as much as a render, so ``identity`` is for those who must show the person: the labelled
        ones, which are also the furthest from the portrait.
        """
        if not _finds_a_face(render):
            return "no face is found in the render"
        if identity and squared_distance(self._portrait, embedding(render, self.face)) > SAME_PERSON:
            return "the render is not the same person any more"
        return None


def why_no_portrait(face: Face, residual: float, angles: tuple[float, float, float]) -> str | None:
    """The reason to leave a portrait out, or None. ``angles`` are yaw, pitch and roll of the fit in degrees."""
    if face.size < SMALLEST:
        return f"the face is smaller than {SMALLEST:.0f} px"
    if residual > MAX_RESIDUAL:
        return "the face model fits it badly"
    if max(abs(angles[0]), abs(angles[1])) > MAX_TURN:
        return f"it is turned more than {MAX_TURN:.0f} degrees"
    return None


def _finds_a_face(image: Image) -> bool:
    # Half the size is enough for the detector's window of 80 pixels, and four times faster.
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return len(dlib_files.frontal_detector()(np.ascontiguousarray(small), 0)) > 0
