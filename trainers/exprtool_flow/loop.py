"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from exprtool.anatomy.names import CONTROLS
from exprtool.anatomy.targets import presets
from exprtool.devices import resolve_device, usable_cpus
from exprtool.errors import DataError, TrainingError
from exprtool.stopping import StopRequest
from exprtool_default.card import FINE, Amount, FlowCard
from exprtool_flow.augment import Batch, Variation
from exprtool_flow.config import FlowConfig
from exprtool_flow.feed import Feed
from exprtool_flow.look import Look, Looker
from exprtool_flow.losses import NAMES, Weights, losses, points_loss, total
from exprtool_flow.motion import fit_motion
from exprtool_flow.networks import FlowNet, NetConfig, count_parameters, windows
from exprtool_flow.parts import Parts
from exprtool_flow.reading import fit_reader
from exprtool_flow.readings import open_readings
from exprtool_flow.shards import PairSet, open_sets, person_of
from exprtool_flow.state import Learner, Progress, load_training, save_average, save_training
from exprtool_gan.run_folder import RunFolder
from exprtool_synth.canvas import SYNTH_TEMPLATE

Say = Callable[[str], None]
_LEARN_TO_READ = 0.4
"""Share of a run in which the network is let to learn how to read faces before it has to rely on it."""
_TO_KNOW = 32
"""Batches from which a network that is taken from an export learns its normalization anew."""
MODEL = "model.onnx"
"""What a finished run leaves in its folder, to be used."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished``, or saved after ``step``; ``interrupted`` if by a signal. ``model`` is the ONNX
    file of a finished one, ``best`` its PSNR on held-out people."""

    step: int
    finished: bool
    interrupted: bool
    best: float | None
    model: Path | None


def train(config: FlowConfig, say: Say = lambda line: None) -> Outcome:
    """Train to the end of the configuration and export, or until SIGINT or SIGTERM, after which it can be resumed.

    ``say`` receives what those who watch should read. Raises `DataError`, `DeviceError`, and `TrainingError` where the
    run cannot start, go on or save; the last good checkpoint stays.
    """
    with ExitStack() as stack:
        # --- 1. Data and network -------------------------------------------------------------------------------------
        folder = RunFolder(config.out)
        folder.check(config)
        pairs = open_sets(config.data)
        train_on, held_out = pairs.split(config.test_fraction, config.split_seed)
        if not len(train_on):
            raise DataError("All people of the set are held out: use more portraits, or a smaller --test-fraction.")
        device = torch.device(str(resolve_device(config.device, runtime="torch")))
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        learner = Learner(_architecture(config), config, device)
        card = _card(config, pairs, train_on, learner)
        feed = Feed(
            pairs, train_on, config.image_size, config.batch_size, lambda step: variation(step, config), config.seed,
            config.workers or usable_cpus(), device,
        )  # fmt: skip
        stack.callback(feed.close)

        # --- 2. The state of the run that is resumed -----------------------------------------------------------------
        progress = Progress(0, pairs.fingerprint)
        motion = fit_motion(pairs, train_on)
        if config.resume:
            progress = load_training(folder.last, learner)
            if progress.data != pairs.fingerprint:
                raise TrainingError(f"{folder.last} was trained on other data. Give the same, or start a new run.")
        elif config.begin_from:
            learner.begin_from(Path(config.begin_from), feed.batch, _TO_KNOW)
        else:
            readings = open_readings(Path(config.readings)) if config.readings else None
            reader = fit_reader(pairs, train_on, len(CONTROLS), motion.typical, config.seed, readings)
            learner.begin_with(motion, reader)
        folder.open(config, {"datasheets": list(pairs.datasheets), "fingerprint": pairs.fingerprint})
        folder.forget_after(progress.step)

        # --- 3. What surrounds the loop ------------------------------------------------------------------------------
        parts = Parts(learner.net, config.parts)
        stack.callback(parts.close)
        stop = stack.enter_context(StopRequest())
        # With nobody held out the sheet shows people of the training set; its figures then prove nothing.
        shown = held_out if len(held_out) else train_on
        typical = motion.typical.to(device)
        looker = Looker(pairs, shown, config.image_size, config.look_pairs, device, typical, unseen=len(held_out) > 0)
        desk = _Desk(config, folder, learner, card, looker, progress, say)
        weights = Weights(**{name: getattr(config, name) for name in NAMES})
        say(
            f"{len(train_on):,} pairs of {_people(pairs, train_on):,} people, {len(held_out):,} of "
            f"{_people(pairs, held_out):,} held out; {card.parameters:,} parameters; {config.steps:,} steps of "
            f"{config.batch_size} on {device}" + (f", resumed at {progress.step:,}" if progress.step else "")
        )

        # --- 4. The loop ---------------------------------------------------------------------------------------------
        step = progress.step
        end = min(config.steps, config.stop_at) if config.stop_at else config.steps
        while step < end and not stop.requested:
            batch = feed.batch(step)
            learner.set_rate(learning_rate(step, config))
            figures = parts.backward(batch, lambda net, part: _figures(net, part, weights))
            torch.nn.utils.clip_grad_norm_(learner.net.parameters(), config.clip)
            learner.adam.step()
            learner.follow(step)
            step += 1
            desk.after(step, figures)

        # --- 5. The end ----------------------------------------------------------------------------------------------
        finished = step >= config.steps
        desk.finish(step, finished=finished)
        return Outcome(step, finished, step < end, desk.best, _export(config, say) if finished else None)


