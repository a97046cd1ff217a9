"""How fast US-GAN makes faces: ONNX Runtime against PyTorch eager, and both against the processor's limit.

    python benchmarks/generate.py
    python benchmarks/generate.py --model runs/a --data prepared/ --batch 1 --batch 8

All are timed in turn, round after round, in one process, so that whatever else the machine does hits all of them; the
figures are medians, and the ratios are medians of the rounds' own ratios. The limit is what one large matrix product
reaches in the same round, in PyTorch or in ONNX Runtime, whichever is faster. ``reference`` is the published layout in
PyTorch eager (NCHW, concatenated label maps), ``torch`` is the backend ``usgan``. int8 is timed and its loss measured,
on real crops with --data and else on drawn patterns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from exprtool.devices import onnx_session, usable_cpus
from exprtool_gan.export import picture_of, quantised
from exprtool_gan.onnx_graph import generator_graph
from exprtool_training.data import PreparedSet, load_prepared
from exprtool_training.export import IR_VERSION, OPSET, check_images, compare
from exprtool_usgan.checkpoint import load_generator
from exprtool_usgan.config import GeneratorConfig
from exprtool_usgan.networks import Generator

SIDE = 1536
"""Of the square matrices whose product gives the limit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a run or checkpoint; without: the paper's network, random weights")
    parser.add_argument(
        "--data", type=Path, action="append", help="real crops for int8, a prepared folder or data root"
    )
    parser.add_argument("--batch", type=int, action="append", help="faces at once; repeatable (default 1 and 8)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    generator = load_generator(arguments.model)[0] if arguments.model else random_generator()
    config = generator.config
    data = load_prepared(arguments.data, config.image_size) if arguments.data else None
    models = exported(generator, data)
    work = flops(generator)
    report: dict[str, Any] = {
        "threads": arguments.threads,
        "image_size": config.image_size,
        "gflop_per_face": round(work / 1e9, 3),
        "batches": [
            measure(generator, models, batch, arguments.rounds, arguments.threads, work)
            for batch in arguments.batch or (1, 8)
        ],
        "loss": {},
    }
    images = check_images(config.image_size, 16, data)
    for name, content in models.items():
        loss = compare(content, picture_of(generator), images, generator.config.labels, real=data is not None)
        report["loss"][name] = {**loss.to_json(), "megabytes": round(len(content) / 1e6, 2)}
    print(json.dumps(report, indent=1) if arguments.json else text(report))


def random_generator() -> Generator:
    """The paper's generator with random weights; its residual is scaled to that of a trained one."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(7)).eval().requires_grad_(False)
    convolutions = [module for module in generator.main if isinstance(module, nn.Conv2d)]
    convolutions[-1].weight *= 0.2
    return generator


def exported(generator: Generator, data: PreparedSet | None) -> dict[str, bytes]:
    """The ONNX files in memory: float32, half, int8."""
    state = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    graph = generator_graph(generator.config, state)
    calibration = check_images(generator.config.image_size, 24, data)
    return {
        "onnx": graph.SerializeToString(),
        "onnx half": generator_graph(generator.config, state, half=True).SerializeToString(),
        "onnx int8": quantised(graph, calibration, generator.config.labels).SerializeToString(),
    }


def flops(generator: Generator) -> float:
    """Multiplications and additions of all convolutions for one face, as the paper's layout does them."""
    total = 0.0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        pixels = (output if isinstance(module, nn.Conv2d) else inputs[0])[0, 0].numel()
        total += 2.0 * pixels * module.weight.numel()

    hooks = [
        module.register_forward_hook(count)
        for module in generator.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    side, labels = generator.config.image_size, generator.config.labels
    with torch.inference_mode():
        generator(torch.zeros(1, 3, side, side), torch.zeros(1, labels))
    for hook in hooks:
        hook.remove()
    return total


def product_graph() -> bytes:
    """One matrix product as an ONNX model."""
    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


def reference_of(generator: Generator) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The same network as the published codes run it: label maps concatenated, plain modules one after the other."""
    import copy

    layers = copy.deepcopy(generator.main)

    def forward(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        maps = c[:, :, None, None].repeat(1, 1, *x.shape[2:])
        return layers(torch.cat([x, maps], dim=1)) + x

    return forward


def measure(
    generator: Generator, models: dict[str, bytes], batch: int, rounds: int, threads: int, work: float
) -> dict[str, Any]:
    """Time everything at one batch size, in turn."""
    side, labels = generator.config.image_size, generator.config.labels
    x = torch.rand(batch, 3, side, side) * 2 - 1
    c = torch.eye(labels)[torch.arange(batch) % labels]
    feed: dict[str, NDArray[np.float32]] = {"image": x.numpy(), "label": c.numpy()}
    reference = reference_of(generator)
    fast = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x_last = x.to(memory_format=torch.channels_last)
    matrix = torch.rand(SIDE, SIDE)
    product, factors = onnx_session(product_graph(), "cpu", threads), {"a": matrix.numpy(), "b": matrix.numpy()}

    def in_torch(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return function()

        return run

    tasks: dict[str, Callable[[], Any]] = {
        "limit torch": in_torch(lambda: matrix @ matrix),
        "limit onnx": lambda: product.run(None, factors),
        "reference": in_torch(lambda: reference(x, c)),
        "torch": in_torch(lambda: fast.residual(x_last, c)),
    }
    for name, content in models.items():
        session = onnx_session(content, "cpu", threads)
        tasks[name] = lambda session=session: session.run(["residual"], feed)
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    limits = [2 * SIDE**3 / min(pair) for pair in zip(times["limit torch"], times["limit onnx"], strict=True)]
    rows = {}
    for name in list(tasks)[2:]:
        median = statistics.median(times[name])
        ratio = statistics.median(a / b for a, b in zip(times["torch"], times[name], strict=True))
        against = statistics.median(a / b for a, b in zip(times["reference"], times[name], strict=True))
        shares = [work * batch / spent / limit for spent, limit in zip(times[name], limits, strict=True)]
        rows[name] = {
            "milliseconds": round(1e3 * median, 1),
            "faces_per_second": round(batch / median, 2),
            "gflop_per_second": round(work * batch / median / 1e9, 1),
            "share_of_limit": round(statistics.median(shares), 3),
            "times_reference": round(against, 2),
            "times_torch": round(ratio, 2),
        }
    return {"batch": batch, "limit_gflop_per_second": round(statistics.median(limits) / 1e9, 1), "rows": rows}


def text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [
        f"US-GAN at {report['image_size']} px, {report['gflop_per_face']} GFLOP a face, {report['threads']} threads, "
        f"PyTorch {torch.__version__}, Python {sys.version.split()[0]}",
    ]
    for block in report["batches"]:
        lines.append(f"\nbatch {block['batch']}; the processor's limit {block['limit_gflop_per_second']} GFLOP/s")
        lines.append(f"  {'':12}{'ms':>9}{'faces/s':>9}{'GFLOP/s':>9}{'of limit':>10}{'x reference':>13}{'x torch':>9}")
        for name, row in block["rows"].items():
            lines.append(
                f"  {name:12}{row['milliseconds']:>9}{row['faces_per_second']:>9}{row['gflop_per_second']:>9}"
                f"{row['share_of_limit']:>10.0%}{row['times_reference']:>13}{row['times_torch']:>9}"
            )
    lines.append("\ndifference to PyTorch in grey levels of the 8-bit picture")
    for name, loss in report["loss"].items():
        psnr = "same bits" if loss["psnr"] is None else f"PSNR {loss['psnr']:.1f} dB"
        kind = "real crops" if loss["real"] else "drawn patterns"
        lines.append(
            f"  {name:12}largest {loss['levels']}, mean {loss['mean_levels']:.4f}, {psnr}, {loss['megabytes']} MB, "
            f"{loss['crops']} {kind}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
