"""What the two networks are made of: plain data that is stored with their weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from exprtool.errors import UnknownNameError, UsageError

TanhPlace = Literal["before-skip", "after-skip", "none"]
ClampPlace = Literal["inference", "always"]


@dataclass(frozen=True)
class GeneratorConfig:
    """What a generator is made of; stored in its checkpoint, from which alone it is rebuilt.

    ``tanh`` says where the last activation meets the skip: ``before-skip`` is ``tanh(h) + x`` (the authors' code; the
    sum lies in [-2, 2]), ``after-skip`` is ``tanh(h + x)``, ``none`` is ``h + x``. ``clamp`` says where the sum is cut
    to [-1, 1]: only when pictures are made (``inference``; training sees the uncut sum, as in the authors' code) or
    ``always``. With ``attention`` a mask made by an hourglass weighs what each residual block adds (SARGAN). With
    ``gate`` the skip is weighed in each pixel, y = tanh(h) + g x: where g falls to 0 the network paints anew instead of
    having to cancel the input first. Raises `UsageError` for a combination that cannot be built.
    """

    labels: int
    image_size: int = 128
    channels: int = 64
    residual_blocks: int = 1
    skip: bool = True
    tanh: TanhPlace = "before-skip"
    clamp: ClampPlace = "inference"
    attention: bool = False
    gate: bool = False

    def __post_init__(self) -> None:
        _check_name("place of the tanh", self.tanh, get_args(TanhPlace))
        _check_name("place of the clamp", self.clamp, get_args(ClampPlace))
        _check_at_least("labels", self.labels, 2)
        _check_at_least("channels", self.channels, 1)
        _check_at_least("residual_blocks", self.residual_blocks, 0)
        _check_image_size(self.image_size)
        if not self.skip and self.tanh == "after-skip":
            raise UsageError("tanh 'after-skip' needs the skip; without one use 'before-skip' or 'none'.")
        if self.gate and not (self.skip and self.tanh == "before-skip"):
            raise UsageError("A gated skip is tanh(h) + g x: it needs the skip, and the tanh before it.")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What a discriminator is made of. Its ``layers`` halve the image each: 2**layers divides the size."""

    labels: int
    image_size: int = 128
    channels: int = 64
    layers: int = 6

    def __post_init__(self) -> None:
        _check_at_least("labels", self.labels, 2)
        _check_at_least("channels", self.channels, 1)
        _check_at_least("discriminator layers", self.layers, 1)
        _check_image_size(self.image_size)
        if self.image_size % 2**self.layers:
            raise UsageError(
                f"A discriminator of {self.layers} layers halves the image {self.layers} times, and "
                f"{self.image_size} is not a multiple of {2**self.layers}: use fewer layers or another image size."
            )


def _check_name(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known)


def _check_at_least(what: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{what} must be a whole number of at least {least}, not {value!r}.")


def _check_image_size(size: int) -> None:
    _check_at_least("image_size", size, 16)
    if size > 512 or size % 4:
        raise UsageError(f"image_size must be a multiple of 4 from 16 to 512, not {size}.")
