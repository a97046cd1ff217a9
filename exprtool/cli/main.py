"""The command line's front door: one Typer application, and the only place where errors become exit codes.

Command modules import nothing heavy at their top: ``exprtool --help`` must start in under 0.4 s.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

import exprtool
from exprtool.errors import ExprtoolError, UsageError

app = typer.Typer(
    name="exprtool",
    help="Change the expression on a face in photos and videos, and nothing else.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

# Each module adds its commands to the application with `add_to(app)`. The order is that of `--help`.
_COMMANDS: tuple[str, ...] = (
    "edit",
    "faces",
    "video",
    "animate",
    "sheet",
    "verify",
    "models",
    "listing",
    "doctor",
    "data",
    "synth",
    "train",
    "export",
    "evaluate",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"exprtool {exprtool.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


for _name in _COMMANDS:
    import_module(f"exprtool.cli.{_name}").add_to(app)


def run() -> None:
    """Run the command line; the entry point of the ``exprtool`` script."""
    try:
        app()
    except UsageError as error:
        print(f"exprtool: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except ExprtoolError as error:
        print(f"exprtool: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print("exprtool: interrupted; finished outputs are kept.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    run()
