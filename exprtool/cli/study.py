"""``exprtool study``: make a blind comparison by people, collect their answers, and sum them up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from exprtool.cli import printing
from exprtool.errors import UsageError

study_app = typer.Typer(
    help="Let people judge, blind: which result is most real, most expressive, most the person.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(study_app, name="study")


@study_app.command("make")
def make_command(
    originals: Annotated[Path, typer.Argument(metavar="FACES", help="Folder with the input photos.")],
    method: Annotated[
        list[str],
        typer.Option(
            "--method",
            "-m",
            metavar="NAME=WHAT",
            help="A method: a folder of finished pictures (any tool's) named as their inputs, or a backend, training "
            "run or model file. Repeat it, twice at least.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page. Its key goes beside it.")] = Path("study.html"),
    expr: Annotated[list[str] | None, typer.Option("--expr", "-e", help="Only these expressions. Repeatable.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=200, help="Faces to show; the paper: 18.")] = 18,
    checks: Annotated[int, typer.Option(min=0, max=20, help="Attention checks among them.")] = 2,
    seed: Annotated[int, typer.Option(help="Chooses faces, order and blind names.")] = 0,
    side: Annotated[int, typer.Option(min=64, max=1024, help="Largest side of a shown picture in pixels.")] = 320,
    whole: Annotated[bool, typer.Option("--whole", help="Show the middle square as it is; look for no face.")] = False,
    title: Annotated[str, typer.Option(help="The page's title.")] = "Which face is best?",
    intro: Annotated[str, typer.Option(help="What raters read first, in place of the usual lines.")] = "",
    detector: Annotated[str, typer.Option(help="What finds the faces: see `exprtool detectors`.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page and a key that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Write a study as one page that works from disk, on a phone and from `exprtool study serve`.

    Each face is shown with what every method made of it, in random order and without names, and three questions are
    asked about it (section 3.6 of the paper). The key, which says whose picture is whose, is a file of its own.
    """
    from exprtool.cli.common import quieten_libraries
    from exprtool.cli.data import progress_bar
    from exprtool.expressions import canonical
    from exprtool.files import write_bytes
    from exprtool.study.design import MAX_METHODS, MIN_METHODS, make_study
    from exprtool.study.items import gather, parse_methods
    from exprtool.study.page import study_page

    quieten_libraries()
    methods = parse_methods(method)
    if not MIN_METHODS <= len(methods) <= MAX_METHODS:
        raise UsageError(f"A study compares {MIN_METHODS} to {MAX_METHODS} methods: give --method that often.")
    key = out.with_suffix(".key.json")
    if (existing := [str(path) for path in (out, key) if path.exists()]) and not overwrite:
        raise UsageError(f"{' and '.join(existing)} exist already: choose another --out, or give --overwrite.")
    expressions = [canonical(name) for name in expr or ()]
    with progress_bar("Collecting", quiet) as progress:
        gathered = gather(
            originals,
            methods,
            expressions=expressions,
            count=count,
            checks=checks,
            seed=seed,
            side=side,
            whole=whole,
            detector=detector,
            device=device,
            progress=progress,
        )
    study = make_study(gathered.items, checks=gathered.checks, seed=seed, title=title, intro=intro)
    page = study_page(study).encode()
    write_bytes(key, json.dumps(study.key(), ensure_ascii=False, indent=1).encode())
    write_bytes(out, page)
    if not quiet:
        from exprtool.cli.tables import show_text

        for note in gathered.notes:
            show_text(note, error=True)
        show_text(
            f"{len(study.trials) - len(gathered.checks)} faces by {len(methods)} methods, {len(gathered.checks)} "
            f"attention checks, {len(page) / 1e6:.1f} MB. Key: {key}; raters must not have it.",
            error=True,
        )
    printing.line(str(out))


@study_app.command("serve")
def serve_command(
    page: Annotated[Path, typer.Argument(metavar="PAGE", help="The page that `exprtool study make` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the answers, one file per rater.")] = Path(
        "answers"
    ),
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines of your network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    name: Annotated[
        list[str] | None, typer.Option(help="A name by which raters reach this machine, such as study.lan. Repeatable.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Hand the page out and collect answers from many raters at once, until Ctrl-C.

    Every answer is on disk before the rater's browser is told that it has arrived.
    """
    from exprtool.cli.tables import show_text
    from exprtool.study.serve import StudyServer

    def heard(rater: str, answers: int, asked: int) -> None:
        if not quiet and answers == asked:
            show_text(f"{rater}: all {asked} answers", error=True)

    with StudyServer(page, out, host, port, names=name or (), heard=heard) as server:
        printing.line(server.address)
        if not quiet:
            show_text(f"Answers go to {out}. Ctrl-C ends it.", error=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            if not quiet:
                show_text("Ended; all answers are kept.", error=True)


@study_app.command("tally")
def tally_command(
    answers: Annotated[
        list[Path],
        typer.Argument(metavar="ANSWERS...", help="Folders of `study serve`, CSV files saved from the page."),
    ],
    key: Annotated[Path, typer.Option("--key", "-k", help="The study's key, PAGE.key.json.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for tally.json, tally.md and the plot tally.svg.")
    ] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Also count raters who failed the attention checks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are in --out already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No remarks.")] = False,
) -> None:
    """Percentages by question and method with intervals, agreement between raters, and what is missing (Fig. 9).

    Exits with 1 where some files could not be used; the others count.
    """
    from exprtool.cli.tables import show_table, show_text
    from exprtool.files import write_bytes
    from exprtool.study import result
    from exprtool.study.design import read_key
    from exprtool.study.tally import read_answers, tally

    names = ("tally.json", "tally.md", "tally.svg")
    if out is not None and not overwrite and (there := [each for each in names if (out / each).exists()]):
        raise UsageError(f"{out} already holds {', '.join(there)}. Give --overwrite, or another --out.")
    known = read_key(key)
    raters, faults = read_answers(answers, known["study"])
    for fault in faults:
        show_text(f"exprtool: {fault}", error=True)
    summed = tally(known, raters, keep_all=keep_all)
    text = json.dumps(summed.to_json(), ensure_ascii=False, indent=1)
    if out is not None:
        for each, content in zip(names, (text, result.markdown(summed), result.plot(summed)), strict=True):
            write_bytes(out / each, content.encode())
    if as_json:
        printing.lines(text)
    else:
        show_table(result.TITLES, result.rows(summed))
        if not quiet:
            for note in result.remarks(summed):
                show_text(note, error=not sys.stdout.isatty())
    if out is not None and not quiet:
        show_text(f"Table and plot in {out}", error=True)
    if faults:
        raise typer.Exit(1)
