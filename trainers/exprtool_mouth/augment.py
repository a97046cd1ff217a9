"""Training examples out of mouths: turned, shifted, blurred and lit anew each time, with lips as edits make them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.mouth_crop import HEIGHT, PER_MM, WIDTH, Wish, grown, told
from exprtool.pixels.ramps import LUMA
from exprtool_mouth.data import ROOM, Mouths

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Example:
    """``given`` (3, H, W) what is around the hole, ``target`` (3, H, W) what belongs in it, both in [-1, 1]; ``told``
    (CHANNELS - 3, H, W) the rest of the network's input, the hole first."""

    given: Floats
    target: Floats
    told: Floats


@dataclass(frozen=True)
class Variation:
    """How far examples go from their photos. Lengths in mm, angles in degrees, all standard deviations or most."""

    turn: float = 4.0
    size: float = 0.07
    shift: tuple[float, float] = (0.7, 1.8)
    bend: float = 0.5
    """Of a smooth flow over the whole picture: lips in more shapes than the set has."""
    blurred: float = 0.3
    """Share of pictures made up to `coarsest` times coarser: the network learns not to be sharper than a photo."""
    coarsest: float = 3.5
    gain: float = 0.2
    tint: float = 0.06
    grey: float = 0.12
    """Share of pictures without colour."""
    grain: float = 0.35
    """Share of pictures whose surroundings, but not the mouth, carry noise: paint is to be free of it."""
    compressed: float = 0.15
    rim: float = 0.5
    """Share of pictures whose lips are soft next to the hole: edits stretch closed lips."""
    kept: float = 0.2
    """Share of pictures of whose mouth a part is left in sight."""
    beyond: tuple[float, float] = (0.4, 2.2)
    """How far the hole goes over the lips."""
    inexact: float = 0.5
    """Of what is told about teeth."""


PLAIN = Variation(0, 0, (0, 0), 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, (0.8, 0.8), 0)
"""Photos as they are: for measuring."""


def example(mouths: Mouths, index: int, random: np.random.Generator, how: Variation) -> Example:
    """One example; the same generator gives the same."""
    matrix = _placing(random, how)
    flow = _bend(random, how.bend)
    picture = _placed(mouths.pictures[index], matrix, flow).astype(np.float32) / np.float32(127.5) - 1
    opening = _placed(mouths.openings[index], matrix, flow).astype(np.float32) / np.float32(255)
    opening = _inexact(opening, random, how)
    target = _lit(_coarse(picture, random, how), random, how)
    wish = _moved(mouths.wish(index), matrix, random, how)
    hole = _hole(opening, random, how)
    if random.random() < how.kept:
        hole = hole * (1 - _kept(opening, told(opening, hole, wish)[2], random))
    given = _edited(target, hole, random, how)
    return Example(_first(given), _first(target), told(opening, hole, wish))


def _first(picture: Floats) -> Floats:
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def _placing(random: np.random.Generator, how: Variation) -> NDArray[np.float64]:
    """The matrix (2, 3) from the crop to the picture with room around it."""
    angle, size = np.radians(random.normal(0, how.turn)), np.exp(random.normal(0, how.size))
    tall = np.exp(random.normal(0, how.size / 2))
    mirror = -1 if how.turn and random.random() < 0.5 else 1
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror / size, tall / size])
    limit = np.array([0.8, 0.8]) * ROOM
    shift = np.clip(random.normal(0, 1, 2) * np.multiply(how.shift, PER_MM), -limit, limit)
    return np.c_[linear, centre + ROOM + shift - linear @ centre]


def _bend(random: np.random.Generator, length: float) -> Floats | None:
    if not length:
        return None
    coarse = random.normal(0, length * PER_MM, (5, 6, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.float32)


def _placed(picture: NDArray[np.uint8], matrix: NDArray[np.float64], flow: Floats | None) -> NDArray[np.uint8]:
    x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    if flow is not None:
        x, y = x + flow[..., 0], y + flow[..., 1]
    m = matrix.astype(np.float32)
    at = m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]
    return np.asarray(cv2.remap(picture, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.uint8)


def _coarse(picture: Floats, random: np.random.Generator, how: Variation) -> Floats:
    if random.random() >= how.blurred:
        return picture
    coarser = random.uniform(1.2, how.coarsest)
    size = max(8, round(WIDTH / coarser)), max(8, round(HEIGHT / coarser))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.float32)


