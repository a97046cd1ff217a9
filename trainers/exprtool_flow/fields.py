"""Pictures and fields of motion as tensors: enlarged and moved."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from exprtool_flow.points import grid

_ITERATIONS = 4
_MANY = 12
"""Channels from which on gathering is faster than sampling each."""


def double(x: Tensor) -> Tensor:
    """Twice the size, bilinear; pixel (0, 0) becomes the four pixels that fill its area."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def sample(field: Tensor, at: Tensor) -> Tensor:
    """``field`` (N, C, h, w) at the points ``at`` (N, 2, H, W), (x, y) in shares of its sides; borders go on."""
    if torch.onnx.is_in_onnx_export() and field.shape[1] >= _MANY:
        return _gathered(field, at)
    where = (2 * at - 1).permute(0, 2, 3, 1)
    return F.grid_sample(field, where, mode="bilinear", padding_mode="border", align_corners=False)


def _gathered(field: Tensor, at: Tensor) -> Tensor:
    """The same by gathering rows of channels, in few steps: ONNX Runtime's GridSample goes through each channel on its
    own and takes several times as long for many of them, and each step takes microseconds whatever it does.

    All sizes but the batch's are constants of the graph.
    """
    channels, height, width = (int(side) for side in field.shape[1:])
    tall, wide = (int(side) for side in at.shape[2:])
    rows = field.permute(0, 2, 3, 1).reshape(-1, channels)
    size = torch.tensor([[width], [height]], dtype=at.dtype, device=at.device)
    place = torch.minimum((at.reshape(-1, 2, tall * wide) * size - 0.5).clamp(min=0), size - 1)
    corner = torch.minimum(place.floor(), size - 2)  # the last but one at most, so that it has neighbours
    x, y = (place - corner).reshape(-1, 2, tall * wide, 1).split(1, dim=1)
    left, top = corner.split(1, dim=1)
    face = torch.arange(at.shape[0], device=at.device)[:, None, None] * (height * width)
    first = ((top * width + left).long() + face).reshape(-1)
    found = torch.zeros((), dtype=at.dtype, device=at.device)
    for beside, share in ((0, (1 - x) * (1 - y)), (1, x * (1 - y)), (width, (1 - x) * y), (width + 1, x * y)):
        found = found + F.embedding(first + beside, rows) * share.reshape(-1, 1)
    return found.reshape(-1, tall, wide, channels).permute(0, 3, 1, 2)


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
