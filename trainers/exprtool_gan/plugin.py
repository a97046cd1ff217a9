"""Registers the trainer ``gan``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool import hookimpl
from exprtool.types import Backend, Exported, ExportWish, TrainerSpec, Variant, packages_ready

if TYPE_CHECKING:
    from exprtool.measures.evaluation import Classifier
    from exprtool_training.watch import Watcher


def _config() -> type:
    from exprtool_gan.config import TrainConfig

    return TrainConfig


def _run(config: Any, watcher: Watcher | None = None) -> None:
    from exprtool_gan.loop import UsGan
    from exprtool_training.loop import run

    run(config, UsGan, watcher)


def _pairs_config() -> type:
    from exprtool_gan.pairs_config import PairsConfig

    return PairsConfig


def _run_pairs(config: Any, watcher: Watcher | None = None) -> None:
    from exprtool_gan.pairs import Start
    from exprtool_training.loop import run

    run(config, Start, watcher)


def _opens(path: Path) -> bool:
    from exprtool_training.checkpoint import made_by
    from exprtool_usgan.card import METADATA_KEY

    return made_by(path, "gan", METADATA_KEY)


def _load(path: Path, device: str) -> Backend:
    from exprtool_usgan.backend import open_checkpoint

    return open_checkpoint(path, device)


def _export(run: Path, out: Path, wish: ExportWish) -> Exported:
    from exprtool_gan.export import export

    return export(run, out, wish)


def _head(path: Path) -> Classifier | None:
    from exprtool_gan.own_head import own_head

    return own_head(path)


@hookimpl
def register_trainers(register: Callable[[TrainerSpec], None]) -> None:
    register(
        TrainerSpec(
            name="gan",
            summary="US-GAN as in the paper, with its ablations: WGAN-GP on labelled faces.",
            config=_config,
            run=_run,
            opens=_opens,
            load=_load,
            export=_export,
            own_head=_head,
            variants=(
                Variant("US-GAN", {}, (2, 4, 7, 8, 10, 11)),
                Variant("US-GAN without skip", {"skip": False}, (10,)),
                Variant("US-GAN-0", {"residual_blocks": 0}),
                Variant("US-GAN-6", {"residual_blocks": 6}, (11,)),
            ),
            readiness=lambda: packages_ready("torch", "safetensors"),
        )
    )
    register(
        TrainerSpec(
            name="pairs",
            summary="A supervised start for US-GAN's generator, from one person in several expressions.",
            config=_pairs_config,
            run=_run_pairs,
            readiness=lambda: packages_ready("torch", "safetensors"),
        )
    )
