"""The one type that the drawing rooms exchange most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[Any]
"""Values on a working grid, (H, W) or (H, W, channels), float32 unless its docstring says otherwise.

Wider than it should be because OpenCV's functions do not say what type they return.
"""


def smooth(value: Grid | float) -> Grid:
    """0 up to 0, 1 from 1 on, a cubic without corners between."""
    t = np.clip(np.asarray(value, dtype=np.float32), 0, 1)
    return t * t * (3 - 2 * t)
