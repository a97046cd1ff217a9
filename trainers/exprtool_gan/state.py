"""The whole state of a run on disk, and back: everything from which the next step follows.

One safetensors file holds both networks, the running average and Adam's moments; JSON entries in its header hold the
model card, the configuration, the step and the data's hash. Sampler, random numbers and learning rate are pure
functions of seed and step (see `exprtool_gan.sampler`, `exprtool_gan.schedule`), so that nothing else needs keeping.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exprtool.documents import parse_json
from exprtool.errors import ModelError, TrainingError
from exprtool.settings import to_plain
from exprtool_gan.config import TrainConfig
from exprtool_gan.step import Learner
from exprtool_usgan.card import METADATA_KEY, ModelCard
from exprtool_usgan.checkpoint import fill, read_card, read_metadata, read_part, save

PROGRESS_KEY = "exprtool_training"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """Where a run stands. ``step`` discriminator steps and ``g_updates`` generator steps are done; ``total`` is the
    length that its schedule was made for. ``best`` is the score of the best checkpoint, None before the first look."""

    step: int
    g_updates: int
    total: int
    data_hash: str
    best: float | None = None
    seconds: float = 0.0


def save_training(path: Path, learner: Learner, card: ModelCard, config: TrainConfig, progress: Progress) -> None:
    """Write the state atomically. `TrainingError`, and the old file stays, where a weight is not finite."""
    parts: dict[str, Mapping[str, Tensor]] = {
        "generator": learner.generator.state_dict(),
        "discriminator": learner.discriminator.state_dict(),
        "g_adam": _moments(learner.g_adam, learner.generator),
        "d_adam": _moments(learner.d_adam, learner.discriminator),
    }
    if learner.ema is not None:
        parts["ema"] = learner.ema.state_dict()
    for name in ("generator", "discriminator"):
        check_finite(parts[name], name, progress.step, path)
    card = replace(card, step=progress.step, discriminator=learner.discriminator.config)
    training = {"progress": asdict(progress), "config": to_plain(config)}
    save(path, parts, {METADATA_KEY: card.to_json(), PROGRESS_KEY: json.dumps(training)})


def check_finite(state: Mapping[str, Tensor], net: str, step: int, path: Path) -> None:
    """Raise a `TrainingError` that names the weight, unless all are finite."""
    bad = ~torch.stack([tensor.isfinite().all() for tensor in state.values()])
    if bad.any():
        name = list(state)[int(bad.nonzero()[0])]
        raise TrainingError(
            f"After step {step} the {net}'s weight {name} is not finite; nothing was saved and {path} is the last good "
            "checkpoint. Resume from it with a lower --lr, or with --precision float32."
        )


def read_progress(path: Path) -> tuple[Progress, dict[str, Any]]:
    """Where the run that a file belongs to stands, and its configuration as plain values.

    Raises `TrainingError` where the file can be used but not trained further.
    """
    text = read_metadata(path).get(PROGRESS_KEY)
    if text is None:
        raise TrainingError(
            f"{path} holds weights for use but no training state, so the run cannot be continued from it. "
            "Resume from a run's folder that has checkpoints/last.safetensors."
        )
    try:
        training = parse_json(text)
        return Progress(**training["progress"]), dict(training["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The training state in {path} cannot be read ({error}). Start a new run.") from None


def load_training(path: Path, learner: Learner) -> Progress:
    """Put a saved state into a learner of the same architecture. Raises `ModelError` where it does not fit."""
    progress, _ = read_progress(path)
    card = read_card(path)
    for name, mine, theirs in (
        ("generator", learner.generator.config, card.generator),
        ("discriminator", learner.discriminator.config, card.discriminator),
    ):
        if mine != theirs:
            raise TrainingError(
                f"{path} holds another {name} ({theirs}) than the run is configured for ({mine}). Resume without "
                "changing the network, or start a new run in another --out."
            )
    fill(learner.generator, read_part(path, "generator"), path)
    fill(learner.discriminator, read_part(path, "discriminator"), path)
    if learner.ema is not None:
        fill(learner.ema, read_part(path, "ema"), path)
    _fill_moments(learner.g_adam, learner.generator, read_part(path, "g_adam"), progress.g_updates, path)
    _fill_moments(learner.d_adam, learner.discriminator, read_part(path, "d_adam"), progress.step, path)
    learner.g_updates = progress.g_updates
    return progress


def _moments(adam: torch.optim.Adam, net: nn.Module) -> dict[str, Tensor]:
    """Adam's two moments under their weight's name; none before the first step."""
    return {
        f"{name}.{moment}": adam.state[parameter][moment]
        for name, parameter in net.named_parameters()
        if parameter in adam.state
        for moment in _MOMENTS
    }


def _fill_moments(
    adam: torch.optim.Adam, net: nn.Module, saved: Mapping[str, Tensor], updates: int, path: Path
) -> None:
    """Give Adam its moments back, in the memory layout of the weights, which its fused kernel takes for granted."""
    if updates == 0:
        return
    cuda = next(net.parameters()).is_cuda
    for name, parameter in net.named_parameters():
        state = adam.state[parameter]
        state["step"] = torch.tensor(float(updates), device=parameter.device if cuda else "cpu")
        for moment in _MOMENTS:
            tensor = saved.get(f"{name}.{moment}")
            if tensor is None or tensor.shape != parameter.shape:
                raise ModelError(f"{path} lacks the optimizer's {moment} of {name}. Start a new run from its weights.")
            state[moment] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
