"""What a table must say so that nobody reads more into it: equal edits, references, few people, whose data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from exprtool.cli.main import app
from exprtool.crop_backend import CropBackend
from exprtool.errors import DataError
from exprtool.expressions import EXPRESSIONS
from exprtool.faces.align import US_GAN_TEMPLATE, CropTemplate
from exprtool.measures import tables
from exprtool.measures.evaluation import Classifier, common_labels, evaluate, on_common_ground
from exprtool.measures.identity import identity
from exprtool.measures.paper import TABLE_1
from exprtool.measures.pictures import Pictures
from exprtool.measures.subjects import CropSubject, RealPhotos, Subject, Untouched
from exprtool.model_card import CropCard
from exprtool.types import Image
from exprtool_training.data import PreparedSet
from exprtool_training.data.measured import as_pictures, pictures_of
from exprtool_usgan.card import ModelCard
from exprtool_usgan.checkpoint import save_generator
from exprtool_usgan.config import GeneratorConfig

runner = CliRunner()


class Lamp(Subject):
    """Makes crops brighter by so many grey levels per label, and leaves some pictures alone."""

    protocol = "a lamp"

    def __init__(self, name: str, amounts: dict[str, int], alone: tuple[str, ...] = ()) -> None:
        self.name, self.amounts, self.labels, self.alone = name, amounts, tuple(amounts), alone

    def outputs(self, pictures: Pictures, label: str) -> list[Image | None]:
        brighter = np.clip(pictures.images.astype(int) + self.amounts[label], 0, 255).astype(np.uint8)
        return [None if name in self.alone else image for name, image in zip(pictures.names, brighter, strict=True)]


def drawn(count: int = 3, expression: str | None = "neutral") -> Pictures:
    """Grey squares without faces: change and accuracy can be measured on them, identity cannot."""
    images = np.full((count, 16, 16, 3), 100, np.uint8)
    return Pictures(images, None, (expression,) * count, tuple("abcdefgh"[:count]), people=tuple("ABCDEFGH"[:count]))


def test_models_are_compared_on_the_edits_that_all_of_them_made():
    """One knows two expressions and makes no change for the second; one knows three and leaves a hard face alone."""
    few = evaluate(Lamp("few", {"happy": 10, "sad": 0}), drawn())
    many = evaluate(Lamp("many", {"happy": 30, "sad": 30, "angry": 60}, alone=("c",)), drawn())
    assert few.overall.changed.mean == pytest.approx(5) and many.overall.changed.mean == pytest.approx(40)
    one, other = on_common_ground([few, many])
    assert one.in_common == other.in_common == 4, "a and b, happy and sad"
    assert one.overall.changed.mean == pytest.approx(5) and other.overall.changed.mean == pytest.approx(30)
    assert one.overall.changed.count == other.overall.changed.count == 4
    assert [row.expression for row in other.per_expression] == ["happy", "sad"]
    assert (other.overall.refused, other.overall.pictures) == (3, 9), "what was left alone stays counted"
    notes = " ".join(tables.footnotes([one, other]))
    assert "over the 4 edits that every model made (happy, sad)" in notes and "many left 3 of 9 faces alone" in notes


def test_without_a_common_edit_the_table_says_so():
    rows = on_common_ground([
        evaluate(Lamp("one", {"happy": 1}, alone=("a", "b")), drawn(3)),
        evaluate(Lamp("two", {"happy": 1}, alone=("c",)), drawn(3)),
    ])  # fmt: skip
    assert rows[0].in_common is None
    assert any("do not compare" in note for note in tables.warnings(rows))
    assert common_labels([Lamp("a", {"sad": 1, "happy": 1}), Lamp("b", {"happy": 1})]) == ("happy",)
    with pytest.raises(DataError, match="a: sad; b: happy"):
        common_labels([Lamp("a", {"sad": 1}), Lamp("b", {"happy": 1})])


def test_untouched_shows_what_doing_nothing_scores():
    judge = Classifier(("sad", "happy"), lambda images: np.tile([1.0, 0.0], (len(images), 1)), "pessimist")
    model = evaluate(Lamp("model", {"happy": 9, "sad": 9}), drawn(), classifier=judge)
    nothing = evaluate(Untouched(("happy", "sad")), drawn(), classifier=judge)
    assert nothing.kind == "reference" and nothing.overall.changed.mean == 0
    assert nothing.overall.accuracy is not None and nothing.overall.accuracy.share == 0.5
    rows = tables.main_rows([model, nothing])
    titles = [column.title for column in tables.COLUMNS]
    assert [row[0] for row in rows] == ["model", "untouched"]
    assert rows[1][titles.index("change")] == "0.00 ± 0.00" and rows[1][titles.index("expr. acc.")] == "50.0 %"
    assert any("untouched" in note for note in tables.footnotes([model, nothing]))


def test_real_photos_of_the_same_people_are_the_floor(prepared: PreparedSet) -> None:
    """Neutral pictures of three people who also smile in the set: their distance is that of two real photos."""
    everything = as_pictures(prepared)
    neutral = [i for i, expression in enumerate(everything.expressions) if expression == "neutral"][:3]
    shown = replace(everything.take(neutral), pool=everything)
    got = evaluate(RealPhotos(("happy", "sad")), shown)
    assert [row.expression for row in got.per_expression] == ["happy"], "nobody is sad in this data"
    assert (got.overall.pictures, got.overall.refused, got.overall.acd.count) == (3, 0, 3)
    partner = next(
        i for i, (p, e) in enumerate(zip(everything.people, everything.expressions, strict=True))
        if e == "happy" and p == everything.people[neutral[0]]
    )  # fmt: skip
    assert everything.landmarks is not None
    by_hand = identity(
        everything.images[[neutral[0]]], everything.images[[partner]], everything.landmarks[[neutral[0]]],
        landmarks_after=everything.landmarks[[partner]],
    )  # fmt: skip
    cell = got.cells[everything.names[neutral[0]], "happy"]
    assert cell is not None and cell.squared == pytest.approx(by_hand.squared[0])
    assert 0.02 < got.overall.distance.mean < 0.6, "two photos of one person"
    with pytest.raises(DataError):
        evaluate(RealPhotos(("sad",)), shown)


def test_acd_stands_squared_and_plain(prepared: PreparedSet) -> None:
    got = evaluate(Lamp("lamp", {"sad": 60}), as_pictures(prepared).take([0, 1]))
    squares = [cell.squared for cell in got.cells.values() if cell]
    assert got.overall.acd.mean == pytest.approx(np.mean(squares))
    assert got.overall.distance.mean == pytest.approx(np.mean(np.sqrt(squares)))
    report = tables.as_json([got])["evaluations"][0]["overall"]
    assert report["distance"]["mean"] == pytest.approx(got.overall.distance.mean)
    assert "distance" in tables.markdown([got]).splitlines()[0]


def test_few_people_and_no_judge_are_warned_of():
    got = evaluate(Lamp("lamp", {"sad": 9}), drawn(3))
    few, blind = tables.warnings([got])
    assert few.startswith("Only 3 pictures of 3 people") and "classifier" in blind
    assert tables.footnotes([got])[0].startswith("Warning: Only 3")
    judge = Classifier(("sad",), lambda images: np.ones((len(images), 1)), "yes-man")
    many = replace(evaluate(Lamp("lamp", {"sad": 9}), drawn(3), classifier=judge), measured_on=(60, 30))
    assert tables.warnings([many]) == []


def test_the_papers_rows_stand_beside_the_papers_data_or_are_marked():
    got = evaluate(Lamp("lamp", {"sad": 9}), drawn())
    first = len(tables.main_rows([got], paper=False))
    for datasets, paper, mark in (
        (("CFEE", "KDEF", "RaFD"), None, "*"),
        (("KDEF",), None, ""),
        (("folders",), None, ""),
        (("folders",), True, "†"),
        (("CFEE", "KDEF", "RaFD"), False, ""),
        (("CFEE", "KDEF", "RaFD", "folders"), True, "†"),
    ):
        one = replace(got, datasets=datasets)
        rows = tables.main_rows([one], paper=paper)[first:]
        assert [row[0] for row in rows] == ([f"{row.method} {mark}" for row in TABLE_1] if mark else []), datasets
        notes = " ".join(tables.footnotes([one], paper=paper))
        assert ("not to be compared" in notes) == (mark == "†") and ("may be the plain distance" in notes) == bool(mark)
    assert r"US-GAN $\dagger$" in tables.latex([replace(got, datasets=("folders",))], paper=True)


def crop_model(path: Path, size: int, template: CropTemplate = US_GAN_TEMPLATE, labels: int = 3) -> Path:
    import torch

    from exprtool_usgan.networks import Generator

    torch.manual_seed(0)
    config = GeneratorConfig(labels, size, channels=4)
    save_generator(path, Generator(config), ModelCard(config, EXPRESSIONS[:labels], template))
    return path


def test_compare_takes_models_of_other_sizes_templates_and_labels(tmp_path: Path, prepared: PreparedSet) -> None:
    low = CropTemplate((0.3, 0.4), (0.7, 0.4), (0.5, 0.8))
    models = [
        str(crop_model(tmp_path / "a128.safetensors", 128)),
        str(crop_model(tmp_path / "b64.safetensors", 64, low, labels=4)),
        "debug",
    ]
    out = tmp_path / "out"
    done = runner.invoke(
        app, ["compare", *models, "-d", str(prepared.folder), "--split", "all", "--limit", "1", "--rows", "1", "-o",
              str(out), "-q"]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads((out / "measures.json").read_text())
    assert [each["protocol"] for each in report["evaluations"]] == [
        "network on 128 px crops", "network on 64 px crops", "photos, measured on crops"
    ]  # fmt: skip
    asked = [{row["expression"] for row in each["per_expression"]} for each in report["evaluations"]]
    assert asked[0] == asked[1] == asked[2] <= {"neutral", "happy", "sad"}
    assert len({each["edits_in_common"] for each in report["evaluations"]}) == 1
    assert [each["model"] for each in report["references"]] == ["untouched", "real photos"]
    assert report["references"][0]["overall"]["acd"]["mean"] == 0
    assert not report["paper"]["comparable"] and report["warnings"]
    assert (out / "comparison.png").exists()


def test_other_crops_show_the_same_faces(prepared: PreparedSet) -> None:
    """Cut anew from the photos: the eyes lie where the other template wants them."""
    assert prepared.folder is not None
    low = CropTemplate((0.3, 0.4), (0.7, 0.4), (0.5, 0.8))
    pictures = pictures_of([prepared.folder], 128, limit=3)
    assert pictures.recut(128, prepared.template) is pictures
    other = pictures.recut(64, low)
    assert other.images.shape == (3, 64, 64, 3) and other.names == pictures.names and other.landmarks is not None
    eyes = (other.landmarks[:, 36:42].mean(axis=1) + other.landmarks[:, 42:48].mean(axis=1)) / 2
    assert np.abs((eyes + 0.5) / 64 - [0.5, 0.4]).max() < 0.08
    assert other.pool is not None and other.pool.size == 64 and set(other.people) <= set(other.pool.people)
    alone = replace(pictures, files=None, matrices=None, pool=None).recut(64, low)
    assert np.abs(alone.images.astype(int) - other.images).mean() < 6, "without photos the crops are resampled"


def test_a_network_of_its_own_size_is_fed_that_size(prepared: PreparedSet) -> None:
    seen: list[tuple[int, ...]] = []

    def residual(x: np.ndarray, c: np.ndarray) -> np.ndarray:
        seen.append(x.shape)
        return np.zeros_like(x)

    subject = CropSubject("n", CropBackend(CropCard(("happy",), size=48), residual))
    assert subject.card is not None
    evaluate(subject, as_pictures(prepared).take([0, 6]).recut(48, subject.card.template))
    assert {shape[-1] for shape in seen} == {48} or {shape[1] for shape in seen} == {48}
