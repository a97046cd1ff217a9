"""US-GAN under training: what a step is, and what is looked at and kept.

Letters are the paper's: x_real and its label c_o, the wanted label c_t, G and D, lambda_C, lambda_R, lambda_gp. One
step is one batch through D; every ``d_steps``-th of them G learns too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exprtool.errors import UsageError
from exprtool_gan.config import AdversarialConfig, TrainConfig
from exprtool_gan.feed import Feed
from exprtool_gan.look import Looker
from exprtool_gan.pictures import all_expressions, to_tensor
from exprtool_gan.sampler import Sampler
from exprtool_gan.state import check_networks, parts_of, restore
from exprtool_gan.step import LOSS_NAMES, Adversaries, Batch, Learner
from exprtool_training import loop
from exprtool_training.checkpoint import Parts
from exprtool_training.crops import SHEET_FACES, described, in_words, load_crops, shown
from exprtool_training.data import PreparedSet
from exprtool_training.graphs import Recorded
from exprtool_training.loop import Outcome
from exprtool_training.method import Method, Sheet
from exprtool_training.processes import Alone
from exprtool_training.progress import Progress
from exprtool_training.schedule import learning_rate, total_steps
from exprtool_training.watch import Look, Watcher
from exprtool_usgan.card import METADATA_KEY, ModelCard
from exprtool_usgan.networks import count_parameters


def train(config: TrainConfig, watcher: Watcher | None = None) -> Outcome:
    """Train to the end of the configuration; see `exprtool_training.loop.train`."""
    return loop.train(config, UsGan, watcher)


class Adversarial(Method):
    """A generator and a discriminator that learn against each other on labelled crops.

    A subclass says in `build` what they are and in `card` what their weights are good for; its learner does the steps
    ``discriminator_step`` and ``both_steps``, each a batch -> losses.
    """

    recipe = ""

    @property
    def precision(self) -> str:
        """In which numbers it computes, for people."""
        return "bfloat16, gradient penalty float32" if self.half else "float32"

    def __init__(self, config: AdversarialConfig, world: Alone, watcher: Watcher) -> None:
        self.settings, self.world, self.device = config, world, world.device
        self.prepared = prepared = load_crops(config, world, watcher.prepared)
        prepared.require(batch=config.batch_size, test=False)
        self.total = total_steps(config.steps, config.epochs, len(prepared.train), config.batch_size)
        self.data, self.manifest = prepared.manifest_hash, prepared.manifest
        self.half, record = in_bfloat16(config.precision, world.device), _records(config, world)
        self._looker = None
        if world.leads and config.look_every:
            self._looker = Looker(prepared, config.look_images, config.classifier, "cpu")
        _choose_kernels(config, world.device)
        with torch.random.fork_rng(devices=[]):  # the same first weights on every device and in every process
            torch.manual_seed(config.seed)
            self.learner: Any = self.build()
        self._fixed = shown(prepared, SHEET_FACES)
        networks = count_parameters(self.learner.generator), count_parameters(self.learner.discriminator)
        self.facts = (
            *in_words(config, prepared),
            f"G {networks[0]:,} and D {networks[1]:,} parameters{self.recipe}",
            self.precision + (", CUDA graphs" if record else ""),
        )
        sampler = Sampler(
            prepared.labels[prepared.train], len(prepared.label_names), config.batch_size, config.seed,
            config.targets, config.flip, config.shift, config.colour,
        )  # fmt: skip
        self._feed = Feed(prepared.images[prepared.train], sampler, world.device, share=(world.rank, world.size))
        self._d_step = Recorded(self.learner.discriminator_step) if record else self.learner.discriminator_step
        self._d_and_g_step = Recorded(self.learner.both_steps) if record else self.learner.both_steps

    @abstractmethod
    def build(self) -> Adversaries:
        """The networks and their steps, with random weights."""

    def step(self, step: int) -> Tensor:
        self.learner.set_learning_rate(self.rate(step))
        batch = self._feed.batch(step)  # x_real with c_o, targets c_t
        if not self.learner.g_learns(step):
            return self._d_step(batch)  # L_D
        losses = self._d_and_g_step(batch)  # L_D, then L_G
        self.learner.follow()  # the running average of G
        return losses

    def attempt(self, size: int) -> None:
        """One whole step on grey pictures."""
        learner, side = self.learner, self.settings.image_size
        x = torch.zeros(size, 3, side, side, device=learner.device).to(memory_format=learner.memory_format)
        label = torch.zeros(size, dtype=torch.int64, device=learner.device)
        learner.both_steps(Batch(x, label, label, torch.full((size,), 0.5, device=learner.device)))

    def rate(self, step: int) -> float:
        return learning_rate(step, self.total, self.settings.lr, self.settings.decay_from)

    def state(self) -> Parts:
        return parts_of(self.learner)

    def restore(self, path: Path, progress: Progress) -> None:
        restore(self.learner, path, progress.step)

    def look(self) -> Look | None:
        return None if self._looker is None else self._looker.look(self.outputs, self.head)

    def sheet(self) -> Sheet:
        faces = np.asarray(self.prepared.images[self._fixed])
        return faces, self.outputs(faces, self.prepared.labels[self._fixed]), self.prepared.label_names

    def outputs(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Every picture (N, S, S, 3), which shows ``labels`` (N,), with every expression: (N, C, S, S, 3)."""
        return all_expressions(self.learner.best_generator, images)

    @torch.no_grad()
    def head(self, images: NDArray[np.uint8]) -> NDArray[np.floating]:
        """D's own opinion of what pictures (N, S, S, 3) show: (N, C), higher for more likely."""
        return self.learner.discriminator(to_tensor(images, self.learner.device))[1].float().cpu().numpy()

    def close(self) -> None:
        self._feed.close()


