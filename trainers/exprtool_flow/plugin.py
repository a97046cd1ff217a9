"""Registers the trainer ``flow``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from exprtool import hookimpl
from exprtool.types import Readiness, TrainerSpec

_NEEDED = ("torch", "safetensors", "onnx")


def _config() -> type:
    from exprtool_flow.config import FlowConfig

    return FlowConfig


def _run(config: Any) -> None:
    from exprtool.cli.printing import console
    from exprtool_flow.loop import train

    outcome = train(config, console().print)
    if outcome.interrupted:
        raise KeyboardInterrupt


def _readiness() -> Readiness:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        return Readiness(False, f"{' and '.join(missing)} not installed", "pip install 'exprtool[torch]'")
    return Readiness(True)


@hookimpl
def register_trainers(register: Callable[[TrainerSpec], None]) -> None:
    register(
        TrainerSpec(
            name="flow",
            summary="A network that moves, lights and paints the photo's own pixels, from pairs of `data synth`.",
            config=_config,
            run=_run,
            readiness=_readiness,
        )
    )
