"""The second pass over a clip: give the faces their expression, frame by frame, and encode in finished segments.

Four threads work at once, with short bounded queues between them: one decodes, the caller's runs the backend, one
composites, one encodes and writes. Memory does not depend on the length of the clip.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from exprtool.choice import LoadedBackend, Taken
from exprtool.errors import VideoError
from exprtool.faces.select import region_of
from exprtool.pipeline import Session, Timings, timed
from exprtool.pixels import composite
from exprtool.timeline import ResolvedTimeline, ease
from exprtool.types import Edit, FacePatch, FaceRefusal, FaceRegion, Image, IntBox
from exprtool.videos.analysis import Analysis, FaceTrack, ahead
from exprtool.videos.encoder import EncoderPlan, StretchEncoder, encoder_failed
from exprtool.videos.picture import Picture
from exprtool.videos.reader import read_frames
from exprtool.videos.segments import SegmentWriter
from exprtool.videos.types import ClipFrame, ClipInfo
from exprtool.videos.work import WorkFolder

_LEAST_STRENGTH = 0.004
"""A smaller strength changes no pixel by a whole step; the frame is left untouched."""
_DEPTH = 4
LOOK_AROUND = 8
"""Frames before and after one that the backend sees of it: they make it steady, and around a frame that the backend
would leave alone the edit fades out and in over as many."""


@dataclass(eq=False)
class TrackResult:
    """What became of one track: which backend edits it, in how many frames, and what it noted."""

    track: FaceTrack
    backend: str | None = None
    trained: bool = False
    reason: str | None = None
    edited: int = 0
    refused: int = 0
    notes: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A track with the backend that serves it and what that backend fitted once."""

    loaded: LoadedBackend
    state: Any


@dataclass(frozen=True, eq=False)
class Work:
    """A prepared face of one frame, and what is wanted of it."""

    track: FaceTrack
    region: FaceRegion
    edit: Edit
    loaded: LoadedBackend
    handle: Any


