# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""The settings that every trainer has. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from exprtool.errors import UsageError
from exprtool.settings import check, from_plain, resumed, setting
from exprtool_training.progress import last_of, read_progress

INF = math.inf


@dataclass(frozen=True)
class RunConfig:
    """A training run. Field names are those of the flags and of the TOML keys; a trainer adds its own in a subclass.

    Building one checks it: `UsageError` names the field that will not do.
    """

    trainer: ClassVar[str] = ""
    """The name under which the trainer is registered; kept in every checkpoint."""

    out: Path = setting(
        Path("runs/new"), "Run", "Folder of the run: checkpoints, samples, logs, configuration.", changes=True
    )
    seed: int = setting(0, "Run", "Every random choice follows from this number and the step.", span=(0, 2**63 - 1))
    resume: bool = setting(False, "Run", "Continue the run in --out exactly where it was saved last.", stored=False)
    overwrite: bool = setting(False, "Run", "Start afresh in a folder that holds a run already.", stored=False)
    stop_at: int = setting(0, "Run", "Save and stop after this step; 0: run to the end.", stored=False, span=(0, INF))

    data: tuple[Path, ...] = setting((), "Data", "What to train on; repeatable.", changes=True)
    test_fraction: float = setting(0.1, "Data", "Share of the people who are held out for testing.", span=(0, 0.9))
    split_seed: int = setting(0, "Data", "Another number holds out other people.")

    batch_size: int = setting(8, "Training", "Pictures per step, over all devices together.", span=(1, INF))

    log_every: int = setting(50, "Watching", "Steps between lines of the log.", span=(1, INF), changes=True)
    sample_every: int = setting(1000, "Watching", "Steps between sample sheets; 0: none.", span=(0, INF), changes=True)
    look_every: int = setting(
        1000, "Watching", "Steps between looks at the held-out people; 0: none.", span=(0, INF), changes=True
    )
    save_every: int = setting(1000, "Watching", "Steps between checkpoints.", span=(1, INF), changes=True)
    save_minutes: float = setting(
        2.0, "Watching", "Minutes after which a checkpoint is due anyway; 0: never.", span=(0, INF), changes=True
    )
    keep_every: int = setting(
        0, "Watching", "Steps between networks that are kept for good; 0: only best and last.", span=(0, INF),
        changes=True,
    )  # fmt: skip
    licence: str = setting(
        "", "Watching", "Licence of the trained weights, written into every checkpoint.", changes=True
    )

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The configuration that a user's settings (flags over file) stand for: those of the run that is to be resumed,
        if one is, which may be changed only where that leaves it the same run."""
        if settings.get("resume"):
            return resumed(cls.stored(Path(settings.get("out", cls.out))), settings)
        return cls(**settings)

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """The settings of the run in a folder, from its last checkpoint. Raises `TrainingError` where there is none."""
        last = last_of(folder)
        _, plain = read_progress(last, cls.trainer)
        return cls(**from_plain(cls, plain, str(last)))


@dataclass(frozen=True)
class TorchConfig(RunConfig):
    """A run whose steps are computed by PyTorch, on one device or several."""

    device: str = setting("auto", "Machine", "auto, cpu, cuda, cuda:N or mps.", changes=True)
    devices: int = setting(1, "Machine", "Devices (or CPU processes) on each machine.", span=(1, 4096), changes=True)
    nodes: int = setting(
        1, "Machine", "Machines, started by torchrun or the cluster's launcher.", span=(1, 4096), changes=True
    )
    tensorboard: bool = setting(True, "Watching", "Write TensorBoard logs.", changes=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        processes = self.devices * self.nodes
        if self.batch_size % processes:
            raise UsageError(
                f"--batch-size {self.batch_size} cannot be shared evenly by {processes} processes: "
                f"use a multiple of {processes}."
            )
