"""The card of a flow network: all that must be known to run it on somebody's photo. Stands in the ONNX file's metadata.

The file holds two networks that share nothing but tensors, so that one look at a face serves many expressions:

* the encoder: ``image`` (N, 3, S, S) RGB in [0, 1] and ``landmarks`` (N, 68, 2) in shares of the crop's side, NaN for
  faces of which nobody knows them -> ``seen0`` ... ``seen5``, of which the last are the landmarks to go by, those given
  or those that the network finds; and ``worn`` (N, C), the weights of the controls that the face wears, as far as the
  network can tell;
* the decoder: ``condition`` (M, C), the wanted weights, and ``known`` (M, C), the worn ones, with ``features0`` ...
  ``features5`` (M, ...), what the encoder saw -> ``flow`` (M, 2, S, S), backward, in crop pixels; ``shading``
  (M, 3, S/2, S/2), logarithm of a factor; and for each window of the card (M, 4, 2h, 2w): how much is painted over,
  and with which RGB, all in [0, 1].

Whoever runs one half feeds the other with empty batches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from exprtool.documents import parse_json
from exprtool.errors import ModelError
from exprtool.faces.align import CropTemplate

FORMAT = "exprtool-flow-model/4"
METADATA_KEY = "exprtool_flow_card"
FINE = 2
"""Paint has so many pixels for each of the crop's, along either side."""
LEVELS = 6
"""How many arrays the encoder hands to the decoder: five feature maps, and the landmarks."""

_MM_BETWEEN_EYES = 63.0
"""Of grown-ups, on average."""
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Amount:
    """What a preset does to one control; ``onset`` is the share of the way at which it sets in, in [0, 1)."""

    amount: float
    onset: float = 0.0


@dataclass(frozen=True)
class FlowCard:
    """What a flow network is and how it wants to be fed.

    ``controls`` are the entries of the condition in order, ``presets`` the named expressions over them, and
    ``windows`` where something can be painted: boxes (x0, y0, x1, y1) in crop pixels. ``training_data`` is JSON-ready.
    """

    size: int
    template: CropTemplate
    controls: tuple[str, ...]
    presets: Mapping[str, Mapping[str, Amount]]
    windows: Mapping[str, Box]
    licence: str = "unknown"
    training_data: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    step: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 64:
            raise ModelError(f"size must be a multiple of 64 pixels, not {self.size}.")
        if not self.controls or len(set(self.controls)) != len(self.controls):
            raise ModelError("controls must name each entry of the condition once.")
        for name, preset in self.presets.items():
            if strange := sorted(set(preset) - set(self.controls)):
                raise ModelError(f"the preset {name} sets controls that the network does not have: {strange}.")
        for name, (x0, y0, x1, y1) in self.windows.items():
            if not (0 <= x0 < x1 <= self.size and 0 <= y0 < y1 <= self.size):
                raise ModelError(f"the window {name} does not lie in the crop: {(x0, y0, x1, y1)}.")

    def box(self, window: str, side: int) -> Box:
        """The window in the pixels of a crop of ``side``, a multiple of ``size``."""
        x0, y0, x1, y1 = (side // self.size * value for value in self.windows[window])
        return x0, y0, x1, y1

    def pixels_per_mm(self, side: int) -> float:
        """How large a grown-up's face is in a crop of ``side`` pixels."""
        return pixels_per_mm(self.template, side)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False)


def pixels_per_mm(template: CropTemplate, side: int) -> float:
    """How large a grown-up's face is in a crop of ``side`` pixels by this template."""
    return side * (template.left_eye[0] - template.right_eye[0]) / _MM_BETWEEN_EYES


def card_from_json(text: str, where: str) -> FlowCard:
    """Read what `FlowCard.to_json` wrote; ``where`` is named in the `ModelError` that is raised for anything else."""
    try:
        values = dict(parse_json(text))
        if values.pop("format", None) != FORMAT:
            raise ModelError(f"expected the format {FORMAT!r}.")
        if strange := sorted(set(values) - {entry.name for entry in fields(FlowCard)}):
            raise ModelError(f"unknown entries: {', '.join(strange)}.")
        values["template"] = CropTemplate(**{name: tuple(point) for name, point in values["template"].items()})
        values["controls"] = tuple(values["controls"])
        values["presets"] = {
            name: {control: Amount(**amount) for control, amount in preset.items()}
            for name, preset in values["presets"].items()
        }
        values["windows"] = {name: tuple(box) for name, box in values["windows"].items()}
        return FlowCard(**values)
    except (ModelError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The model card in {where} cannot be read: {error} Export the model anew.") from error
