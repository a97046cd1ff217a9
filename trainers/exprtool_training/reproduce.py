"""The paper, whole: every model that a trainer brings, trained on one set for equal steps, measured on the same people.

What is there is kept: a finished run, a finished measure. What was interrupted goes on where it was saved. A model that
cannot be trained or opened is named with the reason; the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool.errors import DataError, ExprtoolError, TrainingError, UnknownNameError, UsageError
from exprtool.files import write_bytes
from exprtool.measures import sheets, tables
from exprtool.measures.evaluation import (
    Cell,
    Classifier,
    Evaluation,
    common_labels,
    evaluate,
    on_common_ground,
    summed_up,
)
from exprtool.measures.expression import canonical_label
from exprtool.measures.pictures import Pictures
from exprtool.measures.subjects import RealPhotos, Subject, Untouched, open_subject
from exprtool.plugins import registry
from exprtool.types import Image, TrainerSpec, Variant
from exprtool_training.ablate import Ablation, finished, prepared_to_run, run_folder, subject_of
from exprtool_training.crops import CropsConfig, load_crops
from exprtool_training.data.measured import chosen_of, pictures_of

if TYPE_CHECKING:
    from exprtool_training.watch import Watcher

SETTINGS, PAGE = "reproduce.json", "index.html"
QUICK = {
    "steps": 2, "batch_size": 2, "channels": 4, "d_channels": 4, "d_steps": 1, "image_size": 64,
}  # fmt: skip
"""``--quick``: narrow networks for two steps. It shows that everything works and measures nothing."""
_QUIET = {"tensorboard": False, "look_every": 0, "sample_every": 0}
_MAIN_FIGURE = 2  # who stands in it is the method that the comparison is about
_IN_ROWS, _OUT_ROWS = 3, 4  # people from the data set and from outside, as in Fig. 7


@dataclass(frozen=True)
class Wish:
    """What is to be reproduced. ``steps`` 0 leaves each trainer its own length; ``models`` None takes all;
    ``backends`` are measured beside them; ``outside`` holds pictures that are from no data set (Fig. 7)."""

    data: tuple[Path, ...]
    out: Path
    steps: int = 0
    quick: bool = False
    seed: int = 0
    crop: str = "auto"
    test_fraction: float = 0.1
    limit: int | None = None
    models: tuple[str, ...] | None = None
    backends: tuple[str, ...] = ()
    outside: Path | None = None
    device: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """What decides the result."""
        kept = ("steps", "quick", "seed", "crop", "test_fraction")
        return {"data": [str(root.resolve()) for root in self.data], **{name: getattr(self, name) for name in kept}}


@dataclass(frozen=True, eq=False)
class Figure:
    """A sheet: its heading (the paper's number of it), what it shows, and its file beside the page."""

    heading: str
    title: str
    caption: str
    file: str
    picture: Image


@dataclass(frozen=True, eq=False)
class Reproduction:
    """All that came out. ``failed`` says per model why it is not there."""

    wish: Wish
    evaluations: tuple[Evaluation, ...]
    figures: tuple[Figure, ...]
    failed: Mapping[str, str]
    facts: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())


def all_variants() -> dict[str, tuple[TrainerSpec, Variant]]:
    """Every model that an installed trainer brings to the comparison, by name; the main one first.

    Raises `UsageError` where two trainers call a model alike.
    """
    found: dict[str, tuple[TrainerSpec, Variant]] = {}
    for spec in registry().trainers.values():
        for variant in spec.variants:
            if variant.name in found:
                raise UsageError(f"Two trainers ({found[variant.name][0].name}, {spec.name}) bring {variant.name!r}.")
            found[variant.name] = (spec, variant)
    return dict(sorted(found.items(), key=lambda item: _MAIN_FIGURE not in item[1][1].figures))


