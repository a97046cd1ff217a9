"""Batches of a run: which pairs, and how varied, is a pure function of (seed, step), so that nothing needs saving."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from exprtool_flow.augment import Batch, Sample, Variation, collate, vary
from exprtool_flow.shards import PairSet

_ORDER, _STEP = 1, 2  # which stream of random numbers: the order of an epoch, the draws of a step
_AHEAD = 3


class Feed:
    """Makes batches in threads, a few steps ahead; OpenCV and NumPy work beside each other there.

    ``share`` is (rank, size): of each batch this process makes the rank-th of size equal parts.
    """

    def __init__(
        self,
        pairs: PairSet,
        members: NDArray[np.int64],
        size: int,
        batch: int,
        variation: Callable[[int], Variation],
        seed: int,
        workers: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._pairs, self._members, self._size, self._batch = pairs, members, size, batch
        self._variation, self._seed, self._device = variation, seed, device
        rank, size = share
        self._places = range(rank * batch // size, (rank + 1) * batch // size)
        self._threads_before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the threads here are the parallel ones
        self._pool = ThreadPoolExecutor(workers)
        self._coming: deque[tuple[int, list[Future[Sample]]]] = deque()

    def batch(self, step: int) -> Batch:
        """The batch of a step (from 0)."""
        if not self._coming or self._coming[0][0] != step:
            self._coming.clear()
        ahead = self._coming[-1][0] + 1 if self._coming else step
        for each in range(ahead, step + _AHEAD):
            self._coming.append((each, self._start(each)))
        _, samples = self._coming.popleft()
        return collate([sample.result() for sample in samples], self._device)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(self._threads_before)

    def _start(self, step: int) -> list[Future[Sample]]:
        return [self._pool.submit(self._sample, step, place) for place in self._places]

    def _sample(self, step: int, place: int) -> Sample:
        epoch, rank = divmod(step * self._batch + place, len(self._members))
        index = int(self._members[_order(self._seed, epoch, len(self._members))[rank]])
        random = np.random.default_rng([self._seed, _STEP, step, place])
        return vary(self._pairs[index], self._size, self._variation(step), random)


@lru_cache(maxsize=4)  # the epochs that batches under way may touch
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)
