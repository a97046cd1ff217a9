"""The measures on hand-computed numbers and real faces; the tables and sheets made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exprtool.crop_backend import CropBackend
from exprtool.errors import DataError, ModelError, UnknownNameError
from exprtool.measures import sheets, tables
from exprtool.measures.evaluation import Classifier, evaluate
from exprtool.measures.expression import OnnxClassifier, expression_accuracy
from exprtool.measures.identity import Identity, acd, identity
from exprtool.measures.paper import TABLE_1
from exprtool.measures.pictures import Pictures
from exprtool.measures.stats import Stat
from exprtool.measures.subjects import CropSubject, backend_of, short_name
from exprtool.model_card import CropCard
from exprtool_training.data import PreparedSet
from exprtool_training.data.measured import as_pictures


def test_mean_and_sample_deviation_leave_out_what_is_missing() -> None:
    stat = Stat.of([1.0, 2.0, 3.0, float("nan")])
    assert stat == Stat(2.0, 1.0, 3, 1)
    assert Stat.of([5.0]).sd == 0
    nothing = Stat.of([float("nan")])
    assert nothing.count == 0 and nothing.missing == 1 and nothing.to_json() is None


def test_acd_is_the_squared_distance_and_verification_another_reading_of_it() -> None:
    measured = Identity(np.array([0.0, 0.36, 1.44, np.nan]))
    assert measured.acd.mean == pytest.approx(0.6) and measured.acd.missing == 1
    assert measured.local_verification.mean == pytest.approx((100 + 50 + 0) / 3)
    assert measured.accepted == pytest.approx(1 / 3), "dlib accepts below 0.6, not at it"


def test_acd_on_real_faces_tells_people_apart(prepared: PreparedSet) -> None:
    neutral = [i for i in range(12) if prepared.labels[i] == 0][:3]
    same = [next(j for j in range(12) if j != i and prepared.people[j] == prepared.people[i]) for i in neutral]
    images, landmarks = prepared.images, prepared.landmarks
    assert landmarks is not None
    assert acd(images[neutral], images[neutral], landmarks[neutral]).mean == 0
    smiling = acd(images[neutral], images[same], landmarks[neutral]).mean
    strangers = acd(images[neutral], images[np.roll(neutral, 1)], landmarks[neutral]).mean
    assert 0 < smiling < 0.36 < strangers
    assert smiling < 0.6 * strangers


def test_embeddings_of_inputs_are_computed_once(prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules["exprtool.measures.identity"]  # the package offers a function of the same name
    calls: list[int] = []
    real = module.embedding
    monkeypatch.setattr(module, "embedding", lambda image, face: calls.append(1) or real(image, face))
    known: dict[int, np.ndarray] = {}
    for _ in range(2):
        identity(prepared.images[:2], prepared.images[:2] // 2, prepared.landmarks[:2], known=known)  # type: ignore[index]
    assert len(calls) == 2 + 2 * 2


def test_a_picture_without_a_face_counts_as_missing(prepared: PreparedSet) -> None:
    landmarks = np.array(prepared.landmarks[:2])  # type: ignore[index]
    landmarks[1] = np.nan
    measured = identity(prepared.images[:2], prepared.images[:2], landmarks)
    assert measured.acd.count == 1 and measured.acd.missing == 1


def by_brightness(images: np.ndarray) -> np.ndarray:
    """A classifier that calls bright pictures happy and dark ones sad."""
    mean = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([mean, 1 - mean], axis=1)


def test_accuracy_counts_per_expression() -> None:
    images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (250, 200, 10, 240)])
    found = expression_accuracy(by_brightness, ("happiness", "sadness"), images, ["happy", "sad", "sad", "happy"])
    assert (found.right, found.total, found.share) == (3, 4, 0.75)
    assert found.per_expression == {"happy": (2, 2), "sad": (1, 2)}
    with pytest.raises(DataError, match=r"does not know angry .*happiness, sadness"):
        expression_accuracy(by_brightness, ("happiness", "sadness"), images[:1], ["angry"])


def classifier_file(path: Path, shape: list[int | str], depth: int) -> Path:
    """An ONNX classifier that gives the mean of its (normalised) input and the negative of it."""
    weights = np.zeros((2, depth, 1, 1), np.float32)
    weights[0], weights[1] = 1, -1
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Conv", ["mean", "w"], ["y"]),
        helper.make_node("Flatten", ["y"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("batch", "channels", "depth"), [(1, "gray", 1), ("n", "rgb", 3)])
def test_a_classifier_is_fed_as_its_card_says(tmp_path: Path, batch: int | str, channels: str, depth: int) -> None:
    path = classifier_file(tmp_path / "c.onnx", [batch, depth, 16, 16], depth)
    with pytest.raises(ModelError, match=r"c\.toml"):
        OnnxClassifier(path)
    card = path.with_suffix(".toml")
    card.write_text(
        f'labels = ["bright", "dark"]\nsize = 16\nchannels = "{channels}"\n'
        "low = 0.0\nhigh = 1.0\nmean = [0.5]\nsd = [0.5]\n"
    )
    network = OnnxClassifier(path)
    images = np.stack([np.full((40, 40, 3), value, np.uint8) for value in (255, 0, 204)])
    scores = network(images)
    factor = depth  # the convolution adds the channels up
    assert np.allclose(scores[:, 0], np.array([1, -1, 0.6]) * factor, atol=1e-3)
    for change, says in (
        ('labels = ["a"]\n', "names 1"),
        ("size = 3\n", "size must be"),
        ("depth = 3\n", "depth"),
    ):
        key = change.split(" ")[0]
        kept = "\n".join(line for line in card.read_text().splitlines() if not line.startswith(key))
        other = tmp_path / f"{key}.onnx"
        other.write_bytes(path.read_bytes())
        other.with_suffix(".toml").write_text(f"{kept}\n{change}")
        with pytest.raises(ModelError, match=says):
            OnnxClassifier(other)(images)


def brightening(amounts: dict[str, float], name: str = "lamp", size: int = 128) -> CropSubject:
    """A network that makes crops brighter by so many grey levels per label."""
    labels = tuple(amounts)
    levels = np.array(list(amounts.values()), np.float32) / 127.5

    def residual(x: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.broadcast_to((c @ levels)[:, None, None, None], x.shape).astype(np.float32)

    card = CropCard(labels, size=size, parameters=len(labels), training_data={"images": 2312})
    return CropSubject(name, CropBackend(card, residual))


def test_every_picture_is_asked_for_every_expression_but_its_own(prepared: PreparedSet) -> None:
    pictures = as_pictures(prepared).take(range(4))  # neutral ones come after happy ones or before, all of one label
    shown = {pictures.expressions[i] for i in range(4)}
    assert len(shown) == 1
    (own,) = shown
    subject = brightening({"neutral": 0.0, "happy": 40.0, "sad": 4.0})
    judge = Classifier(
        ("happy", "sad", "neutral"), lambda images: np.tile([1.0, 0.0, 0.0], (len(images), 1)), "yes-man"
    )
    result = evaluate(subject, pictures, classifier=judge)
    assert {row.expression: row.pictures for row in result.per_expression} == {
        label: 4 for label in ("neutral", "happy", "sad") if label != own
    }
    assert result.overall.pictures == 8 and result.overall.acd.count == 8
    assert result.parameters == 3 and result.training_images == 2312
    by_label = {row.expression: row for row in result.per_expression}
    assert by_label["sad"].changed.mean == pytest.approx(4, abs=0.6)
    assert by_label["sad"].accuracy is not None and by_label["sad"].accuracy.share == 0
    with pytest.raises(UnknownNameError, match="neutral, happy, sad"):
        evaluate(subject, pictures, ["bored"])
    with pytest.raises(DataError, match="already show"):
        evaluate(subject, pictures, [str(own)])


def test_what_changes_more_is_farther_away(prepared: PreparedSet) -> None:
    subject = brightening({"happy": 1.0, "sad": 90.0})
    pictures = Pictures(
        np.asarray(prepared.images[:3]),
        np.asarray(prepared.landmarks[:3]),
        (None,) * 3,
        ("a", "b", "c"),  # type: ignore[index]
    )
    rows = {row.expression: row for row in evaluate(subject, pictures).per_expression}
    assert rows["happy"].acd.mean < 0.01 < rows["sad"].acd.mean


def test_tables_set_the_papers_rows_beside_ones_own(prepared: PreparedSet) -> None:
    result = evaluate(brightening({"happy": 9.0, "sad": 4.0}, "my_model"), as_pictures(prepared).take([0, 1]), ["sad"])
    place = {column.title: i for i, column in enumerate(tables.COLUMNS)}
    result = replace(result, datasets=("CFEE", "KDEF", "RaFD"))
    rows = tables.main_rows([result])
    assert rows[0][0] == "my_model" and rows[0][place["FVS"]] == tables.DASH, "it was not measured and must not look so"
    assert [row[0] for row in rows[1:]] == [f"{row.method} *" for row in TABLE_1]
    assert rows[1][place["ACD"]] == "0.2832" and rows[1][place["FVS"]] == "94.19 ± 1.11"
    text = tables.latex([result])
    assert r"my\_model" in text and r"$2.5 \times 10^{6}$" in text and r"\toprule" in text and "–" not in text
    widths = {line.count("&") for line in text.splitlines() if "&" in line and not line.startswith("%")}
    assert len(widths) == 1
    lines = tables.markdown([result]).splitlines()
    assert "2.5 × 10⁶" in "\n".join(lines)
    assert len({line.count("|") for line in lines[:7]}) == 1
    report = tables.as_json([result])
    assert json.loads(json.dumps(report))["evaluations"][0]["overall"]["fvs"] is None
    assert report["paper"]["rows"][1]["acd"] == 0.5660


def test_paper_figures_are_those_of_table_1() -> None:
    assert [(r.method, r.parameters, r.training_images, r.acd, r.fvs, r.fvs_sd) for r in TABLE_1] == [
        ("US-GAN", 2.5e6, 2.5e3, 0.2832, 94.19, 1.11),
        ("StarGAN", 8.5e6, 2.1e5, 0.5660, 91.71, 1.95),
        ("STGAN", 7.4e7, 2.0e5, 0.3725, 92.05, 2.81),
        ("GANimation", 8.5e6, 4.1e5, 0.3899, 87.98, 8.67),
    ]


def test_sheets_hold_every_picture_where_its_label_says() -> None:
    red, green = (np.full((50, 50, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0)))
    page = sheets.sheet(
        ["input", "happy"], [sheets.SheetRow("ann", [red, green]), sheets.SheetRow("ben", [green, None])]
    )
    assert (page == (255, 0, 0)).all(axis=2).sum() == 128 * 128
    assert (page == (0, 255, 0)).all(axis=2).sum() == 2 * 128 * 128
    ys, xs = np.nonzero((page == (255, 0, 0)).all(axis=2))
    assert (ys.max() - ys.min() + 1, xs.max() - xs.min() + 1) == (128, 128)


def test_grids_and_residuals_show_what_the_network_did(prepared: PreparedSet) -> None:
    subject = brightening({"happy": 16.0, "sad": -8.0})
    pictures = as_pictures(prepared).take([0, 5])
    grid = sheets.grid(subject, pictures, ["happy", "sad"])
    assert grid.shape[1] > 3 * 128 and grid.shape[0] > 2 * 128
    page = sheets.residual_sheet(subject, pictures.take([0]), ["happy", "sad"])
    assert page is not None
    gain = 4  # 127 / 16 is nearly 8, the power of two below it is 4
    assert sheets.residual_gain([np.full((1, 4, 4, 3), 16.0, np.float32)]) == gain
    for amount in (16, -8):
        grey = round(127.5 + gain * amount)
        assert abs(int((page == grey).all(axis=2).sum()) - 128 * 128) < 400


def test_comparison_has_a_row_per_subject_and_person(prepared: PreparedSet) -> None:
    subjects = [brightening({"happy": 3.0}, "a"), brightening({"happy": 200.0}, "b")]
    page = sheets.comparison(subjects, [as_pictures(prepared).take([0, 5])] * 2, ["happy"])
    assert page.shape[0] > 4 * 128


def test_models_are_found_by_path_and_backends_by_name(tmp_path: Path) -> None:
    assert backend_of("debug") == "debug"
    model = tmp_path / "m.onnx"
    model.write_bytes(b"")
    assert backend_of(str(model)) == f"onnx:{model}"
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert backend_of(str(tmp_path / "run")) == f"run:{tmp_path / 'run'}"
    with pytest.raises(UnknownNameError, match="model or backend"):
        backend_of("no-such-thing")
    assert short_name(str(model)) == "m" and short_name(str(tmp_path / "run")) == "run"
    assert short_name(f"onnx:{model}") == "m" and short_name("blendshape") == "blendshape"


def test_faces_in_centre_crops_are_looked_for(faces_root: Path, tmp_path: Path) -> None:
    from exprtool_training.data import PrepareOptions, prepare
    from exprtool_training.data.measured import with_landmarks

    done = prepare([faces_root], tmp_path / "out", PrepareOptions(96, "centre"), workers=1)
    eye = done.template.right_eye  # measured: portraits show more than a tight crop
    assert eye != (0.28, 0.35) and 0.3 < eye[0] < 0.5
    found = with_landmarks(as_pictures(done).take([0, 1, 2])).landmarks
    assert found is not None
    eyes = found[:, 36:42].mean(axis=1)
    assert np.abs(eyes - (np.array(eye) * 96 - 0.5)).max() < 8


def test_data_and_measures_need_no_torch(tmp_path: Path) -> None:
    """The base install has none: looking data over, preparing it and measuring must not ask for it."""
    import subprocess
    import sys

    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import exprtool_training.data.check, exprtool_training.data.measured\n"
        "import exprtool_training.ablate, exprtool_gan.export\n"
        "import exprtool.measures.subjects, exprtool.measures.sheets, exprtool.measures.tables\n"
        "from pathlib import Path\n"
        "from exprtool.errors import ModelError\n"
        "try:\n"
        "    exprtool_gan.export.export(Path('run'), Path('m.onnx'), exprtool_gan.export.ExportWish())\n"
        "except ModelError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "pip install 'torch>=" in done.stdout
