"""The blendshape backend on real faces: what must hold whatever the taste."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from exprtool.anatomy.steady import worn_already
from exprtool.choice import load_detector
from exprtool.errors import UsageError
from exprtool.faces.detect import find_faces
from exprtool.faces.landmarks import with_landmarks
from exprtool.faces.select import region_of
from exprtool.images import read_image
from exprtool.pixels.composite import paste
from exprtool.types import Edit, Face, FacePatch, FaceRegion, Image
from exprtool_blendshape import mouth

SIX = ("happy", "sad", "angry", "surprised", "disgusted", "afraid")
FLIPPED = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
           45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
           54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]  # fmt: skip


@pytest.fixture(scope="module")
def backend(shared):
    from exprtool_blendshape.backend import BlendshapeBackend
    from exprtool_blendshape.model import load_face_model

    return BlendshapeBackend(load_face_model(shared / "face-model" / "ict_facekit_light.npz"))


class _Photos:
    """Photos with their faces, found once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._detector = load_detector("dlib")[1]
        self._found: dict[str, tuple[Image, tuple[Face, ...]]] = {}

    def __call__(self, name: str) -> tuple[Image, tuple[Face, ...]]:
        if name not in self._found:
            image = read_image(self._root / name).rgb
            self._found[name] = image, find_faces(image, self._detector).faces
        return self._found[name]

    def region(self, name: str) -> FaceRegion:
        image, faces = self(name)
        face = max(faces, key=lambda each: each.size)
        return region_of(image, face, tuple(each for each in faces if each is not face))


@pytest.fixture(scope="module")
def photos(shared) -> _Photos:
    return _Photos(shared)


NEUTRAL, SMILE = "faces/london/neutral/009.jpg", "faces/london/happy/036.jpg"


def _edit(backend, region: FaceRegion, edit: Edit) -> FacePatch:
    prepared = backend.prepare([region])
    patch = backend.generate(prepared, edit)[0]
    assert isinstance(patch, FacePatch), patch
    return patch


