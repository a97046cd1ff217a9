"""A full disk, little memory, settings that never end, a hostile current folder: one line and an exit code."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX devices, limits and pipes")


def exprtool(*arguments: str | Path, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    options = {"stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, "-m", "exprtool", *map(str, arguments)], cwd=cwd, text=True, timeout=120, **options
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), (90, 80, 70)).save(tmp_path / "in" / f"{name}.png")
    return tmp_path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "command",
    [("edit", "in", "-e", "happy", "-b", "debug", "--json"), ("models", "path"), ("--help",)],
    ids=lambda command: command[0],
)
def test_a_full_stdout_is_said_once_and_ends_with_1(photos: Path, command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = exprtool(*command, cwd=photos, stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("No space left on device") == 1 and "Traceback" not in done.stderr
    if command[0] == "edit":  # the work goes on
        assert "2 without a face" in done.stderr


@pytest.mark.parametrize("limit", [150, 600], ids="{} MB".format)
def test_little_memory_is_no_traceback(photos: Path, limit: int) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20))

    done = exprtool("edit", "in/a.png", "-e", "happy", cwd=photos, preexec_fn=limited)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    # NumPy's own library may be the first that gets no memory; it says so in a line and ends the process itself.
    assert any(words in done.stderr for words in ("exprtool: ", "a.png: ", "OpenBLAS error: "))


@pytest.mark.parametrize("config", ["deep.toml", "pipe", "/dev/zero", "long.toml", "folder"])
def test_settings_that_never_end(tmp_path: Path, config: str) -> None:
    (tmp_path / "deep.toml").write_text("a = " + "[" * 50_000 + "]" * 50_000)
    (tmp_path / "long.toml").write_text("# " + "x" * 2_000_000)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    words = {"deep.toml": "nested too deeply", "long.toml": "larger than", "folder": "folder"}
    done = exprtool("train", "--data", ".", "--out", "run", "--config", config, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and words.get(config, "pipe or a device") in done.stderr


def test_nothing_in_the_current_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is imported at once, nor what a process that is started imports."""
    mark = tmp_path / "ran"
    names = ("numba", "cv2", "json", "typer", "PIL", "queue", "pluggy", "exprtool_blendshape", "nowhere_else")
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r} + ' ')\n")
    assert '"name"' in exprtool("backends", "--json", cwd=tmp_path, stdout=-1).stdout
    assert not mark.exists(), mark.read_text()
    from exprtool.doctor import _import_all

    monkeypatch.chdir(tmp_path)
    assert "No module named" in _import_all(["nowhere_else"])["nowhere_else"]
    assert not mark.exists(), mark.read_text()


def test_only_our_own_start_leaves_the_current_folder_out(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__init__.py").write_text("import exprtool")
    (tmp_path / "own" / "__main__.py").write_text("import own.more")
    (tmp_path / "own" / "more.py").write_text("print('found')")
    done = subprocess.run([sys.executable, "-m", "own", "exprtool"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "found\n", done.stderr
