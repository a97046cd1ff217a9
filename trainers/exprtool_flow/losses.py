"""How wrong an answer is. Every loss is a mean over pixels of differences in the units named there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from exprtool.pixels.ramps import cubic
from exprtool_default.card import FINE
from exprtool_flow.augment import Batch
from exprtool_flow.compose import compose, fine_flow, fine_shading
from exprtool_flow.fields import warp
from exprtool_flow.networks import Answer

NAMES = ("flow", "smooth", "shading", "mask", "image", "psnr", "edges", "paint", "points")
_SOFT = 0.01  # squared pixels: the Charbonnier loss is quadratic below a tenth of a pixel
_FLOOR = 1e-5  # of squared differences: 50 dB is as good as any more
_DIGIT = 0.5  # 128ths of the side: a landmark's error that the predictor itself makes
_NUMBERS = 10.0  # what a squared error in a weight counts beside one of its motion in 128ths of the side
_DARK = 0.05  # keeps logarithms of dark pixels' ratios from being noise
_EXPLAINED, _UNEXPLAINED = 0.02, 0.08
"""Mean difference (of [0, 1]) up to which the photo's own pixels will do, and from which on they will not."""
_LIDS_AND_LIPS = 3.0
"""What an error of the flow counts in the windows: lids and lips are thin, and it is at them that people look."""


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    flow: float = 1.0
    smooth: float = 0.02
    shading: float = 2.0
    mask: float = 0.6
    image: float = 4.0
    psnr: float = 0.04
    edges: float = 3.0
    paint: float = 1.0
    points: float = 0.5


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` by ``weight``, which may have a single channel; 0 where all weights are."""
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def widened(mask: Tensor, kernel: int) -> Tensor:
    """The largest value of ``mask`` (N, 1, H, W) in a square of ``kernel`` (odd) pixels, rows and columns in turn."""
    return F.max_pool2d(F.max_pool2d(mask, (kernel, 1), 1, (kernel // 2, 0)), (1, kernel), 1, (0, kernel // 2))


def averaged(values: Tensor, kernel: int) -> Tensor:
    """The mean of ``values`` (N, 1, H, W) in a square of ``kernel`` (odd) pixels; beyond the border lies nothing."""
    half = kernel // 2
    rows = F.avg_pool2d(values, (kernel, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, kernel), 1, (0, half), count_include_pad=False)


def flow_loss(flow: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Charbonnier distance in pixels of two flows (N, 2, S, S) where ``known`` (N, 1, S, S); motion counts more than
    rest, which is most of a face."""
    distance = ((flow - true).pow(2).sum(1, keepdim=True) + _SOFT).sqrt() - _SOFT**0.5
    motion = true.pow(2).sum(1, keepdim=True).sqrt()
    return (distance * (0.35 + 2 * torch.tanh(motion / 1.5)) * known).mean()


def total_variation(field: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, along x plus along y."""
    return field.diff(dim=-1).abs().mean() + field.diff(dim=-2).abs().mean()


def shading_loss(shading: Tensor, moved: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Mean distance of log shading from what lies between the truly moved photo and the target, all (N, 3, H, W).

    Where the light changes counts more. An absolute difference finds the median, so the noise of resampling cancels.
    """
    ratio = torch.log((target + _DARK) / (moved + _DARK)).clamp(-1.2, 0.8)
    return weighted_mean((shading - ratio).abs() * (1 + 8 * ratio.abs().clamp(max=0.5)), known)


def needed_paint(photo: Tensor, moved: Tensor, target: Tensor, painted: Tensor) -> Tensor:
    """Where paint is really needed, (N, 1, H, W) in [0, 1].

    ``painted`` marks all that the renderer drew anew, whole eyes and mouths included. Where the photo's own pixels,
    moved or left in place, show the same, they are the better ones: they have the photo's resolution.
    """

    def missed(picture: Tensor) -> Tensor:
        return averaged((picture - target).abs().mean(1, keepdim=True), 5)

    error = torch.minimum(missed(moved), missed(photo))
    t = ((error - _EXPLAINED) / (_UNEXPLAINED - _EXPLAINED)).clamp(0, 1)
    return painted * cubic(t)


def mask_loss(logit: Tensor, fade: Tensor, needed: Tensor) -> Tensor:
    """Cross entropy, more of it near what is painted, plus a quarter of the dice loss (Milletari et al., 3DV 2016).

    All (N, 1, h, w) but ``fade`` (h, w); where that is below 1 the mask is not free, and nothing is asked of it.
    """
    near = widened(needed, 9)
    entropy = F.binary_cross_entropy_with_logits(logit, needed, reduction="none")
    free = (fade == 1).to(logit.dtype)
    return weighted_mean(entropy * (1 + 2 * near), free) + 0.25 * dice_loss(torch.sigmoid(logit) * fade, needed)


def dice_loss(mask: Tensor, needed: Tensor) -> Tensor:
    """1 - 2 |A and B| / (|A| + |B|), averaged over the batch; the 20 pixels on both sides forgive specks."""
    both = (mask * needed).sum((1, 2, 3))
    return (1 - (2 * both + 20) / (mask.sum((1, 2, 3)) + needed.sum((1, 2, 3)) + 20)).mean()


def edge_loss(difference: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute gradient of a difference of pictures (N, 3, H, W), by ``weight`` (N, 1, H, W)."""
    x = weighted_mean(difference.diff(dim=-1).abs(), weight[..., 1:])
    return x + weighted_mean(difference.diff(dim=-2).abs(), weight[..., 1:, :])


def psnr_loss(difference: Tensor) -> Tensor:
    """Logarithm of each picture's mean squared difference (N, 3, 2S, 2S), averaged down to the crop's own pixels:
    10 / ln 10 of it is what the peak signal-to-noise ratio lacks. A small edit counts as much as a large one."""
    squared = F.avg_pool2d(difference, FINE).pow(2).mean((1, 2, 3))
    return torch.log(squared + _FLOOR).mean()


def reading_loss(worn: Tensor, true: Tensor, typical: Tensor) -> Tensor:
    """How far a reading (N, C) is from what is worn: mean squared error of the motion that it stands for, by the
    typical flow (F, C), in 128ths of the crop's side, and a little of its error in numbers.

    What moves the face counts as much as it moves it; of a control that hardly shows, no error shows either. Squared,
    because most weights of most faces are 0: an absolute error would be content with the median.
    """
    error = worn - true
    return (128 * F.linear(error, typical)).pow(2).mean() + _NUMBERS * error.pow(2).mean()


def points_loss(found: Tensor, true: Tensor) -> Tensor:
    """Mean distance along x or y of landmarks (N, 68, 2), in 128ths of the side; less for less than half of one."""
    return ((128 * (found - true)).pow(2) + _DIGIT**2).sqrt().mean() - _DIGIT


def losses(answer: Answer, batch: Batch) -> dict[str, Tensor]:
    """All losses of an answer by `NAMES`, unweighted: all but those of what the encoder tells."""
    moved = warp(batch.photo, fine_flow(batch.flow))
    near = widened(batch.painted, 5)
    known = (1 - near) * batch.valid
    known_coarse = 1 - F.max_pool2d(1 - known, FINE)
    emphasis = torch.ones_like(known_coarse)
    for window in answer.painted.values():
        x0, y0, x1, y1 = window.box
        emphasis[:, :, y0:y1, x0:x1] = _LIDS_AND_LIPS
    mask, paint = answer.flow.new_zeros(()), answer.flow.new_zeros(())
    for window in answer.painted.values():
        x0, y0, x1, y1 = (FINE * value for value in window.box)
        photo, shifted, target, painted = (
            each[:, :, y0:y1, x0:x1] for each in (batch.photo, moved, batch.target, batch.painted)
        )
        needed = needed_paint(photo, shifted, target, painted)
        mask = mask + mask_loss(window.logit, window.fade, needed)
        lacking = (needed > 0.5).to(needed.dtype)
        paint = paint + weighted_mean((window.colour - target).abs(), lacking)
    difference = compose(answer, batch.photo) - batch.target
    changed = (batch.target - batch.photo).abs().mean(1, keepdim=True)
    weight = batch.valid * (1 + 3 * torch.tanh(changed / 0.05))
    return {
        "flow": flow_loss(answer.flow, batch.flow, known_coarse * emphasis),
        "smooth": total_variation(answer.flow),
        "shading": shading_loss(fine_shading(answer.shading), moved, batch.target, known),
        "mask": mask,
        "image": weighted_mean(difference.abs(), weight),
        "psnr": psnr_loss(difference * batch.valid),
        "edges": edge_loss(difference, weight),
        "paint": paint,
    }


def total(parts: dict[str, Tensor], weights: Weights) -> Tensor:
    """The sum of the losses by their weights."""
    return torch.stack([getattr(weights, name) * parts[name] for name in NAMES]).sum()
