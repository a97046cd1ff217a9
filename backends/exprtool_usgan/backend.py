"""US-GAN on somebody's photo: a checkpoint, run by PyTorch, behind the backend for aligned crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from exprtool.crop_backend import CropBackend
from exprtool.errors import DeviceError, ModelError
from exprtool_training.checkpoint import SUFFIX
from exprtool_usgan.card import crop_card
from exprtool_usgan.checkpoint import load_generator
from exprtool_usgan.imported import imported_files
from exprtool_usgan.networks import count_parameters


def load_from(device: str, argument: str) -> CropBackend:
    """The backend for ``usgan:ARGUMENT``: a run's folder, a checkpoint, or the name of imported weights."""
    return open_checkpoint(locate(argument), device)


def locate(argument: str) -> Path:
    """A path, or the name of imported weights; raises `ModelError` with the names that there are."""
    path = Path(argument).expanduser()
    if path.exists():
        return path
    found = imported_files()
    name = argument.removesuffix(SUFFIX)
    if name in found:
        return found[name]
    raise ModelError(
        f"There is no run, checkpoint or imported model {argument!r}. Imported: {', '.join(found) or 'none'}. "
        "Give the folder that `exprtool train --out` named."
    )


def open_checkpoint(path: Path, device: str = "cpu", *, half: bool = False) -> CropBackend:
    """A backend around the generator of a run or checkpoint; ``half`` computes in bfloat16."""
    generator, card = load_generator(path, device)
    where = torch.device(device)
    dtype = torch.bfloat16 if half else torch.float32
    memory_format = torch.channels_last if where.type == "cuda" else torch.contiguous_format
    generator.to(dtype=dtype).to(memory_format=memory_format)  # type: ignore[call-overload]

    @torch.inference_mode()
    def residual(x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        image = torch.from_numpy(x).to(where, dtype, memory_format=memory_format)
        try:
            return generator.residual(image, torch.from_numpy(c).to(where, dtype)).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"The memory of {device} is used up by {len(x)} faces at once. Free it, or use --device cpu."
            ) from error

    return CropBackend(crop_card(card, count_parameters(generator)), residual)
