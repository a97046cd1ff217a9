"""The straight path of one photo: detect, select, prepare, generate, paste.

A `Session` holds what is loaded once (detector, backends) and serves any number of photos. Nothing here reads or
writes files (see `exprtool.batch`), prints or exits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool import plugins
from exprtool.devices import Device, device_for
from exprtool.errors import (
    DeviceError,
    ExprtoolError,
    ModelError,
    NoFaceError,
    PluginError,
    UnknownNameError,
    UsageError,
)
from exprtool.expressions import parse
from exprtool.faces.detect import FoundFaces, find_faces
from exprtool.faces.dlib_files import check_landmarks_licence
from exprtool.faces.select import Selection, region_of, select_faces
from exprtool.pixels import composite
from exprtool.types import (
    Backend,
    BackendSpec,
    Detector,
    DetectorSpec,
    Edit,
    Face,
    FacePatch,
    FaceRefusal,
    FaceRegion,
    Image,
    Readiness,
)
from exprtool.weights.catalogue import (
    check_licence,
    commercial_only_from_environment,
    describe,
    how_to_get,
    is_there,
    readiness,
    refuse_damaged,
)

Timings = dict[str, float]
"""Seconds by stage: decode, detect, prepare, generate, composite, encode."""


@dataclass(frozen=True, eq=False)
class LoadedBackend:
    """A backend that is ready to work, with the name that the user knows it by."""

    name: str
    backend: Backend
    trained: bool = True


@dataclass(frozen=True, eq=False)
class Prospect:
    """The faces of one image and what is to become of them, before any backend has seen them.

    ``regions`` holds one entry per face of ``found.faces``, in the same order; it is None where the face was not
    selected, and ``reasons`` then says why.
    """

    image: Image
    found: FoundFaces
    regions: tuple[FaceRegion | None, ...]
    reasons: tuple[str | None, ...]

    @property
    def selected(self) -> list[FaceRegion]:
        return [region for region in self.regions if region is not None]


@dataclass(frozen=True, eq=False)
class PreparedFace:
    """A face that some backend has prepared, or that every one of them refused (``loaded`` is None then)."""

    region: FaceRegion
    loaded: LoadedBackend | None
    handle: Any
    refusals: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        """Why the face is left alone, in the words of the backends that refused it."""
        reasons = list(dict.fromkeys(reason for _, reason in self.refusals))
        return "; ".join(reasons)


@dataclass(frozen=True, eq=False)
class FaceResult:
    """What became of one face: edited by which backend, or left alone and why.

    ``trained`` tells whether a trained model made the new pixels.
    """

    face: Face
    edited: bool
    reason: str | None = None
    backend: str | None = None
    trained: bool = False
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    patch: FacePatch | None = None
    region: FaceRegion | None = None


@dataclass(frozen=True, eq=False)
class EditResult:
    """An edited image.

    ``image`` is (H, W, 3) RGB uint8; ``changed`` (H, W) bool marks the pixels that may differ from the input, and
    everything outside it is bit-identical. ``faces`` are all faces found, left to right.
    """

    image: Image
    changed: NDArray[np.bool_]
    faces: tuple[FaceResult, ...]
    tried: tuple[str, ...]
    timings: Timings

    @property
    def edited(self) -> int:
        """How many faces were edited."""
        return sum(face.edited for face in self.faces)


@contextmanager
def timed(timings: Timings, stage: str) -> Iterator[None]:
    """Add the seconds that a block takes to ``timings[stage]``."""
    start = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - start


class Session:
    """A detector and one or several backends, loaded once and used for many photos.

    ``backend`` and ``detector`` are names of plugins, optionally with an argument after a colon
    (``"onnx:model.onnx"``), objects of your own, or "auto". Under "auto" the ready backend with the highest quality
    is used, and a face that it refuses goes to the next. ``device`` is "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises `UnknownNameError` for names that no plugin carries, `ModelError` where weights are missing, and
    `DeviceError` where the device cannot be used. ``notes`` collects remarks that the user should see.
    """

    def __init__(
        self,
        backend: str | Backend = "auto",
        detector: str | Detector = "auto",
        device: str = "auto",
        *,
        commercial_only: bool = False,
    ) -> None:
        commercial_only = commercial_only or commercial_only_from_environment()
        self.notes: list[str] = []
        self._device_wish = device
        self._lock = threading.Lock()
        self._loaded: dict[str, LoadedBackend] = {}
        self._detector: Detector | None = detector if isinstance(detector, Detector) else None
        self._detector_choice = None if isinstance(detector, Detector) else _choose_detector(detector, commercial_only)
        self._chain: list[tuple[BackendSpec, str | None]] = []
        self._own: LoadedBackend | None = None
        if isinstance(backend, Backend):
            self._own = LoadedBackend(type(backend).__name__, backend)
        else:
            self._chain = _choose_backends(backend, commercial_only)

    @property
    def backend_names(self) -> list[str]:
        """The backends that a face may meet, best first."""
        return [self._own.name] if self._own else [spec.name for spec, _ in self._chain]

    @property
    def specs(self) -> list[BackendSpec]:
        """The specs of those backends; empty where the backend is an object of the caller's own."""
        return [spec for spec, _ in self._chain]

    @property
    def detector_name(self) -> str:
        return self._detector_choice[0].name if self._detector_choice else type(self._detector).__name__

    @property
    def detector(self) -> Detector:
        with self._lock:
            if self._detector is None:
                assert self._detector_choice is not None
                spec, argument = self._detector_choice
                with _loading("detector", spec.name):
                    self._detector = spec.load(self._note(_detector_device(spec, self._device_wish)), argument)
            return self._detector

    def _note(self, device: Device) -> str:
        if device.note and device.note not in self.notes:
            self.notes.append(device.note)
        return str(device)

    def load(self) -> None:
        """Load detector and best backend now, so that what keeps them from working is known before any photo is read.

        Of several backends under "auto", those that cannot run on the device asked for are left out; raises what keeps
        the best one from it where none can.
        """
        _ = self.detector
        able, obstacles = [], []
        for spec, argument in self._chain:
            try:
                device_for(spec, self._device_wish)
                able.append((spec, argument))
            except DeviceError as error:
                obstacles.append(error)
        if obstacles and not able:
            raise obstacles[0]
        self._chain = able
        next(self.backends())

    def backends(self) -> Iterator[LoadedBackend]:
        """The backends, best first, each loaded when its turn comes."""
        if self._own:
            yield self._own
        for spec, argument in self._chain:
            with self._lock:
                if spec.name not in self._loaded:
                    with _loading("backend", spec.name):
                        device = self._note(device_for(spec, self._device_wish))
                        if argument is not None and spec.load_from:
                            backend = spec.load_from(device, argument)
                        else:
                            backend = spec.load(device)
                    self._loaded[spec.name] = LoadedBackend(spec.name, backend, spec.trained)
            yield self._loaded[spec.name]

    def require(self, edit: Edit) -> None:
        """Keep to the backends that can do this edit; raises `UsageError` with what is known where none can.

        An edit that only the second-best backend can do is thus not refused by the best.
        """
        if self._own:
            return
        able = [(spec, argument) for spec, argument in self._chain if not _shortcoming(spec, edit)]
        if not able:
            raise _shortcoming(self._chain[0][0], edit) or UsageError("No backend can do this edit.")
        self._chain = able

    def find(self, image: Image, selection: Selection | None = None, *, detector: Detector | None = None) -> Prospect:
        """Find and select the faces of an RGB image (H, W, 3) uint8."""
        selection = selection or Selection()
        found = find_faces(image, detector or self.detector, min_face=0)
        choices = select_faces(found.faces, selection, image)
        regions = tuple(
            region_of(image, face, tuple(other for other in found.faces if other is not face)) if not reason else None
            for face, reason in choices
        )
        return Prospect(image, found, regions, tuple(reason for _, reason in choices))

    def prepare(self, regions: Sequence[FaceRegion]) -> list[PreparedFace]:
        """Let the first backend that accepts each face prepare it; one answer per region, in order."""
        return self._offer([PreparedFace(region, None, None) for region in regions], after=None)

    def _offer(self, faces: Sequence[PreparedFace], after: str | None) -> list[PreparedFace]:
        """Offer the faces to the backends that follow ``after`` in the chain, until one takes each."""
        answers = list(faces)
        open_faces = list(range(len(answers)))
        passed = after is None
        for loaded in self.backends():
            if not passed:
                passed = loaded.name == after
                continue
            if not open_faces:
                break
            handles = loaded.backend.prepare([answers[i].region for i in open_faces])
            _expect_answers(loaded.name, "prepare", handles, len(open_faces))
            still_open: list[int] = []
            for i, handle in zip(open_faces, handles, strict=True):
                if isinstance(handle, FaceRefusal):
                    answers[i] = replace(
                        answers[i], loaded=None, refusals=(*answers[i].refusals, (loaded.name, handle.reason))
                    )
                    still_open.append(i)
                else:
                    answers[i] = replace(answers[i], loaded=loaded, handle=handle)
            open_faces = still_open
        return answers

    def check(self, prepared: Sequence[PreparedFace], edit: Edit) -> list[str | None]:
        """Why each prepared face would be left alone by `generate`, or None where some backend will edit it."""
        answers: list[str | None] = []
        for start in prepared:
            face = start
            while face.loaded is not None:
                refusal = face.loaded.backend.check([face.handle], edit)[0]
                if refusal is None:
                    break
                last = face.loaded.name
                face = replace(face, loaded=None, refusals=(*face.refusals, (last, refusal.reason)))
                if not refusal.settles:
                    face = self._offer([face], last)[0]
            answers.append(None if face.loaded else face.reason)
        return answers

    def generate(self, prepared: Sequence[PreparedFace], edit: Edit) -> list[FaceResult]:
        """Give prepared faces the expression, those of one backend together; one answer per face, in order."""
        results: dict[int, FaceResult] = {}
        waiting = dict(enumerate(prepared))
        while waiting:
            refused: dict[int, PreparedFace] = {}
            for loaded, members in _by_backend(waiting):
                if loaded is None:
                    for i in members:
                        face = waiting[i]
                        results[i] = FaceResult(face.region.face, False, face.reason, region=face.region)
                    continue
                answers = loaded.backend.generate([waiting[i].handle for i in members], edit)
                _expect_answers(loaded.name, "generate", answers, len(members))
                for i, answer in zip(members, answers, strict=True):
                    face = waiting[i]
                    if isinstance(answer, FaceRefusal):
                        refusals = (*face.refusals, (loaded.name, answer.reason))
                        face = replace(face, loaded=None, refusals=refusals)
                        if answer.settles:
                            results[i] = FaceResult(face.region.face, False, face.reason, region=face.region)
                        else:
                            refused[i] = face
                    else:
                        results[i] = FaceResult(
                            face.region.face,
                            True,
                            backend=loaded.name,
                            trained=loaded.trained,
                            notes=answer.notes,
                            details=answer.details,
                            patch=answer,
                            region=face.region,
                        )
            if refused:
                members = list(refused)
                after = [refused[i].refusals[-1][0] for i in members]
                offered = [self._offer([refused[i]], last)[0] for i, last in zip(members, after, strict=True)]
                waiting = dict(zip(members, offered, strict=True))
            else:
                waiting = {}
        return [results[i] for i in range(len(prepared))]

    def finish(self, prospect: Prospect, results: Sequence[FaceResult], timings: Timings) -> EditResult:
        """Paste the patches of ``results`` (one per selected face, in order) into a copy of the image."""
        patched = [(face.region, face.patch) for face in results if face.region is not None and face.patch is not None]
        with timed(timings, "composite"):
            image, changed = composite.paste(
                prospect.image, [region for region, _ in patched], [patch for _, patch in patched]
            )
        answers = iter(results)
        faces = tuple(
            FaceResult(face, False, reason) if region is None else replace(next(answers), patch=None, region=None)
            for face, region, reason in zip(prospect.found.faces, prospect.regions, prospect.reasons, strict=True)
        )
        return EditResult(image, changed, faces, prospect.found.tried, timings)

    def edit_image(self, image: Image, edit: Edit | str, selection: Selection | None = None) -> EditResult:
        """Give the selected faces of an RGB image (H, W, 3) uint8 the expression.

        ``edit`` may be a blend as on the command line (``"happy=0.6,surprised=0.3"``). Raises `NoFaceError` where the
        image has no face, or none that is selected; faces that the backend refuses are reported in the result.
        """
        if isinstance(edit, str):
            edit = Edit(parse(edit))
        timings: Timings = {}
        with timed(timings, "detect"):
            prospect = self.find(image, selection)
        if not prospect.selected:
            raise NoFaceError(f"the image: {why_none_selected(prospect)}")
        with timed(timings, "prepare"):
            prepared = self.prepare(prospect.selected)
        with timed(timings, "generate"):
            results = self.generate(prepared, edit)
        return self.finish(prospect, results, timings)


