"""Finding faces in real photos, by each of the three detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from exprtool import plugins
from exprtool.errors import ModelError, UnknownNameError, UsageError
from exprtool.faces import detect
from exprtool.faces.align import transform
from exprtool.faces.detect import find_faces, merge
from exprtool.faces.landmarks import refine68, roll_of, with_landmarks
from exprtool.types import Detector, Face

DETECTORS = ("dlib", "yunet", "yunet640", "insightface")
_LOADED: dict[str, Detector] = {}


@pytest.fixture
def load(shared: Path):
    def by_name(name: str) -> Detector:
        arguments = {
            "dlib": None,
            "yunet": str(shared / "models" / "face_detection_yunet.onnx"),
            "yunet640": str(shared / "models" / "face_detection_yunet_640.onnx"),
            "insightface": str(shared / "models" / "insightface"),
        }
        if name not in _LOADED:
            spec = plugins.registry().detector("yunet" if name == "yunet640" else name)
            _LOADED[name] = spec.load("cpu", arguments[name])
        return _LOADED[name]

    return by_name


def read(path: Path, width: int | None = None) -> np.ndarray:
    with PillowImage.open(path) as opened:
        picture = opened.convert("RGB")
    if width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), PillowImage.Resampling.LANCZOS)
    return np.asarray(picture)


def turned_points(points: np.ndarray, image: np.ndarray, quarters: int) -> np.ndarray:
    """Where points of an image lie after it was turned clockwise by quarters."""
    height, width = image.shape[:2]
    x, y = points[:, 0], points[:, 1]
    return np.stack(
        {
            0: (x, y),
            1: (height - 1 - y, x),
            2: (width - 1 - x, height - 1 - y),
            3: (y, width - 1 - x),
        }[quarters],
        axis=1,
    )


def distance(found: Face, points: np.ndarray) -> float:
    """Mean distance of the landmarks in parts of the face's size."""
    assert found.landmarks68 is not None
    return float(np.linalg.norm(found.landmarks68 - points, axis=1).mean() / found.size)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize(
    ("photo", "count"), [("identification1.jpg", 4), ("detection5.jpg", 3), ("Family2-Man1.jpg", 1)]
)
def test_finds_every_face_from_left_to_right(load, shared, name, photo, count):
    image = read(shared / "photos" / photo)
    found = find_faces(image, load(name))
    assert len(found.faces) == count
    assert [face.centre for face in found.faces] == sorted(face.centre for face in found.faces)
    for face in found.faces:
        assert face.landmarks68 is not None and face.landmarks68.shape == (68, 2)
        x0, y0, x1, y1 = face.box
        inside = (face.landmarks68 >= [x0 - 1e-6, y0 - 1e-6]) & (face.landmarks68 <= [x1 + 1e-6, y1 + 1e-6])
        assert inside.all()
        assert face.detector == name.removesuffix("640")


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_agree_on_landmarks(load, shared, name):
    """The 68 points do not depend on whose five points and box they were begun from."""
    image = read(shared / "photos" / "identification1.jpg")
    reference = find_faces(image, load("dlib")).faces
    for face, other in zip(find_faces(image, load(name)).faces, reference, strict=True):
        assert distance(face, other.landmarks68) < 0.02


@pytest.mark.parametrize("name", DETECTORS)
def test_no_face_is_found_where_there_is_none(load, shared, name):
    found = find_faces(read(shared / "photos" / "no_face.jpg", 300), load(name))
    assert found.faces == ()
    assert any("turned by" in look for look in found.tried)


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("name", ["dlib", "yunet", "insightface"])
def test_photos_lying_on_their_side(load, shared, name, quarters):
    image = read(shared / "photos" / "detection5.jpg", 560)
    upright = find_faces(image, load(name)).faces
    found = find_faces(np.ascontiguousarray(np.rot90(image, -quarters)), load(name)).faces
    assert len(found) == len(upright) == 3
    expected = [turned_points(face.landmarks68, image, quarters) for face in upright]
    for face in found:
        assert min(distance(face, points) for points in expected) < 0.02
        assert abs((face.roll - 90 * quarters + 180) % 360 - 180) < 20


@pytest.mark.parametrize("angle", [40, 320])
@pytest.mark.parametrize("name", ["dlib", "insightface"])
def test_oblique_faces(load, shared, name, angle):
    image = read(shared / "photos" / "pexels_neutral.jpeg", 420)
    upright = find_faces(image, load(name)).faces[0]
    picture, matrix = detect._turned(image, 1.0, angle)
    (face,) = find_faces(picture, load(name)).faces
    assert distance(face, transform(matrix, upright.landmarks68)) < 0.03
    assert abs((face.roll - upright.roll - angle + 180) % 360 - 180) < 6


