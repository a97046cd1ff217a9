"""Running a subject over pictures and expressions, and summing up what came out.

Every picture is asked for every expression but the one that it already shows: turning a neutral face neutral changes
nothing and would flatter the distances. Subjects that are set side by side are compared on the edits that all of them
made: else one that knows two easy expressions, or leaves hard faces alone, would win by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import DataError, UnknownNameError
from exprtool.expressions import VARIANTS
from exprtool.faces.embed import Embedding
from exprtool.measures.expression import Accuracy, Classify, recognised
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
class Cell:
    """What one edit of one picture measured, on the crop.

    ``squared`` is the squared embedding distance (eq. 9), ``change`` the mean absolute change in grey levels, ``fvs``
    Face++'s confidence (NaN where not asked or not given); ``recognised`` and ``own_head`` say whether the classifier
    and the generator's own discriminator saw the wanted expression (None: not asked).
    """

    squared: float
    change: float
    fvs: float = float("nan")
    recognised: bool | None = None
    own_head: bool | None = None


Cells = Mapping[tuple[str, str], Cell | None]
"""By (picture, expression asked for); None where the face was left alone."""


@dataclass(frozen=True)
class Row:
    """The measures of one expression, or of all together (``expression`` "all").

    ``acd`` is eq. 9 and ``distance`` its square root per picture; ``fvs`` the Face++ confidence or None where that was
    not asked for; ``local_verification`` and ``accepted`` come from the same embeddings as ``acd`` and are not FVS.
    ``accuracy`` is an independent classifier's, ``own_head`` that of the discriminator the generator was trained
    against. ``changed`` is the mean absolute change in grey levels. ``pictures`` counts the edits that were asked for,
    ``refused`` those of them that were left alone.
    """

    expression: str
    pictures: int
    acd: Stat
    distance: Stat
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
            "distance": self.distance.to_json(),
            "fvs": self.fvs.to_json() if self.fvs else None,
            "local_verification": self.local_verification.to_json(),
            "local_verification_accepted": self.accepted if np.isfinite(self.accepted) else None,
            "expression_accuracy": self.accuracy.to_json() if self.accuracy else None,
            "own_head_accuracy": self.own_head.to_json() if self.own_head else None,
            "mean_change": self.changed.to_json(),
        }


@dataclass(frozen=True)
class Evaluation:
    """One subject's measures: over everything, and per expression.

    ``kind`` tells a model from the rows that it is read against (see `exprtool.measures.subjects`). ``measured_on`` is
    how many different pictures and people there were (people 0: unknown), ``datasets`` the data sets they are from.
    ``in_common`` is the number of edits that all subjects made, where the figures are restricted to them.
    """

    model: str
    protocol: str
    data: str
    parameters: int | None
    training_images: int | None
    overall: Row
    per_expression: tuple[Row, ...]
    classifier: str = ""
    kind: Literal["model", "reference"] = "model"
    measured_on: tuple[int, int] = (0, 0)
    datasets: tuple[str, ...] = ()
    cells: Cells = field(default_factory=dict, repr=False)
    in_common: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "protocol": self.protocol,
            "data": self.data,
            "parameters": self.parameters,
            "training_images": self.training_images,
            "classifier": self.classifier,
            "edits_in_common": self.in_common,
            "overall": self.overall.to_json(),
            "per_expression": [row.to_json() for row in self.per_expression],
        }


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
    cells: dict[tuple[str, str], Cell | None] = {}
    done = 0
    for start in range(0, len(pictures), subject.group):
        chunk = pictures.take(range(start, min(start + subject.group, len(pictures))))
        known: dict[int, Embedding] = {}
        for label in wanted:
            cells.update(_measure(subject, chunk, label, known, classifier, own_head, face_service))
            done += len(chunk)
            if progress:
                progress(done, len(pictures) * len(wanted), f"{subject.name}: {label}")
        subject.forget()
    if not cells:
        raise DataError(
            f"All pictures already show what was asked for ({', '.join(wanted)}). Ask for another expression."
        )
    return summed_up(subject, pictures, cells, classifier.name if classifier else "")


def summed_up(subject: Subject, pictures: Pictures, cells: Cells, classifier: str = "") -> Evaluation:
    """The evaluation that a subject's cells on these pictures amount to."""
    return Evaluation(
        subject.name,
        subject.protocol,
        pictures.description,
        subject.parameters,
        subject.training_images,
        _row("all", cells),
        _by_expression(cells),
        classifier,
        kind="reference" if subject.reference else "model",
        measured_on=(len(set(pictures.names)), len({person for person in pictures.people if person})),
        datasets=tuple(sorted(set(pictures.datasets))),
        cells=cells,
    )