class UsGan(Adversarial):
    """The paper's networks, losses and schedule."""

    losses = LOSS_NAMES
    meanings: ClassVar[Mapping[str, str]] = {
        "d_real": "D on real, higher is more real",
        "d_fake": "D on generated",
        "d_gp": "gradient penalty (eq. 2)",
        "d_expr": "expression of real (eq. 6)",
        "d_total": "L_D (eq. 7)",
        "g_fake": "D on generated, in G's step",
        "g_expr": "expression of generated (eq. 5)",
        "g_rec": "reconstruction (eq. 4)",
        "g_total": "L_G (eq. 8)",
    }

    def __init__(self, config: TrainConfig, world: Alone, watcher: Watcher) -> None:
        self.config, self.recipe = config, f"; recipe {config.recipe}"
        super().__init__(config, world, watcher)
        self.card = _card(config, self.prepared)
        if config.compile:
            self.learner.compile()

    @property
    def precision(self) -> str:
        return "bfloat16" if self.half and self.config.gp_precision == "as-networks" else super().precision

    def build(self) -> Learner:
        labels, world = len(self.prepared.label_names), self.world
        return Learner(self.config, labels, world.device, average=world.average, half=self.half)

    def begin(self) -> None:
        if self.config.begin_from:
            self.learner.begin_from(Path(self.config.begin_from), self.prepared.label_names)

    def restore(self, path: Path, progress: Progress) -> None:
        check_networks(self.learner, path)
        super().restore(path, progress)

    def product(self, step: int, look: Look | None) -> tuple[Parts, Mapping[str, str]]:
        card = replace(self.card, step=step, discriminator=None)
        return {"generator": self.learner.best_generator.state_dict()}, {METADATA_KEY: card.to_json()}

    def header(self, step: int) -> Mapping[str, str]:
        return {METADATA_KEY: replace(self.card, step=step).to_json()}


def _card(config: TrainConfig, prepared: PreparedSet) -> ModelCard:
    labels = len(prepared.label_names)
    card = ModelCard(
        config.generator(labels), prepared.label_names, prepared.template,
        training_data=described(config, prepared, recipe=config.recipe), discriminator=config.discriminator(labels),
    )  # fmt: skip
    return replace(card, licence=config.licence or card.licence)


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether the networks run in bfloat16. Asked for where the card has none is an error, not a slow surprise."""
    if precision == "auto":
        if device.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        return device.type == "cpu" and multiplies_bfloat16()
    half = precision == "bfloat16"
    if half and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError("This card does not compute in bfloat16: use --precision float32.")
    return half


def multiplies_bfloat16() -> bool:
    """Whether this machine's processor has instructions for products in bfloat16; others only imitate them, slowly."""
    told = getattr(torch.cpu, "get_capabilities", dict)()  # an older PyTorch does not tell
    return bool(told.get("avx512_bf16") or told.get("amx_bf16"))


def _records(config: AdversarialConfig, world: Alone) -> bool:
    """Whether steps are recorded as CUDA graphs."""
    possible = world.device.type == "cuda" and world.size == 1
    if config.cuda_graphs == "on" and not possible:
        raise UsageError("--cuda-graphs on needs one CUDA device; leave it at auto.")
    return possible and config.cuda_graphs != "off"


def _choose_kernels(config: AdversarialConfig, device: torch.device) -> None:
    """Sizes never change, so trying every convolution kernel once pays; unless the bits must be the same each time."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.backends.cudnn.deterministic = config.deterministic
