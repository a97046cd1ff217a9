"""What a run tells those who watch it. The run itself prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What is about to be trained: ``facts`` in a few lines, and what is counted per second (``unit``). ``meanings``
    explains the losses by name."""

    out: Path
    total: int
    start: int
    batch_size: int
    unit: str
    facts: tuple[str, ...]
    meanings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What the held-out people say: ``score`` is what the best checkpoint has most of, ``figures`` what it is made of,
    ``text`` both in words. ``judge`` names who judged, where that matters; ``chooses`` tells whether these people may
    decide which checkpoint is the best."""

    score: float
    figures: Mapping[str, float]
    text: str
    judge: str = ""
    chooses: bool = True

    def to_json(self) -> dict[str, Any]:
        return {**self.figures, **({"judge": self.judge} if self.judge else {}), "score": self.score}


class Watcher:
    """Told of everything, does nothing: override what is of interest. Called in the leading process only."""

    def prepared(self, done: int, total: int, name: str) -> None:
        """A picture of the data was cropped."""

    def started(self, plan: Plan) -> None:
        """Training begins."""

    def stepped(self, step: int) -> None:
        """A step is under way on the device; called at every step, so be quick."""

    def logged(self, step: int, losses: Mapping[str, float], per_second: float) -> None:
        """Losses averaged since the last call."""

    def sampled(self, path: Path) -> None:
        """A sample sheet was written."""

    def looked(self, step: int, look: Look, best: bool) -> None:
        """The held-out people were looked at."""

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint was written."""

    def ended(self, text: str) -> None:
        """The run is over, finished or stopped; ``text`` says how to use it or how to go on."""

    def close(self) -> None:
        """Called in the end, whatever happened: leave the terminal as it was."""
