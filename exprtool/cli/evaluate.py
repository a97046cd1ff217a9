"""``exprtool evaluate``, ``compare`` and ``ablate``: the paper's measures, tables and sheets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from exprtool.cli import printing
from exprtool.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from exprtool.measures.evaluation import Classifier, Evaluation
    from exprtool.measures.facepp import FacePlusPlus
    from exprtool.measures.pictures import Pictures
    from exprtool.measures.subjects import Subject

Format = Literal["table", "json", "markdown", "latex"]

DataRoots = Annotated[
    list[Path],
    typer.Option(
        "--data",
        "-d",
        metavar="DIR",
        help="Faces to measure on: a prepared folder, folders by expression, KDEF/RaFD/CFEE, a CSV. Repeatable.",
    ),
]
Expr = Annotated[list[str] | None, typer.Option("--expr", "-e", help="Only these expressions. Repeatable.")]
Split = Annotated[str, typer.Option(help="test (held-out people), train or all; auto: test for a model trained here.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many pictures, evenly spread.")]
Size = Annotated[int, typer.Option(min=32, max=1024, help="Side of the crops for backends that work on photos.")]
ClassifierName = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        metavar="NAME|ONNX",
        help="An independent judge of expressions: a name from `exprtool classifiers`, or an ONNX file with a card. "
        "Without this the best one that is ready.",
    ),
]
Fvs = Annotated[bool, typer.Option("--fvs", help="Also measure FVS: sends the crops to Face++ under your key.")]
FacePPKey = Annotated[
    str | None, typer.Option("--facepp-key", envvar="FACEPP_API_KEY", show_envvar=True, help="Face++ API key.")
]
FacePPSecret = Annotated[
    str | None, typer.Option("--facepp-secret", envvar="FACEPP_API_SECRET", show_envvar=True, help="Face++ API secret.")
]
FacePPUrl = Annotated[str | None, typer.Option("--facepp-url", help="Another address of the compare service.")]
Out = Annotated[
    Path | None, typer.Option("--output", "--out", "-o", help="Folder for tables (JSON, Markdown, LaTeX) and sheets.")
]
Rows = Annotated[int, typer.Option(min=1, max=64, help="People shown on the sheets.")]
Paper = Annotated[
    bool | None,
    typer.Option(
        "--paper/--no-paper",
        help="Show the rows of the paper's Table 1; without this beside the paper's own three data sets alone.",
        show_default=False,
    ),
]
As = Annotated[Format, typer.Option("--format", "-f", help="What to print.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are in --out already.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")]


def add_to(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate_command)
    app.command("compare")(compare_command)
    app.command("ablate")(ablate_command)


def evaluate_command(
    data: DataRoots,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A training run, an .onnx or .safetensors file, or a backend's name.")
    ],
    expr: Expr = None,
    split: Split = "auto",
    limit: Limit = None,
    size: Size = 128,
    classifier: ClassifierName = None,
    fvs: Fvs = False,
    facepp_key: FacePPKey = None,
    facepp_secret: FacePPSecret = None,
    facepp_url: FacePPUrl = None,
    out: Out = None,
    rows: Rows = 6,
    paper: Paper = None,
    format: As = "table",
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model as the paper does: parameters, ACD, FVS, expression accuracy, per expression and in all.

    ACD uses dlib's face embedding (eq. 9). Two rows stand below the model: the inputs untouched, and real photos of the
    same people with the expression.
    """
    service = _face_service(fvs, facepp_key, facepp_secret, facepp_url)
    evaluations, (pictures,), subjects = _measure(
        [model], data, expr, split, limit, size, classifier, service, device, out, overwrite, quiet
    )
    if out is not None:
        from exprtool.measures import sheets

        shown = _for_sheets(pictures, rows)
        labels = _wanted(expr) or list(subjects[0].labels)
        sheets.save(sheets.grid(subjects[0], shown, labels, title=subjects[0].name), out / "grid.png")
        residual = sheets.residual_sheet(subjects[0], shown.take(range(min(3, len(shown)))), labels)
        if residual is not None:
            sheets.save(residual, out / "residual.png")
    _report(evaluations, out, format, quiet, paper)


