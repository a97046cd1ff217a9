"""From an edit to the condition: the weight of every control after it, with the presets of the network's own card.

As in `exprtool_blendshape.targets`, but for one thing: nothing is kept of what looks like a trace of expression. The
network counts weights from the person's face at rest, in what it reads as in what it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from exprtool.types import Edit
from exprtool_blendshape.targets import Move, weights_for

Presets = Mapping[str, Mapping[str, Move]]


def wanted(
    edit: Edit,
    worn: Mapping[str, float],
    presets: Presets,
    reference: Mapping[str, float] | None = None,
    rest: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The absolute weight of every control; those left out are 0. See `weights_for` for ``reference`` and ``rest``."""
    if reference is None and edit.weights:
        reference = _blend(edit, worn if rest is None else rest, presets)
    return weights_for(edit, worn, reference, rest)


def _blend(edit: Edit, start: Mapping[str, float], presets: Presets) -> dict[str, float]:
    """The presets by their weights. `weights_for` goes the way to them in proportion to strength; for controls that
    set in late the goal is moved so that this brings them where their onset would."""
    goal: dict[str, float] = {}
    late: dict[str, float] = {}
    for expression, amount in edit.weights.items():
        for name, move in presets[expression].items():
            share = move.amount * move.progress(amount)
            goal[name] = goal.get(name, 0.0) + share
            late[name] = late.get(name, 0.0) + share * move.onset
    for name, end in goal.items():
        begin = start.get(name, 0.0)
        if end > begin and end > 0 and edit.strength > 0:
            way = Move(0.0, late[name] / end).progress(edit.strength) / edit.strength
            goal[name] = begin + (end - begin) * way
    return goal
