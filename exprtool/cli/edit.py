"""``exprtool edit``: photos in, photos out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exprtool.cli import common
from exprtool.cli.common import OUTPUT_PANEL
from exprtool.errors import ExprtoolError, UsageError, WriteError

if TYPE_CHECKING:
    from exprtool.batch import BatchOptions
    from exprtool.pipeline import Session
    from exprtool.plan import Output
    from exprtool.types import Edit


def add_to(app: typer.Typer) -> None:
    app.command()(edit)


def edit(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Photos, folders (searched recursively), globs, or -.")
    ],
    expr: common.Expr = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file for one photo, a folder for more, - for stdout. By default beside the input.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    strength: common.Strength = 1.0,
    controls: common.Set = None,
    like: common.Like = None,
    asymmetry: common.Asymmetry = 0.0,
    seed: common.Seed = 0,
    backend: common.BackendName = "auto",
    detector: common.DetectorName = "auto",
    device: common.Device = "auto",
    commercial_only: common.CommercialOnly = False,
    faces: common.Faces = "all",
    person: common.Person = None,
    similarity: common.Similarity = common.DEFAULT_SIMILARITY,
    min_face: common.MinFace = 0.0,
    force: common.Force = False,
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="jpg, png, webp, tiff, ... By default the input's.", rich_help_panel=OUTPUT_PANEL
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, help="1 to 100. By default the input's own compression.", rich_help_panel=OUTPUT_PANEL
        ),
    ] = None,
    overwrite: common.Overwrite = False,
    skip_existing: common.SkipExisting = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done; write nothing.", rich_help_panel=OUTPUT_PANEL)
    ] = False,
    as_json: common.AsJson = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a gallery of before and after there.", rich_help_panel=OUTPUT_PANEL),
    ] = None,
    no_provenance: common.NoProvenance = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Give the faces in photos an expression; everything else stays as it is.

    Exit codes: 0 all edited; 1 some failed or had no face, the rest is done; 2 refused, nothing written; 130
    interrupted, finished outputs kept.
    """
    common.quieten_libraries()
    from exprtool import images
    from exprtool.batch import BatchOptions, make_folder, run_batch
    from exprtool.cli.progress import Screen
    from exprtool.pipeline import Session
    from exprtool.plan import expand_inputs, plan_outputs

    suffix = images.suffix_of(image_format) if image_format else None
    policy = common.existing_policy(overwrite, skip_existing)
    exclude = Path(output) if output not in (None, "-") else None
    sources = expand_inputs(inputs, images.IMAGE_SUFFIXES, exclude=exclude)
    session = Session(backend, detector, device, commercial_only=commercial_only)
    edits = common.make_edits(
        session, expr, strength=strength, controls=controls, like=like, asymmetry=asymmetry, seed=seed, force=force
    )
    selection = common.make_selection(session, faces, person, similarity, min_face)
    outputs = plan_outputs(sources, list(edits), output, suffix=suffix, suffixes=images.IMAGE_SUFFIXES, existing=policy)
    options = BatchOptions(
        selection=selection,
        format=image_format,
        quality=quality,
        skip_existing=skip_existing,
        provenance=not no_provenance,
    )
    if dry_run:
        _print_plan(session, outputs, edits, options, as_json)
        return
    if exclude is not None and not _names_a_file(outputs, exclude):
        # Before any photo is decoded, so that a folder that cannot be written stops the run at once.
        try:
            make_folder(exclude)
        except WriteError as error:
            raise UsageError(str(error)) from error
    with Screen(len(outputs), quiet=quiet, verbose=verbose, as_json=as_json, report=report) as screen:
        run_batch(session, outputs, edits, options, screen.show)
        screen.remark(session.notes)
    if not screen.all_edited:
        raise typer.Exit(1)


def _names_a_file(outputs: Sequence[Output], target: Path) -> bool:
    return len(outputs) == 1 and outputs[0].path == target


def _print_plan(
    session: Session, outputs: Sequence[Output], edits: Mapping[str, Edit], options: BatchOptions, as_json: bool
) -> None:
    """Print, photo by photo, which faces would be edited and where the result would go."""
    import json
    from itertools import groupby

    from exprtool.batch import read_input

    console = common.stderr()
    for source, group in groupby(outputs, key=lambda output: output.source):
        group = list(group)
        record: dict = {"input": source.name, "outputs": [output.name for output in group], "faces": [], "error": None}
        try:
            prospect = session.find(read_input(source).rgb, options.selection)
            prepared = iter(session.prepare(prospect.selected))
            for face, region, reason in zip(prospect.found.faces, prospect.regions, prospect.reasons, strict=True):
                if region is not None:
                    candidate = next(prepared)
                    refused = {label: session.check([candidate], edit)[0] for label, edit in edits.items()}
                    reasons = dict.fromkeys(reason for reason in refused.values() if reason)
                    reason = "; ".join(reasons) or None
                    will = [label for label, refusal in refused.items() if not refusal]
                else:
                    will = []
                record["faces"].append(
                    {
                        "box": [round(float(v), 1) for v in face.box],
                        "size": round(float(face.size), 1),
                        "score": round(float(face.score), 3),
                        "expressions": will,
                        "reason": reason,
                    }
                )
            if not prospect.found.faces:
                record["error"] = f"no face found (tried: {', '.join(prospect.found.tried)})"
        except ExprtoolError as error:
            record["error"] = str(error)
        if as_json:
            print(json.dumps(record), flush=True)
        else:
            _print_record(record)
    if not as_json:
        _print_needs(session)
    for note in session.notes:
        console.print(note, markup=False)


def _print_record(record: dict) -> None:
    found = len(record["faces"])
    editable = sum(bool(face["expressions"]) for face in record["faces"])
    print(f"{record['input']}: {record['error'] or f'{editable} of {found} faces will be edited'}")
    for index, face in enumerate(record["faces"], start=1):
        what = ", ".join(face["expressions"]) or "left alone"
        reason = f" ({face['reason']})" if face["reason"] else ""
        print(f"  face {index}: {face['size']:.0f} px, score {face['score']:.2f}: {what}{reason}")
    if editable:
        for name in record["outputs"]:
            print(f"  -> {name}")


def _print_needs(session: Session) -> None:
    from exprtool.models import is_there

    for spec in session.specs:
        for weight in spec.needs:
            state = "there" if is_there(weight) else "missing"
            print(f"model {weight.name}: {weight.size / 1e6:.1f} MB, {weight.licence}, {state}", file=sys.stdout)
