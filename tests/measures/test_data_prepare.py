"""Photos become crops: aligned, split by person, resumable; and what cannot be used is said, not dropped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exprtool.errors import DataError
from exprtool.faces.align import US_GAN_TEMPLATE
from exprtool_training.data import PreparedSet, PrepareOptions, ScanOptions, load_prepared, prepare, read_prepared
from exprtool_training.data.prepare import Cropper
from exprtool_training.data.prepared import MANIFEST
from exprtool_training.data.sources import Source


def test_crops_have_eyes_and_mouth_where_the_template_says(prepared: PreparedSet) -> None:
    assert prepared.images.shape == (12, 128, 128, 3) and prepared.images.dtype == np.uint8
    assert prepared.template == US_GAN_TEMPLATE
    assert prepared.landmarks is not None
    eyes = np.stack([prepared.landmarks[:, 36:42].mean(axis=1), prepared.landmarks[:, 42:48].mean(axis=1)], axis=1)
    wanted = US_GAN_TEMPLATE.points(128)[:2]
    assert np.abs(eyes - wanted).mean() < 3, "pixels, on average over people"


def test_labels_people_and_split(prepared: PreparedSet) -> None:
    assert prepared.label_names == ("neutral", "happy")
    assert np.bincount(prepared.labels).tolist() == [6, 6]
    train = {prepared.people[i] for i in prepared.train}
    test = {prepared.people[i] for i in prepared.test}
    assert train and test and not train & test
    assert prepared.counts()["test"]["happy"] == len(test)
    prepared.require(batch=2)


def test_the_manifest_names_every_source_by_its_content(prepared: PreparedSet, faces_root: Path) -> None:
    import hashlib

    sample = prepared.manifest["samples"][0]
    name = sample["source"].split("/", 1)[1]
    assert sample["sha256"] == hashlib.sha256((faces_root / name).read_bytes()).hexdigest()
    assert prepared.manifest["split"]["by"] == "person"


def test_the_hash_is_of_content_not_of_place(prepared: PreparedSet, faces_root: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "faces"
    shutil.copytree(faces_root, root)
    again = prepare([root], tmp_path / "out", PrepareOptions(test_fraction=0.3), workers=1)
    assert again.manifest_hash == prepared.manifest_hash
    assert np.array_equal(again.images, prepared.images)


def test_a_killed_run_is_taken_up_where_it_stood(
    faces_root: Path, tmp_path: Path, prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:

    class PowerCut(BaseException):
        pass

    work = Cropper.__call__
    calls: list[str] = []

    def failing(self: Cropper, source: Source):  # type: ignore[no-untyped-def]
        if len(calls) == 5:
            raise PowerCut
        calls.append(source.name)
        return work(self, source)

    options, out = PrepareOptions(test_fraction=0.3), tmp_path / "out"
    monkeypatch.setattr(Cropper, "__call__", failing)
    with pytest.raises(PowerCut):
        prepare([faces_root], out, options, workers=1)
    assert not (out / MANIFEST).exists()
    with (out / "journal.jsonl").open("a") as journal:
        journal.write('{"file": "torn li')  # as a crash leaves it
    rest: list[str] = []
    monkeypatch.setattr(Cropper, "__call__", lambda self, source: rest.append(source.name) or work(self, source))
    done = prepare([faces_root], out, options, workers=1)
    assert len(rest) == 7 and not set(rest) & set(calls)
    assert done.manifest_hash == prepared.manifest_hash
    assert prepare([faces_root], out, options, workers=1).manifest_hash == prepared.manifest_hash
    assert len(rest) == 7, "nothing was done twice"


def test_pictures_that_cannot_be_used_are_listed_with_the_reason(
    portraits: dict[str, dict[str, bytes]], drawing: Callable[..., bytes], tmp_path: Path
) -> None:
    root = tmp_path / "faces"
    (root / "happy").mkdir(parents=True)
    (root / "happy" / "good.jpg").write_bytes(portraits["happy"]["001"])
    (root / "happy" / "cut.jpg").write_bytes(portraits["happy"]["002"][:4000])
    (root / "happy" / "newline.png").write_bytes(b"\n")
    (root / "happy" / "disc.png").write_bytes(drawing(1, (200, 200)))
    done = prepare([root], tmp_path / "out", PrepareOptions(test_fraction=0), workers=1)
    assert len(done) == 1
    reasons = {entry["source"].rsplit("/", 1)[1]: entry["reason"] for entry in done.manifest["rejected"]}
    assert reasons == {"cut.jpg": "unreadable", "newline.png": "unreadable", "disc.png": "no face"}
    assert any("3 pictures cannot be used" in note for note in done.notes)
    with pytest.raises(DataError, match="one expression only"):
        done.require()


def test_centre_crops_need_no_face_and_take_mixed_sizes(drawing: Callable[..., bytes], tmp_path: Path) -> None:
    root = tmp_path / "drawn"
    for label, sizes in (("square", [(64, 64), (90, 50)]), ("round", [(48, 100), (33, 33)])):
        (root / label).mkdir(parents=True)
        for i, size in enumerate(sizes):
            (root / label / f"{i}.png").write_bytes(drawing(i, size))
    done = load_prepared(
        [root], 32, crop="centre", scan_options=ScanOptions(free_labels=True), cache=tmp_path / "cache", workers=1
    )
    assert done.images.shape == (4, 32, 32, 3)
    assert done.label_names == ("round", "square") and done.landmarks is None
    assert any("US-GAN template is recorded" in note for note in done.notes)


def test_a_centre_crop_is_the_middle_of_the_picture(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    picture = np.zeros((40, 80, 3), dtype=np.uint8)
    picture[:, 20:60] = np.arange(40, dtype=np.uint8)[:, None, None] * 5
    for label in ("happy", "sad"):
        (tmp_path / "f" / label).mkdir(parents=True)
        Pillow.fromarray(picture).save(tmp_path / "f" / label / "1.png")
    options = PrepareOptions(40, "centre", US_GAN_TEMPLATE, test_fraction=0)
    done = prepare([tmp_path / "f"], tmp_path / "out", options, workers=1)
    assert np.array_equal(done.images[0], picture[:, 20:60])


def test_the_cache_is_read_again_and_follows_the_files(
    portraits: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "faces"
    for label in ("neutral", "happy"):
        (root / label).mkdir(parents=True)
        for person in ("001", "002"):
            (root / label / f"{person}.jpg").write_bytes(portraits[label][person])
    first = load_prepared([root], cache=tmp_path / "cache", workers=1)

    work = Cropper.__call__
    seen: list[str] = []
    monkeypatch.setattr(Cropper, "__call__", lambda self, source: seen.append(source.name) or work(self, source))
    assert load_prepared([root], cache=tmp_path / "cache").manifest_hash == first.manifest_hash
    assert seen == []
    (root / "happy" / "002.jpg").write_bytes(portraits["happy"]["004"])
    changed = load_prepared([root], cache=tmp_path / "cache", workers=1)
    assert seen == ["faces/happy/002.jpg"] and changed.manifest_hash != first.manifest_hash
    other = load_prepared([root], cache=tmp_path / "cache", split_seed=5, test_fraction=0.5, workers=1)
    assert len(seen) == 1, "another split looks for no face again"
    assert len(other.test) > 0


def test_workers_give_the_same_as_one_process(
    faces_root: Path, tmp_path: Path, prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[Cropper.__module__], "FEW", 6)
    done = prepare([faces_root], tmp_path / "out", PrepareOptions(test_fraction=0.3), workers=2)
    assert done.manifest_hash == prepared.manifest_hash and np.array_equal(done.images, prepared.images)


def test_a_prepared_folder_is_guarded(prepared: PreparedSet, faces_root: Path, tmp_path: Path) -> None:
    import shutil

    assert prepared.folder is not None
    copy = tmp_path / "copy"
    shutil.copytree(prepared.folder, copy)
    assert load_prepared([copy], 128).manifest_hash == prepared.manifest_hash
    with pytest.raises(DataError, match="crops of 128 pixels, but 64 are wanted"):
        load_prepared([copy], 64)
    with pytest.raises(DataError, match="cannot be mixed"):
        load_prepared([copy, faces_root], 128)
    with pytest.raises(DataError, match=r"other settings \(size\)"):
        prepare([faces_root], copy, PrepareOptions(64), workers=1)
    with pytest.raises(DataError, match="not empty and was not made"):
        prepare([faces_root], tmp_path, PrepareOptions(), workers=1)
    with pytest.raises(DataError, match="inside the data"):
        prepare([faces_root], faces_root / "out", PrepareOptions(), workers=1)
    images = copy / "images.npy"
    data = bytearray(images.read_bytes())
    data[-5] ^= 0xFF
    images.write_bytes(data)
    with pytest.raises(DataError, match="sha256"):
        read_prepared(copy)
    images.write_bytes(bytes(data[:1000]))
    with pytest.raises(DataError, match="damaged"):
        read_prepared(copy)
    (copy / MANIFEST).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_prepared(copy)
    (copy / MANIFEST).write_text(json.dumps({"format": "else"}))
    with pytest.raises(DataError, match="format 'else'"):
        read_prepared(copy)


def test_people_whom_the_data_puts_on_both_sides_are_refused(
    portraits: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(portraits["happy"]["001"])
    (tmp_path / "b.jpg").write_bytes(portraits["neutral"]["001"])
    table = tmp_path / "list.csv"
    table.write_text("path,expression,person,split\na.jpg,happy,ann,train\nb.jpg,neutral,ann,test\n")
    with pytest.raises(DataError, match="1 people are on several sides"):
        prepare([table], tmp_path / "out", workers=1)


def test_data_that_cannot_be_trained_on_is_refused(drawing: Callable[..., bytes], tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    rows = ["path,expression,person,split"]
    for i, (label, person, split) in enumerate(
        [("happy", "a", "train"), ("sad", "b", "train"), ("happy", "c", "test"), ("angry", "d", "test")]
    ):
        (tmp_path / f"{i}.png").write_bytes(drawing(i))
        rows.append(f"{i}.png,{label},{person},{split}")
    table.write_text("\n".join(rows))
    done = prepare([table], tmp_path / "out", PrepareOptions(32, "centre", US_GAN_TEMPLATE), workers=1)
    with pytest.raises(DataError, match=r"training set .* has no picture of angry"):
        done.require()
    table.write_text("\n".join([*rows[:4], "3.png,sad,b,train"]))
    done = prepare([table], tmp_path / "out", PrepareOptions(32, "centre", US_GAN_TEMPLATE), workers=1)
    with pytest.raises(DataError, match=r"test set .* has no picture of sad"):
        done.require()
    done.require(batch=3, test=False)
    with pytest.raises(DataError, match="batch of 4 is larger than the training set of 3"):
        done.require(batch=4, test=False)


@pytest.mark.parametrize("options", [{"size": 8}, {"crop": "tight"}, {"test_fraction": 1.0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(DataError):
        PrepareOptions(**options)  # type: ignore[arg-type]
