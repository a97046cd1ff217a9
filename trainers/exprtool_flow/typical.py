"""How faces move on average: the motion that is linear in the difference of the weights, by least squares over the set.

It explains most of what moves (90 % of the variance in a set of 615 portraits), and a network that has to find it by
gradient descent spends thousands of steps on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from exprtool_flow.fields import backward_flow
from exprtool_flow.networks import COARSE, MODES, Decoder
from exprtool_flow.shards import PairSet

_ENOUGH = 4000
_RIDGE = 0.3
"""Added to the normal equations, in units of squared weights: controls that hardly occur keep still."""


def start_from_typical(decoder: Decoder, pairs: PairSet, members: Sequence[int] | NDArray[np.int64]) -> float:
    """Give the decoder the typical motion of ``members`` (evenly chosen, not more than are needed) to set out from,
    and its modes: the principal components of what it does to them, each with a standard deviation of 1.

    Returns the share of the variance of these motions that it explains.
    """
    chosen = np.unique(np.linspace(0, len(members) - 1, min(_ENOUGH, len(members))).round().astype(int))
    rows = [_row(pairs, int(members[i])) for i in chosen]
    difference, motion = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
    normal = difference.T @ difference + _RIDGE * np.eye(difference.shape[1])
    solution = np.linalg.solve(normal, difference.T @ motion)
    # Of `difference @ solution`, which has many rows, the same as of a triangle that has few.
    _, size, components = np.linalg.svd(np.linalg.cholesky(normal).T @ solution, full_matrices=False)
    size, components = size[:MODES], components[:MODES]
    modes = (solution @ components.T / np.maximum(size / len(rows) ** 0.5, 1e-6)).T
    with torch.no_grad():
        decoder.typical.copy_(torch.from_numpy(solution.T))
        decoder.modes[: len(modes)].copy_(torch.from_numpy(modes))
    return float(1 - ((difference @ solution - motion) ** 2).sum() / max((motion**2).sum(), 1e-12))


def _row(pairs: PairSet, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Difference of the weights (C,), and the forward motion of the source (2 * COARSE**2,), channels first, as a share
    of the crop's side."""
    pair = pairs[index]
    side = 2 * COARSE
    flow = cv2.resize(np.asarray(pair.flow, np.float32), (side, side), interpolation=cv2.INTER_AREA)
    flow = torch.from_numpy(flow.transpose(2, 0, 1)[None].copy()) * (side / pair.flow.shape[0])
    motion = F.avg_pool2d(backward_flow(flow), 2)[0] / side  # the way back of the way back
    difference = np.array(pair.target_weights, np.float64) - np.array(pair.source_weights, np.float64)
    return difference, motion.numpy().ravel().astype(np.float64)
