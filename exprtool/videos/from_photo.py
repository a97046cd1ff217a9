"""A short clip from one photo: its faces go along a timeline, and the person seems alive.

The photo is prepared once; every frame is generated from it. A face that holds an expression does not hold quite
still: strength drifts by a few per cent, and the eyes blink now and then. The photo's other pixels keep their bits in
every frame.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.door import Door
from exprtool.errors import NoFaceError, UsageError, VideoError
from exprtool.faces.select import Selection
from exprtool.files import write_error
from exprtool.images import Photo
from exprtool.pictures.moving import Course, frame_durations, frame_writer
from exprtool.pipeline import FaceResult, PreparedFace, Prospect, Session, Timings, timed, why_none_selected
from exprtool.provenance import Provenance
from exprtool.timeline import Moment, Timeline
from exprtool.types import Edit, Image
from exprtool.videos.container import MOVING_PICTURES, CopyOptions, output_format, write_container
from exprtool.videos.encoder import EncodeOptions, StretchEncoder, plan_encoding
from exprtool.videos.picture import ArrayPicture
from exprtool.videos.segments import SegmentWriter
from exprtool.videos.types import ClipInfo, Colour
from exprtool.videos.work import WorkFolder

DEFAULT_SECONDS = 4.0
DEFAULT_RATE = 25
BLINK = "eyeBlink"
_BLINK_SECONDS = 0.30
"""From open to open: eyes close in about 0.1 s and open in 0.2 s."""
_DRIFT = 0.05
_LEAST_STRENGTH = 0.01


@dataclass(frozen=True)
class AnimateOptions:
    """How a photo is animated. ``seconds`` None takes as long as the timeline needs. ``max_side`` bounds the picture.

    ``blinks`` and ``drift`` make a held expression look alive; both are drawn from the edit's seed.
    """

    selection: Selection = field(default_factory=Selection)
    seconds: float | None = None
    rate: int = DEFAULT_RATE
    blinks: bool = True
    drift: bool = True
    max_side: int | None = None
    loop: int = 0
    format: str | None = None
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    provenance: bool = True
    keep_times: bool = False


@dataclass(frozen=True, eq=False)
class Animation:
    """What was made: the number of frames, the result of each face in the last frame, and remarks."""

    output: Path
    frames: int
    size: tuple[int, int]
    faces: tuple[FaceResult, ...]
    notes: tuple[str, ...]
    timings: Timings


def duration_of(timeline: Timeline) -> float:
    """Seconds that a timeline needs: its last change, and a moment to look at it."""
    last = max((float(key.moment.seconds or 0) for key in timeline.keys if key.moment is not None), default=0.0)
    return max(DEFAULT_SECONDS, last + timeline.ramp + 1.2)


def frame_edits(
    timeline: Timeline, edit: Edit, times: Sequence[float], *, blinks: bool = True, drift: bool = True
) -> list[Edit]:
    """The edit of every frame. A blend without a time comes up from the photo's own expression and stays."""
    if timeline.is_constant:
        key = replace(timeline.keys[0], moment=Moment(Fraction(2, 5)))
        timeline = replace(timeline, keys=(key,))
    resolved = timeline.resolved(times)
    closed = _blinks(times, edit.seed) if blinks else np.zeros(len(times))
    wander = _wander(times, edit.seed) if drift else np.zeros(len(times))
    edits = []
    for i, time in enumerate(times):
        wanted = resolved.at(time)
        strength = edit.strength * wanted.amount * (1 + wander[i])
        controls = dict(edit.controls)
        if strength < _LEAST_STRENGTH:
            strength, weights, controls = 1.0, {}, {}
        else:
            weights = dict(wanted.weights)
        if closed[i] > 0.01:
            for side in ("Left", "Right"):
                # Strength scales all controls, and lids close as far at a weak smile as at a strong one.
                controls[BLINK + side] = controls.get(BLINK + side, 0.0) + float(closed[i]) / strength
        edits.append(replace(edit, weights=weights, controls=controls, strength=strength))
    return edits


