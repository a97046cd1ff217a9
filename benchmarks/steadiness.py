"""Whether an edited face shakes more than the input's: second differences of landmarks over time.

    python benchmarks/steadiness.py CLIP ... [--expr surprised] [--backend NAME] [--frames N]

Per clip and part of the face three ratios of edited to input are printed, each of mean second differences:

* found: landmarks found anew in every frame of both clips, by the predictor's median over nine boxes;
* found well: the same, but each frame is looked at eight times, shifted by fractions of a pixel and up to two, and the
  mean is taken. The predictor's own scatter falls to about a third, what the face does stays;
* followed: those of the tracker, run over both clips;
* on stills: found as in the first row in single frames of both clips, each under the same small shifts and noise ten
  times over. Nothing moves there but the detector's guesses: where this ratio is above 1, the edited face is harder
  to read, and the first ratio is too high by about as much.

Only frames in which the face is edited in full count.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.choice import load_detector
from exprtool.faces.landmarks import refine68
from exprtool.pipeline import Session
from exprtool.timeline import Moment, parse_timeline
from exprtool.types import Edit, Face, Image
from exprtool.videos.analysis import Analysis, FaceTrack, analyse
from exprtool.videos.clip import probe
from exprtool.videos.edit import VideoOptions, edit_video
from exprtool.videos.encoder import EncodeOptions
from exprtool.videos.reader import read_frames

PARTS = {
    "all": slice(0, 68), "jaw": slice(0, 17), "brows": slice(17, 27), "nose": slice(27, 36), "eyes": slice(36, 48),
    "mouth": slice(48, 68),
}  # fmt: skip
Marks = NDArray[np.float64]


def frames_of(path: Path, stop: int) -> Iterator[tuple[int, Image]]:
    for frame in read_frames(probe(path)):
        if frame.index >= stop:
            return
        if frame.picture is not None:
            yield frame.index, frame.picture.rgb()


def second(marks: Marks, whole: NDArray[np.bool_]) -> Marks:
    """Mean length of the second differences of (n, 68, 2), per landmark, where all three frames count."""
    lengths = np.linalg.norm(np.diff(marks, 2, axis=0), axis=2)
    return lengths[whole[:-2] & whole[1:-1] & whole[2:]].mean(axis=0)


def found(path: Path, track: FaceTrack, stop: int, looks: int = 1) -> Marks:
    """Landmarks found anew in every frame, each beginning at the one before; NaN in frames without the face."""
    marks = np.full((stop, 68, 2), np.nan)
    shifts = np.vstack([np.zeros((1, 2)), np.random.default_rng(1).uniform(-2, 2, (looks - 1, 2))])
    face: Face | None = None
    for index, picture in frames_of(path, stop):
        there = track.at(index)
        if there is None:
            face = None
            continue
        start = face or there[0]
        seen = [refine68(shifted(picture, shift), start, robust=True) for shift in shifts]
        face = seen[0]
        marks[index] = np.mean(
            [np.asarray(one.landmarks68) - shift for one, shift in zip(seen, shifts, strict=True)], 0
        )
    return marks


def shifted(picture: Image, shift: NDArray[np.float64]) -> Image:
    """The picture moved by ``shift`` (x, y) in pixels."""
    if not shift.any():
        return picture
    matrix = np.column_stack([np.eye(2), shift])
    return np.asarray(cv2.warpAffine(picture, matrix, picture.shape[1::-1], flags=cv2.INTER_CUBIC), np.uint8)


def followed(analysis: Analysis, like: FaceTrack, stop: int) -> Marks:
    """The tracker's landmarks of the face that ``like`` follows in another clip of the same scene."""
    marks = np.full((stop, 68, 2), np.nan)
    for index in range(stop):
        wanted = like.at(index)
        here = [one for track in analysis.tracks if (one := track.at(index))]
        if wanted and here:
            nearest = min(here, key=lambda one: np.hypot(*np.subtract(one[0].centre, wanted[0].centre)))
            marks[index] = nearest[0].landmarks68
    return marks


def on_stills(path: Path, track: FaceTrack, places: list[int]) -> Marks:
    """Mean second differences (68,) of what is found in single frames that are shifted a little and made noisy."""
    random = np.random.default_rng(0)
    shifts = random.normal(0, 0.4, (10, 2))
    lengths = []
    for index, picture in frames_of(path, max(places) + 1):
        there = track.at(index)
        if index not in places or there is None:
            continue
        face, marks = there[0], []
        for shift in shifts:
            moved = shifted(picture, shift)
            noisy = np.clip(moved + random.normal(0, 1.5, moved.shape), 0, 255).astype(np.uint8)
            face = refine68(noisy, face, robust=True)
            marks.append(np.asarray(face.landmarks68) - shift)
        lengths.append(second(np.stack(marks), np.ones(len(marks), bool)))
    return np.mean(lengths, axis=0)


def measure(clip: Path, expression: str, backend: str, detector: str, frames: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        edited = Path(folder) / "edited.mkv"
        options = VideoOptions(end=Moment(frame=frames), encode=EncodeOptions(crf=12))
        session = Session(backend, detector)
        result = edit_video(session, clip, edited, Edit(), parse_timeline(expression), options)
        looker = load_detector(detector)[1]
        stop = result.analysis.stop
        again = analyse(probe(edited), looker)
        print(f"{clip.name} {expression} ({session.chain.names[0]})")
        for track in result.analysis.selected:
            shares = [track.at(index) for index in range(stop)]
            whole = np.array([one is not None and one[1] > 0.99 for one in shares])
            if whole.sum() < 12:
                continue
            places = np.flatnonzero(whole)[6::12].tolist()
            rows = {
                "found": (second(found(clip, track, stop), whole), second(found(edited, track, stop), whole)),
                "found well": (
                    second(found(clip, track, stop, 8), whole), second(found(edited, track, stop, 8), whole),
                ),
                "followed": (
                    second(followed(result.analysis, track, stop), whole), second(followed(again, track, stop), whole),
                ),
                "on stills": (on_stills(clip, track, places), on_stills(edited, track, places)),
            }  # fmt: skip
            print(f"  face {track.number}, {int(whole.sum())} frames")
            for name, (before, after) in rows.items():
                cells = [f"{part} {after[at].mean() / before[at].mean():.2f}" for part, at in PARTS.items()]
                print(f"    {name:10} {before.mean():5.2f} -> {after.mean():5.2f} px   " + "  ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--expr", default="surprised")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--frames", type=int, default=10**9)
    wishes = parser.parse_args()
    for clip in wishes.clips:
        measure(clip, wishes.expr, wishes.backend, wishes.detector, wishes.frames)


if __name__ == "__main__":
    main()
