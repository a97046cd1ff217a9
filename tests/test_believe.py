"""benchmarks/believe.py: sheets that give nothing away, and the figures that come of the answers."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections import Counter
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from exprtool.errors import ExprtoolError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def believe() -> Any:
    pytest.importorskip("torch", reason="needs PyTorch, as the benchmark's list of held-out people does")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module("believe")
    finally:
        sys.path.remove(str(BENCHMARKS))


def items(believe: Any) -> dict[str, Any]:
    """Ten edits and ten photographs by one backend, 01-01 to 01-20, edits first."""
    return {
        f"01-{n:02d}": believe.Item(f"01-{n:02d}", "01", "happy", "default", n <= 10, f"{n}.jpg") for n in range(1, 21)
    }


def test_shares_and_ratio_of_what_was_called_real(believe: Any) -> None:
    known = items(believe)
    called = {f"01-{n:02d}": "real" if n <= 6 or 11 <= n <= 18 else "edited" for n in range(1, 21)}
    (_, line) = believe.believed([(known[item], answer) for item, answer in called.items()])
    assert line.split()[:6] == ["happy", "default", "6/10", "60%", "8/10", "80%"]
    ratio, low, high = believe.ratio_interval(6, 10, 8, 10)
    assert ratio == pytest.approx(0.75) and f"{ratio:.0%}   {low:.0%} to {high:.0%}" in line
    # by hand: sqrt(1/6 - 1/10 + 1/8 - 1/10) = 0.3028; 0.75 exp(-+1.96 * 0.3028)
    assert (low, high) == (pytest.approx(0.4143, abs=1e-3), pytest.approx(1.3577, abs=1e-3))
    ratio, low, high = believe.ratio_interval(0, 10, 8, 10)
    assert 0 < low < ratio < 0.2 and high < 2
    assert believe.ratio_interval(10, 10, 10, 10) == (1.0, 1.0, 1.0)


def test_names_are_counted_in_a_confusion_matrix(believe: Any) -> None:
    known = items(believe)
    said = ["happy"] * 7 + ["sad"] * 3
    lines = believe.confusion([(known[f"01-{n:02d}"], word) for n, word in enumerate(said, 1)])
    assert lines[1].split() == ["happy", "0", "7", "3", "0", "0", "0", "0", "70%"]


@pytest.mark.parametrize(
    ("text", "naming", "says"),
    [
        ("item,answer\n01-99,real\n", False, "line 2: '01-99' is no item"),
        ("01-01,real\n01-01,edited\n", False, "line 2: 01-01 is answered twice"),
        ("01-01,perhaps\n", False, "neither 'real' nor 'edited'"),
        ("01-01,bored\n", True, "line 1: Unknown expression 'bored'"),
    ],
)
def test_answers_that_cannot_be_read_are_named(
    believe: Any, tmp_path: Path, text: str, naming: bool, says: str
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(text)
    with pytest.raises(ExprtoolError, match=says):
        believe.read_answers(path, items(believe), naming)


def test_answers_of_several_judges_are_read_and_gaps_are_said(
    believe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"naming": False, "items": [asdict(item) for item in items(believe).values()]}))
    (tmp_path / "a.csv").write_text("﻿item,answer\n01-01, Real \n01-11,real\n\n01-12,\n")
    (tmp_path / "b.csv").write_text("01-01,edited\n01-11,real\n")
    believe.read(Namespace(key=key, answers=[tmp_path / "a.csv", tmp_path / "b.csv"]))
    said = capsys.readouterr().out
    assert "a.csv: 18 of 20 without an answer" in said
    assert said.splitlines()[-1].split()[2:6] == ["1/2", "50%", "2/2", "100%"]


def test_a_mouth_in_a_photograph_must_be_as_the_expression_has_it(believe: Any) -> None:
    face = Namespace(landmarks68=np.zeros((68, 2)))
    face.landmarks68[42:48] = [100, 0]
    face.landmarks68[61:64], face.landmarks68[65:68] = [50, 100], [50, 110]
    assert believe.fits("surprised", face) and believe.fits("happy", face) and not believe.fits("happy-closed", face)
    face.landmarks68[65:68] = [50, 102]
    assert not believe.fits("afraid", face) and believe.fits("happy-closed", face)


def test_one_of_each_in_turns(believe: Any) -> None:
    assert believe.in_turns([1, 2], "abcd") == [1, "a", 2, "b", "c", "d"]
    assert believe.in_turns([1, 2, 3], "a") == [1, "a", 2, 3]


def test_sheets_give_nothing_away(believe: Any, shared: Path, tmp_path: Path) -> None:
    sheets, key = tmp_path / "sheets", tmp_path / "key.json"
    options = Namespace(
        sheets=sheets, key=key, expr=["sad"], backend=["default"], count=2, size="400", seed=3, naming=False,
        faces=shared / "faces",
    )  # fmt: skip
    believe.make(options)
    told = json.loads(key.read_text())["items"]
    assert Counter(item["edited"] for item in told) == {True: 2, False: 2}
    away = {path.name for paths in believe.held_out(shared / "faces") for path in paths}
    assert all((item["source"] in away) == item["edited"] for item in told), "nobody is seen in both ways"
    kinds = [{len(Path(item["source"]).stem) == 3 for item in told if item["edited"] == edited} for edited in (0, 1)]
    assert kinds == [{True, False}] * 2, "both from the studio and from the wild"
    assert sorted(path.name for path in sheets.iterdir()) == ["01-page01.png", "answers.csv"]
    lines = (sheets / "answers.csv").read_text().splitlines()
    assert lines == ["item,answer", "01-01,", "01-02,", "01-03,", "01-04,"]
    picture = cv2.imread(str(sheets / "01-page01.png"))
    assert picture.shape == (2 * 428, 3 * 400, 3)
    with pytest.raises(SystemExit, match="where the judges look"):
        believe.make(Namespace(**vars(options) | {"key": sheets / "key.json"}))
