"""What becomes of photos in which nothing is edited, of what stands beside them, and of large ones."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

from exprtool.cli.main import app
from exprtool.errors import ModelError, NotReadyError, UsageError
from exprtool.memory import Closed, PixelBudget, parse_pixels
from exprtool.wording import told_apart

PICKY = ("-e", "sad", "--backend", "picky", "--detector", "middle")


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, UsageError):
        result.exit_code = 2
    return result


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def photo(path: Path, size: tuple[int, int] = (300, 200)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(1, 255, (size[1], size[0], 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(path)
    return path


@pytest.fixture
def mixed(tmp_path: Path, fakes: SimpleNamespace) -> Path:
    """A folder with a photo that `picky` edits, one that it refuses, and one without a face."""
    photo(tmp_path / "in/edited.png", (1200, 700))
    photo(tmp_path / "in/sub/refused.png")
    return tmp_path / "in"


def test_a_refusal_is_no_failure_unless_strict(mixed: Path, tmp_path: Path) -> None:
    result = run("edit", mixed, *PICKY, "--json", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    refused = lines(result)[1]
    assert (refused["status"], refused["output"]) == ("refused", None)
    assert "stands too far left" in refused["error"] and refused["faces"][0]["reason"] == "stands too far left"
    assert "1 edited (1 face), 1 left as they are" in result.stderr and "refused.png" in result.stderr
    assert run("edit", mixed, *PICKY, "-o", tmp_path / "again", "--strict").exit_code == 1
    Pillow.new("RGB", (300, 200)).save(mixed / "none.png")
    assert run("edit", mixed, *PICKY, "-o", tmp_path / "third").exit_code == 1, "no face at all is still a failure"


def test_too_small_and_not_asked_for_are_refusals(mixed: Path, tmp_path: Path) -> None:
    for options in (("--min-face", "5000"), ("--faces", "7")):
        result = run("edit", mixed, *PICKY, *options, "--json", "-o", tmp_path / "out")
        assert (result.exit_code, {record["status"] for record in lines(result)}) == (0, {"refused"})


def test_keep_copies_what_is_not_edited(mixed: Path, tmp_path: Path) -> None:
    Pillow.new("RGB", (300, 200)).save(mixed / "none.png")
    result = run("edit", mixed, *PICKY, "--json", "--keep", "-o", tmp_path / "out")
    assert result.exit_code == 1
    by_name = {Path(record["input"]).name: record for record in lines(result)}
    for name in ("sub/refused.png", "none.png"):
        assert (tmp_path / "out" / name).read_bytes() == (mixed / name).read_bytes()
        assert by_name[Path(name).name]["output"] == str(tmp_path / "out" / name)
    assert (tmp_path / "out/edited.png").read_bytes() != (mixed / "edited.png").read_bytes()
    run("edit", mixed, *PICKY, "--keep", "--format", "webp", "-o", tmp_path / "webp")
    with Pillow.open(tmp_path / "webp/sub/refused.webp") as copy:
        assert copy.format == "WEBP"
        assert np.array_equal(np.asarray(copy.convert("RGB")), np.asarray(Pillow.open(mixed / "sub/refused.png")))


def test_the_person_who_is_not_there(shared: Path, tmp_path: Path) -> None:
    group, stranger = shared / "photos/test-image-person-group.jpg", shared / "photos/Family1-Dad1.jpg"
    result = run(
        *("edit", group, "-e", "sad", "-b", "debug", "--person", stranger, "--similarity", "0.99"),
        *("--json", "-o", tmp_path / "out.jpg"),
    )
    record = lines(result)[0]
    assert (result.exit_code, record["status"]) == (0, "refused"), record
    assert record["error"].count("best similarity") == 1 and "0.99 is needed" in record["error"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_outputs_take_their_inputs_permissions_and_on_request_times(mixed: Path, tmp_path: Path) -> None:
    for name, mode in (("edited.png", 0o4600), ("sub/refused.png", 0o640)):
        (mixed / name).chmod(mode)
        os.utime(mixed / name, ns=(10**18, 12 * 10**17))
    run("edit", mixed, *PICKY, "--keep", "--keep-times", "-o", tmp_path / "a")
    run("edit", mixed, *PICKY, "--keep", "-o", tmp_path / "b")
    for name, mode in (("edited.png", 0o600), ("sub/refused.png", 0o640)):
        for folder in ("a", "b"):
            assert stat.S_IMODE((tmp_path / folder / name).stat().st_mode) == mode
        assert (tmp_path / "a" / name).stat().st_mtime_ns == 12 * 10**17
        assert (tmp_path / "b" / name).stat().st_mtime_ns > 12 * 10**17


def test_what_is_passed_over_in_a_folder_is_counted(mixed: Path, tmp_path: Path) -> None:
    for name in ("a.jxl", "b.jxl", "sub/c.DNG", "scan", "edited.png.provenance.json", ".hidden.jxl"):
        (mixed / name).write_bytes(b"x")
    summary = run("edit", mixed, *PICKY, "-o", tmp_path / "out").stderr.splitlines()[-1]
    assert summary.endswith("Passed over: 2 .jxl, 1 without an ending, 1 .dng.")


def test_a_photo_beyond_the_limit_is_refused_before_it_is_decoded(mixed: Path, tmp_path: Path) -> None:
    result = run("edit", mixed, *PICKY, "--max-pixels", "0.5M", "--json", "-o", tmp_path / "out")
    by_name = {Path(record["input"]).name: record for record in lines(result)}
    assert result.exit_code == 1 and by_name["edited.png"]["status"] == "failed"
    assert "1 megapixels" in by_name["edited.png"]["error"] and "--max-pixels" in by_name["edited.png"]["error"]
    assert "decode" in by_name["edited.png"]["timings"] and by_name["refused.png"]["status"] == "refused"
    assert run("edit", mixed, *PICKY, "--max-pixels", "many").exit_code == 2
    assert [parse_pixels(text) for text in ("50000000", "50M", "0.05gp")] == [50_000_000] * 3


def test_photos_that_fill_the_budget_go_one_by_one(fakes: SimpleNamespace, tmp_path: Path) -> None:
    """Each photo is as large as the limit, and there are more of them than readers: no deadlock, all done."""
    for number in range(7):
        photo(tmp_path / f"in/{number}.png", (1200, 700))
    options = ("--max-pixels", str(1200 * 700), "--json", "-o", tmp_path / "out")
    result = run("edit", tmp_path / "in", *PICKY, *options)
    assert result.exit_code == 0 and [record["status"] for record in lines(result)] == ["edited"] * 7


def test_the_budget_lets_in_by_turn_and_never_too_many() -> None:
    budget, inside, seen = PixelBudget(100), [], []
    lock = threading.Lock()

    def work(ticket: int, pixels: int) -> None:
        budget.enter(ticket, pixels)
        with lock:
            inside.append(pixels)
            seen.append((ticket, sum(inside)))
        with lock:
            inside.remove(pixels)
        budget.leave(pixels)

    sizes = [60, 60, 30, 500, 10, 90, 20]
    threads = [threading.Thread(target=work, args=(budget.ticket(), size)) for size in sizes]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == len(sizes) and all(total <= 100 or total == 500 for _, total in seen)
    waiting = budget.ticket()
    budget.enter(waiting, 100)
    closer = threading.Timer(0.05, budget.close)
    closer.start()
    with pytest.raises(Closed):
        budget.enter(budget.ticket(), 1)


def test_numbers_in_a_reason_are_told_apart() -> None:
    assert told_apart(32.3, 32) == ("32.3", "32.0")
    assert told_apart(40, 32) == ("40", "32")
    assert told_apart(0.4999, 0.5, 2) == ("0.4999", "0.5000")


@pytest.mark.parametrize("command", ["edit", "video", "animate", "sheet"])
def test_missing_weights_exit_with_2_everywhere(tmp_path: Path, command: str) -> None:
    source = photo(tmp_path / "a.png")
    if command == "video":
        source = source.rename(tmp_path / "a.mp4")
    result = run(command, source, "-e", "happy", "-b", "blendshape")
    assert result.exit_code == 2 and isinstance(result.exception, UsageError)
    assert issubclass(NotReadyError, ModelError) and "ict-facekit" in str(result.exception)