def edit_image(
    image: Image,
    expression: Edit | str,
    *,
    backend: str | Backend = "auto",
    detector: str | Detector = "auto",
    device: str = "auto",
    selection: Selection | None = None,
) -> EditResult:
    """Give the faces of one RGB image (H, W, 3) uint8 an expression; returns an `EditResult`.

    >>> result = exprtool.edit_image(image, "surprised", backend="blendshape")
    >>> result.image, result.changed, result.faces

    For many images make one `Session` and call its `edit_image`: models are then loaded once.
    """
    return Session(backend, detector, device).edit_image(image, expression, selection)


def load_detector(wish: str = "auto", device: str = "auto", *, commercial_only: bool = False) -> tuple[str, Detector]:
    """Load a detector by the name that the user gives (see `Session`); returns its plain name and the detector."""
    spec, argument = _choose_detector(wish, commercial_only or commercial_only_from_environment())
    with _loading("detector", spec.name):
        return spec.name, spec.load(str(_detector_device(spec, device)), argument)


@contextmanager
def _loading(kind: str, name: str) -> Iterator[None]:
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


def _detector_device(spec: DetectorSpec, wish: str) -> Device:
    """The device for a detector: one that knows only the CPU runs there, whatever the backend uses."""
    return device_for(spec, wish if wish.split(":")[0] in ("auto", *spec.devices) else "cpu")


