"""Percentages, intervals and agreement, against figures from elsewhere; and answers that are incomplete or odd."""

from __future__ import annotations

import csv
import json
import math
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from exprtool.cli.main import app
from exprtool.errors import DataError
from exprtool.study import result
from exprtool.study.tally import Rater, fleiss_kappa, read_answers, tally, wilson

from .conftest import METHODS

runner = CliRunner()


def test_fleiss_kappa_of_the_textbook():
    """14 raters, 10 subjects, 5 categories; the worked example that goes round with the measure gives 0.210."""
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa([[4, 0], [0, 4]]) == 1
    assert fleiss_kappa([[1, 1], [1, 1]]) == pytest.approx(-1)
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]])), "where all pick one thing always, agreement says nothing"
    assert math.isnan(fleiss_kappa([[1, 0], [0, 0]])), "one rater agrees with nobody"
    assert fleiss_kappa([[4, 0], [0, 4], [1, 0]]) == 1, "a picture that one rater saw does not count"


def test_wilsons_interval():
    """By hand: z = 1.959964, centre (p + z^2 / 2n) / (1 + z^2 / n)."""
    assert wilson(10, 40) == pytest.approx((0.1418709, 0.4019396), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(0, 0) == (0, 1)


def answered(study, plan, *, name="Ann", token="0", checks=True, skip=()):
    """A rater who picks ``plan(question, number of the face)``, and the right picture in checks or never."""
    picks = {}
    for trial in study.key["trials"]:
        for question in study.key["questions"]:
            if (trial["item"], question) in skip:
                continue
            if trial["options"] is None:
                wrong = next(o["id"] for t in study.made.for_page()["trials"] if t["id"] == trial["id"]
                             for o in t["options"] if o["id"] != trial["check"])  # fmt: skip
                picks[trial["id"], question] = trial["check"] if checks else wrong
            else:
                method = plan(question, int(trial["item"][-2:]))
                picks[trial["id"], question] = next(b for b, m in trial["options"].items() if m == method)
    return Rater(token * 32, name, picks, f"{token}.json")


def half(question: str, number: int) -> str:
    """9, 6, 3 and 0 of the 18 faces."""
    return METHODS[0 if number < 9 else 1 if number < 15 else 2]


def test_known_answers_give_known_percentages(study):
    raters = [answered(study, half, token=t) for t in "0123"]
    got = tally(study.key, raters)
    for question in got.questions:
        assert [share.picks for share in question.shares] == [36, 24, 12, 0]
        assert [round(100 * share.share, 1) for share in question.shares] == [50.0, 33.3, 16.7, 0.0]
        assert all(share.low <= share.share <= share.high for share in question.shares)
        assert question.kappa == 1
    assert (got.trials, got.counted, got.chance) == (18, 4, 0.25) and not any(got.missing.values())
    assert [rater.name for rater in got.raters] == ["Ann", "Ann (2)", "Ann (3)", "Ann (4)"]


def test_raters_who_disagree_about_everything(study):
    raters = [answered(study, lambda q, n, i=i: METHODS[(n + i) % 4], token=str(i)) for i in range(4)]
    got = tally(study.key, raters)
    assert all(share.share == 0.25 for question in got.questions for share in question.shares)
    assert got.questions[0].kappa == pytest.approx(-1 / 3)


def test_who_fails_the_checks_does_not_count_unless_told(study):
    raters = [answered(study, half), answered(study, lambda q, n: METHODS[3], name="Bob", token="b", checks=False)]
    got = tally(study.key, raters)
    assert got.counted == 1 and got.questions[0].shares[3].picks == 0
    assert (got.raters[1].checks_right, got.raters[1].checks, got.raters[1].counted) == (0, 6, False)
    assert "Not counted: Bob (0 of 6 checks right)." in result.remarks(got)
    assert tally(study.key, raters, keep_all=True).questions[0].shares[3].picks == 18
    with pytest.raises(DataError, match="--keep-all"):
        tally(study.key, raters[1:])
    with pytest.raises(DataError, match="no answers"):
        tally(study.key, [])


def test_missing_cells_are_counted_and_the_rest_is_used(study):
    gaps = {("face-03", "realism"), ("face-04", "realism"), ("face-03", "identity")}
    got = tally(study.key, [answered(study, half, skip=gaps), answered(study, half, token="1")])
    assert got.missing == {"realism": 2, "expression": 0, "identity": 1}
    assert [question.total for question in got.questions] == [34, 36, 35]
    assert any("Missing: 2 for realism, 1 for identity; 1 of the raters" in note for note in result.remarks(got))


def write_json(path, study, rater, revision=1):
    sent = [{"trial": t, "question": q, "option": o} for (t, q), o in rater.answers.items()]
    path.write_text(
        json.dumps({"format": "exprtool-study-answers/1", "study": study.key["study"], "token": rater.token,
                    "name": rater.name, "revision": revision, "answers": sent})
    )  # fmt: skip


def write_csv(path, study, *raters):
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["study", "token", "name", "trial", "question", "option"])
        for rater in raters:
            out.writerows([study.key["study"], rater.token, rater.name, t, q, o] for (t, q), o in rater.answers.items())


