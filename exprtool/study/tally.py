"""Summing a study up: the percentages of the paper's Fig. 9, how sure they are, and how far raters agree.

Percentages are picks of a method over all picks for a question; with k methods chance gives 100 / k. Intervals are
Wilson's at 95 % and take picks as independent, which those of one rater are only in part. Agreement is Fleiss' kappa
over the pictures, with the methods as categories (J. Fleiss, Psychological Bulletin 76, 1971), in its form for numbers
of raters that differ between pictures; 0 is what chance gives and 1 is perfect.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exprtool.errors import DataError, ExprtoolError
from exprtool.study.design import ANSWERS_FORMAT

CONFIDENCE = 0.95
PASS_CHECKS = 2 / 3
"""Share of the attention checks' answers that must be right for a rater to count."""
_LARGEST = 16 << 20  # bytes; a file of answers is a few kilobytes
_COLUMNS = ("study", "token", "trial", "question", "option")


@dataclass(frozen=True)
class Rater:
    """One person's answers: {(trial, question): blind name}."""

    token: str
    name: str
    answers: Mapping[tuple[str, str], str]
    source: str = ""
    revision: int = 0


@dataclass(frozen=True)
class Share:
    """How often a method was picked: ``picks`` of ``total``, and the interval's ends as shares in [0, 1]."""

    method: str
    picks: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.picks / self.total if self.total else math.nan


@dataclass(frozen=True)
class QuestionTally:
    """One question: the methods' shares in the study's order, and Fleiss' kappa (NaN where it is undefined)."""

    id: str
    text: str
    shares: tuple[Share, ...]
    kappa: float

    @property
    def total(self) -> int:
        return sum(share.picks for share in self.shares)


@dataclass(frozen=True)
class RaterTally:
    """What one rater did: answers given of those asked, and the attention checks' right ones of all that were given."""

    token: str
    name: str
    answered: int
    asked: int
    checks_right: int
    checks: int
    counted: bool
    source: str


@dataclass(frozen=True)
class Tally:
    """The whole result. ``missing`` counts the answers that counted raters left out, by question."""

    title: str
    study: str
    methods: tuple[str, ...]
    trials: int
    questions: tuple[QuestionTally, ...]
    raters: tuple[RaterTally, ...]
    missing: Mapping[str, int] = field(default_factory=dict)

    @property
    def counted(self) -> int:
        return sum(rater.counted for rater in self.raters)

    @property
    def chance(self) -> float:
        return 1 / len(self.methods)

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "study": self.study,
            "methods": list(self.methods),
            "trials": self.trials,
            "raters_counted": self.counted,
            "chance": self.chance,
            "confidence": CONFIDENCE,
            "questions": [
                {
                    "id": each.id,
                    "text": each.text,
                    "picks": each.total,
                    "fleiss_kappa": each.kappa if math.isfinite(each.kappa) else None,
                    "missing": self.missing.get(each.id, 0),
                    "methods": [
                        {
                            "method": share.method,
                            "picks": share.picks,
                            "share": share.share if share.total else None,
                            "low": share.low if share.total else None,
                            "high": share.high if share.total else None,
                        }
                        for share in each.shares
                    ],
                }
                for each in self.questions
            ],
            "raters": [vars(rater) for rater in self.raters],
        }


def tally(key: Mapping[str, Any], raters: Sequence[Rater], *, keep_all: bool = False) -> Tally:
    """Sum up raters' answers with the study's key.

    Raters who got fewer than `PASS_CHECKS` of the attention checks right do not count unless ``keep_all``. Raises
    `DataError` where nobody is left, or for an answer that the key does not know.
    """
    trials = {trial["id"]: trial for trial in key["trials"]}
    real = {name: trial["options"] for name, trial in trials.items() if trial["options"] is not None}
    checks = {name: trial["check"] for name, trial in trials.items() if trial["options"] is None}
    questions, methods = dict(key["questions"]), tuple(key["methods"])
    counted: list[Rater] = []
    rows: list[RaterTally] = []
    for rater, name in zip(raters, _told_apart(raters), strict=True):
        row = _rater(rater, name, trials, checks, questions, keep_all)
        rows.append(row)
        if row.counted:
            counted.append(rater)
    if not counted:
        if not rows:
            raise DataError("There are no answers to sum up.")
        raise DataError(f"None of the {len(rows)} raters passed the attention checks. --keep-all counts them anyway.")
    results, missing = [], {}
    for question, text in questions.items():
        picks: dict[str, Counter[str]] = {name: Counter() for name in real}
        for rater in counted:
            for name, options in real.items():
                choice = rater.answers.get((name, question))
                if choice is not None:
                    picks[name][options[choice]] += 1
        total = sum(sum(each.values()) for each in picks.values())
        missing[question] = len(counted) * len(real) - total
        shares = tuple(_share(method, sum(each[method] for each in picks.values()), total) for method in methods)
        table = [[each[method] for method in methods] for each in picks.values()]
        results.append(QuestionTally(question, text, shares, fleiss_kappa(table)))
    return Tally(key["title"], key["study"], methods, len(real), tuple(results), tuple(rows), missing)


