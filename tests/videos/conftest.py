"""What the video tests share: a cheap backend, clips made by FFmpeg, and ffprobe as an independent reader."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exprtool.faces.track import SteadyStretch
from exprtool.types import Backend, Edit, FacePatch, FaceRegion
from exprtool.videos.analysis import Analysis, FaceTrack
from exprtool.videos.clip import probe
from exprtool.videos.reader import read_frames
from exprtool.videos.types import ClipInfo, ReadLog


class Tint(Backend):
    """Makes the middle of the face greener, the more the stronger; notes what it was asked for."""

    def __init__(self) -> None:
        self.tracks = 0
        self.edits: list[Edit] = []
        self.delay: Callable[[], None] = lambda: None

    def begin_track(self, samples: Sequence[FaceRegion]) -> Any:
        self.tracks += 1
        return f"state {self.tracks}"

    def generate(self, prepared: Sequence[FaceRegion], edit: Edit) -> list[FacePatch]:
        self.delay()
        patches = []
        for region in prepared:
            assert str(region.track_state).startswith("state")
            assert not region.pixels.flags.writeable
            self.edits.append(edit)
            alpha = np.zeros(region.pixels.shape[:2], np.float32)
            x0, y0, x1, y1 = (int(v) for v in region.to_region(np.array(region.face.box).reshape(2, 2)).ravel())
            alpha[max(0, y0) : y1, max(0, x0) : x1] = 1.0
            pixels = region.pixels.astype(np.int16)
            pixels[..., 1] = np.clip(pixels[..., 1] + round(50 * edit.strength), 0, 255)
            patches.append(FacePatch(pixels.astype(np.uint8), alpha))
        return patches


@pytest.fixture
def tint() -> Tint:
    return Tint()


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., None]:
    """Run Debian's ffmpeg: another build than the one inside PyAV, so an independent maker of clips."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg command to make clips")

    def run(*arguments: object) -> None:
        subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture(scope="session")
def ffprobe() -> Callable[..., dict[str, Any]]:
    """Run Debian's ffprobe: an independent reader."""
    if shutil.which("ffprobe") is None:
        pytest.skip("needs the ffprobe command to check clips")

    def run(path: Path, *arguments: str) -> dict[str, Any]:
        answer = subprocess.run(
            ["ffprobe", "-v", "error", "-of", "json", *arguments, str(path)], check=True, capture_output=True, text=True
        )
        return json.loads(answer.stdout)

    return run


class Facts:
    """What ffprobe says about a clip."""

    def __init__(self, run: Callable[..., dict[str, Any]], path: Path) -> None:
        self._run, self.path = cache(run), path
        found = run(path, "-show_streams", "-show_format", "-show_chapters")
        self.streams, self.format, self.chapters = found["streams"], found["format"], found["chapters"]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [stream for stream in self.streams if stream["codec_type"] == kind]

    @property
    def video(self) -> dict[str, Any]:
        return self.of("video")[0]

    def frame_times(self) -> list[str]:
        """The time of every frame, as ffprobe prints it."""
        found = self._run(self.path, "-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time")
        return [frame["best_effort_timestamp_time"] for frame in found["frames"]]

    def shown_times(self) -> list[str]:
        """The same without decoding, from the packets; for codecs whose containers note every time."""
        if self.video["codec_name"].startswith("mpeg"):
            return self.frame_times()
        found = self._run(self.path, "-select_streams", "v:0", "-show_entries", "packet=pts_time,flags")
        times = [packet["pts_time"] for packet in found["packets"] if "D" not in packet["flags"]]
        return sorted(times, key=float)

    def packets(self, select: str) -> list[tuple[float, str]]:
        """(time, hash of the payload) of every packet of a stream."""
        found = self._run(self.path, "-select_streams", select, "-show_packets", "-show_data_hash", "sha256")
        return [(float(packet["pts_time"]), packet["data_hash"]) for packet in found["packets"]]

    def rotation(self) -> float | None:
        for data in self.video.get("side_data_list", ()):
            if "rotation" in data:
                return float(data["rotation"])
        return None

    def lost_in(self, output: Facts) -> list[str]:
        """What an edited clip did not keep of this one, in words; [] where it kept everything."""
        lost = []
        times, other_times = self.shown_times(), output.shown_times()
        if len(times) != len(other_times):
            lost.append(f"frames: {len(times)} -> {len(other_times)}")
        elif times != other_times:
            moved = [pair for pair in zip(times, other_times, strict=True) if pair[0] != pair[1]]
            lost.append(f"{len(moved)} time stamps, the first of them {moved[0]}")
        seconds = [float(one.video["duration"]) for one in (self, output)]
        if abs(seconds[0] - seconds[1]) > 1 / 15:  # a container may or may not note how long the last picture shows
            lost.append(f"duration: {seconds}")
        kept = ["width", "height"]
        if self.video["codec_name"] != "gif":
            kept += ["pix_fmt", "sample_aspect_ratio", "color_space", "color_primaries", "color_transfer"]
        if not self.video["codec_name"].startswith("mpeg"):
            kept.append("color_range")
        for key in kept:
            if self.video.get(key) not in (None, "unknown") and output.video.get(key) != self.video[key]:
                lost.append(f"{key}: {self.video[key]} -> {output.video.get(key)}")
        if output.rotation() != self.rotation():
            lost.append(f"rotation: {self.rotation()} -> {output.rotation()}")
        if len(self.of("audio")) != len(output.of("audio")):
            lost.append("sound tracks")
        elif self.of("audio"):
            sound, other_sound = self.packets("a:0"), output.packets("a:0")
            if [packet[1] for packet in sound] != [packet[1] for packet in other_sound]:
                lost.append("the sound's bits")
            tick = 1 / float(output.of("audio")[0]["sample_rate"])
            if any(abs(a[0] - b[0]) > 1.01 * tick for a, b in zip(sound, other_sound, strict=False)):
                lost.append("the sound's times")
        return lost

    def offset(self) -> float:
        """By how many seconds the sound begins after the picture."""
        return float(self.of("audio")[0]["start_time"]) - float(self.video["start_time"])

    def frame_hashes(self) -> list[str]:
        """A hash of every decoded picture, by another decoder than ours."""
        reading = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(self.path)]
        hashing = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"]
        answer = subprocess.run([*reading, *hashing], check=True, capture_output=True, text=True)
        return [line.split(",")[-1].strip() for line in answer.stdout.splitlines() if not line.startswith("#")]


