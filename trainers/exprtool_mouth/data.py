"""Open mouths out of photos, upright and at one size, with what shows in each.

A set is a folder of photos and ``landmarks.npz`` with ``name`` (n,) and ``landmarks`` (n, 68, 2), or photos alone,
whose landmarks are then found. Each mouth is kept with room around it, so that training can turn, shift and resize it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from exprtool.anatomy.mouth_crop import HEIGHT, PER_MM, WIDTH, Wish, crop_from_points, middle_of
from exprtool.anatomy.teeth import redness_of, surroundings_of, teeth_in
from exprtool.errors import DataError
from exprtool.images import read_image
from exprtool.pixels.ramps import LUMA

ROOM = 28
"""Pixels kept around the crop on each side."""
LEAST_GAP = 3.0
"""Mean distance between the inner lips in mm below which a mouth counts as closed."""
_LINE = 33
"""Points of a line of teeth."""


@dataclass(frozen=True, eq=False)
class Mouths:
    """``pictures`` (n, H, W, 3) uint8, the crop with `ROOM` around it; ``openings`` (n, H, W) uint8, 255 between the
    lips; ``upper``, ``lower`` (n, k, 2), the lines of `Wish`, NaN where there are none, in pixels of these pictures;
    ``shares`` (n, 2) of tongue and dark; ``detail`` (n,) pixels of the photo for each one of the picture."""

    names: NDArray[np.str_]
    pictures: NDArray[np.uint8]
    openings: NDArray[np.uint8]
    upper: NDArray[np.float32]
    lower: NDArray[np.float32]
    shares: NDArray[np.float32]
    detail: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)

    def part(self, members: NDArray[np.integer] | NDArray[np.bool_]) -> Mouths:
        return Mouths(*(getattr(self, name)[members] for name in self.__dataclass_fields__))

    def save(self, path: Path) -> None:
        np.savez(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})  # pyright: ignore

    @classmethod
    def load(cls, path: Path) -> Mouths:
        with np.load(path, allow_pickle=False) as file:
            return cls(*(file[name] for name in cls.__dataclass_fields__))

    def wish(self, index: int) -> Wish:
        """What shows in one, in pixels of the picture."""
        lines = [None if np.isnan(line).any() else line for line in (self.upper[index], self.lower[index])]
        return Wish(lines[0], lines[1], float(self.shares[index, 0]), float(self.shares[index, 1]))


def held_out(names: Sequence[str] | NDArray[np.str_], count: int) -> NDArray[np.bool_]:
    """Which of the ``names`` are never trained on: those ``count`` whose SHA-256 comes first."""
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(str(names[i]).encode()).hexdigest())
    out = np.zeros(len(names), np.bool_)
    out[order[:count]] = True
    return out


def open_mouths(folder: Path) -> Mouths:
    """The mouths of a set's photos that are open; raises `DataError` where there are none."""
    rows = [row for path, landmarks in _photos(folder) if (row := mouth_of(path, landmarks)) is not None]
    if not rows:
        raise DataError(f"{folder}: no photo in it shows an open mouth.")
    return Mouths(*(np.array(column) for column in zip(*rows, strict=True)))


def joined(sets: Sequence[Mouths]) -> Mouths:
    return Mouths(*(np.concatenate([getattr(each, name) for each in sets]) for name in Mouths.__dataclass_fields__))


def _photos(folder: Path) -> Iterator[tuple[Path, NDArray[Any] | None]]:
    listed = folder / "landmarks.npz"
    if listed.is_file():
        with np.load(listed, allow_pickle=False) as file:
            yield from (
                (folder / str(name), points) for name, points in zip(file["name"], file["landmarks"], strict=True)
            )
    else:
        yield from ((path, None) for path in sorted(folder.glob("*.jpg")))


