"""The wheel: what users get holds exprtool's packages with their data, and nothing that could overwrite another's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("exprtool", "backends", "trainers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the sources, so that no build folder is left in the checkout."""
    pytest.importorskip("build", reason="needs the package `build` (pip install -e '.[dev]')")
    copy = tmp_path_factory.mktemp("source")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy / file)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (file,) = target.glob("*.whl")
    return zipfile.ZipFile(file)


def packages() -> list[Path]:
    """The folders of the import packages in the sources, top level only."""
    places = (ROOT, ROOT / "backends", ROOT / "trainers")
    return [init.parent for place in places for init in place.glob("exprtool*/__init__.py")]


def test_every_top_level_name_starts_with_exprtool(wheel):
    names = {name.partition("/")[0] for name in wheel.namelist()}
    assert "exprtool" in names
    assert all(name.startswith("exprtool") for name in names), names


def test_it_holds_every_package_with_its_marker_of_types(wheel):
    names = set(wheel.namelist())
    assert len(packages()) > 1
    for package in packages():
        assert f"{package.name}/__init__.py" in names
        assert f"{package.name}/py.typed" in names


def test_it_holds_every_file_of_the_packages_and_no_tests(wheel):
    names = set(wheel.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    if not any(tracked):
        pytest.skip("needs a git checkout to know which files belong to the packages")
    data = (".py", ".html", ".js", ".toml", ".onnx", ".json", ".npz")
    inside = {re.sub(r"^(backends|trainers)/", "", name) for name in tracked if name.endswith(data)}
    places = (ROOT, ROOT / "backends", ROOT / "trainers")
    existing = {name for name in inside if any((place / name).exists() for place in places)}  # not deleted since
    assert "exprtool/reports/report.html" in existing
    assert existing - names == set()
    assert not any("test" in Path(name).name for name in names)


def test_the_licence_and_the_entry_points_are_inside(wheel):
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (points,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    text = wheel.read(points).decode()
    assert "exprtool = exprtool.cli.main:run" in text
    for line in text.partition("[exprtool]")[2].strip().splitlines():
        module = line.partition("=")[2].strip()
        assert any(name in names for name in (module.replace(".", "/") + end for end in (".py", "/__init__.py"))), (
            module
        )


def test_an_installed_wheel_answers(wheel, tmp_path):
    """From outside the checkout, so that only what the wheel holds can be found."""
    wheel.extractall(tmp_path / "site")
    script = (
        "import exprtool, exprtool.reports.page as page; print(exprtool.__file__); "
        "print(len(''.join(page.page('t', 's', {}, [], {}, []))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, length = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert int(length) > 5000
