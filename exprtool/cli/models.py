"""``exprtool models``: what weights there are, and bringing them here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exprtool.cli.printing import complain, line, printable, say

if TYPE_CHECKING:
    from exprtool.types import WeightFile
    from exprtool.weights.catalogue import Check

group = typer.Typer(
    name="models",
    help="List, fetch, verify and import the weights that backends, detectors and classifiers need.",
    no_args_is_help=True,
)

CommercialOnly = Annotated[
    bool, typer.Option("--commercial-only", help="Refuse weights whose licence forbids commercial use.")
]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, rich_help_panel="What is installed")


@group.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    commercial_only: CommercialOnly = False,
) -> None:
    """List every known file of weights: size, licence, origin, who needs it, and whether it is here."""
    from exprtool.cli.tables import show_json, show_table, show_text
    from exprtool.weights import catalogue as models

    found = models.catalogue()
    only = commercial_only or models.commercial_only_from_environment()
    shown = [weight for weight in found.weights.values() if weight.commercial or not only]
    checks = [models.state(weight) for weight in sorted(shown, key=lambda weight: weight.name)]
    if as_json:
        show_json([_entry(check, found.needed_by[check.weight.name]) for check in checks])
    elif checks:
        rows = [_row(check, found.needed_by[check.weight.name]) for check in checks]
        show_table(("Model", "State", "Size", "What it is"), rows)
        show_text(f"They are kept in {models.models_dir()}", error=True)
    else:
        show_text("No installed plugin needs a file of weights.", error=True)
    if hidden := len(found.weights) - len(shown):
        show_text(f"{hidden} left out: no commercial use.", error=True)
    for problem in found.problems:
        show_text(f"Plugin {problem.plugin}: {problem.reason}", error=True)


def _entry(check: Check, needed_by: Sequence[str]) -> dict[str, Any]:
    from exprtool.weights import catalogue as models

    weight = check.weight
    return {
        "name": weight.name,
        "file": weight.file,
        "summary": weight.summary,
        "state": str(check.state),
        "detail": check.detail,
        "path": str(check.path),
        "size": weight.size,
        "download_size": models.download_size(weight),
        "sha256": weight.sha256,
        "licence": weight.licence,
        "commercial": weight.commercial,
        "origin": weight.origin,
        "urls": list(weight.urls),
        "needed_by": list(needed_by),
    }


def _row(check: Check, needed_by: Sequence[str]) -> tuple[str | tuple[str, str], ...]:
    from exprtool.weights import catalogue as models

    weight = check.weight
    lines = [weight.summary] if weight.summary else []
    lines.append(f"licence: {weight.licence}" + ("" if weight.commercial else " (no commercial use)"))
    lines.append(f"for {', '.join(needed_by)}; from {weight.origin}")
    if check.detail:
        lines.append(check.detail)
    if weight.pack:
        lines.append(models.size_in_words(weight))
    return weight.name, _state_cell(check), models.human_size(weight.size), "\n".join(map(printable, lines))


def _state_cell(check: Check) -> tuple[str, str]:
    from exprtool.cli.tables import BAD, GOOD, NOTE
    from exprtool.weights.catalogue import State

    style = {State.READY: GOOD, State.DAMAGED: BAD}.get(check.state, NOTE)
    return str(check.state), style


@group.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of models, or of backends and detectors for all that they need.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every known model.")] = False,
    commercial_only: CommercialOnly = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Download models; goes on where an earlier download stopped, and checks what came."""
    from exprtool.errors import ModelError, UsageError
    from exprtool.weights import catalogue as models

    if bool(names) == everything:
        raise UsageError("Name the models to fetch (`exprtool models list` shows them), or give --all.")
    only = commercial_only or models.commercial_only_from_environment()
    wanted = list(models.all_weights().values()) if everything else _named(names or [])
    if everything and only:
        wanted = [weight for weight in wanted if weight.commercial]
    models.check_licence(wanted, only)  # before the first byte, not after half of them came
    failures = 0
    for weight in wanted:
        if models.is_there(weight):
            _say(f"{weight.name}: is here already", quiet)
            continue
        try:
            with _progress(weight, quiet) as progress:
                models.fetch(weight, progress=progress, commercial_only=only)
        except ModelError as error:
            failures += 1
            complain(error)
        else:
            _say(f"{weight.name}: fetched and verified ({models.human_size(weight.size)}, {weight.licence})", quiet)
    if failures:
        raise typer.Exit(1)


