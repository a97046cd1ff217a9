"""The one type that the drawing rooms exchange most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.pixels.ramps import smoothstep

Grid = NDArray[Any]
"""Values on a working grid, (H, W) or (H, W, channels), float32 unless its docstring says otherwise.

Wider than it should be because OpenCV's functions do not say what type they return.
"""


def smooth(value: Grid | float) -> Grid:
    """`smoothstep` in float32."""
    return smoothstep(np.asarray(value, dtype=np.float32))
