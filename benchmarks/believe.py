"""Do edits pass as photographs, and is the expression named right? Blind sheets for judges who know no key.

    python benchmarks/believe.py make SHEETS KEY [--expr E]... [--backend B]... [--count N] [--size 400|full] [--naming]
    python benchmarks/believe.py read KEY ANSWERS.csv...

``make`` writes pages of numbered faces into the folder SHEETS, with an empty answers.csv to copy and fill in, and what
they are into the file KEY, which no judge may see. Each sheet (one expression by one backend) holds N edits and N
untouched photographs of other people who really wear an open mouth, a smile or a neutral face, in random order; all are
found, cut out, resized and encoded alike. With --naming a sheet holds all expressions by one backend and, one in seven,
untouched faces; the judge picks one of the seven words.

``read`` prints for each expression and backend the share of edits and of photographs that were called real, and their
ratio with its 95 % interval (Katz et al., Biometrics 34, 1978: the logarithm of a ratio of proportions); with --naming
the confusion matrix. Several files are several judges.

The people edited are those that no training and no tuning may use (`default_truth.held_out`), studio and wild in turns;
the photographs are of others, from the same two kinds of source one to one.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from default_truth import held_out

from exprtool.errors import ExprtoolError
from exprtool.expressions import EXPRESSIONS, canonical
from exprtool.faces.select import Selection
from exprtool.files import write_bytes
from exprtool.images import read_image
from exprtool.pipeline import Session
from exprtool.types import Edit, Face, Image

FACES = Path(__file__).resolve().parents[2] / "shared" / "faces"
ASKED = EXPRESSIONS[1:]
BACKENDS = ("blendshape", "default")
MARGIN = 3.4
"""Side of a cut-out in distances between the eyes, or from them to the mouth: a head with its hair."""
PARTED = 0.05
"""Gap between the inner lips, in distances between the eyes, from which a mouth shows what is inside."""
QUALITY = 92
CELLS = {"400": (3, 2, 400), "full": (2, 2, 512)}
"""Columns, rows and side of a cell on a page: at most 1.2 megapixels a page, which viewers show without reducing."""
STUDIO, WILD = "studio", "wild"
REAL, EDITED = "real", "edited"


@dataclass(frozen=True)
class Item:
    """One face on a sheet: its number for the judge, and what it is. ``shows`` is the expression that was asked for, or
    the kind of photograph that it stands beside; ``edited`` tells the two apart."""

    item: str
    sheet: str
    shows: str
    backend: str
    edited: bool
    source: str


# ---------------------------------------------------------------------------------------------------------------------
# Which faces


def photographs(faces: Path, shows: str) -> dict[str, list[Path]]:
    """Untouched photographs to stand beside edits to that expression, by source; nobody of the held-out people."""
    away = {path.name for paths in held_out(faces) for path in paths}
    if shows in ("sad", "angry", "neutral"):
        folders = {STUDIO: "london/neutral", WILD: "fairface"}
    elif shows == "happy-closed":
        folders = {STUDIO: "london/happy", WILD: "fairface"}
    else:
        folders = {STUDIO: "london/happy", WILD: "fairface_open"}
    return {
        source: sorted(path for path in (faces / folder).glob("*.jpg") if path.name not in away)
        for source, folder in folders.items()
    }


def fits(shows: str, face: Face) -> bool:
    """Whether a smiling photograph has its mouth as the expression has it."""
    assert face.landmarks68 is not None
    p = face.landmarks68
    gap = np.linalg.norm(p[65:68].mean(0) - p[61:64].mean(0)) / np.linalg.norm(p[36:42].mean(0) - p[42:48].mean(0))
    if shows in ("surprised", "disgusted", "afraid"):
        return bool(gap > PARTED)
    return bool(gap < PARTED) if shows == "happy-closed" else True


def in_turns(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """One of each until one runs out, then the rest."""
    both = [each for pair in zip(first, second, strict=False) for each in pair]
    return both + list(first[len(both) // 2 :]) + list(second[len(both) // 2 :])


def cut_out(image: Image, face: Face) -> Image:
    """A square around the head, within the photo, at the photo's own resolution."""
    eyes, mouth = face.landmarks5[:2], face.landmarks5[3:].mean(0)
    reach = max(np.linalg.norm(eyes[1] - eyes[0]), np.linalg.norm(eyes.mean(0) - mouth))
    h, w = image.shape[:2]
    side = int(min(MARGIN * reach, h, w))
    x, y = (0.5 * (eyes.mean(0) + mouth) - side / 2).round().astype(int)
    x, y = min(max(x, 0), w - side), min(max(y, 0), h - side)
    return image[y : y + side, x : x + side]


