"""What a study asks, and the key that says which picture is whose.

A trial shows an input and what each method made of it, under names that tell nothing; a rater picks one picture per
question. The page knows pictures and blind names only. Which method a blind name stands for is in the key, a file of
its own that stays with whoever runs the study.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exprtool.errors import DataError
from exprtool.html import data_uri
from exprtool.types import Image

KEY_FORMAT = "exprtool-study-key/1"
ANSWERS_FORMAT = "exprtool-study-answers/1"
MIN_METHODS, MAX_METHODS = 2, 9  # a pick needs a choice, and the page's keys are 1 to 9
_MOSAIC = 7  # blocks per side: no expression, no person and no photo is left in them
_PNG_UP_TO = 192  # pixels per side; larger pictures as JPEG, or the page grows past what a phone likes
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Question:
    """One question, asked of every trial; ``{expression}`` in the text becomes the wanted expression."""

    id: str
    text: str
    hint: str = ""


QUESTIONS = (
    Question("realism", "Which picture looks most like a real photo?", "Leave the expression out of account."),
    Question("expression", "Which face looks most convincingly {expression}?"),
    Question("identity", "Which face is most clearly the same person as in the original?"),
)
"""The three of section 3.6: realism without the expression, the expression, and the identity of the input."""


@dataclass(frozen=True, eq=False)
class Item:
    """An input and every method's picture of it, all square and of one size, (S, S, 3) uint8."""

    key: str
    expression: str
    original: Image
    answers: Mapping[str, Image]


@dataclass(frozen=True)
class Trial:
    """One screen of the study. ``options`` are (blind name, picture as data URI) in the study's own order; ``methods``
    says whose each is. In an attention check all pictures but ``right`` are mosaics, and no method stands behind any.
    """

    id: str
    key: str
    expression: str
    original: str
    options: tuple[tuple[str, str], ...]
    methods: Mapping[str, str]
    right: str | None = None


@dataclass(frozen=True)
class Study:
    """A whole study. ``id`` is a hash of what raters see."""

    id: str
    title: str
    intro: str
    seed: int
    methods: tuple[str, ...]
    trials: tuple[Trial, ...]
    questions: tuple[Question, ...] = QUESTIONS

    def for_page(self) -> dict[str, Any]:
        """All that the page is told: nothing in it names a method or an attention check."""
        return {
            "id": self.id,
            "title": self.title,
            "intro": self.intro,
            "questions": [asdict(question) for question in self.questions],
            "trials": [
                {
                    "id": trial.id,
                    "expression": trial.expression,
                    "original": trial.original,
                    "options": [{"id": name, "picture": picture} for name, picture in trial.options],
                }
                for trial in self.trials
            ],
        }

    def key(self) -> dict[str, Any]:
        """What tallying needs and raters must not see."""
        return {
            "format": KEY_FORMAT,
            "study": self.id,
            "title": self.title,
            "seed": self.seed,
            "methods": list(self.methods),
            "questions": {question.id: question.text for question in self.questions},
            "trials": [
                {
                    "id": trial.id,
                    "item": trial.key,
                    "expression": trial.expression,
                    "options": dict(trial.methods) if trial.right is None else None,
                    "check": trial.right,
                }
                for trial in self.trials
            ],
        }


def make_study(
    items: Sequence[Item],
    *,
    checks: Sequence[Item] = (),
    seed: int = 0,
    title: str = "Faces",
    intro: str = "",
) -> Study:
    """Put items in random order under blind names, with attention checks made of ``checks`` among them.

    Everything random follows from ``seed`` and the items' keys. Raises `DataError` where there are no items, too few or
    too many methods, or items with different methods.
    """
    if not items:
        raise DataError("A study needs at least one picture that every method has made.")
    methods = tuple(items[0].answers)
    if not MIN_METHODS <= len(methods) <= MAX_METHODS:
        raise DataError(f"A study compares {MIN_METHODS} to {MAX_METHODS} methods, not {len(methods)}.")
    for item in (*items, *checks):
        if set(item.answers) != set(methods):
            raise DataError(
                f"{item.key} has pictures of {', '.join(item.answers)}, but {', '.join(methods)} are needed."
            )
    draw = random.Random(f"exprtool study {seed} {[item.key for item in items]}")
    names = _blind_names(draw)
    trials = [_trial(item, draw, names) for item in items] + [_check(item, draw, names) for item in checks]
    draw.shuffle(trials)
    seen = [(trial.original, trial.expression, trial.options) for trial in trials]
    digest = hashlib.sha256(json.dumps([title, intro, seen]).encode()).hexdigest()[:16]
    return Study(digest, title, intro, seed, methods, tuple(trials))


def read_key(path: Path) -> dict[str, Any]:
    """A key as `Study.key` gives it; raises `DataError` for anything else."""
    try:
        key = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"The study's key {path} cannot be read: {error}.") from error
    if not isinstance(key, dict) or key.get("format") != KEY_FORMAT:
        raise DataError(
            f"{path} is no key of a study. Give the .key.json file that `exprtool study make` wrote beside the page."
        )
    return key


def _trial(item: Item, draw: random.Random, names: Any) -> Trial:
    order = list(item.answers)
    draw.shuffle(order)
    blind = {method: next(names) for method in order}
    options = tuple((blind[method], _uri(item.answers[method])) for method in order)
    return Trial(
        next(names),
        item.key,
        item.expression,
        _uri(item.original),
        options,
        {blind[method]: method for method in order},
    )


def _check(item: Item, draw: random.Random, names: Any) -> Trial:
    """One picture is whole, the others are mosaics of it: whoever looks at all picks the whole one, thrice."""
    shown = item.answers[draw.choice(sorted(item.answers))]
    blind = [next(names) for _ in item.answers]
    right = draw.choice(blind)
    pictures = {True: _uri(shown), False: _uri(mosaic(shown))}
    options = tuple((name, pictures[name == right]) for name in blind)
    return Trial(next(names), item.key, item.expression, _uri(item.original), options, {}, right)


def mosaic(picture: Image) -> Image:
    """The picture in coarse blocks."""
    import cv2

    small = cv2.resize(picture, (_MOSAIC, _MOSAIC), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def _uri(picture: Image) -> str:
    return data_uri(picture, quality=None if picture.shape[0] <= _PNG_UP_TO else _JPEG_QUALITY)


def _blind_names(draw: random.Random) -> Any:
    """Names without meaning, none twice."""
    used: set[str] = set()
    while True:
        name = f"{draw.getrandbits(32):08x}"
        if name not in used:
            used.add(name)
            yield name
