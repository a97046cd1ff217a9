"""``exprtool backends``, ``detectors``, ``classifiers`` and ``trainers``: what is installed, and is it ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from exprtool.plugins import Registry
    from exprtool.types import BackendSpec, ClassifierSpec, DetectorSpec, Readiness, TrainerSpec, WeightFile

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="What is installed")(backends)
    app.command(rich_help_panel="What is installed")(detectors)
    app.command(rich_help_panel="What is installed")(classifiers)
    app.command(rich_help_panel="What is installed")(trainers)


def backends(as_json: AsJson = False) -> None:
    """List what can give faces an expression, what it needs, and whether it is ready."""
    from exprtool import plugins
    from exprtool.weights import catalogue as models

    registry = plugins.registry()
    _show(
        "backend",
        registry,
        [_backend(registry, spec, models.readiness(spec)) for spec in _best_first(registry.backends)],
        as_json,
    )


def detectors(as_json: AsJson = False) -> None:
    """List what can find faces, what it needs, and whether it is ready."""
    from exprtool import plugins
    from exprtool.weights import catalogue as models

    registry = plugins.registry()
    _show(
        "detector",
        registry,
        [_common("detector", registry, spec, models.readiness(spec)) for spec in _best_first(registry.detectors)],
        as_json,
    )


def classifiers(as_json: AsJson = False) -> None:
    """List what can name the expression on a face (`exprtool evaluate`), what it needs, and whether it is ready."""
    from exprtool import plugins
    from exprtool.weights import catalogue as models

    registry = plugins.registry()
    _show(
        "classifier",
        registry,
        [_common("classifier", registry, spec, models.readiness(spec)) for spec in _best_first(registry.classifiers)],
        as_json,
    )


def trainers(as_json: AsJson = False) -> None:
    """List what can train a network, and whether it is ready."""
    from exprtool import plugins
    from exprtool.weights import catalogue as models

    registry = plugins.registry()
    specs = sorted(registry.trainers.values(), key=lambda spec: spec.name)
    _show("trainer", registry, [_common("trainer", registry, spec, models.readiness(spec)) for spec in specs], as_json)


def _best_first(specs: dict[str, Any]) -> list[Any]:
    return sorted(specs.values(), key=lambda spec: (-spec.quality, spec.name))


def _common(
    kind: str, registry: Registry, spec: BackendSpec | DetectorSpec | ClassifierSpec | TrainerSpec, ready: Readiness
) -> dict[str, Any]:
    from exprtool import plugins
    from exprtool.weights import catalogue as models

    plugin = registry.origin[kind, spec.name]
    entry: dict[str, Any] = {
        "name": spec.name,
        "summary": spec.summary,
        "ready": ready.ready,
        "reason": ready.reason,
        "remedy": ready.remedy,
        "plugin": plugin,
        "package": plugins.packages().get(plugin),
    }
    needs: tuple[WeightFile, ...] = getattr(spec, "needs", ())
    if kind != "trainer":
        entry["devices"] = list(getattr(spec, "devices", ()))
        entry["needs_any"] = getattr(spec, "needs_any", False)
        entry["needs"] = [
            {
                "name": weight.name,
                "size": weight.size,
                "download_size": models.download_size(weight),
                "licence": weight.licence,
                "commercial": weight.commercial,
                "state": _state(weight),
            }
            for weight in needs
        ]
    return entry


def _state(weight: WeightFile) -> str:
    from exprtool.errors import ModelError
    from exprtool.weights import catalogue as models

    try:
        return str(models.state(weight).state)
    except ModelError as error:
        return str(error)


def _backend(registry: Registry, spec: BackendSpec, ready: Readiness) -> dict[str, Any]:
    return _common("backend", registry, spec, ready) | {
        "expressions": list(spec.expressions),
        "controls": list(spec.controls),
        "reference": spec.reference,
        "opens": spec.load_from is not None,
        "resolution": spec.resolution,
        "trained": spec.trained,
        "quality": spec.quality,
    }


def _show(kind: str, registry: Registry, entries: list[dict[str, Any]], as_json: bool) -> None:
    from exprtool.cli.tables import BAD, GOOD, NOTE, show_json, show_table, show_text

    if as_json:
        show_json(entries)
    elif entries:
        status = [("ready", GOOD) if entry["ready"] else ("not ready", NOTE) for entry in entries]
        rows = [(entry["name"], word, _details(entry)) for entry, word in zip(entries, status, strict=True)]
        show_table((kind.capitalize(), "Status", "What it does and what it needs"), rows)
    else:
        show_text(f"No {kind} is installed.", error=True)
    for problem in registry.problems:
        show_text(("Plugin ", BAD), (problem.plugin, BAD), f" {problem.reason}  (see `exprtool doctor`)", error=True)


def _details(entry: dict[str, Any]) -> str:
    """What the table says about one entry, a line for each thing worth knowing."""
    from exprtool import expressions
    from exprtool.weights import catalogue as models

    lines = [entry["summary"]]
    if not entry["ready"]:
        lines.append(f"{entry['reason']} → {entry['remedy']}" if entry["remedy"] else entry["reason"])
    if names := entry.get("expressions"):
        more = [name for name in names if name not in expressions.EXPRESSIONS]
        every = len(names) - len(more) == len(expressions.EXPRESSIONS)
        lines.append("expressions: " + ", ".join(["all seven", *more] if every else names))
    if controls := entry.get("controls"):
        lines.append(
            f"controls: {', '.join(controls[:3])}" + (f" … ({len(controls)}, see --json)" if controls[3:] else "")
        )
    if resolution := entry.get("resolution"):
        lines.append(f"resolution: {resolution}")
    kind = "one of these weights" if entry.get("needs_any") else "weights"
    for need in entry.get("needs", ()):
        use = "" if need["commercial"] else ", no commercial use"
        lines.append(
            f"{kind}: {need['name']}, {models.human_size(need['size'])}, {need['licence']}{use}: {need['state']}"
        )
    devices = entry.get("devices")
    lines.append((f"runs on {', '.join(devices)}; " if devices else "") + f"from {entry['package'] or entry['plugin']}")
    return "\n".join(lines)
