"""Whether eyes and mouth can be seen at all: sunglasses, masks, and things held before the mouth.

Landmarkers place all 68 points wherever they expect them, on a mask as well as on a mouth, so that the fit's residual
says nothing about it; the pixels do. Everything is measured on the face brought upright at a fixed, small size, in
CIELAB, against the face's own skin, so that light, tint and complexion drop out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.names import expand
from exprtool.anatomy.targets import Move
from exprtool.types import Edit, Image, Points

_EYES = 48.0
"""Distance of the eyes' centres in the upright picture, pixels."""
_SIZE = (128, 128)
_MIDDLE = (64.0, 40.0)
"""Where the middle between the eyes lies."""

_EYE_PARTS = ("brow", "corrugator", "eyeBlink", "eyeWide", "eyeLook")
_MOUTH_PARTS = ("jaw", "mouth", "cheek", "noseSneer")
_NOTICEABLE = 0.3
"""A control that an edit sets below this hardly shows."""


@dataclass(frozen=True)
class Visibility:
    """Measured in CIELAB units (lightness 0 to 100).

    ``lens`` is how much darker than the cheeks everything around the eyes is, 1 for as dark as black, and
    ``eye_detail`` the standard deviation of lightness inside the lids. ``lip_contrast`` is how far the mouth stands out
    from the skin around it, in lightness and colour, as if that skin had a lightness of at least 50.
    """

    lens: float
    eye_detail: float
    lip_contrast: float

    @property
    def eyes_hidden(self) -> bool:
        """Dark glasses. Of 325 faces that were looked at, this holds for the four that wear them and no other."""
        return self.lens > 0.7 and self.eye_detail < 8

    @property
    def mouth_hidden(self) -> bool:
        """No lips where the landmarks have them. The least contrast of 325 visible mouths is 6.7; painted masks and
        skin have 0 to 4."""
        return self.lip_contrast < 4


def why_hidden(seen: Visibility, edit: Edit, presets: Mapping[str, Mapping[str, Move]]) -> str:
    """Why an edit cannot be done on a face that is seen so, in words for the user's report; empty where it can.

    Eyes that are hidden stand in the way only where the edit moves them, and so with the mouth.
    """
    if seen.eyes_hidden and _moves(edit, _EYE_PARTS, presets):
        return "wears dark glasses, and this expression needs eyes and brows"
    if seen.mouth_hidden and _moves(edit, _MOUTH_PARTS, presets):
        return "the mouth cannot be seen; it may be covered by a mask, a hand or an object"
    return ""


def _moves(edit: Edit, parts: tuple[str, ...], presets: Mapping[str, Mapping[str, Move]]) -> bool:
    """Whether the edit noticeably sets controls whose names begin so. A copied expression may set any."""
    if edit.reference is not None or "neutral" in edit.weights:
        return True
    amounts = expand(edit.controls)
    for expression, amount in edit.weights.items():
        for name, move in presets.get(expression, {}).items():
            amounts[name] = amounts.get(name, 0.0) + amount * move.amount
    return any(abs(amount) >= _NOTICEABLE for name, amount in amounts.items() if name.startswith(parts))


def measure(pixels: Image, landmarks: Points) -> Visibility:
    """Look at one face. ``landmarks`` (68, 2) in the coordinates of ``pixels``; parts outside count as they repeat."""
    lab, marks = _upright(pixels, landmarks)
    light = lab[..., 0]
    eyes = _filled(marks[36:42]) | _filled(marks[42:48])
    inner = _filled(marks[48:60])
    around_mouth = _filled(_grown(marks[48:60], 1.7)) & ~_filled(_grown(marks[48:60], 1.2))
    lenses = (_filled(_grown(marks[36:42], 1.9)) | _filled(_grown(marks[42:48], 1.9))) & ~eyes
    cheeks = np.zeros_like(eyes)
    for eye, wing in ((marks[36:42], marks[31]), (marks[42:48], marks[35])):
        centre = (eye.mean(0) + wing) / 2 + (eye.mean(0) - marks[27]) * 0.55
        cheeks |= _disc(centre, 7)
    skin = float(np.median(light[cheeks]))
    return Visibility(
        lens=float(1 - (np.median(light[lenses]) + 1) / (skin + 1)),
        eye_detail=float(light[eyes].std()) if eyes.any() else 0.0,
        lip_contrast=_contrast(lab, inner, around_mouth) * max(1.0, 50 / (skin + 1)),
    )


def _contrast(lab: NDArray[np.float32], inside: NDArray[np.bool_], around: NDArray[np.bool_]) -> float:
    if inside.sum() < 8 or around.sum() < 8:
        return 0.0
    difference = lab[inside].mean(0) - lab[around].mean(0)
    spread = float(lab[..., 0][inside].std())
    return float(np.linalg.norm(difference) + 0.5 * spread)


def _upright(pixels: Image, landmarks: Points) -> tuple[NDArray[np.float32], Points]:
    """The face in CIELAB at a fixed size, and its landmarks there."""
    right, left = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    step = left - right
    span = float(max(np.hypot(*step), np.hypot(*(landmarks[48:60].mean(0) - (right + left) / 2))))
    angle = np.arctan2(step[1], step[0])
    scale = _EYES / max(span, 1e-6)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.c_[turn, np.array(_MIDDLE) - turn @ ((right + left) / 2)]
    source = pixels
    if scale < 0.6:
        size = (max(1, round(pixels.shape[1] * scale * 1.4)), max(1, round(pixels.shape[0] * scale * 1.4)))
        source = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
        shrink = np.array(size) / [pixels.shape[1], pixels.shape[0]]
        matrix = np.c_[turn / shrink, matrix[:, 2]]
    small = cv2.warpAffine(
        source, matrix, (_SIZE[1], _SIZE[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(np.float32)
    return lab, landmarks @ turn.T + np.array(_MIDDLE) - turn @ ((right + left) / 2)


def _filled(polygon: Points) -> NDArray[np.bool_]:
    mask = np.zeros(_SIZE, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(polygon).astype(np.int32)), 1)
    return mask > 0


def _disc(centre: NDArray[np.float64], radius: int) -> NDArray[np.bool_]:
    mask = np.zeros(_SIZE, np.uint8)
    cv2.circle(mask, (round(float(centre[0])), round(float(centre[1]))), radius, 1, -1)
    return mask > 0


def _grown(polygon: Points, factor: float) -> Points:
    centre = polygon.mean(0)
    # as much in height as in width: eyes and lips are flat
    reach = (polygon - centre) * factor
    reach[:, 1] += np.sign(reach[:, 1]) * (factor - 1) * 0.35 * np.ptp(polygon[:, 0])
    return centre + reach
