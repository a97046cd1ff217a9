"""Clips as people have them: odd streams, clocks and names, transparency, HDR; what is lost is said."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from exprtool import provenance
from exprtool.errors import VideoError
from exprtool.pipeline import Session
from exprtool.timeline import parse_timeline
from exprtool.types import Edit
from exprtool.videos.analysis import Analysis
from exprtool.videos.clip import probe
from exprtool.videos.edit import VideoOptions, VideoResult, edit_video
from exprtool.videos.encoder import EncodeOptions, find_encoder
from exprtool.videos.reader import read_frames

FAST = EncodeOptions(preset="ultrafast")
MOVING = ("-f", "lavfi", "-i", "testsrc2=size=192x144:rate=25:duration=1")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1")
X264 = ("-c:v", "libx264", "-preset", "ultrafast")
HAPPY = parse_timeline("happy")


@pytest.fixture
def edit_clip(tint: Any, face_in: Callable[..., Analysis]) -> Callable[..., VideoResult]:
    def run(source: Path, target: Path, encode: EncodeOptions = FAST, **options: Any) -> VideoResult:
        wishes = VideoOptions(encode=encode, segment_seconds=0.5, **options)
        return edit_video(Session(tint, "dlib"), source, target, Edit(), HAPPY, wishes, analysis=face_in(source))

    return run


def kinds(facts: Any) -> list[str]:
    return [stream["codec_type"] for stream in facts.streams]


def said(result: VideoResult, *words: str) -> bool:
    return any(all(word in note for word in words) for note in result.notes)


# -- streams without a codec ------------------------------------------------------------------------------------------


def test_a_time_code_is_kept(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    ffmpeg(*MOVING, "-timecode", "00:59:58:12", *X264, tmp_path / "in.mov")
    assert not edit_clip(tmp_path / "in.mov", tmp_path / "out.mov").notes
    after = facts(tmp_path / "out.mov")
    assert kinds(after) == ["video", "data"]
    assert after.streams[1]["codec_tag_string"] == "tmcd" and after.streams[1]["tags"]["timecode"] == "00:59:58:12"


def test_the_text_track_of_chapters_is_written_once(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    (tmp_path / "meta").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=900\ntitle=One\n")
    ffmpeg(*MOVING, "-i", tmp_path / "meta", "-map", 0, "-map_chapters", 1, *X264, tmp_path / "in.mp4")
    assert kinds(facts(tmp_path / "in.mp4")) == ["video", "data"]
    assert not edit_clip(tmp_path / "in.mp4", tmp_path / "out.mp4").notes
    after = facts(tmp_path / "out.mp4")
    assert kinds(after) == ["video", "data"] and [one["tags"]["title"] for one in after.chapters] == ["One"]


@pytest.mark.parametrize(
    ("source", "target"), [("in.mov", "out.mov"), ("empty.mov", "out.mov"), ("in.mov", "out.mkv"), ("in.ts", "out.mp4")]
)
def test_data_streams_are_carried_or_named(
    source: str, target: str, tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(bytes(range(64)))
    tag = [] if source == "in.ts" else ["-tag:d", "gpmd"]
    made = tmp_path / source.replace("in.mov", "empty.mov")
    ffmpeg(*MOVING, "-f", "data", "-i", blob, "-map", 0, "-map", 1, *X264, "-c:d", "copy", *tag, "-copy_unknown", made)
    if source == "in.mov":
        with_packets(made, tmp_path / source)
    assert "data" in kinds(facts(tmp_path / source))
    result = edit_clip(tmp_path / source, tmp_path / target)
    after = facts(tmp_path / target)
    carried = (source, target) == ("in.mov", "out.mov")
    assert ("data" in kinds(after)) == carried != said(result, "data stream 1", "left out")
    if carried:
        assert after.packets("d:0") == facts(tmp_path / source).packets("d:0")


def with_packets(template: Path, path: Path) -> None:
    """Give a data track, which the ffmpeg command writes with a single packet of no duration, four of 0.25 s."""
    import av

    with av.open(str(template)) as source, av.open(str(path), "w", format="mov") as out:
        picture, data = (out.add_stream_from_template(stream) for stream in source.streams)
        for packet in source.demux(source.streams[0]):
            if packet.size:
                packet.stream = picture
                out.mux(packet)
        quarter = source.streams[1].time_base.denominator // 4
        for i in range(4):
            packet = av.Packet(bytes(range(i, 64)))
            packet.stream, packet.time_base, packet.duration = data, source.streams[1].time_base, quarter
            packet.pts = packet.dts = i * quarter
            out.mux(packet)


def test_fonts_and_covers_of_matroska_stay_attachments(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    font, cover = tmp_path / "a.ttf", tmp_path / "cover.jpg"
    font.write_bytes(bytes(range(256)))
    Pillow.new("RGB", (60, 40), (200, 30, 30)).save(cover)
    ffmpeg(
        *MOVING, "-attach", font, "-metadata:s:1", "mimetype=application/x-truetype-font", "-attach", cover,
        "-metadata:s:2", "mimetype=image/jpeg", "-metadata:s:2", "filename=front.jpg", *X264, tmp_path / "in.mkv",
    )  # fmt: skip
    result = edit_clip(tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert said(result, "cover picture was kept")
    data = (tmp_path / "out.mkv").read_bytes()
    attachments = data[data.index(bytes.fromhex("1941a469")) :]
    assert font.read_bytes() in attachments and cover.read_bytes() in attachments and b"front.jpg" in attachments
    tracks = [one for one in facts(tmp_path / "out.mkv").of("video") if not one["disposition"]["attached_pic"]]
    assert len(tracks) == 1
    result = edit_clip(tmp_path / "in.mkv", tmp_path / "out.mp4")
    assert said(result, "attachment stream 1", "left out") and said(result, "cover picture was kept")
    assert facts(tmp_path / "out.mp4").of("video")[1]["disposition"]["attached_pic"]


# -- clocks and ends --------------------------------------------------------------------------------------------------


def still_and_hold(path: Path) -> list[int]:
    """A GIF of four frames, the last of which is shown for three seconds."""
    frames = [Pillow.fromarray(np.full((144, 192, 3), 40 * i + 20, np.uint8)) for i in range(4)]
    durations = [100, 100, 40, 3000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return durations


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "gif", "webp", "png"])
def test_the_last_frame_is_shown_as_long_as_it_was(ending: str, tmp_path: Path, edit_clip: Any, facts: Any) -> None:
    durations = still_and_hold(tmp_path / "in.gif")
    first, again = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    encode = EncodeOptions(preset="8" if ending == "webm" else "ultrafast")
    edit_clip(tmp_path / "in.gif", first, encode)
    edit_clip(first, again, encode)
    for path in (first, again):
        info = probe(path)
        shown = [round(1000 * float(one.duration * info.time_base)) for one in read_frames(info)]
        assert shown == durations, path
        if ending in ("mp4", "mkv", "webm"):
            assert float(facts(path).format["duration"]) == pytest.approx(3.24, abs=0.002)


def test_frames_before_a_cut_off_end_all_come_out(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    whole = tmp_path / "whole.mp4"
    ffmpeg(*MOVING, "-c:v", "libx264", "-preset", "medium", "-bf", 3, "-movflags", "frag_every_frame+empty_moov", whole)
    source = tmp_path / "in.mp4"
    source.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    wanted = subprocess.run(
        ["ffmpeg", "-v", "quiet", "-i", source, "-fps_mode", "passthrough", "-f", "framemd5", "-"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    decoded = sum(not line.startswith("#") for line in wanted.stdout.splitlines())
    result = edit_clip(source, tmp_path / "out.mp4")
    assert 5 < decoded <= result.frames <= decoded + 1
    assert result.frames == decoded or said(result, "did not decode")
    assert len(facts(tmp_path / "out.mp4").frame_times()) == result.frames


def test_a_clock_that_restarts_goes_on_with_its_sound(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    ffmpeg(*MOVING, *SOUND, *X264, "-bf", 2, "-c:a", "aac", tmp_path / "one.ts")
    source = tmp_path / "in.ts"
    source.write_bytes(2 * (tmp_path / "one.ts").read_bytes())
    result = edit_clip(source, tmp_path / "out.mp4")
    assert said(result, "clock jumps once")
    after, once = facts(tmp_path / "out.mp4"), facts(tmp_path / "one.ts")
    times = np.array(after.frame_times(), float)
    assert len(times) == 50
    np.testing.assert_allclose(np.diff(times), 0.04, atol=0.002)
    sound, before = after.packets("a:0"), once.packets("a:0")
    assert len(sound) == 2 * len(before) or len(sound) == 2 * len(before) - 1
    second = [time for time, _ in sound[len(before) :]]
    lag = before[0][0] - float(once.frame_times()[0])
    assert second[0] - times[25] == pytest.approx(lag, abs=0.03), "sound and picture of the second part begin together"


@pytest.mark.parametrize("ending", ["ts", "flv"])
def test_a_clip_whose_clock_was_running_begins_at_zero(
    ending: str, tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    source = tmp_path / f"in.{ending}"
    ffmpeg(*MOVING, *SOUND, *X264, "-c:a", "aac", "-output_ts_offset", 36000, source)
    before = facts(source)
    assert float(before.video["start_time"]) > 30000
    result = edit_clip(source, tmp_path / "out.mp4")
    after = facts(tmp_path / "out.mp4")
    assert said(result, "begins at zero")
    assert 0 <= float(after.video["start_time"]) < 0.2
    assert float(after.format["duration"]) < 1.3
    assert after.offset() == pytest.approx(before.offset(), abs=0.001)


# -- what pictures and sound are made of ------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "pix_fmt", "ending"), [("libvpx-vp9", "yuva420p", "webm"),
                                                          ("prores_ks", "yuva444p10le", "mov"),
                                                          ("ffv1", "yuva420p", "mkv")])  # fmt: skip
def test_transparency_is_kept_where_the_codec_can(
    codec: str, pix_fmt: str, ending: str, tmp_path: Path, ffmpeg: Any, edit_clip: Any
) -> None:
    source = tmp_path / f"in.{ending}"
    fading = "format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='255*X/W'"
    ffmpeg("-t", 0.2, *MOVING, "-vf", fading, "-c:v", codec, "-pix_fmt", pix_fmt, source)
    result = edit_clip(source, tmp_path / f"out.{ending}", EncodeOptions())
    assert not said(result, "transparency")
    for path in (source, tmp_path / f"out.{ending}"):
        frame = next(iter(read_frames(probe(path)))).picture.frame()  # type: ignore[union-attr]
        alpha = np.asarray(frame.reformat(format="rgba").to_ndarray())[..., 3]
        ramp = np.linspace(0, 255, 192)
        assert np.abs(alpha.mean(axis=0) - ramp).max() < 6, path
    result = edit_clip(source, tmp_path / "out.mp4", EncodeOptions(codec="h264"))
    assert said(result, "cannot store transparency")
    assert b"alpha_mode" not in (tmp_path / "out.mp4").read_bytes()


def test_rgb_stays_rgb_or_is_said_not_to(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    source = tmp_path / "in.mkv"
    ffmpeg("-t", 0.2, *MOVING, "-c:v", "libx264rgb", "-qp", 0, source)
    assert not said(edit_clip(source, tmp_path / "out.mkv", EncodeOptions(crf=0)), "stored")
    assert facts(tmp_path / "out.mkv").video["pix_fmt"] == facts(source).video["pix_fmt"] == "gbrp"
    old, new = (next(iter(read_frames(probe(path)))).picture.rgb() for path in (source, tmp_path / "out.mkv"))  # type: ignore[union-attr]
    assert np.array_equal(old[:20], new[:20])
    assert said(edit_clip(source, tmp_path / "out.mp4", EncodeOptions(codec="h264")), "RGB", "yuv420p")


def test_hdr10_keeps_its_codec_and_its_figures(tmp_path: Path, ffmpeg: Any, edit_clip: Any, ffprobe: Any) -> None:
    try:
        find_encoder("h265")
    except Exception:
        pytest.skip("this build of FFmpeg has no encoder of H.265")
    source = tmp_path / "in.mp4"
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    ffmpeg(
        "-t", 0.2, *MOVING, "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1",
        "-x265-params", f"log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1:"
        f"master-display={display}:max-cll=1000,400", source,
    )  # fmt: skip
    result = edit_clip(source, tmp_path / "out.mp4")
    assert said(result, "high dynamic range")

    def described(path: Path) -> tuple[Any, ...]:
        found = ffprobe(path, "-show_streams", "-show_frames", "-read_intervals", "%+#1", "-select_streams", "v:0")
        light = [one for one in found["frames"][0]["side_data_list"] if "metadata" in one["side_data_type"]]
        stream = found["streams"][0]
        names = ("codec_name", "codec_tag_string", "pix_fmt", "color_transfer", "color_primaries", "color_space")
        return light, {name: stream[name] for name in names}

    assert described(tmp_path / "out.mp4") == described(source)
    assert len(described(source)[0]) == 2
    assert said(edit_clip(source, tmp_path / "out.webm", EncodeOptions()), "hevc", "vp9")


@pytest.mark.parametrize("channels", [1, 3])
def test_sound_of_an_unnamed_layout_is_re_encoded(
    channels: int, tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any
) -> None:
    source = tmp_path / "in.avi"
    spread = "|".join([f"{channels}C", *(f"c{i}=c0" for i in range(channels))])
    ffmpeg(*MOVING, *SOUND, "-af", f"pan={spread}", *X264, "-c:a", "pcm_s16le", source)
    result = edit_clip(source, tmp_path / "out.webm", EncodeOptions(codec="vp8"))
    assert said(result, "audio stream 1", "re-encoded as libopus")
    sound = facts(tmp_path / "out.webm").of("audio")[0]
    assert (sound["codec_name"], sound["channels"]) == ("opus", channels)


def test_the_users_own_words_and_tags_are_kept(tmp_path: Path, ffmpeg: Any, edit_clip: Any, facts: Any) -> None:
    source = tmp_path / "in.mp4"
    tags = {"comment": "my own words", "title": "T", "com.apple.quicktime.make": "Apple"}
    given = [part for name, text in tags.items() for part in ("-metadata", f"{name}={text}")]
    ffmpeg("-t", 0.2, *MOVING, *X264, *given, "-movflags", "use_metadata_tags", source)
    assert not edit_clip(source, tmp_path / "once.mp4").notes
    edit_clip(tmp_path / "once.mp4", tmp_path / "twice.mkv")
    for name, edits in (("once.mp4", 1), ("twice.mkv", 2)):
        found = {key.lower(): text for key, text in facts(tmp_path / name).format["tags"].items()}
        assert {key: found.get(key) for key in tags} == tags
        assert len(provenance.read(tmp_path / name).edits) == edits


# -- names, permissions, records, and what goes wrong -----------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait(ffmpeg: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of the example portrait."""
    path = tmp_path_factory.mktemp("portrait") / "in.mp4"
    example = Path(__file__).parents[2] / "examples" / "astronaut.jpg"
    ffmpeg("-loop", 1, "-i", example, "-vf", "scale=256:-2", "-frames:v", 4, *X264, "-pix_fmt", "yuv420p", path)
    return path


