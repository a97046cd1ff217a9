"""``exprtool data synth``: from portraits to a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exprtool.cli import common, printing
from exprtool.cli.data import data_app
from exprtool.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Nothing to add: the command hangs below ``exprtool data``, whose module this one imports."""


@data_app.command("synth")
def synth(
    faces: Annotated[
        list[Path],
        typer.Option("--faces", metavar="DIR", help="Portraits, one person on each. Repeat it for more folders."),
    ],
    out: Annotated[Path, typer.Option("--output", "--out", "-o", metavar="DIR", help="The folder to make.")],
    per_face: Annotated[
        int, typer.Option(min=1, help="Pairs per portrait; the first seven show the expressions.")
    ] = 16,
    licence: Annotated[
        list[str] | None,
        typer.Option(help="Licence of each --faces folder, in order; goes into the datasheet."),
    ] = None,
    size: Annotated[int, typer.Option(min=64, max=512, help="Side of the pairs in pixels.")] = 160,
    crop_size: Annotated[int, typer.Option(min=32, max=512, help="Side of the labelled crops in pixels.")] = 128,
    seed: common.Seed = 0,
    leave_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A list of file names (one per line) that are kept for measuring."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per processor if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The datasheet as JSON on stdout.")] = False,
    quiet: common.Quiet = False,
) -> None:
    """Turn portraits into a training set: every person with every expression, and the flow between them.

    Run it again to go on after an interruption. The same portraits and seed give the same set.
    """
    common.quieten_libraries()
    from rich.progress import Progress, TimeRemainingColumn

    from exprtool_synth.dataset import Source, make_dataset
    from exprtool_synth.portrait import Wish

    licences = licence or ["not stated"] * len(faces)
    if len(licences) != len(faces):
        raise UsageError(
            f"{len(faces)} --faces folders but {len(licences)} --licence texts; give one for each, or none."
        )
    kept = set(leave_out.read_text().split()) if leave_out else set()
    console = printing.console()
    with Progress(
        *Progress.get_default_columns()[:-1],
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task("portraits", total=None)

        def show(done: int, total: int, pairs: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{pairs} pairs")
            if not console.is_terminal and not quiet and (done % 50 == 0 or done == total):
                console.print(f"[{done}/{total}] {pairs} pairs")

        sheet = make_dataset(
            [Source(folder, text) for folder, text in zip(faces, licences, strict=True)],
            out,
            Wish(per_face, size, crop_size, seed),
            workers=workers,
            leave_out=lambda path: path.name in kept or str(path) in kept,
            progress=show,
        )
    if as_json:
        printing.json_line(sheet)
    if not quiet:
        left = sum(sheet["portraits"]["left_out"].values())
        console.print(
            f"{sheet['pairs']} pairs from {sheet['portraits']['used']} portraits ({left} left out, "
            f"{sheet['share_rejected']:.1%} of renders thrown away): {out / 'datasheet.md'}",
            markup=False,
        )
    if not sheet["pairs"]:
        raise typer.Exit(1)
