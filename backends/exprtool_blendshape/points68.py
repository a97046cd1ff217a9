"""The 68 landmarks as dlib draws them, against the vertices that upstream names for them.

The two do not mean quite the same points: dlib's inner lip points lie closer to the middle, its brow ends lower, the
wings of its nose higher. Left in, identity and expression would bend to explain what is only a matter of definition:
a smile of 0.5 is then fitted as 0.2.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from exprtool.faces.landmarks import MIRRORED68

_SHIFTS: dict[int, tuple[float, float]] = {
    17: (-0.29, -0.47), 18: (-0.31, -0.25), 19: (-0.12, -0.14), 20: (-0.11, -0.21), 21: (-0.02, -0.43),
    27: (0.00, 0.12), 28: (0.00, 0.05), 29: (0.00, -0.09), 30: (0.00, -0.09),
    31: (-0.08, 0.38), 32: (-0.09, 0.16), 33: (0.00, 0.07),
    36: (-0.06, -0.01), 37: (0.13, 0.09), 38: (0.03, 0.02), 39: (-0.05, 0.07), 40: (-0.07, -0.01), 41: (0.06, -0.02),
    48: (-0.09, -0.03), 49: (0.07, -0.15), 50: (0.04, -0.16), 51: (0.00, -0.30),
    57: (0.00, -0.13), 58: (0.30, -0.14), 59: (0.15, -0.12),
    60: (0.06, -0.05), 61: (0.29, -0.07), 62: (0.00, -0.09), 66: (0.00, -0.07), 67: (0.37, -0.02),
}  # fmt: skip
"""(x, y) in cm in model space from vertex to landmark, of the person's right half: the mean over 38 neutral faces
(every second one of the Face Research Lab London Set), posed by eyes, nose and mouth, made symmetric."""


@cache
def landmark_shifts() -> NDArray[np.float64]:
    """(68, 3) cm in model space from the vertex of each landmark to where dlib draws it; 0 along the jaw line."""
    shifts = np.zeros((68, 3))
    for number, (x, y) in _SHIFTS.items():
        shifts[number, :2] = x, y
        shifts[MIRRORED68[number], :2] = -x, y
    return shifts
