"""The straight path of a clip: analyse, render in segments, join.

`edit_video` makes one output. It is safe against being killed at any moment: what is finished stays in a work folder
beside the output, and the same call goes on there.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from exprtool.door import Door
from exprtool.errors import UsageError, VideoError
from exprtool.faces.select import Selection
from exprtool.faces.track import TrackerSettings
from exprtool.files import write_error
from exprtool.images import Photo, conversion_notes
from exprtool.pipeline import Session, Timings, timed
from exprtool.provenance import Provenance
from exprtool.timeline import Moment, Timeline
from exprtool.types import Edit, Image
from exprtool.videos.analysis import EASE, Analysis, analyse, pack_analysis, unpack_analysis
from exprtool.videos.clip import probe
from exprtool.videos.container import MOVING_PICTURES, CopyOptions, Trim, output_format, write_container
from exprtool.videos.encoder import EncodeOptions, EncoderPlan, has_alpha, plan_encoding
from exprtool.videos.picture import ArrayPicture
from exprtool.videos.render import Renderer, SegmentSink, TrackResult, render
from exprtool.videos.segments import file_hash
from exprtool.videos.types import ClipInfo
from exprtool.videos.work import WorkFolder

SEGMENT_SECONDS = 4.0


class VideoInterrupted(VideoError):
    """The run was asked to stop; finished segments are kept. ``resumable`` tells whether there are any."""

    def __init__(self, message: str, resumable: bool) -> None:
        super().__init__(message)
        self.resumable = resumable


@dataclass(frozen=True)
class VideoOptions:
    """How a clip is edited; see ``exprtool video --help`` for what these mean to the user."""

    selection: Selection = field(default_factory=Selection)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    format: str | None = None
    start: Moment | None = None
    end: Moment | None = None
    audio: bool = True
    overwrite: bool = False
    keep: bool = False
    provenance: bool = True
    keep_times: bool = False
    ease: float = EASE
    segment_seconds: float = SEGMENT_SECONDS


@dataclass(frozen=True, eq=False)
class VideoResult:
    """What became of one clip.

    ``status`` is "edited" or "no_face" (nothing written, or with ``keep`` a copy). ``frames`` counts those of the
    output, ``edited_frames`` those of this run that were changed. ``before`` and ``after`` are one frame of the middle.
    """

    input: Path
    output: Path
    label: str
    status: str
    info: ClipInfo
    analysis: Analysis
    frames: int
    edited_frames: int
    tracks: tuple[TrackResult, ...]
    notes: tuple[str, ...]
    timings: Timings
    resumed: int = 0
    written: bool = True
    error: str | None = None
    before: Image | None = None
    after: Image | None = None

    def as_json(self, edit: Edit, timeline: Timeline) -> dict[str, Any]:
        """The record that ``--json`` prints; one entry of ``faces`` per track."""
        return {
            "input": str(self.input),
            "output": str(self.output) if self.written else None,
            "expression": self.label,
            "timeline": timeline.text or None,
            "status": self.status,
            "error": self.error,
            "size": list(self.info.size),
            "frames": self.frames,
            "edited_frames": self.edited_frames,
            "resumed_segments": self.resumed,
            "faces": [_face_record(result, edit) for result in self.tracks],
            "notes": list(self.notes),
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
        }


def _face_record(result: TrackResult, edit: Edit) -> dict[str, Any]:
    track = result.track
    stretch = max(track.stretches, key=lambda one: len(one.present))
    middle = track.at(stretch.first + len(stretch.present) // 2)
    face = middle[0] if middle else None
    return {
        "index": track.number,
        "box": [round(float(v), 1) for v in face.box] if face else None,
        "score": round(float(track.score), 4),
        "size": round(float(face.size), 1) if face else None,
        "roll": round(float(face.roll), 1) if face else None,
        "detector": track.detector,
        "spans": [[one.first, one.last] for one in track.stretches],
        "edited": result.edited > 0,
        "edited_frames": result.edited,
        "reason": result.reason,
        "backend": result.backend,
        "controls": dict(edit.controls) if result.edited else None,
        "strength": edit.strength if result.edited else None,
        "notes": list(result.notes),
        "details": {},
    }


Progress = Callable[[str, int, int], None]
"""Called with the stage ("analyse", "render"), the frames done and the frames in all (0 where unknown)."""


def analyse_clip(
    session: Session,
    info: ClipInfo,
    options: VideoOptions,
    *,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """The first pass alone; its answer serves any number of outputs of one clip with the same options."""
    settings = TrackerSettings(min_face=options.selection.min_face, selection=options.selection)
    total = info.frames or 0
    report = None if progress is None else lambda done: progress("analyse", done, total)
    return analyse(
        info,
        session.detector,
        settings,
        options.start,
        options.end,
        ease_seconds=options.ease,
        stop=stop,
        progress=report,
    )


def edit_video(
    session: Session,
    source: Path,
    target: Path,
    edit: Edit,
    timeline: Timeline,
    options: VideoOptions | None = None,
    *,
    analysis: Analysis | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> VideoResult:
    """Give the faces of a clip an expression along a timeline, and write the result to ``target`` in one step.

    ``edit`` carries everything but the expression and its course: strength, controls, reference. ``analysis`` is that
    of an earlier output of the same clip and options. Setting ``stop`` lets the segment at work be finished and raises
    `VideoInterrupted`. Raises `VideoError`, `UsageError` and `WriteError`; what is finished is kept,
    and the same call goes on with it.
    """
    options = options or VideoOptions()
    stop = stop or threading.Event()
    info = probe(source)
    container = output_format(info, options.format, target)
    plan = None if container in MOVING_PICTURES else plan_encoding(info, options.encode, container)
    if source.resolve() == target.resolve():
        raise UsageError(f"{target}: is the input itself. Give another output.")
    work = WorkFolder(target)
    identity = {
        "input": {"name": source.name, "sha256": file_hash(source)},
        "options": _identity(session, edit, timeline, options, container),
        "threads": plan.threads if plan else 0,
    }
    with work:
        try:
            resumed = work.open(identity, overwrite=options.overwrite)
        except OSError as error:
            raise write_error(target, error) from error
        if plan is not None and resumed:
            # Another number of threads would give other bits; the run goes on with the one that it began with.
            plan = replace(plan, threads=int(work.header.get("threads") or plan.threads))
        try:
            return _edit(
                session, info, target, edit, timeline, options, container, plan, work, analysis, stop, progress
            )
        except OSError as error:
            raise write_error(target, error) from error


def _edit(
    session: Session,
    info: ClipInfo,
    target: Path,
    edit: Edit,
    timeline: Timeline,
    options: VideoOptions,
    container: str,
    plan: EncoderPlan | None,
    work: WorkFolder,
    analysis: Analysis | None,
    stop: threading.Event,
    progress: Progress | None,
) -> VideoResult:
    timings: Timings = {}
    stored = work.read_analysis()
    if stored is not None:
        analysis = unpack_analysis(stored)
    elif analysis is None:
        with timed(timings, "analyse"):
            analysis = analyse_clip(session, info, options, stop=stop, progress=progress)
        timings.update(analysis.timings)
    if stop.is_set():
        work.remove()
        raise VideoInterrupted(f"{info.path}: interrupted before anything was finished.", resumable=False)
    resolved = timeline.resolved(analysis.times)
    renderer = Renderer(session, info, analysis, resolved, edit)
    renderer.timings.update(timings)
    notes = [*info.notes, *analysis.notes, *(plan.notes if plan else ())]
    if not analysis.selected:
        return _nothing_to_edit(info, target, timeline, options, container, analysis, work, notes, renderer)
    if stored is None:
        work.store_analysis(pack_analysis(analysis))
    middle = _Middle(analysis)
    renderer.watch = middle.index
    count = work.done.copy()
    if plan is None:
        renderer.fit()
        door = _door(info, options, edit, timeline, renderer)
        extra = _render_animation(renderer, info, target, container, options, door, middle, stop, progress)
    else:
        segments = cut_segments(analysis, options.segment_seconds)
        _render_segments(renderer, plan, segments, work, options, middle, stop, progress, target)
        with timed(renderer.timings, "mux"):
            extra = _join(info, plan, segments, work, target, container, options, analysis, edit, timeline, renderer)
    work.remove()
    results = tuple(renderer.results.values())
    return VideoResult(
        info.path, target, timeline.label, "edited", info, analysis, analysis.frames, renderer.edited_frames, results,
        tuple(dict.fromkeys([*notes, *extra])), renderer.timings, len(count), True, None,
        renderer.before, middle.after,
    )  # fmt: skip


def _identity(
    session: Session, edit: Edit, timeline: Timeline, options: VideoOptions, container: str
) -> dict[str, Any]:
    """Everything that decides about the output's bits, as JSON; what differs is named when going on is refused."""
    import exprtool

    reference = edit.reference.pixels.tobytes() if edit.reference is not None else b""
    person = options.selection.person
    return {
        "version": exprtool.__version__,
        "expression": [[dict(key.weights), str(key.moment) if key.moment else None] for key in timeline.keys],
        "ramp": timeline.ramp,
        "strength": edit.strength,
        "controls": dict(edit.controls),
        "like": hashlib.sha256(reference).hexdigest() if reference else None,
        "asymmetry": edit.asymmetry,
        "seed": edit.seed,
        "force": edit.force,
        "backend": session.chain.names,
        "detector": session.detector_name,
        "faces": str(options.selection.which),
        "person": None if person is None else hashlib.sha256(np.asarray(person).tobytes()).hexdigest(),
        "similarity": options.selection.similarity,
        "min_face": options.selection.min_face,
        "encoding": asdict(options.encode),
        "format": container,
        "start": str(options.start) if options.start else None,
        "end": str(options.end) if options.end else None,
        "ease": options.ease,
        "segment_seconds": options.segment_seconds,
    }