def _blinks(times: Sequence[float], seed: int) -> NDArray[np.float64]:
    """How far the eyes are shut in each frame, [0, 1]: people blink every two to six seconds."""
    random = np.random.default_rng([seed, 1])
    closed = np.zeros(len(times))
    at = float(random.uniform(1.2, 2.0))
    end = times[-1] if len(times) else 0.0
    while at + _BLINK_SECONDS < end:
        for i, time in enumerate(times):
            since = (time - at) / _BLINK_SECONDS
            if 0 <= since <= 1:
                # Down in the first third, up in the rest, without a corner at either end.
                share = since / 0.35 if since < 0.35 else (1 - since) / 0.65
                closed[i] = max(closed[i], float(np.sin(0.5 * np.pi * share) ** 2))
        at += float(random.uniform(2.2, 5.0))
    return closed


def _wander(times: Sequence[float], seed: int) -> NDArray[np.float64]:
    """A slow drift around 0 of a few per cent: three sines of unrelated periods and drawn phases."""
    random = np.random.default_rng([seed, 2])
    at = np.asarray(times, np.float64)
    waves = [np.sin(2 * np.pi * at / period + random.uniform(0, 2 * np.pi)) for period in (1.7, 2.9, 4.3)]
    rest = np.clip(at / 1.0, 0, 1)
    return _DRIFT * rest * np.sum(waves, axis=0) / 3


def animate(
    session: Session,
    image: Image,
    target: Path,
    edit: Edit,
    timeline: Timeline,
    options: AnimateOptions | None = None,
    *,
    source: Path | None = None,
    stop: threading.Event | None = None,
    progress: Any = None,
) -> Animation:
    """Animate an upright RGB photo (H, W, 3) along a timeline and write it as a clip or GIF, in one step.

    ``source`` is the photo's file, whose permissions the output takes. Raises `NoFaceError` where no face is found or
    selected, `VideoError` where every backend refuses, and `WriteError` for the disk. Setting ``stop`` ends the run;
    nothing is written then.
    """
    options = options or AnimateOptions()
    notes: list[str] = []
    image = _fitted(image, options.max_side, notes)
    seconds = options.seconds if options.seconds is not None else duration_of(timeline)
    count = max(2, round(seconds * options.rate))
    times = [i / options.rate for i in range(count)]
    timings: Timings = {}
    with timed(timings, "detect"):
        prospect = session.find(image, options.selection)
    if not prospect.selected:
        raise NoFaceError(f"the photo: {why_none_selected(prospect)}")
    with timed(timings, "prepare"):
        prepared = session.prepare(prospect.selected)
    edits = frame_edits(timeline, edit, times, blinks=options.blinks and _can_blink(session), drift=options.drift)
    if options.blinks and not _can_blink(session):
        notes.append("no blinks: the backend has no control of the eyelids")
    info = _clip_info(target, image, options)
    container = output_format(info, options.format, target)
    faces = _Faces(session, prospect, prepared, edits, timings)
    records = (_record(faces.first(), edit, timeline),) if options.provenance else ()
    door = Door(source, records, options.keep_times)
    frames = _frames(faces, stop, progress)
    last: list[FaceResult] = []
    height, width = image.shape[:2]
    try:
        if container in MOVING_PICTURES:
            kind = MOVING_PICTURES[container]
            durations = frame_durations(kind, [*times, count / options.rate])
            photo = replace(Photo.from_rgb(np.zeros_like(image)), lossless=False)
            course = Course(photo, sum(one > 0 for one in durations), options.loop, alpha=False)
            with door.open(target) as temporary, temporary.open("wb") as file:
                writer = frame_writer(file, kind, course, xmp=door.xmp(), quality=options.encode.quality)
                for (picture, results), duration in zip(frames, durations, strict=True):
                    if duration:
                        writer.add(picture, duration)
                    last = results
                writer.close()
            if 0 in durations:
                notes.append(f"{durations.count(0)} frames were left out: {kind} shows at most 50 a second")
        else:
            last = _write_clip(info, target, container, options, door, frames, notes)
    except OSError as error:
        raise write_error(target, error) from error
    return Animation(target, count, (height, width), tuple(last), tuple(notes), timings)


def _fitted(image: Image, max_side: int | None, notes: list[str]) -> Image:
    import cv2

    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image
    scale = max_side / max(height, width)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    notes.append(f"made smaller, from {width}x{height} to {size[0]}x{size[1]} (--max-side)")
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _can_blink(session: Session) -> bool:
    """Whether every backend that a face may meet moves the lids; one given as an object is asked to try."""
    return all(any(name.startswith(BLINK) for name in spec.controls) for spec in session.chain.specs)


