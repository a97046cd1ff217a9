"""Make the network that lies in the package, from portraits to its file, in one command.

    python benchmarks/default_truth.py --list > held.txt
    python -m exprtool_flow.default_model --leave-out held.txt --work WORK \\
        --faces london/neutral --licence "CC BY 4.0" --faces fairface --licence "CC BY 4.0"

Makes the set of pairs (WORK/set), reads heads that nobody has (WORK/readings.npz), trains on both (WORK/run) by
default_model.toml, and puts the network where the backend ``default`` looks for it. Interrupted and started again it
goes on where it stood, but for the readings, which it then makes anew. The same portraits, versions and machine give
the same network. Figures come from benchmarks/default_truth.py, on the people who were left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from exprtool.files import write_bytes
from exprtool.settings import read_toml
from exprtool_default.plugin import MODEL
from exprtool_flow.config import FlowConfig
from exprtool_flow.loop import train
from exprtool_flow.readings import make_readings
from exprtool_flow.shards import open_sets
from exprtool_synth.dataset import Source, make_dataset
from exprtool_synth.portrait import Wish
from exprtool_training.screen import screen

RECIPE = Path(__file__).with_name("default_model.toml")
READINGS = 225_000
"""How many heads that nobody has are read: half an hour on two cores."""


def make(
    faces: Sequence[Path], licences: Sequence[str], leave_out: frozenset[str], work: Path, recipe: Path, out: Path,
    wish: Wish, count: int,
) -> None:  # fmt: skip
    """Set, run and file; what exists already is taken as it is."""
    pairs, readings, run = work / "set", work / "readings.npz", work / "run"
    if not (pairs / "datasheet.json").exists():
        sources = [Source(folder, licence) for folder, licence in zip(faces, licences, strict=True)]
        make_dataset(sources, pairs, wish, leave_out=lambda path: path.name in leave_out, progress=_tell)
    settings = {"data": (pairs,), "readings": str(readings), "out": run}
    settings["resume"] = (run / "checkpoints" / "last.safetensors").exists()
    if not readings.exists():
        plan = FlowConfig.from_settings({**read_toml(FlowConfig, recipe), **settings, "resume": False})
        made = open_sets(plan.data)
        train_on, _ = made.split(plan.test_fraction, plan.split_seed)
        make_readings(made, train_on, count, plan.seed, readings, progress=_tell_readings)
    outcome = train(FlowConfig.from_settings({**read_toml(FlowConfig, recipe), **settings}), screen())
    if outcome.model is None:
        raise SystemExit(f"Stopped after {outcome.step} steps. The same command goes on from there.")
    write_bytes(out, outcome.model.read_bytes())
    print(f"{out}: {outcome.best:.2f} dB on held-out people")


def _tell_readings(done: int, count: int) -> None:
    if done % 10_000 == 0 or done == count:
        print(f"{done:,} of {count:,} readings")


def _tell(done: int, count: int, pairs: int) -> None:
    if done % 50 == 0 or done == count:
        print(f"{done} of {count} portraits, {pairs} pairs")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, action="append", required=True, help="a folder of portraits")
    parser.add_argument("--licence", action="append", default=[], help="licence of each --faces folder, in order")
    parser.add_argument("--leave-out", type=Path, help="file names, one per line, that are kept for measuring")
    parser.add_argument("--work", type=Path, required=True, help="folder for the set and the run")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="settings of the run, TOML")
    parser.add_argument("--out", type=Path, default=MODEL, help="where the network goes")
    parser.add_argument("--per-face", type=int, default=12)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--readings", type=int, default=READINGS, help="heads that nobody has, to learn reading from")
    wishes = parser.parse_args(arguments)
    licences = wishes.licence or ["not stated"] * len(wishes.faces)
    if len(licences) != len(wishes.faces):
        parser.error(f"{len(wishes.faces)} --faces but {len(licences)} --licence; give one for each, or none")
    kept = frozenset(wishes.leave_out.read_text().split()) if wishes.leave_out else frozenset[str]()
    wish = Wish(wishes.per_face, wishes.size)
    make(wishes.faces, licences, kept, wishes.work, wishes.recipe, wishes.out, wish, wishes.readings)


if __name__ == "__main__":
    main()
