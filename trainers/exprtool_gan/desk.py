"""What a run does between steps: log the losses, draw the sample sheet, look at held-out people, save."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exprtool.errors import TrainingError
from exprtool_gan.config import TrainConfig
from exprtool_gan.data import PreparedSet
from exprtool_gan.look import Looker, spread
from exprtool_gan.loss_log import LossLog
from exprtool_gan.processes import Alone
from exprtool_gan.run_folder import RunFolder
from exprtool_gan.schedule import learning_rate
from exprtool_gan.sheet import all_expressions, write_sheet
from exprtool_gan.state import Progress, check_finite, save_training
from exprtool_gan.step import Learner
from exprtool_gan.watch import Watcher
from exprtool_usgan.card import ModelCard
from exprtool_usgan.checkpoint import save_generator

SHEET_FACES = 8


class Desk:
    """What is done between steps: log, sheet, look, save. Works in the leading process only.

    Nothing here changes what is trained, so that a run is the same however often it is watched.
    """

    def __init__(
        self, config: TrainConfig, folder: RunFolder, learner: Learner, card: ModelCard, prepared: PreparedSet,
        watcher: Watcher, world: Alone, progress: Progress, losses: LossLog, looker: Looker | None,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.learner, self.card = config, folder, learner, card
        self.watcher, self.world, self.losses = watcher, world, losses
        self.labels, self.best = prepared.label_names, progress.best
        self._progress, self._start = progress, time.monotonic()
        self._saved_at, self._saved_step = time.monotonic(), progress.step if config.resume else -1
        self._logged_at, self._logged_step = time.monotonic(), progress.step
        self._looked_step = -1
        shown = prepared.test if len(prepared.test) else prepared.train
        self._fixed = prepared.images[spread(shown, prepared.labels, SHEET_FACES)]
        self._looker = looker
        self._board: Any = None
        if world.leads and config.tensorboard:
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
            self._save_best_generator(self.folder.kept(step), step)

    def finish(self, step: int, *, finished: bool) -> None:
        """The last log, and, of a run that is done, the last sheet and look; then the last checkpoint."""
        if not self.world.leads:
            return
        if len(self.losses):
            self._log(step)
        if finished and step > self._progress.step:
            if self.config.sample_every and step % self.config.sample_every:
                self._sample(step)
            if self.config.look_every and self._looked_step != step:
                self._look(step)
        if self._saved_step != step:
            self._save(step)
        self.watcher.ended(step, self.folder.path, finished)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _log(self, step: int) -> None:
        means = self.losses.take()  # waits for the device
        now = time.monotonic()
        speed = (step - self._logged_step) * self.config.batch_size / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_step = now, step
        rate = learning_rate(step - 1, self._progress.total, self.config.lr, self.config.decay_from)
        self.folder.append({"step": step, "lr": rate, "images_per_second": round(speed, 2), **means})
        self._scalars(step, {f"loss/{name}": value for name, value in means.items()} | {"images_per_second": speed})
        self.watcher.logged(step, means, speed)

    def _sample(self, step: int) -> None:
        path = self.folder.sample(step)
        outputs = all_expressions(self.learner.best_generator, self._fixed)
        picture = write_sheet(path, self._fixed, outputs, self.labels)
        if self._board is not None:
            self._board.add_image("samples", picture, step, dataformats="HWC")
        self.watcher.sampled(path)

    def _look(self, step: int) -> None:
        if self._looker is None:
            return
        look = self._looker.look(self.learner.best_generator, self.learner.discriminator)
        self._looked_step = step
        best = self._looker.chooses and (self.best is None or look.score > self.best)
        if best:
            self.best = look.score
            self._save_best_generator(self.folder.best, step)
        figures = {"accuracy": look.accuracy, "acd": look.acd, "same_person": look.accepted}
        present = {name: value for name, value in figures.items() if value is not None}
        self.folder.append({"step": step, "look": {**present, "judge": look.judge, "score": look.score}})
        self._scalars(step, {f"held_out/{name}": value for name, value in present.items()})
        self.watcher.looked(step, look, best)

    def _save(self, step: int) -> None:
        self.losses.check()
        progress = replace(
            self._progress, step=step, g_updates=self.learner.g_updates, best=self.best,
            seconds=self._progress.seconds + time.monotonic() - self._start,
        )  # fmt: skip
        save_training(self.folder.last, self.learner, self.card, self.config, progress)
        self._saved_at, self._saved_step = time.monotonic(), step
        self.watcher.saved(step, self.folder.last)

    def _save_best_generator(self, path: Path, step: int) -> None:
        generator = self.learner.best_generator
        check_finite(generator.state_dict(), "generator", step, self.folder.last)
        save_generator(path, generator, replace(self.card, step=step))

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def _board(path: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "TensorBoard is not installed: pip install tensorboard, or train with --no-tensorboard."
        ) from None
    return SummaryWriter(str(path), purge_step=step + 1 if step else None)
