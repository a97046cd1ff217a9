"""The backend ``run``: what any trainer has trained, opened by the trainer that made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exprtool.errors import ModelError, UsageError
from exprtool.expressions import EXPRESSIONS
from exprtool.hookspecs import hookimpl
from exprtool.types import Backend, BackendSpec, Readiness

_HOW = "Name a run: --backend run:RUN. `exprtool train --out RUN` makes one."


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    register(
        BackendSpec(
            name="run",
            summary="A run of `exprtool train`, of whichever trainer.",
            load=_load,
            load_from=_load_from,
            opens=_opens,
            expressions=EXPRESSIONS,
            resolution="the model's crop, lifted to the photo's own",
            devices=("cpu", "cuda", "mps"),
            runtime="torch",
            readiness=lambda: Readiness(False, "it needs a run of `exprtool train`", _HOW),
        )
    )


def _load(device: str) -> Backend:
    raise UsageError(f"The backend run has no model of its own. {_HOW}")


def _load_from(device: str, argument: str) -> Backend:
    from exprtool.plugins import registry

    path = Path(argument).expanduser()
    spec = registry().trainer_of(path)
    if spec.load is None:
        raise ModelError(f"The trainer {spec.name!r} does not say how its runs are used; export {path} instead.")
    return spec.load(path, device)


def _opens(path: Path) -> bool:
    """A run's folder or a checkpoint; whose it is and whether it is a good one shows when it is opened."""
    return path.suffix.lower() == ".safetensors" or (path / "checkpoints").is_dir()
