"""Registers the backend ``usgan``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exprtool import hookimpl
from exprtool.expressions import EXPRESSIONS
from exprtool.types import Backend, BackendSpec, Readiness, packages_ready

_NEEDED = ("torch", "safetensors")
CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth")


def _load(device: str) -> Backend:
    _require_torch()
    from exprtool_usgan.backend import load

    return load(device)


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
        raise ModelError(f"Backend 'usgan' cannot run: {found.reason}. {found.remedy}")


def _readiness() -> Readiness:
    from exprtool_usgan.imported import imported_files

    if not (found := packages_ready(*_NEEDED)).ready:
        return found
    if len(imported_files()) == 1:
        return Readiness(True)
    return Readiness(
        False,
        "it needs to be told which weights to use",
        "give a training run or checkpoint as --backend usgan:RUN, or import weights: exprtool models import FILE",
    )


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    register(
        BackendSpec(
            name="usgan",
            summary="US-GAN in PyTorch: a run of `exprtool train`, or imported weights.",
            load=_load,
            load_from=_load_from,
            expressions=EXPRESSIONS,
            resolution="crops of the checkpoint's size, lifted to the photo's own",
            devices=("cpu", "cuda", "mps"),
            runtime="torch",
            readiness=_readiness,
            imports=CHECKPOINT_SUFFIXES,
            import_weights=_import_weights,
        )
    )
