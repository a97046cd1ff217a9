"""The flow network under training: what a step is, and what is looked at and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from exprtool.anatomy.names import CONTROLS
from exprtool.anatomy.targets import presets
from exprtool.devices import usable_cpus
from exprtool.errors import DataError
from exprtool_default.card import FINE, Amount, FlowCard
from exprtool_flow.augment import Batch, Variation
from exprtool_flow.config import FlowConfig
from exprtool_flow.feed import Feed
from exprtool_flow.look import Looker
from exprtool_flow.losses import NAMES, Weights, losses, points_loss, total
from exprtool_flow.motion import fit_motion
from exprtool_flow.networks import FlowNet, NetConfig, count_parameters, windows
from exprtool_flow.parts import Parts
from exprtool_flow.reading import fit_reader
from exprtool_flow.readings import open_readings
from exprtool_flow.shards import PairSet, open_sets, person_of
from exprtool_flow.state import Learner, header
from exprtool_synth.canvas import SYNTH_TEMPLATE
from exprtool_training import checkpoint, loop
from exprtool_training.loop import Outcome
from exprtool_training.method import Method, Sheet
from exprtool_training.processes import Alone
from exprtool_training.progress import Progress
from exprtool_training.watch import Look, Watcher

_LEARN_TO_READ = 0.4
"""Share of a run in which the network is let to learn how to read faces before it has to rely on it."""
_TO_KNOW = 32
"""Batches from which a network that is taken from an export learns its normalization anew."""
MODEL = "model.onnx"
"""What a finished run leaves in its folder, to be used."""


def train(config: FlowConfig, watcher: Watcher | None = None) -> Outcome:
    """Train to the end of the configuration and export; see `exprtool_training.loop.train`."""
    return loop.train(config, Flow, watcher)


class Flow(Method):
    """Learns from pairs of `exprtool data synth`; a finished run leaves one ONNX file that is ready for use."""

    unit = "pairs"
    losses = ("total", *NAMES)

    def __init__(self, config: FlowConfig, world: Alone, watcher: Watcher) -> None:
        self.config, self.world, self.device = config, world, world.device
        self.pairs = pairs = open_sets(config.data)
        self.train_on, held_out = pairs.split(config.test_fraction, config.split_seed)
        if not len(self.train_on):
            raise DataError("All people of the set are held out: use more portraits, or a smaller --test-fraction.")
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self.total, self.multiple, self.data = config.steps, config.parts, pairs.fingerprint
        self.manifest = {"datasheets": list(pairs.datasheets), "fingerprint": pairs.fingerprint}
        self.learner = Learner(_architecture(config), config, self.device)
        self.card = _card(config, pairs, self.train_on, self.learner)
        self.motion = fit_motion(pairs, self.train_on)
        # With nobody held out the sheet shows people of the training set; its figures then prove nothing.
        shown, unseen = (held_out, True) if len(held_out) else (self.train_on, False)
        typical = self.motion.typical.to(self.device)
        self.looker = Looker(
            pairs, shown, config.image_size, config.look_pairs, self.device, typical, unseen=unseen
        )  # fmt: skip
        self.facts = (
            f"{len(self.train_on):,} pairs of {_people(pairs, self.train_on):,} people, {len(held_out):,} of "
            f"{_people(pairs, held_out):,} held out",
            f"{self.card.parameters:,} parameters",
        )
        self._weights = Weights(**{name: getattr(config, name) for name in NAMES})
        self._feed = Feed(
            pairs, self.train_on, config.image_size, config.batch_size, lambda step: variation(step, config),
            config.seed, config.workers or usable_cpus(), self.device, (world.rank, world.size),
        )  # fmt: skip
        self._parts: Parts | None = None

    def begin(self) -> None:
        """Take over what another run has learned, or how faces move in general and how to read them."""
        config = self.config
        if config.begin_from:
            self.learner.begin_from(Path(config.begin_from), self._feed.batch, _TO_KNOW)
        else:
            readings = open_readings(Path(config.readings)) if config.readings else None
            typical = self.motion.typical
            reader = fit_reader(self.pairs, self.train_on, len(CONTROLS), typical, config.seed, readings)
            self.learner.begin_with(self.motion, reader)
        for net in (self.learner.net, self.learner.average):
            self.world.average([tensor for tensor in net.state_dict().values() if tensor.is_floating_point()])

    def step(self, step: int) -> Tensor:
        self.learner.set_rate(self.rate(step))
        figures = self._learn(self._feed.batch(step))
        self.learner.follow(step)
        return figures

    def attempt(self, size: int) -> None:
        batch = self._feed.batch(0)
        repeated = torch.arange(size, device=self.device) % len(batch.seen)
        self._learn(Batch(**{each.name: getattr(batch, each.name)[repeated] for each in fields(Batch)}))

    def _learn(self, batch: Batch) -> Tensor:
        learner = self.learner
        if self._parts is None:  # copies of the network, made once its weights stand
            self._parts = Parts(learner.net, self.config.parts)
        figures = self._parts.backward(batch, lambda net, part: _figures(net, part, self._weights))
        self._share()
        torch.nn.utils.clip_grad_norm_(learner.net.parameters(), self.config.clip)
        learner.adam.step()
        return figures

    def _share(self) -> None:
        """Make the gradients those of the whole batch, and the running statistics those of all its parts."""
        if self.world.size > 1:
            net = self.learner.net
            gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
            self.world.average([*gradients, *(buffer for buffer in net.buffers() if buffer.is_floating_point())])

    def rate(self, step: int) -> float:
        return learning_rate(step, self.config)

    def state(self) -> checkpoint.Parts:
        return self.learner.parts()

    def restore(self, path: Path, progress: Progress) -> None:
        self.learner.restore(path, progress.step)

    def product(self, step: int, look: Look | None) -> tuple[checkpoint.Parts, Mapping[str, str]]:
        data = dict(self.card.training_data)
        if look is not None:
            data["psnr_held_out" if self.looker.unseen else "psnr_trained_on"] = round(look.score, 3)
        card = replace(self.card, training_data=data, step=step)
        return {"ema": self.learner.average.state_dict()}, header(self.learner.net.config, card)

    def header(self, step: int) -> Mapping[str, str]:
        return header(self.learner.net.config, replace(self.card, step=step))

    def look(self) -> Look:
        return self.looker.look(self.learner.average)

    def sheet(self) -> Sheet:
        return self.looker.sheet(self.learner.average)

    def finished(self, out: Path) -> Path:
        from exprtool_flow.export import export

        return export(out, out / MODEL, overwrite=True).path

    def close(self) -> None:
        self._feed.close()
        if self._parts is not None:
            self._parts.close()


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