def compare_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Runs, model files or backends.")],
    data: DataRoots,
    expr: Expr = None,
    split: Split = "auto",
    limit: Limit = None,
    size: Size = 128,
    classifier: ClassifierName = None,
    fvs: Fvs = False,
    facepp_key: FacePPKey = None,
    facepp_secret: FacePPSecret = None,
    facepp_url: FacePPUrl = None,
    out: Out = None,
    rows: Rows = 4,
    paper: Paper = None,
    format: As = "table",
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Set models and backends side by side on the same faces: one table, and with --out one labelled sheet.

    Networks of different crop sizes or templates each get crops of their own of the same faces. All are asked for the
    expressions that every one of them knows, and the figures are over the edits that all of them made.
    """
    if len(models) < 2:
        raise UsageError("compare needs two models or more; for one use `exprtool evaluate --model`.")
    service = _face_service(fvs, facepp_key, facepp_secret, facepp_url)
    evaluations, pictures, subjects = _measure(
        models, data, expr, split, limit, size, classifier, service, device, out, overwrite, quiet
    )
    if out is not None:
        from exprtool.measures import sheets
        from exprtool.measures.evaluation import common_labels

        labels = _wanted(expr) or common_labels(subjects)
        shown = [_for_sheets(each, rows) for each in pictures]
        sheets.save(sheets.comparison(subjects, shown, labels), out / "comparison.png")
    _report(evaluations, out, format, quiet, paper)


def ablate_command(
    declaration: Annotated[
        Path,
        typer.Argument(metavar="TOML", help="The variants: [train] with what all share, [variants] or [grid], seeds."),
    ],
    out: Annotated[Path, typer.Option("--output", "--out", "-o", help="Folder for the runs, the table and the sheet.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", "-d", help="Training data, in place of that in the file. Repeatable.")
    ] = None,
    expr: Expr = None,
    limit: Limit = None,
    classifier: ClassifierName = None,
    rows: Rows = 4,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON on stdout.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train declared variants (skip on or off, 1 or 6 residual blocks ...) for equal steps and seeds, and compare them.

    Writes a table with mean and spread over the seeds and a sheet on held-out people (Figs. 10 and 11 of the paper).
    Run it again after an interruption: finished runs are kept, an unfinished one goes on where it was saved.
    """
    from exprtool.cli.common import quieten_libraries
    from exprtool.files import write_bytes
    from exprtool.measures import sheets
    from exprtool.measures.tables import ablation_markdown, ablation_table
    from exprtool_training.ablate import held_out, read_ablation, run_ablation, subjects_of

    quieten_libraries()
    ablation = read_ablation(declaration, {"data": tuple(data)} if data else None)
    wanted = _wanted(expr)
    results = run_ablation(
        ablation,
        out,
        classifier=_classifier(classifier, device, quiet),
        expressions=wanted,
        limit=limit,
        watcher=None if quiet else _announce,
    )
    text = json.dumps({"variants": [result.to_json() for result in results]}, indent=1)
    write_bytes(out / "ablation.json", text.encode())
    write_bytes(out / "ablation.md", ablation_markdown(results).encode())
    subjects = subjects_of(ablation, out)
    pictures = held_out(ablation.config(subjects[0].name, ablation.seeds[0], out))
    labels = [label for label in wanted or subjects[0].labels if all(label in each.labels for each in subjects)]
    title = f"seed {ablation.seeds[0]}, held-out people"
    shown = [_for_sheets(pictures, rows)] * len(subjects)
    sheets.save(sheets.comparison(subjects, shown, labels, title=title), out / "ablation.png")
    if as_json:
        printing.lines(text)
        return
    print_table(ablation_table(results))
    if not quiet:
        printing.say(f"Table and sheet in {out}")


def _announce(variant: str, seed: int):  # type: ignore[no-untyped-def]
    """Say which run begins, and watch it as `exprtool train` does."""
    from exprtool_training.screen import screen

    printing.say(f"{variant}, seed {seed}")
    return screen()


