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

from exprtool.choice import Chain, LoadedBackend, Taken, choose_detector, expect_answers, open_detector
from exprtool.errors import NoFaceError
from exprtool.expressions import parse
from exprtool.faces.detect import FoundFaces, find_faces
from exprtool.faces.select import Selection, region_of, select_faces
from exprtool.pixels import composite
from exprtool.types import Backend, Detector, Edit, Face, FacePatch, FaceRefusal, FaceRegion, Image
from exprtool.weights.catalogue import commercial_only_from_environment

Timings = dict[str, float]
"""Seconds by stage: decode, detect, prepare, generate, composite, encode."""
PreparedFace = Taken[FaceRegion]
"""A face that some backend has prepared, or that every one of them refused."""


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
    is used, and a face that it refuses goes to the next; with None faces can be found only. ``device`` is "auto",
    "cpu", "cuda", "cuda:N" or "mps".

    Raises `UnknownNameError` for names that no plugin carries, `ModelError` where weights are missing, and
    `DeviceError` where the device cannot be used. ``notes`` collects remarks that the user should see.
    """

    def __init__(
        self,
        backend: str | Backend | None = "auto",
        detector: str | Detector = "auto",
        device: str = "auto",
        *,
        commercial_only: bool = False,
    ) -> None:
        commercial_only = commercial_only or commercial_only_from_environment()
        self.chain = Chain(backend, device, commercial_only=commercial_only)
        self.notes = self.chain.notes
        self._device = device
        self._lock = threading.Lock()
        self._detector = detector if isinstance(detector, Detector) else None
        self._detector_choice = None if isinstance(detector, Detector) else choose_detector(detector, commercial_only)

    @property
    def detector_name(self) -> str:
        return self._detector_choice[0].name if self._detector_choice else type(self._detector).__name__

    @property
    def detector(self) -> Detector:
        with self._lock:
            if self._detector is None:
                assert self._detector_choice is not None
                self._detector = open_detector(*self._detector_choice, self._device, self.notes)
            return self._detector

    def load(self) -> None:
        """Load detector and best backend, so that what keeps them from working is known before a photo is read."""
        _ = self.detector
        self.chain.load()

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
        return self._offer([Taken(region) for region in regions])

    def _offer(self, faces: Sequence[PreparedFace]) -> list[PreparedFace]:
        return self.chain.offer(faces, lambda loaded, regions: loaded.backend.prepare(regions))

    def check(self, prepared: Sequence[PreparedFace], edit: Edit) -> list[str | None]:
        """Why each prepared face would be left alone by `generate`, or None where some backend will edit it."""
        answers: list[str | None] = []
        for start in prepared:
            face = start
            while face.loaded is not None:
                refusal = face.loaded.backend.check([face.answer], edit)[0]
                if refusal is None:
                    break
                face = self._offer([face.refused(refusal)])[0]
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
                        region = waiting[i].thing
                        results[i] = FaceResult(region.face, False, waiting[i].reason, region=region)
                    continue
                answers = loaded.backend.generate([waiting[i].answer for i in members], edit)
                expect_answers(loaded.name, "generate", answers, len(members))
                for i, answer in zip(members, answers, strict=True):
                    region = waiting[i].thing
                    if isinstance(answer, FaceRefusal):
                        refused[i] = waiting[i].refused(answer)
                    else:
                        results[i] = FaceResult(
                            region.face,
                            True,
                            backend=loaded.name,
                            trained=loaded.trained,
                            notes=answer.notes,
                            details=answer.details,
                            patch=answer,
                            region=region,
                        )
            waiting = dict(zip(refused, self._offer(list(refused.values())), strict=True))
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


def _by_backend(faces: Mapping[int, PreparedFace]) -> list[tuple[LoadedBackend | None, list[int]]]:
    groups: dict[int, tuple[LoadedBackend | None, list[int]]] = {}
    for i, face in faces.items():
        groups.setdefault(id(face.loaded), (face.loaded, []))[1].append(i)
    return list(groups.values())


def why_none_selected(prospect: Prospect) -> str:
    """One line for the report: nothing found and what was tried, or why the faces there are left alone."""
    if not prospect.found.faces:
        tried = f" (tried: {', '.join(prospect.found.tried)})" if prospect.found.tried else ""
        return f"no face was found{tried}. Try another --detector, or a larger or upright version of the photo."
    reasons = ", ".join(dict.fromkeys(reason for reason in prospect.reasons if reason))
    count = len(prospect.found.faces)
    return f"{count} face{'s' if count > 1 else ''} found, none selected: {reasons}."
