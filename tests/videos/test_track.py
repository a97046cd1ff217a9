"""Faces over time: steady, where they belong, and gone where they are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from exprtool.choice import load_detector
from exprtool.faces.smooth import smooth
from exprtool.faces.track import Tracker, TrackerSettings, steady
from exprtool.images import read_image
from exprtool.types import Image
from exprtool.videos.analysis import Analysis, analyse, pack_analysis, unpack_analysis
from exprtool.videos.clip import probe

RATE = 25


def walk(n: int, points: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.cumsum(random.normal(0, 3, (n, points, 2)), axis=0) + 100


def test_smoothing_beats_measurement_and_flow_alone_and_does_not_lag() -> None:
    random = np.random.default_rng(0)
    truth = walk(200, 5, 1)
    measured = truth + random.normal(0, 1.5, truth.shape)
    flow = np.diff(truth, axis=0, prepend=truth[:1]) + random.normal(0, 0.2, truth.shape)
    found = smooth(measured, flow, np.full((200, 5), 0.2), np.full(200, 1.5))
    error = np.sqrt(np.square(found - truth).mean())
    assert error < 0.45
    assert np.sqrt(np.square(np.cumsum(flow, axis=0) + measured[0] - truth).mean()) > 2 * error, "flow alone drifts"
    shifted = [np.square(found[5:-5] - truth[5 + lag : 195 + lag]).mean() for lag in (-1, 0, 1)]
    assert np.argmin(shifted) == 1, "neither late nor early"


def test_smoothing_follows_a_sudden_movement_that_the_flow_saw() -> None:
    truth = np.zeros((60, 1, 2))
    truth[30:] = 20.0
    random = np.random.default_rng(0)
    measured = truth + random.normal(0, 1, truth.shape)
    flow = np.diff(truth, axis=0, prepend=truth[:1])
    found = smooth(measured, flow, np.full((60, 1), 0.1), np.full(60, 1.0))
    assert np.abs(found - truth).max() < 1.0


def test_smoothing_bridges_gaps_and_shrugs_off_outliers() -> None:
    truth = walk(100, 3, 2)
    random = np.random.default_rng(0)
    measured = truth + random.normal(0, 1, truth.shape)
    measured[0:5] = measured[40:50] = measured[97:] = np.nan
    measured[70] += 40
    flow = np.diff(truth, axis=0, prepend=truth[:1])
    found = smooth(measured, flow, np.full((100, 3), 0.3), np.full(100, 1.0))
    assert np.isfinite(found).all()
    assert np.abs(found - truth).max() < 2.0


def test_smoothing_without_any_measurement_is_refused() -> None:
    with pytest.raises(ValueError, match="no frame is measured"):
        smooth(np.full((3, 2, 2), np.nan), np.zeros((3, 2, 2)), np.ones((3, 2)), np.ones(3))


def still(shared: Path, side: int = 360) -> Image:
    photo = read_image(shared / "faces" / "london" / "neutral" / "001.jpg").rgb
    return np.asarray(cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def camera(photo: Image, n: int, seed: int = 0) -> tuple[list[Image], list[np.ndarray]]:
    """Frames of a still photo under small camera motion, with noise, and the matrix (2, 3) of each."""
    random = np.random.default_rng(seed)
    frames, matrices = [], []
    height, width = photo.shape[:2]
    for i in range(n):
        t = i / RATE
        angle, scale = np.radians(1.5 * np.sin(2 * t)), 1 + 0.02 * np.sin(1.3 * t)
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array([width / 2, height / 2])
        shift = 6 * np.array([np.sin(1.7 * t), np.cos(2.3 * t) - 1])
        matrix = np.column_stack([linear, middle - linear @ middle + shift])
        moved = cv2.warpAffine(photo, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        frames.append(np.clip(moved + random.normal(0, 2, moved.shape), 0, 255).astype(np.uint8))
        matrices.append(matrix)
    return frames, matrices


def track(frames: list[Image], **settings: Any) -> tuple[Tracker, list[Any]]:
    tracker = Tracker(load_detector("dlib")[1], TrackerSettings(**settings))
    for i, frame in enumerate(frames):
        luma = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        tracker.feed(i, i / RATE, luma, lambda frame=frame: frame)
    return tracker, tracker.finish()


def test_a_still_photo_under_camera_motion_has_steady_landmarks(shared: Path) -> None:
    frames, matrices = camera(still(shared), 30)
    _, tracks = track(frames)
    assert len(tracks) == 1 and tracks[0].frames == 30
    raw = np.stack(tracks[0].stretches[0].measured).astype(float)
    found = steady(tracks[0].stretches[0]).landmarks68.astype(float)

    def shake(points: np.ndarray) -> float:
        """Standard deviation in pixels once the camera's motion is taken out."""
        back = [
            (frame - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            for frame, matrix in zip(points, matrices, strict=True)
        ]
        return float(np.stack(back).std(axis=0).mean())

    assert shake(found) < 0.45 * shake(raw)
    assert shake(found) < 0.35, "a third of a pixel"


def test_a_face_that_comes_and_goes_is_there_when_it_is_there(shared: Path) -> None:
    frames, _ = camera(still(shared, 320), 16)
    nothing = [np.full_like(frames[0], 90) for _ in range(9)]
    tracker, tracks = track([*nothing, *frames, *nothing], scan=0.16, confirm=0.16)
    assert tracker.cuts == [9, 25]
    assert [(s.first, s.last) for t in tracks for s in t.stretches] == [(9, 24)]


def test_a_face_hidden_for_a_moment_stays_the_same_track(shared: Path) -> None:
    frames, _ = camera(still(shared, 320), 40)
    for frame in frames[14:21]:
        frame[70:290, 80:240] = 128
    _, tracks = track(frames, scan=0.16, confirm=0.12, patience=0.2)
    assert len(tracks) == 1
    there = np.zeros(40, bool)
    for stretch in tracks[0].stretches:
        s = steady(stretch)
        there[s.first : s.last + 1] |= s.present
    assert there[:13].all() and there[24:].all()
    assert not there[15:20].any()


def test_a_selection_is_voted_on_over_the_clip(shared: Path) -> None:
    from exprtool.faces.select import Selection

    frames, _ = camera(still(shared, 320), 8)
    _, tracks = track(frames, selection=Selection(min_face=2000.0))
    assert [track.reason for track in tracks] == ["too small"]


def test_samples_are_good_looks_with_their_pixels(shared: Path) -> None:
    frames, _ = camera(still(shared, 320), 30)
    _, tracks = track(frames)
    samples = tracks[0].samples
    assert 2 <= len(samples) <= 5
    for sample in samples:
        x0, y0, x1, y1 = sample.box
        assert np.array_equal(sample.pixels, frames[sample.frame][y0:y1, x0:x1])


@pytest.fixture(scope="module")
def coming(shared: Path, ffmpeg: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that slides into a picture that shows none and stays; then a cut to black."""
    folder = tmp_path_factory.mktemp("coming")
    face, height, width = still(shared, 240), 240, 400
    ys, xs = np.mgrid[:height, : width + 240]
    wall = (150 + 40 * np.sin(xs / 23) + 30 * np.sin(ys / 17 + xs / 31)).astype(np.uint8)
    wide = np.repeat(wall[..., None], 3, axis=2)
    frames = []
    for i in range(40):
        x = int(np.interp(i, (5, 25), (width, 90)))
        canvas = wide.copy()
        canvas[:, x : x + 240] = face
        frames.append(canvas[:, :width])
    frames += [np.zeros((height, width, 3), np.uint8)] * 5
    np.stack(frames).tofile(folder / "raw")
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "400x240", "-r", RATE, "-i", folder / "raw", "-c:v", "ffv1",
        "-pix_fmt", "yuv444p", folder / "coming.mkv",
    )  # fmt: skip
    return folder / "coming.mkv"


@pytest.fixture(scope="module")
def found(coming: Path) -> Analysis:
    return analyse(probe(coming), load_detector("dlib")[1])


def test_a_face_that_enters_is_eased_in_and_one_that_vanishes_eased_out(found: Analysis) -> None:
    assert found.frames == 45 and found.cuts == (40,)
    (track,) = found.selected
    (stretch,), (shares,) = track.stretches, track.shares
    assert 12 <= stretch.first <= 24, "before the face is whole there is nothing to edit"
    assert stretch.last == 39
    assert shares[0] < 0.3 and shares[-1] < 0.3
    assert shares.max() > 0.9
    assert np.abs(np.diff(shares)).max() < 0.35


def test_an_analysis_survives_being_stored(found: Analysis, tmp_path: Path) -> None:
    again = unpack_analysis(pack_analysis(found))
    assert (again.pts, again.times, again.first, again.stop, again.cuts) == (
        found.pts, found.times, found.first, found.stop, found.cuts,
    )  # fmt: skip
    for a, b in zip(found.tracks, again.tracks, strict=True):
        assert np.array_equal(a.shares[0], b.shares[0])
        assert np.array_equal(a.stretches[0].landmarks68, b.stretches[0].landmarks68)
        assert [s.frame for s in a.samples] == [s.frame for s in b.samples]
        assert all(np.array_equal(s.pixels, r.pixels) for s, r in zip(a.samples, b.samples, strict=True))
