"""A complete training on the CPU in minutes, on faces drawn by code, judged by a classifier that it never saw.

    python benchmarks/toy_training.py --out /tmp/toy

Draws people with two expressions, trains US-GAN on them, has the generator change held-out people, and asks an
independent classifier, trained on other drawings, whether it sees the expression that was asked for. Writes
``sheet.png`` (held-out faces: input, each expression), ``curve.png`` (losses over steps) and ``result.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from exprtool_gan import toy
from exprtool_gan.config import TrainConfig
from exprtool_gan.loop import train
from exprtool_training.run_folder import RunFolder
from exprtool_training.screen import screen
from exprtool_training.sheet import all_expressions, to_tensor, write_sheet
from exprtool_usgan.checkpoint import load_generator

TRAINED, HELD_OUT, JUDGED = range(0, 400), range(10_000, 10_100), range(20_000, 20_800)


def classifier(size: int, seed: int = 1) -> nn.Module:
    """A small network that tells the expressions apart, trained on people of its own."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1),
        nn.ReLU(), nn.Flatten(), nn.Linear(32 * (size // 8) ** 2, 2),
    )  # fmt: skip
    images, labels = toy.draw_set(JUDGED, size)
    x, y = to_tensor(images), torch.from_numpy(labels)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(400):
        pick = torch.randint(len(x), (32,))
        adam.zero_grad()
        F.cross_entropy(net(x[pick]), y[pick]).backward()
        adam.step()
    return net.eval()


@torch.no_grad()
def recognised(net: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    return float((net(to_tensor(images)).argmax(1).numpy() == labels).mean())


def draw_curve(path: Path, log: list[dict[str, float]]) -> None:
    """Losses over steps, each in a frame of its own."""
    names = [
        name for name in ("d_total", "d_gp", "d_expr", "g_total", "g_expr", "g_rec") if any(name in e for e in log)
    ]
    width, height, left = 900, 120, 150
    picture = Image.new("RGB", (width, height * len(names)), "white")
    draw = ImageDraw.Draw(picture)
    last = max(entry["step"] for entry in log)
    for row, name in enumerate(names):
        points = [(entry["step"], entry[name]) for entry in log if name in entry]
        values = [value for _, value in points]
        low, high = min(values), max(values)
        top, span = row * height + 8, (high - low) or 1
        draw.rectangle((left, top, width - 8, top + height - 16), outline=(200, 200, 200))
        draw.text((6, top), f"{name}\n{high:.3g} ... {low:.3g}\nlast {values[-1]:.3g}", fill="black")
        line = [
            (left + (width - 8 - left) * step / last, top + (height - 16) * (1 - (value - low) / span))
            for step, value in points
        ]
        draw.line(line, fill=(30, 90, 200), width=2)
    picture.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    start = time.monotonic()
    data = options.out / "faces"
    toy.write_set(data, TRAINED, options.size)
    config = TrainConfig(
        data=(data,), out=options.out / "run", overwrite=True, crop="centre", image_size=options.size,
        steps=options.steps,
        channels=16, d_channels=24, d_layers=4, batch_size=8, d_steps=2, lr=5e-4, targets="uniform", ema=0.99,
        log_every=50, sample_every=500, look_every=500, save_every=1000,
    )  # fmt: skip
    train(config, screen())
    seconds = time.monotonic() - start
    generator, card = load_generator(config.out / "checkpoints" / "last.safetensors")
    assert card.labels == toy.EXPRESSIONS
    images, labels = toy.draw_set(HELD_OUT, options.size)
    outputs = all_expressions(generator, images)
    net = classifier(options.size)
    wanted = 1 - labels  # every face is asked for the other expression
    changed = outputs[np.arange(len(images)), wanted]
    result = {
        "seconds": round(seconds, 1),
        "processor_seconds": round(time.process_time(), 1),
        "classifier_on_drawings": recognised(net, images, labels),
        "untouched_taken_for_wanted": recognised(net, images, wanted),
        "generated_recognised_as_wanted": recognised(net, changed, wanted),
        "held_out_drawings": len(images),
        "mean_change_in_grey_levels": float(np.abs(changed.astype(int) - images).mean()),
    }
    write_sheet(options.out / "sheet.png", images[:24:2], outputs[:24:2], card.labels)
    draw_curve(options.out / "curve.png", [e for e in RunFolder(config.out).read_log() if "d_total" in e])
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
