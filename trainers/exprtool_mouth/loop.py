"""The training loop, from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exprtool.anatomy.mouth_crop import PER_MM
from exprtool.errors import TrainingError
from exprtool.files import write_bytes
from exprtool_mouth.augment import PLAIN, Example, Variation, example
from exprtool_mouth.config import MouthConfig
from exprtool_mouth.data import Mouths, held_out, joined, open_mouths
from exprtool_mouth.losses import critic_loss, difference, likeness, painter_loss, within
from exprtool_mouth.networks import Critic, Painter

Say = Callable[[str], None]
Batch = tuple[Tensor, Tensor, Tensor]
STATE, MODEL = "state.pt", "mouth.onnx"
_SHOWN = 24
_WIDE = 220.0, 3.0
"""Area of an opening in square mm from which on it is drawn more often, and how much more at most."""
_BARE = 4.0
"""How much more often a mouth without teeth in sight is drawn, beside one that is full of them."""


@dataclass(eq=False)
class Learner:
    """All that a step changes."""

    painter: Painter
    critic: Critic
    average: Painter
    adam: torch.optim.Adam
    adam_critic: torch.optim.Adam
    kept: Tensor
    """Which mouths are trained on, (n,) bool."""
    step: int = 0

    @classmethod
    def new(cls, config: MouthConfig, mouths: int) -> Learner:
        torch.manual_seed(config.seed)
        painter, critic, average = Painter(config.widths), Critic(), Painter(config.widths)
        average.load_state_dict(painter.state_dict())
        adam = torch.optim.Adam(painter.parameters(), config.lr, betas=(0.5, 0.99))
        other = torch.optim.Adam(critic.parameters(), config.lr_critic, betas=(0.5, 0.99))
        return cls(painter, critic, average, adam, other, torch.ones(mouths, dtype=torch.bool))

    _PARTS = ("painter", "critic", "average", "adam", "adam_critic")

    def save(self, path: Path) -> None:
        import io

        file = io.BytesIO()
        parts = {name: getattr(self, name).state_dict() for name in self._PARTS}
        torch.save({**parts, "kept": self.kept, "step": self.step}, file)
        write_bytes(path, file.getvalue())

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["kept"].shape != self.kept.shape:
            raise TrainingError(f"{path} was trained on another set of mouths. Give the same, or start a new run.")
        for name in self._PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.kept, self.step = state["kept"], state["step"]


def load_sets(config: MouthConfig, say: Say = lambda line: None) -> tuple[Mouths, Mouths, NDArray[np.bool_]]:
    """Mouths to train on and those held out; and which of the former come from the finer sets."""
    train, test, fine = [], [], []
    for place, folder in enumerate(config.data):
        cache = config.out / f"mouths-{place}.npz"
        if not cache.is_file():
            say(f"{folder}: looking for open mouths")
            config.out.mkdir(parents=True, exist_ok=True)
            open_mouths(folder).save(cache)
        found = Mouths.load(cache)
        out = held_out(found.names, config.held_out[place])
        train.append(found.part(~out))
        test.append(found.part(out))
        fine += [place > 0] * int((~out).sum())
    return joined(train), joined(test), np.array(fine)


def train(
    config: MouthConfig, say: Say = lambda line: None, how: Variation | None = None, stop_at: int | None = None
) -> Learner:
    """Train to the end, or to step ``stop_at``, going on where the folder's last checkpoint is; the same steps give the
    same bits, resumed or not."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    how = how or Variation()
    mouths, unseen, fine = load_sets(config, say)
    learner = Learner.new(config, len(mouths))
    if (config.out / STATE).is_file():
        learner.load(config.out / STATE)
    say(f"{len(mouths):,} mouths, {len(unseen):,} held out; {parameters(learner.painter):,} parameters")
    usual = _chances(mouths, fine, config.share)
    start = saved = time.monotonic()
    began, figures = learner.step, []
    end = config.steps if stop_at is None else min(stop_at, config.steps)
    while learner.step < end:
        if learner.step == int(config.clean_at * config.steps):
            _clean(learner, mouths, config, say)
        chances = usual * learner.kept.numpy()
        batch = batch_of(mouths, config, learner.step, chances / chances.sum(), how)
        figures.append(step(learner, batch, config))
        if learner.step % 50 == 0:
            means = {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}
            if not all(map(math.isfinite, means.values())):
                raise TrainingError(f"A loss is not finite by step {learner.step}. Start anew with a lower rate.")
            figures.clear()
            pace = (time.monotonic() - start) / (learner.step - began)
            say(f"{learner.step} " + " ".join(f"{k} {v:.4f}" for k, v in means.items()) + f" {pace:.2f} s/step")
        if learner.step % config.look_every == 0 or learner.step == end:
            off = look(learner.average, unseen, config.out / f"look-{learner.step:06}.png")
            say(f"{learner.step} held out: {off:.2f} grey levels")
            with (config.out / "looks.jsonl").open("a") as file:
                file.write(json.dumps({"step": learner.step, "held_out": off}) + "\n")
        if time.monotonic() - saved > 60 * config.save_minutes or learner.step == end:
            learner.save(config.out / STATE)
            saved = time.monotonic()
    return learner


