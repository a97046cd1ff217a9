# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""GANimation (Pumarola et al., ECCV 2018, arXiv 1807.09251): a colour and an attention for each pixel, told by action
units.

The generator answers y = A x + (1 - A) colour: where A is 1 the input stays. Losses and their weights are those of the
authors' code; the gradient penalty joins the critic's step, as in the replicate, instead of one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from exprtool.crop_backend import CropBackend
from exprtool.errors import ModelError
from exprtool.expressions import EXPRESSIONS
from exprtool.model_card import CropCard
from exprtool.settings import setting
from exprtool.types import Exported, ExportWish
from exprtool_gan import losses
from exprtool_gan.config import AdversarialConfig
from exprtool_gan.pictures import to_tensor
from exprtool_gan.step import Adversaries, Batch
from exprtool_rivals.aus import AUS, table_of
from exprtool_rivals.networks import OwnNetwork, export_network, header, open_network, residual_of
from exprtool_training.checkpoint import SUFFIX, TRAINER_KEY, check_fit, save
from exprtool_training.config import INF
from exprtool_usgan.config import DiscriminatorConfig
from exprtool_usgan.importing import read_tensors
from exprtool_usgan.networks import Discriminator, count_parameters

UNITS = len(AUS)


@dataclass(frozen=True)
class GanimationConfig(AdversarialConfig):
    """A training run of GANimation."""

    trainer: ClassVar[str] = "ganimation"

    out: Path = setting(Path("runs/ganimation"), "Run", "Folder of the run.", changes=True)
    aus: Path | None = setting(
        None, "Data", "CSV: expression, AU01 ... AU45 in [0, 1]; without, those of exprtool's own expressions."
    )
    channels: int = setting(64, "Networks", "Channels of the generator's first layer.", span=(1, INF))
    residual_blocks: int = setting(6, "Networks", "Residual blocks in the generator.", span=(0, 64))
    lambda_au: float = setting(160.0, "Losses", "Weight of the action units' mean squared error.", span=(0, INF))
    lambda_r: float = setting(10.0, "Losses", "Weight of the cycle.", span=(0, INF))
    lambda_a: float = setting(
        0.1, "Losses", "Weight of the attention's mean: without it nothing changes.", span=(0, INF)
    )
    lambda_tv: float = setting(1e-5, "Losses", "Weight of the attention's total variation, a sum.", span=(0, INF))
    batch_size: int = setting(25, "Training", "Images per step, over all devices together.", span=(1, INF))
    epochs: float = setting(30.0, "Training", "Passes over the training images through D.", span=(0, INF), changes=True)


@dataclass(frozen=True)
class GanimationNetwork:
    """What a generator is made of; with ``affine`` norms its convolutions have no biases (the authors), else the other
    way about (the replicate)."""

    labels: int
    image_size: int = 128
    channels: int = 64
    residual_blocks: int = 6
    affine: bool = True


class _Block(nn.Module):
    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, channels, 3, padding=1, bias=not affine) for _ in range(2)]
        norms = [nn.InstanceNorm2d(channels, affine=affine) for _ in range(2)]
        self.main = nn.Sequential(convs[0], norms[0], nn.ReLU(inplace=True), convs[1], norms[1])

    def forward(self, h: Tensor) -> Tensor:
        return h + self.main(h)


