"""Convolutional networks from Keras' HDF5 files to ONNX, without Keras or TensorFlow.

A file of Keras 2 holds the layers as JSON (attribute ``model_config``) and their weights in the group
``model_weights``. Only the layers of a plain feed-forward image network are known (`_LAYERS`); any other is refused.

Convention: Keras' arrays are channels last, (N, H, W, C); the ONNX graph is channels first, (N, C, H, W). Its output is
(N, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.documents import parse_json
from exprtool.errors import MissingPackageError, ModelError
from exprtool.extras import install_command

OPSET, IR_VERSION = 13, 7
"""Old enough for every ONNX Runtime since 1.8, and fixed: the same file must give the same bytes everywhere."""


@dataclass
class _Graph:
    """The ONNX graph as it grows. ``weights`` gives a layer's arrays by their Keras names."""

    weights: Callable[[str], Mapping[str, NDArray[np.float32]]]
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: NDArray[np.float32]) -> str:
        from onnx import TensorProto, helper

        raw = np.ascontiguousarray(values, dtype="<f4")
        self.initializers.append(helper.make_tensor(name, TensorProto.FLOAT, raw.shape, raw.tobytes(), raw=True))
        return name


def onnx_from_keras(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """The ONNX file of the network in a Keras HDF5 file; ``metadata`` is stored with it.

    Raises `ModelError` for a file that holds no such network, and `MissingPackageError` without h5py and onnx.
    """
    try:
        import h5py
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingPackageError(
            f"Converting a Keras network needs the package {error.name}: {install_command('classifier')}"
        ) from None
    try:
        with h5py.File(BytesIO(content), "r") as file:
            layers = parse_json(str(file.attrs["model_config"]))["config"]["layers"]
            stored: Any = file["model_weights"]

            def weights(layer: str) -> dict[str, NDArray[np.float32]]:
                arrays: dict[str, NDArray[np.float32]] = {}

                def take(name: str, item: Any) -> None:
                    if isinstance(item, h5py.Dataset):
                        arrays[name.rpartition("/")[2].partition(":")[0]] = np.asarray(item, np.float32)

                stored[layer].visititems(take)
                return arrays

            graph = _Graph(weights)
            outputs: dict[str, str] = {}
            shape: tuple[int, int, int] | None = None
            for layer in layers:
                kind, name, config = layer["class_name"], layer["name"], layer["config"]
                inputs = [outputs[link[0]] for node in layer["inbound_nodes"][:1] for link in node]
                if kind == "InputLayer":
                    _, height, width, channels = config["batch_input_shape"]
                    shape = (channels, height, width)
                    outputs[name] = name
                elif kind in _LAYERS:
                    outputs[name] = _LAYERS[kind](graph, name, config, inputs)
                else:
                    raise ModelError(f"layers of the kind {kind} are not known (known: {', '.join(sorted(_LAYERS))})")
            if shape is None:
                raise ModelError("it has no input layer")
            source, target = layers[0]["name"], outputs[layers[-1]["name"]]
    except ModelError:
        raise
    except Exception as error:  # h5py and JSON raise all sorts of things for a damaged file
        raise ModelError(f"This is no Keras network: {type(error).__name__}: {error}") from error
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "keras",
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info(target, TensorProto.FLOAT, ["batch", "classes"])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="exprtool",
    )
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


_Config = Mapping[str, Any]


def _convolution(graph: _Graph, name: str, config: _Config, inputs: Sequence[str]) -> str:
    arrays = graph.weights(name)
    kernel = graph.constant(f"{name}/kernel", arrays["kernel"].transpose(3, 2, 0, 1))  # (out, in, h, w)
    bias = [graph.constant(f"{name}/bias", arrays["bias"])] if config["use_bias"] else []
    out = graph.node("Conv", [*inputs, kernel, *bias], name, **_window(config, "kernel_size"))
    return _activated(graph, out, config)


def _separable(graph: _Graph, name: str, config: _Config, inputs: Sequence[str]) -> str:
    arrays = graph.weights(name)
    depthwise = arrays["depthwise_kernel"]  # (h, w, in, multiplier)
    h, w, channels, multiplier = depthwise.shape
    each = depthwise.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, h, w)
    kernel = graph.constant(f"{name}/depthwise", each)
    deep = graph.node("Conv", [*inputs, kernel], f"{name}/deep", group=channels, **_window(config, "kernel_size"))
    point = graph.constant(f"{name}/pointwise", arrays["pointwise_kernel"].transpose(3, 2, 0, 1))
    bias = [graph.constant(f"{name}/bias", arrays["bias"])] if config["use_bias"] else []
    return _activated(graph, graph.node("Conv", [deep, point, *bias], name), config)


def _normalization(graph: _Graph, name: str, config: _Config, inputs: Sequence[str]) -> str:
    if not (config["scale"] and config["center"]):
        raise ModelError(f"{name}: batch normalization without scale or centre is not known")
    arrays = graph.weights(name)
    learned = [
        graph.constant(f"{name}/{each}", arrays[each]) for each in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
    return graph.node("BatchNormalization", [*inputs, *learned], name, epsilon=float(config["epsilon"]))


def _activation(graph: _Graph, name: str, config: _Config, inputs: Sequence[str]) -> str:
    kind = config["activation"]
    if kind == "linear":
        return inputs[0]
    if kind == "relu":
        return graph.node("Relu", inputs, name)
    if kind == "softmax":
        return graph.node("Softmax", inputs, name, axis=1)  # over classes, or over channels before pooling
    raise ModelError(f"{name}: the activation {kind} is not known (known: linear, relu, softmax)")


def _activated(graph: _Graph, out: str, config: _Config) -> str:
    return _activation(graph, f"{out}/activation", config, [out])


def _pooling(graph: _Graph, name: str, config: _Config, inputs: Sequence[str]) -> str:
    return graph.node("MaxPool", inputs, name, **_window(config, "pool_size"))


def _addition(graph: _Graph, name: str, config: _Config, inputs: Sequence[str]) -> str:
    if len(inputs) != 2:
        raise ModelError(f"{name}: adds {len(inputs)} layers, and only two are known")
    return graph.node("Add", inputs, name)


def _global_average(graph: _Graph, name: str, config: _Config, inputs: Sequence[str]) -> str:
    pooled = graph.node("GlobalAveragePool", inputs, f"{name}/pooled")
    return graph.node("Flatten", [pooled], name, axis=1)


def _window(config: _Config, size: str) -> dict[str, Any]:
    """The attributes of a sliding window. TensorFlow's "same" puts an odd pixel of padding at the end."""
    if tuple(config.get("dilation_rate", (1, 1))) != (1, 1) or config.get("data_format") == "channels_first":
        raise ModelError(f"{config['name']}: dilated or channels-first windows are not known")
    padding = {"same": "SAME_UPPER", "valid": "VALID"}[config["padding"]]
    return {"kernel_shape": list(config[size]), "strides": list(config["strides"]), "auto_pad": padding}


_LAYERS: Mapping[str, Callable[[_Graph, str, _Config, Sequence[str]], str]] = {
    "Activation": _activation,
    "Add": _addition,
    "BatchNormalization": _normalization,
    "Conv2D": _convolution,
    "GlobalAveragePooling2D": _global_average,
    "MaxPooling2D": _pooling,
    "SeparableConv2D": _separable,
}
