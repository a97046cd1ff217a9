"""From a training run to one ONNX file that needs nothing else: converted, compared with PyTorch, then put in place.

The comparison runs on real crops where there are any: the file appears under its name only if what it answers agrees
with what PyTorch answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import DataError, ModelError
from exprtool.files import write_bytes
from exprtool.model_card import METADATA_KEY, CropCard
from exprtool.types import Exported, ExportWish
from exprtool_training.data import PreparedSet

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession

    from exprtool_usgan.card import ModelCard
    from exprtool_usgan.networks import Generator

Kind = Literal["float32", "half", "int8"]

TOLERANCE = 1e-4
"""Largest difference allowed to a float32 file, in units of [-1, 1]."""
HALF_LEVELS = 1
"""Largest difference allowed to a file with float16 weights, in grey levels of the 8-bit picture."""
INT8_MEAN_LEVELS = 4.0
"""Mean difference in grey levels from which an int8 file is refused as broken; below, it is measured and reported."""

_BATCH = 8
_CALIBRATION = 32


@dataclass(frozen=True)
class Parity:
    """How a file's answers differ from PyTorch's over ``crops`` pictures, each with one label.

    ``largest`` is in units of [-1, 1], ``levels`` and ``mean_levels`` in grey levels of the clamped 8-bit pictures,
    ``psnr`` in decibels (infinite for equal ones). ``real`` tells whether the pictures were real crops.
    """

    crops: int
    largest: float
    levels: int
    mean_levels: float
    psnr: float
    real: bool

    @property
    def text(self) -> str:
        what = "real crops" if self.real else "drawn patterns (give --data to compare on real crops)"
        return (
            f"compared with PyTorch on {self.crops} {what}: largest difference {self.largest:.1e} of [-1, 1], "
            f"{self.levels} grey levels, mean {self.mean_levels:.3f}, PSNR {self.psnr:.1f} dB"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "psnr": self.psnr if np.isfinite(self.psnr) else None}


def export_run(run: Path, out: Path, wish: ExportWish) -> Exported:
    """What ``exprtool export`` does with a run of the trainer ``gan``."""
    from exprtool_training.data import load_prepared

    prepared = None
    if wish.data:
        card = read_model_card(run)
        prepared = load_prepared(
            wish.data, card.generator.image_size, template=card.crop, progress=wish.progress
        )  # fmt: skip
    return export(
        run, out, wish.kind, data=prepared, crops=wish.crops, weights=wish.weights, licence=wish.licence,  # type: ignore[arg-type]
        overwrite=wish.overwrite,
    )  # fmt: skip


def export(
    model: Path,
    out: Path,
    kind: Kind = "float32",
    *,
    data: PreparedSet | None = None,
    crops: int = 64,
    weights: Literal["auto", "ema", "raw"] = "auto",
    licence: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the generator of a run or checkpoint to ``out`` as ONNX, with its card inside.

    ``kind``: "float32"; "half" (weights stored as float16, half the size, same speed); "int8" (quantised per channel,
    calibrated on ``data``, which it needs). ``data`` are the crops for the comparison; without them drawn patterns are
    used, and `Parity.real` says so. Raises `ModelError` where the file does not agree with PyTorch; nothing is written
    then.
    """
    with _needing_torch():
        from exprtool_usgan.checkpoint import load_generator
    if out.suffix.lower() != ".onnx":
        raise ModelError(f"{out} must end in .onnx.")
    if out.exists() and not overwrite:
        raise ModelError(f"{out} exists. Give --overwrite to replace it, or another name with -o.")
    if kind == "int8" and data is None:
        raise DataError("int8 needs real crops to calibrate with: name them with --data.")
    generator, card = load_generator(model, weights=weights)
    side = card.generator.image_size
    if data is not None and data.size != side:
        raise DataError(f"The model works on crops of {side} pixels, but the data has {data.size}.")
    images = check_images(side, crops, data)
    graph = _graph(generator, kind, data)
    crop_card = card_for(card, generator, kind)
    if licence:
        crop_card = replace(crop_card, licence=licence)
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, crop_card.to_json()
    content = graph.SerializeToString()
    parity = compare(content, generator, images, real=data is not None)
    _judge(parity, kind, out)
    write_bytes(out, content)
    return Exported(out, kind, content, parity.text, {"parity": parity.to_json()}, asdict(crop_card))


def read_model_card(model: Path) -> ModelCard:
    """The card of a run or checkpoint, before anything is loaded; raises `ModelError`."""
    with _needing_torch():
        from exprtool_usgan.checkpoint import read_card
    return read_card(model)


def card_for(card: ModelCard, generator: Generator, kind: Kind = "float32") -> CropCard:
    """The card of the exported file."""
    from exprtool_usgan.networks import count_parameters

    return CropCard(
        labels=card.labels,
        size=card.generator.image_size,
        template=card.crop,
        licence=card.licence,
        training_data=dict(card.training_data),
        architecture="us-gan",
        source=card.source,
        parameters=count_parameters(generator),
        skip=card.generator.skip,
        residual_blocks=card.generator.residual_blocks,
        step=card.step,
        precision="int8" if kind == "int8" else "float16" if kind == "half" else "float32",
        residual_output="residual",
    )


