"""Pairs on their way to the flow network: shards read in place, people kept apart, everything varied alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool.anatomy.names import CONTROLS  # noqa: E402
from exprtool.errors import DataError  # noqa: E402
from exprtool_flow.augment import MIRRORED, Sample, Variation, collate, mirror, vary  # noqa: E402
from exprtool_flow.bending import Bend  # noqa: E402
from exprtool_flow.compose import fine_flow  # noqa: E402
from exprtool_flow.feed import Feed  # noqa: E402
from exprtool_flow.fields import warp  # noqa: E402
from exprtool_flow.shards import FIELDS, StoredPair, open_sets, open_shard, person_of  # noqa: E402
from exprtool_synth.dataset import FORMAT  # noqa: E402


def drawn_pair(side: int, seed: int = 0) -> StoredPair:
    """A smooth picture and the same moved by a smooth flow, which is therefore true everywhere."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    unit = side / 64

    def picture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        waves = [np.sin(x / (5 * unit) + k) * np.cos(y / (4 * unit) - 2 * k) for k in range(3)]
        return np.clip(np.stack(waves, -1) * 90 + 128 + x[..., None] / side * 30, 0, 255).astype(np.uint8)

    bump = np.exp(-((x - 0.55 * side) ** 2 + (y - 0.6 * side) ** 2) / (2 * (0.15 * side) ** 2))
    flow = np.stack([2.5 * unit * bump, -1.5 * unit * bump], -1)
    weights = random.random((2, len(CONTROLS)), dtype=np.float32)
    painted = np.zeros((side, side), np.uint8)
    painted[side // 2 :, : side // 4] = 255
    return StoredPair(
        picture(x, y), picture(x + flow[..., 0], y + flow[..., 1]), flow.astype(np.float16), painted, *weights,
        *(side * random.random((2, 68, 2), dtype=np.float32)), np.array([seed % 2], np.uint8),
        side * random.random((68, 2), dtype=np.float32), random.random(len(CONTROLS), dtype=np.float32),
    )  # fmt: skip


def write_set(folder: Path, portraits: list[str], each: int = 2, side: int = 96) -> Path:
    """A finished set of drawn pairs, as `exprtool data synth` leaves it, in two shards."""
    (folder / "pairs").mkdir(parents=True)
    shards = []
    for number, names in enumerate((portraits[::2], portraits[1::2])):
        pairs = [drawn_pair(side, seed=number * 100 + i) for i in range(each * len(names))]
        arrays = {name: np.stack([getattr(pair, name) for pair in pairs]) for name in FIELDS}
        np.savez(folder / f"pairs/pairs-{number:05}.npz", **arrays)
        shards.append({"file": f"pairs/pairs-{number:05}.npz", "pairs": len(pairs)})
    sources = [
        {"name": name, "sha256": "0", "licence": "CC0", "pairs": each, "left_out": None}
        for name in portraits[::2] + portraits[1::2]
    ]
    sheet = {
        "format": FORMAT, "made_by": "a test", "controls": list(CONTROLS), "pairs": each * len(portraits),
        "shards": shards, "sources": sources,
    }  # fmt: skip
    (folder / "datasheet.json").write_text(json.dumps(sheet))
    return folder


def test_shards_are_mapped_not_loaded(tmp_path: Path) -> None:
    pairs = open_sets([write_set(tmp_path / "set", ["a-001", "a-002", "a-003"])])
    assert len(pairs) == 6 and pairs.size == 96
    assert list(pairs.portraits) == ["a-001", "a-001", "a-003", "a-003", "a-002", "a-002"]
    assert all(isinstance(array, np.memmap) for shard in pairs.shards for array in shard.values())
    expected, found = drawn_pair(96, seed=101), pairs[5]
    for name in FIELDS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_one_persons_portraits_stay_together_in_the_split(tmp_path: Path) -> None:
    names = [f"{folder}-{n:03}" for n in range(30) for folder in ("neutral", "happy")]
    pairs = open_sets([write_set(tmp_path / "set", names, each=1, side=64)])
    train, held = pairs.split(0.3, seed=1)
    assert sorted([*train, *held]) == list(range(60)) and 5 <= len(held) <= 40
    people = [{person_of(str(pairs.portraits[i])) for i in part} for part in (train, held)]
    assert not people[0] & people[1]
    assert np.array_equal(pairs.split(0.3, seed=1)[1], held)
    assert not np.array_equal(pairs.split(0.3, seed=2)[1], held)
    assert set(pairs.split(0.5, seed=1)[1]) >= set(held), "who is held out stays so when more are"


def test_unfinished_foreign_and_damaged_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished set"):
        open_sets([tmp_path])
    with pytest.raises(DataError, match="give --data"):
        open_sets([])
    folder = write_set(tmp_path / "set", ["a-1", "a-2"])
    sheet = json.loads((folder / "datasheet.json").read_text())
    (folder / "datasheet.json").write_text(json.dumps({**sheet, "controls": ["jawOpen"]}))
    with pytest.raises(DataError, match="other controls"):
        open_sets([folder])
    (folder / "datasheet.json").write_text(json.dumps(sheet))
    shard = folder / "pairs/pairs-00000.npz"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"pairs-00000\.npz"):
        open_sets([folder])
    np.savez_compressed(shard, source=np.zeros(3))
    with pytest.raises(DataError, match="compressed"):
        open_shard(shard)


