"""From stored pairs to batches: brought to size, turned, mirrored, relit, and the network's own view spoiled a little.

What is done to a pair is a pure function of the random numbers it is given. Source and target always change alike; only
what the network looks at is also blurred, noisy or compressed, as photos are. Its answer is still judged on the clean
picture, which is what it will be applied to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exprtool.anatomy.names import CONTROLS, mirrored
from exprtool.faces.align import invert, transform
from exprtool.faces.landmarks import mirrored68
from exprtool.types import Image
from exprtool_default.backend import halved
from exprtool_default.card import FINE
from exprtool_flow.bending import Bend
from exprtool_flow.points import POINTS
from exprtool_flow.shards import StoredPair

MIRRORED = np.array([CONTROLS.index(mirrored(name)) for name in CONTROLS])
"""A mirrored face wears ``weights[MIRRORED]``."""


@dataclass(frozen=True)
class Variation:
    """How much is varied: probabilities in [0, 1], ``turn`` in degrees, ``zoom``, ``shift`` and ``bend`` as shares of
    the side (standard deviations), ``colour`` 1 for the usual range of light. The default varies nothing."""

    flip: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    bend: float = 0.0
    colour: float = 0.0
    spoil: float = 0.0
    same: float = 0.0
    tell: float = 0.0
    know: float = 0.0


@dataclass(frozen=True, eq=False)
class Sample:
    """One pair at the network's size S; pictures RGB uint8.

    ``seen`` (S, S, 3) is what the network looks at; ``photo``, ``target`` (2S, 2S, 3) and ``painted``, ``valid``
    (2S, 2S) uint8 0 to 255 are at twice its resolution; ``flow`` (S, S, 2) is backward, in pixels of the S x S crop.
    ``worn`` and ``wanted`` (C,) are weights. ``told`` (C,) is ``worn`` or NaN: whether the network is told it or has to
    go by its own reading. ``points`` and ``target_points`` (68, 2) are the landmarks of photo and target in shares of
    the crop's side; ``known`` (68, 2) is ``points`` or NaN: whether the network is given them or has to find them.
    """

    seen: Image
    photo: Image
    target: Image
    flow: NDArray[np.float32]
    painted: NDArray[np.uint8]
    valid: NDArray[np.uint8]
    worn: NDArray[np.float32]
    wanted: NDArray[np.float32]
    told: NDArray[np.float32]
    points: NDArray[np.float32]
    target_points: NDArray[np.float32]
    known: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples as tensors, channels first, pictures and maps in [0, 1]; names as in `Sample`."""

    seen: Tensor
    photo: Tensor
    target: Tensor
    flow: Tensor
    painted: Tensor
    valid: Tensor
    worn: Tensor
    wanted: Tensor
    told: Tensor
    points: Tensor
    target_points: Tensor
    known: Tensor


def vary(pair: StoredPair, size: int, variation: Variation, random: np.random.Generator) -> Sample:
    """One sample of a stored pair for a network that sees crops of ``size`` pixels.

    Only where the network is told what is worn are faces bent: what a fit would find in others is not known.
    """
    told = random.random() < variation.tell
    bend = Bend.drawn(size, variation.bend, random) if told and variation.bend else None
    sample = _to_size(pair, size, _similarity(size, variation, random), bend)
    if random.random() < variation.same:
        sample = _same(sample)
    if random.random() < variation.flip:
        sample = mirror(sample)
    photo, target = sample.photo, sample.target
    if variation.colour:
        change = _Colour.drawn(variation.colour, random)
        photo, target = change(photo), change(target)
    seen = halved(photo)
    if random.random() < variation.spoil:
        seen = _spoiled(seen, random)
    known = sample.points if random.random() < variation.know else sample.known
    return replace(
        sample, seen=seen, photo=photo, target=target, told=sample.worn if told else sample.told, known=known
    )


def mirror(sample: Sample) -> Sample:
    """The sample in a mirror: left controls become right ones, and motion to the right motion to the left."""

    def flip(values: NDArray) -> NDArray:
        return np.ascontiguousarray(values[:, ::-1])

    flow = flip(sample.flow) * np.array([-1, 1], np.float32)
    return Sample(
        flip(sample.seen), flip(sample.photo), flip(sample.target), flow, flip(sample.painted), flip(sample.valid),
        sample.worn[MIRRORED], sample.wanted[MIRRORED], sample.told[MIRRORED], mirrored68(sample.points),
        mirrored68(sample.target_points), mirrored68(sample.known),
    )  # fmt: skip


def collate(samples: list[Sample], device: torch.device | str = "cpu") -> Batch:
    """Samples as one batch on a device; bytes travel, floats are made there."""

    def pictures(name: str) -> Tensor:
        stacked = torch.from_numpy(np.stack([getattr(sample, name) for sample in samples])).to(device)
        stacked = stacked.permute(0, 3, 1, 2) if stacked.dim() == 4 else stacked[:, None]
        return stacked.float().div(255).contiguous()

    def numbers(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples])).to(device)

    return Batch(
        pictures("seen"), pictures("photo"), pictures("target"), numbers("flow").permute(0, 3, 1, 2).contiguous(),
        pictures("painted"), pictures("valid"), numbers("worn"), numbers("wanted"), numbers("told"),
        numbers("points"), numbers("target_points"), numbers("known"),
    )  # fmt: skip


def _similarity(size: int, variation: Variation, random: np.random.Generator) -> NDArray[np.float64]:
    """Turn, zoom and shift (2, 3) of the crop about its middle."""
    angle = np.radians(random.normal(0, variation.turn)) if variation.turn else 0.0
    zoom = np.exp(random.normal(0, variation.zoom)) if variation.zoom else 1.0
    linear = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = random.normal(0, variation.shift, 2) * size if variation.shift else np.zeros(2)
    centre = np.full(2, (size - 1) / 2)
    return np.c_[linear, centre - linear @ centre + shift]


