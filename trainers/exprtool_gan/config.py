# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""Every hyperparameter of a run: one flat dataclass, and the recipes. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from exprtool.errors import UnknownNameError, UsageError
from exprtool.settings import check_words, flag, resumed, setting
from exprtool_usgan.config import ClampPlace, DiscriminatorConfig, GeneratorConfig, TanhPlace


@dataclass(frozen=True)
class TrainConfig:
    """A training run of US-GAN. Field names are those of the flags and of the TOML keys.

    The defaults are the recipe ``paper``. Building one checks it: `UsageError` names the field that will not do.
    """

    recipe: Literal["paper", "official-code"] = setting(
        "paper", "Run", "Starting values: the paper's, or what the authors' published code does where it differs."
    )
    out: Path = setting(Path("runs/usgan"), "Run", "Folder of the run: checkpoints, samples, logs, configuration.")
    seed: int = setting(0, "Run", "Every random choice follows from this number and the step.")
    resume: bool = setting(False, "Run", "Continue the run in --out exactly where it was saved last.", stored=False)
    overwrite: bool = setting(False, "Run", "Start afresh in a folder that holds a run already.", stored=False)
    stop_at: int = setting(0, "Run", "Save and stop after this step; 0: run to the end.", stored=False)

    data: tuple[Path, ...] = setting(
        (),
        "Data",
        "Folder with one subfolder per expression, KDEF, RaFD or CFEE, a CSV, or a prepared folder; repeatable.",
    )
    image_size: int = setting(128, "Data", "Side of the face crops in pixels, 16 to 512.")
    crop: Literal["aligned", "centre"] = setting(
        "aligned", "Data", "Eyes and mouth brought to fixed places, or the centred square as it is."
    )
    detector: str = setting("auto", "Data", "Face detector for the aligned crops.")
    test_fraction: float = setting(0.1, "Data", "Share of the people who are held out for testing.")
    split_seed: int = setting(0, "Data", "Another number holds out other people.")
    ignore: tuple[str, ...] = setting((), "Data", "Leave out pictures whose path matches this pattern; repeatable.")
    all_angles: bool = setting(False, "Data", "Also take KDEF's and RaFD's pictures that are not frontal.")
    free_labels: bool = setting(False, "Data", "Take folder names as they are, not only the seven expressions.")

    residual_blocks: int = setting(1, "Networks", "Residual blocks in the generator; the paper compares 1 and 6.")
    skip: bool = setting(True, "Networks", "The ultimate skip connection, y = G(x, c) + x (eq. 1).")
    tanh: TanhPlace = setting("before-skip", "Networks", "Where the last tanh meets the skip; the authors: before it.")
    clamp: ClampPlace = setting(
        "inference", "Networks", "Where y is cut to [-1, 1]: only in pictures, or always (in the training too)."
    )
    channels: int = setting(64, "Networks", "Channels of the generator's first layer.")
    d_channels: int = setting(64, "Networks", "Channels of the discriminator's first layer; they double with each.")
    d_layers: int = setting(6, "Networks", "Layers of the discriminator; each halves the image (5 for 32 pixels).")

    lambda_c: float = setting(1.0, "Losses", "Weight of the expression loss (eqs. 7 and 8).")
    lambda_r: float = setting(10.0, "Losses", "Weight of the reconstruction loss (eq. 8).")
    lambda_gp: float = setting(10.0, "Losses", "Weight of the gradient penalty (eq. 2).")
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
        0, "Training", "Steps at the beginning in which D alone learns, so that it does not spoil a G that is good."
    )
    epochs: float = setting(350.0, "Training", "Passes over the training images through D.")
    steps: int = setting(0, "Training", "Length in discriminator steps instead of epochs; 0: as --epochs says.")
    batch_size: int = setting(8, "Training", "Images per step, over all devices together.")
    d_steps: int = setting(5, "Training", "Discriminator steps per generator step.")
    lr: float = setting(1e-4, "Training", "Learning rate of both networks.")
    beta1: float = setting(0.5, "Training", "Adam's first decay rate.")
    beta2: float = setting(0.999, "Training", "Adam's second decay rate.")
    decay_from: float = setting(
        0.5, "Training", "Share of the run after which the rate falls to 0 in a straight line; 1: never."
    )
    targets: Literal["permute", "uniform", "different"] = setting(
        "permute", "Training", "Target labels: the batch's own shuffled, any, or any but the source's."
    )
    flip: float = setting(0.5, "Training", "Probability of mirroring an image.")
    shift: int = setting(0, "Training", "Move images by up to so many pixels (an addition to the paper).")
    colour: float = setting(0.0, "Training", "Change colours by up to this share (an addition to the paper).")
    ema: float = setting(0.999, "Training", "Decay of the generator's running average kept beside it; 0: none.")

    device: str = setting("auto", "Machine", "auto, cpu, cuda, cuda:N or mps.")
    devices: int = setting(1, "Machine", "Devices (or CPU processes) on each machine.")
    nodes: int = setting(1, "Machine", "Machines, started by torchrun or the cluster's launcher.")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Machine",
        "Of the networks; auto: bfloat16 where the device has it (CUDA, AVX512-BF16, AMX), else float32.",
    )
    gp_precision: Literal["float32", "as-networks"] = setting(
        "float32", "Machine", "Of the gradient penalty, which is all that differentiates a gradient."
    )
    cuda_graphs: Literal["auto", "on", "off"] = setting(
        "auto", "Machine", "Record a step once and replay it; auto: on one CUDA device."
    )
    compile: bool = setting(False, "Machine", "Compile the networks with torch.compile; the first steps take minutes.")
    deterministic: bool = setting(
        False, "Machine", "On CUDA, only kernels that give the same bits every time; on the CPU they always do."
    )

    log_every: int = setting(50, "Watching", "Steps between lines of the log.")
    sample_every: int = setting(1000, "Watching", "Steps between sample sheets; 0: none.")
    look_every: int = setting(5000, "Watching", "Steps between looks at the held-out people; 0: none.")
    look_images: int = setting(16, "Watching", "Held-out images per look, each with every expression.")
    classifier: Path | None = setting(
        None, "Watching", "ONNX model of an independent expression classifier for the looks; without: D's own head."
    )
    save_every: int = setting(1000, "Watching", "Steps between checkpoints.")
    save_minutes: float = setting(2.0, "Watching", "Minutes after which a checkpoint is due anyway; 0: never.")
    keep_every: int = setting(0, "Watching", "Steps between generators that are kept for good; 0: only best and last.")
    tensorboard: bool = setting(True, "Watching", "Write TensorBoard logs.")
    licence: str = setting("", "Watching", "Licence of the trained weights, written into every checkpoint.")

    def __post_init__(self) -> None:
        check_words(self)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise UsageError(f"{flag(name)} must be {span}, not {value!r}.")
        if self.steps == 0 and self.epochs == 0:
            raise UsageError("The run has no length: give --epochs or --steps.")
        processes = self.devices * self.nodes
        if self.batch_size % processes:
            raise UsageError(
                f"--batch-size {self.batch_size} cannot be shared evenly by {processes} processes: "
                f"use a multiple of {processes}."
            )
        self.generator(labels=2)  # these raise where the network cannot be built
        self.discriminator(labels=2)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """The configuration that a user's settings (flags over file) stand for: on top of a recipe, or of the run that
        is to be resumed, whose own settings then hold and may be changed only where that leaves it the same run."""
        if settings.get("resume"):
            return _resumed(settings)
        return with_recipe(settings.get("recipe", "paper"), settings)

    def generator(self, labels: int) -> GeneratorConfig:
        return GeneratorConfig(
            labels, self.image_size, self.channels, self.residual_blocks, self.skip, self.tanh, self.clamp
        )

    def discriminator(self, labels: int) -> DiscriminatorConfig:
        return DiscriminatorConfig(labels, self.image_size, self.d_channels, self.d_layers)


