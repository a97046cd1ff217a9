"""``exprtool train``: every setting of a trainer is a flag and a key of a TOML file, declared once in its dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from exprtool.cli import help
from exprtool.errors import TrainingError

if TYPE_CHECKING:
    from exprtool.plugins import Registry
    from exprtool.types import TrainerSpec

DEFAULT_TRAINER = "gan"

# Which flags there are depends on the trainer, and asking it costs imports that no other command should pay for. So
# the command takes its arguments as they come and hands them to a command that is built once the trainer is known.
_RAW = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_to(app: typer.Typer) -> None:
    app.command(context_settings=_RAW, add_help_option=False)(train)


def train(context: typer.Context) -> None:
    """Train a network on labelled faces: exprtool train --data ./faces --out runs/a"""
    from exprtool.plugins import registry

    arguments = list(context.args)
    spec = _trainer(arguments, registry())
    command = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    command.command(name="train", help=f"Train a network on labelled faces. Trainer {spec.name}: {spec.summary}")(
        _command(spec)
    )
    help.apply_to(command)
    command(args=arguments, prog_name="exprtool train")


def _trainer(arguments: list[str], known: Registry) -> TrainerSpec:
    """The trainer that is asked for, or whose run is to be resumed."""
    name, out = _value(arguments, "--trainer"), _value(arguments, "--out")
    if name is None and out is not None and "--resume" in arguments and Path(out).exists():
        return known.trainer_of(Path(out))
    return known.trainer(name or DEFAULT_TRAINER)


def _value(arguments: list[str], flag: str) -> str | None:
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
        if argument == flag and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _command(spec: TrainerSpec) -> Callable[..., None]:
    """A function whose parameters are the trainer's settings, for Typer to make flags of.

    Every flag defaults to None, which tells those that were given from those that were not: the former stand above
    the TOML file, the latter below it.
    """
    kind = spec.config()

    def command(**values: Any) -> None:
        own = {name: values.pop(name) for name in ("trainer", "config", "dump_config")}
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if v not in (None, [])}
        _train(spec, kind, given, own["config"], own["dump_config"])

    parameters = [*_own_parameters(spec), *(_parameter(kind, entry.name) for entry in fields(kind))]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _train(spec: TrainerSpec, kind: type, given: dict[str, Any], file: Path | None, dump: bool) -> None:
    from exprtool.settings import read_toml, to_toml

    settings = {**(read_toml(kind, file) if file else {}), **given}
    build = getattr(kind, "from_settings", None)
    config = build(settings) if build else kind(**settings)
    if dump:
        typer.echo(to_toml(config, "exprtool train --config FILE"), nl=False)
        return
    readiness = spec.readiness()
    if not readiness.ready:
        raise TrainingError(f"The trainer {spec.name!r} cannot run: {readiness.reason}. {readiness.remedy}")
    spec.run(config)


def _own_parameters(spec: TrainerSpec) -> list[inspect.Parameter]:
    panel = "Command"
    return [
        _keyword("trainer", str, typer.Option("--trainer", help="Which trainer.", rich_help_panel=panel), spec.name),
        _keyword(
            "config",
            Path | None,
            typer.Option("--config", help="TOML file of settings; flags stand above it.", rich_help_panel=panel),
            None,
        ),
        _keyword(
            "dump_config",
            bool,
            typer.Option("--dump-config", help="Print all settings as TOML and leave.", rich_help_panel=panel),
            False,
        ),
    ]


def _parameter(kind: type, name: str) -> inspect.Parameter:
    from exprtool.settings import bare, flag, hints, words

    (entry,) = [entry for entry in fields(kind) if entry.name == name]
    hint = bare(hints(kind)[name])
    many = get_origin(hint) is tuple
    choice = words(hint)
    each = str if choice else get_args(hint)[0] if many else hint
    declaration = f"{flag(name)}/--no-{name.replace('_', '-')}" if hint is bool and entry.default else flag(name)
    start: Any = entry.default
    default = " ".join(map(str, start)) if many else str(start)
    shown = "" if hint is bool or default in ("", "None") else f" (default: {default})"
    option = typer.Option(
        *_SYNONYMS.get(name, ()),
        declaration,
        help=entry.metadata.get("help", "") + shown,
        rich_help_panel=entry.metadata.get("group"),
        show_default=False,
        metavar=f"[{'|'.join(choice)}]" if choice else None,
    )
    return _keyword(name, (list[each] if many else each) | None, option, None)  # type: ignore[valid-type]


_SYNONYMS = {"out": ("--output", "-o")}
"""Other spellings of a flag, as the other commands have them."""


def _keyword(name: str, hint: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option])
