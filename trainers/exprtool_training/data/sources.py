"""Finding labelled pictures: folders of expressions, data sets known by their file names, and CSV lists.

Nothing is opened here but CSV files; the result says for each picture which expression it shows, who is on it and,
where the data says so, on which side of the split it belongs.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath

from exprtool.errors import DataError, UnknownNameError
from exprtool.expressions import ALIASES, EXPRESSIONS, canonical
from exprtool.images import IMAGE_SUFFIXES
from exprtool_training.data.names import CFEE_CODES, FIRST_SESSION, Name, read_name
from exprtool_training.data.splits import TEST, TRAIN, VALIDATION

_SPLIT_FOLDERS = {"train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST, "val": VALIDATION,
                  "valid": VALIDATION, "validation": VALIDATION}  # fmt: skip
_LEFT_OUT_FOLDERS = ("contempt", "contemptuous")
_SHOWN = 5


@dataclass(frozen=True)
class ScanOptions:
    """What is taken from the roots.

    ``all_angles`` and ``all_gazes`` also take KDEF and RaFD pictures that are not frontal (the paper uses frontal ones
    only, section 3.5), ``all_sessions`` also KDEF's second session of the same people (the paper's 490 pictures are
    one session). ``person_pattern`` is a regular expression that finds the person in a file's stem: its group
    named ``person``, else its first group, else the whole match. ``ignore`` are glob patterns of relative paths to
    pass over. ``labelled`` False accepts pictures whose expression nobody told (to measure on, not to train with);
    ``free_labels`` takes folder names as they are instead of insisting on the seven expressions.
    """

    all_angles: bool = False
    all_gazes: bool = False
    all_sessions: bool = False
    person_pattern: str | None = None
    ignore: tuple[str, ...] = ()
    labelled: bool = True
    free_labels: bool = False
    cfee_codes: Mapping[str, str] = field(default_factory=lambda: dict(CFEE_CODES))


@dataclass(frozen=True)
class Source:
    """One picture of a data set.

    ``name`` is its path below the root, with the root's own name in front: short, for people to read.
    ``expression`` is None only where `ScanOptions.labelled` is False. ``split`` is "train", "validation" or
    "test" where the data itself decides, else None.
    """

    path: Path
    name: str
    expression: str | None
    person: str
    split: str | None = None
    dataset: str = "folders"


@dataclass(frozen=True)
class Scan:
    """What was found, in a stable order, and what was passed over: {reason: number of pictures}."""

    sources: tuple[Source, ...]
    left_out: Mapping[str, int]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{count} pictures left out: {reason}." for reason, count in self.left_out.items())


def scan(roots: Sequence[Path], options: ScanOptions | None = None) -> Scan:
    """List the labelled pictures under one or several roots (folders or CSV files).

    Raises `DataError` for a root that is not there or holds no pictures, and for a picture or folder whose expression
    is not one of the seven, naming what is known.
    """
    options = options or ScanOptions()
    if not roots:
        raise DataError("No data was given. Name a folder with one subfolder per expression, or a CSV file.")
    sources: list[Source] = []
    left_out: Counter[str] = Counter()
    for root, space in zip(roots, _namespaces(roots), strict=True):
        if root.is_dir():
            found = list(_scan_folder(root, space, options, left_out))
        elif root.is_file() and root.suffix.lower() == ".csv":
            found = list(_scan_csv(root, space, options, left_out))
        elif root.is_file():
            raise DataError(f"{root} is neither a folder nor a CSV file. Give the folder that holds the pictures.")
        else:
            raise DataError(f"{root} does not exist. Give the folder that holds the pictures.")
        if not found:
            skipped = sum(left_out.values())
            why = f" ({skipped} were left out: {', '.join(left_out)})" if skipped else ""
            raise DataError(f"{root} holds no pictures that can be used{why}. Known endings: {_endings()}.")
        sources += found
    return Scan(tuple(_without_repeats(sources)), dict(left_out))


def _scan_folder(root: Path, space: str, options: ScanOptions, left_out: Counter[str]) -> Iterator[Source]:
    unknown: list[tuple[Path, str]] = []
    for path in _pictures(root):
        relative = path.relative_to(root)
        if any(fnmatch(relative.as_posix(), pattern) for pattern in options.ignore):
            left_out["ignored by pattern"] += 1
            continue
        name = read_name(path.stem, options.cfee_codes)
        if name:
            reason = _why_not(name, options)
            if reason:
                left_out[reason] += 1
            else:
                shown = f"{root.name}/{relative.as_posix()}"
                yield Source(path, shown, name.expression, name.person, _given_split(relative), name.dataset)
            continue
        labelled = _from_folders(root, relative, space, options)
        if isinstance(labelled, Source):
            yield labelled
        elif labelled in _LEFT_OUT_FOLDERS:
            left_out["contempt is none of the seven expressions"] += 1
        else:
            unknown.append((path, labelled))
    if unknown:
        raise _unknown_expressions(root, unknown)


def _why_not(name: Name, options: ScanOptions) -> str:
    if name.expression is None and name.left_out == "contempt":
        return f"contempt ({name.dataset}) is none of the seven expressions"
    if name.expression is None:
        return f"{name.dataset}'s {name.left_out} are none of the seven"
    if name.angle and not options.all_angles:
        return f"{name.dataset} pictures that are not frontal"
    if name.gaze not in ("", "frontal") and not options.all_gazes:
        return f"{name.dataset} pictures with averted gaze"
    if name.session not in ("", FIRST_SESSION) and not options.all_sessions:
        return f"{name.dataset}'s second session of the same people (--all-sessions takes it)"
    return ""


def _from_folders(root: Path, relative: PurePath, space: str, options: ScanOptions) -> Source | str:
    """Read expression, person and split off the folders; the name that is no expression where that fails."""
    folders = list(relative.parts[:-1])
    split = _given_split(relative)
    folders = [folder for folder in folders if folder.lower() not in _SPLIT_FOLDERS]
    labels = [folder for folder in folders if folder.strip().lower() in ALIASES]
    expression: str | None
    if labels:  # the folder nearest to the picture counts
        expression = canonical(labels[-1])
        folders.remove(labels[-1])
    elif options.free_labels and folders:
        expression = folders.pop(0)
    elif root.resolve().name.lower() in ALIASES:
        expression = canonical(root.resolve().name)
    elif options.labelled:
        return folders[0].lower() if folders else ""
    else:
        expression = None
    stem = relative.name[: -len(relative.suffix)]
    person = _person(stem, folders, options, root / relative)
    shown = f"{root.resolve().name}/{relative.as_posix()}"
    return Source(root / relative, shown, expression, f"{space}/{person}", split)


def _person(stem: str, folders: Sequence[str], options: ScanOptions, path: Path) -> str:
    if options.person_pattern:
        try:
            match = re.search(options.person_pattern, stem)
        except re.error as error:
            raise DataError(f"The pattern for people, {options.person_pattern!r}, cannot be read: {error}.") from None
        if not match:
            raise DataError(
                f"The pattern for people, {options.person_pattern!r}, finds nobody in {path.name} ({path}). "
                "Mend the pattern, or leave such files out with --ignore."
            )
        groups = match.groupdict()
        return groups["person"] if "person" in groups else match[1] if match.groups() else match[0]
    return "/".join(folders) or stem


def _given_split(relative: PurePath) -> str | None:
    for folder in relative.parts[:-1]:
        if folder.lower() in _SPLIT_FOLDERS:
            return _SPLIT_FOLDERS[folder.lower()]
    return None


def _scan_csv(table: Path, space: str, options: ScanOptions, left_out: Counter[str]) -> Iterator[Source]:
    """Rows ``path, expression, person[, split]``; paths are relative to the CSV file."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [column.strip().lower() for column in reader.fieldnames or ()]
            rows = [(reader.line_num, dict(zip(columns, row.values(), strict=False))) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a CSV file: {error}. It must be UTF-8 text with commas.") from error
    needed = ["path", "person", *(["expression"] if options.labelled else [])]
    missing = [column for column in needed if column not in columns]
    if missing:
        raise DataError(
            f"{table} has no column {', '.join(missing)}; its first line must name the columns "
            "path, expression, person and, if the data decides, split."
        )
    for line, row in rows:
        where = f"{table}, line {line}"
        path = table.parent / (row["path"] or "").strip()
        if any(fnmatch((row["path"] or "").strip(), pattern) for pattern in options.ignore):
            left_out["ignored by pattern"] += 1
            continue
        person = (row["person"] or "").strip()
        if not (row["path"] or "").strip() or not path.is_file():
            raise DataError(f"{where}: there is no file {path}. Paths are relative to the CSV file.")
        if not person:
            raise DataError(f"{where}: the person is missing. Give each person a name or number of their own.")
        word = (row.get("expression") or "").strip()
        if word.lower() in _LEFT_OUT_FOLDERS:
            left_out["contempt is none of the seven expressions"] += 1
            continue
        if options.free_labels and word:
            expression = word
        elif word or options.labelled:
            try:
                expression = canonical(word)
            except UnknownNameError as error:
                raise DataError(f"{where}: {error}") from None
        else:
            expression = None
        split = (row.get("split") or "").strip().lower()
        if split and split not in _SPLIT_FOLDERS:
            raise DataError(f"{where}: split must be train, validation or test, not {split!r}.")
        yield Source(
            path, f"{table.stem}/{row['path']}", expression, f"{space}/{person}", _SPLIT_FOLDERS.get(split), "CSV"
        )


def _pictures(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            yield path


def _namespaces(roots: Sequence[Path]) -> list[str]:
    """A prefix for each root's people, so that person 001 of two data sets stays two people.

    Roots that are themselves expression folders of one parent (``faces/happy faces/sad``) share their people.
    """
    owners = []
    for root in roots:
        real = root.resolve()
        owners.append(real.parent if real.name.lower() in ALIASES or real.suffix.lower() == ".csv" else real)
    counts = Counter(owner.name for owner in dict.fromkeys(owners))
    return [owner.name if counts[owner.name] == 1 else f"{owner.parent.name}/{owner.name}" for owner in owners]


def _without_repeats(sources: Iterable[Source]) -> Iterator[Source]:
    seen: set[Path] = set()
    for source in sources:
        real = source.path.resolve()
        if real not in seen:
            seen.add(real)
            yield source


def _unknown_expressions(root: Path, unknown: Sequence[tuple[Path, str]]) -> DataError:
    words = sorted({word for _, word in unknown if word})
    files = ", ".join(str(path.relative_to(root)) for path, _ in unknown[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    names = f" Folders that name no expression: {', '.join(words[:_SHOWN])}." if words else ""
    return DataError(
        f"{root}: the expression of {len(unknown)} pictures is unknown ({files}{more}).{names} Put them in folders "
        f"named {', '.join(EXPRESSIONS)} (or an alias such as anger, AN, ANS, fear), keep the file names of KDEF, RaFD "
        "or CFEE, write a CSV with path, expression, person, or leave them out with --ignore PATTERN."
    )


def _endings() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
