"""What a face wears along a track, without the shaking of a fit that looks at every frame on its own.

What an edit takes off must not shake: its errors would appear in the face, and there is nothing that would hide them.
The weights are averaged over neighbouring frames, bilaterally (C. Tomasi and R. Manduchi, "Bilateral Filtering for Gray
and Color Images", ICCV 1998): less over frames that are far in time, and not over those that show another expression,
so that a grin that comes up at once is taken off at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from exprtool_blendshape.targets import part_of

SPREAD = 0.12
"""Standard deviation of the average in time, seconds."""
ANOTHER = 0.5
"""Distance of two frames' weights in one part of the face (root of the summed squares) at which they count as another
expression. Speech and errors of the fit stay below it, a smile is about 1."""


def smoothed(worn: Mapping[str, float], traces: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """The weights ``worn`` in one frame, averaged with those of (seconds from it, weights) around it."""
    names = sorted({name for _, other in traces for name in other} | worn.keys())
    total: dict[str, float] = dict.fromkeys(names, 0.0)
    sums: dict[str, float] = {}
    for seconds, other in traces:
        near = math.exp(-0.5 * (seconds / SPREAD) ** 2)
        for part, distance in _distances(worn, other, names).items():
            share = near / (1 + (distance / ANOTHER) ** 4)
            sums[part] = sums.get(part, 0.0) + share
            for name in names:
                if part_of(name) == part:
                    total[name] += share * other.get(name, 0.0)
    return {name: amount / sums[part_of(name)] for name, amount in total.items()} if traces else dict(worn)


def _distances(a: Mapping[str, float], b: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    squares: dict[str, float] = {}
    for name in names:
        part = part_of(name)
        squares[part] = squares.get(part, 0.0) + (a.get(name, 0.0) - b.get(name, 0.0)) ** 2
    return {part: math.sqrt(square) for part, square in squares.items()}
