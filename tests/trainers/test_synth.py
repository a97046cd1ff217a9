"""Training pairs from portraits: the flow is true, bad portraits stay out, the same seed gives the same set."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from exprtool.anatomy.names import CONTROLS
from exprtool.errors import DataError
from exprtool.expressions import EXPRESSIONS
from exprtool.faces.landmarks import MIRRORED68
from exprtool_blendshape.backend import BlendshapeBackend
from exprtool_blendshape.fit import worn_by_landmarks
from exprtool_synth.dataset import Source, make_dataset
from exprtool_synth.pairs import Render, flow_between
from exprtool_synth.portrait import Wish, work_up
from exprtool_synth.proportions import measure, reshaped
from exprtool_synth.states import KINDS, condition, draw_state, preset_state, vector_of


def tools() -> tuple[BlendshapeBackend, object]:
    from exprtool.choice import load_detector

    return BlendshapeBackend(), load_detector("dlib")[1]


def test_states_are_what_the_edit_brings_about() -> None:
    from exprtool.anatomy.targets import weights_for

    random = np.random.default_rng(1)
    for _ in range(200):
        state = draw_state(random)
        reached = weights_for(state.edit, {})
        expected = {name: weight for name, weight in state.weights.items() if weight}
        assert reached == pytest.approx(expected, abs=1e-9)
        assert np.flatnonzero(state.vector).size == len(expected)


def test_states_cover_every_kind_and_expression() -> None:
    random = np.random.default_rng(2)
    states = [draw_state(random) for _ in range(600)]
    assert {state.kind for state in states} == set(KINDS)
    assert {state.label for state in states} == {*EXPRESSIONS, None}


def test_a_preset_state_without_variation_is_the_preset() -> None:
    state = preset_state("happy", np.random.default_rng(0))
    plain = condition(state.blend)
    assert state.weights.keys() == {name for name, weight in plain.items() if weight}
    ratios = [state.weights[name] / plain[name] for name in state.weights]
    assert 0.5 < min(ratios) < 1 < max(ratios) < 2


def test_flow_between_two_renders_undoes_the_one_and_does_the_other() -> None:
    side = 96
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bump = np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / 300)
    here = np.stack([x, y], -1)
    image = np.zeros((side, side, 3), np.uint8)
    zero = np.zeros((side, side), np.float32)
    rest = np.zeros(len(CONTROLS), np.float32)
    source = Render(image, np.stack([3 * bump, -2 * bump], -1), zero, rest)
    target = Render(image, np.stack([-2 * bump, 4 * bump], -1), zero, rest)
    flow, painted = flow_between(source, target)
    there = here + flow
    source_flow = cv2.remap(source.flow, there[..., 0], there[..., 1], cv2.INTER_LINEAR)
    wrong = np.abs(there + source_flow - (here + target.flow))[8:-8, 8:-8]
    assert wrong.max() < 0.05
    assert np.abs(flow).max() > 3
    assert not painted.any()
    back, _ = flow_between(Render(image, target.flow, zero, rest, drawn=False), source)
    assert np.array_equal(back, source.flow), "a portrait as it is needs no inversion"


def test_a_portrait_gives_pairs_whose_flow_is_true(shared: Path, face_model: Path) -> None:
    backend, detector = tools()
    path = shared / "faces/london/neutral/009.jpg"
    made = work_up(path, "009", Wish(per_face=8, size=128), backend, detector)
    assert made.refused is None
    assert len(made.pairs) >= 6
    assert set(made.crops) >= {"happy", "surprised"}
    still, moved = [], []
    for pair in made.pairs:
        assert pair.source.shape == pair.target.shape == (128, 128, 3)
        assert pair.target_weights.shape == (len(CONTROLS),)
        y, x = np.mgrid[:128, :128].astype(np.float32)
        flow = pair.flow.astype(np.float32)
        warped = cv2.remap(pair.source, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC)
        known = pair.painted < 10
        target = pair.target.astype(float)
        still.append(np.abs(pair.source - target)[known].mean())
        moved.append(np.abs(warped - target)[known].mean())
    # The rest is light and lines, which no flow can explain.
    assert np.mean(moved) < 0.5 * np.mean(still)
    own = [pair for pair in made.pairs if not pair.source_drawn[0]]
    assert 0 < len(own) < len(made.pairs)
    assert all(np.array_equal(pair.source, own[0].source) for pair in own), "the portrait as it is"
    assert not any(np.array_equal(pair.source, own[0].source) for pair in made.pairs if pair.source_drawn[0])
    for pair in made.pairs:
        moved_by = np.abs(pair.other_points - own[0].source_points)
        assert 0.3 < moved_by.mean() < 6, "another head, but a head"
        found = worn_by_landmarks(pair.other_points.astype(np.float64))
        np.testing.assert_allclose(pair.other_weights, vector_of(found), atol=0.01)
    assert len({pair.other_points.tobytes() for pair in made.pairs}) == len(made.pairs)


def test_proportions_are_those_of_the_faces_that_were_measured() -> None:
    """The one way in which these differ is found again, with its size."""
    random = np.random.default_rng(0)
    some = random.random((68, 2))
    mean = (some + [1, 0] + [-1, 1] * some[MIRRORED68]) / 2  # symmetric
    longer = np.zeros((68, 2))
    longer[:17, 1] = 1 / 17**0.5
    faces = mean + 0.05 * random.standard_normal((4000, 1, 1)) * longer
    found = measure(faces).astype(np.float64)
    assert found.shape == (30, 68, 2)
    np.testing.assert_allclose(np.abs(found[0]), 0.05 * longer, atol=0.002)
    assert np.abs(found[1:]).max() < 1e-3
    heads = np.stack([reshaped(100 * mean, 100, random) for _ in range(200)])
    assert 0.3 < (heads - 100 * mean).std() < 3, "a percent or so of the side"
    np.testing.assert_allclose(heads.mean(0), 100 * mean, atol=1.0)


def test_a_smiling_portrait_is_said_to_wear_a_smile(shared: Path, face_model: Path) -> None:
    backend, detector = tools()
    made = work_up(shared / "faces/london/happy/009.jpg", "009", Wish(per_face=1, size=96), backend, detector)
    smile = [CONTROLS.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]
    assert made.pairs[0].source_weights[smile].min() > 0.25


@pytest.fixture
def portraits(shared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "portraits"
    folder.mkdir()
    for name in ("009.jpg", "042.jpg"):
        shutil.copy(shared / "faces/london/neutral" / name, folder)
    shutil.copy(shared / "photos/no_face.jpg", folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_set_is_the_same_again_even_after_an_interruption(
    portraits: Path, face_model: Path, tmp_path: Path
) -> None:
    wish = Wish(per_face=3, size=96, crop_size=64, seed=5)
    sources = [Source(portraits, "CC BY 4.0")]
    sheet = make_dataset(sources, tmp_path / "one", wish, workers=2)
    assert sheet["portraits"] == {"used": 2, "left_out": {"unreadable": 1, "no face was found": 1}}
    assert sheet["pairs"] == sum(shard["pairs"] for shard in sheet["shards"]) >= 4
    assert {source["licence"] for source in sheet["sources"]} == {"CC BY 4.0"}
    assert "CC BY 4.0" in (tmp_path / "one/datasheet.md").read_text()
    with np.load(tmp_path / "one" / sheet["shards"][0]["file"], allow_pickle=False) as shard:
        assert len(shard["source"]) == sheet["pairs"]

    class Stop(Exception):
        pass

    def stop(done: int, total: int, pairs: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        make_dataset(sources, tmp_path / "two", wish, workers=1, progress=stop)
    assert not (tmp_path / "two/datasheet.json").exists(), "an unfinished set must not look finished"
    with pytest.raises(DataError, match="other portraits, seed or settings"):
        make_dataset(sources, tmp_path / "two", Wish(per_face=4, size=96, crop_size=64, seed=5))
    assert make_dataset(sources, tmp_path / "two", wish, workers=1) == sheet
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    with pytest.raises(DataError, match="finished set"):
        make_dataset(sources, tmp_path / "one", wish)


def test_no_portraits_or_a_folder_in_use_are_refused(portraits: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no portrait"):
        make_dataset([Source(portraits)], tmp_path / "out", Wish(1), leave_out=lambda path: True)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        make_dataset([Source(portraits)], tmp_path / "used", Wish(1))
    assert json.dumps([path.name for path in (tmp_path / "used").iterdir()]) == '["mine.txt"]'