def _figures(net: FlowNet, batch: Batch, weights: Weights) -> torch.Tensor:
    """The loss, and what it is made of by `NAMES`."""
    answer, seen = net(batch.seen, batch.wanted, batch.told, batch.known)
    # Targets are faces with landmarks as well.
    other = net.encoder(F.avg_pool2d(batch.target[::2], FINE))
    found = losses(answer, batch)
    points = torch.cat([batch.points, batch.target_points[::2]])
    found["points"] = points_loss(torch.cat([seen.found, other.found]), points)
    return torch.stack([total(found, weights), *(found[name] for name in NAMES)])


def learning_rate(step: int, config: FlowConfig) -> float:
    """The rate of step 0, 1 ...: a straight rise over the warm-up, then half a cosine down to nearly 0."""
    rise = min(1.0, (step + 1) / max(config.warmup, 1))
    return config.lr * rise * (0.5 + 0.5 * math.cos(math.pi * step / config.steps))


class _Desk:
    """What is done between steps: log, sheet, look, save. Changes nothing of what is trained."""

    def __init__(
        self, config: FlowConfig, folder: RunFolder, learner: Learner, card: FlowCard, looker: Looker,
        progress: Progress, say: Say,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.learner, self.card, self.looker = config, folder, learner, card, looker
        self.best, self._progress, self._say = progress.best, progress, say
        self._losses: list[torch.Tensor] = []
        self._start = self._logged_at = self._saved_at = time.monotonic()
        self._saved = self._looked = self._drawn = progress.step if config.resume else -1

    def after(self, step: int, losses: torch.Tensor) -> None:
        config = self.config
        self._losses.append(losses)
        if step % config.log_every == 0:
            self._log(step)
        if config.look_every and step % config.look_every == 0:
            self._look(step)
        if config.sample_every and step % config.sample_every == 0:
            self._draw(step)
        minutes = (time.monotonic() - self._saved_at) / 60
        if step % config.save_every == 0 or (config.save_minutes and minutes >= config.save_minutes):
            self._save(step)

    def finish(self, step: int, *, finished: bool) -> None:
        if self._losses:
            self._log(step)
        if finished and self._looked != step:
            self._look(step)
        if finished and self.config.sample_every and self._drawn != step:
            self._draw(step)
        if self._saved != step:
            self._save(step)

    def _log(self, step: int) -> None:
        """Write the means since the last line; `TrainingError` where one is not finite."""
        means = dict(zip(("total", *NAMES), torch.stack(self._losses).mean(0).tolist(), strict=True))
        for name, value in means.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss {name} became {value} by step {step}. The last checkpoint is kept; start anew with a "
                    "lower --lr."
                )
        now = time.monotonic()
        speed = len(self._losses) * self.config.batch_size / max(now - self._logged_at, 1e-9)
        self._logged_at = now
        self._losses.clear()
        rate = learning_rate(step - 1, self.config)
        self.folder.append({"step": step, "lr": rate, "pairs_per_second": round(speed, 2), **means})
        left = (self.config.steps - step) * self.config.batch_size / max(speed, 1e-9) / 60
        figures = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        self._say(f"step {step:,}  {figures}  ({speed:.1f} pairs/s, {left:.0f} min left)")

    def _look(self, step: int) -> None:
        look: Look = self.looker.look(self.learner.average)
        self._looked = step
        figures = {"psnr": look.psnr, "untouched": look.untouched, "losses": look.parts}
        self.folder.append({"step": step, "look": figures})
        better = self.best is None or look.psnr > self.best
        if better:
            self.best = look.psnr
            name = "psnr_held_out" if self.looker.unseen else "psnr_trained_on"
            figures = {**self.card.training_data, name: round(look.psnr, 3)}
            save_average(self.folder.best, self.learner, replace(self.card, training_data=figures), step)
        best = ", the best so far" if better else ""
        who = "held-out people" if self.looker.unseen else "people trained on"
        self._say(f"{who} at step {step:,}: {look.psnr:.2f} dB (untouched {look.untouched:.2f}){best}")

    def _draw(self, step: int) -> None:
        self.looker.sheet(self.learner.average, self.folder.sample(step))
        self._drawn = step
        self._say(f"sample sheet: {self.folder.sample(step)}")

    def _save(self, step: int) -> None:
        seconds = self._progress.seconds + time.monotonic() - self._start
        progress = replace(self._progress, step=step, best=self.best, seconds=round(seconds, 1))
        save_training(self.folder.last, self.learner, self.card, self.config, progress)
        self._saved, self._saved_at = step, time.monotonic()


