# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""STGAN (Liu et al., CVPR 2019, arXiv 1904.09709): told the difference between the wanted and the worn expression.

Networks, losses and weights are those of the authors' code, with a one-hot expression as attributes: the difference has
a 1, a -1 and else zeros, or zeros only. With ``skip`` the input is added to the answer, as Fig. 10 of the US-GAN paper
does; that paper says no more of it, so the rest stays as it is.

What a face wears must be known to change it. A photo does not tell, and a wrong word gives a wrong edit: say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from exprtool.crop_backend import CropBackend
from exprtool.errors import UnknownNameError, UsageError
from exprtool.model_card import CropCard
from exprtool.settings import setting
from exprtool.types import Exported, ExportWish
from exprtool_gan import losses
from exprtool_gan.config import AdversarialConfig
from exprtool_gan.pictures import to_images, to_tensor
from exprtool_gan.step import Adversaries, Batch
from exprtool_rivals.networks import OwnNetwork, export_network, open_network, residual_of, score_gradient
from exprtool_training.config import INF

LAYERS = 5
_LEAK = 0.2


@dataclass(frozen=True)
class StganConfig(AdversarialConfig):
    """A training run of STGAN."""

    trainer: ClassVar[str] = "stgan"

    out: Path = setting(Path("runs/stgan"), "Run", "Folder of the run.", changes=True)
    channels: int = setting(
        64, "Networks", "Channels of both networks' first layers; they double with each.", span=(1, 1024)
    )
    skip: bool = setting(False, "Networks", "Add the input to the answer, the ultimate skip connection.")
    lambda_c: float = setting(1.0, "Losses", "Weight of the expression loss in D's step.", span=(0, INF))
    lambda_g: float = setting(10.0, "Losses", "Weight of the expression loss in G's step.", span=(0, INF))
    lambda_r: float = setting(100.0, "Losses", "Weight of the reconstruction with nothing to change.", span=(0, INF))
    batch_size: int = setting(32, "Training", "Images per step, over all devices together.", span=(1, INF))
    steps: int = setting(
        100_000, "Training", "Length in discriminator steps; 0: as --epochs says.", span=(0, INF), changes=True
    )
    lr: float = setting(2e-4, "Training", "Learning rate of both networks; a tenth in the second half.", span=(0, 1))
    flip: float = setting(0.0, "Training", "Probability of mirroring an image; the authors do not.", span=(0, 1))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % 2**LAYERS or self.image_size < 2 ** (LAYERS + 1):
            raise UsageError(
                f"STGAN halves its images {LAYERS} times and normalizes what is left: --image-size must be a multiple "
                f"of {2**LAYERS} from {2 ** (LAYERS + 1)} on, not {self.image_size}."
            )


@dataclass(frozen=True)
class StganUsConfig(StganConfig):
    """A training run of STGAN with the ultimate skip (Fig. 10 of the US-GAN paper)."""

    trainer: ClassVar[str] = "stgan-us"

    out: Path = setting(Path("runs/stgan-us"), "Run", "Folder of the run.", changes=True)
    skip: bool = setting(True, "Networks", "Add the input to the answer, the ultimate skip connection.")


@dataclass(frozen=True)
class StganNetwork:
    """What a generator is made of."""

    labels: int
    image_size: int = 128
    channels: int = 64
    skip: bool = False

    @property
    def widths(self) -> list[int]:
        """Channels after each layer of the encoder: 64, 128 ... 1024."""
        return [self.channels * 2**i for i in range(LAYERS)]


