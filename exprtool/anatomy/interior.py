"""The inside of a mouth that an edit opens, painted by a network that learned from real mouths.

The network (`exprtool_mouth`, in `mouth.onnx`) sees what surrounds the mouth, small and upright (`mouth_crop`), and is
told where the opening is and which teeth are to be seen there. Here its paint comes to the photo's own resolution: as
blurred as the photo, with its grain, in its tones. What of its own teeth the photo shows need not be painted; the
network then fits the rest to them.

Teeth follow anatomy: upper ones hang from the skull, and show as much as the lip rises; lower ones go with the jaw.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.mouth_crop import (
    EYES_APART,
    HEIGHT,
    PER_MM,
    WIDTH,
    Wish,
    crop_from_points,
    grown,
    middle_of,
    told,
)
from exprtool.anatomy.teeth import enamel_of, surroundings_of
from exprtool.devices import onnx_session
from exprtool.errors import ModelError
from exprtool.faces.align import Matrix, invert, transform
from exprtool.pixels.blur import measured_blur
from exprtool.pixels.ramps import LUMA, Ramp
from exprtool.types import FacePatch, Image, Points

Floats = NDArray[np.float32]

MODEL = Path(__file__).with_name("mouth.onnx")
FORMAT = "exprtool-mouth/1"
METADATA_KEY = "exprtool_mouth"

_BELOW_REST = 2.65
"""How far upper incisors reach below a resting upper lip, in mm: mean of women (3.40) and men (1.91) by R. G. Vig and
G. C. Brundo, "The kinetics of anterior tooth display", 1978. On 45 people of the Face Research Lab London Set, whose
smile tells the edge and whose neutral photo the line between closed lips, it is 2.0 at the median."""
_OF_GAP, _MOST_SHOWN = 0.7, 11.5
"""How much of a smile's opening the upper teeth fill, and how much of them shows at most, in mm: medians of the 2,275
mouths that the network was trained on."""
_ARCH = 0.0075, 0.002
"""How the edges of the upper and of the lower row rise to the sides: mm for each square mm from the middle, medians of
the same."""
_OVERBITE = 3.0
"""By how much upper incisors cover lower ones in a closed bite, in mm: the usual 2 to 4."""
_JAW = 31.0
"""How far the lower incisors drop at jawOpen 1, in mm: ICT-FaceKit's, at 63 mm between the eyes."""
_LEAST_SHOWN, _LEAST_SHARE = 4.1, 0.5
"""How much of the upper teeth shows at least in a mouth that opens, in mm and as a share of its height: lower quartile
of those of the same that show more than teeth."""
_RED = 0.35, 0.2
"""Tongue, gum, lining and rims of lips as a share of the opening: so much, and so much of what teeth leave; lower
quartile of the same. At their mean the network, in two minds, paints a brown mist."""
_DARK = 0.03, 0.5
"""All but black as a share of the opening: so much, and so much of what teeth leave, squared; between their mean and
their upper quartile."""
_ENAMEL, _BRIGHT = 0.5, (0.2, 0.45)
"""How far teeth are brought to the colour that the skin's light gives them, and from which to which luma, as a share of
the lit skin's, paint in their place is teeth."""
_OVER_LIP = 1.0
"""How far over the lips the paint goes, in mm: the network learned what a lip looks like where teeth begin."""
_SLIT = Ramp(1.0, 2.2)
"""Height of an opening in mm up to which there is nothing to see in it, and from which on all is painted."""
_PAINT_BLUR = 0.5
"""Blur of the network's paint, a standard deviation in its own pixels."""
_DEFOCUSED = 1.5
"""Blur of the photo in the crop's pixels from which on paint is blurred there; 97 of 100 photos of the training set
have less."""
_MOST_GRAIN = 12.0
"""Standard deviation of grain, in levels of 255, beyond which it is texture."""
_PART, _SMOOTH = 8, 0.3
"""Side in pixels of the parts in which grain is looked for, and the quantile of them that show nothing else."""
_DEVIATION = 1.2533
"""Standard deviation of a normal distribution for each mean absolute deviation."""


@dataclass(frozen=True, eq=False)
class Opening:
    """A mouth as an edit opens it, on any grid.

    ``whole`` (h, w) in [0, 1] is all between the lips, ``hole`` (h, w) what of that is to be painted: not where the
    photo's own teeth stay. ``grid_from_region`` (2, 3) takes the region's points there. ``incisors`` (2,) is the edge
    of the upper incisors in the region (see `incisors_at`), ``jaw`` how far the jaw is open, as weight of ``jawOpen``.
    ``amount`` in [0, 1] is how much of the paint to take.
    """

    whole: Floats
    hole: Floats
    grid_from_region: Matrix
    incisors: Points
    jaw: float
    amount: float = 1.0