def _architecture(config: FlowConfig) -> NetConfig:
    plain = NetConfig(len(CONTROLS), config.image_size)
    widths = tuple(max(4, 4 * round(width * config.width / 4)) for width in plain.widths)
    return replace(plain, widths=widths)


def variation(step: int, config: FlowConfig) -> Variation:
    """How the pairs of a step (from 0) are varied. At first the decoder is told what every face wears, then less and
    less often: what is read then is hardly better than a guess, and would teach it to listen to nobody."""
    tell = 1 - (1 - config.tell) * min(1.0, step / (_LEARN_TO_READ * config.steps))
    shares = {each.name: getattr(config, each.name) for each in fields(Variation)}
    return Variation(**{**shares, "tell": tell})


def _card(config: FlowConfig, pairs: PairSet, train_on: NDArray[np.int64], learner: Learner) -> FlowCard:
    used = {str(pairs.portraits[i]) for i in train_on}
    sources = [source for sheet in pairs.datasheets for source in sheet["sources"] if source["name"] in used]
    licences = sorted({source["licence"] for source in sources})
    data = {
        "pairs": len(train_on),
        "portraits": len(used),
        "licences": {licence: sum(source["licence"] == licence for source in sources) for licence in licences},
        "fingerprint": pairs.fingerprint,
        "made_by": sorted({sheet["made_by"] for sheet in pairs.datasheets}),
        "what": "renders of a fitted face model over portraits; nobody wore these expressions before a camera",
    }
    return FlowCard(
        size=config.image_size,
        template=SYNTH_TEMPLATE,
        controls=CONTROLS,
        presets={
            name: {control: Amount(move.amount, move.onset) for control, move in moves.items()}
            for name, moves in presets().items()
        },
        windows=windows(config.image_size),
        licence=config.licence or "unknown",
        training_data=data,
        parameters=count_parameters(learner.net),
    )


def _people(pairs: PairSet, members: NDArray[np.int64]) -> int:
    return len({person_of(str(pairs.portraits[i])) for i in members})


def _export(config: FlowConfig, say: Say) -> Path:
    from exprtool_flow.export import export

    made = export(config.out, config.out / MODEL, overwrite=True)
    say(
        f"Done. {made.path}: {made.bytes / 1e6:.1f} MB. "
        f"Use it: exprtool edit PHOTO --expr happy --backend onnx:{made.path}"
    )
    return made.path
