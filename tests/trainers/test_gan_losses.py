"""The paper's equations on numbers worked out by hand, and the pure functions that steer a run."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool.errors import TrainingError, UnknownNameError, UsageError  # noqa: E402
from exprtool_gan import losses  # noqa: E402
from exprtool_gan.sampler import Sampler  # noqa: E402
from exprtool_gan.step import LOSS_NAMES  # noqa: E402
from exprtool_training.loss_log import LossLog  # noqa: E402
from exprtool_training.schedule import ema_decay, learning_rate, total_steps  # noqa: E402
from exprtool_usgan.config import DiscriminatorConfig  # noqa: E402
from exprtool_usgan.networks import Discriminator  # noqa: E402


def near(expected: float):
    return pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_critic_is_fake_minus_real():
    assert float(losses.critic(torch.tensor([1.0, 3.0]), torch.tensor([0.5, -1.5]))) == near(-0.5 - 2.0)


def test_gradient_penalty_by_hand():
    """Two images of four values: norms 5 and 0, hence ((5 - 1)^2 + (0 - 1)^2) / 2."""
    gradient = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2).requires_grad_()
    penalty = losses.gradient_penalty(gradient)
    assert float(penalty.detach()) == near((16 + 1) / 2)
    penalty.backward()
    assert gradient.grad is not None and gradient.grad.isfinite().all()  # the root has no infinite slope at 0
    assert float(gradient.grad.flatten()[0]) == near((2 * 4 * 3 / 5) / 2)


def test_interpolation_goes_from_generated_to_real():
    x, y = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), -2.0)
    mixed = losses.interpolate(x, y, torch.tensor([1.0, 0.25]))
    assert float(mixed[0]) == near(2.0)
    assert float(mixed[1]) == near(-1.0)


def test_reconstruction_is_the_mean_distance():
    assert float(
        losses.reconstruction(torch.tensor([1.0, -1.0, 0.5, 0.0]), torch.tensor([0.0, 1.0, 0.5, 0.5]))
    ) == near(3.5 / 4)


def test_expression_is_cross_entropy():
    """-log softmax: for logits (0, log 3) and label 1 it is -log(3/4), for label 0 -log(1/4)."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    assert float(losses.expression(logits, torch.tensor([1, 0]))) == near((math.log(4 / 3) + math.log(4)) / 2)


def test_totals_are_equations_7_and_8():
    t = torch.tensor
    assert float(losses.discriminator_total(t(-2.5), t(0.3), t(0.7), lambda_gp=10, lambda_c=2)) == near(-2.5 + 3 + 1.4)
    assert float(losses.generator_total(t([1.0, 2.0]), t(0.7), t(0.25), lambda_c=2, lambda_r=10)) == near(
        -1.5 + 1.4 + 2.5
    )


@pytest.mark.parametrize("score", ["sum", "mean"])
def test_gradient_written_out_equals_differentiating_twice(score: str):
    """Value, and gradient in every weight of D, against autograd in double precision, with 2 x 2 patch scores."""
    torch.manual_seed(0)
    discriminator = Discriminator(DiscriminatorConfig(3, 32, 4, 4)).double()
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64) * 2 - 1
    free = x.clone().requires_grad_()
    scores = discriminator.score(free)
    assert scores.shape == (3, 1, 2, 2)
    scalar = scores.sum() if score == "sum" else scores.mean((1, 2, 3)).sum()
    (expected,) = torch.autograd.grad(scalar, free, create_graph=True)
    found = losses.score_gradient(discriminator, x, score)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    named = dict(discriminator.named_parameters())
    wanted = torch.autograd.grad(losses.gradient_penalty(expected), list(named.values()), allow_unused=True)
    got = torch.autograd.grad(losses.gradient_penalty(found), list(named.values()), allow_unused=True)
    reached = 0
    for name, a, b in zip(named, wanted, got, strict=True):
        if b is None:
            assert a is None or not a.any(), name
        else:
            assert a is not None, name
            torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-12)
            reached += 1
    assert reached == 5  # four layers and the head; no bias, and nothing of the expression head


def test_learning_rate():
    rates = [learning_rate(step, 10, 1e-4, 0.5) for step in range(10)]
    assert rates[:6] == [1e-4] * 6
    assert rates[6:] == pytest.approx([0.8e-4, 0.6e-4, 0.4e-4, 0.2e-4])
    assert learning_rate(10, 10, 1e-4, 0.5) == 0
    assert {learning_rate(step, 10, 1e-4, 1.0) for step in range(10)} == {1e-4}
    assert learning_rate(0, 10, 1.0, 0.0) == 1.0 and learning_rate(9, 10, 1.0, 0.0) == pytest.approx(0.1)


