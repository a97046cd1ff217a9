"""Which pictures a data root holds, what they show and who is on them; no picture is opened here."""

from __future__ import annotations

from pathlib import Path

import pytest

from exprtool.errors import DataError
from exprtool_training.data import ScanOptions, scan
from exprtool_training.data.names import cfee, kdef, rafd, read_name
from exprtool_training.data.prepare import split_of
from exprtool_training.data.splits import TEST, TRAIN, side_of, split_people


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_kdef_names_tell_session_person_expression_and_angle() -> None:
    name = kdef("AF01ANS")
    assert name is not None
    assert (name.person, name.expression, name.angle, name.session) == ("kdef-F01", "angry", 0, "A")
    other = kdef("bm35sufl")
    assert other is not None
    assert (other.person, other.expression, other.angle, other.session) == ("kdef-M35", "surprised", -90, "B")


def test_kdef_women_and_men_of_one_number_are_two_people_and_sessions_one() -> None:
    people = {stem: read_name(stem) for stem in ("AF01NES", "BF01NES", "AM01NES")}
    assert people["AF01NES"].person == people["BF01NES"].person  # type: ignore[union-attr]
    assert people["AF01NES"].person != people["AM01NES"].person  # type: ignore[union-attr]


def test_rafd_names_tell_camera_person_expression_and_gaze() -> None:
    name = rafd("Rafd135_01_Caucasian_female_fearful_left")
    assert name is not None
    assert (name.person, name.expression, name.angle, name.gaze) == ("rafd-01", "afraid", 45, "left")
    contempt = rafd("Rafd090_05_Moroccan_male_contemptuous_frontal")
    assert contempt is not None
    assert contempt.expression is None and contempt.left_out == "contempt"


def test_cfee_names_tell_expression_and_person() -> None:
    name = cfee("02_339_3470")
    assert name is not None and (name.person, name.expression) == ("cfee-339", "happy")
    compound = cfee("12_339_3471")
    assert compound is not None and compound.expression is None
    assert cfee("27_339_3471") is None, "CFEE has no expression 27"
    other = cfee("04_101_11", {"04": "afraid"})
    assert other is not None and other.expression == "afraid"


@pytest.mark.parametrize(
    "stem", ["001", "IMG_0001", "AF01XXS", "Rafd091_01_Caucasian_female_angry_frontal", "AF01ANSX"]
)
def test_other_names_are_left_to_the_folders(stem: str) -> None:
    assert read_name(stem) is None


def test_data_sets_are_read_by_file_name_frontal_only(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "KDEF/AF01/AF01ANS.JPG",
        "KDEF/AF01/AF01ANHL.JPG",
        "RaFD/Rafd090_01_Caucasian_female_angry_frontal.jpg",
        "RaFD/Rafd090_01_Caucasian_female_angry_left.jpg",
        "RaFD/Rafd045_01_Caucasian_female_angry_frontal.jpg",
        "RaFD/Rafd090_01_Caucasian_female_contemptuous_frontal.jpg",
        "CFEE/Images1/01_126_3963.jpg",
        "CFEE/Images5/20_206_9936.jpg",
    )
    found = scan([tmp_path])
    assert [(s.dataset, s.expression, s.person) for s in found.sources] == [
        ("CFEE", "neutral", "cfee-126"),
        ("KDEF", "angry", "kdef-F01"),
        ("RaFD", "angry", "rafd-01"),
    ]
    assert any("contempt" in reason and count == 1 for reason, count in found.left_out.items())
    assert sum(found.left_out.values()) == 5
    everything = scan([tmp_path], ScanOptions(all_angles=True, all_gazes=True))
    assert len(everything.sources) == 6


def test_kdef_is_one_session_unless_told(tmp_path: Path) -> None:
    """35 women and 35 men with 7 expressions from the front are the paper's 490 pictures; two sessions would be 980."""
    codes = ("AF", "AN", "DI", "HA", "NE", "SA", "SU")
    names = [f"{s}{x}{n:02d}{c}S.JPG" for s in "AB" for x in "FM" for n in range(1, 36) for c in codes]
    root = touch(tmp_path / "KDEF", *names)
    found = scan([root])
    assert len(found.sources) == 490 and len({s.person for s in found.sources}) == 70
    ((reason, count),) = found.left_out.items()
    assert count == 490 and "--all-sessions" in reason
    assert len(scan([root], ScanOptions(all_sessions=True)).sources) == 980


def test_a_validation_folder_is_one_beside_a_test_folder_and_the_test_set_alone(tmp_path: Path) -> None:
    root = touch(tmp_path / "faces", "train/happy/a.jpg", "val/happy/b.jpg", "test/happy/c.jpg")
    given = {s.person: s.split for s in scan([root]).sources}
    assert given == {"faces/a": "train", "faces/b": "validation", "faces/c": "test"}
    assert split_of(scan([root]).sources, 0.1, 0)[0] == given
    (root / "test" / "happy" / "c.jpg").unlink()
    assert split_of(scan([root]).sources, 0.1, 0)[0] == {"faces/a": "train", "faces/b": "test"}


