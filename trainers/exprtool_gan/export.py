"""US-GAN's generator as one ONNX file, in float32, with float16 weights, or quantised to int8."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exprtool.types import Exported, ExportWish
from exprtool_training.export import Picture, batches, check_target, crops_for, needing_packages, write

if TYPE_CHECKING:
    import onnx

    from exprtool_usgan.networks import Generator

_CALIBRATION = 32


def export(run: Path, out: Path, wish: ExportWish) -> Exported:
    """Write the generator of a run or checkpoint to ``out`` as ONNX, with its card inside.

    ``wish.kind``: "float32"; "half" (weights stored as float16, half the size, same speed); "int8" (quantised per
    channel, calibrated on ``wish.data``, which it needs). Raises `ModelError` where the file does not agree with
    PyTorch; nothing is written then.
    """
    with needing_packages():
        from exprtool_gan.onnx_graph import generator_graph
        from exprtool_usgan.card import crop_card
        from exprtool_usgan.checkpoint import load_generator
        from exprtool_usgan.networks import count_parameters
    check_target(out, wish)
    generator, usgan = load_generator(run, weights=wish.weights)  # type: ignore[arg-type]
    card = replace(crop_card(usgan, count_parameters(generator)), residual_output="residual")
    data = crops_for(wish, card)
    state = {name: tensor.detach().float().cpu().numpy() for name, tensor in generator.state_dict().items()}
    graph = generator_graph(generator.config, state, half=wish.kind == "half")
    if wish.kind == "int8" and data is not None:
        graph = quantised(graph, data.images[np.sort(data.train[:_CALIBRATION])], len(card.labels))
    return write(graph, card, picture_of(generator), out, wish, data)


def picture_of(generator: Generator) -> Picture:
    """What the generator answers, for the comparison."""
    import torch

    @torch.no_grad()
    def picture(x: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
        return generator.edit(torch.from_numpy(x), torch.from_numpy(c)).numpy()

    return picture


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
def _unlogged() -> Iterator[None]:
    """The quantiser logs advice on preparing graphs that were not built for it; ours was."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