def step(learner: Learner, batch: Batch, config: MouthConfig) -> dict[str, float]:
    """One step of the painter, and from `MouthConfig.critic_from` on of the critic before it."""
    given, target, told = batch
    hole = told[:, :1]
    judged = learner.step >= config.critic_from
    rate = learning_rate(learner.step, config.steps)
    for optimizer, most in ((learner.adam, config.lr), (learner.adam_critic, config.lr_critic)):
        optimizer.param_groups[0]["lr"] = most * rate
    with autocast():
        painted = learner.painter(given, told)
    painted = painted.float()
    whole, real = given * (1 - hole) + painted * hole, given * (1 - hole) + target * hole
    figures = {}
    # --- 1. The critic -----------------------------------------------------------------------------------------------
    if judged:
        with autocast():
            on_both, _ = learner.critic(torch.cat([real, whole.detach()]), torch.cat([told, told]))
        on_real, on_painted = on_both.float().chunk(2)
        loss = critic_loss(on_real, on_painted, hole)
        learner.adam_critic.zero_grad()
        loss.backward()
        learner.adam_critic.step()
        figures |= {"critic": loss.item()}
    # --- 2. The painter ----------------------------------------------------------------------------------------------
    alike = difference(painted, target, hole).mean()
    loss = config.alike * alike
    figures |= {"alike": alike.item() * 127.5}
    if judged:
        with torch.no_grad(), autocast():
            _, wanted = learner.critic(real, told)
        with autocast():
            judgement, features = learner.critic(whole, told)
        believed = painter_loss(judgement.float(), hole)
        close = likeness(wanted, features, hole)
        loss = loss + config.believed * believed + config.features * close.float()
        figures |= {"believed": believed.item(), "features": close.item()}
    learner.adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learner.painter.parameters(), 5.0)
    learner.adam.step()
    # --- 3. The average ----------------------------------------------------------------------------------------------
    decay = min(config.average, (1 + learner.step) / (10 + learner.step))
    with torch.no_grad():
        for mean, value in zip(learner.average.parameters(), learner.painter.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
    learner.step += 1
    return figures


def learning_rate(step: int, steps: int) -> float:
    """Share of the full rate at step 0, 1 ...: a short rise, level for half the run, then half a cosine down to 2 %."""
    rise = min(1.0, (step + 1) / 100)
    late = max(0.0, 2 * step / steps - 1)
    return rise * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * late)))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.backends.mkldnn.is_available())


def parameters(net: torch.nn.Module) -> int:
    return sum(each.numel() for each in net.parameters())


def batch_of(mouths: Mouths, config: MouthConfig, step: int, chances: NDArray[np.floating], how: Variation) -> Batch:
    random = np.random.default_rng([config.seed, step])
    chosen = random.choice(len(mouths), config.batch_size, p=chances)
    return stacked([example(mouths, int(i), random, how) for i in chosen])


def stacked(examples: list[Example]) -> Batch:
    given, target, told = (
        torch.from_numpy(np.stack([getattr(each, name) for each in examples])) for name in ("given", "target", "told")
    )
    return given, target, told


def _chances(mouths: Mouths, fine: NDArray[np.bool_], share: float) -> NDArray[np.float64]:
    """How often each mouth is drawn. Smiles full of teeth are many; wide mouths, and those that show more than teeth,
    are few, and drawn more often."""
    area = (mouths.openings > 127).sum((1, 2)) / PER_MM**2
    chances = np.clip(area / _WIDE[0], 1, _WIDE[1])
    for index in range(len(mouths)):
        told = example(mouths, index, np.random.default_rng(0), PLAIN).told
        bare = 1 - float(told[2:4].sum() / max(told[1].sum(), 1.0))
        chances[index] *= 1 + _BARE * min(max(2 * bare - 0.6, 0.0), 1.0)
    for part, amount in ((fine, share), (~fine, 1 - share if fine.any() else 1)):
        if part.any():
            chances[part] *= amount / chances[part].sum()
    return chances


@torch.no_grad()
def painted(net: Painter, mouths: Mouths, members: NDArray[np.integer]) -> tuple[Tensor, Batch]:
    """What the network paints into mouths as they are (n, 3, H, W), and the batch that it was given."""
    batch = stacked([example(mouths, int(i), np.random.default_rng(0), PLAIN) for i in members])
    with autocast():
        return net(batch[0], batch[2]).float(), batch


def errors(net: Painter, mouths: Mouths) -> NDArray[np.float64]:
    """Mean absolute difference, in grey levels of 255, of each mouth (n,) within its opening."""
    found = []
    for part in np.array_split(np.arange(len(mouths)), max(1, len(mouths) // 32)):
        made, (_, target, told) = painted(net, mouths, part)
        found.append(within((made - target).abs(), told[:, 1:2]).numpy() * 127.5)
    return np.concatenate(found)


def _clean(learner: Learner, mouths: Mouths, config: MouthConfig, say: Say) -> None:
    off = errors(learner.average, mouths)
    worst = np.argsort(off)[len(off) - int(config.clean * len(off)) :]
    learner.kept[torch.from_numpy(worst)] = False
    say(f"left out {len(worst)} mouths of more than {off[worst].min() if len(worst) else 0:.0f} grey levels")


def look(net: Painter, mouths: Mouths, path: Path) -> float:
    """Write a sheet (given, painted, real) of the first mouths held out and the last; return the mean error of all."""
    shown = np.unique(np.r_[np.arange(min(len(mouths), _SHOWN - 8)), np.arange(max(0, len(mouths) - 8), len(mouths))])
    made, (given, target, told) = painted(net, mouths, shown)
    hole = told[:, :1]
    rows = [given * (1 - hole) - hole, given * (1 - hole) + made * hole, target]
    tiles = torch.cat(rows, 2).permute(0, 2, 3, 1).numpy()
    lines = [np.concatenate(list(tiles[i : i + 8]), 1) for i in range(0, len(tiles) - 7, 8)] or [tiles[0]]
    sheet = np.clip((np.concatenate(lines) + 1) * 127.5, 0, 255).astype(np.uint8)
    write_bytes(path, cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes())
    return float(errors(net, mouths).mean())
