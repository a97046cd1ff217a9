# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""Methods that share US-GAN's discriminator and losses and differ in the generator: StarGAN, SARGAN, a gated skip.

StarGAN (Choi et al., CVPR 2018) is six residual blocks and no skip; US-GAN without skip and with 0, 1 or 6 blocks are
settings of the trainer ``gan`` (``--no-skip``, ``--residual-blocks``). SARGAN (Akram and Khan) keeps the skip and
weighs what the block adds by an hourglass's mask. The gated skip is ours: the paper names learning where to skip as
future work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from exprtool.crop_backend import CropBackend
from exprtool.settings import setting
from exprtool.types import Exported, ExportWish
from exprtool_gan.config import TrainConfig
from exprtool_training.config import INF, RunConfig


@dataclass(frozen=True)
class VariantConfig(TrainConfig):
    """US-GAN's settings without its recipes."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        return super(TrainConfig, cls).from_settings(settings)


@dataclass(frozen=True)
class StarGanConfig(VariantConfig):
    """A training run of StarGAN, as its authors train it on RaFD."""

    trainer: ClassVar[str] = "stargan"

    out: Path = setting(Path("runs/stargan"), "Run", "Folder of the run.", changes=True)
    residual_blocks: int = setting(6, "Networks", "Residual blocks in the generator.")
    skip: bool = setting(False, "Networks", "The ultimate skip connection, which StarGAN has not.")
    batch_size: int = setting(16, "Training", "Images per step, over all devices together.", span=(1, INF))
    steps: int = setting(
        200_000, "Training", "Length in discriminator steps; 0: as --epochs says.", span=(0, INF), changes=True
    )


@dataclass(frozen=True)
class SarganConfig(VariantConfig):
    """A training run of SARGAN."""

    trainer: ClassVar[str] = "sargan"

    out: Path = setting(Path("runs/sargan"), "Run", "Folder of the run.", changes=True)
    attention: bool = setting(True, "Networks", "Weigh what a residual block adds by a mask.")


@dataclass(frozen=True)
class GatedConfig(VariantConfig):
    """A training run of US-GAN with a gated skip."""

    trainer: ClassVar[str] = "gated"

    out: Path = setting(Path("runs/gated"), "Run", "Folder of the run.", changes=True)
    gate: bool = setting(True, "Networks", "Weigh the skip in each pixel, y = tanh(h) + g x.")


def run_method(config: RunConfig, *others: Any) -> Any:
    """US-GAN's method on these settings."""
    from exprtool_gan.loop import UsGan

    return UsGan(config, *others)  # type: ignore[arg-type]


def load(path: Path, device: str) -> CropBackend:
    from exprtool_usgan.backend import open_checkpoint

    return open_checkpoint(path, device)


def export(run: Path, out: Path, wish: ExportWish) -> Exported:
    from exprtool_gan.export import export

    return export(run, out, wish)


def own_head(path: Path) -> Any:
    from exprtool_gan.own_head import own_head

    return own_head(path)
