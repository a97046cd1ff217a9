"""The sample sheet: the same faces at every sample step, each with every expression, so that sheets can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from exprtool.files import atomic_write

_GAP, _CAPTION = 4, 18
_PAPER = 255


def write_sheet(
    path: Path, inputs: NDArray[np.uint8], outputs: NDArray[np.uint8], labels: Sequence[str]
) -> NDArray[np.uint8]:
    """One row per face: the input (N, S, S, 3), then every expression (N, C, S, S, 3), under captions; as a PNG file
    and as the answer (H, W, 3)."""
    side = inputs.shape[1]
    step = max(side, 56) + _GAP  # captions need some room over small faces
    sheet = np.full((_CAPTION + len(inputs) * (side + _GAP), (1 + len(labels)) * step, 3), _PAPER, dtype=np.uint8)
    for row, (before, after) in enumerate(zip(inputs, outputs, strict=True)):
        y = _CAPTION + row * (side + _GAP)
        for column, image in enumerate([before, *after]):
            sheet[y : y + side, column * step : column * step + side] = image
    picture = Pillow.fromarray(sheet)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for column, caption in enumerate(["input", *labels]):
        draw.text((column * step + 2, 2), caption, fill=(0, 0, 0), font=font)
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG")
    return np.asarray(picture)
