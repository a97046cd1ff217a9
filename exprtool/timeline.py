"""What expression is wanted when: ``happy@0s neutral@2.5s surprised=0.8@4s``.

A key ``BLEND@TIME`` says when the change towards a blend begins; it is complete after the ramp (or at the next key, if
that comes sooner) and the blend is held until the next. Before the first key the face is left as it is. A blend without
a time holds throughout.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from exprtool.errors import UsageError
from exprtool.expressions import label as blend_label
from exprtool.expressions import parse

DEFAULT_RAMP = 0.6
"""Seconds that a change of expression takes: spontaneous smiles take 0.4 to 0.8 s from onset to apex."""

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)s?\Z")
_FRAME = re.compile(r"(?:f(\d+)|(\d+)f)\Z")


@dataclass(frozen=True)
class Moment:
    """A point of a clip: in seconds, or as a frame counted from 0."""

    seconds: Fraction | None = None
    frame: int | None = None

    def resolve(self, times: Sequence[float]) -> float:
        """The time in seconds, given the times of all frames; a frame past the last is where the clip ends."""
        if self.frame is None:
            assert self.seconds is not None
            return float(self.seconds)
        if self.frame < len(times):
            return times[self.frame]
        step = times[-1] - times[-2] if len(times) > 1 else 0.04
        return times[-1] + step * (self.frame - len(times) + 1) if times else 0.0

    def __str__(self) -> str:
        return f"f{self.frame}" if self.frame is not None else f"{float(self.seconds or 0):g}s"


def parse_moment(text: str, what: str) -> Moment:
    """Read ``2.5``, ``2.5s``, ``1:02.5``, ``1:00:02`` or a frame ``f75`` / ``75f``; ``what`` names it in the error."""
    if match := _FRAME.match(text.strip()):
        return Moment(frame=int(match[1] or match[2]))
    if match := _CLOCK.match(text.strip()):
        hours, minutes = int(match[1] or 0), int(match[2] or 0)
        if match[2] is None or Fraction(match[3]) < 60:
            return Moment(Fraction(match[3]) + 60 * minutes + 3600 * hours)
    raise UsageError(
        f"{what}: cannot read the time {text!r}. Write seconds (2.5s), minutes and seconds (1:02.5), or a frame (f75)."
    )


@dataclass(frozen=True)
class Key:
    """From ``moment`` on the blend is wanted; None is the clip's very beginning, without a ramp."""

    weights: Mapping[str, float]
    moment: Moment | None = None


@dataclass(frozen=True)
class Wanted:
    """What is wanted at one time: a blend, and how much of it (0 leaves the face as it is)."""

    weights: Mapping[str, float]
    amount: float


@dataclass(frozen=True)
class Timeline:
    """Keys in the order of time, with the seconds that a change takes."""

    keys: tuple[Key, ...]
    ramp: float = DEFAULT_RAMP
    text: str = ""

    @property
    def label(self) -> str:
        """A short name that is safe in a file name."""
        if len(self.keys) == 1 and self.keys[0].moment is None:
            return blend_label(self.keys[0].weights) or "custom"
        names = list(dict.fromkeys(blend_label(key.weights) for key in self.keys))
        return "-".join(names[:4]) + ("-etc" if len(names) > 4 else "")

    @property
    def is_constant(self) -> bool:
        return len(self.keys) == 1 and self.keys[0].moment is None

    def resolved(self, times: Sequence[float]) -> ResolvedTimeline:
        """The timeline of one clip, with every key at its time in seconds; raises where they do not rise."""
        first = times[0] if times else 0.0
        starts = [first if key.moment is None else key.moment.resolve(times) for key in self.keys]
        for i, (before, after) in enumerate(pairwise(starts)):
            if after <= before:
                raise UsageError(
                    f"--expr {self.text!r}: key {i + 2} ({self.keys[i + 1].moment}) must come after key {i + 1} "
                    f"({self.keys[i].moment}) in this clip."
                )
        if starts[0] <= first:
            starts[0] = float("-inf")  # wanted from the clip's beginning on: there is nothing to ease in from
        return ResolvedTimeline(self, tuple(starts))

    def _at(self, time: float, starts: Sequence[float]) -> Wanted:
        index = bisect_right(starts, time) - 1
        if index < 0:
            return Wanted(self.keys[0].weights, 0.0)
        return self._state(index, time, starts)

    def _state(self, index: int, time: float, starts: Sequence[float]) -> Wanted:
        """The state ``time`` seconds into the clip if key ``index`` is the last that began."""
        key = self.keys[index]
        if key.moment is None or self.ramp <= 0:
            return Wanted(key.weights, 1.0)
        share = ease((time - starts[index]) / self.ramp)
        if index == 0:
            return Wanted(key.weights, share)
        # A key that comes before the last change was complete goes on from where that change stood.
        before = self._state(index - 1, starts[index], starts)
        amount = before.amount + (1.0 - before.amount) * share
        old, new = before.amount * (1.0 - share), share
        total = old + new
        if total <= 0:
            return Wanted(key.weights, 0.0)
        names = list(dict.fromkeys([*before.weights, *key.weights]))
        mixed = {
            name: (old * before.weights.get(name, 0.0) + new * key.weights.get(name, 0.0)) / total for name in names
        }
        return Wanted({name: weight for name, weight in mixed.items() if weight > 0} or {"neutral": 1.0}, amount)


@dataclass(frozen=True)
class ResolvedTimeline:
    """A timeline whose keys stand at seconds."""

    timeline: Timeline
    starts: tuple[float, ...]

    def at(self, time: float) -> Wanted:
        return self.timeline._at(time, self.starts)


def ease(share: float) -> float:
    """From 0 to 1 with no sudden start or stop (smoothstep, 3 s^2 - 2 s^3), flat outside."""
    from exprtool.pixels.ramps import cubic  # numpy, which ``--help`` need not wait for

    return float(cubic(min(1.0, max(0.0, share))))


def parse_timeline(text: str, ramp: float = DEFAULT_RAMP) -> Timeline:
    """Read one ``--expr``: a blend, or keys ``BLEND@TIME`` separated by spaces.

    Raises `UsageError` where it cannot be read, where only some keys have a time, or where times run backwards.
    """
    if not ramp >= 0:
        raise UsageError(f"--ramp must be 0 seconds or more, not {ramp:g}.")
    parts = text.split()
    if not parts:
        raise UsageError("--expr is empty: write an expression such as happy, or keys such as 'happy@0s neutral@2s'.")
    keys = []
    for part in parts:
        blend, at, time = part.partition("@")
        if at and not time:
            raise UsageError(f"--expr {text!r}: {part!r} lacks the time after @.")
        keys.append(Key(parse(blend), parse_moment(time, f"--expr {text!r}") if at else None))
    if len(keys) > 1 and any(key.moment is None for key in keys):
        raise UsageError(f"--expr {text!r}: give every expression its time, as in 'happy@0s neutral@2.5s'.")
    seconds = [key.moment.seconds for key in keys if key.moment is not None and key.moment.seconds is not None]
    if any(after <= before for before, after in pairwise(seconds)):
        raise UsageError(f"--expr {text!r}: the times must rise from key to key.")
    return Timeline(tuple(keys), ramp, text)