def on_common_ground(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The same, with all figures over the edits that every model among them made.

    References follow the models and decide nothing: where nobody has a real photo of an expression, the others count
    nevertheless. Counts of what was asked for and left alone stay each subject's own. Where no edit is common to all,
    the evaluations come back as they were.
    """
    made = [{key for key, cell in each.cells.items() if cell} for each in evaluations if each.kind == "model"]
    common = set.intersection(*made) if made else set()
    if not common:
        return list(evaluations)
    labels = {label for _, label in common}
    return [
        replace(
            each,
            overall=_row("all", each.cells, common),
            per_expression=tuple(r for r in _by_expression(each.cells, common) if r.expression in labels),
            in_common=len(common),
        )
        for each in evaluations
    ]


def targets(subject: Subject, expressions: Sequence[str] | None) -> tuple[str, ...]:
    """The expressions to ask for, each once (None: all but variants); raises `UnknownNameError`."""
    chosen = tuple(dict.fromkeys(expressions or [label for label in subject.labels if label not in VARIANTS]))
    for label in chosen:
        if label not in subject.labels:
            raise UnknownNameError(f"expression of {subject.name}", label, subject.labels)
    return chosen


def common_labels(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """The expressions that all subjects know, but for variants, in the first one's order.

    Raises `DataError` where there is none.
    """
    first = [label for label in subjects[0].labels if label not in VARIANTS]
    labels = tuple(label for label in first if all(label in each.labels for each in subjects))
    if not labels:
        knows = "; ".join(f"{each.name}: {', '.join(each.labels)}" for each in subjects)
        raise DataError(f"The models have no expression in common ({knows}), so there is nothing to compare.")
    return labels


def _measure(
    subject: Subject,
    chunk: Pictures,
    label: str,
    known: dict[int, Embedding],
    classifier: Classifier | None,
    own_head: Classifier | None,
    face_service: FacePlusPlus | None,
) -> dict[tuple[str, str], Cell | None]:
    asked = [i for i in range(len(chunk)) if chunk.expressions[i] != label]
    if not asked:
        return {}
    answers = subject.outputs(chunk.take(asked), label)
    found = [(i, answer) for i, answer in zip(asked, answers, strict=True) if answer is not None]
    cells: dict[tuple[str, str], Cell | None] = {}
    if not subject.reference:  # a real photo that nobody took is no face left alone
        cells = {(chunk.names[i], label): None for i in asked}
    if not found:
        return cells
    places = [i for i, _ in found]
    before = np.stack([chunk.images[i] for i in places])
    after: NDArray[np.uint8] = np.stack([answer for _, answer in found])
    squared = _identity(chunk, places, before, after, known, subject.landmarks(chunk.take(places), label)).squared
    change = np.abs(after.astype(np.int16) - before).mean(axis=(1, 2, 3))
    seen = {
        name: recognised(judge.classify, judge.labels, after, [label] * len(after))
        for name, judge in (("recognised", classifier), ("own_head", own_head))
        if judge is not None
    }
    for n, i in enumerate(places):
        score = face_service.compare(before[n], after[n]) if face_service else None
        cells[chunk.names[i], label] = Cell(
            float(squared[n]),
            float(change[n]),
            float("nan") if score is None else score,
            **{name: bool(answers[n]) for name, answers in seen.items()},
        )
    return cells


def _identity(
    chunk: Pictures,
    places: list[int],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    known: dict[int, Embedding],
    landmarks_after: NDArray[np.floating] | None,
) -> Identity:
    """As `identity`, with the inputs' embeddings kept by their place in the chunk between expressions."""
    local = {j: known[i] for j, i in enumerate(places) if i in known}
    landmarks = None if chunk.landmarks is None else chunk.landmarks[places]
    answer = identity(before, after, landmarks, landmarks_after=landmarks_after, known=local)
    known.update({places[j]: value for j, value in local.items()})
    return answer


def _by_expression(cells: Cells, only: set[tuple[str, str]] | None = None) -> tuple[Row, ...]:
    labels = dict.fromkeys(label for _, label in cells)
    return tuple(_row(label, {key: cell for key, cell in cells.items() if key[1] == label}, only) for label in labels)


def _row(label: str, cells: Cells, only: set[tuple[str, str]] | None = None) -> Row:
    """One row over ``cells``; figures over those ``only``, counts over all."""
    made = [cell for key, cell in cells.items() if cell and (only is None or key in only)]
    measured = Identity(np.array([cell.squared for cell in made]))
    scores = [cell.fvs for cell in made]
    kept = [(key[1], cell) for key, cell in cells.items() if cell and (only is None or key in only)]
    return Row(
        label,
        len(cells),
        measured.acd,
        measured.distance,
        measured.local_verification,
        measured.accepted,
        Stat.of(cell.change for cell in made),
        Stat.of(scores) if np.isfinite(scores).any() else None,
        _accuracy((name, cell.recognised) for name, cell in kept),
        _accuracy((name, cell.own_head) for name, cell in kept),
        sum(cell is None for cell in cells.values()),
    )


def _accuracy(answers: Iterable[tuple[str, bool | None]]) -> Accuracy | None:
    counts: dict[str, list[int]] = {}
    for name, right in answers:
        if right is not None:
            pair = counts.setdefault(name, [0, 0])
            pair[0] += right
            pair[1] += 1
    if not counts:
        return None
    per = {name: (right, total) for name, (right, total) in counts.items()}
    return Accuracy(sum(right for right, _ in per.values()), sum(total for _, total in per.values()), per)


def sample_outputs(subject: Subject, pictures: Pictures, expressions: Sequence[str]) -> list[list[Image | None]]:
    """For sheets: per picture, the output for each expression (its own included)."""
    rows: list[list[Image | None]] = []
    for start in range(0, len(pictures), subject.group):
        part = pictures.take(range(start, min(start + subject.group, len(pictures))))
        columns = [subject.outputs(part, label) for label in expressions]
        subject.forget()
        rows += [[column[i] for column in columns] for i in range(len(part))]
    return rows
