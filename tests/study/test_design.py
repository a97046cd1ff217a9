"""What raters see and what they must not: blind names, the key apart, order by the seed."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image as Pillow

from exprtool.errors import DataError
from exprtool.study.design import Item, make_study, mosaic, read_key
from exprtool.study.page import read_page, study_page

from .conftest import METHODS, item, picture


def shown(uri: str) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_page_tells_nobody_whose_picture_is_whose(study):
    text = study.page.read_text("utf-8")
    for method in METHODS:
        assert method not in text
    assert "face-0" not in text, "file names may name a method or an expression"
    assert "check" not in json.dumps({**study.made.for_page(), "trials": []})
    keys = {frozenset(trial) for trial in study.made.for_page()["trials"]}
    assert keys == {frozenset({"id", "expression", "original", "options"})}, "a check looks like any other trial"


def test_the_page_loads_nothing(study):
    text = study.page.read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]+"', text)
    assert "default-src &#39;none&#39;" in text and "http://" not in text and "https://" not in text


def test_the_key_opens_the_page(study):
    pictures = {t["id"]: {o["id"]: o["picture"] for o in t["options"]} for t in study.made.for_page()["trials"]}
    key = read_key(study.key_file)
    items = {f"face-{n:02d}": item(n) for n in range(18)}
    real = [trial for trial in key["trials"] if trial["options"]]
    assert len(real) == 18 and len(key["trials"]) == 20
    for trial in real:
        for blind, method in trial["options"].items():
            assert np.array_equal(shown(pictures[trial["id"]][blind]), items[trial["item"]].answers[method])
    for trial in key["trials"]:
        if trial["options"] is None:
            whole = {name for name, uri in pictures[trial["id"]].items() if len(np.unique(shown(uri)[:, :, 0])) > 7}
            assert whole == {trial["check"]}, "one picture is whole, the others are mosaics"


def test_order_and_blind_names_follow_from_the_seed():
    items = [item(n) for n in range(6)]
    first, same, other = (make_study(items, seed=seed) for seed in (1, 1, 2))
    assert study_page(first) == study_page(same) and first.id != other.id
    assert [t.key for t in first.trials] != [t.key for t in other.trials]
    places = [[m for m in METHODS].index(next(iter(trial.methods.values()))) for trial in first.trials]
    assert len(set(places)) > 1, "no method always stands first"
    names = [name for trial in first.trials for name in (trial.id, *trial.methods)]
    assert len(set(names)) == len(names)


def test_a_title_is_text_and_no_markup():
    evil = '</script><img src=x onerror="document.title=1">'
    text = study_page(make_study([item(0)], title=evil, intro=evil))
    assert evil not in text and "&lt;/script&gt;" in text and "\\u003c/script\\u003e" in text


def test_pictures_carry_pixels_and_nothing_else():
    study = make_study([Item("x", "sad", picture(0), {"a": picture(1), "b": picture(2)})])
    for _, uri in study.trials[0].options:
        opened = Pillow.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert not opened.info and not opened.getexif()
    large = make_study([Item("x", "sad", picture(0, 300), {"a": picture(1, 300), "b": picture(2, 300)})])
    assert {uri.partition(";")[0] for _, uri in large.trials[0].options} == {"data:image/jpeg"}, "all of one kind"


def test_a_mosaic_hides_the_face():
    blocks = mosaic(picture(4, 70))
    assert blocks.shape == (70, 70, 3) and len(np.unique(blocks.reshape(-1, 3), axis=0)) <= 49


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "at least one"),
        ([item(0, ("only",))], "2 to 9 methods"),
        ([item(0), item(1, METHODS[:3])], "face-01 has pictures of"),
    ],
)
def test_what_is_no_study(items, says):
    with pytest.raises(DataError, match=says):
        make_study(items)


def test_files_that_are_neither_page_nor_key(study, tmp_path):
    with pytest.raises(DataError, match="no key of a study"):
        read_key(_written(tmp_path, '{"format": "else"}'))
    with pytest.raises(DataError, match="cannot be read"):
        read_key(tmp_path / "none.json")
    with pytest.raises(DataError, match="no page of a study"):
        read_page(_written(tmp_path, "<html></html>"))
    _, known = read_page(study.page)
    assert known["id"] == study.key["study"] and len(known["trials"]) == 20


def _written(folder, text):
    path = folder / "file"
    path.write_text(text)
    return path