def command(*words: object) -> Any:
    from exprtool.cli.main import app

    return CliRunner().invoke(app, [str(word) for word in words])


def test_names_are_names_of_files_and_may_be_long(
    portrait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "n" * 236 + ".mp4"
    for name in ("12:30 interview.mp4", long):
        Path(name).write_bytes(portrait.read_bytes())
    done = command(
        "video", "12:30 interview.mp4", long, "-e", "happy", "-b", "debug", "--preset", "ultrafast", "-o", "o"
    )
    assert done.exit_code == 0, done.output
    assert sorted(os.listdir("o")) == ["12:30 interview.mp4", long]  # noqa: PTH208


def test_a_playlist_is_no_clip(portrait: Path, tmp_path: Path) -> None:
    listing = tmp_path / "in.mp4"
    listing.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{portrait}\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="cannot be read as a video"):
        probe(listing)
    listing.write_text(f"ffconcat version 1.0\nfile '{portrait}'\n")
    with pytest.raises(VideoError, match="cannot be read as a video"):
        probe(listing)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), AttributeError("no such thing"), MemoryError()]
)
def test_one_clip_never_stops_another(
    error: Exception, portrait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exprtool.videos.work import WorkFolder

    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "in" / name).write_bytes(portrait.read_bytes())
    begin = WorkFolder.open

    def full(work: WorkFolder, *arguments: Any, **options: Any) -> bool:
        if work.output.name == "a.mp4":
            raise error
        return begin(work, *arguments, **options)

    monkeypatch.setattr(WorkFolder, "open", full)
    arguments = (
        "video",
        tmp_path / "in",
        "-e",
        "happy",
        "-b",
        "debug",
        "--preset",
        "ultrafast",
        "-o",
        tmp_path / "out",
    )
    done = command(*arguments)
    assert done.exit_code == 1
    assert "a.mp4" in done.output and "Traceback" not in done.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.mp4"]
    monkeypatch.setattr(WorkFolder, "open", begin)
    assert command(*arguments, "--skip-existing").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("ending", ["mp4", "gif", "webp", "png"])
