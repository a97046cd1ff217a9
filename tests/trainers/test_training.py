"""What every trainer shares: where a run stands, whose it is, and that runs from before still go on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file

from exprtool.errors import ModelError, TrainingError, UsageError
from exprtool.plugins import registry
from exprtool.settings import setting, to_plain
from exprtool_training.checkpoint import made_by, read_metadata, read_part, save
from exprtool_training.config import RunConfig
from exprtool_training.loop import train
from exprtool_training.method import Method
from exprtool_training.progress import read_progress
from exprtool_training.run_folder import RunFolder
from exprtool_training.watch import Look, Watcher


@dataclass(frozen=True)
class SumConfig(RunConfig):
    trainer: ClassVar[str] = "sum"
    steps: int = setting(6, "Training", "Length.", span=(1, 100), changes=True)
    scale: float = setting(1.0, "Method", "Factor.", span=(0, 2))


class Sum(Method):
    """Adds up the numbers of its steps; the state is one array."""

    losses = ("value", "twice")
    unit = "numbers"

    def __init__(self, config: SumConfig, world: Any, watcher: Watcher) -> None:
        self.config, self.total, self.data, self.manifest = config, config.steps, "numbers", {}
        self.facts = ("numbers in a row",)
        self.value = np.zeros(1)
        self.closed = False

    def step(self, step: int) -> np.ndarray:
        self.value += self.config.scale * step
        if self.config.seed == 13 and step == 3:
            return np.array([np.nan])
        return np.array([self.value[0], 2 * self.value[0]])[: 1 + step % 2]

    def state(self) -> dict[str, Any]:
        return {"sum": {"value": self.value}}

    def restore(self, path: Path, progress: Any) -> None:
        self.value = read_part(path, "sum", "np")["value"]

    def product(self, step: int, look: Look | None) -> tuple[Any, dict[str, str]]:
        return self.state(), {"best": str(look and look.score)}

    def header(self, step: int) -> dict[str, str]:
        return {}

    def look(self) -> Look:
        score = -abs(float(self.value[0]) - 3)
        return Look(score, {"distance": -score}, f"{-score} from 3")

    def close(self) -> None:
        self.closed = True


def config(out: Path, **changes: Any) -> SumConfig:
    return SumConfig(**{"out": out, "log_every": 2, "look_every": 1, "batch_size": 1, **changes})


def test_a_method_is_looped_logged_looked_at_and_resumed(tmp_path: Path) -> None:
    outcome = train(config(tmp_path / "a"), Sum)
    assert (
        outcome.finished
        and outcome.best == 0
        and load_file(tmp_path / "a/checkpoints/last.safetensors")["sum.value"] == 15
    )
    assert read_metadata(tmp_path / "a/checkpoints/best.safetensors")["best"] == "-0.0", (
        "chosen after step 3: 0 + 1 + 2"
    )
    log = RunFolder(tmp_path / "a").read_log()
    assert [entry["value"] for entry in log if "value" in entry] == [0.5, 4.5, 12.5], "means of two steps"
    assert [entry["twice"] for entry in log if "twice" in entry] == [2, 12, 30], "means of those that occurred"
    assert "lr" not in log[0] and "numbers_per_second" in next(entry for entry in log if "value" in entry)
    train(config(tmp_path / "b", stop_at=4), Sum)
    resumed = SumConfig.from_settings({"out": tmp_path / "b", "resume": True, "steps": 8})
    assert train(resumed, Sum).step == 8
    assert load_file(tmp_path / "b/checkpoints/last.safetensors")["sum.value"] == 28
    with pytest.raises(UsageError, match=r"--scale 2.0 \(the run: 1.0\)"):
        SumConfig.from_settings({"out": tmp_path / "b", "resume": True, "scale": 2.0})


def test_what_is_not_finite_stops_the_run_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    methods: list[Sum] = []

    def make(*arguments: Any) -> Sum:
        methods.append(Sum(*arguments))
        return methods[-1]

    with pytest.raises(TrainingError, match="loss value became nan at step 4"):
        train(config(tmp_path, seed=13, save_every=2), make)
    progress, _ = read_progress(tmp_path / "checkpoints" / "last.safetensors", "sum")
    assert progress.step == 2 and methods[0].closed


def test_a_run_belongs_to_its_trainer(tmp_path: Path) -> None:
    train(config(tmp_path), Sum)
    assert made_by(tmp_path, "sum") and not made_by(tmp_path, "gan", "exprtool")
    assert not made_by(tmp_path / "nothing", "sum")
    with pytest.raises(TrainingError, match="--trainer sum"):
        read_progress(tmp_path / "checkpoints" / "last.safetensors", "gan")
    with pytest.raises(ModelError, match="no run or checkpoint of a trainer that is installed"):
        registry().trainer_of(tmp_path)
    with pytest.raises(ModelError, match="There is no"):
        registry().trainer_of(tmp_path / "nothing")


OLD = {
    "gan": ("exprtool", "exprtool_training", {"step": 7, "g_updates": 3, "total": 14, "data_hash": "abc"}, 14),
    "flow": ("exprtool_flow_card", "exprtool_flow_training", {"step": 7, "data": "abc"}, 60),
}


@pytest.mark.parametrize("trainer", OLD)
def test_runs_from_before_the_shared_loop_are_understood(trainer: str, tmp_path: Path) -> None:
    """Their headers name no trainer; the flow's had a key of its own and no length beside the settings."""
    card, key, progress, total = OLD[trainer]
    training = {"progress": {**progress, "best": 0.5, "seconds": 9.0}, "config": {"steps": 60}}
    path = tmp_path / "checkpoints" / "last.safetensors"
    path.parent.mkdir()
    save(path, {"net": {"w": np.ones(2)}}, {card: "{}", key: json.dumps(training)})
    found, plain = read_progress(path, trainer)
    assert (found.step, found.total, found.data, found.best, found.seconds) == (7, total, "abc", 0.5, 9.0)
    assert plain == {"steps": 60} and registry().trainer_of(tmp_path).name == trainer
    with pytest.raises(TrainingError, match=f"--trainer {trainer}"):
        read_progress(path, "flow" if trainer == "gan" else "gan")
    save(path, {"net": {"w": np.ones(2)}}, {card: "{}", key: '{"progress": {}}'})
    with pytest.raises(ModelError, match="cannot be read"):
        read_progress(path, trainer)
    save(path, {"net": {"w": np.ones(2)}}, {card: "{}"})
    with pytest.raises(TrainingError, match="no training state"):
        read_progress(path, trainer)


def test_settings_carry_their_range_and_what_a_resume_may_change(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--scale must be from 0 to 2, not 3"):
        SumConfig(scale=3)
    with pytest.raises(UsageError, match="--save-minutes must be at least 0, not nan"):
        SumConfig(save_minutes=float("nan"))
    assert "seed" in to_plain(SumConfig()) and "resume" not in to_plain(SumConfig())


def test_arrays_and_tensors_are_kept_as_they_are(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    kept = {"a": np.arange(6.0).reshape(2, 3).T, "b": torch.arange(3).float(), "c": torch.tensor(5)}
    save(tmp_path / "x.safetensors", {"part": kept}, {})
    back = read_part(tmp_path / "x.safetensors", "part")
    assert back["c"].shape == () and int(back["c"]) == 5 and torch.equal(back["b"], kept["b"])
    np.testing.assert_array_equal(read_part(tmp_path / "x.safetensors", "part", "np")["a"], kept["a"])
    assert read_part(tmp_path / "x.safetensors", "other") == {}
