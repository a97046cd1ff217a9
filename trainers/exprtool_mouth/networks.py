"""The painter of mouths, and the critic that it learns from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exprtool.anatomy.mouth_crop import CHANNELS


def block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU())


class Overall(nn.Module):
    """Lets every place know the whole: light and tone of the skin, and how many teeth there are (squeeze and
    excitation, Hu et al., CVPR 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask = nn.Sequential(nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 2 * width))

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.ask(x.mean((2, 3))).chunk(2, 1)  # (N, C) each
        return x * (1 + gain[:, :, None, None]) + shift[:, :, None, None]


class Painter(nn.Module):
    """A U-Net on blocks of 2 x 2 pixels: (N, 3, H, W) pictures in [-1, 1] and what is told (N, CHANNELS - 3, H, W) to
    pictures (N, 3, H, W) in [-1, 1], of which only what lies in the hole counts."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = widths
        self.down1 = nn.Sequential(block(4 * CHANNELS, a), block(a, a))
        self.down2 = nn.Sequential(block(a, b, 2), block(b, b))
        self.down4 = nn.Sequential(block(b, c, 2), block(c, c), Overall(c), block(c, c), block(c, c))
        self.up2 = nn.Sequential(block(c + b, b), block(b, b))
        self.up1 = nn.Sequential(block(b + a, a), block(a, a), nn.Conv2d(a, 64, 3, 1, 1))
        self.fine = nn.Sequential(nn.Conv2d(16 + CHANNELS, 16, 3, 1, 1), nn.SiLU(), nn.Conv2d(16, 3, 3, 1, 1))

    def forward(self, picture: Tensor, told: Tensor) -> Tensor:
        given = torch.cat([picture * (1 - told[:, :1]), told], 1)  # (N, CHANNELS, H, W)
        x = self.down1(F.pixel_unshuffle(given, 2))  # (N, a, H/2, W/2)
        y = self.down2(x)  # (N, b, H/4, W/4)
        z = self.down4(y)  # (N, c, H/8, W/8)
        y = self.up2(torch.cat([F.interpolate(z, scale_factor=2.0, mode="nearest"), y], 1))
        x = self.up1(torch.cat([F.interpolate(y, scale_factor=2.0, mode="nearest"), x], 1))
        x = self.fine(torch.cat([F.silu(F.pixel_shuffle(x, 2)), given], 1))
        return torch.tanh(x)


class Critic(nn.Module):
    """Judges patches of a whole mouth (N, 3, H, W), knowing what was told; spectrally normalized (Miyato et al., ICLR
    2018). Returns the judgement (N, 1, h, w) and the features on the way."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 128)) -> None:
        super().__init__()
        before, layers = CHANNELS, []
        for place, after in enumerate(widths):
            last = place == len(widths) - 1
            conv = nn.Conv2d(before, after, 3 if last else 4, 1 if last else 2, 1)
            layers.append(nn.Sequential(nn.utils.parametrizations.spectral_norm(conv), nn.LeakyReLU(0.2)))
            before = after
        self.layers = nn.ModuleList(layers)
        self.judge = nn.utils.parametrizations.spectral_norm(nn.Conv2d(before, 1, 3, 1, 1))

    def forward(self, picture: Tensor, told: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = torch.cat([picture, told], 1), []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.judge(x), features
