"""Faces drawn by code, of two expressions: a training set that needs no photos, for tests and for trying things out.

A person is a random choice of colours and proportions; the expression is the mouth's curve and the brows' tilt, and
nothing else. Whether a training works can thus be told in minutes on a CPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

EXPRESSIONS = ("happy", "sad")
_FINE = 4  # drawn larger and averaged down, so that lines are smooth


def draw_face(person: int, expression: str, size: int = 32) -> NDArray[np.uint8]:
    """The drawing (size, size, 3) RGB of a person, who looks the same in both expressions but for brows and mouth."""
    rng = np.random.default_rng([20, person])
    s = size * _FINE
    background, skin, hair = (
        tuple(int(v) for v in rng.integers(*span, 3)) for span in ((40, 230), (130, 245), (10, 120))
    )
    lips = (int(rng.integers(140, 200)), int(rng.integers(20, 70)), int(rng.integers(30, 80)))
    iris = tuple(int(v) for v in rng.integers(10, 110, 3))
    x, y = s * rng.uniform(0.47, 0.53), s * rng.uniform(0.49, 0.53)
    half_width, half_height = s * rng.uniform(0.33, 0.42), s * rng.uniform(0.4, 0.46)
    eyes, eye, gap = y - s * rng.uniform(0.08, 0.13), s * rng.uniform(0.035, 0.055), s * rng.uniform(0.13, 0.18)
    mouth, reach = y + s * rng.uniform(0.2, 0.25), s * rng.uniform(0.13, 0.18)
    nose = y + s * rng.uniform(0.06, 0.1)
    pen = max(1, round(s * 0.03))

    picture = Image.new("RGB", (s, s), background)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=hair)
    draw.ellipse((x - half_width * 0.92, y - half_height * 0.7, x + half_width * 0.92, y + half_height), fill=skin)
    up = 1.0 if expression == "happy" else -1.0
    for side in (-1, 1):
        centre = x + side * gap
        draw.ellipse((centre - 1.5 * eye, eyes - eye, centre + 1.5 * eye, eyes + eye), fill=(250, 250, 250))
        draw.ellipse((centre - 0.8 * eye, eyes - 0.8 * eye, centre + 0.8 * eye, eyes + 0.8 * eye), fill=iris)
        brow = eyes - 2.4 * eye
        tilt = 0.0 if up > 0 else 1.1 * eye  # sad brows rise towards the middle
        draw.line(
            (centre - side * 1.6 * eye, brow - tilt, centre + side * 1.6 * eye, brow + tilt * 0.6), fill=hair, width=pen
        )
    draw.line(
        (x, y - s * 0.03, x - s * 0.025, nose, x + s * 0.015, nose),
        fill=tuple(v * 3 // 4 for v in skin),
        width=pen // 2,
    )
    t = np.linspace(-1, 1, 25)
    curve = np.stack([x + reach * t, mouth + up * s * 0.05 * (1 - 2 * t**2)], axis=1)
    draw.line([(float(px), float(py)) for px, py in curve], fill=lips, width=pen + pen // 2, joint="curve")
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX))


def draw_set(people: range, size: int = 32) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Every person with both expressions: images (2 n, size, size, 3) and labels (2 n,) into `EXPRESSIONS`."""
    images = [draw_face(person, expression, size) for person in people for expression in EXPRESSIONS]
    return np.stack(images), np.tile(np.arange(len(EXPRESSIONS)), len(people))


def write_set(folder: Path, people: range, size: int = 32) -> None:
    """The same as a data folder: one subfolder per expression, one PNG per person."""
    for expression in EXPRESSIONS:
        (folder / expression).mkdir(parents=True, exist_ok=True)
        for person in people:
            Image.fromarray(draw_face(person, expression, size)).save(folder / expression / f"person{person:04d}.png")
