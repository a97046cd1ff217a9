"""The backend around a flow network: look once, answer for any number of expressions, at the photo's own resolution.

What is wanted follows from what the face wears, as the network itself tells, by the rules of the blendshape backend
(`exprtool.anatomy.targets.weights_for`), with that backend's presets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.anatomy.eyes import ALONE, Eye, openness
from exprtool.anatomy.eyes import awake as awake_of
from exprtool.anatomy.grids import smooth
from exprtool.anatomy.interior import Opening, edge_below_nose, fill_mouth, incisors_at
from exprtool.anatomy.names import expand
from exprtool.anatomy.occluders import HELD, Glasses, frown, hold
from exprtool.anatomy.occluders import glasses as find_glasses
from exprtool.anatomy.skin import Skin, look_at_skin
from exprtool.anatomy.steady import CLOSED, keep_shut, smoothed, within_track
from exprtool.anatomy.targets import presets, weights_for
from exprtool.anatomy.visibility import Visibility, measure, why_hidden
from exprtool.errors import UnknownNameError
from exprtool.expressions import VARIANTS
from exprtool.faces.align import Matrix, crop, crop_from_image, invert, transform
from exprtool.faces.neighbours import off_others
from exprtool.pixels.blur import USUAL, measured_blur
from exprtool.pixels.lift import CropAnswer, lift
from exprtool.pixels.ramps import smoothstep
from exprtool.types import Backend, Edit, FacePatch, FaceRefusal, FaceRegion, Image
from exprtool_default.card import FINE
from exprtool_default.eyeballs import eyeballs, with_eyeballs
from exprtool_default.eyes import EYES, with_own_eyes
from exprtool_default.lids import with_lids
from exprtool_default.lips import with_closed_lips
from exprtool_default.mouth import look_at_mouth, own_teeth, with_own_mouth, with_teeth_in_place
from exprtool_default.network import Answer, FlowNetwork, Seen, open_network
from exprtool_default.suitability import why_not

UNSURE = 0.06
"""Worn weights below this are within the network's error; reports leave them out."""
FULL = 0.2
"""Strength (or, for single controls, amount) from which on the answer is taken whole. Below, flow, shading and paint
fade, so that asking for nothing changes no bit; the network alone would be off by a trace."""
DOUBT = (0.12, 0.72)
"""Paint masks up to the first are taken for nothing, from the second on for all."""
UNMOVED = 0.06
"""Pixels of the crop of twice the size up to which motion is taken for none; from twice as much on it counts whole."""
UNSEEN = 0.004
"""Log shading up to which it is taken for none, a level at most; from twice as much on it counts in full."""
APART = 5.0
"""Over how many mm an edit fades toward another face."""
REST = 0.15
"""Quantile of what is worn along a track that counts as rest: a mouth that talks is mostly open."""


@dataclass(frozen=True, eq=False)
class TrackState:
    """What stays the same along a track: ``rest``, the weights that are worn at rest; ``openness`` of the right and the
    left eye (`exprtool.anatomy.eyes.openness`); whether ``glasses`` are worn; and how far below the nose the upper
    teeth end (`exprtool.anatomy.interior.edge_below_nose`)."""

    rest: Mapping[str, float]
    openness: tuple[float, float]
    glasses: bool
    below_nose: float


@dataclass(frozen=True, eq=False)
class PreparedFace:
    """A face that was looked at. ``photo`` (2S, 2S, 3) is its crop at twice the network's size, and ``matrix`` takes
    image points there. ``skin`` tells light and tones, ``teeth`` is the colour (3,) of those that it shows, if any;
    ``blur`` is the photo's, in its pixels (`exprtool.pixels.blur`). ``worn`` is what it wears by the network's reading,
    ``rest`` what its track wears at rest, ``held`` what it wears in the frames around it. ``visibility`` tells whether
    eyes and mouth can be seen, None in a track; ``glasses`` are those that it wears, in the crop's pixels; ``awake``
    tells by side how far its eyes are open, 0 to 1, beside what is usual along its track."""

    region: FaceRegion
    matrix: Matrix
    photo: Image
    seen: Seen
    skin: Skin
    teeth: NDArray[Any] | None
    worn: Mapping[str, float]
    rest: Mapping[str, float] | None
    unsuitable: str | None
    visibility: Visibility | None
    glasses: Glasses | None
    awake: Mapping[str, float]
    blur: float
    below_nose: float
    held: Mapping[str, float] | None = None

    @property
    def points(self) -> NDArray[np.float32]:
        """The landmarks (68, 2) that the network goes by, in shares of the crop's side."""
        return self.seen.features[-1]

    @property
    def in_crop(self) -> NDArray[np.float64]:
        """The same in the pixels of ``photo``."""
        return np.asarray(self.points, np.float64) * self.photo.shape[0] - 0.5


