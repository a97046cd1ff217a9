"""Measures as tables, in the columns of the paper's Table 1: for the terminal, as Markdown, LaTeX or JSON.

Lower is better for ACD, higher for the others. What was not measured shows as a dash, never as a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exprtool.measures.evaluation import Evaluation, Row
from exprtool.measures.expression import Accuracy
from exprtool.measures.paper import CITATION, PAPER_DATASETS, TABLE_1
from exprtool.measures.stats import Stat

if TYPE_CHECKING:
    from rich.table import Table

DASH = "–"
FEW_PEOPLE = 20
"""With fewer people than this, means are rough; the paper's own test set holds about 36 (a tenth of 367 people)."""
FOOTNOTES = (
    "ACD: squared distance of dlib's face embeddings of input and output (eq. 9), mean ± sd; lower keeps more of the "
    "person. Distance: the same without the square. dlib takes distances below 0.6 for one person.",
    "Local verification: 0 to 100 from the same embeddings, 50 at dlib's threshold for one person; it is not the "
    "paper's FVS (Face++) and cannot be compared with it.",
    "Images: pictures trained on. Change: mean absolute change of the crop in grey levels of 255. Identity measures "
    "reward doing nothing: read them beside change and expression accuracy, and against the reference rows.",
)
PAPER_NOTE = f"Rows marked * are the figures that the paper prints ({CITATION})."
PAPER_DISTANCE_NOTE = (
    "If the paper's ACD is squared, as eq. 9 says, its rivals are farther from their input on average than dlib allows "
    "one person to be, although they pass Face++'s verification; it may be the plain distance. Compare both columns."
)
OTHER_DATA_NOTE = (
    f"Rows marked † are the figures that the paper prints ({CITATION}), measured on KDEF, RaFD and CFEE: on other data "
    "than the rows above them, and not to be compared with them."
)
OWN_HEAD_NOTE = (
    "Own head: accuracy by the discriminator that the generator was trained against; it is no independent evidence."
)
UNTOUCHED_NOTE = (
    "untouched: the inputs as they are. Its accuracy is how often the classifier sees the expression on a face that "
    "does not wear it."
)
REAL_NOTE = "real photos: other photos of the same people with the expression, where the data holds one."


@dataclass(frozen=True)
class Column:
    """A heading for people, the same in LaTeX, and which way is better. The paper's columns always stay."""

    title: str
    latex: str
    better: str = ""
    always: bool = False


COLUMNS = (
    Column("Method", "Method", always=True),
    Column("params", r"\# of parameters", "↓", always=True),
    Column("images", r"\# of images", "↓", always=True),
    Column("edits", r"\# of edits"),
    Column("left alone", "Left alone", "↓"),
    Column("ACD", "ACD", "↓", always=True),
    Column("distance", "Distance", "↓"),
    Column("FVS", "FVS", "↑", always=True),
    Column("local verif.", "Local verif.", "↑"),
    Column("expr. acc.", "Expr. acc.", "↑"),
    Column("own head", "Own head", "↑"),
    Column("change", "Change"),
)
_MEASURED = 3  # columns from here on hold what was measured, with two words over narrow figures


def is_papers_data(evaluations: Sequence[Evaluation]) -> bool:
    """Whether these were measured on the paper's three data sets and nothing else."""
    return bool(evaluations) and all(set(each.datasets) == PAPER_DATASETS for each in evaluations)


