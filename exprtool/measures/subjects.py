"""What is measured: a network on aligned crops, as in the paper, or any backend on whole photos."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool import plugins
from exprtool.crop_backend import CropBackend
from exprtool.errors import ExprtoolError, UnknownNameError
from exprtool.faces.align import crop
from exprtool.measures.pictures import Pictures
from exprtool.model_card import CropCard
from exprtool.types import Edit, FaceRegion, Image


class Subject(ABC):
    """Something that gives faces an expression, in the form that measuring wants.

    ``labels`` are the expressions that it can be asked for. ``parameters`` and ``training_images`` are None where
    unknown or meaningless; ``protocol`` says in words what was done to get the outputs.
    """

    name: str
    labels: tuple[str, ...]
    parameters: int | None = None
    training_images: int | None = None
    protocol: str
    card: CropCard | None = None
    group: int = 16  # pictures that are worked on together
    reference: bool = False  # something to read models against, no model

    def forget(self) -> None:  # noqa: B027 (most keep nothing)
        """Called after each group: let go of what was kept for its pictures."""

    @abstractmethod
    def outputs(self, pictures: Pictures, label: str) -> list[Image | None]:
        """The crops (S, S, 3) uint8 after the edit, one per picture; None where the face was left alone."""

    def landmarks(self, pictures: Pictures, label: str) -> NDArray[np.floating] | None:
        """Where the faces lie in the outputs, (N, 68, 2) in crop pixels; None: where they lay before."""
        return None

    def residuals(self, pictures: Pictures, label: str) -> NDArray[np.float32] | None:
        """What a network adds to the crops, (N, S, S, 3) in grey levels; None for anything that is not one."""
        return None


class Untouched(Subject):
    """The inputs as they are: what a measure says of an edit that does nothing.

    ACD is 0 here and no model can beat that; expression accuracy is how often the judge sees the expression on a face
    that does not wear it.
    """

    name, protocol, reference = "untouched", "the inputs as they are", True

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

    def outputs(self, pictures: Pictures, label: str) -> list[Image | None]:
        return list(np.asarray(pictures.images))


class RealPhotos(Subject):
    """Real photos of the same people with the wanted expression, where the data holds one: what a perfect edit is like.

    Their distance from the input is that of two photos of one person; a model that comes nearer kept more than the
    expression would have left.
    """

    name, protocol, reference = "real photos", "other photos of the same people", True

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

    def outputs(self, pictures: Pictures, label: str) -> list[Image | None]:
        pool = pictures.pool
        return [
            None if place is None or pool is None else np.asarray(pool.images[place])
            for place in self._places(pictures, label)
        ]

    def landmarks(self, pictures: Pictures, label: str) -> NDArray[np.floating] | None:
        pool = pictures.pool
        if pool is None or pool.landmarks is None:
            return None
        places = self._places(pictures, label)
        return np.stack([np.full((68, 2), np.nan) if i is None else np.asarray(pool.landmarks[i]) for i in places])

    @staticmethod
    def _places(pictures: Pictures, label: str) -> list[int | None]:
        """For each picture the first photo in the pool of the same person with this expression."""
        pool = pictures.pool
        if pool is None or not pool.people or not pictures.people:
            return [None] * len(pictures)
        first: dict[str, int] = {}
        for i, (person, expression) in enumerate(zip(pool.people, pool.expressions, strict=True)):
            if expression == label:
                first.setdefault(person, i)
        return [first.get(person) for person in pictures.people]


class CropSubject(Subject):
    """A network, fed with the crops directly; its outputs are 8-bit pictures cut to their range."""

    def __init__(self, name: str, backend: CropBackend) -> None:
        self.name, self.backend, self.card = name, backend, backend.card
        self.labels = backend.card.labels
        self.parameters = backend.card.parameters
        self.training_images = backend.card.training_images
        self.protocol = f"network on {backend.card.size} px crops"

    def outputs(self, pictures: Pictures, label: str) -> list[Image | None]:
        residuals = self.residuals(pictures, label)
        changed = np.clip(np.rint(pictures.images + residuals), 0, 255).astype(np.uint8)
        return list(changed)

    def residuals(self, pictures: Pictures, label: str) -> NDArray[np.float32]:
        return self.backend.residuals(pictures.images, {label: 1.0}, pictures.expressions)


@dataclass
class PhotoSubject(Subject):
    """A backend on whole photos: edited at the photo's own resolution, then cut out as the input was.

    What a backend prepares is kept for the group that is being measured, so that seven expressions cost one fit; the
    groups are small, because a large photo is large.
    """

    name: str
    session: Any
    labels: tuple[str, ...]
    protocol: str = "photos, measured on crops"
    group: int = 4
    _prepared: dict[str, Any] = field(default_factory=dict, repr=False)

    def outputs(self, pictures: Pictures, label: str) -> list[Image | None]:
        return [self._output(pictures, i, label) for i in range(len(pictures))]

    def _output(self, pictures: Pictures, i: int, label: str) -> Image | None:
        from exprtool.faces.select import region_of
        from exprtool.pixels import composite

        image, face, matrix = pictures.photo(i)
        name = pictures.names[i]
        if name not in self._prepared:
            self._prepared[name] = self.session.prepare([region_of(image, face)])[0]
        prepared = self._prepared[name]
        result = self.session.generate([prepared], Edit({label: 1.0}))[0]
        if not result.edited or result.patch is None:
            return None
        region: FaceRegion = prepared.thing
        edited, _ = composite.paste(image, [region], [result.patch])
        return crop(edited, matrix, pictures.size)

    def forget(self) -> None:
        self._prepared.clear()


def open_subject(wish: str, device: str = "auto", *, name: str | None = None) -> Subject:
    """What ``--model`` names: a training run's folder, a model file, or a backend (with an argument after a colon).

    Raises `UnknownNameError` where it is none of these, and what opening it raises.
    """
    from exprtool.pipeline import Session

    backend = backend_of(wish)
    session = Session(backend, device=device)
    loaded = next(iter(session.chain)).backend
    if isinstance(loaded, CropBackend):
        return CropSubject(name or short_name(wish), loaded)
    spec = session.chain.specs[0]
    return PhotoSubject(name or short_name(wish), session, spec.expressions)


def backend_of(wish: str) -> str:
    """The backend that opens a path, as ``name:path``; a backend's name stays as it is."""
    registry = plugins.registry()
    path = Path(wish).expanduser()
    if wish.partition(":")[0] in registry.backends and not path.exists():
        return wish
    for spec in registry.backends.values():
        if path.exists() and spec.opens is not None and spec.opens(path):
            return f"{spec.name}:{path}"
    if path.exists():
        known = ", ".join(spec.name for spec in registry.backends.values() if spec.opens is not None)
        raise ExprtoolError(
            f"{wish}: no backend takes this for a model of its own (asked: {known}). Give a training run's folder, an "
            ".onnx or a .safetensors file."
        )
    raise UnknownNameError("model or backend", wish, sorted(registry.backends))


def short_name(wish: str) -> str:
    """What a person would call it: the backend, the run's folder, or the file without its suffix."""
    name, colon, argument = wish.partition(":")
    path = Path(argument if colon and argument else wish)
    if path.suffix:
        return f"{path.parent.parent.name}" if path.parent.name == "checkpoints" else path.stem
    return path.name if (colon or path.exists()) and path.name else name
