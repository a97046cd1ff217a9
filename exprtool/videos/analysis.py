"""The first pass over a clip: when every frame is shown, and which faces are in it where.

Only points and times are kept, so that memory does not grow with the pictures. What is found can be stored and loaded,
so that a run that goes on after a crash renders from the very same numbers.
"""

from __future__ import annotations

import io
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import VideoError
from exprtool.faces.cover import own_level, uncovered
from exprtool.faces.landmarks import with_landmarks
from exprtool.faces.pose import pose_of
from exprtool.faces.track import Sample, SteadyStretch, Tracker, TrackerSettings, steady
from exprtool.timeline import Moment, ease
from exprtool.types import Detector, Face
from exprtool.videos.reader import read_frames
from exprtool.videos.types import ClipFrame, ClipInfo, ReadLog

EASE = 0.4
"""Seconds over which a track fades in and out; also the width over which turning away does."""

_TURN, _NOD, _BEYOND = 35.0, 30.0, 0.5
"""Degrees to the side, and up or down, from which the edit fades out; beyond them by half as much again it is gone."""


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face of the clip, steady, with what the edit needs to know about it.

    ``reason`` is None where the face is to be edited. ``shares`` holds one array per stretch: how much of the edit each
    frame takes, in [0, 1]. ``covered`` counts the frames in which something hides part of the face.
    """

    number: int
    stretches: tuple[SteadyStretch, ...]
    shares: tuple[NDArray[np.float32], ...]
    samples: tuple[Sample, ...]
    score: float
    detector: str
    reason: str | None = None
    covered: int = 0

    def at(self, index: int) -> tuple[Face, float] | None:
        """The face in a frame and its share of the edit, or None where it is not there."""
        for stretch, shares in zip(self.stretches, self.shares, strict=True):
            if stretch.first <= index <= stretch.last:
                place = index - stretch.first
                return self._face(stretch.landmarks68[place].astype(np.float64)), float(shares[place])
        return None

    def span(self, index: int) -> range:
        """The frames of the stretch in which a frame lies: those in which the face is followed without a break."""
        for stretch in self.stretches:
            if stretch.first <= index <= stretch.last:
                return range(stretch.first, stretch.last + 1)
        return range(0)

    def sample_face(self, sample: Sample) -> Face:
        """The face of a sample: with its steady landmarks where they are known."""
        found = self.at(sample.frame)
        return found[0] if found else self._face(sample.landmarks68)

    def _face(self, landmarks: NDArray[np.float64]) -> Face:
        blank = Face((0.0, 0.0, 0.0, 0.0), self.score, landmarks[:5], detector=self.detector, track=self.number)
        return with_landmarks(blank, landmarks)


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything the second pass needs: the clip's times, cuts and faces.

    ``pts`` and ``durations`` are those of all frames from the clip's first on, in its time base; the edit covers frames
    ``first`` to ``stop`` (excluded). ``notes`` tell what was wrong with the file.
    """

    pts: tuple[int, ...]
    durations: tuple[int, ...]
    times: tuple[float, ...]
    first: int
    stop: int
    cuts: tuple[int, ...]
    tracks: tuple[FaceTrack, ...]
    tried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    damaged: frozenset[int] = frozenset()
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        return self.stop - self.first

    @property
    def selected(self) -> list[FaceTrack]:
        return [track for track in self.tracks if track.reason is None]


def ahead(frames: Iterator[ClipFrame], depth: int, stop: threading.Event) -> Iterator[ClipFrame]:
    """Run an iterator in a thread of its own, at most ``depth`` items ahead; its errors come out here.

    The thread ends when the iterator does, when the consumer closes this one, or when ``stop`` is set.
    """
    done = object()
    items: queue.Queue[Any] = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def put(item: Any) -> bool:
        while not closed.is_set():
            try:
                items.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for frame in frames:
                if stop.is_set() or not put(frame):
                    return
            put(done)
        except BaseException as error:  # handed over to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=run, name="decode", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = items.get(timeout=0.2)
            except queue.Empty:
                if stop.is_set() and not thread.is_alive():
                    return
                continue
            if item is done:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join(timeout=5)


