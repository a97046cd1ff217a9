"""To begin where another run stands: its weights, not its optimizers or its step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exprtool.errors import TrainingError
from exprtool_training.checkpoint import CHECKPOINTS, LAST, check_fit, find_checkpoint, read_part
from exprtool_usgan.checkpoint import load_generator, read_card
from exprtool_usgan.networks import Discriminator, Generator


def begin_generator(generator: Generator, labels: tuple[str, ...], path: Path) -> None:
    """Copy the weights of a run's or a file's generator; it may have been trained at another size of image.

    Raises `ModelError` for what cannot be read and `TrainingError` for another network or other labels.
    """
    found, card = load_generator(path)
    wanted = replace(card.generator, image_size=generator.config.image_size)
    if wanted != generator.config:
        raise TrainingError(
            f"{path} holds another generator ({card.generator}) than this run is configured for "
            f"({generator.config}). Begin from one of the same layers, or change the network's settings."
        )
    if card.labels != labels:
        raise TrainingError(
            f"{path} knows {', '.join(card.labels)}, in this order, but the data {', '.join(labels)}. Begin from "
            "weights with the same labels."
        )
    generator.load_state_dict(found.state_dict())


def begin_discriminator(discriminator: Discriminator, path: Path) -> bool:
    """Copy the weights of a run's discriminator, if it has one of this kind; whether it had."""
    last = path / CHECKPOINTS / LAST
    file = last if last.is_file() else find_checkpoint(path)
    if read_card(file).discriminator != discriminator.config:
        return False
    state = read_part(file, "discriminator")
    check_fit(discriminator, state, file)
    discriminator.load_state_dict(state)
    return True
