"""``exprtool doctor``: what works here, what does not, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from exprtool.doctor import Finding


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="What is installed")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """Look at versions, devices, plugins, models and codecs, and say what to do about each problem.

    Exit code 1 if something is broken that exprtool cannot do without.
    """
    from exprtool.cli.common import quieten_libraries
    from exprtool.doctor import Level, examine

    quieten_libraries()
    findings: list[Finding] = []
    section = ""
    for finding in examine():
        findings.append(finding)
        if not as_json:
            _print(finding, heading=finding.section != section)
            section = finding.section
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    if as_json:
        _print_json(findings, healthy=not counts[Level.BROKEN])
    else:
        _print_verdict(findings, counts)
    if counts[Level.BROKEN]:
        raise typer.Exit(1)


def _print(finding: Finding, heading: bool) -> None:
    from exprtool.cli.tables import BAD, FAINT, GOOD, NOTE, show_text
    from exprtool.doctor import Level

    marks = {
        Level.OK: ("ok  ", GOOD),
        Level.NOTE: ("note", FAINT),
        Level.WARNING: ("warn", NOTE),
        Level.BROKEN: ("FAIL", BAD),
    }
    if heading:
        show_text("")
        show_text(finding.section)
    show_text("  ", marks[finding.level], f"  {finding.name}: {finding.value}")
    if finding.remedy:
        show_text(("          → ", FAINT), finding.remedy)


def _print_verdict(findings: list[Finding], counts: dict[Any, int]) -> None:
    from exprtool.cli.tables import BAD, GOOD, NOTE, show_text
    from exprtool.doctor import Level

    show_text("")
    if counts[Level.BROKEN]:
        names = ", ".join(finding.name for finding in findings if finding.level is Level.BROKEN)
        show_text(("Broken: ", BAD), names)
    elif counts[Level.WARNING]:
        show_text(("It works", NOTE), f", with {counts[Level.WARNING]} warning(s) above.")
    else:
        show_text(("All is well.", GOOD))


def _print_json(findings: list[Finding], healthy: bool) -> None:
    from dataclasses import asdict

    from exprtool.cli.tables import show_json

    show_json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
