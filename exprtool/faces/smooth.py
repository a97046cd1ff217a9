"""Steady landmarks: what a predictor sees in each frame, and how the picture moved between frames, made one.

A landmark predictor looks at every frame anew; its answers shake by a pixel or so. Optical flow between two frames is
precise to a fraction of a pixel but drifts when summed up. Both are put into one linear model per coordinate,

    x[t] = x[t-1] + flow[t] + w,   w ~ N(0, drift[t]^2)      (the point moved as the picture did)
    z[t] = x[t] + v,               v ~ N(0, noise^2)         (the predictor saw it there)

and the best estimate of all x given all z, those that come later included, is the Rauch-Tung-Striebel smoother (Rauch,
Tung and Striebel, AIAA Journal 3(8), 1965). Being two-sided it does not lag, and because the motion comes from the flow
it does not flatten fast movements such as those of a talking mouth. Outliers of z are weighed down by iterating with
Student t weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 3
_CHUNK = 12
_FREEDOM = 4.0  # degrees of freedom of the t distribution: outliers beyond about 3 sigma lose their weight


def smooth(
    measured: NDArray[np.floating], flow: NDArray[np.floating], drift: NDArray[np.floating], noise: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Smoothed positions (n, p, 2) of p points over n frames.

    ``measured`` (n, p, 2) in pixels holds NaN where a frame has no measurement; ``flow`` (n, p, 2) is the displacement
    from the frame before (that of the first frame is ignored); ``drift`` (n, p) and ``noise`` (n,) are standard
    deviations in pixels. At least one frame must be measured.
    """
    seen = np.asarray(np.isfinite(measured).all(axis=(1, 2)))
    if not seen.any():
        raise ValueError("no frame is measured")
    variance = np.where(seen, np.square(noise.astype(np.float64)), np.inf)  # (n,)
    result = np.empty(measured.shape, np.float64)
    for begin in range(0, measured.shape[1], _CHUNK):  # points are independent; a few at a time take little memory
        part = slice(begin, begin + _CHUNK)
        z = np.where(seen[:, None, None], measured[:, part], 0.0).astype(np.float64)
        result[:, part] = _robust(z, flow[:, part], drift[:, part], variance)
    return result


def _robust(
    z: NDArray[np.float64], flow: NDArray[np.floating], drift: NDArray[np.floating], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The smoother, with outliers weighed down round by round."""
    base = variance[:, None] * np.ones(z.shape[1])  # (n, p)
    x = _rts(z, flow, drift, base)
    for _ in range(_ROUNDS - 1):
        residual = np.square(z - x).sum(axis=2) / 2  # per coordinate
        weights = (_FREEDOM + 2) / (_FREEDOM + residual / np.where(np.isfinite(base), base, 1.0) * 2)
        x = _rts(z, flow, drift, base / np.minimum(weights, 1.0))
    return x


def _rts(
    z: NDArray[np.float64], flow: NDArray[np.floating], drift: NDArray[np.floating], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Forward filter and backward smoother; both coordinates of a point share its variances."""
    n, points = variance.shape
    move = flow.astype(np.float64)
    process = np.square(drift.astype(np.float64))
    first = int(np.flatnonzero(np.isfinite(variance[:, 0]))[0])
    # Frames before the first measurement are reached by running the flow backwards from it.
    start = z[first] - move[1 : first + 1].sum(axis=0)
    mean, spread = start, np.full(points, 1e6)
    means, spreads = np.empty_like(z), np.empty((n, points))
    ahead, ahead_spread = np.empty_like(z), np.empty((n, points))
    for t in range(n):
        if t:
            mean, spread = mean + move[t], spread + process[t]
        ahead[t], ahead_spread[t] = mean, spread
        gain = spread / (spread + variance[t])
        mean = mean + gain[:, None] * (z[t] - mean)
        spread = (1 - gain) * spread
        means[t], spreads[t] = mean, spread
    x = means.copy()
    for t in range(n - 2, -1, -1):
        gain = spreads[t] / ahead_spread[t + 1]
        x[t] = means[t] + gain[:, None] * (x[t + 1] - ahead[t + 1])
    return x