def main_rows(evaluations: Sequence[Evaluation], *, paper: bool | None = None) -> list[list[str]]:
    """The cells of the main table: models, then what they are read against, then the paper's rows.

    ``paper`` None shows the paper's rows beside the paper's data alone, marked *; True beside other data too, marked †.
    """
    rows = [
        [
            each.model,
            magnitude(each.parameters),
            magnitude(each.training_images),
            str(each.overall.acd.count + each.overall.acd.missing),
            str(each.overall.refused) if each.overall.refused else DASH,
            spread(each.overall.acd, 4),
            spread(each.overall.distance, 3),
            spread(each.overall.fvs, 2),
            spread(each.overall.local_verification, 1),
            percentage(each.overall.accuracy),
            percentage(each.overall.own_head),
            spread(each.overall.changed, 2),
        ]
        for each in evaluations
    ]
    mark = "*" if is_papers_data(evaluations) else "†"
    if paper or (paper is None and mark == "*"):
        for row in TABLE_1:
            cells = dict.fromkeys((column.title for column in COLUMNS), DASH)
            cells |= {
                "Method": f"{row.method} {mark}",
                "params": magnitude(row.parameters),
                "images": magnitude(row.training_images),
                "ACD": f"{row.acd:.4f}",
                "FVS": f"{row.fvs:.2f} ± {row.fvs_sd:.2f}",
            }
            rows.append(list(cells.values()))
    return rows


def breaks(evaluations: Sequence[Evaluation]) -> tuple[int, ...]:
    """After which rows of the main table a line is drawn: models, references, the paper's."""
    models = sum(each.kind == "model" for each in evaluations)
    return tuple(sorted({models, len(evaluations)}))


def expression_rows(evaluation: Evaluation) -> list[list[str]]:
    """The cells of the table by expression."""
    return [_expression_cells(row) for row in (*evaluation.per_expression, evaluation.overall)]


def _expression_cells(row: Row) -> list[str]:
    return [
        row.expression,
        str(row.acd.count + row.acd.missing),
        str(row.refused) if row.refused else DASH,
        spread(row.acd, 4),
        spread(row.distance, 3),
        spread(row.fvs, 2),
        spread(row.local_verification, 1),
        percentage(row.accuracy),
        percentage(row.own_head),
        spread(row.changed, 2),
    ]


EXPRESSION_TITLES = (
    "expression",
    "edits",
    "left alone",
    "ACD ↓",
    "distance ↓",
    "FVS ↑",
    "local verif. ↑",
    "expr. acc. ↑",
    "own head ↑",
    "change",
)