class Renderer:
    """Edits the pictures of one analysed clip. ``timeline`` says when what is wanted, ``edit`` everything else."""

    def __init__(
        self, session: Session, info: ClipInfo, analysis: Analysis, timeline: ResolvedTimeline, edit: Edit
    ) -> None:
        self.session, self.info, self.analysis = session, info, analysis
        self.timeline, self.edit = timeline, edit
        self.timings: Timings = {}
        self.results = {track.number: TrackResult(track, reason=track.reason) for track in analysis.tracks}
        for track in analysis.selected:
            if track.covered:
                note = f"something covers the face in {track.covered} frames; it is left alone there"
                self.results[track.number].notes[note] = None
        self.edited_frames = 0
        self.watch: int | None = None
        """A frame whose untouched picture is kept in ``before``."""
        self.before: Image | None = None
        self._fitted: dict[int, _Fitted | None] = {}
        self._doubted: dict[int, list[int]] = {}
        self._traces: dict[int, dict[int, Any]] = {}
        height, width = info.size
        # Regions are cut from this picture of nothing: it has the right size and takes no memory.
        self._blank = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))

    def fit(self) -> None:
        """Fit every selected track now, so that `results` say which backend serves it."""
        for track in self.analysis.selected:
            self._fit(track)

    def strength_at(self, track: FaceTrack, index: int) -> float:
        """The strength of the edit of a track's face in a frame; 0 where it is not edited."""
        found = track.at(index)
        if found is None or track.reason is not None or index in self.analysis.damaged:
            return 0.0
        wanted = self.timeline.at(self.analysis.times[index])
        strength = self.edit.strength * wanted.amount * found[1]
        return strength if strength >= _LEAST_STRENGTH else 0.0

    def look(self, index: int, picture: Picture) -> list[Work]:
        """Prepare the faces of a frame; whether the backend would rather leave one alone goes into `_doubted`."""
        if index == self.watch:
            self.before = picture.rgb()
        works = []
        for track, region, edit in self._regions(index, picture):
            fitted = self._fitted[track.number]
            assert fitted is not None
            with timed(self.timings, "prepare"):
                (handle,) = fitted.loaded.backend.prepare([region])
                if isinstance(handle, FaceRefusal):
                    refusal: FaceRefusal | None = handle
                else:
                    (refusal,) = fitted.loaded.backend.check([handle], edit)
                    self._traces.setdefault(track.number, {})[index] = fitted.loaded.backend.trace(handle)
            if refusal is not None:
                self._doubted.setdefault(track.number, []).append(index)
                self._note_refusal(track, refusal)
            works.append(Work(track, region, edit, fitted.loaded, handle))
        return works

    def patches(self, index: int, works: Sequence[Work]) -> list[tuple[FaceRegion, FacePatch]]:
        """What to paste into a picture. Every frame up to `LOOK_AROUND` after it must have been looked at."""
        pasted: list[tuple[FaceRegion, FacePatch]] = []
        for work in works:
            strength = work.edit.strength * self._ease_around_doubt(work.track, index)
            if strength < _LEAST_STRENGTH or isinstance(work.handle, FaceRefusal):
                continue
            result = self.results[work.track.number]
            with timed(self.timings, "generate"):
                handle = work.loaded.backend.steadied(work.handle, self._traces_around(work.track, index))
                (answer,) = work.loaded.backend.generate([handle], replace(work.edit, strength=strength, force=True))
            if isinstance(answer, FaceRefusal):
                self._note_refusal(work.track, answer)
                continue
            result.edited += 1
            result.notes.update(dict.fromkeys(answer.notes))
            pasted.append((work.region, answer))
        self.edited_frames += bool(pasted)
        for places in self._doubted.values():
            while places and places[0] < index - LOOK_AROUND:
                places.pop(0)
        for traces in self._traces.values():
            for place in [place for place in traces if place < index - LOOK_AROUND]:
                del traces[place]
        return pasted

    def composite(self, picture: Picture, pasted: Sequence[tuple[FaceRegion, FacePatch]]) -> None:
        """Edit a picture in place."""
        if pasted:
            with timed(self.timings, "composite"):
                _paste(picture, [region for region, _ in pasted], [patch for _, patch in pasted])

    def _traces_around(self, track: FaceTrack, index: int) -> list[tuple[float, Any]]:
        """What the backend kept of a track's face in the frames around one, with the seconds from it."""
        traces, span, times = self._traces.get(track.number, {}), track.span(index), self.analysis.times
        places = range(max(span.start, index - LOOK_AROUND), min(span.stop, index + LOOK_AROUND + 1))
        return [(times[place] - times[index], traces[place]) for place in places if place in traces]

    def _ease_around_doubt(self, track: FaceTrack, index: int) -> float:
        """0 in a frame that the backend would leave alone (a hand before the mouth), rising to 1 around it."""
        near = min((abs(place - index) for place in self._doubted.get(track.number, ())), default=LOOK_AROUND + 1)
        return ease(near / (LOOK_AROUND + 1))

    def _regions(self, index: int, picture: Picture) -> Iterator[tuple[FaceTrack, FaceRegion, Edit]]:
        """The regions of one frame that are to be edited, with their pixels, and the edit of each."""
        present = [(track, found[0]) for track in self.analysis.tracks if (found := track.at(index))]
        for track, face in present:
            strength = self.strength_at(track, index)
            if strength == 0.0:
                continue
            fitted = self._fit(track)
            if fitted is None:
                continue
            others = tuple(other for _, other in present if other is not face)
            blank = region_of(self._blank, face, others)
            with timed(self.timings, "prepare"):
                pixels = picture.read(blank.box)
            pixels.flags.writeable = False
            region = replace(blank, pixels=pixels, track_state=fitted.state)
            wanted = self.timeline.at(self.analysis.times[index])
            weights = dict(wanted.weights) if not self.edit.reference else {}
            yield track, region, replace(self.edit, weights=weights, strength=strength, additive=True)

    def _fit(self, track: FaceTrack) -> _Fitted | None:
        """Let the first backend that takes the track fit it once; None where every one refuses."""
        if track.number in self._fitted:
            return self._fitted[track.number]
        samples = []
        for sample in track.samples:
            pixels = sample.pixels.view()
            pixels.flags.writeable = False
            samples.append(FaceRegion(track.sample_face(sample), sample.box, pixels))
        result = self.results[track.number]
        wanted = max((self.timeline.at(time) for time in self.analysis.times), key=lambda one: one.amount)
        edit = replace(self.edit, weights=dict(wanted.weights), additive=True)
        with timed(self.timings, "fit"):
            (taken,) = self.session.chain.offer(
                [Taken(samples)], lambda loaded, tracks: [_fitted(loaded, one, edit) for one in tracks]
            )
        fitted = taken.answer if taken.loaded else None
        if taken.loaded is None:
            result.reason = taken.reason or "no backend takes it"
        else:
            result.backend, result.trained = taken.loaded.name, taken.loaded.trained
        self._fitted[track.number] = fitted
        return fitted

    def _note_refusal(self, track: FaceTrack, refusal: FaceRefusal) -> None:
        result = self.results[track.number]
        result.refused += 1
        if len(result.notes) < 8:
            result.notes[f"some frames left alone: {refusal.reason}"] = None


