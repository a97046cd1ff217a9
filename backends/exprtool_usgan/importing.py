"""Taking in checkpoints of the authors' US-GAN code and of StarGAN, whose generators have the same layers.

A ``.ckpt`` is a pickle, which can run any code when it is opened. It is read by torch's unpickler for weights alone,
which builds tensors and refuses everything else; what comes out is stored as safetensors.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exprtool.errors import ModelError
from exprtool.expressions import ALIASES
from exprtool.faces.align import US_GAN_TEMPLATE
from exprtool.files import is_special
from exprtool_training.checkpoint import SUFFIX
from exprtool_usgan.card import ModelCard
from exprtool_usgan.checkpoint import save_generator
from exprtool_usgan.config import GeneratorConfig
from exprtool_usgan.imported import imported_folder
from exprtool_usgan.networks import Generator

USGAN_LABELS = ("afraid", "angry", "disgusted", "happy", "neutral", "sad", "surprised")
"""The authors' folders in alphabetical order: AFS ANS DIS HAS NES SAS SUS."""

RAFD_LABELS = ("angry", "contemptuous", "disgusted", "afraid", "happy", "neutral", "sad", "surprised")
"""StarGAN's RaFD folders in alphabetical order: angry, contemptuous, disgusted, fearful ..."""

_RUNNING = ("running_mean", "running_var", "num_batches_tracked")
_FIRST, _BLOCK = "main.0.weight", re.compile(r"main\.(\d+)\.main\.0\.weight\Z")
_LICENCE = "none was granted with these weights: ask their authors before any use but research"


def import_checkpoint(
    path: Path, *, labels: Sequence[str] | None = None, skip: bool | None = None, folder: Path | None = None
) -> Path:
    """Store the generator in a foreign checkpoint as ``FOLDER/NAME.safetensors`` with a model card; returns that path.

    ``labels`` are the expressions in the order of the network's inputs; without them those of the authors' seven and
    of StarGAN's eight RaFD folders are assumed, and any other number is refused. ``skip`` says whether the ultimate
    skip is added; without it: up to five residual blocks (US-GAN has one), not from six on (StarGAN). Raises
    `ModelError` for a file that holds anything but weights, or other ones.
    """
    state = _generator_weights(read_tensors(path), path)
    first = state[_FIRST]
    count = first.shape[1] - 3
    blocks = sum(1 for key in state if _BLOCK.match(key))
    side_by_side = skip if skip is not None else blocks < 6
    config = GeneratorConfig(
        labels=count, channels=first.shape[0], residual_blocks=blocks, skip=side_by_side, tanh="before-skip"
    )
    card = ModelCard(
        generator=config,
        labels=_labels(labels, count, path),
        crop=US_GAN_TEMPLATE,
        licence=_LICENCE,
        training_data={},
        source=f"imported: {path.name}",
    )
    with torch.device("meta"):
        generator = Generator(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    if wanted != {name: tuple(tensor.shape) for name, tensor in state.items()}:
        raise ModelError(f"{path} holds a network of other layers than US-GAN's or StarGAN's generator.")
    generator.load_state_dict(state, assign=True)
    target = (folder or imported_folder()) / f"{re.sub(r'[^A-Za-z0-9._-]', '_', path.stem)}{SUFFIX}"
    save_generator(target, generator, card)
    return target


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint by name; `ModelError`, and nothing executed, for any other content."""
    _check_archive(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"There is no file {path}. Check the path.") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it holds more than weights, and opening it could run code on this machine "
            f"({_first_line(error)}). Nothing of it was executed. Use only checkpoints that hold a plain state_dict."
        ) from None
    except (
        RuntimeError,
        MemoryError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise ModelError(
            f"{path} cannot be read as a PyTorch checkpoint ({_first_line(error)}). Take another copy of the file."
        ) from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds a {type(content).__name__} and no weights by name. Export a state_dict.")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) != len(content):
        raise ModelError(f"{path} holds entries that are no tensors. Export the generator's state_dict alone.")
    for name, tensor in tensors.items():
        _check_extent(name, tensor, path)
    return tensors


def _check_archive(path: Path) -> None:
    """Refuse a file that would unpack to more than it holds: `torch.save` writes its records as they are.

    Older checkpoints are no archives; what those hold is read from the file byte by byte.
    """
    if is_special(path):
        raise ModelError(f"{path} is a pipe or a device and not a file: reading it might never end. Name a file.")
    try:
        size = path.stat().st_size
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return  # told by whoever reads it
    if unpacked > size:
        raise ModelError(
            f"{path} was refused: it would unpack from {size} to {unpacked} bytes, and PyTorch does not compress "
            "checkpoints. Save it anew with torch.save, or take another copy of the file."
        )


def _check_extent(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse a tensor that repeats a few stored numbers over and over: copied once, it could fill the memory."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(
            f"{path} was refused: {name} claims the shape {tuple(tensor.shape)}, but its numbers are not in the file. "
            "Take another copy of the file."
        )


def _generator_weights(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under our names: prefix of parallel training off, running statistics (never used) dropped."""
    named = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    state = {name: t.float() for name, t in named.items() if not name.endswith(_RUNNING)}
    if "conv1.weight" in state and "conv2.weight" in state:
        raise ModelError(f"{path} is a discriminator; the generator lies in the file whose name has G in its place.")
    first = state.get(_FIRST)
    if first is None or first.ndim != 4 or first.shape[1] < 5:
        raise ModelError(
            f"{path} is no generator of US-GAN or StarGAN: {_FIRST} is "
            f"{'missing' if first is None else f'of shape {tuple(first.shape)}'}."
        )
    return state


def _labels(labels: Sequence[str] | None, count: int, path: Path) -> tuple[str, ...]:
    if labels:
        if len(labels) != count:
            raise ModelError(f"{path} takes {count} labels, but {len(labels)} names were given: {', '.join(labels)}.")
        return tuple(ALIASES.get(name.strip().lower(), name) for name in labels)
    known = {len(USGAN_LABELS): USGAN_LABELS, len(RAFD_LABELS): RAFD_LABELS}
    if count not in known:
        raise ModelError(
            f"{path} takes {count} labels, and nothing in it says what they mean. Name them in order: "
            "exprtool models import FILE --label angry --label happy ..."
        )
    return known[count]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
