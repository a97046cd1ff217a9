"""A tally for people: as text, as Markdown and as the paper's Fig. 9 with its uncertainty drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from exprtool.html import environment
from exprtool.study.tally import CONFIDENCE, QuestionTally, Share, Tally

COLOURS = ("#23598f", "#e08e2b", "#3f9271", "#b5546a", "#7a6bb0", "#8a8f98", "#5fa8c9", "#a67c3c", "#3c4650")
"""One per method, told apart also without colour vision by their lightness."""

TITLES = ("question", "method", "picks", "share", "95 % interval")
_LEFT, _RIGHT_ROOM, _TOP, _PLOT, _BELOW = 62, 66, 118, 300, 66
_GROUP, _GAP = 0.74, 4  # share of a group's room that bars fill; pixels between bars
_LETTER = 8.2  # mean width of a letter at 14 px, to lay the legend out


def rows(tally: Tally) -> list[list[str]]:
    """The cells of the table, method by method under each question."""
    return [
        [
            each.id if i == 0 else "",
            share.method,
            f"{share.picks} of {share.total}",
            percent(share.share),
            interval(share),
        ]
        for each in tally.questions
        for i, share in enumerate(each.shares)
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def interval(share: Share) -> str:
    return f"{100 * share.low:.1f} to {100 * share.high:.1f} %" if share.total else "–"


def kappa(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"


def remarks(tally: Tally) -> list[str]:
    """What belongs under the table."""
    notes = [
        f"{tally.trials} pictures, {tally.counted} raters; chance gives {percent(tally.chance)}. Intervals: Wilson, "
        f"{100 * CONFIDENCE:.0f} %, with all picks taken as independent; those of one rater are only in part.",
        "Fleiss' kappa (0: as chance, 1: perfect): "
        + ", ".join(f"{each.id} {kappa(each.kappa)}" for each in tally.questions)
        + ".",
    ]
    left_out = [rater for rater in tally.raters if not rater.counted]
    if left_out:
        names = ", ".join(f"{r.name} ({r.checks_right} of {r.checks} checks right)" for r in left_out)
        notes.append(f"Not counted: {names}.")
    if any(tally.missing.values()):
        gaps = ", ".join(f"{count} for {question}" for question, count in tally.missing.items() if count)
        partial = sum(rater.counted and rater.answered < rater.asked for rater in tally.raters)
        notes.append(f"Missing: {gaps}; {partial} of the raters who count left something out.")
    return notes


def markdown(tally: Tally) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    table = [line(TITLES), "| --- | --- | ---: | ---: | ---: |", *map(line, rows(tally))]
    return "\n".join(table) + "\n\n" + "\n".join(f"- {note}" for note in remarks(tally)) + "\n"


def plot(tally: Tally) -> str:
    """Bars by question and method with their intervals, as an SVG."""
    width = max(640, _LEFT + _RIGHT_ROOM + len(tally.questions) * (len(tally.methods) * 46 + 40))
    right, bottom = width - _RIGHT_ROOM, _TOP + _PLOT
    ends = [share.high for each in tally.questions for share in each.shares if share.total]
    top = min(1.0, math.ceil(10 * max([*ends, tally.chance]) + 0.3) / 10)  # room for the figure over the highest bar
    room = (right - _LEFT) / len(tally.questions)
    bar_width = room * _GROUP / len(tally.methods) - _GAP

    def y(share: float) -> float:
        return round(bottom - share / top * _PLOT, 1)

    bars, groups = [], []
    for i, each in enumerate(tally.questions):
        start = _LEFT + i * room + room * (1 - _GROUP) / 2
        groups.append({"x": round(_LEFT + (i + 0.5) * room, 1), "name": each.id, "note": _note(each)})
        for j, share in enumerate(each.shares):
            if share.total:
                x = round(start + j * (bar_width + _GAP), 1)
                bars.append(_bar(share, COLOURS[j % len(COLOURS)], x, bar_width, y, bottom))
    step = 0.1 if top <= 0.6 else 0.2
    lines = [{"y": y(n * step), "text": f"{100 * n * step:.0f} %"} for n in range(int(top / step + 1e-9) + 1)]
    legend, x = [], float(_LEFT)
    for method, colour in zip(tally.methods, COLOURS, strict=False):
        legend.append({"x": round(x), "method": method, "colour": colour})
        x += 44 + _LETTER * len(method)
    return (
        environment("exprtool.study")
        .get_template("plot.svg")
        .render(
            width=max(width, math.ceil(x)), height=bottom + _BELOW, left=_LEFT, right=right, bottom=bottom,
            title=tally.title, subtitle=f"{tally.trials} pictures, {tally.counted} raters, 95 % intervals",
            legend=legend, legend_y=82, lines=lines, bars=bars, bar_width=round(bar_width, 1), groups=groups,
            chance=y(tally.chance),
        )
    )  # fmt: skip


def _bar(share: Share, colour: str, x: float, width: float, y, bottom: float) -> dict[str, object]:  # type: ignore[no-untyped-def]
    top = y(share.share)
    return {
        "x": x,
        "y": top,
        "height": round(bottom - top, 1),
        "colour": colour,
        "middle": round(x + width / 2, 1),
        "low": y(share.low),
        "high": y(share.high),
        "text": f"{100 * share.share:.0f}",
        "told": f"{share.method}: {share.picks} of {share.total}, {percent(share.share)} ({interval(share)})",
    }


def _note(each: QuestionTally) -> str:
    return f"kappa {kappa(each.kappa)}, {each.total} picks"