def main_table(evaluations: Sequence[Evaluation], *, paper: bool | None = None, title: str = "") -> Table:
    """For the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    rows = main_rows(evaluations, paper=paper)
    for place in used_columns(rows):
        column = COLUMNS[place]
        heading = f"{column.title} {column.better}".strip()
        if place >= _MEASURED:
            heading = heading.replace(" ", "\n", 1)
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=True, vertical="bottom")
    models = sum(each.kind == "model" for each in evaluations)
    for number, row in enumerate(rows):
        cells = [superscript(row[place]) for place in used_columns(rows)]
        table.add_row(*cells, style="dim" if number >= models else None)
        if number + 1 in breaks(evaluations):
            table.add_section()
    return table


def expression_table(evaluation: Evaluation) -> Table:
    """For the terminal, by expression; columns that nobody filled are left out."""
    from rich import box
    from rich.table import Table

    rows = expression_rows(evaluation)
    used = [i for i in range(len(EXPRESSION_TITLES)) if i < 2 or any(row[i] != DASH for row in rows)]
    title = f"{evaluation.model}, by expression"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    for place in used:
        table.add_column(
            EXPRESSION_TITLES[place], justify="left" if place == 0 else "right", no_wrap=place in (0, 3, 4)
        )
    for number, row in enumerate(rows):
        if number == len(rows) - 1:
            table.add_section()
        table.add_row(*(row[place] for place in used))
    return table


def warnings(evaluations: Sequence[Evaluation]) -> list[str]:
    """What makes the figures weaker than they look."""
    notes: list[str] = []
    if evaluations:
        pictures, people = max(each.measured_on for each in evaluations)
        if people < FEW_PEOPLE:
            who = f"{people} people" if people else "an unknown number of people"
            acd = evaluations[0].overall.acd
            error = f" (standard error of ACD for {evaluations[0].model}: about {acd.sd / max(people, 1) ** 0.5:.3f})"
            notes.append(
                f"Only {pictures} pictures of {who} were measured. Differences between rows may be chance"
                f"{error if people > 1 and acd.count > 1 else ''}."
            )
    models = [each for each in evaluations if each.kind == "model"]
    if len(models) > 1 and models[0].in_common is None:
        notes.append("No edit was made by all models, so each row is over other edits: do not compare them.")
    if evaluations and not any(each.overall.accuracy for each in evaluations):
        notes.append(
            "No independent classifier judged the expressions (--classifier): the table cannot tell an edit from none."
        )
    return notes


def footnotes(evaluations: Sequence[Evaluation], *, paper: bool | None = None) -> list[str]:
    """The remarks that belong under the table, warnings first."""
    notes: list[str] = [*(f"Warning: {note}" for note in warnings(evaluations)), *FOOTNOTES]
    models = [each for each in evaluations if each.kind == "model"]
    if len(models) > 1 and models[0].in_common is not None:
        expressions = ", ".join(row.expression for row in models[0].per_expression)
        notes.append(f"All figures are over the {models[0].in_common} edits that every model made ({expressions}).")
    names = {each.model for each in evaluations if each.kind == "reference"}
    notes += [note for name, note in (("untouched", UNTOUCHED_NOTE), ("real photos", REAL_NOTE)) if name in names]
    if is_papers_data(evaluations) and paper is not False:
        notes += [PAPER_NOTE, PAPER_DISTANCE_NOTE]
    elif paper:
        notes += [OTHER_DATA_NOTE, PAPER_DISTANCE_NOTE]
    ways: dict[str, list[str]] = {}
    for each in models:
        ways.setdefault(f"{each.protocol}, {each.data}", []).append(each.model)
    notes.append("Measured: " + "; ".join(f"{', '.join(names)}: {way}" for way, names in ways.items()) + ".")
    if classifiers := dict.fromkeys(e.classifier for e in evaluations if e.classifier):
        notes.append(f"Expression accuracy by {', '.join(classifiers)}.")
    if any(e.overall.own_head for e in evaluations):
        notes.append(OWN_HEAD_NOTE)
    for each in models:
        if each.overall.acd.missing:
            notes.append(f"{each.model}: the face of {each.overall.acd.missing} outputs could not be measured.")
        if each.overall.refused:
            notes.append(f"{each.model} left {each.overall.refused} of {each.overall.pictures} faces alone.")
    return notes


def markdown(evaluations: Sequence[Evaluation], *, paper: bool | None = None) -> str:
    """Main table, tables by expression and footnotes as Markdown."""
    rows = main_rows(evaluations, paper=paper)
    used = used_columns(rows)
    parts = [
        _markdown(
            [f"{COLUMNS[i].title} {COLUMNS[i].better}".strip() for i in used], [[r[i] for i in used] for r in rows]
        )
    ]
    for evaluation in evaluations:
        parts += [f"{evaluation.model}, by expression:", _markdown(EXPRESSION_TITLES, expression_rows(evaluation))]
    parts.append("\n".join(f"- {note}" for note in footnotes(evaluations, paper=paper)))
    return "\n\n".join(parts) + "\n"


def latex(evaluations: Sequence[Evaluation], *, paper: bool | None = None) -> str:
    """The main table as a LaTeX ``tabular`` in the manner of the paper's Table 1 (needs the package booktabs)."""
    rows = main_rows(evaluations, paper=paper)
    used = used_columns(rows)
    arrows = {"↓": r" $\downarrow$", "↑": r" $\uparrow$", "": ""}
    head = " & ".join(COLUMNS[i].latex + arrows[COLUMNS[i].better] for i in used)
    lines = [r"\begin{tabular}{l" + "r" * (len(used) - 1) + "}", r"\toprule", head + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        if number and number in breaks(evaluations):
            lines.append(r"\midrule")
        lines.append(" & ".join(_latex(row[i]) for i in used) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% {note}" for note in footnotes(evaluations, paper=paper)]
    return "\n".join(lines) + "\n"


ABLATION_TITLES = (
    "variant",
    "parameters",
    "seeds",
    "ACD ↓",
    "distance ↓",
    "local verif. ↑",
    "expr. acc. ↑",
    "own head ↑",
    "change",
)


def ablation_rows(results: Sequence[Any]) -> list[list[str]]:
    """The cells of an ablation's table; the spread is that of the runs' means over the seeds."""
    return [
        [
            each.name,
            magnitude(each.parameters),
            str(each.seeds),
            spread(each.acd, 4),
            spread(each.distance, 3),
            spread(each.local_verification, 1),
            spread(each.accuracy, 3),
            spread(each.own_head, 3),
            spread(each.changed, 2),
        ]
        for each in results
    ]


def ablation_table(results: Sequence[Any]) -> Table:
    """For the terminal."""
    from rich import box
    from rich.table import Table

    rows = ablation_rows(results)
    used = [i for i in range(len(ABLATION_TITLES)) if i < 3 or any(row[i] != DASH for row in rows)]
    table = Table(title="Ablation", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for place in used:
        table.add_column(ABLATION_TITLES[place], justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in rows:
        table.add_row(*(row[place] for place in used))
    return table


def ablation_markdown(results: Sequence[Any]) -> str:
    notes = ["Mean ± sd over the seeds of each run's mean, at equal steps, on the same held-out people.", OWN_HEAD_NOTE]
    return _markdown(ABLATION_TITLES, ablation_rows(results)) + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def as_json(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Everything measured, and the paper's rows."""
    from dataclasses import asdict

    return {
        "evaluations": [each.to_json() for each in evaluations if each.kind == "model"],
        "references": [each.to_json() for each in evaluations if each.kind == "reference"],
        "warnings": warnings(evaluations),
        "paper": {
            "citation": CITATION,
            "comparable": is_papers_data(evaluations),
            "rows": [asdict(row) for row in TABLE_1],
        },
    }


def magnitude(count: float | None) -> str:
    """2533440 -> 2,533,440; the paper's rounded figures as 2.5 × 10^6."""
    if count is None:
        return DASH
    if isinstance(count, int):
        return f"{count:,}"
    exponent = 0
    while count >= 10:
        count, exponent = count / 10, exponent + 1
    return f"{count:.1f} × 10^{exponent}"


def superscript(cell: str) -> str:
    """``2.5 × 10^6`` with the exponent raised, for places that know no mathematics."""
    base, power, exponent = cell.partition("10^")
    return base + "10" + exponent.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) if power else cell


def spread(stat: Stat | None, digits: int) -> str:
    if stat is None or not stat.count:
        return DASH
    mean = f"{stat.mean:.{digits}f}"
    return mean if stat.count == 1 else f"{mean} ± {stat.sd:.{digits}f}"


def percentage(accuracy: Accuracy | None) -> str:
    return DASH if accuracy is None or not accuracy.total else f"{100 * accuracy.share:.1f} %"


def used_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns that hold anything at all, and the paper's."""
    return [i for i, column in enumerate(COLUMNS) if column.always or any(row[i] != DASH for row in rows)]


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(superscript(cell).replace("|", r"\|").replace("*", r"\*") for cell in cells) + " |"

    aligned = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join([line(titles), "| " + " | ".join(aligned) + " |", *map(line, rows)])


_ESCAPES = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$",
            "{": r"\{", "}": r"\}",
            "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip


def _latex(cell: str) -> str:
    mantissa, times, exponent = cell.partition(" × 10^")
    if times:
        return rf"${mantissa} \times 10^{{{exponent}}}$"
    text = "".join(_ESCAPES.get(letter, letter) for letter in cell)
    return text.replace("±", r"$\pm$").replace("†", r"$\dagger$").replace(DASH, "--")
