"""Pictures and fields of motion as tensors: enlarged, moved, turned about."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_ROUNDS = 5


def double(x: Tensor) -> Tensor:
    """Twice the size, bilinear; pixel (0, 0) becomes the four pixels that fill its area."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def grid(flow: Tensor) -> Tensor:
    """Where each pixel comes from, (N, H, W, 2) as `grid_sample` wants it, for a backward flow (N, 2, H, W)."""
    height, width = flow.shape[2:]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)


def sample(image: Tensor, places: Tensor) -> Tensor:
    """``image`` (N, C, H, W) at ``places`` (see `grid`), bilinear; borders go on."""
    return F.grid_sample(image, places, mode="bilinear", padding_mode="border", align_corners=False)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image`` (N, C, H, W) moved by the backward ``flow`` (N, 2, H, W) in its own pixels."""
    return sample(image, grid(flow))


def backward_flow(motion: Tensor) -> Tensor:
    """The backward flow of a forward ``motion`` (N, 2, H, W): what lies at q goes to q + motion(q), so that p shows
    what was at the q with q + motion(q) = p. By fixed-point iteration, which converges where neighbours move nearly
    alike, that is everywhere but where something opens. Only the last round passes gradients on: through all of them
    they would grow where it does not converge."""
    with torch.no_grad():
        flow = -motion
        for _ in range(_ROUNDS - 1):
            flow = -warp(motion, flow)
    return -warp(motion, flow)