def edge_below_nose(landmarks68: Points, teeth: bool) -> float:
    """How far below the base of the nose the edge of the upper incisors is, in mm; ``teeth`` tells whether the photo's
    mouth shows any. It never changes: along a track, take the median of a few frames."""
    _, down, per_mm = _axes(landmarks68)
    upper, lower = landmarks68[61:64].mean(0) @ down, landmarks68[65:68].mean(0) @ down
    gap = (lower - upper) / per_mm
    # Of closed lips, and of those that hardly part, the line is midway between the landmarks.
    shown = max(min(_OF_GAP * gap, _MOST_SHOWN), _BELOW_REST) if teeth else min(gap / 2, 1.0) + _BELOW_REST
    return float((upper - landmarks68[33] @ down) / per_mm + shown)


def incisors_at(landmarks68: Points, below_nose: float) -> Points:
    """Where that edge is (2,), in the pixels of the landmarks (68, 2)."""
    across, down, per_mm = _axes(landmarks68)
    edge = landmarks68[33] @ down + below_nose * per_mm
    return np.asarray((landmarks68[[33, 51, 62]].mean(0) @ across) * across + edge * down, np.float64)


def fill_mouth(patch: FacePatch, landmarks68: Points, opening: Opening, tone: Callable[[Floats], Floats]) -> None:
    """Paint the inside of the mouth into the patch's own arrays; nothing where none opens.

    ``landmarks68`` are the photo's, in the region; ``tone`` brings colours (..., 3) in [0, 1] to the photo's.
    """
    if patch.painted is None or opening.hole.max() < 0.5 or opening.amount <= 0:
        return
    crop_from_region = _crop_for(landmarks68, opening)
    crop_from_grid = _after(crop_from_region, invert(opening.grid_from_region))
    whole, hole = (_sampled(each, crop_from_grid) for each in (opening.whole, opening.hole))
    amount = opening.amount * float(_SLIT(_height(whole)))
    around = _window(crop_from_region, patch.pixels.shape, np.ones_like(hole))
    if amount == 0 or around is None:
        return
    beyond = grown(whole, _OVER_LIP) - whole
    near = cv2.GaussianBlur(hole, (0, 0), PER_MM) / (cv2.GaussianBlur(whole, (0, 0), PER_MM) + 1e-3)
    hole = np.clip(hole + beyond * np.clip(near, 0, 1), 0, 1).astype(np.float32)

    wish = wish_of(whole, transform(crop_from_region, opening.incisors[None])[0], opening.jaw)
    given = _sampled(patch.pixels[around], _from(around, crop_from_region), cv2.BORDER_REFLECT)
    colour = _network().paint(given, told(whole, hole, wish))
    share = np.asarray(cv2.GaussianBlur(hole, (0, 0), 0.6), np.float32)
    finer = 1 / float(np.hypot(*crop_from_region[:, 0]))  # the region's pixels for each of the crop's
    blur, defocus, grain = _taken(patch, around, finer)
    if defocus > _DEFOCUSED:  # what is blurred even at the crop's size
        colour, share = (_softer(each, defocus) for each in (colour, share))
    window = _window(crop_from_region, patch.pixels.shape, share)
    if window is None:
        return
    matrix, size = _from(window, crop_from_region), patch.alpha[window].shape
    alpha = np.clip(1.4 * _lifted(share, matrix, size) - 0.2, 0, 1) * np.float32(amount) * (patch.alpha[window] > 0)
    colour = _as_taken(_lifted(colour, matrix, size), blur, grain, finer)
    colour = tone(np.clip(colour / np.float32(255), 0, 1)) * np.float32(255)
    below = patch.pixels[window].astype(np.float32)
    patch.pixels[window] = np.rint(below + alpha[..., None] * (np.clip(colour, 0, 255) - below)).astype(np.uint8)
    patch.painted[window] = np.maximum(patch.painted[window], alpha)


