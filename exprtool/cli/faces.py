"""``exprtool faces``: find the faces in photos and show them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exprtool.cli import common, printing
from exprtool.cli.common import FACES_PANEL, OUTPUT_PANEL
from exprtool.errors import ExprtoolError, UsageError

if TYPE_CHECKING:
    from exprtool.faces.detect import FoundFaces
    from exprtool.pipeline import Prospect, Session
    from exprtool.plan import Input
    from exprtool.types import Face, Image


def add_to(app: typer.Typer) -> None:
    app.command()(faces)


def faces(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Photos, folders (searched recursively), globs, or -.")
    ],
    backend: common.BackendName = "auto",
    detector: common.DetectorName = "auto",
    device: common.Device = "auto",
    commercial_only: common.CommercialOnly = False,
    min_face: Annotated[
        float, typer.Option(min=0, metavar="PX", help="Leave smaller faces out.", rich_help_panel=FACES_PANEL)
    ] = 0.0,
    crops: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write each face there, aligned as networks see it.", rich_help_panel=OUTPUT_PANEL
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(min=16, max=4096, metavar="PX", help="Side of the crops.", rich_help_panel=OUTPUT_PANEL)
    ] = 256,
    draw: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write each photo there with boxes, landmarks, what was rejected or is left alone, and why.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    overwrite: common.Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON line per photo on stdout.", rich_help_panel=OUTPUT_PANEL)
    ] = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Find the faces in photos: where they are, how large, how turned, and what found them.

    Exit codes: 0 every photo has a face; 1 some have none or could not be read; 2 refused, nothing written.
    """
    common.quieten_libraries()
    from exprtool import images
    from exprtool.pipeline import Session
    from exprtool.plan import expand_inputs

    with common.nothing_written():
        sources = expand_inputs(inputs, images.IMAGE_SUFFIXES)
        targets = _Targets(sources, crops, draw, size, overwrite)
        session = Session(backend if draw else None, detector, device, commercial_only=commercial_only)
        session.load()
    show = _Lines() if as_json else _Table(quiet)
    all_have_faces = True
    for source in sources:
        record = _look_at(source, session, min_face, targets)
        show.add(record)
        if record.trace and verbose:
            printing.console().trace(record.trace)
        all_have_faces &= record.error is None and any(reason is None for reason in record.reasons)
    show.finish()
    if not all_have_faces:
        raise typer.Exit(1)


@dataclass
class _Record:
    """One photo's answer."""

    name: str
    size: tuple[int, int] | None = None
    found: FoundFaces | None = None
    reasons: list[str | None] = field(default_factory=list)
    left_alone: list[str | None] = field(default_factory=list)
    crops: list[str] = field(default_factory=list)
    drawing: str | None = None
    error: str | None = None
    trace: str | None = None

    def as_json(self) -> dict[str, Any]:
        found = self.found
        return {
            "input": self.name,
            "size": self.size,
            "faces": [
                {**_face_as_json(number, face, reason), "left_alone": left_alone}
                for number, (face, reason, left_alone) in enumerate(
                    zip(found.faces, self.reasons, self.left_alone, strict=True), start=1
                )
            ]
            if found
            else [],
            "rejected": [
                {**_where(item.face), "detector": item.face.detector, "reason": item.reason} for item in found.rejected
            ]
            if found
            else [],
            "tried": list(found.tried) if found else [],
            "crops": self.crops,
            "drawing": self.drawing,
            "error": self.error,
        }


def _where(face: Face) -> dict[str, Any]:
    return {
        "box": [round(value, 1) for value in face.box],
        "size": round(face.size, 1),
        "score": round(face.score, 3),
    }


def _face_as_json(number: int, face: Face, reason: str | None) -> dict[str, Any]:
    from exprtool.faces.pose import pose_of

    pose = pose_of(face)
    return {
        "number": number,
        **_where(face),
        "detector": face.detector,
        "roll": round(pose.roll, 1),
        "yaw": round(pose.yaw),
        "pitch": round(pose.pitch),
        "landmarks5": face.landmarks5.round(2).tolist(),
        "landmarks68": None if face.landmarks68 is None else face.landmarks68.round(2).tolist(),
        "reason": reason,
    }


def _look_at(source: Input, session: Session, min_face: float, targets: _Targets) -> _Record:
    """Find the faces of one photo and write what was asked for; what goes wrong becomes the record's error."""
    from exprtool.batch import in_words, read_input
    from exprtool.faces.select import Selection

    record = _Record(source.name)
    try:
        image = read_input(source).rgb
        record.size = image.shape[:2]
        prospect = session.find(image, Selection(min_face=min_face))
        record.found, record.reasons = prospect.found, list(prospect.reasons)
        record.left_alone = _left_alone(session, prospect) if targets.draws else [None] * len(record.reasons)
        targets.write(record, source, image)
        if not record.found.faces:
            record.error = f"no face was found (tried: {', '.join(record.found.tried)})"
        elif all(record.reasons):
            record.error = "no face is left: " + "; ".join(dict.fromkeys(reason for reason in record.reasons if reason))
    except Exception as error:  # whatever one photo or a stranger's detector brings about; the others go on
        record.error, record.trace = in_words(error, source)
    return record


