"""Which faces are beyond what can be done well, and why, in words for the user's report."""

from __future__ import annotations

import numpy as np

from exprtool.anatomy.targets import presets
from exprtool.anatomy.visibility import why_hidden
from exprtool.types import Edit, FaceRefusal, FaceRegion
from exprtool_blendshape.fit import Fit

LARGEST_YAW = 38.0
LARGEST_PITCH = 35.0
LARGEST_RESIDUAL = 0.28
"""cm. All of 325 faces that were looked at lie below 0.19, landmarks put at random above 0.4."""
SMALLEST_FACE = 40.0
"""Width of the face between the ears in pixels; it is about 15 cm in the model's terms."""
_FACE_WIDTH = 15.0
_OUTSIDE = 6
"""How many of the 51 landmarks of brows, eyes, nose and mouth may lie outside the picture."""


def refusal(fit: Fit, region: FaceRegion, edit: Edit) -> FaceRefusal | None:
    """Why this face is better left alone, or None. That `Edit.force` overrules it is the caller's to see to."""
    if reason := _turned(fit) or _small_or_cut(fit, region):
        return FaceRefusal(reason)
    if fit.visibility is not None and (reason := why_hidden(fit.visibility, edit, presets())):
        return FaceRefusal(reason, settles=True)
    reason = _misfit(fit)
    return FaceRefusal(reason) if reason else None


def _turned(fit: Fit) -> str:
    yaw, pitch, _ = fit.angles
    if abs(yaw) > LARGEST_YAW:
        side = "right" if yaw > 0 else "left"
        return f"turned {abs(yaw):.0f} degrees to the {side} of the picture; up to {LARGEST_YAW:.0f} can be done well"
    if abs(pitch) > LARGEST_PITCH:
        way = "up" if pitch > 0 else "down"
        return f"looks {way} by {abs(pitch):.0f} degrees; up to {LARGEST_PITCH:.0f} can be done well"
    return ""


def _small_or_cut(fit: Fit, region: FaceRegion) -> str:
    width = _FACE_WIDTH * fit.camera.scale
    if width < SMALLEST_FACE:
        return f"too small: about {width:.0f} pixels wide, and at least {SMALLEST_FACE:.0f} are needed"
    h, w = region.pixels.shape[:2]
    inner = fit.landmarks[17:]
    outside = int(((inner < -1) | (inner > np.array([w, h]))).any(1).sum())
    if outside > _OUTSIDE:
        return "cut off by the edge of the picture: part of the eyes, nose or mouth lies outside it"
    return ""


def _misfit(fit: Fit) -> str:
    if fit.residual > LARGEST_RESIDUAL:
        return (
            f"the face model fits it poorly ({fit.residual:.2f} cm off, up to {LARGEST_RESIDUAL:.2f} is good); "
            "it may be covered, turned away or not a photo of a face"
        )
    return ""
