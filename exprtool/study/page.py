"""The study as one page that works from disk, from any web server and from ``exprtool study serve``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exprtool.errors import DataError
from exprtool.html import render
from exprtool.study.design import Study

DEFAULT_INTRO = (
    "You will see a photo of a face and several pictures made from it, in which the face was to get another "
    "expression. Some may look alike; then go by your first impression."
)
_SECONDS_PER_ANSWER = 5  # a guess for the line on the first screen, said as "about"
_DATA = re.compile(r'<script type="application/json" id="study">(.*?)</script>', re.DOTALL)


def study_page(study: Study) -> str:
    """The whole page; nothing in it tells which picture is whose."""
    minutes = max(1, round(len(study.trials) * len(study.questions) * _SECONDS_PER_ANSWER / 60))
    shown = f"{len(study.trials)} faces, about {minutes} minute{'s' if minutes > 1 else ''}."
    return render(
        "exprtool.study",
        "study.html",
        style="study.css",
        script="study.js",
        connect=True,
        title=study.title,
        paragraphs=[part.strip() for part in (study.intro or DEFAULT_INTRO).split("\n\n") if part.strip()],
        asked=[question.text.replace("{expression}", "happy, sad, …") for question in study.questions],
        length=shown,
        choices=max(len(trial.options) for trial in study.trials),
        study=study.for_page(),
    )


def read_page(path: Path) -> tuple[str, Mapping[str, Any]]:
    """A page that `study_page` made, and the study in it; raises `DataError`."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The study's page {path} cannot be read: {error}.") from error
    found = _DATA.search(text)
    try:
        study = json.loads(found[1]) if found else None
        trials = {trial["id"]: [option["id"] for option in trial["options"]] for trial in study["trials"]}  # type: ignore[index]
        questions = [question["id"] for question in study["questions"]]  # type: ignore[index]
        return text, {"id": study["id"], "title": study["title"], "trials": trials, "questions": questions}  # type: ignore[index]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no page of a study. Give the .html file that `exprtool study make` wrote."
        ) from error