def _left_alone(session: Session, prospect: Prospect) -> list[str | None]:
    """Why the backends leave each face alone, and for which expressions if not for all; None where they do not."""
    from exprtool.expressions import EXPRESSIONS
    from exprtool.types import Edit

    prepared = iter(session.prepare(prospect.selected))
    words: list[str | None] = []
    for region in prospect.regions:
        if region is None:
            words.append(None)
            continue
        face = next(prepared)
        able = [name for name in EXPRESSIONS if _can(session, name)]
        refusals = {name: session.check([face], Edit({name: 1.0}))[0] for name in able}
        by_reason: dict[str, list[str]] = {}
        for name, reason in refusals.items():
            if reason:
                by_reason.setdefault(reason, []).append(name)
        parts = [
            reason if len(names) == len(able) else f"{reason} ({', '.join(names)})"
            for reason, names in by_reason.items()
        ]
        words.append("; ".join(parts) or None)
    return words


def _can(session: Session, name: str) -> bool:
    return any(not spec.expressions or name in spec.expressions for spec in session.chain.specs)


class _Targets:
    """Where crops and drawings go: the tree of the inputs is kept, and no input and no other's file is written over."""

    def __init__(
        self, sources: Sequence[Input], crops: Path | None, draw: Path | None, size: int, overwrite: bool
    ) -> None:
        if crops is not None and crops == draw:
            raise UsageError("--crops and --draw name the same folder; give them one each.")
        for folder in (crops, draw):
            if folder is not None and folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder}: is a file; --crops and --draw need a folder.")
        self._crops, self._draw, self._size, self._overwrite = crops, draw, size, overwrite
        self._inputs = {source.path.resolve() for source in sources if source.path is not None}
        stems = Counter(self._stem(source) for source in sources)
        self._names = {
            source: source.relative.with_name(
                source.relative.name if stems[self._stem(source)] > 1 else source.relative.stem
            )
            for source in sources
        }
        clash = next((name for name, count in Counter(self._names.values()).items() if count > 1), None)
        if clash is not None and (crops is not None or draw is not None):
            raise UsageError(f"Two inputs would be written as {clash}. Give them in separate runs, with a folder each.")

    @property
    def draws(self) -> bool:
        return self._draw is not None

    @staticmethod
    def _stem(source: Input) -> str:
        return str(source.relative.with_suffix("")).casefold()

    def write(self, record: _Record, source: Input, image: Image) -> None:
        found = record.found
        assert found is not None
        if self._draw is not None:
            from exprtool.faces.draw import draw_faces

            target = self._draw / f"{self._names[source]}-faces.png"
            words = [f"left alone: {why}" if why else None for why in record.left_alone]
            notes = [reason or why for reason, why in zip(record.reasons, words, strict=True)]
            self._write(target, draw_faces(image, found, notes))
            record.drawing = str(target)
        if self._crops is None:
            return
        from exprtool.faces.align import crop, crop_from_image

        for number, (face, reason) in enumerate(zip(found.faces, record.reasons, strict=True), start=1):
            if reason is None:
                target = self._crops / f"{self._names[source]}-{number}.png"
                self._write(target, crop(image, crop_from_image(face, self._size), self._size))
                record.crops.append(str(target))

    def _write(self, target: Path, image: Image) -> None:
        from exprtool import images

        if target.resolve() in self._inputs:
            raise ExprtoolError(f"{target}: is one of the inputs and is not written over. Name another folder.")
        if target.exists() and not self._overwrite:
            raise ExprtoolError(f"{target}: is there already. Give --overwrite to replace it, or name another folder.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExprtoolError(
                f"{target.parent}: the folder cannot be made ({error.strerror}). Name another."
            ) from error
        images.write_image(images.Photo.from_rgb(image, target.name), image, target)


class _Lines:
    """JSON: one line per photo, as soon as it is known."""

    def add(self, record: _Record) -> None:
        printing.json_line(record.as_json())

    def finish(self) -> None:
        pass


class _Table:
    """A table on a terminal, plain lines at once anywhere else; photos without a face are named with the reason."""

    _HEADINGS = ("photo", "face", "size", "where", "turned", "found by", "remark")

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._rows: list[tuple[str, ...]] = []

    def add(self, record: _Record) -> None:
        from exprtool.cli.tables import show_text

        if record.error:
            show_text(common.naming(record.name, record.error), error=True)
        self._rows += _rows(record)
        if not sys.stdout.isatty():
            self.finish()

    def finish(self) -> None:
        from exprtool.cli.tables import show_table

        if self._rows and not self._quiet:
            show_table(self._HEADINGS, self._rows)
        self._rows.clear()


def _rows(record: _Record) -> list[tuple[str, ...]]:
    from exprtool.faces.pose import pose_of

    rows = []
    found = record.found.faces if record.found else ()
    faces = zip(found, record.reasons, record.left_alone, strict=True)
    for number, (face, reason, left_alone) in enumerate(faces, start=1):
        x0, y0, x1, y1 = (round(value) for value in face.box)
        pose = pose_of(face)
        turned = f"roll {pose.roll:.0f}, yaw {pose.yaw:.0f}, pitch {pose.pitch:.0f}"
        rows.append(
            (
                record.name,
                str(number),
                f"{face.size:.0f} px",
                f"{x0},{y0} to {x1},{y1}",
                turned,
                f"{face.detector} {face.score:.2f}",
                f"left out: {reason}" if reason else f"left alone: {left_alone}" if left_alone else "",
            )
        )
    return rows