def compare(content: bytes, generator: Generator, images: NDArray[np.uint8], *, real: bool) -> Parity:
    """Run both on the crops (N, S, S, 3) uint8, the labels taken in turn, and measure the difference."""
    from exprtool.devices import onnx_session

    session = onnx_session(content, "cpu")
    largest, squares, total, levels = 0.0, 0.0, 0.0, 0
    count = 0
    for x, c in batches(images, generator.config.labels):
        ours, theirs = _picture(session, x, c), _torch_picture(generator, x, c)
        largest = max(largest, float(np.abs(ours - theirs).max()))
        difference = np.abs(_levels(ours) - _levels(theirs))
        levels = max(levels, int(difference.max()))
        total += float(difference.sum())
        squares += float((difference.astype(np.float64) ** 2).sum())
        count += difference.size
    psnr = float("inf") if squares == 0 else float(10 * np.log10(255**2 * count / squares))
    return Parity(len(images), largest, levels, total / count, psnr, real)


def check_images(side: int, count: int, data: PreparedSet | None) -> NDArray[np.uint8]:
    """``count`` crops to compare on: held-out people first; without data, smooth patterns drawn from a fixed seed."""
    if data is not None:
        order = np.concatenate([data.test, data.train])
        return np.asarray(data.images[np.sort(order[:count])])
    rng = np.random.default_rng(0)
    coarse = rng.random((count, 8, 8, 3))
    smooth = coarse.repeat(-(-side // 8), axis=1).repeat(-(-side // 8), axis=2)[:, :side, :side]
    return (255 * smooth).astype(np.uint8)


def batches(images: NDArray[np.uint8], labels: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Crops as the network wants them, (n, 3, S, S) in [-1, 1], with one-hot labels (n, C) in turn."""
    for start in range(0, len(images), _BATCH):
        part = np.asarray(images[start : start + _BATCH])
        x = np.ascontiguousarray(part.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(127.5) - 1
        yield x, np.eye(labels, dtype=np.float32)[(np.arange(len(part)) + start) % labels]


def _picture(session: InferenceSession, x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(session.run(["output"], {"image": x, "label": c})[0])


def _torch_picture(generator: Generator, x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        return generator.edit(torch.from_numpy(x), torch.from_numpy(c)).numpy()


def _levels(y: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint((np.clip(y, -1, 1) + 1) * 127.5).astype(np.int16)


def _graph(generator: Generator, kind: Kind, data: PreparedSet | None) -> onnx.ModelProto:
    with _needing_torch():
        from exprtool_gan.onnx_graph import generator_graph
    state = {name: tensor.detach().float().cpu().numpy() for name, tensor in generator.state_dict().items()}
    graph = generator_graph(generator.config, state, half=kind == "half")
    if kind == "int8":
        assert data is not None
        return quantised(graph, data.images[np.sort(data.train[:_CALIBRATION])], generator.config.labels)
    return graph


def quantised(graph: onnx.ModelProto, images: NDArray[np.uint8], labels: int) -> onnx.ModelProto:
    """The graph with int8 convolutions: weights per channel, activations calibrated on crops (N, S, S, 3).

    The first and the last convolution, the norms and the skip stay in float32: they cost little, and they carry what
    the eye sees. Weights keep to 7 bits, because processors without VNNI add pairs of products in 16 bits, which
    overflow at 8: measured on one, that made the loss four times as large.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = iter([{"image": x, "label": c} for x, c in batches(np.asarray(images), labels)])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:  # type: ignore[override]
            return next(self.parts, None)

    with TemporaryDirectory() as folder, _unlogged():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=["first.image", "last"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(target)


@contextmanager
def _needing_torch() -> Iterator[None]:
    """Imports of what the base install does not have."""
    try:
        yield
    except ImportError as error:
        raise ModelError(f"Exporting needs the package {error.name}: pip install 'exprtool[torch]'.") from error


@contextmanager
def _unlogged() -> Iterator[None]:
    """The quantiser logs advice on preparing graphs that were not built for it; ours was."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _judge(parity: Parity, kind: Kind, out: Path) -> None:
    problem = ""
    if kind == "float32" and not parity.largest <= TOLERANCE:
        problem = f"it differs by {parity.largest:.2g} where {TOLERANCE:g} is allowed"
    elif kind == "half" and not parity.levels <= HALF_LEVELS:
        problem = f"it differs by {parity.levels} grey levels where {HALF_LEVELS} is allowed; export without --half"
    elif kind == "int8" and not parity.mean_levels <= INT8_MEAN_LEVELS:
        problem = f"it differs by {parity.mean_levels:.1f} grey levels on average; export without --int8"
    if problem:
        raise ModelError(f"{out} was not written: the exported model does not agree with PyTorch ({problem}).")
