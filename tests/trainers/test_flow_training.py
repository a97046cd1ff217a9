"""From portraits to an edited photo: real pairs, a tiny network trained for a few steps, its file, and its use."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from safetensors.torch import load_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from exprtool.anatomy.names import CONTROLS  # noqa: E402
from exprtool.anatomy.targets import presets, weights_for  # noqa: E402
from exprtool.cli.main import app  # noqa: E402
from exprtool.errors import DataError, ModelError, TrainingError, UnknownNameError, UsageError  # noqa: E402
from exprtool.faces.align import transform  # noqa: E402
from exprtool.settings import read_toml, to_toml  # noqa: E402
from exprtool.types import Edit, Face, FacePatch, FaceRefusal, FaceRegion  # noqa: E402
from exprtool_blendshape.fit import worn_by_landmarks  # noqa: E402
from exprtool_default.backend import FlowBackend, TrackState, decided, open_model  # noqa: E402
from exprtool_default.card import (  # noqa: E402
    FINE,
    METADATA_KEY,
    card_from_json,
)
from exprtool_default.network import Answer  # noqa: E402
from exprtool_default.suitability import why_not  # noqa: E402
from exprtool_flow.augment import Variation  # noqa: E402
from exprtool_flow.config import FlowConfig  # noqa: E402
from exprtool_flow.export import TOLERANCE, compare, export  # noqa: E402
from exprtool_flow.feed import Feed  # noqa: E402
from exprtool_flow.imported import fill_from_export  # noqa: E402
from exprtool_flow.loop import Outcome, train, variation  # noqa: E402
from exprtool_flow.motion import fit_motion  # noqa: E402
from exprtool_flow.networks import FlowNet  # noqa: E402
from exprtool_flow.reading import fit_reader  # noqa: E402
from exprtool_flow.readings import make_readings, open_readings  # noqa: E402
from exprtool_flow.shards import open_sets  # noqa: E402
from exprtool_flow.state import load_average  # noqa: E402
from exprtool_synth.states import vector_of  # noqa: E402
from exprtool_training.run_folder import RunFolder  # noqa: E402

STEPS = 45


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pairs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of real pairs from two portraits."""
    from exprtool.weights.catalogue import import_file
    from exprtool_synth.dataset import Source, make_dataset
    from exprtool_synth.portrait import Wish

    folder = tmp_path_factory.mktemp("flow")
    (folder / "portraits").mkdir()
    for name in ("009.jpg", "042.jpg"):
        shutil.copy(shared / "faces/london/neutral" / name, folder / "portraits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPRTOOL_HOME", str(folder / "home"))
        import_file(shared / "face-model" / "ict_facekit_light.npz")
        make_dataset([Source(folder / "portraits", "CC BY 4.0")], folder / "set", Wish(4, 96, 64), workers=1)
    return folder / "set"


