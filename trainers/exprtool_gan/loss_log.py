"""Losses between two looks at them: kept on the device, so that no step waits, and checked for NaN when read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exprtool.errors import TrainingError
from exprtool_gan.step import LOSS_NAMES


class LossLog:
    """Losses of up to ``capacity`` steps. Reading them waits for the device."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._rows = torch.full((capacity, len(LOSS_NAMES)), math.nan, device=device)
        self._steps: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def full(self) -> bool:
        return len(self._steps) == len(self._rows)

    def add(self, step: int, losses: Tensor) -> None:
        """Keep the losses of a step: the first ones of `LOSS_NAMES`, as many as it has."""
        self._rows[len(self._steps), : len(losses)] = losses
        self._steps.append((step, len(losses)))

    def check(self) -> None:
        """Raise a `TrainingError` that names the first step and loss which is not finite."""
        rows = self._rows[: len(self._steps)].tolist()
        for (step, count), row in zip(self._steps, rows, strict=True):
            for name, value in list(zip(LOSS_NAMES, row, strict=True))[:count]:
                if not math.isfinite(value):
                    raise TrainingError(
                        f"The loss {name} became {value} at step {step}. Training stopped; the last checkpoint from "
                        "before is kept. Resume from it with --precision float32, or start anew with a lower --lr."
                    )

    def take(self) -> dict[str, float]:
        """Means since the last call, by name, of those losses that occurred; then forget them."""
        self.check()
        rows = self._rows[: len(self._steps)]
        means = {name: value for name, value in zip(LOSS_NAMES, rows.nanmean(dim=0).tolist(), strict=True)}
        self._steps.clear()
        self._rows.fill_(math.nan)
        return {name: value for name, value in means.items() if not math.isnan(value)}
