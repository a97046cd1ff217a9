"""What a face wears along a track, without the shaking of a fit that looks at every frame on its own.

What an edit takes off must not shake: its errors would appear in the face, and there is nothing that would hide them.
The weights are averaged over neighbouring frames, bilaterally (C. Tomasi and R. Manduchi, "Bilateral Filtering for Gray
and Color Images", ICCV 1998): less over frames that are far in time, and not over those that show another expression,
so that a grin that comes up at once is taken off at once.

And what an edit adds to a face that moves by itself: speech goes on under it, and nobody is given a second smile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from exprtool.anatomy.targets import Presets, part_of, weights_for
from exprtool.pixels.ramps import Ramp
from exprtool.types import Edit

SPREAD = 0.12
"""Standard deviation of the average in time, seconds."""
ANOTHER = 0.5
"""Distance of two frames' weights in one part of the face (root of the summed squares) at which they count as another
expression. Speech and errors of the fit stay below it, a smile is about 1."""


_SPEECH = (
    "jaw",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthRoll",
    "mouthShrug",
    "eyeBlink",
    "eyeLook",
    "tongue",
)
"""Controls that speech, blinks and glances move from frame to frame; the others are held by an expression."""
_OPEN = "jawOpen"
_BROWS_COUNT = 0.2
"""Weight of a brow's control from which on an expression is told by it: eyes that are wide alone are no surprise."""
_OPENNESS_KEPT = 0.5
"""How much of a frame's own opened jaw is added to the wanted one: all would gape where a grin is made a laugh."""


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


def within_track(
    edit: Edit,
    now: Mapping[str, float],
    held: Mapping[str, float],
    rest: Mapping[str, float],
    reference: Mapping[str, float] | None = None,
    named: Presets | None = None,
) -> tuple[Edit, dict[str, float]]:
    """An additive edit as it suits one frame of a track, and what it takes off there (``rest`` of `weights_for`).

    ``now`` is what the frame shows, ``held`` the expression that is held around it (`smoothed`), ``rest`` what the
    person wears at rest. ``reference`` and ``named`` are those of `weights_for`.
    """
    whole = weights_for(replace(edit, strength=1.0), held, reference, _resting(held, held, rest), named)
    eased = replace(edit, strength=edit.strength * (1 - worn_already(held, whole)))
    return eased, _resting(held, now, rest)


def _resting(worn: Mapping[str, float], now: Mapping[str, float], rest: Mapping[str, float]) -> dict[str, float]:
    """What an additive edit takes off in one frame: its own expression, but of speech only what is always there.

    So a person who begins to smile is not given a second smile, and one who talks goes on talking. ``worn`` is the
    expression that is held around the frame, ``now`` what the frame itself shows.
    """
    held = {name: amount for name, amount in worn.items() if not name.startswith(_SPEECH)}
    held |= {name: amount for name, amount in rest.items() if name.startswith(_SPEECH)}
    held[_OPEN] = max(rest.get(_OPEN, 0.0), (1 - _OPENNESS_KEPT) * now.get(_OPEN, 0.0))
    return held


def worn_already(worn: Mapping[str, float], target: Mapping[str, float]) -> float:
    """How much of the wanted expression a frame's face wears by itself, in [0, 1]: 1 for all of it.

    A person who laughs anyhow is left to laugh in their own way. Speech does not count, nor do brows that the wanted
    expression leaves alone; for neutral it is 0.
    """
    names = [
        name
        for name in worn.keys() | target.keys()
        if not name.startswith(_SPEECH) and (not name.startswith("brow") or target.get(name, 0.0) > _BROWS_COUNT)
    ]
    own = np.array([worn.get(name, 0.0) for name in names])
    wanted = np.array([target.get(name, 0.0) for name in names])
    size = float(wanted @ wanted)
    if size < 0.05:
        return 0.0
    share = float(own @ wanted) / size
    excess = float(np.sqrt(own @ own / size))  # what is worn far too strongly is not what is wanted either
    return float(Ramp(0.6, 1.0)(share) * (1 - Ramp(1.5, 2.2)(excess)))


CLOSED = "closed eyes stay closed: what is behind the lids cannot be known"
_CLOSING = ("eyeBlink", "eyeSquint", "eyeLookDown")
_HELD_BACK = 0.1
"""Change of a lid's weight that would be seen, had it not been held back."""


def keep_shut(target: dict[str, float], source: Mapping[str, float], awake: Mapping[str, float]) -> bool:
    """Lids that are shut are neither widened nor opened (in place); ``awake`` tells by side, "Right" and "Left", how
    far they are open, 0 to 1. True where that holds an edit back, which the user should know (`CLOSED`)."""
    held = False
    for side, share in awake.items():
        for name in (f"eyeWide{side}", *(f"{stem}{side}" for stem in _CLOSING)):
            now, then = source.get(name, 0.0), target.get(name, 0.0)
            opens = then > now if name.startswith("eyeWide") else then < now
            if share < 1 and opens:
                target[name] = now + (then - now) * share
                held |= share < 0.5 and abs(then - now) > _HELD_BACK
    return held
