"""The card of a network that works on aligned face crops: all that must be known to run it on somebody's photo.

Which input means which expression, where the eyes must lie in the crop, how pixels become numbers, who may use it and
what it was trained on. An exported ONNX file carries its card in its metadata; for a foreign file the card is written
by hand beside it, as TOML or JSON (see `TEMPLATE`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from exprtool.documents import parse_json, read_document
from exprtool.errors import ModelError
from exprtool.faces.align import US_GAN_TEMPLATE, CropTemplate

FORMAT = "exprtool-crop-model/1"
METADATA_KEY = "exprtool_card"
SIDECARS = (".toml", ".json")

Answer = Literal["image", "residual"]
Channels = Literal["rgb", "bgr"]
Precision = Literal["float32", "float16", "int8"]

TEMPLATE = """\
labels = ["angry", "happy"]      # what each entry of the label input means, in order
size = 128                       # side of the crop in pixels
licence = "who may use it"

# all below may be left out
image_input = "image"            # (N, 3, size, size) float32
label_input = "label"            # (N, number of labels) float32, one-hot
output = "output"                # (N, 3, size, size) float32
answer = "image"                 # or "residual": what is to be added to the input
low = -1.0                       # what black and white become
high = 1.0
channels = "rgb"                 # or "bgr"
[template]                       # where eyes and mouth lie, as fractions of the side
right_eye = [0.28, 0.35]         # the eye on the left in the picture
left_eye = [0.73, 0.35]
mouth = [0.5, 0.73]
"""


@dataclass(frozen=True)
class CropCard:
    """What a network on crops is and how it wants to be fed.

    A pixel value v of [0, 255] enters as ``low + (high - low) * v / 255``, channels in the order ``channels``. The
    output named ``output`` is in the same unit and is an image, or, where ``answer`` is "residual", what the network
    adds to its input. ``residual_output`` names a second output that holds the residual where there is one ("" if
    not). ``parameters`` counts the learnable ones; None where unknown. ``training_data`` is JSON-ready.
    """

    labels: tuple[str, ...]
    size: int = 128
    template: CropTemplate = US_GAN_TEMPLATE
    licence: str = "unknown"
    training_data: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = ""
    source: str = ""
    parameters: int | None = None
    skip: bool | None = None
    residual_blocks: int | None = None
    step: int | None = None
    precision: Precision = "float32"
    image_input: str = "image"
    label_input: str = "label"
    output: str = "output"
    residual_output: str = ""
    answer: Answer = "image"
    low: float = -1.0
    high: float = 1.0
    channels: Channels = "rgb"

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise ModelError(f"labels must name each entry of the label input once, not {list(self.labels)}.")
        if not 16 <= self.size <= 2048:
            raise ModelError(f"size must be from 16 to 2048 pixels, not {self.size}.")
        if not self.low < self.high:
            raise ModelError(f"low must be below high, not {self.low:g} and {self.high:g}.")
        for name, value, known in (
            ("answer", self.answer, get_args(Answer)),
            ("channels", self.channels, get_args(Channels)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if value not in known:
                raise ModelError(f"{name} must be one of {', '.join(known)}, not {value!r}.")

    @property
    def training_images(self) -> int | None:
        """How many pictures it was trained on, where that was recorded."""
        count = self.training_data.get("images")
        return count if isinstance(count, int) else None

    def index(self, label: str) -> int:
        """The label's place in the label input; raises `UnknownNameError`."""
        from exprtool.errors import UnknownNameError

        if label not in self.labels:
            raise UnknownNameError("expression of this model", label, self.labels)
        return self.labels.index(label)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, sort_keys=True)


def card_from_mapping(values: Mapping[str, Any], where: str) -> CropCard:
    """Read a card; ``where`` is named in the `ModelError` that is raised for anything unknown, missing or mistyped."""
    values = dict(values)
    found = values.pop("format", FORMAT)
    if found != FORMAT:
        raise ModelError(f"The model card in {where} has format {found!r}, expected {FORMAT!r}. Export the model anew.")
    known = {entry.name for entry in fields(CropCard)}
    if strange := sorted(set(values) - known):
        raise ModelError(
            f"The model card in {where} has unknown entries: {', '.join(strange)}. Known: {', '.join(sorted(known))}."
        )
    if missing := sorted({"labels", "size"} - set(values)):
        raise ModelError(
            f"The model card in {where} lacks {', '.join(missing)}. A card looks like this:", "", *TEMPLATE.splitlines()
        )
    try:
        if isinstance(values["labels"], str):
            raise ModelError("labels must be a list of names.")
        values["labels"] = tuple(str(label) for label in values["labels"])
        values["size"] = _whole(values["size"], "size")
        if "template" in values:
            values["template"] = _template(values["template"])
        for name in ("low", "high"):
            if name in values:
                values[name] = float(values[name])
        for name in ("parameters", "residual_blocks", "step"):
            if values.get(name) is not None:
                values[name] = _whole(values[name], name)
        for name in ("image_input", "label_input", "output", "residual_output", "licence", "architecture", "source"):
            if name in values and not isinstance(values[name], str):
                raise ModelError(f"{name} must be text.")
        if not isinstance(values.get("training_data", {}), Mapping):
            raise ModelError("training_data must be a table.")
        return CropCard(**values)
    except (ModelError, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"The model card in {where} cannot be used: {error} A card looks like this:", "", *TEMPLATE.splitlines()
        ) from error


def card_from_json(text: str, where: str) -> CropCard:
    """Read what `CropCard.to_json` wrote; raises `ModelError`."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ModelError(f"The model card in {where} is not JSON: {error}. Export the model anew.") from error
    if not isinstance(values, dict):
        raise ModelError(f"The model card in {where} is no table of entries. Export the model anew.")
    return card_from_mapping(values, where)


def sidecar_of(model: Path) -> Path | None:
    """The hand-written card beside a model: ``model.toml`` or ``model.json``, also with the model's suffix kept."""
    for suffix in SIDECARS:
        for candidate in (model.with_suffix(suffix), model.with_name(model.name + suffix)):
            if candidate.is_file():
                return candidate
    return None


def read_sidecar(path: Path) -> CropCard:
    """Read a hand-written card; raises `ModelError`."""
    try:
        values = read_document(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The model card {path} cannot be read: {error}. A card looks like this:", "", *TEMPLATE.splitlines()
        ) from error
    if not isinstance(values, dict):
        raise ModelError(
            f"The model card {path} is no table of entries. A card looks like this:", "", *TEMPLATE.splitlines()
        )
    return card_from_mapping(values, str(path))


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"{name} must be a whole number, not {value!r}.")
    return value


def _template(value: Any) -> CropTemplate:
    if not isinstance(value, Mapping) or set(value) != {"right_eye", "left_eye", "mouth"}:
        raise ModelError("template must give right_eye, left_eye and mouth.")
    points = {}
    for name, point in value.items():
        x, y = (float(part) for part in point)
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ModelError(f"template: {name} must be two fractions of the side from 0 to 1, not {point}.")
        points[name] = (x, y)
    return CropTemplate(**points)
