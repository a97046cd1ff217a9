"""``exprtool reproduce``: the paper's comparison in one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from exprtool.cli import printing
from exprtool.cli.evaluate import ClassifierName


def add_to(app: typer.Typer) -> None:
    app.command("reproduce")(reproduce_command)


def reproduce_command(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            "-d",
            metavar="DIR",
            help="The paper's three data sets (KDEF, RaFD, CFEE) or an open one: folders by expression, a CSV, or a "
            "prepared folder. Repeatable.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for runs, tables, figures and the page.")],
    steps: Annotated[
        int, typer.Option(min=0, help="Discriminator steps for every model; 0: as long as its own recipe says.")
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two steps of narrow networks: shows that it works, measures nothing.")
    ] = False,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only these models, by their names. Repeatable.")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", "-b", help="Also measure this backend or model file. Repeatable."),
    ] = None,
    outside: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Paintings, drawings and other pictures from no data set, for Figs. 2, 7 and 8."
        ),
    ] = None,
    crop: Annotated[
        str, typer.Option(help="centre, aligned, or auto: centred squares for the paper's data, aligned faces else.")
    ] = "auto",
    test_fraction: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the people that is held out.")] = 0.1,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure on so many held-out pictures at most.")] = None,
    classifier: ClassifierName = None,
    seed: Annotated[int, typer.Option(help="Seed of every run.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")] = False,
) -> None:
    """Train every model of the paper's comparison on one set, measure them, and lay it out as one page.

    Table 1 (also as LaTeX), Figures 2, 4, 7, 8, 10, 11. Run it again after an interruption: what is finished is kept.
    Exits with 1 where a model could not be made; the page says which, and why.
    """
    from exprtool.cli.common import quieten_libraries
    from exprtool.cli.evaluate import _classifier, print_table
    from exprtool.cli.tables import show_text
    from exprtool.errors import UsageError
    from exprtool.measures.tables import main_table
    from exprtool_training.reproduce import Wish, reproduce, write_page
    from exprtool_training.screen import screen

    quieten_libraries()
    if crop not in ("auto", "aligned", "centre"):
        raise UsageError(f"--crop {crop!r}: known are auto, aligned and centre.")
    wish = Wish(
        tuple(data), out, steps, quick, seed, crop, test_fraction, limit, tuple(model) if model else None,
        tuple(backend or ()), outside, device,
    )  # fmt: skip
    result = reproduce(
        wish,
        classifier=_classifier(classifier, device, quiet),
        watcher=None if quiet else lambda name: screen(),
        told=(lambda text: None) if quiet else lambda text: show_text(text, error=True),
    )
    page = write_page(result)
    if not quiet:
        print_table(main_table(result.evaluations))
    printing.line(str(page))
    if result.failed:
        for name, why in result.failed.items():
            show_text(f"exprtool: {name}: {why}", error=True)
        sys.exit(1)
