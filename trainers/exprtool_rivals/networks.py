"""What methods with networks of their own share: their card in a checkpoint, the backend around them, and their file.

A network here is built from a frozen dataclass ``config`` (``labels``, ``image_size`` ...) and answers ``edit(x, c)``:
crops (N, 3, S, S) in [-1, 1] and one-hot labels (N, C) -> pictures in [-1, 1].
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exprtool.crop_backend import Residual
from exprtool.errors import ExprtoolError, ModelError, UsageError
from exprtool.model_card import CropCard, card_from_json
from exprtool.types import Exported, ExportWish
from exprtool_gan.config import AdversarialConfig
from exprtool_gan.loop import Adversarial
from exprtool_training.checkpoint import Parts, check_fit, find_checkpoint, read_metadata, read_part
from exprtool_training.crops import described
from exprtool_training.export import OPSET, check_target, crops_for, halve, needing_packages, write
from exprtool_training.watch import Look
from exprtool_usgan.networks import count_parameters

CARD_KEY, NET_KEY = "exprtool_rival_card", "exprtool_rival_network"
Make = Callable[[Mapping[str, Any]], nn.Module]
"""Builds a network of the values of its configuration."""


class OwnNetwork(Adversarial):
    """A method whose generator is not US-GAN's."""

    architecture = ""

    @property
    def card(self) -> CropCard:
        config: AdversarialConfig = self.settings
        net = self.learner.generator
        return CropCard(
            self.prepared.label_names, config.image_size, self.prepared.template, config.licence or "unknown",
            described(config, self.prepared), self.architecture, parameters=count_parameters(net),
        )  # fmt: skip

    def product(self, step: int, look: Look | None) -> tuple[Parts, Mapping[str, str]]:
        return {"generator": self.learner.best_generator.state_dict()}, self.header(step)

    def header(self, step: int) -> Mapping[str, str]:
        return header(self.learner.generator, replace(self.card, step=step))


def header(net: nn.Module, card: CropCard) -> dict[str, str]:
    config: Any = net.config
    return {NET_KEY: json.dumps(asdict(config)), CARD_KEY: card.to_json()}


def open_network(path: Path, make: Make) -> tuple[Any, CropCard]:
    """The generator of a run's folder or checkpoint (the running average where there is one), ready for use, with its
    card. Raises `ModelError` where the file is damaged or another method's."""
    path = find_checkpoint(path)
    entries = read_metadata(path)
    try:
        values = json.loads(entries[NET_KEY])
        with torch.device("meta"):  # shapes first: a false card must not make us allocate what it claims
            net = make(values)
    except (KeyError, ValueError, TypeError, ExprtoolError) as error:
        raise ModelError(
            f"{path} holds no network of this method ({error!r}). Give a run that it has trained."
        ) from None
    state = read_part(path, "ema") or read_part(path, "generator")
    check_fit(net, state, path)
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False), card_from_json(entries.get(CARD_KEY, ""), str(path))


def residual_of(net: Any, device: str, *more: NDArray[np.float32]) -> Residual:
    """What a network adds to crops, computed on a device."""
    net.to(device)

    @torch.inference_mode()
    def residual(x: NDArray[np.float32], c: NDArray[np.float32], *rest: NDArray[np.float32]) -> NDArray[np.float32]:
        tensors = [torch.from_numpy(array).to(device) for array in (x, c, *rest)]
        return (net.edit(*tensors) - tensors[0]).float().cpu().numpy()

    return residual


def export_network(net: Any, card: CropCard, out: Path, wish: ExportWish) -> Exported:
    """Write ``net.edit`` as ONNX, with its card inside."""
    if wish.kind == "int8" or wish.weights == "raw":
        raise UsageError("This network is exported in float32 or with --half, its running average where it has one.")
    check_target(out, wish)

    class Edit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            picture = self.net.edit(image, label)
            return picture, picture - image

    with needing_packages():
        import onnx
    names = ["image", "label"], ["output", "residual"]
    given = torch.zeros(2, 3, card.size, card.size), torch.eye(len(card.labels))[[0, 0]]
    buffer: Any = io.BytesIO()  # a file-like object will do, whatever the annotation there says
    with warnings.catch_warnings():  # the exporter that needs no further package warns that it is not the newest
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Edit().eval(), given, buffer, input_names=names[0], output_names=names[1], opset_version=OPSET,
            dynamo=False, dynamic_axes={name: {0: "batch"} for part in names for name in part},
        )  # fmt: skip
    graph = onnx.load_from_string(buffer.getvalue())
    if wish.kind == "half":
        halve(graph.graph)
    card = replace(card, residual_output="residual")

    @torch.inference_mode()
    def picture(x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        return net.edit(torch.from_numpy(x), torch.from_numpy(c)).numpy()

    return write(graph, card, picture, out, wish, crops_for(wish, card))


def score_gradient(discriminator: nn.Module, x: Tensor) -> Tensor:
    """The gradient of the critic's scores in their input, (N, 3, S, S), differentiable in the critic's weights; for
    critics of any layers."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x)[0].sum(), x, create_graph=True)
    return gradient
