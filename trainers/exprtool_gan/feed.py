"""Batches on the device: the training set lies there as bytes and is cut, mirrored and coloured there.

The random choices of many steps go over at once, so that a step neither waits for the host nor copies a picture. A set
that is too large for the device's memory stays on the host, and the pictures of the next steps are fetched while these
are worked on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exprtool_gan.sampler import Draw, Sampler
from exprtool_gan.step import Batch

_STEPS_AT_ONCE = 64
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Choices of K consecutive steps for b images each, on the device, shapes (K, b, ...).

    ``images`` is the whole resident set (N, S, S, 3), or the chunk's own pictures (K b, S, S, 3).
    """

    first: int
    images: Tensor
    index: Tensor
    label_org: Tensor
    label_trg: Tensor
    epsilon: Tensor
    flip: Tensor
    shift: Tensor
    gain: Tensor
    offset: Tensor

    def __len__(self) -> int:
        return len(self.index)


class Feed:
    """Gives the batch of any step. ``images`` (N, S, S, 3) uint8 and ``sampler.labels`` (N,) are the training set.

    ``share`` is (rank, size): of each global batch this process takes the rank-th of size equal parts. ``resident``
    forces where the images are kept; None decides by the free memory.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        sampler: Sampler,
        device: torch.device,
        *,
        share: tuple[int, int] = (0, 1),
        resident: bool | None = None,
    ) -> None:
        self._images, self._sampler, self._device = images, sampler, device
        rank, size = share
        self._local = slice(rank * sampler.batch // size, (rank + 1) * sampler.batch // size)
        self._augments = sampler.shift > 0, sampler.colour > 0
        fits = images.nbytes <= free_memory(device) // 2
        self.resident = fits if resident is None else resident
        self._set = torch.from_numpy(np.array(images)).to(device) if self.resident else None
        per_step = (self._local.stop - self._local.start) * int(np.prod(images.shape[1:]))
        self._steps = _STEPS_AT_ONCE if self.resident else max(1, min(_STEPS_AT_ONCE, _CHUNK_BYTES // per_step))
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._chunk: _Chunk | None = None
        self._next: tuple[int, Future[_Chunk]] | None = None

    def batch(self, step: int) -> Batch:
        """The batch of a step (from 0): the same whatever was asked for before."""
        if self._chunk is None or not self._chunk.first <= step < self._chunk.first + len(self._chunk):
            self._chunk = self._fetch(step)
        chunk, k = self._chunk, step - self._chunk.first
        return Batch(self._pictures(chunk, k), chunk.label_org[k], chunk.label_trg[k], chunk.epsilon[k])

    def close(self) -> None:
        self._ahead.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, step: int) -> _Chunk:
        foreseen = self._next is not None and self._next[0] == step
        chunk = self._next[1].result() if self._next is not None and foreseen else self._build(step)
        self._next = (step + self._steps, self._ahead.submit(self._build, step + self._steps))
        return chunk

    def _build(self, first: int) -> _Chunk:
        draws = [self._sampler.draw(step) for step in range(first, first + self._steps)]
        index = self._stack(draws, "index")
        label_org = self._sampler.labels[index]
        if self._set is None:
            images = self._upload(np.ascontiguousarray(self._images[index.reshape(-1)]))
            index = np.arange(index.size).reshape(index.shape)
        else:
            images = self._set
        rest = {name: self._upload(self._stack(draws, name)) for name in ("epsilon", "flip", "shift", "gain", "offset")}
        target = self._upload(self._stack(draws, "target"))
        return _Chunk(first, images, self._upload(index), self._upload(label_org), target, **rest)

    def _stack(self, draws: Sequence[Draw], name: str) -> NDArray[Any]:
        return np.stack([getattr(draw, name)[self._local] for draw in draws])

    def _upload(self, array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def _pictures(self, chunk: _Chunk, k: int) -> Tensor:
        """Cut, mirror and move in one gather; (b, 3, S, S) in [-1, 1], in channels-last memory as the bytes lie."""
        size = chunk.images.shape[1]
        across = torch.arange(size, device=self._device)  # (S,)
        rows, columns = across.expand(len(chunk.index[k]), -1), across  # (b, S), (S,)
        columns = torch.where(chunk.flip[k, :, None], size - 1 - columns, columns)  # (b, S)
        moves, colours = self._augments
        if moves:
            dx, dy = chunk.shift[k].unbind(1)
            rows = (rows - dy[:, None]).clamp(0, size - 1)
            columns = (columns - dx[:, None]).clamp(0, size - 1)
        pixels = chunk.images[chunk.index[k, :, None, None], rows[:, :, None], columns[:, None, :]]  # (b, S, S, 3)
        x = pixels.float().div_(127.5).sub_(1)
        if colours:
            x = (x * chunk.gain[k, :, None, None] + chunk.offset[k, :, None, None]).clamp_(-1, 1)
        return x.permute(0, 3, 1, 2)


def free_memory(device: torch.device) -> int:
    """Bytes that a device has left; for the CPU those of the machine, where it tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told on Windows and macOS
        return 4 << 30
