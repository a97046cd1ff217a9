"""Registers the trainer ``flow``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from exprtool import hookimpl
from exprtool.extras import install_command
from exprtool.types import Readiness, TrainerSpec

_NEEDED = ("torch", "safetensors", "onnx")


def _config() -> type:
    from exprtool_flow.config import FlowConfig

    return FlowConfig


def _run(config: Any) -> None:
    from rich.console import Console

    from exprtool_flow.loop import train

    console = Console(stderr=True)
    outcome = train(config, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
    if outcome.interrupted:
        raise KeyboardInterrupt


def _readiness() -> Readiness:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        return Readiness(False, f"{' and '.join(missing)} not installed", install_command("torch"))
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