def _fitted(loaded: LoadedBackend, samples: list[FaceRegion], edit: Edit) -> _Fitted | FaceRefusal:
    """What a backend fits once to a track; a refusal where it would leave half of the samples alone."""
    state = loaded.backend.begin_track(samples)
    refusals = _refusals(loaded, [replace(one, track_state=state) for one in samples], edit)
    if 2 * len(refusals) < max(1, len(samples)):
        return _Fitted(loaded, state)
    reasons = dict.fromkeys(refusal.reason for refusal in refusals)
    settled = 2 * sum(refusal.settles for refusal in refusals) >= max(1, len(samples))
    return FaceRefusal("; ".join(reasons), settles=settled)


def _refusals(loaded: LoadedBackend, samples: Sequence[FaceRegion], edit: Edit) -> list[FaceRefusal]:
    """Why a backend would leave a track's samples alone, one refusal per refused sample."""
    handles = loaded.backend.prepare(samples)
    refusals = [handle for handle in handles if isinstance(handle, FaceRefusal)]
    good = [handle for handle in handles if not isinstance(handle, FaceRefusal)]
    if good and not edit.force:
        refusals += [refusal for refusal in loaded.backend.check(good, edit) if refusal is not None]
    return refusals


def _paste(picture: Picture, regions: Sequence[FaceRegion], patches: Sequence[FacePatch]) -> None:
    """Paste patches, those of regions that overlap together, each group within its own rectangle."""
    for members in _overlapping([region.box for region in regions]):
        boxes = np.array([regions[i].box for i in members])
        x0, y0 = boxes[:, :2].min(axis=0).tolist()
        x1, y1 = boxes[:, 2:].max(axis=0).tolist()
        old = np.array(regions[members[0]].pixels) if len(members) == 1 else picture.read((x0, y0, x1, y1))
        shifted = [
            replace(region, box=(bx0 - x0, by0 - y0, bx1 - x0, by1 - y0))
            for region in (regions[i] for i in members)
            for bx0, by0, bx1, by1 in (region.box,)
        ]
        new, _ = composite.paste(old, shifted, [patches[i] for i in members])
        picture.write((x0, y0, x1, y1), old, new)


def _overlapping(boxes: Sequence[IntBox]) -> list[list[int]]:
    """Groups of indices whose boxes overlap, directly or through others."""
    groups: list[list[int]] = []
    for i, a in enumerate(boxes):
        touching = [
            group
            for group in groups
            if any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in (boxes[j] for j in group))
        ]
        merged = [i]
        for group in touching:
            groups.remove(group)
            merged += group
        groups.append(sorted(merged))
    return groups


Finished = Callable[[ClipFrame, Picture], None]
"""Receives each frame with its finished picture, in order."""


