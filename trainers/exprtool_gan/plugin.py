"""Registers the trainer ``gan``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from exprtool import hookimpl
from exprtool.extras import install_command
from exprtool.types import Readiness, TrainerSpec

_NEEDED = ("torch", "safetensors")


def _config() -> type:
    from exprtool_gan.config import TrainConfig

    return TrainConfig


def _run(config: Any) -> None:
    from exprtool_gan.loop import train
    from exprtool_gan.screen import screen

    watcher = screen()
    try:
        outcome = train(config, watcher)
    finally:
        watcher.close()
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
            name="gan",
            summary="US-GAN as in the paper, with its ablations: WGAN-GP on labelled faces.",
            config=_config,
            run=_run,
            readiness=_readiness,
        )
    )
