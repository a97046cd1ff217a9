# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""The settings of the supervised start. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from exprtool.settings import setting
from exprtool_training.config import INF, TorchConfig
from exprtool_training.crops import CropsConfig
from exprtool_usgan.config import GeneratorConfig


@dataclass(frozen=True)
class PairsConfig(CropsConfig, TorchConfig):
    """A supervised start for US-GAN's generator, on people who show several expressions each."""

    trainer: ClassVar[str] = "pairs"

    out: Path = setting(
        Path("runs/start"), "Run", "Folder of the run: checkpoints, samples, logs, configuration.", changes=True
    )
    validation_fraction: float = setting(
        0.05, "Data", "Share of the training people set apart to choose the best checkpoint on.", span=(0, 0.9)
    )

    emphasis: float = setting(
        4.0, "Losses", "How much more a pixel counts per unit of difference in its pair.", span=(0, 1000)
    )

    begin_from: str = setting("", "Training", "Run or checkpoint whose generator to begin with; none: from nothing.")
    steps: int = setting(4000, "Training", "Length in batches.", span=(1, INF), changes=True)
    lr: float = setting(4e-4, "Training", "Learning rate, after a short rise.", span=(0, 1))
    decay_from: float = setting(
        0.6, "Training", "Share of the run after which the rate falls to 0 in a straight line; 1: never.", span=(0, 1)
    )
    from_neutral: float = setting(0.7, "Training", "Share of pairs that start from the neutral face.", span=(0, 1))
    flip: float = setting(0.5, "Training", "Probability of mirroring a pair.", span=(0, 1))
    colour: float = setting(0.15, "Training", "Change the colours of a pair by up to this share.", span=(0, 1))
    ema: float = setting(
        0.99, "Training", "Decay of the generator's running average, which is what is used.", span=(0, 0.999999)
    )

    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Machine", "auto: bfloat16 where the device has it (CUDA, AVX512-BF16, AMX), else float32."
    )

    sample_every: int = setting(500, "Watching", "Steps between sample sheets; 0: none.", span=(0, INF), changes=True)
    look_every: int = setting(
        500, "Watching", "Steps between looks at the held-out people; 0: none.", span=(0, INF), changes=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.generator(labels=2)  # raises where the network cannot be built

    def generator(self, labels: int) -> GeneratorConfig:
        return GeneratorConfig(labels, self.image_size)
