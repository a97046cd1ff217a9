"""``exprtool doctor``: it sees what is broken, says what to do, and exits by whether something essential is."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from exprtool import devices, doctor, hookimpl, plugins
from exprtool.doctor import Finding, Level
from exprtool.types import BackendSpec, DetectorSpec, Readiness, WeightFile
from exprtool.weights import catalogue as models


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing every library in another process takes seconds and is tested by itself."""
    monkeypatch.setattr(doctor, "_import_all", lambda modules: {})


def by_name(findings: list[Finding], name: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def run(*arguments: str):
    from exprtool.cli.main import app

    return CliRunner().invoke(app, ["doctor", *arguments])


def test_what_it_covers(quick):
    findings = list(doctor.examine())
    assert {finding.section for finding in findings} >= {"Versions", "Devices", "Plugins", "Ready", "Codecs", "Places"}
    names = {finding.name for finding in findings}
    asked = {name.split(">")[0].split("=")[0].split("[")[0].strip() for name in metadata.requires("exprtool") or ()}
    assert asked & names >= {"numpy", "onnxruntime", "pillow", "typer", "torch"}
    assert {"JPEG", "WebP", "AVIF", "HEIC", "H.264", "H.265", "AAC", "cache", "--device auto"} <= names
    for finding in findings:
        assert finding.level in (Level.OK, Level.NOTE) or finding.remedy, finding  # no problem without a way out


def test_text_and_json_agree_and_decide_the_exit_code(quick):
    answer = run("--json")
    findings = json.loads(answer.stdout)
    broken = [finding for finding in findings["findings"] if finding["level"] == "broken"]
    assert findings["healthy"] == (not broken)
    assert answer.exit_code == (1 if broken else 0)
    text = run()
    assert text.exit_code == answer.exit_code
    for finding in findings["findings"]:
        assert finding["name"] in text.stdout


def test_a_broken_essential_exits_1_and_a_warning_does_not(monkeypatch):
    fine = Finding("Codecs", "JPEG", "ok")
    monkeypatch.setattr(
        doctor, "examine", lambda: iter([fine, Finding("Codecs", "AVIF", "no", Level.WARNING, "do this")])
    )
    answer = run()
    assert answer.exit_code == 0
    assert "do this" in answer.stdout
    monkeypatch.setattr(
        doctor, "examine", lambda: iter([fine, Finding("Codecs", "PNG", "no", Level.BROKEN, "do that")])
    )
    answer = run()
    assert answer.exit_code == 1
    assert "Broken: PNG" in answer.stdout
    assert json.loads(run("--json").stdout)["healthy"] is False


def test_modules_that_fail_hang_on_nothing_and_crash_are_told_apart(tmp_path: Path, monkeypatch):
    """One that takes the process down (as a library built for another processor does) does not hide the next."""
    (tmp_path / "fine_module.py").write_text("print('noise on stdout')\n")
    (tmp_path / "broken_module.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    (tmp_path / "deadly_module.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    (tmp_path / "leaving_module.py").write_text("raise SystemExit(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ["fine_module", "broken_module", "deadly_module", "leaving_module", "missing_module"]
    troubles = doctor._import_all(names)
    assert set(troubles) == {"broken_module", "deadly_module", "leaving_module", "missing_module"}
    assert "libGL.so.1" in troubles["broken_module"]
    assert "ends the process" in troubles["deadly_module"]
    assert "libGL" in doctor._import_remedy("opencv-python", "opencv-python", troubles["broken_module"])


def test_a_missing_an_old_and_a_doubled_package(monkeypatch):
    versions = {"numpy": "1.0", "onnxruntime": "1.31", "onnxruntime-gpu": "1.31", "opencv-python-headless": "5.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    monkeypatch.setattr(
        doctor, "_import_all", lambda modules: {"numpy": "ImportError: no"} if "numpy" in modules else {}
    )
    findings = list(doctor._versions())
    assert by_name(findings, "pillow").level is Level.BROKEN
    assert "pip install 'pillow" in by_name(findings, "pillow").remedy
    assert by_name(findings, "torch").level is Level.NOTE
    assert "pip install 'torch>=" in by_name(findings, "torch").remedy
    assert "cannot be imported" in by_name(findings, "numpy").value
    assert by_name(findings, "numpy").level is Level.BROKEN
    assert by_name(findings, "opencv-python").level is Level.OK  # the headless one serves as well
    assert "pip uninstall onnxruntime onnxruntime-gpu" in by_name(findings, "onnxruntime and onnxruntime-gpu").remedy
    monkeypatch.setattr(doctor, "_import_all", lambda modules: {})
    assert "is asked for" in by_name(list(doctor._versions()), "numpy").value


def test_an_idle_card_is_a_warning_with_its_remedy():
    finding = doctor._auto("--device auto", devices.Device("cpu", note="a card stays idle (no CUDA). Install it."))
    assert (finding.level, finding.remedy) == (Level.WARNING, "Install it.")


def weight(**changes) -> WeightFile:
    values = dict(
        name="w",
        file="w.onnx",
        sha256="0" * 64,
        size=3,
        licence="research",
        commercial=False,
        origin="https://x",
        urls=(),
    )
    return WeightFile(**(values | changes))  # type: ignore[arg-type]


class Plugin:
    @hookimpl
    def register_backends(self, register):
        register(BackendSpec("hungry", "Needs.", load=print, needs=(weight(),)))  # type: ignore[arg-type]

    @hookimpl
    def register_detectors(self, register):
        never = Readiness(False, "no camera", "buy one")
        register(DetectorSpec("blind", "Sees nothing.", load=print, readiness=lambda: never))  # type: ignore[arg-type]
        raise RuntimeError("half way")


def test_plugins_models_and_readiness():
    with plugins.plugged_in("stranger", Plugin()):
        findings = list(doctor._plugins())
        assert by_name(findings, "backend hungry").level is Level.NOTE
        assert by_name(findings, "backend hungry").remedy.startswith("exprtool models import")
        assert by_name(findings, "detector blind").remedy == "buy one"
        problem = by_name(findings, "stranger (stranger)")
        assert problem.level is Level.WARNING  # not ours, so exprtool itself still works
        assert "half way" in problem.value
        found = by_name(list(doctor._models()), "w")
        assert found.level is Level.NOTE
        assert "no commercial use" in found.value
        models.location(weight()).parent.mkdir(parents=True)
        models.location(weight()).write_bytes(b"abc")
        assert by_name(list(doctor._models()), "w").level is Level.BROKEN


def test_nothing_ready_is_broken(monkeypatch):
    nothing = plugins.Registry()
    monkeypatch.setattr(plugins, "registry", lambda: nothing)
    assert by_name(list(doctor._plugins()), "any backend").level is Level.BROKEN
    assert by_name(list(doctor._plugins()), "any detector").level is Level.BROKEN


def test_a_codec_that_is_missing(monkeypatch):
    from PIL import features

    monkeypatch.setattr(features, "check", lambda name: name not in ("jpg", "avif"))
    findings = list(doctor._codecs())
    assert by_name(findings, "JPEG").level is Level.BROKEN
    assert by_name(findings, "AVIF").level is Level.WARNING


def test_a_cache_that_cannot_be_used(monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPRTOOL_HOME", str(tmp_path / "file"))
    cache = by_name(list(doctor._places()), "cache")
    assert cache.level is Level.BROKEN
    assert "EXPRTOOL_HOME" in cache.remedy
    monkeypatch.setenv("EXPRTOOL_HOME", str(tmp_path / "new" / "home"))
    assert by_name(list(doctor._places()), "cache").level is Level.OK
    assert not (tmp_path / "new").exists()  # looking makes nothing
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5))
    assert by_name(list(doctor._places()), "disk of the cache").level is Level.WARNING


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_cache_without_permission(monkeypatch, tmp_path: Path):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("EXPRTOOL_HOME", str(tmp_path))
    assert by_name(list(doctor._places()), "cache").level is Level.BROKEN
