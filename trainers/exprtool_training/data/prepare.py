"""Turning photos into a prepared folder: detect, align, crop, store; in parallel, and resumable at any picture.

Each picture's outcome is a line in ``journal.jsonl`` and a crop under ``crops/``; both are there before the next one
counts as done. A run that was killed is taken up where it stood, and a picture that changed on disk is done again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import DataError, ExprtoolError
from exprtool.faces.align import US_GAN_TEMPLATE, CropTemplate, Matrix, crop, crop_from_image, scale_of, transform
from exprtool.files import atomic_write, write_bytes
from exprtool.images import read_image
from exprtool.measures.identity import face_from_landmarks
from exprtool.processes import over_items
from exprtool.types import Detector, Face, Image
from exprtool_training.data.detector import detector_name, landmarks_in, load_detector
from exprtool_training.data.prepared import (
    FORMAT,
    IMAGES,
    LANDMARKS,
    MANIFEST,
    PreparedSet,
    file_sha256,
    is_prepared,
    manifest_hash,
    order_labels,
    read_manifest,
    read_prepared,
    summarise,
    template_from_json,
    template_to_json,
)
from exprtool_training.data.sources import Scan, ScanOptions, Source, scan
from exprtool_training.data.splits import TEST, TRAIN, VALIDATION, split_people

CropMode = Literal["aligned", "centre"]
Progress = Callable[[int, int, str], None]
"""Called with (pictures done, pictures in all, name of the last one)."""

FEW = 24
"""Pictures per worker below which starting another process is not worth its while."""
JOURNAL, SETTINGS, CROPS = "journal.jsonl", "settings.json", "crops"
SIZES = (16, 1024)
_CLEARLY_LARGER = 1.5


@dataclass(frozen=True)
class PrepareOptions:
    """How photos become crops.

    ``size`` is the side in pixels. ``crop`` is "aligned" (eyes and mouth brought to ``template``) or "centre" (the
    largest centred square, resized: the paper's words in section 3.5; no face is looked for). ``template`` None means
    `US_GAN_TEMPLATE`, or with "centre" what is measured on the crops.
    """

    size: int = 128
    crop: CropMode = "aligned"
    template: CropTemplate | None = None
    detector: str = "auto"
    test_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        low, high = SIZES
        if not low <= self.size <= high:
            raise DataError(f"The crops' side must be from {low} to {high} pixels, not {self.size}.")
        if self.crop not in ("aligned", "centre"):
            raise DataError(f"Unknown way to crop {self.crop!r}. Known: aligned, centre.")
        if not 0 <= self.test_fraction < 1:
            raise DataError(
                f"The held-out fraction of people must be at least 0 and below 1, not {self.test_fraction}."
            )


@dataclass(frozen=True)
class Outcome:
    """What became of one picture; ``reason`` is empty where there is a crop.

    ``landmarks`` are 68 (x, y) in crop pixels; ``enlarged`` is by how much the face had to be enlarged (below 1: it was
    reduced); ``faces`` counts those found; ``crop_from_image`` holds the six numbers of the (2, 3) matrix, row by row.
    """

    sha256: str
    crop: str = ""
    reason: str = ""
    detail: str = ""
    faces: int = 0
    enlarged: float = 0.0
    landmarks: tuple[tuple[float, float], ...] = ()
    crop_from_image: tuple[float, ...] = ()


def prepare(
    roots: Sequence[Path],
    out: Path,
    options: PrepareOptions | None = None,
    scan_options: ScanOptions | None = None,
    *,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress | None = None,
) -> PreparedSet:
    """Crop every labelled picture under ``roots`` and write a prepared folder to ``out``.

    ``workers`` is the number of processes (None: one per processor; they are spawned, so a script that calls this
    needs the usual ``if __name__ == "__main__"``). Memory does not grow with the number of pictures. Pictures that
    cannot be used are listed in the manifest with the reason. Raises `DataError` for data that cannot be used at all,
    and for an ``out`` that was prepared with other settings.
    """
    options = options or PrepareOptions()
    found = scan(roots, scan_options)
    settings = _settings(options)
    _claim_folder(out, settings, roots)
    outcomes = _crop_all(found.sources, out, options, device, workers, progress)
    return _finish(found, outcomes, out, options, settings, device)


def load_prepared(
    roots: Sequence[Path],
    size: int | None = 128,
    *,
    crop: CropMode = "aligned",
    template: CropTemplate | None = None,
    detector: str = "auto",
    test_fraction: float = 0.1,
    split_seed: int = 0,
    scan_options: ScanOptions | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress | None = None,
) -> PreparedSet:
    """The data under ``roots`` as crops of ``size``: read as it is if prepared before, else prepared into ``cache``.

    ``roots`` is one folder written by ``exprtool data prepare``, or any number of raw roots (see `scan`). A raw root
    whose files, labels and settings have not changed since is read from the cache, which lies in exprtool's cache
    folder unless ``cache`` names another. Raises `DataError`.
    """
    prepared = [root for root in roots if is_prepared(root)]
    if prepared:
        if len(roots) > 1:
            raise DataError(
                f"{prepared[0]} is a prepared folder and stands for the whole data; it cannot be mixed with other "
                "roots. Prepare all raw folders together with `exprtool data prepare A B -o OUT`."
            )
        return read_prepared(prepared[0], size)
    options = PrepareOptions(size or 128, crop, template, detector, test_fraction, split_seed)
    found = scan(roots, scan_options)
    settings = _settings(options)
    out = (cache or _cache()) / _cache_name(roots, settings)
    fingerprint = _fingerprint(found, options)
    if is_prepared(out) and read_manifest(out).get("fingerprint") == fingerprint:
        return read_prepared(out, size)
    _claim_folder(out, settings, roots)
    outcomes = _crop_all(found.sources, out, options, device, workers, progress)
    return _finish(found, outcomes, out, options, settings, device)


# ---------------------------------------------------------------------------------------------------------------------
# One picture


class Cropper:
    """Makes the crop of one picture after another with one detector."""

    def __init__(self, options: PrepareOptions, out: Path, device: str) -> None:
        self.options, self.out = options, out
        self.detector = load_detector(options.detector, device)[1] if options.crop == "aligned" else None

    def __call__(self, source: Source) -> Outcome:
        """Read, crop and store one picture. What is wrong with the picture is an outcome, never an exception."""
        try:
            data = source.path.read_bytes()
        except OSError as error:
            return Outcome("", reason="unreadable", detail=error.strerror or str(error))
        digest = hashlib.sha256(data).hexdigest()
        try:
            image = read_image(data, name=source.name).rgb
        except ExprtoolError as error:
            return Outcome(digest, reason="unreadable", detail=str(error))
        side = self.options.size
        if self.detector is None:
            matrix = centre_matrix(image, side)
            return self._store(source.path, digest, crop(image, matrix, side), 0, matrix, ())
        faces = find(image, self.detector)
        face = clearly_largest(faces)
        if face is None:
            reason = "several faces" if faces else "no face"
            return Outcome(
                digest, reason=reason, detail=f"{len(faces)} of about one size" if faces else "", faces=len(faces)
            )
        matrix = crop_from_image(face, side, self.options.template or US_GAN_TEMPLATE)
        points: tuple[tuple[float, float], ...] = ()
        if face.landmarks68 is not None:
            points = tuple((round(float(x), 2), round(float(y), 2)) for x, y in transform(matrix, face.landmarks68))
        return self._store(source.path, digest, crop(image, matrix, side), len(faces), matrix, points)

    def _store(self, path: Path, digest: str, pixels: Image, faces: int, matrix: Matrix, points: Any) -> Outcome:
        # The path is part of the name: two copies of one picture are two samples, maybe with two labels.
        name = f"{digest[:2]}/{digest[:24]}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.png"
        write_bytes(self.out / CROPS / name, encode_png(pixels))
        return Outcome(
            sha256=digest,
            crop=f"{CROPS}/{name}",
            faces=faces,
            enlarged=round(scale_of(matrix), 4),
            landmarks=points,
            crop_from_image=tuple(round(float(value), 6) for value in matrix.ravel()),
        )


def find(image: Image, detector: Detector) -> tuple[Face, ...]:
    """The faces of an upright RGB image, with 68 landmarks, left to right."""
    from exprtool.faces.detect import find_faces

    return tuple(find_faces(image, detector).faces)


def clearly_largest(faces: Sequence[Face]) -> Face | None:
    """The only face, or the one that is half as large again as any other; None where nobody stands out."""
    ordered = sorted(faces, key=lambda face: face.size, reverse=True)
    if len(ordered) > 1 and ordered[0].size < _CLEARLY_LARGER * ordered[1].size:
        return None
    return ordered[0] if ordered else None


def centre_matrix(image: Image, size: int) -> NDArray[np.float64]:
    """The (2, 3) map from the image to a crop of its largest centred square."""
    height, width = image.shape[:2]
    side = min(height, width)
    scale = size / side
    left, top = (width - side) / 2, (height - side) / 2
    return np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])


def encode_png(pixels: Image) -> bytes:
    """RGB (H, W, 3) uint8 as PNG bytes."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# All pictures


def _crop_all(
    sources: Sequence[Source],
    out: Path,
    options: PrepareOptions,
    device: str,
    workers: int | None,
    progress: Progress | None,
) -> list[Outcome]:
    done = _read_journal(out)
    outcomes: dict[int, Outcome] = {}
    todo: list[int] = []
    for i, source in enumerate(sources):
        before = done.get(_file_key(source.path))
        if before and (before.reason or (out / before.crop).is_file()):
            outcomes[i] = before
        else:
            todo.append(i)
    with (out / JOURNAL).open("a", encoding="utf-8") as journal:
        pictures = {i: sources[i] for i in todo}
        for i, outcome in over_items(pictures, Cropper, (options, out, device), workers=workers, few=FEW):
            outcomes[i] = outcome
            entry = {"file": _file_key(sources[i].path), **asdict(outcome)}
            journal.write(json.dumps(entry, separators=(",", ":")) + "\n")
            journal.flush()
            if progress:
                progress(len(outcomes), len(sources), sources[i].name)
    if progress:
        progress(len(sources), len(sources), "")
    return [outcomes[i] for i in range(len(sources))]


def _read_journal(out: Path) -> dict[str, Outcome]:
    """Outcomes by file key; the last line may be torn by a crash and is then done again."""
    done: dict[str, Outcome] = {}
    path = out / JOURNAL
    if not path.is_file():
        return done
    torn = False
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            torn = not line.endswith("\n")
            try:
                entry = json.loads(line)
                key = entry.pop("file")
                entry["landmarks"] = tuple((float(x), float(y)) for x, y in entry["landmarks"])
                entry["crop_from_image"] = tuple(float(value) for value in entry["crop_from_image"])
                done[key] = Outcome(**entry)
            except (ValueError, KeyError, TypeError):
                continue
    if torn:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return done


def _file_key(path: Path) -> str:
    """Changes whenever the file does, without reading it."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path.resolve()}|gone"
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


# ---------------------------------------------------------------------------------------------------------------------
# The folder


def _settings(options: PrepareOptions) -> dict[str, Any]:
    if options.crop == "centre":
        template, detector = options.template and template_to_json(options.template), None
    else:
        template, detector = template_to_json(options.template or US_GAN_TEMPLATE), detector_name(options.detector)
    return {"size": options.size, "crop": options.crop, "template": template, "detector": detector}


def _claim_folder(out: Path, settings: Mapping[str, Any], roots: Iterable[Path]) -> None:
    """Make ``out`` ours, or check that it is: never write into a folder of pictures or of other settings."""
    inside = [root for root in roots if root.is_dir() and out.resolve().is_relative_to(root.resolve())]
    if inside:
        raise DataError(
            f"{out} lies inside the data ({inside[0]}); its crops would be read as data. Choose another --out."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / SETTINGS).is_file():
            before = json.loads((out / SETTINGS).read_text("utf-8"))
            if before != settings:
                changed = ", ".join(key for key in settings if before.get(key) != settings[key])
                raise DataError(f"{out} was prepared with other settings ({changed}). Choose another --out.")
        elif any(out.iterdir()):
            raise DataError(f"{out} is not empty and was not made by `exprtool data prepare`. Choose another --out.")
        else:
            write_bytes(out / SETTINGS, json.dumps(settings, indent=1).encode())
    except (OSError, ValueError) as error:
        raise DataError(f"{out} cannot be used as the prepared folder: {error}. Choose another --out.") from error


def _finish(
    found: Scan,
    outcomes: Sequence[Outcome],
    out: Path,
    options: PrepareOptions,
    settings: Mapping[str, Any],
    device: str,
) -> PreparedSet:
    usable = [(s, o) for s, o in zip(found.sources, outcomes, strict=True) if not o.reason]
    rejected = [(s, o) for s, o in zip(found.sources, outcomes, strict=True) if o.reason]
    if not usable:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(o.reason for _, o in rejected).items())
        raise DataError(f"None of the {len(rejected)} pictures can be used: {reasons}. See `exprtool data check`.")
    sides = _sides([source for source, _ in usable], options)
    samples = [
        {
            "source": source.name,
            "sha256": outcome.sha256,
            "expression": source.expression,
            "person": source.person,
            "split": sides[source.person],
            "dataset": source.dataset,
            "faces": outcome.faces,
            "enlarged": outcome.enlarged,
            "crop": outcome.crop,
            "crop_from_image": outcome.crop_from_image,
            "file": str(source.path.resolve()),
        }
        for source, outcome in usable
    ]
    digest = _pack(out, [outcome for _, outcome in usable], options.size)
    notes = list(found.notes)
    if rejected:
        counts = Counter(outcome.reason for _, outcome in rejected)
        notes.append(
            f"{len(rejected)} pictures cannot be used: " + ", ".join(f"{n} {r}" for r, n in counts.items()) + "."
        )
    content = {**settings, "test_fraction": options.test_fraction, "split_seed": options.split_seed}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "hash": manifest_hash(samples, content),
        "fingerprint": _fingerprint(found, options),
        "settings": dict(settings),
        "split": {"by": "person", "test_fraction": options.test_fraction, "seed": options.split_seed},
        "template": settings["template"],
        "label_names": order_labels([source.expression for source, _ in usable if source.expression]),
        "summary": summarise(samples),
        "left_out": dict(found.left_out),
        "rejected": [
            {"source": s.name, "sha256": o.sha256, "reason": o.reason, "detail": o.detail} for s, o in rejected
        ],
        "notes": notes,
        "images_sha256": digest,
        "samples": samples,
    }
    if settings["template"] is None:
        template, note = _measured_template(out, options, device)
        manifest["template"] = template_to_json(template)
        if note:
            notes.append(note)
    write_bytes(out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    return read_prepared(out, options.size, verify=False)


def split_of(sources: Sequence[Source], test_fraction: float, seed: int) -> tuple[dict[str, str], tuple[str, ...]]:
    """Each person's side: what the data says where it does, else by hash; and the people whom it puts on several.

    A validation set without a test set is what others test on, and is taken for one.
    """
    given: dict[str, set[str]] = {}
    for source in sources:
        if source.split:
            given.setdefault(source.person, set()).add(source.split)
    both = tuple(sorted(person for person, sides in given.items() if len(sides) > 1))
    order = (TEST, VALIDATION, TRAIN)
    sides = {person: next(side for side in order if side in theirs) for person, theirs in given.items()}
    if VALIDATION in sides.values() and TEST not in sides.values():
        sides = {person: TEST if side == VALIDATION else side for person, side in sides.items()}
    rest = [source.person for source in sources if source.person not in sides]
    if TEST in sides.values():
        # The data brings a test set of its own: whoever it does not mention is there to train on.
        return {**sides, **dict.fromkeys(rest, TRAIN)}, both
    return {**sides, **split_people(rest, test_fraction=test_fraction, seed=seed)}, both


def _sides(sources: Sequence[Source], options: PrepareOptions) -> dict[str, str]:
    sides, both = split_of(sources, options.test_fraction, options.split_seed)
    if both:
        shown = ", ".join(both[:5]) + (" ..." if both[5:] else "")
        raise DataError(
            f"{len(both)} people are on several sides of the split ({shown}): measures on them would flatter. "
            "Mend the split column or folders, or drop them to let exprtool split."
        )
    return sides


def _pack(out: Path, outcomes: Sequence[Outcome], size: int) -> str:
    """Write all crops into one array, one at a time; returns its sha256."""
    landmarks = np.full((len(outcomes), 68, 2), np.nan, dtype=np.float32)
    with atomic_write(out / IMAGES) as temporary:
        shape = (len(outcomes), size, size, 3)
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        for i, outcome in enumerate(outcomes):
            array[i] = _read_crop(out / outcome.crop, size)
            if outcome.landmarks:
                landmarks[i] = outcome.landmarks
        array.flush()
        del array
    with atomic_write(out / LANDMARKS) as temporary, temporary.open("wb") as file:
        np.save(file, landmarks, allow_pickle=False)
    return file_sha256(out / IMAGES)


def _read_crop(path: Path, size: int) -> Image:
    try:
        pixels = read_image(path).rgb
    except ExprtoolError as error:
        raise DataError(f"{error} It is a stored crop: delete it and run `exprtool data prepare` again.") from error
    if pixels.shape != (size, size, 3):
        raise DataError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, not {size}x{size}: delete it and prepare again."
        )
    return pixels


def _measured_template(out: Path, options: PrepareOptions, device: str) -> tuple[CropTemplate, str]:
    """Where the eyes and mouths of centre crops lie (median of a few), or the US-GAN template where no face is seen."""
    from exprtool.faces.align import anchors

    images = np.load(out / IMAGES, mmap_mode="r", allow_pickle=False)
    detector = load_detector(options.detector, device)[1]
    chosen = np.linspace(0, len(images) - 1, min(16, len(images))).astype(int)
    points: list[NDArray[np.float64]] = []
    for i in chosen:
        face = face_from_landmarks(landmarks_in(np.ascontiguousarray(images[i]), detector))
        if face is not None:
            points.append((anchors(face) + 0.5) / options.size)
    if len(points) * 2 < len(chosen):
        return US_GAN_TEMPLATE, (
            "Where the faces lie in the centre crops could not be measured (a face was found in "
            f"{len(points)} of {len(chosen)}); the US-GAN template is recorded. Use aligned crops for photos."
        )
    right_eye, left_eye, mouth = np.median(points, axis=0).round(3).tolist()
    return template_from_json({"right_eye": right_eye, "left_eye": left_eye, "mouth": mouth}), ""


def _fingerprint(found: Scan, options: PrepareOptions) -> str:
    """Changes whenever a source file, its label, its person or its side does; no picture is read for it."""
    digest = hashlib.sha256(f"{options.test_fraction} {options.split_seed}\n".encode())
    for s in found.sources:
        digest.update(f"{_file_key(s.path)}|{s.name}|{s.expression}|{s.person}|{s.split}\n".encode())
    return digest.hexdigest()


def _cache() -> Path:
    from exprtool.weights.catalogue import cache_dir

    return cache_dir() / "prepared"


def _cache_name(roots: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """One folder for one cut of one data set: labels and split may change without a face being looked for again."""
    key = json.dumps({"roots": [str(root.resolve()) for root in roots], "settings": settings}, sort_keys=True)
    first = roots[0].resolve().name or "root"
    return f"{first[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
