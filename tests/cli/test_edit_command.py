"""``exprtool edit`` as users call it: exit codes, JSON, plans, and what is left behind when something goes wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms
from typer.testing import CliRunner, Result

from exprtool import hookimpl
from exprtool.cli.main import app
from exprtool.plugins import plugged_in
from exprtool.types import BackendSpec, Detector, DetectorSpec


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """Call the command line in this process; exprtool's own errors become exit codes as in `cli.main.run`."""
    from exprtool.errors import ExprtoolError, UsageError

    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if isinstance(result.exception, ExprtoolError):
        result.exit_code = 2 if isinstance(result.exception, UsageError) else 1
    return result


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def photo(path: Path, size: tuple[int, int] = (300, 200), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(1, 255, (size[1], size[0], 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(path)
    return path


GREEN = ("--backend", "green", "--detector", "middle")


def test_one_photo_beside_itself(fakes: SimpleNamespace, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    result = run("edit", source, "-e", "surprise", *GREEN)
    assert result.exit_code == 0, result.output
    before, after = (np.asarray(Pillow.open(p)) for p in (source, tmp_path / "a-surprised.png"))
    assert (after != before).any()
    assert np.array_equal(after[:5], before[:5])


def test_folder_tree_several_expressions_and_json(fakes: SimpleNamespace, tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/sub/b.jpg")
    result = run(
        "edit", tmp_path / "in", "-e", "happy=0.5,sad=0.2", "-e", "AF", "-o", tmp_path / "out", "--json", *GREEN
    )
    assert result.exit_code == 0, result.output
    records = lines(result)
    names = [Path(record["output"]).relative_to(tmp_path / "out").as_posix() for record in records]
    assert names == ["happy0.5-sad0.2/a.png", "afraid/a.png", "happy0.5-sad0.2/sub/b.jpg", "afraid/sub/b.jpg"]
    assert all((tmp_path / "out" / name).is_file() for name in names)
    face = records[0]["faces"][0]
    assert (face["edited"], face["backend"], face["weights"]) == (True, "green", {"happy": 0.5, "sad": 0.2})
    assert {"decode", "detect", "prepare", "generate", "composite", "encode"} <= set(records[0]["timings"])


def test_one_bad_file_does_not_stop_the_others(fakes: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    photo(folder / "a.png")
    (folder / "b.jpg").write_text("not a picture")
    (folder / "c.jpg").write_bytes(b"")
    Pillow.new("RGB", (300, 200)).save(folder / "d.png")
    photo(folder / "e.png", seed=1)
    result = run("edit", folder, "-e", "sad", "-o", tmp_path / "out", "--json", *GREEN)
    assert result.exit_code == 1
    assert [(Path(r["input"]).name, r["status"]) for r in lines(result)] == [
        ("a.png", "edited"),
        ("b.jpg", "failed"),
        ("c.jpg", "failed"),
        ("d.png", "no_face"),
        ("e.png", "edited"),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "e.png"]
    for record in lines(result)[1:4]:
        assert record["input"] in result.stderr, "each failure is a line that names its file"
        assert "\n" not in record["error"]


def test_a_fault_in_a_plugin_fails_its_photo_only(fakes: SimpleNamespace, tmp_path: Path) -> None:
    photo(tmp_path / "in/big.png", (600, 500))
    photo(tmp_path / "in/small.png", (150, 140))
    result = run("edit", tmp_path / "in", "-e", "sad", "-b", "faulty", "--detector", "middle", "--json", "-v")
    assert result.exit_code == 1
    assert [record["status"] for record in lines(result)] == ["edited", "failed"]
    assert "ZeroDivisionError" in lines(result)[1]["error"]
    assert "conftest.py" in result.stderr, "-v shows where the fault lies"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-e", "hapy"], "Did you mean 'happy'"),
        (["-e", "happy", "-b", "nope"], "Known: .*green"),
        (["-e", "happy", "--detector", "nope"], "Known: .*dlib"),
        ([], "--expr"),
        (["-e", "happy", "--overwrite", "--skip-existing"], "contradict"),
        (["-e", "happy", "--set", "jawOpen=x"], "jawOpen"),
        (["-e", "happy", "--set", "nothing=1"], "Known: .*jawOpen"),
        (["-e", "happy", "--faces", "first"], "--faces"),
        (["-e", "happy", "--format", "xyz"], "xyz"),
        (["-e", "happy", "--device", "tpu"], "tpu"),
    ],
)
def test_usage_errors_write_nothing(fakes: SimpleNamespace, tmp_path: Path, arguments: list[str], words: str) -> None:
    source = photo(tmp_path / "a.png")
    defaults = [] if "-b" in arguments else ["-b", "green"]
    defaults += [] if "--detector" in arguments else ["--detector", "middle"]
    result = run("edit", source, *arguments, *defaults)
    assert result.exit_code in (1, 2)
    assert re.search(words, str(result.exception) + result.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "cuda", *GREEN), "only on cpu"),
        (("--device", "gpu", *GREEN), "Unknown device"),
        (("-b", "green", "--detector", "yunet:nowhere.onnx"), "no such file"),
        (("-b", "green", "--detector", "broken"), r"ZeroDivisionError.*detectors"),
        (("-b", "broken", "--detector", "middle"), r"ZeroDivisionError.*backends"),
        (("--report", "a.png/report", *GREEN), "part of the path is a file"),
        (("-o", "a.png/out", *GREEN), "part of the path is a file"),
    ],
)
def test_what_stops_every_photo_is_refused_once_before_the_first(
    fakes: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError("a fault in the plugin")

    class Broken:
        @hookimpl
        def register_backends(self, register: Callable[[BackendSpec], None]) -> None:
            register(BackendSpec("broken", "", fail))

        @hookimpl
        def register_detectors(self, register: Callable[[DetectorSpec], None]) -> None:
            register(DetectorSpec("broken", "", fail))

    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    with plugged_in("broken", Broken()):
        result = run("edit", "a.png", "b.png", "-e", "sad", *arguments)
    assert result.exit_code == 2
    assert re.search(words, str(result.exception))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_without_any_weights_one_clear_line_says_what_to_get_and_how(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    command = [sys.executable, "-m", "exprtool", "edit", str(source), "-e", "sad", "--backend", "blendshape"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for words in ("ict-facekit", "MIT", "exprtool models fetch", "exprtool models import", "https://"):
        assert words in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_outputs_that_exist(fakes: SimpleNamespace, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    target = tmp_path / "a-sad.png"
    target.write_bytes(b"precious")
    assert run("edit", source, "-e", "sad", *GREEN).exit_code == 2
    skipped = run("edit", source, "-e", "sad", *GREEN, "--skip-existing", "--json")
    assert (skipped.exit_code, lines(skipped)[0]["status"]) == (0, "skipped")
    assert target.read_bytes() == b"precious"
    assert run("edit", source, "-e", "sad", *GREEN, "--overwrite").exit_code == 0
    assert Pillow.open(target).size == (300, 200)


def test_dry_run_tells_the_plan_and_writes_nothing(fakes: SimpleNamespace, tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/b.png", (900, 700))
    (tmp_path / "in/c.png").write_text("no picture")
    result = run("edit", tmp_path / "in", "-e", "sad", "-b", "picky", "--detector", "middle", "--dry-run", "--json")
    plan = lines(result)
    assert plan[0]["faces"][0]["reason"] == "stands too far left"
    assert plan[1]["faces"][0]["expressions"] == ["sad"]
    assert "c.png" in plan[2]["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_dry_run_leaves_out_what_is_there_and_survives_a_fault(fakes: SimpleNamespace, tmp_path: Path) -> None:
    class Faulty(Detector):
        def detect(self, image: np.ndarray) -> list:
            raise ZeroDivisionError("a fault in the plugin")

    class Plugin:
        @hookimpl
        def register_detectors(self, register: Callable[[DetectorSpec], None]) -> None:
            register(DetectorSpec("faulty", "", lambda device, argument: Faulty()))

    source = photo(tmp_path / "a.png")
    assert run("edit", source, "-e", "sad", *GREEN).exit_code == 0
    with plugged_in("faulty", Plugin()):
        options = ("-b", "green", "--detector", "faulty", "--dry-run", "--json", "--skip-existing")
        one = lines(run("edit", source, "-e", "sad", *options))[0]
        two = lines(run("edit", source, "-e", "sad", "-e", "happy", *options))[0]
    assert (one["outputs"], one["error"], len(one["skipped"])) == ([], None, 1)
    assert [Path(name).name for name in two["outputs"]] == ["a-happy.png"]
    assert "ZeroDivisionError" in two["error"]


def test_stdin_to_stdout(fakes: SimpleNamespace, tmp_path: Path) -> None:
    import io

    source = photo(tmp_path / "a.png")
    result = run("edit", "-", "-e", "sad", "-o", "-", *GREEN, stdin=source.read_bytes())
    assert result.exit_code == 0, result.stderr
    assert Pillow.open(io.BytesIO(result.stdout_bytes)).size == (300, 200)


def test_the_picture_has_standard_output_for_itself(fakes: SimpleNamespace, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    result = run("edit", source, "-e", "sad", "-o", "-", "--json", *GREEN)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_photo_without_a_pictures_ending_keeps_its_format(fakes: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("scan", "scan.2"):
        photo(tmp_path / "a.png").rename(tmp_path / name)
    result = run("edit", tmp_path / "scan", tmp_path / "scan.2", "-e", "sad", *GREEN)
    assert result.exit_code == 0, result.output
    assert {Pillow.open(tmp_path / name).format for name in ("scan-sad", "scan-sad.2")} == {"PNG"}


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="file names are text there")
def test_json_holds_file_names_that_are_not_text(fakes: SimpleNamespace, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    result = run("edit", source, "-e", "sad", *GREEN, "--json")
    assert os.fsencode(lines(result)[0]["input"]) == os.fsencode(source)
    assert result.stdout_bytes.isascii()


def test_a_report_that_cannot_be_finished_does_not_stop_the_photos(
    fakes: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exprtool.errors import WriteError
    from exprtool.reports import gallery as report

    def full(*_: object) -> NoReturn:
        raise WriteError("the disk is full")

    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/b.png")
    monkeypatch.setattr(report.Report, "_preview", full)
    options = ("-o", tmp_path / "out", "--report", tmp_path / "report", *GREEN)
    result = run("edit", tmp_path / "in", "-e", "sad", *options)
    assert result.exit_code == 1
    assert result.stderr.count("the report is incomplete: the disk is full") == 1
    assert "2 edited" in result.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_report_shows_pictures_in_their_own_colours(fakes: SimpleNamespace, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = photo(tmp_path / "a.png")
    with Pillow.open(source) as opened:
        opened.save(tmp_path / "b.png", icc_profile=profile)
    run("edit", tmp_path / "b.png", "-e", "sad", "--report", tmp_path / "report", *GREEN)
    for name in ("00001-before.jpg", "00001-after.jpg"):
        assert Pillow.open(tmp_path / "report/pictures" / name).info["icc_profile"] == profile


def test_real_photos_are_all_reported(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("no_face.jpg", "woman1-person-group.jpg", "identification1.jpg"):
        shutil.copy(shared / "photos" / name, folder)
    result = run("edit", folder, "-e", "surprised", "-b", "debug", "--detector", "dlib", "--json")
    assert result.exit_code == 1
    by_name = {Path(record["input"]).name: record for record in lines(result)}
    assert {name: record["status"] for name, record in by_name.items()} == {
        "identification1.jpg": "edited",
        "no_face.jpg": "no_face",
        "woman1-person-group.jpg": "edited",
    }
    boxes = [face["box"][0] for face in by_name["identification1.jpg"]["faces"]]
    assert len(boxes) > 1
    assert boxes == sorted(boxes)


@pytest.fixture
def green_package(tmp_path: Path) -> dict[str, str]:
    """An environment for subprocesses in which a slow, deterministic backend is plugged in."""
    package = tmp_path / "plugin"
    (package / "slow-1.dist-info").mkdir(parents=True)
    (package / "slow-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1\n")
    (package / "slow-1.dist-info/entry_points.txt").write_text("[exprtool]\nslow = slow\n")
    (package / "slow.py").write_text(
        "import time, numpy as np\n"
        "from exprtool import hookimpl\n"
        "from exprtool.types import *\n"
        "class Slow(Backend):\n"
        "    def generate(self, prepared, edit):\n"
        "        time.sleep(0.02)\n"
        "        return [FacePatch(255 - r.pixels, np.ones(r.pixels.shape[:2], np.float32)) for r in prepared]\n"
        "class Middle(Detector):\n"
        "    def detect(self, image):\n"
        "        h, w = image.shape[:2]\n"
        "        five = np.array([[.4, .4], [.6, .4], [.5, .5], [.45, .6], [.55, .6]]) * [w, h]\n"
        "        return [Face((.3 * w, .3 * h, .7 * w, .7 * h), 1.0, five)]\n"
        "@hookimpl\n"
        "def register_backends(register):\n"
        "    register(BackendSpec('slow', 'slow', lambda device: Slow(), ('sad',)))\n"
        "@hookimpl\n"
        "def register_detectors(register):\n"
        "    register(DetectorSpec('slow', 'slow', lambda device, argument: Middle()))\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])}


def slow_edit(folder: Path, out: Path, *extra: str) -> list[str]:
    command = [sys.executable, "-m", "exprtool", "edit", str(folder), "-e", "sad", "-b", "slow", "--detector", "slow"]
    return [*command, "-o", str(out), *extra]


def test_killed_and_run_again_equals_an_uninterrupted_run(tmp_path: Path, green_package: dict[str, str]) -> None:
    folder = tmp_path / "in"
    for i in range(100):
        photo(folder / f"{i:03}.png", (60, 40), seed=i)
    subprocess.run(slow_edit(folder, tmp_path / "whole"), env=green_package, check=True, capture_output=True)
    process = subprocess.Popen(slow_edit(folder, tmp_path / "killed"), env=green_package, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "killed").glob("*.png"))) < 20:
        time.sleep(0.005)
        assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()
    assert len(list((tmp_path / "killed").glob("*.png"))) < 100
    subprocess.run(
        slow_edit(folder, tmp_path / "killed", "--skip-existing"), env=green_package, check=True, capture_output=True
    )
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir() if path.suffix == ".png"}
    assert again == whole


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signals_finish_what_is_at_work_sum_up_and_exit_with_130(
    tmp_path: Path, green_package: dict[str, str], number: signal.Signals
) -> None:
    folder = tmp_path / "in"
    for i in range(100):
        photo(folder / f"{i:03}.png", (60, 40), seed=i)
    out = tmp_path / "out"
    process = subprocess.Popen(
        slow_edit(folder, out, "--report", str(tmp_path / "report")),
        env=green_package,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts the tests in the background of a script hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    while len(list(out.glob("*.png"))) < 5:
        time.sleep(0.005)
        assert process.poll() is None, "the run ended before it could be interrupted"
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "interrupted" in message
    assert "Traceback" not in message
    done = list(out.iterdir())
    assert 5 <= len(done) < 100
    for path in done:
        Pillow.open(path).load()
    assert f"interrupted: {len(done)} edited ({len(done)} faces), {100 - len(done)} not reached." in message
    assert (tmp_path / "report" / "index.html").read_text("utf-8").count("<article") == len(done)
