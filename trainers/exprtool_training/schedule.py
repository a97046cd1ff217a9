"""How long a run is and how its learning rate goes: pure functions of the step."""

from __future__ import annotations

import math


def total_steps(steps: int, epochs: float, images: int, batch: int) -> int:
    """Discriminator steps of a run: ``steps`` if given, else as many batches as ``epochs`` passes over the images take.

    One step is one batch through D, as in StarGAN's iterations, so that 350 epochs of 2,312 images in eights are
    101,150 steps.
    """
    return steps if steps > 0 else math.ceil(epochs * images / batch)


def learning_rate(step: int, total: int, base: float, decay_from: float) -> float:
    """The rate of step 0, 1 ... total - 1: ``base`` for the share ``decay_from`` of the run, then straight down.

    The line reaches 0 just after the last step, so no step is wasted on a rate of 0. ``decay_from`` 1 is constant.
    """
    start = decay_from * total
    if step < start or decay_from >= 1:
        return base
    return base * (total - step) / (total - start)


def ema_decay(updates: int, decay: float) -> float:
    """How much of the running average stays at its ``updates``-th update (from 0).

    It starts low, so that the random initial weights are forgotten in a few updates and not in thousands.
    """
    return min(decay, (1 + updates) / (10 + updates))
