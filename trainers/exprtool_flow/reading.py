"""Reading what a face wears from its landmarks: learned before anything else, from all the landmarks of a set.

Three kinds of faces teach the reader. Portraits wear what the fit finds in them. Their landmarks in other proportions,
of which the set has as many as pairs, wear what a fit finds in these, and so do the heads of `exprtool_flow.readings`,
where there are some; portraits then come from there. Renders wear what they were given, which a fit
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
"""Largest standard deviation of the landmarks, shares of the side: the encoder finds them no better."""


def fit_reader(
    pairs: PairSet, members: Sequence[int] | NDArray[np.int64], controls: int, typical: Tensor, seed: int,
    readings: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> Reader:  # fmt: skip
    """The reader over ``members`` of the set and ``readings``, points (N, 68, 2) in shares of the side with weights
    (N, C); ``typical`` (F, C) says what an error in a control counts."""
    faces, renders = _faces(pairs, members, portraits=readings is None)
    if readings is not None:
        more = _mirrored_too(*readings)
        faces = torch.cat([faces[0], more[0]]), torch.cat([faces[1], more[1]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = Reader(controls)
        adam = torch.optim.AdamW(reader.parameters(), _RATE, weight_decay=_DECAY)
        steps = min(_LONGEST, 1 + _EPOCHS * len(faces[0]) // _BATCH)
        for step in range(steps):
            for group in adam.param_groups:
                group["lr"] = _RATE * (1 - step / steps)
            loss = torch.zeros(())
            for (points, worn), share in ((faces, 1.0), (renders, _RENDERS)):
                drawn = torch.randint(len(points), (_BATCH,))
                spread = _ASTRAY * torch.rand(_BATCH, 1, 1)
                at = points[drawn] + spread * torch.randn(_BATCH, POINTS, 2)
                loss = loss + share * reading_loss(reader(at), worn[drawn], typical)
            adam.zero_grad()
            loss.backward()
            adam.step()
    return reader.requires_grad_(False)


def _faces(
    pairs: PairSet, members: Sequence[int] | NDArray[np.int64], *, portraits: bool
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Points (N, 68, 2), shares of the side, and weights (N, C): of faces without a render, with the ``portraits``
    themselves or only in other proportions, and of renders."""
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
            if portraits or kind or at is pair.other_points:
                points[kind].append(np.asarray(at))
                worn[kind].append(np.asarray(weights))
    return tuple(
        _mirrored_too((np.stack(at) + 0.5) / pairs.size, np.stack(weights))
        for at, weights in zip(points, worn, strict=True)
    )


def _mirrored_too(points: NDArray[np.floating], worn: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
    both = np.concatenate([points, mirrored68(points)]), np.concatenate([worn, worn[:, MIRRORED]])
    return torch.from_numpy(both[0]).float(), torch.from_numpy(both[1]).float()
