# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""Every hyperparameter of a run: one flat dataclass. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exprtool.errors import UsageError
from exprtool.settings import flag, resumed, setting


@dataclass(frozen=True)
class FlowConfig:
    """A training run of the flow network. Field names are those of the flags and of the TOML keys.

    Building one checks it: `UsageError` names the field that will not do.
    """

    out: Path = setting(Path("runs/flow"), "Run", "Folder of the run: checkpoints, samples, logs, configuration.")
    seed: int = setting(0, "Run", "Every random choice follows from this number and the step.")
    resume: bool = setting(False, "Run", "Continue the run in --out exactly where it was saved last.", stored=False)
    overwrite: bool = setting(False, "Run", "Start afresh in a folder that holds a run already.", stored=False)
    stop_at: int = setting(0, "Run", "Save and stop after this step; 0: run to the end.", stored=False)

    data: tuple[Path, ...] = setting((), "Data", "A set made by `exprtool data synth`; repeatable.")
    readings: str = setting("", "Data", "A file of `exprtool_flow.readings`: more faces to learn reading from.")
    test_fraction: float = setting(0.06, "Data", "Share of the people who are held out.")
    split_seed: int = setting(0, "Data", "Another number holds out other people.")

    image_size: int = setting(128, "Network", "Side of the crops in pixels, a multiple of 64.")
    width: float = setting(1.0, "Network", "Factor on every layer's channels.")

    flow: float = setting(1.0, "Losses", "Weight of the flow's distance from the true one, in pixels.")
    smooth: float = setting(0.02, "Losses", "Weight of the flow's total variation.")
    shading: float = setting(2.0, "Losses", "Weight of the log shading's distance from the true one.")
    mask: float = setting(0.6, "Losses", "Weight of the paint masks' cross entropy and dice.")
    image: float = setting(4.0, "Losses", "Weight of the picture's L1 distance.")
    psnr: float = setting(0.04, "Losses", "Weight of the logarithm of each picture's mean squared difference.")
    edges: float = setting(3.0, "Losses", "Weight of the L1 distance of the picture's gradients.")
    paint: float = setting(1.0, "Losses", "Weight of the paint's L1 distance where paint is needed.")
    points: float = setting(0.5, "Losses", "Weight of the landmarks' distance from those in the set.")

    begin_from: str = setting(
        "", "Training", "Run, checkpoint or exported .onnx whose network to begin with; none: from nothing."
    )
    steps: int = setting(60_000, "Training", "Length in batches.")
    batch_size: int = setting(16, "Training", "Pairs per step.")
    parts: int = setting(1, "Training", "Parts of a batch computed side by side; on a CPU best one per core.")
    lr: float = setting(2e-3, "Training", "Highest learning rate; a cosine brings it to 0.")
    warmup: int = setting(300, "Training", "Steps over which the rate rises.")
    weight_decay: float = setting(1e-4, "Training", "AdamW's decay of the weights.")
    clip: float = setting(2.0, "Training", "Largest norm of a step's gradient.")
    ema: float = setting(0.999, "Training", "Decay of the running average of the weights, which is what is used.")
    flip: float = setting(0.5, "Training", "Probability of mirroring a pair, its controls with it.")
    turn: float = setting(2.0, "Training", "Standard deviation of an extra turn in degrees.")
    zoom: float = setting(0.03, "Training", "Standard deviation of an extra change of size.")
    shift: float = setting(0.01, "Training", "Standard deviation of an extra shift, as a share of the side.")
    bend: float = setting(
        0.012, "Training", "Standard deviation, as a share of the side, of bending faces into others' shapes."
    )
    colour: float = setting(1.0, "Training", "How much light and colour of a pair are varied; 0: not at all.")
    spoil: float = setting(0.4, "Training", "Probability that the network sees a blurred, noisy or compressed crop.")
    same: float = setting(0.03, "Training", "Probability of asking a face for what it wears.")
    tell: float = setting(0.3, "Training", "Probability, later on, of telling the decoder what is worn.")
    know: float = setting(0.75, "Training", "Probability of giving the network the landmarks.")

    device: str = setting("auto", "Machine", "auto, cpu, cuda, cuda:N or mps.")
    workers: int = setting(0, "Machine", "Threads that prepare batches; 0: one per processor.")

    log_every: int = setting(50, "Watching", "Steps between lines of the log.")
    sample_every: int = setting(1000, "Watching", "Steps between sample sheets; 0: none.")
    look_every: int = setting(1000, "Watching", "Steps between looks at the held-out people; 0: none.")
    look_pairs: int = setting(256, "Watching", "Pairs of held-out people per look.")
    save_every: int = setting(1000, "Watching", "Steps between checkpoints.")
    save_minutes: float = setting(5.0, "Watching", "Minutes after which a checkpoint is due anyway; 0: never.")
    licence: str = setting("", "Watching", "Licence of the trained weights, written into every checkpoint.")

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise UsageError(f"{flag(name)} must be {span}, not {value!r}.")
        if self.batch_size % self.parts:
            raise UsageError(f"--batch-size {self.batch_size} cannot be cut into {self.parts} equal --parts.")
        if self.image_size % 64:
            raise UsageError(f"--image-size must be a multiple of 64, not {self.image_size}.")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> FlowConfig:
        """The configuration of a user's settings: those of the run that is resumed, if so, where they stay the same."""
        if not settings.get("resume"):
            return cls(**settings)
        from exprtool_flow.state import stored_config

        return resumed(stored_config(Path(settings.get("out", cls.out))), settings, CHANGEABLE)


CHANGEABLE = frozenset(
    {
        "out", "resume", "overwrite", "steps", "stop_at", "data", "device", "workers", "log_every", "sample_every",
        "look_every", "look_pairs", "save_every", "save_minutes", "licence",
    }
)  # fmt: skip
"""What may be changed when a run is resumed: where and how it runs, and for how long; with another length the learning
rate follows the new curve from there on."""

_INF = math.inf
_RANGES = {
    "seed": (0, 2**63 - 1), "stop_at": (0, _INF), "test_fraction": (0, 0.9), "image_size": (64, 512), "width": (0.1, 8),
    "steps": (1, _INF), "batch_size": (1, _INF), "parts": (1, 64), "lr": (0, 1), "warmup": (0, _INF),
    "weight_decay": (0, 1), "clip": (1e-6, _INF), "ema": (0, 0.999999), "flip": (0, 1), "turn": (0, 45),
    "zoom": (0, 0.5), "shift": (0, 0.2), "bend": (0, 0.03), "know": (0, 1),
    "colour": (0, 3), "spoil": (0, 1), "same": (0, 1), "tell": (0, 1), "workers": (0, 1024), "log_every": (1, _INF),
    "sample_every": (0, _INF), "look_every": (0, _INF), "look_pairs": (1, _INF), "save_every": (1, _INF),
    "save_minutes": (0, _INF),
    **{name: (0, _INF) for name in ("flow", "smooth", "shading", "mask", "image", "psnr", "edges", "paint")},
}  # fmt: skip
