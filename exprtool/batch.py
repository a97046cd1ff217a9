"""Many photos: decode, detect, generate, composite and encode side by side, in memory that does not grow.

A reader thread decodes and detects a few photos ahead, the calling thread runs the backend on the faces of several
photos together, and writer threads paste and encode behind it. Every queue between them is bounded. One photo that
fails is reported and the others go on; an output appears under its name only when it is whole.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from exprtool import images, provenance
from exprtool.devices import usable_cpus
from exprtool.door import Door
from exprtool.errors import ExprtoolError
from exprtool.faces.select import Selection
from exprtool.files import write_error
from exprtool.memory import PixelBudget, default_max_pixels
from exprtool.pipeline import (
    EditResult,
    FaceResult,
    PreparedFace,
    Prospect,
    Session,
    Timings,
    timed,
    why_none_selected,
)
from exprtool.plan import Input, Output, stands
from exprtool.provenance import Provenance
from exprtool.types import Edit, FaceRegion, Image

_READERS = min(4, usable_cpus())
"""Finding faces takes most of the time, and the detectors work beside each other."""
Status = Literal["edited", "refused", "no_face", "skipped", "failed"]


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is run; see ``exprtool edit --help`` for what the first ones mean to the user.

    With ``keep`` an input in which nothing is edited is copied as it is. ``keep_times`` gives outputs their input's
    times. A photo of more than ``max_pixels`` is refused before it is decoded, and photos wait until there is room for
    them in ``pixels_at_once``.

    ``ahead`` photos at most are decoded before the backend takes them, ``batch_faces`` is how many faces it gets
    together (it never waits for more than are ready).
    """

    selection: Selection = field(default_factory=Selection)
    format: str | None = None
    quality: int | None = None
    skip_existing: bool = False
    provenance: bool = True
    keep: bool = False
    keep_times: bool = False
    max_pixels: int = field(default_factory=default_max_pixels)
    ahead: int = max(2, _READERS)
    batch_faces: int = 8
    readers: int = _READERS
    writers: int = 2

    @property
    def pixels_at_once(self) -> int:
        return self.max_pixels


@dataclass(frozen=True, eq=False)
class OutputReport:
    """What became of one output.

    ``status`` is "edited"; "refused" (there are faces, but none that was asked for and can be done well); "no_face"
    (none was found); "skipped" (already there); or "failed". ``error`` says why for the last four. Where nothing was
    edited nothing is written, but for a copy of the input under `BatchOptions.keep` (``copied``).
    ``trace`` tells where in the code an unforeseen error arose, ``icc`` is the RGB profile in which the photo's pixels
    are to be seen.
    """

    output: Output
    status: Status
    edit: Edit
    error: str | None = None
    faces: tuple[FaceResult, ...] = ()
    timings: Timings = field(default_factory=dict)
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    trace: str | None = None
    icc: bytes | None = None
    copied: bool = False

    def as_json(self) -> dict[str, Any]:
        """The record that ``--json`` prints: plain numbers, strings, lists and dictionaries."""
        return {
            "input": self.output.source.name,
            "output": self.output.name if self.copied or self.status in ("edited", "skipped") else None,
            "expression": self.output.label,
            "status": self.status,
            "error": self.error,
            "size": list(self.size) if self.size else None,
            "faces": [face_record(i, face, self.edit) for i, face in enumerate(self.faces, start=1)],
            "notes": list(self.notes),
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
        }


def face_record(index: int, result: FaceResult, edit: Edit) -> dict[str, Any]:
    """One face as ``--json`` and the report show it; ``index`` counts from 1, left to right."""
    face = result.face
    return {
        "index": index,
        "box": [round(float(v), 1) for v in face.box],
        "score": round(float(face.score), 4),
        "size": round(float(face.size), 1),
        "roll": round(float(face.roll), 1),
        "detector": face.detector,
        "edited": result.edited,
        "reason": result.reason,
        "backend": result.backend,
        "weights": dict(edit.weights) if result.edited else None,
        "controls": dict(edit.controls) if result.edited else None,
        "strength": edit.strength if result.edited else None,
        "notes": list(result.notes),
        "details": plain(result.details),
    }


