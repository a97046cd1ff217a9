"""The 68 landmarks inside the network: where they are on average, and the frame that they span over a face.

Coordinates are shares of the crop's side from its upper left corner: (x, y), x to the right.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_MEAN68 = (
    (0.142, 0.346), (0.146, 0.441), (0.158, 0.534), (0.176, 0.626), (0.207, 0.712), (0.260, 0.787), (0.329, 0.847),
    (0.408, 0.894), (0.500, 0.907), (0.592, 0.894), (0.671, 0.847), (0.740, 0.787), (0.793, 0.712), (0.824, 0.626),
    (0.842, 0.534), (0.854, 0.441), (0.858, 0.346), (0.204, 0.273), (0.248, 0.226), (0.313, 0.211), (0.380, 0.219),
    (0.444, 0.243), (0.556, 0.243), (0.620, 0.219), (0.687, 0.211), (0.752, 0.226), (0.796, 0.273), (0.500, 0.318),
    (0.500, 0.378), (0.500, 0.437), (0.500, 0.499), (0.427, 0.545), (0.462, 0.557), (0.500, 0.568), (0.538, 0.557),
    (0.573, 0.545), (0.277, 0.334), (0.316, 0.310), (0.363, 0.310), (0.405, 0.341), (0.361, 0.349), (0.314, 0.350),
    (0.595, 0.341), (0.637, 0.310), (0.684, 0.310), (0.723, 0.334), (0.686, 0.350), (0.639, 0.349), (0.364, 0.671),
    (0.414, 0.644), (0.464, 0.630), (0.500, 0.639), (0.536, 0.630), (0.586, 0.644), (0.636, 0.671), (0.587, 0.710),
    (0.539, 0.727), (0.500, 0.731), (0.461, 0.727), (0.413, 0.710), (0.387, 0.672), (0.463, 0.665), (0.500, 0.668),
    (0.537, 0.665), (0.613, 0.672), (0.537, 0.680), (0.500, 0.684), (0.463, 0.680),
)  # fmt: skip
"""The mean over the 7,314 sources of a set of 615 portraits, made symmetric."""

POINTS = len(_MEAN68)
_NEAR = 0.05
"""Standard deviation of a landmark about its mean, before anything was seen."""
_REACH = 0.09
"""How far a landmark's displacement carries over the face: standard deviation of the Gaussian."""
_RIDGE = 0.3
"""Added to the kernel's diagonal: neighbours that disagree are averaged rather than followed into folds."""


def mean_points() -> Tensor:
    """(68, 2)."""
    return torch.tensor(_MEAN68)


def centres(cells: int) -> Tensor:
    """Of a grid of ``cells`` along either side, (cells,)."""
    return (torch.arange(cells) + 0.5) / cells


def expected(cells: int) -> Tensor:
    """Logarithm of where each landmark is expected, (68, cells, cells), up to a constant."""
    at, mean = centres(cells), mean_points()
    x = (at[None, None, :] - mean[:, 0, None, None]).pow(2)
    y = (at[None, :, None] - mean[:, 1, None, None]).pow(2)
    return -(x + y) / (2 * _NEAR**2)


def grid(cells: int) -> Tensor:
    """The centres as points (1, 2, cells, cells)."""
    at = centres(cells)
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y])[None]


def displacement_weights(cells: int) -> Tensor:
    """How much each landmark's displacement from its mean counts at each centre, (cells * cells, 68): interpolation by
    Gaussian radial basis functions, smoothed, 0 far from all landmarks."""
    mean, at = mean_points().double(), grid(cells)[0].flatten(1).T.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b).pow(2) / (2 * _REACH**2))

    among = kernel(mean, mean) + _RIDGE * torch.eye(POINTS, dtype=torch.float64)
    return torch.linalg.solve(among, kernel(mean, at)).T.float().contiguous()


def carried(away: Tensor, weights: Tensor) -> Tensor:
    """Displacements (N, 68, 2) of the landmarks, carried over the grid of `displacement_weights`: (N, 2, h, h)."""
    cells = round(len(weights) ** 0.5)
    return F.linear(away.mT, weights).reshape(-1, 2, cells, cells)
