"""Clips that are damaged, empty, or not what they seem; wishes that cannot be met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exprtool.errors import UnknownNameError, UsageError, VideoError
from exprtool.pipeline import Session
from exprtool.timeline import parse_timeline
from exprtool.types import Detector, Edit, Face
from exprtool.videos.clip import probe
from exprtool.videos.edit import VideoOptions, VideoResult, analyse_clip, edit_video
from exprtool.videos.encoder import EncodeOptions
from exprtool.videos.reader import read_frames
from exprtool.videos.types import ReadLog


class Blind(Detector):
    """Never finds a face."""

    def detect(self, image: np.ndarray) -> list[Face]:
        return []


@pytest.fixture
def edit(tint: Any) -> Callable[..., VideoResult]:
    def run(source: Path, target: Path, encode: EncodeOptions | None = None, **options: Any) -> VideoResult:
        analysis = options.pop("analysis", None)
        encode = encode or EncodeOptions(preset="ultrafast")
        return edit_video(
            Session(tint, Blind()), source, target, Edit(), parse_timeline("happy"),
            VideoOptions(encode=encode, **options), analysis=analysis,
        )  # fmt: skip

    return run


@pytest.fixture
def clip(ffmpeg: Any, tmp_path: Path) -> Path:
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=1", "-f", "lavfi", "-i", "sine=440:duration=1",
        "-c:v", "libx264", "-preset", "ultrafast", "-g", 10, "-c:a", "aac", tmp_path / "clip.mp4",
    )  # fmt: skip
    return tmp_path / "clip.mp4"


def left_nothing(folder: Path) -> bool:
    return not any("out" in path.name for path in folder.iterdir())


def test_a_clip_without_a_face_is_said_and_not_written(clip: Path, tmp_path: Path, edit: Any) -> None:
    result = edit(clip, tmp_path / "out.mp4")
    assert result.status == "no_face"
    assert "no face was found in any of 25 frames" in str(result.error)
    assert left_nothing(tmp_path)


def test_with_keep_a_clip_without_a_face_is_copied_bit_for_bit(clip: Path, tmp_path: Path, edit: Any) -> None:
    result = edit(clip, tmp_path / "out.mp4", keep=True)
    assert result.status == "no_face"
    assert (tmp_path / "out.mp4").read_bytes() == clip.read_bytes()


def test_files_that_are_no_clips_are_refused_with_the_reason(
    clip: Path, tmp_path: Path, edit: Any, ffmpeg: Any
) -> None:
    whole = clip.read_bytes()
    cases: dict[str, tuple[bytes | None, str]] = {
        "missing.mp4": (None, "no such file"),
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"not a video at all" * 50, "cannot be read as a video"),
        "index.mp4": (whole[: len(whole) // 2], "cut off before its index"),
        "text.gif": (b"GIF89a but no more", "cannot be decoded"),
    }
    for name, (content, says) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(VideoError, match=says) as caught:
            edit(path, tmp_path / f"out{path.suffix}")
        assert name in str(caught.value)
    ffmpeg("-i", clip, "-vn", "-c:a", "copy", tmp_path / "sound.m4a")
    (tmp_path / "sound.m4a").rename(tmp_path / "sound.mp4")
    with pytest.raises(VideoError, match="sound only"):
        edit(tmp_path / "sound.mp4", tmp_path / "out.mp4")
    assert left_nothing(tmp_path)


def test_a_clip_of_zero_frames_is_refused(clip: Path, tmp_path: Path, edit: Any, ffmpeg: Any) -> None:
    ffmpeg("-i", clip, "-frames:v", 0, "-an", "-c:v", "libx264", tmp_path / "none.mkv")
    with pytest.raises(VideoError, match=r"zero frames|no video stream|cannot be read"):
        edit(tmp_path / "none.mkv", tmp_path / "out.mkv")


def test_a_still_gif_is_sent_to_the_photo_commands(tmp_path: Path, edit: Any) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "still.gif")
    with pytest.raises(VideoError, match="exprtool animate"):
        edit(tmp_path / "still.gif", tmp_path / "out.gif")


def test_a_file_that_breaks_off_is_edited_as_far_as_it_goes(
    clip: Path, tmp_path: Path, edit: Any, ffmpeg: Any, face_in: Any, facts: Any
) -> None:
    ffmpeg("-i", clip, "-c", "copy", tmp_path / "whole.mkv")
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(len(whole) * 0.6)])
    cut = tmp_path / "cut.mkv"
    result = edit(cut, tmp_path / "out.mkv", analysis=face_in(cut))
    times = facts(tmp_path / "out.mkv").frame_times()
    assert 5 < result.frames == len(times) < 25
    assert times == facts(tmp_path / "whole.mkv").frame_times()[: len(times)]


def broken(clip: Path, target: Path, ffprobe: Any) -> list[int]:
    """A copy of the clip in which the payload of two pictures is noise; returns their places."""
    packets = ffprobe(clip, "-select_streams", "v:0", "-show_packets")["packets"]
    data = bytearray(clip.read_bytes())
    places = [13, 14]
    for place in places:
        start, size = int(packets[place]["pos"]), int(packets[place]["size"])
        data[start : start + size] = bytes((7 * i) % 251 for i in range(size))
    target.write_bytes(bytes(data))
    return places


def test_frames_that_do_not_decode_are_kept_and_said(
    clip: Path, tmp_path: Path, edit: Any, face_in: Any, facts: Any, ffprobe: Any
) -> None:
    broken(clip, tmp_path / "broken.mp4", ffprobe)
    source = tmp_path / "broken.mp4"
    log = ReadLog()
    frames = list(read_frames(probe(source), log))
    assert [frame.pts for frame in frames] == [frame.pts for frame in read_frames(probe(clip))]
    assert log.notes(), "the damage is told"
    analysis = analyse_clip(Session("debug", Blind()), probe(source), VideoOptions())
    assert analysis.notes
    result = edit(source, tmp_path / "out.mp4", analysis=face_in(source))
    assert result.frames == 25
    assert facts(tmp_path / "out.mp4").frame_times() == facts(clip).frame_times()


def test_a_change_of_size_in_mid_stream_is_refused(clip: Path, tmp_path: Path, edit: Any, ffmpeg: Any) -> None:
    ffmpeg("-i", clip, "-an", "-c:v", "mpeg2video", tmp_path / "a.ts")
    ffmpeg("-i", clip, "-an", "-c:v", "mpeg2video", "-vf", "scale=320:240", tmp_path / "b.ts")
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with pytest.raises(VideoError, match=r"changes from 160x120 to 320x240 at frame 2\d.*--end"):
        edit(tmp_path / "both.ts", tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_wishes_that_cannot_be_met_are_refused_before_any_work(
    clip: Path, tmp_path: Path, edit: Any, tint: Any
) -> None:
    refusals: list[tuple[EncodeOptions, str, str]] = [
        (EncodeOptions(codec="h266"), "mp4", r"Unknown video codec 'h266'.*h264.*libx264"),
        (EncodeOptions(codec="vp8"), "mp4", r"mp4 file cannot hold.*libvpx.*mkv"),
        (EncodeOptions(preset="warp9"), "mp4", r"Unknown preset.*ultrafast"),
        (EncodeOptions(crf=99), "mp4", r"--crf must be from 0 to 51"),
        (EncodeOptions(crf=20, quality=80), "mp4", r"not both"),
        (EncodeOptions(pix_fmt="yuv999"), "mp4", r"Unknown pixel format.*yuv420p"),
        (EncodeOptions(codec="ffv1", crf=20), "mkv", r"lossless"),
        (EncodeOptions(codec="mpeg4", crf=20), "mkv", r"no constant rate factor"),
    ]
    for wish, ending, says in refusals:
        with pytest.raises(UsageError, match=says):
            edit(clip, tmp_path / f"out.{ending}", wish)
    with pytest.raises(UnknownNameError, match="mp4, mov, mkv"):
        edit(clip, tmp_path / "out.mp4", format="avi")
    with pytest.raises(UsageError, match=r"does not write \.avi"):
        edit(clip, tmp_path / "out.avi")
    assert tint.edits == [] and left_nothing(tmp_path)


def test_an_empty_stretch_is_refused(clip: Path, tmp_path: Path, edit: Any) -> None:
    from exprtool.timeline import parse_moment

    with pytest.raises(VideoError, match="between --start and --end"):
        edit(clip, tmp_path / "out.mp4", start=parse_moment("7s", "--start"))


def test_frames_the_face_is_not_in_are_left_alone(clip: Path, face_in: Any) -> None:
    analysis = face_in(clip, spans=[(5, 9)])
    assert analysis.tracks[0].at(4) is None
    assert analysis.tracks[0].at(10) is None
    assert analysis.tracks[0].at(7) is not None
