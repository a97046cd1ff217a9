"""What a trainer brings to the loop: its data, its networks, one step, and what is kept of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from exprtool_training.checkpoint import Parts
from exprtool_training.progress import Progress
from exprtool_training.watch import Look

Sheet = tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[str, ...]]
"""Inputs (N, S, S, 3), outputs (N, C, S, S, 3), and the names of the C columns."""


class Method(ABC):
    """A method under training. Making one reads the data and builds what is learned; nothing is written.

    ``total`` is the length in steps, ``data`` the data's fingerprint and ``manifest`` its description for the run's
    folder; ``facts`` says in a few lines what is trained on what. `step` returns the ``losses`` by these names (the
    first ones, where a step has fewer), ``meanings`` explains them. ``device`` is where losses are kept, None for
    NumPy's. What a step does must follow from the state and the step's number alone: then a run that is resumed equals
    one that was not, bit for bit.
    """

    total: int
    data: str
    manifest: Mapping[str, Any]
    facts: tuple[str, ...]
    losses: tuple[str, ...]
    meanings: ClassVar[Mapping[str, str]] = {}
    unit: str = "images"
    multiple: int = 1
    device: Any = None

    @abstractmethod
    def step(self, step: int) -> Any:
        """Do step 0, 1 ... ``total`` - 1 and return its losses, an array or tensor (K,)."""

    @abstractmethod
    def state(self) -> Parts:
        """Everything from which the next step follows."""

    @abstractmethod
    def restore(self, path: Path, progress: Progress) -> None:
        """Take `state` back out of a checkpoint; `ModelError` where it does not fit."""

    @abstractmethod
    def product(self, step: int, look: Look | None) -> tuple[Parts, Mapping[str, str]]:
        """What is needed to use what was learned in ``step`` steps, and its header; ``look`` is the one, if any, that
        made it the best."""

    @abstractmethod
    def header(self, step: int) -> Mapping[str, str]:
        """The text entries that say what a checkpoint of the whole `state` is: its card."""

    def begin(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called once, before the first step of a run that is not resumed."""

    def rate(self, step: int) -> float | None:
        """The learning rate of a step, for the log."""
        return None

    def look(self) -> Look | None:
        """Look at the held-out people; must not change what is trained."""
        return None

    def sheet(self) -> Sheet | None:
        """The same few faces every time, to see how far it is."""
        return None

    def attempt(self, size: int) -> None:
        """One whole step with a batch of another size, to find one that fits the memory; may spoil everything."""
        raise MemoryError(f"A batch of {size} cannot be tried out.")

    def finished(self, out: Path) -> Path | None:
        """Called after the last checkpoint of a run that is done: the file for use that is left in the folder."""
        return None

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Called in the end, whatever happened."""