def reproduce(
    wish: Wish,
    *,
    classifier: Classifier | None = None,
    watcher: Callable[[str], Watcher | None] | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Reproduction:
    """Train, measure, draw. Raises `UsageError` for another wish than the folder was begun with, `DataError` for data
    that cannot be used, and KeyboardInterrupt where it was interrupted, after which the same call goes on."""
    _claim(wish)
    variants = _chosen(wish.models)
    failed: dict[str, str] = {}
    models: dict[str, Subject] = {}
    heads: dict[str, Classifier | None] = {}
    plan = Ablation({name: _settings(wish, *pair) for name, pair in variants.items()}, (wish.seed,))
    pictures = _held_out(plan.config(next(iter(variants)), wish.seed, wish.out), wish)
    for name, (spec, _) in variants.items():
        try:
            config = plan.config(name, wish.seed, wish.out)
            if not finished(config):
                told(f"{name}: training")
                spec.run(prepared_to_run(config), watcher(name) if watcher else None)
            models[name] = subject_of(config, name)
            heads[name] = spec.own_head(config.out) if spec.own_head else None
        except ExprtoolError as error:
            failed[name] = str(error)
            told(f"{name}: {error}")
    for name in wish.backends:
        try:
            models[name] = open_subject(name, wish.device)
        except ExprtoolError as error:
            failed[name] = str(error)
            told(f"{name}: {error}")
    if not models:
        raise TrainingError("No model could be trained: " + "; ".join(f"{n}: {why}" for n, why in failed.items()))
    labels = common_labels(list(models.values()))
    evaluations = _measured(wish, models, heads, pictures, labels, classifier, told, failed)
    if not models:
        raise DataError("No model could be measured: " + "; ".join(f"{n}: {why}" for n, why in failed.items()))
    told("Drawing the figures")
    figures, notes = _figures(wish, variants, models, pictures, labels, classifier)
    return Reproduction(
        wish, tuple(evaluations), tuple(figures), failed, _facts(wish, pictures, models, labels), tuple(notes)
    )


# ---------------------------------------------------------------------------------------------------------------------
# What is trained, and on what


def _claim(wish: Wish) -> None:
    """The folder is new or was begun with this very wish: runs of other settings would stand in one table."""
    path = wish.out / SETTINGS
    wanted = wish.to_json()
    if path.is_file():
        try:
            before = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}. Choose another --out.") from error
        if changed := [name for name in wanted if before.get(name) != wanted[name]]:
            raise UsageError(f"{wish.out} was begun with another {', '.join(changed)}. Choose another --out.")
    elif wish.out.is_dir() and any(wish.out.iterdir()):
        raise UsageError(f"{wish.out} holds other files. Choose an empty folder with --out.")
    else:
        write_bytes(path, json.dumps(wanted, indent=1).encode())


def _chosen(names: Sequence[str] | None) -> dict[str, tuple[TrainerSpec, Variant]]:
    known = all_variants()
    if names is None:
        return known
    for name in names:
        if name not in known:
            raise UnknownNameError("model", name, known)
    return {name: pair for name, pair in known.items() if name in names}


def _settings(wish: Wish, spec: TrainerSpec, variant: Variant) -> dict[str, Any]:
    """One model's settings: what all share, where its trainer knows the word, then its own."""
    known = {entry.name for entry in fields(spec.config())}
    shared = {
        **_QUIET,
        "data": wish.data,
        "crop": _crop(wish),
        "test_fraction": wish.test_fraction,
        "device": wish.device,
        **(QUICK if wish.quick else {}),
        **({"steps": wish.steps} if wish.steps else {}),
    }
    return {
        **{name: value for name, value in shared.items() if name in known},
        **variant.settings,
        "trainer": spec.name,
    }


def _crop(wish: Wish) -> str:
    """Centred squares for the paper's data, as the paper has them; faces brought into place for any other."""
    from exprtool.measures.paper import PAPER_DATASETS
    from exprtool_training.data.prepared import is_prepared, read_manifest
    from exprtool_training.data.sources import scan

    if wish.crop != "auto":
        return wish.crop
    for root in wish.data:
        if is_prepared(root):
            return read_manifest(root)["settings"]["crop"]
    return "centre" if {source.dataset for source in scan(wish.data).sources} <= PAPER_DATASETS else "aligned"


def _held_out(config: CropsConfig, wish: Wish) -> Pictures:
    prepared = load_crops(config)
    if not len(prepared.test):
        raise DataError("Nobody is held out, so nothing can be measured: raise --test-fraction.")
    return chosen_of(prepared, wish.data, "test", wish.limit)


# ---------------------------------------------------------------------------------------------------------------------
# Measures


