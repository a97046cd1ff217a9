"""Light: how much lighter or darker skin becomes where its surface turns or sinks in.

The photo keeps its own light; only the ratio of shading after to shading before is applied, so albedo never has to be
known. Light is second-order spherical harmonics of the surface normal (R. Ramamoorthi and P. Hanrahan, "An Efficient
Representation for Irradiance Environment Maps", SIGGRAPH 2001), fitted to the photo's own skin in linear light.

Conventions
-----------
* Normals are unit vectors (x right, y up, z to the viewer) of the upright working frame.
* Results are logarithms of the ratio in linear light; `applied` turns them into gains for gamma-encoded values.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid
from exprtool_blendshape.compiled import rise

GAMMA = 2.2
SHADOW_EXPONENTS = np.array([0.85, 1.08, 1.18], np.float32)
"""Skin shadows are redder than grey: light that entered the skin fills them. R, G, B."""
CAVITY_STRENGTH = 1.25
_CAVITY_SCALES = ((0.14, 1.6), (0.40, 0.8))
"""(cm, weight): folds and hollows are found as depth below the surroundings' mean at these ranges."""
MOST_BRIGHTENING, MOST_DARKENING = 0.20, 1.1


@dataclass(frozen=True, eq=False)
class Light:
    """``harmonics`` (9,) float32; ``ambient`` the typical shading; ``trust`` in [0, 1], how much of the photo's own
    shading the fit explains: hard shadows and make-up are not explained, and then the ratio is held back."""

    harmonics: Grid
    ambient: float
    trust: float