def _measure(
    models: Sequence[str],
    data: Sequence[Path],
    expr: list[str] | None,
    split: str,
    limit: int | None,
    size: int,
    classifier_name: str | None,
    service: FacePlusPlus | None,
    device: str,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
) -> tuple[list[Evaluation], list[Pictures], list[Subject]]:
    """Open the models, load the data, measure them one after the other, and what they are read against after them.

    Returns the evaluations, and for each model the pictures as it wants them.
    """
    from exprtool.cli.common import quieten_libraries
    from exprtool.cli.data import progress_bar
    from exprtool.measures.evaluation import common_labels, evaluate, on_common_ground
    from exprtool.measures.subjects import RealPhotos, Untouched, open_subject
    from exprtool_training.data.measured import pictures_of

    quieten_libraries()
    if split not in ("auto", "test", "train", "all"):
        raise UsageError(f"--split {split!r}: known are auto, test, train and all.")
    if out is not None:
        _refuse_existing(out, overwrite)
    subjects = [open_subject(model, device, name=name) for model, name in zip(models, _names(models), strict=True)]
    wanted = _wanted(expr) or list(common_labels(subjects))
    cards = [subject.card for subject in subjects if subject.card]
    first = max(cards, key=lambda card: card.size, default=None)
    trainings = [subject.card.training_data for subject in subjects if subject.card and subject.card.training_data]
    chosen = ("test" if trainings else "all") if split == "auto" else split
    sides = {(float(t.get("test_fraction", 0.1)), int(t.get("split_seed", 0))) for t in trainings} or {(0.1, 0)}
    if len(sides) > 1 and chosen != "all":
        raise UsageError(
            "The models were trained on different splits, so nobody is held out from all. Use --split all."
        )
    test_fraction, split_seed = sides.pop()
    with progress_bar("Preparing", quiet) as progress:
        pictures = pictures_of(
            data,
            first.size if first else size,
            first.template if first else None,
            split=chosen,
            limit=limit,
            test_fraction=test_fraction,
            split_seed=split_seed,
            progress=progress,
        )
    cut = [pictures.recut(each.card.size, each.card.template) if each.card else pictures for each in subjects]
    classifier = _classifier(classifier_name, device, quiet)
    evaluations: list[Evaluation] = []
    for model, subject, shown in zip(models, subjects, cut, strict=True):
        with progress_bar(subject.name, quiet) as progress:
            evaluations.append(
                evaluate(
                    subject,
                    shown,
                    wanted,
                    classifier=classifier,
                    own_head=_own_head(model, subject),
                    face_service=service,
                    progress=progress,
                )
            )
    for reference in (Untouched(wanted), RealPhotos(wanted)):
        with progress_bar(reference.name, quiet) as progress, contextlib.suppress(DataError):  # nobody's real photos
            evaluations.append(evaluate(reference, pictures, wanted, classifier=classifier, progress=progress))
    return on_common_ground(evaluations), cut, subjects


def _wanted(expr: list[str] | None) -> list[str] | None:
    """The expressions that the user names, by their usual names; a model's own labels stay as they are."""
    from exprtool.expressions import ALIASES

    return [ALIASES.get(name.strip().lower(), name) for name in expr] if expr else None


def _names(models: Sequence[str]) -> list[str]:
    """Short names, made different where two would be the same."""
    from exprtool.measures.subjects import short_name

    names = [short_name(model) for model in models]
    return [name if names.count(name) == 1 else model for name, model in zip(names, models, strict=True)]


def _for_sheets(pictures: Pictures, rows: int) -> Pictures:
    """Evenly spread neutral faces, as the paper shows them; where there are too few, other ones after them."""
    import numpy as np

    neutral = [i for i, expression in enumerate(pictures.expressions) if expression in ("neutral", None)]
    if len(neutral) < rows:
        others = [i for i in range(len(pictures)) if i not in set(neutral)]
        return pictures.take((neutral + others)[:rows])
    return pictures.take([neutral[int(i)] for i in np.linspace(0, len(neutral) - 1, rows)])


