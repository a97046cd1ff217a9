# ruff: noqa: RUF009  (`setting` declares a field; it makes no value that instances would share)
"""A supervised start for the generator: the same person in two expressions, and the distance between them.

The paper's objective knows no pairs, and needs many thousand steps until the critic has taught the generator where a
mouth is. Crops of ``data synth`` show one person in every expression, so that the first part can be learned directly:
``y = G(x, c_t) + x`` is to be the crop of that person with ``c_t``. What differs between the two counts more, for most
of a face does not. The last layer begins at zero: at first the skip alone answers, and nothing has to be unlearned.

The generator is fully convolutional, so that a start at 64 pixels, a quarter of the work, goes on at 128.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from exprtool.errors import DataError, ModelError, TrainingError, UsageError
from exprtool.settings import check_words, flag, from_plain, resumed, setting, to_plain
from exprtool_usgan.config import GeneratorConfig

Say = Callable[[str], None]
_DRAW = 3
"""Which stream of random numbers draws the pairs; see `exprtool_gan.sampler` for the others."""
_SHEET_FACES = 8
_WARMUP = 50
"""Steps over which the rate rises: the last layer sums 3,136 values, and Adam's first steps move all of them alike."""
_PROGRESS_KEY = "exprtool_pairs"


@dataclass(frozen=True)
class PairsConfig:
    """A supervised start. Building one checks it: `UsageError` names the field that will not do."""

    out: Path = setting(Path("runs/start"), "Run", "Folder of the run: checkpoints, samples, logs, configuration.")
    seed: int = setting(0, "Run", "Every random choice follows from this number and the step.")
    resume: bool = setting(False, "Run", "Continue the run in --out exactly where it was saved last.", stored=False)
    overwrite: bool = setting(False, "Run", "Start afresh in a folder that holds a run already.", stored=False)
    stop_at: int = setting(0, "Run", "Save and stop after this step; 0: run to the end.", stored=False)

    data: tuple[Path, ...] = setting(
        (), "Data", "Set whose people show several expressions each, such as the faces of `data synth`; repeatable."
    )
    image_size: int = setting(128, "Data", "Side of the face crops in pixels, 16 to 512.")
    crop: Literal["aligned", "centre"] = setting(
        "centre", "Data", "Eyes and mouth brought to fixed places, or the centred square as it is (crops already)."
    )
    test_fraction: float = setting(0.1, "Data", "Share of the people who are held out for the looks.")
    split_seed: int = setting(0, "Data", "Another number holds out other people.")

    begin_from: str = setting("", "Training", "Run or checkpoint whose generator to begin with; none: from nothing.")
    steps: int = setting(4000, "Training", "Length in batches.")
    batch_size: int = setting(8, "Training", "Pairs per step.")
    lr: float = setting(4e-4, "Training", "Learning rate.")
    decay_from: float = setting(0.6, "Training", "Share of the run after which the rate falls to 0; 1: never.")
    from_neutral: float = setting(0.7, "Training", "Share of pairs that start from the neutral face.")
    emphasis: float = setting(4.0, "Training", "How much more a pixel counts per unit of difference in its pair.")
    flip: float = setting(0.5, "Training", "Probability of mirroring a pair.")
    colour: float = setting(0.15, "Training", "Change the colours of a pair by up to this share.")
    ema: float = setting(0.99, "Training", "Decay of the generator's running average, which is what is used.")

    device: str = setting("auto", "Machine", "auto, cpu, cuda, cuda:N or mps.")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Machine", "auto: bfloat16 where the device multiplies it, else float32."
    )

    log_every: int = setting(50, "Watching", "Steps between lines of the log.")
    look_every: int = setting(500, "Watching", "Steps between looks at held-out people, with a sheet; 0: none.")
    save_minutes: float = setting(3.0, "Watching", "Minutes between checkpoints.")
    licence: str = setting("", "Watching", "Licence of the trained weights, written into every checkpoint.")

    def __post_init__(self) -> None:
        check_words(self)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise UsageError(f"{flag(name)} must be {span}, not {value!r}.")
        self.generator(labels=2)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> PairsConfig:
        """A new run's settings, or those of the run that is to be resumed."""
        if not settings.get("resume"):
            return cls(**settings)
        last = Path(settings.get("out", cls.out)) / "checkpoints" / "last.safetensors"
        if not last.is_file():
            raise TrainingError(f"There is no {last} to resume from. Start the run without --resume.")
        return resumed(cls(**from_plain(cls, _stored(last)["config"], str(last))), settings, _CHANGEABLE)

    def generator(self, labels: int) -> GeneratorConfig:
        return GeneratorConfig(labels, self.image_size)


