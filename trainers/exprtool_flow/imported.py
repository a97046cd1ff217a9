"""An exported network taken in again, to be trained further: of the network in the package there is no other copy.

An export has the normalization's statistics folded into the convolutions before it. Whoever wants to go on training
needs them apart again: the folded convolution is taken as it is, and behind it comes the normalization that changes
nothing, by the mean and variance of what this convolution answers to pairs of the set at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exprtool.errors import ModelError
from exprtool.extras import install_command
from exprtool_flow.augment import Batch
from exprtool_flow.networks import FlowNet

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
_HALF = ".half"


@dataclass(frozen=True, eq=False)
class _Stored:
    """What one half of the file holds: ``named`` tensors, and those that lost their names when it was exported, of
    convolutions (weight, bias) and of matrices, in the order in which they act."""

    named: dict[str, Tensor]
    convolutions: list[tuple[Tensor, Tensor]]
    matrices: list[Tensor]


def fill_from_export(net: FlowNet, path: Path, batch: Callable[[int], Batch], count: int) -> None:
    """Put the weights of an exported file into ``net``, and normalize as ``count`` batches of pairs ask for it, which
    ``batch`` gives one at a time.

    Raises `ModelError` for a file that holds another network or none.
    """
    stored = _read(path)
    net.eval()
    orders = {half: _order_of_work(net, getattr(net, half), batch(0)) for half in stored}
    try:
        for half, order in orders.items():
            _fill(net, half, stored[half], order)
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path} holds a network of another make than this version trains: {error}. Train one from nothing, or "
            "begin from a run's checkpoint."
        ) from error
    _normalize(net, map(batch, range(count)))


def _read(path: Path) -> dict[str, _Stored]:
    try:
        import onnx
    except ImportError as error:
        raise ModelError(f"Reading an exported network needs the package onnx: {install_command('torch')}.") from error
    try:
        graph = onnx.load(path).graph
        branches = {
            node.name: next(each.g for each in node.attribute if each.name == "then_branch")
            for node in graph.node
            if node.op_type == "If"
        }
        return {half: _stored(branches[half], f"{half}/") for half in ("encoder", "decoder")}
    except Exception as error:  # protobuf raises its own kinds
        raise ModelError(
            f"{path} is no exported flow network ({error}). Give a run, a checkpoint or a file of one."
        ) from error


def _stored(graph: onnx.GraphProto, prefix: str) -> _Stored:
    from onnx import numpy_helper

    tensors: dict[str, Tensor] = {}
    for each in graph.initializer:
        values = np.array(numpy_helper.to_array(each), np.float32)
        tensors[each.name.removeprefix(prefix).removesuffix(_HALF)] = torch.from_numpy(values)
    convolutions, matrices = [], []
    for node in graph.node:
        inputs = [name.removeprefix(prefix) for name in node.input]
        if node.op_type == "Conv":
            convolutions.append((tensors[inputs[1]], tensors[inputs[2]]))
        elif node.op_type == "MatMul" and inputs[1] in tensors:
            matrices.append(tensors[inputs[1]])
    named = {name: tensor for name, tensor in tensors.items() if not name.startswith("onnx::")}
    return _Stored(named, convolutions, matrices)


def _order_of_work(net: FlowNet, half: nn.Module, batch: Batch) -> list[nn.Conv2d]:
    """The convolutions of a half in the order in which they act."""
    acting: list[nn.Conv2d] = []

    def note(module: nn.Module, *_: Any) -> None:
        assert isinstance(module, nn.Conv2d)
        acting.append(module)

    hooks = [each.register_forward_hook(note) for each in half.modules() if isinstance(each, nn.Conv2d)]
    try:
        _look(net, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return acting


@torch.no_grad()
def _fill(net: FlowNet, half: str, stored: _Stored, convolutions: Sequence[nn.Conv2d]) -> None:
    normalized: dict[int, nn.BatchNorm2d] = {}
    for each in net.modules():
        conv, norm = (getattr(each, name, None) for name in ("conv", "norm"))
        if isinstance(norm, nn.BatchNorm2d):
            normalized[id(conv)] = norm
    left = {name: value for name, value in net.named_parameters() if name.startswith(f"{half}.")}
    names = {id(value): name for name, value in left.items()}

    def put(parameter: Tensor, values: Tensor) -> None:
        if parameter.shape != values.shape:
            raise ValueError(
                f"{names[id(parameter)]} has the shape {tuple(values.shape)}, not {tuple(parameter.shape)}"
            )
        parameter.copy_(values)
        left.pop(names[id(parameter)], None)

    for module, (weight, bias) in zip(convolutions, stored.convolutions, strict=True):
        put(module.weight, weight)
        norm = normalized.get(id(module))
        if norm is None:
            assert module.bias is not None
            put(module.bias, bias)
            continue
        put(norm.bias, bias)
        put(norm.weight, torch.full_like(norm.weight, (1 + norm.eps) ** 0.5))
        norm.reset_running_stats()
    for name, values in stored.named.items():
        if name in left:
            put(left[name], values)
    for values in stored.matrices:
        for each in [each for each in left.values() if each.shape == values.T.shape][:1]:
            put(each, values.T)
    if left:
        raise KeyError(f"nothing for {', '.join(sorted(left))}")


@torch.no_grad()
def _normalize(net: FlowNet, batches: Iterable[Batch]) -> None:
    """Have every normalization do by its statistics what its bias does now."""
    norms = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    sums: dict[nn.BatchNorm2d, NDArray[np.float64]] = {each: np.zeros((3, each.num_features)) for each in norms}

    def count(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        values = inputs[0].cpu().double()  # not every device has doubles
        each = (
            values.sum((0, 2, 3)),
            values.square().sum((0, 2, 3)),
            torch.full_like(values[0, :, 0, 0], values[:, 0].numel()),
        )
        sums[norm] += torch.stack(each).numpy()

    hooks = [each.register_forward_pre_hook(count) for each in norms]
    try:
        for batch in batches:
            _look(net, batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, (total, squares, number) in sums.items():
        mean = total / number
        variance = np.maximum(squares / number - mean**2, 0)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(torch.from_numpy(mean))
        norm.running_var.copy_(torch.from_numpy(variance))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.add_(norm.running_mean)


@torch.no_grad()
def _look(net: FlowNet, batch: Batch) -> None:
    net(batch.seen, batch.wanted, None, batch.known)
