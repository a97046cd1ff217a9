"""The inside of the mouth: where it is, what of it the photo shows, and what is to be painted there.

* A mouth that was open with teeth in sight keeps them: upper teeth belong to the skull and do not move. Only what the
  lips newly uncover is painted around them, by `exprtool.anatomy.interior`.
* Lips parted by a hair's breadth show the photo's own seam colour.
* Lips that close over an open mouth go on over it: no tooth lands on a lip.

Conventions: work coordinates, RGB float32 in [0, 1]; lengths in cm where named so.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.eyes import run_length
from exprtool.anatomy.grids import Grid, smooth
from exprtool.anatomy.teeth import surroundings_of, teeth_in
from exprtool.pixels.ramps import LUMA
from exprtool_blendshape import topology as parts
from exprtool_blendshape.lips import LipCurves
from exprtool_blendshape.shading import GAMMA, SHADOW_EXPONENTS

_STAY = 0.15, 0.4
"""Motion (cm) of the lips up to which all that the photo shows between them stays, and from which on teeth alone."""
_HANGS = 0.45
"""Share of the opening's height above which upper teeth begin."""
_NOSTRILS = 1.4
"""How far (cm) above the photo's lips the mouth may reach; the model's nostrils, beyond, are of one piece with it."""
WIDE_ENOUGH = 0.32
"""Mean opening (cm) from which on the photo's own teeth are kept."""


@dataclass(frozen=True, eq=False)
class MouthPaint:
    """Like `exprtool.anatomy.eyes.EyePaint`: a window of the working grid, and what to paint there."""

    window: tuple[slice, slice]
    alpha: Grid
    keep: Grid
    colour: Grid


@dataclass(frozen=True, eq=False)
class MouthPhoto:
    """What the photo tells about the mouth: ``seam`` the colour of the line between closed lips, ``inside`` (H, W)
    float32 where the photo shows the inside of the mouth, ``shows_teeth`` whether there are teeth, and ``teeth``
    whether so much of them that they stay; ``row`` (H, W) float32 is where upper ones are. ``moving`` where it is a
    frame of a track: its teeth are then kept by as much as they fill the mouth (see `_own_share`)."""

    seam: Grid
    inside: Grid
    is_open: bool
    shows_teeth: bool
    teeth: bool
    lips: LipCurves
    row: Grid
    hidden: MouthPaint | None = None
    moving: bool = False


