"""Ablations: a declared set of variants, trained for equal steps from equal seeds, measured on the same people.

The declaration is a TOML file::

    seeds = [0, 1, 2]

    [train]                     # what all share: keys of `exprtool train --dump-config`, where their trainers know them
    data = ["faces"]
    steps = 20000

    [variants."US-GAN"]         # what each changes
    [variants."without skip"]
    skip = false
    [variants."StarGAN"]
    trainer = "stargan"         # another trainer than "gan"

or, in place of ``[variants]``, a ``[grid]`` whose every combination is a variant::

    [grid]
    skip = [true, false]
    residual_blocks = [1, 6]
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool.documents import MOST, parse_toml
from exprtool.errors import DataError, UsageError
from exprtool.files import read_regular, write_bytes
from exprtool.measures.stats import Stat
from exprtool.plugins import registry
from exprtool.settings import from_plain, stored_fields, to_plain
from exprtool_training.checkpoint import CHECKPOINTS, LAST
from exprtool_training.config import RunConfig
from exprtool_training.crops import CropsConfig, load_crops
from exprtool_training.progress import read_progress

if TYPE_CHECKING:
    from exprtool.measures.evaluation import Classifier, Evaluation
    from exprtool.measures.pictures import Pictures
    from exprtool.measures.subjects import Subject
    from exprtool.types import TrainerSpec
    from exprtool_training.watch import Watcher

SAME_FOR_ALL = (
    "steps",
    "epochs",
    "data",
    "image_size",
    "crop",
    "detector",
    "test_fraction",
    "validation_fraction",
    "all_sessions",
    "split_seed",
    "batch_size",
)
"""What variants may not differ in: else their steps, crops or people would not be equal."""
_OURS = ("seed", "out")
_TRAINER = "gan"
MEASURES = "measures.json"


@dataclass(frozen=True)
class Ablation:
    """A declaration that was read: the settings of every variant (without seed and folder), and the seeds."""

    variants: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]

    def config(self, variant: str, seed: int, out: Path) -> CropsConfig:
        """The configuration of one run below ``out``."""
        settings = {**self.variants[variant], "seed": seed, "out": run_folder(out, variant, seed)}
        kind: Any = registry().trainer(settings.pop("trainer", _TRAINER)).config()
        return kind.from_settings(settings)


@dataclass(frozen=True, eq=False)
class VariantResult:
    """One variant's measures over its seeds: mean and spread of the runs' own means."""

    name: str
    parameters: int | None
    seeds: int
    acd: Stat
    distance: Stat
    local_verification: Stat
    accuracy: Stat
    own_head: Stat
    changed: Stat

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.name,
            "parameters": self.parameters,
            "seeds": self.seeds,
            "acd": self.acd.to_json(),
            "distance": self.distance.to_json(),
            "local_verification": self.local_verification.to_json(),
            "expression_accuracy": self.accuracy.to_json(),
            "own_head_accuracy": self.own_head.to_json(),
            "mean_change": self.changed.to_json(),
        }


def read_ablation(path: Path, overrides: Mapping[str, Any] | None = None) -> Ablation:
    """Read a declaration; ``overrides`` are settings for all variants (``data`` from the command line).

    Every variant's configuration is built once, so that a mistake in the last one shows before the first is trained.
    Raises `UsageError`.
    """
    try:
        declared = parse_toml(read_regular(path, MOST).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The ablation {path} cannot be read: {error}.") from error
    if strange := sorted(set(declared) - {"seeds", "train", "variants", "grid"}):
        raise UsageError(f"{path}: unknown parts {', '.join(strange)}. Known: seeds, train, variants, grid.")
    shared = _table(declared, "train", path)
    if forbidden := sorted(set(shared) & set(_OURS)):
        raise UsageError(
            f"{path}, [train]: {', '.join(forbidden)} is set per run. Give seeds = [...] at the top instead."
        )
    if ("variants" in declared) == ("grid" in declared):
        raise UsageError(f"{path}: declare either [variants] or [grid].")
    changes = _variants(declared, path) if "variants" in declared else _grid(declared, path)
    if len(changes) < 2:
        raise UsageError(f"{path}: an ablation compares two variants or more.")
    seeds = _seeds(declared.get("seeds", [0]), path)
    kinds = {name: _kind(change.get("trainer", shared.get("trainer", _TRAINER))) for name, change in changes.items()}
    known = {name: {entry.name for entry in stored_fields(kind)} for name, kind in kinds.items()}
    variants: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        mine = {key: value for key, value in shared.items() if key in known[name] or not _anywhere(key, known)}
        own = {key: value for key, value in changes[name].items() if key != "trainer"}
        common = from_plain(kind, mine, f"{path}, [train]")
        special = from_plain(kind, own, f"{path}, variant {name!r}")
        variants[name] = {**common, **(overrides or {}), **special, "trainer": kind.trainer}
    ablation = Ablation(variants, seeds)
    for name in ablation.variants:
        config = ablation.config(name, seeds[0], Path("unused"))
        if not config.data:
            raise UsageError(f"{path}: no data. Give data = [...] under [train], or --data.")
    folders = [run_folder(Path("out"), name, 0) for name in ablation.variants]
    if len(set(folders)) < len(folders):
        raise UsageError(f"{path}: two variants have names that differ in punctuation only. Rename one.")
    return ablation


def run_folder(out: Path, variant: str, seed: int) -> Path:
    """Where one run lies."""
    slug = re.sub(r"[^a-z0-9]+", "-", variant.lower()).strip("-")
    return out / "runs" / (slug or "variant") / f"seed-{seed}"


def run_ablation(
    ablation: Ablation,
    out: Path,
    *,
    classifier: Classifier | None = None,
    expressions: Sequence[str] | None = None,
    limit: int | None = None,
    watcher: Callable[[str, int], Watcher | None] | None = None,
) -> list[VariantResult]:
    """Train what is not trained yet, measure what is not measured yet, and sum up per variant.

    A finished run is recognised by its measures, which are kept with a hash of its configuration; an unfinished one is
    resumed from its last checkpoint. Runs are compared at equal steps: the last checkpoint counts, not the best.
    Raises KeyboardInterrupt where a run was interrupted (it is saved), and what training raises.
    """
    from exprtool_training.watch import Watcher

    results: dict[str, list[dict[str, Any]]] = {}
    for seed in ablation.seeds:  # seed by seed, so that an early stop leaves all variants with equally many
        for name in ablation.variants:
            config = ablation.config(name, seed, out)
            key = _key(config, classifier, expressions, limit)
            measured = _measured(config.out, key)
            if measured is None:
                if not finished(config):
                    _spec(config).run(prepared_to_run(config), watcher(name, seed) if watcher else Watcher())
                measured = _measure(config, name, key, classifier, expressions, limit).to_json()
                entry = {"key": key, "measures": measured}
                write_bytes(config.out / MEASURES, json.dumps(entry, indent=1).encode())
            results.setdefault(name, []).append(measured)
    return [_sum_up(name, results[name]) for name in ablation.variants]


def subjects_of(ablation: Ablation, out: Path, seed: int | None = None) -> list[Subject]:
    """The trained variants of one seed (the first), for the sheet."""
    seed = ablation.seeds[0] if seed is None else seed
    return [subject_of(ablation.config(name, seed, out), name) for name in ablation.variants]


def held_out(config: CropsConfig, limit: int | None = None) -> Pictures:
    """The held-out people's crops of a run's data, evenly spread."""
    from exprtool_training.data.measured import chosen_of

    prepared = load_crops(config)
    if not len(prepared.test):
        raise DataError("Nobody is held out, so nothing can be measured: raise test_fraction under [train].")
    return chosen_of(prepared, config.data, "test", limit)


def _measure(
    config: CropsConfig,
    name: str,
    key: str,
    classifier: Classifier | None,
    expressions: Sequence[str] | None,
    limit: int | None,
) -> Evaluation:
    from exprtool.measures.evaluation import evaluate

    own_head = _spec(config).own_head
    pictures = held_out(config, limit)
    subject = subject_of(config, name)
    return evaluate(
        subject, pictures, expressions, classifier=classifier, own_head=own_head and own_head(_last(config))
    )


def subject_of(config: CropsConfig, name: str) -> Subject:
    """What a run has trained, as it stands after its last step. Raises `UsageError` where it does not work on crops."""
    from exprtool.crop_backend import CropBackend
    from exprtool.measures.subjects import CropSubject

    spec = _spec(config)
    backend = spec.load(_last(config), "cpu") if spec.load else None
    if not isinstance(backend, CropBackend):
        raise UsageError(
            f"What the trainer {spec.name!r} makes works on whole photos: measure it with `exprtool compare`."
        )
    return CropSubject(name, backend)


def _spec(config: RunConfig) -> TrainerSpec:
    return registry().trainer(config.trainer)


def _last(config: RunConfig) -> Path:
    return config.out / CHECKPOINTS / LAST


def finished(config: RunConfig) -> bool:
    """Whether a run has reached its last step."""
    if not _last(config).is_file():
        return False
    progress, _ = read_progress(_last(config), config.trainer)
    return progress.step >= progress.total


def prepared_to_run(config: CropsConfig) -> CropsConfig:
    """The configuration that goes on with what was saved, or begins."""
    from dataclasses import replace

    if _last(config).is_file():
        settings = from_plain(type(config), to_plain(config), "the ablation")
        return type(config).from_settings({**settings, "resume": True})
    return replace(config, overwrite=True)


def _measured(folder: Path, key: str) -> dict[str, Any] | None:
    """The measures of a run that was finished with this very configuration."""
    try:
        entry = json.loads((folder / MEASURES).read_text("utf-8"))
        return entry["measures"] if entry["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(
    config: CropsConfig, classifier: Classifier | None, expressions: Sequence[str] | None, limit: int | None
) -> str:
    content = {
        "config": to_plain(config),
        "classifier": classifier.name if classifier else None,
        "expressions": list(expressions or ()),
        "limit": limit,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _sum_up(name: str, runs: Sequence[Mapping[str, Any]]) -> VariantResult:
    def over_seeds(*path: str) -> Stat:
        values = []
        for run in runs:
            value: Any = run["overall"]
            for part in path:
                value = value[part] if value is not None else None
            values.append(float("nan") if value is None else float(value))
        return Stat.of(values)

    return VariantResult(
        name,
        runs[0]["parameters"],
        len(runs),
        over_seeds("acd", "mean"),
        over_seeds("distance", "mean"),
        over_seeds("local_verification", "mean"),
        over_seeds("expression_accuracy", "share"),
        over_seeds("own_head_accuracy", "share"),
        over_seeds("mean_change", "mean"),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The declaration


def _table(declared: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = declared.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {name} must be a table, [{name}].")
    return value


def _variants(declared: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    return {
        name: _change(change, f'{path}, [variants."{name}"]')
        for name, change in _table(declared, "variants", path).items()
    }


def _grid(declared: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    axes = _table(declared, "grid", path)
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{path}, [grid]: {key} must be a list of values.")
    variants: dict[str, dict[str, Any]] = {}
    for values in product(*axes.values()):
        combination = dict(zip(axes, values, strict=True))
        name = ", ".join(f"{key} {_word(value)}" for key, value in combination.items())
        variants[name] = _change(combination, f"{path}, [grid]")
    return variants


def _change(change: Any, where: str) -> dict[str, Any]:
    if not isinstance(change, dict):
        raise UsageError(f"{where} must be a table of settings.")
    if unequal := sorted(set(change) & {*SAME_FOR_ALL, *_OURS}):
        raise UsageError(f"{where}: variants must be equal in {', '.join(unequal)}. Set it under [train].")
    return change


def _kind(trainer: str) -> Any:
    return registry().trainer(trainer).config()


def _anywhere(key: str, known: Mapping[str, set[str]]) -> bool:
    """Whether the trainer of any variant knows a setting (``trainer`` is ours)."""
    return key == "trainer" or any(key in names for names in known.values())


def _word(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _seeds(value: Any, path: Path) -> tuple[int, ...]:
    good = isinstance(value, list) and value and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    if not good or len(set(value)) < len(value):
        raise UsageError(f"{path}: seeds must be a list of different whole numbers, such as [0, 1, 2].")
    return tuple(value)