@pytest.fixture(scope="session")
def real_clip(shared_clips: Path, facts: Callable[[Path], Facts]) -> Callable[[str], tuple[Facts, Analysis]]:
    """What ffprobe says about a real clip, and an analysis with a face in the middle; both made once."""

    @cache
    def look(name: str) -> tuple[Facts, Analysis]:
        path = shared_clips / name
        return facts(path), known_face(probe(path), size=0.15)

    return look


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "videos"
    if not folder.is_dir():
        pytest.skip("needs the folder of test clips beside the checkout (../shared)")
    return folder


@pytest.fixture(scope="session")
def facts(ffprobe: Callable[..., dict[str, Any]], ffmpeg: Callable[..., None]) -> Callable[[Path], Facts]:
    return lambda path: Facts(ffprobe, path)


def face_points(centre: tuple[float, float], size: float) -> np.ndarray:
    """68 landmarks (68, 2) of a schematic upright face."""
    jaw = [(np.sin(a), 0.1 + np.cos(a) * 0.9) for a in np.linspace(-np.pi / 2, np.pi / 2, 17)]
    brows = [(x, -0.55) for x in np.linspace(-0.75, -0.25, 5)] + [(x, -0.55) for x in np.linspace(0.25, 0.75, 5)]
    nose = [(0, y) for y in np.linspace(-0.35, 0.1, 4)] + [(x, 0.2) for x in np.linspace(-0.2, 0.2, 5)]
    eyes = [
        (s * 0.42 + 0.16 * np.cos(a), -0.32 + 0.07 * np.sin(a))
        for s in (-1, 1)
        for a in np.linspace(np.pi, -np.pi, 7)[:6]
    ]
    outer = [(0.38 * np.cos(a), 0.55 - 0.14 * np.sin(a)) for a in np.linspace(np.pi, -np.pi, 13)[:12]]
    inner = [(0.25 * np.cos(a), 0.55 - 0.03 * np.sin(a)) for a in np.linspace(np.pi, -np.pi, 9)[:8]]
    points = np.array([*jaw, *brows, *nose, *eyes, *outer, *inner], np.float64)
    assert points.shape == (68, 2)
    return points * size / 2 + np.array(centre)


def known_face(
    info: ClipInfo,
    spans: Sequence[tuple[int, int]] | None = None,
    first: int = 0,
    stop: int | None = None,
    size: float = 0.4,
) -> Analysis:
    """An analysis that puts one face into the middle of the picture, in ``spans`` of frames (all by default).

    ``size`` is that of the face, in shorter sides of the picture.
    """
    log = ReadLog()
    frames = [(frame.pts, frame.duration) for frame in read_frames(info, log)]
    stop = len(frames) if stop is None else stop
    height, width = info.size
    points = face_points((width / 2, height / 2), min(height, width) * size).astype(np.float32)
    stretches, shares = [], []
    for begin, end in spans or [(0, len(frames) - 1)]:
        n = end - begin + 1
        stretches.append(SteadyStretch(begin, np.repeat(points[None], n, axis=0), np.ones(n, bool), False, False))
        shares.append(np.ones(n, np.float32))
    track = FaceTrack(1, tuple(stretches), tuple(shares), (), 1.0, "test")
    pts = tuple(frame[0] for frame in frames)
    times = tuple(info.seconds(one) - info.start for one in pts)
    return Analysis(
        pts, tuple(frame[1] for frame in frames), times, first, stop, (), (track,), notes=tuple(log.notes()),
        damaged=frozenset(log.damaged) | frozenset(log.undecoded),
    )  # fmt: skip


@pytest.fixture
def face_in() -> Callable[..., Analysis]:
    """Put a face into the middle of a clip, see `known_face`."""
    return lambda path, **rest: known_face(probe(path), **rest)


@pytest.fixture
def points68() -> Callable[..., np.ndarray]:
    return face_points
