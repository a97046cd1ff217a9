"""A step in several threads, each with a part of the batch and its own copy of the network.

Small pictures do not fill several cores from within: on two, two parts side by side take 0.7 of the time of one batch
whose every layer is split. Batch normalization then sees a part at a time ("ghost" batches: Hoffer et al., NeurIPS
2017), so the number of parts is a setting of the run and not a matter of the machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import torch
from torch import Tensor

from exprtool_flow.augment import Batch
from exprtool_flow.networks import FlowNet

Work = Callable[[FlowNet, Batch], Tensor]
"""Figures (K,) of a part of the batch, the first of them the loss."""


class Parts:
    """``count`` copies of a network that share its weights; make it when the weights stand, use it in one thread."""

    def __init__(self, net: FlowNet, count: int) -> None:
        self._nets = [net, *(_twin(net) for _ in range(count - 1))]
        threads = max(1, torch.get_num_threads() // count)
        self._pool = ThreadPoolExecutor(count, "part", torch.set_num_threads, (threads,)) if count > 1 else None

    def backward(self, batch: Batch, work: Work) -> Tensor:
        """Set the gradients of the mean loss over the parts of ``batch``; returns the parts' mean figures."""
        pieces = split(batch, len(self._nets))
        if self._pool is None:
            return self._part(self._nets[0], pieces[0], work)
        found = list(self._pool.map(self._part, self._nets, pieces, [work] * len(pieces)))
        self._unite()
        return torch.stack(found).mean(0)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _part(self, net: FlowNet, batch: Batch, work: Work) -> Tensor:
        net.zero_grad(set_to_none=True)
        figures = work(net, batch)
        (figures[0] / len(self._nets)).backward()
        return figures.detach()

    @torch.no_grad()
    def _unite(self) -> None:
        """Sum the gradients in the first network; all go on with the mean of their running statistics."""
        first, *others = self._nets
        for parameters in zip(*(net.parameters() for net in self._nets), strict=True):
            mine, *theirs = (parameter.grad for parameter in parameters)
            if mine is not None:
                for grad in theirs:
                    mine.add_(grad)
        for buffers in zip(first.buffers(), *(net.buffers() for net in others), strict=True):
            if buffers[0].dtype.is_floating_point:
                buffers[0].copy_(torch.stack(buffers).mean(0))
            for buffer in buffers[1:]:
                buffer.copy_(buffers[0])


def split(batch: Batch, count: int) -> Sequence[Batch]:
    """``count`` equal pieces of a batch."""
    pieces = {field.name: getattr(batch, field.name).chunk(count) for field in fields(Batch)}
    return [Batch(**{name: piece[i] for name, piece in pieces.items()}) for i in range(count)]


def _twin(net: FlowNet) -> FlowNet:
    twin = copy.deepcopy(net)
    for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        theirs.data = mine.data
    return twin
