"""Adam's two moments by the name of their weight, to and from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from exprtool.errors import ModelError

_MOMENTS = ("exp_avg", "exp_avg_sq")


def moments(adam: torch.optim.Optimizer, learned: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Both moments of each learned weight; none before the first step."""
    return {
        f"{name}.{moment}": adam.state[parameter][moment]
        for name, parameter in learned.items()
        if parameter in adam.state
        for moment in _MOMENTS
    }


def fill_moments(
    adam: torch.optim.Optimizer, learned: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor], updates: int,
    path: Path,
) -> None:  # fmt: skip
    """Give Adam its moments back after ``updates`` steps, in the memory layout of the weights, which its fused kernel
    takes for granted. Raises `ModelError` where one is missing."""
    for name, parameter in learned.items() if updates else ():
        state = adam.state[parameter]
        where = parameter.device if adam.defaults.get("capturable") else "cpu"
        state["step"] = torch.tensor(float(updates), device=where)
        for moment in _MOMENTS:
            tensor = saved.get(f"{name}.{moment}")
            if tensor is None or tensor.shape != parameter.shape:
                raise ModelError(f"{path} lacks the optimizer's {moment} of {name}. Start a new run from its weights.")
            state[moment] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
