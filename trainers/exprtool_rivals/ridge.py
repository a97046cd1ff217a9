"""Ridge regression of every pixel on the window around it, from sums over pairs that fit into memory whatever their
number.

Masked regression (Khan et al., IJCV 128:1433-1454, 2020) predicts each pixel of the target picture from the r x r
window around it in the source picture and a constant: w = (X'X + lambda I)^-1 X't, for each pixel and channel by
itself. With r = 1 this is the linear form of pixel-based synthesis (Akram and Khan, ICPR 2020).

X'X holds products of two pixels of a window. Such a product depends on where the first pixel lies and how far the
second is from it, not on whose window is meant: sums for the few different distances give the X'X of every window.
Pixels outside the picture count as zero; lambda > 0 then makes their weights exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_ROWS_AT_ONCE = 16
"""Rows of the picture whose equations are solved together: 16 x 128 of 10 unknowns take 2 MB."""


def offsets(window: int) -> list[tuple[int, int]]:
    """Where the pixels of a window lie, (dy, dx), row by row."""
    reach = window // 2
    return [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]


def distances(window: int) -> list[tuple[int, int]]:
    """(dy, dx) from one pixel of a window to another, each pair of pixels in one direction only; (0, 0) first."""
    reach = window - 1
    return [
        (dy, dx) for dy in range(reach + 1) for dx in range(-reach if dy else 0, reach + 1)
    ]  # fmt: skip


def shifted(maps: Array, dy: int, dx: int) -> Array:
    """``maps[..., y + dy, x + dx]``, zero where that lies outside."""
    h, w = maps.shape[-2:]
    moved = np.zeros_like(maps)
    ys, xs = slice(max(0, -dy), min(h, h - dy)), slice(max(0, -dx), min(w, w - dx))
    yt, xt = slice(max(0, dy), min(h, h + dy)), slice(max(0, dx), min(w, w + dx))
    moved[..., ys, xs] = maps[..., yt, xt]
    return moved


@dataclass(eq=False)
class Sums:
    """What a fit needs to know of its pairs: sums over pairs of products of pixels, maps (K, H, W) for K channels.

    ``pairs`` is their number; ``xx`` (D, K, H, W) by `distances`, ``tx`` (r^2, K, H, W) by `offsets`, ``x``, ``t`` and
    ``tt`` (K, H, W).
    """

    window: int
    pairs: NDArray[np.float64]
    xx: Array
    tx: Array
    x: Array
    t: Array
    tt: Array

    @classmethod
    def empty(cls, window: int, channels: int, height: int, width: int) -> Sums:
        shape = (channels, height, width)
        return cls(
            window, np.zeros(()), np.zeros((len(distances(window)), *shape)), np.zeros((window**2, *shape)),
            np.zeros(shape), np.zeros(shape), np.zeros(shape),
        )  # fmt: skip

    def add(self, sources: Array, targets: Array) -> None:
        """Take in pairs (N, K, H, W)."""
        self.pairs += len(sources)
        self.x += sources.sum(0)
        self.t += targets.sum(0)
        self.tt += np.einsum("nkyx,nkyx->kyx", targets, targets)
        for i, (dy, dx) in enumerate(distances(self.window)):
            self.xx[i] += np.einsum("nkyx,nkyx->kyx", sources, shifted(sources, dy, dx))
        for i, (dy, dx) in enumerate(offsets(self.window)):
            self.tx[i] += np.einsum("nkyx,nkyx->kyx", targets, shifted(sources, dy, dx))

    def solve(self, ridge: float) -> Array:
        """Weights (r^2 + 1, K, H, W): of the window's pixels in the order of `offsets`, then the constant."""
        gram, right = self._equations()
        gram += ridge * np.eye(gram.shape[-1])
        weights = np.empty(right.shape)
        for top in range(0, gram.shape[1], _ROWS_AT_ONCE):
            rows = slice(top, top + _ROWS_AT_ONCE)
            weights[:, rows] = np.linalg.solve(gram[:, rows], right[:, rows, ..., None])[..., 0]
        return np.ascontiguousarray(weights.transpose(3, 0, 1, 2))

    def error(self, weights: Array) -> float:
        """Root mean squared difference between the targets and what ``weights`` make of the sources."""
        gram, right = self._equations()
        w = weights.transpose(1, 2, 3, 0)
        squares = self.tt - 2 * (w * right).sum(-1) + np.einsum("kyxi,kyxij,kyxj->kyx", w, gram, w)
        return float(np.sqrt(max(0.0, squares.mean() / max(float(self.pairs), 1.0))))

    def _equations(self) -> tuple[Array, Array]:
        """X'X (K, H, W, r^2 + 1, r^2 + 1) and X't (K, H, W, r^2 + 1)."""
        places, index = offsets(self.window), {d: i for i, d in enumerate(distances(self.window))}
        unknowns = len(places) + 1
        gram = np.empty((*self.x.shape, unknowns, unknowns))
        right = np.concatenate([self.tx, self.t[None]]).transpose(1, 2, 3, 0)
        inside = [shifted(np.ones(self.x.shape[1:]), *place) for place in places]
        for i, (y, x) in enumerate(places):
            gram[..., i, -1] = gram[..., -1, i] = shifted(self.x, y, x)
            for j, (v, u) in enumerate(places):
                distance, first = (v - y, u - x), (y, x)
                if distance not in index:
                    distance, first = (y - v, x - u), (v, u)
                gram[..., i, j] = shifted(self.xx[index[distance]], *first) * inside[j]
        gram[..., -1, -1] = self.pairs
        return gram, right


def predict(weights: NDArray[np.floating], sources: NDArray[np.floating], window: int) -> NDArray[np.floating]:
    """What weights (r^2 + 1, K, H, W), or one such per source (N, r^2 + 1, K, H, W), make of sources (N, K, H, W)."""
    by_source = weights if weights.ndim == 5 else weights[None]
    answer = np.broadcast_to(by_source[:, -1], sources.shape).copy()
    for i, (dy, dx) in enumerate(offsets(window)):
        answer += by_source[:, i] * shifted(sources, dy, dx)  # type: ignore[arg-type]
    return answer
