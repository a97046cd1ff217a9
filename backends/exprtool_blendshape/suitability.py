"""Which faces are beyond what can be done well, and why, in words for the user's report."""

from __future__ import annotations

import numpy as np

from exprtool.types import Edit, FaceRefusal, FaceRegion
from exprtool_blendshape.fit import Fit

LARGEST_YAW = 38.0
LARGEST_PITCH = 35.0
LARGEST_RESIDUAL = 0.40
SMALLEST_SCALE = 2.6
"""Pixels per cm; the face is about 15 cm wide between the ears."""


def refusal(fit: Fit, region: FaceRegion, edit: Edit) -> FaceRefusal | None:
    """Why this face is better left alone, or None. `Edit.force` overrules it in the backend, not here."""
    yaw, pitch, _ = fit.angles
    if abs(yaw) > LARGEST_YAW:
        side = "right" if yaw > 0 else "left"
        return FaceRefusal(f"turned {abs(yaw):.0f} degrees to the {side} of the picture, more than {LARGEST_YAW:.0f}")
    if abs(pitch) > LARGEST_PITCH:
        way = "up" if pitch > 0 else "down"
        return FaceRefusal(f"looks {way} by {abs(pitch):.0f} degrees, more than {LARGEST_PITCH:.0f}")
    if fit.camera.scale < SMALLEST_SCALE:
        width = 15 * fit.camera.scale
        return FaceRefusal(f"too small: about {width:.0f} pixels wide, at least {15 * SMALLEST_SCALE:.0f} are needed")
    inner = fit.landmarks[17:]
    h, w = region.pixels.shape[:2]
    cut = int(((inner < 0) | (inner > np.array([w - 1, h - 1]))).any(1).sum())
    if cut > 6:
        return FaceRefusal("cut off by the edge of the picture: eyes, nose or mouth lie outside it")
    if fit.residual > LARGEST_RESIDUAL:
        return FaceRefusal(
            f"the face model does not fit it ({fit.residual:.2f} cm off, at most {LARGEST_RESIDUAL:.2f}); "
            "it may be turned away or covered"
        )
    return None