def _to_size(pair: StoredPair, size: int, similarity: NDArray[np.float64], bend: Bend | None) -> Sample:
    """The pair through a similarity of the crop of ``size``, then bent; pictures twice as large."""
    fine = FINE * size
    stored = pair.source.shape[0]
    source, target, painted = (np.asarray(each) for each in (pair.source, pair.target, pair.painted))
    if stored > fine:  # averaged first, so that nothing aliases; what is finer can never be shown
        source, target, painted = (
            np.asarray(cv2.resize(each, (fine, fine), interpolation=cv2.INTER_AREA))
            for each in (source, target, painted)
        )
    there = _scaled(similarity, source.shape[0], size, fine)
    flow_there = _scaled(similarity, stored, size, size)
    looked = {side: _looked(bend, matrix, side) for side, matrix in ((size, flow_there), (fine, there))} if bend else {}

    def moved(values: NDArray, matrix: NDArray[np.float64], side: int, flags: int, border: int) -> Any:
        if bend is None:
            return cv2.warpAffine(values, matrix, (side, side), flags=flags, borderMode=border)
        at = looked[side]
        return cv2.remap(values, at[..., 0], at[..., 1], flags, borderMode=border)

    def placed(points: NDArray[np.float32]) -> NDArray[np.float32]:
        there = transform(flow_there, points.astype(np.float64))
        return (((bend.points(there) if bend else there) + 0.5) / size).astype(np.float32)

    photo = moved(source, there, fine, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    wanted = moved(target, there, fine, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    flow = np.asarray(pair.flow, np.float32)
    flow = moved(flow, flow_there, size, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE) @ flow_there[:, :2].T.astype(
        np.float32
    )
    return Sample(
        seen=halved(photo),
        photo=photo,
        target=wanted,
        flow=bend.flow(flow) if bend else flow,
        painted=moved(painted, there, fine, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT),
        valid=moved(np.full(painted.shape, 255, np.uint8), there, fine, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT),
        worn=np.array(pair.source_weights, np.float32),
        wanted=np.array(pair.target_weights, np.float32),
        told=np.full(len(CONTROLS), np.nan, np.float32),
        points=placed(np.asarray(pair.source_points)),
        target_points=placed(np.asarray(pair.target_points)),
        known=np.full((POINTS, 2), np.nan, np.float32),
    )


def _looked(bend: Bend, matrix: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Where to look in a stored picture for each pixel of its bent crop, (side, side, 2)."""
    places = bend.places(side).reshape(-1, 2).astype(np.float64)
    return transform(invert(matrix), places).reshape(side, side, 2).astype(np.float32)


def _scaled(similarity: NDArray[np.float64], stored: int, size: int, side: int) -> NDArray[np.float64]:
    """The similarity of a crop of ``size``, as the map from stored pixels to those of a crop of ``side``.

    Pixel (0, 0)'s outer corner stays the picture's corner whatever the size: p' = (p + 1/2) s - 1/2.
    """
    linear, shift = similarity[:, :2], similarity[:, 2]
    half = np.full(2, 0.5)
    into, out = size / stored, side / size
    # stored -> crop: a = into; crop -> side: b = out
    constant = linear @ (into * half - half) + shift
    return np.c_[linear * (into * out), out * (constant + half) - half]


def _same(sample: Sample) -> Sample:
    """Wanted is what is worn already: nothing moves."""
    nothing = np.zeros_like(sample.painted)
    return replace(
        sample, target=sample.photo, flow=np.zeros_like(sample.flow), painted=nothing, wanted=sample.worn,
        target_points=sample.points,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Colour:
    """A change of light and colour: saturation as a matrix, then a table for each channel."""

    matrix: NDArray[np.float64]
    table: NDArray[np.uint8]

    @classmethod
    def drawn(cls, amount: float, random: np.random.Generator) -> _Colour:
        grey = random.random() < 0.06 * amount
        saturation = 0.0 if grey else float(np.clip(random.normal(1, 0.2 * amount), 0, 1.6))
        matrix = np.full((3, 3), (1 - saturation) / 3) + np.eye(3) * saturation
        exposure, gamma = np.exp(random.normal(0, 0.18 * amount)), np.exp(random.normal(0, 0.16 * amount))
        tint = np.exp(random.normal(0, 0.06 * amount, 3))
        levels = np.arange(256)[:, None] / 255
        table = np.clip(np.clip(levels * tint, 0, 1) ** gamma * exposure, 0, 1)
        return cls(matrix, (table * 255 + 0.5).astype(np.uint8)[None])

    def __call__(self, image: Image) -> Image:
        return np.asarray(cv2.LUT(cv2.transform(image, self.matrix), self.table), np.uint8)


def _spoiled(image: Image, random: np.random.Generator) -> Image:
    """As a worse camera would have it: softer, compressed, noisy, each as likely as not."""
    worse: Any = image
    if random.random() < 0.5:
        worse = cv2.GaussianBlur(worse, (0, 0), random.uniform(0.3, 1.3))
    if random.random() < 0.5:
        quality = int(random.integers(25, 90))
        worse = cv2.imdecode(cv2.imencode(".jpg", worse, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    if random.random() < 0.5:
        noise = random.standard_normal(worse.shape, dtype=np.float32) * random.uniform(1, 7)
        worse = np.clip(worse + noise, 0, 255).astype(np.uint8)
    return worse
