"""``exprtool sheet``: one contact sheet with every expression of one photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exprtool.cli import common, printing
from exprtool.cli.common import OUTPUT_PANEL
from exprtool.errors import UsageError


def add_to(app: typer.Typer) -> None:
    app.command()(sheet)


def sheet(
    photo: Annotated[Path, typer.Argument(help="The photo; its largest face is shown.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            metavar="OUT",
            help="The sheet's file. By default PHOTO.sheet.jpg beside the photo.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    expr: common.Expr = None,
    strengths: Annotated[
        str,
        typer.Option(help="The strengths to show, joined by commas.", rich_help_panel=common.EXPRESSION_PANEL),
    ] = "0.4,0.7,1",
    controls: common.Set = None,
    like: common.Like = None,
    asymmetry: common.Asymmetry = 0.0,
    seed: common.Seed = 0,
    backend: common.BackendName = "auto",
    detector: common.DetectorName = "auto",
    device: common.Device = "auto",
    commercial_only: common.CommercialOnly = False,
    faces: common.Faces = "all",
    force: common.Force = False,
    cell: Annotated[
        int, typer.Option(min=32, max=2048, help="Side of one picture in pixels.", rich_help_panel=OUTPUT_PANEL)
    ] = 256,
    overwrite: common.Overwrite = False,
    no_provenance: common.NoProvenance = False,
    quiet: common.Quiet = False,
) -> None:
    """Show one face with all expressions by several strengths, on one labelled sheet.

    Exit codes: 0 written; 1 no face, or the backend leaves it alone; 2 refused, nothing written.
    """
    common.quieten_libraries()
    from exprtool import images, provenance
    from exprtool.door import Door
    from exprtool.expressions import EXPRESSIONS
    from exprtool.pipeline import Session
    from exprtool.reports.sheet import make_sheet

    amounts = _strengths(strengths)
    target = output or photo.with_name(f"{photo.stem}.sheet.jpg")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; choose another --output or use --overwrite.")
    if target.exists() and photo.exists() and target.samefile(photo):
        raise UsageError(f"{target} is the photo itself; choose another --output.")
    images.output_format(images.Photo.from_rgb(_blank()), target)
    if not (expr or like or controls):
        expr = [name for name in EXPRESSIONS if name != "neutral"] + ["neutral"]
    session = Session(backend, detector, device, commercial_only=commercial_only)
    edits = common.make_edits(
        session, expr, strength=1.0, controls=controls, like=like, asymmetry=asymmetry, seed=seed, force=force
    )
    selection = common.make_selection(session, faces, None, common.DEFAULT_SIMILARITY, 0.0)
    made = make_sheet(session, images.read_image(photo).rgb, edits, amounts, cell=cell, selection=selection)
    picture = images.Photo.from_rgb(made.image, str(target))
    edit = next(iter(edits.values()))
    records = [provenance.Provenance.of(edit, name, trained=made.trained, faces=1) for name in made.backends]
    door = Door(photo, () if no_provenance else records)
    kind = images.output_format(picture, target)
    held = images.holds_xmp(kind)
    data = images.write_image(picture, made.image, None, format=kind, quality=92, xmp=door.xmp() if held else None)
    assert data is not None
    door.write(target, data, beside=not held)
    if not quiet:
        console = printing.console()
        for which, reason in made.missing.items():
            console.print(f"{which}: left alone, {reason}")
        for note in (*made.notes, *session.notes):
            console.print(note)
    printing.line(str(target))


def _strengths(text: str) -> tuple[float, ...]:
    from exprtool.expressions import parse_amount

    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"Cannot read --strengths {text!r}: write numbers joined by commas, such as 0.5,1.")
    return tuple(parse_amount(part, "--strengths") for part in parts)


def _blank():
    import numpy as np

    return np.zeros((1, 1, 3), np.uint8)
