"""The generator as an ONNX graph, written operator by operator for speed on ONNX Runtime.

Every operator computes exactly what the PyTorch module does, but three are put differently, because ONNX Runtime's
kernels are slow at them on CPUs:

* The label maps are constant but for the zero padding at the border, so their share of the first convolution takes only
  7 x 7 different values per label and channel. These are precomputed, and the convolution itself sees the image alone.
* A transposed 4x4 convolution of stride 2 is four 2x2 convolutions, one for each parity of the output's row and
  column. They are stacked along the rows, so that the instance norm over the stack is that over the whole map.
* The last 7x7 convolution to three channels works on the four parities as 4 x 64 channels and makes four pixels of
  three channels at once: a 5x5 convolution to 12 channels, which fills the vector units that three leave empty.

Inputs: ``image`` (N, 3, S, S) float32 in [-1, 1], ``label`` (N, C) float32. Outputs: ``output`` (N, 3, S, S), the
picture in [-1, 1], and ``residual`` (N, 3, S, S), what was added, uncut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exprtool_training.export import crop_model, halve
from exprtool_usgan.config import GeneratorConfig

_EPSILON = 1e-5  # of torch.nn.InstanceNorm2d

Array = NDArray[np.float32]


class _Graph:
    """Collects nodes and constants; each method adds one operator and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def weight(self, name: str, values: Array) -> str:
        values = np.ascontiguousarray(values, dtype=np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def conv(
        self, x: str, name: str, weight: Array, pads: list[int], stride: int = 1, bias: Array | None = None
    ) -> str:
        kernel = list(weight.shape[2:])
        inputs = [x, self.weight(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.weight(f"{name}.bias", bias))
        return self.add("Conv", inputs, name, kernel_shape=kernel, pads=pads, strides=[stride, stride])

    def norm(self, x: str, name: str, state: Mapping[str, Array], key: str, relu: bool = True) -> str:
        scale, shift = (
            self.weight(f"{name}.scale", state[f"{key}.weight"]),
            self.weight(f"{name}.shift", state[f"{key}.bias"]),
        )
        y = self.add("InstanceNormalization", [x, scale, shift], name, epsilon=_EPSILON)
        return self.add("Relu", [y], f"{name}.relu") if relu else y


def generator_graph(config: GeneratorConfig, state: Mapping[str, Array], *, half: bool = False) -> onnx.ModelProto:
    """The graph of a generator with these weights (the names of `Generator.state_dict`), checked by ONNX.

    ``half`` stores the weights as float16.
    """
    side, f = config.image_size, config.channels
    graph = _Graph()
    h = _first_layer(graph, state["main.0.weight"], config)
    h = graph.norm(h, "norm0", state, "main.1")  # (N, f, S, S)
    for i in (3, 6):
        h = graph.conv(h, f"down{i}", state[f"main.{i}.weight"], [1, 1, 1, 1], stride=2)
        h = graph.norm(h, f"norm{i}", state, f"main.{i + 1}")  # (N, 4f, S/4, S/4) in the end
    for block in range(config.residual_blocks):
        key = f"main.{9 + block}.main"
        y = graph.conv(h, f"block{block}a", state[f"{key}.0.weight"], [1, 1, 1, 1])
        y = graph.norm(y, f"block{block}.norma", state, f"{key}.1")
        y = graph.conv(y, f"block{block}b", state[f"{key}.3.weight"], [1, 1, 1, 1])
        y = graph.norm(y, f"block{block}.normb", state, f"{key}.4", relu=False)
        if config.attention:
            mask = _hourglass(graph, y, f"block{block}.mask", state, f"main.{9 + block}.mask")
            y = graph.add("Mul", [y, mask], f"block{block}.weighed")
        h = graph.add("Add", [h, y], f"block{block}.sum")
    first = 9 + config.residual_blocks
    h = _up(graph, h, "up0", state, first)  # (N, 2f, 4 * S/4, S/4)
    graph.integers("shape.up0", [0, 8 * f, side // 4, side // 4])
    h = graph.add("Reshape", [h, "shape.up0"], "up0.packed")  # channel c, parity p at 4c + p
    h = graph.add("DepthToSpace", [h], "up0.map", blocksize=2, mode="CRD")  # (N, 2f, S/2, S/2)
    h = _up(graph, h, "up1", state, first + 3)  # (N, f, 4 * S/2, S/2)
    graph.integers("shape.up1", [0, 4 * f, side // 2, side // 2])
    h = graph.add("Reshape", [h, "shape.up1"], "up1.packed")  # (N, 4f, S/2, S/2)
    if config.gate:
        bias = np.repeat(state["gate.bias"], 4)
        g = graph.conv(h, "gate.packed", _packed_last(state["gate.weight"]), [2, 2, 2, 2], bias=bias)
        graph.add("Sigmoid", [graph.add("DepthToSpace", [g], "gate.map", blocksize=2, mode="CRD")], "gate")
    h = graph.conv(h, "last", _packed_last(state[f"main.{first + 6}.weight"]), [2, 2, 2, 2])  # (N, 12, S/2, S/2)
    h = graph.add("DepthToSpace", [h], "last.map", blocksize=2, mode="CRD")  # (N, 3, S, S)
    _outputs(graph, h, config)
    model = crop_model(graph.nodes, graph.constants, side, config.labels, ("output", "residual"))
    if half:
        halve(model.graph)
    return model


def _first_layer(graph: _Graph, weight: Array, config: GeneratorConfig) -> str:
    side, f = config.image_size, config.channels
    image = graph.conv("image", "first.image", weight[:, :3], [3, 3, 3, 3])
    # What a label map of ones gives where the kernel's first rows and columns, or its last ones, hang over the border.
    reach = [slice(max(0, 3 - i), 7 - max(0, i - 3)) for i in range(7)]
    table = np.stack([[weight[:, 3:, rows, cols].sum(axis=(2, 3)) for cols in reach] for rows in reach])  # (7, 7, f, C)
    maps = table.transpose(3, 2, 0, 1).reshape(config.labels, f * 49)
    # Row i of the image stands in class 0, 1, 2 at its top, 4, 5, 6 at its bottom, and 3 between.
    classes = [min(i, 3) if i < side // 2 else 6 - min(side - 1 - i, 3) for i in range(side)]
    graph.integers("border", classes)
    graph.integers("shape.label", [-1, f, 7, 7])
    y = graph.add("MatMul", ["label", graph.weight("first.label.weight", maps)], "first.label.flat")
    y = graph.add("Reshape", [y, "shape.label"], "first.label.classes")
    y = graph.add("Gather", [y, "border"], "first.label.rows", axis=2)
    y = graph.add("Gather", [y, "border"], "first.label", axis=3)  # (N, f, S, S)
    return graph.add("Add", [image, y], "first")


def _up(graph: _Graph, x: str, name: str, state: Mapping[str, Array], i: int) -> str:
    """Transposed convolution, norm and ReLU; the four parities of the output lie one below the other."""
    weight = state[f"main.{i}.weight"]  # (in, out, 4, 4)
    parts = []
    for a in (0, 1):
        for b in (0, 1):
            # Output row 2m + a is reached from input row m + a - 1 by kernel row 3 - a and from m + a by 1 - a.
            kernel = weight[:, :, [3 - a, 1 - a]][:, :, :, [3 - b, 1 - b]].transpose(1, 0, 2, 3)
            parts.append(graph.conv(x, f"{name}.{a}{b}", kernel, [1 - a, 1 - b, a, b]))
    h = graph.add("Concat", parts, name, axis=2)
    return graph.norm(h, f"{name}.norm", state, f"main.{i + 1}")


def _hourglass(graph: _Graph, x: str, name: str, state: Mapping[str, Array], key: str) -> str:
    """SARGAN's mask of a map; see `exprtool_usgan.networks.Hourglass`."""
    pads = graph.integers(f"{name}.pads", [0, 0, 1, 1, 0, 0, 1, 1])
    twice = graph.weight(f"{name}.twice", np.array([1, 1, 2, 2], np.float32))

    def block(h: str, part: str, stride: int = 1) -> str:
        h = graph.add("Pad", [h, pads], f"{name}.{part}.padded", mode="reflect")
        h = graph.conv(h, f"{name}.{part}", state[f"{key}.{part}.conv.weight"], [0, 0, 0, 0], stride)
        return graph.norm(h, f"{name}.{part}.norm", state, f"{key}.{part}.norm")

    def level(h: str, i: int) -> str:
        below = block(h, f"down.{i}", 2)
        below = level(below, i + 1) if f"{key}.down.{i + 1}.conv.weight" in state else block(below, "bottom")
        nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        below = graph.add("Resize", [below, "", twice], f"{name}.{i}.doubled", **nearest)
        return graph.add("Add", [block(h, f"beside.{i}"), block(below, f"up.{i}")], f"{name}.{i}.sum")

    h = graph.add("Pad", [level(x, 0), pads], f"{name}.out.padded", mode="reflect")
    h = graph.conv(h, f"{name}.out", state[f"{key}.out.weight"], [0, 0, 0, 0], bias=state[f"{key}.out.bias"])
    return graph.add("Sigmoid", [h], name)


def _packed_last(weight: Array) -> Array:
    """The kernel (3, f, 7, 7) on maps packed two by two: (12, 4f, 5, 5), both sides as channel, row, column parity."""
    outputs, channels = weight.shape[:2]
    packed = np.zeros((outputs, 2, 2, channels, 2, 2, 5, 5), dtype=np.float32)
    for a in (0, 1):
        for row in range(7):
            cell, parity = divmod(a + row - 3, 2)  # output row 2m + a sees input row 2m + a + row - 3
            for b in (0, 1):
                for column in range(7):
                    cell_x, parity_x = divmod(b + column - 3, 2)
                    packed[:, a, b, :, parity, parity_x, cell + 2, cell_x + 2] = weight[:, :, row, column]
    return packed.reshape(4 * outputs, 4 * channels, 5, 5)


def _outputs(graph: _Graph, h: str, config: GeneratorConfig) -> None:
    """The skip, the tanh where the configuration has it, and the clamp: ``output`` and ``residual``."""
    if config.tanh == "before-skip":
        h = graph.add("Tanh", [h], "tanh")
    plain_sum = config.skip and config.tanh != "after-skip"
    if config.gate:
        y = graph.add("Add", [h, graph.add("Mul", ["gate", "image"], "passed")], "sum")
        graph.add("Sub", [y, "image"], "residual")
    elif plain_sum:
        residual = graph.add("Identity", [h], "residual")
        y = graph.add("Add", [residual, "image"], "sum")
    else:
        y = graph.add("Tanh", [graph.add("Add", [h, "image"], "sum")], "tanh") if config.skip else h
        graph.add("Sub", [y, "image"], "residual")
    graph.constants.append(numpy_helper.from_array(np.array(-1, np.float32), "black"))
    graph.constants.append(numpy_helper.from_array(np.array(1, np.float32), "white"))
    graph.add("Clip", [y, "black", "white"], "output")
