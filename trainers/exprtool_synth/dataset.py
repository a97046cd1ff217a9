"""The whole set: many portraits in parallel, resumable at any moment, the same bytes for the same seed.

What is written::

    OUT/faces/EXPRESSION/PERSON__VARIANT.png   crops for `exprtool train` (a folder per expression)
    OUT/pairs/pairs-00000.npz                  pairs in shards of about 100 MB, see `exprtool_synth.pairs.Pair`
    OUT/datasheet.json, OUT/datasheet.md       sources, licences, counts, seeds; written last: with it the set is whole
    OUT/unfinished/                            gone at the end

Each portrait's pairs are first a part of their own, so that a run that was killed goes on behind the last whole part.
Shards are packed from parts in the portraits' order, whatever order the processes finished in.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from exprtool.errors import DataError
from exprtool.expressions import EXPRESSIONS
from exprtool.files import atomic_write, write_bytes
from exprtool.images import IMAGE_SUFFIXES
from exprtool.plan import Input, expand_inputs
from exprtool.processes import over_items
from exprtool_synth.pairs import stack
from exprtool_synth.portrait import Wish, Yield, work_up

SHARD_BYTES = 100_000_000
FORMAT = 5
"""Version of the layout of shards; in the datasheet."""

Progress = Callable[[int, int, int], None]
"""Receives portraits done, portraits in all, pairs so far."""
Portrait = tuple[Path, str, str]
"""Path, name in the set, licence."""


@dataclass(frozen=True)
class Source:
    """Portraits that belong together: where they are, and under which licence they may be used."""

    folder: Path
    licence: str = "not stated"


@dataclass(frozen=True)
class Summary:
    """What came of one portrait, kept beside its part."""

    name: str
    sha256: str
    licence: str
    pairs: int
    crops: tuple[str, ...]
    rejected: dict[str, int]
    refused: str | None


def make_dataset(
    sources: Sequence[Source],
    out: Path,
    wish: Wish,
    *,
    workers: int | None = None,
    leave_out: Callable[[Path], bool] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the set, or go on with one that was interrupted; returns the datasheet.

    ``leave_out`` tells which portraits are kept for measuring. Raises `DataError` when there are no portraits, when
    ``out`` holds a set made with other settings, or when a process dies; `WriteError` when the disk is full (what is
    done is kept).
    """
    portraits = _portraits(sources, leave_out)
    settings = {"format": FORMAT, **asdict(wish), "portraits": [name for _, name, _ in portraits]}
    work = out / "unfinished"
    _begin(out, work, settings)
    done = _finished(work, len(portraits))
    pairs = sum(summary.pairs for summary in done.values())
    waiting = {i: (i, portrait) for i, portrait in enumerate(portraits) if i not in done}
    for index, summary in over_items(waiting, _Worker, (out, wish), workers=workers):
        done[index] = summary
        pairs += summary.pairs
        if progress:
            progress(len(done), len(portraits), pairs)
    summaries = [done[i] for i in range(len(portraits))]
    shards = _pack(summaries, out, work, wish)
    sheet = _datasheet(summaries, shards, wish)
    write_bytes(out / "datasheet.md", _readable(sheet).encode())
    write_bytes(out / "datasheet.json", json.dumps(sheet, indent=1).encode())
    shutil.rmtree(work)
    return sheet


def _portraits(sources: Sequence[Source], leave_out: Callable[[Path], bool] | None) -> list[Portrait]:
    """(path, name, licence) of every portrait; the name is unique, says where it comes from."""
    found: list[Portrait] = []
    for source in sources:
        for item in expand_inputs([str(source.folder)], IMAGE_SUFFIXES):
            assert item.path is not None
            if not (leave_out and leave_out(item.path)):
                found.append((item.path, _name(source.folder, item), source.licence))
    if not found:
        raise DataError("There is no portrait to work on. Name a folder of portraits with --faces.")
    twice = [name for name, count in Counter(name for _, name, _ in found).items() if count > 1]
    if twice:
        raise DataError(f"Two portraits would both be called {twice[0]!r}. Rename one, or their folders.")
    return found


def _name(folder: Path, item: Input) -> str:
    return "-".join([folder.resolve().name, *item.relative.with_suffix("").parts]).replace(" ", "_")


def _begin(out: Path, work: Path, settings: dict[str, Any]) -> None:
    """Claim ``out`` for these settings, or find that it is ours already."""
    if (out / "datasheet.json").exists():
        raise DataError(f"{out} holds a finished set. Name another folder with --out, or remove it.")
    marker = work / "settings.json"
    if marker.exists():
        if json.loads(marker.read_text()) != settings:
            raise DataError(
                f"{out} holds an unfinished set with other portraits, seed or settings. Finish it with those, "
                "or name another folder with --out."
            )
        return
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and holds no set of ours. Name another folder with --out.")
    write_bytes(marker, json.dumps(settings).encode())


def _finished(work: Path, count: int) -> dict[int, Summary]:
    found: dict[int, Summary] = {}
    for i in range(count):
        path = _summary_path(work, i)
        if path.exists():
            fields = json.loads(path.read_text())
            found[i] = Summary(**{**fields, "crops": tuple(fields["crops"])})
    return found


def _summary_path(work: Path, index: int) -> Path:
    return work / f"{index:06}.json"


def _part_path(work: Path, index: int) -> Path:
    return work / f"{index:06}.npz"