_INF = math.inf
_RANGES = (
    ("seed", 0, 2**63 - 1), ("stop_at", 0, _INF), ("test_fraction", 0, 0.9), ("lambda_c", 0, _INF),
    ("lambda_r", 0, _INF), ("lambda_gp", 0, _INF), ("epochs", 0, _INF), ("steps", 0, _INF), ("batch_size", 1, _INF),
    ("d_first", 0, _INF), ("d_steps", 1, _INF), ("lr", 0, 1), ("beta1", 0, 0.999999), ("beta2", 0, 0.999999),
    ("decay_from", 0, 1),
    ("flip", 0, 1), ("shift", 0, 128), ("colour", 0, 1), ("ema", 0, 0.999999), ("devices", 1, 4096),
    ("nodes", 1, 4096), ("log_every", 1, _INF), ("sample_every", 0, _INF), ("look_every", 0, _INF),
    ("look_images", 1, _INF), ("save_every", 1, _INF), ("save_minutes", 0, _INF), ("keep_every", 0, _INF),
)  # fmt: skip

RECIPES: Mapping[str, Mapping[str, Any]] = {
    # Section 3.4, and StarGAN where the paper is silent: the defaults of the dataclass above.
    "paper": {},
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

CHANGEABLE = frozenset(
    {
        "out", "resume", "overwrite", "stop_at", "data", "steps", "epochs", "device", "devices", "nodes", "cuda_graphs",
        "compile", "deterministic", "log_every", "sample_every", "look_every", "look_images", "classifier",
        "save_every", "save_minutes", "keep_every", "tensorboard", "licence", "detector",
    }
)  # fmt: skip
"""What may be changed when a run is resumed: where and how it runs, and its length."""


def with_recipe(name: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A recipe's configuration with changes on top; `UnknownNameError` for a recipe or setting that does not exist."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    values = {**RECIPES[name], **(changes or {}), "recipe": name}
    if changes and "epochs" in changes and "steps" not in changes:
        values["steps"] = 0  # who asks for epochs does not want the recipe's steps
    known = [entry.name for entry in fields(TrainConfig)]
    for key in values:
        if key not in known:
            raise UnknownNameError("setting", key, known)
    return TrainConfig(**values)


def _resumed(settings: Mapping[str, Any]) -> TrainConfig:
    from exprtool_gan.run_folder import stored_config

    return resumed(stored_config(Path(settings.get("out", TrainConfig.out))), settings, CHANGEABLE)
