"""What a synthetic face shall wear: expressions at random strength, mixes of two, single controls, nothing.

A state is what an `Edit` asks of the blendshape backend, and at the same time the condition that a network is trained
on: the weights of `CONTROLS` in that order. It says nothing of how the person's face is built at rest, because a user
of the network cannot say it either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.names import CONTROLS, expand, mirrored
from exprtool.anatomy.targets import weights_for
from exprtool.expressions import EXPRESSIONS
from exprtool.types import Edit

PRESET, MIX, SINGLE, NEUTRAL = "preset", "mix", "single", "neutral"
KINDS: Mapping[str, float] = {PRESET: 0.58, MIX: 0.18, SINGLE: 0.16, NEUTRAL: 0.08}
"""How often each kind is drawn. Presets are what users ask for most."""

STRENGTH = (0.35, 1.15)
SHOWS = 0.5
"""Strength above which anyone would name the expression."""
JITTER = 0.15
"""Standard deviation of the logarithm of each control's own factor."""
LOPSIDED = 0.10
"""Standard deviation of the relative left/right difference."""

# Controls that a landmark-free eye can tell apart on a small face; the others hardly move a pixel of it.
_SINGLES = (
    "browDown", "browInnerUp", "browOuterUp", "corrugator", "cheekSquint", "cheekPuff", "eyeBlink", "eyeSquint",
    "eyeWide", "jawLeft", "jawOpen", "jawRight", "mouthFrown", "mouthFunnel", "mouthLeft", "mouthLowerDown",
    "mouthPress", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip


@dataclass(frozen=True)
class State:
    """One wanted expression.

    ``blend`` are the presets it is made of ({"neutral": 1.0} for none) and ``weights`` what all controls come to, with
    the variation that makes it this face's own. ``label`` is set where it is one of the seven, strong enough to show.
    """

    kind: str
    label: str | None
    blend: Mapping[str, float]
    weights: Mapping[str, float]

    @property
    def edit(self) -> Edit:
        """What brings a portrait to this state, whatever it wears."""
        plain = condition(self.blend)
        names = plain.keys() | self.weights.keys()
        differences = {name: self.weights.get(name, 0.0) - plain.get(name, 0.0) for name in sorted(names)}
        return Edit(self.blend, {name: value for name, value in differences.items() if value}, force=True)

    @property
    def vector(self) -> NDArray[np.float32]:
        """The weights in the order of `CONTROLS`, shape (len(CONTROLS),)."""
        return vector_of(self.weights)


def vector_of(weights: Mapping[str, float]) -> NDArray[np.float32]:
    """Weights by name as an array (len(CONTROLS),), those that are missing 0."""
    return np.array([weights.get(name, 0.0) for name in CONTROLS], np.float32)


def condition(blend: Mapping[str, float]) -> dict[str, float]:
    """The weights of all controls that a blend of the seven asks of a face that wears nothing."""
    return weights_for(Edit(blend), {})


def preset_state(expression: str, random: np.random.Generator, strength: tuple[float, float] = (0.85, 1.1)) -> State:
    """One of the seven, clearly shown, with a little of what makes two people's smiles differ."""
    amount = random.uniform(*strength)
    blend = {expression: amount}
    return State(PRESET, expression if amount > SHOWS else None, blend, _varied(condition(blend), random))


def draw_state(random: np.random.Generator) -> State:
    """A state at random; see `KINDS`."""
    kind = str(random.choice(list(KINDS), p=list(KINDS.values())))
    if kind == NEUTRAL:
        return State(kind, "neutral", {"neutral": 1.0}, {})
    if kind == PRESET:
        return preset_state(str(random.choice(EXPRESSIONS[1:])), random, STRENGTH)
    if kind == MIX:
        one, two = (str(name) for name in random.choice(EXPRESSIONS[1:], 2, replace=False))
        share, strength = random.uniform(0.25, 0.75), random.uniform(*STRENGTH)
        blend = {one: strength * share, two: strength * (1 - share)}
        return State(kind, None, blend, _varied(condition(blend), random))
    names = random.choice(_SINGLES, int(random.integers(1, 4)), replace=False)
    single = expand({str(name): random.uniform(0.2, 1.0) for name in names})
    return State(kind, None, {"neutral": 1.0}, _varied(single, random))


def _varied(weights: Mapping[str, float], random: np.random.Generator) -> dict[str, float]:
    """Each control a little stronger or weaker, and one side of the face ahead of the other."""
    side = random.normal(0, LOPSIDED)
    varied: dict[str, float] = {}
    for name in sorted(weights):
        other = mirrored(name)
        if name in varied or not weights[name]:
            continue
        factor = np.exp(random.normal(0, JITTER))
        if other == name or other not in weights:
            varied[name] = weights[name] * factor
            continue
        difference = side + random.normal(0, LOPSIDED / 2)
        left, right = (name, other) if name.endswith("Left") else (other, name)
        varied[left] = weights[left] * factor * (1 + difference)
        varied[right] = weights[right] * factor * (1 - difference)
    return {name: float(np.clip(weight, 0.0, 1.35)) for name, weight in varied.items()}
