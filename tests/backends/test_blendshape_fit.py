"""Fitting the face model: known faces are found again, from any side, at any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exprtool.anatomy.lipline import MouthFrame, find_lips
from exprtool.anatomy.names import mirrored
from exprtool.anatomy.targets import weights_for
from exprtool.errors import ExprtoolError
from exprtool.faces.align import transform
from exprtool.faces.detect import find_faces
from exprtool.faces.detectors import DlibDetector
from exprtool.faces.landmarks import with_landmarks
from exprtool.faces.select import region_of
from exprtool.images import read_image
from exprtool.types import Edit, Face, FaceRegion, Image, Points
from exprtool_blendshape.camera import Camera
from exprtool_blendshape.fit import Fit, TrackShape, _surface_shifts, begin_track, fit_face
from exprtool_blendshape.model import FaceModel, load_face_model
from exprtool_blendshape.points68 import landmark_shifts
from exprtool_blendshape.solve import bounded_minimum
from exprtool_blendshape.suitability import refusal

MIRROR = np.r_[
    16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40, 54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1
]
"""The landmark on the other side of the face."""
NONE = Edit(weights={"happy": 1.0})


@pytest.fixture(scope="module")
def model(shared: Path) -> FaceModel:
    return load_face_model(shared / "face-model" / "ict_facekit_light.npz")


@pytest.fixture(scope="module")
def photos(shared: Path) -> dict[str, FaceRegion]:
    """The largest face of a few photos."""
    found = {}
    detector = DlibDetector.load("cpu", None)
    for name in ("neutral/009", "happy/009", "neutral/042", "happy/061"):
        image = read_image(shared / "faces" / "london" / f"{name}.jpg").rgb
        face = max(find_faces(image, detector).faces, key=lambda face: face.size)
        found[name] = region_of(image, face)
    return found


def region_with(landmarks: Points, size: int = 600, picture: Image | None = None) -> FaceRegion:
    """A region without a photo behind it, for fits to landmarks alone."""
    pixels = np.full((size, size, 3), 128, np.uint8) if picture is None else picture
    face = with_landmarks(Face((0, 0, size, size), 1.0, np.zeros((5, 2))), landmarks)
    return FaceRegion(face, (0, 0, pixels.shape[1], pixels.shape[0]), pixels)


def random_camera(random: np.random.Generator, scale: float) -> Camera:
    yaw, pitch, roll = random.normal(0, 0.12, 3)
    return Camera(float(yaw), float(pitch), float(roll), scale, 300, 295)


def projected(
    model: FaceModel, camera: Camera, weights: dict[str, float], identity: NDArray[np.float64] | None = None
) -> Points:
    """Where the landmarks of a known head appear."""
    head = model.vertices - model.lip_gap + model.offsets(weights)
    if identity is not None:
        head = head + np.tensordot(identity, model.identity[: len(identity)], 1)
    return camera.project(head[model.landmarks] + landmark_shifts())[:, :2]


# --- the parts


def test_a_camera_turns_the_head_the_way_it_says() -> None:
    ahead = np.array([[0.0, 0.0, 10.0]])
    still = Camera(0, 0, 0, 10, 100, 200)
    np.testing.assert_allclose(still.project(np.array([[1.0, 2.0, 3.0]])), [[110, 180, 30]])
    assert replace(still, yaw=0.3).project(ahead)[0, 0] > 110, "to the right of the image"
    assert replace(still, pitch=0.3).project(ahead)[0, 1] < 190, "up"
    left_eye = np.array([[3.0, 0.0, 0.0]])
    assert replace(still, roll=0.3).project(left_eye)[0, 1] > 205, "clockwise"


def test_a_cameras_derivatives_are_those_of_its_projection() -> None:
    points = np.random.default_rng(0).normal(0, 5, (20, 3))
    camera = Camera(0.2, -0.1, 0.3, 12, 40, 50)
    at, jacobian = camera.derivatives(points)
    np.testing.assert_allclose(at, camera.project(points)[:, :2])
    for i, name in enumerate(("yaw", "pitch", "roll", "scale", "tx", "ty")):
        step = 1e-6
        moved = replace(camera, **{name: getattr(camera, name) + step})
        slope = (moved.project(points)[:, :2] - at) / step
        np.testing.assert_allclose(jacobian[:, :, i], slope * (camera.scale if name == "scale" else 1), atol=1e-3)


def test_lifted_shifts_move_the_image_by_themselves() -> None:
    camera = Camera(0.4, -0.2, 0.3, 12, 40, 50)
    random = np.random.default_rng(1)
    points, shifts = random.normal(0, 5, (9, 3)), random.normal(0, 4, (9, 2))
    moved = camera.project(points + camera.lifted(shifts)) - camera.project(points)
    np.testing.assert_allclose(moved, np.c_[shifts, np.zeros(9)], atol=1e-9)


def test_bounded_minimum_meets_the_conditions_of_a_minimum() -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        half = random.normal(size=(30, 25))
        hessian, gradient = half.T @ half + 0.1 * np.eye(25), random.normal(0, 20, 25)
        low, high = np.zeros(25), np.full(25, 0.5)
        x = bounded_minimum(hessian, gradient, low, high)
        slope = hessian @ x - gradient
        assert (x >= low).all() and (x <= high).all()
        inner = (x > low + 1e-9) & (x < high - 1e-9)
        assert np.abs(slope[inner]).max(initial=0) < 1e-6
        assert (slope[x <= low + 1e-9] > -1e-6).all() and (slope[x >= high - 1e-9] < 1e-6).all()


# --- known faces


@pytest.mark.parametrize(
    "weights",
    [
        {"mouthSmile": 0.7, "cheekSquint": 0.315},
        {"jawOpen": 0.35},
        {"browInnerUp": 0.8, "browOuterUp": 0.7},
        {"browDown": 0.8, "corrugator": 0.6},
        {"eyeBlink": 0.9},
        {"mouthFrown": 0.9, "browInnerUp": 0.8},
    ],
    ids=lambda weights: "+".join(weights),
)
def test_known_weights_are_found_again_under_noise(model: FaceModel, weights: dict[str, float]) -> None:
    random = np.random.default_rng(5)
    errors = []
    for _ in range(4):
        camera = random_camera(random, 18 + 6 * random.random())
        known = model.expand(weights)
        landmarks = projected(model, camera, known, random.normal(0, 0.5, 20))
        noisy = landmarks + random.normal(0, 0.03 * camera.scale, landmarks.shape)
        fit = fit_face(region_with(noisy), model=model)
        worn = fit.source
        errors.append([worn.get(name, 0.0) - amount for name, amount in known.items()])
        others = sum(amount for name, amount in worn.items() if name not in known)
        assert others < 0.7, worn
        assert abs(fit.camera.roll - camera.roll) < np.radians(3)
        assert abs(fit.camera.yaw - camera.yaw) < np.radians(7)
        assert fit.camera.scale == pytest.approx(camera.scale, rel=0.06)
    # identity is not known and takes its part; what is left must be most of it
    size = np.mean(list(model.expand(weights).values()))
    assert abs(np.mean(errors)) < 0.4 * size, errors
    assert np.abs(errors).max() < 0.8 * size + 0.1, errors


def test_weights_are_found_exactly_where_identity_is_known(model: FaceModel) -> None:
    identity = np.random.default_rng(7).normal(0, 0.6, 50)
    neutral = model.vertices + np.tensordot(identity, model.identity[:50], 1)
    # without a landmarks' offset, the mesh's own points are the landmarks
    shape = TrackShape(identity, neutral, np.zeros_like(neutral))
    for weights in ({"mouthSmile": 0.7, "cheekSquint": 0.315}, {"browInnerUp": 0.8}, {"jawOpen": 0.4, "eyeWide": 0.8}):
        known = model.expand(weights)
        head = model.vertices - model.lip_gap + np.tensordot(identity, model.identity[:50], 1) + model.offsets(known)
        points = head[model.landmarks] + _surface_shifts()
        landmarks = Camera(0.1, -0.1, 0.2, 20, 300, 300).project(points)[:, :2]
        worn = fit_face(region_with(landmarks), shape, model).source
        for name, amount in known.items():
            assert worn.get(name, 0.0) == pytest.approx(amount, abs=0.2), (name, worn)


def test_a_neutral_head_wears_nothing(model: FaceModel) -> None:
    random = np.random.default_rng(6)
    for _ in range(5):
        camera = random_camera(random, 20)
        landmarks = projected(model, camera, {}, random.normal(0, 0.6, 20))
        fit = fit_face(region_with(landmarks + random.normal(0, 0.5, landmarks.shape)), model=model)
        assert sum(fit.source.values()) < 0.35
        assert fit.source.get("mouthSmileLeft", 0.0) < 0.15


@pytest.mark.parametrize("scale", [3.0, 9.0, 60.0])
@pytest.mark.parametrize("roll", [0.0, 25.0, -70.0])
def test_size_and_tilt_change_nothing(model: FaceModel, scale: float, roll: float) -> None:
    known = model.expand({"mouthSmile": 0.6, "cheekSquint": 0.27})
    landmarks = projected(model, Camera(0.1, 0.05, np.radians(roll), scale, 30 * scale, 30 * scale), known)
    fit = fit_face(region_with(landmarks, round(60 * scale)), model=model)
    assert fit.angles[2] == pytest.approx(roll, abs=1)
    assert fit.camera.scale == pytest.approx(scale, rel=0.03)
    assert fit.source["mouthSmileLeft"] == pytest.approx(0.6, abs=0.08)


@pytest.mark.parametrize("yaw", [-30, 30])
def test_heads_turned_by_30_degrees(model: FaceModel, yaw: float) -> None:
    landmarks = projected(model, Camera(np.radians(yaw), 0, 0, 20, 300, 300), model.expand({"mouthSmile": 0.6}))
    fit = fit_face(region_with(landmarks), model=model)
    assert fit.angles[0] == pytest.approx(yaw, abs=6)
    assert (fit.source["mouthSmileLeft"] + fit.source["mouthSmileRight"]) / 2 == pytest.approx(0.6, abs=0.12)
    assert refusal(fit, region_with(landmarks), NONE) is None or fit.visibility


def test_a_mirrored_face_gets_the_mirrored_fit(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    region = photos["happy/009"]
    landmarks = region.landmarks68
    assert landmarks is not None
    w = region.pixels.shape[1]
    flipped = landmarks[MIRROR] * [-1, 1] + [w - 1, 0]
    fit = fit_face(region_with(landmarks, picture=np.ascontiguousarray(region.pixels)), model=model)
    other = fit_face(region_with(flipped, picture=np.ascontiguousarray(region.pixels[:, ::-1])), model=model)
    assert other.angles[0] == pytest.approx(-fit.angles[0], abs=1.5)
    assert other.angles[2] == pytest.approx(-fit.angles[2], abs=1)
    for name in set(fit.source) | {mirrored(name) for name in other.source}:
        # upstream's shapes are symmetric to a few hundredths only
        assert other.source.get(mirrored(name), 0.0) == pytest.approx(fit.source.get(name, 0.0), abs=0.08), name


# --- photos


def test_smiles_are_smiles_and_neutrals_are_not(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    fits = {name: fit_face(region, model=model) for name, region in photos.items()}
    for name in ("happy/009", "happy/061"):
        assert fits[name].source["mouthSmileLeft"] > 0.3
        assert fits[name].lips.open and fits[name].lips.teeth
    for name in ("neutral/009", "neutral/042"):
        assert fits[name].source.get("mouthSmileLeft", 0.0) < 0.25
        assert not fits[name].lips.open
    assert all(fit.residual < 0.15 for fit in fits.values())


def test_the_mesh_lies_on_eyes_and_lips_of_the_photo(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    for region in photos.values():
        fit = fit_face(region, model=model)
        placed = fit.posed(fit.source)[fit.landmark_vertices, :2]
        off = np.abs(placed - fit.landmarks) / fit.camera.scale
        assert off[36:48].max() < 0.02
        assert off[48:60, 1].max() < 0.03, "lips, across"


def test_strength_0_moves_no_vertex(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    fit = fit_face(photos["happy/061"], model=model)
    still = weights_for(Edit(weights={"angry": 1.0}, strength=0.0), fit.source)
    assert still == fit.source
    np.testing.assert_allclose(fit.posed(still), fit.posed(fit.source), atol=1e-4)  # summed in another order
    assert np.abs(fit.posed(weights_for(NONE, fit.source)) - fit.posed(fit.source)).max() > fit.camera.scale * 0.05


def test_region_position_does_not_matter(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    region = photos["neutral/009"]
    x0, y0, x1, y1 = region.box
    inner = FaceRegion(region.face, (x0 + 20, y0 + 10, x1, y1), region.pixels[10:, 20:])
    whole, part = fit_face(region, model=model), fit_face(inner, model=model)
    np.testing.assert_allclose(
        whole.posed(whole.source)[:, :2], part.posed(part.source)[:, :2] + [20, 10], atol=0.02 * whole.camera.scale
    )


def test_a_track_shares_one_identity(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    samples = [photos["neutral/009"], photos["happy/009"]]
    shape = begin_track(samples, model)
    assert shape is not None
    again = begin_track(samples, model)
    assert again is not None
    np.testing.assert_array_equal(shape.identity, again.identity)
    fits = [fit_face(sample, shape, model) for sample in samples]
    np.testing.assert_array_equal(fits[0].neutral, fits[1].neutral)
    assert fits[1].source["mouthSmileLeft"] > fits[0].source.get("mouthSmileLeft", 0.0) + 0.25
    for fit in fits:
        placed = fit.posed(fit.source)[fit.landmark_vertices, :2]
        off = np.linalg.norm(placed - fit.landmarks, axis=1)[36:48] / fit.camera.scale
        assert np.sqrt((off**2).mean()) < 0.1, "eyes"
    assert begin_track([], model) is None


def test_the_seam_follows_a_tilted_mouth(photos: dict[str, FaceRegion]) -> None:
    region = photos["neutral/009"]
    landmarks = region.landmarks68
    assert landmarks is not None
    h, w = region.pixels.shape[:2]
    turn = np.asarray(cv2.getRotationMatrix2D((w / 2, h / 2), 35, 1.0), np.float64)
    turned = cv2.warpAffine(np.ascontiguousarray(region.pixels), turn, (w, h), borderMode=cv2.BORDER_REPLICATE)
    scale = float(np.linalg.norm(landmarks[36] - landmarks[45])) / 8.9
    upright = find_lips(region.pixels, landmarks, scale)
    tilted = find_lips(np.asarray(turned, np.uint8), transform(turn, landmarks), scale)
    assert not tilted.open
    off = np.linalg.norm(transform(turn, upright.seam) - tilted.seam, axis=1)
    assert np.median(off) < 0.05 * scale
    frame = MouthFrame.of(landmarks)
    np.testing.assert_allclose(frame.to_image(frame.to_frame(landmarks[48:60])), landmarks[48:60], atol=1e-9)


def test_a_pale_lip_is_not_an_opening(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    region = photos["neutral/009"]
    landmarks = region.landmarks68
    assert landmarks is not None
    mistaken = landmarks.copy()
    mistaken[65:68] = 0.4 * landmarks[65:68] + 0.6 * landmarks[[55, 57, 59]]  # into the lower lip
    before, after = (
        fit_face(replace(region, face=replace(region.face, landmarks68=points + region.box[:2])), model=model)
        for points in (landmarks, mistaken)
    )
    assert not before.lips.open and not after.lips.open
    assert np.abs(before.lips.seam - after.lips.seam).max() < 0.15 * before.camera.scale
    assert after.source.get("jawOpen", 0.0) < 0.05


# --- what is left alone


def damaged(region: FaceRegion, polygon: Points, colour: tuple[int, int, int]) -> FaceRegion:
    """The region with something in front of the face."""
    pixels = region.pixels.copy()
    cv2.fillPoly(pixels, [np.round(cv2.convexHull(polygon.astype(np.float32))).astype(np.int32)], colour)
    return FaceRegion(region.face, region.box, pixels, region.others)


def reason(model: FaceModel, region: FaceRegion, edit: Edit = NONE) -> str:
    fit: Fit = fit_face(region, model=model)
    answer = refusal(fit, region, edit)
    return answer.reason if answer else ""


def test_good_faces_are_not_refused(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    assert [reason(model, region) for region in photos.values()] == [""] * len(photos)


def test_a_masked_mouth_is_refused_but_not_for_brows(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    region = photos["neutral/009"]
    landmarks = region.landmarks68
    assert landmarks is not None
    masked = damaged(region, np.vstack([landmarks[1:16], landmarks[29:30]]), (120, 160, 200))
    assert "mouth cannot be seen" in reason(model, masked)
    answer = refusal(fit_face(masked, model=model), masked, NONE)
    assert answer is not None and answer.settles, "another backend might only fail to notice"
    assert reason(model, masked, Edit(controls={"browInnerUp": 0.8})) == ""


def test_dark_glasses_are_refused_for_expressions_of_the_eyes(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    region = photos["neutral/042"]
    landmarks = region.landmarks68
    assert landmarks is not None
    for eye in (landmarks[36:42], landmarks[42:48]):
        centre, width = eye.mean(0), np.ptp(eye[:, 0])
        angle = np.linspace(0, 2 * np.pi, 24)
        lens = centre + np.stack([np.cos(angle) * width * 1.2, np.sin(angle) * width], 1)
        region = damaged(region, lens, (6, 5, 6))
    assert "dark glasses" in reason(model, region, Edit(weights={"surprised": 1.0}))
    assert reason(model, region, Edit(weights={"happy": 1.0})) == ""


def test_what_cannot_be_done_well_is_told_in_words(model: FaceModel) -> None:
    def about(camera: Camera, size: int = 600) -> str:
        landmarks = projected(model, camera, {})
        region = region_with(landmarks, size)
        fit = replace(fit_face(region, model=model), visibility=None)  # there is no photo to look at
        answer = refusal(fit, region, NONE)
        return answer.reason if answer else ""

    assert about(Camera(0, 0, 0, 20, 300, 300)) == ""
    assert about(Camera(np.radians(20), 0.1, 0.5, 20, 300, 300)) == ""
    assert "turned" in about(Camera(np.radians(58), 0, 0, 20, 300, 300))
    assert "to the left" in about(Camera(np.radians(-58), 0, 0, 20, 300, 300))
    assert "too small" in about(Camera(0, 0, 0, 2.0, 300, 300))
    assert "cut off" in about(Camera(0, 0, 0, 20, 10, 300))


def test_a_misplaced_face_does_not_fit(model: FaceModel) -> None:
    landmarks = projected(model, Camera(0, 0, 0, 20, 300, 300), {})
    shuffled = landmarks + np.random.default_rng(3).normal(0, 14, landmarks.shape)
    region = region_with(shuffled)
    answer = refusal(replace(fit_face(region, model=model), visibility=None), region, NONE)
    assert answer is not None and "fits it poorly" in answer.reason


def test_five_landmarks_are_not_enough(model: FaceModel, photos: dict[str, FaceRegion]) -> None:
    region = photos["neutral/009"]
    with pytest.raises(ExprtoolError, match="68 landmarks"):
        fit_face(FaceRegion(replace(region.face, landmarks68=None), region.box, region.pixels), model=model)
