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
    """The same by gathering rows of channels: ONNX Runtime's GridSample goes through each channel on its own and takes
    several times as long for many of them."""
    count, channels, height, width = field.shape
    rows = field.permute(0, 2, 3, 1).reshape(count * height * width, channels)
    x, y = (at[:, 0] * width - 0.5).clamp(0, width - 1), (at[:, 1] * height - 0.5).clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    first = torch.arange(count, device=field.device)[:, None, None] * (height * width)

    def corner(row: Tensor, column: Tensor, share: Tensor) -> Tensor:
        return rows[(first + (row * width + column).long()).flatten()] * share.flatten()[:, None]

    across, down = x - left, y - top
    upper = corner(top, left, (1 - across) * (1 - down)) + corner(top, right, across * (1 - down))
    lower = corner(bottom, left, (1 - across) * down) + corner(bottom, right, across * down)
    return (upper + lower).reshape(count, *at.shape[2:], channels).permute(0, 3, 1, 2)


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
