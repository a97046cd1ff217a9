"""Weights on disk: one safetensors file with the model card in its header, which is all that using it takes.

The tensors' names begin with the part that they belong to: ``generator.``, ``ema.`` (the generator's running average),
``discriminator.``, and in a training checkpoint whatever else the trainer keeps. Reading one part reads only its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from exprtool.errors import ModelError, UnknownNameError
from exprtool.files import write_bytes
from exprtool_usgan.card import METADATA_KEY, ModelCard, card_from_json
from exprtool_usgan.networks import Discriminator, Generator

Which = Literal["auto", "ema", "raw"]
Net = TypeVar("Net", bound=nn.Module)

SUFFIX = ".safetensors"
CHECKPOINTS = "checkpoints"
BEST, LAST = f"best{SUFFIX}", f"last{SUFFIX}"


def find_checkpoint(path: Path) -> Path:
    """The weights that a user means: a file as it is, of a training run's folder the best ones, else the last."""
    candidates = [path] if path.is_file() else [path / CHECKPOINTS / name for name in (BEST, LAST)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if not path.exists():
        raise ModelError(f"There is no {path}. Give a run's folder or a {SUFFIX} file.")
    raise ModelError(
        f"{path} holds no checkpoint ({CHECKPOINTS}/{BEST} or {LAST}). Give the folder of a training run "
        f"that has saved one, or a {SUFFIX} file."
    )


def read_card(path: Path) -> ModelCard:
    """The model card of a run or file, without reading any weights."""
    path = find_checkpoint(path)
    return card_from_json(read_metadata(path).get(METADATA_KEY), path)


def read_metadata(path: Path) -> dict[str, str]:
    """The text entries in a file's header; `ModelError` where it is no safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}). "
            "Import a PyTorch checkpoint with: exprtool models import FILE"
        ) from None


def read_part(path: Path, part: str) -> dict[str, Tensor]:
    """The tensors of one part, on the CPU, without the part's prefix; empty where the file has no such part."""
    prefix = f"{part}."
    try:
        with safe_open(path, framework="pt") as file:
            return {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}). Take another copy or an earlier checkpoint.") from None


def save(path: Path, parts: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, str]) -> None:
    """Write parts and metadata at once or not at all: a full disk or a kill leaves the file that was there before.

    Raises `WriteError`.
    """
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    # The library's own writer of files puts a file of a name of its own beside ours and swaps the two.
    write_bytes(path, serialize(tensors, dict(metadata)))


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


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy a part's tensors into a module; `ModelError` names what does not fit."""
    check_fit(module, state, path)
    module.load_state_dict(dict(state))


def check_fit(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise a `ModelError` unless the tensors are the module's, name by name and shape by shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wanted == found:
        return
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    name = differing[0]
    raise ModelError(
        f"The weights in {path} are not those of the network that it describes: {len(differing)} differ, first {name} "
        f"(expected {wanted.get(name, 'none')}, found {found.get(name, 'none')}). Take another copy of the file."
    )


def _filled(module: Net, state: Mapping[str, Tensor], path: Path) -> Net:
    check_fit(module, state, path)
    module.load_state_dict(dict(state), assign=True)
    return module.eval().requires_grad_(False).float()
