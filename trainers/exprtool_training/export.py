"""From what was trained on crops to one ONNX file that needs nothing else: compared with it first, then put in place.

The comparison runs on real crops where there are any: the file appears under its name only if what it answers agrees
with what the trainer's own code answers. Its graph takes ``image`` (N, 3, S, S) in [-1, 1] and ``label`` (N, C), and
gives ``output``, the picture in [-1, 1], and, where its card says so, ``residual``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import DataError, ModelError
from exprtool.extras import install_command
from exprtool.files import write_bytes
from exprtool.model_card import METADATA_KEY, CropCard
from exprtool.types import Exported, ExportWish

if TYPE_CHECKING:
    import onnx

    from exprtool_training.data import PreparedSet

TOLERANCE = 1e-4
"""Largest difference allowed to a float32 file, in units of [-1, 1]."""
HALF_LEVELS = 1
"""Largest difference allowed to a file with float16 weights, in grey levels of the 8-bit picture."""
INT8_MEAN_LEVELS = 4.0
"""Mean difference in grey levels from which an int8 file is refused as broken; below, it is measured and reported."""
OPSET, IR_VERSION = 17, 8
"""The oldest that hold all operators used here; every ONNX Runtime since 1.13 reads them."""

PRECISION = {"float32": "float32", "half": "float16", "int8": "int8"}
_BATCH = 8
_KEEP_EXACT = 2048
"""Tensors of fewer values stay in float32: they cost nothing."""

Picture = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""Crops (N, 3, S, S) in [-1, 1] and labels (N, C) -> pictures (N, 3, S, S) in [-1, 1]."""


@dataclass(frozen=True)
class Parity:
    """How a file's answers differ from the trainer's own over ``crops`` pictures, each with one label.

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
            f"compared with the original on {self.crops} {what}: largest difference {self.largest:.1e} of [-1, 1], "
            f"{self.levels} grey levels, mean {self.mean_levels:.3f}, PSNR {self.psnr:.1f} dB"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "psnr": self.psnr if np.isfinite(self.psnr) else None}


def check_target(out: Path, wish: ExportWish) -> None:
    """Raise `ModelError` unless the file may be written, `DataError` where int8 has nothing to be calibrated on."""
    if out.suffix.lower() != ".onnx":
        raise ModelError(f"{out} must end in .onnx.")
    if out.exists() and not wish.overwrite:
        raise ModelError(f"{out} exists. Give --overwrite to replace it, or another name with -o.")
    if wish.kind == "int8" and not wish.data:
        raise DataError("int8 needs real crops to calibrate with: name them with --data.")


def crops_for(wish: ExportWish, card: CropCard) -> PreparedSet | None:
    """The crops that the wish names, cut as the card wants them."""
    from exprtool_training.data import load_prepared

    if not wish.data:
        return None
    prepared = load_prepared(wish.data, card.size, template=card.template, progress=wish.progress)
    if prepared.size != card.size:
        raise DataError(f"The model works on crops of {card.size} pixels, but the data has {prepared.size}.")
    return prepared


def write(
    graph: onnx.ModelProto, card: CropCard, picture: Picture, out: Path, wish: ExportWish, data: PreparedSet | None
) -> Exported:
    """Put the card into the graph, compare with ``picture``, and write the file.

    Raises `ModelError` where the two do not agree; nothing is written then.
    """
    card = replace(card, precision=PRECISION[wish.kind], licence=wish.licence or card.licence)
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, card.to_json()
    content = graph.SerializeToString()
    images = check_images(card.size, wish.crops, data)
    parity = compare(content, picture, images, len(card.labels), real=data is not None)
    _judge(parity, wish.kind, out)
    write_bytes(out, content)
    return Exported(out, wish.kind, content, parity.text, {"parity": parity.to_json()}, asdict(card))


def compare(content: bytes, picture: Picture, images: NDArray[np.uint8], labels: int, *, real: bool) -> Parity:
    """Run both on the crops (N, S, S, 3) uint8, the labels taken in turn, and measure the difference."""
    from exprtool.devices import onnx_session

    session = onnx_session(content, "cpu")
    largest, squares, total, levels = 0.0, 0.0, 0.0, 0
    count = 0
    for x, c in batches(images, labels):
        ours, theirs = np.asarray(session.run(["output"], {"image": x, "label": c})[0]), picture(x, c)
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


def crop_model(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto], size: int, labels: int,
    outputs: Sequence[str] = ("output",),
) -> onnx.ModelProto:  # fmt: skip
    """A checked graph from ``image`` and ``label`` to pictures of ``size`` pixels."""
    import onnx
    from onnx import TensorProto, helper

    def value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    picture: list[int | str] = ["batch", 3, size, size]
    inputs = [value("image", picture), value("label", ["batch", labels])]
    graph = helper.make_graph(nodes, "crops", inputs, [value(name, picture) for name in outputs], constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="exprtool")
    onnx.checker.check_model(model, full_check=True)
    return model


def halve(graph: onnx.GraphProto) -> None:
    """Store large weights as float16 behind a cast, which ONNX Runtime folds away when it loads the file: arithmetic
    stays in float32, for which CPUs have their fast kernels."""
    from onnx import TensorProto, helper, numpy_helper

    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                halve(attribute.g)
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _KEEP_EXACT:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.widen", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def needing_packages() -> Iterator[None]:
    """Imports of what the base install does not have."""
    try:
        yield
    except ImportError as error:
        raise ModelError(f"Exporting needs the package {error.name}: {install_command('torch')}.") from error


def _levels(y: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint((np.clip(y, -1, 1) + 1) * 127.5).astype(np.int16)


def _judge(parity: Parity, kind: str, out: Path) -> None:
    problem = ""
    if kind == "float32" and not parity.largest <= TOLERANCE:
        problem = f"it differs by {parity.largest:.2g} where {TOLERANCE:g} is allowed"
    elif kind == "half" and not parity.levels <= HALF_LEVELS:
        problem = f"it differs by {parity.levels} grey levels where {HALF_LEVELS} is allowed; export without --half"
    elif kind == "int8" and not parity.mean_levels <= INT8_MEAN_LEVELS:
        problem = f"it differs by {parity.mean_levels:.1f} grey levels on average; export without --int8"
    if problem:
        raise ModelError(f"{out} was not written: the exported model does not agree with the original ({problem}).")
