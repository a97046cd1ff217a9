"""`exprtool video` and `exprtool animate` as users run them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow


def run(*arguments: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exprtool", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **more)


@pytest.fixture(scope="module")
def clip(shared: Path, ffmpeg: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of a real clip, with its sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ffmpeg("-i", shared / "videos" / "single_face.mp4", "-t", 0.5, "-c", "copy", path)
    return path


def test_a_clip_is_edited_reported_and_previewed(clip: Path, tmp_path: Path, facts: Any) -> None:
    shutil.copy(clip, tmp_path / "clip.mp4")
    done = run(
        "video",
        "clip.mp4",
        "-e",
        "happy",
        "-e",
        "sad@0.1s",
        "-b",
        "debug",
        "--json",
        "--report",
        "r",
        "--preset",
        "ultrafast",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["output"] for record in records] == ["clip-happy.mp4", "clip-sad.mp4"]
    assert [record["status"] for record in records] == ["edited", "edited"]
    happy, sad = records
    assert happy["frames"] == sad["frames"] == len(facts(clip).frame_times())
    assert happy["edited_frames"] == happy["frames"] > sad["edited_frames"] > 0
    assert happy["faces"][0]["edited"] and happy["faces"][0]["spans"] == [[0, happy["frames"] - 1]]
    for name in ("clip-happy.mp4", "clip-sad.mp4"):
        assert facts(tmp_path / name).frame_times() == facts(clip).frame_times()
        assert facts(tmp_path / name).packets("a:0") == facts(clip).packets("a:0")
        assert "exprtool" in facts(tmp_path / name).format["tags"]["comment"]
    assert (tmp_path / "r" / "index.html").exists()
    assert not list(tmp_path.glob(".*exprtool")), "no work folder is left"

    again = run("video", "clip.mp4", "-e", "happy", "-b", "debug", cwd=tmp_path)
    assert again.returncode == 2 and "--overwrite" in again.stderr

    sheet = run("video", "clip.mp4", "-e", "happy", "-b", "debug", "--preview", 3, "-o", "sheet.png", cwd=tmp_path)
    assert sheet.returncode == 0, sheet.stderr
    with Pillow.open(tmp_path / "sheet.png") as image:
        pixels = np.array(image)
    assert pixels.shape[1] == 3 * 368 and pixels.std() > 20
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["clip-happy.mp4", "clip-sad.mp4", "clip.mp4"]


def test_a_clip_becomes_a_gif(clip: Path, tmp_path: Path) -> None:
    done = run(
        "video", clip, "-e", "happy", "-b", "debug", "--format", "gif", "--end", "f8", "-o", tmp_path, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with Pillow.open(tmp_path / "clip.gif") as gif:
        assert gif.n_frames == 8  # type: ignore[attr-defined]
        assert gif.size == (640, 360)


def test_a_folder_keeps_its_names_and_one_bad_clip_does_not_stop_the_rest(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    shutil.copy(clip, tmp_path / "in" / "deep" / "good.mp4")
    (tmp_path / "in" / "bad.mov").write_bytes(b"no clip")
    done = run("video", "in", "-e", "happy", "-b", "debug", "--end", "f4", "-o", "out", "--json", cwd=tmp_path)
    assert done.returncode == 1
    status = {record["input"]: record["status"] for record in map(json.loads, done.stdout.splitlines())}
    assert status == {"in/bad.mov": "failed", "in/deep/good.mp4": "edited"}
    assert (tmp_path / "out" / "deep" / "good.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-e", "hapy"], "happy"),
        (["-e", "happy@1s sad"], "give every expression its time"),
        ([], "Name the wanted expression"),
        (["-e", "happy", "--codec", "nope"], "libx264"),
        (["-e", "happy", "--start", "x"], "cannot read the time"),
        (["-e", "happy", "--format", "avi"], "mkv"),
        (["-e", "happy", "-o", "out.avi"], ".avi"),
    ],
)
def test_wrong_requests_are_refused_with_what_is_known(
    arguments: list[str], says: str, clip: Path, tmp_path: Path
) -> None:
    done = run("video", clip, "-b", "debug", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_a_run_without_leaving_anything_half_done(shared: Path, tmp_path: Path) -> None:
    """What happens to segments is tested in test_resume; here, that the signal arrives and is answered."""
    source = shared / "videos" / "talking_man_pexels.mp4"
    command = [sys.executable, "-m", "exprtool", "video", str(source), "-e", "happy", "-b", "debug", "-o", "out.mp4"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob(".out.mp4*/journal.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130, said
    assert "interrupted" in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_photo_comes_alive(tmp_path: Path) -> None:
    portrait = Path(__file__).parents[2] / "examples" / "astronaut.jpg"
    done = run(
        "animate",
        portrait,
        "-e",
        "happy@0.2s",
        "-b",
        "debug",
        "--seconds",
        1,
        "--fps",
        10,
        "--max-side",
        200,
        "-o",
        "a.gif",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["frames"] == 10
    with Pillow.open(tmp_path / "a.gif") as gif:
        frames = []
        for i in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(i)
            frames.append(np.array(gif.convert("RGB")).astype(int))
            assert gif.info["duration"] == 100
    assert max(frames[0].shape[:2]) == 200
    assert np.abs(frames[0] - frames[-1]).max() > 40, "the face was edited"
    again = run("animate", portrait, "-e", "happy", "-b", "debug", "-o", "a.gif", cwd=tmp_path)
    assert again.returncode == 2 and "--overwrite" in again.stderr
