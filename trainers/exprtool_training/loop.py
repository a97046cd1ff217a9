"""The training loop of every trainer, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exprtool.errors import TrainingError
from exprtool.stopping import StopRequest
from exprtool_training.config import RunConfig
from exprtool_training.desk import Desk
from exprtool_training.loss_log import LossLog
from exprtool_training.memory import out_of_memory, says_what_fits
from exprtool_training.method import Method
from exprtool_training.processes import Alone, join
from exprtool_training.progress import Progress, read_progress
from exprtool_training.run_folder import RunFolder
from exprtool_training.screen import screen
from exprtool_training.watch import Plan, Watcher

_ASK_OTHERS_EVERY = 10
"""Steps between questions whether another process was asked to stop: each of them waits for the device."""

Make = Callable[[Any, Alone, Watcher], Method]
"""Builds a method of its configuration, for the processes that take part."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished``, or saved after ``step`` of ``total`` steps; ``interrupted`` if by a signal.
    ``best`` is the score of the best look, ``model`` the file for use of a finished run where its trainer leaves one.
    """

    step: int
    total: int
    finished: bool
    interrupted: bool
    best: float | None
    model: Path | None


def run(config: RunConfig, make: Make, watcher: Watcher | None = None) -> None:
    """Train with a screen (or ``watcher``) before the user; raises KeyboardInterrupt where the run was interrupted."""
    watcher = watcher or screen()
    try:
        outcome = train(config, make, watcher)
    finally:
        watcher.close()
    if outcome.interrupted:
        raise KeyboardInterrupt


def train(config: RunConfig, make: Make, watcher: Watcher | None = None) -> Outcome:
    """Train to the end of the configuration, or until SIGINT or SIGTERM, after which the run can be resumed.

    Raises `DataError` for data that cannot be trained on, `DeviceError`, `UsageError` for a configuration that does
    not fit the data, and `TrainingError` where the run cannot start, go on or save; the last good checkpoint stays.
    """
    with ExitStack() as stack:
        # --- 1. Who takes part, and what is trained on which data ----------------------------------------------------
        world = join(config)
        watcher = watcher if watcher is not None and world.leads else Watcher()
        folder = RunFolder(config.out)
        folder.check(config)
        method = make(config, world, watcher)
        stack.callback(method.close)

        # --- 2. The state of the run that is resumed, or a beginning -------------------------------------------------
        progress = Progress(0, method.total, method.data)
        if config.resume:
            progress = _resume(folder.last, config, method)
        else:
            method.begin()
        world.wait()  # nobody looks for an older run in the folder any more; whatever is refused was refused by now
        if world.leads:
            folder.open(config, method.manifest)
            folder.forget_after(progress.step)

        # --- 3. What surrounds the loop ------------------------------------------------------------------------------
        losses = LossLog(method.losses, config.log_every, method.device)
        stop = stack.enter_context(StopRequest())
        desk = Desk(config, folder, method, watcher, world, progress, losses)
        stack.callback(desk.close)
        watcher.started(_plan(config, method, progress, world))

        # --- 4. The loop ---------------------------------------------------------------------------------------------
        step, total = progress.step, method.total
        end = min(total, config.stop_at) if config.stop_at else total
        while step < end:
            try:
                losses.add(step + 1, method.step(step))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                unit = world.size * method.multiple
                raise says_what_fits(method.attempt, config.batch_size, unit, folder.last) from error
            step += 1
            desk.after(step)
            asked = world.size == 1 or step % _ASK_OTHERS_EVERY == 0
            if asked and world.any(stop.requested):
                break

        # --- 5. The end ----------------------------------------------------------------------------------------------
        finished = step >= total
        desk.finish(step, finished=finished)
        model = method.finished(config.out) if finished and world.leads else None
        watcher.ended(_end_text(config, step, finished, model))
        world.wait()
        return Outcome(step, total, finished, step < end, desk.best, model)


def _resume(last: Path, config: RunConfig, method: Method) -> Progress:
    """Put the last checkpoint into the method, if it is of this data."""
    progress, _ = read_progress(last, config.trainer)
    if progress.data != method.data:
        raise TrainingError(
            f"{last} was trained on other data (its fingerprint {progress.data[:12]}, this one {method.data[:12]}): "
            "pictures, labels, people or crop settings differ. Give the same data, or start a new run in another --out."
        )
    method.restore(last, progress)
    return replace(progress, total=method.total)


def _plan(config: RunConfig, method: Method, progress: Progress, world: Alone) -> Plan:
    begin = f"resumed at step {progress.step:,}, " if progress.step else ""
    length = f"{begin}{method.total:,} steps of {config.batch_size} {method.unit} on {world}"
    return Plan(
        config.out, method.total, progress.step, config.batch_size, method.unit, (*method.facts, length),
        method.meanings,
    )  # fmt: skip


def _end_text(config: RunConfig, step: int, finished: bool, model: Path | None) -> str:
    if finished:
        use = f"onnx:{model}" if model else f"run:{config.out}"
        return f"Done after {step:,} steps. Use it: exprtool edit PHOTO --expr happy --backend {use}"
    return f"Stopped and saved after step {step:,}. Go on with: exprtool train --resume --out {config.out}"
