"""``exprtool data check`` finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image as Pillow

from exprtool_training.data.check import check


def kinds(root: Path, **options: object) -> dict[str, list[tuple[str, ...]]]:
    report = check([root], workers=1, **options)  # type: ignore[arg-type]
    found: dict[str, list[tuple[str, ...]]] = {}
    for problem in report.problems:
        found.setdefault(problem.kind, []).append(tuple(name.split("/", 1)[1] for name in problem.pictures))
    return found


def recompressed(data: bytes, side: int = 300) -> bytes:
    buffer = io.BytesIO()
    Pillow.open(io.BytesIO(data)).resize((side, side)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


@pytest.fixture
def root(portraits: dict[str, dict[str, bytes]], tmp_path: Path) -> Path:
    """Two people on each side of a split that the folders give, both expressions."""
    root = tmp_path / "faces"
    for side, people in (("train", ("001", "002")), ("test", ("004",))):
        for expression in ("neutral", "happy"):
            folder = root / side / expression
            folder.mkdir(parents=True)
            for person in people:
                (folder / f"{person}.jpg").write_bytes(portraits[expression][person])
    return root


def test_sound_data_raises_no_problem(root: Path) -> None:
    assert kinds(root) == {}


def test_files_that_cannot_be_read_or_show_no_face(root: Path) -> None:
    (root / "train" / "happy" / "003.png").write_bytes(b"\n")
    blank = io.BytesIO()
    Pillow.new("RGB", (200, 200), (90, 120, 90)).save(blank, "PNG")
    (root / "train" / "happy" / "005.png").write_bytes(blank.getvalue())
    found = kinds(root)
    assert found["unreadable"] == [("train/happy/003.png",)]
    assert found["no-face"] == [("train/happy/005.png",)]


def test_two_faces_of_one_size_and_a_face_that_is_too_small(root: Path, portraits: dict[str, dict[str, bytes]]) -> None:
    one, two = (Pillow.open(io.BytesIO(portraits["happy"][person])) for person in ("016", "019"))
    both = Pillow.new("RGB", (640, 320))
    both.paste(one, (0, 0))
    both.paste(two, (320, 0))
    both.save(root / "train" / "happy" / "pair.jpg", quality=92)
    found = kinds(root, size=512)
    assert found["several-faces"] == [("train/happy/pair.jpg",)]
    assert len(found["small-face"]) == 6


def test_exact_and_near_duplicates(root: Path, portraits: dict[str, dict[str, bytes]]) -> None:
    (root / "train" / "happy" / "copy.jpg").write_bytes(portraits["happy"]["001"])
    (root / "train" / "neutral" / "again.jpg").write_bytes(recompressed(portraits["neutral"]["002"]))
    (root / "train" / "happy" / "leak.jpg").write_bytes(recompressed(portraits["happy"]["004"]))
    found = kinds(root, faces=False)
    assert found["duplicate"] == [("train/happy/001.jpg", "train/happy/copy.jpg")]
    assert found["near-duplicate"] == [("train/neutral/002.jpg", "train/neutral/again.jpg")]
    assert found["near-duplicate-across-splits"] == [("test/happy/004.jpg", "train/happy/leak.jpg")]


def test_one_picture_under_two_labels_is_an_error(root: Path, portraits: dict[str, dict[str, bytes]]) -> None:
    (root / "train" / "neutral" / "001b.jpg").write_bytes(portraits["happy"]["001"])
    report = check([root], faces=False, workers=1)
    (problem,) = [problem for problem in report.problems if problem.kind == "duplicate"]
    assert problem.severity == "error" and "different labels (happy, neutral)" in problem.message
    assert not report.ok


def test_one_person_on_both_sides(root: Path, portraits: dict[str, dict[str, bytes]]) -> None:
    (root / "test" / "happy" / "001.jpg").write_bytes(portraits["happy"]["016"])
    found = kinds(root, faces=False)
    assert "person-in-both-splits" in found


def test_one_person_under_two_names_is_found_by_the_face(root: Path, portraits: dict[str, dict[str, bytes]]) -> None:
    assert "same-person-suspected" not in kinds(root, identities=True)
    for person, expression in (("other", "neutral"), ("another", "happy")):
        (root / "test" / expression / f"{person}.jpg").write_bytes(portraits[expression]["002"][:-2] + b"\xff\xd9\x00")
    suspected = kinds(root, identities=True)["same-person-suspected"]
    assert any("002" in train and "other" in test for train, test in suspected)


def test_classes_that_are_missing_or_rare(root: Path) -> None:
    (root / "test" / "happy" / "004.jpg").unlink()
    assert "class-missing" in kinds(root, faces=False)
    for picture in (root / "train" / "happy").iterdir():
        picture.unlink()
    found = check([root], faces=False, workers=1)
    assert [problem.kind for problem in found.problems] == ["one-class"]


def test_the_command_reports_and_exits(root: Path) -> None:
    from typer.testing import CliRunner

    from exprtool.cli.main import app

    runner = CliRunner()
    good = runner.invoke(app, ["data", "check", str(root), "--no-faces"])
    assert good.exit_code == 0 and "Nothing stands against training" in good.stdout
    (root / "train" / "happy" / "bad.jpg").write_bytes(b"no picture")
    bad = runner.invoke(app, ["data", "check", str(root), "--no-faces", "--json"])
    assert bad.exit_code == 1
    report = json.loads(bad.stdout)
    assert report["ok"] is False and report["problems"][0]["kind"] == "unreadable"
    assert report["counts"]["train"] == {"neutral": 2, "happy": 3}


def test_prepare_command_prints_counts_and_can_be_repeated(root: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from exprtool.cli.main import app

    for _ in range(2):
        done = CliRunner().invoke(
            app, ["data", "prepare", str(root), "-o", str(tmp_path / "out"), "--workers", "1", "--json"]
        )
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["summary"]["pictures"] == 6
