"""``exprtool export``: a training run as one ONNX file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from exprtool.cli import printing
from exprtool.errors import UsageError


def add_to(app: typer.Typer) -> None:
    app.command("export")(export_command)


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A training run's folder, or a .safetensors file.")],
    out: Annotated[Path, typer.Option("--output", "--out", "-o", help="The ONNX file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16: half the size.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to int8; needs --data. The loss is measured.")] = False,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Real crops or photos to compare on: a prepared folder or a data root. Repeatable."),
    ] = None,
    crops: Annotated[int, typer.Option(min=1, help="How many crops to compare on.")] = 64,
    weights: Annotated[str, typer.Option(help="auto, ema (the running average) or raw.")] = "auto",
    licence: Annotated[str | None, typer.Option(help="Written into the card instead of the run's own.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Write what a run has trained as ONNX, with its model card inside.

    The file is compared with PyTorch first and only put in place if they agree.
    """
    if half and int8:
        raise UsageError("--half and --int8 exclude each other; give one of them.")
    if weights not in ("auto", "ema", "raw"):
        raise UsageError(f"--weights {weights!r}: known are auto, ema and raw.")
    from exprtool.cli.data import progress_bar
    from exprtool.plugins import registry
    from exprtool.types import ExportWish

    spec = registry().trainer_of(run)
    if spec.export is None:
        raise UsageError(f"The trainer {spec.name!r} exports nothing: use the run as --backend run:{run}.")
    kind = "half" if half else "int8" if int8 else "float32"
    with progress_bar("Preparing", quiet) as progress:
        wish = ExportWish(kind, tuple(data or ()), crops, weights, licence, overwrite, progress)
        made = spec.export(run, out, wish)
    if as_json:
        sha256 = hashlib.sha256(made.content).hexdigest()
        record = {"file": str(made.path), "kind": made.kind, "bytes": len(made.content), "sha256": sha256}
        printing.json_line({**record, **made.record, "card": made.card})
    elif not quiet:
        printing.line(f"{made.path}  {made.kind}, {len(made.content) / 1e6:.1f} MB")
        printing.lines(made.text)
