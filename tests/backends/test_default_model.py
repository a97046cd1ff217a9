"""The network that lies in the package: there from the first minute, and doing what its name for an expression says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from exprtool.anatomy.names import CONTROLS
from exprtool.anatomy.targets import presets
from exprtool.choice import load_detector
from exprtool.expressions import EXPRESSIONS
from exprtool.faces.detect import find_faces
from exprtool.faces.landmarks import refine68, with_landmarks
from exprtool.faces.select import region_of
from exprtool.images import read_image
from exprtool.pipeline import Session
from exprtool.types import Edit, FacePatch, FaceRefusal, FaceRegion, Image, Points
from exprtool_default.backend import FlowBackend, open_model
from exprtool_default.plugin import MODEL

EXAMPLE = Path(__file__).parents[2] / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def backend() -> FlowBackend:
    return open_model(MODEL)


@pytest.fixture(scope="module")
def region() -> FaceRegion:
    return look(read_image(EXAMPLE).rgb)


def look(photo: Image) -> FaceRegion:
    (face,) = find_faces(photo, load_detector("dlib")[1]).faces
    return region_of(photo, refine68(photo, face, robust=True), ())


def patch_of(backend: FlowBackend, region: FaceRegion, edit: Edit) -> FacePatch:
    (answer,) = backend.generate(backend.prepare([region]), edit)
    assert isinstance(answer, FacePatch)
    return answer


def shown(region: FaceRegion, patch: FacePatch) -> Points:
    """Landmarks of the edited face, in distances between the eyes of the photo."""
    alpha = patch.alpha[..., None]
    pixels = np.clip(region.pixels * (1 - alpha) + patch.pixels * alpha + 0.5, 0, 255).astype(np.uint8)
    assert region.landmarks68 is not None
    found = refine68(pixels, with_landmarks(region.face, region.landmarks68), robust=True).landmarks68
    assert found is not None
    return found / _between_eyes(region)


def _between_eyes(region: FaceRegion) -> float:
    five = region.face.landmarks5
    return float(np.linalg.norm(five[1] - five[0]))


def test_the_card_tells_what_it_is() -> None:
    card = open_model(MODEL).card
    assert MODEL.stat().st_size <= 8e6 and card.precision == "float16"
    assert card.controls == CONTROLS and set(EXPRESSIONS) <= card.presets.keys()
    assert card.licence and set(card.training_data["licences"]) == {"CC BY 4.0"}
    assert card.training_data["psnr_held_out"] > 0
    assert open_model(MODEL)._presets == presets(), "one word means one thing, whichever backend does it"


def test_it_needs_no_model_and_no_network(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(EXAMPLE.read_bytes())
    offline = {
        **os.environ,
        "EXPRTOOL_HOME": str(tmp_path / "empty"),
        "http_proxy": "127.0.0.1:9",
        "https_proxy": "127.0.0.1:9",
    }
    command = [sys.executable, "-m", "exprtool", "edit", str(photo), "-e", "all", "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, env=offline, timeout=300)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["faces"][0]["backend"] for record in records} == {"default"}
    assert sorted(path.name for path in tmp_path.glob("photo-*.jpg")) == sorted(
        f"photo-{name}.jpg" for name in EXPRESSIONS
    )
    sizes = {Pillow.open(path).size for path in tmp_path.glob("photo*.jpg")}
    assert sizes == {Pillow.open(EXAMPLE).size}


def test_the_face_model_goes_before_it_and_hands_faces_on(face_model: Path) -> None:
    assert Session("auto").chain.names[:2] == ["blendshape", "default"]


def test_every_expression_moves_what_it_should(backend: FlowBackend, region: FaceRegion) -> None:
    before = shown(region, patch_of(backend, region, Edit({"neutral": 1.0}, strength=0.0)))
    after = {name: shown(region, patch_of(backend, region, Edit({name: 1.0}))) for name in EXPRESSIONS[1:]}

    def brows(p: Points) -> float:
        return float(p[36:48, 1].mean() - p[17:27, 1].mean())

    def gap(p: Points) -> float:
        return float(p[66, 1] - p[62, 1])

    def width(p: Points) -> float:
        return float(np.linalg.norm(p[54] - p[48]))

    def corners(p: Points) -> float:
        return float(p[[48, 54], 1].mean() - p[33, 1])

    assert brows(after["surprised"]) > brows(before) + 0.03
    assert brows(after["angry"]) < brows(before) - 0.02
    assert gap(after["surprised"]) > gap(before) + 0.03, "further open than the smile"
    assert after["surprised"][8, 1] > before[8, 1] + 0.02, "the chin goes down"
    assert width(after["happy"]) > width(after["surprised"]) + 0.1
    assert corners(after["sad"]) > corners(after["happy"]) + 0.05, "mouth corners hang"


def test_the_rest_of_the_photo_keeps_its_bits(backend: FlowBackend, region: FaceRegion) -> None:
    patch = patch_of(backend, region, Edit({"surprised": 1.0}))
    still = patch.alpha == 0
    assert still.any() and np.array_equal(patch.pixels[still], region.pixels[still])
    assert not patch.alpha[:4].any() and not patch.alpha[:, :4].any()


def test_single_controls_are_obeyed(backend: FlowBackend, region: FaceRegion) -> None:
    start = shown(region, patch_of(backend, region, Edit({}, {"jawOpen": 0.0})))
    opened = shown(region, patch_of(backend, region, Edit({}, {"jawOpen": 0.8})))
    assert opened[8, 1] > start[8, 1] + 0.03, "the chin goes down"
    half = patch_of(backend, region, Edit({}, {"jawOpen": 0.8}, strength=0.5))
    whole = patch_of(backend, region, Edit({}, {"jawOpen": 0.8}))
    assert half.flow is not None and whole.flow is not None
    assert np.abs(half.flow).mean() < 0.75 * np.abs(whole.flow).mean()


def test_glasses_stay_where_they_are(backend: FlowBackend, shared: Path) -> None:
    region = look(read_image(shared / "photos" / "detection1.jpg").rgb)
    (face,) = backend.prepare([region])
    assert face.glasses is not None
    patch = patch_of(backend, region, Edit({"surprised": 1.0}))
    assert patch.flow is not None and "wears glasses; their frame is held still" in patch.notes
    h, w = region.pixels.shape[:2]
    matrix = face.matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ np.array(region.box[:2])
    frame = cv2.warpAffine(face.glasses.frame, matrix, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 0.97
    motion = np.hypot(*np.moveaxis(patch.flow, -1, 0))
    assert frame.sum() > 3000 and motion.max() > 10
    assert np.quantile(motion[frame], 0.95) < 1, "the frame rests on the nose"
    bare = look(read_image(EXAMPLE).rgb)
    assert backend.prepare([bare])[0].glasses is None and not patch_of(backend, bare, Edit({"happy": 1.0})).notes


def test_a_covered_mouth_is_told_unless_the_edit_leaves_it_alone(backend: FlowBackend, region: FaceRegion) -> None:
    assert region.landmarks68 is not None
    pixels = region.pixels.copy()
    around = cv2.convexHull(region.landmarks68[[*range(1, 16), 29]].astype(np.int32))
    cv2.fillConvexPoly(pixels, around, (70, 120, 150))  # a mask
    masked = replace(region, pixels=pixels)
    prepared = backend.prepare([masked])
    (answer,) = backend.generate(prepared, Edit({"happy": 1.0}))
    assert isinstance(answer, FaceRefusal) and "mouth cannot be seen" in answer.reason and answer.settles
    for edit in (Edit({"happy": 1.0}, force=True), Edit({}, {"browInnerUp": 0.8})):
        assert isinstance(backend.generate(prepared, edit)[0], FacePatch)


def test_a_blink_in_a_clip_stays_one(backend: FlowBackend, region: FaceRegion) -> None:
    state = backend.begin_track([region, region])
    assert state is not None and min(state.openness) > 0.15 and not state.glasses
    marks = np.array(region.landmarks68)
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        marks[upper, 1] += 0.85 * (marks[lower, 1] - marks[upper, 1])
    shut = replace(region, face=with_landmarks(region.face, marks + region.box[:2]), track_state=state)
    surprised = Edit({"surprised": 1.0}, additive=True)
    wide = patch_of(backend, replace(region, track_state=state), surprised).details["target"]
    closed = patch_of(backend, shut, surprised).details["target"]
    assert wide["eyeWideLeft"] > 0.3 and closed.get("eyeWideLeft", 0.0) < 0.1


def test_a_face_that_touches_another_leaves_it_alone(backend: FlowBackend, shared: Path) -> None:
    photo = read_image(shared / "photos" / "identification1.jpg").rgb
    faces = [refine68(photo, face, robust=True) for face in find_faces(photo, load_detector("dlib")[1]).faces]
    mine, other = faces[1], faces[2]  # cheek to cheek
    region = region_of(photo, mine, (other,))
    patch = patch_of(backend, region, Edit({"surprised": 1.0}))
    alone = patch_of(backend, replace(region, others=()), Edit({"surprised": 1.0}))
    theirs, ours = (np.zeros(region.pixels.shape[:2], np.uint8) for _ in range(2))
    for mask, face in ((theirs, other), (ours, mine)):
        assert face.landmarks68 is not None
        outline = np.round(region.to_region(face.landmarks68)).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), (1,))
    only_theirs = (theirs > 0) & (ours == 0)
    assert (alone.alpha[only_theirs] > 0).any() and not patch.alpha[only_theirs].any()
    assert patch.alpha[ours > 0].mean() > 0.95 * alone.alpha[ours > 0].mean(), "but for the seam between them"
