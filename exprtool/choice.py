"""Which detector and which backend do the work, and what to fall back to: one chain for photos and clips."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from exprtool import plugins
from exprtool.devices import Device, device_for
from exprtool.errors import DeviceError, ExprtoolError, NotReadyError, PluginError, UnknownNameError, UsageError
from exprtool.faces.dlib_files import check_landmarks_licence
from exprtool.types import Backend, BackendSpec, Detector, DetectorSpec, Edit, FaceRefusal, Readiness
from exprtool.weights.catalogue import (
    check_licence,
    commercial_only_from_environment,
    describe,
    how_to_get,
    is_there,
    readiness,
    refuse_damaged,
)

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class LoadedBackend:
    """A backend that is ready to work, with the name that the user knows it by."""

    name: str
    backend: Backend
    trained: bool = True


@dataclass(frozen=True, eq=False)
class Taken(Generic[T]):
    """Something that was offered along the chain: which backend took it and its answer, or why each one refused."""

    thing: T
    loaded: LoadedBackend | None = None
    answer: Any = None
    refusals: tuple[tuple[str, FaceRefusal], ...] = ()

    @property
    def reason(self) -> str:
        """Why it is left alone, in the words of the backends that refused it."""
        return "; ".join(dict.fromkeys(refusal.reason for _, refusal in self.refusals))

    def refused(self, refusal: FaceRefusal) -> Taken[T]:
        """The same after the backend that had taken it refused it after all."""
        assert self.loaded is not None
        return Taken(self.thing, refusals=(*self.refusals, (self.loaded.name, refusal)))


class Chain:
    """The backends that a face may meet, best first, each loaded when its turn comes.

    ``wish`` is a plugin's name, optionally with an argument after a colon (``"onnx:model.onnx"``), a `Backend` of the
    caller's own, None for no backend, or "auto": then every ready backend stands in the chain, by falling quality.
    Raises `UnknownNameError` for a name that no plugin carries and `NotReadyError` where weights are missing.
    """

    def __init__(self, wish: str | Backend | None, device: str, *, commercial_only: bool) -> None:
        self.notes: list[str] = []
        self._device = device
        self._lock = threading.Lock()
        self._loaded: dict[str, LoadedBackend] = {}
        self._own = LoadedBackend(type(wish).__name__, wish) if isinstance(wish, Backend) else None
        self._links = _choose_backends(wish, commercial_only) if isinstance(wish, str) else []

    @property
    def names(self) -> list[str]:
        return [self._own.name] if self._own else [spec.name for spec, _ in self._links]

    @property
    def specs(self) -> list[BackendSpec]:
        """The specs of the backends; empty where the backend is an object of the caller's own."""
        return [spec for spec, _ in self._links]

    def __iter__(self) -> Iterator[LoadedBackend]:
        if self._own:
            yield self._own
        for spec, argument in self._links:
            with self._lock:
                if spec.name not in self._loaded:
                    with loading("backend", spec.name):
                        device = noted(device_for(spec, self._device), self.notes)
                        if argument is not None and spec.load_from:
                            backend = spec.load_from(device, argument)
                        else:
                            backend = spec.load(device)
                    self._loaded[spec.name] = LoadedBackend(spec.name, backend, spec.trained)
            yield self._loaded[spec.name]

    def load(self) -> None:
        """Load the best backend. Those that cannot run on the device are left out of the chain; raises `DeviceError`
        where none can."""
        able, obstacles = [], []
        for spec, argument in self._links:
            try:
                device_for(spec, self._device)
                able.append((spec, argument))
            except DeviceError as error:
                obstacles.append(error)
        if obstacles and not able:
            raise obstacles[0]
        self._links = able
        next(iter(self), None)

    def require(self, edit: Edit) -> None:
        """Keep to the backends that can do this edit; raises `UsageError` with what is known where none can.

        An edit that only the second-best backend can do is thus not refused by the best.
        """
        if self._own:
            return
        able = [(spec, argument) for spec, argument in self._links if not _shortcoming(spec, edit)]
        if not able:
            raise _shortcoming(self._links[0][0], edit) or UsageError("No backend can do this edit.")
        self._links = able

    def offer(
        self,
        things: Sequence[Taken[T]],
        ask: Callable[[LoadedBackend, list[T]], Sequence[Any]],
        call: str = "prepare",
    ) -> list[Taken[T]]:
        """Offer things that nobody has taken to the backends that have not refused them yet, until one takes each.

        ``ask`` puts several things to one backend and returns an answer or a `FaceRefusal` for each. A refusal that
        settles the matter ends the offer; ``call`` names the question where a plugin leaves answers out.
        """
        results = list(things)
        for loaded in self:
            open_ones = [
                i
                for i, one in enumerate(results)
                if one.loaded is None and not any(r.settles or name == loaded.name for name, r in one.refusals)
            ]
            if not open_ones:
                continue
            answers = ask(loaded, [results[i].thing for i in open_ones])
            expect_answers(loaded.name, call, answers, len(open_ones))
            for i, answer in zip(open_ones, answers, strict=True):
                taken = Taken(results[i].thing, loaded, answer, results[i].refusals)
                results[i] = taken.refused(answer) if isinstance(answer, FaceRefusal) else taken
            if all(one.loaded or (one.refusals and one.refusals[-1][1].settles) for one in results):
                break
        return results


