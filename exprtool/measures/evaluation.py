"""Running a subject over pictures and expressions, and summing up what came out.

Every picture is asked for every expression but the one that it already shows: turning a neutral face neutral changes
nothing and would flatter the distances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import DataError, UnknownNameError
from exprtool.expressions import VARIANTS
from exprtool.faces.embed import Embedding
from exprtool.measures.expression import Accuracy, Classify, expression_accuracy
from exprtool.measures.facepp import FacePlusPlus
from exprtool.measures.identity import Identity, identity
from exprtool.measures.pictures import Pictures
from exprtool.measures.stats import Stat
from exprtool.measures.subjects import Subject
from exprtool.types import Image

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Classifier:
    """Something that names expressions, and what its outputs mean."""

    labels: tuple[str, ...]
    classify: Classify
    name: str = ""


@dataclass(frozen=True)
class Row:
    """The measures of one expression, or of all together (``expression`` "all").

    ``acd`` is eq. 9; ``fvs`` the Face++ confidence or None where that was not asked for; ``local_verification`` and
    ``accepted`` come from the same embeddings as ``acd`` and are not FVS. ``accuracy`` is an independent classifier's,
    ``own_head`` that of the discriminator the generator was trained against. ``changed`` is the mean absolute change in
    grey levels, ``refused`` counts faces that were left alone.
    """

    expression: str
    pictures: int
    acd: Stat
    local_verification: Stat
    accepted: float
    changed: Stat
    fvs: Stat | None = None
    accuracy: Accuracy | None = None
    own_head: Accuracy | None = None
    refused: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "expression": self.expression,
            "pictures": self.pictures,
            "refused": self.refused,
            "acd": self.acd.to_json(),
            "fvs": self.fvs.to_json() if self.fvs else None,
            "local_verification": self.local_verification.to_json(),
            "local_verification_accepted": self.accepted if np.isfinite(self.accepted) else None,
            "expression_accuracy": self.accuracy.to_json() if self.accuracy else None,
            "own_head_accuracy": self.own_head.to_json() if self.own_head else None,
            "mean_change": self.changed.to_json(),
        }


@dataclass(frozen=True)
class Evaluation:
    """One subject's measures: over everything, and per expression."""

    model: str
    protocol: str
    data: str
    parameters: int | None
    training_images: int | None
    overall: Row
    per_expression: tuple[Row, ...]
    classifier: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "protocol": self.protocol,
            "data": self.data,
            "parameters": self.parameters,
            "training_images": self.training_images,
            "classifier": self.classifier,
            "overall": self.overall.to_json(),
            "per_expression": [row.to_json() for row in self.per_expression],
        }


@dataclass
class _Collected:
    squared: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)
    fvs: list[float] = field(default_factory=list)
    right: dict[str, list[Accuracy]] = field(default_factory=dict)
    pictures: int = 0
    refused: int = 0