def _named(names: Sequence[str]) -> list[WeightFile]:
    """The weights of these names; the name of a backend or detector stands for what it needs."""
    from exprtool import plugins
    from exprtool.errors import UnknownNameError, UsageError
    from exprtool.weights import catalogue as models

    registry = plugins.registry()
    known = models.all_weights()
    wanted: dict[str, WeightFile] = {}
    for name in names:
        kinds = (registry.backends, registry.detectors, registry.classifiers)
        users = [specs[name] for specs in kinds if name in specs]
        if name not in known and users:
            for spec in users:
                if len(spec.needs) > 1 and getattr(spec, "needs_any", False):
                    choice = ", ".join(f"{weight.name} ({models.size_in_words(weight)})" for weight in spec.needs)
                    raise UsageError(f"{name} needs any one of these; name the one to fetch: {choice}.")
            wanted |= {weight.name: weight for spec in users for weight in spec.needs}
            continue
        try:
            weight = models.find(name)
        except UnknownNameError:
            raise UnknownNameError("model", name, dict.fromkeys([*sorted(known), *chain(*kinds)])) from None
        wanted[weight.name] = weight
    return list(wanted.values())


def _say(text: str, quiet: bool = False) -> None:
    if not quiet:
        say(text)


@contextmanager
def _progress(weight: WeightFile, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on a terminal, a line at every quarter elsewhere, nothing where quiet."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar(weight.name) as progress:
            yield progress
    else:
        yield _lines(weight.name)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        words = {
            "waiting": "waiting for another exprtool",
            "downloading": "",
            "checking": "checking",
            "packing": "packing",
        }
        last = ""

        def progress(stage: str, done: int, size: int) -> None:
            nonlocal last
            if stage != last:
                bar.reset(task, total=size or None, completed=done, description=f"{name} {words[stage]}".rstrip())
                last = stage
            bar.update(task, completed=done, total=size or None)

        yield progress


def _lines(name: str) -> Callable[[str, int, int], None]:
    from exprtool.weights.catalogue import human_size

    said: set[tuple[str, int]] = set()

    def progress(stage: str, done: int, size: int) -> None:
        step = 4 * done // size if size else done // (32 << 20)
        if (stage, step) in said or (stage != "downloading" and any(what == stage for what, _ in said)):
            return
        said.add((stage, step))
        if stage == "downloading":
            _say(f"{name}: {human_size(done)}" + (f" of {human_size(size)} ({100 * done // size} %)" if size else ""))
        elif stage == "waiting":
            _say(f"{name}: waiting for another exprtool that is fetching it")

    return progress


@group.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to verify; without names, all that are here.")
    ] = None,
) -> None:
    """Hash the models anew and report those that are damaged (exit code 1)."""
    from exprtool.cli.tables import show_table, show_text
    from exprtool.weights import catalogue as models

    checks = models.verify(_named(names) if names else None)
    if not names:
        checks = [check for check in checks if check.state is not models.State.MISSING]
    if not checks:
        show_text(f"No models are here ({models.models_dir()}).", error=True)
        return
    bad = [check for check in checks if check.state is not models.State.READY]
    show_table(("Model", "State", "File"), [(c.weight.name, _state_cell(c), _where(c)) for c in checks])
    for check in bad:
        _say(f"{check.weight.name}: {models.how_to_get(check.weight)}")
    if any(check.state is models.State.DAMAGED for check in bad) or (names and bad):
        raise typer.Exit(1)


def _where(check: Check) -> str:
    return "\n".join(printable(text) for text in (str(check.path), check.detail) if text)


@group.command("import")
def import_models(
    files: Annotated[list[Path], typer.Argument(help="Files, or folders to search.", show_default=False)],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="What each label input of a PyTorch checkpoint means, in order. Repeatable.", show_default=False
        ),
    ] = None,
    commercial_only: CommercialOnly = False,
) -> None:
    """Take models from files that you brought here yourself; they are recognised by their contents.

    PyTorch checkpoints of the US-GAN authors and of StarGAN (.ckpt) are read without running any code in them.
    """
    from exprtool.weights import catalogue as models

    for source in files:
        if (made := _converted(source, tuple(label or ()))) is not None:
            name, target = made
            _say(f"imported as --backend {name} → {target}")
            continue
        for check in models.import_files([source], commercial_only=commercial_only or None):
            _say(f"{check.weight.name}: {check.detail} → {check.path}")


def _converted(source: Path, labels: tuple[str, ...]) -> tuple[str, Path] | None:
    """Weights made of a foreign file by the first backend that knows its network: what to call them, and where they
    lie; None where no backend takes files of this kind."""
    from exprtool.errors import ModelError
    from exprtool.plugins import registry

    refused: list[str] = []
    for spec in registry().backends.values() if source.is_file() else ():
        if source.suffix.lower() in spec.imports and spec.import_weights is not None:
            try:
                return spec.import_weights(source, labels)
            except ModelError as error:
                refused.append(f"{spec.name}: {error}")
    if refused:
        raise ModelError(*dict.fromkeys(refused))
    return None


@group.command()
def path(
    name: Annotated[str | None, typer.Argument(help="A model; without it, the folder that holds them all.")] = None,
) -> None:
    """Print where a model lies (exit code 1 if it is not here), or the folder of all."""
    from exprtool.weights import catalogue as models

    line(str(models.models_dir() if name is None else models.weight_path(models.find(name))))
