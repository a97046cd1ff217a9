"""From a run to one ONNX file: both halves in one graph, converted, compared with PyTorch, then put in place.

ONNX knows no file with two entries. The graph therefore holds encoder and decoder side by side without a connection,
each as a branch that is only taken where its batch is not empty; whoever runs one gives the other empty batches (see
`exprtool_default.card`).
"""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from exprtool.errors import ModelError, UsageError
from exprtool.extras import install_command
from exprtool.files import write_bytes
from exprtool.types import Exported, ExportWish
from exprtool_default.card import LEVELS, METADATA_KEY, FlowCard
from exprtool_flow.networks import FlowNet
from exprtool_flow.state import load_average
from exprtool_training.export import OPSET, check_target, halve

if TYPE_CHECKING:
    import onnx

    from exprtool_default.backend import FlowBackend

TOLERANCE = {"float32": 1e-4, "float16": 0.02}
"""Largest difference from PyTorch, by the precision in which weights are stored: of pictures and masks in [0, 1], log
shading, weights, and flow in units of 10 crop pixels."""
_FACES = 6


def export_run(run: Path, out: Path, wish: ExportWish) -> Exported:
    """What ``exprtool export`` does with a run of the trainer ``flow``, whose running average is always exported."""
    if wish.kind == "int8" or wish.data or wish.weights == "raw":
        raise UsageError("A flow network is exported without --int8, --data and --weights: it needs none of them.")
    return export(run, out, half=wish.kind == "half", licence=wish.licence, overwrite=wish.overwrite)


def open_run(run: Path, device: str) -> FlowBackend:
    """The backend around the network of a run's folder or checkpoint."""
    from exprtool.devices import onnx_session
    from exprtool_default.backend import FlowBackend
    from exprtool_default.network import FlowNetwork

    net, card = load_average(run)
    return FlowBackend(FlowNetwork(onnx_session(_written(net, card), device), str(run)))


def export(run: Path, out: Path, *, half: bool = True, licence: str | None = None, overwrite: bool = False) -> Exported:
    """Write the network of a run's folder or checkpoint to ``out``, with its card inside.

    ``half`` stores weights as float16 (they are widened when the file is loaded: half the size, the same speed).
    Raises `ModelError` where the file does not agree with PyTorch; nothing is written then.
    """
    check_target(out, ExportWish(overwrite=overwrite))
    net, card = load_average(run)
    precision = "float16" if half else "float32"
    card = replace(card, precision=precision, licence=licence or card.licence)
    content = _written(net, card)
    difference = compare(content, net)
    if (largest := max(difference.values())) > TOLERANCE[precision]:
        raise ModelError(
            f"{out} was not written: the exported network differs from PyTorch by {largest:.2g} where "
            f"{TOLERANCE[precision]:g} is allowed ({difference})."
        )
    write_bytes(out, content)
    worst = max(difference, key=lambda name: difference[name])
    text = f"compared with PyTorch: largest difference {difference[worst]:.1e}, in {worst}"
    return Exported(out, precision, content, text, {"difference": difference}, json.loads(card.to_json()))


def _written(net: FlowNet, card: FlowCard) -> bytes:
    """The file's content, its weights as precise as the card says."""
    graph = _graph(net, card)
    if card.precision == "float16":
        halve(graph.graph)
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, card.to_json()
    return graph.SerializeToString()


class _Encoder(nn.Module):
    def __init__(self, net: FlowNet) -> None:
        super().__init__()
        self.encoder = net.encoder

    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, ...]:
        seen = self.encoder(image, landmarks)
        return *seen.features, seen.points, seen.worn


