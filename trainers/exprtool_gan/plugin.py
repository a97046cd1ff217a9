"""Registers the trainer ``gan``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from exprtool import hookimpl
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


def _pairs_config() -> type:
    from exprtool_gan.pairs import PairsConfig

    return PairsConfig


def _run_pairs(config: Any) -> None:
    from rich.console import Console

    from exprtool_gan.pairs import train

    console = Console(stderr=True)
    outcome = train(config, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
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
            name="gan",
            summary="US-GAN as in the paper, with its ablations: WGAN-GP on labelled faces.",
            config=_config,
            run=_run,
            readiness=_readiness,
        )
    )
    register(
        TrainerSpec(
            name="pairs",
            summary="A supervised start for US-GAN's generator, from one person in several expressions.",
            config=_pairs_config,
            run=_run_pairs,
            readiness=_readiness,
        )
    )
