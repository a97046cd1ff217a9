"""Reading what a face wears from its landmarks: learned before anything else, from all the landmarks of a set.

Best is to ask a fit about very many heads (`exprtool_flow.readings`). Without that, three kinds of faces teach the
reader. Portraits wear what the fit finds in them. Their landmarks in other proportions, of which the set has as many as
pairs, wear what a fit finds in these. Renders wear what they were given, which a fit
would hardly find again: they show the reader strong expressions but count little, for where a faint one looks like the
shape of somebody's face, it is that in every photo that the network will be given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exprtool.faces.landmarks import mirrored68
from exprtool_flow.augment import MIRRORED
from exprtool_flow.losses import reading_loss
from exprtool_flow.networks import Reader
from exprtool_flow.points import POINTS
from exprtool_flow.shards import PairSet

_BATCH = 192
"""Of either sort of faces."""
_EPOCHS, _LONGEST = 40, 20_000
"""How often every face is drawn, and after how many steps it is enough."""
_RATE, _DECAY = 2e-3, 1e-2
_RENDERS = 0.1
"""What a render counts."""
_ASTRAY = 0.8 / 128
"""Largest standard deviation of the landmarks, shares of the side: the encoder finds them no better. Many heads need no
such blur, which would take the edge off the fit's thresholds."""


def fit_reader(
    pairs: PairSet, members: Sequence[int] | NDArray[np.int64], controls: int, typical: Tensor, seed: int,
    readings: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> Reader:  # fmt: skip
    """The reader over ``members`` of the set, or over ``readings``: points (N, 68, 2) in shares of the side and weights
    (N, C). ``typical`` (F, C) says what an error in a control counts."""
    taught: list[tuple[tuple[Tensor, Tensor], float, float]]
    if readings is None:
        faces, renders = _faces(pairs, members)
        taught = [(faces, 1.0, _ASTRAY), (renders, _RENDERS, _ASTRAY)]
    else:
        taught = [(_mirrored_too(*readings), 1.0, 0.0)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = Reader(controls)
        adam = torch.optim.AdamW(reader.parameters(), _RATE, weight_decay=_DECAY)
        steps = min(_LONGEST, 1 + _EPOCHS * len(taught[0][0][0]) // _BATCH)
        for step in range(steps):
            for group in adam.param_groups:
                group["lr"] = _RATE * (1 - step / steps)
            loss = torch.zeros(())
            for (points, worn), share, astray in taught:
                drawn = torch.randint(len(points), (_BATCH,))
                spread = astray * torch.rand(_BATCH, 1, 1)
                at = points[drawn] + spread * torch.randn(_BATCH, POINTS, 2)
                loss = loss + share * reading_loss(reader(at), worn[drawn], typical)
            adam.zero_grad()
            loss.backward()
            adam.step()
    return reader.requires_grad_(False)


def _faces(pairs: PairSet, members: Sequence[int] | NDArray[np.int64]) -> tuple[tuple[Tensor, Tensor], ...]:
    """Points (N, 68, 2), shares of the side, and weights (N, C): of faces without a render, and of renders."""
    points: tuple[list[NDArray], list[NDArray]] = ([], [])
    worn: tuple[list[NDArray], list[NDArray]] = ([], [])
    for member in members:
        pair = pairs[int(member)]
        drawn = int(pair.source_drawn[0])
        for kind, at, weights in (
            (drawn, pair.source_points, pair.source_weights),
            (1, pair.target_points, pair.target_weights),
            (0, pair.other_points, pair.other_weights),
        ):
            points[kind].append(np.asarray(at))
            worn[kind].append(np.asarray(weights))
    return tuple(
        _mirrored_too((np.stack(at) + 0.5) / pairs.size, np.stack(weights))
        for at, weights in zip(points, worn, strict=True)
    )


def _mirrored_too(points: NDArray[np.floating], worn: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
    both = np.concatenate([points, mirrored68(points)]), np.concatenate([worn, worn[:, MIRRORED]])
    return torch.from_numpy(both[0]).float(), torch.from_numpy(both[1]).float()
