"""Strangers' plugins: a real package is installed and used; broken ones are reported and take nothing else down."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from exprtool import hookimpl, plugins
from exprtool.errors import UnknownNameError
from exprtool.types import BackendSpec

CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
FILE_IN_TEXT = re.compile(r"^`([\w./]+)`\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example(heading: str) -> dict[str, str]:
    """The files that CONTRIBUTING.md shows under a heading, by name."""
    _, _, rest = CONTRIBUTING.read_text("utf-8").partition(f"## {heading}\n")
    return dict(FILE_IN_TEXT.findall(rest.partition("\n## ")[0]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that holds the examples of CONTRIBUTING.md, built and installed by pip."""
    folder = tmp_path_factory.mktemp("site")
    for heading, modules in (("Write a backend", 1), ("Write a trainer", 2)):
        source = tmp_path_factory.mktemp("example")
        files = example(heading)
        assert len(files) == 1 + modules and "pyproject.toml" in files
        for name, text in files.items():
            (source / name).write_text(text, "utf-8")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
        done = subprocess.run([*command, *options, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def exprtool(*arguments: str, site: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line with one more folder of installed packages."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "exprtool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_an_installed_plugin_is_listed_with_its_package(site):
    done = exprtool("backends", "--json", site=site)
    assert done.returncode == 0, done.stderr
    entry = {entry["name"]: entry for entry in json.loads(done.stdout)}["blush"]
    assert entry["package"] == "exprtool-blush 0.1"
    assert entry["ready"]
    assert entry["expressions"] == ["happy"]
    assert "Reddens the cheeks." in exprtool("backends", site=site).stdout


def test_an_installed_plugin_edits_a_photo(site, shared, tmp_path):
    photo = shared / "photos" / "pexels_neutral.jpeg"
    target = tmp_path / "out.png"
    done = exprtool("edit", str(photo), "--backend", "blush", "--expr", "happy", "-o", str(target), "--json", site=site)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["faces"][0]["backend"] == "blush"
    before = np.asarray(Image.open(photo).convert("RGB")).astype(int)
    after = np.asarray(Image.open(target).convert("RGB")).astype(int)
    changed = (before != after).any(axis=2)
    x0, y0, x1, y1 = (round(value) for value in record["faces"][0]["box"])
    assert changed[y0:y1, x0:x1].mean() > 0.02
    outside = changed.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    assert (after - before)[changed].mean(axis=0)[0] > 5  # redder
    assert not (after - before)[..., 1:].any()


def test_what_the_plugin_cannot_do_is_refused(site, shared, tmp_path):
    photo = str(shared / "photos" / "pexels_neutral.jpeg")
    done = exprtool("edit", photo, "--backend", "blush", "--expr", "sad", "-o", str(tmp_path / "o.png"), site=site)
    assert done.returncode == 2
    assert "blush" in done.stderr
    assert not (tmp_path / "o.png").exists()


def test_an_installed_trainer_trains_resumes_edits_and_exports(site, tmp_path):
    """A method without network, discriminator and PyTorch, from data to an edited photo."""
    from exprtool_gan import toy

    toy.write_set(tmp_path / "faces", range(8), size=64)
    options = ["--data", str(tmp_path / "faces"), "--image-size", "64", "--batch-size", "3", "--save-every", "1"]

    def call(*arguments: str, code: int = 0) -> str:
        done = exprtool(*arguments, site=site)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    call("train", "--trainer", "meanface", "--out", str(tmp_path / "straight"), *options)
    call("train", "--trainer", "meanface", "--out", str(tmp_path / "halves"), "--stop-at", "2", *options)
    assert "resumed at step 2" in call("train", "--resume", "--out", str(tmp_path / "halves"))
    one, other = (tmp_path / name / "checkpoints" / "last.safetensors" for name in ("straight", "halves"))
    with safe_open(one, "np") as a, safe_open(other, "np") as b:
        assert a.keys() == b.keys() and len(a.keys()) == 3
        assert all(np.array_equal(a.get_tensor(name), b.get_tensor(name)) for name in a.keys())  # noqa: SIM118
        added = a.get_tensor("learned.added")
    happy, sad = (
        np.mean([toy.draw_face(person, expression, 64) for person in kept(tmp_path / "straight")], axis=0)
        for expression in toy.EXPRESSIONS
    )
    np.testing.assert_allclose(added[0].transpose(1, 2, 0), (happy - sad) / 2 / 127.5, atol=1e-5)
    run, model = str(tmp_path / "halves"), str(tmp_path / "m.onnx")
    assert "difference" in call("export", run, "-o", model)
    photo = CONTRIBUTING.parent / "examples" / "astronaut.jpg"
    Image.open(photo).convert("RGB").reduce(2).save(tmp_path / "a.png")
    outputs = []
    for name, backend in (("run", f"run:{run}"), ("onnx", f"onnx:{model}")):
        call("edit", str(tmp_path / "a.png"), "--backend", backend, "--expr", "happy",
             "-o", str(tmp_path / f"{name}.png"))  # fmt: skip
        outputs.append(np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int))
    assert np.abs(outputs[0] - outputs[1]).max() <= 1
    assert np.abs(outputs[0] - np.asarray(Image.open(tmp_path / "a.png"))).max() > 20, "it does something"
    assert "--trainer meanface" in call("train", "--trainer", "gan", "--resume", "--out", run, code=1)


def kept(run: Path) -> list[int]:
    """The drawn people who were trained on."""
    samples = json.loads((run / "data.json").read_text())["samples"]
    return sorted({int(Path(sample["source"]).stem[-4:]) for sample in samples if sample["split"] == "train"})


# ---------------------------------------------------------------------------------------------------------------------
# Broken ones

HOOK = "from exprtool import hookimpl\nfrom exprtool.types import BackendSpec\n@hookimpl\n"
BROKEN = {
    "import_error": ("import no_such_library_anywhere\n", "no_such_library_anywhere"),
    "syntax_error": ("def (:\n", "SyntaxError"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit"),
    "mistyped_hook": (HOOK + "def register_backend(register):\n    pass\n", "register_backend"),
    "wrong_argument": (HOOK + "def register_backends(registry):\n    pass\n", "registry"),
    "raises": (HOOK + "def register_backends(register):\n    raise KeyError('oops')\n", "oops"),
    "duplicate": (
        HOOK + "def register_backends(register):\n    register(BackendSpec('debug', 'x', load=print))\n",
        "already registered",
    ),
    "bad_name": (
        HOOK + "def register_backends(register):\n    register(BackendSpec('Bad Name', 'x', load=print))\n",
        "will not do",
    ),
    "auto": (HOOK + "def register_backends(register):\n    register(BackendSpec('auto', 'x', load=print))\n", "auto"),
    "not_a_spec": (HOOK + "def register_backends(register):\n    register({'name': 'x'})\n", "expected a BackendSpec"),
}


@pytest.fixture(scope="module")
def broken_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed packages, as pip leaves them, each with one plugin that has one fault."""
    folder = tmp_path_factory.mktemp("broken")
    for fault, (source, _) in BROKEN.items():
        (folder / f"plugin_{fault}.py").write_text(source)
        info = folder / f"plugin_{fault}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plugin-{fault}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[exprtool]\n{fault} = plugin_{fault}\n")
    return folder


@pytest.fixture(scope="module")
def listing(broken_site: Path) -> subprocess.CompletedProcess[str]:
    return exprtool("backends", "--json", site=broken_site)


def test_broken_plugins_do_not_take_the_others_down(listing):
    assert listing.returncode == 0, listing.stderr
    names = [entry["name"] for entry in json.loads(listing.stdout)]
    assert "debug" in names
    assert not {"Bad Name", "auto", "x"} & set(names)


@pytest.mark.parametrize("fault", BROKEN)
def test_each_fault_is_reported_with_its_reason(listing, fault):
    lines = [line for line in listing.stderr.splitlines() if line.startswith(f"Plugin {fault} ")]
    assert len(lines) == 1, listing.stderr
    assert BROKEN[fault][1] in lines[0]


def test_help_does_not_even_look_at_plugins(broken_site):
    done = exprtool("--help", site=broken_site)
    assert done.returncode == 0
    assert done.stderr == ""


# ---------------------------------------------------------------------------------------------------------------------
# In one process


class Twice:
    @hookimpl
    def register_backends(self, register):
        register(BackendSpec("one", "First.", load=print))  # type: ignore[arg-type]
        register(BackendSpec("one", "Second.", load=print))  # type: ignore[arg-type]


def test_what_came_before_the_fault_stays_and_the_context_takes_it_away_again():
    with plugins.plugged_in("twice", Twice()):
        registry = plugins.registry()
        assert registry.backend("one").summary == "First."
        assert [problem.plugin for problem in registry.problems].count("twice") == 1
    with pytest.raises(UnknownNameError, match="debug"):
        plugins.registry().backend("one")


def test_unknown_names_list_the_known_and_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'debug'\?"):
        plugins.registry().backend("debgu")
