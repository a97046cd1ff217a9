"""Mean and spread of a measure over pictures, leaving out those that could not be measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Stat:
    """Mean, sample standard deviation (n - 1; 0 for one value) and number of values; NaN for none.

    ``missing`` counts pictures that could not be measured (no face found, service refused).
    """

    mean: float
    sd: float
    count: int
    missing: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> Stat:
        """Over the finite values; NaN counts as missing."""
        array = np.fromiter(values, dtype=np.float64)
        finite = array[np.isfinite(array)]
        if not len(finite):
            return cls(float("nan"), float("nan"), 0, len(array))
        sd = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
        return cls(float(finite.mean()), sd, len(finite), len(array) - len(finite))

    def to_json(self) -> dict[str, Any] | None:
        """For JSON, which has no NaN: None where nothing was measured."""
        return asdict(self) if self.count else None
