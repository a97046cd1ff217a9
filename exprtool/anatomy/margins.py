"""Where the rim of a lid or lip comes to lie, by the flow of the skin beside it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
_ROUNDS = 10


def moved_rim(flow: Floats, x: Floats, rim: Floats, away: float) -> tuple[Floats, Floats]:
    """The rows (n,) at which a rim of the photo comes to lie in the columns ``x`` (n,), and the flow's x there (n,).

    ``flow`` (H, W, 2) is backward; ``rim`` (k, 2) are points of the rim from left to right. The flow is asked ``away``
    pixels below the rim (above, if negative): on the rim itself it is already that of what lies behind.
    """
    across = np.zeros(len(x))
    y = along(rim, x)
    for _ in range(_ROUNDS):
        here = cv2.remap(
            flow,
            x.astype(np.float32)[None],
            (y + away).astype(np.float32)[None],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )[0]
        across = here[:, 0].astype(np.float64)
        y = (y + along(rim, x + across) - here[:, 1]) / 2
    return y, across


def along(rim: Floats, x: Floats) -> Floats:
    """The rows (n,) of a rim (k, 2) in the columns ``x``."""
    return np.interp(x, rim[:, 0], rim[:, 1])