def evaluate(
    subject: Subject,
    pictures: Pictures,
    expressions: Sequence[str] | None = None,
    *,
    classifier: Classifier | None = None,
    own_head: Classifier | None = None,
    face_service: FacePlusPlus | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure ``subject`` on ``pictures`` for ``expressions`` (None: all that it knows).

    Works through the pictures in small groups, so that memory does not grow with their number. Raises `DataError`
    where there is nothing to measure and `UnknownNameError` for an expression that the subject does not know.
    """
    wanted = targets(subject, expressions)
    if not len(pictures):
        raise DataError("There are no pictures to measure on. Check --data and --split.")
    collected = {label: _Collected() for label in wanted}
    done = 0
    for start in range(0, len(pictures), subject.group):
        chunk = pictures.take(range(start, min(start + subject.group, len(pictures))))
        known: dict[int, Embedding] = {}
        for label in wanted:
            _measure(subject, chunk, label, collected[label], known, classifier, own_head, face_service)
            done += len(chunk)
            if progress:
                progress(done, len(pictures) * len(wanted), f"{subject.name}: {label}")
        subject.forget()
    rows = tuple(_row(label, [collected[label]], bool(face_service)) for label in wanted if collected[label].pictures)
    if not rows:
        raise DataError(
            f"All pictures already show what was asked for ({', '.join(wanted)}). Ask for another expression."
        )
    return Evaluation(
        subject.name,
        subject.protocol,
        pictures.description,
        subject.parameters,
        subject.training_images,
        _row("all", list(collected.values()), bool(face_service)),
        rows,
        classifier.name if classifier else "",
    )


def targets(subject: Subject, expressions: Sequence[str] | None) -> tuple[str, ...]:
    """The expressions to ask for, each once (None: all but variants); raises `UnknownNameError`."""
    chosen = tuple(dict.fromkeys(expressions or [label for label in subject.labels if label not in VARIANTS]))
    for label in chosen:
        if label not in subject.labels:
            raise UnknownNameError(f"expression of {subject.name}", label, subject.labels)
    return chosen


def _measure(
    subject: Subject,
    chunk: Pictures,
    label: str,
    into: _Collected,
    known: dict[int, Embedding],
    classifier: Classifier | None,
    own_head: Classifier | None,
    face_service: FacePlusPlus | None,
) -> None:
    asked = [i for i in range(len(chunk)) if chunk.expressions[i] != label]
    if not asked:
        return
    part = chunk.take(asked)
    answers = subject.outputs(part, label)
    good = [
        (place, i, answer) for place, (i, answer) in enumerate(zip(asked, answers, strict=True)) if answer is not None
    ]
    into.pictures += len(asked)
    into.refused += len(asked) - len(good)
    if not good:
        return
    before = np.stack([chunk.images[i] for _, i, _ in good])
    after: NDArray[np.uint8] = np.stack([answer for _, _, answer in good])
    into.squared += _identity(chunk, [i for _, i, _ in good], before, after, known).squared.tolist()
    into.change += np.abs(after.astype(np.int16) - before).mean(axis=(1, 2, 3)).tolist()
    for kind, judge in (("accuracy", classifier), ("own_head", own_head)):
        if judge is not None:
            answer = expression_accuracy(judge.classify, judge.labels, after, [label] * len(after))
            into.right.setdefault(kind, []).append(answer)
    if face_service is not None:
        scores = [face_service.compare(a, b) for a, b in zip(before, after, strict=True)]
        into.fvs += [float("nan") if score is None else score for score in scores]


def _identity(
    chunk: Pictures, places: list[int], before: NDArray[np.uint8], after: NDArray[np.uint8], known: dict[int, Embedding]
) -> Identity:
    """As `identity`, with the inputs' embeddings kept by their place in the chunk between expressions."""
    local = {j: known[i] for j, i in enumerate(places) if i in known}
    landmarks = None if chunk.landmarks is None else chunk.landmarks[places]
    answer = identity(before, after, landmarks, known=local)
    known.update({places[j]: value for j, value in local.items()})
    return answer


def _row(label: str, parts: Sequence[_Collected], with_fvs: bool) -> Row:
    measured = Identity(np.array([value for part in parts for value in part.squared]))
    return Row(
        label,
        sum(part.pictures for part in parts),
        measured.acd,
        measured.local_verification,
        measured.accepted,
        Stat.of(value for part in parts for value in part.change),
        Stat.of(value for part in parts for value in part.fvs) if with_fvs else None,
        _together([answer for part in parts for answer in part.right.get("accuracy", [])]),
        _together([answer for part in parts for answer in part.right.get("own_head", [])]),
        sum(part.refused for part in parts),
    )


def _together(answers: Sequence[Accuracy]) -> Accuracy | None:
    if not answers:
        return None
    per: dict[str, tuple[int, int]] = {}
    for answer in answers:
        for name, (right, total) in answer.per_expression.items():
            before = per.get(name, (0, 0))
            per[name] = (before[0] + right, before[1] + total)
    return Accuracy(sum(a.right for a in answers), sum(a.total for a in answers), per)


def sample_outputs(subject: Subject, pictures: Pictures, expressions: Sequence[str]) -> list[list[Image | None]]:
    """For sheets: per picture, the output for each expression (its own included)."""
    rows: list[list[Image | None]] = []
    for start in range(0, len(pictures), subject.group):
        part = pictures.take(range(start, min(start + subject.group, len(pictures))))
        columns = [subject.outputs(part, label) for label in expressions]
        subject.forget()
        rows += [[column[i] for column in columns] for i in range(len(part))]
    return rows
