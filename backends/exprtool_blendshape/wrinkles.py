"""Lines of the skin that come and go with the expression.

Two sources, both driven by how the weights change:

* the photo's *own* lines, measured as dark detail in nine zones: they deepen where a muscle contracts and soften where
  one relaxes (the nasolabial folds of a smile that is taken off);
* *drawn* lines, where a contraction makes new ones. How deep they are depends on how lined the face is already and on
  how sharp the photo is, so that the young stay young and a soft photo stays soft.

Conventions: template coordinates (cm on the model's neutral head, y up) say where a line lies; results are added to the
log gain of linear light (see `shading`). Names of zones end in Left or Right (the person's) where the two sides differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from exprtool.anatomy.grids import Grid
from exprtool.pixels.ramps import LUMA, Ramp
from exprtool_blendshape.compiled import eased

ZONES = ("forehead", "glabella", "nose", "foldLeft", "foldRight", "crowLeft", "crowRight", "underLeft", "underRight")
_POINTS = 14
AMPLITUDE = 0.5


@dataclass(frozen=True, eq=False)
class Lines:
    """Drawn lines: ``points`` (n, 14, 2) template cm, ``width`` (n,) cm, ``depth`` (n,), ``driver`` (n,) index into
    `_DRIVERS`, ``ends`` (n, 2) share of the length over which a line fades in and out, ``phase`` (n,)."""

    points: Grid
    width: Grid
    depth: Grid
    driver: NDArray[np.int64]
    ends: Grid
    phase: Grid


_DRIVERS = ("forehead", "inner", "glabella", "root", "nose", "foldLeft", "foldRight", "crowLeft", "crowRight",
            "underLeft", "underRight")  # fmt: skip


def drivers(weights: Mapping[str, float]) -> dict[str, float]:
    """How hard the muscles under each group of lines contract, 0 to about 1.2, for canonical control weights."""

    def of(name: str) -> float:
        return weights.get(name, 0.0)

    def both(stem: str) -> float:
        return (of(f"{stem}Left") + of(f"{stem}Right")) / 2

    frown = max(both("corrugator"), 0.75 * both("browDown"))
    out = {
        "forehead": max(0.0, both("browOuterUp") - 0.15) * 1.1 * min(1.0, both("browInnerUp") + 0.3) - 0.8 * frown,
        "inner": max(0.0, 0.9 * both("browInnerUp") - 0.9 * both("browOuterUp")),
        "glabella": frown,
        "root": 0.8 * frown,
        "nose": max(0.0, both("noseSneer") - 0.25) * 1.3,
    }
    for side in ("Left", "Right"):
        out[f"fold{side}"] = (
            0.75 * of(f"mouthSmile{side}") + 0.6 * of(f"noseSneer{side}") + 0.4 * of(f"mouthUpperUp{side}")
        )
        smiling = min(1.0, 2 * of(f"mouthSmile{side}"))
        out[f"crow{side}"] = (0.9 * of(f"cheekSquint{side}") + 0.3 * of(f"eyeSquint{side}")) * smiling
        out[f"under{side}"] = 0.8 * of(f"cheekSquint{side}") + 0.6 * of(f"eyeSquint{side}")
    return {name: min(1.2, max(0.0, value)) for name, value in out.items()}


def lay_out(seed: int) -> Lines:
    """The drawn lines of one person: the same places on everybody, jittered by ``seed``."""
    rng = np.random.default_rng(seed)

    def jittered(points: Sequence[tuple[float, float]], sd: float) -> NDArray[np.float64]:
        return np.array(points) + rng.normal(0, sd, (len(points), 2)) * [0.4, 1.0]

    found: list[tuple[str, NDArray[np.float64], float, float, tuple[float, float]]] = []
    for row in _table():
        for side in (-1, 1) if row.paired else (0,):
            points = row.points if side == 0 else [(side * x, y) for x, y in row.points]
            name = row.driver + ({-1: "Right", 1: "Left"}[side] if row.by_side else "")
            width = row.width * float(np.exp(rng.normal(0, 0.09)))
            depth = row.depth * float(rng.uniform(0.85, 1.15))
            found.append((name, _curve(jittered(points, row.jitter)), width, depth, row.ends))
    return Lines(
        points=np.array([item[1] for item in found], np.float32),
        width=np.array([item[2] for item in found], np.float32),
        depth=np.array([item[3] for item in found], np.float32),
        driver=np.array([_DRIVERS.index(item[0]) for item in found]),
        ends=np.array([item[4] for item in found], np.float32),
        phase=rng.uniform(0, 6.28, len(found)).astype(np.float32),
    )


@dataclass(frozen=True)
class _Row:
    """A drawn line; ``paired`` ones are given on the person's left, ``by_side`` where each side has its own driver."""

    driver: str
    points: Sequence[tuple[float, float]]
    width: float
    depth: float
    ends: tuple[float, float] = (0.22, 0.22)
    paired: bool = False
    by_side: bool = False
    jitter: float = 0.06