def errors(sample: Sample) -> tuple[float, float]:
    """Mean error of the flow-warped photo against the target, and of the photo itself, in grey levels, inside."""
    batch = collate([sample])
    inside = batch.valid * 1.0
    inside[..., :12, :] = inside[..., -12:, :] = inside[..., :12] = inside[..., -12:] = 0
    moved = warp(batch.photo, fine_flow(batch.flow))
    return tuple(  # type: ignore[return-value]
        float(((each - batch.target).abs() * inside).sum() / inside.sum() / 3 * 255) for each in (moved, batch.photo)
    )


@pytest.mark.parametrize("stored", [96, 128, 200])
def test_the_flow_stays_true_whatever_is_varied(stored: int) -> None:
    variation = Variation(flip=0.5, turn=8, zoom=0.08, shift=0.03)
    for seed in range(6):
        moved, still = errors(vary(drawn_pair(stored), 64, variation, np.random.default_rng(seed)))
        assert moved < 1.5 and moved < 0.25 * still, (stored, seed)


def test_a_bent_face_keeps_its_motion_and_its_landmarks() -> None:
    shapes = []
    for seed in range(6):
        variation = Variation(turn=4, bend=0.02, tell=1.0, know=1.0)
        sample = vary(drawn_pair(128), 64, variation, np.random.default_rng(seed))
        moved, still = errors(sample)
        assert moved < 1.5 and moved < 0.25 * still, seed
        assert np.array_equal(sample.known, sample.points)
        shapes.append(sample.points)
    assert np.std(shapes, axis=0).mean() > 0.01, "each is another face"
    bend = Bend.drawn(64, 0.02, np.random.default_rng(1))
    point = np.array([[40.0, 21.0]])
    bent = bend.points(point)
    assert np.abs(bent - point).max() > 0.3
    x, y = np.rint(bent[0]).astype(int)
    assert bend.places(64)[y, x] - (np.array([x, y]) - bent[0]) == pytest.approx(point[0], abs=0.1)
    unbent = vary(drawn_pair(128), 64, Variation(bend=0.02, tell=0.0), np.random.default_rng(0))
    plain = vary(drawn_pair(128), 64, Variation(), np.random.default_rng(0))
    assert np.array_equal(unbent.photo, plain.photo), "what a fit would find in a bent face is not known"
    assert np.isnan(unbent.known).all()


