"""A set of aligned crops, ready to train on: what ``exprtool data prepare`` writes and everything else reads.

A prepared folder holds ``images.npy`` (N, S, S, 3) uint8 RGB, ``landmarks.npy`` (N, 68, 2) float32 in crop pixels (NaN
where no face was looked for), ``manifest.json`` (every picture's source, sha256, expression, person and side of the
split, and the settings) and the same crops as PNG files to look at.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.documents import parse_json
from exprtool.errors import DataError
from exprtool.expressions import EXPRESSIONS
from exprtool.faces.align import CropTemplate
from exprtool_training.data.splits import TEST, TRAIN, VALIDATION, validation_people

FORMAT = "exprtool-prepared/1"
MANIFEST, IMAGES, LANDMARKS = "manifest.json", "images.npy", "landmarks.npy"


@dataclass(frozen=True, eq=False)
class PreparedSet:
    """Labelled crops in memory (or mapped from disk), with the people on them and the split.

    ``images`` is (N, S, S, 3) uint8 RGB, ``labels`` (N,) int64 into ``label_names`` (-1 where the data does
    not tell, which only `ScanOptions.labelled` False allows), ``is_test`` (N,) bool;
    ``people`` and ``sources`` hold N strings. ``landmarks`` is (N, 68, 2) float32 in crop pixels or None where no faces
    were looked for. ``manifest_hash`` names the content: pictures, labels, people, split and settings, but not where
    the files lay. ``is_validation`` (N,) bool marks the people on whom a checkpoint is chosen; None for nobody. No
    person is on two sides.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    people: tuple[str, ...]
    sources: tuple[str, ...]
    is_test: NDArray[np.bool_]
    template: CropTemplate
    manifest: Mapping[str, Any]
    manifest_hash: str
    landmarks: NDArray[np.float32] | None = None
    folder: Path | None = None
    is_validation: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Side of the crops in pixels."""
        return int(self.images.shape[1])

    @property
    def train(self) -> NDArray[np.int64]:
        """Indices of the training pictures."""
        return np.flatnonzero(~self.is_test if self.is_validation is None else ~(self.is_test | self.is_validation))

    @property
    def validation(self) -> NDArray[np.int64]:
        """Indices of the pictures on which a checkpoint is chosen: neither trained on nor reported."""
        return np.zeros(0, np.int64) if self.is_validation is None else np.flatnonzero(self.is_validation)

    @property
    def test(self) -> NDArray[np.int64]:
        """Indices of the pictures of held-out people."""
        return np.flatnonzero(self.is_test)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or could not be used, for the user to read."""
        return tuple(self.manifest.get("notes", ()))

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures per split and expression: {"train": {"happy": 60, ...}, "test": {...}}, "validation" where it is."""
        sides = {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}
        return {
            side: {name: int((self.labels[chosen] == i).sum()) for i, name in enumerate(self.label_names)}
            for side, chosen in sides.items()
            if side != VALIDATION or len(chosen)
        }

    def with_validation(self, fraction: float, seed: int = 0) -> PreparedSet:
        """The same with about ``fraction`` of the training people set apart to choose a checkpoint on.

        Data that brings a validation set of its own keeps that.
        """
        if len(self.validation):
            return self
        chosen = validation_people((self.people[i] for i in self.train), fraction=fraction, seed=seed)
        if not chosen:
            return self
        apart = np.array([person in chosen for person in self.people]) & ~self.is_test
        return replace(self, is_validation=apart)

    def require(self, *, batch: int = 1, test: bool = True) -> None:
        """Raise `DataError` where this cannot be trained on: one class, a class without training pictures, a batch
        larger than the training set, or (``test``) an empty test set or one that lacks a class."""
        where = f" ({self.folder})" if self.folder else ""
        if len(self.label_names) < 2:
            raise DataError(
                f"The data{where} has one expression only ({', '.join(self.label_names)}); a translation needs two or "
                "more. Add pictures of another expression."
            )
        counts = self.counts()
        if missing := [name for name, count in counts[TRAIN].items() if not count]:
            raise DataError(
                f"The training set{where} has no picture of {', '.join(missing)}: all people who show it are held out. "
                "Add people, or change --test-fraction or --split-seed."
            )
        if len(self.train) < batch:
            raise DataError(
                f"A batch of {batch} is larger than the training set of {len(self.train)} pictures{where}. "
                f"Use --batch-size {len(self.train)} or less, or add pictures."
            )
        if not test:
            return
        if not len(self.test):
            raise DataError(
                f"Nobody is held out for testing{where}: raise --test-fraction, or mark people in the data."
            )
        if missing := [name for name, count in counts[TEST].items() if not count]:
            raise DataError(
                f"The test set{where} has no picture of {', '.join(missing)}, so nothing can be measured there. Add "
                "people who show it, raise --test-fraction, or change --split-seed."
            )


def read_prepared(folder: Path, size: int | None = None, *, verify: bool = True) -> PreparedSet:
    """Open a prepared folder; the images are mapped from disk, not loaded.

    ``size`` is the side that is wanted (`DataError` if the crops have another). ``verify`` compares the images'
    sha256 with the manifest's. Raises `DataError` for anything missing, damaged or of another format.
    """
    manifest = read_manifest(folder)
    try:
        images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
        landmarks = np.load(folder / LANDMARKS, mmap_mode="r", allow_pickle=False)
        samples = manifest["samples"]
        names = tuple(manifest["label_names"])
        places = {None: -1, **{name: i for i, name in enumerate(names)}}
        labels = np.array([places[sample["expression"]] for sample in samples], dtype=np.int64)
        prepared = PreparedSet(
            images=images,
            labels=labels,
            label_names=names,
            people=tuple(sample["person"] for sample in samples),
            sources=tuple(sample["source"] for sample in samples),
            is_test=np.array([sample["split"] == TEST for sample in samples], dtype=bool),
            template=template_from_json(manifest["template"]),
            manifest=manifest,
            manifest_hash=manifest["hash"],
            landmarks=None if manifest["settings"]["crop"] == "centre" else landmarks,
            folder=folder,
            is_validation=np.array([sample["split"] == VALIDATION for sample in samples], dtype=bool),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[0] != len(samples) or images.shape[3] != 3:
        raise _damaged(folder, f"{IMAGES} holds {images.dtype} {images.shape} for {len(samples)} pictures")
    if landmarks.shape != (len(samples), 68, 2):
        raise _damaged(folder, f"{LANDMARKS} has shape {landmarks.shape}")
    if size is not None and prepared.size != size:
        raise DataError(
            f"{folder} holds crops of {prepared.size} pixels, but {size} are wanted. Prepare the data again with "
            f"`exprtool data prepare --size {size}`."
        )
    if verify and file_sha256(folder / IMAGES) != manifest["images_sha256"]:
        raise _damaged(folder, f"the sha256 of {IMAGES} is not that of the manifest")
    return prepared


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder; raises `DataError` where there is none that can be read."""
    path = folder / MANIFEST
    try:
        manifest = parse_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not a prepared folder: it has no {MANIFEST}. Run `exprtool data prepare`."
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise DataError(f"{path} has format {found!r}, expected {FORMAT!r}. Prepare the data again.")
    return manifest


