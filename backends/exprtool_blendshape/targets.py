"""From a wanted expression to the weight of every control.

A target is absolute: the identity's neutral face plus the preset. What the face wears now is taken off first, and
strength goes from the one to the other:

    new = source + strength * (target - source)

so that strength 0 is exactly the photo's face, and a smiling face made sad does not smile. One thing is not taken off:
what looks like a trace of expression is often how the face is built (a pouting lip, a raised brow). A control that the
preset does not name keeps that trace (`_at_rest`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import numpy as np

from exprtool.errors import UnknownNameError
from exprtool.expressions import EXPRESSIONS
from exprtool.types import Edit
from exprtool_blendshape.names import expand, mirrored

REST = 0.25
"""Weight of a control up to which a fit mostly shows a face at rest."""
HIGHEST = 1.5


@lru_cache(maxsize=1)
def presets() -> Mapping[str, Mapping[str, float]]:
    """{expression: {control: weight}} of the seven expressions, stems expanded."""
    with (files("exprtool_blendshape") / "presets.toml").open("rb") as file:
        tables = tomllib.load(file)
    for name in tables:
        if name not in EXPRESSIONS:
            raise UnknownNameError("expression", name, EXPRESSIONS)
    return {name: expand(table) for name, table in tables.items()}


def weights_for(
    edit: Edit,
    source: Mapping[str, float],
    reference: Mapping[str, float] | None = None,
    rest: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The absolute weight of every control after the edit.

    ``source`` is what the face wears, ``reference`` what the face to be copied wears. Without expressions and
    reference, ``edit.controls`` are added to what the face wears. With ``rest`` (a track's resting expression) the
    edit moves the face by as much as it would move the face at rest, so that speech goes on under it.
    Raises `UnknownNameError` for an expression or control that is not known.
    """
    start = dict(source) if rest is None else dict(rest)
    target = _target(edit, start, reference)
    new = {}
    for name in target.keys() | start.keys() | source.keys():
        worn = source.get(name, 0.0)
        moved = worn + edit.strength * (target.get(name, 0.0) - start.get(name, 0.0))
        if moved != worn:
            moved = float(np.clip(moved, 0.0, max(HIGHEST, worn)))
        new[name] = moved
    if rest is not None:
        _keep_blinks(new, source)
    return {name: amount for name, amount in sorted(new.items()) if amount}


def _target(edit: Edit, start: Mapping[str, float], reference: Mapping[str, float] | None) -> dict[str, float]:
    controls = expand(edit.controls)
    if reference is not None:
        target = dict(reference)
    elif edit.weights:
        target = _blend(edit.weights, start)
    else:
        target = dict(start)
    for name, amount in controls.items():
        target[name] = target.get(name, 0.0) + amount
    return _lopsided(target, edit)


def _blend(weights: Mapping[str, float], start: Mapping[str, float]) -> dict[str, float]:
    """Presets by their weights; a control that none of them names keeps what is at rest in it."""
    known = presets()
    target: dict[str, float] = {}
    for expression, amount in weights.items():
        if expression not in known:
            raise UnknownNameError("expression", expression, EXPRESSIONS)
        for name, weight in known[expression].items():
            target[name] = target.get(name, 0.0) + amount * weight
    for name, worn in start.items():
        if name not in target:
            target[name] = _at_rest(worn)
    return target


def _at_rest(worn: float) -> float:
    """The part of a fitted weight that a face keeps when its expression is taken off: all of a little, none of a lot."""
    return worn * float(np.exp(-((worn / REST) ** 2)))


def _lopsided(target: dict[str, float], edit: Edit) -> dict[str, float]:
    """One side a little stronger than the other, drawn from the edit's seed."""
    if not edit.asymmetry:
        return target
    random = np.random.default_rng(edit.seed)
    whole = random.normal(0, edit.asymmetry)
    out = dict(target)
    for name in sorted(target):
        other = mirrored(name)
        if not name.endswith("Left") or other == name or name in ("jawLeft", "mouthLeft"):
            continue
        difference = float(np.clip(whole + random.normal(0, edit.asymmetry / 2), -0.8, 0.8))
        out[name] = target[name] * (1 + difference)
        out[other] = target.get(other, 0.0) * (1 - difference)
    return out


def _keep_blinks(new: dict[str, float], source: Mapping[str, float]) -> None:
    """Eyes that are shut in a frame stay shut: widening fades with the lid that comes down."""
    for side in ("Left", "Right"):
        worn = source.get(f"eyeBlink{side}", 0.0)
        wide = f"eyeWide{side}"
        if worn and new.get(wide, 0.0) > source.get(wide, 0.0):
            new[wide] = source.get(wide, 0.0) + (new[wide] - source.get(wide, 0.0)) * max(0.0, 1 - worn)
        new[f"eyeBlink{side}"] = max(new.get(f"eyeBlink{side}", 0.0), worn)
