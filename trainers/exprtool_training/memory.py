"""When memory runs out: find out which batch would have fitted, and say so."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from exprtool.errors import TrainingError


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that the device's (or the machine's) memory is used up."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


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


def says_what_fits(attempt: Callable[[int], None], batch: int, unit: int, last: Path) -> TrainingError:
    """The error for a batch that did not fit, with one that does: a multiple of ``unit`` that ``attempt`` gets through.

    With several processes (``unit`` above 1) there is no trying out: the others wait in the middle of a step.
    """
    if unit > 1:
        advice = f"Try --batch-size {batch // 2 // unit * unit or unit}"
    else:
        size = largest_batch(lambda size: _emptied(attempt, size), batch)
        if size == 0:
            return TrainingError(
                "The device's memory is used up even by a batch of 1: use a smaller --image-size, free the device, or "
                "choose another --device."
            )
        advice = f"A batch of {size} fits: --batch-size {size}"
    kept = f"; the last checkpoint is {last}" if last.is_file() else ""
    return TrainingError(f"The device's memory is used up by a batch of {batch}. {advice}{kept}.")


def _emptied(attempt: Callable[[int], None], size: int) -> None:
    """Try with as much memory as can be had."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    attempt(size)
