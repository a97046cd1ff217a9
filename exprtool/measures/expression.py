"""Does the picture show the expression that was asked for, in the eyes of a classifier.

An independent classifier is an ONNX file with a card in its metadata or beside it (see `CARD`). The discriminator's own
head D_c can be asked too, but it was trained to agree with the generator: its figure is marked as such and is no
evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.documents import parse_json, read_document
from exprtool.errors import DataError, ExprtoolError, ModelError
from exprtool.expressions import ALIASES, VARIANTS
from exprtool.pixels.ramps import LUMA
from exprtool.types import ExpressionClassifier

Classify = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""Crops (N, S, S, 3) uint8 RGB -> scores (N, C), higher is more likely."""

METADATA_KEY = "exprtool_classifier"
_BATCH = 32

CARD = """\
labels = ["neutral", "happy", "surprised"]  # what each output means, in order
size = 64                                   # side of its input in pixels
channels = "gray"                           # or "rgb", "bgr"
low = 0.0                                   # what black and white become ...
high = 255.0
mean = [0.0]                                # ... before (value - mean) / sd, per channel
sd = [1.0]
layout = "NCHW"                             # or "NHWC"
"""


@dataclass(frozen=True)
class Accuracy:
    """How many pictures were recognised as what they should show, in all and per expression {name: (right, total)}."""

    right: int
    total: int
    per_expression: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """In [0, 1]; NaN where nothing was asked."""
        return self.right / self.total if self.total else float("nan")

    def to_json(self) -> dict[str, Any]:
        return {
            "right": self.right,
            "total": self.total,
            "share": self.share if self.total else None,
            "per_expression": {name: list(pair) for name, pair in self.per_expression.items()},
        }


def expression_accuracy(
    classify: Classify, labels: Sequence[str], images: NDArray[np.uint8], wanted: Sequence[str]
) -> Accuracy:
    """How often `recognised` says yes, in all and per expression; arguments and errors are its."""
    answers = recognised(classify, labels, images, wanted)
    counts: dict[str, list[int]] = {name: [0, 0] for name in dict.fromkeys(wanted)}
    for right, name in zip(answers, wanted, strict=True):
        counts[name][0] += int(right)
        counts[name][1] += 1
    return Accuracy(
        sum(right for right, _ in counts.values()),
        sum(total for _, total in counts.values()),
        {name: (right, total) for name, (right, total) in counts.items()},
    )


def recognised(
    classify: Classify, labels: Sequence[str], images: NDArray[np.uint8], wanted: Sequence[str]
) -> NDArray[np.bool_]:
    """Ask ``classify`` about crops (N, S, S, 3): True (N) where its most likely label is the wanted one.

    ``labels`` are what its outputs mean, ``wanted`` (N) the expressions asked for. Raises `DataError` where a wanted
    expression is none of the labels: it could not be right.
    """
    places = {canonical_label(label): i for i, label in enumerate(labels)}
    if missing := sorted({name for name in wanted if canonical_label(name) not in places}):
        raise DataError(
            f"The classifier does not know {', '.join(missing)} (it knows {', '.join(labels)}), so it cannot tell "
            "whether pictures show it. Choose another classifier, or leave those expressions out with --expr."
        )
    right = np.array([places[canonical_label(name)] for name in wanted], dtype=np.int64)
    answers = [
        np.asarray(classify(np.ascontiguousarray(images[start : start + _BATCH]))).argmax(axis=1)
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate(answers) == right if answers else np.zeros(0, bool)


def canonical_label(label: str) -> str:
    """The one of the seven that is meant: classifiers call them by other names (happiness, fear), and a variant is what
    it varies. Unknown names stay as they are."""
    word = label.strip().lower()
    return ALIASES.get(word, VARIANTS.get(word, word))


@dataclass(frozen=True)
class ClassifierCard:
    """How an expression classifier wants its pictures: value v of [0, 255] becomes
    ``(low + (high - low) v / 255 - mean) / sd``."""

    labels: tuple[str, ...]
    size: int
    channels: str = "rgb"
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    sd: tuple[float, ...] = (1.0,)
    layout: str = "NCHW"

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ModelError("labels must name each output once")
        if self.channels not in ("rgb", "bgr", "gray"):
            raise ModelError(f"channels must be rgb, bgr or gray, not {self.channels!r}")
        if self.layout not in ("NCHW", "NHWC"):
            raise ModelError(f"layout must be NCHW or NHWC, not {self.layout!r}")
        if not 8 <= self.size <= 1024:
            raise ModelError(f"size must be from 8 to 1024 pixels, not {self.size}")
        depth = 1 if self.channels == "gray" else 3
        for name, values in (("mean", self.mean), ("sd", self.sd)):
            if len(values) not in (1, depth):
                raise ModelError(f"{name} must hold 1 or {depth} numbers, not {len(values)}")
        if min(self.sd) <= 0 or not self.low < self.high:
            raise ModelError("sd must be positive and low below high")

    def feed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (N, S, S, 3) uint8 RGB as the network's input."""
        import cv2

        resized = np.stack(
            [
                image
                if image.shape[:2] == (self.size, self.size)
                else cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)
                for image in images
            ]
        ).astype(np.float32)
        if self.channels == "gray":
            resized = resized @ LUMA[:, None]
        elif self.channels == "bgr":
            resized = resized[..., ::-1]
        values = self.low + (self.high - self.low) * resized / 255
        values = (values - np.array(self.mean, np.float32)) / np.array(self.sd, np.float32)
        return np.ascontiguousarray(values if self.layout == "NHWC" else values.transpose(0, 3, 1, 2), dtype=np.float32)


