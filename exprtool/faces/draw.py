"""Draw what was found into a copy of a photo: boxes, landmarks, numbers, and what was not believed and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exprtool.faces.detect import FoundFaces
from exprtool.types import Face, Image

_TAKEN, _LEFT_OUT, _REJECTED, _POINTS = (64, 220, 96), (240, 200, 60), (240, 90, 60), (80, 200, 255)


def draw_faces(image: Image, found: FoundFaces, reasons: Sequence[str | None] = ()) -> Image:
    """A copy of the image (H, W, 3) with its faces drawn in.

    ``reasons`` belong to ``found.faces``: why a face is left out, or None; such a face is drawn yellow in place of
    green. Rejected detections are red, with the reason. Lines and letters grow with the photo.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    picture = PillowImage.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(image.shape[:2]) / 600))
    for item in found.rejected:
        _outline(pen, item.face, _REJECTED, width)
        _label(pen, item.face, f"{item.face.detector} {item.face.score:.2f}: {item.reason}", _REJECTED, width)
    for i, face in enumerate(found.faces):
        reason = reasons[i] if i < len(reasons) else None
        colour = _LEFT_OUT if reason else _TAKEN
        _outline(pen, face, colour, width)
        points = face.landmarks5 if face.landmarks68 is None else face.landmarks68
        radius = max(0.7, min(width, face.size / 120))
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_POINTS)
        text = f"{i + 1}: {face.detector} {face.score:.2f}, {face.size:.0f} px"
        _label(pen, face, f"{text}: {reason}" if reason else text, colour, width)
    return np.asarray(picture)


def _outline(pen: object, face: Face, colour: tuple[int, int, int], width: int) -> None:
    pen.rectangle(face.box, outline=colour, width=width)  # type: ignore[attr-defined]


def _label(pen: object, face: Face, text: str, colour: tuple[int, int, int], width: int) -> None:
    """Write below the box, on a dark ground, kept inside the picture."""
    from PIL import ImageDraw, ImageFont

    assert isinstance(pen, ImageDraw.ImageDraw)
    font = ImageFont.load_default(size=10 + 4 * width)
    picture_width, picture_height = pen.im.size if pen.im is not None else (0, 0)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    x = max(0.0, min(face.box[0], picture_width - right))
    y = max(0.0, min(face.box[3] + width, picture_height - bottom))
    pen.rectangle((x + left, y + top, x + right, y + bottom), fill=(20, 20, 20))
    pen.text((x, y), text, font=font, fill=colour)