# -- the work, in processes -------------------------------------------------------------------------------------------


class _Worker:
    """Works up one portrait after another, with one thread, since there is one process per processor."""

    def __init__(self, out: Path, wish: Wish) -> None:
        import cv2

        from exprtool.choice import load_detector
        from exprtool_blendshape.backend import BlendshapeBackend

        cv2.setNumThreads(1)
        self._out, self._wish = out, wish
        self._backend, self._detector = BlendshapeBackend(), load_detector("dlib")[1]

    def __call__(self, place: tuple[int, Portrait]) -> Summary:
        index, (path, name, licence) = place
        made = work_up(path, name, self._wish, self._backend, self._detector)
        return _keep(made, licence, index, self._out)


def _keep(made: Yield, licence: str, index: int, out: Path) -> Summary:
    """Write what one portrait gave; its summary comes last and says that the rest is whole."""
    work = out / "unfinished"
    for expression, crop in made.crops.items():
        with atomic_write(out / "faces" / expression / f"{made.name}__0.png") as temporary:
            Pillow.fromarray(crop).save(temporary, format="PNG")
    if made.pairs:
        _save(_part_path(work, index), stack(made.pairs))
    crops = tuple(sorted(made.crops))
    summary = Summary(made.name, made.sha256, licence, len(made.pairs), crops, dict(made.rejected), made.refused)
    write_bytes(_summary_path(work, index), json.dumps(asdict(summary)).encode())
    return summary


def _save(target: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no time stamps inside: equal arrays give equal bytes


# -- shards and datasheet ---------------------------------------------------------------------------------------------


def _pack(summaries: Sequence[Summary], out: Path, work: Path, wish: Wish) -> list[dict[str, Any]]:
    """Put the parts together in the portraits' order; a part is removed once its shard is whole."""
    shards: list[dict[str, Any]] = []
    for number, members in enumerate(_shards(summaries, wish)):
        target = out / "pairs" / f"pairs-{number:05}.npz"
        if not target.exists():
            parts = [np.load(_part_path(work, i), allow_pickle=False) for i in members]
            _save(target, {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files})
            for part in parts:
                part.close()
        for i in members:
            _part_path(work, i).unlink(missing_ok=True)
        shards.append({"file": f"pairs/{target.name}", "pairs": sum(summaries[i].pairs for i in members)})
    return shards


def _shards(summaries: Sequence[Summary], wish: Wish) -> Iterator[list[int]]:
    """Which portraits go into which shard; decided by counts alone, so that every run decides alike."""
    pair_bytes = wish.size * wish.size * (3 + 3 + 4 + 1)
    members: list[int] = []
    size = 0
    for i, summary in enumerate(summaries):
        if summary.pairs:
            members.append(i)
            size += summary.pairs * pair_bytes
        if size >= SHARD_BYTES:
            yield members
            members, size = [], 0
    if members:
        yield members


def _datasheet(summaries: Sequence[Summary], shards: list[dict[str, Any]], wish: Wish) -> dict[str, Any]:
    from exprtool.anatomy.names import CONTROLS

    rejected: Counter[str] = Counter()
    for summary in summaries:
        rejected.update(summary.rejected)
    refused = Counter(summary.refused.split(":")[0] for summary in summaries if summary.refused)
    pairs = sum(summary.pairs for summary in summaries)
    tries = pairs + sum(rejected.values())
    return {
        "format": FORMAT,
        "made_by": f"exprtool {version('exprtool')}",
        "settings": asdict(wish),
        "controls": list(CONTROLS),
        "pairs": pairs,
        "rejected_renders": dict(rejected.most_common()),
        "share_rejected": round(sum(rejected.values()) / tries, 4) if tries else 0.0,
        "portraits": {"used": sum(not s.refused for s in summaries), "left_out": dict(refused.most_common())},
        "labelled_crops": {name: sum(name in s.crops for s in summaries) for name in EXPRESSIONS},
        "shards": shards,
        "sources": [
            {"name": s.name, "sha256": s.sha256, "licence": s.licence, "pairs": s.pairs, "left_out": s.refused}
            for s in summaries
        ],
    }


def _readable(sheet: dict[str, Any]) -> str:
    """The datasheet for people, as Markdown."""
    licences = Counter(source["licence"] for source in sheet["sources"] if not source["left_out"])
    lines = [
        "# Datasheet",
        f"{sheet['pairs']} pairs of two expressions of one person, from {sheet['portraits']['used']} portraits, made "
        f"by {sheet['made_by']} with a fitted face model. No person wore these expressions before a camera.",
        "",
        *(f"- Licence {licence}: {count} portraits" for licence, count in licences.most_common()),
        *(f"- Portraits left out, {reason}: {count}" for reason, count in sheet["portraits"]["left_out"].items()),
        *(f"- Renders thrown away, {reason}: {count}" for reason, count in sheet["rejected_renders"].items()),
        f"- Labelled crops: {', '.join(f'{name} {count}' for name, count in sheet['labelled_crops'].items())}",
        f"- Seed {sheet['settings']['seed']}; sizes {sheet['settings']['size']} px (pairs) and "
        f"{sheet['settings']['crop_size']} px (labelled crops)",
        "",
        "Portraits of people of every age in the sources are used as they come; nobody's age was guessed. Each source "
        "is listed with its SHA-256 in datasheet.json.",
        "",
    ]
    return "\n".join(lines)