class TransferUnit(nn.Module):
    """A selective transfer unit: from an encoder's map f (N, w, s, s) and the deeper unit's state (N, v, s/2, s/2) to
    what the decoder is given, and to its own state, both (N, w, s, s)."""

    def __init__(self, deeper: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(deeper, width, 4, stride=2, padding=1)
        self.reset, self.update, self.info = (nn.Conv2d(2 * width, width, 3, padding=1) for _ in range(3))

    def forward(self, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        u = self.up(state)
        both = torch.cat([f, u], dim=1)
        kept = torch.sigmoid(self.reset(both)) * u
        z = torch.sigmoid(self.update(both))
        h = torch.tanh(self.info(torch.cat([f, kept], dim=1)))
        return (1 - z) * u + z * h, kept


class Generator(nn.Module):
    """Encoder, transfer units on four of its maps, decoder. 74,722,003 parameters with 7 labels."""

    def __init__(self, config: StganNetwork) -> None:
        super().__init__()
        self.config = config
        a, widths = config.labels, config.widths
        self.encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), _norm(after), nn.LeakyReLU(_LEAK)
            )
            for before, after in zip([3, *widths], widths, strict=False)
        )
        shallow = widths[-2::-1]  # 512, 256, 128, 64: where the units work, from the deepest on
        self.units = nn.ModuleList(
            TransferUnit(before + a, after) for before, after in zip([widths[-1], *shallow], shallow, strict=False)
        )
        given = [widths[-1] + a, *(w * 2 + w + a for w in shallow)]
        self.decoder = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False), _norm(after), nn.ReLU()
            )
            for before, after in zip(given, [2 * w for w in shallow], strict=False)
        )
        self.last = nn.ConvTranspose2d(given[-1], 3, 4, stride=2, padding=1)
        _begin(self)

    def forward(self, x: Tensor, difference: Tensor) -> Tensor:
        """The image changed by a difference (N, C) of codes, wanted less worn."""
        return self.decode(x, self.encode(x), difference)

    def encode(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for layer in self.encoder:
            x = layer(x)
            maps.append(x)
        return maps

    def decode(self, x: Tensor, maps: Sequence[Tensor], difference: Tensor) -> Tensor:
        def told(h: Tensor) -> Tensor:
            planes = difference.to(h.dtype)[:, :, None, None].expand(-1, -1, *h.shape[2:])
            return torch.cat([h, planes], dim=1)

        *shallow, deepest = maps
        state, h = told(deepest), told(deepest)
        for f, unit, layer in zip(reversed(shallow), self.units, self.decoder, strict=True):
            passed, kept = unit(f, state)
            state = told(kept)
            h = told(torch.cat([layer(h), passed], dim=1))
        y = torch.tanh(self.last(h))
        return y + x if self.config.skip else y

    def edit(self, x: Tensor, c: Tensor, worn: Tensor) -> Tensor:
        """A picture (N, 3, S, S) in [-1, 1] with expression ``c`` (N, C) of a face that wears ``worn`` (N, C)."""
        return self(x, c - worn).clamp(-1, 1)


class Discriminator(nn.Module):
    """Five halving convolutions with instance norm, then a head for real or fake and one for the expression: scores
    (N, 1) and logits (N, C). 44,712,840 parameters with 7 labels at 128 pixels."""

    def __init__(self, config: StganNetwork) -> None:
        super().__init__()
        widths = config.widths
        layers: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            layers += [
                nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.InstanceNorm2d(after, eps=1e-6, affine=True),
                nn.LeakyReLU(_LEAK),
            ]
        self.main = nn.Sequential(*layers)
        wide = widths[-1]
        flat = wide * (config.image_size // 2**LAYERS) ** 2
        self.critic, self.expression = (
            nn.Sequential(nn.Linear(flat, wide), nn.LeakyReLU(_LEAK), nn.Linear(wide, count))
            for count in (1, config.labels)
        )
        _begin(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.main(x).flatten(1)
        return self.critic(features), self.expression(features)


def attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of each expression by itself, mean over batch and expressions: logits (N, C), one-hot labels
    (N, C)."""
    return F.binary_cross_entropy_with_logits(logits, labels)


class Learner(Adversaries):
    """What one step does to both networks."""

    def __init__(self, config: StganConfig, labels: int, device: torch.device, **rest: Any) -> None:
        network = StganNetwork(labels, config.image_size, config.channels, config.skip)
        super().__init__(config, labels, Generator(network), Discriminator(network), device, **rest)
        self.config = config

    def discriminator_step(self, batch: Batch) -> Tensor:
        batch = self._laid_out(batch)
        with torch.no_grad(), self._autocast():
            y = self.generator(batch.x_real, self._difference(batch))
        return self._improve_discriminator(batch, y.float())

    def both_steps(self, batch: Batch) -> Tensor:
        batch = self._laid_out(batch)
        with self._autocast():
            maps = self.generator.encode(batch.x_real)  # one pass for the edit and for the reconstruction
            y = self.generator.decode(batch.x_real, maps, self._difference(batch))
            same = self.generator.decode(batch.x_real, maps, torch.zeros_like(self._difference(batch)))
        d_losses = self._improve_discriminator(batch, y.detach().float())
        return torch.cat([d_losses, self._improve_generator(batch, y, same)])

    def _difference(self, batch: Batch) -> Tensor:
        return self._one_hot(batch.label_trg) - self._one_hot(batch.label_org)

    def _improve_discriminator(self, batch: Batch, y: Tensor) -> Tensor:
        config, x, n = self.config, batch.x_real, len(batch.x_real)
        with self._autocast():
            scores, logits = self.discriminator(torch.cat([x, y]))
        real, fake = scores.float().split(n)
        gradient = score_gradient(self.discriminator, losses.interpolate(x, y, batch.epsilon))
        penalty = losses.gradient_penalty(gradient)
        expr_real = attribute_loss(logits[:n].float(), self._one_hot(batch.label_org))
        total = losses.critic(real, fake) + config.lambda_gp * penalty + config.lambda_c * expr_real
        self._apply(total, self._d_parameters, self.d_adam)
        self._average([buffer for buffer in self.generator.buffers() if buffer.is_floating_point()])
        return torch.stack([real.mean(), fake.mean(), penalty, expr_real, total]).detach()

    def _improve_generator(self, batch: Batch, y: Tensor, same: Tensor) -> Tensor:
        config = self.config
        with self._autocast():
            scores, logits = self.discriminator(y)
        expr_fake = attribute_loss(logits.float(), self._one_hot(batch.label_trg))
        reconstructed = losses.reconstruction(batch.x_real, same.float())
        total = -scores.float().mean() + config.lambda_g * expr_fake + config.lambda_r * reconstructed
        self._apply(total, self._g_parameters, self.g_adam)
        return torch.stack([scores.float().mean(), expr_fake, reconstructed, total]).detach()


class Stgan(OwnNetwork):
    """STGAN on labelled crops."""

    losses = ("d_real", "d_fake", "d_gp", "d_expr", "d_total", "g_fake", "g_expr", "g_rec", "g_total")

    def build(self) -> Learner:
        config, world = self.settings, self.world
        assert isinstance(config, StganConfig)
        return Learner(
            config, len(self.prepared.label_names), world.device, average=world.average, half=self.half
        )  # fmt: skip

    @property
    def architecture(self) -> str:
        return self.settings.trainer

    def rate(self, step: int) -> float:
        """A tenth from the middle on."""
        return self.settings.lr * (1.0 if 2 * step < self.total else 0.1)

    @torch.no_grad()
    def outputs(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        net, device = self.learner.best_generator, self.learner.device
        eye, training = torch.eye(self.learner.labels, device=device), net.training
        net.eval()  # by its running statistics, as it will be used
        try:
            columns = []
            for label in range(len(eye)):
                worn = eye[torch.from_numpy(labels).to(device)]
                pictures = [
                    to_images(net.edit(to_tensor(images[[i]], device), eye[[label]], worn[[i]]))
                    for i in range(len(images))
                ]
                columns.append(np.concatenate(pictures))
            return np.stack(columns, 1)
        finally:
            net.train(training)


class StganBackend(CropBackend):
    """STGAN behind the backend for crops: ``worn`` is what every face is said to wear, None where nobody said."""

    def __init__(self, card: CropCard, net: Generator, device: str, worn: str | None) -> None:
        super().__init__(card, self._unknown)
        if worn is not None and worn not in card.labels:
            raise UnknownNameError("expression of this model", worn, card.labels)
        self._answer, self._worn = residual_of(net, device), worn

    def residuals(
        self, crops: NDArray[np.uint8], weights: Mapping[str, float], sources: Sequence[str | None] | None = None
    ) -> NDArray[np.float32]:
        """``sources`` are the expressions that the crops are known to wear, for measuring."""
        worn = sources or [self._worn] * len(crops)
        known = [name if name in self.card.labels else self._worn for name in worn]
        if None in known:
            raise UsageError(
                "STGAN changes a face by the difference from what it wears, and nobody said what that is: give it "
                "after an @, --backend stgan:RUN@neutral."
            )
        codes = np.eye(len(self.card.labels), dtype=np.float32)
        total = np.zeros(crops.shape, np.float32)
        for name in dict.fromkeys(known):
            chosen = [i for i, each in enumerate(known) if each == name]
            code = codes[self.card.index(str(name))]
            self._residual = lambda x, c, code=code: self._answer(x, c, np.repeat(code[None], len(x), 0))  # type: ignore[call-arg]
            total[chosen] = super().residuals(crops[chosen], weights)
        return total

    @staticmethod
    def _unknown(x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        raise UsageError("STGAN must be told what the face wears.")


def make(values: Mapping[str, Any]) -> Generator:
    return Generator(StganNetwork(**values))


def load(path: Path, device: str, worn: str | None = None) -> StganBackend:
    net, card = open_network(path, make)
    return StganBackend(card, net, device, worn)


def export(run: Path, out: Path, wish: ExportWish) -> Exported:
    """The file takes every face to be neutral: it has an input for the wanted expression only."""
    net, card = open_network(run, make)
    if "neutral" not in card.labels:
        raise UsageError(f"{run} knows no neutral face, from which an exported STGAN starts. Use the run itself.")

    class FromNeutral(nn.Module):
        config = net.config

        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.register_buffer("worn", torch.eye(len(card.labels))[[card.labels.index("neutral")]])

        def edit(self, x: Tensor, c: Tensor) -> Tensor:
            worn: Any = self.worn
            return self.net.edit(x, c, worn)

    return export_network(FromNeutral().eval(), card, out, wish)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.001)


def _begin(net: nn.Module) -> None:
    """Xavier's uniform weights, zero biases, as the authors' library begins."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
