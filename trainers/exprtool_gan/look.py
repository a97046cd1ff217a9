"""An early look at people whom the network does not learn from: is the expression there, is it still the person.

The full measures are ``exprtool evaluate``; this is the short form that says during training whether it goes the right
way, and picks the best checkpoint: on the validation people where there are any, never on those whom the measures
report on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import ModelError
from exprtool.measures import OnnxClassifier, expression_accuracy, identity
from exprtool.measures.expression import Classify
from exprtool_training.crops import shown
from exprtool_training.data import PreparedSet
from exprtool_training.watch import Look

OutputsOf = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]]
"""Pictures (N, S, S, 3) and what they show (N,) -> every picture with every expression (N, C, S, S, 3)."""


class Looker:
    """Looks at the same pictures every time; ``chooses`` where they show people set apart to choose a checkpoint on.

    Its figures are ``accuracy``, the share of outputs recognised as the wanted expression by the judge ("classifier",
    or "own head", D's, which the generator was trained to please), ``acd`` (eq. 9) and ``same_person``, the share that
    dlib takes for the same person; both left out where no face could be measured. The score is accuracy times that
    share: outputs that show the expression and are still the person. Raises `ModelError` for a classifier that cannot
    be used.
    """

    def __init__(self, prepared: PreparedSet, images: int, classifier: Path | None, device: str) -> None:
        self.chooses = bool(len(prepared.validation))
        chosen = shown(prepared, images)
        self._names = prepared.label_names
        self._inputs = np.asarray(prepared.images[chosen])
        self._labels = prepared.labels[chosen]
        self._landmarks = None if prepared.landmarks is None else np.asarray(prepared.landmarks[chosen])
        self._known: dict[int, NDArray[np.float64]] = {}
        self._classifier = None if classifier is None else OnnxClassifier(classifier, device)

    def look(self, outputs_of: OutputsOf, head: Classify) -> Look:
        """Look at what ``outputs_of`` makes of the pictures; ``head`` judges where no classifier was given."""
        outputs = outputs_of(self._inputs, self._labels)  # (N, C, S, S, 3)
        # an image's own expression asks for no change; it would only flatter the figures
        n, label = np.nonzero(np.arange(len(self._names)) != self._labels[:, None])
        classify: Classify = self._classifier or head
        known_to_it = self._names if self._classifier is None else self._classifier.labels
        accuracy = expression_accuracy(classify, known_to_it, outputs[n, label], [self._names[i] for i in label])
        judge = "own head" if self._classifier is None else "classifier"
        trust = "D's own head, no evidence" if self._classifier is None else judge
        text = f"{accuracy.share:.1%} show the expression ({trust})"
        distances = self._distances(outputs, n, label)
        if distances is None:
            return Look(accuracy.share, {"accuracy": accuracy.share}, text, judge, self.chooses)
        acd, same = distances
        text += f", ACD {acd:.3f}, {same:.1%} the same person"
        return Look(
            accuracy.share * same, {"accuracy": accuracy.share, "acd": acd, "same_person": same}, text, judge,
            self.chooses,
        )  # fmt: skip

    def _distances(
        self, outputs: NDArray[np.uint8], n: NDArray[np.int64], label: NDArray[np.int64]
    ) -> tuple[float, float] | None:
        """ACD and the share accepted; None where no face can be compared."""
        if self._landmarks is None:
            return None
        squared = []
        try:
            for each in np.unique(label):  # the inputs' embeddings are kept from one expression to the next
                rows = n[label == each]
                known = {i: self._known[row] for i, row in enumerate(rows) if row in self._known}
                found = identity(self._inputs[rows], outputs[rows, each], self._landmarks[rows], known=known)
                self._known.update({int(rows[i]): value for i, value in known.items()})
                squared.append(found.squared)
        except ModelError:  # dlib or its files are not installed; the run does not depend on them
            return None
        measured = np.concatenate(squared)
        measured = measured[np.isfinite(measured)]
        if not len(measured) or math.isnan(float(measured.mean())):
            return None
        return float(measured.mean()), float((measured < 0.36).mean())
