# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""Every hyperparameter of a run: one flat dataclass. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from exprtool.errors import UsageError
from exprtool.settings import setting
from exprtool_training.config import INF, TorchConfig

_WEIGHT = (0.0, INF)


@dataclass(frozen=True)
class FlowConfig(TorchConfig):
    """A training run of the flow network."""

    trainer: ClassVar[str] = "flow"

    out: Path = setting(
        Path("runs/flow"), "Run", "Folder of the run: checkpoints, samples, logs, configuration.", changes=True
    )
    data: tuple[Path, ...] = setting((), "Data", "A set made by `exprtool data synth`; repeatable.", changes=True)
    test_fraction: float = setting(0.06, "Data", "Share of the people who are held out.", span=(0, 0.9))
    batch_size: int = setting(16, "Training", "Pairs per step, over all devices together.", span=(1, INF))
    save_minutes: float = setting(
        5.0, "Watching", "Minutes after which a checkpoint is due anyway; 0: never.", span=(0, INF), changes=True
    )

    readings: str = setting("", "Data", "A file of `exprtool_flow.readings`: more faces to learn reading from.")
    image_size: int = setting(128, "Network", "Side of the crops in pixels, a multiple of 64.", span=(64, 512))
    width: float = setting(1.0, "Network", "Factor on every layer's channels.", span=(0.1, 8))
    flow: float = setting(1.0, "Losses", "Weight of the flow's distance from the true one, in pixels.", span=_WEIGHT)
    smooth: float = setting(0.02, "Losses", "Weight of the flow's total variation.", span=_WEIGHT)
    shading: float = setting(2.0, "Losses", "Weight of the log shading's distance from the true one.", span=_WEIGHT)
    mask: float = setting(0.6, "Losses", "Weight of the paint masks' cross entropy and dice.", span=_WEIGHT)
    image: float = setting(4.0, "Losses", "Weight of the picture's L1 distance.", span=_WEIGHT)
    psnr: float = setting(
        0.04, "Losses", "Weight of the logarithm of each picture's mean squared difference.", span=_WEIGHT
    )
    edges: float = setting(3.0, "Losses", "Weight of the L1 distance of the picture's gradients.", span=_WEIGHT)
    paint: float = setting(1.0, "Losses", "Weight of the paint's L1 distance where paint is needed.", span=_WEIGHT)
    points: float = setting(0.5, "Losses", "Weight of the landmarks' distance from those in the set.", span=_WEIGHT)
    begin_from: str = setting(
        "", "Training", "Run, checkpoint or exported .onnx whose network to begin with; none: from nothing."
    )
    steps: int = setting(60_000, "Training", "Length in batches.", span=(1, INF), changes=True)
    parts: int = setting(
        1, "Training", "Parts of a batch computed side by side; on a CPU best one per core.", span=(1, 64)
    )
    lr: float = setting(2e-3, "Training", "Highest learning rate; a cosine brings it to 0.", span=(0, 1))
    warmup: int = setting(300, "Training", "Steps over which the rate rises.", span=(0, INF))
    weight_decay: float = setting(1e-4, "Training", "AdamW's decay of the weights.", span=(0, 1))
    clip: float = setting(2.0, "Training", "Largest norm of a step's gradient.", span=(1e-6, INF))
    ema: float = setting(
        0.999, "Training", "Decay of the running average of the weights, which is what is used.", span=(0, 0.999999)
    )
    flip: float = setting(0.5, "Training", "Probability of mirroring a pair, its controls with it.", span=(0, 1))
    turn: float = setting(2.0, "Training", "Standard deviation of an extra turn in degrees.", span=(0, 45))
    zoom: float = setting(0.03, "Training", "Standard deviation of an extra change of size.", span=(0, 0.5))
    shift: float = setting(
        0.01, "Training", "Standard deviation of an extra shift, as a share of the side.", span=(0, 0.2)
    )
    bend: float = setting(
        0.012,
        "Training",
        "Standard deviation, as a share of the side, of bending faces into others' shapes.",
        span=(0, 0.03),
    )
    colour: float = setting(
        1.0, "Training", "How much light and colour of a pair are varied; 0: not at all.", span=(0, 3)
    )
    spoil: float = setting(
        0.4, "Training", "Probability that the network sees a blurred, noisy or compressed crop.", span=(0, 1)
    )
    same: float = setting(0.03, "Training", "Probability of asking a face for what it wears.", span=(0, 1))
    tell: float = setting(0.3, "Training", "Probability, later on, of telling the decoder what is worn.", span=(0, 1))
    know: float = setting(0.75, "Training", "Probability of giving the network the landmarks.", span=(0, 1))
    workers: int = setting(
        0, "Machine", "Threads that prepare batches; 0: one per processor.", span=(0, 1024), changes=True
    )
    look_pairs: int = setting(256, "Watching", "Pairs of held-out people per look.", span=(1, INF), changes=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        pieces = self.parts * self.devices * self.nodes
        if self.batch_size % pieces:
            raise UsageError(f"--batch-size {self.batch_size} cannot be cut into {pieces} equal parts.")
        if self.image_size % 64:
            raise UsageError(f"--image-size must be a multiple of 64, not {self.image_size}.")