def is_prepared(folder: Path) -> bool:
    """Whether a folder was finished by ``exprtool data prepare``."""
    return (folder / MANIFEST).is_file() and (folder / IMAGES).is_file()


def _damaged(folder: Path, why: object) -> DataError:
    return DataError(
        f"{folder} is damaged or incomplete: {why}. Run `exprtool data prepare` again; it takes up what is good."
    )


def order_labels(expressions: Sequence[str]) -> tuple[str, ...]:
    """The labels that occur, the seven expressions in their usual order and other names after them."""
    present = set(expressions)
    known = [name for name in EXPRESSIONS if name in present]
    return (*known, *sorted(present - set(known)))


def manifest_hash(samples: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """A sha256 over what decides the content: each picture's hash, label, person and side, and the settings."""
    content = sorted((s["sha256"], s["expression"] or "", s["person"], s["split"]) for s in samples)
    text = json.dumps({"samples": content, "settings": settings}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def template_to_json(template: CropTemplate) -> dict[str, list[float]]:
    return {
        "right_eye": list(template.right_eye),
        "left_eye": list(template.left_eye),
        "mouth": list(template.mouth),
    }


def template_from_json(value: Mapping[str, Any]) -> CropTemplate:
    """Raises ValueError or KeyError where the value is no template."""

    def point(name: str) -> tuple[float, float]:
        x, y = value[name]
        return float(x), float(y)

    return CropTemplate(point("right_eye"), point("left_eye"), point("mouth"))


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summarise(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Totals for the manifest and for people."""
    return {
        "pictures": len(samples),
        "people": len({sample["person"] for sample in samples}),
        "train": sum(sample["split"] == TRAIN for sample in samples),
        "validation": sum(sample["split"] == VALIDATION for sample in samples),
        "test": sum(sample["split"] == TEST for sample in samples),
        "expressions": dict(Counter(sample["expression"] for sample in samples)),
        "datasets": dict(Counter(sample["dataset"] for sample in samples)),
    }
