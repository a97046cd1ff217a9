"""The flow network: an encoder that looks at a face, and a decoder that answers for one wanted expression of it.

The encoder never sees the condition, so one look serves many expressions. It finds the 68 landmarks (expectations over
heat maps: Sun et al., "Integral Human Pose Regression", ECCV 2018) and reads from them which expression is worn
(`exprtool_flow.reading`). The decoder is the rising half of a U-Net (Ronneberger et al., MICCAI 2015) whose every layer
is steered by the condition and the landmarks (FiLM: Perez et al., AAAI 2018). What is known of faces in general, how
they move (`exprtool_flow.motion`) and where a condition acts, is kept in the frame of the mean face and laid over each
face by its landmarks. The general motion comes first: what the encoder saw is moved by it, so that the decoder works
where things will be, and has only to say what this face does differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exprtool_default.card import FINE, Box
from exprtool_flow.fields import double, inverted, sample
from exprtool_flow.motion import CELLS, SHAPES, Motion, bilinear
from exprtool_flow.points import POINTS, displacement_weights, expected, grid, mean_points

_GRID = 64
_WINDOWS = {"mouth": (18, 30, 46, 58), "right_eye": (12, 14, 30, 28), "left_eye": (34, 14, 52, 28)}
"""In 64ths of the crop's side: what opens and closes, in every pose and size that the training set has. Even, so that
a window can be cut from maps of half the size."""
_SHADOW = (0.85, 1.08, 1.18)
"""How much more red, green and blue lose in skin's shadows, to start from; the network learns its own."""
_FLOW_UNIT = 1 / 64
"""Of the side: a head that answers 1 differs so far from the general motion."""
_MOTION_UNIT = 1 / 128
"""Of the side: what the general motion's numbers are in."""
_DARKEST = 1.2
_PLACES, _PLACE_CELLS = 12, 16
"""How many learned maps say where a condition acts, and their cells along either side of the mean face's frame."""
_AWAY = 40.0
"""Factor on the landmarks' displacements from their means, shares of the side, where they are read as numbers."""
_READING, _READING_LAYERS = 320, 3
"""Units of each of the reader's hidden layers, and how many there are."""
_TRACE = 0.015
"""Worn weights up to this are taken for none."""
_LOUD, _HEED = 4.0, 0.08
"""Factor on the condition, whose entries are few and small, and standard deviation of the first weights that let it
steer: with a soft voice and deaf ears the network spends its first thousand steps on the mean expression."""


@dataclass(frozen=True)
class NetConfig:
    """The architecture. ``widths`` are the channels at S, S/2 ... S/16; ``detail`` those of the finest decoder maps."""

    controls: int
    size: int = 128
    widths: tuple[int, ...] = (16, 24, 48, 88, 128)
    embedding: int = 128
    detail: int = 16


def windows(size: int) -> dict[str, Box]:
    """Where something can be painted, boxes (x0, y0, x1, y1) in the pixels of a crop of ``size``, a multiple of 64."""
    scale = size // _GRID
    return {name: (x0 * scale, y0 * scale, x1 * scale, y1 * scale) for name, (x0, y0, x1, y1) in _WINDOWS.items()}


@dataclass(frozen=True, eq=False)
class Painted:
    """What is painted in one window (h, w) at twice the crop's resolution: ``logit`` (N, 1, 2h, 2w) of the mask,
    ``fade`` (2h, 2w), which keeps the mask off the window's edges, and ``colour`` (N, 3, 2h, 2w) in [0, 1]."""

    box: Box
    logit: Tensor
    fade: Tensor
    colour: Tensor

    @property
    def mask(self) -> Tensor:
        return torch.sigmoid(self.logit) * self.fade


@dataclass(frozen=True, eq=False)
class Answer:
    """``flow`` (N, 2, S, S) backward, in crop pixels; ``shading`` (N, 3, S/2, S/2), logarithm of a factor; windows."""

    flow: Tensor
    shading: Tensor
    painted: Mapping[str, Painted]


