"""Data as the measures want it: which people, how many, with the photos behind the crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from exprtool.errors import DataError
from exprtool.faces.align import CropTemplate
from exprtool.measures.pictures import Pictures
from exprtool_training.data.detector import landmarks_in, load_detector
from exprtool_training.data.prepare import Progress, load_prepared
from exprtool_training.data.prepared import PreparedSet, is_prepared
from exprtool_training.data.sources import ScanOptions


def pictures_of(
    roots: Sequence[Path],
    size: int | None,
    template: CropTemplate | None = None,
    *,
    split: str = "all",
    limit: int | None = None,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    progress: Progress | None = None,
) -> Pictures:
    """The crops under ``roots`` for measuring; pictures whose expression nobody tells are welcome.

    ``split`` is "test", "train" or "all" (``test_fraction`` and ``split_seed`` are those of the training, for data that
    was not prepared before); ``limit`` takes evenly spread ones. A prepared folder is taken as it was cut, photos are
    cut to ``size`` and ``template``; `Pictures.recut` makes other crops of the same faces. In centre crops the faces
    are looked for. Raises `DataError` where nothing is left.
    """
    prepared = load_prepared(
        roots,
        None if any(map(is_prepared, roots)) else size,
        template=template,
        test_fraction=test_fraction,
        split_seed=split_seed,
        scan_options=ScanOptions(labelled=False),
        progress=progress,
    )
    return chosen_of(prepared, roots, split, limit)


def chosen_of(
    prepared: PreparedSet, roots: Sequence[Path] = (), split: str = "all", limit: int | None = None
) -> Pictures:
    """The pictures of a split of a prepared set, evenly spread where ``limit`` takes but some, with all of the same
    people's as their pool. Raises `DataError` where the split is empty."""
    chosen = {"test": prepared.test, "train": prepared.train}.get(split, np.arange(len(prepared)))
    if not len(chosen):
        raise DataError(f"The {split} split of {', '.join(map(str, roots))} is empty. Use --split all.")
    if limit is not None and limit < len(chosen):
        chosen = chosen[np.linspace(0, len(chosen) - 1, limit).astype(int)]
    everything = as_pictures(prepared, roots, split)
    shown = with_landmarks(everything.take(chosen))
    if everything.landmarks is None:  # centre crops: only the photos that will be looked at are searched for faces
        everything = with_landmarks(everything.take(shown.partners_in(everything)))
    return replace(shown, pool=everything)


def as_pictures(prepared: PreparedSet, roots: Sequence[Path] = (), split: str = "all") -> Pictures:
    """A prepared set for measuring; the photos are used where all of them are still there."""
    samples = prepared.manifest["samples"]
    files = tuple(Path(sample["file"]) for sample in samples)
    there = prepared.landmarks is not None and all(file.is_file() for file in files)
    where = ", ".join(root.name for root in roots) or (prepared.folder.name if prepared.folder else "data")
    return Pictures(
        prepared.images,
        prepared.landmarks,
        tuple(prepared.label_names[label] if label >= 0 else None for label in prepared.labels),
        prepared.sources,
        f"{where} ({'all people' if split == 'all' else split + ' people'})",
        files if there else None,
        np.array([np.reshape(sample["crop_from_image"], (2, 3)) for sample in samples]) if there else None,
        prepared.people,
        tuple(sample["dataset"] for sample in samples),
        prepared.template,
    )


def with_landmarks(pictures: Pictures) -> Pictures:
    """Centre crops with the landmarks of the faces in them (NaN where none is found); others as they are."""
    if pictures.landmarks is not None:
        return pictures
    _, detector = load_detector("auto")
    landmarks = np.full((len(pictures), 68, 2), np.nan)
    for i, image in enumerate(pictures.images):
        landmarks[i] = landmarks_in(np.ascontiguousarray(image), detector)
    return replace(pictures, landmarks=landmarks)