def why_none_selected(prospect: Prospect) -> str:
    """One line for the report: nothing found and what was tried, or why the faces there are left alone."""
    if not prospect.found.faces:
        tried = f" (tried: {', '.join(prospect.found.tried)})" if prospect.found.tried else ""
        return f"no face was found{tried}. Try another --detector, or a larger or upright version of the photo."
    reasons = ", ".join(dict.fromkeys(reason for reason in prospect.reasons if reason))
    count = len(prospect.found.faces)
    return f"{count} face{'s' if count > 1 else ''} found, none selected: {reasons}."


def split_argument(name: str) -> tuple[str, str | None]:
    """Split ``onnx:model.onnx`` into the plugin's name and what stands after the colon."""
    plain, colon, argument = name.partition(":")
    return plain, argument if colon else None


def _choose_detector(wish: str, commercial_only: bool) -> tuple[DetectorSpec, str | None]:
    check_landmarks_licence(commercial_only)  # whatever finds a face, these measure it
    known = plugins.registry()
    name, argument = split_argument(wish)
    if name == "auto":
        specs = sorted(known.detectors.values(), key=lambda spec: -spec.quality)
        for spec in specs:
            refuse_damaged(spec, commercial_only)
        ready = [spec for spec in specs if readiness(spec, commercial_only).ready]
        if not ready:
            raise ModelError("No face detector is ready. Run `exprtool doctor` to see why.")
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
            raise ModelError("No backend that edits faces is installed. Run `exprtool doctor` to see why.")
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
    raise ModelError(f"{what} {spec.name!r} {why}")


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


def _by_backend(faces: Mapping[int, PreparedFace]) -> list[tuple[LoadedBackend | None, list[int]]]:
    groups: dict[int, tuple[LoadedBackend | None, list[int]]] = {}
    for i, face in faces.items():
        groups.setdefault(id(face.loaded), (face.loaded, []))[1].append(i)
    return list(groups.values())


def _expect_answers(name: str, method: str, answers: Sequence[Any], expected: int) -> None:
    if len(answers) != expected:
        raise ExprtoolError(
            f"Backend {name!r} answered {len(answers)} of {expected} faces in {method}; it has to answer each one."
        )
