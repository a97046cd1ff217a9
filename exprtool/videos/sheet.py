"""A contact sheet: frames of a clip side by side, the original above the edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exprtool import images
from exprtool.door import Door
from exprtool.errors import UsageError
from exprtool.types import Image

_WIDTH, _COLUMNS, _GAP = 360, 6, 4


def contact_sheet(pairs: Sequence[tuple[str, Image, Image]], width: int = _WIDTH, columns: int = _COLUMNS) -> Image:
    """One picture of (label, before, after) triples, (H, W, 3); each frame is ``width`` pixels wide."""
    import cv2

    cells = []
    for label, *both in pairs:
        parts = []
        for image in both:
            height = max(1, round(image.shape[0] * width / image.shape[1]))
            way = cv2.INTER_AREA if image.shape[1] > width else cv2.INTER_CUBIC
            parts.append(np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8))
        cell = np.concatenate(parts, axis=0)
        for colour, pen in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(cell, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, pen, cv2.LINE_AA)
        cells.append(np.pad(cell, ((_GAP, _GAP), (_GAP, _GAP), (0, 0))))
    blank = np.zeros_like(cells[0])
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    if len(rows) > 1:
        rows[-1] += [blank] * (columns - len(rows[-1]))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def save_sheet(sheet: Image, target: Path, door: Door) -> None:
    """Write a sheet as JPEG or PNG, by the target's ending. Raises `UsageError` for another ending."""
    if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UsageError(f"{target}: a contact sheet is a picture. Give an output that ends in .jpg or .png.")
    photo = images.Photo.from_rgb(sheet, str(target))
    data = images.write_image(photo, sheet, None, format=target.suffix, quality=92, xmp=door.xmp())
    assert data is not None
    door.write(target, data)
