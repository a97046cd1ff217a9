"""Registers the trainer ``flow``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool import hookimpl
from exprtool.types import Backend, Exported, ExportWish, TrainerSpec, packages_ready

if TYPE_CHECKING:
    from exprtool_training.watch import Watcher


def _config() -> type:
    from exprtool_flow.config import FlowConfig

    return FlowConfig


def _run(config: Any, watcher: Watcher | None = None) -> None:
    from exprtool_flow.loop import Flow
    from exprtool_training.loop import run

    run(config, Flow, watcher)


def _opens(path: Path) -> bool:
    from exprtool_default.card import METADATA_KEY
    from exprtool_training.checkpoint import made_by

    return made_by(path, "flow", METADATA_KEY)


def _load(path: Path, device: str) -> Backend:
    from exprtool_flow.export import open_run

    return open_run(path, device)


def _export(run: Path, out: Path, wish: ExportWish) -> Exported:
    from exprtool_flow.export import export_run

    return export_run(run, out, wish)


@hookimpl
def register_trainers(register: Callable[[TrainerSpec], None]) -> None:
    register(
        TrainerSpec(
            name="flow",
            summary="A network that moves, lights and paints the photo's own pixels, from pairs of `data synth`.",
            config=_config,
            run=_run,
            opens=_opens,
            load=_load,
            export=_export,
            readiness=lambda: packages_ready("torch", "safetensors", "onnx"),
        )
    )
