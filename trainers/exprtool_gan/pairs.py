"""A supervised start for the generator: the same person in two expressions, and the distance between them.

The paper's objective knows no pairs, and needs many thousand steps until the critic has taught the generator where a
mouth is. Crops of ``data synth`` show one person in every expression, so that the first part can be learned directly:
``y = G(x, c_t) + x`` is to be the crop of that person with ``c_t``. What differs between the two counts more, for most
of a face does not. The last layer begins at zero: at first the skip alone answers, and nothing has to be unlearned.

The generator is fully convolutional, so that a start at 64 pixels, a quarter of the work, goes on at 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exprtool.errors import DataError
from exprtool_gan.begin import begin_generator
from exprtool_gan.loop import in_bfloat16
from exprtool_gan.pairs_config import PairsConfig
from exprtool_gan.pictures import all_expressions, to_tensor
from exprtool_training.checkpoint import Parts, fill, read_part
from exprtool_training.crops import SHEET_FACES, described, in_words, load_crops, shown
from exprtool_training.data import PreparedSet
from exprtool_training.method import Method, Sheet
from exprtool_training.moments import fill_moments, moments
from exprtool_training.processes import Alone
from exprtool_training.progress import Progress
from exprtool_training.schedule import ema_decay, learning_rate
from exprtool_training.watch import Look, Watcher
from exprtool_usgan.card import METADATA_KEY, ModelCard
from exprtool_usgan.networks import Generator

_DRAW = 3
"""Which stream of random numbers draws the pairs; see `exprtool_gan.sampler` for the others."""
_WARMUP = 50
"""Steps over which the rate rises: the last layer sums 3,136 values, and Adam's first steps move all of them alike."""
_LOOK_BATCHES = 6


@dataclass(frozen=True, eq=False)
class Draw:
    """The random choices of one step for a batch of B: places of the pictures ``source`` and ``target`` (B,) in the
    set, the target's ``label`` (B,), ``flip`` (B,) bool, and ``gain`` (B, 3, 1, 1), by which light is multiplied."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    label: NDArray[np.int64]
    flip: NDArray[np.bool_]
    gain: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class People:
    """Whose pictures make pairs: ``places`` (P, C) holds for each person the place of one picture per label, -1 where
    there is none; ``neutral`` is that label's number, None where the set has no such label."""

    places: NDArray[np.int64]
    neutral: int | None

    @classmethod
    def of(cls, prepared: PreparedSet, chosen: NDArray[np.int64]) -> People:
        """Those of the ``chosen`` pictures whose person shows two expressions or more; `DataError` if nobody does."""
        names, found = prepared.label_names, dict[str, NDArray[np.int64]]()
        for place in chosen:
            row = found.setdefault(prepared.people[place], np.full(len(names), -1))
            row[prepared.labels[place]] = place
        pairs = [row for _, row in sorted(found.items()) if (row >= 0).sum() >= 2]
        if not pairs:
            raise DataError(
                "Nobody in the set shows two expressions, so there are no pairs. Make a set with `exprtool data "
                "synth`, or name the files of one person alike in each expression's folder."
            )
        return cls(np.stack(pairs), names.index("neutral") if "neutral" in names else None)

    def draw(self, config: PairsConfig, step: int) -> Draw:
        """The choices of a step, numbered from 0: a function of seed and step alone."""
        rng, size = np.random.default_rng([config.seed, _DRAW, step]), config.batch_size
        source, target, label = (np.empty(size, dtype=np.int64) for _ in range(3))
        for i, row in enumerate(self.places[rng.integers(len(self.places), size=size)]):
            there = np.flatnonzero(row >= 0)
            label[i], begin = rng.choice(there, size=2)
            if self.neutral is not None and row[self.neutral] >= 0 and rng.random() < config.from_neutral:
                begin = self.neutral
            source[i], target[i] = row[begin], row[label[i]]
        gain = rng.uniform(1 - config.colour, 1 + config.colour, (size, 3, 1, 1)).astype(np.float32)
        return Draw(source, target, label, rng.random(size) < config.flip, gain)


def pair_loss(y: Tensor, x: Tensor, target: Tensor, emphasis: float) -> Tensor:
    """Mean distance of ``y`` to ``target``, all (N, 3, S, S) in [-1, 1]; a pixel's weight is 1 and ``emphasis`` times
    how much the pair differs there, averaged over its channels and cut at half a unit."""
    weight = 1 + emphasis * (target - x).abs().mean(1, keepdim=True).clamp(max=0.5)  # (N, 1, S, S)
    return (weight * (y - target).abs()).mean()


