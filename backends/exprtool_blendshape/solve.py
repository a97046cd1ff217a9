"""Quadratic problems with bounds: the inner step of the fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bounded_minimum(
    hessian: NDArray[np.float64],
    gradient: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    rounds: int = 60,
    start: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The x in [low, high] that minimises x' H x / 2 - g' x, for a positive definite ``hessian`` (n, n).

    Block principal pivoting: bounds that the free solution breaks are taken on, bounds whose multiplier pushes inward
    are given up. Where the set of active bounds does not settle within ``rounds`` (it may cycle), the last solution
    is polished by cyclic coordinate descent, which always converges. The bounds that ``start`` (n,) lies at are active
    at first: near the answer that saves most of the rounds, and the answer is the same.
    """
    n = len(gradient)
    at_low = np.zeros(n, dtype=bool) if start is None else start <= low
    at_high = np.zeros(n, dtype=bool) if start is None else start >= high
    x = np.zeros(n)
    for _ in range(rounds):
        free = ~(at_low | at_high)
        x = np.where(at_low, low, np.where(at_high, high, 0.0))
        if free.any():
            right = gradient[free] - hessian[np.ix_(free, ~free)] @ x[~free]
            x[free] = np.linalg.solve(hessian[np.ix_(free, free)], right)
        slope = hessian @ x - gradient
        below, above = free & (x < low - 1e-12), free & (x > high + 1e-12)
        give_low, give_high = at_low & (slope < -1e-9), at_high & (slope > 1e-9)
        if not (below.any() or above.any() or give_low.any() or give_high.any()):
            return np.clip(x, low, high)
        at_low = (at_low & ~give_low) | below
        at_high = (at_high & ~give_high) | above
    x = np.clip(x, low, high)
    for _ in range(200):
        before = x.copy()
        for i in range(n):
            x[i] = np.clip(x[i] + (gradient[i] - hessian[i] @ x) / hessian[i, i], low[i], high[i])
        if np.abs(x - before).max() < 1e-9:
            break
    return x
