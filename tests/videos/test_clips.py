"""Clips keep what they are: times, sound, size, rotation, colours and every picture that was not edited.

ffprobe and ffmpeg, other builds than the one inside PyAV, make the clips and check the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exprtool.pipeline import Session
from exprtool.timeline import parse_moment, parse_timeline
from exprtool.types import Edit
from exprtool.videos.analysis import Analysis
from exprtool.videos.clip import probe
from exprtool.videos.edit import VideoOptions, VideoResult, edit_video
from exprtool.videos.encoder import EncodeOptions
from exprtool.videos.reader import read_frames

FAST = EncodeOptions(preset="ultrafast")
LOSSLESS = EncodeOptions(preset="ultrafast", crf=0)
SMILE = parse_timeline("happy")


@pytest.fixture
def edit_clip(tint: Any, face_in: Callable[..., Analysis]) -> Callable[..., VideoResult]:
    """Edit with the cheap backend and a face that needs no looking for."""

    def run(source: Path, target: Path, encode: EncodeOptions = FAST, **options: Any) -> VideoResult:
        spans = options.pop("spans", None)
        timeline = options.pop("timeline", SMILE)
        span = {key: options.pop(key) for key in ("first", "stop") if key in options}
        analysis = face_in(source, spans=spans, **span)
        wishes = VideoOptions(encode=encode, segment_seconds=0.5, **options)
        return edit_video(Session(tint, "dlib"), source, target, Edit(), timeline, wishes, analysis=analysis)

    return run


def make(
    ffmpeg: Callable[..., None],
    path: Path,
    *arguments: object,
    size: str = "192x144",
    rate: str = "25",
    seconds: float = 1.6,
) -> Path:
    """A moving test picture with sound."""
    codec = [] if any(a == "-c:v" for a in arguments) else ["-c:v", "libx264", "-preset", "ultrafast"]
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}",
        "-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=44100:duration={seconds}",
        *codec, *arguments, path,
    )  # fmt: skip
    return path


CLIPS = [
    "single_face.mp4",
    "talking_man_pexels.mp4",
    "face_noface.mov",
    "noface_face.mov",
    "grid_bbaf2n.mpg",
    "grid_lbax4n.mpg",
    "two_people_intel.gif",
]


@pytest.mark.parametrize("expression", ["happy", "surprised"])
@pytest.mark.parametrize("name", CLIPS)
def test_real_clips_keep_times_sound_size_and_colours(
    name: str, expression: str, real_clip: Any, tmp_path: Path, tint: Any, facts: Callable[[Path], Any]
) -> None:
    before, analysis = real_clip(name)
    target = tmp_path / f"out{before.path.suffix.replace('.mpg', '.mp4')}"
    wishes = VideoOptions(encode=FAST, segment_seconds=0.5)
    timeline = parse_timeline(expression)
    result = edit_video(Session(tint, "dlib"), before.path, target, Edit(), timeline, wishes, analysis=analysis)
    assert tint.edits[-1].weights == {expression: 1.0}
    assert result.frames == result.edited_frames == len(before.shown_times())
    assert before.lost_in(facts(target)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-r", "24000/1001"], id="23.976"),
        pytest.param(["-r", "30000/1001", "-video_track_timescale", "30000"], id="29.97"),
        pytest.param(
            ["-vf", "select='not(mod(n\\,3)*lt(n\\,20))',setpts=PTS+0.013/TB*lt(N\\,9)", "-fps_mode", "vfr"], id="vfr"
        ),
        pytest.param(["-video_track_timescale", "12345"], id="odd time base"),
        pytest.param(["-bf", "3"], id="b-frames"),
        pytest.param(["-output_ts_offset", "1.5"], id="late start"),
    ],
)
def test_no_time_stamp_moves(arguments: list[str], tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    source = make(ffmpeg, tmp_path / "in.mp4", "-c:a", "aac", *arguments)
    edit_clip(source, tmp_path / "out.mp4")
    before, after = facts(source), facts(tmp_path / "out.mp4")
    assert len(before.frame_times()) > 10
    assert after.frame_times() == before.frame_times()
    assert after.offset() == pytest.approx(before.offset(), abs=1 / 44100)


@pytest.mark.parametrize(
    ("name", "rate", "frames"),
    [
        pytest.param("talking_man_pexels.mp4", "fps=24000/1001", 24, id="23.976"),
        pytest.param(
            "talking_man_pexels.mp4", "fps=30000/1001,select='not(eq(mod(n,5),3)+between(n,11,13))'", 21, id="29.97 vfr"
        ),
        pytest.param("grid_bbaf2n.mpg", "fps=25", 25, id="25"),
    ],
)
def test_sound_that_begins_late_stays_as_late(
    name: str, rate: str, frames: int, shared_clips: Path, tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    source = tmp_path / "in.mp4"
    ffmpeg(
        "-t", 1, "-i", shared_clips / name, "-vf", f"{rate},scale=320:-2", "-af", "asetpts=PTS+0.137/TB",
        "-fps_mode", "vfr", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", source,
    )  # fmt: skip
    edit_clip(source, tmp_path / "out.mp4")
    before, after = facts(source), facts(tmp_path / "out.mp4")
    assert before.offset() > 0.1
    assert abs(len(before.shown_times()) - frames) <= 1
    steps = np.diff(np.array(before.shown_times(), float))
    assert (np.ptp(steps) > 0.05) == ("select" in rate)
    assert before.lost_in(after) == []
    assert after.offset() == pytest.approx(before.offset(), abs=1 / 44100)


def test_untouched_frames_are_bit_identical_when_stored_losslessly(
    tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    source = make(ffmpeg, tmp_path / "in.mp4")
    result = edit_clip(source, tmp_path / "out.mp4", LOSSLESS, spans=[(10, 19)])
    before, after = facts(source).frame_hashes(), facts(tmp_path / "out.mp4").frame_hashes()
    same = [a == b for a, b in zip(before, after, strict=True)]
    assert [i for i, one in enumerate(same) if not one] == list(range(10, 20))
    assert result.edited_frames == 10


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "yuvj420p", "nv12", "gray"]
)
def test_pixels_outside_the_edit_keep_their_bits(pix_fmt: str, tmp_path: Path, ffmpeg: Any, edit_clip: Any) -> None:
    source = make(
        ffmpeg,
        tmp_path / "in.mkv",
        "-c:v",
        "ffv1" if pix_fmt not in ("nv12", "yuvj420p") else "libx264",
        "-pix_fmt",
        pix_fmt,
        "-an",
        seconds=0.4,
    )
    edit_clip(source, tmp_path / "out.mkv", EncodeOptions(codec="ffv1"))
    old, new = (list(read_frames(probe(path))) for path in (source, tmp_path / "out.mkv"))
    assert len(old) == len(new) == 10
    for a, b in zip(old, new, strict=True):
        assert a.picture and b.picture
        frame_a, frame_b = a.picture.frame(), b.picture.frame()
        assert frame_a.format.components[0].bits == frame_b.format.components[0].bits
        for index, plane in enumerate(frame_a.planes):
            x = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
            other = frame_b.planes[index]
            y = np.frombuffer(memoryview(other), np.uint8).reshape(other.height, -1)
            wide = min(x.shape[1], y.shape[1]) // 8
            assert np.array_equal(x[:, :wide], y[:, :wide]), "left border"
            assert np.array_equal(x[:4], y[:4][:, : x.shape[1]]) or x.shape != y.shape
    changed = np.abs(old[5].picture.rgb().astype(int) - new[5].picture.rgb().astype(int))
    assert changed[70, 96].max() > 10
    assert changed[:, :24].max() == 0


@pytest.mark.parametrize(("degrees", "size"), [(90, (192, 144)), (180, (144, 192)), (270, (192, 144))])
def test_rotation_is_kept_and_faces_are_edited_upright(
    degrees: int, size: tuple[int, int], tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    flat = make(ffmpeg, tmp_path / "flat.mp4", "-c:a", "aac", "-vf", "eq=contrast=0.3", seconds=0.4)
    source = tmp_path / "in.mp4"
    ffmpeg("-i", flat, "-c", "copy", "-metadata:s:v:0", f"rotate={degrees}", source)
    upright = tmp_path / "upright.mkv"
    ffmpeg("-i", source, "-c:v", "ffv1", "-an", upright)  # FFmpeg itself turns it upright here
    info = probe(source)
    assert info.size == size
    ours = next(iter(read_frames(info))).picture
    theirs = next(iter(read_frames(probe(upright)))).picture
    assert ours and theirs
    assert np.abs(ours.rgb().astype(int) - theirs.rgb().astype(int)).mean() < 2
    edit_clip(source, tmp_path / "out.mp4", LOSSLESS)
    before, after = facts(source), facts(tmp_path / "out.mp4")
    assert after.rotation() == before.rotation() is not None
    assert (after.video["width"], after.video["height"]) == (192, 144)
    edited = next(iter(read_frames(probe(tmp_path / "out.mp4")))).picture
    assert edited
    change = np.abs(edited.rgb().astype(int) - ours.rgb().astype(int)).sum(axis=2)
    height, width = size
    ys, xs = np.nonzero(change > 20)
    assert abs(ys.mean() - height / 2) < 12 and abs(xs.mean() - width / 2) < 12


def test_several_sound_tracks_subtitles_chapters_and_metadata_go_along(
    tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    (tmp_path / "s.srt").write_text("1\n00:00:00,200 --> 00:00:01,000\nHello\n")
    (tmp_path / "meta").write_text(
        ";FFMETADATA1\ntitle=A title\nartist=Somebody\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=700\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=700\nEND=1600\ntitle=Two\n"
    )
    source = tmp_path / "in.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=192x144:rate=25:duration=1.6",
        "-f", "lavfi", "-i", "sine=440:duration=1.6", "-f", "lavfi", "-i", "sine=880:duration=1.6",
        "-i", tmp_path / "s.srt", "-i", tmp_path / "meta", "-map", 0, "-map", 1, "-map", 2, "-map", 3,
        "-map_metadata", 4, "-map_chapters", 4, "-c:v", "libx264",
        "-preset", "ultrafast", "-c:a:0", "aac", "-c:a:1", "flac", "-c:s", "srt",
        "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", source,
    )  # fmt: skip
    edit_clip(source, tmp_path / "out.mkv", provenance=False)
    before, after = facts(source), facts(tmp_path / "out.mkv")
    assert [one["codec_name"] for one in after.streams] == ["h264", "aac", "flac", "subrip"]
    for select in ("a:0", "a:1", "s:0"):
        assert after.packets(select) == before.packets(select), select
    assert [one["tags"]["language"] for one in after.of("audio")] == ["eng", "deu"]
    assert [one["tags"]["title"] for one in after.chapters] == ["One", "Two"]
    assert [one["start_time"] for one in after.chapters] == [one["start_time"] for one in before.chapters]
    tags = {key.lower(): value for key, value in after.format["tags"].items()}
    assert (tags["title"], tags["artist"]) == ("A title", "Somebody")


def test_colour_description_and_pixel_aspect_are_kept(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    source = make(
        ffmpeg, tmp_path / "in.mp4", "-an", "-vf", "setsar=16/15", "-pix_fmt", "yuv420p10le",
        "-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv",
        seconds=0.4,
    )  # fmt: skip
    result = edit_clip(source, tmp_path / "out.mp4")
    before, after = facts(source).video, facts(tmp_path / "out.mp4").video
    for key in ("pix_fmt", "color_primaries", "color_transfer", "color_space", "color_range", "sample_aspect_ratio"):
        assert after[key] == before[key], key
    assert any("dynamic range" in note for note in result.notes)


def test_odd_sizes_are_padded_and_said_or_kept_by_a_codec_that_can(
    tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    source = make(
        ffmpeg, tmp_path / "in.mkv", "-c:v", "ffv1", "-vf", "scale=191:143", "-pix_fmt", "yuv420p", "-an", seconds=0.4
    )
    result = edit_clip(source, tmp_path / "out.mp4")
    assert (facts(tmp_path / "out.mp4").video["width"], facts(tmp_path / "out.mp4").video["height"]) == (192, 144)
    assert any("191x143" in note and "192x144" in note for note in result.notes)
    kept = edit_clip(source, tmp_path / "out.mkv", EncodeOptions())
    assert (facts(tmp_path / "out.mkv").video["width"], facts(tmp_path / "out.mkv").video["height"]) == (191, 143)
    assert not kept.notes


def test_a_container_that_cannot_hold_the_sound_says_what_it_did(
    tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    source = make(ffmpeg, tmp_path / "in.mp4", "-c:a", "aac", seconds=0.8)
    result = edit_clip(source, tmp_path / "out.webm", EncodeOptions(preset="8"))
    after = facts(tmp_path / "out.webm")
    assert [one["codec_name"] for one in after.streams] == ["vp9", "opus"]
    assert any("re-encoded" in note and "opus" in note and "aac" in note for note in result.notes)
    assert float(after.of("audio")[0]["start_time"]) == pytest.approx(0, abs=0.03)
    before_times, times = facts(source).frame_times(), after.frame_times()
    np.testing.assert_allclose([float(t) for t in times], [float(t) for t in before_times], atol=0.00051)


def test_the_sound_can_be_left_out(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    source = make(ffmpeg, tmp_path / "in.mp4", "-c:a", "aac", seconds=0.4)
    edit_clip(source, tmp_path / "out.mp4", audio=False)
    assert not facts(tmp_path / "out.mp4").of("audio")


def test_a_stretch_can_be_cut_out_with_its_sound_in_sync(
    tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    source = make(ffmpeg, tmp_path / "in.mp4", "-c:a", "aac", seconds=2)
    edit_clip(
        source,
        tmp_path / "out.mp4",
        first=15,
        stop=35,
        start=parse_moment("0.6s", "--start"),
        end=parse_moment("f35", "--end"),
    )
    before, after = facts(source), facts(tmp_path / "out.mp4")
    times = [float(time) for time in before.frame_times()]
    np.testing.assert_allclose([float(t) for t in after.frame_times()], np.array(times[15:35]) - times[15], atol=1e-4)
    sound = dict((digest, time) for time, digest in before.packets("a:0"))
    kept = after.packets("a:0")
    assert 0.7 < kept[-1][0] - kept[0][0] < 0.9
    for time, digest in kept:
        assert time + times[15] == pytest.approx(sound[digest], abs=2 / 44100), "the offset to the picture is the same"


def test_side_by_side_shows_the_original_on_the_left(tmp_path: Path, ffmpeg: Any, edit_clip: Any) -> None:
    source = make(ffmpeg, tmp_path / "in.mp4", "-an", seconds=0.2)
    edit_clip(source, tmp_path / "out.mp4", EncodeOptions(preset="ultrafast", crf=0, side_by_side=True))
    original = next(iter(read_frames(probe(source)))).picture
    both = next(iter(read_frames(probe(tmp_path / "out.mp4")))).picture
    assert original and both and both.size == (144, 384)
    luma = both.luma()
    assert np.array_equal(luma[:, :192], original.luma())
    assert np.abs(luma[:, 192:].astype(int) - original.luma().astype(int)).max() > 10


def test_interlaced_clips_are_said_to_be(tmp_path: Path, ffmpeg: Any, edit_clip: Any) -> None:
    source = make(
        ffmpeg,
        tmp_path / "in.mp4",
        "-an",
        "-vf",
        "interlace",
        "-flags",
        "+ildct+ilme",
        "-x264-params",
        "tff=1",
        seconds=0.4,
    )
    result = edit_clip(source, tmp_path / "out.mp4")
    assert any("interlaced" in note for note in result.notes)


def test_a_wide_smile_is_eased_along_the_timeline(tint: Any, face_in: Any, tmp_path: Path, ffmpeg: Any) -> None:
    source = make(ffmpeg, tmp_path / "in.mp4", "-an")
    edit_video(
        Session(tint, "dlib"), source, tmp_path / "out.mp4", Edit(strength=0.8),
        parse_timeline("happy@0.4s neutral@1s", ramp=0.2), VideoOptions(encode=FAST), analysis=face_in(source),
    )  # fmt: skip
    strengths = [edit.strength for edit in tint.edits]
    assert strengths[0] < 0.1 and max(strengths) == pytest.approx(0.8)
    assert all(edit.additive for edit in tint.edits)
    assert tint.edits[-1].weights == {"neutral": 1.0}
    assert len(tint.edits) < 40, "before the first key nothing is asked of the backend"
    assert tint.tracks == 1


def test_the_default_container_is_the_inputs_where_it_can_be_written(shared: Path) -> None:
    from exprtool.videos.container import output_format

    wanted = {
        "single_face.mp4": "mp4",
        "face_noface.mov": "mov",
        "grid_bbaf2n.mpg": "mp4",
        "two_people_intel.gif": "gif",
    }
    for name, container in wanted.items():
        assert output_format(probe(shared / "videos" / name), None, None) == container