def plain(value: Any) -> Any:
    """The same value in types that JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


OnOutput = Callable[[OutputReport, Image | None, Image | None], None]
"""Receives each report in order, with the image before and after the edit (None where there is none)."""


def read_input(source: Input, max_pixels: int = images.MAX_PIXELS, data: bytes | None = None) -> images.Photo:
    """Decode one input; standard input is read to its end, unless its ``data`` were read before."""
    if source.path is not None:
        return images.read_image(source.path, name=source.name, max_pixels=max_pixels)
    data = read_stream() if data is None else data
    return images.read_image(data, name="standard input", max_pixels=max_pixels)


def read_stream() -> bytes:
    """All of standard input."""
    return sys.stdin.buffer.read() if sys.stdin else b""  # there is none where the caller closed it


@dataclass(eq=False)
class _Task:
    """One photo on its way: what was asked for, and what each stage made of it."""

    outputs: tuple[Output, ...]
    photo: images.Photo | None = None
    prospect: Prospect | None = None
    prepared: list[PreparedFace] = field(default_factory=list)
    timings: Timings = field(default_factory=dict)
    failure: Exception | None = None
    data: bytes | None = None
    pixels: int = 0
    reported: int = 0


def run_batch(
    session: Session,
    outputs: Sequence[Output],
    edits: Mapping[str, Edit],
    options: BatchOptions,
    on_output: OnOutput,
    stop: threading.Event | None = None,
) -> None:
    """Edit every photo of the plan and report each output, in the plan's order.

    ``edits`` maps the labels of ``outputs`` to what is wanted. Errors of one photo go into its reports. Once ``stop``
    is set, outputs under way are finished and reported and no further one is begun. On KeyboardInterrupt those that
    are being encoded are finished and reported, and the exception goes on to the caller.
    """
    stop = stop or threading.Event()
    readers = ThreadPoolExecutor(options.readers, thread_name_prefix="read")
    writers = ThreadPoolExecutor(options.writers, thread_name_prefix="write")
    pending: deque[tuple[_Task, Future[tuple[OutputReport, Image | None, Image | None]]]] = deque()
    budget = PixelBudget(options.pixels_at_once)

    def report_next() -> None:
        task, future = pending.popleft()
        on_output(*future.result())
        task.reported += 1
        if task.reported == len(task.outputs):
            budget.leave(task.pixels)

    def report_all() -> None:
        while pending:
            report_next()

    # With several expressions the faces of one photo fill a batch anyway, and its patches need not wait for others.
    batch_faces = options.batch_faces if len(edits) == 1 else 1
    try:
        for batch in _batches(_read_ahead(readers, session, outputs, options, budget), batch_faces, report_all):
            if stop.is_set():
                break
            _prepare(session, batch)
            for label, edit in edits.items():
                if stop.is_set():
                    break
                for task, output, answer in _generate(session, batch, label, edit):
                    pending.append((task, writers.submit(_write, session, task, output, edit, answer, options)))
                while len(pending) > 2 * options.writers:
                    report_next()
        report_all()
    except KeyboardInterrupt:
        writers.shutdown(wait=True, cancel_futures=True)
        while pending:
            if pending[0][1].cancelled():
                pending.popleft()
            else:
                report_next()
        raise
    finally:
        budget.close()
        readers.shutdown(wait=True, cancel_futures=True)
        writers.shutdown(wait=True, cancel_futures=True)


def _read_ahead(
    readers: ThreadPoolExecutor,
    session: Session,
    outputs: Sequence[Output],
    options: BatchOptions,
    budget: PixelBudget,
) -> Iterator[Future[_Task]]:
    """Decode and detect in the background, at most ``ahead`` photos before their turn."""
    ahead: deque[Future[_Task]] = deque()
    for _, group in groupby(outputs, key=lambda output: output.source):
        ahead.append(readers.submit(_read, session, tuple(group), options, budget, budget.ticket()))
        if len(ahead) > options.ahead:
            yield ahead.popleft()
    while ahead:
        yield ahead.popleft()


def _read(
    session: Session, outputs: tuple[Output, ...], options: BatchOptions, budget: PixelBudget, ticket: int
) -> _Task:
    task, source = _Task(outputs), outputs[0].source
    done = all(is_done(output, options) for output in outputs)
    claimed = images.count_pixels(source.path) if source.path and not done else 0
    task.pixels = claimed if claimed <= options.max_pixels else 0  # a larger one will be refused, and takes no room
    try:
        budget.enter(ticket, task.pixels)
        if done:
            return task
        with timed(task.timings, "decode"):
            if source.path is None:
                task.data = read_stream()
            task.photo = read_input(source, options.max_pixels, task.data)
        with timed(task.timings, "detect"):
            task.prospect = session.find(task.photo.rgb, options.selection)
    except Exception as error:  # whatever one photo brings about is its own failure; the others go on
        task.failure = error
    return task


def is_done(output: Output, options: BatchOptions) -> bool:
    """Whether the output may be left as it is. Outputs appear under their name only when whole, so that is enough."""
    return options.skip_existing and output.path is not None and stands(output.path)


def _batches(
    tasks: Iterator[Future[_Task]], batch_faces: int, before_waiting: Callable[[], None]
) -> Iterator[list[_Task]]:
    """Group photos whose faces the backend shall see together, never waiting for one that is not ready.

    Where there is nothing to do but wait, ``before_waiting`` is called first: it reports what is finished, and so makes
    the room that the next photo may be waiting for.
    """
    batch: list[_Task] = []
    faces = 0
    for future in tasks:
        if batch and not future.done():
            yield batch
            batch, faces = [], 0
        if not future.done():
            before_waiting()
        task = future.result()
        batch.append(task)
        faces += len(task.prospect.selected) if task.prospect else 0
        if faces >= batch_faces or len(batch) >= batch_faces:
            yield batch
            batch, faces = [], 0
    if batch:
        yield batch


def _prepare(session: Session, batch: Sequence[_Task]) -> None:
    """Fill in ``prepared``, the faces of all photos together; where that fails, photo by photo to find the culprit."""
    open_tasks = [task for task in batch if task.prospect and task.prospect.selected]
    answers = _together(open_tasks, lambda tasks: session.prepare(_regions(tasks)), "prepare")
    for task, answer in zip(open_tasks, answers, strict=True):
        if isinstance(answer, Exception):
            task.failure = answer
        else:
            task.prepared = answer


def _regions(tasks: Sequence[_Task]) -> list[FaceRegion]:
    return [region for task in tasks if task.prospect for region in task.prospect.selected]


def _generate(
    session: Session, batch: Sequence[_Task], label: str, edit: Edit
) -> list[tuple[_Task, Output, list[FaceResult] | Exception]]:
    """Run the backend for one expression on all photos that want it."""
    wanted = [(task, output) for task in batch for output in task.outputs if output.label == label]
    open_tasks = [task for task, _ in wanted if task.prepared and task.failure is None]
    answers = _together(
        open_tasks, lambda tasks: session.generate([face for task in tasks for face in task.prepared], edit), "generate"
    )
    by_task = dict(zip(map(id, open_tasks), answers, strict=True))
    return [(task, output, by_task.get(id(task), [])) for task, output in wanted]


Answer = TypeVar("Answer")


def _together(
    tasks: Sequence[_Task], call: Callable[[Sequence[_Task]], list[Answer]], stage: str
) -> list[list[Answer] | Exception]:
    """Call a stage on the faces of all photos at once and deal out its answers, one list per photo.

    A failure is pinned on its photo by calling the stage for each alone; one photo must not take the others down.
    """
    if not tasks:
        return []
    start = time.perf_counter()
    try:
        answers = iter(call(tasks))
    except Exception as error:
        if len(tasks) == 1:
            return [error]
        return [answer for task in tasks for answer in _together([task], call, stage)]
    seconds = time.perf_counter() - start
    counts = [len(task.prospect.selected) if task.prospect else 0 for task in tasks]
    for task, count in zip(tasks, counts, strict=True):
        task.timings[stage] = task.timings.get(stage, 0.0) + seconds * count / sum(counts)
    return [list(islice(answers, count)) for count in counts]


def _write(
    session: Session,
    task: _Task,
    output: Output,
    edit: Edit,
    answer: list[FaceResult] | Exception,
    options: BatchOptions,
) -> tuple[OutputReport, Image | None, Image | None]:
    """Paste, encode and write one output, and say what became of it; never raises for what is wrong with a photo."""
    before = task.photo.rgb if task.photo else None
    timings = dict(task.timings)
    report = OutputReport(
        output, "failed", edit, timings=timings, size=before.shape[:2] if before is not None else None
    )
    if is_done(output, options):
        return replace(report, status="skipped", error="the output is already there (--skip-existing)"), before, None
    if task.failure is not None:
        return _failed(report, task.failure), before, None
    if isinstance(answer, Exception):
        return _failed(report, answer), before, None
    assert task.photo is not None and task.prospect is not None
    profile = None if task.photo.samples.grey else task.photo.icc
    report = replace(report, notes=task.photo.notes, icc=profile)
    if not task.prospect.selected:
        faces = tuple(
            FaceResult(face, False, reason)
            for face, reason in zip(task.prospect.found.faces, task.prospect.reasons, strict=True)
        )
        status = "refused" if faces else "no_face"
        report = replace(report, status=status, error=why_none_selected(task.prospect), faces=faces)
        return _kept(report, task, options), before, None
    try:
        result = session.finish(task.prospect, answer, timings)
        report = replace(report, faces=result.faces)
        if not result.edited:
            reasons = "; ".join(dict.fromkeys(face.reason for face in result.faces if face.reason))
            report = replace(report, status="refused", error=f"every face was left alone: {reasons}")
            return _kept(report, task, options), before, None
        with timed(timings, "encode"):
            _encode(task.photo, result, output, edit, options)
        kind = _format(task.photo, output, options)
        report = replace(report, notes=(*task.photo.notes, *images.conversion_notes(task.photo, kind)))
    except Exception as error:  # as in _read
        return _failed(report, error), before, None
    return replace(report, status="edited"), before, result.image


def _encode(photo: images.Photo, result: EditResult, output: Output, edit: Edit, options: BatchOptions) -> None:
    """Encode and write one output, with the record of how it was made."""
    kind = _format(photo, output, options)
    records = _records(result, edit, photo) if options.provenance else []
    packet = photo.xmp
    if output.path is not None:
        make_folder(output.path.parent)
    if images.holds_xmp(kind):
        # The photo's packet may be as large as its format allows; where that leaves no room, writing divides it.
        for record in records:
            packet = provenance.stamp(packet, record)
    elif records and output.path is not None:
        # Before the picture: one that is there counts as done, and must not be there without its record.
        provenance.write_sidecar(output.path, records)
    encoded = images.write_image(
        photo, result.image, None, format=kind, quality=options.quality, xmp=packet, changed=result.changed
    )
    assert encoded is not None
    _put(encoded, output, options)


def _kept(report: OutputReport, task: _Task, options: BatchOptions) -> OutputReport:
    """The report on a photo in which nothing is edited, after copying the photo where that is wanted."""
    if not options.keep:
        return report
    output, photo = report.output, task.photo
    assert photo is not None
    try:
        kind = _format(photo, output, options)
        if kind == photo.format:
            data = output.source.path.read_bytes() if output.source.path else task.data
        else:
            data = images.write_image(photo, photo.rgb, None, format=kind, quality=options.quality)
        assert data is not None
        if output.path is not None:
            make_folder(output.path.parent)
        _put(data, output, options)
    except Exception as error:  # as in _read
        return _failed(report, error)
    return replace(report, copied=True, error=f"{report.error} Copied as it is.")


def _put(data: bytes, output: Output, options: BatchOptions) -> None:
    """Write an encoded picture with its input's permissions, and on request its times; or send it to stdout."""
    if output.path is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    Door(output.source.path, keep_times=options.keep_times).write(output.path, data)


