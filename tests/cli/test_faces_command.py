"""``exprtool faces`` as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner

from exprtool import hookimpl
from exprtool.cli.main import app
from exprtool.errors import UnknownNameError, UsageError
from exprtool.plugins import plugged_in
from exprtool.types import Detector, DetectorSpec


@pytest.fixture
def photos(shared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shutil.copy(shared / "photos" / "test-image-person-group.jpg", folder / "two.jpg")
    shutil.copy(shared / "photos" / "Family1-Mom1.jpg", folder / "more" / "one.jpg")
    return folder


@pytest.fixture
def faces(shared: Path):
    def run(*arguments: str | Path):
        model = shared / "models" / "face_detection_yunet.onnx"
        return CliRunner().invoke(app, ["faces", "--detector", f"yunet:{model}", *map(str, arguments)])

    return run


def records(result) -> dict[str, dict]:
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {Path(record["input"]).name: record for record in lines}


def test_json_has_a_line_for_every_photo(faces, photos):
    result = faces(photos, "--json")
    assert result.exit_code == 0, result.output
    found = records(result)
    assert {name: len(record["faces"]) for name, record in found.items()} == {"two.jpg": 2, "one.jpg": 1}
    first, second = found["two.jpg"]["faces"]
    assert first["box"][0] < second["box"][0] and [first["number"], second["number"]] == [1, 2]
    assert np.shape(first["landmarks68"]) == (68, 2) and np.shape(first["landmarks5"]) == (5, 2)
    assert first["detector"] == "yunet" and first["reason"] is None
    assert found["two.jpg"]["size"] == [532, 800]


def test_a_fault_in_a_detector_costs_its_photo_and_not_the_run(photos):
    class Faulty(Detector):
        def detect(self, image):
            if image.shape[1] > image.shape[0]:
                raise ZeroDivisionError("a fault in the plugin")
            return []

    class Plugin:
        @hookimpl
        def register_detectors(self, register):
            register(DetectorSpec("faulty", "", lambda device, argument: Faulty()))

    PillowImage.new("RGB", (100, 100)).save(photos / "square.png")
    with plugged_in("faulty", Plugin()):
        result = CliRunner().invoke(app, ["faces", "--detector", "faulty", str(photos), "--json", "-v"])
    assert result.exit_code == 1
    errors = {name: record["error"] for name, record in records(result).items()}
    assert "two.jpg: unexpected ZeroDivisionError" in errors["two.jpg"]
    assert "no face was found" in errors["square.png"]
    assert "Traceback" in result.stderr


def test_a_photo_without_a_face_is_named_and_the_others_are_done(faces, photos, shared):
    PillowImage.open(shared / "photos" / "no_face.jpg").resize((200, 190)).save(photos / "none.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    result = faces(photos, "--json")
    assert result.exit_code == 1
    found = records(result)
    assert len(found) == 4 and len(found["two.jpg"]["faces"]) == 2
    assert "no face was found" in found["none.png"]["error"] and found["none.png"]["tried"]
    assert "broken.jpg" in found["broken.jpg"]["error"]


def test_plain_lines_where_there_is_no_terminal(faces, photos):
    result = faces(photos / "two.jpg")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert "two.jpg" in result.stdout and "yunet" in result.stdout
    quiet = faces(photos / "two.jpg", "-q")
    assert quiet.exit_code == 0 and quiet.stdout == ""


def test_min_face_leaves_faces_out_with_the_reason(faces, photos):
    result = faces(photos / "two.jpg", "--json", "--min-face", "5000")
    assert result.exit_code == 1
    (record,) = records(result).values()
    assert "5000" in record["error"] and all("too small" in face["reason"] for face in record["faces"])


def test_crops_and_drawings_keep_the_tree(faces, photos, tmp_path):
    crops, drawings = tmp_path / "crops", tmp_path / "drawings"
    result = faces(photos, "--json", "--crops", crops, "--size", "96", "--draw", drawings)
    assert result.exit_code == 0, result.output
    names = {str(path.relative_to(crops)) for path in crops.rglob("*.png")}
    assert names == {"two-1.png", "two-2.png", str(Path("more", "one-1.png"))}
    assert all(PillowImage.open(path).size == (96, 96) for path in crops.rglob("*.png"))
    drawn = np.asarray(PillowImage.open(drawings / "two-faces.png"))
    original = np.asarray(PillowImage.open(photos / "two.jpg"))
    assert drawn.shape == original.shape and (drawn != original).any()
    changed = (drawn != original).any(axis=-1)
    assert changed.mean() < 0.2, "only boxes, points and labels are drawn"
    assert records(result)["two.jpg"]["crops"] == [str(crops / "two-1.png"), str(crops / "two-2.png")]
    again = faces(photos, "--json", "--crops", crops)
    assert again.exit_code == 1 and "--overwrite" in records(again)["two.jpg"]["error"]
    assert faces(photos, "--json", "--crops", crops, "--overwrite").exit_code == 0


def test_photos_of_one_name_do_not_collide(faces, photos, tmp_path):
    PillowImage.open(photos / "two.jpg").save(photos / "two.png")
    result = faces(photos, "--json", "--crops", tmp_path / "crops", "--size", "32")
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / "crops").rglob("*.png")}
    assert names == {"two.jpg-1.png", "two.jpg-2.png", "two.png-1.png", "two.png-2.png", "one-1.png"}


def test_inputs_are_never_written_over(faces, photos):
    PillowImage.open(photos / "two.jpg").save(photos / "two-1.png")
    before = (photos / "two-1.png").read_bytes()
    result = faces(photos / "two.jpg", photos / "two-1.png", "--json", "--crops", photos, "--overwrite")
    assert result.exit_code == 1
    assert (photos / "two-1.png").read_bytes() == before


def test_requests_that_cannot_be_carried_out(faces, photos, tmp_path):
    assert isinstance(faces(tmp_path / "nothing").exception, UsageError)
    assert isinstance(faces(photos, "--crops", tmp_path / "x", "--draw", tmp_path / "x").exception, UsageError)
    assert isinstance(faces(photos, "--crops", photos / "two.jpg").exception, UsageError)
    unknown = CliRunner().invoke(app, ["faces", str(photos), "--detector", "dlip"])
    assert isinstance(unknown.exception, UnknownNameError) and "dlib" in str(unknown.exception)


def test_the_drawing_says_what_the_backend_leaves_alone(tmp_path: Path, fakes) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (200, 300, 3), dtype=np.uint8)
    PillowImage.fromarray(noise).save(tmp_path / "a.png")
    arguments = ["faces", str(tmp_path / "a.png"), "--detector", "middle", "--backend", "picky", "--json"]
    drawn = CliRunner().invoke(app, [*arguments, "--draw", str(tmp_path / "drawn")])
    (face,) = json.loads(drawn.stdout)["faces"]
    assert drawn.exit_code == 0 and face["left_alone"] == "stands too far left" and face["reason"] is None
    with PillowImage.open(tmp_path / "drawn/a-faces.png") as with_reason:
        labelled = np.asarray(with_reason).astype(int)
    CliRunner().invoke(app, [*arguments[:-2], "green", "--draw", str(tmp_path / "plain")])
    with PillowImage.open(tmp_path / "plain/a-faces.png") as plain:
        assert (labelled != np.asarray(plain)).any(), "the reason stands in the picture"
    assert json.loads(CliRunner().invoke(app, arguments).stdout)["faces"][0]["left_alone"] is None, "nobody was asked"