def analyse(
    info: ClipInfo,
    detector: Detector,
    settings: TrackerSettings | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    ease_seconds: float = EASE,
    stop: threading.Event | None = None,
    progress: Any = None,
) -> Analysis:
    """Find and follow the faces of a clip between two moments (its whole length by default).

    ``progress`` is called with the number of frames done. Raises `VideoError` where the clip cannot be decoded or the
    stretch is empty. Where ``stop`` is set the analysis ends early, with what it has.
    """
    stop = stop or threading.Event()
    log = ReadLog()
    tracker = Tracker(detector, settings)
    pts: list[int] = []
    durations: list[int] = []
    times: list[float] = []
    first: int | None = None
    last = 0
    spent = {"decode": 0.0, "track": 0.0}
    frames = ahead(read_frames(info, log), 4, stop)
    while True:
        began = time.perf_counter()
        frame = next(frames, None)
        spent["decode"] += time.perf_counter() - began
        if frame is None or stop.is_set():
            break
        now = info.seconds(frame.pts) - info.start
        if _reached(end, frame.index, now):
            frames.close()  # type: ignore[attr-defined]
            break
        pts.append(frame.pts)
        durations.append(frame.duration)
        times.append(now)
        if not _reached(start, frame.index, now) and start is not None:
            continue
        first = frame.index if first is None else first
        last = frame.index
        began = time.perf_counter()
        if frame.picture is None:
            tracker.skip(frame.index)
        else:
            tracker.feed(frame.index, now, frame.picture.luma(), frame.picture.rgb)
        spent["track"] += time.perf_counter() - began
        if progress is not None:
            progress(last + 1 - first)
    if first is None:
        if stop.is_set():
            first, last = 0, -1
        else:
            why = "zero frames decode" if not pts else "no frame lies between --start and --end"
            raise VideoError(f"{info.path}: nothing to edit: {why}.")
    began = time.perf_counter()
    tracks = _tracks(tracker, np.array(times), ease_seconds, first, last)
    spent["track"] += time.perf_counter() - began
    return Analysis(
        tuple(pts), tuple(durations), tuple(times), first, last + 1, tuple(tracker.cuts), tracks, tracker.tried,
        tuple(log.notes()), frozenset(log.damaged) | frozenset(log.undecoded), spent,
    )  # fmt: skip


def _reached(moment: Moment | None, index: int, now: float) -> bool:
    if moment is None:
        return False
    if moment.frame is not None:
        return index >= moment.frame
    return now >= float(moment.seconds or 0) - 1e-9


def _tracks(
    tracker: Tracker, times: NDArray[np.float64], seconds: float, first: int, last: int
) -> tuple[FaceTrack, ...]:
    tracks = tracker.finish()
    smoothed: dict[int, list[SteadyStretch]] = {}
    for track in tracks:
        smoothed[track.number] = []
        while track.stretches:  # what was measured is let go as soon as it is smoothed
            smoothed[track.number].append(steady(track.stretches.pop(0)))
    edited = [stretch for track in tracks if track.reason is None for stretch in smoothed[track.number]]
    found = []
    for track in tracks:
        stretches = smoothed[track.number]
        level = own_level([one.guessed for one in stretches if one.guessed is not None])
        shares = tuple(_share(one, times, seconds, first, last, edited, level) for one in stretches)
        found.append(
            FaceTrack(
                track.number,
                tuple(stretches),
                shares,
                tuple(track.samples),
                track.score,
                track.detector,
                track.reason,
                sum(_covered(one, times, level) for one in stretches),
            )
        )
    return tuple(found)


def _share(
    stretch: SteadyStretch,
    times: NDArray[np.float64],
    seconds: float,
    first: int,
    last: int,
    edited: Sequence[SteadyStretch],
    level: NDArray[np.float64],
) -> NDArray[np.float32]:
    """How much of the edit each frame of a stretch takes.

    It rises from 0 where the face comes and falls to 0 where it goes, inside the time that it is surely there, and
    falls where the head turns away or something covers the face (``level`` is what `own_level` says of the track). It
    does not at the clip's own ends, nor at a cut from one edited face to another:
    there is nothing beside it from which a sudden expression could stand out.
    """
    n = len(stretch.present)
    at = times[stretch.first : stretch.first + n]
    share = np.zeros(n)
    inside = np.flatnonzero(stretch.present)
    if inside.size == 0:
        return share.astype(np.float32)
    begin, finish = inside[0], inside[-1]
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    open_start = stretch.first + begin == first or (
        begin == 0 and stretch.starts_at_cut and any(other.last == stretch.first - 1 for other in edited)
    )
    open_end = stretch.first + finish == last or (
        finish == n - 1 and stretch.ends_at_cut and any(other.first == stretch.last + 1 for other in edited)
    )
    for i in inside:
        rise = 1.0 if open_start or seconds <= 0 else ease((at[i] - at[begin] + step) / (seconds + step))
        fall = 1.0 if open_end or seconds <= 0 else ease((at[finish] - at[i] + step) / (seconds + step))
        share[i] = min(rise, fall)
    turned = np.array([_turned(landmarks) for landmarks in stretch.landmarks68])
    share *= _blurred(turned, at, seconds / 4)
    if stretch.guessed is not None:
        free = uncovered(stretch.guessed, level, at)
        share *= _blurred(_least_around(free, at, seconds / 2), at, seconds / 4)
    return share.astype(np.float32)


def _covered(stretch: SteadyStretch, times: NDArray[np.float64], level: NDArray[np.float64]) -> int:
    """In how many frames of a stretch something covers the face."""
    if stretch.guessed is None:
        return 0
    at = times[stretch.first : stretch.last + 1]
    return int((uncovered(stretch.guessed, level, at)[stretch.present] < 0.5).sum())


