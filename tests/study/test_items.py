"""Where pictures come from: folders of any tool, our own backends, and what is missing in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from exprtool.cli.main import app
from exprtool.errors import DataError, UsageError
from exprtool.study.items import gather, parse_methods

from .conftest import picture

runner = CliRunner()


def fill(folder: Path, *names: str, side: tuple[int, int] = (40, 30)) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(picture(hash(folder.name) % 1000 + i, 40)[: side[0], : side[1]]).save(folder / name)
    return folder


def test_finished_pictures_are_matched_by_their_inputs_name(tmp_path):
    faces = fill(tmp_path / "in", "1.png", "2.png", "3.png")
    a = fill(tmp_path / "a", "sad/1.png", "happy/2.png", "3-angry.png")
    b = fill(tmp_path / "b", "sad/1.jpg", "happy/2.jpg", "3-angry.jpg")
    got = gather(faces, {"A": str(a), "B": str(b)}, count=3, checks=0, whole=True)
    assert sorted((i.key, i.expression) for i in got.items) == [
        ("3-angry", "angry"), ("happy/2", "happy"), ("sad/1", "sad")
    ]  # fmt: skip
    assert not got.notes
    again = gather(faces, {"A": str(a), "B": str(b)}, count=3, checks=0, whole=True)
    assert [i.key for i in again.items] == [i.key for i in got.items], "the order follows from the seed"
    one = got.items[0]
    assert one.original.shape == one.answers["A"].shape == (30, 30, 3), "the middle square, no larger than it is"


def test_missing_cells_are_left_out_and_said(tmp_path):
    faces = fill(tmp_path / "in", *(f"{n}.png" for n in range(5)))
    a = fill(tmp_path / "a", *(f"{n}.png" for n in range(5)))
    b = fill(tmp_path / "b", *(f"{n}.png" for n in range(3)))
    got = gather(faces, {"A": str(a), "B": str(b)}, expressions=["sad"], count=3, checks=0, whole=True)
    assert {i.key for i in got.items} == {"0", "1", "2"}
    assert got.notes == ("B has no picture of 3, 4; left out.",)
    with pytest.raises(DataError, match=r"Only 3 of the 4 .*B has no picture of 3, 4"):
        gather(faces, {"A": str(a), "B": str(b)}, expressions=["sad"], count=4, checks=0, whole=True)


def test_a_spoiled_or_stretched_picture_costs_its_face_only(tmp_path):
    faces = fill(tmp_path / "in", *(f"{n}.png" for n in range(4)))
    a = fill(tmp_path / "a", *(f"sad/{n}.png" for n in range(4)))
    b = fill(tmp_path / "b", *(f"sad/{n}.png" for n in range(3)))
    fill(tmp_path / "b", "sad/3.png", side=(40, 40))
    (a / "sad" / "1.png").write_bytes(b"not a picture")
    got = gather(faces, {"A": str(a), "B": str(b)}, count=2, checks=0, whole=True)
    assert {i.key for i in got.items} == {"sad/0", "sad/2"}
    with pytest.raises(DataError, match="different proportions") as caught:
        gather(faces, {"A": str(a), "B": str(b)}, count=4, checks=0, whole=True)
    assert "sad/1" in str(caught.value)


def test_names_that_tell_no_expression_need_one(tmp_path):
    faces = fill(tmp_path / "in", "1.png")
    methods = {"A": str(fill(tmp_path / "a", "1.png")), "B": str(fill(tmp_path / "b", "1.png"))}
    with pytest.raises(DataError, match=r"expression is unknown.*--expr"):
        gather(faces, methods, count=1, checks=0, whole=True)
    assert gather(faces, methods, expressions=["sad"], count=1, checks=0, whole=True).items[0].expression == "sad"


def test_backends_are_asked_for_every_expression_in_turn(tmp_path, fakes):
    faces = fill(tmp_path / "in", *(f"{n}.png" for n in range(6)), side=(40, 40))
    got = gather(faces, {"one": "green", "two": "green"}, count=4, checks=2, detector="middle", seed=1)
    assert len({i.expression for i in (*got.items, *got.checks)}) == 6, "six faces, six expressions"
    assert len({i.key.split()[0] for i in (*got.items, *got.checks)}) == 6, "checks show other faces"
    side = got.items[0].original.shape[0]
    assert 30 < side < 40, "the square about the face, not the whole"
    assert got.items[0].answers["one"][side // 2, side // 2].tolist() == [0, 200, 0]


def test_methods_are_named_once(tmp_path):
    assert parse_methods(["A=x/y", "blendshape"]) == {"A": "x/y", "blendshape": "blendshape"}
    for texts, says in ((["A=x", "A=y"], "called 'A'"), (["=x"], "NAME=FOLDER"), (["A="], "NAME=FOLDER")):
        with pytest.raises(UsageError, match=says):
            parse_methods(texts)


def test_the_command_writes_page_and_key_apart_and_overwrites_nothing(tmp_path):
    faces = fill(tmp_path / "in", *(f"{n}.png" for n in range(4)))
    arguments = [
        "study", "make", str(faces), "--whole", "-n", "3", "--checks", "1", "-o", str(tmp_path / "s.html"),
        "-m", f"Ours={fill(tmp_path / 'a', *(f'sad/{n}.png' for n in range(4)))}",
        "-m", f"Theirs={fill(tmp_path / 'b', *(f'sad/{n}.png' for n in range(4)))}",
    ]  # fmt: skip
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    key = json.loads((tmp_path / "s.key.json").read_text())
    assert key["methods"] == ["Ours", "Theirs"] and len(key["trials"]) == 4
    assert "Ours" not in (tmp_path / "s.html").read_text()
    again = runner.invoke(app, arguments)
    assert isinstance(again.exception, UsageError) and "--overwrite" in str(again.exception)
    few = runner.invoke(app, ["study", "make", str(faces), "-m", "A=a"])
    assert isinstance(few.exception, UsageError) and "2 to 9" in str(few.exception)


def test_inputs_are_never_changed(tmp_path):
    faces = fill(tmp_path / "in", "1.png")
    before = (faces / "1.png").read_bytes()
    methods = {"A": str(fill(tmp_path / "a", "sad/1.png")), "B": str(fill(tmp_path / "b", "sad/1.png"))}
    got = gather(faces, methods, count=1, checks=1, whole=True)
    assert (faces / "1.png").read_bytes() == before
    assert np.array_equal(got.checks[0].original, got.items[0].original), "with nothing to spare a face comes twice"
