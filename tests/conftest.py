"""Fixtures that every test file may use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exprtool import hookimpl
from exprtool.expressions import EXPRESSIONS
from exprtool.plugins import plugged_in
from exprtool.types import Backend, BackendSpec, Detector, DetectorSpec, Edit, Face, FacePatch, FaceRefusal, FaceRegion

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos, clips and models beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of test photos, clips and models beside the checkout (../shared)")
    return SHARED


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has an empty model cache of its own, so that none depends on what the user once downloaded."""
    folder = tmp_path_factory.mktemp("exprtool-home")
    monkeypatch.setenv("EXPRTOOL_HOME", str(folder))
    yield folder


@pytest.fixture
def face_model(shared: Path, home: Path) -> Path:
    """The face model of the blendshape backend, imported into this test's cache as a user would do it."""
    from exprtool.weights.catalogue import import_file

    import_file(shared / "face-model" / "ict_facekit_light.npz")
    return home


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window and without a network of its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install -e '.[dev]')")
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=1300,900",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    yield window
    window.quit()


class GreenBackend(Backend):
    """Paints a soft green disc on each face, as strongly as the edit asks; counts its calls."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate(self, prepared: Sequence[Any], edit: Edit) -> list[FacePatch | FaceRefusal]:
        self.batches.append(len(prepared))
        return [self.paint(region, edit) for region in prepared]

    def paint(self, region: FaceRegion, edit: Edit) -> FacePatch | FaceRefusal:
        h, w = region.pixels.shape[:2]
        cx, cy = region.to_region(np.array([region.face.centre]))[0]
        y, x = np.mgrid[:h, :w]
        radius = region.face.size / 2
        alpha = np.clip(1.5 - np.hypot(x - cx, y - cy) / radius, 0, 1) * min(edit.strength, 1.0)
        pixels = np.broadcast_to(np.array([0, 200, 0], np.uint8), (h, w, 3)).copy()
        return FacePatch(pixels, alpha.astype(np.float32), notes=("painted green",))


class PickyBackend(GreenBackend):
    """Refuses faces on the left half of their photo unless forced."""

    def check(self, prepared: Sequence[Any], edit: Edit) -> list[FaceRefusal | None]:
        return [
            FaceRefusal("stands too far left") if r.face.centre[0] < 400 and not edit.force else None for r in prepared
        ]

    def paint(self, region: FaceRegion, edit: Edit) -> FacePatch | FaceRefusal:
        return self.check([region], edit)[0] or super().paint(region, edit)


class FaultyBackend(GreenBackend):
    """Fails on every face narrower than 120 pixels, as a plugin with a fault would."""

    def paint(self, region: FaceRegion, edit: Edit) -> FacePatch | FaceRefusal:
        if region.face.size < 120:
            raise ZeroDivisionError("a fault in the plugin")
        return super().paint(region, edit)


class MiddleDetector(Detector):
    """Sees one face in the middle of any picture that is not all black, without looking for it."""

    def detect(self, image: np.ndarray) -> list[Face]:
        if not image.any():
            return []
        h, w = image.shape[:2]
        side = min(h, w) / 2
        x0, y0 = (w - side) / 2, (h - side) / 2
        five = np.array([[0.28, 0.35], [0.73, 0.35], [0.5, 0.55], [0.35, 0.73], [0.65, 0.73]]) * side + [x0, y0]
        return [Face((x0, y0, x0 + side, y0 + side), 1.0, five, detector="middle")]


@pytest.fixture
def fakes() -> Iterator[SimpleNamespace]:
    """A plugin with backends ``green``, ``picky`` and ``faulty`` and the detector ``middle``; no model is needed."""
    loaded: dict[str, Backend] = {}

    def loader(name: str, kind: type[Backend]) -> Callable[[str], Backend]:
        def load(device: str) -> Backend:
            loaded[name] = kind()
            return loaded[name]

        return load

    class Plugin:
        @hookimpl
        def register_backends(self, register: Callable[[BackendSpec], None]) -> None:
            for name, kind in (("green", GreenBackend), ("picky", PickyBackend), ("faulty", FaultyBackend)):
                register(
                    BackendSpec(name, f"test: {name}", loader(name, kind), EXPRESSIONS, ("jawOpen",), trained=False)
                )

        @hookimpl
        def register_detectors(self, register: Callable[[DetectorSpec], None]) -> None:
            register(DetectorSpec("middle", "test: one face in the middle", lambda device, argument: MiddleDetector()))

    with plugged_in("fakes", Plugin()):
        yield SimpleNamespace(loaded=loaded)
