"""The supervised start: its loss by hand, its draws, runs that resume bit for bit; and the GAN that begins from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from exprtool.errors import DataError, ModelError, TrainingError, UsageError  # noqa: E402
from exprtool_gan import loop  # noqa: E402
from exprtool_gan.config import TrainConfig  # noqa: E402
from exprtool_gan.pairs import People, Start, pair_loss  # noqa: E402
from exprtool_gan.pairs_config import PairsConfig  # noqa: E402
from exprtool_training.data import PrepareOptions, ScanOptions, prepare, read_prepared  # noqa: E402
from exprtool_training.loop import Outcome  # noqa: E402
from exprtool_training.loop import train as run  # noqa: E402
from exprtool_usgan.checkpoint import load_discriminator, load_generator, read_card  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People of one colour each, who are lighter in the lower half when happy and darker when sad."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    for person in range(10):
        face = rng.integers(90, 160, 3) + rng.integers(-3, 4, (16, 16, 3))
        for name, change in (("neutral", 0), ("happy", 60), ("sad", -60)):
            changed = face.copy()
            changed[8:] += change
            path = folder / "raw" / name / f"{person:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(changed.astype(np.uint8)).save(path)
    options = PrepareOptions(16, "centre", test_fraction=0.2)
    prepare([folder / "raw"], folder / "prepared", options, ScanOptions(), workers=1)
    return folder / "prepared"


def config(faces: Path, out: Path, **changes: object) -> PairsConfig:
    tiny = dict(
        data=(faces,), out=out, image_size=16, steps=8, batch_size=2, device="cpu", log_every=2, look_every=4,
        sample_every=0, tensorboard=False, validation_fraction=0.2,
    )  # fmt: skip
    return PairsConfig(**{**tiny, **changes})  # type: ignore[arg-type]


def begin(config: PairsConfig) -> Outcome:
    return run(config, Start)


def test_loss_by_hand():
    """Two pixels, one that is to change by 0.4 and one by 2 (counted as 0.5), missed by 0.1 and 1."""
    x = torch.zeros(1, 1, 1, 2)
    target, y = torch.tensor([[[[0.4, 2.0]]]]), torch.tensor([[[[0.3, 1.0]]]])
    assert float(pair_loss(y, x, target, emphasis=4)) == pytest.approx(((1 + 1.6) * 0.1 + (1 + 2.0) * 1) / 2)
    assert float(pair_loss(y, x, target, emphasis=0)) == pytest.approx(1.1 / 2)


def test_pairs_are_of_one_person(faces: Path, tmp_path: Path):
    prepared = read_prepared(faces)
    train = prepared.train[1:]  # one person lacks a picture
    found = People.of(prepared, train)
    assert found.places.shape == (len({prepared.people[i] for i in train}), 3) and (found.places < 0).sum() == 1
    draw = found.draw(config(faces, tmp_path, batch_size=64, from_neutral=1.0), 5)
    pairs = list(zip(draw.source, draw.target, strict=True))
    assert all(prepared.people[a] == prepared.people[b] for a, b in pairs)
    assert (prepared.labels[draw.target] == draw.label).all() and set(draw.label) == {0, 1, 2}
    neutral = prepared.label_names.index("neutral")
    assert {int(prepared.labels[a]) for a in draw.source} <= {neutral, int(prepared.labels[prepared.train[0]])} | {
        int(prepared.labels[a]) for a in draw.source if found.places[:, neutral].min() < 0
    }
    again = found.draw(config(faces, tmp_path, batch_size=64, from_neutral=1.0), 5)
    assert all(np.array_equal(value, vars(again)[name]) for name, value in vars(draw).items())
    with pytest.raises(DataError, match="two expressions"):
        People.of(prepared, train[prepared.labels[train] == neutral])


def test_a_start_begins_with_the_skip_alone(faces: Path, tmp_path: Path):
    begin(config(faces, tmp_path / "run", steps=1, lr=0.0))
    generator, card = load_generator(tmp_path / "run")
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(generator(x, torch.eye(len(card.labels))[:1]), x)


def test_a_start_learns_and_resumes_bit_for_bit(faces: Path, tmp_path: Path):
    straight = config(
        faces, tmp_path / "straight", lr=1e-3, steps=32, batch_size=4, ema=0.8, decay_from=1.0, from_neutral=1.0,
        look_every=32, sample_every=32,
    )  # fmt: skip
    outcome = begin(straight)
    assert outcome.finished and not outcome.interrupted
    lines = [json.loads(line) for line in (straight.out / "log.jsonl").read_text().splitlines()]
    (look,) = [line["look"] for line in lines if "look" in line]
    assert look["distance"] < 0.8 * look["nothing"]
    assert outcome.best == -look["distance"] and (straight.out / "checkpoints" / "best.safetensors").is_file()
    assert (straight.out / "samples" / "step-000032.png").is_file()

    halves = replace(straight, out=tmp_path / "halves", look_every=0)
    assert begin(replace(halves, stop_at=9)).step == 9
    assert begin(PairsConfig.from_settings({"out": halves.out, "resume": True, "stop_at": 0})).finished
    one, two = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("straight", "halves"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(UsageError, match="--lr"):
        PairsConfig.from_settings({"out": halves.out, "resume": True, "lr": 1e-2})


def test_the_gan_begins_from_a_start(faces: Path, tmp_path: Path):
    begin(config(faces, tmp_path / "start", steps=2))
    begun = TrainConfig(
        data=(faces,), out=tmp_path / "gan", image_size=16, d_layers=3, d_channels=4, steps=3, d_steps=1, d_first=2,
        stop_at=2, batch_size=2, crop="centre", device="cpu", look_every=0, sample_every=0, tensorboard=False,
        begin_from=str(tmp_path / "start"),
    )  # fmt: skip
    loop.train(begun)
    first, _ = load_generator(tmp_path / "start")
    kept, _ = load_generator(begun.out, weights="raw")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), kept.parameters(), strict=True))  # D alone learned
    d = load_discriminator(begun.out)[0].state_dict()
    loop.train(replace(begun, resume=True, stop_at=0))
    moved, _ = load_generator(begun.out, weights="raw")
    assert not torch.equal(moved.main[0].weight, kept.main[0].weight)

    again = replace(begun, out=tmp_path / "again", begin_from=str(begun.out), stop_at=0, steps=1, lr=0.0)
    loop.train(again)  # from a run of the GAN also its D
    assert read_card(again.out).step == 1
    assert load_discriminator(again.out)[0].state_dict().keys() == d.keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            load_discriminator(again.out)[0].parameters(), load_discriminator(begun.out)[0].parameters(), strict=True
        )
    )


def test_what_cannot_be_begun_from_is_refused(faces: Path, tmp_path: Path):
    begin(config(faces, tmp_path / "start", steps=1))
    gan = TrainConfig(
        data=(faces,), out=tmp_path / "gan", image_size=16, d_layers=3, d_channels=4, steps=1, batch_size=2, channels=8,
        crop="centre", device="cpu", tensorboard=False, begin_from=str(tmp_path / "start"),
    )  # fmt: skip
    with pytest.raises(TrainingError, match="another generator"):
        loop.train(gan)
    with pytest.raises(ModelError, match="There is no"):
        loop.train(replace(gan, begin_from=str(tmp_path / "nothing")))
    with pytest.raises(UsageError, match="--steps"):
        PairsConfig(steps=0)