def look_at(
    picture: Grid,
    lips: LipCurves,
    is_open: bool,
    teeth: bool,
    outline: NDArray[np.float64],
    u: float,
) -> MouthPhoto:
    """Take the mouth's colours and what is open of it from the photo on the working grid; ``outline`` (n, 2) goes
    around the lips."""
    height, width = picture.shape[:2]
    n = len(lips.x)
    middle = slice(n // 5, -(n // 5))
    soft = cv2.GaussianBlur(picture, (0, 0), max(0.6, 0.03 * u))
    x = lips.x[middle]

    def along(y: NDArray[np.float64]) -> Grid:
        return cv2.remap(
            soft,
            x.astype(np.float32)[None],
            y.astype(np.float32)[None],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )[0]

    if is_open:  # the seam is not to be seen; it is as dark as lips in their own shade
        rims = np.concatenate([along(lips.upper[middle] - 0.15 * u), along(lips.lower[middle] + 0.15 * u)])
        seam = np.median(rims, axis=0) * np.array([0.52, 0.42, 0.42])
    else:
        seam = np.percentile(along(lips.upper[middle]), 30, axis=0) * 0.85
    seam = seam.astype(np.float32)

    inside = np.zeros((height, width), np.float32)
    if is_open:
        margin = 0.03 * u
        opening = np.concatenate(
            [
                np.c_[lips.x, lips.upper + margin],
                np.c_[lips.x[::-1], np.maximum(lips.lower - margin, lips.upper + margin)[::-1]],
            ]
        )
        area = np.zeros((height, width), np.uint8)
        cv2.fillPoly(area, [np.round(opening * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        inside = area.astype(np.float32) / 255

    # through a narrow slit teeth show too little to stand for those of a wide mouth
    own = teeth and is_open and float(lips.gap[middle].mean()) > WIDE_ENOUGH * u
    hidden = _lips_alone(picture, inside, outline, lips, u) if is_open else None
    row = np.zeros_like(inside)
    if own:
        levels, between = picture * np.float32(255), inside > 0.5
        tooth = teeth_in(levels, between, surroundings_of(levels, between, u / 10), u / 10)
        row = cv2.GaussianBlur(_upper(tooth, lips), (0, 0), 0.02 * u)
    return MouthPhoto(seam, inside, is_open, is_open and teeth, own, lips, row, hidden)


def _upper(tooth: NDArray[np.bool_], lips: LipCurves) -> Grid:
    """1 where teeth are that hang from the upper lip, (H, W), and not those of the jaw."""
    _, part = cv2.connectedComponents(tooth.astype(np.uint8))
    rows, columns = np.nonzero(tooth)
    upper, lower = lips.at(columns.astype(np.float64))
    share, piece = (rows - upper) / np.maximum(lower - upper, 1), part[rows, columns]
    hang = [each for each in np.unique(piece) if np.quantile(share[piece == each], 0.1) < _HANGS]
    return np.isin(part, hang).astype(np.float32) * tooth


def _lips_alone(
    picture: Grid, inside: Grid, outline: NDArray[np.float64], rims: LipCurves, u: float
) -> MouthPaint | None:
    """Lips as they would look if they went on over the open mouth; ``alpha`` is where the mouth was open."""
    pad = 0.5 * u
    low, high = np.floor(outline.min(0) - pad).astype(int), np.ceil(outline.max(0) + pad).astype(int)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, [picture.shape[1], picture.shape[0]])
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    window = (slice(int(y0), int(y1)), slice(int(x0), int(x1)))
    lips = np.zeros(inside[window].shape, np.uint8)
    cv2.fillPoly(lips, [np.round(outline - [x0, y0]).astype(np.int32)], 1)
    reach = 2 * max(1, round(0.09 * u)) + 1
    opened = cv2.dilate(inside[window], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    opened = np.maximum(opened, _beyond_corners(picture[window], opened, lips > 0, rims, (int(x0), int(y0)), u))
    mask = cv2.GaussianBlur(opened, (0, 0), max(0.5, 0.03 * u))
    clean = lips * (cv2.dilate(opened, np.ones((3, 3), np.uint8)) < 0.05).astype(np.float32)
    if clean.sum() < 12:
        return None
    crop = picture[window]
    fill = _spread(crop, clean, u)
    # past the outline of the lips, skin goes on
    anything = (cv2.dilate(opened, np.ones((3, 3), np.uint8)) < 0.05).astype(np.float32)
    within = cv2.GaussianBlur(lips.astype(np.float32), (0, 0), 0.06 * u)[..., None]
    fill = fill * within + _spread(crop, anything, u) * (1 - within)
    return MouthPaint(window, mask, np.zeros_like(mask), fill.astype(np.float32))


def _spread(picture: Grid, known: Grid, u: float) -> Grid:
    """The picture's colours where ``known`` (H, W) is 1, carried on smoothly elsewhere; the nearest count most."""
    total = np.zeros_like(picture)
    weight = np.zeros((*known.shape, 1), np.float32)
    for sigma, share in ((0.08, 1.0), (0.2, 0.05), (0.6, 0.002)):
        total += share * cv2.GaussianBlur(picture * known[..., None], (0, 0), sigma * u)
        weight += share * cv2.GaussianBlur(known, (0, 0), sigma * u)[..., None]
    middle = np.median(picture[known > 0.5], axis=0)
    return (total + 1e-5 * middle) / (weight + 1e-5)


def _beyond_corners(
    crop: Grid, opened: Grid, lips: NDArray[np.bool_], rims: LipCurves, origin: tuple[int, int], u: float
) -> Grid:
    """Where the mouth goes on past its corners as they were found: dark or tooth-pale there, and joined to it.

    Dark only near the corners, pale also along the lower lip: elsewhere it may be a beard.
    """
    zone = np.zeros(opened.shape, np.uint8)
    for i in (0, -1):
        centre = (round(rims.x[i]) - origin[0], round((rims.upper[i] + rims.lower[i]) / 2) - origin[1])
        cv2.ellipse(zone, centre, (int(0.9 * u), int(0.45 * u)), 0, 0, 360, 1, -1)
    reference = crop[lips & (opened < 0.05)]
    if len(reference) < 12:
        return np.zeros_like(opened)
    luma = crop @ LUMA
    tone = np.median(reference, axis=0)
    level = float(tone @ LUMA)
    colourless = np.ptp(crop, axis=-1) < 0.6 * float(np.ptp(tone))
    pale = (luma > 0.95 * level) & colourless
    lower = np.zeros_like(zone)  # lower teeth that the rim of the lower lip was drawn above
    points = np.c_[rims.x - origin[0], rims.lower + 0.15 * u - origin[1]]
    cv2.polylines(lower, [np.round(points).astype(np.int32)], False, 1, max(1, int(0.3 * u)))
    odd = (((luma < 0.45 * level) | pale) & (zone > 0)) | (pale & (lower > 0))
    candidates = (odd | (opened > 0.5)).astype(np.uint8)
    _, part = cv2.connectedComponents(candidates)
    joined = np.isin(part, np.unique(part[opened > 0.5])) & (candidates > 0)
    return cv2.dilate(joined.astype(np.float32), np.ones((3, 3), np.uint8))


def cover(photo: MouthPhoto, flow: Grid, log_gain: Grid, step: int) -> MouthPaint | None:
    """Lip colour for whatever would take its own from the open mouth of the photo: no tooth ever lands on a lip.

    ``flow`` (H, W, 2) and ``log_gain`` (on every ``step``-th pixel) are those of the edit.
    """
    if photo.hidden is None:
        return None
    rows, columns = photo.hidden.window
    # lips move: look for them in a window around where they were
    margin = 2 * (rows.stop - rows.start)
    y0, y1 = max(rows.start - margin, 0), min(rows.stop + margin, flow.shape[0])
    x0, x1 = max(columns.start - margin // 2, 0), min(columns.stop + margin // 2, flow.shape[1])
    part = flow[y0:y1, x0:x1]
    x = part[..., 0] + np.arange(x0 - columns.start, x1 - columns.start, dtype=np.float32)[None]
    y = part[..., 1] + np.arange(y0 - rows.start, y1 - rows.start, dtype=np.float32)[:, None]
    alpha = cv2.remap(photo.hidden.alpha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    # where lips meet, the flow jumps over what was between them, and sampling between two pixels would land there
    jump = np.abs(np.diff(part[..., 1], axis=0)) > 0.35 * (photo.lips.gap.max())
    meeting = np.zeros(alpha.shape, np.float32)
    meeting[:-1] = jump
    meeting[1:] = np.maximum(meeting[1:], jump)
    alpha = np.maximum(alpha, cv2.dilate(meeting, np.ones((3, 1), np.uint8)))
    if not (alpha > 0.02).any():
        return None
    colour = cv2.remap(photo.hidden.colour, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit = cv2.resize(log_gain, (flow.shape[1], flow.shape[0]), interpolation=cv2.INTER_LINEAR) if step > 1 else log_gain
    colour = colour * np.exp(lit[y0:y1, x0:x1, None] / np.float32(GAMMA) * SHADOW_EXPONENTS)
    window = (slice(y0, y1), slice(x0, x1))
    return MouthPaint(window, alpha, np.zeros_like(alpha), colour.astype(np.float32))


def paint(
    photo: MouthPhoto, label: NDArray[np.int8], widening: float, moved: float, closed: bool, u: float
) -> MouthPaint | None:
    """The open mouth of a target raster, in the colour of the seam where the photo does not stay; None where it is
    closed.

    ``label`` (H, W) are the raster's labels from `topology`, ``widening`` how much (cm) the mouth opens beyond the
    photo's own opening, ``moved`` how far (cm) the rims of its lips move.
    """
    mouth_labels = label == parts.MOUTH
    mouth_labels[: max(0, int(photo.lips.upper.min() - _NOSTRILS * u))] = False
    slit = np.ones((max(2, round(0.05 * u)), 2), np.uint8)
    rows = np.flatnonzero(mouth_labels.any(1))
    columns = np.flatnonzero(mouth_labels.any(0))
    if len(rows) == 0:
        return None
    pad = int(0.25 * u) + 4
    y0, y1 = max(rows[0] - pad, 0), min(rows[-1] + pad + 1, label.shape[0])
    x0, x1 = max(columns[0] - pad, 0), min(columns[-1] + pad + 1, label.shape[1])
    window = (slice(y0, y1), slice(x0, x1))
    mouth_labels = mouth_labels[window]
    hole = cv2.morphologyEx(mouth_labels.astype(np.uint8), cv2.MORPH_OPEN, slit) > 0
    if hole.sum() < 4:
        if not photo.is_open:
            return None
        hole = mouth_labels
    above, below = run_length(hole, down=True) / u, run_length(hole, down=False) / u
    inside = photo.inside[window]
    own = _own_share(photo, inside, hole, above)
    keep = (1 - own) * inside * (1 - float(smooth(widening / 0.15)))
    if own > 0:
        kept = cv2.GaussianBlur(inside, (0, 0), 0.02 * u) * inside
        # lower teeth and tongue go with the jaw: what lies far below the upper lip does not stay when it opens
        columns = np.arange(window[1].start, window[1].stop, dtype=np.float64)
        below_rim = (np.arange(window[0].start, window[0].stop)[:, None] - photo.lips.at(columns)[0][None]) / u
        kept = kept * (1 - smooth((below_rim - 0.70) / 0.25) * smooth(widening / 0.25))
        # and what was dark behind lips that are elsewhere now is not dark where it was
        kept = kept * (1 - (1 - photo.row[window]) * smooth((moved - _STAY[0]) / (_STAY[1] - _STAY[0])))
        keep = keep + own * kept * smooth((above + below - 0.08) / 0.12)
    if photo.is_open:  # between closed lips a slit of the photo's open mouth would show
        slits = mouth_labels & ((cv2.morphologyEx(hole.astype(np.uint8), cv2.MORPH_OPEN, slit) == 0) | closed)
        hole = hole | slits
        keep = keep * ~slits
    alpha = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 0.8)
    return MouthPaint(window, alpha, keep.astype(np.float32), np.broadcast_to(photo.seam, (*hole.shape, 3)))


_TEETH_SHOW = 0.5
"""Height (cm) below the upper lip in which a smile shows its teeth."""
_FILLS = (0.3, 0.6)
"""Share of that strip of the wanted mouth that the open mouth of a frame fills, from which on its own teeth are kept,
and at which they are all that is seen. Of lips that talk it is 0.2, of a laugh 0.6 to 1."""


def _own_share(photo: MouthPhoto, inside: Grid, hole: NDArray[np.bool_], above: Grid) -> float:
    """How much the photo's own teeth are kept rather than drawn ones, in [0, 1].

    A photo's are kept wherever it shows them. In a clip the lips of a person who talks part and meet, and a mouth that
    is now filled with drawn teeth, now with two of its own and the dark around them, flickers: there the two are mixed
    by how much of the wanted opening (``hole``, with ``above`` the cm to its upper rim) the frame's own one fills.
    """
    if not photo.teeth or not photo.moving:
        return float(photo.teeth)
    strip = hole & (above < _TEETH_SHOW)
    least, most = _FILLS
    return float(smooth((float(inside[strip].sum()) / max(int(strip.sum()), 1) - least) / (most - least)))
