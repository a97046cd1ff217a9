"""Registers the backend ``default``: the flow network that lies in this package, ready from the first minute."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from exprtool.anatomy.names import CONTROLS, STEMS
from exprtool.expressions import EXPRESSIONS, VARIANTS
from exprtool.hookspecs import hookimpl
from exprtool.types import Backend, BackendSpec, Readiness

MODEL = Path(__file__).with_name("model.onnx")
QUALITY = 60
"""Below the blendshape backend, which it was trained on: it is faster, needs no face model, and is its shadow."""


def _load(device: str) -> Backend:
    from exprtool_default.backend import open_model

    return open_model(MODEL, device)


def _readiness() -> Readiness:
    missing = [package for package in ("cv2", "onnxruntime") if find_spec(package) is None]
    if missing:
        return Readiness(False, f"not installed: {', '.join(missing)}", "python -m pip install exprtool")
    if not MODEL.is_file():
        return Readiness(False, f"{MODEL.name} is missing from the package", "Install exprtool anew.")
    return Readiness(True)


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    register(
        BackendSpec(
            name="default",
            summary="A small network inside the package: moves, lights and paints the photo's own pixels.",
            load=_load,
            expressions=(*EXPRESSIONS, *VARIANTS),
            controls=tuple(sorted((*CONTROLS, *STEMS))),
            devices=("cpu", "cuda"),
            quality=QUALITY,
            reference=True,
            readiness=_readiness,
        )
    )
