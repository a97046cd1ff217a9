"""How fast is a training step of US-GAN, against the plain way of writing it and against the step before, in one run.

The plain step is how the published codes do it: float32 in NCHW memory, ``.item()`` on every loss of every step, the
generator's graph built in the discriminator's step too, the gradient penalty by differentiating twice, pictures
decoded from files by a DataLoader. It is written out below. The step before is ours as it was on the CPU until its
memory was laid out anew: channels last, and the discriminator's last layers as convolutions. All train the paper's
networks on the same pictures; cycles of five D steps and one G step take turns, so that whatever else the machine does
falls on all.

    python benchmarks/train_step.py --threads 2          # CPU: before and now, in bfloat16 where it has it and float32
    python benchmarks/train_step.py --device cuda        # also: fraction of the card's rate, time for 350 epochs

Beside each time stands its share of the measured matrix-product rate: the seconds that the step's products alone would
take at the rate of one product of square matrices in the same run, the penalty's in float32, by the seconds it took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from exprtool_gan import losses
from exprtool_gan.config import TrainConfig
from exprtool_gan.feed import Feed
from exprtool_gan.loop import in_bfloat16
from exprtool_gan.sampler import Sampler
from exprtool_gan.step import LOSS_NAMES, Learner
from exprtool_training.graphs import Recorded
from exprtool_training.loss_log import LossLog
from exprtool_usgan.networks import HalvingConv

LABELS, D_STEPS = 7, 5
PAPER_STEPS = 101_150  # 350 epochs of 2,312 images in eights
D_STEP_FLOP, G_STEP_FLOP = 196e9, 420e9  # at batch 8 and 128 pixels, a multiply-add counted as two
PEAK_BFLOAT16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}  # dense, by the makers' data sheets


# ---------------------------------------------------------------------------------------------------------------------
# The plain step


class PlainGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def norm(n: int) -> nn.Module:
            return nn.InstanceNorm2d(n, affine=True, track_running_stats=True)

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.main = nn.Sequential(
                    nn.Conv2d(256, 256, 3, 1, 1, bias=False), norm(256), nn.ReLU(inplace=True),
                    nn.Conv2d(256, 256, 3, 1, 1, bias=False), norm(256),
                )  # fmt: skip

            def forward(self, h: Tensor) -> Tensor:
                return h + self.main(h)

        self.main = nn.Sequential(
            nn.Conv2d(3 + LABELS, 64, 7, 1, 3, bias=False), norm(64), nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False), norm(128), nn.ReLU(inplace=True),
            nn.Conv2d(128, 256, 4, 2, 1, bias=False), norm(256), nn.ReLU(inplace=True),
            Block(),
            nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), norm(128), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), norm(64), nn.ReLU(inplace=True),
            nn.Conv2d(64, 3, 7, 1, 3, bias=False), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        maps = c.view(c.size(0), c.size(1), 1, 1).repeat(1, 1, x.size(2), x.size(3))
        return self.main(torch.cat([x, maps], dim=1)) + x


class PlainDiscriminator(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for i in range(6):
            layers += [nn.Conv2d(before, 64 * 2**i, 4, 2, 1), nn.LeakyReLU(0.01)]
            before = 64 * 2**i
        self.main = nn.Sequential(*layers)
        self.conv1 = nn.Conv2d(before, 1, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(before, LABELS, size // 64, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.main(x)
        logits = self.conv2(h)
        return self.conv1(h), logits.view(logits.size(0), logits.size(1))


class Files(Dataset[tuple[Tensor, int]]):
    """Pictures decoded, mirrored and scaled one by one."""

    def __init__(self, folder: Path, labels: list[int]) -> None:
        self.paths, self.labels = sorted(folder.glob("*.png")), labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = Image.open(self.paths[i]).convert("RGB")
        if torch.rand(1).item() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - 0.5) / 0.5, self.labels[i]


class Plain:
    def __init__(self, folder: Path, labels: list[int], batch: int, size: int, device: torch.device, workers: int):
        self.device = device
        self.g, self.d = PlainGenerator().to(device), PlainDiscriminator(size).to(device)
        self.g_adam = torch.optim.Adam(self.g.parameters(), 1e-4, (0.5, 0.999))
        self.d_adam = torch.optim.Adam(self.d.parameters(), 1e-4, (0.5, 0.999))
        self.loader = DataLoader(
            Files(folder, labels), batch, shuffle=True, drop_last=True, num_workers=workers,
            persistent_workers=workers > 0,
        )  # fmt: skip
        self.data: Iterator[list[Tensor]] = iter(self.loader)
        self.step = 0

    def __call__(self) -> None:
        try:
            x_real, label_org = next(self.data)
        except StopIteration:
            self.data = iter(self.loader)
            x_real, label_org = next(self.data)
        x_real, label_org = x_real.to(self.device), label_org.to(self.device)
        label_trg = label_org[torch.randperm(len(label_org))]
        c_org, c_trg = F.one_hot(label_org, LABELS).float(), F.one_hot(label_trg, LABELS).float()

        src, cls = self.d(x_real)
        d_real, d_cls = -src.mean(), F.cross_entropy(cls, label_org)
        x_fake = self.g(x_real, c_trg)
        src, cls = self.d(x_fake.detach())
        d_fake = src.mean()
        alpha = torch.rand(len(x_real), 1, 1, 1, device=self.device)
        x_hat = (alpha * x_real + (1 - alpha) * x_fake).detach().requires_grad_(True)
        src, _ = self.d(x_hat)
        (slope,) = torch.autograd.grad(src, x_hat, torch.ones_like(src), retain_graph=True, create_graph=True)
        d_gp = ((slope.view(len(slope), -1).pow(2).sum(1).sqrt() - 1) ** 2).mean()
        d_loss = d_real + d_fake + d_cls + 10 * d_gp
        self._reset()
        d_loss.backward()
        self.d_adam.step()
        losses = {"real": d_real.item(), "fake": d_fake.item(), "cls": d_cls.item(), "gp": d_gp.item()}

        self.step += 1
        if self.step % D_STEPS == 0:
            x_fake = self.g(x_real, c_trg)
            src, cls = self.d(x_fake)
            x_rec = self.g(x_fake, c_org)
            g_fake, g_cls, g_rec = -src.mean(), F.cross_entropy(cls, label_trg), (x_real - x_rec).abs().mean()
            self._reset()
            (g_fake + 10 * g_rec + g_cls).backward()
            self.g_adam.step()
            losses |= {"g_fake": g_fake.item(), "g_rec": g_rec.item(), "g_cls": g_cls.item()}

    def _reset(self) -> None:
        self.g_adam.zero_grad()
        self.d_adam.zero_grad()


# ---------------------------------------------------------------------------------------------------------------------
# Ours


class Ours:
    def __init__(
        self, images: np.ndarray, labels: list[int], batch: int, device: torch.device, half: bool, graphs: bool = False
    ):
        config = TrainConfig(batch_size=batch, image_size=images.shape[1])
        self.learner = self._learner(config, device, half)
        self.feed = Feed(images, Sampler(np.array(labels), LABELS, batch), device)
        self.losses = LossLog(LOSS_NAMES, config.log_every, device)
        self.d_step = Recorded(self.learner.discriminator_step) if graphs else self.learner.discriminator_step
        self.both = Recorded(self.learner.both_steps) if graphs else self.learner.both_steps
        self.step = 0

    def _learner(self, config: TrainConfig, device: torch.device, half: bool) -> Learner:
        return Learner(config, LABELS, device, average=lambda gradients: None, half=half)

    def __call__(self) -> None:
        self.learner.set_learning_rate(1e-4)
        batch = self.feed.batch(self.step)
        self.step += 1
        if self.step % D_STEPS == 0:
            self.losses.add(self.step, self.both(batch))
            self.learner.follow()
        else:
            self.losses.add(self.step, self.d_step(batch))
        if self.losses.full:
            self.losses.take()


class Convolved(HalvingConv):
    """A layer of D as a convolution whatever its size."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, input)

    def input_gradient(self, g: Tensor) -> Tensor:
        return F.conv_transpose2d(g, self.weight, stride=2, padding=1)