def _least_around(values: NDArray[np.float64], at: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """The least value within ``reach`` seconds of each frame: what is eased over has begun before, and ends after."""
    low, high = np.searchsorted(at, at - reach - 1e-9), np.searchsorted(at, at + reach + 1e-9)
    return np.array([values[a:b].min() for a, b in zip(low, high, strict=True)])


def _turned(landmarks: NDArray[np.float32]) -> float:
    """1 for a face that looks this way, 0 for one that is turned too far to be edited."""
    points = landmarks.astype(np.float64)
    pose = pose_of(with_landmarks(Face((0.0, 0.0, 0.0, 0.0), 0.0, points[:5]), points))
    # A head that is both turned and raised is foreshortened by both.
    away = float(np.hypot(pose.yaw / _TURN, pose.pitch / _NOD))
    return 1.0 - ease((away - 1.0) / _BEYOND)


def _blurred(values: NDArray[np.float64], at: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian smoothing over time (seconds), for any spacing of frames."""
    if sigma <= 0 or len(values) < 2 or np.all(values == 1.0):
        return values
    result = np.empty_like(values)
    for i, now in enumerate(at):
        low, high = np.searchsorted(at, (now - 3 * sigma, now + 3 * sigma + 1e-9))
        weights = np.exp(-0.5 * ((at[low:high] - now) / sigma) ** 2)
        result[i] = float((weights * values[low:high]).sum() / weights.sum())
    return np.where(values == 0, np.minimum(result, 0.5), result)


def pack_analysis(analysis: Analysis) -> bytes:
    """An analysis as plain arrays and JSON (no pickle)."""
    arrays: dict[str, NDArray[Any]] = {
        "pts": np.array(analysis.pts, np.int64),
        "durations": np.array(analysis.durations, np.int64),
        "times": np.array(analysis.times, np.float64),
    }
    tracks = []
    for track in analysis.tracks:
        stretches = []
        for i, (stretch, shares) in enumerate(zip(track.stretches, track.shares, strict=True)):
            key = f"t{track.number}s{i}"
            arrays[f"{key}landmarks"], arrays[f"{key}present"] = stretch.landmarks68, stretch.present
            arrays[f"{key}shares"] = shares
            stretches.append(
                {"first": stretch.first, "starts_at_cut": stretch.starts_at_cut, "ends_at_cut": stretch.ends_at_cut}
            )
        samples = []
        for i, sample in enumerate(track.samples):
            key = f"t{track.number}x{i}"
            arrays[f"{key}pixels"], arrays[f"{key}landmarks"] = sample.pixels, sample.landmarks68
            samples.append({"frame": sample.frame, "box": list(sample.box), "quality": sample.quality})
        tracks.append(
            {
                "number": track.number, "score": track.score, "detector": track.detector, "reason": track.reason,
                "covered": track.covered, "stretches": stretches, "samples": samples,
            }
        )  # fmt: skip
    facts = {
        "first": analysis.first, "stop": analysis.stop, "cuts": list(analysis.cuts), "tracks": tracks,
        "tried": list(analysis.tried), "notes": list(analysis.notes), "damaged": sorted(analysis.damaged),
    }  # fmt: skip
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_analysis(data: bytes) -> Analysis:
    """Read what `pack_analysis` made."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        facts = json.loads(stored["facts"].tobytes())
        tracks = []
        for entry in facts["tracks"]:
            stretches, shares = [], []
            for i, one in enumerate(entry["stretches"]):
                key = f"t{entry['number']}s{i}"
                stretches.append(
                    SteadyStretch(
                        one["first"], stored[f"{key}landmarks"], stored[f"{key}present"],
                        one["starts_at_cut"], one["ends_at_cut"],
                    )
                )  # fmt: skip
                shares.append(stored[f"{key}shares"])
            samples = []
            for i, one in enumerate(entry["samples"]):
                key = f"t{entry['number']}x{i}"
                x0, y0, x1, y1 = one["box"]
                samples.append(
                    Sample(
                        one["frame"],
                        (x0, y0, x1, y1),
                        stored[f"{key}pixels"],
                        stored[f"{key}landmarks"],
                        one["quality"],
                    )
                )
            tracks.append(
                FaceTrack(
                    entry["number"], tuple(stretches), tuple(shares), tuple(samples), entry["score"],
                    entry["detector"], entry["reason"], entry["covered"],
                )
            )  # fmt: skip
        return Analysis(
            tuple(stored["pts"].tolist()), tuple(stored["durations"].tolist()), tuple(stored["times"].tolist()),
            facts["first"], facts["stop"], tuple(facts["cuts"]), tuple(tracks), tuple(facts["tried"]),
            tuple(facts["notes"]), frozenset(facts["damaged"]),
        )  # fmt: skip
