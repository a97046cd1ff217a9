"""An edited face does not shake: measured on a still photo under camera motion and on a person who talks and blinks,
edited by the blendshape backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from exprtool.choice import load_detector
from exprtool.faces.detect import find_faces
from exprtool.faces.landmarks import refine68
from exprtool.images import read_image
from exprtool.pipeline import Session
from exprtool.timeline import Moment, parse_timeline
from exprtool.types import Edit, Face
from exprtool.videos.clip import probe
from exprtool.videos.edit import VideoOptions, edit_video
from exprtool.videos.encoder import EncodeOptions
from exprtool.videos.reader import read_frames

FRAMES, SIDE = 14, 300


def motion(i: int) -> np.ndarray:
    """The camera's similarity (2, 3) in frame i: a hand that does not hold quite still."""
    t = i / 25
    angle, scale = np.radians(1.2 * np.sin(5 * t)), 1 + 0.015 * np.sin(4 * t)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, SIDE / 2)
    return np.column_stack([linear, middle - linear @ middle + 4 * np.array([np.sin(6 * t), np.cos(5 * t) - 1])])


def shake(path: Path) -> np.ndarray:
    """Standard deviation over time of every pixel once the camera's motion is taken out, (SIDE, SIDE)."""
    back = []
    for frame in read_frames(probe(path)):
        assert frame.picture is not None
        picture = frame.picture.rgb().astype(np.float32)
        back.append(
            cv2.warpAffine(picture, motion(frame.index), (SIDE, SIDE), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        )
    return np.stack(back).std(axis=0).mean(axis=2)


@pytest.mark.parametrize("expression", ["happy", "surprised"])
def test_a_still_face_under_camera_motion_is_as_steady_as_the_input(
    expression: str, shared: Path, face_model: Any, tmp_path: Path, ffmpeg: Any
) -> None:
    photo = read_image(shared / "faces" / "london" / "neutral" / "001.jpg").rgb
    photo = np.asarray(cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    frames = [
        cv2.warpAffine(photo, motion(i), (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        for i in range(FRAMES)
    ]
    np.stack(frames).tofile(tmp_path / "raw")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE}x{SIDE}", "-r", 25, "-i", tmp_path / "raw"]
    ffmpeg(*raw, "-c:v", "libx264", "-crf", 12, "-pix_fmt", "yuv420p", tmp_path / "in.mp4")
    ffmpeg("-i", tmp_path / "in.mp4", "-c:v", "libx264", "-crf", 17, tmp_path / "again.mp4")
    result = edit_video(
        Session("blendshape", "dlib"), tmp_path / "in.mp4", tmp_path / "out.mp4", Edit(), parse_timeline(expression),
        VideoOptions(encode=EncodeOptions(crf=17)),
    )  # fmt: skip
    assert result.edited_frames == FRAMES
    before, after = shake(tmp_path / "again.mp4"), shake(tmp_path / "out.mp4")
    stretch = result.analysis.tracks[0].stretches[0]
    hull = cv2.convexHull(stretch.landmarks68[0].astype(np.float32)).astype(np.int32)
    face = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(face, hull, 1)
    ratio = after[face > 0].mean() / before[face > 0].mean()
    print(f"{expression}: {before[face > 0].mean():.2f} -> {after[face > 0].mean():.2f}, ratio {ratio:.2f}")
    assert ratio <= 1.5


def shaking(path: Path, first: int, stop: int) -> np.ndarray:
    """Second differences (stop - first - 2, 68) in pixels of landmarks that are found anew in every frame."""
    face: Face | None = None
    found = []
    for frame in read_frames(probe(path)):
        if first <= frame.index < stop:
            assert frame.picture is not None
            picture = frame.picture.rgb()
            face = refine68(picture, face or find_faces(picture, load_detector("dlib")[1]).faces[0], robust=True)
            found.append(face.landmarks68)
    return np.linalg.norm(np.diff(np.stack(found), 2, axis=0), axis=2)


@pytest.mark.parametrize("expression", ["happy", "surprised"])
def test_a_face_that_talks_and_blinks_shakes_no_more_than_the_input(
    expression: str, shared: Path, face_model: Any, tmp_path: Path
) -> None:
    clip, first, stop = shared / "videos" / "grid_bbaf2n.mpg", 38, 56
    target = tmp_path / "out.mp4"
    options = VideoOptions(start=Moment(frame=first), end=Moment(frame=stop), encode=EncodeOptions(crf=12))
    edit_video(Session("blendshape", "dlib"), clip, target, Edit(), parse_timeline(expression), options)
    before, after = shaking(clip, first, stop), shaking(target, 0, stop - first)
    parts = {"all": slice(0, 68), "brows": slice(17, 27), "eyes": slice(36, 48), "mouth": slice(48, 68)}
    ratios = {part: after[:, at].mean() / before[:, at].mean() for part, at in parts.items()}
    print(expression, {part: round(float(ratio), 2) for part, ratio in ratios.items()})
    assert ratios.pop("all") <= 1.3
    assert max(ratios.values()) <= 1.5, "and no part of the face much more"