_INF = math.inf
_RANGES = (
    ("seed", 0, 2**63 - 1), ("stop_at", 0, _INF), ("test_fraction", 0, 0.9), ("steps", 1, _INF),
    ("batch_size", 1, _INF), ("lr", 0, 1), ("decay_from", 0, 1), ("from_neutral", 0, 1), ("emphasis", 0, 1000),
    ("flip", 0, 1), ("colour", 0, 1), ("ema", 0, 0.999999), ("log_every", 1, _INF), ("look_every", 0, _INF),
    ("save_minutes", 0, _INF),
)  # fmt: skip
_CHANGEABLE = frozenset({"out", "resume", "stop_at", "data", "device", "log_every", "look_every", "save_minutes"})


@dataclass(frozen=True)
class Outcome:
    """How a start ended: ``interrupted`` if by a signal; ``distance`` is the last look's, in grey levels."""

    step: int
    finished: bool
    interrupted: bool
    distance: float | None


@dataclass(frozen=True, eq=False)
class People:
    """Whose pictures make pairs: for each person the place of one picture per label, -1 where there is none: (P, C)."""

    places: Any
    neutral: int | None

    @classmethod
    def of(cls, people: tuple[str, ...], labels: Any, chosen: Any, names: tuple[str, ...]) -> People:
        """Those of the ``chosen`` pictures whose person shows two expressions or more; `DataError` if nobody does."""
        import numpy as np

        found: dict[str, Any] = {}
        for place in chosen:
            found.setdefault(people[place], np.full(len(names), -1))[labels[place]] = place
        pairs = [row for _, row in sorted(found.items()) if (row >= 0).sum() >= 2]
        if not pairs:
            raise DataError(
                "Nobody in the set shows two expressions, so there are no pairs. Make a set with `exprtool data "
                "synth`, or name the files of one person alike in each expression's folder."
            )
        return cls(np.stack(pairs), names.index("neutral") if "neutral" in names else None)

    def draw(self, config: PairsConfig, step: int) -> dict[str, Any]:
        """Source and target pictures, target labels, flips and gains of a step: a function of seed and step alone."""
        import numpy as np

        rng = np.random.default_rng([config.seed, _DRAW, step])
        source, target, label = [], [], []
        for row in self.places[rng.integers(len(self.places), size=config.batch_size)]:
            there = np.flatnonzero(row >= 0)
            wanted = int(rng.choice(there))
            begin = int(rng.choice(there))
            if self.neutral is not None and row[self.neutral] >= 0 and rng.random() < config.from_neutral:
                begin = self.neutral
            source.append(row[begin])
            target.append(row[wanted])
            label.append(wanted)
        return {
            "source": np.array(source), "target": np.array(target), "label": np.array(label),
            "flip": rng.random(config.batch_size) < config.flip,
            "gain": rng.uniform(1 - config.colour, 1 + config.colour, (config.batch_size, 3, 1, 1)).astype(np.float32),
        }  # fmt: skip


def pair_loss(y: Any, x: Any, target: Any, emphasis: float) -> Any:
    """Mean distance of ``y`` to ``target``, all (N, 3, S, S) in [-1, 1]; a pixel's weight is 1 and ``emphasis`` times
    how much the pair differs there, averaged over its channels and cut at half a unit."""
    weight = 1 + emphasis * (target - x).abs().mean(1, keepdim=True).clamp(max=0.5)  # (N, 1, S, S)
    return (weight * (y - target).abs()).mean()


