"""The inside of the mouth: the photo's own where it was open, drawn teeth, gums, tongue and depth where it was not.

* A mouth that was open with teeth in sight keeps them: upper teeth belong to the skull and do not move. Only what the
  lips newly uncover is drawn around them, and no second row.
* Drawn teeth take the person's own tooth colour where the photo shows it, else it is guessed from the white of the
  eyes.
* Teeth that would show as a sliver are left in the dark: a ragged pale line is what a loosely fitted row gives.
* Lips parted by a hair's breadth show the photo's own seam colour.

Conventions: work coordinates, RGB float32 in [0, 1]; lengths in cm where named so.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.eyes import run_length
from exprtool.anatomy.grids import Grid, smooth
from exprtool.anatomy.tone import enamel_of
from exprtool_blendshape import topology as parts
from exprtool_blendshape.lips import LipCurves
from exprtool_blendshape.raster import Raster, interpolate
from exprtool_blendshape.shading import GAMMA, SHADOW_EXPONENTS

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
TOOTH = np.array([1.05, 1.0, 0.92], np.float32)
GUM = np.array([0.66, 0.39, 0.38], np.float32)
LINING = np.array([0.42, 0.22, 0.22], np.float32)
TONGUE = np.array([0.64, 0.37, 0.35], np.float32)
WIDE_ENOUGH = 0.32
"""Mean opening (cm) from which on the photo's own teeth are kept."""
TOOTH_TO_SCLERA = 1.22
"""Teeth are this much brighter than the 80th percentile of the (shaded) white of the eyes."""


@dataclass(frozen=True, eq=False)
class MouthPaint:
    """Like `exprtool.anatomy.eyes.EyePaint`: a window of the working grid, and what to paint there."""

    window: tuple[slice, slice]
    alpha: Grid
    keep: Grid
    colour: Grid


@dataclass(frozen=True, eq=False)
class MouthPhoto:
    """What the photo tells about the mouth: ``white`` the colour of a fully lit tooth, ``seam`` that of the line
    between closed lips, ``inside`` (H, W) float32 where the photo shows the inside of the mouth, ``teeth`` whether
    it shows teeth there, ``picture`` (H, W, 3) the photo on the working grid. ``moving`` where it is a frame of a
    track: its teeth are then kept by as much as they fill the mouth (see `_own_share`)."""

    white: Grid
    seam: Grid
    inside: Grid
    is_open: bool
    teeth: bool
    picture: Grid
    lips: LipCurves
    hidden: MouthPaint | None = None
    moving: bool = False