class Start(Method):
    """The generator, its running average, and one Adam."""

    losses = ("distance", "nothing", "weighted")
    meanings: ClassVar[Mapping[str, str]] = {
        "distance": "from the target, in grey levels",
        "nothing": "the same if nothing were changed",
        "weighted": "what is minimised, in [-1, 1]",
    }

    def __init__(self, config: PairsConfig, world: Alone, watcher: Watcher) -> None:
        self.config, self.device, self._average_gradients = config, world.device, world.average
        self.prepared = prepared = load_crops(config, world, watcher.prepared)
        self.total, self.data, self.manifest = config.steps, prepared.manifest_hash, prepared.manifest
        self._names = prepared.label_names
        self.people = People.of(prepared, prepared.train)
        others = next(side for side in (prepared.validation, prepared.test, prepared.train) if len(side))
        self._others = People.of(prepared, others).places
        self._chooses = bool(len(prepared.validation))
        self._half = in_bfloat16(config.precision, world.device)
        self._share = slice(
            world.rank * config.batch_size // world.size, (world.rank + 1) * config.batch_size // world.size
        )
        with torch.random.fork_rng(devices=[]):  # the same first weights on every device and in every process
            torch.manual_seed(config.seed)
            self.generator = Generator(config.generator(len(self._names)))
        last_layer = [layer for layer in self.generator.main if isinstance(layer, torch.nn.Conv2d)][-1]
        torch.nn.init.zeros_(last_layer.weight)
        self.generator.to(self.device)
        self.ema = Generator(self.generator.config).to(self.device).requires_grad_(False).eval()
        self.ema.load_state_dict(self.generator.state_dict())
        self.adam = torch.optim.Adam(
            self.generator.parameters(), config.lr, (0.5, 0.999), fused=self.device.type != "mps"
        )  # fmt: skip
        card = ModelCard(
            self.generator.config, self._names, prepared.template, source="exprtool train --trainer pairs",
            training_data=described(config, prepared, pairs_of_people=len(self.people.places)),
        )  # fmt: skip
        self.card = replace(card, licence=config.licence or card.licence)
        self._fixed = prepared.images[shown(prepared, SHEET_FACES)]
        self.facts = (
            *in_words(config, prepared),
            f"{len(self.people.places):,} people in pairs; {'bfloat16' if self._half else 'float32'}",
        )

    def begin(self) -> None:
        if self.config.begin_from:
            begin_generator(self.generator, self._names, Path(self.config.begin_from))
            self.ema.load_state_dict(self.generator.state_dict())

    def step(self, step: int) -> Tensor:
        for group in self.adam.param_groups:
            group["lr"] = self.rate(step)
        x, target, c = self._tensors(self.people.draw(self.config, step), self._share)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half, cache_enabled=False):
            y = self.generator(x, c)
        y = y.float()
        loss = pair_loss(y, x, target, self.config.emphasis)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients([p.grad for p in self.generator.parameters() if p.grad is not None])
        self.adam.step()
        with torch.no_grad():
            keep = ema_decay(step, self.config.ema)
            for average, parameter in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
                average.lerp_(parameter, 1 - keep)
            distances = [127.5 * (picture - target).abs().mean() for picture in (y, x)]
            return torch.stack([*distances, loss.detach()])

    def rate(self, step: int) -> float:
        rise = min(1.0, (step + 1) / _WARMUP)
        return rise * learning_rate(step, self.total, self.config.lr, self.config.decay_from)

    @torch.no_grad()
    def look(self) -> Look:
        plain = replace(self.config, flip=0.0, colour=0.0)
        others = replace(self.people, places=self._others)
        figures = []
        for batch in range(_LOOK_BATCHES):
            x, target, c = self._tensors(others.draw(plain, batch))
            figures.append([float((picture - target).abs().mean()) * 127.5 for picture in (self.ema.edit(x, c), x)])
        distance, nothing = np.mean(figures, axis=0).tolist()
        text = f"{distance:.2f} grey levels from their targets, {nothing:.2f} if nothing were changed"
        return Look(-distance, {"distance": distance, "nothing": nothing}, text, chooses=self._chooses)

    def sheet(self) -> Sheet:
        return self._fixed, all_expressions(self.ema, self._fixed), self._names

    def state(self) -> Parts:
        return {
            "generator": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "g_adam": moments(self.adam, dict(self.generator.named_parameters())),
        }

    def restore(self, path: Path, progress: Progress) -> None:
        fill(self.generator, read_part(path, "generator"), path)
        fill(self.ema, read_part(path, "ema"), path)
        learned = dict(self.generator.named_parameters())
        fill_moments(self.adam, learned, read_part(path, "g_adam"), progress.step, path)

    def product(self, step: int, look: Look | None) -> tuple[Parts, Mapping[str, str]]:
        return {"generator": self.ema.state_dict()}, self.header(step)

    def header(self, step: int) -> Mapping[str, str]:
        return {METADATA_KEY: replace(self.card, step=step).to_json()}

    def _tensors(self, draw: Draw, share: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Source and target (b, 3, S, S) in [-1, 1], and the target's label one-hot (b, C)."""
        flip = torch.from_numpy(draw.flip[share]).to(self.device)[:, None, None, None]
        gain = torch.from_numpy(draw.gain[share]).to(self.device)
        pictures = []
        for places in (draw.source[share], draw.target[share]):
            v = to_tensor(np.asarray(self.prepared.images[places]), self.device)
            v = torch.where(flip, v.flip(3), v)
            pictures.append(((v + 1) * gain - 1).clamp(-1, 1).contiguous())
        c = torch.eye(len(self._names), device=self.device)[torch.from_numpy(draw.label[share]).to(self.device)]
        return pictures[0], pictures[1], c
