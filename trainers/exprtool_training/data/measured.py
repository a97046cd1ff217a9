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
from exprtool_training.data.prepared import PreparedSet
from exprtool_training.data.sources import ScanOptions


def pictures_of(
    roots: Sequence[Path],
    size: int,
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
    was not prepared before); ``limit`` takes evenly spread ones. In centre crops the faces are looked for. Raises
    `DataError` where nothing is left, or where a prepared folder was cut out by another template.
    """
    prepared = load_prepared(
        roots,
        size,
        template=template,
        test_fraction=test_fraction,
        split_seed=split_seed,
        scan_options=ScanOptions(labelled=False),
        progress=progress,
    )
    if template is not None and prepared.template != template and prepared.landmarks is not None:
        raise DataError(
            f"{roots[0]} was cut out with another template than the model's. Give the photos, or prepare them anew."
        )
    chosen = {"test": prepared.test, "train": prepared.train}.get(split, np.arange(len(prepared)))
    if not len(chosen):
        raise DataError(f"The {split} split of {', '.join(map(str, roots))} is empty. Use --split all.")
    if limit is not None and limit < len(chosen):
        chosen = chosen[np.linspace(0, len(chosen) - 1, limit).astype(int)]
    return with_landmarks(as_pictures(prepared, roots, split).take(chosen))


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
