"""Which faces the network is better not asked about, and why, in words for the user's report."""

from __future__ import annotations

import numpy as np

from exprtool.faces.pose import pose_of
from exprtool.types import FaceRegion
from exprtool.wording import told_apart

LARGEST_YAW = 32.0
"""Degrees. The training set ends at 25; the estimate is good to ten."""
LARGEST_PITCH = 45.0
"""Degrees, coarsely: children read as if they looked up by twenty or thirty."""
SMALLEST_EYES = 14.0
"""Distance between the eyes in the photo's pixels: a face about 35 pixels wide."""


def why_not(region: FaceRegion) -> str | None:
    """The reason to leave a face alone, or None. Covered faces are not recognised: landmarks do not tell."""
    pose = pose_of(region.face)
    if abs(pose.yaw) > LARGEST_YAW:
        side = "right" if pose.yaw > 0 else "left"
        yaw, limit = told_apart(abs(pose.yaw), LARGEST_YAW)
        return f"turned about {yaw} degrees to the {side} of the picture; {limit} is the limit"
    if abs(pose.pitch) > LARGEST_PITCH:
        return f"looks {'up' if pose.pitch > 0 else 'down'} too steeply"
    eyes = float(np.linalg.norm(region.face.landmarks5[1] - region.face.landmarks5[0]))
    if eyes < SMALLEST_EYES:
        apart, least = told_apart(eyes, SMALLEST_EYES)
        return f"too small: the eyes are {apart} pixels apart, and at least {least} are needed"
    height, width = region.pixels.shape[:2]
    points = region.landmarks5
    if (points < 0).any() or (points > np.array([width - 1, height - 1])).any():
        return "cut off by the edge of the picture: part of the eyes, nose or mouth lies outside it"
    return None