def tile(image: Image, size: str) -> Image:
    """A cut-out as the judge sees it: reduced (or enlarged) to 400 pixels, or as it is, encoded once more."""
    cell = CELLS[size][2]
    if size != "full" or max(image.shape) > cell:
        way = cv2.INTER_AREA if image.shape[0] > cell else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, (cell, cell), interpolation=way), np.uint8)
    coded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


class Studio:
    """Finds, edits and cuts out faces; what cannot be used is counted, by reason."""

    def __init__(self, size: str) -> None:
        self.size = size
        self.refused: Counter[str] = Counter()
        self._sessions: dict[str, Session] = {}
        self._largest = Selection.parse("largest")

    def _session(self, backend: str) -> Session:
        return self._sessions.setdefault(backend, Session(backend))

    def photograph(self, path: Path, shows: str, backend: str) -> Image | None:
        image = read_image(path).rgb
        region = next(iter(self._session(backend).find(image, self._largest).selected), None)
        if region is None or not fits(shows, region.face):
            return None
        return tile(cut_out(image, region.face), self.size)

    def edit(self, path: Path, expression: str, backend: str) -> Image | None:
        result = self._session(backend).edit_image(
            read_image(path).rgb, Edit({expression: 1.0}), selection=self._largest
        )
        done = next((face for face in result.faces if face.edited), None)
        if done is None:
            reasons = [face.reason or "not selected" for face in result.faces] or ["no face"]
            self.refused[f"{backend}: {reasons[0]}"] += 1
            return None
        return tile(cut_out(result.image, done.face), self.size)


def _take(paths: Sequence[Path], make: Any, count: int) -> Iterator[tuple[Path, Image]]:
    for path in paths:
        if count == 0:
            return
        if (made := make(path)) is not None:
            count -= 1
            yield path, made


