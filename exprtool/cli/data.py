"""``exprtool data``: look training data over, and turn it into aligned crops."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exprtool.cli import printing
from exprtool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exprtool_training.data import PreparedSet, ScanOptions
    from exprtool_training.data.check import CheckReport

data_app = typer.Typer(help="Look training data over, and turn photos into aligned crops.", no_args_is_help=True)

Roots = Annotated[
    list[Path],
    typer.Argument(
        metavar="DATA...",
        help="Folders with a subfolder per expression, KDEF, RaFD or CFEE as they are, or CSV files (path, expression, "
        "person, split).",
    ),
]
TestFraction = Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the people that is held out.")]
SplitSeed = Annotated[int, typer.Option(help="Chooses who is held out.")]
AllAngles = Annotated[bool, typer.Option("--all-angles", help="Also take KDEF and RaFD pictures that are not frontal.")]
AllGazes = Annotated[bool, typer.Option("--all-gazes", help="Also take RaFD pictures with averted gaze.")]
AllSessions = Annotated[
    bool, typer.Option("--all-sessions", help="Also take KDEF's second session of the same people.")
]
PersonPattern = Annotated[
    str | None, typer.Option(metavar="REGEX", help="Finds the person in a file name, such as '^(s[0-9]+)'.")
]
Ignore = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Pass over such files. Repeatable.")]
CfeeCodes = Annotated[
    str | None, typer.Option(metavar="01=neutral,...", help="What CFEE's numbers mean, if not what exprtool knows.")
]
Detector = Annotated[str, typer.Option(help="What finds the faces: see `exprtool detectors`.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one per processor if not given.")]
Device = Annotated[str, typer.Option(help="Device of the detector: auto, cpu, cuda, cuda:N.")]
AsJson = Annotated[bool, typer.Option("--json", help="The whole report as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]

_LISTED = 12


def add_to(app: typer.Typer) -> None:
    app.add_typer(data_app, name="data")


@data_app.command("prepare")
def prepare_command(
    roots: Roots,
    out: Annotated[Path, typer.Option("--output", "--out", "-o", help="Folder for the crops and their manifest.")],
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the crops in pixels.")] = 128,
    crop: Annotated[
        str, typer.Option(help="aligned: eyes and mouth in place; centre: the centred square.")
    ] = "aligned",
    test_fraction: TestFraction = 0.1,
    split_seed: SplitSeed = 0,
    detector: Detector = "auto",
    device: Device = "auto",
    workers: Workers = None,
    all_angles: AllAngles = False,
    all_gazes: AllGazes = False,
    all_sessions: AllSessions = False,
    person_pattern: PersonPattern = None,
    ignore: Ignore = None,
    cfee_codes: CfeeCodes = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the face in every picture, align it, and store the crops with a split by person.

    Run it again after it was interrupted or after pictures were added: finished ones are kept.
    """
    from exprtool_training.data.prepare import PrepareOptions, prepare

    if crop not in ("aligned", "centre"):
        raise UsageError(f"--crop {crop!r}: known are aligned and centre.")
    options = PrepareOptions(size, crop, None, detector, test_fraction, split_seed)  # type: ignore[arg-type]
    scan_options = make_scan_options(all_angles, all_gazes, all_sessions, person_pattern, ignore, cfee_codes)
    with progress_bar("Preparing", quiet) as progress:
        prepared = prepare(
            roots, out, options, scan_options, device=_device(device), workers=workers, progress=progress
        )
    if as_json:
        shown = {key: value for key, value in prepared.manifest.items() if key != "samples"}
        printing.json_line({"folder": str(out), **shown}, indent=1)
    elif not quiet:
        _show_prepared(prepared, out)