@pytest.mark.parametrize("name", ["dlib", "yunet"])
def test_grey_photos(load, shared, name):
    image = read(shared / "photos" / "identification1.jpg")
    grey = np.repeat(image.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    assert len(find_faces(grey, load(name)).faces) == 4


@pytest.mark.parametrize("name", ["dlib", "yunet", "insightface"])
def test_small_faces_in_a_photo(load, shared, name):
    """Faces of 45 to 65 pixels."""
    image = read(shared / "photos" / "identification1.jpg", 320)
    found = find_faces(image, load(name))
    assert len(found.faces) == 4
    assert max(face.size for face in found.faces) < 70
    if name == "dlib":
        assert len(found.tried) > 1, "the second look is what finds them"


def test_small_faces_in_a_large_photo(load, shared):
    """Two faces of about 200 pixels in 9 megapixels: the reduced first look cannot show them to dlib."""
    image = np.full((2600, 3600, 3), 120, np.uint8)
    people = read(shared / "photos" / "test-image-person-group.jpg", 1000)
    image[1800 : 1800 + people.shape[0], 2600:3600] = people
    found = find_faces(image, load("dlib"))
    assert len(found.faces) == 2
    assert all(2600 < face.centre[0] < 3600 for face in found.faces)
    wanted = find_faces(people, load("dlib")).faces
    for face, other in zip(found.faces, wanted, strict=True):
        assert distance(face, np.add(other.landmarks68, (2600, 1800))) < 0.02


def test_faces_that_fill_the_picture(load, shared):
    face = find_faces(read(shared / "photos" / "Family2-Man1.jpg"), load("dlib")).faces[0]
    x0, y0, x1, y1 = (round(value) for value in face.box)
    image = np.ascontiguousarray(read(shared / "photos" / "Family2-Man1.jpg")[max(y0, 0) : y1, max(x0, 0) : x1])
    for name in ("yunet", "insightface"):
        assert len(find_faces(image, load(name)).faces) == 1, name


def test_cut_off_faces_are_rejected_with_the_reason(load, shared):
    image = read(shared / "photos" / "pexels_group.jpeg")
    found = find_faces(image, load("insightface"))
    assert len(found.faces) == 4
    assert any("edge" in item.reason for item in found.rejected)


def test_min_face_leaves_small_ones_out(load, shared):
    image = read(shared / "photos" / "detection5.jpg")
    sizes = [face.size for face in find_faces(image, load("yunet")).faces]
    middle = sorted(sizes)[1]
    kept = find_faces(image, load("yunet"), min_face=middle - 1).faces
    assert sorted(face.size for face in kept) == sorted(sizes)[1:]


def test_landmarks_are_finer_than_pixels_and_robust_ones_steadier(load, shared):
    image = read(shared / "photos" / "identification1.jpg")
    face = find_faces(image, load("yunet")).faces[1]
    rng = np.random.default_rng(1)

    def spread(robust: bool) -> float:
        found = []
        for _ in range(12):
            moved = Face(face.box, face.score, face.landmarks5 + rng.normal(scale=0.02 * face.size, size=(5, 2)))
            found.append(refine68(image, moved, robust=robust).landmarks68)
        return float(np.std(found, axis=0).mean() / face.size)

    assert not np.allclose(face.landmarks68, face.landmarks68.round())
    assert spread(robust=True) < spread(robust=False) < 0.01


def test_roll_is_clockwise_in_the_image():
    upright = np.array([[-10.0, 0.0], [10.0, 0.0], [0.0, 8.0], [-7.0, 20.0], [7.0, 20.0]])
    for angle in (-170, -60, 0, 25, 90, 135):
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        assert roll_of(upright @ np.array([[cos, -sin], [sin, cos]]).T) == pytest.approx(angle)


def face_at(x: float, y: float, size: float, score: float) -> Face:
    rng = np.random.default_rng(7)
    five = np.array([[-0.2, -0.2], [0.2, -0.2], [0.0, 0.0], [-0.15, 0.2], [0.15, 0.2]]) * size + [x, y]
    points = rng.uniform(-0.4, 0.4, size=(68, 2)) * size + [x, y]
    points[[36, 37, 38, 39, 40, 41]], points[[42, 43, 44, 45, 46, 47]] = five[0], five[1]
    points[30], points[48], points[54] = five[2], five[3], five[4]
    return with_landmarks(Face((0, 0, 1, 1), score, five), points)


def test_merge_keeps_the_better_of_two_and_both_neighbours():
    a, again, beside = face_at(100, 100, 80, 0.7), face_at(104, 98, 84, 0.9), face_at(180, 100, 80, 0.5)
    assert merge([a, again, beside]) == [again, beside]


class Painted(Detector):
    """Finds the red squares, and takes those in the right half of the picture back on a closer look."""

    overview, smallest, sure = 200, 10.0, 2.0

    def detect(self, image):
        from scipy.ndimage import find_objects, label

        red = (image[..., 0] > 200) & (image[..., 1] < 60)
        spots = find_objects(label(red)[0])
        faces = []
        for rows, columns in spots:
            x, y, size = columns.start, rows.start, columns.stop - columns.start
            if size < self.smallest:
                continue
            grid = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * size + [x, y]
            points = np.repeat(grid, 14, axis=0)[:68]
            points[36:42], points[42:48], points[30], points[48], points[54] = (
                grid[0],
                grid[1],
                grid[2],
                grid[3],
                grid[4],
            )
            faces.append(Face((x, y, x + size, y + size), 1.0, grid, points, detector="painted"))
        return faces

    def confirms(self, image, face):
        return face.centre[0] < image.shape[1] / 2


def test_a_detectors_own_landmarks_are_kept_and_its_doubts_heard():
    image = np.zeros((300, 800, 3), np.uint8)
    image[100:160, 100:160, 0] = 255
    image[100:160, 600:660, 0] = 255
    found = find_faces(image, Painted())
    assert len(found.faces) == 1 and len(found.rejected) == 1
    assert found.faces[0].centre[0] < 400 < found.rejected[0].face.centre[0]
    assert "closer look" in found.rejected[0].reason
    np.testing.assert_allclose(found.faces[0].landmarks5[0], [118, 121], atol=3)


def test_tiles_cover_a_large_picture_and_overlap():
    picture = np.zeros((2300, 4500, 3), np.uint8)
    seen = np.zeros(picture.shape[:2], int)
    for x, y, tile in detect._tiles(picture, 80.0):
        assert max(tile.shape[:2]) <= 2048
        seen[y : y + tile.shape[0], x : x + tile.shape[1]] += 1
    assert seen.min() >= 1 and seen.max() >= 2


def test_tiny_and_narrow_pictures_have_no_face(load):
    for shape in ((1, 1, 3), (3, 900, 3), (40, 7, 3)):
        for name in ("dlib", "yunet", "insightface"):
            assert find_faces(np.zeros(shape, np.uint8), load(name)).faces == ()


def test_specs_are_ready_or_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # the insightface package keeps packs below it
    registry = plugins.registry()
    assert registry.detector("dlib").readiness().ready
    for name in ("yunet", "insightface"):
        state = registry.detector(name).readiness()
        assert not state.ready and state.reason and "exprtool models fetch" in state.remedy
        with pytest.raises(ModelError, match="exprtool models"):
            registry.detector(name).load("cpu", None)


def test_what_stands_after_the_colon(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    registry = plugins.registry()
    with pytest.raises(UsageError, match="nothing after"):
        registry.detector("dlib").load("cpu", "x")
    with pytest.raises(ModelError, match=r"none\.onnx"):
        registry.detector("yunet").load("cpu", str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        registry.detector("yunet").load("cpu", str(tmp_path / "bad.onnx"))
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        registry.detector("insightface").load("cpu", str(tmp_path / "bad.onnx"))
    with pytest.raises(UnknownNameError, match="buffalo_l"):
        registry.detector("insightface").load("cpu", "bufalo_l")
    with pytest.raises(ModelError, match="buffalo_l"):  # known, not here, and not fetched behind the user's back
        registry.detector("insightface").load("cpu", "buffalo_l")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no"):
        registry.detector("insightface").load("cpu", str(tmp_path / "empty"))
    pack = shared / "models" / "insightface" / "models" / "scrfd_500m_pack"
    for argument in (pack, pack / "det_500m.onnx", pack.parent, pack.parent.parent):
        assert registry.detector("insightface").load("cpu", str(argument)).detect(np.zeros((64, 96, 3), np.uint8)) == []


def test_packs_of_the_insightface_package_are_found_by_name(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".insightface" / "models" / "scrfd_500m_pack"
    folder.mkdir(parents=True)
    source = shared / "models" / "insightface" / "models" / "scrfd_500m_pack" / "det_500m.onnx"
    (folder / "det_500m.onnx").write_bytes(source.read_bytes())
    spec = plugins.registry().detector("insightface")
    assert spec.readiness().ready
    assert spec.load("cpu", "scrfd_500m_pack").detect(np.zeros((64, 96, 3), np.uint8)) == []
