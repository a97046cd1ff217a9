"""Whole runs on drawn faces: resumed bit for bit, stopped, spoiled, watched; and the command line around them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from exprtool.cli.main import app  # noqa: E402
from exprtool.errors import DataError, TrainingError, UnknownNameError, UsageError  # noqa: E402
from exprtool.settings import read_toml, to_toml  # noqa: E402
from exprtool_gan import toy  # noqa: E402
from exprtool_gan.config import RECIPES, TrainConfig, with_recipe  # noqa: E402
from exprtool_gan.look import Looker  # noqa: E402
from exprtool_gan.loop import train  # noqa: E402
from exprtool_training import memory  # noqa: E402
from exprtool_training.data import PrepareOptions, ScanOptions, prepare, read_prepared  # noqa: E402
from exprtool_training.run_folder import RunFolder  # noqa: E402
from exprtool_training.screen import LiveScreen, PlainLines  # noqa: E402
from exprtool_training.watch import Watcher  # noqa: E402
from exprtool_usgan.checkpoint import load_discriminator, load_generator, read_card  # noqa: E402

TINY = dict(
    image_size=32, channels=4, d_channels=4, d_layers=3, batch_size=4, d_steps=2, crop="centre", device="cpu",
    log_every=5, sample_every=0, look_every=0, save_minutes=0.0, tensorboard=False, shift=1, colour=0.1, ema=0.9,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people with two expressions, prepared."""
    folder = tmp_path_factory.mktemp("faces")
    toy.write_set(folder / "raw", range(20))
    prepare(
        [folder / "raw"], folder / "prepared", PrepareOptions(32, "centre", test_fraction=0.2), ScanOptions(), workers=1
    )
    return folder / "prepared"


def config(faces: Path, out: Path, **changes: object) -> TrainConfig:
    return TrainConfig(**{**TINY, "data": (faces,), "out": out, "steps": 10, **changes})  # type: ignore[arg-type]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / "last.safetensors")


def assert_same(one: Path, other: Path) -> None:
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys() and len(a) > 40
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_resumed_run_equals_the_straight_one_bit_for_bit(faces: Path, tmp_path: Path):
    """2 k steps against k, resume, k: weights, average, both optimizers, schedule (it decays), sampler."""
    train(config(faces, tmp_path / "straight", steps=14))
    outcome = train(config(faces, tmp_path / "halves", steps=14, stop_at=7))
    assert outcome.step == 7 and not outcome.finished and not outcome.interrupted
    assert not all(torch.equal(tensors(tmp_path / "straight")[n], t) for n, t in tensors(tmp_path / "halves").items())
    assert train(config(faces, tmp_path / "halves", steps=14, resume=True)).finished
    assert_same(tmp_path / "straight", tmp_path / "halves")
    names = tensors(tmp_path / "straight")
    for part in ("generator.", "ema.", "discriminator.", "g_adam.", "d_adam."):
        assert any(name.startswith(part) for name in names)


def test_watching_more_does_not_change_what_is_learned(faces: Path, tmp_path: Path):
    train(config(faces, tmp_path / "plain", steps=6, validation_fraction=0.2))
    watched = config(
        faces, tmp_path / "watched", steps=6, log_every=1, sample_every=2, look_every=3, look_images=2, save_every=1,
        keep_every=4, tensorboard=True, validation_fraction=0.2,
    )  # fmt: skip
    train(watched)
    assert_same(tmp_path / "plain", tmp_path / "watched")
    out = watched.out
    assert sorted(p.name for p in (out / "samples").iterdir()) == [f"step-00000{n}.png" for n in (2, 4, 6)]
    assert {p.name for p in (out / "checkpoints").iterdir()} == {
        "best.safetensors", "last.safetensors", "step-000004.safetensors"
    }  # fmt: skip
    assert any((out / "tensorboard").iterdir())
    log = RunFolder(out).read_log()
    assert [e["step"] for e in log if "d_total" in e] == [1, 2, 3, 4, 5, 6]
    looks = [e for e in log if "look" in e]
    assert [e["step"] for e in looks] == [3, 6]
    assert all(0 <= e["look"]["accuracy"] <= 1 and e["look"]["judge"] == "own head" for e in looks)


