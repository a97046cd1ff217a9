"""The paper's two networks, exactly, with the switches that its ablations ask for.

``G`` turns a face ``x`` and a wanted expression ``c`` into ``y = G(x, c) + x`` (eq. 1): the ultimate skip connection.
``D`` scores how real an image looks (``D_I``) and names its expression (``D_c``).

Images are ``(N, 3, S, S)`` float in [-1, 1], RGB. Expressions are ``(N, C)`` float, one-hot in training.

Where the paper is silent this follows StarGAN, which it builds on: no biases before instance norms, a tanh at the end,
kernel sizes and padding, LeakyReLU slope 0.01. Attribute names and the order inside ``main`` are those under which the
authors' and StarGAN's published weights are stored (``main.N.weight``), so that these load without a table of names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exprtool_usgan.config import DiscriminatorConfig, GeneratorConfig

LEAK = 0.01
OPEN = 4.0
"""What a gated skip begins with, before the sigmoid: 0.98 of the input passes."""
LARGEST_PRODUCT_SIDE = 4
"""Side of the largest output map, in pixels, that is computed as a matrix product on the CPU: at 8 and more the
library's convolutions are as fast."""


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm that uses each image's own statistics, in training and in inference alike.

    The published codes keep running statistics and never switch to them; one call of ``.eval()`` then changes every
    output. Here there are none to switch to.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, track_running_stats=False)

    def forward(self, input: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return super().forward(input)
        # one channel per group is the same normalisation, in a kernel that knows channels-last memory
        return F.group_norm(input, self.num_features, self.weight, self.bias, self.eps)


class HalvingConv(nn.Conv2d):
    """A layer of the discriminator: a 4x4 convolution of stride 2 that halves the image.

    The last layers carry most of the weights and end in maps of 4x4 and 2x2, for which the CPU's convolutions are badly
    made: there this is one matrix product over unfolded patches, of the same sums.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 4, stride=2, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        if not _better_as_product(input, input.shape[-2] // 2):
            return super().forward(input)
        n, _, height, width = input.shape
        patches = F.unfold(input, 4, padding=1, stride=2)  # (N, 16 before, H/2 W/2)
        rows = patches.transpose(1, 2).flatten(0, 1)  # (N H/2 W/2, 16 before)
        maps = F.linear(rows, self.weight.flatten(1), self.bias)  # (N H/2 W/2, after)
        return maps.view(n, height // 2, width // 2, -1).permute(0, 3, 1, 2)  # (N, after, H/2, W/2)

    def input_gradient(self, g: Tensor) -> Tensor:
        """The layer's gradient in its input from that in its output: (N, after, H/2, W/2) -> (N, before, H, W)."""
        if not _better_as_product(g, g.shape[-2]):
            return F.conv_transpose2d(g, self.weight, stride=2, padding=1)
        n, after, height, width = g.shape
        rows = g.permute(0, 2, 3, 1).reshape(-1, after)  # (N H/2 W/2, after)
        patches = (rows @ self.weight.flatten(1)).view(n, height * width, -1).transpose(1, 2)  # (N, 16 before, ...)
        return F.fold(patches, (2 * height, 2 * width), 4, padding=1, stride=2)


def _better_as_product(x: Tensor, side: int) -> bool:
    """Whether a convolution to maps of ``side`` is faster as a matrix product; `benchmarks/train_step.py` measures."""
    return x.device.type == "cpu" and side <= LARGEST_PRODUCT_SIDE


class ReflectedBlock(nn.Module):
    """Reflected border, 3x3 convolution, instance norm, ReLU; ``scale`` 0.5 halves the map, 2 doubles it first."""

    def __init__(self, before: int, after: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        stride = 2 if scale < 1 else 1
        self.conv = nn.Conv2d(before, after, 3, stride, padding=1, padding_mode="reflect", bias=False)
        self.norm = InstanceNorm(after)

    def forward(self, h: Tensor) -> Tensor:
        h = F.interpolate(h, scale_factor=2, mode="nearest") if self.scale > 1 else h
        return F.relu(self.norm(self.conv(h)))


class Hourglass(nn.Module):
    """A mask in [0, 1] for a map (N, C, S, S): (N, 1, S, S), from two levels of halving and doubling (SARGAN's
    symmetric encoder-decoder; S a multiple of 4)."""

    WIDTH = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        w = self.WIDTH
        self.beside = nn.ModuleList([ReflectedBlock(channels, w), ReflectedBlock(w, w)])
        self.down = nn.ModuleList([ReflectedBlock(channels, w, 0.5), ReflectedBlock(w, w, 0.5)])
        self.bottom = ReflectedBlock(w, w)
        self.up = nn.ModuleList([ReflectedBlock(w, w, 2), ReflectedBlock(w, w, 2)])
        self.out = nn.Conv2d(w, 1, 3, padding=1, padding_mode="reflect")

    def forward(self, h: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self._level(h, 0)))

    def _level(self, h: Tensor, level: int) -> Tensor:
        below = self.down[level](h)
        below = self._level(below, level + 1) if level + 1 < len(self.down) else self.bottom(below)
        return self.beside[level](h) + self.up[level](below)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm, a ReLU between them, the input added to the result (section 3.1.2);
    with attention, what is added is weighed by a mask made of itself."""

    def __init__(self, channels: int, attention: bool = False) -> None:
        super().__init__()
        self.mask = Hourglass(channels) if attention else None
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            InstanceNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            InstanceNorm(channels),
        )

    def forward(self, h: Tensor) -> Tensor:
        added = self.main(h)
        return h + (added if self.mask is None else added * self.mask(added))


class Generator(nn.Module):
    """Encoder, residual blocks, decoder and the ultimate skip (section 3.1).

    With 7 labels it has 2,533,440 parameters at one residual block and 8,436,800 at six. It is fully convolutional:
    any image whose sides are multiples of 4 goes through, although it was trained at ``config.image_size``.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        f = config.channels
        layers: list[nn.Module] = [
            *_conv_block(nn.Conv2d(3 + config.labels, f, 7, padding=3, bias=False)),  # (N, 64, S, S)
            *_conv_block(nn.Conv2d(f, 2 * f, 4, stride=2, padding=1, bias=False)),  # (N, 128, S/2, S/2)
            *_conv_block(nn.Conv2d(2 * f, 4 * f, 4, stride=2, padding=1, bias=False)),  # (N, 256, S/4, S/4)
            *(ResidualBlock(4 * f, config.attention) for _ in range(config.residual_blocks)),  # (N, 256, S/4, S/4)
            *_conv_block(nn.ConvTranspose2d(4 * f, 2 * f, 4, stride=2, padding=1, bias=False)),  # (N, 128, S/2, S/2)
            *_conv_block(nn.ConvTranspose2d(2 * f, f, 4, stride=2, padding=1, bias=False)),  # (N, 64, S, S)
            nn.Conv2d(f, 3, 7, padding=3, bias=False),  # (N, 3, S, S)
        ]
        if config.tanh == "before-skip":
            layers.append(nn.Tanh())
        self.main = nn.Sequential(*layers)
        self.gate = nn.Conv2d(f, 1, 7, padding=3) if config.gate else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, OPEN)  # type: ignore[arg-type]

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The image with expression ``c`` as the training sees it (eq. 1), shape of ``x``.

        Its range is [-2, 2] unless the configuration clamps or puts the tanh last; `edit` gives a picture.
        """
        y = self._uncut(x, c)  # (N, 3, S, S), before any clamp
        return y.clamp(-1, 1) if self.config.clamp == "always" else y

    def edit(self, x: Tensor, c: Tensor) -> Tensor:
        """The image with expression ``c`` as a picture: (N, 3, S, S) in [-1, 1]."""
        return self._uncut(x, c).clamp(-1, 1)

    def residual(self, x: Tensor, c: Tensor) -> Tensor:
        """What the network changes: (N, 3, S, S), to be added to ``x``; 127.5 times that is in grey levels.

        With the skip this is G(x, c) of Fig. 4, without it the difference between output and input.
        """
        config = self.config
        plain_sum = config.skip and config.tanh != "after-skip" and not config.gate
        return self.main(self._with_maps(x, c)) if plain_sum else self._uncut(x, c) - x

    def _with_maps(self, x: Tensor, c: Tensor) -> Tensor:
        """The image and a constant map for each label: (N, 3 + C, S, S)."""
        maps = c.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])  # (N, C, S, S)
        return torch.cat([x, maps], dim=1)

    def _uncut(self, x: Tensor, c: Tensor) -> Tensor:
        if self.gate is not None:
            features = self.main[:-2](self._with_maps(x, c))  # (N, 64, S, S); what follows is the last layer and tanh
            return self.main[-2:](features) + torch.sigmoid(self.gate(features)) * x
        h = self.main(self._with_maps(x, c))
        y = h + x if self.config.skip else h
        return torch.tanh(y) if self.config.tanh == "after-skip" else y


class Discriminator(nn.Module):
    """Strided convolutions, then one head for real or fake and one for the expression (section 3.2).

    ``forward`` returns the scores ``D_I`` (N, 1, s, s), unbounded, higher for more real, one per patch with
    s = S / 2**layers, and the logits ``D_c`` (N, C). With 7 labels at 128 it has 44,778,432 parameters.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * 2**i for i in range(config.layers)]  # 64, 128 ... 2048
        layers: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            layers += [HalvingConv(before, after), nn.LeakyReLU(LEAK, inplace=True)]
        self.main = nn.Sequential(*layers)  # (N, 2048, S/64, S/64)
        self.conv1 = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)  # D_I: (N, 1, S/64, S/64)
        side = config.image_size // 2**config.layers
        self.conv2 = nn.Conv2d(widths[-1], config.labels, side, bias=False)  # D_c: (N, C, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.main(x)
        return self.conv1(features), self.conv2(features).flatten(1)

    def score(self, x: Tensor) -> Tensor:
        """``D_I`` alone: (N, 1, s, s)."""
        return self.conv1(self.main(x))


def count_parameters(module: nn.Module) -> int:
    """Learnable parameters, the figure in the paper's Table 1."""
    return sum(p.numel() for p in module.parameters())


def _conv_block(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return conv, InstanceNorm(conv.out_channels), nn.ReLU(inplace=True)