class FlowBackend(Backend):
    """Moves the photo's own pixels as the network says, relights them, and paints only what was not there before."""

    def __init__(self, network: FlowNetwork) -> None:
        self.network, self.card = network, network.card
        # One word means one thing: the amounts are the rig's as they are now, not as they were when this was trained.
        self._presets = {
            name: moves
            for name, moves in presets().items()
            if VARIANTS.get(name, name) in self.card.presets and moves.keys() <= set(self.card.controls)
        }
        self._reference: tuple[FaceRegion, Mapping[str, float]] | None = None

    def begin_track(self, samples: Sequence[FaceRegion]) -> TrackState | None:
        """What the person wears at rest, from a few frames."""
        if not samples:
            return None
        faces = self.prepare(samples)
        names = sorted({name for face in faces for name in face.worn})
        rest = {name: float(np.quantile([face.worn.get(name, 0.0) for face in faces], REST)) for name in names}
        right, left = (max(openness(face.in_crop[eye]) for face in faces) for eye in EYES.values())
        glasses = 2 * sum(face.glasses is not None for face in faces) > len(faces)
        return TrackState(rest, (right, left), glasses, float(np.median([face.below_nose for face in faces])))

    def prepare(self, regions: Sequence[FaceRegion]) -> list[Any]:
        if not regions:
            return []
        side = self.card.size * FINE
        matrices = [crop_from_image(region.face, side, self.card.template) for region in regions]
        photos = [
            crop(region.pixels, _from_region(matrix, region), side)
            for region, matrix in zip(regions, matrices, strict=True)
        ]
        points = [_landmarks(region, matrix, side) for region, matrix in zip(regions, matrices, strict=True)]
        looks = [
            None if np.isnan(each).any() else self._look(region, photo, each)
            for region, photo, each in zip(regions, photos, points, strict=True)
        ]
        known = [each if look is None else look[1] for each, look in zip(points, looks, strict=True)]
        found = self.network.encode(np.stack([halved(photo) for photo in photos]), np.stack(known))
        faces = []
        for region, matrix, photo, seen, look in zip(regions, matrices, photos, found, looks, strict=True):
            skin, _, teeth = look or self._look(region, photo, seen.features[-1])
            faces.append(self._face(region, matrix, photo, seen, skin, teeth))
        return faces

    def _look(
        self, region: FaceRegion, photo: Image, points: NDArray[Any]
    ) -> tuple[Skin, NDArray[Any], NDArray[Any] | None]:
        """The skin, the landmarks with closed lips closed, and the colour of the teeth, if any are shown."""
        side = photo.shape[0]
        skin, moving = look_at_skin(photo, points * side - 0.5), region.track_state is not None
        points, teeth = look_at_mouth(photo, points, self.card.pixels_per_mm(side), moving=moving)
        return skin, points, own_teeth(photo, points * side - 0.5, skin) if teeth else None

    def _face(
        self, region: FaceRegion, matrix: Matrix, photo: Image, seen: Seen, skin: Skin, teeth: NDArray[Any] | None
    ) -> PreparedFace:
        side, track, worn = photo.shape[0], region.track_state, self._named(seen)
        points = np.asarray(seen.features[-1], np.float64)
        in_region = transform(invert(_from_region(matrix, region)), points * side - 0.5)
        glasses = None
        if track is None or track.glasses:
            picture = photo.astype(np.float32) / 255
            glasses = find_glasses(picture, points * side - 0.5, frown(worn), 10 * self.card.pixels_per_mm(side))
        usual = zip(("Right", "Left"), EYES.values(), track.openness if track else (ALONE, ALONE), strict=True)
        awake = {name: awake_of(openness(points[eye] * side), most) for name, eye, most in usual}
        return PreparedFace(
            region=region,
            matrix=matrix,
            photo=photo,
            seen=seen,
            skin=skin,
            teeth=teeth,
            worn=worn,
            rest=None if track is None else track.rest,
            unsuitable=why_not(region),
            visibility=measure(photo, points * side - 0.5) if track is None else None,
            glasses=glasses,
            awake=awake,
            blur=max(USUAL, measured_blur(_features(region, in_region))),
            below_nose=edge_below_nose(in_region, teeth is not None) if track is None else track.below_nose,
        )

    def trace(self, prepared: PreparedFace) -> Mapping[str, float]:
        return prepared.worn

    def steadied(self, prepared: PreparedFace, traces: Sequence[tuple[float, Mapping[str, float]]]) -> PreparedFace:
        return replace(prepared, held=smoothed(prepared.worn, traces))

    def check(self, prepared: Sequence[Any], edit: Edit) -> list[FaceRefusal | None]:
        return [None if edit.force else self._refusal(face, edit) for face in prepared]

    def _refusal(self, face: PreparedFace, edit: Edit) -> FaceRefusal | None:
        if face.unsuitable:
            return FaceRefusal(face.unsuitable)
        if face.visibility is not None and (reason := why_hidden(face.visibility, edit, self._presets)):
            return FaceRefusal(reason, settles=True)
        return None

    def generate(self, prepared: Sequence[Any], edit: Edit) -> list[FacePatch | FaceRefusal]:
        """Raises `UnknownNameError` for an expression or control that the network does not know."""
        self._know(edit)
        answers: list[FacePatch | FaceRefusal | None] = list(self.check(prepared, edit))
        reference = self._worn_by_reference(edit)
        asked: list[tuple[int, dict[str, float], float, tuple[str, ...]]] = []
        for i, face in enumerate(prepared):
            if answers[i] is not None:
                continue
            wish, rest = edit, None
            if edit.additive and face.rest is not None:
                held = face.worn if face.held is None else face.held
                wish, rest = within_track(edit, face.worn, held, face.rest, reference, self._presets)
            if (share := _share(wish)) == 0:
                answers[i] = _untouched(face)
            else:
                goal = weights_for(wish, face.worn, reference, rest, self._presets)
                shut = keep_shut(goal, face.worn, face.awake)
                notes = (*(() if face.glasses is None else (HELD,)), *((CLOSED,) if shut and rest is None else ()))
                asked.append((i, goal, share, notes))
        if asked:
            conditions = np.array([[goal.get(name, 0.0) for name in self.card.controls] for _, goal, _, _ in asked])
            found = self.network.decode([prepared[i].seen for i, *_ in asked], conditions.astype(np.float32))
            for (i, goal, share, notes), answer in zip(asked, found, strict=True):
                answers[i] = self._patch(prepared[i], answer, share, goal, notes)
        return [answer for answer in answers if answer is not None]

    def _worn_by_reference(self, edit: Edit) -> Mapping[str, float] | None:
        if edit.reference is None:
            return None
        if self._reference is None or self._reference[0] is not edit.reference:
            (face,) = self.prepare([edit.reference])
            self._reference = (edit.reference, face.worn)
        return self._reference[1]

    def _know(self, edit: Edit) -> None:
        for name in edit.weights:
            if name not in self._presets:
                raise UnknownNameError("expression of this model", name, self._presets)
        for name in expand(edit.controls):
            if name not in self.card.controls:
                raise UnknownNameError("control of this model", name, self.card.controls)

    def _named(self, seen: Seen) -> dict[str, float]:
        return {name: float(weight) for name, weight in zip(self.card.controls, seen.worn, strict=True)}

    def _patch(
        self, face: PreparedFace, answer: Answer, share: float, goal: Mapping[str, float], notes: tuple[str, ...]
    ) -> FacePatch:
        details = {"source": _rounded(face.worn, UNSURE), "target": _rounded(goal, UNSURE)}
        answer, between = self._moved(face, answer)
        eyes = eyeballs(face.photo, answer.mask, face.points, face.skin, self.card)
        answer = replace(answer, paint=self._painted(face, answer, eyes))
        whole = with_own_eyes(crop_answer(answer, share), eyes, self.card)
        patch = lift(
            face.region,
            face.matrix,
            whole,
            beyond=True,
            blur=face.blur,
            free=self._off_others(face),
            notes=notes,
            details=details,
        )
        region_points = transform(invert(_from_region(face.matrix, face.region)), face.in_crop)
        opening = Opening(
            whole=between,
            hole=self._in_mouth(answer.mask),
            grid_from_region=_from_region(face.matrix, face.region),
            incisors=incisors_at(region_points, face.below_nose),
            jaw=goal.get("jawOpen", 0.0),
            amount=share,
        )
        fill_mouth(patch, region_points, opening, face.skin.tone)
        return patch

    def _in_mouth(self, mask: NDArray[np.float32]) -> NDArray[np.float32]:
        """What of a mask (H, H) lies in the mouth's window."""
        x0, y0, x1, y1 = self.card.box("mouth", mask.shape[0])
        inside = np.zeros_like(mask)
        inside[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
        return inside

    def _off_others(self, face: PreparedFace) -> NDArray[np.float32] | None:
        """How much of an edit to do at the region's pixels so that other faces are left alone; None where none are."""
        if not face.region.others:
            return None
        own = transform(invert(_from_region(face.matrix, face.region)), face.in_crop)
        per_mm = self.card.pixels_per_mm(face.photo.shape[0]) / float(np.hypot(*face.matrix[:, 0]))
        return off_others(face.region, own, max(1.5, APART * per_mm))

    def _moved(self, face: PreparedFace, answer: Answer) -> tuple[Answer, NDArray[np.float32]]:
        """The answer with flow and mask at the paint's size, made to agree about lids, lips and teeth; and what lies
        between the lips then (H, W), the photo's own teeth among it."""
        flow = enlarged(answer.flow * np.float32(FINE), answer.mask.shape[0], smoothly=True)
        if face.glasses is not None:  # before lids are settled: they move no further than the frame lets them
            flow = hold(flow, face.glasses)
        flow, mask = with_lids(flow, decided(self._awake(face, answer.mask)), face.points, self.card)
        flow, mask, seam = with_closed_lips(flow, mask, face.points, self.card)
        between = self._in_mouth(mask)
        mask = with_own_mouth(mask, answer.paint, flow, face.photo, face.points, face.teeth, self.card)
        shade = None
        if face.region.track_state is None:  # along a track own teeth and painted ones would take turns
            mask, flow, shade = with_teeth_in_place(mask, flow, face.photo, face.points, face.teeth, self.card)
        shading = face.skin.plain(_shaded(answer.shading, seam, shade))
        if face.glasses is not None:
            bare = 1 - face.glasses.frame
            flow, mask, between = flow * bare[..., None], mask * bare, between * bare
            shading = enlarged(shading, len(bare)) * bare[..., None]
        return replace(answer, flow=flow, mask=mask, shading=shading), between

    def _awake(self, face: PreparedFace, mask: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mask of what is painted (H, H) with nothing between lids that are shut."""
        mask = mask.copy()
        for name, share in zip(EYES, (face.awake["Right"], face.awake["Left"]), strict=True):
            if name not in self.card.windows:
                continue
            x0, y0, x1, y1 = self.card.box(name, mask.shape[0])
            mask[y0:y1, x0:x1] *= np.float32(share)
        return mask

    def _painted(self, face: PreparedFace, answer: Answer, eyes: Mapping[str, Eye]) -> NDArray[np.float32]:
        """The network's paint (H, W, 3) with the eyeballs drawn, in the photo's tones."""
        paint = with_eyeballs(answer.paint, answer.mask, face.photo, eyes, self.card)
        haze = np.array(face.skin.haze, np.float32)
        return face.skin.tone(np.clip(haze + paint * (1 - haze), 0, 1))


def _from_region(matrix: Matrix, region: FaceRegion) -> Matrix:
    """``matrix``, which takes image points, as one that takes the region's own."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.asarray(region.box[:2], dtype=np.float64)
    return moved


def _landmarks(region: FaceRegion, matrix: Matrix, side: int) -> NDArray[np.float64]:
    """The face's landmarks (68, 2) in shares of the side of its crop, NaN where nobody has found them."""
    if region.face.landmarks68 is None:
        return np.full((68, 2), np.nan)
    return (transform(matrix, region.face.landmarks68) + 0.5) / side


def _features(region: FaceRegion, points: NDArray[Any]) -> Image:
    """The region's pixels from brows to lips, where a face has its finest detail; ``points`` (68, 2) are its landmarks
    there."""
    (x0, y0), (x1, y1) = (np.maximum(each, 0).astype(int) for each in (points[17:].min(0), points[17:].max(0)))
    return region.pixels[y0:y1, x0:x1]


def _shaded(shading: NDArray[np.float32], *shades: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Log factors (h, w, 3) with ``shades`` (H, W) on them; at their size, if there are any."""
    for shade in shades:
        if shade is not None:
            shading = enlarged(shading, shade.shape[0]) + shade[..., None]
    return shading


def halved(photo: Image) -> Image:
    """The crop as the network sees it, of one that is `FINE` times as large: what it was trained on is made so."""
    import cv2

    side = photo.shape[0] // FINE
    return np.asarray(cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def decided(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mask (H, W) without its doubts: where a tooth is half hidden, half a tooth shines through the paint."""
    low, high = DOUBT
    return smooth((mask - low) / (high - low))


def enlarged(field: NDArray[np.float32], side: int, *, smoothly: bool = False) -> NDArray[np.float32]:
    """A field over a crop as one over the same crop of ``side`` pixels, by cubics or linearly."""
    import cv2

    how = cv2.INTER_CUBIC if smoothly else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(field, (side, side), interpolation=how), np.float32)


def crop_answer(answer: Answer, share: float = 1.0) -> CropAnswer:
    """The answer, its flow enlarged, as `exprtool.pixels.lift` takes it; ``share`` in [0, 1] of its effect."""
    import cv2

    side = answer.mask.shape[0]
    # Softly to exactly nothing: a trace of motion or shade nobody sees, but it would touch every pixel.
    length = cv2.magnitude(*cv2.split(answer.flow))
    flow = answer.flow * (share * smooth(length / UNMOVED - 1))[..., np.newaxis]
    light = answer.shading * np.float32(share)
    light *= smooth(np.abs(light).max(-1, keepdims=True) / UNSEEN - 1)
    shading = enlarged(np.exp(light), side) if light.any() else None
    mask = np.clip(answer.mask * share, 0, 1)
    if not mask.any():
        return CropAnswer(flow=flow, shading=shading)
    return CropAnswer(flow=flow, shading=shading, paint=np.clip(answer.paint, 0, 1) * np.float32(255), paint_mask=mask)


def open_model(path: Path, device: str = "cpu") -> FlowBackend:
    """The backend for one file; raises `ModelError`."""
    return FlowBackend(open_network(path, device))


def _share(edit: Edit) -> float:
    """How much of the answer is taken, in [0, 1]: all, but for edits that ask for next to nothing."""
    asked = edit.strength
    if not edit.weights and edit.reference is None:
        asked *= max((abs(amount) for amount in edit.controls.values()), default=0.0)
    return float(smoothstep(asked / FULL))


def _untouched(face: PreparedFace) -> FacePatch:
    empty = np.zeros(face.region.pixels.shape[:2], np.float32)
    return FacePatch(np.array(face.region.pixels), empty, np.zeros((*empty.shape, 2), np.float32), empty.copy())


def _rounded(weights: Mapping[str, float], least: float) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in sorted(weights.items()) if abs(value) >= least}
