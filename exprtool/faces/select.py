"""Which of a photo's faces are to be edited, and the rectangle of the photo that a backend gets for each.

Faces are counted from left to right, from 1. Each face that is not selected gets the reason, for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from exprtool.errors import NoFaceError, UsageError
from exprtool.faces.embed import SAME_PERSON, Embedding, embedding, similarity_of
from exprtool.faces.landmarks import roll_of
from exprtool.faces.pose import pose_of
from exprtool.types import Face, FaceRegion, Image, IntBox
from exprtool.wording import told_apart


@dataclass(frozen=True, eq=False)
class Selection:
    """Which faces are wanted. Everything asked for must hold.

    ``which`` is "all", "largest" (of those that nothing else speaks against), or the wanted numbers from 1.
    ``min_face`` is in pixels of the box's longer side; ``max_turn`` in degrees of yaw, coarsely measured.
    With ``person``, an embedding (128,), only the face most like it is wanted, if it is at least ``similarity`` alike
    (see `exprtool.faces.embed.similarity_of`).
    """

    which: Literal["all", "largest"] | tuple[int, ...] = "all"
    min_face: float = 0.0
    max_turn: float | None = None
    person: Embedding | None = None
    similarity: float = SAME_PERSON

    @classmethod
    def parse(
        cls,
        which: str = "all",
        *,
        min_face: float = 0.0,
        max_turn: float | None = None,
        person: Embedding | None = None,
        similarity: float = SAME_PERSON,
    ) -> Self:
        """Read ``which`` as users write it: ``all``, ``largest``, or numbers such as ``1,3``.

        Raises `UsageError` for anything else, and for a ``min_face`` or ``similarity`` that makes no sense.
        """
        if not min_face >= 0:
            raise UsageError(f"--min-face {min_face:g} is not a size in pixels: give 0 or more.")
        if not 0 <= similarity <= 1:
            raise UsageError(f"--similarity {similarity:g} is out of range: give a value from 0 to 1.")
        return cls(_parse_which(which), min_face, max_turn, person, similarity)

    def missing(self, count: int) -> tuple[int, ...]:
        """The numbers asked for that a photo with ``count`` faces does not have."""
        return tuple(n for n in self.which if n > count) if isinstance(self.which, tuple) else ()


def _parse_which(text: str) -> Literal["all", "largest"] | tuple[int, ...]:
    text = text.strip().lower()
    if text == "all" or text == "largest":
        return text
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(
            f"--faces {text!r} is not understood. Give all, largest, or numbers counted from the left, such as 1,3."
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def select_faces(
    faces: Sequence[Face], selection: Selection | None = None, image: Image | None = None
) -> list[tuple[Face, str | None]]:
    """Every face, in the order given (left to right), with None where it is selected and else the reason why not.

    ``image`` is needed only where a person is looked for.
    """
    selection = selection or Selection()
    reasons = [_reason(face, number, selection) for number, face in enumerate(faces, start=1)]
    if selection.person is not None:
        if image is None:
            raise ValueError("looking for a person needs the image")
        _keep_person(reasons, faces, selection.person, selection.similarity, image)
    if selection.which == "largest":
        _keep_largest(reasons, faces)
    return list(zip(faces, reasons, strict=True))


def _reason(face: Face, number: int, selection: Selection) -> str | None:
    """Why a face is left out for what it is, or None."""
    if isinstance(selection.which, tuple) and number not in selection.which:
        return f"face {number} is not asked for (--faces {','.join(map(str, selection.which))})"
    if face.size < selection.min_face:
        size, least = told_apart(face.size, selection.min_face)
        return f"too small: {size} px, and --min-face is {least}"
    if selection.max_turn is not None:
        pose = pose_of(face)
        if abs(pose.yaw) > selection.max_turn:  # pitch is too uncertain to leave a face out for it
            yaw, most = told_apart(abs(pose.yaw), selection.max_turn)
            return f"turned too far: about {yaw} degrees sideways, and {most} is the most"
    return None


def _keep_person(
    reasons: list[str | None], faces: Sequence[Face], person: Embedding, least: float, image: Image
) -> None:
    likeness = {i: similarity_of(person, embedding(image, faces[i])) for i, reason in enumerate(reasons) if not reason}
    best = max(likeness, key=likeness.__getitem__, default=None)
    if best is not None and likeness[best] < least:  # one reason for all of them: the photo is without that person
        alike, needed = told_apart(likeness[best], least, 2)
        for i in likeness:
            reasons[i] = f"not the person looked for (best similarity {alike}, and {needed} is needed)"
        return
    for i, value in likeness.items():
        if value < least:
            alike, needed = told_apart(value, least, 2)
            reasons[i] = f"not the person looked for (similarity {alike}, and {needed} is needed)"
        elif i != best:
            reasons[i] = f"another face is more like the person looked for (similarity {value:.2f})"


def _keep_largest(reasons: list[str | None], faces: Sequence[Face]) -> None:
    left = [i for i, reason in enumerate(reasons) if reason is None]
    best = max(left, key=lambda i: faces[i].size, default=None)
    for i in left:
        if i != best:
            reasons[i] = "not the largest face (--faces largest)"


def person_in(image: Image, faces: Sequence[Face], name: str | Path) -> Embedding:
    """The embedding (128,) of the person in a reference photo whose faces were found.

    Raises `NoFaceError` when there is none, `UsageError` when it is not clear which of several is meant.
    """
    if not faces:
        raise NoFaceError(
            f"{name}: no face was found in the photo of the person. Give one that shows the face clearly."
        )
    by_size = sorted(faces, key=lambda face: face.size, reverse=True)
    if len(by_size) > 1 and by_size[1].size > 0.6 * by_size[0].size:
        raise UsageError(
            f"{name}: shows {len(faces)} faces, so it is not clear whom --person means. Cut it down to one person."
        )
    return embedding(image, by_size[0], jitters=0)


def region_of(image: Image, face: Face, others: Sequence[Face] = ()) -> FaceRegion:
    """The part of the photo that a backend may change for this face: the whole head with room for its motion.

    Around the face along its own axes: up to above the hair line, beyond both ears, and below the chin by how far a
    jaw drops; then the upright rectangle around that, cut at the image's edges. ``pixels`` is a read-only view.
    ``others`` are the photo's faces (this one may be among them); those whose box touches the rectangle are kept.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = _reach(face)
    box: IntBox = (
        int(np.clip(np.floor(x0), 0, width - 1)),
        int(np.clip(np.floor(y0), 0, height - 1)),
        int(np.clip(np.ceil(x1) + 1, 1, width)),
        int(np.clip(np.ceil(y1) + 1, 1, height)),
    )
    pixels = image[box[1] : box[3], box[0] : box[2]]
    pixels.flags.writeable = False
    near = tuple(other for other in others if other is not face and _touches(other, box))
    return FaceRegion(face, box, pixels, near, image_size=(height, width))


# How far the head reaches from the middle between eyes and mouth, in spans between eyes and mouth (see `_reach`).
_UP, _DOWN, _SIDE = 2.1, 2.4, 2.0


def _reach(face: Face) -> tuple[float, float, float, float]:
    """Axis-aligned bounds of the head, in pixels. Measured along the face's own axes, then turned with it."""
    five = np.asarray(face.landmarks5, dtype=np.float64)
    middle = five[[0, 1, 3, 4]].mean(axis=0)
    eyes, mouth = five[:2].mean(axis=0), five[3:].mean(axis=0)
    # A turned head shortens the distance between the eyes, a nodding one that to the mouth; the longer one holds.
    span = max(float(np.linalg.norm(mouth - eyes)), float(np.linalg.norm(five[1] - five[0])))
    angle = np.radians(roll_of(five))
    across, down = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    corners = [middle + span * (x * across + y * down) for x in (-_SIDE, _SIDE) for y in (-_UP, _DOWN)]
    points = np.stack(corners) if face.landmarks68 is None else np.concatenate([corners, face.landmarks68])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _touches(face: Face, box: IntBox) -> bool:
    x0, y0, x1, y1 = face.box
    return x0 < box[2] and x1 > box[0] and y0 < box[3] and y1 > box[1]
