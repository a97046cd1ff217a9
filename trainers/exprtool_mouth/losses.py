"""What painter and critic are trained on. Pictures are (N, 3, H, W), holes (N, 1, H, W), judgements (N, 1, h, w)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def within(values: Tensor, hole: Tensor) -> Tensor:
    """The mean of values (N, C, H, W) over each picture's hole, (N,)."""
    return (values * hole).sum((1, 2, 3)) / (hole.sum((1, 2, 3)) * values.shape[1] + 1e-6)


def difference(painted: Tensor, real: Tensor, hole: Tensor) -> Tensor:
    """Mean absolute difference within each hole, (N,): of the pixels and of their twofold and fourfold averages."""
    total = within((painted - real).abs(), hole)
    for side in (2, 4):
        off = (F.avg_pool2d(painted, side) - F.avg_pool2d(real, side)).abs()
        total = total + within(off, F.avg_pool2d(hole, side))
    return total / 3


def seen_by(hole: Tensor, judgement: Tensor) -> Tensor:
    """Weights (N, 1, h, w) of the judgements whose patch has the hole in its middle; mean 1 over all of them."""
    share = F.adaptive_max_pool2d(hole, judgement.shape[-2:]).float()
    return share / (share.mean() + 1e-6)


def critic_loss(on_real: Tensor, on_painted: Tensor, hole: Tensor) -> Tensor:
    """Hinge loss (Lim and Ye, "Geometric GAN", 2017)."""
    weight = seen_by(hole, on_real)
    return ((F.relu(1 - on_real) + F.relu(1 + on_painted)) * weight).mean()


def painter_loss(on_painted: Tensor, hole: Tensor) -> Tensor:
    return -(on_painted * seen_by(hole, on_painted)).mean()


def likeness(real: Sequence[Tensor], painted: Sequence[Tensor], hole: Tensor) -> Tensor:
    """Mean absolute difference of the critic's features near the hole (feature matching, Salimans et al., 2016)."""
    losses = [
        (within((a.detach() - b).abs(), F.adaptive_max_pool2d(hole, a.shape[-2:]))).mean()
        for a, b in zip(real, painted, strict=True)
    ]
    return torch.stack(losses).mean()
