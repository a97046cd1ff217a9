"""Runs that are killed, interrupted or refused: what is finished is kept, and nothing half-written is ever seen."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from exprtool.errors import ExprtoolError, UsageError, VideoError, WriteError
from exprtool.pipeline import Session
from exprtool.timeline import parse_timeline
from exprtool.types import Edit, FacePatch, FaceRegion
from exprtool.videos.clip import probe
from exprtool.videos.edit import VideoInterrupted, VideoOptions, VideoResult, edit_video
from exprtool.videos.encoder import EncodeOptions
from exprtool.videos.private import PrivateFolder
from exprtool.videos.render import Renderer, render
from exprtool.videos.segments import Segment, SegmentWriter, StoredPacket, decoding_times
from exprtool.videos.work import WorkFolder


@pytest.fixture
def clip(ffmpeg: Callable[..., None], tmp_path: Path) -> Path:
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=192x144:rate=25:duration=4", "-f", "lavfi", "-i", "sine=440:duration=4",
        "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", tmp_path / "in.mp4",
    )  # fmt: skip
    return tmp_path / "in.mp4"


@pytest.fixture
def run(tint: Any, face_in: Any) -> Callable[..., VideoResult]:
    def edit(
        source: Path, target: Path, *, expr: str = "happy", stop: threading.Event | None = None, **options: Any
    ) -> VideoResult:
        wishes = VideoOptions(encode=EncodeOptions(preset="ultrafast"), segment_seconds=0.4, **options)
        return edit_video(
            Session(tint, "dlib"),
            source,
            target,
            Edit(),
            parse_timeline(expr),
            wishes,
            analysis=face_in(source),
            stop=stop,
        )

    return edit


def test_a_killed_run_goes_on_and_ends_in_the_same_pictures(clip: Path, tmp_path: Path, run: Any, facts: Any) -> None:
    """kill -9 three times, each time after some segments; what decodes in the end equals an uninterrupted run."""
    run(clip, tmp_path / "straight.mp4")
    target = tmp_path / "killed.mp4"
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import conftest
        from exprtool.pipeline import Session
        from exprtool.timeline import parse_timeline
        from exprtool.types import Edit, FacePatch, FaceRegion
        from exprtool.videos.edit import VideoOptions, edit_video
        from exprtool.videos.clip import probe
        from exprtool.videos.encoder import EncodeOptions
        tint = conftest.Tint()
        tint.delay = lambda: time.sleep(0.15)
        clip = Path({str(clip)!r})
        edit_video(
            Session(tint, "dlib"), clip, Path({str(target)!r}), Edit(), parse_timeline("happy"),
            VideoOptions(encode=EncodeOptions(preset="ultrafast"), segment_seconds=0.4),
            analysis=conftest.known_face(probe(clip)),
        )
        """
    )
    before = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while process.poll() is None and len(list(tmp_path.glob(".killed.mp4-*/*.seg"))) < before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = len(list(tmp_path.glob(".killed.mp4-*/*.seg")))
        assert before >= 2 and not target.exists()
    result = run(clip, target)
    assert result.resumed >= 6
    assert not list(tmp_path.glob(".*"))
    straight, killed = facts(tmp_path / "straight.mp4"), facts(target)
    assert killed.frame_hashes() == straight.frame_hashes()
    assert killed.frame_times() == straight.frame_times()
    assert killed.packets("a:0") == straight.packets("a:0")


def work_folder(output: Path) -> Path:
    found = WorkFolder.find(output)
    assert found is not None
    return found


def test_stopping_finishes_the_segment_at_work_and_says_how_to_go_on(
    clip: Path, tmp_path: Path, run: Any, tint: Any, facts: Any
) -> None:
    stop = threading.Event()
    calls = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 15:
            stop.set()

    tint.delay = interrupt
    with pytest.raises(VideoInterrupted, match="same command again") as caught:
        run(clip, tmp_path / "out.mp4", stop=stop)
    assert caught.value.resumable
    assert not (tmp_path / "out.mp4").exists()
    journal = (work_folder(tmp_path / "out.mp4") / "journal.jsonl").read_text().splitlines()
    assert len(journal) >= 3, "the header and the segments up to the one at work"
    tint.delay = lambda: None
    result = run(clip, tmp_path / "out.mp4")
    assert result.resumed == len(journal) - 1
    run(clip, tmp_path / "straight.mp4")
    assert facts(tmp_path / "out.mp4").frame_hashes() == facts(tmp_path / "straight.mp4").frame_hashes()


