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
        "aligned", "Data", "Eyes and mouth brought to fixed places, or the centred square as it is."
    )
    detector: str = setting("auto", "Data", "Face detector for the aligned crops.", changes=True)
    ignore: tuple[str, ...] = setting((), "Data", "Leave out pictures whose path matches this pattern; repeatable.")
    all_angles: bool = setting(False, "Data", "Also take KDEF's and RaFD's pictures that are not frontal.")
    free_labels: bool = setting(False, "Data", "Take folder names as they are, not only the seven expressions.")


def load_crops(
    config: CropsConfig, world: Alone | None = None, progress: Callable[[int, int, str], None] | None = None
) -> PreparedSet:
    """The crops; the leading process prepares what is missing, the others then read it. Raises `UsageError` where no
    data is named, `DataError` where it cannot be used."""
    from exprtool_training.data import ScanOptions, load_prepared

    if not config.data:
        raise UsageError("No data: give --data FOLDER, with one subfolder per expression (exprtool data --help).")
    if world is not None and not world.leads:
        world.wait()
    prepared = load_prepared(
        config.data, config.image_size, crop=config.crop, detector=config.detector,
        test_fraction=config.test_fraction, split_seed=config.split_seed,
        scan_options=ScanOptions(
            all_angles=config.all_angles, ignore=config.ignore, free_labels=config.free_labels
        ),
        progress=progress,
    )  # fmt: skip
    if world is not None and world.leads:
        world.wait()
    return prepared


def described(config: CropsConfig, prepared: PreparedSet, **more: Any) -> dict[str, Any]:
    """What a model card says of the crops that it was trained on."""
    return {
        "name": ", ".join(root.resolve().name for root in config.data),
        "images": len(prepared.train),
        "people": len({prepared.people[i] for i in prepared.train}),
        "manifest": prepared.manifest_hash,
        "test_fraction": config.test_fraction,
        "split_seed": config.split_seed,
        **more,
    }


def in_words(prepared: PreparedSet) -> str:
    """The crops in one line."""
    people = len({prepared.people[i] for i in prepared.train})
    return (
        f"{len(prepared.train):,} images of {people:,} people, {len(prepared.test):,} held out; "
        f"{', '.join(prepared.label_names)}"
    )


def shown(prepared: PreparedSet, count: int) -> NDArray[np.int64]:
    """Which pictures are looked at: of held-out people where there are any, taking turns among the labels, so that few
    show all."""
    candidates = prepared.test if len(prepared.test) else prepared.train
    labels = prepared.labels[candidates]
    queues = [list(candidates[labels == label]) for label in np.unique(labels)]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(int(queue.pop(0)))
    return np.array(chosen, dtype=np.int64)
