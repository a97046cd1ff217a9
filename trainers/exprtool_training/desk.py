"""What a run does between steps: log the losses, draw the sample sheet, look at held-out people, save."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exprtool.errors import TrainingError
from exprtool.settings import to_plain
from exprtool_training.checkpoint import TRAINER_KEY, Parts, save
from exprtool_training.config import RunConfig
from exprtool_training.loss_log import LossLog
from exprtool_training.method import Method
from exprtool_training.processes import Alone
from exprtool_training.progress import PROGRESS_KEY, Progress
from exprtool_training.run_folder import RunFolder
from exprtool_training.sheet import write_sheet
from exprtool_training.watch import Look, Watcher


class Desk:
    """What is done between steps: log, sheet, look, save. Works in the leading process only.

    Nothing here changes what is trained, so that a run is the same however often it is watched.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, method: Method, watcher: Watcher, world: Alone, progress: Progress,
        losses: LossLog,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.method = config, folder, method
        self.watcher, self.world, self.losses = watcher, world, losses
        self.best, self._progress = progress.best, progress
        self._start = self._saved_at = self._logged_at = time.monotonic()
        self._logged_step, self._looked_step, self._drawn_step = progress.step, -1, -1
        self._saved_step = progress.step if config.resume else -1
        self._board: Any = None
        if world.leads and getattr(config, "tensorboard", False):
            self._board = _board(folder.tensorboard, progress.step)

    def after(self, step: int) -> None:
        """Do what is due after a step."""
        config = self.config
        if not self.world.leads:
            if self.losses.full:
                self.losses.take()
            return
        self.watcher.stepped(step)
        if step % config.log_every == 0 or self.losses.full:
            self._log(step)
        if config.sample_every and step % config.sample_every == 0:
            self._sample(step)
        if config.look_every and step % config.look_every == 0:
            self._look(step)
        minutes = (time.monotonic() - self._saved_at) / 60
        if step % config.save_every == 0 or (config.save_minutes and minutes >= config.save_minutes):
            self._save(step)
        if config.keep_every and step % config.keep_every == 0:
            self._save_product(self.folder.kept(step), step)

    def finish(self, step: int, *, finished: bool) -> None:
        """The last log, and, of a run that is done, the last sheet and look; then the last checkpoint."""
        if not self.world.leads:
            return
        if len(self.losses):
            self._log(step)
        if finished and step > self._progress.step:
            if self.config.sample_every and self._drawn_step != step:
                self._sample(step)
            if self.config.look_every and self._looked_step != step:
                self._look(step)
        if self._saved_step != step:
            self._save(step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _log(self, step: int) -> None:
        means = self.losses.take()  # waits for the device
        now = time.monotonic()
        speed = (step - self._logged_step) * self.config.batch_size / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_step = now, step
        rate, name = self.method.rate(step - 1), f"{self.method.unit}_per_second"
        rates = {} if rate is None else {"lr": rate}
        self.folder.append({"step": step, **rates, name: round(speed, 2), **means})
        self._scalars(step, {f"loss/{loss}": value for loss, value in means.items()} | rates | {name: speed})
        self.watcher.logged(step, means, speed)

    def _sample(self, step: int) -> None:
        self._drawn_step = step
        if (sheet := self.method.sheet()) is None:
            return
        path = self.folder.sample(step)
        picture = write_sheet(path, *sheet)
        if self._board is not None:
            self._board.add_image("samples", picture, step, dataformats="HWC")
        self.watcher.sampled(path)

    def _look(self, step: int) -> None:
        self._looked_step = step
        if (look := self.method.look()) is None:
            return
        best = look.chooses and (self.best is None or look.score > self.best)
        if best:
            self.best = look.score
            self._save_product(self.folder.best, step, look)
        self.folder.append({"step": step, "look": look.to_json()})
        self._scalars(step, {f"held_out/{name}": value for name, value in look.figures.items()})
        self.watcher.looked(step, look, best)

    def _save(self, step: int) -> None:
        self.losses.check()
        seconds = self._progress.seconds + time.monotonic() - self._start
        progress = replace(self._progress, step=step, best=self.best, seconds=round(seconds, 1))
        training = progress.to_json(self.config.trainer, to_plain(self.config))
        state = self.method.state()
        check_finite(state, step, self.folder.last)
        header = {**self.method.header(step), TRAINER_KEY: self.config.trainer, PROGRESS_KEY: training}
        save(self.folder.last, state, header)
        self._saved_at, self._saved_step = time.monotonic(), step
        self.watcher.saved(step, self.folder.last)

    def _save_product(self, path: Path, step: int, look: Look | None = None) -> None:
        product, header = self.method.product(step, look)
        check_finite(product, step, self.folder.last)
        save(path, product, {**header, TRAINER_KEY: self.config.trainer})

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def check_finite(parts: Parts, step: int, last: Path) -> None:
    """Raise a `TrainingError` that names the weight, unless all are finite; ``last`` is what stays."""
    for part, arrays in parts.items():
        for name, array in arrays.items():
            if not (array.isfinite() if hasattr(array, "isfinite") else np.isfinite(array)).all():
                raise TrainingError(
                    f"After step {step} {name} of the {part} is not finite; nothing was saved and {last} is the last "
                    "good checkpoint. Resume from it, or start anew with a lower --lr or in --precision float32."
                )


def _board(path: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "TensorBoard is not installed: pip install tensorboard, or train with --no-tensorboard."
        ) from None
    return SummaryWriter(str(path), purge_step=step + 1 if step else None)
