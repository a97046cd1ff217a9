"""From an answer to a picture: y = (1 - m) * warp(x, f) * exp(s) + m * p, at twice the crop's resolution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from exprtool_default.card import FINE
from exprtool_flow.fields import double, warp
from exprtool_flow.networks import Answer


def fine_flow(flow: Tensor) -> Tensor:
    """Flow of the crop (N, 2, S, S) as that of its double (N, 2, 2S, 2S)."""
    return double(flow) * FINE


def fine_shading(shading: Tensor) -> Tensor:
    """Log shading (N, 3, S/2, S/2) as that of the crop's double (N, 3, 2S, 2S)."""
    return F.interpolate(shading, scale_factor=2 * FINE, mode="bilinear", align_corners=False)


def painted_over(answer: Answer) -> tuple[Tensor, Tensor]:
    """The windows in their places: mask (N, 1, 2S, 2S), and mask times paint (N, 3, 2S, 2S)."""
    side = FINE * answer.flow.shape[-1]
    mask = answer.shading.new_zeros(())
    paint = answer.shading.new_zeros(())
    for window in answer.painted.values():
        x0, y0, x1, y1 = (FINE * value for value in window.box)
        around = (x0, side - x1, y0, side - y1)
        mask = mask + F.pad(window.mask, around)
        paint = paint + F.pad(window.mask * window.colour, around)
    return mask, paint


def compose(answer: Answer, photo: Tensor) -> Tensor:
    """The picture that an answer makes of the photo's crop (N, 3, 2S, 2S) in [0, 1]; not cut to that range."""
    mask, paint = painted_over(answer)
    lit = warp(photo, fine_flow(answer.flow)) * torch.exp(fine_shading(answer.shading))
    return (1 - mask) * lit + paint