def _table() -> list[_Row]:
    rows = []
    for y in (7.3, 8.3, 9.3):
        arch = [(-4.4, -0.35), (-2.6, 0.25), (-0.9, 0.0), (0.9, 0.0), (2.6, 0.25), (4.4, -0.35)]
        rows.append(_Row("forehead", [(x, y + dy) for x, dy in arch], 0.13, 0.57, jitter=0.13))
    for y in (7.0, 7.8, 8.6):
        arch = [(-2.4, -0.5), (-1.2, 0.05), (0.0, 0.2), (1.2, 0.05), (2.4, -0.5)]
        rows.append(_Row("inner", [(x, y + dy) for x, dy in arch], 0.12, 0.46, jitter=0.10))
    rows.append(_Row("root", [(-0.45, 4.25), (0, 4.12), (0.45, 4.25)], 0.12, 0.10))
    for y in (3.5, 2.9, 2.35):
        rows.append(_Row("nose", [(-0.85, y + 0.28), (-0.3, y), (0.3, y), (0.85, y + 0.28)], 0.12, 0.20))
    for y in (3.4, 2.85):
        rows.append(_Row("nose", [(0.75, y), (1.15, y - 0.65), (1.4, y - 1.45)], 0.13, 0.24, paired=True))
    rows.append(_Row("glabella", [(0.42, 4.75), (0.52, 5.3), (0.62, 6.0)], 0.15, 0.50, paired=True))
    fold = [(1.75, -0.45), (2.3, -1.1), (2.85, -2.1), (3.25, -3.2)]
    rows.append(_Row("fold", fold, 0.22, 0.42, (0.10, 0.35), paired=True, by_side=True))
    for start, (x, y) in ((3.55, (6.0, 4.15)), (3.33, (6.25, 3.45)), (3.11, (6.0, 2.7))):
        crow = [(4.95, start), (5.45, (start - 0.05 + y) / 2), (x, y)]
        rows.append(_Row("crow", crow, 0.09, 0.42, (0.15, 0.6), paired=True, by_side=True, jitter=0.08))
    under = [(2.0, 2.75), (2.7, 2.35), (3.5, 2.30), (4.4, 2.75)]
    rows.append(_Row("under", under, 0.13, 0.38, paired=True, by_side=True, jitter=0.04))
    return rows


