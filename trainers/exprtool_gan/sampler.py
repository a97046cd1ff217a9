"""What a step draws at random: images, flips, targets, mixing weights. A pure function of (seed, step).

There is no generator whose state could be lost: step 25 draws the same after a resume, on another device, and divided
over any number of processes, each of which takes its slice of the same global batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import UnknownNameError, UsageError

TARGETS = ("permute", "uniform", "different")
_ORDER, _STEP = 1, 2  # which stream of random numbers: the order of an epoch, the draws of a step


@dataclass(frozen=True, eq=False)
class Draw:
    """The random choices of one step, for a batch of B.

    ``index`` (B,) picks images from the training set; ``target`` (B,) are the wanted labels c_t; ``epsilon`` (B,) in
    [0, 1] places x_bar of eq. 2. The rest is augmentation: ``flip`` (B,) bool, ``shift`` (B, 2) whole pixels (dx, dy),
    ``gain`` and ``offset`` (B, 3) change each colour c to gain * c + offset.
    """

    index: NDArray[np.int64]
    target: NDArray[np.int64]
    epsilon: NDArray[np.float32]
    flip: NDArray[np.bool_]
    shift: NDArray[np.int64]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws batches from labels (N,). Epochs follow each other without a gap: every batch is full and every image
    comes equally often. ``targets`` says how c_t is chosen:

    * ``permute``: the batch's own labels, shuffled (StarGAN, the authors' code). With few images in a batch many
      targets equal the source: a quarter at 8 of 7 classes.
    * ``uniform``: any label, each equally often.
    * ``different``: any label but the image's own.
    """

    labels: NDArray[np.int64]
    classes: int
    batch: int
    seed: int = 0
    targets: str = "permute"
    flip: float = 0.5
    shift: int = 0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if self.targets not in TARGETS:
            raise UnknownNameError("target sampling", self.targets, TARGETS)
        if self.batch > len(self.labels):
            raise UsageError(
                f"A batch of {self.batch} is larger than the training set of {len(self.labels)} images: "
                f"use --batch-size {len(self.labels)} or fewer, or more data."
            )
        if self.targets == "permute" and self.batch < 2:
            raise UsageError(
                "With a batch of 1, permuting the labels leaves every target equal to its source, and the network "
                "learns to do nothing: use --batch-size 8, or --targets uniform."
            )

    def draw(self, step: int) -> Draw:
        """The choices of a step, numbered from 0."""
        rng = np.random.default_rng([self.seed, _STEP, step])
        index = self._order(step)
        source = self.labels[index]
        if self.targets == "permute":
            target = rng.permutation(source)
        elif self.targets == "uniform":
            target = rng.integers(self.classes, size=self.batch)
        else:
            target = (source + rng.integers(1, self.classes, size=self.batch)) % self.classes
        return Draw(
            index=index,
            target=target.astype(np.int64),
            epsilon=rng.random(self.batch, dtype=np.float32),
            flip=rng.random(self.batch) < self.flip,
            shift=rng.integers(-self.shift, self.shift + 1, size=(self.batch, 2)),
            gain=rng.uniform(1 - self.colour, 1 + self.colour, (self.batch, 3)).astype(np.float32),
            offset=rng.uniform(-self.colour / 2, self.colour / 2, (self.batch, 3)).astype(np.float32),
        )

    def _order(self, step: int) -> NDArray[np.int64]:
        """The images of a step: the ``step``-th B entries of all epochs' shuffled orders, laid end to end."""
        images = len(self.labels)
        places = range(step * self.batch, (step + 1) * self.batch)
        return np.array([_order_of(self.seed, place // images, images)[place % images] for place in places])


@lru_cache(maxsize=2)  # a batch touches at most two epochs
def _order_of(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(images)