@dataclass
class _State:
    """Where a start stands."""

    step: int = 0
    seconds: float = 0.0
    data_hash: str = ""
    history: list[float] = field(default_factory=list)


def train(config: PairsConfig, say: Say = lambda line: None) -> Outcome:
    """Train to the end of the configuration, or until SIGINT or SIGTERM, after which the run can be resumed.

    Raises `DataError`, `DeviceError`, and `TrainingError` where the run cannot start, go on or save.
    """
    import numpy as np
    import torch

    from exprtool.devices import resolve_device
    from exprtool_gan.begin import begin_generator
    from exprtool_gan.data import load_prepared
    from exprtool_gan.loop import in_bfloat16
    from exprtool_gan.run_folder import RunFolder
    from exprtool_gan.schedule import ema_decay, learning_rate
    from exprtool_gan.sheet import all_expressions, to_tensor, write_sheet
    from exprtool_gan.state import check_finite, fill_moments, moments
    from exprtool_gan.stopping import StopRequest
    from exprtool_usgan.card import METADATA_KEY, ModelCard
    from exprtool_usgan.checkpoint import fill, read_part, save
    from exprtool_usgan.networks import Generator

    with ExitStack() as stack:
        # --- 1. Data and network -------------------------------------------------------------------------------------
        folder = RunFolder(config.out)
        folder.check(config)
        if not config.data:
            raise UsageError("No data: give --data FOLDER, such as the folder faces of a set by `exprtool data synth`.")
        prepared = load_prepared(
            config.data, config.image_size, crop=config.crop, test_fraction=config.test_fraction,
            split_seed=config.split_seed,
        )  # fmt: skip
        names = prepared.label_names
        people = People.of(prepared.people, prepared.labels, prepared.train, names)
        held_out = People.of(prepared.people, prepared.labels, prepared.test, names) if len(prepared.test) else people
        device = torch.device(str(resolve_device(config.device, runtime="torch")))
        half = in_bfloat16(config.precision, device)
        torch.manual_seed(config.seed)
        generator, ema = (Generator(config.generator(len(names))).to(device) for _ in range(2))
        last_layer = [layer for layer in generator.main if isinstance(layer, torch.nn.Conv2d)][-1]
        torch.nn.init.zeros_(last_layer.weight)
        if config.begin_from and not config.resume:
            begin_generator(generator, names, Path(config.begin_from))
        ema.load_state_dict(generator.state_dict())
        ema.requires_grad_(False).eval()
        adam = torch.optim.Adam(generator.parameters(), lr=config.lr, betas=(0.5, 0.999), fused=device.type != "mps")
        card = ModelCard(
            config.generator(len(names)), names, prepared.template, source="exprtool train --trainer pairs",
            training_data={
                "name": ", ".join(root.resolve().name for root in config.data), "images": len(prepared.train),
                "people": len(people.places), "manifest": prepared.manifest_hash, "begin_from": config.begin_from,
            },
        )  # fmt: skip
        card = replace(card, licence=config.licence or card.licence)

        # --- 2. The state of the run that is resumed -----------------------------------------------------------------
        state = _State(data_hash=prepared.manifest_hash)
        if config.resume:
            state = _State(**_stored(folder.last)["state"])
            if state.data_hash != prepared.manifest_hash:
                raise TrainingError(f"{folder.last} was trained on other data. Give the same, or start a new run.")
            fill(generator, read_part(folder.last, "generator"), folder.last)
            fill(ema, read_part(folder.last, "ema"), folder.last)
            fill_moments(adam, generator, read_part(folder.last, "g_adam"), state.step, folder.last)
        folder.open(config, dict(prepared.manifest))
        folder.forget_after(state.step)
        stop = stack.enter_context(StopRequest())
        say(
            f"{len(people.places):,} people in pairs, {len(prepared.test):,} pictures held out; {config.steps:,} steps "
            f"of {config.batch_size} at {config.image_size} px on {device} in {'bfloat16' if half else 'float32'}"
            + (f", resumed at {state.step:,}" if state.step else "")
        )

        def tensors(draw: dict[str, Any]) -> tuple[Any, Any, Any]:
            x, target = (to_tensor(np.asarray(prepared.images[draw[name]]), device) for name in ("source", "target"))
            flip = torch.from_numpy(draw["flip"]).to(device)[:, None, None, None]
            gain = torch.from_numpy(draw["gain"]).to(device)
            x, target = (torch.where(flip, v.flip(3), v) for v in (x, target))
            x, target = (((v + 1) * gain - 1).clamp(-1, 1).contiguous() for v in (x, target))
            return x, target, torch.eye(len(names), device=device)[torch.from_numpy(draw["label"]).to(device)]

        looks = [held_out.draw(replace(config, flip=0.0, colour=0.0), step) for step in range(6)]

        @torch.no_grad()
        def look() -> tuple[float, float]:
            """Distance of held-out people to their targets, and of doing nothing, in grey levels."""
            figures = []
            for draw in looks:
                x, target, c = tensors(draw)
                figures.append([float((v - target).abs().mean()) * 127.5 for v in (ema.edit(x, c), x)])
            return tuple(np.mean(figures, axis=0))

        def write(step: int) -> None:
            check_finite(generator.state_dict(), "generator", step, folder.last)
            state.step, state.seconds = step, before + time.monotonic() - began
            stored = {"state": asdict(state), "config": to_plain(config)}
            parts = {"generator": generator.state_dict(), "ema": ema.state_dict(), "g_adam": moments(adam, generator)}
            metadata = {METADATA_KEY: replace(card, step=step).to_json(), _PROGRESS_KEY: json.dumps(stored)}
            save(folder.last, parts, metadata)

        # --- 3. The loop ---------------------------------------------------------------------------------------------
        before, began = state.seconds, time.monotonic()
        saved_at = logged_at = began
        step, distance, total = state.step, None, 0.0
        end = min(config.steps, config.stop_at) if config.stop_at else config.steps
        while step < end and not stop.requested:
            for group in adam.param_groups:
                rise = min(1.0, (step + 1) / _WARMUP)
                group["lr"] = rise * learning_rate(step, config.steps, config.lr, config.decay_from)
            x, target, c = tensors(people.draw(config, step))
            with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                y = generator(x, c)
            loss = pair_loss(y.float(), x, target, config.emphasis)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            with torch.no_grad():
                keep = ema_decay(step, config.ema)
                for average, parameter in zip(ema.parameters(), generator.parameters(), strict=True):
                    average.lerp_(parameter, 1 - keep)
            step += 1
            total += float(loss.detach())
            if step % config.log_every == 0:
                now = time.monotonic()
                entry = {
                    "step": step,
                    "loss": total / config.log_every,
                    "seconds": (now - logged_at) / config.log_every,
                }
                total, logged_at = 0.0, now
                folder.append(entry)
                say(f"{step:7,}  loss {entry['loss']:.4f}  {entry['seconds']:.2f} s a step")
            if config.look_every and (step % config.look_every == 0 or step == config.steps):
                distance, nothing = look()
                folder.append({"step": step, "look": {"distance": distance, "doing_nothing": nothing}})
                shown = np.asarray(prepared.images[held_out.places.max(axis=1)[:_SHEET_FACES]])
                write_sheet(folder.sample(step), shown, all_expressions(ema, shown), names)
                say(f"{step:7,}  held out: {distance:.2f} grey levels from the target, {nothing:.2f} for doing nothing")
            if (time.monotonic() - saved_at) / 60 >= config.save_minutes:
                write(step)
                saved_at = time.monotonic()
        write(step)
        return Outcome(step, step >= config.steps, step < end, distance)


def _stored(path: Path) -> dict[str, Any]:
    """State and configuration of a start, as plain values; `ModelError` where the file is none."""
    from exprtool_usgan.checkpoint import read_metadata

    try:
        stored = json.loads(read_metadata(path)[_PROGRESS_KEY])
        known = {entry.name for entry in fields(_State)}
        return {"config": dict(stored["config"]), "state": {k: v for k, v in stored["state"].items() if k in known}}
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ModelError(f"{path} is no checkpoint of a supervised start. Give the folder of such a run.") from None