def test_run_folder_tells_what_was_done(faces: Path, tmp_path: Path):
    wanted = config(faces, tmp_path / "run", steps=4, licence="CC BY 4.0")
    train(wanted)
    assert replace(TrainConfig.stored(wanted.out), resume=False) == wanted
    assert TrainConfig(**read_toml(TrainConfig, wanted.out / "config.toml")) == wanted
    environment = json.loads((wanted.out / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    data = json.loads((wanted.out / "data.json").read_text())
    assert len(data["samples"]) == 40 and data["git"] == {str(faces): None}
    assert (wanted.out / "command.txt").read_text().strip()
    card = read_card(wanted.out)
    assert card.labels == toy.EXPRESSIONS and card.step == 4 and card.licence == "CC BY 4.0"
    assert (
        card.training_data["manifest"] == data["hash"]
        and card.training_data["images"] == 2 * card.training_data["people"]
    )
    generator, _ = load_generator(wanted.out)
    assert generator.edit(torch.zeros(1, 3, 32, 32), torch.eye(2)[:1]).abs().max() <= 1
    assert load_discriminator(wanted.out)[0](torch.zeros(1, 3, 32, 32))[1].shape == (1, 2)


def test_a_run_is_not_overwritten_unasked(faces: Path, tmp_path: Path):
    train(config(faces, tmp_path, steps=2))
    before = (tmp_path / "checkpoints" / "last.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="--resume"):
        train(config(faces, tmp_path, steps=2))
    assert (tmp_path / "checkpoints" / "last.safetensors").read_bytes() == before
    train(config(faces, tmp_path, steps=2, seed=5, overwrite=True))
    assert (tmp_path / "checkpoints" / "last.safetensors").read_bytes() != before


def test_resume_needs_the_same_run(faces: Path, tmp_path: Path):
    with pytest.raises(TrainingError, match="no checkpoint to resume from"):
        train(config(faces, tmp_path / "none", resume=True))
    out = tmp_path / "run"
    train(config(faces, out, steps=2))
    last = out / "checkpoints" / "last.safetensors"
    before = last.read_bytes()
    with pytest.raises(TrainingError, match="another generator"):
        train(config(faces, out, steps=4, resume=True, residual_blocks=2))
    with pytest.raises(UsageError, match=r"--residual-blocks 2 \(the run: 1\)"):
        TrainConfig.from_settings({"out": out, "resume": True, "residual_blocks": 2})
    other = tmp_path / "other"
    toy.write_set(other / "raw", range(50, 60))
    prepare(
        [other / "raw"], other / "prepared", PrepareOptions(32, "centre", test_fraction=0.2), ScanOptions(), workers=1
    )
    with pytest.raises(TrainingError, match="other data"):
        train(config(other / "prepared", out, steps=4, resume=True))
    assert last.read_bytes() == before
    longer = TrainConfig.from_settings({"out": out, "resume": True, "steps": 3})
    assert longer.channels == 4 and train(longer).step == 3


def test_data_that_cannot_be_trained_on(faces: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="--data"):
        train(config(faces, tmp_path / "a", data=()))
    with pytest.raises(DataError, match="does not exist"):
        train(config(tmp_path / "nowhere", tmp_path / "b"))
    with pytest.raises(DataError, match="larger than the training set"):
        train(config(faces, tmp_path / "c", batch_size=64))
    one = tmp_path / "one"
    toy.write_set(one / "raw", range(4))
    sad = ScanOptions(ignore=("happy/*",))
    prepare([one / "raw"], one / "prepared", PrepareOptions(32, "centre", test_fraction=0.3), sad, workers=1)
    with pytest.raises(DataError, match="one expression only"):
        train(config(one / "prepared", tmp_path / "d"))
    assert not any((tmp_path / name).exists() for name in "abcd")


class Spoiler(Watcher):
    """Puts a NaN into D's weights after some steps."""

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        from exprtool_gan import loop

        self.step = step
        self.learners: list[loop.Learner] = []
        real = loop.Learner

        def made(*arguments: object, **named: object) -> loop.Learner:
            self.learners.append(real(*arguments, **named))  # type: ignore[arg-type]
            return self.learners[-1]

        monkeypatch.setattr(loop, "Learner", made)

    def stepped(self, step: int) -> None:
        if step == self.step:
            with torch.no_grad():
                next(self.learners[-1].discriminator.parameters()).fill_(float("nan"))


def test_nan_stops_the_run_and_the_last_good_checkpoint_stays(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(TrainingError, match=r"became nan at step 8"):
        train(config(faces, tmp_path, steps=20, save_every=4), Spoiler(7, monkeypatch))
    assert read_card(tmp_path / "checkpoints" / "last.safetensors").step == 4
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path).values())


def test_spoiled_weights_are_never_saved(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The losses of the step are still finite; only the weight is not."""
    with pytest.raises(TrainingError, match="not finite"):
        train(config(faces, tmp_path, steps=20, save_every=4), Spoiler(8, monkeypatch))
    assert read_card(tmp_path / "checkpoints" / "last.safetensors").step == 4


class Interrupter(Watcher):
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number, self.last = step, number, -1

    def stepped(self, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.number)

    def saved(self, step: int, path: Path) -> None:
        self.last = step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_the_run_goes_on_later(faces: Path, tmp_path: Path, number: signal.Signals):
    train(config(faces, tmp_path / "straight", steps=6))
    watcher = Interrupter(3, number)
    handler = signal.getsignal(number)
    outcome = train(config(faces, tmp_path / "cut", steps=6), watcher)
    assert outcome.interrupted and outcome.step == watcher.last == 3
    assert signal.getsignal(number) is handler
    train(config(faces, tmp_path / "cut", steps=6, resume=True))
    assert_same(tmp_path / "straight", tmp_path / "cut")


def test_kill_at_any_moment_leaves_a_run_that_resumes(faces: Path, tmp_path: Path):
    """A process that does nothing but save is killed in the middle; what it leaves must load."""
    out = tmp_path / "run"
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from exprtool_gan.config import TrainConfig; from exprtool_gan.loop import train\n"
        f"train(TrainConfig(data=(Path({str(faces)!r}),), out=Path({str(out)!r}), steps=100000, save_every=1,"
        f" **{ {**TINY, 'd_channels': 32}!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    last = out / "checkpoints" / "last.safetensors"
    try:
        deadline = time.monotonic() + 60
        while not last.is_file() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1.0)
    finally:
        process.kill()
        process.wait()
    step = read_card(last).step
    with (out / "log.jsonl").open("a") as log:
        log.write('{"step": 99999, "d_to')  # the line that the kill cut
    resumed = replace(TrainConfig.stored(out), resume=True, steps=step + 2)
    assert train(resumed).step == step + 2
    assert all(entry["step"] <= step + 2 for entry in RunFolder(out).read_log())


# --- memory ----------------------------------------------------------------------------------------------------------


def test_the_batch_that_fits_is_found():
    tried: list[int] = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > 21:
            raise torch.OutOfMemoryError("out of memory")

    assert memory.largest_batch(attempt, 64) == 21
    assert len(tried) <= 7
    assert memory.largest_batch(lambda size: (_ for _ in ()).throw(torch.OutOfMemoryError()), 8) == 0
    with pytest.raises(RuntimeError, match="something else"):
        memory.largest_batch(lambda size: (_ for _ in ()).throw(RuntimeError("something else")), 8)


def test_running_out_of_memory_says_what_fits(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from exprtool_gan.step import Batch, Learner

    real = Learner.both_steps

    def short_of_memory(self: Learner, batch: Batch) -> torch.Tensor:
        if len(batch.x_real) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, batch)

    monkeypatch.setattr(Learner, "both_steps", short_of_memory)
    with pytest.raises(TrainingError, match=r"by a batch of 4. A batch of 3 fits: --batch-size 3"):
        train(config(faces, tmp_path))


# --- settings and command line ---------------------------------------------------------------------------------------


def test_recipes():
    paper, code = with_recipe("paper"), with_recipe("official-code")
    assert (paper.lambda_c, paper.lambda_r, paper.lambda_gp) == (1, 10, 10)
    assert (paper.lr, paper.beta1, paper.beta2, paper.batch_size, paper.epochs, paper.d_steps) == (
        1e-4,
        0.5,
        0.999,
        8,
        350,
        5,
    )
    assert (paper.residual_blocks, paper.skip, paper.image_size) == (1, True, 128)
    assert (code.lambda_r, code.decay_from, code.targets, code.steps, code.ema) == (1, 1, "permute", 200_000, 0)
    assert with_recipe("official-code", {"epochs": 3.0}).steps == 0
    assert with_recipe("official-code", {"lambda_r": 4.0}).lambda_r == 4
    with pytest.raises(UnknownNameError, match="official-code"):
        with_recipe("papers")
    with pytest.raises(UnknownNameError, match="lambda_r"):
        with_recipe("paper", {"lambda_q": 1})
    assert set(RECIPES) == {"paper", "official-code", "photos"}


def test_the_paper_centre_crops_one_session_averages_no_weights_and_reports_the_last_step():
    paper, photos = with_recipe("paper"), with_recipe("photos")
    assert (paper.crop, paper.ema, paper.all_sessions, paper.validation_fraction) == ("centre", 0.0, False, 0.0)
    assert (photos.crop, photos.ema, photos.validation_fraction > 0) == ("aligned", 0.999, True)
    assert paper.data_options()["scan_options"] == ScanOptions()


def test_the_best_checkpoint_is_chosen_on_people_of_its_own(faces: Path, tmp_path: Path):
    prepared = read_prepared(faces)
    apart = prepared.with_validation(0.2)
    sides = [{apart.people[i] for i in side} for side in (apart.train, apart.validation, apart.test)]
    assert all(sides) and not any(a & b for a, b in itertools.combinations(sides, 2))
    assert sides[2] == {prepared.people[i] for i in prepared.test}, "the people who are reported on stay the same"
    looker = Looker(apart, 4, None, "cpu")
    shown = {bytes(image) for image in looker._inputs}
    assert looker.chooses and shown <= {bytes(apart.images[i]) for i in apart.validation}
    assert not Looker(prepared, 4, None, "cpu").chooses
    out = train(config(faces, tmp_path / "none", steps=4, look_every=2)).best
    assert out is None and not (tmp_path / "none" / "checkpoints" / "best.safetensors").exists()


def test_a_prepared_folder_cut_otherwise_is_said(faces: Path, tmp_path: Path):
    seen: list[str] = []

    class Notes(Watcher):
        def started(self, plan):
            seen.extend(plan.facts)

    train(config(faces, tmp_path / "run", steps=1, crop="aligned"), Notes())
    assert any("prepared with centre crops" in note for note in seen)


def test_toml_goes_round(tmp_path: Path):
    odd = Path("a b/ü\"'\\")
    wanted = TrainConfig(
        data=(odd, Path("c")), out=tmp_path / "x\ty", ignore=("*.gif",), lr=3e-5, skip=False, classifier=Path("c.onnx")
    )
    (tmp_path / "c.toml").write_text(to_toml(wanted, "title"), encoding="utf-8")
    assert TrainConfig(**read_toml(TrainConfig, tmp_path / "c.toml")) == wanted


@pytest.mark.parametrize(
    ("text", "match"),
    [("lamda_r = 3", "lambda_r"), ("lr = 'fast'", "lr must be a number"), ("skip = 1", "true or false"),
     ("batch_size = 2.5", "a whole number"), ("lr = = 3", "not valid TOML"), ("data = 'x'", "a list")],
)  # fmt: skip
def test_toml_that_will_not_do(tmp_path: Path, text: str, match: str):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=match) as caught:
        read_toml(TrainConfig, tmp_path / "c.toml")
    assert "c.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lr": -1.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"batch_size": 0}, "--batch-size"),
        ({"d_layers": 6, "image_size": 32}, "fewer layers"),
        ({"devices": 3}, "multiple of 3"),
        ({"epochs": 0.0}, "no length"),
        ({"targets": "any"}, "permute"),
        ({"image_size": 600}, "512"),
    ],
)
def test_settings_that_will_not_do(changes: dict[str, object], match: str):
    with pytest.raises(UsageError, match=match):
        TrainConfig(**changes)  # type: ignore[arg-type]


def test_every_setting_has_a_flag_and_its_help():
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    for entry in fields(TrainConfig):
        assert f"--{entry.name.replace('_', '-')}" in result.output, entry.name
        assert entry.metadata["help"].split()[0] in result.output


def test_train_at_the_command_line(faces: Path, tmp_path: Path):
    """Flags stand above the file, the file above the recipe; the run's folder then resumes without either."""
    (tmp_path / "c.toml").write_text(to_toml(config(faces, tmp_path / "run", steps=50, lr=2e-4), "title"))
    arguments = ["train", "--config", str(tmp_path / "c.toml"), "--steps", "4", "--stop-at", "2", "--no-skip"]
    dumped = CliRunner().invoke(app, [*arguments, "--dump-config"])
    assert "steps = 4 " in dumped.output and "lr = 0.0002" in dumped.output and "skip = false" in dumped.output
    assert not (tmp_path / "run").exists()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "run")
    assert card.step == 2 and not card.generator.skip
    result = CliRunner().invoke(app, ["train", "--resume", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert read_card(tmp_path / "run" / "checkpoints" / "last.safetensors").step == 4


def test_command_line_names_what_is_known():
    result = CliRunner().invoke(app, ["train", "--trainer", "magic"])
    assert isinstance(result.exception, UnknownNameError) and "gan" in str(result.exception)
    assert CliRunner().invoke(app, ["train", "--lambda-q", "3"]).exit_code == 2


@pytest.mark.parametrize("live", [True, False])
def test_screen_shows_losses_time_left_and_how_to_go_on(faces: Path, tmp_path: Path, live: bool):
    import io

    from rich.console import Console

    out = io.StringIO()
    # Wide enough for a temporary path, which the live screen would fold. It shows the last sheet for sure.
    console = Console(file=out, force_terminal=live, width=400, height=50)
    watcher = LiveScreen(console) if live else PlainLines(console)
    train(
        config(faces, tmp_path / "run", steps=6, stop_at=4, log_every=2, sample_every=2, look_every=4, look_images=2),
        watcher,
    )
    watcher.close()
    text = out.getvalue()
    for part in ("images/s", "left", "d_total", "g_rec", "step-000004.png", "happy, sad", "recipe paper"):
        assert part in text, part
    assert "exprtool train --resume --out" in text
    assert "no evidence" in text or live  # the live screen may fold it


def test_learns_on_drawn_faces_in_seconds(faces: Path, tmp_path: Path):
    """Far from finished, but on its way: D tells the drawings' expressions apart, and G still gives the input back."""
    train(config(faces, tmp_path, steps=120, channels=8, d_channels=8, lr=2e-3, log_every=40, shift=0, colour=0.0))
    log = RunFolder(tmp_path).read_log()
    assert log[-1]["d_expr"] < 0.5 < log[0]["d_expr"]
    assert log[-1]["g_rec"] < 0.6 * log[0]["g_rec"]
    assert np.isfinite([value for entry in log for value in entry.values()]).all()
