"""Pictures as the networks take them, and back; and a network's answers to several faces and every expression."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_BATCH = 16


def to_tensor(images: NDArray[np.uint8], device: torch.device | str = "cpu") -> torch.Tensor:
    """Pictures (N, S, S, 3) uint8 as what the networks take: (N, 3, S, S) in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_images(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """The way back, cut to [-1, 1] and rounded: (N, S, S, 3) uint8."""
    pixels = tensor.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def all_expressions(generator: torch.nn.Module, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every image with every label: (N, S, S, 3) uint8 -> (N, C, S, S, 3) uint8, by the generator's ``edit``."""
    net: Any = generator
    device, labels = next(generator.parameters()).device, net.config.labels
    eye = torch.eye(labels, device=device)
    outputs = np.empty((len(images), labels, *images.shape[1:]), dtype=np.uint8)
    for start in range(0, len(images), _BATCH):
        x = to_tensor(images[start : start + _BATCH], device)
        for label in range(labels):
            outputs[start : start + len(x), label] = to_images(net.edit(x, eye[label].expand(len(x), -1)))
    return outputs