class Generator(nn.Module):
    """StarGAN's trunk on image and units, then two heads. ``table`` (C, 17) holds the units of each label."""

    def __init__(self, config: GanimationNetwork, table: NDArray[np.float32] | None = None) -> None:
        super().__init__()
        self.config = config
        f, affine = config.channels, config.affine

        def normed(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
            return [conv, nn.InstanceNorm2d(conv.out_channels, affine=affine), nn.ReLU(inplace=True)]

        self.main = nn.Sequential(
            *normed(nn.Conv2d(3 + UNITS, f, 7, padding=3, bias=not affine)),
            *normed(nn.Conv2d(f, 2 * f, 4, stride=2, padding=1, bias=not affine)),
            *normed(nn.Conv2d(2 * f, 4 * f, 4, stride=2, padding=1, bias=not affine)),
            *(_Block(4 * f, affine) for _ in range(config.residual_blocks)),
            *normed(nn.ConvTranspose2d(4 * f, 2 * f, 4, stride=2, padding=1, bias=not affine)),
            *normed(nn.ConvTranspose2d(2 * f, f, 4, stride=2, padding=1, bias=not affine)),
        )  # (N, 64, S, S)
        self.colour = nn.Conv2d(f, 3, 7, padding=3, bias=False)
        self.attention = nn.Conv2d(f, 1, 7, padding=3, bias=False)
        zeros = np.zeros((config.labels, UNITS), np.float32)
        self.register_buffer("table", torch.from_numpy(zeros if table is None else table))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0, 0.02)  # as the authors begin

    def forward(self, x: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Picture (N, 3, S, S) and attention (N, 1, S, S) in [0, 1] for units (N, 17)."""
        maps = units.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        h = self.main(torch.cat([x, maps], dim=1))
        kept = torch.sigmoid(self.attention(h))
        return kept * x + (1 - kept) * torch.tanh(self.colour(h)), kept

    def edit(self, x: Tensor, c: Tensor) -> Tensor:
        table: Any = self.table
        return self(x, c @ table)[0].clamp(-1, 1)


def unit_loss(found: Tensor, units: Tensor) -> Tensor:
    """Mean squared error over batch and units (N, 17)."""
    return F.mse_loss(found, units)


def total_variation(attention: Tensor) -> Tensor:
    """Sum over batch and pixels of the absolute differences of neighbours, (N, 1, S, S) -> scalar."""
    rows, columns = attention[:, :, 1:] - attention[:, :, :-1], attention[..., 1:] - attention[..., :-1]
    return rows.abs().sum() + columns.abs().sum()


class Learner(Adversaries):
    """What one step does to both networks."""

    def __init__(self, config: GanimationConfig, table: NDArray[np.float32], device: torch.device, **rest: Any) -> None:
        labels = len(table)
        shape = GanimationNetwork(labels, config.image_size, config.channels, config.residual_blocks)
        critic = DiscriminatorConfig(UNITS, config.image_size, config.d_channels, config.d_layers)
        super().__init__(config, labels, Generator(shape, table), Discriminator(critic), device, **rest)
        self.config, self.table = config, torch.from_numpy(table).to(device)

    def discriminator_step(self, batch: Batch) -> Tensor:
        batch = self._laid_out(batch)
        with torch.no_grad(), self._autocast():
            y, _ = self.generator(batch.x_real, self.table[batch.label_trg])
        return self._improve_discriminator(batch, y.float())

    def both_steps(self, batch: Batch) -> Tensor:
        batch = self._laid_out(batch)
        with self._autocast():
            y, attention = self.generator(batch.x_real, self.table[batch.label_trg])
        d_losses = self._improve_discriminator(batch, y.detach().float())
        return torch.cat([d_losses, self._improve_generator(batch, y, attention)])

    def _improve_discriminator(self, batch: Batch, y: Tensor) -> Tensor:
        config, x, n = self.config, batch.x_real, len(batch.x_real)
        with self._autocast():
            scores, units = self.discriminator(torch.cat([x, y]))
        real, fake = scores.float().split(n)
        gradient = losses.score_gradient(self.discriminator, losses.interpolate(x, y, batch.epsilon))
        penalty = losses.gradient_penalty(gradient)
        au_real = unit_loss(units[:n].float(), self.table[batch.label_org])
        total = losses.critic(real, fake) + config.lambda_gp * penalty + config.lambda_au * au_real
        self._apply(total, self._d_parameters, self.d_adam)
        return torch.stack([real.mean(), fake.mean(), penalty, au_real, total]).detach()

    def _improve_generator(self, batch: Batch, y: Tensor, attention: Tensor) -> Tensor:
        config = self.config
        with self._autocast():
            scores, units = self.discriminator(y)
            back, again = self.generator(y, self.table[batch.label_org])
        au_fake = unit_loss(units.float(), self.table[batch.label_trg])
        reconstructed = losses.reconstruction(batch.x_real, back.float())
        masks = attention.float(), again.float()
        mean = torch.stack([mask.mean() for mask in masks]).sum()
        share = config.batch_size / len(y)  # a sum over the whole batch, of which this process may have a part
        rough = share * torch.stack([total_variation(mask) for mask in masks]).sum()
        total = (
            -scores.float().mean() + config.lambda_au * au_fake + config.lambda_r * reconstructed
            + config.lambda_a * mean + config.lambda_tv * rough
        )  # fmt: skip
        self._apply(total, self._g_parameters, self.g_adam)
        return torch.stack([scores.float().mean(), au_fake, reconstructed, mean, rough, total]).detach()


class Ganimation(OwnNetwork):
    """GANimation on labelled crops: each expression stands for its action units."""

    losses = (
        "d_real", "d_fake", "d_gp", "d_au", "d_total", "g_fake", "g_au", "g_rec", "g_attention", "g_rough", "g_total"
    )  # fmt: skip
    meanings: ClassVar[Mapping[str, str]] = {
        "d_au": "action units of real", "g_au": "action units of generated", "g_rec": "cycle",
        "g_attention": "mean attention, 2 where nothing changes", "g_rough": "its total variation",
    }  # fmt: skip
    architecture = "ganimation"

    def build(self) -> Learner:
        config, world = self.settings, self.world
        assert isinstance(config, GanimationConfig)
        table = table_of(self.prepared.label_names, config.aus)
        return Learner(config, table, world.device, average=world.average, half=self.half)

    @torch.no_grad()
    def head(self, images: NDArray[np.uint8]) -> NDArray[np.floating]:
        """How near the units that D reads are to those of each expression."""
        units = self.learner.discriminator(to_tensor(images, self.learner.device))[1].float()
        return -torch.cdist(units, self.learner.table).cpu().numpy()


def make(values: Mapping[str, Any]) -> Generator:
    return Generator(GanimationNetwork(**values))


_RENAMED = (
    (re.compile(r"(img_reg|color_top)\.0\."), "colour."),
    (re.compile(r"(attetion_reg|attention_reg|au_top)\.0\."), "attention."),
    (re.compile(r"model\."), "main."),
    (re.compile(r"(main\.\d+)\.conv_block\."), r"\1.main."),
)


def import_weights(path: Path, labels: tuple[str, ...], folder: Path) -> Path:
    """Store the generator of the authors' code (``net_epoch_N_id_G.pth``) or of the replicate (``N_net_gen.pth``) in
    ``folder``; returns where. Nothing but tensors is read, and only those of these networks are taken.

    ``labels`` are the expressions that it is to be asked for, by their units; without, exprtool's own. Raises
    `ModelError` for any other network, one of another number of units among them.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in read_tensors(path).items():
        name = name.removeprefix("module.")
        for pattern, ours in _RENAMED:
            name = pattern.sub(ours, name, count=1) if pattern.match(name) else name
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            state[name] = tensor.float()
    first = state.get("main.0.weight")
    if first is None or "colour.weight" not in state or "attention.weight" not in state or first.ndim != 4:
        raise ModelError(f"{path} is no generator of GANimation: it has no colour and no attention.")
    if first.shape[1] != 3 + UNITS:
        raise ModelError(
            f"{path} takes {first.shape[1] - 3} action units; only the {UNITS} of OpenFace are known here."
        )
    names = labels or EXPRESSIONS
    blocks = len({name.split(".")[1] for name in state if re.match(r"main\.\d+\.main\.0\.weight", name)})
    config = GanimationNetwork(len(names), 128, first.shape[0], blocks, affine="main.1.weight" in state)
    net = Generator(config, table_of(names, None))
    state["table"] = net.table  # type: ignore[assignment]
    check_fit(net, state, path)
    net.load_state_dict(state)
    card = CropCard(
        tuple(names), 128, licence="none was granted with these weights: ask their authors before any use but research",
        architecture="ganimation", source=f"imported: {path.name}", parameters=count_parameters(net),
    )  # fmt: skip
    target = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', path.stem)}{SUFFIX}"
    save(target, {"generator": net.state_dict()}, {**header(net, card), TRAINER_KEY: GanimationConfig.trainer})
    return target


def load(path: Path, device: str) -> CropBackend:
    net, card = open_network(path, make)
    return CropBackend(card, residual_of(net, device))


def export(run: Path, out: Path, wish: ExportWish) -> Exported:
    return export_network(*open_network(run, make), out, wish)