def expect_answers(name: str, call: str, answers: Sequence[Any], expected: int) -> None:
    """Raise `ExprtoolError` where a plugin did not answer for each face."""
    if len(answers) != expected:
        raise ExprtoolError(
            f"Backend {name!r} answered {len(answers)} of {expected} faces in {call}; it has to answer each one."
        )


def load_detector(wish: str = "auto", device: str = "auto", *, commercial_only: bool = False) -> tuple[str, Detector]:
    """Load a detector by the name that the user gives; returns its plain name and the detector.

    ``wish`` is a plugin's name, optionally with an argument after a colon, or "auto" for the best that is ready.
    """
    spec, argument = choose_detector(wish, commercial_only or commercial_only_from_environment())
    return spec.name, open_detector(spec, argument, device, [])


def open_detector(spec: DetectorSpec, argument: str | None, device: str, notes: list[str]) -> Detector:
    """Load a chosen detector. One that knows only the CPU runs there, whatever the backend uses."""
    with loading("detector", spec.name):
        wish = device if device.split(":")[0] in ("auto", *spec.devices) else "cpu"
        return spec.load(noted(device_for(spec, wish), notes), argument)


def noted(device: Device, notes: list[str]) -> str:
    """The device's name; what the user should know about it goes into ``notes`` once."""
    if device.note and device.note not in notes:
        notes.append(device.note)
    return str(device)


@contextmanager
def loading(kind: str, name: str) -> Iterator[None]:
    """A plugin may raise anything while it loads; the user is told which one it was."""
    try:
        yield
    except (ExprtoolError, MemoryError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise PluginError(
            f"The {kind} {name!r} could not be loaded: {type(error).__name__}: {words}. Report this to the author of "
            f"the plugin, or choose another {kind}; `exprtool {kind}s` lists them."
        ) from error


def split_argument(name: str) -> tuple[str, str | None]:
    """Split ``onnx:model.onnx`` into the plugin's name and what stands after the colon."""
    plain, colon, argument = name.partition(":")
    return plain, argument if colon else None


def choose_detector(wish: str, commercial_only: bool) -> tuple[DetectorSpec, str | None]:
    check_landmarks_licence(commercial_only)  # whatever finds a face, these measure it
    known = plugins.registry()
    name, argument = split_argument(wish)
    if name == "auto":
        specs = sorted(known.detectors.values(), key=lambda spec: -spec.quality)
        for spec in specs:
            refuse_damaged(spec, commercial_only)
        ready = [spec for spec in specs if readiness(spec, commercial_only).ready]
        if not ready:
            raise NotReadyError("No face detector is ready. Run `exprtool doctor` to see why.")
        return ready[0], None
    spec = known.detector(name)
    check_licence(spec.needs, commercial_only)
    if argument is None:
        _require_ready("Detector", spec, readiness(spec, commercial_only))
    return spec, argument


def _choose_backends(wish: str, commercial_only: bool) -> list[tuple[BackendSpec, str | None]]:
    known = plugins.registry()
    name, argument = split_argument(wish)
    if name != "auto":
        spec = known.backend(name)
        check_licence(spec.needs, commercial_only)
        if argument is not None and spec.load_from is None:
            raise UsageError(f"Backend {name!r} takes nothing after a colon, but {argument!r} was given.")
        if argument is None:
            _require_ready("Backend", spec, readiness(spec, commercial_only))
        return [(spec, argument)]
    # Quality 0 marks backends that are tools rather than editors, such as `debug`.
    specs = sorted((spec for spec in known.backends.values() if spec.quality > 0), key=lambda spec: -spec.quality)
    for spec in specs:
        refuse_damaged(spec, commercial_only)
    ready: list[tuple[BackendSpec, str | None]] = [
        (spec, None) for spec in specs if readiness(spec, commercial_only).ready
    ]
    if not ready:
        if not specs:
            raise NotReadyError("No backend that edits faces is installed. Run `exprtool doctor` to see why.")
        _require_ready("No backend is ready. The best one,", specs[0], readiness(specs[0], commercial_only))
    return ready


def _require_ready(what: str, spec: BackendSpec | DetectorSpec, state: Readiness) -> None:
    """Raise the one message that a user without weights or network gets: what is missing, where it is, what to run."""
    if state.ready:
        return
    any_will_do = isinstance(spec, DetectorSpec) and spec.needs_any
    missing = [weight for weight in spec.needs if not is_there(weight)][: 1 if any_will_do else None]
    lacking = [f"needs {describe(weight)}. {how_to_get(weight)}" for weight in missing]
    why = " ".join(lacking) or f"is not ready: {state.reason.rstrip('.')}. {state.remedy}"
    raise NotReadyError(f"{what} {spec.name!r} {why}")


def _shortcoming(spec: BackendSpec, edit: Edit) -> UsageError | None:
    """What keeps a backend from doing an edit, as the error to raise; None where it can."""
    for name in edit.weights:
        if spec.expressions and name not in spec.expressions:
            return UnknownNameError(f"expression for backend {spec.name!r}:", name, spec.expressions)
    for name in edit.controls:
        if not spec.controls:
            return UsageError(f"Backend {spec.name!r} has no controls, so --set {name} does nothing; choose another.")
        if name not in spec.controls:
            return UnknownNameError("control", name, spec.controls)
    if edit.reference is not None and not spec.reference:
        return UsageError(f"Backend {spec.name!r} cannot copy the expression of another photo; choose another.")
    return None