def render(
    renderer: Renderer,
    indices: Iterator[range] | Sequence[range],
    finished: Finished,
    *,
    keep_original: bool = False,
    stop: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> bool:
    """Decode the clip once and edit the frames in ``indices`` (ascending, disjoint); the others are only decoded.

    With ``keep_original`` the finished picture has the untouched one beside it. Frames within `LOOK_AROUND` of a range
    are looked at, too, so that its pictures do not depend on whether its neighbours are rendered in the same run.
    Returns False where ``stop`` was set: the range that had begun is then complete and no other was begun.
    """
    stop = stop or threading.Event()
    info, analysis = renderer.info, renderer.analysis
    wanted = sorted(indices, key=lambda one: one.start)
    if not wanted:
        return True
    hold = threading.Event()  # set only when this pass is over: Ctrl-C must not cut a segment short
    frames = ahead(_checked(info, analysis, wanted[-1].stop + LOOK_AROUND), _DEPTH, hold)
    waiting: deque[tuple[ClipFrame, Picture | None, list[Work]]] = deque()
    ends = [one.stop for one in wanted]
    limit, done = ends[-1], 0
    last: Picture | None = None  # the last finished picture, for frames that show it again
    compositor = _InOrder("composite")

    def passed(picture: Picture | None) -> None:
        nonlocal last
        last = picture or last

    def finish(frame: ClipFrame, picture: Picture | None, pasted: list[tuple[FaceRegion, FacePatch]]) -> None:
        nonlocal done, last
        if picture is None:
            if last is None:
                raise VideoError(f"{info.path}: frame {frame.index} does not decode and nothing comes before it.")
            picture = last.copy()
        else:
            original = picture.copy() if keep_original else None
            renderer.composite(picture, pasted)
            picture = picture if original is None else original.beside(picture)
        finished(frame, picture)
        last = picture
        done += 1
        if progress is not None:
            progress(done)

    def emit(upto: int) -> None:
        """Finish the waiting frames up to an index."""
        while waiting and waiting[0][0].index <= upto:
            frame, picture, works = waiting.popleft()
            if not any(frame.index in one for one in wanted):
                compositor.do(partial(passed, picture))
                continue
            if frame.index >= limit:
                return
            pasted = renderer.patches(frame.index, works) if picture is not None else []
            compositor.do(partial(finish, frame, picture, pasted))

    try:
        for frame in _timed(frames, renderer.timings):
            near = any(one.start - LOOK_AROUND <= frame.index < one.stop + LOOK_AROUND for one in wanted)
            if not near:
                emit(frame.index)
                compositor.do(partial(passed, frame.picture))
                continue
            if stop.is_set() and waiting and limit == ends[-1]:
                limit = next(end for end in ends if end > waiting[0][0].index)
            if frame.index >= limit + LOOK_AROUND:
                break
            works = renderer.look(frame.index, frame.picture) if frame.picture is not None else []
            waiting.append((frame, frame.picture, works))
            emit(frame.index - LOOK_AROUND)
        emit(limit - 1)
        compositor.wait()
        return limit == ends[-1]
    finally:
        hold.set()
        compositor.close()
        with contextlib.suppress(RuntimeError):
            frames.close()  # type: ignore[attr-defined]


class _InOrder:
    """Does one thing after another in a thread of its own; what goes wrong there is raised by the next call, and
    nothing is done after it."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def do(self, task: Callable[[], None]) -> None:
        """Have it done; waits while `_DEPTH` others are waiting."""
        while self._waiting and (len(self._waiting) >= _DEPTH or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._unless_failed, task))

    def wait(self) -> None:
        """Until all is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _unless_failed(self, task: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            task()
        except BaseException:
            self._failed = True
            raise


def _timed(frames: Iterator[ClipFrame], timings: Timings) -> Iterator[ClipFrame]:
    """The time spent waiting for the decoder."""
    while True:
        with timed(timings, "decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _checked(info: ClipInfo, analysis: Analysis, stop: int) -> Iterator[ClipFrame]:
    """The clip's frames up to ``stop``; they must be those that the first pass saw."""
    stop = min(stop, len(analysis.pts))
    for frame in read_frames(info):
        if frame.index >= stop:
            return
        if frame.pts != analysis.pts[frame.index]:
            raise VideoError(
                f"{info.path}: frame {frame.index} decodes to another time than in the first pass. The file changed "
                "while it was read, or its disk is failing; run again."
            )
        yield frame


class SegmentSink:
    """Encodes finished pictures in a thread of its own and closes a segment at every boundary."""

    def __init__(self, plan: EncoderPlan, work: WorkFolder, segments: Sequence[range], timings: Timings) -> None:
        self.plan, self.work, self.segments, self.timings = plan, work, list(segments), timings
        self._queue: queue.Queue[tuple[ClipFrame, Picture] | None] = queue.Queue(maxsize=_DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        self._thread.start()

    def add(self, frame: ClipFrame, picture: Picture) -> None:
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put((frame, picture), timeout=0.2)
                return
            except queue.Full:
                continue

    def close(self) -> None:
        """Wait until everything handed over is on disk; raises what went wrong there."""
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop without finishing the segment that is being written."""
        self._error = self._error or VideoError("abandoned")
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        writer: SegmentWriter | None = None
        try:
            number: int | None = None
            encoder: StretchEncoder | None = None
            durations: dict[int, int] = {}  # encoders give back the nominal one
            while self._error is None:
                item = self._queue.get()
                if item is None:
                    break
                frame, picture = item
                began = time.perf_counter()
                if number is None:
                    number = next(i for i, one in enumerate(self.segments) if frame.index in one)
                    encoder = StretchEncoder(self.plan)
                    writer = SegmentWriter(self.work.segment(number))
                assert encoder is not None and writer is not None
                durations[frame.pts] = frame.duration
                for packet in encoder.encode(picture, frame.pts, frame.duration):
                    writer.add_packet(packet, durations)
                if frame.index + 1 == self.segments[number].stop:
                    for packet in encoder.finish():
                        writer.add_packet(packet, durations)
                    self._finish(writer, number)
                    number = encoder = writer = None
                self.timings["encode"] = self.timings.get("encode", 0.0) + time.perf_counter() - began
        except BaseException as error:  # raised again in the caller's thread
            from av.error import FFmpegError

            own = isinstance(error, FFmpegError) and not isinstance(error, OSError)
            self._error = encoder_failed(error, self.plan) if own and isinstance(error, Exception) else error
        finally:
            if writer is not None:
                with contextlib.suppress(OSError):
                    writer.discard()
            while self._error is not None:  # let a blocked producer go
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    break

    def _finish(self, writer: SegmentWriter, number: int) -> None:
        expected = len(self.segments[number])
        if writer.packets != expected:
            raise VideoError(
                f"The encoder {self.plan.codec} gave {writer.packets} pictures for {expected}. Try another --codec."
            )
        self.work.finished(number, writer.finish())