def test_every_output_has_its_record_and_its_inputs_permissions(ending: str, portrait: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.mp4", tmp_path / f"out.{ending}"
    source.write_bytes(portrait.read_bytes())
    source.chmod(0o4640)
    os.utime(source, (1e9, 1e9))
    done = command("video", source, "-e", "happy", "-b", "debug", "-o", out, "--keep-times")
    assert done.exit_code == 0, done.output
    moved = tmp_path / f"moved.{ending}"
    photo = Path(__file__).parents[2] / "examples" / "astronaut.jpg"
    quick = ("-b", "debug", "--seconds", 0.12, "--max-side", 256)
    done = command("animate", photo, "-e", "happy@0s", *quick, "-o", moved)
    assert done.exit_code == 0, done.output
    for path in (out, moved):
        (record,) = provenance.read(path).edits
        assert record.backend == "debug", path
    found = out.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert found.st_mtime == 1e9
    done = command("video", source, "-e", "happy", "-b", "debug", "-o", out, "--overwrite", "--no-provenance")
    assert done.exit_code == 0 and not provenance.read(out).edits


def test_a_preview_and_a_sheet_have_their_records(portrait: Path, tmp_path: Path) -> None:
    for name in ("p.jpg", "p.png"):
        done = command("video", portrait, "-e", "happy", "-b", "debug", "--preview", 2, "-o", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert provenance.read(tmp_path / name).edits[0].weights == {"happy": 1.0}


def test_gif_keeps_the_colours_of_what_was_not_edited(tmp_path: Path, edit_clip: Any) -> None:
    random = np.random.default_rng(0)
    table = random.integers(0, 256, (200, 3), np.uint8)
    scene = table[random.integers(0, 200, (144, 192))]
    frames = [Pillow.fromarray(np.roll(scene, 3 * i, axis=1)) for i in range(3)]
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=80, loop=2)
    edit_clip(tmp_path / "in.gif", tmp_path / "out.gif")
    with Pillow.open(io.BytesIO((tmp_path / "out.gif").read_bytes())) as gif:
        assert gif.info["loop"] == 2
        for i, frame in enumerate(frames):
            gif.seek(i)
            same = (np.array(gif.convert("RGB")) == np.array(frame)).all(axis=2)
            assert same[:, :30].all() and same[:, -30:].all() and not same.all()


def test_one_clip_does_not_depend_on_the_one_before(portrait: Path, tmp_path: Path, ffmpeg: Any, facts: Any) -> None:
    other = tmp_path / "other.mp4"
    ffmpeg("-i", portrait, "-vf", "hflip,eq=brightness=0.1", *X264, other)
    wishes = VideoOptions(encode=EncodeOptions(codec="ffv1"), format="mkv")
    alone, after = tmp_path / "alone.mkv", tmp_path / "after.mkv"
    edit_video(Session("default"), portrait, alone, Edit(), HAPPY, wishes)
    session = Session("default")
    edit_video(session, other, tmp_path / "other.mkv", Edit(), HAPPY, wishes)
    edit_video(session, portrait, after, Edit(), HAPPY, wishes)
    assert facts(alone).frame_hashes() == facts(after).frame_hashes()
    assert facts(alone).frame_hashes() != facts(portrait).frame_hashes()


def test_an_encoder_gives_the_same_bits_while_the_machine_is_busy(tmp_path: Path, ffmpeg: Any) -> None:
    """x264's AVX-512 routines did not; `benchmarks/same_bits.py` asks this of whole edits for longer."""
    from exprtool.videos.encoder import StretchEncoder, plan_encoding

    source = tmp_path / "in.mp4"
    ffmpeg(*MOVING, *X264, source)
    info = probe(source)
    plan = plan_encoding(info, EncodeOptions(), "mp4")
    busy = threading.Event()

    def load() -> None:
        while not busy.is_set():
            np.linalg.svd(np.ones((60, 60)))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        made = set()
        for _ in range(4):
            encoder = StretchEncoder(plan)
            packets = [
                bytes(packet)
                for frame in read_frames(info)
                if frame.picture is not None
                for packet in encoder.encode(frame.picture, frame.pts, frame.duration)
            ]
            made.add(b"".join([*packets, *(bytes(packet) for packet in encoder.finish())]))
    finally:
        busy.set()
        for thread in threads:
            thread.join()
    assert len(made) == 1