def look_at(
    picture: Grid,
    lips: LipCurves,
    is_open: bool,
    teeth: bool,
    sclera: Grid | None,
    skin: Grid,
    outline: NDArray[np.float64],
    u: float,
) -> MouthPhoto:
    """Take the mouth's colours and what is open of it from the photo on the working grid.

    ``sclera`` (3,) is the white of the eyes, ``skin`` (n, 3) pixels of skin, whose light the mouth shares; ``outline``
    (n, 2) goes around the lips.
    """
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

    white = np.full(3, 0.8, np.float32) if sclera is None else np.clip(sclera * TOOTH_TO_SCLERA, 0.38, 0.98)
    white = 0.5 * white + 0.5 * white.mean()
    if len(skin) > 50:  # eyes in the shade, or with hardly any white, would make grey teeth
        least = 0.92 * float(np.percentile(skin @ _LUMA, 75))
        white = max(float(white @ _LUMA), least) * enamel_of(np.median(skin, 0)) / (TOOTH / float(TOOTH @ _LUMA))
        white = np.minimum(white, 0.98)
    if teeth and is_open:
        pixels = picture[inside > 0.9]
        if len(pixels) > 20:
            luma = pixels @ _LUMA
            shown = np.median(pixels[luma >= np.percentile(luma, 80)], axis=0)
            lift = max(1.0, 0.8 * float(white @ _LUMA) / max(float(shown @ _LUMA), 1e-3))  # the lips' shade taken off
            white = np.clip(shown / TOOTH * 1.05 * lift, 0.2, 1.0)
    # through a narrow slit teeth show too little, and too dark, to stand for those of a wide mouth
    own = teeth and is_open and float(lips.gap[middle].mean()) > WIDE_ENOUGH * u
    hidden = _lips_alone(picture, inside, outline, lips, u) if is_open else None
    return MouthPhoto(white.astype(np.float32), seam, inside, is_open, own, picture, lips, hidden)


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
    luma = crop @ _LUMA
    tone = np.median(reference, axis=0)
    level = float(tone @ _LUMA)
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
    photo: MouthPhoto,
    seen: Raster,
    label: NDArray[np.int8],
    triangles: NDArray[np.int32],
    normals: NDArray[np.float64],
    lip_depth: float,
    widening: float,
    closed: bool,
    u: float,
) -> MouthPaint | None:
    """Paint the open mouth of a target raster; None where it is closed.

    ``label`` (H, W) are the raster's labels from `topology`, ``normals`` (V, 3) those of the vertices,
    ``lip_depth`` the depth of the upper lip's rim, ``widening`` how much (cm) the mouth opens beyond the photo's
    own opening.
    """
    mouth_labels = (label == parts.MOUTH) | ((label >= parts.GUM) & (label <= parts.TOOTH_LOWER))
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
    part = Raster(
        np.ascontiguousarray(seen.depth[window]),
        np.ascontiguousarray(seen.triangle[window]),
        np.ascontiguousarray(seen.weights[window]),
    )
    label, depth, normal = label[window], part.depth, interpolate(part, triangles, normals)

    facing = np.clip(normal[..., 2] / (np.linalg.norm(normal, axis=-1) + 1e-6), 0, 1)
    behind = np.maximum(0, lip_depth - depth) / u
    rim = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3) / u
    above, below = run_length(hole, down=True) / u, run_length(hole, down=False) / u
    opening = above + below

    inside = photo.inside[window]
    own = _own_share(photo, inside, hole, above)
    cavity = _cavity(hole, above, below, opening, u)
    layers: list[tuple[Grid, Grid]] = []
    if own < 1:
        colour = _drawn_teeth(cavity, label, hole, facing, behind, rim, above, u)
        colour = (colour * photo.white).astype(np.float32)
        keep = inside * (1 - float(smooth(widening / 0.15)))
        ajar = smooth((cv2.GaussianBlur((opening * hole).astype(np.float32), (0, 0), 0.05 * u) - 0.10) / 0.20)
        layers.append((colour * ajar[..., None] + photo.seam * (1 - ajar[..., None]), keep))
    if own > 0:
        colour = _around_own_teeth(photo, window, (cavity * photo.white).astype(np.float32), hole, u)
        keep = cv2.GaussianBlur(inside, (0, 0), 0.02 * u) * inside
        # lower teeth and tongue go with the jaw: what lies far below the upper lip does not stay when it opens
        columns = np.arange(window[1].start, window[1].stop, dtype=np.float64)
        below_rim = (np.arange(window[0].start, window[0].stop)[:, None] - photo.lips.at(columns)[0][None]) / u
        keep = keep * (1 - smooth((below_rim - 0.70) / 0.25) * smooth(widening / 0.25))
        layers.append((colour, keep * smooth((opening - 0.08) / 0.12)))
    colour, keep = layers[0] if len(layers) == 1 else _mixed(layers[0], layers[1], own, photo.picture[window])
    if photo.is_open:  # between closed lips a slit of the photo's open mouth would show
        slits = mouth_labels & ((cv2.morphologyEx(hole.astype(np.uint8), cv2.MORPH_OPEN, slit) == 0) | closed)
        hole = hole | slits
        colour = np.where(slits[..., None], photo.seam, colour)
        keep = keep * ~slits
    colour = cv2.GaussianBlur(colour.astype(np.float32), (0, 0), 0.6)
    alpha = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 0.8)
    # what lies under the soft rim continues the inside outwards
    near = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 2)[..., None]
    spread = cv2.GaussianBlur(colour * hole[..., None], (0, 0), 2) / (near + 1e-4)
    colour = np.where(hole[..., None], colour, spread).astype(np.float32)
    return MouthPaint(window, alpha, keep.astype(np.float32), colour)


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


