"""Which faces are taken, the rectangle a backend gets, and who is who."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from exprtool import plugins
from exprtool.errors import NoFaceError, UsageError
from exprtool.faces import dlib_files
from exprtool.faces.detect import find_faces
from exprtool.faces.embed import SAME_PERSON, embedding, similarity_of, squared_distance
from exprtool.faces.landmarks import with_landmarks
from exprtool.faces.pose import pose_of
from exprtool.faces.select import Selection, person_in, region_of, select_faces
from exprtool.types import Face


@pytest.fixture(scope="module")
def yunet():
    model = Path(__file__).resolve().parents[3] / "shared" / "models" / "face_detection_yunet.onnx"
    if not model.is_file():
        pytest.skip("needs the test models beside the checkout (../shared)")
    return plugins.registry().detector("yunet").load("cpu", str(model))


def read(path: Path) -> np.ndarray:
    with PillowImage.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def face_of(size: float, x: float = 200.0, y: float = 150.0, nose: float = 0.0) -> Face:
    five = np.array([[-0.2, -0.15], [0.2, -0.15], [nose, 0.1], [-0.15, 0.27], [0.15, 0.27]]) * size + [x, y]
    return Face((x - size / 2, y - size / 2, x + size / 2, y + size / 2), 1.0, five)


FACES = (face_of(80, 100), face_of(200, 300), face_of(120, 520))


def picked(selection: Selection) -> list[int]:
    return [i for i, (_, reason) in enumerate(select_faces(FACES, selection), start=1) if reason is None]


def test_all_largest_and_numbers():
    assert picked(Selection()) == [1, 2, 3]
    assert picked(Selection.parse("largest")) == [2]
    assert picked(Selection.parse("3, 1")) == [1, 3]
    assert Selection.parse("1,5,9").missing(3) == (5, 9)


def test_order_and_faces_are_kept_and_every_reason_is_told():
    answer = select_faces(FACES, Selection.parse("2", min_face=90))
    assert [face for face, _ in answer] == list(FACES)
    assert answer[1][1] is None
    assert "not asked for" in answer[0][1] and "--faces 2" in answer[2][1]
    assert "80 px" in select_faces(FACES, Selection(min_face=90))[0][1]


def test_largest_is_taken_of_those_that_are_left():
    turned = face_of(300, 700, nose=0.19)
    answer = select_faces([*FACES, turned], Selection("largest", max_turn=35))
    assert [reason is None for _, reason in answer] == [False, True, False, False]
    assert "turned too far" in answer[3][1]


@pytest.mark.parametrize("text", ["", "none", "0", "1,,2", "-1", "1;2", "1.5", "first", "²"])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(UsageError, match="--faces"):
        Selection.parse(text)


def test_senseless_limits_are_refused():
    with pytest.raises(UsageError, match="--min-face"):
        Selection.parse("all", min_face=-1)
    with pytest.raises(UsageError, match="--similarity"):
        Selection.parse("all", similarity=1.5)


def test_the_person_of_a_reference_photo(shared, yunet):
    """The man and the woman each have a portrait of their own, taken elsewhere, beside the photo of both."""
    image = read(shared / "photos" / "test-image-person-group.jpg")
    faces = find_faces(image, yunet).faces
    assert len(faces) == 2
    for portrait, wanted in (("man2-person-group.jpg", 0), ("woman1-person-group.jpg", 1)):
        reference = read(shared / "photos" / portrait)
        person = person_in(reference, find_faces(reference, yunet).faces, portrait)
        answer = select_faces(faces, Selection(person=person), image)
        assert [i for i, (_, reason) in enumerate(answer) if reason is None] == [wanted]
        assert "not the person" in answer[1 - wanted][1]
    stranger = read(shared / "photos" / "pexels_neutral.jpeg")
    person = person_in(stranger, find_faces(stranger, yunet).faces, "stranger")
    assert all(reason for _, reason in select_faces(faces, Selection(person=person), image))


def test_a_reference_photo_must_show_one_person(shared, yunet):
    with pytest.raises(NoFaceError, match=r"empty\.jpg"):
        person_in(np.zeros((9, 9, 3), np.uint8), (), "empty.jpg")
    image = read(shared / "photos" / "identification1.jpg")
    with pytest.raises(UsageError, match=r"group\.jpg.*4 faces"):
        person_in(image, find_faces(image, yunet).faces, "group.jpg")


def test_looking_for_a_person_needs_the_image():
    with pytest.raises(ValueError, match="image"):
        select_faces(FACES, Selection(person=np.zeros(128)))


def test_embedding_tells_people_apart(shared, yunet):
    """The same 8 people neutral and smiling: each is nearer to itself than to anybody else, and within 0.6."""

    def embedded(path: Path) -> np.ndarray:
        image = read(path)[::2, ::2]
        return embedding(image, find_faces(image, yunet).faces[0])

    names = sorted(path.name for path in (shared / "faces" / "london" / "happy").iterdir())[:8]
    neutral = [embedded(shared / "faces" / "london" / "neutral" / name) for name in names]
    happy = [embedded(shared / "faces" / "london" / "happy" / name) for name in names]
    assert neutral[0].shape == (128,) and neutral[0].dtype == np.float64
    table = np.array([[squared_distance(a, b) for b in happy] for a in neutral])
    assert (table.argmin(axis=1) == np.arange(8)).all()
    assert np.diag(table).max() < 0.36
    assert min(similarity_of(a, b) for a, b in zip(neutral, happy, strict=True)) > SAME_PERSON


def test_embedding_is_that_of_dlibs_own_way(shared, yunet):
    """As ageitgey/face_recognition does it: HOG box, five points, network, all on the photo itself."""

    image = read(shared / "photos" / "detection1.jpg")
    box = dlib_files.frontal_detector()(image, 1)[0]
    points = dlib_files.predictor(5)(image, box)
    reference = np.array(dlib_files.embedding_network().compute_face_descriptor(image, points))
    ours = embedding(image, find_faces(image, yunet).faces[0])
    assert squared_distance(ours, reference) < 0.02


def test_embedding_does_not_mind_a_turned_photo(shared, yunet):
    image = read(shared / "photos" / "detection1.jpg")
    turned = np.ascontiguousarray(np.rot90(image))
    a = embedding(image, find_faces(image, yunet).faces[0])
    b = embedding(turned, find_faces(turned, yunet).faces[0])
    assert squared_distance(a, b) < 0.02


def test_squared_distance_and_similarity_by_hand():
    a, b = np.zeros(128), np.zeros(128)
    b[3], b[90] = 0.3, 0.4
    assert squared_distance(a, b) == pytest.approx(0.25)
    assert similarity_of(a, b) == pytest.approx(1 - 0.5 / 1.2)
    assert similarity_of(a, a) == 1 and similarity_of(a, b + 5) == 0
    assert similarity_of(a, np.eye(128)[0] * 0.6) == pytest.approx(SAME_PERSON)


def test_region_is_a_view_that_cannot_be_written(shared, yunet):
    image = read(shared / "photos" / "detection5.jpg").copy()
    found = find_faces(image, yunet).faces
    for face in found:
        region = region_of(image, face, found)
        x0, y0, x1, y1 = region.box
        assert region.pixels.shape == (y1 - y0, x1 - x0, 3)
        assert np.shares_memory(region.pixels, image) and not region.pixels.flags.writeable and image.flags.writeable
        assert (region.pixels == image[y0:y1, x0:x1]).all()
        assert face not in region.others
        # the head and room for a jaw that drops
        height = face.box[3] - face.box[1]
        assert x0 < face.box[0] - 0.1 * face.size and x1 > face.box[2] + 0.1 * face.size
        assert y0 < face.box[1] - 0.1 * height or y0 == 0
        assert y1 > face.box[3] + 0.25 * height or y1 == image.shape[0]
    assert len(region_of(image, found[1], found).others) == 2, "the child sits between its parents"


def test_region_ends_at_the_picture(shared):
    image = np.zeros((240, 400, 3), np.uint8)
    for x, y in ((5, 5), (395, 235), (200, 120), (-30, 100)):
        region = region_of(image, face_of(150, x, y))
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= 400 and 0 <= y0 < y1 <= 240
        assert all(isinstance(value, int) for value in region.box)
        assert region.image_size == (240, 400)


def test_region_turns_with_the_face():
    upright = face_of(100, 500, 500)
    image = np.zeros((1000, 1000, 3), np.uint8)
    _, y0, _, y1 = region_of(image, upright).box
    turned = Face(upright.box, 1.0, (upright.landmarks5 - 500) @ np.array([[0, 1], [-1, 0]]) + 500)
    x0, _, x1, _ = region_of(image, turned).box
    # turned clockwise by a quarter the chin points to the left
    assert 500 - x0 == pytest.approx(y1 - 500, abs=2) and x1 - 500 == pytest.approx(500 - y0, abs=2)


def test_pose_of_a_frontal_and_a_turned_face(shared, yunet):
    frontal = read(shared / "photos" / "pexels_neutral.jpeg")
    assert abs(pose_of(find_faces(frontal, yunet).faces[0]).yaw) < 15
    group = read(shared / "photos" / "pexels_group.jpeg")
    left, *_, right = (face for face in find_faces(group, yunet).faces if face.centre[1] > 280)
    assert pose_of(left).yaw > 20, "she looks to the right of the picture"
    assert pose_of(right).yaw < -20, "he looks to the left"
    face = left
    mirrored = face.landmarks68.copy()
    mirrored[:, 0] = 1000 - mirrored[:, 0]
    from_right = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    from_right += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    from_right += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    assert pose_of(with_landmarks(face, mirrored[from_right])).yaw == pytest.approx(-pose_of(face).yaw, abs=1)