class Before(Ours):
    """The step as it was on the CPU: the same sums, in channels-last memory and by convolutions alone."""

    def _learner(self, config: TrainConfig, device: torch.device, half: bool) -> Learner:
        learner = super()._learner(config, device, half)
        for layer in learner.discriminator.main:
            if isinstance(layer, HalvingConv):
                layer.__class__ = Convolved
        learner.memory_format = torch.channels_last
        for net in (learner.generator, learner.discriminator, learner.ema):
            if net is not None:
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return learner


def matrix_rate(dtype: torch.dtype, side: int = 1024, repeats: int = 8) -> float:
    """Floating-point operations per second of one product of square matrices: the best of a few."""
    a, b = (torch.randn(side, side, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def products(ours: Ours) -> tuple[float, float]:
    """Floating-point operations of a cycle's products: all but the penalty's, and the penalty's."""
    learner, batch = ours.learner, ours.feed.batch(0)
    with FlopCounterMode(display=False) as d_count:
        learner.discriminator_step(batch)
    with FlopCounterMode(display=False) as both_count:
        learner.both_steps(batch)
    with FlopCounterMode(display=False) as penalty_count:
        penalty = losses.gradient_penalty(losses.score_gradient(learner.discriminator, batch.x_real.contiguous()))
        torch.autograd.grad(penalty, list(learner.discriminator.parameters()), allow_unused=True)
    penalties = D_STEPS * penalty_count.get_total_flops()
    total = (D_STEPS - 1) * d_count.get_total_flops() + both_count.get_total_flops()
    return total - penalties, penalties


def cycle(step: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Seconds that one cycle (five D steps, one G step) takes, as the mean of ``repeats`` in a row."""
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(repeats * D_STEPS):
            step()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1e3 / repeats
    start = time.perf_counter()
    for _ in range(repeats * D_STEPS):
        step()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each")
    parser.add_argument("--repeats", type=int, help="cycles per round (CPU 1, CUDA 20)")
    parser.add_argument("--workers", type=int, default=1, help="of the plain step's DataLoader")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--float32", action="store_true", help="ours in float32 alone")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--no-plain", action="store_true", help="leave out the plain step, which is slow")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    if options.threads:
        torch.set_num_threads(options.threads)
    if cuda:
        torch.backends.cudnn.benchmark = True
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, options.image_size, options.image_size, 3), dtype=np.uint8)
    labels = [i % LABELS for i in range(len(images))]
    repeats = options.repeats or (20 if cuda else 1)
    half = not options.float32 and in_bfloat16("auto", device)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            Image.fromarray(image).save(Path(folder) / f"{i:03d}.png")
        given = images, labels, options.batch_size, device
        steps: dict[str, Callable[[], None]] = {}
        if not options.no_plain:
            steps["plain"] = Plain(
                Path(folder), labels, options.batch_size, options.image_size, device, options.workers
            )
        for precision in [True, False] if half and not cuda else [half]:
            name = "bfloat16" if precision else "float32"
            if not cuda:
                steps[f"before, {name}"] = Before(*given, precision)
            steps[f"now, {name}"] = Ours(*given, precision, cuda and not options.no_graphs)
        for step in steps.values():
            cycle(step, device, repeats + 3 if cuda else 1)  # warm-up; on CUDA also the recording
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.rounds):
            for name, step in steps.items():
                times[name].append(cycle(step, device, repeats))
        figures = _figures(times, steps, options, device)
        for step in steps.values():
            if isinstance(step, Ours):
                step.feed.close()
    print("\n".join(_lines(figures)))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _figures(
    times: dict[str, list[float]],
    steps: dict[str, Callable[[], None]],
    options: argparse.Namespace,
    device: torch.device,
) -> dict[str, Any]:
    """Milliseconds per D step (its share of the G step included) of each, and how they compare."""
    cuda = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    seconds = {name: statistics.median(each) for name, each in times.items()}
    figures: dict[str, Any] = {
        "device": where, "batch_size": options.batch_size, "image_size": options.image_size, "rounds": options.rounds,
        "ms_per_step": {name: each / D_STEPS * 1e3 for name, each in seconds.items()}, "times_as_fast": {},
    }  # fmt: skip
    newest = next(name for name in seconds if name.startswith("now"))
    for name in seconds:
        base, _, precision = name.partition(", ")
        against = f"now, {precision}" if base == "before" else newest
        if base in ("plain", "before"):
            ratios = [a / b for a, b in zip(times[name], times[against], strict=True)]
            figures["times_as_fast"][f"{against}, of {base}"] = {"median": statistics.median(ratios), "rounds": ratios}
    figures["images_per_second"] = options.batch_size * D_STEPS / seconds[newest]
    figures["paper_run_minutes"] = PAPER_STEPS / D_STEPS * seconds[newest] / 60
    if cuda:
        scale = options.batch_size / 8 * (options.image_size / 128) ** 2
        figures["plain_flop_per_second_equivalent"] = (D_STEPS * D_STEP_FLOP + G_STEP_FLOP) * scale / seconds[newest]
        peak = next((value for key, value in PEAK_BFLOAT16.items() if key in where), None)
        if peak:
            figures["fraction_of_bfloat16_peak"] = figures["plain_flop_per_second_equivalent"] / peak
        return figures
    rates = {"bfloat16": matrix_rate(torch.bfloat16), "float32": matrix_rate(torch.float32)}
    figures["matrix_product_gflop_per_second"] = {name: rate / 1e9 for name, rate in rates.items()}
    counted = next(step for name, step in steps.items() if name.startswith("before"))
    assert isinstance(counted, Ours)
    networks, penalty = products(counted)
    figures["share_of_matrix_product_rate"] = {
        name: (networks / rates[name.partition(", ")[2]] + penalty / rates["float32"]) / each
        for name, each in seconds.items()
        if name != "plain"
    }
    return figures


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{figures['device']}; batch {figures['batch_size']}, {figures['image_size']} px, "
        f"medians of {figures['rounds']} rounds"
    )
    shares = figures.get("share_of_matrix_product_rate", {})
    for name, each in figures["ms_per_step"].items():
        share = f", {shares[name]:.0%} of the matrix-product rate" if name in shares else ""
        yield f"{name:18} {each:9.2f} ms per D step, its share of the G step included{share}"
    for name, ratio in figures["times_as_fast"].items():
        yield f"{name}: {ratio['median']:.2f} times as fast"
    yield (
        f"{figures['images_per_second']:.1f} images/s; 350 epochs of 2,312 images: "
        f"{figures['paper_run_minutes']:.1f} minutes"
    )
    if rates := figures.get("matrix_product_gflop_per_second"):
        yield "matrix products: " + ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in rates.items())
    if fraction := figures.get("fraction_of_bfloat16_peak"):
        yield f"{fraction:.1%} of the card's bfloat16 rate, counted as the plain step's arithmetic"


if __name__ == "__main__":
    main()
