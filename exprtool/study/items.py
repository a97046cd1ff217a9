"""Where a study's pictures come from: folders that any tool filled, and exprtool's own backends and models."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from exprtool.errors import DataError, ExprtoolError, NoFaceError, UsageError
from exprtool.expressions import ALIASES, EXPRESSIONS
from exprtool.images import IMAGE_SUFFIXES, read_image
from exprtool.measures.sheets import fitted
from exprtool.study.design import Item
from exprtool.types import Image

if TYPE_CHECKING:
    from exprtool.pipeline import Session

Progress = Callable[[int, int, str], None]
_ROOM = 1.7  # side of the shown square over the longer side of the face's box: head and chin are in
_PROPORTIONS = 0.02  # by how much a method's picture may be wider or narrower than its input
_NAMED = 5


@dataclass(frozen=True)
class Candidate:
    """One thing that could be shown: an input, the expression asked for, and the files of methods that are folders."""

    key: str
    original: Path
    expression: str
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Items for the study, others for its attention checks, and what had to be left out, for the user to read."""

    items: tuple[Item, ...]
    checks: tuple[Item, ...]
    notes: tuple[str, ...]


def gather(
    originals: Path,
    methods: Mapping[str, str],
    *,
    expressions: Sequence[str] = (),
    count: int = 18,
    checks: int = 2,
    seed: int = 0,
    side: int = 320,
    whole: bool = False,
    detector: str = "auto",
    device: str = "auto",
    progress: Progress | None = None,
) -> Gathered:
    """Choose ``count`` inputs by ``seed`` and get every method's picture of each.

    ``methods`` maps a name to a folder of finished pictures or to what ``--backend`` takes. A finished picture is found
    by the input's name: ``sad/001.png`` and ``001-sad.png`` are input ``001`` made sad; with ``001.png`` the one of
    ``expressions`` says what was asked for. Backends are asked for ``expressions`` (default: all but neutral). Each
    picture is shown as a square about the input's face, or ``whole`` as its middle square, at ``side`` pixels or less.

    An input for which a method has no picture is left out and noted. Raises `DataError` where too few remain, and what
    opening a backend raises.
    """
    notes: list[str] = []
    folders = {name: Path(what) for name, what in methods.items() if is_pictures(what)}
    sessions = {name: _session(what, detector, device) for name, what in methods.items() if name not in folders}
    candidates = _candidates(originals, folders, expressions, seed, notes)
    viewer = _Viewer(None if whole else _finder(detector, device), folders, sessions)
    made: list[Item] = []
    for candidate in candidates:
        if len(made) == count + checks:
            break
        try:
            made.append(viewer.item(candidate))
        except ExprtoolError as error:
            notes.append(f"Left out {candidate.key}: {error}")
        if progress:
            progress(len(made), count + checks, candidate.key)
    if len(made) < count:
        told = " ".join(notes[:_NAMED])
        raise DataError(
            f"Only {len(made)} of the {count} inputs that the study is to show have a picture of every method. Give "
            f"more inputs, or a smaller --count. {told}".strip()
        )
    side = min(side, max(picture.shape[0] for item in made for picture in (item.original, *item.answers.values())))
    shown = [_sized(item, side) for item in made]
    spare = shown[count:]
    if len(spare) < checks:  # too few inputs to spare any for a check: show some a second time
        spare = [*spare, *shown[: checks - len(spare)]]
    return Gathered(tuple(shown[:count]), tuple(spare), tuple(notes))


def is_pictures(what: str) -> bool:
    """Whether a method is a folder of finished pictures (else it is something that ``--backend`` takes)."""
    folder = Path(what).expanduser()
    return folder.is_dir() and next(_pictures(folder), None) is not None