def test_a_mirror_changes_sides() -> None:
    sample = vary(drawn_pair(128), 64, Variation(), np.random.default_rng(0))
    once, twice = mirror(sample), mirror(mirror(sample))
    for name in ("seen", "photo", "target", "flow", "painted", "valid", "worn", "wanted"):
        assert np.array_equal(getattr(twice, name), getattr(sample, name)), name
    assert np.array_equal(once.photo, sample.photo[:, ::-1])
    assert np.array_equal(once.flow[:, ::-1, 0], -sample.flow[..., 0])
    assert np.array_equal(once.flow[:, ::-1, 1], sample.flow[..., 1])
    left, right = CONTROLS.index("mouthSmileLeft"), CONTROLS.index("mouthSmileRight")
    assert once.wanted[left] == sample.wanted[right] and once.wanted[right] == sample.wanted[left]
    assert once.wanted[CONTROLS.index("jawOpen")] == sample.wanted[CONTROLS.index("jawOpen")]
    assert sorted(MIRRORED) == list(range(len(CONTROLS)))
    for name in ("points", "target_points"):
        assert np.allclose(getattr(twice, name), getattr(sample, name), atol=1e-6), name
    right_corner, left_corner = 48, 54
    assert once.points[right_corner] == pytest.approx([1, 0] + sample.points[left_corner] * [-1, 1])


def test_light_changes_source_and_target_alike_and_only_the_seen_crop_is_spoiled() -> None:
    pair = drawn_pair(128)
    twin = replace(pair, target=pair.source, target_points=pair.source_points)
    changed = 0
    for seed in range(8):
        plain = vary(twin, 64, Variation(), np.random.default_rng(seed))
        lit = vary(twin, 64, Variation(colour=1.0), np.random.default_rng(seed))
        assert np.array_equal(lit.photo, lit.target)
        assert np.array_equal(lit.flow, plain.flow)
        changed += not np.array_equal(lit.photo, plain.photo)
        spoiled = vary(twin, 64, Variation(spoil=1.0), np.random.default_rng(seed))
        assert np.array_equal(spoiled.photo, plain.photo)
    assert changed == 8


def test_asked_for_what_it_wears_a_face_keeps_still() -> None:
    pair = drawn_pair(128)
    sample = vary(pair, 64, Variation(same=1.0), np.random.default_rng(0))
    assert np.array_equal(sample.photo, sample.target) and not sample.flow.any() and not sample.painted.any()
    assert np.array_equal(sample.wanted, pair.source_weights)
    told, read = (vary(pair, 64, Variation(tell=share), np.random.default_rng(0)).told for share in (1.0, 0.0))
    assert np.array_equal(told, pair.source_weights) and np.isnan(read).all()


def test_batches_follow_from_seed_and_step_alone(tmp_path: Path) -> None:
    pairs = open_sets([write_set(tmp_path / "set", ["a-1", "a-2", "a-3"], each=2, side=64)])
    variation = Variation(flip=0.5, turn=3, zoom=0.03, shift=0.01, bend=0.01, colour=1.0, spoil=0.5, tell=0.5)
    threads = cv2.getNumThreads()

    def feed(workers: int) -> Feed:
        return Feed(pairs, np.arange(6), 64, 4, lambda step: variation, 7, workers, torch.device("cpu"))

    one, other = feed(1), feed(3)
    straight = [one.batch(step) for step in range(4)]
    late = other.batch(2)  # as after a resume
    for name in ("seen", "photo", "target", "flow", "worn", "wanted"):
        assert torch.equal(getattr(late, name), getattr(straight[2], name)), name
        assert not torch.equal(getattr(late, name), getattr(straight[1], name)), name
    other.close()
    one.close()
    assert cv2.getNumThreads() == threads
    seen = torch.cat([batch.wanted.sort(dim=1).values[:, -1] for batch in straight[:3]])
    assert len(seen.unique()) == 6, "in 12 draws from 6 pairs each comes twice"