def _taken(patch: FacePatch, around: tuple[slice, slice], finer: float) -> tuple[float, float, float]:
    """How the photo was taken, by nose and cheeks above the mouth, which are moved but not painted: its blur in its own
    pixels and in the crop's, standard deviations, and its `_grain`."""
    rows, columns = around
    height = rows.stop - rows.start
    above = slice(max(0, rows.start - height), rows.start + height // 4), columns
    photo, painted = patch.pixels[above], patch.painted
    assert painted is not None
    small = cv2.resize(photo, None, fx=1 / finer, fy=1 / finer, interpolation=cv2.INTER_AREA) if finer > 1 else photo
    return measured_blur(photo), measured_blur(np.asarray(small, np.uint8)), _grain(photo, painted[above])


def _softer(paint: Floats, blur: float) -> Floats:
    """Paint (H, W) or (H, W, 3) over the crop with the photo's blur, a standard deviation in the crop's pixels."""
    return np.asarray(cv2.GaussianBlur(paint, (0, 0), float(np.sqrt(blur**2 - _PAINT_BLUR**2))), np.float32)


def _crop_for(landmarks68: Points, opening: Opening) -> Matrix:
    """The matrix from the region to the network's crop around an opening."""
    rows, columns = np.nonzero(opening.whole > 0.5)
    if not len(rows):
        rows, columns = np.nonzero(opening.hole >= opening.hole.max())
    around = transform(invert(opening.grid_from_region), np.c_[columns, rows].astype(np.float64))
    return crop_from_points(landmarks68, middle_of(landmarks68, around))


def _height(whole: Floats) -> float:
    """Height in mm of the opening (H, W) of a crop where it is highest."""
    return float((whole > 0.5).sum(0).max()) / PER_MM


def _axes(landmarks68: Points) -> tuple[Points, Points, float]:
    """Directions (2,) across and down the face, and pixels for each mm."""
    eyes = landmarks68[42:48].mean(0) - landmarks68[36:42].mean(0)
    apart = float(np.hypot(*eyes))
    across = eyes / apart
    return across, np.array([-across[1], across[0]]), apart / EYES_APART


def wish_of(whole: Floats, incisors: Points, jaw: float) -> Wish:
    """What is to be seen in an opening (H, W) of the crop with the edge of the upper incisors at ``incisors`` (2,)."""
    x = np.linspace(-40, 40, 33)
    rows = np.flatnonzero(whole[:, int(np.clip(np.rint(incisors[0]), 0, WIDTH - 1))] > 0.5)
    shown = min(_LEAST_SHOWN, _LEAST_SHARE * len(rows) / PER_MM)
    edge = max(incisors[1] / PER_MM, (rows[0] / PER_MM + shown) if len(rows) else 0.0)
    lower = max(edge - _OVERBITE + _JAW * max(0.0, jaw), edge + 0.3)
    lines = [
        np.c_[incisors[0] + x * PER_MM, (y - arch * x**2) * PER_MM]
        for y, arch in zip((edge, lower), _ARCH, strict=True)
    ]
    zones = told(whole, whole, Wish(lines[0], lines[1], 0.0, 0.0))[2:4].sum(0)
    rest = float(np.clip(1 - zones.sum() / max(float(whole.sum()), 1.0), 0, 1))
    return Wish(lines[0], lines[1], _RED[0] + _RED[1] * rest, _DARK[0] + _DARK[1] * rest**2)


def _after(second: Matrix, first: Matrix) -> Matrix:
    """The matrix (2, 3) that does ``first``, then ``second``."""
    return np.c_[second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]]


def _sampled(values: NDArray[Any], matrix: Matrix, border: int = cv2.BORDER_CONSTANT) -> Floats:
    """Values (h, w) or (h, w, 3) under a matrix to the crop's pixels, averaged where there are more than those."""
    fewer = max(1, int(1 / float(np.hypot(*matrix[:, 0]))))  # whole blocks first: a wide blur takes far longer
    if fewer > 1:
        height, width = (side // fewer for side in values.shape[:2])
        part = values[: height * fewer, : width * fewer]
        values = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        matrix = np.c_[matrix[:, :2] * fewer, matrix[:, :2] @ np.full(2, (fewer - 1) / 2) + matrix[:, 2]]
    scale = float(np.hypot(*matrix[:, 0]))
    values = values.astype(np.float32)
    if scale < 0.99:
        values = cv2.GaussianBlur(values, (0, 0), 0.42 * np.sqrt(1 / scale**2 - 1))
    return np.asarray(
        cv2.warpAffine(values, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=border), np.float32
    )


def _lifted(values: Floats, crop_from_here: Matrix, size: tuple[int, int]) -> Floats:
    """Values over the crop at the pixels (h, w) that the matrix takes to the crop."""
    scale = float(np.hypot(*crop_from_here[:, 0]))
    if scale > 1:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), 0.42 * np.sqrt(scale**2 - 1) + 1e-3), np.float32)
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_CONSTANT if values.ndim == 2 else cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(values, crop_from_here, size[::-1], flags=how, borderMode=border), np.float32)