def mouth_of(path: Path, landmarks: NDArray[Any] | None) -> tuple[Any, ...] | None:
    """One row of `Mouths`; None for a closed mouth, or where no single face is found."""
    image = read_image(path).rgb
    if landmarks is None:
        landmarks = _landmarks(image)
        if landmarks is None:
            return None
    points = np.asarray(landmarks, np.float64)
    outline = outline_of(points)
    matrix = crop_from_points(points, middle_of(points, outline))
    scale = float(np.hypot(*matrix[:, 0]))
    if np.linalg.norm(points[61:64] - points[[67, 66, 65]], axis=1).mean() * scale / PER_MM < LEAST_GAP:
        return None
    matrix[:, 2] += ROOM
    picture = resized(image, matrix, (WIDTH + 2 * ROOM, HEIGHT + 2 * ROOM))
    outline = outline @ matrix[:, :2].T + matrix[:, 2]
    wish, opening = what_shows(picture, filled(outline, picture.shape[:2]))
    if (wish.upper is None and wish.lower is None and wish.tongue > _ALL_LIP) or _framed(picture):
        return None
    nothing = np.full((_LINE, 2), np.nan)
    upper, lower = (nothing if line is None else line for line in (wish.upper, wish.lower))
    return (path.name, picture, np.uint8(np.rint(255 * opening)), upper.astype(np.float32), lower.astype(np.float32),
            np.array([wish.tongue, wish.dark], np.float32), np.float32(1 / scale))  # fmt: skip


def _landmarks(image: NDArray[np.uint8]) -> NDArray[Any] | None:
    from exprtool.faces.detect import find_faces
    from exprtool.faces.detectors import DlibDetector
    from exprtool.faces.landmarks import refine68

    faces = find_faces(image, DlibDetector.load("cpu", None)).faces
    return refine68(image, faces[0], robust=True).landmarks68 if len(faces) == 1 else None