class _Decoder(nn.Module):
    def __init__(self, net: FlowNet) -> None:
        super().__init__()
        self.decoder = net.decoder

    def forward(self, condition: Tensor, known: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        *maps, points = features
        answer = self.decoder(condition, known, maps, points)
        painted = [torch.cat([window.mask, window.colour], dim=1) for window in answer.painted.values()]
        return answer.flow, answer.shading, *painted


def _graph(net: FlowNet, card: FlowCard) -> onnx.ModelProto:
    """The graph as the card describes it."""
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise ModelError(f"Exporting needs the package onnx: {install_command('torch')}.") from error
    image, condition = torch.zeros(2, 3, card.size, card.size), torch.zeros(2, len(card.controls))
    with torch.no_grad():
        seen = net.encoder(image)
        encoder, decoder = _Encoder(net).eval(), _Decoder(net).eval()
        looked = _traced(
            encoder, {"image": image, "landmarks": seen.points}, [*(f"seen{i}" for i in range(LEVELS)), "worn"], "faces"
        )
        features = {f"features{i}": each for i, each in enumerate([*seen.features, seen.points])}
        given = {"condition": condition, "known": seen.worn, **features}
        answered = _traced(decoder, given, ["flow", "shading", *net.decoder.boxes], "edits")
    halves = [_branch(looked, "encoder"), _branch(answered, "decoder")]
    graph = helper.make_graph(
        [node for nodes in halves for node in nodes],
        "flow",
        [*looked.graph.input, *answered.graph.input],
        [*looked.graph.output, *answered.graph.output],
    )
    joined = helper.make_model(graph, opset_imports=looked.opset_import, ir_version=looked.ir_version)
    onnx.checker.check_model(joined)
    return joined


def _traced(half: nn.Module, given: dict[str, Tensor], outputs: list[str], batch: str) -> onnx.ModelProto:
    """One half as a graph for any batch, whose outputs know their shapes."""
    import onnx

    buffer: Any = io.BytesIO()  # a file-like object will do, whatever the annotation there says
    with warnings.catch_warnings():  # the exporter that needs no further package warns that it is not the newest
        warnings.simplefilter("ignore")
        torch.onnx.export(
            half, tuple(given.values()), buffer, input_names=list(given), output_names=outputs,
            dynamic_axes={name: {0: batch} for name in (*given, *outputs)}, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    traced = onnx.load_from_string(buffer.getvalue())
    for value, answer in zip(traced.graph.output, half(*given.values()), strict=True):
        for axis, side in zip(value.type.tensor_type.shape.dim[1:], answer.shape[1:], strict=True):
            axis.dim_value = side
    return traced


def _branch(half: onnx.ModelProto, prefix: str) -> list[onnx.NodeProto]:
    """Nodes that answer as ``half`` does, or, where its first input is an empty batch, with empty batches at once."""
    from onnx import TensorProto, helper, numpy_helper
    from onnx.compose import add_prefix_graph

    graph = half.graph
    taken = add_prefix_graph(graph, f"{prefix}/", rename_inputs=False)
    taken.name = prefix
    del taken.input[:]  # a branch takes what it needs from the graph around it
    empty: list[onnx.NodeProto] = []
    none: list[onnx.ValueInfoProto] = []
    for value in graph.output:
        sides = [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]]
        name = f"{prefix}/empty/{value.name}"
        nothing = numpy_helper.from_array(np.zeros((0, *sides), np.float32))
        empty.append(helper.make_node("Constant", [], [name], value=nothing))
        none.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["none", *sides]))
    at = {part: f"{prefix}/asked/{part}" for part in ("zero", "none", "shape", "any", "whether")}
    constants = [
        helper.make_node("Constant", [], [at["zero"]], value=numpy_helper.from_array(np.array([0]))),
        helper.make_node("Constant", [], [at["none"]], value=numpy_helper.from_array(np.zeros(0, np.int64))),
    ]
    return [
        *constants,
        helper.make_node("Shape", [graph.input[0].name], [at["shape"]], end=1),
        helper.make_node("Greater", [at["shape"], at["zero"]], [at["any"]]),
        helper.make_node("Reshape", [at["any"], at["none"]], [at["whether"]]),
        helper.make_node(
            "If", [at["whether"]], [value.name for value in graph.output], name=prefix,
            then_branch=taken, else_branch=helper.make_graph(empty, f"no {prefix}", [], none),
        ),
    ]  # fmt: skip


def compare(content: bytes, net: FlowNet) -> dict[str, float]:
    """The largest difference of each answer between the file and PyTorch, on smooth patterns and drawn conditions."""
    from exprtool.devices import onnx_session
    from exprtool_default.network import FlowNetwork

    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.random((_FACES, 3, 8, 8), dtype=np.float32))
    crops = torch.nn.functional.interpolate(coarse, size=(net.config.size,) * 2, mode="bicubic").clamp(0, 1)
    pixels = crops.mul(255).round().to(torch.uint8)
    conditions = random.random((_FACES, net.config.controls), dtype=np.float32)
    with torch.no_grad():
        answer, looked = net(pixels.float() / 255, torch.from_numpy(conditions))
    network = FlowNetwork(onnx_session(content, "cpu"), "the exported network")
    seen = network.encode(np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy()))
    found = network.decode(seen, conditions)
    from exprtool_flow.compose import painted_over

    mask, painted = painted_over(answer)
    pairs: dict[str, tuple[Any, Tensor, float]] = {
        "worn": (np.stack([each.worn for each in seen]), looked.worn, 1.0),
        "points": (np.stack([each.features[-1] for each in seen]), looked.points, 1.0),
        "flow": (np.stack([each.flow for each in found]).transpose(0, 3, 1, 2), answer.flow, 10.0),
        "shading": (np.stack([each.shading for each in found]).transpose(0, 3, 1, 2), answer.shading, 1.0),
        "mask": (np.stack([each.mask for each in found])[:, None], mask, 1.0),
        "paint": (
            np.stack([each.mask[..., None] * each.paint for each in found]).transpose(0, 3, 1, 2), painted, 1.0
        ),
    }  # fmt: skip
    return {name: float(np.abs(ours - theirs.numpy()).max() / unit) for name, (ours, theirs, unit) in pairs.items()}
