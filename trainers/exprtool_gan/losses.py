"""The losses of the paper, equations 2 to 8, as pure functions of network outputs.

Letters are the paper's: ``x`` the input image, ``y`` the generated one, ``x_hat`` its reconstruction, ``c_o`` and
``c_t`` the original and the target expression. Every function returns a scalar, the mean over the batch; with the batch
split over processes the mean of their gradients is therefore the gradient of the whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from exprtool_usgan.networks import LEAK, Discriminator, HalvingConv

GpScore = str
"""``sum`` or ``mean``: which scalar of the patch scores the gradient penalty differentiates."""


def critic(score_real: Tensor, score_fake: Tensor) -> Tensor:
    """``E[D_I(y)] - E[D_I(x)]``: minus the first two terms of eq. 2, for scores of any shape."""
    return score_fake.mean() - score_real.mean()


def gradient_penalty(gradient: Tensor) -> Tensor:
    """``E[(||grad D_I(x_bar)||_2 - 1)^2]``, the last term of eq. 2, from the gradients (N, 3, S, S).

    The norm runs over all values of one image. Where it is 0 its derivative is taken as 0, not as infinity.
    """
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)  # (N,)
    return ((norm - 1) ** 2).mean()


def interpolate(x: Tensor, y: Tensor, epsilon: Tensor) -> Tensor:
    """``x_bar`` of eq. 2: a random point between each real and generated image; epsilon (N,) in [0, 1]."""
    weight = epsilon.to(x.dtype)[:, None, None, None]
    return weight * x + (1 - weight) * y


def reconstruction(x: Tensor, x_hat: Tensor) -> Tensor:
    """L_R, eq. 4. The l1 norm is divided by the number of values, as StarGAN does: lambda_R = 10 counts on that."""
    return (x - x_hat).abs().mean()


def expression(logits: Tensor, label: Tensor) -> Tensor:
    """L_C of eqs. 5 and 6: cross-entropy between D_c's logits (N, C) and labels (N,) int64."""
    return F.cross_entropy(logits, label)


def discriminator_total(
    critic: Tensor, penalty: Tensor, expr_real: Tensor, lambda_gp: float, lambda_c: float
) -> Tensor:
    """L_D, eq. 7: ``-L_A + lambda_C L_C^R``."""
    return critic + lambda_gp * penalty + lambda_c * expr_real


def generator_total(
    score_fake: Tensor, expr_fake: Tensor, reconstructed: Tensor, lambda_c: float, lambda_r: float
) -> Tensor:
    """L_G, eq. 8, less the terms of L_A that do not depend on G: ``-E[D_I(y)] + lambda_C L_C^F + lambda_R L_R``.

    The penalty depends on G through ``x_bar``, but there it shapes D and is held fixed, as in StarGAN.
    """
    return -score_fake.mean() + lambda_c * expr_fake + lambda_r * reconstructed


def score_gradient(discriminator: Discriminator, x: Tensor, score: GpScore = "sum") -> Tensor:
    """``grad D_I(x)``: (N, 3, S, S), differentiable in the discriminator's weights.

    D is convolutions and leaky ReLUs, so its gradient is a chain of transposed convolutions with a slope of 1 or LEAK
    at every unit. The slopes are constant almost everywhere; taking them from a pass without a graph and writing the
    chain out gives what differentiating twice gives, from one ordinary backward pass and well-made kernels.

    With ``sum`` the scalar is the sum of the patch scores (StarGAN, the authors' code), with ``mean`` their mean, which
    is what the critic's loss takes.
    """
    layers = [layer for layer in discriminator.main if isinstance(layer, HalvingConv)]
    slopes = _slopes(discriminator, x)
    head = discriminator.conv1.weight
    n, _, side, _ = slopes[-1].shape
    unit = torch.ones(n, 1, side, side, dtype=x.dtype, device=x.device)
    g = F.conv_transpose2d(unit if score == "sum" else unit / side**2, head, padding=1)  # (N, 2048, s, s)
    for layer, slope in zip(reversed(layers), reversed(slopes), strict=True):
        g = layer.input_gradient(g * slope)  # channels and size of the layer before
    return g  # (N, 3, S, S)


@torch.no_grad()
def _slopes(discriminator: Discriminator, x: Tensor) -> list[Tensor]:
    """The derivative of every leaky ReLU of D at ``x``, layer by layer."""
    slopes: list[Tensor] = []
    h, one, leak = x, x.new_ones(()), x.new_full((), LEAK)
    for layer in discriminator.main:
        if isinstance(layer, HalvingConv):
            h = layer(h)
        else:
            slopes.append(torch.where(h > 0, one, leak))
            h = h * slopes[-1]
    return slopes