def _measured(
    wish: Wish,
    models: dict[str, Subject],
    heads: Mapping[str, Classifier | None],
    pictures: Pictures,
    labels: Sequence[str],
    classifier: Classifier | None,
    told: Callable[[str], None],
    failed: dict[str, str],
) -> list[Evaluation]:
    """The table's rows. A model that cannot be measured leaves ``models`` for ``failed``."""
    judge = classifier.name if classifier else ""
    evaluations: list[Evaluation] = []
    for name, subject in list(models.items()):
        shown = pictures.recut(subject.card.size, subject.card.template) if subject.card else pictures
        path = run_folder(wish.out, name, wish.seed).with_name("measures.json")
        key = {"judge": judge, "labels": list(labels), "pictures": list(shown.names), "parameters": subject.parameters}
        cells = _read_cells(path, key)
        if cells is None:
            told(f"{name}: measuring")
            try:
                evaluation = evaluate(subject, shown, labels, classifier=classifier, own_head=heads.get(name))
            except ExprtoolError as error:
                failed[name] = str(error)
                del models[name]
                told(f"{name}: {error}")
                continue
            _write_cells(path, key, evaluation.cells)
        else:
            evaluation = summed_up(subject, shown, cells, judge)
        evaluations.append(evaluation)
    for reference in (Untouched(labels), RealPhotos(labels)):
        with suppress(DataError):  # the data holds no other photos of these people
            evaluations.append(evaluate(reference, pictures, labels, classifier=classifier))
    return on_common_ground(evaluations)


def _write_cells(path: Path, key: Mapping[str, Any], cells: Mapping[tuple[str, str], Cell | None]) -> None:
    rows = [[*place, None if cell is None else _plain(cell)] for place, cell in cells.items()]
    write_bytes(path, json.dumps({"key": key, "cells": rows}).encode())


def _plain(cell: Cell) -> dict[str, Any]:
    """JSON has no NaN, which here is a value that was not measured."""
    return {name: None if value != value else value for name, value in vars(cell).items()}


def _cell(values: Mapping[str, Any]) -> Cell:
    lost = {name: float("nan") for name in ("squared", "change", "fvs") if values.get(name) is None}
    return Cell(**{**values, **lost})


