"""From a wanted expression to the weight of every control.

A target is absolute: the identity's neutral face plus the preset. What the face wears now is taken off first, and
strength goes from the one to the other:

    new = source + progress(strength) * (target - source)

so that strength 0 is exactly the photo's face, and a smiling face made sad does not smile. Progress is strength itself,
but for controls that a preset lets set in late (`Move.onset`) while they grow.

One thing is not taken off: what looks like a trace of expression is often how the face is built (a pouting lip, a
raised brow). Controls that the preset does not name keep it (`_at_rest`).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from exprtool.anatomy.names import expand, mirrored
from exprtool.errors import UnknownNameError
from exprtool.expressions import EXPRESSIONS, VARIANTS
from exprtool.types import Edit

REST = {"brows": 1.0, "eyes": 0.4, "mouth": 0.25}
"""Size of an expression (root of the sum of squared weights in one part of the face) up to which a fit mostly shows a
face at rest. Brows differ most from face to face: what a fit finds in them on neutral photos stands there on smiling
photos of the same people, too (correlation 0.8 to 1.0 by control; Face Research Lab London Set)."""
HIGHEST = 1.5
_UNDER = 0.25
"""How far below 0 a control may come where it moves quickly about an expression that is taken off along a track."""
_OPEN, _SHUT = 0.08, 0.5
"""eyeBlink of open lids (a fit does not put it at exactly 0 in every frame), and of lids that are down, in a blink or
a glance at the floor: from there on widening has nothing to open."""


@dataclass(frozen=True)
class Move:
    """What a preset does to one control: its amount, and the share of the way at which it sets in, in [0, 1); or
    nothing at all (``kept``): what the face wears stays."""

    amount: float = 0.0
    onset: float = 0.0
    kept: bool = False

    def progress(self, strength: float) -> float:
        """How far the control has come at ``strength``: 0 up to the onset, 1 at 1, straight on beyond."""
        return max(0.0, (strength - self.onset) / (1 - self.onset))


Presets = Mapping[str, Mapping[str, Move]]
"""{expression: {control: move}}"""


@lru_cache(maxsize=1)
def presets() -> Presets:
    """{expression: {control: move}} of the seven expressions and their variants, stems expanded.

    A table [happy.closed] is the variant happy-closed: what [happy] says, but for the controls that it names anew.
    """
    with (files("exprtool.anatomy") / "presets.toml").open("rb") as file:
        tables = tomllib.load(file)
    named: dict[str, dict[str, Move]] = {}
    for name, table in tables.items():
        if name not in EXPRESSIONS:
            raise UnknownNameError("expression", name, EXPRESSIONS)
        named[name] = _moves({stem: entry for stem, entry in table.items() if not _is_variant(entry)})
    for variant, name in VARIANTS.items():
        named[variant] = {**named[name], **_moves(tables[name][variant.removeprefix(f"{name}-")])}
    return named


def _is_variant(entry: object) -> bool:
    return isinstance(entry, dict) and not entry.keys() <= {"amount", "onset", "kept"}


def _moves(table: Mapping[str, Any]) -> dict[str, Move]:
    return {
        control: Move(**entry) if isinstance(entry, Mapping) else Move(float(entry))
        for stem, entry in table.items()
        for control in expand({stem: 1.0})
    }


def weights_for(
    edit: Edit,
    source: Mapping[str, float],
    reference: Mapping[str, float] | None = None,
    rest: Mapping[str, float] | None = None,
    named: Presets | None = None,
) -> dict[str, float]:
    """The absolute weight of every control after the edit; controls that it leaves out are 0.

    ``source`` is what the face wears, ``reference`` what the face to be copied wears. Without expressions and
    reference, ``edit.controls`` are added to what the face wears. With ``rest`` (a track's resting expression) the
    edit moves the face by as much as it would move the face at rest, so that speech goes on under it. ``named`` are the
    presets, those of this package if none are given.
    Raises `UnknownNameError` for an expression or control that is not known.
    """
    start = dict(source) if rest is None else dict(rest)
    target, onsets = _target(edit, start, reference, presets() if named is None else named)
    new = {}
    for name in target.keys() | start.keys() | source.keys():
        worn = source.get(name, 0.0)
        way = target.get(name, 0.0) - start.get(name, 0.0)
        moved = worn + way * (Move(0, onsets.get(name, 0.0)).progress(edit.strength) if way > 0 else edit.strength)
        if moved != worn:
            moved = float(np.clip(moved, 0.0 if rest is None else -_UNDER, max(HIGHEST, worn)))
        new[name] = moved
    if rest is not None:
        _keep_blinks(new, source)
    return {name: amount for name, amount in sorted(new.items()) if amount}


def _target(
    edit: Edit, start: Mapping[str, float], reference: Mapping[str, float] | None, named: Presets
) -> tuple[dict[str, float], dict[str, float]]:
    """Weights at strength 1 before clipping, and the onsets on the way there."""
    onsets: dict[str, float] = {}
    if reference is not None:
        target = dict(reference)
    elif edit.weights:
        target, onsets = _blend(edit.weights, start, named)
    else:
        target = dict(start)
    for name, amount in expand(edit.controls).items():
        target[name] = target.get(name, 0.0) + amount
    return _lopsided(target, edit), onsets


def _blend(
    weights: Mapping[str, float], start: Mapping[str, float], named: Presets
) -> tuple[dict[str, float], dict[str, float]]:
    """Presets by their weights, and mean onsets; a control that none of them names keeps what is at rest in it."""
    target: dict[str, float] = {}
    late: dict[str, float] = {}
    stays: set[str] = set()
    for expression, amount in weights.items():
        if expression not in named:
            raise UnknownNameError("expression", expression, named)
        for name, move in named[expression].items():
            if move.kept:
                stays.add(name)
                continue
            share = move.amount * move.progress(amount)
            target[name] = target.get(name, 0.0) + share
            late[name] = late.get(name, 0.0) + share * move.onset
    onsets = {name: late[name] / amount for name, amount in target.items() if amount > 0}
    kept = _at_rest(start) | {name: start[name] for name in stays & start.keys()}
    return {name: kept[name] for name in start if name not in target} | target, onsets


def _at_rest(worn: Mapping[str, float]) -> dict[str, float]:
    """What a face keeps when its expression is taken off: all of a trace, nothing of a lot.

    Judged for brows, eyes and mouth on their own: where a part of the face shows an expression, its small weights
    belong to it, too.
    """
    size: dict[str, float] = {}
    for name, amount in worn.items():
        size[part_of(name)] = size.get(part_of(name), 0.0) + amount**2
    kept = {part: math.exp(-((total / REST[part] ** 2) ** 2)) for part, total in size.items()}
    return {name: amount * kept[part_of(name)] for name, amount in worn.items()}


def part_of(control: str) -> str:
    """The part of the face that a control moves most: brows, eyes or mouth."""
    if control.startswith(("brow", "corrugator")):
        return "brows"
    return "eyes" if control.startswith("eye") else "mouth"


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
            shut = min(1.0, max(0.0, (worn - _OPEN) / (_SHUT - _OPEN)))
            new[wide] = source.get(wide, 0.0) + (new[wide] - source.get(wide, 0.0)) * (1 - shut)
        new[f"eyeBlink{side}"] = max(new.get(f"eyeBlink{side}", 0.0), worn)