def test_length_of_the_papers_run():
    assert total_steps(0, 350, 2312, 8) == 101_150
    assert total_steps(7, 350, 2312, 8) == 7
    assert total_steps(0, 1, 9, 8) == 2


def test_average_forgets_its_first_weights():
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(10**6, 0.999) == 0.999
    assert all(ema_decay(n, 0.999) < ema_decay(n + 1, 0.999) for n in range(100))


# --- sampler ---------------------------------------------------------------------------------------------------------

LABELS = np.array([0, 1, 2, 3, 4, 5, 6] * 3, dtype=np.int64)


def test_every_image_comes_equally_often():
    sampler = Sampler(LABELS, 7, 8, seed=3)
    drawn = np.concatenate([sampler.draw(step).index for step in range(21)])  # 8 epochs of 21
    assert np.bincount(drawn, minlength=21).tolist() == [8] * 21
    for epoch in range(8):
        assert sorted(drawn[epoch * 21 : (epoch + 1) * 21]) == list(range(21))
    assert drawn[:21].tolist() != drawn[21:42].tolist()


def test_a_step_draws_the_same_whatever_went_before():
    one, other = Sampler(LABELS, 7, 8, seed=3, shift=4, colour=0.2), Sampler(LABELS, 7, 8, seed=3, shift=4, colour=0.2)
    for step in range(5):
        one.draw(step)
    for name in ("index", "target", "epsilon", "flip", "shift", "gain", "offset"):
        assert np.array_equal(getattr(one.draw(5), name), getattr(other.draw(5), name)), name
    assert not np.array_equal(one.draw(5).epsilon, Sampler(LABELS, 7, 8, seed=4).draw(5).epsilon)


def test_targets():
    steps = range(300)
    permute = Sampler(LABELS, 7, 8, targets="permute")
    for step in range(20):
        draw = permute.draw(step)
        assert sorted(draw.target) == sorted(LABELS[draw.index])
    different = Sampler(LABELS, 7, 8, targets="different")
    pairs = [(LABELS[d.index], d.target) for d in map(different.draw, steps)]
    assert all((source != target).all() for source, target in pairs)
    assert set(np.concatenate([target for _, target in pairs])) == set(range(7))
    uniform = Sampler(LABELS, 7, 8, targets="uniform")
    counts = np.bincount(np.concatenate([uniform.draw(step).target for step in steps]), minlength=7)
    assert counts.min() > 2400 / 7 * 0.8


def test_permuted_targets_equal_their_source_a_quarter_of_the_time():
    """The known weakness of the published code, at batch 8 of 7 balanced labels."""
    sampler = Sampler(np.arange(7).repeat(300).astype(np.int64), 7, 8)
    same = [
        np.mean(d.target == LABELS7) for d in map(sampler.draw, range(2000)) for LABELS7 in [sampler.labels[d.index]]
    ]
    assert np.mean(same) == pytest.approx(0.25, abs=0.02)


def test_samplers_that_cannot_work_are_refused():
    with pytest.raises(UsageError, match="learns to do nothing"):
        Sampler(LABELS, 7, 1)
    with pytest.raises(UsageError, match="larger than the training set of 21"):
        Sampler(LABELS, 7, 22)
    with pytest.raises(UnknownNameError, match="permute, uniform, different"):
        Sampler(LABELS, 7, 8, targets="random")


# --- what is logged --------------------------------------------------------------------------------------------------


def test_means_of_losses_that_occurred():
    log = LossLog(LOSS_NAMES, 4, torch.device("cpu"))
    log.add(1, torch.tensor([1.0, 2, 3, 4, 5]))
    log.add(2, torch.tensor([3.0, 4, 5, 6, 7, 10, 11, 12, 13]))
    means = log.take()
    assert means["d_real"] == 2 and means["d_total"] == 6 and means["g_rec"] == 12
    assert len(log) == 0
    log.add(3, torch.tensor([1.0, 2, 3, 4, 5]))
    assert "g_rec" not in log.take()


def test_nan_is_reported_with_its_place():
    log = LossLog(LOSS_NAMES, 4, torch.device("cpu"))
    log.add(41, torch.ones(5))
    log.add(42, torch.tensor([1.0, 1, math.nan, 1, math.nan]))
    with pytest.raises(TrainingError, match=r"d_gp became nan at step 42"):
        log.check()