def _window(crop_from_region: Matrix, size: tuple[int, ...], share: Floats) -> tuple[slice, slice] | None:
    """Rows and columns of a region of ``size`` (h, w, ...) around where ``share`` (H, W) of the crop is not 0; None
    where there are none."""
    y, x = np.nonzero(share > 0.01)
    if not len(y):
        return None
    corners = np.array([[a, b] for a in (x.min() - 1.0, x.max() + 1.0) for b in (y.min() - 1.0, y.max() + 1.0)])
    corners = transform(invert(crop_from_region), corners)
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (size[1], size[0]))
    return (slice(int(y0), int(y1)), slice(int(x0), int(x1))) if x0 < x1 and y0 < y1 else None


def _from(window: tuple[slice, slice], matrix: Matrix) -> Matrix:
    """A matrix from the region as one from the window's own pixels."""
    return np.c_[matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (window[1].start, window[0].start)]


def _as_taken(colour: Floats, blur: float, grain: float, finer: float) -> Floats:
    """Paint (h, w, 3) as the camera would have taken it: with the photo's ``blur``, a standard deviation in pixels, if
    it is sharper than that, and its ``grain`` (`_grain`); ``finer`` are its pixels for each of the crop's."""
    own = _PAINT_BLUR * max(finer, 1.0)
    if blur > own:
        colour = np.asarray(cv2.GaussianBlur(colour, (0, 0), float(np.sqrt(blur**2 - own**2)) + 1e-3), np.float32)
    if grain > 0:
        noise = np.random.default_rng(0).standard_normal(colour.shape[:2], dtype=np.float32)
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.5), np.float32)
        usual = float((noise - cv2.GaussianBlur(noise, (0, 0), 1.0)).std())
        colour = (colour + noise[..., None] * np.float32(grain / usual)).astype(np.float32)
    return colour


def _grain(photo: Image, alpha: Floats) -> float:
    """Standard deviation of the finest detail in the smoother parts of what surrounds the paint, in levels."""
    luma = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 1.0))
    size = max(1, photo.shape[1] // _PART), max(1, photo.shape[0] // _PART)
    levels, covered = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (fine, alpha))
    bare = levels[covered == 0]
    return min(_DEVIATION * float(np.quantile(bare, _SMOOTH)), _MOST_GRAIN) if bare.size else 0.0


class MouthPainter:
    """The network in a file; raises `ModelError` where that is none."""

    def __init__(self, path: Path) -> None:
        self._session = onnx_session(path)
        about = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}")
        if json.loads(about).get("format") != FORMAT:
            raise ModelError(f"{path} is no painter of mouths of the format {FORMAT!r}. Export it anew.")

    def paint(self, picture: Floats, told: Floats) -> Floats:
        """Paint (H, W, 3) in levels of 255 for a picture (H, W, 3) of a mouth and what is `told` about it."""
        given = np.ascontiguousarray((picture / np.float32(127.5) - 1).transpose(2, 0, 1)[None])
        (painted,) = self._session.run(None, {"picture": given, "told": told[None]})
        return _lit_alike(
            np.asarray((np.asarray(painted)[0].transpose(1, 2, 0) + 1) * 127.5, np.float32), picture, told
        )


def _lit_alike(painted: Floats, picture: Floats, told: Floats) -> Floats:
    """Paint (H, W, 3) whose teeth have the colour of the light that is on the ``picture``'s skin: the network knows how
    bright they are, but its white is now green, now yellow."""
    around = surroundings_of(picture, told[1] > 0.5, PER_MM)
    luma = painted @ LUMA
    share = np.clip(told[2] + told[3], 0, 1) * _ENAMEL * Ramp(*_BRIGHT)(luma / around.lit)
    wanted = luma[..., None] * enamel_of(np.array(around.colour, np.float32))
    return (painted + share[..., None] * (wanted - painted)).astype(np.float32)


@lru_cache(maxsize=1)
def _network() -> MouthPainter:
    return MouthPainter(MODEL)