class _Faces:
    """The photo's faces in every frame; what `first` made for the record is not made twice."""

    def __init__(
        self,
        session: Session,
        prospect: Prospect,
        prepared: Sequence[PreparedFace],
        edits: Sequence[Edit],
        timings: Timings,
    ) -> None:
        self.session, self.prospect, self.prepared = session, prospect, prepared
        self.edits, self.timings = edits, timings
        self._made: dict[int, list[FaceResult]] = {}

    def first(self) -> list[FaceResult]:
        """The faces in the first frame that is edited, [] where none is; raises `VideoError` where all are refused."""
        index = next((i for i, edit in enumerate(self.edits) if _changes(edit)), None)
        if index is None:
            return []
        results = self._made[index] = self._generate(index)
        reasons = [face.reason for face in results if not face.edited]
        if len(reasons) == len(results):
            raise VideoError(f"The face is left alone: {'; '.join(dict.fromkeys(str(one) for one in reasons))}.")
        return results

    def at(self, index: int) -> tuple[Image, list[FaceResult]]:
        if not _changes(self.edits[index]):
            return self.prospect.image, []
        results = self._made.pop(index, None) or self._generate(index)
        return self.session.finish(self.prospect, results, self.timings).image, results

    def _generate(self, index: int) -> list[FaceResult]:
        with timed(self.timings, "generate"):
            return self.session.generate(self.prepared, self.edits[index])


def _changes(edit: Edit) -> bool:
    return bool(edit.weights or edit.controls or (edit.reference and edit.strength > 0))


def _record(results: Sequence[FaceResult], edit: Edit, timeline: Timeline) -> Provenance:
    edited = [face for face in results if face.edited]
    constant = len(timeline.keys) == 1
    return Provenance(
        ", ".join(dict.fromkeys(face.backend or "" for face in edited)),
        any(face.trained for face in edited),
        dict(timeline.keys[0].weights) if constant else {},
        dict(edit.controls),
        strength=edit.strength,
        seed=edit.seed,
        faces=len(edited),
        timeline="" if constant else timeline.text,
    )


def _frames(faces: _Faces, stop: threading.Event | None, progress: Any) -> Iterator[tuple[Image, list[FaceResult]]]:
    for index in range(len(faces.edits)):
        if stop is not None and stop.is_set():
            raise VideoError("interrupted; nothing was written.")
        yield faces.at(index)
        if progress is not None:
            progress("render", index + 1, len(faces.edits))


def _clip_info(target: Path, image: Image, options: AnimateOptions) -> ClipInfo:
    height, width = image.shape[:2]
    return ClipInfo(
        path=target, container="", codec="", height=height, width=width, pix_fmt="rgb24",
        time_base=Fraction(1, options.rate), rate=Fraction(options.rate), frames=None, duration=None, start=0.0,
        animation=True, colour=Colour(range=1, primaries=1, transfer=13, matrix=1), loop=options.loop,
    )  # fmt: skip


def _write_clip(
    info: ClipInfo,
    target: Path,
    container: str,
    options: AnimateOptions,
    door: Door,
    frames: Iterator[tuple[Image, list[FaceResult]]],
    notes: list[str],
) -> list[FaceResult]:
    plan = plan_encoding(info, options.encode, container)
    notes += plan.notes
    last: list[FaceResult] = []
    work = WorkFolder(target)
    work.open({"input": {}, "options": {}}, overwrite=True)
    with work:
        try:
            encoder, writer = StretchEncoder(plan), SegmentWriter(work.segment(0))
            for index, (picture, results) in enumerate(frames):
                last = results or last
                for packet in encoder.encode(ArrayPicture(picture), index, 1):
                    writer.add_packet(packet, {})
            for packet in encoder.finish():
                writer.add_packet(packet, {})
            writer.finish()
            notes += write_container(info, plan, [work.segment(0)], target, container, CopyOptions(door=door))
        finally:
            work.remove()
    return last


def check_length(seconds: float | None) -> None:
    """Refuse lengths that make no clip."""
    if seconds is not None and not 0.1 <= seconds <= 600:
        raise UsageError(f"--seconds must be from 0.1 to 600, not {seconds:g}.")