def cut_segments(analysis: Analysis, seconds: float) -> list[range]:
    """Ranges of frames of about ``seconds`` each, which together are all frames of the edit."""
    segments: list[range] = []
    begin = analysis.first
    for index in range(analysis.first, analysis.stop):
        # A segment does not begin with a repeat of the frame before it: that one may belong to an earlier run.
        if analysis.times[index] - analysis.times[begin] >= seconds and index not in analysis.damaged:
            segments.append(range(begin, index))
            begin = index
    if begin < analysis.stop:
        segments.append(range(begin, analysis.stop))
    return segments


class _Middle:
    """Keeps one frame of the middle, before and after, for the report."""

    def __init__(self, analysis: Analysis) -> None:
        track = max(analysis.selected, key=lambda one: max(float(s.sum()) for s in one.shares))
        shares = max(track.shares, key=lambda one: float(one.sum()))
        stretch = track.stretches[[s is shares for s in track.shares].index(True)]
        full = np.flatnonzero(shares >= 0.95 * shares.max())
        self.index = stretch.first + int(full[len(full) // 2])
        self.after: Image | None = None


def _render_segments(
    renderer: Renderer,
    plan: EncoderPlan,
    segments: Sequence[range],
    work: WorkFolder,
    options: VideoOptions,
    middle: _Middle,
    stop: threading.Event,
    progress: Progress | None,
    target: Path,
) -> None:
    """Render and encode every segment that is not on disk yet."""
    open_ones = [one for number, one in enumerate(segments) if number not in work.done]
    skipped = renderer.analysis.frames - sum(len(one) for one in open_ones)
    sink = SegmentSink(plan, work, segments, renderer.timings)
    total = renderer.analysis.frames
    report = None if progress is None else lambda done: progress("render", skipped + done, total)
    try:
        complete = render(
            renderer, open_ones, _watching(sink.add, middle, renderer, options), stop=stop, progress=report,
            keep_original=options.encode.side_by_side,
        )  # fmt: skip
        sink.close()
    except BaseException:
        sink.abandon()
        raise
    if not complete:
        raise VideoInterrupted(
            f"{target}: interrupted; {len(work.done)} of {len(segments)} segments are finished and kept. "
            "Give the same command again to go on.",
            resumable=True,
        )


def _watching(add: Any, middle: _Middle, renderer: Renderer, options: VideoOptions) -> Any:
    """Hand frames on; remember the middle one."""

    def finished(frame: Any, picture: Any) -> None:
        if frame.index == middle.index:
            middle.after = picture.rgb()
        add(frame, picture)

    return finished


def _join(
    info: ClipInfo,
    plan: EncoderPlan,
    segments: Sequence[range],
    work: WorkFolder,
    target: Path,
    container: str,
    options: VideoOptions,
    analysis: Analysis,
    edit: Edit,
    timeline: Timeline,
    renderer: Renderer,
) -> list[str]:
    trim = _trim(info, analysis, options)
    door = _door(info, options, edit, timeline, renderer)
    pieces = [work.segment(number) for number in range(len(segments))]
    return write_container(info, plan, pieces, target, container, CopyOptions(options.audio, trim, door))


def _trim(info: ClipInfo, analysis: Analysis, options: VideoOptions) -> Trim:
    """The stretch in exact seconds of the file's clock; the first frame kept takes the place of the clip's first."""
    base, last = info.time_base, analysis.stop - 1
    first, begin = (analysis.pts[index] * base for index in (0, analysis.first))
    end: Fraction | None = None
    if options.end is not None:
        shown = analysis.durations[last] or max(1, analysis.pts[last] - analysis.pts[max(0, last - 1)])
        end = (analysis.pts[last] + shown) * base
    return Trim(begin if analysis.first else None, end, begin - first + info.origin)


def _door(info: ClipInfo, options: VideoOptions, edit: Edit, timeline: Timeline, renderer: Renderer) -> Door:
    records = (_provenance(edit, timeline, renderer),) if options.provenance else ()
    return Door(info.path, records, options.keep_times)


def _provenance(edit: Edit, timeline: Timeline, renderer: Renderer) -> Provenance:
    """What the output says about itself."""

    results = [result for result in renderer.results.values() if result.backend]
    return Provenance(
        ", ".join(dict.fromkeys(result.backend or "" for result in results)),
        any(result.trained for result in results),
        dict(timeline.keys[0].weights) if len(timeline.keys) == 1 else {},
        dict(edit.controls),
        strength=edit.strength,
        seed=edit.seed,
        timeline=timeline.text if len(timeline.keys) > 1 else "",
    )


def _nothing_to_edit(
    info: ClipInfo,
    target: Path,
    timeline: Timeline,
    options: VideoOptions,
    container: str,
    analysis: Analysis,
    work: WorkFolder,
    notes: Sequence[str],
    renderer: Renderer,
) -> VideoResult:
    """Say why no face is edited; with ``keep`` the input itself is copied, bit for bit."""
    if analysis.tracks:
        reasons = ", ".join(dict.fromkeys(track.reason or "" for track in analysis.tracks))
        count = len(analysis.tracks)
        error = f"{count} face{'s' if count > 1 else ''} found, none selected: {reasons}."
    else:
        tried = f" (looked {', '.join(analysis.tried)})" if analysis.tried else ""
        error = f"no face was found in any of {analysis.frames} frames{tried}. Try another --detector."
    written = False
    notes = list(notes)
    if options.keep:
        if target.suffix.lower() != info.path.suffix.lower() or options.start or options.end:
            work.remove()
            raise VideoError(f"{info.path}: {error} --keep copies the input as it is: give the output the same ending.")
        with Door(info.path, keep_times=options.keep_times).open(target) as temporary:
            shutil.copyfile(info.path, temporary)
        notes.append("nothing to edit: the input was copied as it is")
        written = True
    work.remove()
    return VideoResult(
        info.path, target, timeline.label, "no_face", info, analysis, analysis.frames, 0,
        tuple(renderer.results.values()), tuple(notes), renderer.timings, 0, written, error,
    )  # fmt: skip


def _render_animation(
    renderer: Renderer,
    info: ClipInfo,
    target: Path,
    container: str,
    options: VideoOptions,
    door: Door,
    middle: _Middle,
    stop: threading.Event,
    progress: Progress | None,
) -> list[str]:
    """Moving pictures are written in one go: they are short, and their frames build on each other."""
    from exprtool.pictures import moving

    analysis, kind = renderer.analysis, MOVING_PICTURES[container]
    shown = range(analysis.first, analysis.stop)
    durations = _durations(info, analysis, kind)
    photo, loop, alpha, notes = _surroundings(info, kind)
    height, width = info.size
    if options.encode.side_by_side:
        photo = replace(photo, rgb=np.zeros((height, 2 * width, 3), np.uint8))
    left_out = durations.count(None)
    if left_out:
        notes.append(f"{left_out} frames were left out: {kind} shows at most 50 a second")
    course = moving.Course(photo, len(durations) - left_out, loop, alpha)
    report = None if progress is None else lambda done: progress("render", done, analysis.frames)
    with door.open(target) as temporary, temporary.open("wb") as file:
        writer = moving.frame_writer(file, kind, course, xmp=door.xmp(photo.xmp), quality=options.encode.quality)

        def add(frame: Any, picture: Any) -> None:
            duration = durations[frame.index - analysis.first]
            if duration is not None:
                known = isinstance(picture, ArrayPicture)
                writer.add(picture.pixels if known else picture.rgb(), duration, picture.edited if known else None)

        complete = render(
            renderer, [shown], _watching(add, middle, renderer, options), stop=stop, progress=report,
            keep_original=options.encode.side_by_side,
        )  # fmt: skip
        writer.close()
        if stop.is_set() and not complete:
            raise VideoInterrupted(f"{target}: interrupted; nothing was written.", resumable=False)
    return notes


def _durations(info: ClipInfo, analysis: Analysis, kind: str) -> list[int | None]:
    """For how many milliseconds a moving picture shows each frame; None for one that it has no time for."""
    from exprtool.pictures.moving import frame_durations

    kept = analysis.durations[analysis.first : analysis.stop]
    if info.animation and info.codec.upper() == kind:
        return list(kept)
    times = [analysis.times[i] - analysis.times[analysis.first] for i in range(analysis.first, analysis.stop)]
    last = kept[-1] * info.time_base or (times[-1] - times[-2] if len(times) > 1 else 0.04)
    return [one or None for one in frame_durations(kind, [*times, times[-1] + float(last)])]


def _surroundings(info: ClipInfo, kind: str) -> tuple[Photo, int | None, bool, list[str]]:
    """What stands around the frames of a moving picture: (metadata and size, loop, transparency, notes)."""
    if info.animation:
        from exprtool.videos.animation import animation_of

        found = animation_of(info)
        alpha = found.photo.samples.alpha or (kind == "PNG" and found.photo.format != "PNG")
        return found.photo, found.loop, alpha, list(conversion_notes(found.photo, kind))
    photo = replace(Photo.from_rgb(np.zeros((*info.size, 3), np.uint8), str(info.path)), lossless=False)
    notes = ["the sound is left out: a moving picture has none"] * any(one.startswith("audio") for one in info.streams)
    if has_alpha(info.pix_fmt):
        notes.append("its transparency was left out (--format webm or mov keeps it)")
    return photo, 0, False, notes


@dataclass(frozen=True, eq=False)
class Preview:
    """A contact sheet (H, W, 3) of edited frames, the original above each; their times in seconds by index."""

    sheet: Image
    times: Mapping[int, float]
    record: Provenance


def preview(
    session: Session,
    source: Path,
    edit: Edit,
    timeline: Timeline,
    count: int,
    options: VideoOptions | None = None,
    *,
    analysis: Analysis | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Preview:
    """A contact sheet of ``count`` edited frames at equal distances, with the original above each.

    Nothing is encoded or written. Raises `VideoError` where no face is found.
    """
    from exprtool.videos.sheet import contact_sheet

    options = options or VideoOptions()
    info = probe(source)
    if analysis is None:
        analysis = analyse_clip(session, info, options, stop=stop, progress=progress)
    if stop is not None and stop.is_set():
        raise VideoInterrupted(f"{source}: interrupted; nothing was written.", resumable=False)
    if not analysis.selected:
        raise VideoError(f"{source}: no face to edit was found in {analysis.frames} frames. Try another --detector.")
    renderer = Renderer(session, info, analysis, timeline.resolved(analysis.times), edit)
    count = max(1, min(count, analysis.frames))
    places = np.unique(np.linspace(analysis.first, analysis.stop - 1, count).round().astype(int)).tolist()
    pairs: list[tuple[str, Image, Image]] = []

    def finished(frame: Any, picture: Any) -> None:
        both = picture.rgb()
        width = both.shape[1] // 2
        pairs.append((f"{analysis.times[frame.index]:.2f} s", both[:, :width], both[:, width:]))
        if progress is not None:
            progress("render", len(pairs), len(places))

    render(renderer, [range(i, i + 1) for i in places], finished, keep_original=True)
    times = {i: analysis.times[i] for i in places}
    return Preview(contact_sheet(pairs), times, _provenance(edit, timeline, renderer))