def wilson(picks: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval for a share, without continuity correction; the whole range where nothing was counted."""
    from scipy.stats import binomtest

    if not total:
        return 0.0, 1.0
    interval = binomtest(picks, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def fleiss_kappa(table: Sequence[Sequence[int]]) -> float:
    """Agreement over subjects (rows) with counts per category; rows with fewer than two ratings say nothing.

    NaN where no row says anything, or where everybody always used one and the same category.
    """
    rows = [row for row in table if sum(row) >= 2]
    if not rows:
        return math.nan
    ratings = sum(map(sum, rows))
    categories = [sum(row[j] for row in rows) / ratings for j in range(len(rows[0]))]
    agreement = sum(sum(n * (n - 1) for n in row) / (sum(row) * (sum(row) - 1)) for row in rows) / len(rows)
    expected = sum(share**2 for share in categories)
    return (agreement - expected) / (1 - expected) if expected < 1 else math.nan


def _share(method: str, picks: int, total: int) -> Share:
    return Share(method, picks, total, *wilson(picks, total))


def _rater(
    rater: Rater,
    name: str,
    trials: Mapping[str, Any],
    checks: Mapping[str, str],
    questions: Mapping[str, str],
    keep_all: bool,
) -> RaterTally:
    for (trial, question), choice in rater.answers.items():
        known = trial in trials and question in questions
        if not known or (trials[trial]["options"] is not None and choice not in trials[trial]["options"]):
            raise DataError(f"{rater.source or rater.name}: an answer is to a question that the key does not know.")
    given = [(trial, choice) for (trial, _), choice in rater.answers.items() if trial in checks]
    right = sum(choice == checks[trial] for trial, choice in given)
    passed = keep_all or right >= PASS_CHECKS * len(given) - 1e-9  # who stopped before the checks has failed none
    counted = passed and any(trial not in checks for trial, _ in rater.answers)
    return RaterTally(
        rater.token, name, len(rater.answers), len(trials) * len(questions), right, len(given), counted, rater.source
    )


def _told_apart(raters: Sequence[Rater]) -> list[str]:
    """Names, with a number where two raters have one."""
    seen: Counter[str] = Counter()
    names = []
    for rater in raters:
        seen[rater.name] += 1
        names.append(rater.name if seen[rater.name] == 1 else f"{rater.name} ({seen[rater.name]})")
    return names


# ---------------------------------------------------------------------------------------------------------------------
# Reading what raters handed in


def read_answers(paths: Sequence[Path], study: str) -> tuple[list[Rater], list[str]]:
    """Everybody's answers in the files and folders given, and what is wrong with the files that cannot be used.

    Takes what ``exprtool study serve`` wrote (JSON) and what the page saves (CSV). One rater in several files (saved
    twice, or saved and sent) counts once, by the newest and fullest. Raises `DataError` for a path that is not there.
    """
    best: dict[str, Rater] = {}
    faults: list[str] = []
    for path in _files(paths):
        try:
            for rater in _read(path, study):
                before = best.get(rater.token)
                if before is None or (rater.revision, len(rater.answers)) > (before.revision, len(before.answers)):
                    best[rater.token] = rater
        except ExprtoolError as error:
            faults.append(str(error))
    return sorted(best.values(), key=lambda rater: (rater.name.casefold(), rater.token)), faults


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (".json", ".csv")]
            files += [file for file in inside if not file.name.startswith(".") and not file.name.endswith(".key.json")]
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path} does not exist. Give the folder of `exprtool study serve`, or files of answers.")
    return files


def _read(path: Path, study: str) -> list[Rater]:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is too large to be answers to a study.")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    raters = _of_csv(text, path) if path.suffix.lower() == ".csv" else [_of_json(text, path)]
    for found, _ in raters:
        if found != study:
            raise DataError(f"{path} holds answers to another study ({found}; the key is of {study}).")
    return [rater for _, rater in raters]


def _of_json(text: str, path: Path) -> tuple[str, Rater]:
    try:
        sent = json.loads(text)
        if sent["format"] != ANSWERS_FORMAT:
            raise ValueError("another format")
        answers = {(str(a["trial"]), str(a["question"])): str(a["option"]) for a in sent["answers"]}
        rater = Rater(str(sent["token"]), str(sent["name"]), answers, path.name, int(sent["revision"]))
        return str(sent["study"]), rater
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no answers to a study ({error}).") from error


def _of_csv(text: str, path: Path) -> list[tuple[str, Rater]]:
    """One or several raters; files of several raters pasted together are welcome."""
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        lines = list(reader)
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}.") from error
    if lacking := [column for column in _COLUMNS if column not in (reader.fieldnames or ())]:
        raise DataError(f"{path} holds no answers to a study: it has no column {', '.join(lacking)}.")
    raters: dict[tuple[str, str], dict[tuple[str, str], str]] = defaultdict(dict)
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 2):
        if not all(line[column] for column in _COLUMNS):
            if any(line[column] for column in _COLUMNS):
                raise DataError(f"{path}, line {number}: a cell is empty. Take the file as the page saved it.")
            continue
        place = (line["trial"], line["question"])
        rater = raters[line["study"], line["token"]]
        if place in rater and rater[place] != line["option"]:
            raise DataError(f"{path}, line {number}: one question is answered twice, differently.")
        rater[place] = line["option"]
        names[line["token"]] = line.get("name") or "nameless"
    return [(study, Rater(token, names[token], answers, path.name)) for (study, token), answers in raters.items()]
