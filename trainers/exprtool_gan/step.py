"""One training step: the discriminator's (eq. 7) and, every few steps, the generator's (eq. 8).

Nothing here waits for the device: losses stay there until somebody asks. Gradients are asked for by name, so that the
generator's graph is not built where only D learns, and D's weights get no gradients where only G learns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from exprtool.errors import TrainingError
from exprtool_gan import losses
from exprtool_gan.begin import begin_discriminator, begin_generator
from exprtool_gan.config import AdversarialConfig, TrainConfig
from exprtool_training.schedule import ema_decay
from exprtool_usgan.networks import Discriminator, Generator

LOSS_NAMES = ("d_real", "d_fake", "d_gp", "d_expr", "d_total", "g_fake", "g_expr", "g_rec", "g_total")
Net = TypeVar("Net", bound=torch.nn.Module)
AverageGradients = Callable[[Sequence[Tensor]], None]


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step learns from: images (N, 3, S, S) in [-1, 1], original and target labels (N,), epsilon (N,)."""

    x_real: Tensor
    label_org: Tensor
    label_trg: Tensor
    epsilon: Tensor


class Adversaries:
    """A generator and a discriminator with their optimizers, and what any step needs of them.

    ``average`` is called with the gradients before they are used: across processes it makes them those of the whole
    batch. ``half`` runs the networks in bfloat16 where that is safe.
    """

    def __init__(
        self, settings: AdversarialConfig, labels: int, generator: torch.nn.Module, discriminator: torch.nn.Module,
        device: torch.device, *, average: AverageGradients, half: bool = False,
    ) -> None:  # fmt: skip
        self.labels, self.device, self.half = labels, device, half
        self.settings, self._average = settings, average
        # what CUDA's kernels want; on the CPU group_norm's backward alone would lose a third of a step in channels last
        self.memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.generator: Any = self._placed(generator)
        self.discriminator: Any = self._placed(discriminator)
        self.ema: Any = copy.deepcopy(self.generator).requires_grad_(False).eval() if settings.ema else None
        self.g_updates = 0
        self.g_adam, self.d_adam = self._adam(self.generator), self._adam(self.discriminator)
        self._g_parameters = list(self.generator.parameters())
        self._d_parameters = list(self.discriminator.parameters())

    def g_learns(self, step: int) -> bool:
        """Whether G learns in a step, numbered from 0, after D."""
        return (step + 1) % self.settings.d_steps == 0

    def _placed(self, net: Net) -> Net:
        return net.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def _apply(self, loss: Tensor, parameters: list[torch.nn.Parameter], adam: torch.optim.Adam) -> None:
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = _same_layout(gradient, parameter)
        self._average([parameter.grad for parameter in parameters if parameter.grad is not None])
        adam.step()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the running average towards the generator, after each generator step."""
        if self.ema is not None:
            keep = ema_decay(self.g_updates, self.settings.ema)
            for average, parameter in zip(self.ema.parameters(), self._g_parameters, strict=True):
                average.lerp_(parameter, 1 - keep)
            for average, buffer in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
                average.copy_(buffer)
        self.g_updates += 1

    def set_learning_rate(self, rate: float) -> None:
        for adam in (self.g_adam, self.d_adam):
            for group in adam.param_groups:
                if isinstance(group["lr"], Tensor):  # a recorded CUDA graph reads it from there
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    @property
    def best_generator(self) -> Any:
        """The weights to make pictures with: the running average where there is one."""
        return self.generator if self.ema is None else self.ema

    def _one_hot(self, label: Tensor) -> Tensor:
        return F.one_hot(label, self.labels).float()  # (N, C)

    def _laid_out(self, batch: Batch) -> Batch:
        return replace(batch, x_real=batch.x_real.contiguous(memory_format=self.memory_format))

    def _autocast(self, wanted: bool = True) -> torch.autocast:
        # the cache of cast weights would outlive a recorded CUDA graph
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half and wanted, cache_enabled=False)

    def _adam(self, net: torch.nn.Module) -> torch.optim.Adam:
        config, cuda = self.settings, self.device.type == "cuda"
        rate = torch.tensor(config.lr, device=self.device) if cuda else config.lr
        return torch.optim.Adam(
            net.parameters(), lr=rate, betas=(config.beta1, config.beta2), fused=True, capturable=cuda
        )


class Learner(Adversaries):
    """US-GAN's two networks and what one step does to them. The gradient penalty stays in float32 unless the
    configuration says otherwise."""

    def __init__(
        self, config: TrainConfig, labels: int, device: torch.device, *, average: AverageGradients, half: bool = False
    ) -> None:
        generator, discriminator = Generator(config.generator(labels)), Discriminator(config.discriminator(labels))
        super().__init__(config, labels, generator, discriminator, device, average=average, half=half)
        self.config = config
        self._score_gradient = losses.score_gradient

    def begin_from(self, path: Path, labels: tuple[str, ...]) -> None:
        """Take G's weights of another run or file, and D's where that, or ``begin_d_from``, has one of this kind."""
        begin_generator(self.generator, labels, path)
        apart = self.config.begin_d_from
        if not begin_discriminator(self.discriminator, Path(apart) if apart else path) and apart:
            raise TrainingError(f"{apart} holds no discriminator of this kind. Leave out --begin-d-from.")
        if self.ema is not None:
            self.ema.load_state_dict(self.generator.state_dict())

    def g_learns(self, step: int) -> bool:
        """Whether G learns in a step, numbered from 0, after D."""
        return step >= self.config.d_first and super().g_learns(step)

    def compile(self) -> None:
        """Have torch.compile make kernels of its own for both networks at their first use."""
        self.generator.compile()
        self.discriminator.compile()
        self._score_gradient = torch.compile(losses.score_gradient)

    def discriminator_step(self, batch: Batch) -> Tensor:
        """Improve D once; returns its losses (5,), see `LOSS_NAMES`."""
        batch = self._laid_out(batch)
        with torch.no_grad(), self._autocast():  # the same gradients for D as with G's graph, at a third of the cost
            y = self.generator(batch.x_real, self._one_hot(batch.label_trg))
        return self._improve_discriminator(batch, y.float())

    def both_steps(self, batch: Batch) -> Tensor:
        """Improve D, then G against the better D; returns all losses (9,).

        G does not change in between, so that its one pass over the batch serves both.
        """
        batch = self._laid_out(batch)
        with self._autocast():
            y = self.generator(batch.x_real, self._one_hot(batch.label_trg))
        d_losses = self._improve_discriminator(batch, y.detach().float())
        return torch.cat([d_losses, self._improve_generator(batch, y)])

    def _improve_discriminator(self, batch: Batch, y: Tensor) -> Tensor:
        config, x, n = self.config, batch.x_real, len(batch.x_real)
        with self._autocast():
            scores, logits = self.discriminator(torch.cat([x, y]))  # one pass: D mixes nothing within a batch
        score_real, score_fake = scores.float().split(n)
        x_bar = losses.interpolate(x, y, batch.epsilon)
        with self._autocast(config.gp_precision == "as-networks"):
            gradient = self._score_gradient(self.discriminator, x_bar, config.gp_score)
        penalty = losses.gradient_penalty(gradient.float())
        expr_real = losses.expression(logits[:n].float(), batch.label_org)  # eq. 6
        total = losses.discriminator_total(  # eq. 7
            losses.critic(score_real, score_fake), penalty, expr_real, config.lambda_gp, config.lambda_c
        )
        self._apply(total, self._d_parameters, self.d_adam)
        return torch.stack([score_real.mean(), score_fake.mean(), penalty, expr_real, total]).detach()

    def _improve_generator(self, batch: Batch, y: Tensor) -> Tensor:
        config = self.config
        with self._autocast():
            scores, logits = self.discriminator(y)
            x_hat = self.generator(y, self._one_hot(batch.label_org))  # eq. 3
        expr_fake = losses.expression(logits.float(), batch.label_trg)  # eq. 5
        reconstructed = losses.reconstruction(batch.x_real, x_hat.float())  # eq. 4
        total = losses.generator_total(  # eq. 8
            scores.float(), expr_fake, reconstructed, config.lambda_c, config.lambda_r
        )
        self._apply(total, self._g_parameters, self.g_adam)
        return torch.stack([scores.float().mean(), expr_fake, reconstructed, total]).detach()


def _same_layout(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient with the parameter's strides: the fused optimizer walks both as flat memory."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
