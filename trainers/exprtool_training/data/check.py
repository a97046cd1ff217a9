"""Looking over a data set before training on it: what cannot be read, what is there twice, who is on both sides.

Errors make the data unfit or the measures untrue; warnings are for the user to judge.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import ExprtoolError
from exprtool.images import read_image
from exprtool.processes import over_items
from exprtool.types import Image
from exprtool_training.data.detector import load_detector
from exprtool_training.data.prepare import FEW, Progress, clearly_largest, find, split_of
from exprtool_training.data.prepared import order_labels
from exprtool_training.data.sources import Scan, ScanOptions, Source, scan
from exprtool_training.data.splits import TEST, TRAIN, VALIDATION

Severity = Literal["error", "warning"]

NEAR_BITS = 8
"""Two pictures are near duplicates when at most this many of the 256 bits of their fingerprints differ ..."""
NEAR_LEVELS = 4.0
"""... and their 32 x 32 grey thumbnails differ by no more than this many grey levels (root mean square)."""
SAME_PERSON_DISTANCE = 0.45
"""Embeddings nearer than this are reported as one person under two names: below dlib's own 0.6, at which strangers
who look alike would be reported by the dozen."""
UNBALANCED = 3.0
_THUMBNAIL = 32


@dataclass(frozen=True)
class Problem:
    """One thing found: ``kind`` is a stable name for scripts, ``pictures`` the sources concerned."""

    kind: str
    severity: Severity
    message: str
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What was seen in one picture."""

    sha256: str
    problem: str = ""
    detail: str = ""
    size: tuple[int, int] = (0, 0)
    faces: int = 0
    face_size: float = 0.0
    fingerprint: bytes = b""
    thumbnail: bytes = b""
    embedding: tuple[float, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """Everything found, worst first, and the counts that a person wants to see."""

    pictures: int
    people: int
    counts: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no errors (warnings may remain)."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def check(
    roots: Sequence[Path],
    scan_options: ScanOptions | None = None,
    *,
    size: int = 128,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    detector: str = "auto",
    faces: bool = True,
    identities: bool = False,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every picture under ``roots`` and report what stands against training on them.

    ``size`` is the side of the crops that are to be made (smaller faces are reported). ``faces`` False leaves the
    search for faces out (quick); ``identities`` compares people by embedding, to find one person under two names on
    both sides of the split. Raises `DataError` where the roots cannot be read at all (see `scan`).
    """
    found = scan(roots, scan_options)
    sources = found.sources
    looks: dict[int, Look] = {}
    args = (detector if faces else None, identities, device)
    pictures = dict(enumerate(sources))
    for i, look in over_items(pictures, Looker, args, workers=workers, few=FEW):
        looks[i] = look
        if progress:
            progress(len(looks), len(sources), sources[i].name)
    seen = [looks[i] for i in range(len(sources))]
    sides, both = split_of(sources, test_fraction, split_seed)
    problems = [
        *_person_leaks(sources, both),
        *_per_picture(sources, seen, size, faces),
        *_duplicates(sources, seen, sides),
        *_balance(sources, seen, sides),
    ]
    if identities:
        problems += _same_people(sources, seen, sides)
    problems.sort(key=lambda problem: problem.severity)
    return CheckReport(
        len(sources),
        len({source.person for source in sources}),
        _counts(found, sides),
        dict(found.left_out),
        tuple(problems),
    )


class Looker:
    """Looks at one picture after another; made once per process."""

    def __init__(self, detector: str | None, identities: bool, device: str) -> None:
        self.detector = load_detector(detector, device)[1] if detector is not None else None
        self.identities = identities

    def __call__(self, source: Source) -> Look:
        try:
            data = source.path.read_bytes()
        except OSError as error:
            return Look("", "unreadable", error.strerror or str(error))
        digest = hashlib.sha256(data).hexdigest()
        try:
            image = read_image(data, name=source.name).rgb
        except ExprtoolError as error:
            return Look(digest, "unreadable", str(error))
        thumbnail = _thumbnail(image)
        values: dict[str, Any] = {
            "size": image.shape[:2],
            "fingerprint": fingerprint(thumbnail),
            "thumbnail": thumbnail.tobytes(),
        }
        if self.detector is None:
            return Look(digest, **values)
        faces = find(image, self.detector)
        values["faces"] = len(faces)
        face = clearly_largest(faces)
        if face is None:
            return Look(digest, "several-faces" if faces else "no-face", **values)
        values["face_size"] = float(face.size)
        if self.identities:
            from exprtool.faces.embed import embedding

            values["embedding"] = tuple(embedding(image, face).tolist())
        return Look(digest, "several-faces" if len(faces) > 1 else "", **values)


def _thumbnail(image: Image) -> NDArray[np.uint8]:
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def fingerprint(thumbnail: NDArray[np.uint8]) -> bytes:
    """256 bits of a grey (32, 32) thumbnail: whether each of 16 x 16 cells is brighter than its right neighbour.

    Resizing, recompression and a change of brightness leave them nearly alone.
    """
    cells = thumbnail.astype(np.float32).reshape(16, 2, 16, 2).mean(axis=(1, 3))
    brighter = cells > np.roll(cells, -1, axis=1)
    return np.packbits(brighter).tobytes()


# ---------------------------------------------------------------------------------------------------------------------
# What stands against the data


def _person_leaks(sources: Sequence[Source], both: Sequence[str]) -> Iterator[Problem]:
    for person in both:
        pictures = tuple(source.name for source in sources if source.person == person)
        yield Problem(
            "person-in-both-splits",
            "error",
            f"{person} is on several sides of the split: measures on such people flatter. Keep each person on "
            "one side.",
            pictures,
        )


def _per_picture(sources: Sequence[Source], looks: Sequence[Look], size: int, faces: bool) -> Iterator[Problem]:
    for source, look in zip(sources, looks, strict=True):
        if look.problem == "unreadable":
            yield Problem("unreadable", "error", f"{source.path}: {look.detail}", (source.name,))
        elif look.problem == "no-face":
            yield Problem("no-face", "error", f"{source.path}: no face found; it would be left out.", (source.name,))
        elif look.problem == "several-faces":
            taken = "the largest is taken" if look.face_size else "none is clearly the largest; it would be left out"
            severity: Severity = "warning" if look.face_size else "error"
            yield Problem("several-faces", severity, f"{source.path}: {look.faces} faces; {taken}.", (source.name,))
        if faces and 0 < look.face_size < 0.75 * size:
            message = f"{source.path}: the face is {look.face_size:.0f} px wide; a crop of {size} would be enlarged."
            yield Problem("small-face", "warning", message, (source.name,))


def _duplicates(sources: Sequence[Source], looks: Sequence[Look], sides: Mapping[str, str]) -> Iterator[Problem]:
    exact: dict[str, list[int]] = defaultdict(list)
    for i, look in enumerate(looks):
        if look.sha256:
            exact[look.sha256].append(i)
    for group in exact.values():
        if len(group) > 1:
            yield _duplicate("duplicate", "is the same file as", group, sources, sides)
    firsts = [group[0] for group in exact.values() if looks[group[0]].fingerprint]
    for group in _near_groups(firsts, looks):
        yield _duplicate("near-duplicate", "shows the same picture as", group, sources, sides)


def _duplicate(
    kind: str, words: str, group: Sequence[int], sources: Sequence[Source], sides: Mapping[str, str]
) -> Problem:
    members = [sources[i] for i in group]
    first, *others = members
    message = f"{first.path} {words} {', '.join(str(other.path) for other in others)}"
    severity: Severity = "warning"
    if len({sides[member.person] for member in members}) > 1:
        message += "; they lie on both sides of the split, so the test would show what was trained on"
        severity, kind = "error", f"{kind}-across-splits"
    elif len({member.expression for member in members}) > 1:
        message += f"; they carry different labels ({', '.join(sorted({str(m.expression) for m in members}))})"
        severity = "error"
    return Problem(kind, severity, message + ".", tuple(member.name for member in members))


def _near_groups(indices: Sequence[int], looks: Sequence[Look]) -> Iterator[list[int]]:
    """Groups of pictures that are nearly equal.

    Two fingerprints that differ in at most 8 of 256 bits agree in at least 8 of their 16 two-byte bands, so only
    pictures that share a band have to be compared.
    """
    bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for i in indices:
        print_ = looks[i].fingerprint
        for band in range(16):
            bands[band, print_[2 * band : 2 * band + 2]].append(i)
    leader = {i: i for i in indices}

    def top(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    compared: set[tuple[int, int]] = set()
    for members in bands.values():
        for pair in combinations(members, 2):
            if pair not in compared and top(pair[0]) != top(pair[1]):
                compared.add(pair)
                if _nearly_equal(looks[pair[0]], looks[pair[1]]):
                    leader[top(pair[1])] = top(pair[0])
    groups: dict[int, list[int]] = defaultdict(list)
    for i in indices:
        groups[top(i)].append(i)
    yield from (group for group in groups.values() if len(group) > 1)


def _nearly_equal(a: Look, b: Look) -> bool:
    bits = int.from_bytes(a.fingerprint, "big") ^ int.from_bytes(b.fingerprint, "big")
    if bits.bit_count() > NEAR_BITS:
        return False
    first, second = (np.frombuffer(look.thumbnail, np.uint8).astype(np.float32) for look in (a, b))
    return float(np.sqrt(np.mean((first - second) ** 2))) <= NEAR_LEVELS


def _balance(sources: Sequence[Source], looks: Sequence[Look], sides: Mapping[str, str]) -> Iterator[Problem]:
    good = [s for s, look in zip(sources, looks, strict=True) if look.problem in ("", "several-faces")]
    labels = order_labels([source.expression for source in sources if source.expression])
    if len(labels) == 1:
        message = f"All pictures are {labels[0]}: training needs two expressions or more."
        yield Problem("one-class", "error", message)
    totals = Counter(source.expression for source in good)
    for side in (TRAIN, TEST):
        there = Counter(source.expression for source in good if sides[source.person] == side)
        for label in labels:
            if not there[label]:
                message = f"The {side} set has no usable picture of {label}: add some, or change the split."
                yield Problem("class-missing", "error", message)
    if totals and len(labels) > 1:
        most, least = max(labels, key=lambda n: totals[n]), min(labels, key=lambda n: totals[n])
        if totals[most] > UNBALANCED * totals[least]:
            message = f"Unbalanced: {totals[most]} pictures of {most}, {totals[least]} of {least}."
            yield Problem("unbalanced", "warning", message)


def _same_people(sources: Sequence[Source], looks: Sequence[Look], sides: Mapping[str, str]) -> Iterator[Problem]:
    """One person under two names, on both sides of the split: the nearest pair of pictures decides."""
    members = [i for i, look in enumerate(looks) if look.embedding]
    train = [i for i in members if sides[sources[i].person] != TEST]
    test = [i for i in members if sides[sources[i].person] == TEST]
    if not train or not test:
        return
    known = np.array([looks[i].embedding for i in train])
    nearest: dict[tuple[str, str], tuple[float, int, int]] = {}
    for j in test:
        distances = np.linalg.norm(known - np.array(looks[j].embedding), axis=1)
        for k in np.flatnonzero(distances < SAME_PERSON_DISTANCE):
            i = train[k]
            names = (sources[i].person, sources[j].person)
            nearest[names] = min(nearest.get(names, (np.inf, i, j)), (float(distances[k]), i, j))
    for (a, b), (distance, i, j) in sorted(nearest.items(), key=lambda item: item[1][0]):
        yield Problem(
            "same-person-suspected",
            "warning",
            f"{a} ({sides[a]}) and {b} (test) may be one person: {sources[i].path} and {sources[j].path} lie at "
            f"distance {distance:.2f}. If so, give them one name in a CSV.",
            (sources[i].name, sources[j].name),
        )


def _counts(found: Scan, sides: Mapping[str, str]) -> dict[str, dict[str, int]]:
    labels = order_labels([source.expression for source in found.sources if source.expression])
    shown = [side for side in (TRAIN, VALIDATION, TEST) if side != VALIDATION or side in sides.values()]
    table = {side: dict.fromkeys(labels, 0) for side in shown}
    for source in found.sources:
        if source.expression:
            table[sides[source.person]][source.expression] += 1
    return table
