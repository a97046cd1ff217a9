"""What will be read and what will be written, settled before any work starts.

Every input is paired with its outputs up front, so that two inputs that would write one file, an output that is an
input, or an output that already stands there are refused while nothing has been written yet.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exprtool.errors import UsageError
from exprtool.files import is_special

STREAM = "-"
SIDECAR_SUFFIX = ".provenance.json"
"""Of the file beside a picture that carries the records for which its format has no room."""


@dataclass(frozen=True)
class Input:
    """One file to work on. ``path`` is None for standard input.

    ``root`` is the folder that the user named and under which the file was found, or None for a file named itself;
    ``relative`` is what of the path is kept below an output folder.
    """

    path: Path | None
    root: Path | None = None

    @property
    def name(self) -> str:
        """How the file is called in messages and reports."""
        return STREAM if self.path is None else str(self.path)

    @property
    def relative(self) -> Path:
        if self.path is None:
            return Path("stdin")
        return self.path.relative_to(self.root) if self.root else Path(self.path.name)


@dataclass(frozen=True)
class Output:
    """One file to write: for which input, which wanted expression (by its label), and where; None is stdout."""

    source: Input
    label: str
    path: Path | None

    @property
    def name(self) -> str:
        return STREAM if self.path is None else str(self.path)


def expand_inputs(
    arguments: Sequence[str],
    suffixes: Collection[str],
    *,
    exclude: Path | None = None,
    passed_over: list[Path] | None = None,
) -> list[Input]:
    """Files, folders (recursively) and globs as a list of files, in the order given, folders sorted.

    In folders and globs only files with one of ``suffixes`` (lower case, with the dot) count; a file that is named
    itself is taken whatever it is called. Hidden files, pipes and devices (they could keep one waiting for ever) and
    the folder ``exclude`` (the output's) are passed over.
    The files of folders that do not count are appended to ``passed_over``, but for hidden ones and our own records.
    A file reached twice is taken once. Raises `UsageError` for something that is not there or holds nothing.
    """
    inputs: list[Input] = []
    for argument in arguments:
        if argument == STREAM:
            found = [Input(None)]
        else:
            found = list(_expand(argument, suffixes, exclude, passed_over))
            if not found:
                raise UsageError(
                    f"{argument}: no file to work on in it. Files with these endings are taken: "
                    f"{', '.join(sorted(suffixes))}."
                )
        inputs += found
    return list(_unique(inputs))


def _expand(
    argument: str, suffixes: Collection[str], exclude: Path | None, passed_over: list[Path] | None
) -> Iterator[Input]:
    path = Path(argument)
    if _is_folder(path):
        yield from (Input(file, path) for file in _walk(path, suffixes, exclude, passed_over))
    elif os.path.lexists(path):
        if is_special(path):
            raise UsageError(
                f"{argument} is a pipe or a device and not a file: reading it might never end. Give a file, or - for "
                "standard input."
            )
        yield Input(path)
    elif glob.has_magic(argument):
        # Path.glob takes no absolute patterns.
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207
            if Path(match).is_file() and Path(match).suffix.lower() in suffixes:
                yield Input(Path(match))
    else:
        raise UsageError(f"{argument}: {_why_not_there(path)}.")


def _why_not_there(path: Path) -> str:
    try:
        path.lstat()
    except PermissionError:
        return "its folder may not be looked into; check the folder's permissions"
    except OSError:
        pass
    return "no such file or folder; check the name"


def _walk(
    folder: Path, suffixes: Collection[str], exclude: Path | None, passed_over: list[Path] | None
) -> Iterator[Path]:
    skipped = real(exclude) if exclude else None
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and real(Path(parent, name)) != skipped
        )
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith(".") or is_special(path):
                continue
            if path.suffix.lower() in suffixes:
                yield path
            elif passed_over is not None and not name.endswith(SIDECAR_SUFFIX):
                passed_over.append(path)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises for names that are too long)


def _unreadable(error: OSError) -> None:
    raise UsageError(f"{error.filename}: this folder cannot be read ({error.strerror}). Check its permissions.")


def _unique(inputs: Iterable[Input]) -> Iterator[Input]:
    seen: set[Path | None] = set()
    for item in inputs:
        key = real(item.path) if item.path else None
        if key not in seen:
            seen.add(key)
            yield item


def real(path: Path) -> Path:
    """Where a path leads, as far as its links can be followed; `Path.resolve` raises where they go in a circle."""
    return Path(os.path.realpath(path))


def stands(path: Path) -> bool:
    """Whether there is a file of this name; False where there cannot be one (`Path.exists` raises for some names)."""
    return os.path.exists(path)  # noqa: PTH110


def plan_outputs(
    inputs: Sequence[Input],
    labels: Sequence[str],
    output: str | None,
    *,
    suffix: str | None = None,
    suffixes: Collection[str],
    existing: str = "refuse",
) -> list[Output]:
    """Pair every input with one output per label.

    Without ``output``: ``a.jpg`` becomes ``a-LABEL.jpg`` beside it, the folder ``photos`` becomes ``photos-LABEL``.
    With it: a single input and label may name a file; otherwise it is a folder, with one sub-folder per label where
    there are several. ``suffix`` (with the dot) replaces the inputs' own. ``existing`` says what may happen to an
    output that is already there: "refuse", "overwrite" or "skip".

    Raises `UsageError` where the plan cannot be carried out without losing something.
    """
    if any(item.path is None for item in inputs) and (len(inputs) > 1 or len(labels) > 1 or output is None):
        raise UsageError("Standard input (-) is one picture: give it alone, with one --expr and with -o FILE or -o -.")
    if output == STREAM and (len(inputs) > 1 or len(labels) > 1):
        raise UsageError("Standard output (-o -) takes one picture: give one input and one --expr, or name a folder.")
    outputs = [
        Output(item, label, _target(item, label, inputs, labels, output, suffix, suffixes))
        for item in inputs
        for label in labels
    ]
    _refuse_collisions(outputs)
    _refuse_inputs(outputs, inputs)
    _refuse_links(outputs, skip=existing == "skip")
    if existing == "refuse":
        _refuse_existing(outputs)
    return outputs


def _target(
    item: Input,
    label: str,
    inputs: Sequence[Input],
    labels: Sequence[str],
    output: str | None,
    suffix: str | None,
    suffixes: Collection[str],
) -> Path | None:
    if output == STREAM:
        return None
    if output is None:
        assert item.path is not None
        if item.root is None:
            return item.path.with_name(f"{item.path.stem}-{label}{suffix or item.path.suffix}")
        root = item.root.resolve() if item.root.name in ("", "..") else item.root
        return _renamed(root.with_name(f"{root.name}-{label}") / item.relative, suffix)
    target = Path(output)
    single = len(inputs) == 1 and len(labels) == 1 and inputs[0].root is None
    names_a_picture = (
        target.suffix.lower() in suffixes and not output.endswith(("/", os.sep)) and not _is_folder(target)
    )
    if names_a_picture and not single:
        raise UsageError(f"{output} names one picture, but there are several to write. Name a folder with -o.")
    if names_a_picture:
        if suffix and target.suffix.lower() != suffix:
            raise UsageError(f"{output}: its ending does not fit --format {suffix.lstrip('.')}; leave one of them out.")
        return target
    if item.path is None:
        raise UsageError(f"{output}: give the output of standard input a file name with a picture's ending, or -o -.")
    folder = target / label if len(labels) > 1 else target
    return _renamed(folder / item.relative, suffix)


def _renamed(path: Path, suffix: str | None) -> Path:
    return path.with_suffix(suffix) if suffix else path


def _key(path: Path) -> str:
    # Case-folded, because two names that differ in case alone are one file on many users' disks.
    return str(real(path)).casefold()


def _refuse_collisions(outputs: Sequence[Output]) -> None:
    taken: dict[str, Output] = {}
    for item in outputs:
        if item.path is None:
            continue
        other = taken.setdefault(_key(item.path), item)
        if other is not item:
            raise UsageError(
                f"{other.source.name} and {item.source.name} would both be written to {item.path}. "
                "Rename one, or edit them into different folders."
            )


def _refuse_inputs(outputs: Sequence[Output], inputs: Sequence[Input]) -> None:
    sources = {real(item.path) for item in inputs if item.path}
    for item in outputs:
        if item.path and real(item.path) in sources:
            raise UsageError(f"{item.path} is an input: it would be overwritten. Name another output with -o.")


def _refuse_links(outputs: Sequence[Output], *, skip: bool) -> None:
    """Refuse outputs that are symbolic links, but for those that will be skipped because they lead to a file."""
    for item in outputs:
        if item.path and os.path.islink(item.path) and not (skip and stands(item.path)):  # noqa: PTH114
            raise UsageError(
                f"{item.path} is a symbolic link, and nothing is written through links. Remove it, or name another "
                "output with -o."
            )


def _refuse_existing(outputs: Sequence[Output]) -> None:
    there = [item.path for item in outputs if item.path and stands(item.path)]
    if there:
        what = f"{there[0]} and {len(there) - 1} more exist" if len(there) > 1 else f"{there[0]} exists"
        raise UsageError(f"{what} already. Add --skip-existing to keep what is there, or --overwrite to replace it.")