def basis(normals: Grid) -> Grid:
    """The nine harmonics (unnormalised) of unit normals (..., 3)."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)


def fit_light(luminance: Grid, normals: Grid) -> Light:
    """Fit light to linear luminance (n,) of skin with unit normals (n, 3), robustly: moles, beards and highlights
    are out."""
    if len(luminance) < 50:
        return Light(np.array([1, 0, 0, 0, 0, 0, 0, 0, 0], np.float32), 1.0, 0.0)
    design = basis(normals.astype(np.float64))
    values = luminance.astype(np.float64)
    ridge = np.diag([0, 0.3, 0.3, 0.3, 3, 3, 3, 3, 3]) ** 2 * len(values) * 0.0009
    weight = np.ones(len(values))
    solution = np.zeros(9)
    for _ in range(6):
        weighted = design * weight[:, None]
        solution = np.linalg.solve(weighted.T @ design + ridge, weighted.T @ values)
        residual = values - design @ solution
        spread = np.median(np.abs(residual)) * 1.48 + 1e-6
        weight = (residual > -2.5 * spread) / (1 + (residual / spread) ** 2)
    shading = design @ solution
    ambient = float(max(np.median(shading), 1e-3))
    unexplained = float(np.median(np.abs(values - shading)) * 1.48 / ambient)
    return Light(solution.astype(np.float32), ambient, float(np.clip(1.35 - 2.2 * unexplained, 0.25, 1.0)))


def cavity(depth: Grid, skin: NDArray[np.bool_], u: float) -> Grid:
    """How far (cm) the surface lies below its blurred surroundings, (H, W); ``depth`` in work pixels, 0 off the
    skin."""
    mask = skin.astype(np.float32)
    level = np.where(skin, depth, 0).astype(np.float32)
    middle = float(level.sum() / max(mask.sum(), 1))
    level = (level - middle) * mask
    total = np.zeros_like(level)
    for sigma_cm, weight in _CAVITY_SCALES:
        step = max(1, int(sigma_cm * u / 2.5))
        size = (max(1, level.shape[1] // step), max(1, level.shape[0] // step))
        sigma = sigma_cm * u / step
        coarse = cv2.GaussianBlur(cv2.resize(level, size, interpolation=cv2.INTER_AREA), (0, 0), sigma)
        share = cv2.GaussianBlur(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), (0, 0), sigma)
        mean = cv2.resize(coarse / (share + 1e-4), (level.shape[1], level.shape[0]), interpolation=cv2.INTER_LINEAR)
        total += weight * (mean - level) / u
    return total * mask


def burnt(picture: Grid, u: float) -> Grid:
    """Where the photo (H, W, 3) in [0, 1] is burnt out, (H, W) in [0, 1]: darkened, white would turn grey, not skin."""
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    # pairwise: along the last axis NumPy takes ten times as long
    least, most = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    pale = np.clip((least - 0.62) / 0.2, 0, 1) * np.clip((most - 0.85) / 0.1, 0, 1)
    return np.clip(1.5 * cv2.GaussianBlur(pale.astype(np.float32), (0, 0), 0.30 * u), 0, 1)


def log_ratio(light: Light, before: Grid, after: Grid) -> Grid:
    """Log of shading after over before, (H, W), for interpolated normals (H, W, 3), faded out where skin turns away."""
    out = np.zeros(before.shape[:2], np.float32)
    _log_ratio(light.harmonics, np.float32(0.3 * light.ambient), before, after, out)
    return out * np.float32(light.trust)


@njit(cache=True, fastmath=True)
def _log_ratio(c, floor, before, after, out):  # pragma: no cover - compiled
    height, width = out.shape
    for i in range(height):
        for j in range(width):
            size_before = np.sqrt(before[i, j, 0] ** 2 + before[i, j, 1] ** 2 + before[i, j, 2] ** 2)
            size_after = np.sqrt(after[i, j, 0] ** 2 + after[i, j, 1] ** 2 + after[i, j, 2] ** 2)
            if size_before < 1e-3 or size_after < 1e-3:
                continue
            x, y, z = before[i, j, 0] / size_before, before[i, j, 1] / size_before, before[i, j, 2] / size_before
            lowest = z
            old = (
                c[0]
                + c[1] * x
                + c[2] * y
                + c[3] * z
                + c[4] * x * y
                + c[5] * x * z
                + c[6] * y * z
                + c[7] * (x * x - y * y)
                + c[8] * (3 * z * z - 1)
            )
            x, y, z = after[i, j, 0] / size_after, after[i, j, 1] / size_after, after[i, j, 2] / size_after
            new = (
                c[0]
                + c[1] * x
                + c[2] * y
                + c[3] * z
                + c[4] * x * y
                + c[5] * x * z
                + c[6] * y * z
                + c[7] * (x * x - y * y)
                + c[8] * (3 * z * z - 1)
            )
            out[i, j] = np.log(max(new, floor) / max(old, floor)) * rise(min(lowest, z), 0.10, 0.50)


def limited(log_gain: Grid, near_eyes: Grid | float = 0.0) -> Grid:
    """Soft limits: skin brightens little (less still beside the eyes, where it looks like swelling), darkens more."""
    bright = (1 - 0.75 * near_eyes) * MOST_BRIGHTENING * np.tanh(log_gain / MOST_BRIGHTENING)
    dark = MOST_DARKENING * np.tanh(log_gain / MOST_DARKENING)
    return np.where(log_gain > 0, bright, dark).astype(np.float32)


def applied(colour: Grid, log_gain: Grid, tinted: float = 1.0) -> Grid:
    """Gamma-encoded colour (H, W, 3) in [0, 1] under a log gain (H, W) of linear light.

    Brightening fades out towards clipped channels: a highlight that already misses a channel would change its hue.
    ``tinted`` 0 keeps shadows neutral (grey photos).
    """
    gain = log_gain / np.float32(GAMMA)
    headroom = np.clip((0.99 - colour.max(-1)) / 0.25, 0, 1)
    bright = np.maximum(gain, 0) * headroom
    dark = np.minimum(gain, 0)
    exponents = 1 + tinted * (SHADOW_EXPONENTS - 1)
    return colour * np.exp(dark[..., None] * exponents + bright[..., None])
