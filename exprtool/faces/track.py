"""Faces over time: found every few frames, followed in between, kept through short losses.

A `Tracker` is fed the frames of a clip one by one and keeps, per face, only points: memory does not grow with the
pictures. Between detections the face is followed by pyramidal Lucas-Kanade optical flow (Bouguet's implementation in
OpenCV), checked forwards and backwards; in every frame the landmark predictor measures anew. `Track.faces` makes both
into steady landmarks when the clip is over (see `exprtool.faces.smooth`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.faces.align import invert, transform
from exprtool.faces.cover import parts_of
from exprtool.faces.detect import find_faces, merge
from exprtool.faces.embed import Embedding, embedding, squared_distance
from exprtool.faces.landmarks import disagreement68, refine68, with_landmarks
from exprtool.faces.pose import pose_of
from exprtool.faces.select import Selection, region_of, select_faces
from exprtool.faces.smooth import smooth
from exprtool.types import Detector, Face, Image, IntBox, Points

Luma = NDArray[np.uint8]

# All lengths below are in sizes of the face (the longer side of its box).
_FLOW_ERROR = 0.0012
"""Standard deviation of the flow of a well-tracked point from one frame to the next: about a quarter of a pixel for a
face of 200."""
_FLOW_ERROR_SOFT = 0.002
"""The same for eyelids and lips, whose look changes as they move."""
_FLOW_ERROR_OUTLINE = 0.004
"""The same for the jaw line, which takes the motion of the whole face: flow there follows the background."""
_FLOW_LOST = 0.02
"""The same for a point whose forward and backward flow disagree."""
_PREDICTOR_NOISE = 0.008
_SAME_PERSON = 0.36
"""Squared embedding distance below which two faces are one person (0.6, as dlib's network was trained for)."""

_BELIEVABLE = 0.08
"""Mean distance of the predictor's landmarks from where the flow took them, up to which both show the same face."""

_OUTLINE, _EYES, _LIPS = slice(0, 17), slice(36, 48), slice(48, 68)
_UPPER_LIDS = ((37, 36, 39), (38, 36, 39), (43, 42, 45), (44, 42, 45))
"""Points of the upper lids, each with the corners of its eye."""
_SMALLEST_OF_PICTURE = 0.06
"""Faces below this part of the picture's shorter side are not searched for; once found they are followed."""
_WORK_SIZE = 200.0
_LOOK_CLOSELY = 0.1
"""Seconds between looks at whether something covers the face."""
_OPEN_EYES = 0.25
"""Height over width of lids from which on eyes are open: of adults who look at the camera 0.25 to 0.38."""
_SAMPLES = 5
_SAMPLE_EVERY = 12


@dataclass(frozen=True)
class TrackerSettings:
    """When the tracker looks for faces and what it forgives; times in seconds.

    ``confirm`` is the time between looks at a face that is followed, ``scan`` between looks at the whole picture for
    new faces, ``deep`` between thorough searches (turned and small faces) while there is none, ``patience`` how long a
    face that the detector does not see is followed, ``memory`` how long a lost face is remembered.
    """

    confirm: float = 0.25
    scan: float = 0.5
    deep: float = 4.0
    patience: float = 0.5
    memory: float = 3.0
    min_face: float = 0.0
    selection: Selection = field(default_factory=Selection)


@dataclass(eq=False)
class Sample:
    """A good look at a track's face: the picture around it, for a backend that fits identity and light once."""

    frame: int
    box: IntBox
    pixels: Image
    landmarks68: Points
    quality: float


@dataclass(eq=False)
class Stretch:
    """Consecutive frames in which one face was followed. Index 0 of every list is frame ``first``."""

    first: int
    measured: list[NDArray[np.float32]] = field(default_factory=list)
    flow: list[NDArray[np.float32]] = field(default_factory=list)
    drift: list[NDArray[np.float32]] = field(default_factory=list)
    confirmed: list[bool] = field(default_factory=list)
    guessed: list[NDArray[np.float32]] = field(default_factory=list)
    """How much the predictor guesses (see `exprtool.faces.cover.parts_of`), NaN where it was not asked."""
    starts_at_cut: bool = False
    ends_at_cut: bool = False
    followed: int = 0
    believed: int = 0
    """Frames into which the face was followed, and those among them where the predictor agreed with the motion."""

    @property
    def last(self) -> int:
        """The last frame, included."""
        return self.first + len(self.measured) - 1


@dataclass(eq=False)
class Track:
    """One face of a clip: the stretches in which it was followed, and the best looks at it."""

    number: int
    stretches: list[Stretch] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    embedding: Embedding | None = None
    score: float = 0.0
    detector: str = ""
    votes: dict[str | None, int] = field(default_factory=dict)
    """How often the selection took the face (None) or left it out, by reason."""

    @property
    def reason(self) -> str | None:
        """Why the track is not selected, or None."""
        if not self.votes:
            return None
        return max(self.votes, key=lambda reason: self.votes[reason])

    @property
    def frames(self) -> int:
        return sum(len(stretch.measured) for stretch in self.stretches)


@dataclass(frozen=True, eq=False)
class SteadyStretch:
    """The smoothed landmarks of a stretch, (n, 68, 2) float32, from frame ``first`` on, and where the face was sure.

    ``guessed`` (n, 2) tells how much the landmarks of nose and mouth were guessed, NaN in frames without a look.
    """

    first: int
    landmarks68: NDArray[np.float32]
    present: NDArray[np.bool_]
    starts_at_cut: bool
    ends_at_cut: bool
    guessed: NDArray[np.float32] | None = None

    @property
    def last(self) -> int:
        return self.first + len(self.landmarks68) - 1


def steady(stretch: Stretch) -> SteadyStretch:
    """Smooth a stretch, and cut off what lies before its first and after its last confirmed frame."""
    measured = np.stack(stretch.measured)
    sizes = _sizes(measured)
    x = smooth(measured, np.stack(stretch.flow), np.stack(stretch.drift), _PREDICTOR_NOISE * sizes).astype(np.float32)
    confirmed = np.flatnonzero(stretch.confirmed)
    present = np.zeros(len(measured), bool)
    if confirmed.size:
        present[confirmed[0] : confirmed[-1] + 1] = True
    guessed = np.stack(stretch.guessed)
    return SteadyStretch(stretch.first, x, present, stretch.starts_at_cut, stretch.ends_at_cut, guessed)


def _sizes(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """The face's size in each frame, from landmarks (n, 68, 2); where none was measured, that of its neighbours."""
    spans = np.asarray(landmarks.max(axis=1) - landmarks.min(axis=1), np.float64).max(axis=1) * 1.25
    good = np.isfinite(spans)
    return np.interp(np.arange(len(spans)), np.flatnonzero(good), spans[good])


@dataclass(eq=False)
class _Live:
    """A track while it is being followed."""

    track: Track
    stretch: Stretch
    face: Face
    last_confirmed: float
    doubt: bool = False
    looked: float = float("-inf")
    looked_closely: float = float("-inf")


@dataclass(frozen=True, eq=False)
class _Lost:
    """A face that is gone, for as long as it is remembered."""

    time: float
    track: Track
    face: Face
    before_cut: bool = False


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is kept of the last few frames, to follow a new face back to where it came from."""

    index: int
    time: float
    luma: Luma


class Tracker:
    """Follows all faces of a clip; feed it every frame in order, then call `finish`.

    ``detector`` is asked as seldom as `TrackerSettings` allow. ``notes`` collects how faces were looked for.
    """

    def __init__(self, detector: Detector, settings: TrackerSettings | None = None) -> None:
        self.detector = detector
        self.settings = settings or TrackerSettings()
        self.tracks: list[Track] = []
        self.cuts: list[int] = []
        self.tried: tuple[str, ...] = ()
        self._live: list[_Live] = []
        self._lost: list[_Lost] = []
        self._recent: deque[_Seen] = deque()
        self._thumbnail: NDArray[np.float32] | None = None
        self._changes: deque[float] = deque(maxlen=24)
        self._last_scan = self._last_deep = float("-inf")
        self._deep_pause = self.settings.deep
        self._smallest: float | None = None

    def feed(self, index: int, time: float, luma: Luma, rgb: Callable[[], Image]) -> None:
        """Take the next frame: brightness (H, W) uint8, and a way to get its RGB (H, W, 3), called when needed."""
        cut = self._is_cut(luma) and not self._goes_on(luma)
        if cut:
            self.cuts.append(index)
            for live in self._live:
                live.stretch.ends_at_cut = True
                self._close(live, time)
                self._lost.append(_Lost(time, live.track, live.face, before_cut=True))
            self._live = []
            self._recent.clear()
        previous = self._recent[-1] if self._recent else None
        if previous is not None:
            for live in list(self._live):
                if not self._follow(live, previous.luma, luma):
                    self._lose(live, time)
                elif time - live.looked_closely >= _LOOK_CLOSELY - 1e-6:
                    live.looked_closely = time
                    live.stretch.guessed[-1] = _guessed(luma, live.face)
        if cut or previous is None or time - self._last_scan >= self.settings.scan - 1e-6:
            self._scan(index, time, luma, rgb(), first=cut or previous is None)
        else:
            self._confirm(index, time, luma, rgb)
        self._recent.append(_Seen(index, time, luma))
        while len(self._recent) > 2 and time - self._recent[0].time > self.settings.scan * 1.5:
            self._recent.popleft()

    def skip(self, index: int) -> None:
        """A frame without a picture of its own: the faces stay where they were."""
        for live in self._live:
            _append(live.stretch, np.full((68, 2), np.nan), np.zeros((68, 2)), np.full(68, 1e-3), False)

    def finish(self) -> list[Track]:
        """The tracks of the whole clip as they were found; what did not hold up as a face is left out."""
        for live in self._live:
            live.stretch.ends_at_cut = True
            self._close(live, float("inf"))
        self._live = []
        self._recent.clear()
        for track in self.tracks:
            track.stretches = [stretch for stretch in track.stretches if _believable(stretch)]
        kept = [track for track in self.tracks if track.stretches]
        person = self.settings.selection.person
        if person is not None:
            self._keep_person(kept, person)
        return kept

    def _is_cut(self, luma: Luma) -> bool:
        """Whether the picture has nothing in common with the last one: a change far above the usual."""
        import cv2

        small = np.asarray(cv2.resize(luma, (64, 36), interpolation=cv2.INTER_AREA), np.float32)
        small = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), np.float32)
        before, self._thumbnail = self._thumbnail, small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        usual = float(np.median(self._changes)) if self._changes else 0.0
        a, b = small - small.mean(), before - before.mean()
        alike = float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))
        cut = change > max(9.0, 6.0 * usual) and alike < 0.75
        if cut:
            self._changes.clear()  # what follows is another shot; a fast one has no second cut in its next frame
        self._changes.append(change)
        return cut

    def _goes_on(self, luma: Luma) -> bool:
        """Whether a face is followed across what looks like a cut: then something else moved, or the light changed."""
        if not self._recent:
            return False
        before = self._recent[-1].luma
        for live in self._live:
            step = _step(before, luma, live.face)
            if step is not None:
                moved = with_landmarks(live.face, _points(live.face) + step[0])
                if _disagreement(_measure(luma, moved), moved) < _BELIEVABLE:
                    return True
        return False

    def _follow(self, live: _Live, before: Luma, after: Luma) -> bool:
        """Append one frame to a live stretch; False where the face is lost."""
        step = _step(before, after, live.face)
        if step is None:
            return False
        flow, drift = step
        moved = with_landmarks(live.face, _points(live.face) + flow)
        height, width = after.shape
        x, y = moved.centre
        if not (0 <= x < width and 0 <= y < height) or moved.size < 16:
            return False
        seen = _measure(after, moved)
        error = _disagreement(seen, moved)
        believable = error < _BELIEVABLE
        live.stretch.followed += 1
        live.stretch.believed += believable
        measured = _points(seen) if believable else np.full((68, 2), np.nan)
        _append(live.stretch, measured, flow, drift, False)
        if not believable:
            live.doubt = True
            live.face = moved
        else:
            # A light hold on the measurement keeps the flow's start from drifting off the face.
            live.face = with_landmarks(moved, _points(moved) + 0.15 * (_points(seen) - _points(moved)))
        return error < 0.2

    def _confirm(self, index: int, time: float, luma: Luma, rgb: Callable[[], Image]) -> None:
        """Look at faces whose turn it is; those the detector has not seen for long are lost."""
        image: Image | None = None
        for live in list(self._live):
            due = time - live.last_confirmed >= self.settings.confirm - 1e-6
            if not (due or live.doubt) or time - live.looked < self.settings.confirm / 3:
                continue
            image = rgb() if image is None else image
            live.looked = time
            found = self._look_at(image, live.face)
            if found is not None:
                self._confirmed(live, found, index, time, image)
            elif time - live.last_confirmed > self.settings.patience:
                self._lose(live, time)

    def _look_at(self, image: Image, face: Face) -> Face | None:
        """What the detector finds in the neighbourhood of a face, brought upright."""
        import cv2

        size = max(self.detector.smallest * 1.5, 100.0)
        side = round(size * 2.2)
        angle, scale = np.radians(face.roll), size / face.size
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        linear = np.array([[cos, sin], [-sin, cos]])
        matrix = np.column_stack([linear, side / 2 - linear @ np.array(face.centre)])
        crop = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_AREA)
        found = self.detector.detect(np.asarray(crop, np.uint8))
        back = invert(matrix)
        best: Face | None = None
        for one in found:
            five = transform(back, one.landmarks5)
            apart = np.linalg.norm(five - face.landmarks5, axis=1).mean() / face.size
            if apart < 0.25 and (best is None or one.score > best.score):
                best = replace(one, landmarks5=five)
        return best

    def _confirmed(self, live: _Live, found: Face, index: int, time: float, image: Image) -> None:
        live.last_confirmed, live.doubt = time, False
        live.stretch.confirmed[-1] = True
        live.track.score = max(live.track.score, found.score)
        self._sample(live, index, image)

    def _scan(self, index: int, time: float, luma: Luma, image: Image, *, first: bool) -> None:
        """Look at the whole picture: confirm those followed, and begin a stretch for every new face."""
        self._last_scan = time
        begun = self._last_deep > float("-inf")
        faces = self._quick(image) if begun else []
        if not faces and not self._live and time - self._last_deep >= self._deep_pause:
            # The longer a clip shows no face, the seldomer is it searched thoroughly.
            self._deep_pause = min(2 * self._deep_pause, 8 * self.settings.deep) if begun else self.settings.deep
            self._last_deep = time
            smallest = max(self.settings.min_face, _SMALLEST_OF_PICTURE * min(image.shape[:2]))
            found = find_faces(image, self.detector, min_face=smallest)
            self.tried = self.tried or found.tried
            faces = list(found.faces)
        if faces:
            self._deep_pause = self.settings.deep
        for live in list(self._live):
            match = _nearest(live.face, faces)
            if match is not None:
                faces.remove(match)
                live.looked = time
                self._confirmed(live, match, index, time, image)
            else:
                found_one = self._look_at(image, live.face)
                live.looked = time
                if found_one is not None:
                    self._confirmed(live, found_one, index, time, image)
                elif time - live.last_confirmed > self.settings.patience:
                    self._lose(live, time)
        for face in faces:
            self._begin(face, index, time, luma, image, at_cut=first)
        self._vote(image)

    def _quick(self, image: Image) -> list[Face]:
        """One look at the whole picture, as large as the smallest face followed so far needs it."""
        import cv2

        height, width = image.shape[:2]
        scale = min(1.0, self.detector.overview / max(height, width))
        if self._smallest is not None:
            scale = max(scale, min(1.0, 1.2 * self.detector.smallest / self._smallest))
        small = image
        if scale < 1.0:
            small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        fx, fy = width / small.shape[1], height / small.shape[0]
        faces = []
        for face in self.detector.detect(small):
            five = (face.landmarks5 + 0.5) * (fx, fy) - 0.5
            x0, y0, x1, y1 = face.box
            whole = replace(face, landmarks5=five, landmarks68=None, box=(x0 * fx, y0 * fy, x1 * fx, y1 * fy))
            faces.append(refine68(image, whole))
        faces = [face for face in merge(faces) if face.size >= self.settings.min_face]
        return [face for face in faces if self._credible(face, image)]

    def _credible(self, face: Face, image: Image) -> bool:
        """Whether a detection is a face: followed already, of a high score, or confirmed by a closer look."""
        if face.score >= self.detector.sure or any(_together(face, live.face) for live in self._live):
            return True
        return self.detector.confirms(image, face)

    def _begin(self, face: Face, index: int, time: float, luma: Luma, image: Image, *, at_cut: bool) -> None:
        if any(_together(face, live.face) for live in self._live):
            return
        track, identity = self._remembered(face, image, time)
        if track is None:
            track = Track(len(self.tracks) + 1, embedding=identity, detector=face.detector)
            self.tracks.append(track)
        face = replace(face, track=track.number)
        self._smallest = min(self._smallest or face.size, face.size)
        stretch = Stretch(index, starts_at_cut=at_cut)
        _append(stretch, _points(face), np.zeros((68, 2)), np.zeros(68), True)
        live = _Live(track, stretch, face, time)
        live.looked = time
        if not at_cut:
            self._follow_back(live, luma, after=track.stretches[-1].last if track.stretches else -1)
        track.stretches.append(stretch)
        self._live.append(live)
        self._confirmed(live, face, index, time, image)

    def _follow_back(self, live: _Live, luma: Luma, after: int) -> None:
        """Extend a new stretch backwards through the frames that are still at hand, as far as the face is there."""
        backwards = Stretch(0)
        probe = _Live(live.track, backwards, live.face, 0.0)
        now, unseen = luma, 0
        for seen in reversed(self._recent):
            if seen.index <= after or not self._follow(probe, now, seen.luma):
                break
            grey = np.repeat(seen.luma[..., None], 3, axis=2)
            sure = self._look_at(grey, probe.face) is not None
            backwards.confirmed[-1] = sure
            unseen = 0 if sure else unseen + 1
            if unseen > 3:
                break
            now = seen.luma
        while backwards.confirmed and not backwards.confirmed[-1]:
            for values in (backwards.measured, backwards.flow, backwards.drift, backwards.confirmed, backwards.guessed):
                values.pop()
        count = len(backwards.measured)
        if not count:
            return
        stretch = live.stretch
        # Frame k's flow is from frame k - 1 to k: the reverse of what was measured on the way back, one place on.
        stretch.flow[:] = [np.zeros((68, 2), np.float32), *(-flow for flow in reversed(backwards.flow))]
        stretch.drift[:] = [np.zeros(68, np.float32), *reversed(backwards.drift)]
        stretch.measured[:0] = reversed(backwards.measured)
        stretch.confirmed[:0] = reversed(backwards.confirmed)
        stretch.guessed[:0] = reversed(backwards.guessed)
        stretch.first -= count

    def _remembered(self, face: Face, image: Image, time: float) -> tuple[Track | None, Embedding]:
        """The track of a face that was lost a moment ago, and the new face's embedding."""
        identity = embedding(image, face)
        self._lost = [lost for lost in self._lost if time - lost.time <= self.settings.memory]
        best: tuple[float, int] | None = None
        for place, lost in enumerate(self._lost):
            known = lost.track.embedding
            apart = float(np.hypot(*np.subtract(face.centre, lost.face.centre)))
            near = apart < face.size * (1 + (time - lost.time))
            if known is None or (lost.before_cut and not near):
                continue  # after a cut the light is another, unless it is a jump within one shot
            alike = squared_distance(identity, known)
            limit = _SAME_PERSON if near and not lost.before_cut else 0.75 * _SAME_PERSON
            if alike < limit and (best is None or alike < best[0]):
                best = (float(alike), place)
        if best is None:
            return None, identity
        return self._lost.pop(best[1]).track, identity

    def _lose(self, live: _Live, time: float) -> None:
        self._live.remove(live)
        self._close(live, time)
        self._lost.append(_Lost(time, live.track, live.face))

    def _close(self, live: _Live, time: float) -> None:
        """End a stretch: what was followed without being seen for longer than the patience is dropped."""
        stretch = live.stretch
        last = max((i for i, sure in enumerate(stretch.confirmed) if sure), default=0)
        if not stretch.ends_at_cut:
            keep = last + 1 + self._tail(stretch, last)
            for values in (stretch.measured, stretch.flow, stretch.drift, stretch.confirmed, stretch.guessed):
                del values[keep:]
        else:
            # Followed up to a cut or the clip's end without a doubt: the face was there to the last frame.
            if not live.doubt and stretch.confirmed:
                stretch.confirmed[-1] = True

    def _tail(self, stretch: Stretch, last: int) -> int:
        """How many frames after the last confirmed one are kept: those with believable landmarks, to ease out over."""
        count = 0
        for measured in stretch.measured[last + 1 :]:
            if not np.isfinite(measured).all():
                break
            count += 1
        return count

    def _sample(self, live: _Live, index: int, image: Image) -> None:
        """Keep the picture if it is among the best looks at this face: large, frontal, nothing before it, the mouth
        at rest and the eyes open."""
        track, face = live.track, live.face
        looks = [look for look in live.stretch.guessed[-8:] if np.isfinite(look).all()]
        guessed = max(1.0, float(looks[-1].max()) / 2) if looks else 1.0
        pose = pose_of(face)
        frontal = np.cos(np.radians(min(80.0, abs(pose.yaw)))) * np.cos(np.radians(min(80.0, abs(pose.pitch))))
        points = _points(face)
        gap = np.linalg.norm(points[62] - points[66]) / face.size
        open_eyes = min(1.0, _opening(points) / _OPEN_EYES)
        quality = float(frontal**4 * face.size * (1.0 - min(0.5, 4 * gap)) * (0.25 + 0.75 * open_eyes)) / guessed
        # One look per half second or so, the best of it; and of those the best few.
        same = [sample for sample in track.samples if sample.frame // _SAMPLE_EVERY == index // _SAMPLE_EVERY]
        rivals = same or (track.samples if len(track.samples) >= _SAMPLES else [])
        worst = min(rivals, key=lambda sample: sample.quality, default=None)
        if worst is not None:
            if quality <= worst.quality:
                return
            track.samples.remove(worst)
        region = region_of(image, face, ())
        track.samples.append(Sample(index, region.box, region.pixels.copy(), points.copy(), quality))
        track.samples.sort(key=lambda sample: sample.frame)

    def _vote(self, image: Image) -> None:
        """Let the selection judge the faces of this frame, from left to right, as in a photo."""
        live = sorted(self._live, key=lambda one: one.face.centre)
        selection = replace(self.settings.selection, person=None)
        for one, (_, reason) in zip(live, select_faces([one.face for one in live], selection, image), strict=True):
            kind = None if reason is None else _kind_of(reason)
            one.track.votes[kind] = one.track.votes.get(kind, 0) + 1

    def _keep_person(self, tracks: Sequence[Track], person: Embedding) -> None:
        from exprtool.faces.embed import similarity_of

        least = self.settings.selection.similarity
        for track in tracks:
            alike = similarity_of(person, track.embedding) if track.embedding is not None else 0.0
            if track.reason is None and alike < least:
                track.votes = {f"not the person looked for (similarity {alike:.2f}, and {least:.2f} is needed)": 1}


def _opening(points: Points) -> float:
    """Height over width of the eyes' lid openings, their mean."""
    eyes = np.stack([points[36:42], points[42:48]])
    height = np.linalg.norm(eyes[:, [1, 2]].mean(axis=1) - eyes[:, [4, 5]].mean(axis=1), axis=1)
    return float((height / np.maximum(np.linalg.norm(eyes[:, 3] - eyes[:, 0], axis=1), 1e-6)).mean())


def _believable(stretch: Stretch) -> bool:
    """Whether a stretch shows a face: the predictor agreed with the motion, the detector more than once."""
    return stretch.believed >= 0.6 * stretch.followed and sum(stretch.confirmed) >= min(2, len(stretch.measured))


def _kind_of(reason: str) -> str:
    """A reason without its figures, which differ from frame to frame."""
    return reason.split(":")[0].split(" (")[0]


def _points(face: Face) -> Points:
    assert face.landmarks68 is not None
    return face.landmarks68


def _append(stretch: Stretch, measured: Any, flow: Any, drift: Any, confirmed: bool) -> None:
    stretch.measured.append(np.asarray(measured, np.float32))
    stretch.flow.append(np.asarray(flow, np.float32))
    stretch.drift.append(np.asarray(drift, np.float32))
    stretch.confirmed.append(confirmed)
    stretch.guessed.append(np.full(2, np.nan, np.float32))


def _disagreement(seen: Face, moved: Face) -> float:
    """Mean distance of the landmarks of two views of one face, in sizes of the face."""
    return float(np.linalg.norm(_points(seen) - _points(moved), axis=1).mean()) / moved.size


def _nearest(face: Face, others: Sequence[Face]) -> Face | None:
    near = [other for other in others if _together(face, other)]
    return min(near, key=lambda other: _apart(face, other), default=None)


def _apart(a: Face, b: Face) -> float:
    return float(np.linalg.norm(np.asarray(a.landmarks5) - np.asarray(b.landmarks5), axis=1).mean())


def _together(a: Face, b: Face) -> bool:
    """Whether two faces of one frame are the same head."""
    return _apart(a, b) < 0.35 * min(a.size, b.size)


def _measure(luma: Luma, face: Face) -> Face:
    """The predictor's answer on the brightness alone, seen in the neighbourhood of the face."""
    grey, corner = _around(luma, face)
    near = with_landmarks(face, _points(face) - corner)
    return with_landmarks(face, _points(refine68(grey, near)) + corner)


def _guessed(luma: Luma, face: Face) -> NDArray[np.float32]:
    """How much the predictor guesses on this face, (2,); see `exprtool.faces.cover`."""
    grey, corner = _around(luma, face)
    return parts_of(disagreement68(grey, with_landmarks(face, _points(face) - corner))).astype(np.float32)


def _around(luma: Luma, face: Face) -> tuple[Image, NDArray[np.float64]]:
    """The neighbourhood of a face as a grey RGB picture, and where its first pixel lies in the whole one."""
    height, width = luma.shape
    x0, y0, x1, y1 = face.box
    margin = 0.9 * face.size
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    right, bottom = min(width, int(x1 + margin) + 1), min(height, int(y1 + margin) + 1)
    grey = np.repeat(luma[top:bottom, left:right, None], 3, axis=2)
    return grey, np.array([left, top], np.float64)


def _step(before: Luma, after: Luma, face: Face) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """How the 68 points moved (68, 2) and how sure that is (68,), in pixels; None where the face cannot be followed."""
    import cv2

    size = face.size
    height, width = before.shape
    x0, y0, x1, y1 = face.box
    margin = 0.5 * size
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    right, bottom = min(width, int(x1 + margin) + 1), min(height, int(y1 + margin) + 1)
    if right - left < 16 or bottom - top < 16:
        return None
    scale = min(1.0, _WORK_SIZE / size)
    old, new = before[top:bottom, left:right], after[top:bottom, left:right]
    if scale < 1.0:
        shape = max(16, round((right - left) * scale)), max(16, round((bottom - top) * scale))
        old = np.asarray(cv2.resize(old, shape, interpolation=cv2.INTER_AREA), np.uint8)
        new = np.asarray(cv2.resize(new, shape, interpolation=cv2.INTER_AREA), np.uint8)
        factors = np.array([shape[0] / (right - left), shape[1] / (bottom - top)])
    else:
        factors = np.ones(2)
    corner = np.array([left, top], np.float64)
    landmarks = _points(face)
    grid = _inner_grid(landmarks)
    points = (np.concatenate([landmarks, grid]) - corner + 0.5) * factors - 0.5
    window = max(9, int(0.09 * size * scale) | 1)
    settings: dict[str, Any] = {
        "winSize": (window, window),
        "maxLevel": 3,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01),
    }
    start = points.astype(np.float32).reshape(-1, 1, 2)
    forward, found, _ = cv2.calcOpticalFlowPyrLK(old, new, start, None, **settings)  # type: ignore[call-overload]
    backward, back_found, _ = cv2.calcOpticalFlowPyrLK(new, old, forward, None, **settings)  # type: ignore[call-overload]
    moved = forward.reshape(-1, 2)
    off = np.linalg.norm(backward.reshape(-1, 2) - start.reshape(-1, 2), axis=1)
    good = (found.ravel() == 1) & (back_found.ravel() == 1) & (off < 0.006 * size * scale + 0.15)
    rigid = good.copy()
    rigid[_OUTLINE] = rigid[_LIPS] = False
    if rigid.sum() < 12 or rigid.mean() < 0.25:
        return None
    motion, inliers = cv2.estimateAffinePartial2D(
        points[rigid].astype(np.float32), moved[rigid], method=cv2.RANSAC, ransacReprojThreshold=0.02 * size * scale
    )
    if motion is None or inliers.mean() < 0.5:
        return None
    grown = float(np.hypot(motion[0, 0], motion[1, 0]))
    if not 0.8 < grown < 1.25:
        return None
    whole = transform(np.asarray(motion, np.float64), points[:68])
    following = good[:68].copy()
    following[_OUTLINE] = False
    # A point that runs away from the face as a whole was caught by something else.
    following &= np.linalg.norm(moved[:68] - whole, axis=1) < 0.12 * size * scale
    target = np.where(following[:, None], moved[:68], whole)
    target[_EYES] = _lids(points[_EYES], whole[_EYES], target[_EYES])
    drift = np.full(68, _FLOW_ERROR)
    drift[_EYES] = drift[_LIPS] = _FLOW_ERROR_SOFT
    drift[_OUTLINE] = _FLOW_ERROR_OUTLINE
    drift = np.where(following | (np.arange(68) < 17), drift, _FLOW_LOST)
    return (target - points[:68]) / factors, drift * size


def _lids(points: NDArray[np.float64], whole: NDArray[np.float64], moved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the eyes' 12 points go, given the face's motion as a whole and the flow at each point.

    In a blink the upper lid sweeps through the whole eye, and flow at the corners and the lower lid follows it; so
    does flow after the iris of an eye that looks aside. Only the upper lids are led by it, across the eye.
    """
    target = whole.copy()
    first = _EYES.start
    for point, one, other in _UPPER_LIDS:
        along = points[other - first] - points[one - first]
        across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-6)
        target[point - first] += across * (across @ (moved[point - first] - whole[point - first]))
    return target


def _inner_grid(landmarks: Points) -> Points:
    """Points on cheeks, nose and forehead: their motion is that of the head."""
    right_eye, left_eye = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    mouth = landmarks[48:60].mean(axis=0)
    across, down = (left_eye - right_eye), mouth - (right_eye + left_eye) / 2
    origin = (right_eye + left_eye) / 2
    u, v = np.meshgrid(np.linspace(-0.75, 0.75, 7), np.linspace(-0.7, 0.75, 6))
    return origin + u.reshape(-1, 1) * across + v.reshape(-1, 1) * down


def face_of(track: Track, stretch: SteadyStretch, index: int) -> Face:
    """A track's face in one frame of a stretch."""
    landmarks = stretch.landmarks68[index - stretch.first].astype(np.float64)
    blank = Face((0.0, 0.0, 0.0, 0.0), track.score, landmarks[:5], detector=track.detector, track=track.number)
    return with_landmarks(blank, landmarks)
