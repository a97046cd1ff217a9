"""Training on labelled face crops: the settings that choose them, and what every trainer on them asks of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import UsageError
from exprtool.settings import setting
from exprtool_training.config import RunConfig
from exprtool_training.processes import Alone

if TYPE_CHECKING:
    from exprtool_training.data import PreparedSet

SHEET_FACES = 8


@dataclass(frozen=True)
class CropsConfig(RunConfig):
    """A run on labelled face crops."""

    data: tuple[Path, ...] = setting(
        (),
        "Data",
        "Folder with one subfolder per expression, KDEF, RaFD or CFEE, a CSV, or a prepared folder; repeatable.",
        changes=True,
    )
    image_size: int = setting(128, "Data", "Side of the face crops in pixels, 16 to 512.", span=(16, 512))
    crop: Literal["aligned", "centre"] = setting(
        "centre", "Data", "The centred square as it is (the paper), or eyes and mouth brought to fixed places."
    )
    detector: str = setting("auto", "Data", "Face detector for the aligned crops.", changes=True)
    validation_fraction: float = setting(
        0.0,
        "Data",
        "Share of the training people set apart to choose the best checkpoint on; 0: the last one counts.",
        span=(0, 0.9),
    )
    ignore: tuple[str, ...] = setting((), "Data", "Leave out pictures whose path matches this pattern; repeatable.")
    all_angles: bool = setting(False, "Data", "Also take KDEF's and RaFD's pictures that are not frontal.")
    all_sessions: bool = setting(False, "Data", "Also take KDEF's second session of the same people.")
    free_labels: bool = setting(False, "Data", "Take folder names as they are, not only the seven expressions.")

    def data_options(self) -> dict[str, Any]:
        """How the data is read, as `exprtool_training.data.load_prepared` takes it."""
        from exprtool_training.data import ScanOptions

        return {
            "size": self.image_size, "crop": self.crop, "detector": self.detector,
            "test_fraction": self.test_fraction, "split_seed": self.split_seed,
            "scan_options": ScanOptions(
                all_angles=self.all_angles, all_sessions=self.all_sessions, ignore=self.ignore,
                free_labels=self.free_labels,
            ),
        }  # fmt: skip


def load_crops(
    config: CropsConfig, world: Alone | None = None, progress: Callable[[int, int, str], None] | None = None
) -> PreparedSet:
    """The crops; the leading process prepares what is missing, the others then read it. Raises `UsageError` where no
    data is named, `DataError` where it cannot be used."""
    from exprtool_training.data import load_prepared

    if not config.data:
        raise UsageError("No data: give --data FOLDER, with one subfolder per expression (exprtool data --help).")
    if world is not None and not world.leads:
        world.wait()
    prepared = load_prepared(config.data, **config.data_options(), progress=progress)
    if world is not None and world.leads:
        world.wait()
    return prepared.with_validation(config.validation_fraction, config.split_seed)


def described(config: CropsConfig, prepared: PreparedSet, **more: Any) -> dict[str, Any]:
    """What a model card says of the crops that it was trained on."""
    return {
        "name": ", ".join(root.resolve().name for root in config.data),
        "images": len(prepared.train),
        "people": len({prepared.people[i] for i in prepared.train}),
        "manifest": prepared.manifest_hash,
        "test_fraction": config.test_fraction,
        "split_seed": config.split_seed,
        "validation_people": len({prepared.people[i] for i in prepared.validation}),
        "datasets": sorted({sample["dataset"] for sample in prepared.manifest["samples"]}),
        **more,
    }


def in_words(config: CropsConfig, prepared: PreparedSet) -> tuple[str, ...]:
    """The crops in one line, and what must be said about them."""
    people = len({prepared.people[i] for i in prepared.train})
    line = (
        f"{len(prepared.train):,} images of {people:,} people, {len(prepared.test):,} held out; "
        f"{', '.join(prepared.label_names)}"
    )
    cut = prepared.manifest["settings"]["crop"]  # a prepared folder was cut before
    note = (
        () if cut == config.crop else (f"The data was prepared with {cut} crops: --crop {config.crop} does nothing.",)
    )
    return line, *prepared.notes, *note


def shown(prepared: PreparedSet, count: int) -> NDArray[np.int64]:
    """Which pictures are looked at: of people who are not learned from where there are any, taking turns among the
    labels, so that few show all."""
    candidates = next(side for side in (prepared.validation, prepared.test, prepared.train) if len(side))
    labels = prepared.labels[candidates]
    queues = [list(candidates[labels == label]) for label in np.unique(labels)]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(int(queue.pop(0)))
    return np.array(chosen, dtype=np.int64)
