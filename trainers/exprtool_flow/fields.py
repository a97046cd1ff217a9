"""Pictures and fields of motion as tensors: enlarged and moved."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from exprtool_flow.points import grid

_ITERATIONS = 4


def double(x: Tensor) -> Tensor:
    """Twice the size, bilinear; pixel (0, 0) becomes the four pixels that fill its area."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def sample(field: Tensor, at: Tensor) -> Tensor:
    """``field`` (N, C, h, w) at the points ``at`` (N, 2, H, W), (x, y) in shares of its sides; borders go on."""
    grid = (2 * at - 1).permute(0, 2, 3, 1)
    return F.grid_sample(field, grid, mode="bilinear", padding_mode="border", align_corners=False)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image`` (N, C, H, W) moved by the backward ``flow`` (N, 2, H, W) in its own pixels; borders go on."""
    height, width = image.shape[2:]
    y = torch.arange(height, device=image.device, dtype=image.dtype)[:, None] + flow[:, 1]
    x = torch.arange(width, device=image.device, dtype=image.dtype) + flow[:, 0]
    return sample(image, torch.stack([(x + 0.5) / width, (y + 0.5) / height], dim=1))


def inverted(field: Tensor) -> Tensor:
    """The motion (N, 2, H, W) that undoes another, in shares of the sides: forward to backward flow and back.

    g(p) = -f(p + g(p)) by fixed-point iteration, which converges where neighbours move nearly alike.
    """
    place = grid(field.shape[-1])  # a constant of the exported graph
    undone = -field
    for _ in range(_ITERATIONS):
        undone = -sample(field, place.to(field.device) + undone)
    return undone