def test_answers_come_from_both_kinds_of_file_and_one_rater_counts_once(study, tmp_path):
    ann, bob = answered(study, half, token="a"), answered(study, half, name='Bob, "x"\ny', token="b")
    write_json(tmp_path / "1.json", study, ann)
    write_csv(tmp_path / "2.csv", study, ann, bob)  # Ann sent hers and saved them too
    write_csv(tmp_path / "3.csv", study, answered(study, half, token="a", skip={("face-00", "realism")}))
    (tmp_path / "study.key.json").write_text("{}")
    (tmp_path / ".hidden.json").write_text("{")
    raters, faults = read_answers([tmp_path], study.key["study"])
    assert not faults and [(r.name, len(r.answers)) for r in raters] == [("Ann", 60), ('Bob, "x"\ny', 60)]


def test_files_that_cannot_be_used_are_named_and_the_others_count(study, tmp_path):
    good = answered(study, half)
    write_json(tmp_path / "good.json", study, good)
    (tmp_path / "torn.json").write_text('{"format": "exprtool-st')
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    write_csv(tmp_path / "gap.csv", study, good)
    text = (tmp_path / "gap.csv").read_text().splitlines()
    (tmp_path / "gap.csv").write_text("\n".join([text[0], text[1].rpartition(",")[0] + ","]))
    foreign = {**json.loads((tmp_path / "good.json").read_text()), "study": "0" * 16, "token": "f"}
    (tmp_path / "foreign.json").write_text(json.dumps(foreign))
    done = runner.invoke(
        app, ["study", "tally", str(tmp_path), "-k", str(study.key_file), "-o", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 1
    assert json.loads(done.stdout)["raters_counted"] == 1
    for name in ("torn.json", "other.csv", "gap.csv, line 2", "foreign.json"):
        assert name in done.stderr
    assert (tmp_path / "out" / "tally.svg").exists()
    with pytest.raises(DataError, match="does not exist"):
        read_answers([tmp_path / "none"], "x")


def test_an_answer_that_the_key_does_not_know_is_refused(study):
    with pytest.raises(DataError, match="does not know"):
        tally(study.key, [Rater("a", "Ann", {("t", "realism"): "x"})])


def test_the_table_and_the_plot_say_the_same(study, tmp_path):
    got = tally(study.key, [answered(study, half, name="<b>\x1b[31m", token=t) for t in "01"])
    text = result.markdown(got)
    assert "| realism | US-GAN | 18 of 36 | 50.0 % | 34.5 to 65.5 % |" in text
    svg = ElementTree.fromstring(result.plot(got))
    space = "{http://www.w3.org/2000/svg}"
    bars = [bar for bar in svg.iter(f"{space}rect") if bar.find(f"{space}title") is not None]
    told = [bar.find(f"{space}title").text for bar in bars]
    assert len(bars) == 12 and told[0] == "US-GAN: 18 of 36, 50.0 % (34.5 to 65.5 %)"
    heights = [float(bar.get("height")) for bar in bars[:4]]
    assert heights[0] == pytest.approx(3 * heights[2], abs=0.2) and heights[3] == 0
    write_json(tmp_path / "1.json", study, answered(study, half, name="<b>\x1b[31m"))
    done = runner.invoke(app, ["study", "tally", str(tmp_path), "-k", str(study.key_file)])
    assert done.exit_code == 0 and "\x1b" not in done.output and "US-GAN" in done.stdout
