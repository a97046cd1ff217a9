"""``exprtool export``: a training run as one ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from exprtool.cli import printing
from exprtool.errors import UsageError


def add_to(app: typer.Typer) -> None:
    app.command("export")(export_command)


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A training run's folder, or a .safetensors file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.")],
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
    """Write the generator of a run as ONNX, with its model card inside.

    The file is compared with PyTorch first and only put in place if they agree.
    """
    if half and int8:
        raise UsageError("--half and --int8 exclude each other; give one of them.")
    if weights not in ("auto", "ema", "raw"):
        raise UsageError(f"--weights {weights!r}: known are auto, ema and raw.")
    from exprtool_flow.state import is_flow

    if is_flow(run):
        if int8 or data:
            raise UsageError("A flow network is exported without --int8 and --data: it needs neither.")
        _export_flow(run, out, half, licence, overwrite, as_json, quiet)
        return
    from exprtool.cli.data import progress_bar
    from exprtool_gan.data import load_prepared
    from exprtool_gan.export import export, read_model_card

    prepared = None
    if data:
        card = read_model_card(run)
        with progress_bar("Preparing", quiet) as progress:
            prepared = load_prepared(data, card.generator.image_size, template=card.crop, progress=progress)
    kind = "half" if half else "int8" if int8 else "float32"
    result = export(
        run,
        out,
        kind,
        data=prepared,
        crops=crops,
        weights=weights,  # type: ignore[arg-type]
        licence=licence,
        overwrite=overwrite,
    )
    if as_json:
        printing.json_line(
            {
                "file": str(result.path),
                "kind": result.kind,
                "bytes": result.bytes,
                "sha256": result.sha256,
                "parity": result.parity.to_json(),
                "card": json.loads(result.card.to_json()),
            }
        )
        return
    if quiet:
        return
    parity = result.parity
    printing.line(f"{result.path}  {result.kind}, {result.bytes / 1e6:.1f} MB, {len(result.card.labels)} expressions")
    what = "real crops" if parity.real else "drawn patterns (give --data to compare on real crops)"
    printing.line(
        f"compared with PyTorch on {parity.crops} {what}: largest difference {parity.largest:.1e} of [-1, 1], "
        f"{parity.levels} grey levels, mean {parity.mean_levels:.3f}, PSNR {parity.psnr:.1f} dB"
    )


def _export_flow(
    run: Path, out: Path, half: bool, licence: str | None, overwrite: bool, as_json: bool, quiet: bool
) -> None:
    """The same for the trainer ``flow``, whose running average is always what is exported."""
    from exprtool_flow.export import export

    result = export(run, out, half=half, licence=licence, overwrite=overwrite)
    if as_json:
        record = {
            "file": str(result.path),
            "kind": result.card.precision,
            "bytes": result.bytes,
            "sha256": result.sha256,
            "difference": result.difference,
            "card": json.loads(result.card.to_json()),
        }
        printing.json_line(record)
    elif not quiet:
        worst = max(result.difference, key=lambda name: result.difference[name])
        printing.line(
            f"{result.path}  {result.card.precision}, {result.bytes / 1e6:.1f} MB, {result.card.parameters:,} weights"
        )
        printing.line(f"compared with PyTorch: largest difference {result.difference[worst]:.1e}, in {worst}")
