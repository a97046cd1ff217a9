"""The sample sheet: the same faces at every sample step, each with every expression, so that sheets can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from exprtool.files import atomic_write
from exprtool_usgan.networks import Generator

_GAP, _CAPTION = 4, 18
_PAPER = 255
_BATCH = 16


def to_tensor(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> torch.Tensor:
    """Pictures (N, S, S, 3) uint8 as what the networks take: (N, 3, S, S) in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_images(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """The way back, cut to [-1, 1] and rounded: (N, S, S, 3) uint8."""
    pixels = tensor.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def all_expressions(generator: Generator, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every image with every label: (N, S, S, 3) uint8 -> (N, C, S, S, 3) uint8."""
    device = next(generator.parameters()).device
    n, labels = len(images), generator.config.labels
    eye = torch.eye(labels, device=device)
    outputs = np.empty((n, labels, *images.shape[1:]), dtype=np.uint8)
    for start in range(0, n, _BATCH):
        x = to_tensor(images[start : start + _BATCH], device)
        for label in range(labels):
            c = eye[label].expand(len(x), -1)
            outputs[start : start + len(x), label] = to_images(generator.edit(x, c))
    return outputs


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