@pytest.fixture
def unfinished(clip: Path, tmp_path: Path, run: Any, tint: Any) -> Path:
    stop = threading.Event()
    tint.delay = stop.set
    with pytest.raises(VideoInterrupted):
        run(clip, tmp_path / "out.mp4", stop=stop)
    tint.delay = lambda: None
    return tmp_path / "out.mp4"


def test_the_same_command_goes_on_and_overwrite_begins_anew(clip: Path, unfinished: Path, run: Any) -> None:
    assert run(clip, unfinished, overwrite=True).resumed == 0
    assert WorkFolder.find(unfinished) is None


def test_an_unfinished_run_of_something_else_is_not_lost(
    clip: Path, unfinished: Path, run: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"other options.*expression.*--overwrite"):
        run(clip, unfinished, expr="sad")
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="another input"):
        run(other, unfinished)
    assert run(clip, unfinished).resumed >= 1


def test_a_run_that_failed_before_its_first_segment_is_in_nobodys_way(
    clip: Path, tmp_path: Path, run: Any, tint: Any
) -> None:
    def fail() -> None:
        raise RuntimeError("the backend is broken")

    tint.delay = fail
    with pytest.raises(RuntimeError, match="is broken"):
        run(clip, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    tint.delay = lambda: None
    assert run(clip, tmp_path / "out.mp4", expr="sad").resumed == 0


@pytest.mark.skipif(os.name != "posix", reason="links need no rights on POSIX")
@pytest.mark.parametrize("linked", ["the folder", "the journal", "a segment"])
def test_nothing_is_followed_or_deleted_that_a_run_did_not_make(
    linked: str, clip: Path, tmp_path: Path, run: Any, unfinished: Path
) -> None:
    """Folders that look like one of ours, with files or links of somebody else in them or for them."""
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("000000.seg", "journal.jsonl", "analysis.npz", "mine.txt"):
        (precious / name).write_text("not for deletion")
    kept = {path: path.read_bytes() for path in precious.iterdir()}
    ours = work_folder(unfinished)
    (tmp_path / ".out.mp4.exprtool").symlink_to(precious)  # where work folders once were
    if linked == "the folder":
        moved = ours.rename(tmp_path / "moved")
        ours.symlink_to(moved)
    elif linked == "the journal":
        (ours / "journal.jsonl").unlink()
        (ours / "journal.jsonl").symlink_to(precious / "journal.jsonl")
    else:
        (ours / "000000.seg").unlink()
        (ours / "000000.seg").symlink_to(precious / "000000.seg")
        (ours / "000000.seg.part").symlink_to(precious / "mine.txt")
    (ours / "somebody.txt").write_text("else")
    run(clip, unfinished, overwrite=True)
    assert {path: path.read_bytes() for path in precious.iterdir()} == kept
    assert (ours / "somebody.txt").read_text() == "else"
    assert (tmp_path / ".out.mp4.exprtool").is_symlink()


def test_a_damaged_segment_is_made_again(clip: Path, unfinished: Path, run: Any, facts: Any, tmp_path: Path) -> None:
    folder = work_folder(unfinished)
    segment = folder / "000000.seg"
    segment.write_bytes(segment.read_bytes()[:-5] + b"xxxxx")
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"segment": 7, "sha')  # cut off in the middle of a line
    assert run(clip, unfinished).resumed == 0
    run(clip, tmp_path / "straight.mp4")
    assert facts(unfinished).frame_hashes() == facts(tmp_path / "straight.mp4").frame_hashes()


def test_two_runs_do_not_write_one_output(clip: Path, tmp_path: Path, run: Any) -> None:
    work = WorkFolder(tmp_path / "out.mp4")
    work.open({"input": {}, "options": {}}, overwrite=False)
    with work, pytest.raises(UsageError, match="another run"):
        run(clip, tmp_path / "out.mp4", overwrite=True)


def test_a_full_disk_keeps_what_is_finished(
    clip: Path, tmp_path: Path, run: Any, facts: Any, face_in: Any, tint: Any
) -> None:
    """The system's own limit on file sizes stands in for a disk that fills up while the output is joined."""
    run(clip, tmp_path / "straight.mp4")
    size = (tmp_path / "straight.mp4").stat().st_size
    biggest = 0.6 * size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(biggest), hard))
    try:
        with pytest.raises(WriteError, match=r"out\.mp4.*(larger than is allowed|disk is full)"):
            run(clip, tmp_path / "out.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not (tmp_path / "out.mp4").exists()
    assert [path.name for path in tmp_path.glob("*.part")] == []
    result = run(clip, tmp_path / "out.mp4")
    assert result.resumed == 10
    assert facts(tmp_path / "out.mp4").frame_hashes() == facts(tmp_path / "straight.mp4").frame_hashes()


@pytest.mark.skipif(os.name != "posix", reason="permissions of folders are POSIX")
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    clip: Path, tmp_path: Path, run: Any, tint: Any
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ExprtoolError, match=r"out\.mp4"):
        run(clip, blocked / "out.mp4")
    assert tint.edits == []


