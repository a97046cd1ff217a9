"""Which faces are beyond what can be done well, and why, in words for the user's report."""

from __future__ import annotations

import numpy as np

from exprtool.anatomy.targets import presets
from exprtool.anatomy.visibility import why_hidden
from exprtool.types import Edit, FaceRefusal, FaceRegion
from exprtool.wording import told_apart
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
        angle, most = told_apart(abs(yaw), LARGEST_YAW)
        return f"turned {angle} degrees to the {side} of the picture; up to {most} can be done well"
    if abs(pitch) > LARGEST_PITCH:
        way = "up" if pitch > 0 else "down"
        angle, most = told_apart(abs(pitch), LARGEST_PITCH)
        return f"looks {way} by {angle} degrees; up to {most} can be done well"
    return ""


def _small_or_cut(fit: Fit, region: FaceRegion) -> str:
    width = _FACE_WIDTH * fit.camera.scale
    if width < SMALLEST_FACE:
        wide, least = told_apart(width, SMALLEST_FACE)
        return f"too small: about {wide} pixels wide, and at least {least} are needed"
    h, w = region.pixels.shape[:2]
    inner = fit.landmarks[17:]
    outside = int(((inner < -1) | (inner > np.array([w, h]))).any(1).sum())
    if outside > _OUTSIDE:
        return "cut off by the edge of the picture: part of the eyes, nose or mouth lies outside it"
    return ""


def _misfit(fit: Fit) -> str:
    if fit.residual > LARGEST_RESIDUAL:
        off, most = told_apart(fit.residual, LARGEST_RESIDUAL, 2)
        return (
            f"the face model fits it poorly ({off} cm off, up to {most} is good); "
            "it may be covered, turned away or not a photo of a face"
        )
    return ""
