"""``exprtool reproduce``: every model of the registry, one table, all figures, one page; frank about failures."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import exprtool_training.data.measured as measured  # noqa: E402
from exprtool import hookimpl  # noqa: E402
from exprtool.cli.main import app  # noqa: E402
from exprtool.errors import TrainingError, UnknownNameError, UsageError  # noqa: E402
from exprtool.plugins import plugged_in, registry  # noqa: E402
from exprtool.types import TrainerSpec, Variant  # noqa: E402
from exprtool_gan import toy  # noqa: E402
from exprtool_training import reproduce as room  # noqa: E402
from exprtool_training.reproduce import Wish, all_variants, reproduce  # noqa: E402

MODELS = ("US-GAN", "US-GAN without skip", "StarGAN")


@pytest.fixture(autouse=True)
def _no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn faces have no landmarks that a detector would find, and looking for them takes long."""
    for module in (measured, sys.modules["exprtool_training.data.prepare"]):  # the package has a function of that name
        monkeypatch.setattr(module, "landmarks_in", lambda image, detector: np.full((68, 2), np.nan))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "toys"
    toy.write_set(folder, range(8), 64)
    return folder


def arguments(drawn: Path, out: Path, *more: str, models: tuple[str, ...] = MODELS) -> list[str]:
    chosen = [word for name in models for word in ("-m", name)]
    return ["reproduce", "-d", str(drawn), "-o", str(out), "--quick", "--crop", "centre", "--device", "cpu",
            "--test-fraction", "0.3", "-q", *chosen, *more]  # fmt: skip


def test_the_models_are_those_that_trainers_bring():
    known = all_variants()
    brought = {variant.name for spec in registry().trainers.values() for variant in spec.variants}
    assert set(known) == brought and next(iter(known)) == "US-GAN"
    assert {"US-GAN without skip", "US-GAN-0", "US-GAN-6", "StarGAN", "STGAN", "GANimation"} <= set(known)
    in_figure = {n: [name for name, (_, v) in known.items() if n in v.figures] for n in (8, 10, 11)}
    assert in_figure[8] == ["US-GAN", "StarGAN", "GANimation", "STGAN"], "as in the paper"
    assert set(in_figure[10]) == {"US-GAN", "US-GAN without skip", "STGAN", "STGAN with skip"}
    assert set(in_figure[11]) == {"US-GAN", "US-GAN-6", "StarGAN"}


def test_one_command_makes_the_page_and_the_second_time_trains_nothing(drawn, tmp_path, monkeypatch):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, arguments(drawn, out))
    assert done.exit_code == 0, done.output
    page = (out / "index.html").read_text("utf-8")
    for name in MODELS:
        assert f"<td>{name}</td>" in page and name in (out / "table-1.tex").read_text()
    assert "<td>untouched</td>" in page and "trial run" in page and re.search(r"Only \d+ pictures of \d people", page)
    assert page.count("data:image/png;base64,") == len(list(out.glob("figure-*.png"))) >= 6
    assert not [part for part in page.split('"') if part.startswith(("http:", "https:", "//"))], "nothing is loaded"
    for number in ("2", "4", "7", "8-inside", "10", "11"):
        assert (out / f"figure-{number}.png").exists(), number
    before = json.loads((out / "measures.json").read_text())
    assert [row["model"] for row in before["evaluations"]] == list(MODELS)
    assert len({row["edits_in_common"] for row in before["evaluations"]}) == 1

    monkeypatch.setattr("exprtool_training.loop.train", lambda *given: pytest.fail("trained again"))
    monkeypatch.setattr(room, "evaluate", _only_references(room.evaluate))
    again = CliRunner().invoke(app, arguments(drawn, out))
    assert again.exit_code == 0, again.output
    assert json.loads((out / "measures.json").read_text()) == before
    other = CliRunner().invoke(app, arguments(drawn, out, "--seed", "4"))
    assert isinstance(other.exception, UsageError) and "another seed" in str(other.exception)


def _only_references(evaluate):
    def checked(subject, *given, **more):
        assert subject.reference, "measured again"
        return evaluate(subject, *given, **more)

    return checked


def test_a_model_that_cannot_be_made_is_named_and_the_others_go_on(drawn, tmp_path):
    spec = registry().trainer("gan")

    def fail(config, watcher=None):
        raise TrainingError("the disk of <b>this</b> trainer is full")

    class Plugin:
        @hookimpl
        def register_trainers(self, register):
            register(TrainerSpec("broken", "test", spec.config, fail, variants=(Variant("Broken", {}, (8,)),)))

    with plugged_in("broken", Plugin()):
        done = CliRunner().invoke(app, arguments(drawn, tmp_path / "out", models=("US-GAN", "Broken")))
    assert done.exit_code == 1 and "Broken: the disk" in done.stderr
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "the disk of &lt;b&gt;this&lt;/b&gt; trainer is full" in page and "<td>US-GAN</td>" in page


def test_foreign_folders_and_names_are_refused(drawn, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_bytes(b"years of work")
    wish = Wish((drawn,), tmp_path / "full", quick=True)
    with pytest.raises(UsageError, match="other files"):
        reproduce(wish)
    with pytest.raises(UnknownNameError, match="US-GAN-6"):
        reproduce(replace(wish, out=tmp_path / "new", models=("US-GAN-9",)))
    done = CliRunner().invoke(app, arguments(drawn, tmp_path / "x", "--crop", "round"))
    assert isinstance(done.exception, UsageError)
