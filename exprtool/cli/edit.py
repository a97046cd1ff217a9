"""``exprtool edit``: photos in, photos out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exprtool.cli import common, printing
from exprtool.cli.common import OUTPUT_PANEL
from exprtool.errors import UsageError

if TYPE_CHECKING:
    from exprtool.batch import BatchOptions
    from exprtool.pipeline import Session
    from exprtool.plan import Input, Output
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
            "--out",
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
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Copy photos in which nothing is edited.", rich_help_panel=OUTPUT_PANEL),
    ] = False,
    keep_times: Annotated[
        bool,
        typer.Option("--keep-times", help="Give outputs the times of their inputs.", rich_help_panel=OUTPUT_PANEL),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 1 also where faces are left alone.", rich_help_panel=OUTPUT_PANEL),
    ] = False,
    max_pixels: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Refuse larger photos: 50000000, 50M. [default: what the machine's memory allows]",
        ),
    ] = None,
    no_provenance: common.NoProvenance = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Give the faces in photos an expression; everything else stays as it is.

    Exit codes: 0 all edited, or left alone with a reason; 1 some failed or show no face, the rest is done; 2 the
    request was refused, nothing written; 130 interrupted, finished outputs kept.
    """
    common.quieten_libraries()
    from exprtool import images
    from exprtool.batch import BatchOptions, make_folder, run_batch
    from exprtool.cli.progress import Screen
    from exprtool.pipeline import Session
    from exprtool.plan import expand_inputs, plan_outputs
    from exprtool.stopping import StopRequest

    exclude = Path(output) if output not in (None, "-") else None
    with common.nothing_written():
        suffix = images.suffix_of(image_format) if image_format else None
        policy = common.existing_policy(overwrite, skip_existing)
        passed_over: list[Path] = []
        sources = expand_inputs(inputs, images.IMAGE_SUFFIXES, exclude=exclude, passed_over=passed_over)
        limit = _pixels(max_pixels)
        session = Session(backend, detector, device, commercial_only=commercial_only)
        edits = common.make_edits(
            session, expr, strength=strength, controls=controls, like=like, asymmetry=asymmetry, seed=seed, force=force
        )
        if output == "-" and as_json:
            raise UsageError("-o - and --json both want standard output; name a file with -o, or leave --json out.")
        outputs = plan_outputs(
            sources, list(edits), output, suffix=suffix, suffixes=images.IMAGE_SUFFIXES, existing=policy
        )
        selection = common.make_selection(session, faces, person, similarity, min_face)
        session.load()
    options = BatchOptions(
        selection=selection,
        format=image_format,
        quality=quality,
        skip_existing=skip_existing,
        provenance=not no_provenance,
        keep=keep,
        keep_times=keep_times,
        max_pixels=limit,
    )
    if dry_run:
        _print_plan(session, outputs, edits, options, as_json)
        return
    with common.nothing_written():
        if exclude is not None and not _names_a_file(outputs, exclude):
            make_folder(exclude)  # before any photo is decoded, so that one that cannot be stops the run at once
        screen = Screen(
            len(outputs),
            quiet=quiet,
            verbose=verbose,
            as_json=as_json,
            report=report,
            strict=strict,
            passed_over=passed_over,
        )
    with screen, StopRequest(screen.stopping) as stop:
        run_batch(session, outputs, edits, options, screen.show, stop.event)
        screen.remark(session.notes)
        if stop.requested and not screen.complete:
            raise KeyboardInterrupt
    if not screen.all_edited:
        raise typer.Exit(1)


def _pixels(text: str | None) -> int:
    """The limit that --max-pixels sets, or the machine's."""
    from exprtool.memory import default_max_pixels, parse_pixels

    if text is None:
        return default_max_pixels()
    try:
        return parse_pixels(text)
    except ValueError:
        raise UsageError(f"--max-pixels {text!r} is no number of pixels: write 50000000 or 50M.") from None


def _names_a_file(outputs: Sequence[Output], target: Path) -> bool:
    return len(outputs) == 1 and outputs[0].path == target


def _print_plan(
    session: Session, outputs: Sequence[Output], edits: Mapping[str, Edit], options: BatchOptions, as_json: bool
) -> None:
    """Print, photo by photo, which faces would be edited and where the result would go."""
    from itertools import groupby

    from exprtool.batch import in_words, is_done

    models = _models_needed(session)
    for source, group in groupby(outputs, key=lambda output: output.source):
        done, to_do = [], {}
        for output in group:
            if is_done(output, options):
                done.append(output.name)
            else:
                to_do[output.label] = output.name
        record: dict = {"input": source.name, "outputs": list(to_do.values()), "skipped": done}
        record |= {"faces": [], "error": None, "models": models}
        if to_do:
            try:
                record |= _faces_planned(session, source, {label: edits[label] for label in to_do}, options)
            except Exception as error:  # as in the run itself
                record["error"] = in_words(error, source)[0]
        if as_json:
            printing.json_line(record)
        else:
            _print_record(record)
    if not as_json:
        for model in models:
            state = "there" if model["ready"] else "missing"
            printing.line(f"model {model['name']}: {model['size'] / 1e6:.1f} MB, {model['licence']}, {state}")
    for note in session.notes:
        printing.console().print(note)


def _faces_planned(session: Session, source: Input, edits: Mapping[str, Edit], options: BatchOptions) -> dict:
    """The faces of one photo, each with the expressions that it would get or the reason why not."""
    from exprtool.batch import read_input
    from exprtool.pipeline import why_none_selected

    prospect = session.find(read_input(source, options.max_pixels).rgb, options.selection)
    prepared = iter(session.prepare(prospect.selected))
    records: list[dict] = []
    for face, region, reason in zip(prospect.found.faces, prospect.regions, prospect.reasons, strict=True):
        will: list[str] = []
        if region is not None:
            candidate = next(prepared)
            refused = {label: session.check([candidate], edit)[0] for label, edit in edits.items()}
            reason = "; ".join(dict.fromkeys(words for words in refused.values() if words)) or None
            will = [label for label, refusal in refused.items() if not refusal]
        records.append(
            {
                "box": [round(float(v), 1) for v in face.box],
                "size": round(float(face.size), 1),
                "score": round(float(face.score), 3),
                "expressions": will,
                "reason": reason,
            }
        )
    return {"faces": records, "error": None if prospect.selected else why_none_selected(prospect)}


def _print_record(record: dict) -> None:
    found = len(record["faces"])
    editable = sum(bool(face["expressions"]) for face in record["faces"])
    what = record["error"] or f"{editable} of {found} faces will be edited"
    if not record["outputs"]:
        what = "already there"
    printing.line(common.naming(record["input"], what))
    for index, face in enumerate(record["faces"], start=1):
        what = ", ".join(face["expressions"]) or "left alone"
        reason = f" ({face['reason']})" if face["reason"] else ""
        printing.line(f"  face {index}: {face['size']:.0f} px, score {face['score']:.2f}: {what}{reason}")
    if editable:
        for name in record["outputs"]:
            printing.line(f"  -> {name}")


def _models_needed(session: Session) -> list[dict]:
    from exprtool.weights.catalogue import is_there

    weights = {weight.name: weight for spec in session.chain.specs for weight in spec.needs}
    return [
        {"name": weight.name, "size": weight.size, "licence": weight.licence, "ready": is_there(weight)}
        for weight in weights.values()
    ]
