"""Pictures of one person in two expressions, out of labelled crops."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import DataError
from exprtool_training.data import PreparedSet


@dataclass(frozen=True, eq=False)
class Pairs:
    """``source`` and ``target`` (N,) are places in the set; ``label`` (N,) counts in ``labels``, the expressions that
    somebody shows beside the source expression."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    label: NDArray[np.int64]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source)


def pairs_of(prepared: PreparedSet, members: NDArray[np.int64], source: str) -> Pairs:
    """Every person's pictures of the expression ``source`` beside those of each other one: first beside first, second
    beside second, by file name. Raises `DataError` where nobody shows both."""
    if source not in prepared.label_names:
        known = ", ".join(prepared.label_names)
        raise DataError(f"The data has no picture of {source!r}, from which the fit starts. Known: {known}.")
    of: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i in sorted(members, key=lambda i: prepared.sources[i]):
        of[prepared.people[i], int(prepared.labels[i])].append(int(i))
    start = prepared.label_names.index(source)
    found = [
        (first, second, label)
        for (person, label), targets in sorted(of.items())
        if label not in (start, -1)
        for first, second in zip(of.get((person, start), ()), targets, strict=False)
    ]
    if not found:
        raise DataError(
            f"Nobody in the data shows {source!r} and another expression, so there are no pairs to learn from. Pairs "
            "are pictures of one person: name the people in the file names, by --person-pattern of `exprtool data "
            "prepare`, or in a CSV."
        )
    present = sorted({label for *_, label in found})
    first, second, label = (np.array(column, np.int64) for column in zip(*found, strict=True))
    return Pairs(
        first, second, np.searchsorted(present, label), tuple(prepared.label_names[i] for i in present)
    )  # fmt: skip
