"""The model card: what must be known about a set of weights to use it, stored inside the file. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exprtool.documents import parse_json
from exprtool.errors import ExprtoolError, ModelError
from exprtool.faces.align import CropTemplate
from exprtool.model_card import CropCard
from exprtool_usgan.config import DiscriminatorConfig, GeneratorConfig

FORMAT = "exprtool us-gan 1"
METADATA_KEY = "exprtool"


@dataclass(frozen=True)
class ModelCard:
    """What a generator's weights are, and how a face must be cut out and labelled for them.

    ``labels`` are the expressions in the order of the network's inputs. ``crop`` is the alignment that it was trained
    on; images enter as ``pixel / 127.5 - 1``. ``step`` counts discriminator steps. ``training_data`` is JSON-ready
    (name, number of images and people, hash of the manifest). ``discriminator`` is None where the file holds none.
    """

    generator: GeneratorConfig
    labels: tuple[str, ...]
    crop: CropTemplate
    step: int = 0
    licence: str = "as its training data allow; nothing was recorded"
    training_data: Mapping[str, Any] = field(default_factory=dict)
    source: str = "exprtool train"
    discriminator: DiscriminatorConfig | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != self.generator.labels or len(set(self.labels)) != len(self.labels):
            raise ModelError(
                f"The network takes {self.generator.labels} different labels, but the names are "
                f"{', '.join(self.labels) or 'none'}: name each label once."
            )

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False)


def crop_card(card: ModelCard, parameters: int | None = None) -> CropCard:
    """What any backend for aligned crops must know, in the common form; ``parameters`` are the generator's."""
    return CropCard(
        labels=card.labels,
        size=card.generator.image_size,
        template=card.crop,
        licence=card.licence,
        training_data=card.training_data,
        architecture=_architecture(card.generator),
        source=card.source,
        parameters=parameters,
        skip=card.generator.skip,
        residual_blocks=card.generator.residual_blocks,
        step=card.step,
    )


def _architecture(config: GeneratorConfig) -> str:
    """What the field calls such a network."""
    if config.attention:
        return "sargan" if config.skip else "sargan without skip"
    if config.gate:
        return "us-gan with a gated skip"
    if config.skip:
        return "us-gan"
    return "stargan" if config.residual_blocks == 6 else "us-gan without skip"


def card_from_json(text: str | None, path: Path) -> ModelCard:
    """Read a card back; ``path`` is named in the `ModelError` that is raised where it is none of ours."""
    if text is None:
        raise ModelError(
            f"{path} carries no exprtool model card, so nothing says how it is built or what its labels mean. "
            "Import foreign weights with: exprtool models import FILE"
        )
    try:
        data = parse_json(text)
        if data.pop("format") != FORMAT:
            raise ModelError("it was written by another version of exprtool")
        discriminator = data.pop("discriminator")
        return ModelCard(
            generator=GeneratorConfig(**data.pop("generator")),
            labels=tuple(str(name) for name in data.pop("labels")),
            crop=CropTemplate(**{name: _tupled(value) for name, value in data.pop("crop").items()}),
            discriminator=None if discriminator is None else DiscriminatorConfig(**discriminator),
            **data,
        )
    except (ValueError, KeyError, TypeError, AttributeError, ExprtoolError) as error:
        raise ModelError(
            f"The model card in {path} cannot be read ({error}). Export or train the model again."
        ) from None


def _tupled(value: Any) -> Any:
    """JSON knows no tuples; dataclasses that must hash hold nothing else."""
    return tuple(_tupled(part) for part in value) if isinstance(value, list) else value
