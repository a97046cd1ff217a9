"""From the small answer of a network to a patch at the photo's own resolution.

A network sees an aligned crop of S x S pixels; what it says about the crop is moved onto the photo's own pixels, so
that pores and hair stay as sharp as they were taken: a flow moves them, shading multiplies them, a residual is added to
them, and only what did not exist before is painted over them.

Conventions
-----------
* Points are (x, y) at pixel centres. ``crop_from_image`` is (2, 3) and maps image points to crop points: a rotation,
  one scale and a shift (no shear, no mirror).
* Fields over the crop have the shape (S, S, ...); row is y. The crop's pixels fill [-0.5, S - 0.5] in both directions.
* A flow is backward: the picture at p shows what was at p + flow(p). In the crop it is measured in crop pixels, in the
  result in the photo's pixels; rotating and scaling the vectors is done here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.devices import usable_cpus
from exprtool.errors import PluginError
from exprtool.pixels import blur as lens
from exprtool.pixels.photo_border import hold_within
from exprtool.pixels.ramps import smoothstep
from exprtool.pixels.resample import resample
from exprtool.types import FacePatch, FaceRegion, Image, IntBox

_TILE = 512, 128
"""Width and height of what is in work at a time: it stays within a processor's cache, and where nothing is to be done
little is done; half as many pixels cost a twentieth more in calls, twice as many gain nothing."""
_THREADS = 4
_NEARLY_ALL = 0.75
"""Share of a tile from which on it is not worth while to look for the part where something is done."""
_REACH = 2
"""Crop pixels beyond a point that its cubic interpolation looks at."""
_PER_PASS = 0.25
"""Of its second differences, along both axes together, a picture takes so much at once: no detail turns into its
negative."""
_SHARP_ENOUGH = 0.006
"""Softening up to which none is needed (skin squeezed by 2 %); from twice as much on it is done in full."""
_BOTH = (2, 0), (0, 2)
"""Orders of the second derivatives along x and along y."""
FEATHER = 0.08
"""Width of the seam in which the answer fades out toward the crop's border, as a fraction of the crop's side."""
_SLOPE = 2.6
"""Motion that goes on beyond the crop fades out over this many times its length: then no point moves more than 0.6
pixels further than its neighbour, and nothing folds over."""
_STILL = 1.0
"""Width of the seam, in crop pixels, at a border where nothing happens."""
_FARTHEST = 0.3
"""How far beyond the crop anything goes on at most, as a fraction of its side."""

Field = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CropAnswer:
    """What a network says about an aligned crop of S x S pixels; every part is optional.

    They act in this order on the photo's own pixels (values 0 to 255):

    * ``flow`` (S, S, 2) float: backward flow in crop pixels;
    * ``shading`` (S, S) or (S, S, 3) float >= 0: factor;
    * ``residual`` (S, S, 3) float: added, in 8-bit levels (a network's range of [-1, 1] takes a factor of 127.5);
    * ``paint`` (S, S, 3) in 0 to 255 with ``paint_mask`` (S, S) in [0, 1]: replaces what is there;
    * ``alpha`` (S, S) in [0, 1]: how much of all that to take; 1 everywhere where it is missing.
    """

    flow: NDArray[Any] | None = None
    shading: NDArray[Any] | None = None
    residual: NDArray[Any] | None = None
    paint: NDArray[Any] | None = None
    paint_mask: NDArray[Any] | None = None
    alpha: NDArray[Any] | None = None

    def checked(self) -> int:
        """The side S; raises `PluginError` that prints expected and actual where the parts do not fit together."""
        parts = {
            "flow": (self.flow, (2,)),
            "shading": (self.shading, None),
            "residual": (self.residual, (3,)),
            "paint": (self.paint, (3,)),
            "paint_mask": (self.paint_mask, ()),
            "alpha": (self.alpha, ()),
        }
        present = {name: (part, tail) for name, (part, tail) in parts.items() if part is not None}
        if not present:
            raise PluginError("The network's answer is empty: give a flow, shading, residual or paint.")
        if (self.paint is None) != (self.paint_mask is None):
            raise PluginError("paint and paint_mask go together; got only one of them.")
        side = next(iter(present.values()))[0].shape[0]
        for name, (part, tail) in present.items():
            allowed = [(side, side, *tail)] if tail is not None else [(side, side), (side, side, 3)]
            if part.shape not in allowed:
                expected = " or ".join(map(str, allowed))
                raise PluginError(f"The network's {name} does not fit: expected {expected}, got {part.shape}.")
            if not np.isfinite(part).all():
                raise PluginError(f"The network's {name} holds values that are not finite numbers.")
        for name in ("paint_mask", "alpha"):
            part = getattr(self, name)
            if part is not None and (part.min() < 0 or part.max() > 1):
                raise PluginError(f"The network's {name} must lie in [0, 1]; got {part.min()} to {part.max()}.")
        if self.shading is not None and self.shading.min() < 0:
            raise PluginError(f"The network's shading must not be negative; got {self.shading.min()}.")
        return side


def crop_from_region(region: FaceRegion, crop_from_image: NDArray[Any]) -> NDArray[np.float64]:
    """The matrix (2, 3) that maps points of the region's own pixels to the crop."""
    matrix = np.asarray(crop_from_image, dtype=np.float64).copy()
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
        raise PluginError(f"crop_from_image: expected a finite (2, 3) matrix, got {matrix.shape}: {matrix.tolist()}.")
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    scale = np.hypot(a, c)
    if scale <= 0 or abs(a - d) > 1e-4 * scale or abs(b + c) > 1e-4 * scale:
        raise PluginError(f"crop_from_image: expected rotation, scale and shift, got {matrix.tolist()}.")
    matrix[:, 2] += matrix[:, :2] @ np.asarray(region.box[:2], dtype=np.float64)
    return matrix


def lift(
    region: FaceRegion,
    crop_from_image: NDArray[Any],
    answer: CropAnswer,
    *,
    feather: float = FEATHER,
    beyond: bool = False,
    blur: float = lens.USUAL,
    free: NDArray[np.floating] | None = None,
    notes: tuple[str, ...] = (),
    details: dict[str, Any] | None = None,
) -> FacePatch:
    """Carry the network's ``answer`` about a crop to the pixels of ``region``.

    Toward the crop's border, and toward the region's where that cuts the crop, everything fades out within
    ``feather`` (fraction of the crop's side) so that no seam remains; where the photo itself ends, none is needed, but
    motion that would bring in what lies beyond comes to rest. An answer that holds up to the crop's border can go on
    ``beyond`` it instead, and fade out there: a jaw that drops pushes the throat down with it, and within the crop
    there is no room for that. Skin that is pushed together stays as soft as the photo is: ``blur`` is its lens's, a
    standard deviation in pixels (`exprtool.pixels.blur`). ``free`` (h, w) in [0, 1] is how much of all that to do at
    each of the region's pixels; 0 keeps off. Pixels for which the answer asks nothing (no flow, no residual ...) keep
    their bits. Raises `PluginError` for parts that do not fit.
    """
    side = answer.checked()
    matrix = crop_from_region(region, crop_from_image)
    height, width = region.pixels.shape[:2]
    patch = _Canvas(region.pixels)
    seam = _Seam.beyond(answer, side, feather) if beyond else _Seam.within(side, feather)
    window = _Window.around_crop(matrix, side, (height, width), seam)
    if window is not None:
        answer = window.without_the_finest(answer)
        if answer.flow is not None:
            answer = replace(answer, flow=_in_photo(answer.flow, window.crop_from_window[:, :2]))
        softening = None if answer.flow is None else _softening(answer.flow, window.crop_from_window[:, :2], blur)
        neutral = ((answer.flow, 0), (answer.shading, 1), (answer.residual, 0), (answer.paint_mask, 0), (softening, 0))
        acts = [None if field is None else _around(_differs(field, value), seam.margin) for field, value in neutral]

        passes = 1 if softening is None else max(1, math.ceil(float(softening.sum(-1).max()) / _PER_PASS))
        room = None if free is None else np.pad(np.asarray(free, np.float32), passes, mode="edge")

        def weight(part: _Window) -> Field:
            seen = part.weight(seam, region.box, region.image_size)
            if room is not None:
                seen *= room[part.y0 + passes : part.y1 + passes, part.x0 + passes : part.x1 + passes]
            return seen

        job = _Job(patch, region, answer, softening, passes, weight)

        def work(tile: _Window) -> None:
            job.do(tile, [None if each is None else tile.acting(each, seam.margin) for each in acts])

        tiles = window.tiles()
        list(_pool().map(work, tiles) if len(tiles) > 1 else map(work, tiles))
    return FacePatch(
        patch.pixels,
        patch.alpha,
        flow=patch.flow if answer.flow is not None else None,
        painted=patch.painted if answer.paint is not None else None,
        notes=notes,
        details=details or {},
    )


class _Canvas:
    """The patch while it is made; what lies outside the crop stays as initialised."""

    def __init__(self, pixels: Image) -> None:
        height, width = pixels.shape[:2]
        self.pixels: Image = pixels.copy()
        self.alpha = np.zeros((height, width), dtype=np.float32)
        self.flow = np.zeros((height, width, 2), dtype=np.float32)
        self.painted = np.zeros((height, width), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class _Seam:
    """Where an answer fades out, in crop pixels: at the ``distances`` from the crop's border (left, top, right, bottom;
    outwards positive) it has come to nothing, and it begins to fade ``widths`` further in. ``border`` is the width
    where the region ends."""

    distances: tuple[float, ...]
    widths: tuple[float, ...]
    border: float

    @property
    def margin(self) -> int:
        """How many pixels around the crop are still touched."""
        return int(np.ceil(max(0.0, *self.distances) - 0.5))

    @classmethod
    def within(cls, side: int, feather: float) -> _Seam:
        """A seam inside the crop."""
        width = max(feather * side, 1e-6)
        # A hair less than to the outermost pixels' edges, so that no rounding lets the seam begin outside the crop.
        return cls((0.4999,) * 4, (width,) * 4, width)

    @classmethod
    def beyond(cls, answer: CropAnswer, side: int, feather: float) -> _Seam:
        """A seam outside, at each border as wide as what happens there needs."""
        width = max(feather * side, 1e-6)

        def needed(x: int | slice, y: int | slice) -> float:
            motion = 0.0 if answer.flow is None else float(np.hypot(*answer.flow[y, x].T).max())
            still = (answer.shading is None or (answer.shading[y, x] == 1).all()) and (
                answer.residual is None or not answer.residual[y, x].any()
            )
            return max(min(_SLOPE * motion, _FARTHEST * side), _STILL if still else width)

        all_ = slice(None)
        left, top, right, bottom = needed(0, all_), needed(all_, 0), needed(-1, all_), needed(all_, -1)
        return cls((left, top, right, bottom), (left, top, right, bottom), width)


@dataclass(frozen=True, eq=False)
class _Window:
    """The part of the region that the crop covers: rows and columns, and the matrix from its pixels to the crop."""

    x0: int
    y0: int
    x1: int
    y1: int
    crop_from_window: NDArray[np.float64]
    side: int

    @classmethod
    def around_crop(
        cls, crop_from_region: NDArray[np.float64], side: int, size: tuple[int, int], seam: _Seam
    ) -> _Window | None:
        """Around the crop, and what lies beyond it within the ``seam``."""
        linear, shift = crop_from_region[:, :2], crop_from_region[:, 2]
        left, top, right, bottom = np.maximum(seam.distances, 0.5)
        corners = np.array(list(product((-left, side - 1 + right), (-top, side - 1 + bottom))))
        corners = (corners - shift) @ np.linalg.inv(linear).T
        x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (size[1], size[0]))
        if x0 >= x1 or y0 >= y1:
            return None
        moved = crop_from_region.copy()
        moved[:, 2] += linear @ (x0, y0)
        return cls(int(x0), int(y0), int(x1), int(y1), moved, side)

    @property
    def place(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def size(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def scale(self) -> float:
        """Crop pixels per pixel of the photo."""
        return float(np.hypot(self.crop_from_window[0, 0], self.crop_from_window[1, 0]))

    def inside(self, other: _Window) -> tuple[slice, slice]:
        """Rows and columns of this window in those of another one around it."""
        return slice(self.y0 - other.y0, self.y1 - other.y0), slice(self.x0 - other.x0, self.x1 - other.x0)

    def within(self, other: _Window) -> _Window | None:
        """What of this window lies in another one; None where nothing does."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return self.part(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def grown(self, ring: int) -> _Window:
        """With so many pixels around."""
        return self.part(self.x0 - ring, self.y0 - ring, self.x1 + ring, self.y1 + ring)

    def part(self, x0: int, y0: int, x1: int, y1: int) -> _Window:
        """These columns and rows of the region as a window."""
        moved = self.crop_from_window.copy()
        moved[:, 2] += moved[:, :2] @ (x0 - self.x0, y0 - self.y0)
        return replace(self, x0=x0, y0=y0, x1=x1, y1=y1, crop_from_window=moved)

    def tiles(self) -> list[_Window]:
        """The window in pieces of about `_TILE`."""
        columns, rows = (_cuts(low, high, side) for low, high, side in zip(
            (self.x0, self.y0), (self.x1, self.y1), _TILE, strict=True
        ))  # fmt: skip
        return [self.part(x0, y0, x1, y1) for (y0, y1), (x0, x1) in product(rows, columns)]

    def acting(self, acts: NDArray[np.bool_], margin: int) -> _Window | None:
        """The smallest part of the window that holds all places where a field acts, or a cubic's reach of it; None
        where it acts nowhere. ``acts`` is over the crop and ``margin`` pixels around it."""
        import cv2

        height, width = self.size
        (a, b, tx), (c, d, ty) = self.crop_from_window.tolist()
        tx, ty = tx + margin, ty + margin
        across, down = width - 1, height - 1
        left = max(int(tx + min(a * across, 0) + min(b * down, 0)) - _REACH - 1, 0)
        top = max(int(ty + min(c * across, 0) + min(d * down, 0)) - _REACH - 1, 0)
        right = int(tx + max(a * across, 0) + max(b * down, 0)) + _REACH + 2
        bottom = int(ty + max(c * across, 0) + max(d * down, 0)) + _REACH + 2
        acts = acts[top : max(bottom, 1), left : max(right, 1)]
        if not acts.size:
            return None
        x, y, wide, tall = cv2.boundingRect(acts.view(np.uint8))
        if wide * tall == 0:
            return None
        if wide * tall > _NEARLY_ALL * acts.size:
            return self
        x, y = left + x - _REACH - tx, top + y - _REACH - ty
        corners = list(product((x, x + wide - 1 + 2 * _REACH), (y, y + tall - 1 + 2 * _REACH)))
        square = a * d - b * c
        columns = [(d * u - b * v) / square for u, v in corners]
        rows = [(a * v - c * u) / square for u, v in corners]
        x0, x1 = max(math.floor(min(columns)), 0), min(math.ceil(max(columns)) + 1, width)
        y0, y1 = max(math.floor(min(rows)), 0), min(math.ceil(max(rows)) + 1, height)
        if x0 >= x1 or y0 >= y1:
            return None
        return self.part(self.x0 + x0, self.y0 + y0, self.x0 + x1, self.y0 + y1)

    def without_the_finest(self, answer: CropAnswer) -> CropAnswer:
        """Where the photo is coarser than the crop: the answer without what the photo's pixels cannot show."""
        import cv2

        if self.scale <= 1:
            return answer
        sigma = 0.5 * float(np.sqrt(self.scale**2 - 1))

        def coarser(values: NDArray[Any]) -> NDArray[Any]:
            values = np.ascontiguousarray(values, dtype=np.float32)
            return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))

        parts = {each.name: getattr(answer, each.name) for each in fields(answer)}
        return CropAnswer(**{name: None if part is None else coarser(part) for name, part in parts.items()})

    def sample(self, field: NDArray[Any], *, smoothly: bool = True) -> Field:
        """A field over the crop (S, S, ...) at the window's pixels, by cubics or linearly; beyond the crop its edge."""
        import cv2

        values = np.ascontiguousarray(field, dtype=np.float32)
        height, width = self.size
        sampled = cv2.warpAffine(
            values,
            self.crop_from_window,
            (width, height),
            flags=(cv2.INTER_CUBIC if smoothly else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(sampled, dtype=np.float32)

    def weight(self, seam: _Seam, box: IntBox, image_size: tuple[int, int] | None) -> Field:
        """How much of an answer to take (h, w): all of it inside, falling smoothly to 0 along the ``seam``.

        ``box`` is the region's: where it ends inside the crop and inside the photo, its border would show as well.
        """
        height, width = self.size
        x = np.arange(width, dtype=np.float32)
        y = np.arange(height, dtype=np.float32)[:, np.newaxis]
        reach = seam.border / self.scale  # in the photo's pixels
        x0, y0, x1, y1 = box
        bottom, right = image_size or (-1, -1)
        columns, rows = x + np.float32(self.x0 + x0), y + np.float32(self.y0 + y0)
        across, down = np.ones_like(x), np.ones_like(y)
        if x0 > 0:
            across *= smoothstep((columns - x0 + 0.5) / reach)
        if y0 > 0:
            down *= smoothstep((rows - y0 + 0.5) / reach)
        if x1 != right:
            across *= smoothstep((x1 - 0.5 - columns) / reach)
        if y1 != bottom:
            down *= smoothstep((y1 - 0.5 - rows) / reach)
        weight = across * down
        for side, (distance, wide) in enumerate(zip(seam.distances, seam.widths, strict=True)):
            # Linear over the crop, and so over the window: how far in from where nothing is taken, in widths.
            a, b, shift = (self.crop_from_window[side % 2] / wide).tolist()
            if side >= 2:
                a, b, shift = -a, -b, (self.side - 1) / wide - shift
            shift += distance / wide
            if shift + min(a * (width - 1), 0) + min(b * (height - 1), 0) < 1:
                weight *= smoothstep(np.float32(a) * x + (np.float32(b) * y + np.float32(shift)))
        return weight


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Threads for tiles; OpenCV and NumPy work beside each other there."""
    return ThreadPoolExecutor(min(_THREADS, usable_cpus()), thread_name_prefix="lift")


def _cuts(low: int, high: int, side: int) -> list[tuple[int, int]]:
    """[low, high) in equal pieces of about ``side``."""
    count = max(1, round((high - low) / side))
    edges = [low + (high - low) * index // count for index in range(count + 1)]
    return list(pairwise(edges))


@dataclass(frozen=True, eq=False)
class _Job:
    """What is done to the tiles of a region. ``softening`` is over the crop and takes so many ``passes``; ``weight``
    tells of a window how much of the answer to take there."""

    canvas: _Canvas
    region: FaceRegion
    answer: CropAnswer
    softening: Field | None
    passes: int
    weight: Callable[[_Window], Field]

    def do(self, window: _Window, parts: Sequence[_Window | None]) -> None:
        """Do to a tile what the answer asks; ``parts`` are those of it where flow, shading, residual, paint and
        softening act."""
        import cv2

        answer, canvas, place = self.answer, self.canvas, window.place
        levels: Image = self.region.pixels[place].copy()
        border, inner = window.grown(self.passes), slice(self.passes, -self.passes)
        around = self.weight(border)
        seam = np.ascontiguousarray(around[inner, inner])
        moving, lit, added, painted, squeezed = parts
        if answer.flow is not None and moving:
            wide = moving.grown(self.passes)
            squeezed = squeezed and squeezed.within(moving)
            levels[moving.inside(window)] = self._moved(answer.flow, moving, squeezed, around[wide.inside(border)])
        if answer.shading is not None and lit:
            factor = lit.sample(answer.shading)
            if factor.ndim == 2:
                factor = cv2.merge([factor] * 3)
            here = lit.inside(window)  # negative factors, which cubics make beside zeros, end as black
            levels[here] = cv2.multiply(np.ascontiguousarray(levels[here]), factor, dtype=cv2.CV_8U)
        if answer.residual is not None and added:
            here = added.inside(window)
            levels[here] = _rounded(levels[here] + added.sample(answer.residual))
        if answer.paint is not None and answer.paint_mask is not None and painted:
            here = painted.inside(window)
            mask = np.clip(painted.sample(answer.paint_mask), 0, 1)
            canvas.painted[painted.place] = mask * seam[here]
            below = levels[here].astype(np.float32)
            below += mask[..., np.newaxis] * (painted.sample(answer.paint) - below)
            levels[here] = _rounded(below)
        alpha = seam if answer.alpha is None else seam * np.clip(window.sample(answer.alpha), 0, 1)
        canvas.alpha[place] = alpha
        cv2.copyTo(levels, (alpha > 0).view(np.uint8), canvas.pixels[place])

    def _moved(self, flow: NDArray[Any], part: _Window, squeezed: _Window | None, weight: Field) -> Image:
        """The region's own pixels moved over ``part`` of a tile, and softened over that of it where skin is
        ``squeezed``. A border as wide as there are passes goes along, each of which reaches one pixel further;
        ``weight`` is how much of the flow to take in all of that."""
        ring = self.passes
        wide, inner = part.grown(ring), slice(ring, -ring)
        # The flow itself fades, besides the alpha: half-way between two places no feature may show twice. No eye sees a
        # bend in where things come from, as it would see one in light; straight pieces take a quarter of the time of
        # cubics.
        moves = wide.sample(flow, smoothly=False) * weight[..., np.newaxis]
        x0, y0 = self.region.box[:2]
        hold_within(moves, (wide.x0 + x0, wide.y0 + y0), self.region.image_size)
        self.canvas.flow[part.place] = moves[inner, inner]
        moved = _moved(self.region.pixels, wide, moves)
        if self.softening is not None and squeezed:
            around = squeezed.grown(ring).within(wide)
            assert around is not None
            _soften(moved[around.inside(wide)], around.sample(self.softening, smoothly=False), self.passes)
        return moved[inner, inner]


def _around(acts: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """The same with ``margin`` pixels around, where the border's go on."""
    return np.pad(acts, margin, mode="edge") if margin else acts


def _differs(field: NDArray[Any], neutral: float) -> NDArray[np.bool_]:
    """Where a field (S, S) or (S, S, n) is anything but ``neutral``, (S, S)."""
    if field.ndim == 2:
        return field != neutral
    first, *others = (field[..., channel] != neutral for channel in range(field.shape[2]))
    for other in others:
        first |= other
    return first


def _rounded(pixels: Field) -> Image:
    return np.rint(np.clip(pixels, 0, 255, out=pixels), out=pixels).astype(np.uint8)


def _softening(flow: Field, linear: NDArray[np.float64], blur: float) -> Field | None:
    """By how much of its second differences along the photo's x and y a moved picture is softened, (S, S, 2); None
    where nowhere.

    Skin that is pushed together shows finer detail than any camera would have taken of it: the blur of the lens has
    been squeezed with it. With standard deviations s before and s / k after a squeeze by k, what is lacking is a blur
    of variance s^2 (1 - 1 / k^2); a kernel (a, 1 - 2a, a) has the variance 2a. ``flow`` and ``blur``, the s, are in
    the photo's pixels, ``linear`` (2, 2) takes the photo's directions to the crop's.
    """
    import cv2

    across, down = (cv2.Sobel(flow, cv2.CV_32F, dx, dy, ksize=1, scale=0.5) for dx, dy in ((1, 0), (0, 1)))
    softening = np.empty_like(flow)
    for axis, (a, b) in enumerate(linear.T):
        step = cv2.addWeighted(across, a, down, b, 0)
        step[..., axis] += 1
        squeeze = np.maximum(step[..., 0] ** 2 + step[..., 1] ** 2, 1)
        softening[..., axis] = blur**2 / 2 - (blur**2 / 2) / squeeze
    softening *= smoothstep(np.maximum(softening[..., :1], softening[..., 1:]) / _SHARP_ENOUGH - 1)
    return softening if softening.any() else None


def _soften(picture: Image, softening: Field, passes: int) -> None:
    """Soften a picture (h, w, 3) by ``softening`` (h, w, 2) of its second differences, in place. Of a border as wide as
    there are ``passes`` nobody may look at the result: it does not know what lies outside."""
    import cv2

    shares = [cv2.merge([share / passes] * 3) for share in cv2.split(softening)]
    soft, source = picture.astype(np.float32), picture
    for _ in range(passes):
        bends = [cv2.Sobel(source, cv2.CV_32F, dx, dy, ksize=1, borderType=cv2.BORDER_REPLICATE) for dx, dy in _BOTH]
        for bend, share in zip(bends, shares, strict=True):
            cv2.accumulateProduct(bend, share, soft)
        source = soft
    picture[:] = _rounded(soft)


def _in_photo(flow: NDArray[Any], linear: NDArray[np.float64]) -> Field:
    """Flow in crop pixels -> flow in the photo's: q = A p + t, hence A (p + v) + t = q + f gives v = A^-1 f. Turned
    while it is small, for sampling is linear."""
    return np.asarray(flow, np.float32) @ np.linalg.inv(linear).T.astype(np.float32)


def _moved(source: Image, window: _Window, flow: Field) -> Image:
    """The region's own pixels moved by ``flow`` (h, w, 2) over the window, (h, w, 3)."""
    columns = np.arange(window.x0, window.x1, dtype=np.float32) + flow[..., 0]
    rows = np.arange(window.y0, window.y1, dtype=np.float32)[:, np.newaxis] + flow[..., 1]
    return resample(source, columns, rows)
