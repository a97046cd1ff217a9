"""Landmarks of heads that nobody has, with what a fit reads from them: what the reader learns from besides a set.

A fit is a function of landmarks, with thresholds that portraits of a thousand people do not show often enough. It can
be asked about any landmarks, a hundred times a second. Here it is asked about faces between two faces of a set,
portraits and renders, in other proportions. A render counts as what a fit finds in it, not as what was rendered: a
portrait that looks a little like an angry render is somebody's face at rest. It needs the face model; training with
what it answered does not.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.names import CONTROLS
from exprtool.errors import DataError
from exprtool.files import write_bytes
from exprtool.processes import over_items
from exprtool_blendshape.fit import worn_by_landmarks
from exprtool_default.card import pixels_per_mm
from exprtool_default.mouth import look_at_mouth
from exprtool_flow.points import POINTS
from exprtool_flow.shards import PairSet
from exprtool_synth.canvas import SYNTH_TEMPLATE
from exprtool_synth.proportions import reshaped
from exprtool_synth.states import vector_of

_BLOCK = 500
_BETWEEN = 0.5
"""Share of the heads that lie between two faces of the set; the others are one face each."""
_WIDER = (0.5, 2.0)
"""How much more or less than usual proportions are changed: thresholds lie at the rim, too."""


class _Reader:
    """Draws a block of faces by its number; made once per process."""

    def __init__(self, faces: NDArray[np.float64], size: int, seed: int) -> None:
        self._faces, self._size, self._seed = faces, size, seed

    def __call__(self, block: range) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        random = np.random.default_rng([self._seed, block.start])
        points = [self._face(number, random).astype(np.float32) for number in block]
        worn = [vector_of(worn_by_landmarks(face.astype(np.float64))) for face in points]
        return np.stack(points), np.stack(worn)

    def _face(self, number: int, random: np.random.Generator) -> NDArray[np.float64]:
        if number < len(self._faces):
            return self._faces[number]
        one, other = self._faces[random.choice(len(self._faces), 2)]
        way = random.random() if random.random() < _BETWEEN else 0.0
        between = one + way * (other - one)
        return between + random.uniform(*_WIDER) * (reshaped(between, self._size, random) - between)


def faces_of(pairs: PairSet, members: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    """The landmarks (N, 68, 2), in pixels of the set, of targets and of the photos among sources; closed lips of these
    are closed."""
    per_mm = pixels_per_mm(SYNTH_TEMPLATE, pairs.size)
    found = []
    for member in members:
        pair = pairs[int(member)]
        if not pair.source_drawn[0]:
            shares = (np.asarray(pair.source_points, np.float64) + 0.5) / pairs.size
            found.append(look_at_mouth(np.asarray(pair.source), shares, per_mm)[0] * pairs.size - 0.5)
        found.append(np.asarray(pair.target_points, np.float64))
    return np.array(found).reshape(-1, POINTS, 2)


def make_readings(
    pairs: PairSet, members: Sequence[int] | NDArray[np.int64], count: int, seed: int, path: Path,
    *, workers: int | None = None, progress: Callable[[int, int], None] = lambda done, count: None,
) -> None:  # fmt: skip
    """Write ``count`` readings as .npz: ``points`` (N, 68, 2) in shares of the crop's side and ``worn`` (N, C). First
    come the faces of ``members`` themselves. The same set and seed give the same bytes, whatever the workers."""
    faces = faces_of(pairs, members)
    count = max(count, len(faces))
    blocks = {start: range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)}
    found: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for start, block in over_items(blocks, _Reader, (faces, pairs.size, seed), workers=workers):
        found[start] = block
        progress(min(len(found) * _BLOCK, count), count)
    points, worn = (np.concatenate([found[start][i] for start in blocks]) for i in (0, 1))
    buffer = io.BytesIO()
    np.savez(buffer, points=(points + 0.5) / np.float32(pairs.size), worn=worn)
    write_bytes(path, buffer.getvalue())


def open_readings(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (N, 68, 2) and weights (N, C) of a file of `make_readings`; `DataError` for anything else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            points, worn = file["points"], file["worn"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} holds no readings ({error}). Make it with `exprtool_flow.readings`.") from error
    if points.shape != (len(worn), POINTS, 2) or worn.shape != (len(points), len(CONTROLS)) or not len(points):
        raise DataError(f"{path}: readings of shapes {points.shape} and {worn.shape} are not these. Make it anew.")
    return points, worn
