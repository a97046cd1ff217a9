"""A hand before the face: seen, eased around, and not taken for speech; lids that blink take nothing along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exprtool.choice import load_detector
from exprtool.faces.cover import own_level, uncovered
from exprtool.timeline import Moment
from exprtool.videos.analysis import Analysis, analyse
from exprtool.videos.clip import probe


def seen(path: Path, first: int, stop: int) -> Analysis:
    return analyse(probe(path), load_detector("dlib")[1], start=Moment(frame=first), end=Moment(frame=stop))


def test_the_edit_is_gone_when_a_hand_is_before_the_mouth(shared: Path) -> None:
    analysis = seen(shared / "videos" / "talking_man_pexels.mp4", 32, 80)
    (track,) = analysis.selected
    (shares,) = track.shares
    share = dict(zip(range(track.stretches[0].first, analysis.stop), shares.tolist(), strict=True))
    assert min(share[i] for i in range(32, 48)) > 0.99, "the face is free"
    assert max(share[i] for i in range(64, 80)) < 0.03, "fingers lie on the lips"
    assert np.abs(np.diff(shares)).max() < 0.3, "the edit is eased out"
    assert 16 <= track.covered <= 24


def test_speech_and_blinks_are_not_taken_for_a_hand_and_take_nothing_along(shared: Path) -> None:
    analysis = seen(shared / "videos" / "grid_bbaf2n.mpg", 30, 60)
    (track,) = analysis.selected
    assert np.concatenate(track.shares).min() == 1.0 and track.covered == 0
    points = track.stretches[0].landmarks68.astype(np.float64)
    height = points[:, :, 1] - points[:, 27:31, 1].mean(axis=1, keepdims=True)
    upper, lower = height[:, [37, 38, 43, 44]].mean(axis=1), height[:, [40, 41, 46, 47]].mean(axis=1)
    opening = lower - upper
    assert opening.min() < 0.4 * opening.max(), "he blinks twice"
    assert np.ptp(lower) < 0.4 * np.ptp(upper), "and the upper lid closes the eye, nearly alone"


def looks(*scores: float) -> np.ndarray:
    return np.array([[1.0, score] for score in scores], np.float32)


def test_one_bad_guess_is_not_a_hand_and_a_lasting_one_is() -> None:
    at = np.arange(40) / 25
    scores = [1.0] * 40
    scores[10] = 9.0
    scores[25:] = [5.0] * 15
    free = uncovered(looks(*scores), np.ones(2), at)
    assert free[:22].min() == 1.0
    assert free[27:].max() == 0.0


def test_frames_without_a_look_lie_between_their_neighbours() -> None:
    some = looks(1, 1, 1, 6, 6, 6)
    some[1] = some[4] = np.nan
    free = uncovered(some, np.ones(2), np.arange(6) * 10.0)
    np.testing.assert_allclose(free, [1, 1, 1, 0, 0, 0])
    assert uncovered(np.full((3, 2), np.nan), np.ones(2), np.arange(3) / 25).tolist() == [1, 1, 1]


def test_each_face_is_compared_with_itself() -> None:
    bearded = looks(*([3.0] * 60 + [9.0] * 20))
    level = own_level([bearded[:40], bearded[40:]])
    assert level == pytest.approx([1.0, 3.0])
    free = uncovered(bearded, level, np.arange(80) / 25)
    assert free[:55].min() == 1.0 and free[65:].max() == 0.0
    assert own_level([]).tolist() == [1, 1]