def test_folders_are_read_by_any_alias_and_people_by_file_name(tmp_path: Path) -> None:
    root = touch(tmp_path / "faces", "anger/001.jpg", "AF/001.jpg", "Happy/002.png", "notes.txt")
    found = scan([root])
    assert {(s.expression, s.person) for s in found.sources} == {
        ("angry", "faces/001"),
        ("afraid", "faces/001"),
        ("happy", "faces/002"),
    }


def test_folders_above_or_below_the_expression_name_the_person(tmp_path: Path) -> None:
    root = touch(tmp_path / "faces", "ann/happy/1.jpg", "sad/ben/7.jpg", "sad/ben/8.jpg")
    assert [s.person for s in scan([root]).sources] == ["faces/ann", "faces/ben", "faces/ben"]


def test_split_folders_decide_the_side(tmp_path: Path) -> None:
    root = touch(tmp_path / "faces", "train/happy/1.jpg", "test/happy/2.jpg")
    assert {s.person: s.split for s in scan([root]).sources} == {"faces/1": "train", "faces/2": "test"}


def test_a_pattern_finds_the_person(tmp_path: Path) -> None:
    root = touch(tmp_path / "faces", "happy/s01-take2.jpg")
    assert scan([root], ScanOptions(person_pattern=r"^(s\d+)")).sources[0].person == "faces/s01"
    with pytest.raises(DataError, match=r"finds nobody in s01-take2\.jpg"):
        scan([root], ScanOptions(person_pattern=r"^(x\d+)"))


def test_roots_that_are_expression_folders_share_their_people(tmp_path: Path) -> None:
    touch(tmp_path / "faces", "happy/1.jpg", "sad/1.jpg")
    found = scan([tmp_path / "faces" / "happy", tmp_path / "faces" / "sad"])
    assert {s.person for s in found.sources} == {"faces/1"}


def test_the_same_number_in_two_data_sets_is_two_people(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "a", "happy/1.jpg"), touch(tmp_path / "b", "happy/1.jpg")
    assert len({s.person for s in scan([a, b]).sources}) == 2


def test_a_folder_that_is_no_expression_is_refused_with_what_is_known(tmp_path: Path) -> None:
    root = touch(tmp_path / "faces", "happy/1.jpg", "bored/2.jpg")
    with pytest.raises(DataError) as caught:
        scan([root])
    assert "bored" in str(caught.value) and "surprised" in str(caught.value) and "--ignore" in str(caught.value)
    assert len(scan([root], ScanOptions(ignore=("bored/*",))).sources) == 1
    assert len(scan([root], ScanOptions(labelled=False)).sources) == 2
    free = scan([root], ScanOptions(free_labels=True))
    assert {s.expression for s in free.sources} == {"happy", "bored"}


def test_csv_rows_are_read_with_given_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table = tmp_path / "list.csv"
    table.write_text("path,expression,person,split\na.jpg,fear,ann,train\nb.jpg,joy,ben,test\nc.jpg,contempt,ben,\n")
    found = scan([table])
    assert [(s.expression, s.split) for s in found.sources] == [("afraid", "train"), ("happy", "test")]
    assert sum(found.left_out.values()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na.jpg,happy\n", "no column path, person, expression"),
        ("path,expression,person\nmissing.jpg,happy,ann\n", "line 2"),
        ("path,expression,person\na.jpg,bored,ann\n", "Unknown expression 'bored'"),
        ("path,expression,person\na.jpg,happy,\n", "person is missing"),
        ("path,expression,person,split\na.jpg,happy,ann,maybe\n", "validation or test"),
    ],
)
def test_a_bad_csv_says_where(tmp_path: Path, text: str, says: str) -> None:
    touch(tmp_path, "a.jpg")
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=says):
        scan([table])


def test_roots_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        scan([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="holds no pictures"):
        scan([touch(tmp_path / "empty", "readme.txt")])
    with pytest.raises(DataError, match="neither a folder nor a CSV"):
        scan([touch(tmp_path, "one.jpg") / "one.jpg"])
    with pytest.raises(DataError, match="No data"):
        scan([])
    left = touch(tmp_path / "contempt", "Rafd090_01_Caucasian_female_contemptuous_frontal.jpg")
    with pytest.raises(DataError, match="1 were left out"):
        scan([left])


def test_the_split_is_by_person_and_does_not_move_when_people_are_added() -> None:
    few = split_people([f"p{i}" for i in range(200)])
    more = split_people([f"p{i}" for i in range(400)])
    assert all(more[name] == side for name, side in few.items())
    share = sum(side == TEST for side in more.values()) / len(more)
    assert 0.06 < share < 0.14
    assert split_people(few, seed=1) != few


def test_a_split_of_few_people_leaves_neither_side_empty() -> None:
    for count in range(2, 12):
        for seed in range(5):
            sides = split_people([f"p{i}" for i in range(count)], seed=seed)
            assert set(sides.values()) == {TRAIN, TEST}
    assert set(split_people(["a", "b"], test_fraction=0).values()) == {TRAIN}
    assert side_of("a", test_fraction=0) == TRAIN
