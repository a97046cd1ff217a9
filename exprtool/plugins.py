"""Finding plugins and collecting what they register.

Entry points are loaded one by one, so that a plugin that fails to import is a line in ``exprtool doctor`` and not the
end of the program; the same holds for one whose hook raises or is mistyped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import pluggy

from exprtool import hookspecs
from exprtool.errors import ModelError, PluginError, UnknownNameError
from exprtool.types import BackendSpec, ClassifierSpec, DetectorSpec, TrainerSpec

GROUP = "exprtool"
_NAME = re.compile(r"[a-z][a-z0-9_-]*\Z")
Spec = TypeVar("Spec", BackendSpec, DetectorSpec, ClassifierSpec, TrainerSpec)


@dataclass(frozen=True)
class PluginProblem:
    """A plugin (or one hook of it) that was left out, and why."""

    plugin: str
    reason: str


@dataclass
class Registry:
    """Everything that plugins registered, by name, and what was left out."""

    backends: dict[str, BackendSpec] = field(default_factory=dict)
    detectors: dict[str, DetectorSpec] = field(default_factory=dict)
    classifiers: dict[str, ClassifierSpec] = field(default_factory=dict)
    trainers: dict[str, TrainerSpec] = field(default_factory=dict)
    origin: dict[tuple[str, str], str] = field(default_factory=dict)
    """Which plugin registered ("backend", name)."""
    problems: list[PluginProblem] = field(default_factory=list)

    def backend(self, name: str) -> BackendSpec:
        return _look_up("backend", self.backends, name)

    def detector(self, name: str) -> DetectorSpec:
        return _look_up("detector", self.detectors, name)

    def classifier(self, name: str) -> ClassifierSpec:
        return _look_up("classifier", self.classifiers, name)

    def trainer(self, name: str) -> TrainerSpec:
        return _look_up("trainer", self.trainers, name)

    def trainer_of(self, run: Path) -> TrainerSpec:
        """Whose run (a folder or a checkpoint) this is; raises `ModelError` where no trainer knows it."""
        for spec in self.trainers.values():
            if spec.opens(run):
                return spec
        if not run.exists():
            raise ModelError(f"There is no {run}. Give the folder that `exprtool train --out` named.")
        raise ModelError(
            f"{run} is no run or checkpoint of a trainer that is installed ({', '.join(self.trainers)}). Give the "
            "folder that `exprtool train --out` named."
        )


def _look_up(kind: str, known: dict[str, Spec], name: str) -> Spec:
    try:
        return known[name]
    except KeyError:
        raise UnknownNameError(kind, name, sorted(known)) from None


_extra: dict[str, Any] = {}
_registry: Registry | None = None


def registry() -> Registry:
    """The collected plugins; built at the first call and kept."""
    global _registry
    if _registry is None:
        _registry = _collect()
    return _registry


def packages() -> dict[str, str]:
    """Which installed package each plugin comes from, as ``{"debug": "exprtool 0.1.0"}``."""
    return {point.name: f"{point.dist.name} {point.dist.version}" for point in entry_points(group=GROUP) if point.dist}


@contextmanager
def plugged_in(name: str, plugin: Any) -> Iterator[None]:
    """Add a plugin object for the duration of a block (tests, notebooks)."""
    global _registry
    _extra[name] = plugin
    _registry = None
    try:
        yield
    finally:
        del _extra[name]
        _registry = None


def _collect() -> Registry:
    found = Registry()
    candidates: list[tuple[str, Callable[[], Any]]] = [
        (point.name, point.load) for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)
    ]
    candidates += [(name, lambda plugin=plugin: plugin) for name, plugin in _extra.items()]
    for name, load in candidates:
        try:
            _take_in(name, load(), found)
        except pluggy.PluginValidationError as error:
            found.problems.append(PluginProblem(name, f"has a hook that exprtool does not know: {_one_line(error)}"))
        except PluginError as error:
            found.problems.append(PluginProblem(name, str(error)))
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything, and must not end the program
            found.problems.append(PluginProblem(name, f"did not load: {type(error).__name__}: {_one_line(error)}"))
    return found


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _take_in(name: str, plugin: Any, found: Registry) -> None:
    """Call every hook of one plugin. It has a manager of its own, so that a fault in it stays with it."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=name)
    manager.check_pending()  # without this a mistyped hook name would be ignored in silence
    kinds: tuple[tuple[str, type, dict[str, Any]], ...] = (
        ("backend", BackendSpec, found.backends),
        ("detector", DetectorSpec, found.detectors),
        ("classifier", ClassifierSpec, found.classifiers),
        ("trainer", TrainerSpec, found.trainers),
    )
    for kind, spec_type, collection in kinds:

        def register(
            spec: Any, kind: str = kind, spec_type: type = spec_type, collection: dict[str, Any] = collection
        ) -> None:
            _check_spec(spec, kind, spec_type, found)
            collection[spec.name] = spec
            found.origin[kind, spec.name] = name

        getattr(manager.hook, f"register_{kind}s")(register=register)


def _check_spec(spec: Any, kind: str, spec_type: type, found: Registry) -> None:
    if not isinstance(spec, spec_type):
        raise PluginError(f"{kind}: expected a {spec_type.__name__}, got {type(spec).__name__}.")
    name: str = spec.name
    if not _NAME.match(name) or name == "auto":
        raise PluginError(f"{kind} name {name!r} will not do: use lower-case letters, digits, - and _, and not 'auto'.")
    if (kind, name) in found.origin:
        raise PluginError(
            f"{kind} {name!r} is already registered by plugin {found.origin[kind, name]!r}; "
            "uninstall one of the two or rename it."
        )