def parse_methods(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=WHAT`` or ``WHAT`` alone, which is then named as a person would; raises `UsageError`."""
    from exprtool.measures.subjects import short_name

    methods: dict[str, str] = {}
    for text in texts:
        name, equals, what = text.partition("=")
        if not equals:
            name, what = short_name(text), text
        name, what = name.strip(), what.strip()
        if not (name and what):
            raise UsageError(f"Cannot read --method {text!r}: write NAME=FOLDER or NAME=BACKEND.")
        if name in methods:
            raise UsageError(f"Two methods are called {name!r}; give one of them another name: NAME=FOLDER.")
        methods[name] = what
    return methods


# ---------------------------------------------------------------------------------------------------------------------
# Which inputs, which expression


def _candidates(
    originals: Path, folders: Mapping[str, Path], expressions: Sequence[str], seed: int, notes: list[str]
) -> list[Candidate]:
    """Everything that could be shown, in an order drawn by the seed: expressions take turns, people come once."""
    inputs = _index(originals)
    if not inputs:
        raise DataError(f"{originals} holds no pictures.")
    draw = random.Random(f"exprtool study inputs {seed}")
    if folders:
        found = _of_folders(inputs, folders, expressions, notes)
    else:
        wanted = list(expressions) or [name for name in EXPRESSIONS if name != "neutral"]
        keys = sorted(inputs)
        draw.shuffle(keys)
        found = [
            Candidate(f"{key} {wanted[i % len(wanted)]}", inputs[key], wanted[i % len(wanted)])
            for i, key in enumerate(keys)
        ]
    draw.shuffle(found)
    return _taking_turns(found)


def _of_folders(
    inputs: Mapping[str, Path], folders: Mapping[str, Path], expressions: Sequence[str], notes: list[str]
) -> list[Candidate]:
    given = expressions[0] if len(expressions) == 1 else None
    indices = {name: _index(folder) for name, folder in folders.items()}
    missing: dict[str, list[str]] = defaultdict(list)
    found: list[Candidate] = []
    strangers: list[str] = []
    for key in sorted(set().union(*indices.values())):
        original, expression = _input_of(key, inputs)
        expression = expression or given
        if original is None or expression is None:
            strangers.append(key)
            continue
        if expressions and expression not in expressions:
            continue
        lacking = [name for name, index in indices.items() if key not in index]
        for name in lacking:
            missing[name].append(key)
        if not lacking:
            files = {name: index[key] for name, index in indices.items()}
            found.append(Candidate(key, inputs[original], expression, files))
    for name, keys in missing.items():
        notes.append(f"{name} has no picture of {_some(keys)}; left out.")
    if strangers:
        notes.append(
            f"Of {_some(strangers)} the input or the expression is unknown; left out. Name pictures as their input, in "
            "folders of expressions or with -sad at the end, or say which expression with --expr."
        )
    return found


def _input_of(key: str, inputs: Mapping[str, Path]) -> tuple[str | None, str | None]:
    """The input that a finished picture was made of, and the expression that its name tells; None for unknown."""
    parts = PurePosixPath(key).parts
    folders = [part for part in parts[:-1] if part.lower() in ALIASES]
    if folders:
        rest = "/".join(part for part in parts if part not in folders)
        if rest in inputs:
            return rest, ALIASES[folders[-1].lower()]
    for mark in "-_":
        stem, found, word = key.rpartition(mark)
        if found and word.lower() in ALIASES and stem in inputs:
            return stem, ALIASES[word.lower()]
    return (key if key in inputs else None), None


def _taking_turns(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One of each expression in turn, every input once before any comes a second time."""
    queues: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        queues[candidate.expression].append(candidate)
    first: list[Candidate] = []
    again: list[Candidate] = []
    shown: set[Path] = set()
    while any(queues.values()):
        for queue in queues.values():
            while queue:
                candidate = queue.pop(0)
                if candidate.original not in shown:
                    shown.add(candidate.original)
                    first.append(candidate)
                    break
                again.append(candidate)
    return [*first, *again]


def _index(folder: Path) -> dict[str, Path]:
    """Pictures by their path below the folder without suffix."""
    found: dict[str, Path] = {}
    for path in _pictures(folder):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DataError(f"{found[key]} and {path} have one name; keep one of them.")
        found[key] = path
    return found


def _pictures(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Give the folder that holds the pictures.")
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            yield path


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")


# ---------------------------------------------------------------------------------------------------------------------
# The pictures themselves


@dataclass(frozen=True)
class _Viewer:
    """Reads or makes one candidate's pictures and cuts the same square out of all of them."""

    find: Callable[[Image], tuple[float, float, float, float] | None] | None
    folders: Mapping[str, Path]
    sessions: Mapping[str, Session]

    def item(self, candidate: Candidate) -> Item:
        original = read_image(candidate.original).rgb
        square = _middle(original) if self.find is None else _about(original, self.find(original), candidate)
        answers: dict[str, Image] = {}
        for name in (*self.folders, *self.sessions):
            if name in self.folders:
                picture = read_image(candidate.files[name]).rgb
            else:
                picture = _edited(self.sessions[name], original, candidate.expression, name)
            answers[name] = _cut(picture, square, original, f"{name}'s picture")
        return Item(candidate.key, candidate.expression, _cut(original, square, original, "the input"), answers)


def _session(what: str, detector: str, device: str) -> Session:
    from exprtool.measures.subjects import backend_of
    from exprtool.pipeline import Session

    return Session(backend_of(what), detector, device)


def _finder(detector: str, device: str) -> Callable[[Image], tuple[float, float, float, float] | None]:
    from exprtool.choice import load_detector
    from exprtool.faces.detect import find_faces

    loaded = load_detector(detector, device)[1]

    def find(image: Image) -> tuple[float, float, float, float] | None:
        faces = find_faces(image, loaded).faces
        return max(faces, key=lambda face: face.size).box if faces else None

    return find


def _edited(session: Session, image: Image, expression: str, name: str) -> Image:
    from exprtool.faces.select import Selection

    result = session.edit_image(image, expression, Selection.parse("largest"))
    if not result.edited:
        reasons = "; ".join(face.reason for face in result.faces if face.reason)
        raise DataError(f"{name} left the face alone ({reasons}).")
    return result.image


def _middle(image: Image) -> tuple[float, float, float]:
    """(left, top, side) of the largest centred square, in pixels."""
    height, width = image.shape[:2]
    side = min(height, width)
    return (width - side) / 2, (height - side) / 2, side


def _about(
    image: Image, box: tuple[float, float, float, float] | None, candidate: Candidate
) -> tuple[float, float, float]:
    """(left, top, side) of the square about the face, moved and shrunk until it lies in the picture."""
    if box is None:
        raise NoFaceError(f"no face found in {candidate.original.name}. Use --whole to show pictures as they are.")
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    side = min(_ROOM * max(x1 - x0, y1 - y0), height, width)
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    return float(np.clip(left, 0, width - side)), float(np.clip(top, 0, height - side)), side


def _cut(picture: Image, square: tuple[float, float, float], original: Image, what: str) -> Image:
    (height, width), (full_height, full_width) = picture.shape[:2], original.shape[:2]
    scale = width / full_width
    if abs(height / full_height / scale - 1) > _PROPORTIONS:
        raise DataError(
            f"{what} is {width}x{height} and the input {full_width}x{full_height}: they have different proportions, so "
            "the faces cannot be shown alike."
        )
    left, top, side = (round(value * scale) for value in square)
    side = max(1, min(side, height - top, width - left))
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def _sized(item: Item, side: int) -> Item:
    return Item(
        item.key,
        item.expression,
        fitted(item.original, side),
        {name: fitted(picture, side) for name, picture in item.answers.items()},
    )
