"""How faces move, by least squares over a set: what the network knows before it has learned anything.

A face model moves each point of a face in proportion to the weights of its controls. Seen in a picture, the proportion
depends on how the head is built and turned, which landmarks tell. So the forward motion of a point of the mean face is

    m(u) = sum_c d_c (B_c0(u) + sum_k z_k B_ck(u)),

with d the difference of the weights and z the shape code, the principal components of the landmarks' displacements.
Over the faces of 486 portraits and 615 others this leaves a quarter of the motion unexplained, where one flow for all
faces in the crop's own frame leaves more than a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from exprtool_flow.fields import inverted, sample
from exprtool_flow.points import carried, displacement_weights, grid, mean_points
from exprtool_flow.shards import PairSet, StoredPair

CELLS = 32
"""Along either side of the mean face's frame."""
SHAPES = 4
"""Principal components of the landmarks; seven explain the training people better and others worse."""
_ENOUGH = 4000
_RIDGE = 1.0
"""Added to the normal equations, in units of squared weights: controls that hardly occur keep still."""
_AT_ONCE = 64
_TRACE = 2
"""Of 255: a cell with more paint than that has no flow to learn from."""


@dataclass(frozen=True, eq=False)
class Motion:
    """``shape`` (K, 136) takes the landmarks' displacements from their means, shares of the side, to the shape code,
    of mean 0 and variance 1; ``basis`` (C, 1 + K, 2, CELLS, CELLS) are the B of above, as shares of the crop's side."""

    shape: Tensor
    basis: Tensor

    @property
    def typical(self) -> Tensor:
        """The motion (F, C) of the mean face by each control at weight 1, on half as many cells."""
        return F.avg_pool2d(self.basis[:, 0], 2).flatten(1).T.contiguous()


def bilinear(difference: Tensor, shape: Tensor) -> Tensor:
    """What the motion is linear in: differences of weights (N, C) with shape codes (N, K) -> (N, C * (1 + K))."""
    one = torch.cat([torch.ones_like(shape[:, :1]), shape], dim=1)
    return (difference[:, :, None] * one[:, None]).flatten(1)


def fit_motion(pairs: PairSet, members: Sequence[int] | NDArray[np.int64]) -> Motion:
    """The motion over ``members`` of the set, evenly chosen, not more than are needed."""
    chosen = np.unique(np.linspace(0, len(members) - 1, min(_ENOUGH, len(members))).round().astype(int))
    seen = [_look(pairs[int(members[i])]) for i in chosen]
    difference, away, flow, known = (torch.from_numpy(np.stack(each)) for each in zip(*seen, strict=True))
    shape = _principal(away)
    motion, sure = _forward(flow, known, away)
    inputs = bilinear(difference, F.linear(away.flatten(1), shape))
    basis = _solved(inputs.double().numpy(), motion.flatten(2).double().numpy(), sure.flatten(1).numpy() > 0)
    return Motion(shape, torch.from_numpy(basis).float().reshape(-1, 1 + len(shape), 2, CELLS, CELLS))


def _look(pair: StoredPair) -> tuple[NDArray[np.float32], ...]:
    """Difference of the weights (C,), displacements of the source's landmarks (68, 2), and at twice `CELLS` the flow
    (2, H, W), both as shares of the side, and where it is known (1, H, W)."""
    side, cells = pair.flow.shape[0], 2 * CELLS
    flow = cv2.resize(np.asarray(pair.flow, np.float32) / side, (cells, cells), interpolation=cv2.INTER_AREA)
    painted = cv2.dilate(np.asarray(pair.painted), np.ones((5, 5), np.uint8))
    free = cv2.resize(painted, (cells, cells), interpolation=cv2.INTER_AREA) < _TRACE
    difference = np.asarray(pair.target_weights, np.float32) - np.asarray(pair.source_weights, np.float32)
    away = (np.asarray(pair.source_points, np.float32) + 0.5) / side - mean_points().numpy()
    return difference, away, np.ascontiguousarray(flow.transpose(2, 0, 1)), free[None].astype(np.float32)


def _principal(away: Tensor) -> Tensor:
    """The projection (K, 136) of displacements (N, 68, 2) onto their main directions, scaled to variance 1."""
    rows = away.flatten(1)
    _, size, directions = torch.linalg.svd(rows, full_matrices=False)
    count = min(SHAPES, len(size))
    return directions[:count] * (len(rows) ** 0.5 / size[:count, None].clamp(min=1e-6))


def _forward(flow: Tensor, known: Tensor, away: Tensor) -> tuple[Tensor, Tensor]:
    """The forward motion (N, 2, CELLS, CELLS) of the mean face's points, and where it is known."""
    place = grid(CELLS)
    motion, sure = [], []
    for rows in torch.arange(len(flow)).split(_AT_ONCE):
        on = place + carried(away[rows], displacement_weights(CELLS))
        forward = inverted(flow[rows])
        there = sample(known[rows], grid(2 * CELLS) + forward)
        motion.append(sample(forward, on))
        sure.append((sample(there, on) > 0.99).float())
    return torch.cat(motion), torch.cat(sure)


def _solved(inputs: NDArray[np.float64], motion: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ridge regression of ``motion`` (N, 2, M) on ``inputs`` (N, D), for each cell over the faces where it is
    ``known`` (N, M): (D, 2, M)."""
    count = inputs.shape[1]
    normal = inputs.T @ inputs + _RIDGE * np.eye(count)
    found = np.zeros((count, *motion.shape[1:]))
    for cell in range(motion.shape[2]):
        sure = known[:, cell]
        without = inputs[~sure]  # mostly few: what is painted are mouths and eyes
        found[:, :, cell] = np.linalg.solve(normal - without.T @ without, inputs[sure].T @ motion[sure, :, cell])
    return found
