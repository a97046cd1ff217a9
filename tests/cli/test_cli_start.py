"""``--help`` and ``--version`` answer without loading what only work needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "PIL", "av", "cv2", "dlib", "imageio", "insightface", "jinja2", "lightning_fabric", "numba", "onnx", "onnxruntime",
    "requests", "scipy", "skimage", "tensorboard", "torch",
)  # fmt: skip


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules that are there when a command line has run, in a process of its own."""
    script = (
        "import sys, json\n"
        f"sys.argv = ['exprtool', *{list(arguments)!r}]\n"
        "from exprtool.cli.main import run\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",), ("--version",), ("models", "--help"), ("backends", "--help"), ("doctor", "--help"),
        ("edit", "--help"), ("backends", "--json"), ("detectors", "--json"), ("models", "list", "--json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_nothing_heavy_is_loaded(arguments):
    assert loaded_by(*arguments) & set(HEAVY) == set()


def test_importing_the_package_loads_nothing_heavy():
    script = "import exprtool, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} & set(HEAVY) == set()


def test_the_module_runs_like_the_script():
    done = subprocess.run(
        [sys.executable, "-m", "exprtool", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("exprtool ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["edit", "--help"], "--strength"),
        (["models", "path"], "models"),
        (["data", "check", "--help"], "--identities"),
        (["data", "--help"], "synth"),
        (["--help"], "doctor"),
        (["edti"], "Did you mean 'edit'"),
    ],
)
def test_commands_spared_at_start_are_whole_when_called(arguments: list[str], words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "exprtool", *arguments], capture_output=True, text=True)
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
