"""Weights on disk: one safetensors file of named arrays, with text entries in its header that say what they are.

The arrays' names begin with the part that they belong to (``generator.``, ``ema.``, ``adam.``). Reading one part reads
only its bytes. Needs no PyTorch: arrays may be NumPy's or tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from exprtool.errors import ModelError
from exprtool.files import write_bytes

SUFFIX = ".safetensors"
CHECKPOINTS = "checkpoints"
BEST, LAST = f"best{SUFFIX}", f"last{SUFFIX}"

TRAINER_KEY = "exprtool_trainer"
"""The entry of a header that names the trainer."""

Parts = Mapping[str, Mapping[str, Any]]
"""Arrays by part and name."""


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


def made_by(path: Path, trainer: str, entry: str = "") -> bool:
    """Whether a run's folder or a checkpoint is a trainer's; False for any other path. A file that names none, as old
    and imported ones do, is known by an ``entry`` of its header."""
    try:
        header = read_metadata(find_checkpoint(path))
    except ModelError:
        return False
    return header[TRAINER_KEY] == trainer if TRAINER_KEY in header else entry in header


def read_metadata(path: Path) -> dict[str, str]:
    """The text entries in a file's header; `ModelError` where it is no safetensors file."""
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}). "
            "Import a PyTorch checkpoint with: exprtool models import FILE"
        ) from None


def read_part(path: Path, part: str, framework: Literal["pt", "np"] = "pt") -> dict[str, Any]:
    """The arrays of one part without the part's prefix, as tensors on the CPU or as NumPy's; empty where the file has
    no such part."""
    prefix = f"{part}."
    try:
        with safe_open(path, framework=framework) as file:
            return {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}). Take another copy or an earlier checkpoint.") from None


def save(path: Path, parts: Parts, metadata: Mapping[str, str]) -> None:
    """Write parts and metadata at once or not at all: a full disk or a kill leaves the file that was there before.

    Raises `WriteError`.
    """
    arrays = {f"{part}.{name}": _plain(array) for part, named in parts.items() for name, array in named.items()}
    # The library's own writer of files puts a file of a name of its own beside ours and swaps the two.
    write_bytes(path, serialize(arrays, dict(metadata)))


def fill(module: Any, state: Mapping[str, Any], path: Path) -> None:
    """Copy a part's tensors into a module; `ModelError` names what does not fit."""
    check_fit(module, state, path)
    module.load_state_dict(dict(state))


def check_fit(module: Any, state: Mapping[str, Any], path: Path) -> None:
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


def _plain(array: Any) -> np.ndarray:
    """A tensor or array as a contiguous array of the same shape."""
    values = array.detach().cpu().numpy() if hasattr(array, "detach") else array
    return np.asarray(values, order="C")
