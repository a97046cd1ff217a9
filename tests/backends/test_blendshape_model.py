"""The face model: names, arrays, and how its file is packed from upstream's meshes."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from exprtool.anatomy.names import CONTROLS, SHAPES, STEMS, expand, mirrored
from exprtool.errors import ModelError, UnknownNameError
from exprtool_blendshape.model import CONTOUR_LEFT, CONTOUR_RIGHT, FaceModel, Region, load_face_model
from exprtool_blendshape.points68 import landmark_shifts
from exprtool_blendshape.weights import FACE_MODEL, pack


@pytest.fixture(scope="module")
def model(shared: Path) -> FaceModel:
    return load_face_model(shared / "face-model" / "ict_facekit_light.npz")


def test_the_pinned_hash_is_that_of_the_file(shared: Path, tmp_path: Path) -> None:
    """... whatever compressed the arrays before: the test data's file went through one zlib, its twin through none."""
    kept, twin = shared / "face-model" / "ict_facekit_light.npz", tmp_path / "twin.npz"
    with np.load(kept, allow_pickle=False) as arrays:
        np.savez(twin, **arrays)
    for packed in (kept, twin):
        pack(packed, tmp_path / "model.npz")
        data = (tmp_path / "model.npz").read_bytes()
        assert hashlib.sha256(data).hexdigest() == FACE_MODEL.sha256
        assert len(data) == FACE_MODEL.size


def test_a_file_packed_with_compression_is_taken_in_and_packed_anew(shared: Path, home: Path) -> None:
    from exprtool.weights.catalogue import State, import_file, state

    assert import_file(shared / "face-model" / "ict_facekit_light.npz").state is State.READY
    assert state(FACE_MODEL, rehash=True).state is State.READY


def test_arrays_agree_with_each_other(model: FaceModel) -> None:
    assert model.vertices.shape == (26719, 3)
    assert model.expression.shape == (len(CONTROLS), 26719, 3)
    assert model.triangles.min() == 0 and model.triangles.max() == 26718
    assert len(model.region) == len(model.triangles) == len(model.narrow_face)
    teeth = np.unique(model.triangles[model.region == Region.TEETH])
    assert teeth.min() == 17039 and teeth.max() == 21450
    assert (np.diff(np.sort(model.triangles, 1), axis=1) > 0).all(), "a triangle with a vertex twice"


def test_left_is_the_persons_own_left(model: FaceModel) -> None:
    for control in CONTROLS:
        if control.startswith(("jaw", "mouthLeft", "mouthRight")) or not control.endswith("Left"):
            continue
        moved = np.abs(model.offsets({control: 1.0})).sum(1)
        assert (moved * model.vertices[:, 0]).sum() > 0, control
        other = np.abs(model.offsets({mirrored(control): 1.0})).sum(1)
        assert (other * model.vertices[:, 0]).sum() < 0, control


def test_lips_touch_along_the_whole_mouth(model: FaceModel) -> None:
    upper, lower = model.vertices[model.landmarks[[61, 62, 63]]], model.vertices[model.landmarks[[67, 66, 65]]]
    gap = upper[:, 1] - lower[:, 1]
    assert (gap < 0).all() and (gap > -0.1).all()
    assert not (model.upper_lip & model.lower_lip).any()
    jaw = model.offsets({"jawOpen": 1.0})[:, 1]
    assert jaw[model.lower_lip].mean() < jaw[model.upper_lip].mean() - 1


def test_stems_stand_for_both_halves(model: FaceModel) -> None:
    both = model.offsets({"browInnerUp": 0.5})
    halves = model.offsets({"browInnerUpLeft": 0.5, "browInnerUpRight": 0.5})
    np.testing.assert_array_equal(both, halves)
    assert expand({"mouthSmile": 0.5, "mouthSmileLeft": 0.2}) == {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.5}
    at = np.array([5, 700, 4000])
    np.testing.assert_allclose(model.offsets_at({"browInnerUp": 0.5}, at), both[at], atol=1e-6)


def test_unknown_controls_are_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mouthSmile'"):
        expand({"mouthSmyle": 1.0})
    assert set(SHAPES.values()) <= set(CONTROLS)
    assert not set(STEMS) & set(CONTROLS)


