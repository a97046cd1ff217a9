"""What is learned, in a checkpoint and back: both networks, the running average and Adam's moments.

Sampler, random numbers and learning rate are pure functions of seed and step (see `exprtool_gan.sampler`), so that
nothing else needs keeping.
"""

from __future__ import annotations

from pathlib import Path

from exprtool.errors import TrainingError
from exprtool_gan.step import Adversaries, Learner
from exprtool_training.checkpoint import Parts, fill, read_part
from exprtool_training.moments import fill_moments, moments
from exprtool_usgan.checkpoint import read_card


def parts_of(learner: Adversaries) -> Parts:
    parts = {
        "generator": learner.generator.state_dict(),
        "discriminator": learner.discriminator.state_dict(),
        "g_adam": moments(learner.g_adam, dict(learner.generator.named_parameters())),
        "d_adam": moments(learner.d_adam, dict(learner.discriminator.named_parameters())),
    }
    return parts if learner.ema is None else {**parts, "ema": learner.ema.state_dict()}


def check_networks(learner: Learner, path: Path) -> None:
    """Raise `TrainingError` where a checkpoint of US-GAN holds networks of other layers."""
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


def restore(learner: Adversaries, path: Path, step: int) -> None:
    """Put the state after ``step`` steps into a learner of the same architecture; raises `ModelError` where it does
    not fit."""
    learner.g_updates = sum(map(learner.g_learns, range(step)))
    fill(learner.generator, read_part(path, "generator"), path)
    fill(learner.discriminator, read_part(path, "discriminator"), path)
    if learner.ema is not None:
        fill(learner.ema, read_part(path, "ema"), path)
    for name, adam, net, updates in (
        ("g_adam", learner.g_adam, learner.generator, learner.g_updates),
        ("d_adam", learner.d_adam, learner.discriminator, step),
    ):
        fill_moments(adam, dict(net.named_parameters()), read_part(path, name), updates, path)
