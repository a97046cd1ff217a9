"""A contact sheet: one face, every expression by several strengths, labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import ExprtoolError, NoFaceError
from exprtool.faces.select import Selection
from exprtool.pipeline import Session, why_none_selected
from exprtool.types import Edit, Face, Image, IntBox

BACKGROUND, INK = (24, 24, 26), (235, 235, 235)
STRENGTHS = (0.4, 0.7, 1.0)
_AROUND = (0.35, 0.45, 0.35, 0.40)
"""How much of the face's box is shown around it: left, above, right, below."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """``image`` (H, W, 3); ``backends`` that made its cells; ``trained`` whether a trained model made any;
    ``notes`` and ``missing`` (cell: reason) for the report."""

    image: Image
    backends: tuple[str, ...]
    trained: bool
    notes: tuple[str, ...]
    missing: Mapping[str, str]


def make_sheet(
    session: Session,
    image: Image,
    edits: Mapping[str, Edit],
    strengths: Sequence[float] = STRENGTHS,
    *,
    cell: int = 256,
    selection: Selection | None = None,
) -> Sheet:
    """Draw the sheet of the largest selected face of an RGB image (H, W, 3) uint8.

    One row per edit, one column per strength (which takes the place of the edit's own), after a column with the photo.
    ``cell`` is the side of a picture in pixels. A cell that the backend refuses stays empty. Raises `NoFaceError`
    without a selected face and `ExprtoolError` where no cell could be drawn.
    """
    from dataclasses import replace

    prospect = session.find(image, selection)
    if not prospect.selected:
        raise NoFaceError(f"the photo: {why_none_selected(prospect)}")
    region = max(prospect.selected, key=lambda each: each.face.size)
    prepared = session.prepare([region])
    # a prospect of this face alone, so that each cell is finished exactly as an edit of the photo is
    alone = replace(
        prospect,
        regions=tuple(each if each is region else None for each in prospect.regions),
        reasons=tuple(None if each is region else "not on the sheet" for each in prospect.regions),
    )
    box = _shown(region.face, (image.shape[0], image.shape[1]))
    rows: list[list[Image]] = []
    backends: dict[str, bool] = {}
    notes: dict[str, None] = {}
    missing: dict[str, str] = {}
    for label, edit in edits.items():
        row = [_thumbnail(image, box, cell)]
        for strength in strengths:
            results = session.generate(prepared, replace(edit, strength=strength))
            result = results[0]
            if result.edited:
                backends[result.backend or ""] = result.trained
                notes.update(dict.fromkeys(result.notes))
                row.append(_thumbnail(session.finish(alone, results, {}).image, box, cell))
            else:
                missing[f"{label} {strength:g}"] = result.reason or "refused"
                row.append(np.full((cell, cell, 3), BACKGROUND, np.uint8))
        rows.append(row)
    if not backends:
        reasons = ", ".join(dict.fromkeys(missing.values()))
        raise ExprtoolError(f"The face is left alone: {reasons}. Use --force to edit it nevertheless.")
    heads = ["photo", *(f"{strength:g}" for strength in strengths)]
    return Sheet(
        _laid_out(rows, list(edits), heads, cell), tuple(backends), any(backends.values()), tuple(notes), missing
    )


def _shown(face: Face, size: tuple[int, int]) -> IntBox:
    """A square of whole pixels around the face, within the photo where it is large enough."""
    x0, y0, x1, y1 = face.box
    w, h = x1 - x0, y1 - y0
    left, top, right, bottom = x0 - _AROUND[0] * w, y0 - _AROUND[1] * h, x1 + _AROUND[2] * w, y1 + _AROUND[3] * h
    side = min(max(right - left, bottom - top), float(min(size)))
    cx, cy = (left + right) / 2, (top + bottom) / 2
    x = int(np.clip(cx - side / 2, 0, max(size[1] - side, 0)))
    y = int(np.clip(cy - side / 2, 0, max(size[0] - side, 0)))
    side = max(1, int(side))
    return x, y, x + side, y + side


def _thumbnail(image: Image, box: IntBox, cell: int) -> Image:
    from PIL import Image as Pillow

    x0, y0, x1, y1 = box
    part = Pillow.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    return np.asarray(part.resize((cell, cell), Pillow.Resampling.LANCZOS))


def _laid_out(rows: list[list[Image]], names: list[str], heads: list[str], cell: int) -> Image:
    """The cells with their labels: expressions to the left, strengths above."""
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(max(10, cell // 14))
    gap = max(2, cell // 64)
    margin = max(int(font.getlength(name)) for name in names) + 4 * gap
    head = max(10, cell // 14) + 4 * gap
    width = margin + len(heads) * (cell + gap)
    sheet = Pillow.new("RGB", (width, head + len(rows) * (cell + gap)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(heads):
        draw.text((margin + j * (cell + gap) + cell / 2, head / 2), text, INK, font, anchor="mm")
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        y = head + i * (cell + gap)
        draw.text((margin / 2, y + cell / 2), name, INK, font, anchor="mm")
        for j, picture in enumerate(row):
            sheet.paste(Pillow.fromarray(picture), (margin + j * (cell + gap), y))
    out: NDArray[np.uint8] = np.asarray(sheet)
    return out
