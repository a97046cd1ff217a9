"""A look at the held-out people: how near the pictures come to the renders, and a sheet to see it by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from exprtool_flow.augment import Batch, Variation, collate, vary
from exprtool_flow.compose import compose, painted_over
from exprtool_flow.losses import losses, points_loss, reading_loss
from exprtool_flow.networks import FlowNet
from exprtool_flow.shards import PairSet
from exprtool_training.method import Sheet
from exprtool_training.watch import Look

_BATCH = 16
_SHEET = 10


class Looker:
    """Looks at the same pairs, unvaried, every time, spread evenly over ``members``, with their landmarks known, as
    those of photos are. ``unseen`` tells whether these are held-out people; of people that the network was trained on,
    the figures prove nothing."""

    def __init__(
        self, pairs: PairSet, members: NDArray[np.int64], size: int, count: int, device: torch.device,
        typical: Tensor, *, unseen: bool,
    ) -> None:  # fmt: skip
        self.unseen, self._typical = unseen, typical
        spread = np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int)
        self._pairs, self._members, self._size, self._device = pairs, members[spread], size, device

    def look(self, net: FlowNet) -> Look:
        """Run the network over the pairs: PSNR to the target and that of the untouched source, in decibels on crops of
        S pixels, averaged over pairs; and the losses."""
        psnr: list[Tensor] = []
        untouched: list[Tensor] = []
        sums: dict[str, float] = {}
        for start in range(0, len(self._members), _BATCH):
            batch = self._batch(self._members[start : start + _BATCH])
            with torch.no_grad():
                answer, seen = net(batch.seen, batch.wanted, known=batch.points)
                psnr.append(_psnr(compose(answer, batch.photo).clamp(0, 1), batch.target))
                untouched.append(_psnr(batch.photo, batch.target))
                parts = losses(answer, batch)
                parts["reading"] = reading_loss(seen.worn, batch.worn, self._typical)
                parts["points"] = points_loss(seen.found, batch.points)
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(batch.seen)
        count = len(self._members)
        score, before = float(torch.cat(psnr).mean()), float(torch.cat(untouched).mean())
        figures = {
            "psnr": score,
            "untouched": before,
            **{f"loss_{name}": value / count for name, value in sums.items()},
        }
        proof = "" if self.unseen else ", on people trained on"
        return Look(score, figures, f"{score:.2f} dB (untouched {before:.2f}){proof}")

    def sheet(self, net: FlowNet) -> Sheet:
        """The first few pairs: source, render, the network's picture, its paint mask, the error."""
        few = np.unique(np.linspace(0, len(self._members) - 1, _SHEET).round().astype(int))
        batch = self._batch(self._members[few])
        with torch.no_grad():
            answer, _ = net(batch.seen, batch.wanted, known=batch.points)
            picture = compose(answer, batch.photo).clamp(0, 1)
            mask = painted_over(answer)[0].expand_as(picture)
        error = (0.5 + 2 * (picture - batch.target)).clamp(0, 1)
        columns = [_pixels(each) for each in (batch.target, picture, mask, error)]
        labels = ("render", "network", "paint mask", "error x 2")
        return _pixels(batch.photo), np.stack(columns, axis=1), labels

    def _batch(self, members: Sequence[int] | NDArray[np.int64]) -> Batch:
        random = np.random.default_rng(0)  # nothing is varied, so nothing depends on it
        return collate([vary(self._pairs[int(i)], self._size, Variation(), random) for i in members], self._device)


def _psnr(picture: Tensor, target: Tensor) -> Tensor:
    """Of each picture (N, 3, 2S, 2S), averaged down to the crop's own pixels."""
    error = (F.avg_pool2d(picture, 2) - F.avg_pool2d(target, 2)).pow(2).mean((1, 2, 3))
    return -10 * torch.log10(error.clamp(min=1e-9)).cpu()


def _pixels(pictures: Tensor) -> NDArray[np.uint8]:
    return pictures.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
