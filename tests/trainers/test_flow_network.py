"""The flow network's parts on numbers worked out by hand: shapes, pictures, losses, learning rate."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool.errors import UsageError  # noqa: E402
from exprtool_flow import losses  # noqa: E402
from exprtool_flow.augment import Batch  # noqa: E402
from exprtool_flow.compose import compose, fine_flow, painted_over  # noqa: E402
from exprtool_flow.config import FlowConfig  # noqa: E402
from exprtool_flow.fields import _gathered, inverted, sample, warp  # noqa: E402
from exprtool_flow.loop import learning_rate  # noqa: E402
from exprtool_flow.motion import CELLS, SHAPES, Motion, bilinear, fit_motion  # noqa: E402
from exprtool_flow.networks import Answer, FlowNet, NetConfig, Painted, count_parameters, windows  # noqa: E402
from exprtool_flow.parts import Parts, split  # noqa: E402
from exprtool_flow.points import grid, mean_points  # noqa: E402
from exprtool_flow.shards import StoredPair  # noqa: E402

TINY = NetConfig(controls=5, size=64, widths=(4, 8, 8, 12, 12), embedding=8, detail=8)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_shapes_and_size_of_the_default_network() -> None:
    net = FlowNet(NetConfig(controls=57)).eval()
    assert 0.9e6 < count_parameters(net) < 3.5e6, "8 MB as float16, with room for the graph"
    with torch.no_grad():
        answer, seen = net(torch.rand(2, 3, 128, 128), torch.rand(2, 57))
    assert seen.worn.shape == (2, 57) and seen.points.shape == (2, 68, 2)
    assert answer.flow.shape == (2, 2, 128, 128)
    assert answer.shading.shape == (2, 3, 64, 64)
    assert set(answer.painted) == {"mouth", "right_eye", "left_eye"}
    for window in answer.painted.values():
        x0, y0, x1, y1 = window.box
        assert window.mask.shape == (2, 1, 2 * (y1 - y0), 2 * (x1 - x0))
        assert window.colour.shape == (2, 3, 2 * (y1 - y0), 2 * (x1 - x0))
        assert window.mask.min() >= 0 and window.mask.max() < 0.5, "an untrained network paints little"
        edges = (window.mask[..., 0, :], window.mask[..., -1, :], window.mask[..., 0], window.mask[..., -1])
        assert max(float(edge.max()) for edge in edges) < 0.2 * float(window.mask.max())


@pytest.mark.parametrize("size", [64, 128, 192])
def test_windows_are_mirror_images_and_do_not_overlap(size: int) -> None:
    boxes = windows(size)
    for name, twin in (("mouth", "mouth"), ("right_eye", "left_eye")):
        x0, y0, x1, y1 = boxes[name]
        assert boxes[twin] == (size - x1, y0, size - x0, y1)
    covered = np.zeros((size, size), int)
    for x0, y0, x1, y1 in boxes.values():
        covered[y0:y1, x0:x1] += 1
    assert covered.max() == 1


def test_the_encoder_does_not_see_the_condition_and_batches_do_not_mix() -> None:
    net = FlowNet(TINY).eval()
    image, wanted = torch.rand(3, 3, 64, 64), torch.rand(3, 5)
    with torch.no_grad():
        seen = net.encoder(image)
        second = [each[1:2] for each in seen.features], seen.points[1:2]
        one = net.decoder(wanted[1:2], seen.worn[1:2], *second)
        all_, _ = net(image, wanted)
        other = net.decoder(wanted[:1], seen.worn[1:2], *second)
        told, _ = net(image, wanted, torch.cat([seen.worn[:1], torch.rand(1, 5), torch.full((1, 5), torch.nan)]))
    assert torch.allclose(one.flow, all_.flow[1:2], atol=1e-5)
    assert not torch.allclose(one.flow, other.flow, atol=1e-5), "the condition must matter"
    same = [torch.allclose(told.flow[i], all_.flow[i], atol=1e-5) for i in range(3)]
    assert same == [True, False, True], "what is told counts, and where nothing is, what is read"


def test_landmarks_that_are_known_are_gone_by_and_the_others_found() -> None:
    net = FlowNet(TINY).eval()
    image, wanted = torch.rand(2, 3, 64, 64), torch.rand(2, 5)
    known = torch.stack([mean_points() + 0.02, torch.full((68, 2), torch.nan)])
    with torch.no_grad():
        alone, given = net.encoder(image), net.encoder(image, known)
        answers = net(image, wanted)[0], net(image, wanted, known=known)[0]
    assert torch.equal(given.points[0], known[0]) and torch.equal(given.points[1], alone.points[1])
    assert torch.equal(given.found, alone.points), "what the network itself finds is told all the same"
    read = net.encoder.reader(given.points)
    assert torch.allclose(given.worn, torch.where(read > 0.015, read, 0.0), atol=1e-6), "and no traces"
    same = [torch.allclose(answers[0].flow[i], answers[1].flow[i], atol=1e-5) for i in range(2)]
    assert same == [False, True]


def test_landmarks_start_at_their_means_and_carry_the_mean_faces_frame() -> None:
    net = FlowNet(TINY).eval()
    with torch.no_grad():
        seen = net.encoder(torch.rand(2, 3, 64, 64))
        assert (seen.points - mean_points()).abs().max() < 0.12, "an untrained network knows where faces' parts are"
        net.encoder.heat[1].bias[4 * 30 : 4 * 31] += 1000 * torch.tensor([1.0, 0, 0, 0])  # one in four cells
        assert torch.isfinite(net.encoder(torch.rand(2, 3, 64, 64)).points).all()
        still = net.decoder._frame(torch.zeros(1, 68, 2))
        moved = net.decoder._frame(torch.full((1, 68, 2), 0.05))
    assert torch.equal(still, grid(16)), "with all landmarks at their means every point is its own"
    assert torch.allclose(still[..., 8, 8] - moved[..., 8, 8], torch.tensor(0.05), atol=0.01), "the middle goes along"
    assert (still[..., 0, 0] - moved[..., 0, 0]).abs().max() < 0.01, "the corner of the picture does not"


def test_fields_are_sampled_at_points_of_the_side() -> None:
    field = torch.arange(8.0).expand(1, 1, 8, 8)  # the pixel k lies at (k + 0.5) / 8
    at = torch.tensor([[1.5, 0.0], [4.0, 4.0], [7.9, 1.0]]).div(8).T.reshape(1, 2, 1, 3)
    assert torch.allclose(sample(field, at)[0, 0, 0], torch.tensor([1.0, 3.5, 7.0]), atol=1e-5)


def test_gathering_is_sampling() -> None:
    torch.manual_seed(1)
    field, at = torch.rand(2, 13, 6, 9), torch.rand(2, 2, 5, 7) * 1.4 - 0.2  # some beyond the borders
    assert torch.allclose(_gathered(field, at), sample(field, at), atol=1e-5)
    assert _gathered(field[:0], at[:0]).shape == (0, 13, 5, 7)


def test_warp_moves_by_whole_and_half_pixels() -> None:
    image = torch.arange(20.0).reshape(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0] = 1.0  # what is shown here was one pixel to the right
    assert torch.allclose(warp(image, flow)[..., :4], image[..., 1:], atol=1e-4)
    flow[:, 0], flow[:, 1] = 0.0, 0.5
    assert torch.allclose(warp(image, flow)[0, 0, :3], image[0, 0, :3] + 2.5, atol=1e-4)
    coarse = torch.full((1, 2, 3, 3), 1.5)
    assert torch.equal(fine_flow(coarse), torch.full((1, 2, 6, 6), 3.0)), "twice the pixels, twice the way"


def test_inverted_motion_leads_back() -> None:
    place = grid(32)
    wave = 0.03 * torch.sin(6 * place.flip(1)) + 0.02 * place
    undone = inverted(wave)
    there_and_back = undone + sample(wave, place + undone)
    assert there_and_back[..., 4:-4, 4:-4].abs().max() < 2e-4 < wave.abs().max() / 50
    assert torch.allclose(inverted(torch.full((1, 2, 8, 8), 0.1)), torch.full((1, 2, 8, 8), -0.1))


def test_the_network_starts_with_the_motion_of_its_set() -> None:
    """A set in which the first control moves all to the right, the further the wider the face, and the second moves
    nothing: motion is found, and so is what it depends on."""
    random = np.random.default_rng(5)
    pairs = []
    for _ in range(120):
        weights, wide = random.random((2, 5), dtype=np.float32), np.float32(random.normal())
        away = np.zeros((68, 2), np.float32)
        away[:, 0] = (mean_points()[:, 0].numpy() - 0.5) * 0.05 * wide
        away += random.normal(0, 1e-4, away.shape).astype(np.float32)
        moved = (weights[1, 0] - weights[0, 0]) * (0.04 + 0.01 * wide)  # of the side, to the right
        flow = np.zeros((64, 64, 2), np.float16)
        flow[..., 0] = -64 * moved
        black = np.zeros((64, 64), np.uint8)
        picture = np.zeros((64, 64, 3), np.uint8)
        points = 64 * (mean_points().numpy() + away) - 0.5
        none = np.zeros(1, np.uint8)
        pair = StoredPair(picture, picture, flow, black, *weights, points, points, none, points, weights[0])
        pairs.append((pair, away, moved))
    motion = fit_motion([pair for pair, _, _ in pairs], range(len(pairs)))  # type: ignore[arg-type]
    assert motion.typical.shape == (2 * (CELLS // 2) ** 2, 5)
    assert float(motion.typical[: (CELLS // 2) ** 2, 0].mean()) == pytest.approx(0.04, rel=0.1)
    assert motion.typical[:, 1:].abs().max() < 0.004
    net = FlowNet(TINY).eval()
    net.decoder.begin_with(motion)
    for pair, away, moved in pairs[:5]:
        shift, difference = torch.from_numpy(away)[None], torch.from_numpy(pair.target_weights - pair.source_weights)
        with torch.no_grad():
            general = net.decoder._general(difference[None], shift, net.decoder._frame(shift))
        middle = general[0, :, 4:12, 4:12]
        assert torch.allclose(middle[0], torch.tensor(-float(moved)), atol=0.003)
        assert middle[1].abs().max() < 1e-3
    codes = bilinear(torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]]))
    assert codes.tolist() == [[2.0, 10.0, 14.0, 3.0, 15.0, 21.0]]
    few = Motion(motion.shape[:2], motion.basis[:, :3])  # a set of three portraits has two components
    net.decoder.begin_with(few)
    assert not net.decoder.shape[2:].any() and SHAPES > 2


def answer_of(side: int, *, light: float = 0.0, mask: float = -50.0, colour: float = 0.25) -> Answer:
    """Nothing moves; a window 2 pixels from the border; mask as a logit."""
    box = (2, 2, side - 2, side - 2)
    inner = 2 * (side - 4)
    window = Painted(
        box, torch.full((1, 1, inner, inner), mask), torch.ones(inner, inner), torch.full((1, 3, inner, inner), colour)
    )
    shading = torch.full((1, 3, side // 2, side // 2), light)
    return Answer(torch.zeros(1, 2, side, side), shading, {"mouth": window})


def test_composition_is_photo_times_light_under_paint() -> None:
    photo = torch.rand(1, 3, 16, 16)
    assert torch.allclose(compose(answer_of(8), photo), photo, atol=1e-4), "an answer that asks nothing changes nothing"
    assert torch.allclose(compose(answer_of(8, light=math.log(0.5)), photo), photo / 2, atol=1e-4)
    painted = compose(answer_of(8, mask=50.0), photo)
    assert torch.allclose(painted[..., 4:12, 4:12], torch.tensor(0.25), atol=1e-4)
    assert torch.allclose(painted[..., :4, :], photo[..., :4, :], atol=1e-4)
    mask, paint = painted_over(answer_of(8, mask=0.0))
    assert mask[0, 0, 6, 6] == 0.5 and paint[0, 0, 6, 6] == 0.125 and mask[0, 0, 0, 0] == 0


def test_flow_loss_by_hand() -> None:
    true = torch.zeros(1, 2, 4, 4)
    flow = torch.zeros(1, 2, 4, 4)
    known = torch.ones(1, 1, 4, 4)
    assert losses.flow_loss(flow, true, known) == pytest.approx(0.0, abs=1e-7)
    flow[0, :, 1, 1] = torch.tensor([3.0, 4.0])
    at_rest = (math.sqrt(25.01) - 0.1) * 0.35
    assert float(losses.flow_loss(flow, true, known)) == pytest.approx(at_rest / 16, rel=1e-5)
    moving = (math.sqrt(25.01) - 0.1) * (0.35 + 2 * math.tanh(5 / 1.5))
    assert float(losses.flow_loss(true, flow, known)) == pytest.approx(moving / 16, rel=1e-5)
    known[0, 0, 1, 1] = 0
    assert losses.flow_loss(true, flow, known) == pytest.approx(0.0, abs=1e-7), "painted pixels have no flow to learn"


def test_the_flow_counts_more_where_lids_and_lips_are() -> None:
    answer = answer_of(8)
    photo, nothing = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    points, weights = torch.rand(1, 68, 2), torch.zeros(1, 5)

    def loss(x: int, y: int) -> float:
        true = torch.zeros(1, 2, 8, 8)
        true[0, 0, y, x] = 1.0
        batch = Batch(
            torch.rand(1, 3, 8, 8), photo, photo, true, nothing, nothing + 1, weights, weights, weights, points, points,
            points,
        )  # fmt: skip
        return float(losses.losses(answer, batch)["flow"])

    assert loss(4, 4) == pytest.approx(3 * loss(1, 1), rel=1e-4), "the window is 2 pixels from the border"


def test_smaller_losses_by_hand() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    assert float(losses.total_variation(ramp)) == pytest.approx(1.0)
    mask, needed = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    mask[..., :5], needed[..., 2:7] = 1, 1  # 50 pixels each, 30 in common
    assert float(losses.dice_loss(mask, needed)) == pytest.approx(1 - 80 / 120)
    assert float(losses.dice_loss(mask, mask)) == pytest.approx(0.0)
    step = torch.zeros(1, 1, 2, 4)
    step[..., 2:] = 0.3  # one of three steps along x, none along y
    assert float(losses.edge_loss(step, torch.ones(1, 1, 2, 4))) == pytest.approx(0.1)
    weight = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    values = torch.tensor([[2.0, 4.0], [6.0, 0.0]]).reshape(1, 2, 1, 2)
    assert float(losses.weighted_mean(values, weight)) == pytest.approx((2 + 12 + 6 + 0) / 8)
    typical = torch.tensor([[0.0, 0.01], [0.0, 0.0]])  # the first control moves nothing, the second 1.28 / 128 along x
    reading = losses.reading_loss(torch.tensor([[0.3, 0.2]]), torch.tensor([[0.5, 0.1]]), typical)
    assert float(reading) == pytest.approx(0.128**2 / 2 + 10 * 0.025)
    found = torch.zeros(1, 68, 2)
    found[..., 0] = 1.2 / 128  # 1.3 with the half that the predictor itself is off
    assert float(losses.points_loss(found, torch.zeros(1, 68, 2))) == pytest.approx((1.3 + 0.5) / 2 - 0.5, rel=1e-5)
    logit = torch.full((1, 1, 4, 4), 0.0)
    half = losses.mask_loss(logit, torch.ones(4, 4), torch.zeros(1, 1, 4, 4))
    assert float(half) == pytest.approx(math.log(2) + 0.25 * (1 - 20 / 28), rel=1e-5)


def test_shading_loss_sees_ratios_of_light() -> None:
    moved = torch.full((1, 3, 4, 4), 0.55)
    target = torch.full((1, 3, 4, 4), 0.25)  # (0.25 + 0.05) / (0.55 + 0.05) = 1 / 2
    known = torch.ones(1, 1, 4, 4)
    right = torch.full((1, 3, 4, 4), math.log(0.5))
    assert float(losses.shading_loss(right, moved, target, known)) == pytest.approx(0.0, abs=1e-6)
    wrong = math.log(2) * (1 + 8 * 0.5)
    assert float(losses.shading_loss(right * 0, moved, target, known)) == pytest.approx(wrong, rel=1e-5)


def test_paint_is_needed_only_where_the_photo_has_not_got_it() -> None:
    photo, target = torch.full((1, 3, 32, 32), 0.5), torch.full((1, 3, 32, 32), 0.5)
    painted = torch.zeros(1, 1, 32, 32)
    painted[..., :16] = 1
    target[..., :8, :] = 0.9
    needed = losses.needed_paint(photo, photo, target, painted)
    assert needed[0, 0, 3, 3] == 1 and needed[0, 0, 3, 28] == 0, "only what the renderer drew anew"
    assert needed[0, 0, 28, 3] == 0, "an eye that looks the same keeps the photo's pixels"
    elsewhere = target.clone()  # what moves there explains it just as well
    assert losses.needed_paint(photo, elsewhere, target, painted).max() == 0


def test_learning_rate_rises_and_falls() -> None:
    config = FlowConfig(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], rel=0.05) and rates[9] > 0.97
    assert rates[50] == pytest.approx(0.5) and rates[99] < 0.001
    assert all(a >= b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize(("name", "value"), [("image_size", 100), ("flip", 1.5), ("lr", math.nan), ("steps", 0)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        FlowConfig(**{name: value})  # type: ignore[arg-type]


def test_parts_of_a_batch_add_up_to_its_mean() -> None:
    torch.manual_seed(3)
    net = FlowNet(TINY).train()
    alone = [copy.deepcopy(net) for _ in range(2)]
    wide = torch.rand(4, 3, 128, 128)
    one, five = torch.rand(4, 1, 128, 128), torch.rand(4, 5)
    points = torch.rand(4, 68, 2)
    batch = Batch(
        torch.rand(4, 3, 64, 64), wide, wide, torch.rand(4, 2, 64, 64), one, one, five, five, five, points, points,
        torch.full_like(points, torch.nan),
    )  # fmt: skip

    def work(net: FlowNet, part: Batch) -> torch.Tensor:
        answer, seen = net(part.seen, part.wanted, part.told, part.known)
        loss = answer.flow.pow(2).mean() + seen.worn.pow(2).mean() + seen.points.pow(2).mean()
        return torch.stack([loss, seen.worn.mean()])

    expected = [work(each, part) for each, part in zip(alone, split(batch, 2), strict=True)]
    (sum(figures[0] for figures in expected) / 2).backward()
    parts = Parts(net, 2)
    found = parts.backward(batch, work)
    parts.close()
    assert torch.allclose(found, torch.stack(expected).mean(0).detach())
    for mine, first, second in zip(*(each.parameters() for each in (net, *alone)), strict=True):
        grads = [each.grad for each in (first, second) if each.grad is not None]
        assert (mine.grad is None) == (not grads)
        if grads and mine.grad is not None:
            assert torch.allclose(mine.grad, sum(grads), rtol=1e-4, atol=1e-7)
    for mine, first, second in zip(*(each.buffers() for each in (net, *alone)), strict=True):
        assert torch.allclose(mine.float(), (first.float() + second.float()) / 2)