def _read_cells(path: Path, key: Mapping[str, Any]) -> dict[tuple[str, str], Cell | None] | None:
    """What was measured before with this judge on these pictures; None where there is nothing of the kind."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored["key"] != key:
            return None
        return {(name, label): None if cell is None else _cell(cell) for name, label, cell in stored["cells"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def _figures(
    wish: Wish,
    variants: Mapping[str, tuple[TrainerSpec, Variant]],
    models: Mapping[str, Subject],
    pictures: Pictures,
    labels: Sequence[str],
    classifier: Classifier | None,
) -> tuple[list[Figure], list[str]]:
    inside = _spread(pictures, _IN_ROWS)
    outside, notes = _outside(wish, pictures, classifier)

    def group(number: int) -> list[Subject]:
        return [models[n] for n, (_, v) in variants.items() if number in v.figures and n in models]

    def of(subject: Subject, shown: Pictures) -> Pictures:
        return shown.recut(subject.card.size, subject.card.template) if subject.card else shown

    main = next(iter(group(_MAIN_FIGURE) or models.values()))
    figures: list[Figure] = []

    def add(number: str, title: str, caption: str, picture: Image | None) -> None:
        if picture is None:
            return
        file = f"figure-{number.replace(' ', '-')}.png"
        sheets.save(picture, wish.out / file)
        heading = f"Figure {number.split()[0]}" if number[0].isdigit() else "All models"
        figures.append(Figure(heading, title, caption, file, picture))

    def rows(subject: Subject, first: int, second: int) -> Image:
        parts = [part.take(range(min(n, len(part)))) for part, n in ((inside, first), (outside, second)) if part]
        return sheets.grids(subject, [of(subject, part) for part in parts], labels)

    def compared(subjects: Sequence[Subject], shown: Pictures) -> Image | None:
        return sheets.comparison(subjects, [of(each, shown) for each in subjects], labels) if subjects else None

    add(
        "2",
        f"Expressions by {main.name}",
        "Above: people of the data set. Below: pictures from outside.",
        rows(main, 2, 2),
    )
    add(
        "4",
        "Residual and output",
        "What the network adds to its input, about mid grey, and the sum.",
        sheets.residual_sheet(main, of(main, inside.take([0])), labels),
    )
    add(
        "7", f"{main.name} in and out of the data set", "Above: held-out people. Below: from outside.", rows(main, 3, 4)
    )
    mixed = [inside.take([0]), *([outside.take([0])] if outside else [])]
    for place, part in zip(("inside", "outside"), mixed, strict=False):
        add(f"8 {place}", f"Methods beside each other, {place} the data set", "", compared(group(8), part))
    add(
        "10",
        "With and without the ultimate skip connection",
        "",
        compared(group(10), inside.take(range(min(2, len(inside))))),
    )
    add("11", "The number of residual blocks", "", compared(group(11), inside.take(range(min(2, len(inside))))))
    every = [*models.values()]
    if outside:
        shown = outside.take(range(min(3, len(outside))))
        add("all outside", "All models on pictures from outside", "", compared(every, shown))
    add("all inside", "All models on held-out people", "", compared(every, inside.take([0])))
    return figures, notes


def _outside(wish: Wish, pictures: Pictures, classifier: Classifier | None) -> tuple[Pictures | None, list[str]]:
    """Pictures from no data set, with what they wear: as the classifier sees it, or taken for neutral."""
    if wish.outside is None:
        return None, [
            "No pictures from outside the data set were given (--outside), so the lower rows of Fig. 7 are missing."
        ]
    try:
        found = pictures_of([wish.outside], pictures.size, pictures.template)
    except DataError as error:
        return None, [f"The pictures from outside cannot be used: {error}"]
    shown = _spread(found, _OUT_ROWS)
    if all(shown.expressions):
        return shown, []
    if classifier is None:
        worn = tuple(expression or "neutral" for expression in shown.expressions)
        note = "What faces from outside wear is unknown: methods that must be told (STGAN) take them for neutral."
        return replace(shown, expressions=worn), [note]
    seen = [classifier.labels[int(i)] for i in classifier.classify(shown.images).argmax(axis=1)]
    worn = tuple(told or canonical_label(label) for told, label in zip(shown.expressions, seen, strict=True))
    return replace(shown, expressions=worn), [f"What faces from outside wear was read by {classifier.name}."]


def _spread(pictures: Pictures, count: int) -> Pictures:
    """Neutral faces first, evenly spread."""
    import numpy as np

    neutral = [i for i, expression in enumerate(pictures.expressions) if expression in ("neutral", None)]
    others = [i for i in range(len(pictures)) if i not in set(neutral)]
    pool = neutral if len(neutral) >= count else neutral + others
    return pictures.take([pool[int(i)] for i in np.linspace(0, len(pool) - 1, min(count, len(pool)))])


# ---------------------------------------------------------------------------------------------------------------------
# The page


def _facts(wish: Wish, pictures: Pictures, models: Mapping[str, Subject], labels: Sequence[str]) -> dict[str, str]:
    from exprtool import __version__

    people = {person for person in pictures.people if person}
    length = "two steps of narrow networks" if wish.quick else f"{wish.steps:,} steps" if wish.steps else "each its own"
    return {
        "Data": f"{', '.join(root.name for root in wish.data)} ({', '.join(sorted(set(pictures.datasets)))})",
        "Measured on": f"{len(pictures)} pictures of {len(people)} held-out people",
        "Expressions": ", ".join(labels),
        "Models": str(len(models)),
        "Training": f"{length}, seed {wish.seed}",
        "exprtool": __version__,
    }


def write_page(result: Reproduction) -> Path:
    """The page, the tables as LaTeX, Markdown and JSON beside it; returns the page."""
    from exprtool.html import data_uri, render

    out, evaluations = result.wish.out, result.evaluations
    rows = tables.main_rows(evaluations)
    used = tables.used_columns(rows)
    models = [each for each in evaluations if each.kind == "model"]
    text = render(
        "exprtool_training",
        "reproduce.html",
        style="reproduce.css",
        title="US-GAN, reproduced",
        facts=dict(result.facts),
        warnings=[*tables.warnings(evaluations), *result.notes],
        quick=result.wish.quick,
        failed=dict(result.failed),
        columns=[f"{tables.COLUMNS[i].title} {tables.COLUMNS[i].better}".strip() for i in used],
        rows=[[tables.superscript(row[i]) for i in used] for row in rows],
        breaks=tables.breaks(evaluations),
        models=len(models),
        footnotes=tables.footnotes(evaluations)[len(tables.warnings(evaluations)) :],
        details=[(each.model, tables.expression_rows(each)) for each in models],
        detail_columns=tables.EXPRESSION_TITLES,
        figures=[
            {
                "heading": f.heading,
                "file": f.file,
                "title": f.title,
                "caption": f.caption,
                "picture": data_uri(f.picture),
            }
            for f in result.figures
        ],
    )
    write_bytes(out / "table-1.tex", tables.latex(evaluations).encode())
    write_bytes(out / "measures.md", tables.markdown(evaluations).encode())
    write_bytes(out / "measures.json", json.dumps(tables.as_json(evaluations), ensure_ascii=False, indent=1).encode())
    write_bytes(out / PAGE, text.encode())
    return out / PAGE