@data_app.command("check")
def check_command(
    roots: Roots,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the crops that are to be made.")] = 128,
    test_fraction: TestFraction = 0.1,
    split_seed: SplitSeed = 0,
    faces: Annotated[bool, typer.Option("--faces/--no-faces", help="Look for faces (slow).")] = True,
    identities: Annotated[
        bool, typer.Option("--identities", help="Look for one person under two names on both sides, by embedding.")
    ] = False,
    detector: Detector = "auto",
    device: Device = "auto",
    workers: Workers = None,
    all_angles: AllAngles = False,
    all_gazes: AllGazes = False,
    all_sessions: AllSessions = False,
    person_pattern: PersonPattern = None,
    ignore: Ignore = None,
    cfee_codes: CfeeCodes = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Look for unreadable and repeated pictures, missing faces, unbalanced classes, and people on both sides.

    Exits with 1 if something was found that makes the data unfit or the measures untrue.
    """
    from exprtool_training.data.check import check

    if identities and not faces:
        raise UsageError("--identities needs the faces: drop --no-faces.")
    scan_options = make_scan_options(all_angles, all_gazes, all_sessions, person_pattern, ignore, cfee_codes)
    with progress_bar("Checking", quiet) as progress:
        report = check(
            roots,
            scan_options,
            size=size,
            test_fraction=test_fraction,
            split_seed=split_seed,
            detector=detector,
            faces=faces,
            identities=identities,
            device=_device(device),
            workers=workers,
            progress=progress,
        )
    if as_json:
        printing.json_line(report.to_json(), indent=1)
    elif not quiet:
        _show_report(report)
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("outside")
def outside_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures and a list of what they are.")],
    deb: Annotated[
        list[Path] | None, typer.Option(help="A Debian package file to look into (apt-get download). Repeatable.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Collect paintings, engravings and other pictures from no data set, out of packages that ship them.

    For the out-of-dataset figures of the paper: `exprtool reproduce --outside OUT`, or any backend. Nothing is
    downloaded; what is missing is named with the way to get it.
    """
    from exprtool_training.data.outside import collect

    collected = collect(out, deb or ())
    if not quiet:
        _print(f"{len(collected.found)} pictures in {out}")
        for name, how in collected.missing.items():
            _print(f"[yellow]note[/yellow] {name} is not here: {how}")


def make_scan_options(
    all_angles: bool = False,
    all_gazes: bool = False,
    all_sessions: bool = False,
    person_pattern: str | None = None,
    ignore: list[str] | None = None,
    cfee_codes: str | None = None,
    labelled: bool = True,
) -> ScanOptions:
    """Turn the options that choose pictures into what the library takes."""
    from dataclasses import replace

    from exprtool.expressions import canonical
    from exprtool_training.data import ScanOptions

    options = ScanOptions(all_angles, all_gazes, all_sessions, person_pattern, tuple(ignore or ()), labelled)
    if cfee_codes is None:
        return options
    codes: dict[str, str] = {}
    for part in cfee_codes.split(","):
        number, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not number.isdigit():
            raise UsageError(
                f"Cannot read --cfee-codes {cfee_codes!r}: write NUMBER=EXPRESSION parts joined by commas."
            )
        codes[f"{int(number):02d}"] = canonical(name)
    return replace(options, cfee_codes=codes)


@contextmanager
def progress_bar(what: str, quiet: bool = False) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress bar on stderr while it is a terminal; yields the function to call with (done, total, name)."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total, name: bars.update(task, completed=done, total=total)


def _device(wish: str) -> str:
    from exprtool.devices import resolve_device

    return str(resolve_device(wish))


def _show_prepared(prepared: PreparedSet, out: Path) -> None:
    summary = prepared.manifest["summary"]
    _print_counts(prepared.counts())
    _print(f"{summary['pictures']} crops of {prepared.size} px, {summary['people']} people, in {out}")
    _print((f"manifest {prepared.manifest_hash[:16]}", "dim"))
    for note in prepared.notes:
        _print(("note", "yellow"), f" {note}")
    for entry in prepared.manifest["rejected"][:_LISTED]:
        _print(f"  {entry['reason']}: {entry['source']}")
    if len(prepared.manifest["rejected"]) > _LISTED:
        _print(f"  ... and {len(prepared.manifest['rejected']) - _LISTED} more, all in {out / 'manifest.json'}")


def _show_report(report: CheckReport) -> None:
    from collections import Counter

    _print_counts(report.counts)
    _print(f"{report.pictures} pictures of {report.people} people.")
    for reason, count in report.left_out.items():
        _print(("note", "yellow"), f" {count} pictures left out: {reason}.")
    kinds = Counter((problem.severity, problem.kind) for problem in report.problems)
    for (severity, kind), count in kinds.items():
        colour = "red" if severity == "error" else "yellow"
        _print()
        _print((severity, colour), " ", (kind, "bold"), f" ({count})")
        shown = [p for p in report.problems if (p.severity, p.kind) == (severity, kind)]
        for problem in shown[:_LISTED]:
            _print(f"  {problem.message}")
        if count > _LISTED:
            _print(f"  ... and {count - _LISTED} more; --json lists all")
    errors = sum(problem.severity == "error" for problem in report.problems)
    warnings = len(report.problems) - errors
    fit = ("Nothing stands against training on this.", "green") if report.ok else ("Not fit as it is.", "red")
    _print()
    _print(fit, f" {errors} errors, {warnings} warnings.")


def _print_counts(counts: Mapping[str, Mapping[str, int]]) -> None:
    from rich.table import Table

    from exprtool.cli.console import SafeConsole

    labels = list(next(iter(counts.values()), {}))
    table = Table(title="Pictures", title_justify="left")
    table.add_column("split")
    for label in (*labels, "all"):
        table.add_column(label, justify="right")
    for side, row in counts.items():
        table.add_row(side, *(str(row[label]) for label in labels), str(sum(row.values())))
    SafeConsole(highlight=False, soft_wrap=True).print(table)


def _print(*parts: str | tuple[str, str]) -> None:
    from exprtool.cli.tables import show_text

    show_text(*parts)
