"""``exprtool verify``: what pictures and films say about how they were made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exprtool.cli import printing
from exprtool.errors import ExprtoolError

if TYPE_CHECKING:
    from exprtool.provenance import Declaration, Provenance


def add_to(app: typer.Typer) -> None:
    app.command("verify")(verify)


def verify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures or films to look into.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
) -> None:
    """Show the record of edits that a picture or film carries (XMP, the film's comment, or the JSON file beside it).

    Ends with exit code 1 where a file carries none or cannot be read. The record is a statement of the program that
    made it, not a proof: it can be taken out of a file.
    """
    from exprtool import images
    from exprtool.provenance import read

    missing = False
    for path in files:
        try:
            declaration, problem = read(path), None
        except ExprtoolError as error:
            declaration, problem = None, str(error)
        try:
            manifest = images.carries_manifest(path)
        except ExprtoolError:  # a film, or what the line above has already said
            manifest = False
        recorded = declaration is not None and bool(declaration.edits)
        missing |= not recorded
        if as_json:
            printing.json_line(_as_json(path, declaration, problem, manifest))
        elif declaration is None:
            printing.say(f"exprtool: {problem}")
        else:
            for text in _in_words(path, declaration, manifest):
                printing.line(text)
    if missing:
        raise typer.Exit(1)


def _as_json(path: Path, declaration: Declaration | None, problem: str | None, manifest: bool) -> dict[str, object]:
    return {
        "file": str(path),
        "recorded": declaration is not None and bool(declaration.edits),
        "digital_source_type": declaration.digital_source_type if declaration else None,
        "edits": [asdict(edit) for edit in declaration.edits] if declaration else [],
        "c2pa_manifest": manifest,
        "error": problem,
    }


def _in_words(path: Path, declaration: Declaration, manifest: bool) -> list[str]:
    carries = ["  It carries a C2PA manifest, which exprtool does not check."] if manifest else []
    kind = declaration.digital_source_type
    if not declaration.edits:
        stated = f"; it declares itself {kind.rpartition('/')[2]}" if kind else ""
        return [f"{path}: no record of an edit by exprtool{stated}", *carries]
    return [
        f"{path}: {kind.rpartition('/')[2] if kind else 'edited'}",
        *(f"  {number}. {_edit_in_words(edit)}" for number, edit in enumerate(declaration.edits, 1)),
        *carries,
    ]


def _edit_in_words(edit: Provenance) -> str:
    wanted = [f"{name} {weight:g}" for name, weight in (*edit.weights.items(), *edit.controls.items())]
    asked = edit.timeline or ", ".join(wanted) or "no expression named"
    model = "a trained model" if edit.trained else "no trained model"
    faces = "" if edit.faces is None else f", {edit.faces} {'face' if edit.faces == 1 else 'faces'}"
    removed = f"; removed: {edit.removed}" if edit.removed else ""
    return (
        f"{edit.tool} {edit.version}, backend {edit.backend} ({model}): {asked}; "
        f"strength {edit.strength:g}, seed {edit.seed}{faces}{removed}"
    )