def _lit(picture: Floats, random: np.random.Generator, how: Variation) -> Floats:
    light = (picture + 1) / 2
    if random.random() < how.grey:
        light = np.repeat((light @ LUMA)[..., None], 3, axis=2)
    else:
        light = light * np.exp(random.normal(0, how.tint, 3)).astype(np.float32)
    light = light * np.float32(np.exp(random.normal(0, how.gain)))
    power = np.float32(np.exp(random.normal(0, how.gain / 2)))
    return (np.clip(light, 0, 1) ** power * 2 - 1).astype(np.float32)


def _inexact(opening: Floats, random: np.random.Generator, how: Variation) -> Floats:
    """The opening (H, W), its outline off by a fraction of a mm here and there."""
    soft = cv2.GaussianBlur(opening, (0, 0), 1.2)
    level = np.float32(0.5)
    if how.inexact:
        wobble = cv2.resize(
            random.normal(0, 0.12, (5, 7)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
        level = np.clip(0.5 + np.float32(random.normal(0, 0.1)) + wobble, 0.2, 0.8)
    return np.clip((soft - level) * 3 + 0.5, 0, 1).astype(np.float32)


def _hole(opening: Floats, random: np.random.Generator, how: Variation) -> Floats:
    return grown(opening, random.uniform(*how.beyond))


def _moved(wish: Wish, matrix: NDArray[np.float64], random: np.random.Generator, how: Variation) -> Wish:
    """The wish, in pixels of the crop, and not quite true."""
    back = np.linalg.inv(matrix[:, :2])

    def line(points: NDArray[np.floating] | None) -> NDArray[np.floating] | None:
        if points is None:
            return None
        at = (points - matrix[:, 2]) @ back.T
        at = at[np.argsort(at[:, 0])]
        at[:, 1] += random.normal(0, how.inexact * PER_MM) + random.normal(0, how.inexact / 12) * (at[:, 0] - WIDTH / 2)
        return at

    tongue, dark = np.clip(np.array([wish.tongue, wish.dark]) + random.normal(0, 0.15 * how.inexact, 2), 0, 1)
    return replace(wish, upper=line(wish.upper), lower=line(wish.lower), tongue=float(tongue), dark=float(dark))


def _kept(opening: Floats, upper: Floats, random: np.random.Generator) -> Floats:
    """A part of the mouth (H, W) that an edit would leave in sight: the upper teeth, or any piece."""
    if random.random() < 0.5 and upper.max() > 0.5:
        return np.clip(2 * cv2.GaussianBlur(upper, (0, 0), 1.0) - 0.5, 0, 1).astype(np.float32)
    rows, columns = np.nonzero(opening > 0.5)
    if not len(rows):
        return np.zeros_like(opening)
    at = random.integers(len(rows))
    piece = np.zeros_like(opening)
    axes = random.uniform(3, 14) * PER_MM, random.uniform(1, 5) * PER_MM
    cv2.ellipse(piece, (int(columns[at]), int(rows[at])), (int(axes[0]), int(axes[1])), 0, 0, 360, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(piece, (0, 0), 1.0) * opening, np.float32)


def _edited(target: Floats, hole: Floats, random: np.random.Generator, how: Variation) -> Floats:
    """The picture as what surrounds the hole of an edit looks."""
    given = target
    if random.random() < how.rim:
        near = grown(hole, random.uniform(0.3, 2.0))
        soft = cv2.GaussianBlur(given, (0, 0), random.uniform(0.8, 2.5))
        given = given + cv2.GaussianBlur(near, (0, 0), 1.0)[..., None] * (soft - given)
    if random.random() < how.compressed:
        levels = np.clip((given + 1) * 127.5, 0, 255).astype(np.uint8)
        _, file = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(30, 80))])
        given = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.float32) / np.float32(127.5) - 1
    if random.random() < how.grain:
        noise = random.normal(0, random.uniform(0.01, 0.09), (HEIGHT, WIDTH, 1)).astype(np.float32)
        given = given + noise
    return np.clip(given, -1, 1).astype(np.float32)