def _format(photo: images.Photo, output: Output, options: BatchOptions) -> str:
    """The format to write. An output is named after its input: one without a picture's ending keeps the format too."""
    named = output.path is not None and output.path.suffix.lower() in images.IMAGE_SUFFIXES
    return images.output_format(photo, output.path if named else None, options.format)


def _records(result: EditResult, edit: Edit, photo: images.Photo) -> list[Provenance]:
    """One record per backend that edited faces in the photo."""
    edited = [face for face in result.faces if face.edited]
    by_backend = {face.backend or "": face.trained for face in edited}
    return [
        replace(
            Provenance.of(edit, name, trained=trained, faces=sum(face.backend == name for face in edited)),
            removed="C2PA manifest" if photo.had_manifest else "",
        )
        for name, trained in by_backend.items()
    ]


def make_folder(folder: Path) -> None:
    """Make an output folder and those above it; `WriteError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def _failed(report: OutputReport, error: Exception) -> OutputReport:
    message, trace = in_words(error, report.output.source)
    return replace(report, status="failed", error=message, trace=trace)


def in_words(error: Exception, source: Input) -> tuple[str, str | None]:
    """What to tell the user about whatever went wrong with one photo, and the trace of what nobody foresaw."""
    if isinstance(error, ExprtoolError):
        return str(error), None
    if isinstance(error, MemoryError):
        return f"{source.name}: not enough memory for this photo; make it smaller, or close other programs.", None
    words = " ".join(str(error).split())
    message = f"{source.name}: unexpected {type(error).__name__}: {words} (run again with -v for where it arose)"
    return message, "".join(traceback.format_exception(error))
