"""US-GAN's weights: the parts ``generator``, ``ema`` (its running average) and ``discriminator`` of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from exprtool.errors import ModelError, UnknownNameError
from exprtool_training.checkpoint import CHECKPOINTS, LAST, check_fit, find_checkpoint, read_metadata, read_part, save
from exprtool_usgan.card import METADATA_KEY, ModelCard, card_from_json
from exprtool_usgan.networks import Discriminator, Generator

Which = Literal["auto", "ema", "raw"]
Net = TypeVar("Net", bound=nn.Module)


def read_card(path: Path) -> ModelCard:
    """The model card of a run or file, without reading any weights."""
    path = find_checkpoint(path)
    return card_from_json(read_metadata(path).get(METADATA_KEY), path)


def save_generator(path: Path, generator: Generator, card: ModelCard) -> None:
    """Write a generator alone with its card: what is needed to use it, a tenth of a training checkpoint."""
    save(path, {"generator": generator.state_dict()}, {METADATA_KEY: card.to_json()})


def load_generator(
    path: Path, device: str | torch.device = "cpu", *, weights: Which = "auto"
) -> tuple[Generator, ModelCard]:
    """The generator of a run or file, ready for inference (no gradients), and its card.

    ``weights``: "ema" is the running average over the training, "raw" the weights as trained, "auto" the average where
    the file has one. Raises `ModelError` where the file is damaged, foreign, or does not fit its own card.
    """
    path = find_checkpoint(path)
    card = read_card(path)
    order = {"auto": ("ema", "generator"), "ema": ("ema",), "raw": ("generator",)}
    if weights not in order:
        raise UnknownNameError("choice of weights", weights, order)
    for part in order[weights]:
        if state := read_part(path, part):
            with torch.device("meta"):  # shapes first: a false card must not make us allocate what it claims
                generator = Generator(card.generator)
            return _filled(generator, state, path).to(device), card
    raise ModelError(f"{path} holds no {weights} weights of a generator. Use --weights auto, or another checkpoint.")


def load_discriminator(path: Path, device: str | torch.device = "cpu") -> tuple[Discriminator, ModelCard]:
    """The discriminator of a run or file; `ModelError` where only the generator was kept.

    Of a run the last checkpoint is read, because the best one holds the generator alone.
    """
    last = path / CHECKPOINTS / LAST
    path = last if last.is_file() else find_checkpoint(path)
    card = read_card(path)
    state = read_part(path, "discriminator")
    if card.discriminator is None or not state:
        raise ModelError(
            f"{path} holds no discriminator. Its expression head can be used only with the last checkpoint of a run "
            f"({CHECKPOINTS}/{LAST})."
        )
    with torch.device("meta"):
        discriminator = Discriminator(card.discriminator)
    return _filled(discriminator, state, path).to(device), card


def _filled(module: Net, state: Mapping[str, Tensor], path: Path) -> Net:
    check_fit(module, state, path)
    module.load_state_dict(dict(state), assign=True)
    return module.eval().requires_grad_(False).float()
