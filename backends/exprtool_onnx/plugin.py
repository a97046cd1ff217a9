"""Registers the backend ``onnx``, which runs a file of the user's: ``--backend onnx:model.onnx``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exprtool import hookimpl
from exprtool.anatomy.names import CONTROLS, STEMS
from exprtool.errors import UsageError
from exprtool.expressions import EXPRESSIONS
from exprtool.types import Backend, BackendSpec, Readiness

_HOW = "Name a model file: --backend onnx:model.onnx. `exprtool export RUN -o model.onnx` writes one."


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    register(
        BackendSpec(
            name="onnx",
            summary="Any exported generator on ONNX Runtime; the answer is lifted to the photo's own resolution.",
            load=_load,
            load_from=_load_from,
            opens=_opens,
            expressions=EXPRESSIONS,
            controls=tuple(sorted((*CONTROLS, *STEMS))),  # of flow networks; others say that they have none
            reference=True,
            resolution="the model's crop, lifted to the photo's own",
            devices=("cpu", "cuda"),
            readiness=lambda: Readiness(False, "it needs a model file.", _HOW),
        )
    )


def _load(device: str) -> Backend:
    raise UsageError(f"The backend onnx has no model of its own. {_HOW}")


def _load_from(device: str, argument: str) -> Backend:
    from exprtool_onnx.generator import open_model

    return open_model(Path(argument), device)


def _opens(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"
