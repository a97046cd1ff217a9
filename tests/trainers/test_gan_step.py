"""The faster step against the plain one: the same losses and weights, layout, products and precision aside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool_gan import loop, toy  # noqa: E402
from exprtool_gan.config import TrainConfig  # noqa: E402
from exprtool_gan.feed import Feed  # noqa: E402
from exprtool_gan.sampler import Sampler  # noqa: E402
from exprtool_gan.step import Batch, Learner  # noqa: E402
from exprtool_usgan import networks  # noqa: E402

CPU = torch.device("cpu")
CONFIG = TrainConfig(image_size=32, channels=4, d_channels=4, d_layers=5, batch_size=4, d_steps=2)
STEPS = 30


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(*, batches: int = 0, half: bool = False, layout: Any = None) -> Any:
    """What G makes of a few drawn faces after thirty steps from one set of first weights, (N, 3, S, S)."""
    images = np.stack([toy.draw_face(person, name) for person in range(12) for name in toy.EXPRESSIONS])
    labels = np.tile([0, 1], 12).astype(np.int64)
    torch.manual_seed(0)
    learner = Learner(CONFIG, 2, CPU, average=lambda gradients: None, half=half)
    if layout is not None:
        learner.memory_format = layout
        for net in (learner.generator, learner.discriminator):
            net.to(memory_format=layout)  # type: ignore[call-overload]
    feed = Feed(images, Sampler(labels, 2, CONFIG.batch_size, seed=batches), CPU)
    for step in range(STEPS):
        batch = feed.batch(step)
        (learner.both_steps if step % CONFIG.d_steps else learner.discriminator_step)(batch)
    feed.close()
    x = torch.from_numpy(images[:6]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        return learner.generator.edit(x, torch.eye(2)[[1, 0] * 3])


def apart(one: Any, other: Any) -> float:
    return float((one - other).abs().mean())


def test_thirty_steps_stay_within_the_spread_of_other_batches(monkeypatch: pytest.MonkeyPatch):
    new, half = trained(), trained(half=True)
    spread = apart(new, trained(batches=1))
    monkeypatch.setattr(networks, "LARGEST_PRODUCT_SIDE", 0)
    old = trained(layout=torch.channels_last)
    assert apart(new, old) < 0.25 * spread
    assert apart(half, old) < 0.5 * spread
    assert not torch.equal(half, new)  # it did compute in another precision


@pytest.mark.parametrize(("told", "exact"), [("float32", True), ("as-networks", False)])
def test_the_penalty_stays_in_float32_unless_told(told: str, exact: bool):
    config = TrainConfig(**{**CONFIG.__dict__, "gp_precision": told})
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    label, epsilon = torch.tensor([0, 1, 0, 1]), torch.ones(4)  # x_bar is x itself, whatever G makes
    penalties = []
    for half in (False, True):
        torch.manual_seed(0)
        learner = Learner(config, 2, CPU, average=lambda gradients: None, half=half)
        penalties.append(float(learner.discriminator_step(Batch(x, label, label.flip(0), epsilon))[2]))
    assert (penalties[0] == penalties[1]) == exact
    assert penalties[0] == pytest.approx(penalties[1], rel=0.02)


@pytest.mark.parametrize(
    ("told", "half"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False}, False), ({}, False)],
)
def test_auto_takes_bfloat16_where_the_processor_multiplies_it(
    told: dict[str, bool], half: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert loop.in_bfloat16("auto", CPU) == half
    assert loop.in_bfloat16("bfloat16", CPU)
    assert not loop.in_bfloat16("float32", CPU)
