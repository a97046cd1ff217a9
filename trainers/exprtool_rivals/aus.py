"""Action units out of blendshape weights: what GANimation is told of a face.

The units are the 17 whose intensity OpenFace estimates, in its order; an intensity of 0 to 5 divided by 5 is
GANimation's measure, [0, 1]. Which ARKit weights make a unit follows Apple's and Unity's documentation of the shapes
and published ARKit-to-FACS maps. AU23 has no shape of its own and stays 0. Units made of weights are not OpenFace's: a
network must be told in training what it is told in use.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.targets import presets
from exprtool.errors import DataError, UsageError

AUS = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12", "AU14", "AU15", "AU17", "AU20", "AU23",
    "AU25", "AU26", "AU45",
)  # fmt: skip
_SHAPES = {
    "AU01": ("browInnerUp",), "AU02": ("browOuterUp",), "AU04": ("browDown",), "AU05": ("eyeWide",),
    "AU06": ("cheekSquint",), "AU07": ("eyeSquint",), "AU09": ("noseSneer",), "AU10": ("mouthUpperUp",),
    "AU12": ("mouthSmile",), "AU14": ("mouthDimple",), "AU15": ("mouthFrown",), "AU17": ("mouthShrugLower",),
    "AU20": ("mouthStretch",), "AU26": ("jawOpen",), "AU45": ("eyeBlink",),
}  # fmt: skip


def units_of(weights: Mapping[str, float]) -> NDArray[np.float32]:
    """The 17 units (17,) in [0, 1] of ARKit weights: the mean of left and right. Lips part (AU25) where the jaw opens
    and the mouth does not close, or a lip is drawn away."""

    def amount(shape: str) -> float:
        if shape in weights:
            return weights[shape]
        return (weights.get(f"{shape}Left", 0.0) + weights.get(f"{shape}Right", 0.0)) / 2

    found = {unit: amount(*shapes) for unit, shapes in _SHAPES.items()}
    parted = amount("jawOpen") - amount("mouthClose")
    found["AU25"] = max(parted, amount("mouthLowerDown"), amount("mouthUpperUp"))
    return np.clip([found.get(unit, 0.0) for unit in AUS], 0, 1).astype(np.float32)


def check_units(values: Sequence[float] | NDArray, where: str) -> NDArray[np.float32]:
    """Values as units (17,); `DataError` for another number of them, and for any outside [0, 1]."""
    units = np.asarray(values, np.float32)
    if units.shape != (len(AUS),):
        raise DataError(f"{where}: expected {len(AUS)} action units ({AUS[0]} ... {AUS[-1]}), found {units.size}.")
    if not ((units >= 0) & (units <= 1)).all():
        bad = AUS[int(np.argmax(~((units >= 0) & (units <= 1))))]
        raise DataError(
            f"{where}: {bad} is {units[AUS.index(bad)]:g}, but units lie in [0, 1]. Divide OpenFace's intensities by 5."
        )
    return units


def table_of(labels: Sequence[str], file: Path | None) -> NDArray[np.float32]:
    """The units of each expression, (C, 17): those of exprtool's presets, or of a CSV with the columns ``expression``,
    ``AU01`` ... ``AU45``. Raises `UsageError` for an expression that nobody describes, `DataError` for a bad file."""
    known = {
        name: units_of({control: move.amount for control, move in moves.items()}) for name, moves in presets().items()
    }
    known.setdefault("neutral", np.zeros(len(AUS), np.float32))
    if file is not None:
        known = _read(file)
    if missing := [label for label in labels if label not in known]:
        raise UsageError(
            f"No action units are known for {', '.join(missing)}: give --aus FILE.csv with the columns expression, "
            f"{AUS[0]} ... {AUS[-1]}."
        )
    return np.stack([known[label] for label in labels])


def _read(file: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        return {
            row["expression"]: check_units([float(row[unit]) for unit in AUS if row.get(unit)], f"{file}, line {line}")
            for line, row in enumerate(rows, 2)
        }
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise DataError(f"{file} cannot be read as action units by expression: {error!r}.") from error