class OnnxClassifier(ExpressionClassifier):
    """An expression classifier in an ONNX file; call it with crops, get scores."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Raises `ModelError` for a file that is missing, damaged or has no usable card."""
        from exprtool.devices import onnx_session

        self.path = path
        self.session = onnx_session(path, device)
        self.card = _card_of(path, self.session.get_modelmeta().custom_metadata_map)
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(f"{path} takes {len(inputs)} inputs; a classifier takes one picture. Export it that way.")
        self._input = inputs[0]

    @property
    def labels(self) -> tuple[str, ...]:
        return self.card.labels

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.floating]:
        fed = self.card.feed(images)
        try:
            if self._input.shape and self._input.shape[0] == 1:  # a graph with a fixed batch of one
                rows = [
                    np.asarray(self.session.run(None, {self._input.name: fed[i : i + 1]})[0]) for i in range(len(fed))
                ]
                scores = np.concatenate([row.reshape(1, -1) for row in rows])
            else:
                scores = np.asarray(self.session.run(None, {self._input.name: fed})[0])
        except Exception as error:  # the runtime raises its own C++ exceptions
            raise ModelError(
                f"{self.path} cannot take pictures as its card says: {str(error).splitlines()[0]}. Mend the card."
            ) from error
        scores = scores.reshape(len(fed), -1)
        if scores.shape[1] != len(self.labels):
            raise ModelError(
                f"{self.path} gives {scores.shape[1]} scores, but its card names {len(self.labels)}. Mend the card."
            )
        return scores


def _card_of(path: Path, metadata: Mapping[str, str]) -> ClassifierCard:
    from exprtool.model_card import sidecar_of

    sidecar = sidecar_of(path)
    where = str(sidecar or path)
    example = f"A card is a file {path.with_suffix('.toml').name} beside the model:"
    card = ("", *CARD.splitlines())
    try:
        if METADATA_KEY in metadata:
            values = parse_json(metadata[METADATA_KEY])
        elif sidecar is not None:
            values = read_document(sidecar)
        else:
            raise ModelError(f"{path} does not say what its outputs mean. {example}", *card)
        values = dict(values)
        for name in ("labels", "mean", "sd"):
            if name in values:
                values[name] = tuple(values[name])
        return ClassifierCard(**values)
    except (OSError, ValueError, TypeError, ExprtoolError) as error:
        if isinstance(error, ModelError) and str(error).startswith(str(path)):
            raise
        raise ModelError(f"The classifier card in {where} cannot be used: {error}. {example}", *card) from error