def _curve(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth curve of 14 points through the given ones."""
    from scipy.interpolate import make_interp_spline

    t = np.linspace(0, 1, len(points))
    return make_interp_spline(t, points, k=min(3, len(points) - 1))(np.linspace(0, 1, _POINTS))


def drawn(
    lines: Lines,
    change: Mapping[str, float],
    template: Grid,
    skin: Grid,
    least_width: float,
) -> Grid:
    """Log gain (H, W) of the drawn lines.

    ``change`` is the rise of each driver, ``template`` (H, W, 2) the coordinates at each pixel, ``skin`` (H, W) in
    [0, 1] where lines may be. A line is at least ``least_width`` cm wide: as wide as the photo can show.
    """
    rise = np.array([max(0.0, change.get(name, 0.0)) for name in _DRIVERS], np.float32)
    strength = lines.depth * rise[lines.driver] * np.minimum(1, lines.width / max(least_width, 1e-6))
    active = strength > 0.005
    out = np.zeros(skin.shape, np.float32)
    if active.any():
        width = np.maximum(lines.width, least_width).astype(np.float32)
        _draw_lines(
            lines.points[active], width[active], strength[active].astype(np.float32), lines.ends[active],
            lines.phase[active], template, skin.astype(np.float32), out,
        )  # fmt: skip
    return out


@njit(cache=True, fastmath=True)
def _draw_lines(points, width, strength, ends, phase, template, skin, out):  # pragma: no cover - compiled
    count, length = points.shape[0], points.shape[1]
    height, columns = out.shape
    low = np.empty((count, 2), np.float32)
    high = np.empty((count, 2), np.float32)
    for n in range(count):
        for k in range(2):
            low[n, k] = points[n, :, k].min() - 5 * width[n]
            high[n, k] = points[n, :, k].max() + 5 * width[n]
    for i in range(height):
        for j in range(columns):
            here = skin[i, j]
            if here < 0.02:
                continue
            x, y = template[i, j, 0], template[i, j, 1]
            total = np.float32(0)
            for n in range(count):
                if x < low[n, 0] or x > high[n, 0] or y < low[n, 1] or y > high[n, 1]:
                    continue
                nearest = np.float32(1e9)
                along = np.float32(0)
                for k in range(length - 1):
                    ax, ay = points[n, k, 0], points[n, k, 1]
                    dx, dy = points[n, k + 1, 0] - ax, points[n, k + 1, 1] - ay
                    s = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)
                    s = min(max(s, np.float32(0)), np.float32(1))
                    ex, ey = x - ax - s * dx, y - ay - s * dy
                    d = ex * ex + ey * ey
                    if d < nearest:
                        nearest = d
                        along = (k + s) / (length - 1)
                fade = min(min(along / ends[n, 0], (1 - along) / ends[n, 1]), np.float32(1))
                if fade <= 0:
                    continue
                fade = eased(fade)
                fade *= 0.72 + 0.28 * np.sin(along * 9 + phase[n])
                z = np.sqrt(nearest) / (width[n] * (0.85 + 0.3 * np.sin(along * 5 + 2 * phase[n]) ** 2))
                rim = (z - 2.3) / 1.3
                profile = -np.exp(-z * z) + 0.26 * np.exp(-rim * rim) - 0.16 * np.exp(-z * z / 16)
                total += strength[n] * fade * profile
            out[i, j] = total * here


@dataclass(frozen=True, eq=False)
class OwnLines:
    """The photo's lines: ``detail`` (H, W) as log luminance (<= 0), ``folds`` (H, W) the same for broader furrows,
    ``zones`` (9, H, W) the weights of the zones; ``lined`` in [0, 1] how lined the face is, ``sharp`` in [0, 1] how
    much fine detail the photo has."""

    detail: Grid
    folds: Grid
    zones: Grid
    lined: float
    sharp: float


def measure(picture: Grid, template: Grid, skin: Grid, mesh: Grid, u: float) -> OwnLines:
    """Measure the photo's own lines.

    ``template`` (H, W, 2) is that of the source raster, ``mesh`` (H, W) where it shows skin, and ``skin`` (H, W) how
    much that looks like skin: deep folds are too dark to look like it, and count nevertheless.
    """
    log = np.log(np.maximum(picture @ LUMA, 0.02)) * 2.2
    fine = cv2.GaussianBlur(log, (0, 0), max(0.03 * u, 0.6))
    smooth = cv2.GaussianBlur(log, (0, 0), 0.16 * u)
    band = fine - smooth
    zones = _zones(template)
    folded = np.array([name.startswith("fold") for name in ZONES])
    zones[folded] *= mesh
    zones[~folded] *= skin
    solid = cv2.erode((skin > 0.6).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    x, y = template[..., 0], template[..., 1]
    cheek = solid & (np.abs(x) > 2.2) & (np.abs(x) < 4.6) & (y > -1.6) & (y < 1.2)
    forehead, crow = zones[0] > 0.5, (zones[5] > 0.5) | (zones[6] > 0.5)

    def strength(where: NDArray[np.bool_]) -> float:
        where = where & solid
        return float(np.sqrt(np.mean(band[where] ** 2))) if where.sum() > 40 else 0.0

    base = strength(cheek)
    lines = max(strength(forehead), 0.8 * strength(crow))
    lined = float(np.clip((lines - 0.6 * base - 0.035) / 0.10, 0, 1))
    grain = log - fine
    sharp = float(np.sqrt(np.mean(grain[cheek] ** 2))) if cheek.sum() > 40 else 0.0
    detail = np.maximum(np.minimum(band, 0), -0.7)
    wide = np.maximum(
        np.minimum(cv2.GaussianBlur(log, (0, 0), 0.06 * u) - cv2.GaussianBlur(log, (0, 0), 0.45 * u), 0), -0.6
    )
    return OwnLines(detail.astype(np.float32), wide, zones, lined, float(np.clip(sharp / 0.03, 0, 1)))


def _zones(template: Grid) -> Grid:
    """Weights (9, H, W) in [0, 1] of `ZONES` at template coordinates (H, W, 2)."""
    x, y = np.ascontiguousarray(template[..., 0]), np.ascontiguousarray(template[..., 1])

    def blob(cx: float, cy: float, rx: float, ry: float) -> Grid:
        d = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        return np.exp(-(d * d))

    out = [blob(0, 8.2, 4.6, 1.7), blob(0, 5.3, 0.95, 1.2), blob(0, 2.8, 1.5, 1.3)]
    folds = []
    for s in (1, -1):
        # the fold runs from the wing of the nose past the corner of the mouth; how far a point lies off that line
        t = np.clip((-0.3 - y) / 3.4, 0, 1)
        off = np.abs(s * x - (1.75 + 1.75 * t))
        folds.append(
            (np.exp(-np.square(np.square(off / 0.9))) * Ramp(-0.2, 0.5)(-y) * Ramp(-5.0, -4.0)(y)).astype(np.float32)
        )
    out += folds
    out += [blob(s * 5.6, 3.4, 0.9, 1.2) for s in (1, -1)]
    out += [blob(s * 3.2, 2.25, 1.5, 0.55) for s in (1, -1)]
    return np.stack(out)


DEEPEN, SOFTEN = 0.9, 0.85
"""How much a full contraction adds to the photo's own lines, and how much of them a full relaxation takes away."""


def own_change(own: OwnLines, before: Mapping[str, float], after: Mapping[str, float]) -> Grid:
    """Log gain (H, W), in the photo's own places, of its lines deepening or softening."""
    names = ("forehead", "glabella", "nose", *ZONES[3:])
    total = np.zeros(own.detail.shape, np.float32)
    for zone, name in zip(own.zones, names, strict=True):
        change = after[name] - before[name]
        if name == "forehead":
            change += 0.7 * (after["inner"] - before["inner"])
        amount = DEEPEN * min(change, 1.0) if change > 0 else SOFTEN * max(change * 1.4, -1.0)
        if abs(amount) > 0.01:
            total += np.float32(amount) * zone * (own.folds if name.startswith("fold") else own.detail)
    return total
