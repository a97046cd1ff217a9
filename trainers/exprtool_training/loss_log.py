"""Losses between two looks at them: kept on the device, so that no step waits, and checked for NaN when read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from exprtool.errors import TrainingError


class LossLog:
    """Losses ``names`` of up to ``capacity`` steps. Reading them waits for the device (None: NumPy keeps them)."""

    def __init__(self, names: Sequence[str], capacity: int, device: Any = None) -> None:
        self._names = tuple(names)
        self._rows: Any = np.full((capacity, len(names)), math.nan)
        if device is not None:
            import torch

            self._rows = torch.full((capacity, len(names)), math.nan, device=device)
        self._steps: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def full(self) -> bool:
        return len(self._steps) == len(self._rows)

    def add(self, step: int, losses: Any) -> None:
        """Keep the losses of a step: the first ones of the names, as many as it has."""
        self._rows[len(self._steps), : len(losses)] = losses
        self._steps.append((step, len(losses)))

    def check(self) -> None:
        """Raise a `TrainingError` that names the first step and loss which is not finite."""
        for step, losses in self._kept():
            for name, value in losses.items():
                if not math.isfinite(value):
                    raise TrainingError(
                        f"The loss {name} became {value} at step {step}. Training stopped; the last checkpoint from "
                        "before is kept. Resume from it, or start anew with a lower --lr or in --precision float32."
                    )

    def take(self) -> dict[str, float]:
        """Means since the last call, by name, of those losses that occurred; then forget them."""
        self.check()
        found: dict[str, list[float]] = {}
        for _, losses in self._kept():
            for name, value in losses.items():
                found.setdefault(name, []).append(value)
        self._steps.clear()
        return {name: math.fsum(values) / len(values) for name, values in found.items()}

    def _kept(self) -> list[tuple[int, dict[str, float]]]:
        rows = self._rows[: len(self._steps)].tolist()
        return [
            (step, dict(zip(self._names[:count], row[:count], strict=True)))
            for (step, count), row in zip(self._steps, rows, strict=True)
        ]