def _scaled(region: FaceRegion, scale: float, angle: float = 0.0) -> FaceRegion:
    """The same face in a photo of another size, turned by ``angle`` degrees."""
    h, w = region.pixels.shape[:2]
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    shrunk = cv2.resize(region.pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), angle, 1.0)
    image = cv2.warpAffine(shrunk, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert region.landmarks68 is not None
    marks = (region.landmarks68 + 0.5) * scale - 0.5
    face = with_landmarks(region.face, marks @ turn[:, :2].T + turn[:, 2])
    return FaceRegion(face, (0, 0, *size), image)


def test_nothing_wanted_is_nothing_changed(backend, photos):
    region = photos.region(NEUTRAL)
    prepared = backend.prepare([region])
    for edit in (Edit({"happy": 1.0}, strength=0.0), Edit(), Edit({}, {"browInnerUp": 0.0})):
        patch = backend.generate(prepared, edit)[0]
        assert not patch.alpha.any()
        np.testing.assert_array_equal(patch.pixels, region.pixels)


def test_little_wanted_is_little_changed(backend, photos):
    """Strength comes in gradually: there is no jump between nothing and next to nothing, eyes and mouth included."""
    for name in (NEUTRAL, SMILE):
        region = photos.region(name)
        patch = _edit(backend, region, Edit({"sad": 1.0}, strength=0.004))
        change = np.abs(patch.pixels.astype(float) - region.pixels) * patch.alpha[..., None]
        assert np.percentile(change, 99.9) < 14
        assert change.mean() < 0.25


@pytest.mark.parametrize("name", [NEUTRAL, SMILE])
def test_six_expressions(backend, photos, name):
    image, _ = photos(name)
    region = photos.region(name)
    before = region.pixels.copy()
    prepared = backend.prepare([region])
    for expression in SIX:
        patch = backend.generate(prepared, Edit({expression: 1.0}))[0]
        assert patch.pixels.shape == before.shape and patch.alpha.shape == before.shape[:2]
        assert patch.alpha.min() >= 0 and patch.alpha.max() <= 1
        untouched = patch.alpha == 0
        np.testing.assert_array_equal(patch.pixels[untouched], before[untouched])
        edge = np.concatenate([patch.alpha[:4].ravel(), patch.alpha[-4:].ravel(), patch.alpha[:, :4].ravel()])
        assert not edge.any()
        _, changed = paste(image, [region], [patch])
        assert changed.any()
        assert not changed[: region.box[1]].any()
        assert 0.01 < (patch.alpha > 0).mean() < 0.7
        assert patch.details["source"] is not None
    np.testing.assert_array_equal(region.pixels, before)


def test_flow_reproduces_the_edit(backend, photos):
    """Outside what is painted, the photo moved by the flow is the edit but for its shading."""
    region = photos.region(NEUTRAL)
    patch = _edit(backend, region, Edit({"surprised": 1.0}))
    assert patch.flow is not None and patch.painted is not None
    h, w = patch.alpha.shape
    x = np.arange(w, dtype=np.float32)[None] + patch.flow[..., 0]
    y = np.arange(h, dtype=np.float32)[:, None] + patch.flow[..., 1]
    warped = cv2.remap(region.pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(float)
    moved = (patch.painted < 0.02) & (np.hypot(patch.flow[..., 0], patch.flow[..., 1]) > 3)
    assert moved.sum() > 2000
    with_flow = np.abs(warped - patch.pixels)[moved].mean()
    without = np.abs(region.pixels.astype(float) - patch.pixels)[moved].mean()
    assert with_flow < 0.4 * without
    assert patch.painted.max() == 1 and patch.painted.mean() < 0.1


def test_flow_field_does_not_fold(backend, photos):
    region = photos.region(NEUTRAL)
    for expression in SIX:
        patch = _edit(backend, region, Edit({expression: 1.0}))
        assert patch.flow is not None and patch.painted is not None
        smooth = cv2.GaussianBlur(patch.flow, (0, 0), 2.0)
        area = (1 + np.gradient(smooth[..., 0], axis=1)) * (1 + np.gradient(smooth[..., 1], axis=0))
        area -= np.gradient(smooth[..., 0], axis=0) * np.gradient(smooth[..., 1], axis=1)
        open_skin = cv2.dilate(patch.painted, np.ones((15, 15))) < 0.02
        assert (area[open_skin] < 0).mean() < 0.001


def test_mirrored_photo_gives_the_mirrored_edit(backend, photos):
    region = photos.region(NEUTRAL)
    w = region.pixels.shape[1]
    marks = region.landmarks68[FLIPPED] * [-1, 1] + [w - 1, 0]
    mirrored = FaceRegion(
        with_landmarks(region.face, marks),
        (0, 0, w, region.pixels.shape[0]),
        np.ascontiguousarray(region.pixels[:, ::-1]),
    )
    for expression in ("happy", "surprised"):
        one = _edit(backend, region, Edit({expression: 1.0}))
        other = _edit(backend, mirrored, Edit({expression: 1.0}))
        change = np.abs(one.pixels.astype(float) - region.pixels).mean()
        difference = np.abs(one.pixels.astype(float) - other.pixels[:, ::-1]).mean()
        assert difference < 0.25 * change


def test_smile_comes_off_and_no_tooth_is_left(backend, photos):
    """Between the lips of a closed mouth lies nothing as bright and colourless as the teeth that were there."""
    region = photos.region(SMILE)
    marks = region.landmarks68
    inside = cv2.fillPoly(np.zeros(region.pixels.shape[:2], np.uint8), [np.round(marks[60:68]).astype(np.int32)], 1) > 0
    assert (region.pixels[inside].min(-1) > 130).mean() > 0.2  # the teeth
    patch = _edit(backend, region, Edit({"sad": 1.0}))
    lips = cv2.fillPoly(np.zeros(inside.shape, np.uint8), [np.round(marks[48:60]).astype(np.int32)], 1) > 0
    u = patch.details["pixels_per_cm"]
    middle = lips & (np.abs(np.arange(inside.shape[1])[None] - marks[[48, 54], 0].mean()) < 1.2 * u)
    middle &= np.arange(inside.shape[0])[:, None] < marks[66, 1]  # below the old rim lies skin now
    pale = (patch.pixels.min(-1) > 120) & (np.ptp(patch.pixels.astype(int), axis=-1) < 40)
    assert (pale & middle).sum() < 0.002 * middle.sum()


def test_grey_photos_stay_grey(backend, photos):
    region = photos.region(NEUTRAL)
    grey = np.repeat(cv2.cvtColor(region.pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    patch = _edit(backend, replace(region, pixels=grey), Edit({"surprised": 1.0}))
    assert np.ptp(patch.pixels.astype(int), axis=-1).max() <= 3


@pytest.mark.parametrize(("scale", "angle"), [(0.13, 0.0), (0.5, 25.0), (2.5, -15.0)])
def test_sizes_and_tilt(backend, photos, scale, angle):
    region = _scaled(photos.region(NEUTRAL), scale, angle)
    patch = _edit(backend, region, Edit({"happy": 1.0}, force=True))
    changed = np.abs(patch.pixels.astype(int) - region.pixels).max(-1) > 25
    mouth = region.landmarks68[48:68].mean(0)
    ys, xs = np.nonzero(changed)
    assert len(ys) > 0.005 * changed.size
    reach = 9 * patch.details["pixels_per_cm"]
    assert np.hypot(xs - mouth[0], ys - mouth[1]).max() < 1.6 * reach


def test_faces_cut_by_the_frame(backend, photos):
    region = photos.region(NEUTRAL)
    cut = int(region.landmarks68[8, 1] - 0.1 * region.face.size)  # through the chin
    part = FaceRegion(
        with_landmarks(region.face, region.landmarks68),
        (0, 0, region.pixels.shape[1], cut),
        np.ascontiguousarray(region.pixels[:cut]),
    )
    patch = _edit(backend, part, Edit({"surprised": 1.0}, force=True))
    assert patch.alpha.shape == part.pixels.shape[:2] and patch.alpha.any()


def test_keeps_off_other_faces(backend, photos):
    region = photos.region(NEUTRAL)
    side = region.landmarks68[16] - region.landmarks68[0]
    marks = region.landmarks68 + side * 0.72
    other = with_landmarks(region.face, marks + np.array(region.box[:2]))
    patch = _edit(backend, replace(region, others=(other,)), Edit({"happy": 1.0}))
    alone = _edit(backend, replace(region, others=()), Edit({"happy": 1.0}))
    inner = cv2.convexHull(np.round(marks).astype(np.int32))
    own = cv2.convexHull(np.round(region.landmarks68).astype(np.int32))
    mask = cv2.fillConvexPoly(np.zeros(patch.alpha.shape, np.uint8), inner, 1)
    mask = (mask > 0) & (cv2.fillConvexPoly(np.zeros_like(mask, dtype=np.uint8), own, 1) == 0)
    assert (alone.alpha[mask] > 0).any()
    assert not patch.alpha[mask].any()


def test_frames_of_glasses_stay(backend, photos):
    region = photos.region("faces/fairface/train_6219.jpg")
    prepared = backend.prepare([region])[0]
    frame = prepared.look.glasses
    assert frame is not None
    assert backend.prepare([photos.region(NEUTRAL)])[0].look.glasses is None
    patch = backend.generate([prepared], Edit({"surprised": 1.0}, force=True))[0]
    still = frame.frame > 0.95
    ys, xs = np.nonzero(still)
    inverse = prepared.look.frame.region_from_work
    points = np.round(np.c_[xs, ys] @ inverse[:, :2].T + inverse[:, 2]).astype(int)
    change = np.abs(patch.pixels.astype(int) - region.pixels)[points[:, 1], points[:, 0]]
    assert np.percentile(change, 95) <= 12
    assert any("glasses" in note for note in patch.notes)


def test_reference_is_copied(backend, photos):
    smiling, neutral = photos.region(SMILE), photos.region(NEUTRAL)
    patch = _edit(backend, neutral, Edit(reference=smiling))
    assert patch.alpha.any()
    assert patch.details["target"].get("mouthSmileLeft", 0) > 0.2


def test_track_shares_light_and_shape(backend, photos):
    region = photos.region(NEUTRAL)
    state = backend.begin_track([region, region])
    one, two = (backend.prepare([replace(region, track_state=state)])[0] for _ in range(2))
    np.testing.assert_array_equal(one.look.light.harmonics, two.look.light.harmonics)
    np.testing.assert_array_equal(one.fit.identity, state.shape.identity)
    patch = backend.generate([one], Edit({"happy": 1.0}, strength=0.0, additive=True))[0]
    assert not patch.alpha.any()


def test_lids_that_blink_along_a_track_are_neither_widened_nor_painted_between(backend, photos):
    region = photos.region(NEUTRAL)
    state = backend.begin_track([region])
    used_to_wide = replace(state, openness=tuple(3 * usual for usual in state.openness))
    wide = Edit(controls={"eyeWideLeft": 0.8, "eyeWideRight": 0.8}, additive=True)
    alone, awake, shut = (
        backend.prepare([replace(region, track_state=track)])[0] for track in (None, state, used_to_wide)
    )
    assert [{eye.shown for eye in face.look.eyes.values()} for face in (alone, awake, shut)] == [{1.0}, {1.0}, {0.0}]
    painted = [backend.generate([face], wide)[0].painted.sum() for face in (alone, awake, shut)]
    assert painted[0] > 100 and painted[1] > 100
    assert painted[2] == 0


def test_a_clip_keeps_the_teeth_of_a_laugh_and_draws_those_of_lips_that_talk():
    hole = np.zeros((60, 100), bool)
    hole[20:40, 20:80] = True
    above = np.where(hole, np.arange(60)[:, None] - 19, 0).astype(np.float32) / 20  # 20 pixels per cm
    photo = SimpleNamespace(teeth=True, moving=True)
    shares = []
    for rows in range(0, 21, 2):
        inside = np.zeros(hole.shape, np.float32)
        inside[20 : 20 + rows, 20:80] = 1.0
        shares.append(mouth._own_share(photo, inside, hole, above))
    assert shares[0] == 0.0 and shares[-1] == 1.0
    assert 0 < np.diff(shares).max() < 0.7, "the one becomes the other, and does not jump"
    lower_teeth = np.zeros(hole.shape, np.float32)
    lower_teeth[30:40, 20:80] = 1.0
    assert mouth._own_share(photo, lower_teeth, hole, above) == 0.0
    still = SimpleNamespace(teeth=True, moving=False)
    assert mouth._own_share(still, lower_teeth, hole, above) == 1.0, "a photo's teeth are always its own"


def test_only_one_who_wears_the_whole_expression_wears_it_already():
    happy = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5}
    surprised = {
        f"{stem}{side}": 0.9 for stem in ("browInnerUp", "browOuterUp", "eyeWide") for side in ("Left", "Right")
    } | {"jawOpen": 0.4}
    assert worn_already(happy, happy) == 1.0
    assert worn_already(happy | {"browDownLeft": 0.9, "browDownRight": 0.9, "jawOpen": 1.0}, happy) == 1.0
    assert worn_already(surprised, surprised) == 1.0
    wide = {"eyeWideLeft": 1.0, "eyeWideRight": 1.0}
    assert worn_already(wide, surprised) == 0.0 == worn_already(surprised, happy) == worn_already(happy, {})


def test_listing_loads_nothing_heavy():
    code = (
        "import sys, exprtool_blendshape.plugin as p\n"
        "specs = []\np.register_backends(specs.append)\n"
        "assert specs[0].name == 'blendshape' and 'browInnerUp' in specs[0].controls\n"
        "heavy = {'numpy', 'cv2', 'numba', 'scipy', 'dlib', 'torch'} & set(sys.modules) - {'numpy'}\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sheet(photos, backend):
    from exprtool.pipeline import Session
    from exprtool.reports.sheet import make_sheet

    image, _ = photos(NEUTRAL)
    session = Session(backend, load_detector("dlib")[1])
    edits = {"happy": Edit({"happy": 1.0}), "sad": Edit({"sad": 1.0})}
    sheet = make_sheet(session, image, edits, (0.0, 1.0), cell=96)
    height, width = sheet.image.shape[:2]
    left = width - 3 * 98
    photo, nothing, happy = (
        sheet.image[height - 2 * 98 : height - 98 - 2, left + i * 98 : left + i * 98 + 96].astype(int) for i in range(3)
    )
    np.testing.assert_array_equal(photo, nothing)
    assert np.abs(photo - happy).mean() > 1.0
    assert sheet.backends and not sheet.missing


def test_sheet_command(shared, face_model, tmp_path, capsys):
    import shutil

    from exprtool.cli import main as cli

    photo, target = tmp_path / "photo.jpg", tmp_path / "sheet.jpg"
    shutil.copy(shared / NEUTRAL, photo)
    wanted = ["sheet", str(photo), "-o", str(target), "--expr", "sad", "--strengths", "0.5,1", "--cell", "64"]
    arguments = [*wanted, "--backend", "blendshape", "--detector", "dlib", "--device", "cpu"]
    cli.app(arguments, standalone_mode=False)
    assert capsys.readouterr().out.strip() == str(target)
    sheet = read_image(target).rgb
    assert sheet.shape[1] > 3 * 64 and sheet.shape[0] < 2 * 64 + 64
    with pytest.raises(UsageError, match="--overwrite"):
        cli.app(arguments, standalone_mode=False)
    with pytest.raises(UsageError, match="strengths"):
        cli.app([*arguments, "--overwrite", "--strengths", "0.5,,1"], standalone_mode=False)
