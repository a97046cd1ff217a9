"""All pairs of one portrait: the unit of work, done by one process from start to end."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exprtool import images
from exprtool.errors import ExprtoolError
from exprtool.expressions import EXPRESSIONS
from exprtool.faces.align import US_GAN_TEMPLATE, crop, crop_from_image
from exprtool.faces.detect import find_faces
from exprtool.types import Detector, Face, FacePatch, FaceRefusal, FaceRegion, Image
from exprtool_blendshape.backend import BlendshapeBackend
from exprtool_synth.canvas import Canvas, cut
from exprtool_synth.gate import Gate, why_no_portrait
from exprtool_synth.pairs import Pair, Render, make_pair, rendered, untouched
from exprtool_synth.states import draw_state, preset_state

PER_CANVAS = 8
"""Renders that share one variation of the portrait; then it is cut, turned and lit anew."""

_AS_IT_IS = 0.5
"""Share of pairs that start from the portrait's own pixels rather than from another render of it."""

_TRIES = 3
_OTHERS = 1
"""Which stream of random numbers draws other proportions; renders have their own."""


@dataclass(frozen=True)
class Wish:
    """What is wanted of each portrait; see ``exprtool data synth --help``."""

    per_face: int
    size: int = 160
    crop_size: int = 128
    seed: int = 0


@dataclass(eq=False)
class Yield:
    """What one portrait gave: pairs, one labelled crop per expression, and why the rest was thrown away.

    ``refused`` says why there is nothing at all. ``sha256`` is that of the portrait's file.
    """

    name: str
    sha256: str = ""
    pairs: list[Pair] = field(default_factory=list)
    crops: dict[str, Image] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    refused: str | None = None


def work_up(path: Path, name: str, wish: Wish, backend: BlendshapeBackend, detector: Detector) -> Yield:
    """Make the pairs of one portrait. The same file, wish and versions give the same bytes."""
    made = Yield(name)
    try:
        data = path.read_bytes()
        made.sha256 = hashlib.sha256(data).hexdigest()
        image = images.read_image(data, name=str(path)).rgb
        faces = find_faces(image, detector).faces
    except (OSError, ExprtoolError) as error:
        made.refused = f"unreadable: {error}"
        return made
    if len(faces) != 1:
        made.refused = "no face was found" if not faces else "several faces were found"
        return made
    # The file's content, not its name or place, decides what is drawn: a set can be moved and added to.
    number = int(made.sha256[:15], 16)
    random, others = np.random.default_rng([wish.seed, number]), np.random.default_rng([wish.seed, number, _OTHERS])
    _fill(made, image, faces[0], wish, backend, random, others)
    return made


def _fill(
    made: Yield, image: Image, face: Face, wish: Wish, backend: BlendshapeBackend, random: np.random.Generator,
    others: np.random.Generator,
) -> None:  # fmt: skip
    order = list(random.permutation(EXPRESSIONS))
    for start in range(0, wish.per_face, PER_CANVAS):
        canvas = cut(image, face, wish.size, random if start else None)
        (prepared,) = backend.prepare([canvas.region])
        if isinstance(prepared, FaceRefusal):
            reason = prepared.reason
        else:
            reason = why_no_portrait(face, prepared.fit.residual, prepared.fit.angles)
        if reason:
            if not start:
                made.refused = reason
                return
            made.rejected[reason] += 1
            continue
        assert not isinstance(prepared, FaceRefusal)  # it had a reason
        gate = Gate(canvas.image, canvas.region.face)
        renders: list[Render] = [untouched(canvas, prepared.fit.source)]
        known: list[Pair | None] = [None]  # for each render the pair that it is the target of
        for index in range(start, min(start + PER_CANVAS, wish.per_face)):
            label = str(order[index]) if index < len(order) else None
            render = _render(made, canvas, prepared, label, backend, gate, random)
            if render is None:
                continue
            if label is not None:
                made.crops[label] = _labelled_crop(render.image, canvas.region, wish.crop_size)
            as_it_is = len(renders) == 1 or random.random() < _AS_IT_IS
            source = 0 if as_it_is else 1 + int(random.integers(len(renders) - 1))
            pair = make_pair(canvas, renders[source], render, others, known[source])
            made.pairs.append(pair)
            renders.append(render)
            known.append(pair)


def _render(
    made: Yield,
    canvas: Canvas,
    prepared: object,
    label: str | None,
    backend: BlendshapeBackend,
    gate: Gate,
    random: np.random.Generator,
) -> Render | None:
    """A render that passes the gate, or None after a few tries."""
    for _ in range(_TRIES):
        state = preset_state(label, random) if label else draw_state(random)
        (patch,) = backend.generate([prepared], state.edit)
        if not isinstance(patch, FacePatch):
            made.rejected[patch.reason] += 1
            return None
        render = rendered(canvas, patch)
        reason = gate.why_not(render.image, identity=label is not None)
        if reason is None:
            return render
        made.rejected[reason] += 1
    return None


def _labelled_crop(image: Image, region: FaceRegion, size: int) -> Image:
    return crop(image, crop_from_image(region.face, size, US_GAN_TEMPLATE), size)
