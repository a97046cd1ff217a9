"""A generator in an ONNX file: its card read, its inputs and outputs checked against it, its batches run.

The card stands in the file's metadata or, for a foreign file, in a TOML or JSON file beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exprtool.devices import onnx_session
from exprtool.errors import ModelError
from exprtool.model_card import METADATA_KEY, TEMPLATE, CropCard, card_from_json, read_sidecar, sidecar_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from exprtool.crop_backend import CropBackend
    from exprtool_default.backend import FlowBackend


class OnnxGenerator:
    """Runs the network: crops and one-hot labels in, residuals out, in the unit of the card.

    Call it with ``x`` (N, 3, S, S) float32 and ``c`` (N, C) float32; the answer is (N, 3, S, S) float32, what is added
    to ``x``, uncut where the file offers it uncut.
    """

    def __init__(self, path: Path, device: str = "cpu", session: InferenceSession | None = None) -> None:
        """Raises `ModelError` for a file that is missing, damaged, without a card, or unlike its card. ``session`` is
        the opened file, where the caller has opened it already."""
        self.path = path
        self.session = session or onnx_session(path, device)
        self.card = _card_of(path, dict(self.session.get_modelmeta().custom_metadata_map))
        self._one_by_one = False
        self._check()

    def __call__(self, x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._one_by_one and len(x) > 1:
            return np.concatenate([self(x[i : i + 1], c[i : i + 1]) for i in range(len(x))])
        card = self.card
        wanted = card.residual_output or card.output
        answer = self._run(wanted, x, c)
        return answer if card.residual_output or card.answer == "residual" else answer - x

    def output(self, x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        """The file's own picture (N, 3, S, S) in the card's unit, instead of the residual."""
        answer = self._run(self.card.output, x, c)
        return answer + x if self.card.answer == "residual" else answer

    def _run(self, name: str, x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            answer = np.asarray(self.session.run([name], {self.card.image_input: x, self.card.label_input: c})[0])
        except Exception as error:  # the runtime raises its own C++ exceptions
            raise ModelError(
                f"{self.path} does not take {x.shape[2]} px crops with {c.shape[1]} labels as its card says: "
                f"{_first_line(error)}. Mend the card."
            ) from error
        if answer.shape != x.shape:
            raise ModelError(
                f"{self.path}: output {name!r} has shape {answer.shape}, expected {x.shape}. Mend the card."
            )
        if not np.isfinite(answer).all():
            raise ModelError(f"{self.path} answers with values that are not finite numbers; the file is not usable.")
        return answer.astype(np.float32, copy=False)

    def _check(self) -> None:
        """Compare the file's inputs and outputs with the card, so that a wrong card is found before the first photo."""
        card, side = self.card, self.card.size
        inputs = {value.name: value for value in self.session.get_inputs()}
        outputs = {value.name: value for value in self.session.get_outputs()}
        for kind, name, there in (
            ("image_input", card.image_input, inputs),
            ("label_input", card.label_input, inputs),
            ("output", card.output, outputs),
            *((("residual_output", card.residual_output, outputs),) if card.residual_output else ()),
        ):
            if name not in there:
                what, names = kind.rpartition("_")[2], ", ".join(there)
                raise ModelError(f"{self.path} has no {what} {name!r}; it has {names}. Set {kind} in its card.")
        if extra := sorted(set(inputs) - {card.image_input, card.label_input}):
            raise ModelError(f"{self.path} also wants {', '.join(extra)}; exprtool gives an image and a label only.")
        self._expect(inputs[card.image_input], (None, 3, side, side))
        self._expect(inputs[card.label_input], (None, len(card.labels)))
        self._one_by_one = inputs[card.image_input].shape[0] == 1

    def _expect(self, value: Any, shape: tuple[int | None, ...]) -> None:
        if value.type != "tensor(float)":
            raise ModelError(
                f"{self.path}: {value.name!r} is {value.type}; expected tensor(float). Export it with float32 inputs."
            )
        found = value.shape
        fits = len(found) == len(shape) and all(
            want is None or not isinstance(have, int) or have == want for have, want in zip(found, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("N" if want is None else str(want) for want in shape)
            raise ModelError(
                f"{self.path}: {value.name!r} has shape {found}, but its card says ({wanted}). Mend the card."
            )


def open_model(path: Path, device: str = "cpu") -> CropBackend | FlowBackend:
    """The backend for one ONNX file, by the card that it carries; raises `ModelError`."""
    from exprtool.crop_backend import CropBackend
    from exprtool_default.backend import FlowBackend
    from exprtool_default.card import METADATA_KEY as FLOW_KEY
    from exprtool_default.network import FlowNetwork

    session = onnx_session(path, device)
    if FLOW_KEY in session.get_modelmeta().custom_metadata_map:
        return FlowBackend(FlowNetwork(session, str(path)))
    network = OnnxGenerator(path, device, session)
    return CropBackend(network.card, network)


def _card_of(path: Path, metadata: dict[str, str]) -> CropCard:
    """A card beside the file wins over the one inside: it is there because somebody wanted to say otherwise."""
    if sidecar := sidecar_of(path):
        return read_sidecar(sidecar)
    if METADATA_KEY in metadata:
        return card_from_json(metadata[METADATA_KEY], str(path))
    raise ModelError(
        f"{path} carries no model card, so nothing says what its labels mean and how it wants the face. Write a file "
        f"{path.with_suffix('.toml').name} beside it:",
        "",
        *TEMPLATE.splitlines(),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