def test_mirroring_twice_changes_nothing() -> None:
    assert all(mirrored(mirrored(name)) == name for name in CONTROLS)
    assert all(mirrored(name) in CONTROLS for name in CONTROLS)


def test_landmark_definitions_are_symmetric_and_leave_the_jaw_alone() -> None:
    shifts = landmark_shifts()
    assert not shifts[:17].any() and shifts[17:].any()
    np.testing.assert_array_equal(shifts[36] * [-1, 1, 1], shifts[45])
    np.testing.assert_array_equal(shifts[61] * [-1, 1, 1], shifts[63])
    np.testing.assert_array_equal(shifts[67] * [-1, 1, 1], shifts[65])
    assert not set(CONTOUR_LEFT) & set(CONTOUR_RIGHT)


# --- packing


QUAD = "f 1/1 2/2 3/3 4/4\nf 1/1 3/3 5/4\n"


def obj(vertices: np.ndarray, rest: str = "") -> str:
    return "# a comment\nmtllib x.mtl\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in vertices) + rest


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A small archive in upstream's layout, and its neutral vertices."""
    neutral = np.arange(15, dtype=float).reshape(5, 3) / 7
    uv = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    meshes = {"generic_neutral_mesh": obj(neutral, uv + QUAD)}
    for i in range(3):
        meshes[f"identity{i:03}"] = obj(neutral + 0.1 * (i + 1))
    for i, name in enumerate(("jawOpen", "browDown_L", "PupilDilate_L")):
        meshes[name] = obj(neutral - 0.25 * (i + 1))
    path = tmp_path / "tree.zip"
    with zipfile.ZipFile(path, "w") as tree:
        tree.writestr("ICT-FaceKit-abc/README.md", "not a mesh")
        tree.writestr("ICT-FaceKit-abc/sample_data_out/random.obj", obj(neutral + 9))
        for name, text in meshes.items():
            tree.writestr(f"ICT-FaceKit-abc/FaceXModel/{name}.obj", text)
    return path, neutral


def test_pack_keeps_every_shape_of_the_tree(archive: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pack(archive[0], tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as packed:
        np.testing.assert_allclose(packed["vertices"], archive[1], rtol=1e-6)
        assert list(packed["identity_names"]) == ["identity000", "identity001", "identity002"]
        assert list(packed["expression_names"]) == ["PupilDilate_L", "browDown_L", "jawOpen"]
        assert packed["expression"].dtype == np.float16
        np.testing.assert_allclose(packed["expression"][2], np.full((5, 3), -0.25), atol=1e-3)
        np.testing.assert_array_equal(packed["quads"], [[0, 1, 2, 3], [0, 2, 4, 4]])
        np.testing.assert_array_equal(packed["uv_quads"], [[0, 1, 2, 3], [0, 2, 3, 3]])


def test_pack_writes_the_same_bytes_every_time(archive: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pack(archive[0], tmp_path / "a.npz")
    pack(archive[0], tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as packed:
        told = {(one.date_time[0], one.create_system, one.compress_type) for one in packed.infolist()}
    assert told == {(1980, 3, zipfile.ZIP_STORED)}, "nothing of the machine or the hour"


def test_pack_says_what_is_wrong_with_an_archive(archive: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"not a zip")
    with pytest.raises(ModelError, match=r"broken\.zip is not a zip"):
        pack(broken, tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as tree:
        tree.writestr("a/b.obj", "v 0 0 0\n")
    with pytest.raises(ModelError, match="generic_neutral_mesh"):
        pack(tmp_path / "other.zip", tmp_path / "x.npz")
    with zipfile.ZipFile(archive[0], "a") as tree:
        tree.writestr("ICT-FaceKit-abc/FaceXModel/mouthSmile_L.obj", obj(np.zeros((4, 3))))
    with pytest.raises(ModelError, match=r"mouthSmile_L\.obj has 4 vertices"):
        pack(archive[0], tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def test_a_model_without_the_shapes_is_refused(archive: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pack(archive[0], tmp_path / "small.npz")
    with pytest.raises(ModelError, match="lacks the shapes"):
        load_face_model(tmp_path / "small.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ModelError, match="not a readable face model"):
        load_face_model(tmp_path / "text.npz")
