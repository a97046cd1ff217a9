"""The blendshape backend: fit the face model once, then draw any number of expressions of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exprtool.anatomy import eyes, occluders
from exprtool.anatomy.interior import Opening, edge_below_nose, fill_mouth, incisors_at
from exprtool.anatomy.steady import CLOSED, keep_shut, smoothed, within_track
from exprtool.anatomy.targets import weights_for
from exprtool.errors import UsageError
from exprtool.types import Backend, Edit, FacePatch, FaceRefusal, FaceRegion
from exprtool_blendshape import topology as parts
from exprtool_blendshape.compose import compose
from exprtool_blendshape.fit import Fit, TrackShape, begin_track, fit_face
from exprtool_blendshape.model import FaceModel, face_model
from exprtool_blendshape.render import FaceLook, changes, look
from exprtool_blendshape.suitability import refusal

SAME = 1e-6
"""Weights closer than this are the same weight."""
LOOKS = 3
"""How many samples of a track are looked at for its light and colours."""


@dataclass(frozen=True, eq=False)
class PreparedFace:
    """A face that was fitted and looked at; serves every edit of it."""

    region: FaceRegion
    fit: Fit
    look: FaceLook
    rest: Mapping[str, float] | None = None
    """What the person wears at rest along a track, else None."""
    worn: Mapping[str, float] | None = None
    """What the face wears without the fit's shaking, along a track; None for ``fit.source``."""
    below: float | None = None
    """How far below the nose the upper teeth end (`exprtool.anatomy.interior.edge_below_nose`), along a track."""


@dataclass(frozen=True, eq=False)
class TrackState:
    """What stays the same along a track: ``shape`` and ``rest``, the expression worn at rest, for the fit;
    ``looks`` at the samples, from which light and colours are taken so that they do not flicker; ``openness`` of the
    eyes while they are open, right and left; ``below`` how far below the nose the upper teeth end, in mm."""

    shape: TrackShape
    rest: Mapping[str, float]
    looks: tuple[FaceLook, ...]
    openness: tuple[float, float]
    below: float


