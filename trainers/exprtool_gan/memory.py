"""When memory runs out: find out which batch would have fitted, and say so."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from exprtool.errors import TrainingError
from exprtool_gan.step import Batch, Learner


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that the device's (or the machine's) memory is used up."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def largest_batch(attempt: Callable[[int], None], failed: int) -> int:
    """The largest batch below ``failed`` that ``attempt`` gets through, 0 if none; by bisection."""
    fits, fails = 0, failed
    while fails - fits > 1:
        size = (fits + fails) // 2
        try:
            attempt(size)
            fits = size
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            fails = size
    return fits


def says_what_fits(learner: Learner, batch: int, processes: int, last: Path) -> TrainingError:
    """The error for a batch that did not fit, with one that does."""
    if processes > 1:  # the others wait in the middle of a step: there is no trying out any more
        advice = f"Try --batch-size {batch // 2 // processes * processes or processes}"
    else:
        size = largest_batch(lambda size: _attempt(learner, size), batch)
        if size == 0:
            return TrainingError(
                "The device's memory is used up even by a batch of 1: use a smaller --image-size, free the device, or "
                "choose another --device."
            )
        advice = f"A batch of {size} fits: --batch-size {size}"
    kept = f"; the last checkpoint is {last}" if last.is_file() else ""
    return TrainingError(f"The device's memory is used up by a batch of {batch}. {advice}{kept}.")


def _attempt(learner: Learner, size: int) -> None:
    """One whole step on grey pictures. It spoils the weights, which nobody uses after the error."""
    gc.collect()
    if learner.device.type == "cuda":
        torch.cuda.empty_cache()
    side = learner.config.image_size
    x = torch.zeros(size, 3, side, side, device=learner.device).to(memory_format=learner.memory_format)
    label = torch.zeros(size, dtype=torch.int64, device=learner.device)
    learner.both_steps(Batch(x, label, label, torch.full((size,), 0.5, device=learner.device)))