def test_the_input_is_never_the_output(clip: Path, run: Any) -> None:
    before = clip.read_bytes()
    with pytest.raises(UsageError, match="input itself"):
        run(clip, clip, overwrite=True)
    assert clip.read_bytes() == before


def test_decoding_times_rise_and_are_never_late() -> None:
    display = [0, 400, 200, 100, 300, 800, 600, 500, 700, 801, 803, 802]
    times = decoding_times(display, 100)
    assert len(times) == len(display)
    assert all(a < b for a, b in itertools.pairwise(times))
    assert all(dts <= pts for dts, pts in zip(times, display, strict=True))
    assert decoding_times([5, 6, 7], 1) == [5, 6, 7]
    assert decoding_times([], 1) == []


def test_segments_give_back_what_was_put_in(tmp_path: Path) -> None:
    segment = Segment(PrivateFolder(tmp_path), "a.seg")
    packets = [StoredPacket(-5, 3, True, b"abc", b"beside"), StoredPacket(7, 2, False, b"")]
    writer = SegmentWriter(segment)
    for packet in packets:
        writer.add(packet)
    assert not (tmp_path / "a.seg").exists(), "nothing unfinished bears the name"
    writer.finish()
    assert list(segment.read()) == packets
    assert [p.pts for p in segment.read(payload=False)] == [-5, 7]
    (tmp_path / "a.seg").write_bytes((tmp_path / "a.seg").read_bytes()[:-1])
    with pytest.raises(VideoError, match="cut off"):
        list(segment.read())


def test_the_journal_is_readable_by_people(unfinished: Path) -> None:
    first = (work_folder(unfinished) / "journal.jsonl").read_text().splitlines()[0]
    header = json.loads(first)
    assert header["options"]["expression"] == [[{"happy": 1.0}, None]]
    assert len(header["input"]["sha256"]) == 64


def test_what_a_backend_sees_of_a_frame_s_neighbours_does_not_depend_on_the_segments(
    clip: Path, tint: Any, face_in: Any
) -> None:
    def watch(*ranges: range) -> list[list[int]]:
        """The frames around each one that were seen, counted from it."""
        seen: list[list[int]] = []

        class Watching(type(tint)):
            def trace(self, prepared: FaceRegion) -> int:
                return int(prepared.pixels[0, 0].sum())

            def steadied(self, prepared: FaceRegion, traces: Sequence[tuple[float, int]]) -> FaceRegion:
                assert [trace for seconds, trace in traces if seconds == 0] == [int(prepared.pixels[0, 0].sum())]
                self.around = [round(seconds * 25) for seconds, _ in traces]
                return prepared

            def generate(self, prepared: Sequence[FaceRegion], edit: Edit) -> list[FacePatch]:
                seen.append(self.around)
                return super().generate(prepared, edit)

        analysis = face_in(clip, spans=[(0, 14), (15, 39)])
        renderer = Renderer(
            Session(Watching(), "dlib"), probe(clip), analysis, parse_timeline("happy").resolved(analysis.times), Edit()
        )
        render(renderer, ranges, lambda frame, picture: None)
        return seen

    whole = watch(range(40))
    assert watch(range(10, 20), range(30, 40)) == whole[10:20] + whole[30:40]
    assert whole[0] == list(range(9)), "nothing before the first frame"
    assert whole[14] == list(range(-8, 1)) and whole[15] == list(range(9)), "nothing of another stretch"
    assert whole[30] == list(range(-8, 9))