def config(pairs: Path, out: Path, **changes: object) -> FlowConfig:
    tiny = FlowConfig(
        out=out, data=(pairs,), image_size=64, width=0.35, steps=STEPS, warmup=4, batch_size=4, lr=4e-3,
        colour=0.3, spoil=0.2, ema=0.9, test_fraction=0.0, device="cpu", workers=1, log_every=5, sample_every=0,
        look_every=0, save_minutes=0.0, tensorboard=False, licence="CC BY 4.0",
    )  # fmt: skip
    return replace(tiny, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A whole short run, with everything that is watched."""
    return train(config(pairs, tmp_path_factory.mktemp("run") / "run", sample_every=STEPS, look_every=STEPS))


def folder_of(run: Outcome) -> Path:
    assert run.model is not None
    return run.model.parent


def test_a_short_run_learns_and_tells_what_it_did(run: Outcome, pairs: Path) -> None:
    folder = folder_of(run)
    log = RunFolder(folder).read_log()
    totals = [entry["total"] for entry in log if "total" in entry]
    assert len(totals) == STEPS // 5 and totals[-1] < 0.85 * totals[0], totals
    assert run.finished and run.step == STEPS and run.best is not None
    (look,) = [entry["look"] for entry in log if "look" in entry]
    assert look["psnr"] == run.best > look["untouched"], "nearer to the renders than the photos themselves"
    assert np.asarray(Pillow.open(folder / f"samples/step-{STEPS:06}.png")).std() > 20
    assert replace(FlowConfig.stored(folder), resume=False) == config(
        pairs, folder, sample_every=STEPS, look_every=STEPS
    )
    assert FlowConfig(**read_toml(FlowConfig, folder / "config.toml")) == FlowConfig.stored(folder)


def test_what_is_worn_is_told_less_and_less(tmp_path: Path) -> None:
    run = FlowConfig(out=tmp_path, steps=100, tell=0.25)
    shares = [variation(step, run).tell for step in (0, 20, 40, 99)]
    assert shares == [1.0, pytest.approx(0.625), 0.25, 0.25]


def test_resumed_run_equals_the_straight_one_bit_for_bit(pairs: Path, tmp_path: Path) -> None:
    train(config(pairs, tmp_path / "straight", steps=4, parts=2))
    half = train(config(pairs, tmp_path / "halves", steps=4, parts=2, stop_at=2))
    assert half.step == 2 and not half.finished and not half.interrupted and half.model is None
    settings = {"out": tmp_path / "halves", "resume": True, "stop_at": 0}
    assert train(FlowConfig.from_settings(settings)).finished
    one, other = (load_file(tmp_path / name / "checkpoints/last.safetensors") for name in ("straight", "halves"))
    assert one.keys() == other.keys() and {name.split(".")[0] for name in one} == {"net", "ema", "adam"}
    for name in one:
        assert torch.equal(one[name], other[name]), name
    models = [(tmp_path / name / "model.onnx").read_bytes() for name in ("straight", "halves")]
    assert models[0] == models[1]
    longer = train(FlowConfig.from_settings({**settings, "steps": 5}))
    assert longer.finished and longer.step == 5, "a run may be made longer"
    with pytest.raises(UsageError, match="--lr"):
        FlowConfig.from_settings({**settings, "lr": 0.5})
    with pytest.raises(TrainingError, match="holds a run already"):
        train(config(pairs, tmp_path / "halves", steps=4))


def test_two_processes_learn_what_two_parts_do(pairs: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    two = config(pairs, tmp_path / "two", steps=2, devices=2)
    (tmp_path / "two.toml").write_text(to_toml(two, "two processes"))
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    command = [sys.executable, "-m", "exprtool", "train", "--trainer", "flow", "--config", str(tmp_path / "two.toml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 processes" in done.stderr, done.stderr
    train(config(pairs, tmp_path / "one", steps=2, parts=2))
    one, other = (load_file(tmp_path / name / "checkpoints/last.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        if name.startswith(("net.", "ema.")):
            torch.testing.assert_close(
                other[name], tensor, atol=2e-4, rtol=2e-3, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_the_file_agrees_with_pytorch_and_carries_its_card(run: Outcome, tmp_path: Path) -> None:
    net, card = load_average(folder_of(run))
    exact = export(folder_of(run), tmp_path / "exact.onnx", half=False)
    difference = exact.record["difference"]
    assert max(difference.values()) < TOLERANCE["float32"]
    assert set(difference) == {"worn", "points", "flow", "shading", "mask", "paint"}
    assert run.model is not None and run.model.stat().st_size < 0.6 * len(exact.content)
    stored = onnx.load(run.model)
    found = card_from_json({entry.key: entry.value for entry in stored.metadata_props}[METADATA_KEY], "it")
    assert found == replace(card, precision="float16")
    assert found.controls == CONTROLS and found.presets.keys() == presets().keys()
    assert found.licence == "CC BY 4.0" and found.training_data["licences"] == {"CC BY 4.0": 2}
    assert "psnr_trained_on" in found.training_data, "nobody was held out, and the card must not claim it"
    halves = [node for node in stored.graph.node if node.op_type not in ("Constant", "Shape", "Greater", "Reshape")]
    assert [node.op_type for node in halves] == ["If", "If"], "the half that is not asked for does not run"
    with torch.no_grad():
        net.decoder.flow.bias.add_(0.5)
    assert max(compare(run.model.read_bytes(), net).values()) > TOLERANCE["float16"], "the comparison can fail"
    with pytest.raises(ModelError, match="exists"):
        export(folder_of(run), tmp_path / "exact.onnx")


def test_a_damaged_card_is_refused(run: Outcome, tmp_path: Path) -> None:
    assert run.model is not None
    stored = onnx.load(run.model)
    (entry,) = stored.metadata_props
    card = json.loads(entry.value)
    for change, words in (
        ({"size": 128}, "image"),
        ({"format": "x"}, "format"),
        ({"windows": {"nose": [0, 0, 9, 9]}}, "nose"),
    ):
        entry.value = json.dumps({**card, **change})
        onnx.save(stored, tmp_path / "m.onnx")
        with pytest.raises(ModelError, match=words):
            open_model(tmp_path / "m.onnx")


@pytest.fixture(scope="module")
def backend(run: Outcome) -> FlowBackend:
    assert run.model is not None
    return open_model(run.model)


@pytest.fixture(scope="module")
def region(shared: Path) -> FaceRegion:
    from exprtool import images
    from exprtool.choice import load_detector
    from exprtool.faces.detect import find_faces
    from exprtool.faces.select import region_of

    photo = images.read_image(shared / "faces/london/neutral/042.jpg").rgb
    (face,) = find_faces(photo, load_detector("dlib")[1]).faces
    return region_of(photo, face, ())


def patch_of(backend: FlowBackend, region: FaceRegion, edit: Edit) -> FacePatch:
    (answer,) = backend.generate(backend.prepare([region]), edit)
    assert isinstance(answer, FacePatch)
    return answer


def test_strength_zero_changes_no_bit_and_strength_grows_from_there(backend: FlowBackend, region: FaceRegion) -> None:
    happy = {"happy": 1.0}
    nothing = patch_of(backend, region, Edit(happy, strength=0.0))
    assert np.array_equal(nothing.pixels, region.pixels) and not nothing.alpha.any()
    size = []
    for strength in (0.02, 0.1, 1.0):
        patch = patch_of(backend, region, Edit(happy, strength=strength))
        assert patch.flow is not None and patch.pixels.shape == region.pixels.shape
        size.append(float(np.abs(patch.flow).mean()))
    assert 0 < size[0] < size[1] < size[2] and size[0] < 0.1 * size[2]


def test_an_answer_reaches_the_photo_in_the_photos_own_measure(
    backend: FlowBackend, region: FaceRegion, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the inside of the mouth is painted anew behind this, by a network of its own
    monkeypatch.setattr("exprtool_default.backend.fill_mouth", lambda *arguments: None)
    side = backend.card.size
    flow = np.zeros((side, side, 2), np.float32)
    flow[..., 0] = 2.0
    x0, y0, x1, y1 = (2 * value for value in backend.card.windows["mouth"])
    mask = np.zeros((2 * side, 2 * side), np.float32)
    mask[y0:y1, x0:x1] = 1
    paint = np.empty((2 * side, 2 * side, 3), np.float32)
    paint[:] = 0.76, 0.3, 0.3  # as lips: in light paint teeth are drawn, in the dark a tongue
    answer = Answer(flow, np.full((side // 2, side // 2, 3), np.log(0.5), np.float32), mask, paint)
    (face,) = backend.prepare([region])
    patch = backend._patch(face, answer, 1.0, {}, ())
    assert patch.flow is not None and patch.painted is not None
    scale = np.linalg.norm(face.matrix[:, 0]) / FINE  # crop pixels per pixel of the photo
    nose, mouth = region.landmarks68[27].round().astype(int), region.landmarks68[66].round().astype(int)  # type: ignore[index]
    assert np.linalg.norm(patch.flow[nose[1], nose[0]]) == pytest.approx(2 / scale, rel=0.01)
    assert patch.painted[mouth[1], mouth[0]] == pytest.approx(1.0, abs=0.01) and patch.painted[nose[1], nose[0]] == 0
    haze = np.array(face.skin.haze)  # lies over paint as over the photo
    assert haze.max() < 0.05
    expected = 255 * (haze + np.array([0.76, 0.3, 0.3]) * (1 - haze))
    assert patch.pixels[mouth[1], mouth[0]].tolist() == pytest.approx(expected.tolist(), abs=1)
    shifted = nose + np.rint(patch.flow[nose[1], nose[0]]).astype(int)
    assert patch.pixels[nose[1], nose[0]] == pytest.approx(region.pixels[shifted[1], shifted[0]] / 2, abs=6)


def test_one_look_serves_many_edits(backend: FlowBackend, region: FaceRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    encode = backend.network.encode
    monkeypatch.setattr(backend.network, "encode", lambda crops, known: looks.append(known) or encode(crops, known))
    prepared = backend.prepare([region, region])
    flows = []
    for edit in (Edit({"happy": 1.0}), Edit({"surprised": 1.0}), Edit({}, {"jawOpen": 0.8})):
        one, other = backend.generate(prepared, edit)
        assert isinstance(one, FacePatch) and isinstance(other, FacePatch) and one.flow is not None
        assert np.array_equal(one.pixels, other.pixels)
        flows.append(one.flow)
    assert len(looks) == 1 and looks[0].shape == (2, 68, 2)
    assert looks[0][0] * prepared[0].photo.shape[0] - 0.5 == pytest.approx(
        transform(prepared[0].matrix, np.asarray(region.face.landmarks68)), abs=1e-6
    ), "the landmarks that the detector found are gone by"
    assert prepared[0].seen.features[-1] == pytest.approx(looks[0][0], abs=1e-6)
    (unknown,) = backend.prepare([replace(region, face=replace(region.face, landmarks68=None))])
    assert np.isnan(looks[1]).all() and np.isfinite(unknown.seen.features[-1]).all(), "else the network's own"
    assert not np.allclose(flows[0], flows[1], atol=1e-3) and not np.allclose(flows[1], flows[2], atol=1e-3)
    with pytest.raises(UnknownNameError):
        backend.generate(prepared, Edit({"smug": 1.0}))
    with pytest.raises(UnknownNameError):
        backend.generate(prepared, Edit({}, {"earWiggle": 1.0}))


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0, 1.4])
def test_a_face_is_asked_for_what_the_face_model_would_give_it(backend: FlowBackend, strength: float) -> None:
    happy = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}
    smile = {**happy, "browInnerUp": 0.1}
    for weights in ({"happy": 0.6}, {"surprised": 1.0}, {"angry": 0.5, "sad": 0.4}, {"neutral": 1.0}):
        edit = Edit(weights, {"jawOpen": 0.1}, strength)
        for worn in ({}, smile):
            expected = weights_for(edit, worn)
            assert weights_for(edit, worn, named=backend._presets) == pytest.approx(expected, abs=1e-9)
    calm = weights_for(Edit({"neutral": 1.0}), happy, named=backend._presets)
    assert max(calm.values(), default=0.0) < 1e-6, "a smile is taken off"
    half = weights_for(Edit({"neutral": 1.0}, strength=0.5), happy, named=backend._presets)
    assert half == pytest.approx({"mouthSmileLeft": 0.4, "mouthSmileRight": 0.4}, abs=0.01)
    kept = weights_for(Edit({}, {"jawOpen": 0.3}), happy, named=backend._presets)
    assert kept == pytest.approx({**happy, "jawOpen": 0.3}), "single controls come on top of what is worn"
    assert presets().keys() == backend._presets.keys(), "the card carries them all"


def test_a_run_may_begin_with_the_network_of_another(run: Outcome, pairs: Path, tmp_path: Path) -> None:
    first, _ = load_average(folder_of(run))
    begun = config(pairs, tmp_path / "second", steps=1, lr=0.0, begin_from=str(folder_of(run)))
    train(begun)
    second, _ = load_average(tmp_path / "second")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(ModelError, match="expected"):
        train(replace(begun, out=tmp_path / "third", width=0.5))


def test_a_run_may_begin_with_an_exported_network(run: Outcome, pairs: Path, tmp_path: Path) -> None:
    exported = export(folder_of(run), tmp_path / "first.onnx", half=False)
    begun = config(pairs, tmp_path / "second", steps=1, lr=0.0, begin_from=str(exported.path))
    set_ = open_sets([pairs])
    feed = Feed(set_, np.arange(len(set_)), 64, 4, lambda step: Variation(), 0, 1, torch.device("cpu"))
    first, _ = load_average(folder_of(run))
    net = FlowNet(first.config)
    fill_from_export(net, exported.path, feed.batch, 2)
    feed.close()
    assert max(compare(exported.path.read_bytes(), net).values()) < TOLERANCE["float32"], "the same network"
    norm = net.encoder.levels[0].norm
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.running_var is not None
    assert (norm.running_var > 1e-6).all() and not torch.equal(norm.running_var, torch.ones_like(norm.running_var))
    train(begun)
    assert max(compare(exported.path.read_bytes(), load_average(tmp_path / "second")[0]).values()) < 0.02
    with pytest.raises(ModelError, match="another make"):
        train(replace(begun, out=tmp_path / "third", width=0.5))
    (tmp_path / "none.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="no exported flow network"):
        train(replace(begun, out=tmp_path / "third", begin_from=str(tmp_path / "none.onnx")))


def test_readings_are_what_a_fit_finds_and_the_same_however_they_are_made(
    pairs: Path, face_model: Path, tmp_path: Path
) -> None:
    set_ = open_sets([pairs])
    for name, workers in (("one", 1), ("two", 2)):
        make_readings(set_, range(len(set_)), 600, 7, tmp_path / name, workers=workers)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    points, worn = open_readings(tmp_path / "one")
    own = np.array(
        [
            at
            for pair in (set_[i] for i in range(len(set_)))
            for at in ([] if pair.source_drawn[0] else [pair.source_points]) + [pair.target_points]
        ]
    )
    first = points[: len(own)] * set_.size - 0.5
    apart = [61, 62, 63, 65, 66, 67]  # closed lips are closed
    np.testing.assert_allclose(np.delete(first, apart, 1), np.delete(own, apart, 1), atol=0.01)
    for row in (0, len(own), 599):
        found = worn_by_landmarks((points[row] * set_.size - 0.5).astype(np.float64))
        np.testing.assert_allclose(worn[row], vector_of(found), atol=0.01)
    assert len(np.unique(points, axis=0)) == 600 - len(own) + len(np.unique(own, axis=0))
    with pytest.raises(DataError, match="no readings"):
        open_readings(pairs / "datasheet.json")


def test_training_leaves_the_reader_as_it_was_fitted(run: Outcome, pairs: Path) -> None:
    set_ = open_sets([pairs])
    members, _ = set_.split(0.06, 0)
    net, _ = load_average(folder_of(run))
    fitted = fit_reader(set_, members, len(CONTROLS), fit_motion(set_, members).typical, seed=0)
    for name, expected in fitted.state_dict().items():
        assert torch.equal(net.encoder.reader.state_dict()[name], expected), name


def test_pairs_tell_what_was_really_rendered(pairs: Path) -> None:
    set_ = open_sets([pairs])
    brows = [CONTROLS.index(name) for name in CONTROLS if name.startswith("brow")]
    kept = {round(float(set_[i].target_weights[k]), 3) for i in range(len(set_)) for k in brows}
    assert len(kept - {0.0}) > 4, "what a face keeps at rest stands in the weights of its renders"


def test_in_a_clip_readings_may_shake_and_the_edit_does_not(backend: FlowBackend, region: FaceRegion) -> None:
    (face,) = backend.prepare(
        [replace(region, track_state=TrackState(dict.fromkeys(CONTROLS, 0.0), (0.3, 0.3), False, 25.0))]
    )
    mild = dict.fromkeys(CONTROLS, 0.1)
    shaking = [{**mild, "mouthSmileLeft": 0.1 + error} for error in (0.03, -0.03)]
    traces = [(index / 25, backend.trace(replace(face, worn=worn))) for index, worn in enumerate(shaking)]
    wish = Edit({"happy": 1.0}, additive=True)

    def way(worn: dict[str, float], *, steady: bool) -> float:
        frame = replace(face, worn=worn)
        (patch,) = backend.generate([backend.steadied(frame, traces) if steady else frame], wish)
        assert isinstance(patch, FacePatch)
        return patch.details["target"]["mouthSmileLeft"] - patch.details["source"]["mouthSmileLeft"]

    alone, steadied = ([way(worn, steady=steady) for worn in shaking] for steady in (False, True))
    assert abs(alone[0] - alone[1]) == pytest.approx(0.06, abs=0.002)
    assert abs(steadied[0] - steadied[1]) < 0.025, "what is taken off is taken from the frames around, too"
    laughing = weights_for(wish, {})
    (left,) = backend.generate([replace(face, worn=laughing, held=laughing)], wish)
    assert isinstance(left, FacePatch) and not left.alpha.any(), "who laughs anyhow is left to laugh"


def test_half_a_doubt_shows_no_half_a_tooth() -> None:
    mask = np.linspace(0, 1, 101, dtype=np.float32)[None]
    found = decided(mask)[0]
    assert (np.diff(found) >= 0).all() and not found[:12].any() and (found[73:] == 1).all()
    assert np.diff(found).max() < 0.03, "no edge where the network sees none: in a clip it would flicker"


def moved(face: Face, points: np.ndarray) -> Face:
    return replace(face, landmarks5=points)


def test_faces_that_cannot_be_done_well_are_refused_unless_forced(backend: FlowBackend, region: FaceRegion) -> None:
    assert why_not(region) is None
    five = np.array(region.face.landmarks5)
    turned = five.copy()
    turned[2, 0] += 0.6 * (five[1, 0] - five[0, 0])
    tiny = five.mean(0) + (five - five.mean(0)) * 10 / np.linalg.norm(five[1] - five[0])
    cases = {"turned about": turned, "too small": tiny, "cut off": five - [region.box[0] + five[:, 0].max(), 0]}
    for words, points in cases.items():
        bad = replace(region, face=moved(region.face, points))
        prepared = backend.prepare([region, bad])
        assert [answer and words in answer.reason for answer in backend.check(prepared, Edit({"sad": 1.0}))] == [
            None,
            True,
        ]
        good, refused = backend.generate(prepared, Edit({"sad": 1.0}))
        assert isinstance(good, FacePatch) and isinstance(refused, FaceRefusal)
        assert isinstance(backend.generate(prepared, Edit({"sad": 1.0}, force=True))[1], FacePatch)


def test_the_command_line_from_run_to_edited_photo(run: Outcome, shared: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    model, photo = tmp_path / "model.onnx", tmp_path / "photo.png"
    record = json.loads(call("export", folder_of(run), "-o", model, "--half", "--json"))
    assert run.model is not None and model.read_bytes() == run.model.read_bytes()
    assert record["card"]["step"] == STEPS
    original = Pillow.open(shared / "faces/london/neutral/042.jpg").convert("RGB").resize((400, 400))
    original.save(photo)
    before = np.asarray(original)
    common = ("--backend", f"onnx:{model}", "--detector", "dlib", "--json", "-q")
    for name, edit in (
        ("happy", ("-e", "happy")),
        ("jaw", ("--set", "jawOpen=0.6")),
        ("none", ("-e", "happy", "--strength", "0")),
    ):
        (line,) = call("edit", photo, *edit, "-o", tmp_path / f"{name}.png", *common).splitlines()
        (face,) = json.loads(line)["faces"]
        assert face["edited"] and face["backend"] == "onnx"
        after = np.asarray(Pillow.open(tmp_path / f"{name}.png"))
        assert np.array_equal(after, before) == (name == "none")
        assert np.array_equal(after[:8], before[:8])


def test_the_trainer_is_registered_and_lists_its_settings() -> None:
    result = CliRunner().invoke(app, ["train", "--trainer", "flow", "--dump-config"])
    assert result.exit_code == 0
    assert "image_size = 128" in result.stdout and "batch_size" in result.stdout


def test_one_command_makes_the_packages_network(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "portraits").mkdir()
    for name in ("009.jpg", "042.jpg"):
        shutil.copy(shared / "faces/london/neutral" / name, tmp_path / "portraits")
    (tmp_path / "held.txt").write_text("009.jpg\n")
    (tmp_path / "recipe.toml").write_text(
        "image_size = 64\nwidth = 0.3\nsteps = 3\nbatch_size = 2\ntest_fraction = 0.0\nsample_every = 0\n"
    )
    environment = {**os.environ, "EXPRTOOL_HOME": str(tmp_path / "home"), "OMP_WAIT_POLICY": "passive"}
    exprtool = [sys.executable, "-m", "exprtool"]
    face_model = shared / "face-model" / "ict_facekit_light.npz"
    subprocess.run([*exprtool, "models", "import", str(face_model)], check=True, env=environment, capture_output=True)
    command = [
        sys.executable, "-m", "exprtool_flow.default_model", "--faces", "portraits", "--licence", "CC BY 4.0",
        "--leave-out", "held.txt", "--work", "work", "--recipe", "recipe.toml", "--out", "model.onnx",
        "--per-face", "3", "--size", "96", "--readings", "20",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    card = open_model(tmp_path / "model.onnx").card
    assert card.step == 3 and card.training_data["portraits"] == 1, "nobody who is kept for measuring was used"
    assert card.training_data["licences"] == {"CC BY 4.0": 1}
    assert open_readings(tmp_path / "work" / "readings.npz")[0].shape == (20, 68, 2)
    first = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").unlink()
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "model.onnx").read_bytes() == first, "what is finished is taken as it is"
