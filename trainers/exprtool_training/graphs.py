"""Recording a step as a CUDA graph: one launch replays its hundreds of kernels, and the host is out of the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from exprtool.errors import TrainingError

_EAGER_CALLS = 3
"""Calls before recording, so that optimizer state exists, kernels are chosen and memory is reserved."""

Step = Callable[[Any], Tensor]


class Recorded:
    """A step that is run as it is a few times, then recorded, and from then on replayed.

    The step must not wait for the device, must read the learning rate from a tensor, and must keep its sizes. What it
    returns is overwritten by the next call.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._calls = 0
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Any | None = None
        self._losses: Tensor | None = None

    def __call__(self, batch: Any) -> Tensor:
        self._calls += 1
        if self._calls <= _EAGER_CALLS:
            return self._on_the_side(batch)
        if self._graph is None or self._batch is None or self._losses is None:
            self._batch = type(batch)(*(getattr(batch, entry.name).clone() for entry in fields(batch)))
            self._graph, self._losses = self._record(self._batch)
        else:
            for entry in fields(batch):
                getattr(self._batch, entry.name).copy_(getattr(batch, entry.name))
        self._graph.replay()
        return self._losses

    def _on_the_side(self, batch: Any) -> Tensor:
        """Recording must happen off the main stream, and wants what it records to have run there before."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses = self._step(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses

    def _record(self, batch: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Record without running; nothing is learned from this call until the replay."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                losses = self._step(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise TrainingError(
                f"The step cannot be recorded as a CUDA graph here ({str(error).splitlines()[0]}). "
                "Run with --cuda-graphs off."
            ) from error
        return graph, losses
