"""The network in its file: checked against its card, one half run at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import ModelError
from exprtool_default.card import FINE, LEVELS, METADATA_KEY, FlowCard, card_from_json

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = NDArray[np.float32]
_BATCH = 16


@dataclass(frozen=True, eq=False)
class Seen:
    """What the encoder saw in one face: feature maps (c, h, w) and last the landmarks (68, 2) in shares of the crop's
    side, and the weights (C,) that the face wears."""

    features: tuple[Floats, ...]
    worn: Floats


@dataclass(frozen=True, eq=False)
class Answer:
    """What the decoder says about one face and one condition, for a crop of S x S pixels; see `exprtool_default.card`.

    ``flow`` (S, S, 2) in crop pixels, ``shading`` (S/2, S/2, 3) logarithm, ``mask`` (2S, 2S) and ``paint`` (2S, 2S, 3)
    in [0, 1], the mask 0 outside the windows.
    """

    flow: Floats
    shading: Floats
    mask: Floats
    paint: Floats


class FlowNetwork:
    """Runs the two halves. Raises `ModelError` for a file that is unlike its card, or answers with no numbers."""

    def __init__(self, session: InferenceSession, where: str) -> None:
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        if METADATA_KEY not in metadata:
            raise ModelError(f"{where} is no flow network: it carries no card of one. Export it with exprtool export.")
        self.card: FlowCard = card_from_json(metadata[METADATA_KEY], where)
        self._session, self._where = session, where
        self._shapes = {value.name: tuple(value.shape[1:]) for value in session.get_inputs()}
        self._check([value.name for value in session.get_outputs()])

    def encode(self, crops: NDArray[np.uint8], landmarks: NDArray[Any] | None = None) -> list[Seen]:
        """Look at aligned crops (N, S, S, 3) RGB. ``landmarks`` (N, 68, 2) in shares of the side are gone by where they
        are given, and not NaN; the others the network finds itself."""
        seen: list[Seen] = []
        if landmarks is None:
            landmarks = np.full((len(crops), 68, 2), np.nan)
        names = [*(f"seen{i}" for i in range(LEVELS)), "worn"]
        for start in range(0, len(crops), _BATCH):
            part = crops[start : start + _BATCH].astype(np.float32) / np.float32(255)
            known = landmarks[start : start + _BATCH].astype(np.float32)
            *features, worn = self._run(
                names, {"image": np.ascontiguousarray(part.transpose(0, 3, 1, 2)), "landmarks": known}
            )
            seen += [Seen(tuple(each[i] for each in features), worn[i]) for i in range(len(part))]
        return seen

    def decode(self, seen: Sequence[Seen], conditions: Floats) -> list[Answer]:
        """One answer for each face and its condition (N, C)."""
        answers: list[Answer] = []
        names = ["flow", "shading", *self.card.windows]
        for start in range(0, len(seen), _BATCH):
            part = seen[start : start + _BATCH]
            given = {f"features{i}": np.stack([each.features[i] for each in part]) for i in range(LEVELS)}
            given |= {"condition": conditions[start : start + _BATCH], "known": np.stack([each.worn for each in part])}
            found = self._run(names, given)
            answers += [self._answer({n: v[i] for n, v in zip(names, found, strict=True)}) for i in range(len(part))]
        return answers

    def _answer(self, found: Mapping[str, Floats]) -> Answer:
        side = self.card.size * FINE
        mask, paint = np.zeros((side, side), np.float32), np.zeros((side, side, 3), np.float32)
        for name, box in self.card.windows.items():
            x0, y0, x1, y1 = (FINE * value for value in box)
            mask[y0:y1, x0:x1] = found[name][0]
            paint[y0:y1, x0:x1] = found[name][1:].transpose(1, 2, 0)
        return Answer(found["flow"].transpose(1, 2, 0), found["shading"].transpose(1, 2, 0), mask, paint)

    def _run(self, names: list[str], given: Mapping[str, Floats]) -> list[Floats]:
        # The half that is not asked for gets empty batches; it costs nothing then.
        empty = {name: np.zeros((0, *shape), np.float32) for name, shape in self._shapes.items() if name not in given}
        try:
            found = [np.asarray(each) for each in self._session.run(names, {**given, **empty})]
        except Exception as error:  # the runtime raises its own C++ exceptions
            raise ModelError(f"{self._where} does not run as its card says: {error}. Export it anew.") from error
        if not all(np.isfinite(each).all() for each in found):
            raise ModelError(f"{self._where} answers with values that are not finite numbers; it is not usable.")
        return found

    def _check(self, outputs: list[str]) -> None:
        card = self.card
        weights = (len(card.controls),)
        wanted = {
            "image": (3, card.size, card.size), "landmarks": (68, 2), "condition": weights, "known": weights
        }  # fmt: skip
        for name, shape in wanted.items():
            if self._shapes.get(name) != shape:
                raise ModelError(
                    f"{self._where}: input {name!r} has shape {self._shapes.get(name)} per face, but its card says "
                    f"{shape}. Export it anew."
                )
        names = [f"features{i}" for i in range(LEVELS)], [
            "worn", "flow", "shading", *card.windows, *(f"seen{i}" for i in range(LEVELS))
        ]  # fmt: skip
        missing = sorted({*names[0]} - self._shapes.keys()) + sorted({*names[1]} - {*outputs})
        if missing:
            raise ModelError(f"{self._where} lacks {', '.join(missing)}, which its card implies. Export it anew.")


def open_network(path: Path, device: str = "cpu") -> FlowNetwork:
    """The network in a file; raises `ModelError`."""
    from exprtool.devices import onnx_session

    return FlowNetwork(onnx_session(path, device), str(path))