def make_sheet(
    studio: Studio, faces: Path, sheet: str, plan: Mapping[str, tuple[int, int]], backend: str, seed: Sequence[int]
) -> list[tuple[Item, Image]]:
    """The faces of one sheet in random order. ``plan``: {expression: (edits, photographs)}; no edits to "neutral"."""
    random = np.random.default_rng(seed)
    found: list[tuple[str, bool, Path, Image]] = []
    for shows, (edits, photos) in plan.items():
        studied, wild = ([group[i] for i in random.permutation(len(group))] for group in held_out(faces))
        mine = list(_take(in_turns(studied, wild), lambda path, s=shows: studio.edit(path, s, backend), edits))
        found += [(shows, True, *each) for each in mine]
        own = Counter(STUDIO if path.parent.parent.name == "london" else WILD for path, _ in mine)
        pools = photographs(faces, shows)
        for source, pool in pools.items():
            wanted = own[source] if edits else photos // 2 + (photos % 2) * (source == WILD)
            shuffled = [pool[i] for i in random.permutation(len(pool))]
            taken = list(_take(shuffled, lambda path, s=shows: studio.photograph(path, s, backend), wanted))
            found += [(shows, False, *each) for each in taken]
    order = random.permutation(len(found))
    return [
        (Item(f"{sheet}-{n:02d}", sheet, shows, backend, edited, path.name), picture)
        for n, (shows, edited, path, picture) in enumerate((found[i] for i in order), 1)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Pages and the key


def page(faces: Sequence[tuple[Item, Image]], size: str) -> bytes:
    """Numbered tiles on grey, as PNG: what a judge sees of a tile is the tile's own encoding alone."""
    columns, rows, cell = CELLS[size]
    label = 28
    sheet = np.full((rows * (cell + label), columns * cell, 3), 128, np.uint8)
    for i, (item, picture) in enumerate(faces):
        y, x = i // columns * (cell + label), i % columns * cell
        cv2.putText(sheet, item.item, (x + 6, y + 21), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2, cv2.LINE_AA)
        h, w = picture.shape[:2]
        sheet[y + label : y + label + h, x : x + w] = picture
    used = math.ceil(len(faces) / columns) * (cell + label)
    return cv2.imencode(".png", np.ascontiguousarray(sheet[:used, :, ::-1]))[1].tobytes()


def make(options: argparse.Namespace) -> None:
    sheets, key = Path(options.sheets), Path(options.key)
    if sheets.resolve() in key.resolve().parents:
        raise SystemExit(f"{key} lies in {sheets}, where the judges look. Put the key elsewhere.")
    backends, asked = options.backend or BACKENDS, options.expr or ASKED
    studio = Studio(options.size)
    n = options.count
    if options.naming:
        whole = {shows: (n, 0) for shows in asked} | {"neutral": (0, max(1, n * len(asked) // 6))}
        jobs = [(backend, whole) for backend in backends]
    else:
        jobs = [(backend, {shows: (n, n)}) for shows in asked for backend in backends]
    numbers = np.random.default_rng(options.seed).permutation(len(jobs)) + 1  # the number must not tell what it is
    items: list[Item] = []
    columns, rows, _ = CELLS[options.size]
    for number, (backend, plan) in zip(numbers, jobs, strict=True):
        made = make_sheet(studio, options.faces, f"{number:02d}", plan, backend, (options.seed, int(number)))
        items += [item for item, _ in made]
        for i in range(0, len(made), columns * rows):
            name = f"{number:02d}-page{i // (columns * rows) + 1:02d}.png"
            write_bytes(sheets / name, page(made[i : i + columns * rows], options.size))
        print(f"sheet {number:02d}: {len(made)} faces", flush=True)
    items.sort(key=lambda item: item.item)
    write_bytes(sheets / "answers.csv", ("item,answer\n" + "".join(f"{item.item},\n" for item in items)).encode())
    text = {"naming": options.naming, "size": options.size, "seed": options.seed, "items": [asdict(i) for i in items]}
    write_bytes(key, json.dumps(text, indent=1).encode())
    for reason, count in studio.refused.most_common():
        print(f"  left alone, the next one taken: {count} x {reason}")


# ---------------------------------------------------------------------------------------------------------------------
# Answers


def read_answers(path: Path, known: Mapping[str, Item], naming: bool) -> dict[str, str]:
    """{item: answer} of one judge; empty answers are left out. Raises `ExprtoolError` naming file and line."""
    answers: dict[str, str] = {}
    try:
        rows = list(csv.reader(io.StringIO(path.read_text("utf-8-sig"))))
    except (OSError, ValueError) as error:
        raise ExprtoolError(f"{path} cannot be read: {error}") from error
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or [cell.lower() for cell in cells[:2]] == ["item", "answer"]:
            continue
        where = f"{path}, line {number}"
        if cells[0] not in known:
            raise ExprtoolError(f"{where}: {cells[0]!r} is no item of this key.")
        if cells[0] in answers:
            raise ExprtoolError(f"{where}: {cells[0]} is answered twice.")
        if len(cells) < 2 or not cells[1]:
            continue
        word = cells[1].lower()
        if naming:
            try:
                answers[cells[0]] = canonical(word)
            except ExprtoolError as error:
                raise ExprtoolError(f"{where}: {error}") from error
        elif word in (REAL, EDITED):
            answers[cells[0]] = word
        else:
            raise ExprtoolError(f"{where}: {cells[1]!r} is neither {REAL!r} nor {EDITED!r}.")
    return answers


def ratio_interval(a: int, n: int, b: int, m: int, z: float = 1.96) -> tuple[float, float, float]:
    """(a/n) / (b/m) with its interval; where a count is 0 half an answer is added to each, as usual."""
    if not (a and b):
        a, n, b, m = a + 0.5, n + 0.5, b + 0.5, m + 0.5  # type: ignore[assignment]
    ratio = (a / n) / (b / m)
    spread = z * math.sqrt(max(0.0, 1 / a - 1 / n + 1 / b - 1 / m))
    return ratio, ratio * math.exp(-spread), ratio * math.exp(spread)


def believed(judged: Sequence[tuple[Item, str]]) -> list[str]:
    """Lines of the table: shares called real, and their ratio."""
    lines = [f"{'expression':<13}{'backend':<12}{'edits real':>14}{'photos real':>14}{'ratio':>8}   95 %"]
    for shows, backend in sorted({(item.shows, item.backend) for item, _ in judged}):
        counts = {
            edited: [answer == REAL for item, answer in judged if (item.shows, item.backend, item.edited) == group]
            for edited in (True, False)
            for group in [(shows, backend, edited)]
        }
        (a, n), (b, m) = ((sum(each), len(each)) for each in (counts[True], counts[False]))
        shares = "".join(f"{k:>4}/{of:<3}{k / of:>6.0%}" if of else f"{'-':>13}" for k, of in ((a, n), (b, m)))
        line = f"{shows:<13}{backend:<12} {shares}"
        if n and m:
            ratio, low, high = ratio_interval(a, n, b, m)
            line += f"{ratio:>8.0%}   {low:.0%} to {high:.0%}"
        lines.append(line)
    return lines


def confusion(judged: Sequence[tuple[Item, str]]) -> list[str]:
    """Lines of one table for each backend: rows what was asked for, columns what the judges named."""
    lines: list[str] = []
    for backend in sorted({item.backend for item, _ in judged}):
        lines.append(f"{backend:<12}" + "".join(f"{word[:9]:>10}" for word in EXPRESSIONS) + "     right")
        for shows in EXPRESSIONS:
            said = Counter(answer for item, answer in judged if (item.backend, item.shows) == (backend, shows))
            if total := said.total():
                cells = "".join(f"{said[word]:>10}" for word in EXPRESSIONS)
                lines.append(f"  {shows:<10}{cells}{said[shows] / total:>10.0%}")
    return lines


def read(options: argparse.Namespace) -> None:
    key = json.loads(Path(options.key).read_text("utf-8"))
    known = {entry["item"]: Item(**entry) for entry in key["items"]}
    judged: list[tuple[Item, str]] = []
    for path in map(Path, options.answers):
        answers = read_answers(path, known, key["naming"])
        judged += [(known[item], answer) for item, answer in answers.items()]
        if missing := len(known) - len(answers):
            print(f"{path}: {missing} of {len(known)} without an answer")
    print("\n".join(confusion(judged) if key["naming"] else believed(judged)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    new = commands.add_parser("make")
    new.add_argument("sheets", help="folder for the pages")
    new.add_argument("key", help="file for the key, outside that folder")
    new.add_argument("--expr", action="append", choices=(*ASKED, "happy-closed"))
    new.add_argument("--backend", action="append")
    new.add_argument("--count", type=int, default=20, help="edits a sheet (and as many photographs)")
    new.add_argument("--size", choices=tuple(CELLS), default="400")
    new.add_argument("--seed", type=int, default=1)
    new.add_argument("--naming", action="store_true", help="which of seven words, in place of real or edited")
    new.add_argument("--faces", type=Path, default=FACES)
    new.set_defaults(run=make)
    old = commands.add_parser("read")
    old.add_argument("key")
    old.add_argument("answers", nargs="+")
    old.set_defaults(run=read)
    options = parser.parse_args()
    try:
        options.run(options)
    except ExprtoolError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
