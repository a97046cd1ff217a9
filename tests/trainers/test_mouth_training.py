"""From photos of open mouths to the file that paints them: tiny sets, a few steps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from exprtool.anatomy.interior import MouthPainter  # noqa: E402
from exprtool.anatomy.mouth_crop import CHANNELS, HEIGHT, PER_MM, WIDTH  # noqa: E402
from exprtool.errors import DataError, TrainingError  # noqa: E402
from exprtool_flow.points import mean_points  # noqa: E402
from exprtool_mouth.augment import PLAIN, Variation, example  # noqa: E402
from exprtool_mouth.config import MouthConfig  # noqa: E402
from exprtool_mouth.data import ROOM, Mouths, filled, held_out, open_mouths, outline_of, what_shows  # noqa: E402
from exprtool_mouth.export import export  # noqa: E402
from exprtool_mouth.loop import STATE, learning_rate, load_sets, train  # noqa: E402
from exprtool_mouth.losses import critic_loss, difference, painter_loss, within  # noqa: E402
from exprtool_mouth.networks import Critic, Painter  # noqa: E402

SKIN, LIPS, TEETH, TONGUE, DARK = (205, 150, 125), (170, 90, 88), (225, 220, 205), (190, 95, 95), (18, 10, 10)
SIDE, TINY = 224, (8, 8, 8)


def face(seed: int, gap: float = 18.0, teeth: float = 6.0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A drawn face (H, W, 3) with its landmarks; the mouth is open by ``gap`` pixels, of which so many are teeth."""
    random = np.random.default_rng(seed)
    points = mean_points().numpy() * SIDE
    points[[55, 56, 57, 58, 59]] += [0, gap]
    points[[65, 66, 67], 1] = points[[63, 62, 61], 1] + gap
    photo = np.empty((SIDE, SIDE, 3), np.float32)
    photo[:] = SKIN
    for outline, colour in ((points[48:60], LIPS), (outline_of(points), DARK)):
        cv2.fillPoly(photo, [np.rint(outline).astype(np.int32)], colour)
    inside = filled(outline_of(points), (SIDE, SIDE)) > 0.5
    top = np.argmax(inside, axis=0)
    rows = np.arange(SIDE)[:, None]
    photo[inside & (rows < top + teeth)] = TEETH
    photo[inside & (rows > top + 0.7 * gap)] = TONGUE
    photo = photo * random.uniform(0.8, 1.1) + random.normal(0, 2, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8), points.astype(np.float32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six open mouths and a closed one, with their landmarks."""
    folder = tmp_path_factory.mktemp("mouths")
    marks = []
    for number in range(7):
        photo, points = face(number, gap=0.0 if number == 6 else 16.0 + number)
        cv2.imwrite(str(folder / f"{number}.png"), photo[:, :, ::-1])
        marks.append(points)
    np.savez(folder / "landmarks.npz", name=[f"{number}.png" for number in range(7)], landmarks=np.stack(marks))
    return folder


@pytest.fixture(scope="module")
def mouths(photos: Path) -> Mouths:
    return open_mouths(photos)


def config(photos: Path, out: Path, steps: int) -> MouthConfig:
    return MouthConfig(
        (photos,), out, held_out=(2,), steps=steps, batch_size=2, critic_from=2, clean=0.0, look_every=99
    )


def test_open_mouths_are_cut_out_upright_and_closed_ones_left_out(mouths: Mouths) -> None:
    assert sorted(mouths.names) == [f"{number}.png" for number in range(6)]
    assert mouths.pictures.shape[1:] == (HEIGHT + 2 * ROOM, WIDTH + 2 * ROOM, 3)
    for opening in mouths.openings:
        rows, columns = np.nonzero(opening > 127)
        assert abs(columns.mean() - (WIDTH + 2 * ROOM) / 2) < 4 and abs(rows.mean() - (HEIGHT + 2 * ROOM) / 2) < 8
        assert 30 < np.ptp(columns) / PER_MM < 60


def test_a_set_without_open_mouths_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="open mouth"):
        open_mouths(tmp_path)


def test_what_shows_is_read_from_the_colours(mouths: Mouths) -> None:
    for index in range(len(mouths)):
        wish = mouths.wish(index)
        assert wish.upper is not None and wish.lower is None, "teeth above, a tongue below"
        inside = mouths.openings[index] > 127
        middle = inside.shape[1] // 2
        top = int(np.argmax(inside[:, middle]))
        end = np.interp(middle, wish.upper[:, 0], wish.upper[:, 1])
        assert end - top == pytest.approx(6 / mouths.detail[index], abs=3.0)
        assert 0.1 < wish.dark < 0.6 and 0.1 < wish.tongue < 0.7
    grey = np.repeat(mouths.pictures[0].mean(-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    wish, _ = what_shows(grey, mouths.openings[0] / np.float32(255))
    assert wish.upper is not None, "teeth are seen in grey photos as well"


def test_who_is_held_out_depends_on_names_alone() -> None:
    names = [f"train_{number}.jpg" for number in range(50)]
    out = held_out(names, 10)
    assert out.sum() == 10
    turned = held_out(names[::-1], 10)
    assert np.array_equal(out, turned[::-1])


def test_examples_are_whole_repeatable_and_differ(mouths: Mouths) -> None:
    one, same, other = (example(mouths, 0, np.random.default_rng(seed), Variation()) for seed in (1, 1, 2))
    assert np.array_equal(one.given, same.given) and not np.array_equal(one.given, other.given)
    for made in (one, other, example(mouths, 0, np.random.default_rng(0), PLAIN)):
        assert made.given.shape == made.target.shape == (3, HEIGHT, WIDTH)
        assert made.told.shape == (CHANNELS - 3, HEIGHT, WIDTH)
        assert np.abs(made.given).max() <= 1 and np.abs(made.target).max() <= 1
        assert made.told[:2].min() >= 0 and made.told[:2].max() <= 1 and made.told[0].max() > 0.5
    plain = example(mouths, 0, np.random.default_rng(0), PLAIN)
    assert np.array_equal(plain.given, plain.target) and (plain.told[0] >= plain.told[1]).all()


def test_losses_on_small_numbers() -> None:
    hole = torch.zeros(1, 1, 4, 4)
    hole[..., :2] = 1
    real, painted = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)
    assert within(painted, hole).item() == pytest.approx(0.5)
    assert difference(painted, real, hole).item() == pytest.approx(0.5, rel=1e-4), "the same at each size"
    assert difference(painted * (1 - hole), real, hole).item() < 0.2, "what lies outside does not count"
    judged = torch.tensor([[[[2.0, -1.0], [2.0, -1.0]]]])  # left: in the hole, right: not
    assert critic_loss(judged, -judged, hole).item() == pytest.approx(0), "sure about both"
    assert critic_loss(-judged, judged, hole).item() == pytest.approx(6, rel=1e-4)
    assert painter_loss(judged, hole).item() == pytest.approx(-2, rel=1e-4)


def test_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == rates[500] == 1 and rates[-1] < 0.025
    assert (np.diff(rates[500:]) <= 0).all()


def test_networks_fit_each_other_and_the_file() -> None:
    picture, told = torch.zeros(2, 3, HEIGHT, WIDTH), torch.zeros(2, CHANNELS - 3, HEIGHT, WIDTH)
    assert Painter(TINY)(picture, told).shape == picture.shape
    judgement, features = Critic((8, 8, 8, 8))(picture, told)
    assert judgement.shape[:2] == (2, 1) and len(features) == 4
    told[:, :1] = 1
    painter = Painter(TINY).eval()
    assert torch.equal(painter(picture, told), painter(picture + 0.5, told)), "what is in the hole cannot be seen"


def test_a_run_resumes_bit_for_bit_and_its_file_paints(photos: Path, tmp_path: Path) -> None:
    whole = train(config(photos, tmp_path / "whole", 4))
    train(config(photos, tmp_path / "parts", 4), stop_at=3)
    parts = train(config(photos, tmp_path / "parts", 4))
    assert whole.step == parts.step == 4
    for one, other in zip(whole.average.parameters(), parts.average.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "whole" / "look-000004.png").is_file()
    made = export(tmp_path / "whole", tmp_path / "mouth.onnx")
    assert made.bytes < 4_000_000 and made.difference < 0.02
    given = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    painted = MouthPainter(tmp_path / "mouth.onnx").paint(given, np.zeros((CHANNELS - 3, HEIGHT, WIDTH), np.float32))
    assert painted.shape == given.shape and painted.min() >= 0 and painted.max() <= 255


def test_other_data_does_not_go_on_with_a_run(photos: Path, tmp_path: Path) -> None:
    train(config(photos, tmp_path, 1))
    mouths, _, _ = load_sets(config(photos, tmp_path, 1))
    mouths.part(np.arange(3)).save(tmp_path / "mouths-0.npz")
    with pytest.raises(TrainingError, match="another set"):
        train(config(photos, tmp_path, 2))
    assert (tmp_path / STATE).is_file()