def _classifier(name: str | None, device: str, quiet: bool) -> Classifier | None:
    """The judge of that name or file; without one the best that is ready, or None, with a word on how to get it."""
    from exprtool import plugins
    from exprtool.devices import resolve_device
    from exprtool.errors import UnknownNameError
    from exprtool.measures.evaluation import Classifier
    from exprtool.measures.expression import OnnxClassifier
    from exprtool.weights import catalogue as models

    known = plugins.registry().classifiers
    if name is None:
        best = sorted(known.values(), key=lambda spec: -spec.quality)
        ready = {spec.name: models.readiness(spec) for spec in best}
        name = next((each for each in ready if ready[each].ready), None)
        if name is None:
            if best and not quiet:
                say = ready[best[0].name]
                printing.say(f"No expression accuracy: {say.reason}. To measure it: {say.remedy}")
            return None
    if name not in known and not name.lower().endswith(".onnx") and not Path(name).exists():
        raise UnknownNameError("classifier", name, (*sorted(known), "FILE.onnx"))
    place = str(resolve_device(device))
    network = known[name].load(place) if name in known else OnnxClassifier(Path(name), place)
    return Classifier(network.labels, network, Path(name).name)


def _own_head(model: str, subject: Subject) -> Classifier | None:
    """The expression head that a run's training brought along, where it was kept."""
    from exprtool.plugins import registry

    backend, colon, argument = model.partition(":")
    path = Path(argument if colon and backend in registry().backends else model)
    for spec in registry().trainers.values():
        if subject.card is not None and spec.own_head is not None and spec.opens(path):
            return spec.own_head(path)
    return None


def _face_service(wanted: bool, key: str | None, secret: str | None, url: str | None) -> FacePlusPlus | None:
    if not wanted:
        return None
    from exprtool.measures.facepp import FacePlusPlus

    return FacePlusPlus.from_environment(key, secret, url)


_TABLES = ("measures.json", "measures.md", "measures.tex")


def _refuse_existing(out: Path, overwrite: bool) -> None:
    there = [name for name in (*_TABLES, "grid.png", "residual.png", "comparison.png") if (out / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{out} already holds {', '.join(there)}. Give --overwrite, or another --out.")


def _report(
    evaluations: Sequence[Evaluation], out: Path | None, format: Format, quiet: bool, paper: bool | None
) -> None:
    """Print the tables, and write them where ``out`` says so."""
    from exprtool.files import write_bytes
    from exprtool.measures import tables

    text = json.dumps(tables.as_json(evaluations), indent=1)
    if out is not None:
        for name, content in zip(
            _TABLES,
            (text, tables.markdown(evaluations, paper=paper), tables.latex(evaluations, paper=paper)),
            strict=True,
        ):
            write_bytes(out / name, content.encode())
    if format == "json":
        printing.lines(text)
    elif format == "markdown":
        printing.lines(tables.markdown(evaluations, paper=paper))
    elif format == "latex":
        printing.lines(tables.latex(evaluations, paper=paper))
    else:
        _show(evaluations, quiet, paper)
    if out is not None and not quiet:
        printing.say(f"Tables and sheets in {out}")


def print_table(table: Table) -> None:
    """At the width that its figures need: a terminal that is too narrow breaks lines, but no figure is cut."""
    from exprtool.cli.console import SafeConsole

    console = SafeConsole(highlight=False)
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    SafeConsole(highlight=False, width=max(console.width, needed)).print(table)


def _show(evaluations: Sequence[Evaluation], quiet: bool, paper: bool | None) -> None:
    from exprtool.cli.console import SafeConsole
    from exprtool.measures import tables

    console = SafeConsole(highlight=False)
    models = [each for each in evaluations if each.kind == "model"]
    for table in (tables.main_table(evaluations, paper=paper), *map(tables.expression_table, models)):
        print_table(table)
    if not quiet:
        for note in tables.footnotes(evaluations, paper=paper):
            console.print(note, style="dim")
