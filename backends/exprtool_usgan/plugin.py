"""Registers the backend ``usgan``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exprtool import hookimpl
from exprtool.expressions import EXPRESSIONS
from exprtool.types import Backend, BackendSpec, Readiness, packages_ready

MODEL = Path(__file__).with_name("model.onnx")
"""The package's own weights, float16; what they are stands in docs/usgan-model.md."""
_NEEDED = ("torch", "safetensors")
CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth")


def _load(device: str) -> Backend:
    from exprtool_onnx.generator import open_model

    return open_model(MODEL, device)


def _load_from(device: str, argument: str) -> Backend:
    _require_torch()
    from exprtool_usgan.backend import load_from

    return load_from(device, argument)


def _import_weights(path: Path, labels: tuple[str, ...]) -> tuple[str, Path]:
    _require_torch()
    from exprtool_usgan.importing import import_checkpoint

    target = import_checkpoint(path, labels=labels or None)
    return f"usgan:{target.stem}", target


def _require_torch() -> None:
    from exprtool.errors import ModelError

    if not (found := packages_ready(*_NEEDED)).ready:
        raise ModelError(
            f"A run, a checkpoint or imported weights need PyTorch: {found.reason}. {found.remedy}, or use "
            "--backend usgan alone, whose weights lie in the package."
        )


def _readiness() -> Readiness:
    if not MODEL.is_file():
        return Readiness(False, f"{MODEL.name} is missing from the package", "Install exprtool anew.")
    return Readiness(True)


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    register(
        BackendSpec(
            name="usgan",
            summary="The paper's generator with weights of our own, or a run of `exprtool train`, or imported weights.",
            load=_load,
            load_from=_load_from,
            expressions=EXPRESSIONS,
            resolution="crops of the checkpoint's size, lifted to the photo's own",
            devices=("cpu", "cuda"),
            argument_runs_on=("torch", ("cpu", "cuda", "mps")),
            readiness=_readiness,
            imports=CHECKPOINT_SUFFIXES,
            import_weights=_import_weights,
        )
    )
