"""The command line's front door: one Typer application, and the only place where errors become exit codes.

Command modules import nothing heavy at their top: ``exprtool --help`` must start in under 0.4 s.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

import exprtool
from exprtool.cli import help, printing
from exprtool.errors import ExprtoolError, UsageError
from exprtool.stopping import interrupt_on_every_signal

app = typer.Typer(
    name="exprtool",
    help="Change the expression on a face in photos and videos, and nothing else.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
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
    "study",
    "reproduce",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        printing.line(f"exprtool {exprtool.__version__}")
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
help.apply_to(app)


def _spare_the_others(group: typer.Typer, words: Sequence[str]) -> None:
    """Leave only the name and the summary of commands that ``words`` do not call.

    Typer reads every option of every command at each start. That is half of the time that ``--help`` takes, and all
    but one command's worth of it is for nothing.
    """
    wanted = next((word for word in words if not word.startswith("-")), None)
    for command in group.registered_commands:
        if command.callback and (command.name or command.callback.__name__.replace("_", "-")) != wanted:
            command.callback = _stand_in(command.callback)
    for nested in group.registered_groups:
        # Typer keeps a group's name either with the group or where it was added.
        if nested.typer_instance and wanted not in (nested.name, nested.typer_instance.info.name):
            _spare_the_others(nested.typer_instance, ())


def _stand_in(callback: Callable[..., Any]) -> Callable[[], None]:
    def stand_in() -> None:
        raise AssertionError(f"{callback.__name__} was not meant to be called")

    stand_in.__name__, stand_in.__doc__ = callback.__name__, callback.__doc__
    return stand_in


def run() -> None:
    """Run the command line; the entry point of the ``exprtool`` script."""
    if not any(name.startswith("_EXPRTOOL_COMPLETE") for name in os.environ):  # completion wants every option
        _spare_the_others(app, sys.argv[1:])
        if all(word.startswith("-") for word in sys.argv[1:]):
            app.rich_markup_mode = None  # the overview needs no frames, and they cost as much again as all the rest
    # Whatever Python this starts must not take modules from the current folder, which anyone may have filled.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    interrupt_on_every_signal()
    sys.exit(_run())


def _run() -> int:
    """Run the command; returns the exit code. Nothing that happens to a user's files or disk ends in a traceback."""
    try:
        app()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except UsageError as error:
        printing.complain(error)
        code = EXIT_USAGE
    except ExprtoolError as error:
        printing.complain(error)
        code = EXIT_FAILED
    except KeyboardInterrupt:
        printing.say("exprtool: interrupted; finished outputs are kept.")
        code = EXIT_INTERRUPTED
    except Exception as error:
        printing.say(f"exprtool: {_in_words(error)}")
        if {"-v", "--verbose"} & set(sys.argv):
            for text in traceback.format_exc().splitlines():
                printing.say(text)
        code = EXIT_FAILED
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError) as error:
        if isinstance(error, OSError):
            printing.lose_stdout(error)
    return code or int(printing.stdout_was_lost())


def _in_words(error: Exception) -> str:
    """What to tell the user about an error that no command foresaw."""
    text = " ".join(str(error).split())
    short = "annot allocate memory" in text or "start new thread" in text  # libraries that cannot be loaded, threads
    if isinstance(error, MemoryError) or short:
        return "not enough memory. Close other programs, raise the limit (ulimit -v), or take smaller files."
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or text}. Mend this and run it again."
    return f"unexpected {type(error).__name__}: {text} (run again with -v for where it arose)"


if __name__ == "__main__":
    run()
