"""Does what a detector found look like a face to the landmark predictor?"""

from __future__ import annotations

from exprtool.types import Face, Image


def why_no_face(image: Image, face: Face) -> str | None:
    """The reason not to believe in a face with 68 landmarks, or None."""
    return None