class BlendshapeBackend(Backend):
    """Moves, lights and repaints the photo's own pixels as a fitted 3D face model says. Needs no GPU and no network."""

    def __init__(self, model: FaceModel | None = None) -> None:
        self._model = model or face_model()
        self._reference: tuple[FaceRegion, Fit] | None = None

    def begin_track(self, samples: Sequence[FaceRegion]) -> TrackState | None:
        samples = [sample for sample in samples if sample.landmarks68 is not None]
        shape = begin_track(samples, self._model)
        if shape is None:
            return None
        fits = [fit_face(sample, shape, self._model) for sample in samples]
        names = sorted({name for fit in fits for name in fit.source})
        # A low quantile: the mouth at rest is the closed one, and most looks at a talking face show it open.
        rest = {name: float(np.quantile([fit.source.get(name, 0.0) for fit in fits], 0.15)) for name in names}
        looks = tuple(look(sample, fit) for sample, fit in zip(samples[:LOOKS], fits[:LOOKS], strict=True))
        right, left = (max(eyes.openness(fit.landmarks[ids]) for fit in fits) for ids in _EYES.values())
        below = [edge_below_nose(fit.landmarks, fit.lips.open and fit.lips.teeth) for fit in fits]
        return TrackState(shape, rest, looks, (right, left), float(np.median(below)))

    def prepare(self, regions: Sequence[FaceRegion]) -> list[Any | FaceRefusal]:
        return [self._prepare(region) for region in regions]

    def _prepare(self, region: FaceRegion) -> PreparedFace | FaceRefusal:
        if region.landmarks68 is None:
            return FaceRefusal("no 68 landmarks were found on it, and the face model is fitted to them")
        track: TrackState | None = region.track_state
        fit = fit_face(region, track.shape if track else None, self._model)
        if not np.isfinite(fit.residual) or fit.camera.scale < 1.0:
            return FaceRefusal("the face model could not be fitted to it; the face may be too small or not a face")
        if track is None:
            return PreparedFace(region, fit, _blinking(look(region, fit), dict.fromkeys(_EYES, eyes.ALONE)))
        return PreparedFace(region, fit, _steadied(look(region, fit), track), track.rest, below=track.below)

    def trace(self, prepared: PreparedFace) -> Mapping[str, float]:
        return prepared.fit.source

    def steadied(self, prepared: PreparedFace, traces: Sequence[tuple[float, Mapping[str, float]]]) -> PreparedFace:
        return replace(prepared, worn=smoothed(prepared.fit.source, traces))

    def check(self, prepared: Sequence[Any], edit: Edit) -> list[FaceRefusal | None]:
        return [None if edit.force else refusal(face.fit, face.region, edit) for face in prepared]

    def generate(self, prepared: Sequence[Any], edit: Edit) -> list[FacePatch | FaceRefusal]:
        refused = self.check(prepared, edit)
        return [no or self._generate(face, edit) for face, no in zip(prepared, refused, strict=True)]

    def _generate(self, face: PreparedFace, edit: Edit) -> FacePatch:
        fit = face.fit
        rest = None
        reference = self._worn_by_reference(edit)
        if edit.additive and face.rest is not None:
            held = fit.source if face.worn is None else face.worn
            edit, rest = within_track(edit, fit.source, held, face.rest, reference)
        target = weights_for(edit, fit.source, reference, rest)
        shut = keep_shut(target, fit.source, {_SIDES[part]: eye.shown for part, eye in face.look.eyes.items()})
        details = {
            "source": _rounded(fit.source),
            "target": _rounded(target),
            "residual_cm": round(float(fit.residual), 4),
            "angles": [round(float(angle), 1) for angle in fit.angles],
            "pixels_per_cm": round(float(fit.camera.scale), 2),
        }
        notes = (*_notes(face.look), *((CLOSED,) if shut and rest is None else ()))
        if _same(fit.source, target):
            empty = np.zeros(face.region.pixels.shape[:2], np.float32)
            return FacePatch(
                np.array(face.region.pixels),
                empty,
                np.zeros((*empty.shape, 2), np.float32),
                empty.copy(),
                notes,
                details,
            )
        replaces = (edit.weights or edit.reference is not None) and not edit.additive
        taken_off = min(1.0, edit.strength) if replaces else 0.0
        below = edge_below_nose(fit.landmarks, face.look.mouth.shows_teeth) if face.below is None else face.below
        edited = changes(face.look, target, taken_off)
        patch = FacePatch(*compose(face.look, edited), notes, details)
        opening = Opening(
            whole=edited.between,
            hole=edited.hole,
            grid_from_region=face.look.frame.work_from_region,
            incisors=incisors_at(fit.landmarks, below),
            jaw=target.get("jawOpen", 0.0),
        )
        fill_mouth(patch, fit.landmarks, opening, face.look.tone)
        return patch

    def _worn_by_reference(self, edit: Edit) -> dict[str, float] | None:
        if edit.reference is None:
            return None
        if self._reference is None or self._reference[0] is not edit.reference:
            if edit.reference.landmarks68 is None:
                raise UsageError(
                    "The reference face has no 68 landmarks, so its expression cannot be read. Use another photo."
                )
            self._reference = (edit.reference, fit_face(edit.reference, None, self._model))
        return self._reference[1].source


_EYES = {parts.EYE_RIGHT: slice(36, 42), parts.EYE_LEFT: slice(42, 48)}
_SIDES = {parts.EYE_RIGHT: "Right", parts.EYE_LEFT: "Left"}


def _steadied(face: FaceLook, track: TrackState) -> FaceLook:
    """A frame's look with the track's light, colours and lines, and with eyes that may be shut in a blink."""
    looks = track.looks
    if not looks:
        return face
    light = replace(
        face.light,
        harmonics=np.mean([each.light.harmonics for each in looks], 0).astype(np.float32),
        ambient=float(np.mean([each.light.ambient for each in looks])),
        trust=float(np.mean([each.light.trust for each in looks])),
    )
    mouth = replace(face.mouth, moving=True)
    own = replace(
        face.own_lines,
        lined=float(np.mean([each.own_lines.lined for each in looks])),
        sharp=float(np.mean([each.own_lines.sharp for each in looks])),
    )
    face = _blinking(face, dict(zip(_EYES, track.openness, strict=True)))
    return replace(face, light=light, mouth=mouth, own_lines=own, tone=looks[0].tone, lines=looks[0].lines)


def _blinking(face: FaceLook, usual: Mapping[int, float]) -> FaceLook:
    """A look with eyes that may be shut, by how far each is ``usual``ly open."""
    return replace(face, eyes={part: eyes.blinking(eye, usual[part]) for part, eye in face.eyes.items()})


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return all(abs(a.get(name, 0.0) - b.get(name, 0.0)) < SAME for name in a.keys() | b.keys())


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in sorted(weights.items()) if abs(value) >= 5e-5}


def _notes(face: FaceLook) -> tuple[str, ...]:
    notes = []
    if face.glasses is not None:
        notes.append(occluders.HELD)
    if face.light.trust < 0.5:
        notes.append("hard light; shading is held back")
    return tuple(notes)
