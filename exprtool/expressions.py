"""The seven expressions, every name they go by, and how ``--expr`` is read.

The seven are those of the US-GAN paper (section 4.1). Data sets name them differently; the aliases come from the
file names of KDEF (AF AN DI HA NE SA SU), RaFD (fearful, disgusted ...) and the US-GAN authors' folders
(AFS ANS DIS HAS NES SAS SUS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from exprtool.errors import UnknownNameError, UsageError

EXPRESSIONS = ("neutral", "happy", "sad", "angry", "surprised", "disgusted", "afraid")

VARIANTS: Mapping[str, str] = {"happy-closed": "happy"}
"""Other ways of showing one of the seven, and which one it is: a smile over closed lips."""

ALIASES: Mapping[str, str] = {
    **{name: name for name in EXPRESSIONS},
    "ne": "neutral", "nes": "neutral", "calm": "neutral", "none": "neutral",
    "ha": "happy", "has": "happy", "happiness": "happy", "joy": "happy", "smile": "happy", "smiling": "happy",
    "sa": "sad", "sas": "sad", "sadness": "sad",
    "an": "angry", "ans": "angry", "anger": "angry",
    "su": "surprised", "sus": "surprised", "surprise": "surprised",
    "di": "disgusted", "dis": "disgusted", "disgust": "disgusted",
    "af": "afraid", "afs": "afraid", "fear": "afraid", "fearful": "afraid", "scared": "afraid",
}  # fmt: skip

MAX_WEIGHT = 1.5
_PART = re.compile(r"\s*([^=,\s]+)\s*(?:=\s*([^,\s]+)\s*)?\Z")


def canonical(name: str) -> str:
    """The expression that a name or alias stands for; raises `UnknownNameError` with the known ones."""
    try:
        return ALIASES[name.strip().lower()]
    except KeyError:
        raise UnknownNameError("expression", name, EXPRESSIONS, also=ALIASES) from None


def wanted(name: str) -> str:
    """As `canonical`, for what a face shall show: a variant of one of the seven is known, too."""
    word = name.strip().lower()
    if word in VARIANTS:
        return word
    try:
        return canonical(name)
    except UnknownNameError as error:
        raise UnknownNameError(
            "expression", name, (*EXPRESSIONS, *VARIANTS, *error.known[len(EXPRESSIONS) :])
        ) from None


def parse(text: str) -> dict[str, float]:
    """Read one blend such as ``happy``, ``happy=0.6`` or ``happy-closed=0.6,surprised=0.3``.

    Returns {expression: weight} in the order written, weights in [0, 1.5]. ``all`` is not a blend: see `parse_all`.
    Raises `UsageError` for an empty blend, a repeated name, or a weight that is no number in the range.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        match = _PART.match(part)
        if not match:
            raise UsageError(f"Cannot read expression {text!r}: write a name, or NAME=WEIGHT parts joined by commas.")
        name = wanted(match[1])
        if name in weights:
            raise UsageError(f"Expression {text!r} names {name!r} twice; give it one weight.")
        weights[name] = parse_amount(match[2], f"{name} in {text!r}") if match[2] else 1.0
    return weights


def parse_amount(text: str, what: str, low: float = 0.0, high: float = MAX_WEIGHT) -> float:
    """A finite number in [low, high]; ``what`` names it in the `UsageError` otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UsageError(f"The weight of {what} must be a number from {low:g} to {high:g}, not {text!r}.")
    return value


def parse_all(texts: Iterable[str]) -> list[tuple[str, dict[str, float]]]:
    """Read every ``--expr``; each gives one output per input.

    Returns (label, weights) pairs: the label names the output (``happy``, ``happy0.6-surprised0.3``). ``all`` stands
    for the seven. The same blend asked for twice is one output.
    """
    blends: dict[str, dict[str, float]] = {}
    for text in texts:
        names = EXPRESSIONS if text.strip().lower() == "all" else (text,)
        for name in names:
            weights = parse(name)
            blends.setdefault(label(weights), weights)
    return list(blends.items())


def label(weights: Mapping[str, float]) -> str:
    """A short name for a blend that is safe in a file name."""
    return "-".join(name if weight == 1.0 else f"{name}{weight:g}" for name, weight in weights.items())
