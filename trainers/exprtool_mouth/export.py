"""From a run to the one ONNX file that `exprtool.anatomy.interior` uses: compared with PyTorch, then put in place."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from exprtool.anatomy.interior import FORMAT, METADATA_KEY
from exprtool.anatomy.mouth_crop import CHANNELS, HEIGHT, WIDTH
from exprtool.devices import onnx_session
from exprtool.errors import ModelError
from exprtool.files import write_bytes
from exprtool_mouth.loop import STATE
from exprtool_mouth.networks import Painter

OPSET = 17
TOLERANCE = 0.02
"""Largest difference from PyTorch of pictures in [-1, 1]: weights are stored as float16."""
_KEEP_EXACT = 2048
"""Arrays of fewer values keep their float32."""


@dataclass(frozen=True)
class Exported:
    path: Path
    bytes: int
    difference: float


class _Widened(nn.Module):
    """Weights that the file holds as float16 and the arithmetic, for which CPUs have fast kernels, as float32."""

    def forward(self, stored: Tensor) -> Tensor:
        return stored.float()


def export(run: Path, out: Path) -> Exported:
    """Write the averaged painter of a run's last checkpoint to ``out``; raises `ModelError` where the file does not
    agree with PyTorch, and nothing is written then."""
    state = torch.load(run / STATE, weights_only=True)
    net = opened(state["average"])
    content = onnx_bytes(net, {"step": state["step"], "mouths": int(state["kept"].sum())})
    given = example_input()
    session = onnx_session(content, "cpu")
    (found,) = session.run(None, {name: each.numpy() for name, each in given.items()})
    with torch.no_grad():
        off = float(np.abs(np.asarray(found) - net(*given.values()).numpy()).max())
    if off > TOLERANCE:
        raise ModelError(f"{out} was not written: it differs from PyTorch by {off:.2g}, {TOLERANCE} is allowed.")
    write_bytes(out, content)
    return Exported(out, len(content), off)


def opened(weights: dict[str, Tensor]) -> Painter:
    """The painter of these weights."""
    a, b, c = (len(weights[f"{part}.0.weight"]) for part in ("down1.0", "down2.0", "down4.0"))
    net = Painter((a, b, c))
    net.load_state_dict(weights)
    return net.eval()


def example_input() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, CHANNELS, HEIGHT // 8, WIDTH // 8, generator=random)
    smooth = nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")
    return {"picture": smooth[:, :3] * 2 - 1, "told": smooth[:, 3:]}


def onnx_bytes(net: Painter, about: dict[str, Any]) -> bytes:
    """The file's bytes, weights as float16."""
    import onnx

    stored = opened(net.state_dict())
    for part in stored.modules():
        weight = getattr(part, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.numel() >= _KEEP_EXACT:
            part.weight = nn.Parameter(weight.detach().half(), requires_grad=False)
            parametrize.register_parametrization(part, "weight", _Widened(), unsafe=True)
    given, buffer = example_input(), io.BytesIO()
    with warnings.catch_warnings():  # the exporter that needs no further package warns that it is not the newest
        warnings.simplefilter("ignore")
        torch.onnx.export(
            stored, tuple(given.values()), buffer, input_names=list(given), output_names=["painted"],  # pyright: ignore
            dynamic_axes={name: {0: "mouths"} for name in (*given, "painted")}, opset_version=OPSET, dynamo=False,
            do_constant_folding=False,
        )  # fmt: skip
    graph = onnx.load_from_string(buffer.getvalue())
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps({"format": FORMAT, **about})
    return graph.SerializeToString()
