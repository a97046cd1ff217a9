"""How far a head is turned, coarsely, from its landmarks.

Enough to say why a face is left alone. The angles follow from how far the tip of the nose moves against eyes and
mouth: it stands out from their plane by about half the distance between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exprtool.faces.landmarks import roll_of
from exprtool.types import Face

# Of an average adult head, in distances between the eyes' centres.
_NOSE_OUT = 0.55
_EYES_TO_MOUTH = 1.05
_EYES_TO_NOSE = 0.62


@dataclass(frozen=True)
class Pose:
    """Head angles in degrees: yaw > 0 when the person looks to the right of the picture, pitch > 0 when the person
    looks up, roll clockwise in the image.

    Roll is exact to a few degrees and yaw to about ten. Pitch also depends on the length of the nose: children's short
    ones read as if they looked up by twenty or thirty.
    """

    yaw: float
    pitch: float
    roll: float


def pose_of(face: Face) -> Pose:
    """Estimate the pose from the five landmarks."""
    roll = roll_of(face.landmarks5)
    angle = np.radians(roll)
    upright = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    right_eye, left_eye, nose, right_corner, left_corner = np.asarray(face.landmarks5) @ upright.T
    eyes, mouth = (right_eye + left_eye) / 2, (right_corner + left_corner) / 2
    down = mouth[1] - eyes[1]
    # The eyes' distance shrinks with the cosine of the yaw, their distance from the mouth with that of the pitch.
    width = max(left_eye[0] - right_eye[0], 1e-6)
    middle = eyes[0] + (mouth[0] - eyes[0]) * _EYES_TO_NOSE / _EYES_TO_MOUTH
    yaw = np.arctan((nose[0] - middle) / (_NOSE_OUT * width))
    height = max(down, 1e-6) / _EYES_TO_MOUTH
    pitch = np.arctan((_EYES_TO_NOSE * height - (nose[1] - eyes[1])) / (_NOSE_OUT * height))
    return Pose(float(np.degrees(yaw)), float(np.degrees(pitch)), roll)
