"""What a run tells those who watch it. The run itself prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exprtool_gan.look import Look


@dataclass(frozen=True)
class Plan:
    """What is about to be trained."""

    out: Path
    recipe: str
    total: int
    start: int
    images: int
    people: int
    held_out: int
    labels: tuple[str, ...]
    g_parameters: int
    d_parameters: int
    device: str
    processes: int
    batch_size: int
    half: bool
    recorded: bool
    notes: tuple[str, ...] = ()


class Watcher:
    """Told of everything, does nothing: override what is of interest. Called in the leading process only."""

    def prepared(self, done: int, total: int, name: str) -> None:
        """A picture of the data was cropped."""

    def started(self, plan: Plan) -> None:
        """Training begins."""

    def stepped(self, step: int) -> None:
        """A step is under way on the device; called at every step, so be quick."""

    def logged(self, step: int, losses: Mapping[str, float], images_per_second: float) -> None:
        """Losses averaged since the last call."""

    def sampled(self, path: Path) -> None:
        """A sample sheet was written."""

    def looked(self, step: int, look: Look, best: bool) -> None:
        """The held-out people were looked at."""

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint was written."""

    def ended(self, step: int, out: Path, finished: bool) -> None:
        """The run is over: ``finished``, or stopped and saved so that it can be resumed."""

    def close(self) -> None:
        """Called in the end, whatever happened: leave the terminal as it was."""
