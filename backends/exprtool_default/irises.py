"""Irises for eyes that open from closed: the network knows that there is an eye, but paints its average, milky.

Nobody can know the eyes behind closed lids. They get what most people have, dark brown irises (12 mm wide in every
grown-up), that look straight ahead, as bright as the white that the network paints, with a window's light in them.
Eyes that the photo shows keep their own (`exprtool_default.eyes`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool_blendshape.grids import smooth
from exprtool_default.card import FlowCard
from exprtool_default.eyes import EYES

Floats = NDArray[Any]

_RADIUS = 5.9
"""Of an iris, in mm."""
_PUPIL = 0.36
"""Its share of that."""
_CLOSED, _OPEN = 0.21, 0.27
"""Height of an eye by its width up to which its iris may be hidden, and from which on it cannot be."""
_MILKY, _CLEAR = 0.12, 0.3
"""How much darker the paint is where the iris belongs than beside it, as a share, where the network does not know an
iris, and where it does."""
_BROWN = np.array([0.36, 0.22, 0.14], np.float32)
_BLACK = 0.04
"""Both beside a white of 1."""
_LIMBUS, _SHADE = 0.45, 0.35
"""How much darker an iris is at its rim, and under the upper lid."""
_LIGHT, _LIGHT_AT, _LIGHT_SIZE = 0.8, (-0.28, -0.34), 0.13
"""The light reflected in it: how bright, where and how large, in radii."""
_EDGE = 1.6
"""Pixels over which the rim fades into the white."""


def with_irises(paint: Floats, mask: Floats, points: NDArray[np.floating], card: FlowCard) -> Floats:
    """``paint`` (H, W, 3) in [0, 1] with irises in the windows of eyes that are closed in the photo and open now.

    ``mask`` (H, W) tells what is painted, ``points`` (68, 2) are the photo's landmarks in shares of the side. The paint
    is returned as it is where both eyes were open, or nothing is painted.
    """
    side = paint.shape[0]
    radius = _RADIUS * card.pixels_per_mm(side)
    out = paint
    for name, numbers in EYES.items():
        if name not in card.windows:
            continue
        eye = points[numbers] * side - 0.5
        x0, y0, x1, y1 = card.box(name, side)
        inside = mask[y0:y1, x0:x1]
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        middle = float(eye[[0, 3], 0].mean())
        weight = inside * (np.abs(x - middle) < radius)
        if weight.sum() < radius**2 / 2:
            continue
        here = paint[y0:y1, x0:x1]
        dx, dy = (x - middle) / radius, (y - float((y * weight).sum() / weight.sum())) / radius
        away = np.hypot(dx, dy)
        white, centre = _mean(here, inside * (away > 1.1)), _mean(here, inside * (away < 0.7))
        share = _falling(_opening(eye), _CLOSED, _OPEN) * _falling(1 - centre / (white + 1e-3), _MILKY, _CLEAR)
        if share == 0:
            continue
        drawn = white * _iris(dx, dy)
        disc = smooth((1 - away) * radius / _EDGE + 0.5) * inside * share
        out = out.copy() if out is paint else out
        out[y0:y1, x0:x1] = here + disc[..., None] * (drawn - here)
    return out


def _mean(colours: Floats, weight: Floats) -> float:
    return float((colours.mean(-1) * weight).sum() / max(float(weight.sum()), 1e-6))


def _falling(value: float, low: float, high: float) -> float:
    """1 up to ``low``, 0 from ``high`` on, smooth between."""
    return 1 - float(smooth((value - low) / (high - low)))


def _opening(eye: NDArray[np.floating]) -> float:
    """Height by width of an eye (6, 2)."""
    height = (np.hypot(*(eye[1] - eye[5])) + np.hypot(*(eye[2] - eye[4]))) / 2
    return float(height / np.hypot(*(eye[3] - eye[0])))


def _iris(dx: Floats, dy: Floats) -> Floats:
    """Colour (h, w, 3) of an iris beside a white of 1, at distances from its middle in radii."""
    away = np.hypot(dx, dy)
    shade = (1 - _LIMBUS * np.clip(away, 0, 1) ** 4) * (1 - _SHADE * np.clip(-dy, 0, 1))
    pupil = smooth((_PUPIL - away) / 0.12 + 0.5)[..., None]
    colour = _BROWN * shade[..., None] * (1 - pupil) + _BLACK * pupil
    lit = np.exp(-((dx - _LIGHT_AT[0]) ** 2 + (dy - _LIGHT_AT[1]) ** 2) / (2 * _LIGHT_SIZE**2))
    return colour + _LIGHT * lit[..., None]