def resized(image: NDArray[np.uint8], matrix: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image under ``matrix`` (2, 3) as a picture of ``size`` (width, height), averaged where it gets smaller."""
    scale = float(np.hypot(*matrix[:, 0]))
    if scale < 0.8:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.42 * np.sqrt(1 / scale**2 - 1)), np.uint8)
    return np.asarray(
        cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.uint8
    )


def outline_of(points: NDArray[Any], per_side: int = 24) -> NDArray[np.float64]:
    """A smooth line (n, 2) around the opening, through the eight inner landmarks of the lips."""
    sides = []
    for indices in ((60, 61, 62, 63, 64), (64, 65, 66, 67, 60)):
        side = points[list(indices)]
        steps = np.r_[0, np.cumsum(np.linalg.norm(np.diff(side, axis=0), axis=1) + 1e-6)]
        sides.append(PchipInterpolator(steps, side)(np.linspace(0, steps[-1], per_side, endpoint=False)))
    return np.concatenate(sides)


def filled(outline: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.float32]:
    """1 inside a line (n, 2), 0 outside, (H, W); soft over about a pixel."""
    area = np.zeros(size, np.uint8)
    cv2.fillPoly(area, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return area.astype(np.float32) / np.float32(255)


# ---------------------------------------------------------------------------------------------------------------------
# What shows

_PALE = 0.55
"""Redness (red over green, above 1) of what adjoins the opening as teeth or dark, at most, as a share of the skin's."""
_PALE_LIGHT = 0.55
"""Luma of such teeth at least, as a share of the lit skin's around the mouth."""
_DARK_LIGHT = 0.24
"""Luma at most of what is all but black, as a share of the lit skin's."""
_FEW = 0.2
"""Share of columns that must show a row of teeth for it to count."""
_LEAST_ROW = 1.2
"""Height of a tooth in sight at least, in mm."""
_UPPER_FROM, _LOWER_TO = 0.55, 0.65
"""Share of the opening's height down to which upper teeth may begin, and from which on lower ones may end."""
_ALL_LIP = 0.93
"""Share of what is red between lips, without any teeth, from which on they are closed after all."""
_FRAME = 0.03
"""Share of a picture that may be black to the last bit; more is a frame around the photo."""
_DETECTOR = 2.5
"""How far, in mm, the real opening may reach beyond what a detector's landmarks enclose."""


def what_shows(picture: NDArray[np.uint8], enclosed: NDArray[np.float32]) -> tuple[Wish, NDArray[np.float32]]:
    """Read from the colours of an open mouth which teeth it shows, how much tongue and how much dark; and its opening
    (H, W), which is what the landmarks ``enclosed`` and what of teeth and dark adjoins it.

    Teeth are pale beside the skin, in whatever light; the lower edge of the upper row and the upper edge of the lower
    one are parabolas through the ends of what is pale in each column.
    """
    rgb = cv2.GaussianBlur(picture, (0, 0), 0.7).astype(np.float32)
    luma, around = rgb @ LUMA, surroundings_of(rgb, enclosed > 0.5, PER_MM)
    black = luma < _DARK_LIGHT * around.lit
    pale = (luma > _PALE_LIGHT * around.lit) & (redness_of(rgb) < _PALE * around.redness)
    opening = enclosed if around.grey else _grown(enclosed, pale | black)
    inside = opening > 0.5
    tooth = teeth_in(rgb, inside, around, PER_MM)
    area = max(1, int(inside.sum()))
    upper, lower = _rows(tooth, inside)
    red = inside & ~tooth & ~black
    return Wish(upper, lower, float(red.sum()) / area, float((inside & black).sum()) / area), opening


def _grown(enclosed: NDArray[np.float32], odd: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What is ``enclosed`` (H, W), and what is ``odd`` and joined to it within `_DETECTOR`; with a smooth border."""
    reach = 2 * round(_DETECTOR * PER_MM) + 1
    near = cv2.dilate(enclosed, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > 0.5
    core = enclosed > 0.5
    _, part = cv2.connectedComponents((core | (odd & near)).astype(np.uint8))
    joined = (np.isin(part, np.unique(part[core])) & (part > 0)).astype(np.uint8)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    joined = cv2.morphologyEx(cv2.morphologyEx(joined, cv2.MORPH_CLOSE, ellipse), cv2.MORPH_OPEN, ellipse)
    soft = cv2.GaussianBlur(np.maximum(joined, core).astype(np.float32), (0, 0), 1.6)
    return np.clip((soft - 0.5) * 2.5 + 0.5, 0, 1).astype(np.float32)


def _framed(picture: NDArray[np.uint8]) -> bool:
    return float((picture.max(-1) == 0).mean()) > _FRAME


def _rows(
    tooth: NDArray[np.bool_], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """The line where the upper row of teeth ends, and the one where the lower row begins; None for no such row.

    Of each column the first run of teeth counts as upper ones where it begins high enough, the last one as lower ones
    where it is another. Where both rows look like one, there is no telling where the lower one begins.
    """
    columns = np.flatnonzero(inside.sum(0) > 2 * PER_MM)
    upper, lower = [], []
    for x in columns:
        rows = np.flatnonzero(inside[:, x])
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        edges = np.flatnonzero(np.diff(np.r_[0, tooth[top:bottom, x].astype(np.int8), 0]))
        runs = [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= _LEAST_ROW * PER_MM]
        first = runs[0] if runs and runs[0][0] < _UPPER_FROM * (bottom - top) else None
        last = runs[-1] if runs and runs[-1] != first and runs[-1][1] > _LOWER_TO * (bottom - top) else None
        upper.append(np.nan if first is None else top + first[1])
        lower.append(np.nan if last is None else top + last[0])
    return _line(columns, np.array(upper)), _line(columns, np.array(lower))


def _line(columns: NDArray[np.intp], ends: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """A parabola (n, 2) through the ends of a row of teeth (m,), NaN where there are none, across all columns."""
    seen = np.isfinite(ends)
    if len(columns) < 8 or seen.sum() < _FEW * len(columns):
        return None
    centre, half = float(columns.mean()), max(1.0, float(np.ptp(columns)) / 2)
    t, y = (columns[seen] - centre) / half, ends[seen]
    weight = 1 - 0.7 * np.abs(t)
    curve = np.array([0.0, 0.0, float(np.median(y))])
    for _ in range(4):  # reweighted: a gap or a glint is no edge; and hardly bent where little is seen
        basis = np.stack([t**2, t, np.ones_like(t)], 1) * np.sqrt(weight)[:, None]
        hold = np.diag([0.003, 0.003, 0.0]) * len(columns)
        curve = np.linalg.solve(basis.T @ basis + hold, basis.T @ (np.sqrt(weight) * y))
        off = np.abs(np.polyval(curve, t) - y)
        weight = (1 - 0.7 * np.abs(t)) / (1 + (off / (1.5 * PER_MM)) ** 2)
    at = np.linspace(-1.1, 1.1, _LINE)
    return np.c_[centre + half * at, np.polyval(curve, at)]