def _mixed(drawn: tuple[Grid, Grid], kept: tuple[Grid, Grid], own: float, picture: Grid) -> tuple[Grid, Grid]:
    """Colour and keep of two layers on their way from the first (``own`` 0) to the second (1).

    The two rows of teeth do not lie on each other. On average they would be grey half-way; the brighter one shows.
    """
    one, other = (colour + (picture - colour) * keep[..., None] for colour, keep in (drawn, kept))
    mean = one + (other - one) * own
    colour = mean + (np.maximum(one, other) - mean) * np.float32(4 * own * (1 - own))
    return colour.astype(np.float32), np.zeros_like(drawn[1])


def _drawn_teeth(
    cavity: Grid,
    label: NDArray[np.int8],
    hole: NDArray[np.bool_],
    facing: Grid,
    behind: Grid,
    rim: Grid,
    above: Grid,
    u: float,
) -> Grid:
    """The model's teeth and gums over the dark of the mouth, in shares of the colour of a lit tooth."""
    colour = cavity
    upper = (label == parts.TOOTH_UPPER) & hole
    lower = (label == parts.TOOTH_LOWER) & hole
    for teeth, least, full in ((upper, 0.10, 0.20), (lower, 0.22, 0.40)):
        lit = (0.34 + 0.66 * facing**0.9) * np.exp(-np.maximum(0, behind - 0.9) / 1.9)
        lit *= (0.66 + 0.34 * smooth(rim / 0.16)) * (0.66 + 0.34 * smooth(above / 0.35))
        if least > 0.1:
            lit = lit * 0.72
        tooth = (
            TOOTH * np.stack([lit**0.9, lit**1.06, lit**1.12], -1)
            + (0.06 * facing**40 * np.exp(-behind / 1.5))[..., None]
        )
        teeth, tooth = _without_gaps(teeth, tooth.astype(np.float32), hole, u)
        shown = smooth((_visible_height(teeth, u) - least) / (full - least)) * _row(teeth, u)
        weight = cv2.GaussianBlur(teeth.astype(np.float32), (0, 0), 0.025 * u) * shown
        colour = colour * (1 - weight[..., None]) + tooth * weight[..., None]
    gum = (label == parts.GUM) & hole & (above < 0.5) & (behind < 1.6)
    weight = 0.8 * cv2.GaussianBlur(gum.astype(np.float32), (0, 0), 0.04 * u)
    weight *= smooth((_visible_height(upper, u) - 0.3) / 0.2)
    lit = (0.30 + 0.5 * facing)[..., None] * (0.5 + 0.5 * smooth(above / 0.4))[..., None]
    return (colour * (1 - weight[..., None]) + GUM * lit * weight[..., None]).astype(np.float32)


