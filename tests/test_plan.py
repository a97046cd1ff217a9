"""Every output is settled, or refused, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exprtool.errors import UsageError
from exprtool.plan import Input, Output, expand_inputs, plan_outputs

SUFFIXES = frozenset({".jpg", ".png"})


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def plan(inputs: list[Input], labels: list[str], output: str | None, **options) -> list[Output]:
    return plan_outputs(inputs, labels, output, suffixes=SUFFIXES, **options)


def test_folders_are_searched_in_order_without_hidden_files_and_the_output(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", "sub/c.jpg", "note.txt", ".hidden.jpg", ".git/d.jpg", "out/e.jpg")
    found = expand_inputs([str(tmp_path)], SUFFIXES, exclude=tmp_path / "out")
    assert [item.relative.as_posix() for item in found] == ["a.PNG", "b.jpg", "sub/c.jpg"]


def test_a_file_named_itself_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "photo.xyz")
    assert expand_inputs([str(tmp_path / "photo.xyz")], SUFFIXES)[0].path == tmp_path / "photo.xyz"


def test_globs_and_repeats(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.txt", "[x].jpg")
    found = expand_inputs([str(tmp_path / "*.jpg"), str(tmp_path / "a.jpg"), str(tmp_path / "[x].jpg")], SUFFIXES)
    assert sorted(item.path.name for item in found if item.path) == ["[x].jpg", "a.jpg", "b.jpg"]


@pytest.mark.parametrize("argument", ["missing.jpg", "empty", "*.jpg"])
def test_nothing_to_work_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=r"missing\.jpg|empty|\*\.jpg"):
        expand_inputs([argument], SUFFIXES)


def test_names_that_no_file_can_have_and_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    touch(tmp_path, "x" * 250 + ".jpg")
    found = expand_inputs([str(tmp_path)], SUFFIXES)
    assert len(found) == 3, "what cannot be read is for the reader to report"
    assert len(plan(found, ["happy"], None)) == 3
    assert len(plan(expand_inputs([str(tmp_path / ("x" * 250 + ".jpg"))], SUFFIXES), ["happy"], None)) == 1
    with pytest.raises(UsageError, match="no such file"):
        expand_inputs(["x" * 5000], SUFFIXES)


def test_a_folder_that_may_not_be_looked_into_is_told_from_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", locked)
    with pytest.raises(UsageError, match="permissions"):
        expand_inputs(["locked/a.jpg"], SUFFIXES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_pipes_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    assert [item.path.name for item in expand_inputs([str(tmp_path)], SUFFIXES) if item.path] == ["a.jpg"]
    for named in (tmp_path / "b.jpg", Path("/dev/zero")):  # reading them might never end
        with pytest.raises(UsageError, match=r"pipe or a device.* - for standard input"):
            expand_inputs([str(named)], SUFFIXES)


def test_outputs_stand_beside_the_inputs_by_default(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "photos/sub/b.jpg")
    inputs = expand_inputs([str(tmp_path / "a.jpg"), str(tmp_path / "photos")], SUFFIXES)
    paths = [item.path.relative_to(tmp_path).as_posix() for item in plan(inputs, ["happy", "sad"], None) if item.path]
    assert paths == ["a-happy.jpg", "a-sad.jpg", "photos-happy/sub/b.jpg", "photos-sad/sub/b.jpg"]


def test_the_current_folder_gets_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/b.jpg")
    monkeypatch.chdir(tmp_path / "photos")
    (output,) = plan(expand_inputs(["."], SUFFIXES), ["happy"], None)
    assert output.path == tmp_path / "photos-happy" / "b.jpg"


def test_an_output_folder_keeps_the_tree_and_splits_by_expression(tmp_path: Path) -> None:
    touch(tmp_path, "photos/sub/b.jpg")
    inputs = expand_inputs([str(tmp_path / "photos")], SUFFIXES)
    out = tmp_path / "out"
    assert [item.path for item in plan(inputs, ["happy"], str(out))] == [out / "sub/b.jpg"]
    assert [item.path for item in plan(inputs, ["happy", "sad"], str(out), suffix=".png")] == [
        out / "happy/sub/b.png",
        out / "sad/sub/b.png",
    ]


def test_one_photo_may_name_its_output_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    inputs = expand_inputs([str(tmp_path / "a.jpg")], SUFFIXES)
    assert plan(inputs, ["happy"], str(tmp_path / "x.png"))[0].path == tmp_path / "x.png"
    assert plan(inputs, ["happy"], str(tmp_path / "folder"))[0].path == tmp_path / "folder" / "a.jpg"
    with pytest.raises(UsageError, match="format"):
        plan(inputs, ["happy"], str(tmp_path / "x.png"), suffix=".jpg")


def test_several_photos_do_not_fit_into_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    inputs = expand_inputs([str(tmp_path)], SUFFIXES)
    with pytest.raises(UsageError, match="several"):
        plan(inputs, ["happy"], str(tmp_path / "x.png"))
    with pytest.raises(UsageError, match="several"):
        plan(expand_inputs([str(tmp_path / "a.jpg")], SUFFIXES), ["happy", "sad"], str(tmp_path / "x.png"))
    (tmp_path / "album.png").mkdir()
    assert plan(inputs, ["happy"], str(tmp_path / "album.png"))[0].path == tmp_path / "album.png" / "a.jpg"
    assert plan(inputs, ["happy"], str(tmp_path / "new.png") + "/")[0].path == tmp_path / "new.png" / "a.jpg"


def test_streams(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    stdin = expand_inputs(["-"], SUFFIXES)
    assert plan(stdin, ["happy"], "-")[0].path is None
    assert plan(stdin, ["happy"], str(tmp_path / "x.png"))[0].path == tmp_path / "x.png"
    for output in (None, str(tmp_path)):
        with pytest.raises(UsageError):
            plan(stdin, ["happy"], output)
    with pytest.raises(UsageError):
        plan(expand_inputs(["-", str(tmp_path / "a.jpg")], SUFFIXES), ["happy"], "-")
    with pytest.raises(UsageError):
        plan(stdin, ["happy", "sad"], "-")


def test_two_inputs_for_one_output_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "one/A.png")
    both = expand_inputs([str(tmp_path / "one"), str(tmp_path / "two")], SUFFIXES)
    with pytest.raises(UsageError, match=r"one/a\.jpg and .*two/a\.jpg"):
        plan(both, ["happy"], str(tmp_path / "out"))
    with pytest.raises(UsageError, match="both be written"):
        plan(expand_inputs([str(tmp_path / "one")], SUFFIXES), ["happy"], str(tmp_path / "out"), suffix=".png")


def test_an_input_is_never_an_output(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a-happy.jpg")
    inputs = expand_inputs([str(tmp_path)], SUFFIXES)
    with pytest.raises(UsageError, match="is an input"):
        plan(inputs, ["happy"], str(tmp_path), existing="overwrite")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is an input"):
        plan(inputs, ["happy"], str(tmp_path / "link"), existing="overwrite")


def test_existing_outputs_are_refused_unless_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a-happy.jpg")
    inputs = expand_inputs([str(tmp_path / "a.jpg")], SUFFIXES)
    with pytest.raises(UsageError, match=r"--skip-existing.*--overwrite"):
        plan(inputs, ["happy"], None)
    for policy in ("overwrite", "skip"):
        assert len(plan(inputs, ["happy"], None, existing=policy)) == 1


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
def test_outputs_that_are_links_are_refused_unless_they_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "there.jpg").touch()
    inputs, out = expand_inputs([str(tmp_path / "a.jpg")], SUFFIXES), tmp_path / "a-happy.jpg"
    for leads_to, policies in (
        (tmp_path / "later.jpg", ("refuse", "skip", "overwrite")),
        (tmp_path / "there.jpg", ("refuse", "overwrite")),
    ):
        out.symlink_to(leads_to)
        for policy in policies:
            with pytest.raises(UsageError, match=r"a-happy\.jpg is a symbolic link.*-o"):
                plan(inputs, ["happy"], None, existing=policy)
        out.unlink()
    out.symlink_to(tmp_path / "there.jpg")
    assert [item.path for item in plan(inputs, ["happy"], None, existing="skip")] == [out]
