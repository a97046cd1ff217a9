# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""Every hyperparameter of a run: one flat dataclass, and the recipes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from exprtool.errors import UnknownNameError, UsageError
from exprtool.settings import setting
from exprtool_training.config import INF, TorchConfig
from exprtool_training.crops import CropsConfig
from exprtool_usgan.config import ClampPlace, DiscriminatorConfig, GeneratorConfig, TanhPlace


@dataclass(frozen=True)
class AdversarialConfig(CropsConfig, TorchConfig):
    """What a generator and a discriminator that learn against each other on labelled crops have in common."""

    d_channels: int = setting(64, "Networks", "Channels of the discriminator's first layer; they double with each.")
    d_layers: int = setting(6, "Networks", "Layers of the discriminator; each halves the image (5 for 32 pixels).")

    lambda_gp: float = setting(10.0, "Losses", "Weight of the gradient penalty (eq. 2).", span=(0, INF))

    epochs: float = setting(
        350.0, "Training", "Passes over the training images through D.", span=(0, INF), changes=True
    )
    steps: int = setting(
        0,
        "Training",
        "Length in discriminator steps instead of epochs; 0: as --epochs says.",
        span=(0, INF),
        changes=True,
    )
    d_steps: int = setting(5, "Training", "Discriminator steps per generator step.", span=(1, INF))
    lr: float = setting(1e-4, "Training", "Learning rate of both networks.", span=(0, 1))
    beta1: float = setting(0.5, "Training", "Adam's first decay rate.", span=(0, 0.999999))
    beta2: float = setting(0.999, "Training", "Adam's second decay rate.", span=(0, 0.999999))
    decay_from: float = setting(
        0.5, "Training", "Share of the run after which the rate falls to 0 in a straight line; 1: never.", span=(0, 1)
    )
    targets: Literal["permute", "uniform", "different"] = setting(
        "permute", "Training", "Target labels: the batch's own shuffled, any, or any but the source's."
    )
    flip: float = setting(0.5, "Training", "Probability of mirroring an image.", span=(0, 1))
    shift: int = setting(
        0, "Training", "Move images by up to so many pixels (an addition to the paper).", span=(0, 128)
    )
    colour: float = setting(
        0.0, "Training", "Change colours by up to this share (an addition to the paper).", span=(0, 1)
    )
    ema: float = setting(
        0.0,
        "Training",
        "Decay of the generator's running average kept beside it (not the paper's); 0: none.",
        span=(0, 0.999999),
    )

    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Machine",
        "Of the networks; auto: bfloat16 where the device has it (CUDA, AVX512-BF16, AMX), else float32.",
    )
    cuda_graphs: Literal["auto", "on", "off"] = setting(
        "auto", "Machine", "Record a step once and replay it; auto: on one CUDA device.", changes=True
    )
    deterministic: bool = setting(
        False,
        "Machine",
        "On CUDA, only kernels that give the same bits every time; on the CPU they always do.",
        changes=True,
    )

    look_every: int = setting(
        5000, "Watching", "Steps between looks at the held-out people; 0: none.", span=(0, INF), changes=True
    )
    look_images: int = setting(
        16, "Watching", "Held-out images per look, each with every expression.", span=(1, INF), changes=True
    )
    classifier: Path | None = setting(
        None,
        "Watching",
        "ONNX model of an independent expression classifier for the looks; without: D's own head.",
        changes=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps == 0 and self.epochs == 0:
            raise UsageError("The run has no length: give --epochs or --steps.")

    def discriminator(self, labels: int) -> DiscriminatorConfig:
        return DiscriminatorConfig(labels, self.image_size, self.d_channels, self.d_layers)


@dataclass(frozen=True)
class TrainConfig(AdversarialConfig):
    """A training run of US-GAN. The defaults are the recipe ``paper``."""

    trainer: ClassVar[str] = "gan"

    recipe: Literal["paper", "official-code", "photos"] = setting(
        "paper", "Run", "Starting values: the paper's, what the authors' code does where it differs, or for any photos."
    )
    out: Path = setting(
        Path("runs/usgan"), "Run", "Folder of the run: checkpoints, samples, logs, configuration.", changes=True
    )

    residual_blocks: int = setting(1, "Networks", "Residual blocks in the generator; the paper compares 1 and 6.")
    skip: bool = setting(True, "Networks", "The ultimate skip connection, y = G(x, c) + x (eq. 1).")
    tanh: TanhPlace = setting("before-skip", "Networks", "Where the last tanh meets the skip; the authors: before it.")
    clamp: ClampPlace = setting(
        "inference", "Networks", "Where y is cut to [-1, 1]: only in pictures, or always (in the training too)."
    )
    channels: int = setting(64, "Networks", "Channels of the generator's first layer.")
    attention: bool = setting(False, "Networks", "Weigh what a residual block adds by a mask (SARGAN).")
    gate: bool = setting(False, "Networks", "Weigh the skip in each pixel, y = tanh(h) + g x (not the paper's).")

    lambda_c: float = setting(1.0, "Losses", "Weight of the expression loss (eqs. 7 and 8).", span=(0, INF))
    lambda_r: float = setting(10.0, "Losses", "Weight of the reconstruction loss (eq. 8).", span=(0, INF))
    gp_score: Literal["sum", "mean"] = setting(
        "sum", "Losses", "Which scalar of D's patch scores the penalty differentiates; StarGAN and the authors: sum."
    )

    begin_from: str = setting(
        "", "Training", "Run or checkpoint whose weights to begin with, such as one of the trainer pairs; none: random."
    )
    begin_d_from: str = setting(
        "", "Training", "Run of this trainer whose D to begin with, where it is another than --begin-from."
    )
    d_first: int = setting(
        0,
        "Training",
        "Steps at the beginning in which D alone learns, so that it does not spoil a G that is good.",
        span=(0, INF),
    )

    gp_precision: Literal["float32", "as-networks"] = setting(
        "float32", "Machine", "Of the gradient penalty, which is all that differentiates a gradient."
    )
    compile: bool = setting(
        False, "Machine", "Compile the networks with torch.compile; the first steps take minutes.", changes=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.generator(labels=2)  # these raise where the network cannot be built
        self.discriminator(labels=2)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """On top of a recipe, or of the run that is to be resumed."""
        if settings.get("resume"):
            return super().from_settings(settings)
        return with_recipe(settings.get("recipe", "paper"), settings, cls)

    def generator(self, labels: int) -> GeneratorConfig:
        return GeneratorConfig(
            labels,
            self.image_size,
            self.channels,
            self.residual_blocks,
            self.skip,
            self.tanh,
            self.clamp,
            self.attention,
            self.gate,
        )


RECIPES: Mapping[str, Mapping[str, Any]] = {
    # Sections 3.4 and 3.5, and StarGAN where the paper is silent: the defaults of the dataclass above. Its crops are
    # centred squares, it takes one session of KDEF, averages no weights, and reports the last step.
    "paper": {},
    # For photos as people have them: faces anywhere in the picture, a checkpoint chosen on people of their own.
    "photos": {"crop": "aligned", "ema": 0.999, "validation_fraction": 0.05, "all_sessions": True},
    # What the authors' published code does where it differs from their paper, and where others might think so.
    "official-code": {
        "lambda_r": 1.0,  # the paper says 10; with the skip a residual of nearly nothing satisfies the cycle already
        "targets": "permute",  # shuffled labels of the batch of 8: a quarter of the targets equal the source
        "decay_from": 1.0,  # its decay takes 1e-9 off 1e-4 every 5000 steps: in effect the rate is constant
        "steps": 200_000,  # it counts iterations, not epochs; the published weights are those of step 87,000
        "crop": "aligned",  # it only resizes; the faces that it was given were cut tight and aligned beforehand
        "tanh": "before-skip",  # y = tanh(h) + x, in [-2, 2]
        "clamp": "inference",  # D, the penalty and the cycle see the uncut sum; only saved pictures are cut
        "gp_score": "sum",  # the penalty differentiates the sum of 2 x 2 patch scores, the critic takes their mean
        "flip": 0.5,  # the only augmentation
        "ema": 0.0,  # no running average
    },
}

Config = TypeVar("Config", bound=TrainConfig)


def with_recipe(name: str, changes: Mapping[str, Any] | None = None, kind: type[Config] = TrainConfig) -> Config:
    """A recipe's configuration with changes on top; `UnknownNameError` for a recipe or setting that does not exist."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    values = {**RECIPES[name], **(changes or {}), "recipe": name}
    if changes and "epochs" in changes and "steps" not in changes:
        values["steps"] = 0  # who asks for epochs does not want the recipe's steps
    known = [entry.name for entry in fields(kind)]
    for key in values:
        if key not in known:
            raise UnknownNameError("setting", key, known)
    return kind(**values)
