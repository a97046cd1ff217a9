"""``evaluate``, ``compare`` and ``ablate`` as users call them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from typer.testing import CliRunner

from exprtool import hookimpl
from exprtool.cli.main import app
from exprtool.errors import UsageError
from exprtool.expressions import EXPRESSIONS
from exprtool.faces.align import US_GAN_TEMPLATE
from exprtool.plugins import plugged_in
from exprtool.types import ClassifierSpec, ExportWish, ExpressionClassifier, Readiness
from exprtool_gan.export import export
from exprtool_training.ablate import read_ablation, run_folder
from exprtool_training.data import PreparedSet
from exprtool_usgan.card import ModelCard
from exprtool_usgan.checkpoint import save_generator
from exprtool_usgan.config import GeneratorConfig
from exprtool_usgan.networks import Generator

runner = CliRunner()


def saved(path: Path, config: GeneratorConfig) -> Path:
    torch.manual_seed(0)
    card = ModelCard(config, EXPRESSIONS[: config.labels], US_GAN_TEMPLATE, training_data={"images": 2312})
    save_generator(path, Generator(config), card)
    return path


@pytest.mark.parametrize(("blocks", "parameters"), [(1, 2_533_440), (6, 8_436_800)])
def test_parameter_counts_of_the_paper_come_from_evaluate(
    blocks: int, parameters: int, tmp_path: Path, prepared: PreparedSet
) -> None:
    model = saved(tmp_path / "paper.safetensors", GeneratorConfig(7, residual_blocks=blocks))
    done = runner.invoke(
        app,
        ["evaluate", "-m", str(model), "-d", str(prepared.folder), "--split", "all", "--limit", "1", "-e", "sad",
         "--format", "json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["evaluations"][0]
    assert result["parameters"] == parameters and result["training_images"] == 2312


def test_evaluate_writes_tables_and_sheets_and_does_not_overwrite(tmp_path: Path, prepared: PreparedSet) -> None:
    model = saved(tmp_path / "small.safetensors", GeneratorConfig(3, channels=4))
    export(model, tmp_path / "small.onnx", ExportWish(crops=1))
    arguments = [
        "evaluate",
        "-m",
        str(tmp_path / "small.onnx"),
        "-d",
        str(prepared.folder),
        "-o",
        str(tmp_path / "out"),
    ]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "small" in done.stdout and "untouched" in done.stdout and "by expression" in done.stdout
    assert "US-GAN" not in done.stdout, "the paper's rows do not stand beside other data"
    assert "test people" in done.stdout.replace("\n", " "), "a trained model is measured on held-out people"
    measures = json.loads((tmp_path / "out" / "measures.json").read_text())
    asked = {row["expression"]: row["pictures"] for row in measures["evaluations"][0]["per_expression"]}
    held_out = len(prepared.test) // 2
    assert asked == {"neutral": held_out, "happy": held_out, "sad": 2 * held_out}
    for name in ("measures.md", "measures.tex", "grid.png", "residual.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    again = runner.invoke(app, arguments)
    assert isinstance(again.exception, UsageError) and "--overwrite" in str(again.exception)


def test_the_same_network_measures_the_same_in_pytorch_and_onnx(tmp_path: Path, prepared: PreparedSet) -> None:
    model = saved(tmp_path / "torch.safetensors", GeneratorConfig(3, channels=4))
    export(model, tmp_path / "onnx.onnx", ExportWish(crops=1))
    out = tmp_path / "out"
    done = runner.invoke(
        app,
        ["compare", str(model), str(tmp_path / "onnx.onnx"), "-d", str(prepared.folder), "--split", "all", "--limit",
         "2", "-e", "sad", "--rows", "2", "-o", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    first, second = json.loads((out / "measures.json").read_text())["evaluations"]
    assert first["overall"]["acd"]["mean"] == pytest.approx(
        second["overall"]["acd"]["mean"], rel=0.1
    )  # a few pixels are rounded the other way
    page = np.asarray(Pillow.open(out / "comparison.png"))
    assert page.shape[0] > 4 * 128 and page.shape[1] > 2 * 128


def test_a_backend_is_measured_on_whole_photos(faces_root: Path) -> None:
    done = runner.invoke(
        app,
        ["evaluate", "-m", "debug", "-d", str(faces_root / "NE"), "--limit", "2", "-e", "happy", "--format", "json"],
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["evaluations"][0]
    assert result["parameters"] is None and result["protocol"] == "photos, measured on crops"
    assert result["overall"]["acd"]["count"] == 2 and result["overall"]["mean_change"]["mean"] > 5


class Judge(ExpressionClassifier):
    """Sees the second of two expressions everywhere."""

    labels = EXPRESSIONS[:2]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.floating]:
        return np.tile([0.0, 1.0], (len(images), 1))


class Judges:
    """A plugin with a classifier that is ready and one, better, that is not."""

    @hookimpl
    def register_classifiers(self, register) -> None:
        register(ClassifierSpec("plain", "Sees one thing.", load=lambda device: Judge(), quality=1))
        lacking = Readiness(False, "it sleeps", "wake it")
        register(
            ClassifierSpec("better", "Sleeps.", load=lambda device: Judge(), quality=99, readiness=lambda: lacking)
        )


def test_the_best_ready_classifier_judges_and_without_one_its_remedy_is_said(
    tmp_path: Path, prepared: PreparedSet
) -> None:
    model = str(saved(tmp_path / "m.safetensors", GeneratorConfig(2, channels=4)))
    arguments = ["evaluate", "-m", model, "-d", str(prepared.folder), "--limit", "3", "--split", "all"]
    with plugged_in("judges", Judges()):
        measured = json.loads(runner.invoke(app, [*arguments, "-f", "json"]).stdout)["evaluations"][0]
        by_expression = {row["expression"]: row["expression_accuracy"]["share"] for row in measured["per_expression"]}
        assert measured["classifier"] == "plain" and set(by_expression.values()) == {0.0, 1.0}
        assert by_expression[EXPRESSIONS[1]] == 1.0
    done = runner.invoke(app, arguments)
    assert "exprtool models fetch fer2013" in done.stderr and "expr." not in done.stdout


def test_mistakes_are_told(tmp_path: Path, prepared: PreparedSet) -> None:
    model = str(saved(tmp_path / "m.safetensors", GeneratorConfig(2, channels=4)))
    data = ["-d", str(prepared.folder)]
    for arguments, says in (
        (["evaluate", "-m", "nothing", *data], "Unknown model or backend"),
        (["evaluate", "-m", model, *data, "-e", "bored"], "Unknown expression"),
        (["evaluate", "-m", model, *data, "--split", "half"], "auto, test, train and all"),
        (["evaluate", "-m", model, *data, "--classifier", str(tmp_path / "none.onnx")], "no such model file"),
        (["evaluate", "-m", model, *data, "--classifier", "fer"], "Did you mean 'fer2013'"),
        (["evaluate", "-m", model, *data, "--classifier", "fer2013"], "exprtool models fetch fer2013"),
        (["compare", model, *data], "two models"),
    ):
        done = runner.invoke(app, arguments)
        assert done.exit_code != 0 and says in str(done.exception), arguments


def test_fvs_needs_a_key(tmp_path: Path, prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACEPP_API_KEY", raising=False)
    monkeypatch.delenv("FACEPP_API_SECRET", raising=False)
    done = runner.invoke(app, ["evaluate", "-m", "debug", "-d", str(prepared.folder), "--fvs"])
    assert isinstance(done.exception, UsageError) and "FACEPP_API_KEY" in str(done.exception)


# ---------------------------------------------------------------------------------------------------------------------
# Ablations

DECLARED = """
seeds = [0, 1]
[train]
data = ["{data}"]
steps = 4
image_size = 128
channels = 4
d_channels = 4
batch_size = 4
sample_every = 0
look_every = 0
save_every = 2
tensorboard = false
device = "cpu"
[variants."US-GAN"]
[variants."without skip"]
skip = false
"""


def test_an_ablation_trains_measures_and_resumes(
    tmp_path: Path, prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exprtool_training import loop

    declaration, out = tmp_path / "skip.toml", tmp_path / "out"
    declaration.write_text(DECLARED.format(data=prepared.folder))
    real = loop.train
    calls: list[tuple[str, int]] = []

    def counted(config, make, watcher=None):  # type: ignore[no-untyped-def]
        calls.append((config.out.parent.name, config.seed))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(config, make, watcher)

    monkeypatch.setattr(loop, "train", counted)
    arguments = ["ablate", str(declaration), "-o", str(out), "--limit", "2", "-e", "happy", "-e", "neutral", "--json"]
    runner.invoke(app, [*arguments, "--quiet"])
    assert calls == [("us-gan", 0), ("without-skip", 0), ("us-gan", 1)], "seed by seed"
    done = runner.invoke(app, [*arguments, "--quiet"])
    assert done.exit_code == 0, done.output
    assert calls[3:] == [("us-gan", 1), ("without-skip", 1)], "finished runs are not trained again"
    rows = {row["variant"]: row for row in json.loads(done.stdout)["variants"]}
    assert set(rows) == {"US-GAN", "without skip"}
    assert all(row["seeds"] == 2 and row["acd"]["count"] == 2 for row in rows.values())
    assert rows["US-GAN"]["acd"]["mean"] < rows["without skip"]["acd"]["mean"], (
        "after 4 steps only the skip shows a face"
    )
    assert (out / "ablation.png").exists() and "without skip" in (out / "ablation.md").read_text()
    assert (run_folder(out, "without skip", 1) / "measures.json").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('[variants."without skip"]\nskip = false', ""), "two variants or more"),
        (("skip = false", "steps = 9"), "must be equal in steps"),
        (("skip = false", "blocks = 9"), "blocks"),
        (("skip = false", "residual_blocks = -1"), "residual"),
        (("seeds = [0, 1]", "seeds = [0, 0]"), "different whole numbers"),
        (("[train]", "[train]\nseed = 3"), "seed is set per run"),
        (("[train]", "[wagon]"), "unknown parts wagon"),
        (('[variants."US-GAN"]', "[grid]\nskip = [true]"), "either"),
        (("steps = 4", "steps ="), "cannot be read"),
        (('"without skip"', '"us gan"'), "punctuation"),
    ],
)
def test_a_declaration_is_checked_before_anything_is_trained(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    declaration = tmp_path / "a.toml"
    declaration.write_text(DECLARED.format(data="faces").replace(*change))
    with pytest.raises(UsageError, match=says):
        read_ablation(declaration)


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    declaration = tmp_path / "a.toml"
    declaration.write_text(
        '[train]\ndata = ["faces"]\nsteps = 9\n[grid]\nskip = [true, false]\nresidual_blocks = [1, 6]\n'
    )
    ablation = read_ablation(declaration)
    assert list(ablation.variants) == [
        "skip on, residual_blocks 1",
        "skip on, residual_blocks 6",
        "skip off, residual_blocks 1",
        "skip off, residual_blocks 6",
    ]
    config = ablation.config("skip off, residual_blocks 6", 0, tmp_path)
    assert (config.skip, config.residual_blocks, config.steps) == (False, 6, 9)


def test_variants_may_be_of_several_trainers_and_share_what_each_knows(tmp_path: Path) -> None:
    declaration = tmp_path / "a.toml"
    text = (
        'seeds = [4]\n[train]\ndata = ["faces"]\nsteps = 9\nlambda_r = 3.0\nlog_every = 7\n'
        '[variants.a]\n[variants.b]\ntrainer = "stargan"\n[variants.c]\ntrainer = "masked-regression"\nwindow = 5\n'
    )
    declaration.write_text(text)
    ablation = read_ablation(declaration)
    a, b, c = (ablation.config(name, 4, tmp_path) for name in "abc")
    assert [each.trainer for each in (a, b, c)] == ["gan", "stargan", "masked-regression"]
    assert {each.log_every for each in (a, b, c)} == {7} and {each.seed for each in (a, b, c)} == {4}
    assert (a.steps, b.steps, b.lambda_r, b.residual_blocks, c.window) == (9, 9, 3.0, 6, 5)  # type: ignore[attr-defined]
    for change, says in (
        (("lambda_r", "lambda_q"), "lambda_q"),
        (("window = 5", "skip = true"), "skip"),
        (('"stargan"', '"stargun"'), "stargun"),
    ):
        declaration.write_text(text.replace(*change))
        with pytest.raises(UsageError, match=says):
            read_ablation(declaration)
