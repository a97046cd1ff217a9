"""Pictures to look at: labelled grids of inputs and targets (Figs. 2, 7, 8, 10, 11) and residuals (Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exprtool.measures.evaluation import sample_outputs
from exprtool.measures.pictures import Pictures
from exprtool.measures.subjects import Subject
from exprtool.types import Image

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as PlainFont

CELL, GAP, MARGIN = 128, 3, 8
PAPER, INK, FAINT = (255, 255, 255), (25, 25, 25), (120, 120, 120)
_LETTERS = 15


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One row: what stands to its left, its pictures (None leaves the cell empty), and whether it begins a block."""

    label: str
    cells: Sequence[Image | None]
    new_block: bool = False


def sheet(columns: Sequence[str], rows: Sequence[SheetRow], *, title: str = "", cell: int = CELL) -> Image:
    """A labelled grid as an RGB picture; every cell is ``cell`` pixels square, however large its picture is."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    font, bold = _font(_LETTERS), _font(_LETTERS + 3)
    left = MARGIN + max([int(font.getlength(row.label)) for row in rows if row.label] or [0]) + MARGIN
    top = MARGIN + (bold.getbbox("Ag")[3] + MARGIN if title else 0)
    head = int(font.getbbox("Ag")[3]) + 6 if any(columns) else 0
    blocks = sum(row.new_block for row in rows[1:])
    width = left + len(columns) * (cell + GAP) + MARGIN
    if title:
        width = max(width, int(bold.getlength(title)) + 2 * MARGIN)
    height = int(top + head + len(rows) * (cell + GAP) + blocks * 3 * GAP + MARGIN)
    page = Pillow.new("RGB", (int(width), height), PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((MARGIN, MARGIN), title, INK, bold)
    for number, name in enumerate(columns):
        x = left + number * (cell + GAP) + (cell - font.getlength(name)) / 2
        draw.text((x, top), name, INK, font)
    y = int(top + head)
    for number, row in enumerate(rows):
        if row.new_block and number:
            y += 3 * GAP
        draw.text((MARGIN, y + cell / 2 - _LETTERS / 2), row.label, INK, font)
        for place, picture in enumerate(row.cells):
            x = left + place * (cell + GAP)
            if picture is None:
                draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=FAINT)
                words = "left alone"
                draw.text((x + (cell - font.getlength(words)) / 2, y + cell / 2 - 8), words, FAINT, font)
            else:
                page.paste(Pillow.fromarray(fitted(picture, cell)), (int(x), y))
        y += cell + GAP
    return np.asarray(page)


def fitted(picture: Image, cell: int) -> Image:
    """The picture as ``cell`` x ``cell`` pixels."""
    import cv2

    if picture.shape[:2] == (cell, cell):
        return np.ascontiguousarray(picture)
    method = cv2.INTER_AREA if picture.shape[0] > cell else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (cell, cell), interpolation=method), dtype=np.uint8)


def grid(subject: Subject, pictures: Pictures, expressions: Sequence[str], *, title: str = "") -> Image:
    """Input and every expression, one person per row (Figs. 2 and 7)."""
    outputs = sample_outputs(subject, pictures, expressions)
    rows = [
        SheetRow(short(name), [image, *answers])
        for name, image, answers in zip(pictures.names, pictures.images, outputs, strict=True)
    ]
    return sheet(["input", *expressions], rows, title=title)


def grids(subject: Subject, parts: Sequence[Pictures], expressions: Sequence[str]) -> Image:
    """As `grid`, with the people of each part in a block of their own (Fig. 7: from the data set, and from outside)."""
    rows: list[SheetRow] = []
    for part in parts:
        outputs = sample_outputs(subject, part, expressions)
        for i, (image, answers) in enumerate(zip(part.images, outputs, strict=True)):
            rows.append(SheetRow("", [image, *answers], new_block=i == 0))
    return sheet(["input", *expressions], rows)


def comparison(
    subjects: Sequence[Subject], pictures: Sequence[Pictures], expressions: Sequence[str], *, title: str = ""
) -> Image:
    """One block per person, one row per subject, on the same faces (Figs. 8, 10 and 11).

    ``pictures`` holds for each subject the faces as it wants them cut.
    """
    every = [sample_outputs(subject, shown, expressions) for subject, shown in zip(subjects, pictures, strict=True)]
    rows: list[SheetRow] = []
    for i in range(len(pictures[0])):
        for number, (subject, shown, outputs) in enumerate(zip(subjects, pictures, every, strict=True)):
            cells = [shown.images[i], *outputs[i]]
            rows.append(SheetRow(subject.name, cells, new_block=number == 0))
    return sheet(["input", *expressions], rows, title=title)


def residual_sheet(subject: Subject, pictures: Pictures, expressions: Sequence[str]) -> Image | None:
    """Residual above output for each expression (Fig. 4); None for a subject that has no residual.

    The residual is shown about mid grey, enlarged by a factor that the row's label gives.
    """
    residuals = [subject.residuals(pictures, label) for label in expressions]
    if any(residual is None for residual in residuals):
        return None
    every: list[NDArray[np.float32]] = [residual for residual in residuals if residual is not None]
    gain = residual_gain(every)
    rows: list[SheetRow] = []
    for i, image in enumerate(pictures.images):
        shown = [residual_picture(residual[i], gain) for residual in every]
        outputs = [np.clip(np.rint(image + residual[i]), 0, 255).astype(np.uint8) for residual in every]
        rows.append(SheetRow(f"residual x{gain:g}", [image, *shown], new_block=True))
        rows.append(SheetRow("output", [image, *outputs]))
    return sheet(["input", *expressions], rows, title=f"{subject.name}: residual G(x, c) and output")


def residual_gain(residuals: Sequence[NDArray[np.float32]]) -> float:
    """A power of two by which the strongest parts nearly fill the range; 1 for residuals that fill it already."""
    strongest = max(float(np.percentile(np.abs(residual), 99.5)) for residual in residuals)
    return float(min(64, max(1, 2 ** np.floor(np.log2(127 / max(strongest, 1e-3))))))


def residual_picture(residual: NDArray[np.float32], gain: float = 1.0) -> Image:
    """A residual (S, S, 3) in grey levels as a picture in which mid grey means no change."""
    return np.clip(np.rint(127.5 + gain * residual), 0, 255).astype(np.uint8)


def short(name: str) -> str:
    """The end of a source's name that tells it apart, short enough for a row's label."""
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return stem if len(stem) <= 14 else f"…{stem[-13:]}"


def save(picture: Image, path: Any) -> None:
    """Write a sheet as PNG, atomically."""
    import io

    from PIL import Image as Pillow

    from exprtool.files import write_bytes

    buffer = io.BytesIO()
    Pillow.fromarray(picture).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _font(size: int) -> FreeTypeFont | PlainFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