class _Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class _Steered(nn.Module):
    """Convolution whose channels the condition scales and shifts."""

    def __init__(self, inputs: int, outputs: int, embedding: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.film = nn.Linear(embedding, 2 * outputs)
        nn.init.normal_(self.film.weight, std=_HEED)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        outputs = self.conv.out_channels
        scale, shift = self.film(e).reshape(-1, 2 * outputs, 1, 1).split(outputs, dim=1)
        return F.relu(self.norm(self.conv(x)) * (1 + scale) + shift)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the encoder tells: ``features`` at S ... S/16; ``points`` (N, 68, 2), the landmarks to go by in shares of
    the side; ``worn`` (N, C), the weights of the controls that the face wears; and ``found`` (N, 68, 2), the landmarks
    as the encoder itself finds them, whether it knew better ones or not."""

    features: Sequence[Tensor]
    points: Tensor
    worn: Tensor
    found: Tensor


class Reader(nn.Module):
    """Landmarks (N, 68, 2) in shares of the side -> what is worn (N, C).

    From landmarks alone: reading from pixels as well, a network read the people that it was trained on twice as well as
    others, for portraits are few. Landmarks can be had for any number of faces, so the reader is made before the
    network is trained, and stays as it is.
    """

    mean: Tensor

    def __init__(self, controls: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean_points(), persistent=False)
        sides = (2 * POINTS, *[_READING] * _READING_LAYERS)
        hidden = [layer for pair in pairwise(sides) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(_READING, controls))

    def forward(self, points: Tensor) -> Tensor:
        return self.layers(_AWAY * (points - self.mean).flatten(1))


class Encoder(nn.Module):
    """Crops (N, 3, S, S) RGB in [0, 1] -> `Seen`.

    ``known`` (N, 68, 2) are landmarks that somebody has found already, NaN where nobody has: who detects a face mostly
    has them, and they are finer than what can be found in so small a picture.
    """

    place: Tensor
    centres: Tensor
    expected: Tensor
    mean: Tensor

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        w = config.widths
        self.register_buffer("place", 2 * grid(config.size) - 1, persistent=False)
        self.levels = nn.ModuleList(
            [
                _Conv(5, w[0]),
                _Conv(w[0], w[1], 2),
                nn.Sequential(_Conv(w[1], w[2], 2), _Conv(w[2], w[2])),
                nn.Sequential(_Conv(w[2], w[3], 2), _Conv(w[3], w[3])),
                nn.Sequential(_Conv(w[3], w[4], 2), _Conv(w[4], w[4])),
            ]
        )
        cells, found = config.size // 4, max(8, w[3] * 3 // 4 // 8 * 8)
        self.context = nn.Conv2d(w[4], found, 1)
        self.heat = nn.Sequential(_Conv(found + w[3], found), nn.Conv2d(found, 4 * POINTS, 1))
        self.register_buffer("centres", grid(cells)[0].flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("expected", expected(cells), persistent=False)
        self.reader = Reader(config.controls)

    def forward(self, image: Tensor, known: Tensor | None = None) -> Seen:
        x = torch.cat([image - 0.5, self.place.expand(image.shape[0], -1, -1, -1)], dim=1)
        features: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        found = self._points(x, features[3])
        points = found if known is None else torch.where(known.isnan(), found, known)
        # What is read must not move the landmarks, which are true or false by themselves. A fit finds nothing or
        # something, and nothing negative; a reader answers with traces.
        worn = self.reader(points.detach())
        return Seen(features, points, worn * (worn > _TRACE), found)

    def _points(self, coarse: Tensor, finer: Tensor) -> Tensor:
        """Each landmark's expected place (N, 68, 2), from features at S/16 and S/8, over heat maps at S/4."""
        maps = self.heat(torch.cat([double(self.context(coarse)), finer], dim=1))
        # As matrices: ONNX Runtime must also get through this without a single face, and sums no empty stacks.
        heat = (F.pixel_shuffle(maps, 2) + self.expected).reshape(-1, len(self.centres)).softmax(-1)
        return (heat @ self.centres).reshape(-1, POINTS, 2)


class Decoder(nn.Module):
    """Wanted weights (N, C), worn ones (N, C), the encoder's feature maps and the landmarks (N, 68, 2) -> `Answer`.

    A face moves in proportion to the difference of the weights, so the difference is all that the decoder is told;
    what it starts from it sees. What a face wears is the encoder's to read.
    """

    mean: Tensor
    grid1: Tensor
    grid4: Tensor

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        w, d, detail = config.widths, config.embedding, config.detail
        self.config, self.boxes = config, windows(config.size)
        # Not ReLU: units that die here in the first steps would leave the network deaf to what is wanted.
        told = config.controls + 2 * POINTS
        self.embed = nn.Sequential(nn.Linear(told, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU())
        self.places = nn.Linear(d, _PLACES * _PLACE_CELLS**2)
        self.motion = nn.Linear(config.controls * (1 + SHAPES), 2 * CELLS**2, bias=False)
        nn.init.normal_(self.motion.weight, std=0.003)
        self.shape = nn.Parameter(torch.zeros(SHAPES, 2 * POINTS))
        cells = config.size // 4
        self.register_buffer("mean", mean_points(), persistent=False)
        # To start from, either coordinate by itself; where the forehead or the jaw's corner lies follows from landmarks
        # in ways that are learned.
        either = torch.kron(torch.eye(2), displacement_weights(cells))  # (x and y of cells, x and y of landmarks)
        self.displacement = nn.Parameter(either.reshape(-1, 2, POINTS).mT.flatten(1))
        for part in (1, 2, 4, 8):
            self.register_buffer(f"grid{part}", grid(config.size // part), persistent=False)
        self.bottom = nn.ModuleList([_Steered(w[4], w[4], d), _Steered(w[4], w[4], d)])
        self.narrow = nn.ModuleList([_Steered(w[i + 1], w[i], d, 1) for i in (3, 2, 1)])
        self.merge = nn.ModuleList([_Steered(2 * w[i] + _PLACES + 4, w[i], d) for i in (3, 2, 1)])
        self.refine = nn.ModuleList([_Steered(w[i], w[i], d) for i in (2, 1)])
        self.flow = nn.Conv2d(w[1], 2 * 4, 3, 1, 1)
        self.lit = _Steered(w[1], detail, d)
        self.shading = nn.Conv2d(detail, 1, 3, 1, 1)
        self.shadow = nn.Parameter(torch.tensor(_SHADOW)[None, :, None, None])
        self.fine = _Steered(w[1], detail, d, 1)
        self.first = nn.ModuleDict({name: _Steered(detail + w[0] + 4, 24, d) for name in self.boxes})
        self.second = nn.ModuleDict({name: _Steered(24, 24, d) for name in self.boxes})
        self.paint = nn.ModuleDict({name: nn.Conv2d(24, 4 * FINE**2, 3, 1, 1) for name in self.boxes})
        for name, (x0, y0, x1, y1) in self.boxes.items():
            self.register_buffer(f"fade_{name}", _fade(FINE * (y1 - y0), FINE * (x1 - x0)), persistent=False)
        for head in (self.flow, self.shading, *self.paint.values()):
            assert isinstance(head, nn.Conv2d) and head.bias is not None
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        for head in self.paint.values():  # most of the time nothing is painted
            assert isinstance(head, nn.Conv2d) and head.bias is not None
            nn.init.constant_(head.bias[: FINE**2], -3.0)

    @torch.no_grad()
    def begin_with(self, motion: Motion) -> None:
        """Take over how faces move in general."""
        count = len(motion.shape)
        self.shape.zero_()
        self.shape[:count] = motion.shape.to(self.shape.device)
        weight = self.motion.weight.reshape(2, CELLS, CELLS, -1, 1 + SHAPES)
        weight[..., 1 + count :] = 0
        weight[..., : 1 + count] = motion.basis.permute(2, 3, 4, 0, 1).to(weight.device) / _MOTION_UNIT

    def forward(self, condition: Tensor, worn: Tensor, features: Sequence[Tensor], points: Tensor) -> Answer:
        away = points - self.mean
        difference = condition - worn
        e = self.embed(torch.cat([_LOUD * difference, _AWAY * away.flatten(1)], dim=1))
        frame = self._frame(away)
        back = self._general(difference, away, frame)
        places = self.places(e).reshape(-1, _PLACES, _PLACE_CELLS, _PLACE_CELLS)
        here = sample(frame, self.grid4 + back)  # what part of the mean face comes to lie here
        known = torch.cat([sample(places, here), 4 * here - 2, back / _FLOW_UNIT], dim=1)
        h = features[4]
        for layer in self.bottom:
            h = layer(h, e)
        h = h + features[4]
        for place, (narrow, merge) in enumerate(zip(self.narrow, self.merge, strict=True)):
            level = 3 - place
            factor = 4 / (1 << level)
            moved = sample(features[level], self.get_buffer(f"grid{1 << level}") + _resized(back, factor))
            h = merge(torch.cat([double(narrow(h, e)), moved, _resized(known, factor)], dim=1), e)
            if place > 0:
                h = self.refine[place - 1](h, e)
        # h is at S/2. Flow goes from there to S by pixel shuffle (Shi et al., CVPR 2016), which costs a third of
        # convolutions at S; light is soft and stays. Only the windows, being small, are worked on at S itself.
        general = _resized(back, 4)
        flow = (F.pixel_shuffle(self.flow(h), 2) * _FLOW_UNIT + general) * self.config.size
        shading = _DARKEST * torch.tanh(self.shading(self.lit(h, e)) * self.shadow)
        # What the photo showed here, and how far that moved: teeth stay with the head when lips move.
        lies = double(torch.cat([4 * frame - 2, back / _FLOW_UNIT], dim=1))
        half, at = torch.cat([self.fine(h, e), lies], dim=1), self.grid1 + general
        painted = {name: self._window(name, box, half, features[0], at, e) for name, box in self.boxes.items()}
        return Answer(flow, shading, painted)

    def _frame(self, away: Tensor) -> Tensor:
        """Which point of the mean face lies at each centre of a grid over this one, (N, 2, S/4, S/4) in shares of the
        side, by the landmarks' displacements (N, 68, 2)."""
        moved = F.linear(away.flatten(1), self.displacement).reshape(-1, *self.grid4.shape[1:])
        return self.grid4 - sample(moved, self.grid4 - moved)

    def _general(self, difference: Tensor, away: Tensor, frame: Tensor) -> Tensor:
        """The backward flow (N, 2, S/4, S/4), in shares of the side, as far as it follows from the difference of the
        weights (N, C) and the landmarks alone."""
        code = F.linear(away.flatten(1), self.shape).clamp(-3, 3)
        motion = self.motion(bilinear(difference, code)).reshape(-1, 2, CELLS, CELLS) * _MOTION_UNIT
        return inverted(sample(motion, frame))

    def _window(self, name: str, box: Box, half: Tensor, whole: Tensor, at: Tensor, e: Tensor) -> Painted:
        """``half`` are maps at S/2, ``whole`` the encoder's at S, ``at`` (N, 2, S, S) where to look in these."""
        x0, y0, x1, y1 = box
        h = double(half[:, :, y0 // 2 : y1 // 2, x0 // 2 : x1 // 2])
        h = torch.cat([h, sample(whole, at[:, :, y0:y1, x0:x1])], dim=1)
        h = self.second[name](self.first[name](h, e), e)
        logit, colour = F.pixel_shuffle(self.paint[name](h), FINE).split([1, 3], dim=1)
        return Painted(box, logit, self.get_buffer(f"fade_{name}"), torch.sigmoid(colour))


class FlowNet(nn.Module):
    """Both halves: crops (N, 3, S, S) and wanted weights (N, C) -> the answer, and what was seen.

    ``told`` (N, C) is what is truly worn, for the decoder to go by instead, and ``known`` (N, 68, 2) are landmarks to
    go by; rows of NaN are neither told nor known.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def forward(
        self, image: Tensor, condition: Tensor, told: Tensor | None = None, known: Tensor | None = None
    ) -> tuple[Answer, Seen]:
        seen = self.encoder(image, known)
        worn = seen.worn if told is None else torch.where(torch.isnan(told), seen.worn, told)
        return self.decoder(condition, worn, seen.features, seen.points.detach()), seen


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _resized(field: Tensor, factor: float) -> Tensor:
    """By a factor and not to a size: the exported graph would have to compute that anew for every face."""
    if factor == 1:
        return field
    return F.interpolate(field, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _fade(height: int, width: int) -> Tensor:
    """1 inside, falling to 0 over the outermost pixels, so that no window's edge can ever show."""
    reach = 4.0
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    vertical = torch.minimum(y, height - y).div(reach).clamp(max=1)
    horizontal = torch.minimum(x, width - x).div(reach).clamp(max=1)
    return vertical[:, None] * horizontal[None]