def _cavity(
    hole: NDArray[np.bool_],
    above: Grid,
    below: Grid,
    opening: Grid,
    u: float,
) -> Grid:
    """The lining in the dark, and a tongue that rises from the floor of a mouth that is open wide enough."""
    columns = np.flatnonzero(hole.any(0))
    centre, half = (columns[0] + columns[-1]) / 2, max(1.0, (columns[-1] - columns[0]) / 2)
    across = (np.arange(hole.shape[1]) - centre)[None] / half
    share = below / np.maximum(opening, 1e-3)  # 0 at the lower lip, 1 at the upper
    wide = smooth((opening - 0.5) / 0.9)
    # light falls in from the front and a little from above: the lower half of the lining is less dark
    depth_dark = 0.10 + 0.20 * (1 - smooth(share / 0.55)) * (1 - 0.5 * across**2).clip(0, 1)
    lining = LINING * np.stack([depth_dark**0.85, depth_dark, depth_dark**1.02], -1) * 1.15
    # tongue: a low dome, lighter along its front rim, with a groove in the middle
    dome = 0.50 * np.sqrt(np.clip(1 - (across / 0.74) ** 2, 0, 1))
    on_tongue = smooth((dome - share) / 0.16) * wide
    lit = 0.20 + 0.42 * smooth(1 - np.abs(share - 0.6 * dome) / (0.7 * dome + 0.05)) * (1 - 0.6 * across**2).clip(0, 1)
    lit *= 1 - 0.16 * np.exp(-((across / 0.07) ** 2)) * smooth(share / 0.12)
    lit *= 0.55 + 0.45 * smooth(below / 0.18)
    tongue = TONGUE * np.stack([lit**0.9, lit**1.05, lit**1.05], -1)
    return (lining * (1 - on_tongue[..., None]) + tongue * on_tongue[..., None]).astype(np.float32)


def _visible_height(teeth: NDArray[np.bool_], u: float) -> Grid:
    """Height (cm) of a row of teeth that shows, column by column and smoothed, so that the row fades as a whole (1,
    w)."""
    height = teeth.sum(0).astype(np.float32)[None] / u
    return cv2.GaussianBlur(height, (0, 0), sigmaX=0.6 * u, sigmaY=1)


def _row(teeth: NDArray[np.bool_], u: float) -> float:
    """1 for a row of teeth of which enough is seen, 0 for one or two that peep out."""
    width = float((teeth.sum(0) > 0.08 * u).sum()) / u
    return float(smooth((width - 2.0) / 1.2))


def _without_gaps(
    teeth: NDArray[np.bool_], tooth: Grid, hole: NDArray[np.bool_], u: float
) -> tuple[NDArray[np.bool_], Grid]:
    """Teeth touch: the slits between the model's teeth are filled with the shade of their neighbours."""
    size = 2 * max(1, round(0.09 * u)) + 1
    closed = cv2.morphologyEx(teeth.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, size), np.uint8)) > 0
    between = closed & ~teeth & hole
    mask = teeth.astype(np.float32)
    near = cv2.GaussianBlur(mask, (0, 0), 0.06 * u)[..., None]
    mean = cv2.GaussianBlur(tooth * mask[..., None], (0, 0), 0.06 * u) / (near + 1e-3)
    return teeth | between, np.where(between[..., None], 0.72 * mean, tooth).astype(np.float32)


def _around_own_teeth(
    photo: MouthPhoto,
    window: tuple[slice, slice],
    colour: Grid,
    hole: NDArray[np.bool_],
    u: float,
) -> Grid:
    """Continue the photo's own teeth upwards where the upper lip rose above them; the dark goes on elsewhere."""
    rows = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None]
    columns = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None]
    upper, lower = photo.lips.at(columns[0].astype(np.float64))
    edge = (upper + 0.06 * u).astype(np.float32)[None]
    over = edge - rows
    # a tooth goes on as it begins, a little darker towards the gum
    soft = cv2.GaussianBlur(photo.picture[window], (0, 0), 0.04 * u)
    above = cv2.remap(
        soft,
        np.broadcast_to(columns - window[1].start, hole.shape).astype(np.float32),
        (edge + 0.25 * np.maximum(over, 0) - window[0].start + 0 * rows).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    above = above * (1 - 0.45 * np.clip(over / (0.45 * u), 0, 1))[..., None]
    gap = ((lower - upper) / u)[None]
    weight = (smooth((over / u + 0.02) / 0.04) * smooth((gap - 0.08) / 0.12))[..., None]
    return colour * (1 - weight) + above * weight


__all__ = ["MouthPaint", "MouthPhoto", "look_at", "paint"]
