"""A gallery of what a run did, to be opened in a browser: before and after, faces, times, and what went wrong.

The folder holds ``index.html`` and the pictures it shows, nothing from elsewhere, so it can be moved, zipped or opened
without a server. Entries go to disk as they come; the page is put together from them at the end.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from exprtool.errors import UsageError
from exprtool.files import atomic_write, write_bytes, write_error
from exprtool.reports import page as report_page
from exprtool.types import Image

PREVIEW_SIDE = 1600
CLOSEUP_SIDE = 420
MAX_CLOSEUPS = 24
_LARGE_ENOUGH = 0.35  # of the photo's longer side: a face of that size needs no close-up
_PICTURES = "pictures"
_PICTURE_NAME = re.compile(r"\d{5,}(-face\d+)?-(before|after)\.jpg\Z")
_MARK = b'<meta name="generator" content="exprtool">'
_REMEMBERED = 64
_Remembered = tuple[str | None, tuple[int, int] | None, tuple[int, int] | None]


@dataclass(frozen=True, eq=False)
class ReportEntry:
    """One output of a run.

    ``status`` is "edited", "refused", "no_face", "skipped" or "failed"; ``label`` the expression.
    ``before`` and ``after`` are upright RGB images (H, W, 3) or paths of image files, None where there is no picture.
    ``size`` (h, w) is the photo's own, to which the boxes in ``faces`` refer; by default that of ``before``. ``faces``
    are records as ``--json`` prints them, ``timings`` seconds by stage. ``icc`` is the colour profile of the arrays,
    kept in the previews.
    """

    input: str
    output: str | None = None
    label: str = ""
    status: str = "edited"
    error: str | None = None
    faces: Sequence[Mapping[str, Any]] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    before: Image | Path | None = None
    after: Image | Path | None = None
    size: tuple[int, int] | None = None
    notes: Sequence[str] = ()
    icc: bytes | None = None

    @classmethod
    def of(
        cls,
        record: Mapping[str, Any],
        before: Image | Path | None,
        after: Image | Path | None,
        icc: bytes | None = None,
    ) -> Self:
        """The entry for a record of ``exprtool edit --json``."""
        return cls(
            input=record["input"],
            output=record["output"],
            label=record["expression"],
            status=record["status"],
            error=record["error"],
            faces=record["faces"],
            timings=record["timings"],
            before=before,
            after=after,
            size=tuple(record["size"]) if record.get("size") else None,
            notes=record.get("notes", ()),
            icc=icc,
        )


class Report:
    """A report being written; use it as a context manager, or call `close` also when the run was interrupted.

    Raises `UsageError` for a folder whose ``index.html`` is somebody else's, and `WriteError` where the folder cannot
    be written. An earlier report in the folder is replaced.
    """

    def __init__(self, folder: Path | str, title: str = "Expression edits") -> None:
        self.folder = Path(folder)
        self.title = title
        self._number = 0
        self._counts: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._labels: dict[str, None] = {}
        self._inputs: OrderedDict[str, _Remembered] = OrderedDict()
        self._start = time.monotonic()
        try:
            self._take_folder()
            # It never has a name: nobody can put something in its way, and a killed run leaves nothing of it.
            self._journal = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
        except OSError as error:
            raise write_error(self.folder, error) from error

    def _take_folder(self) -> None:
        """Make the folder, or clear it of an earlier report: of that alone, and never through a link."""
        page, pictures = self.folder / "index.html", self.folder / _PICTURES
        earlier = os.path.lexists(page)
        if earlier and not _is_ours(page):
            raise UsageError(
                f"{page} is not a report of exprtool and is left alone; choose another folder for --report."
            )
        if pictures.is_symlink() or (os.path.lexists(pictures) and not pictures.is_dir()):
            raise UsageError(
                f"{pictures} is not a folder of its own and is left alone; choose another folder for --report."
            )
        pictures.mkdir(parents=True, exist_ok=True)
        old = [entry for entry in pictures.iterdir() if _PICTURE_NAME.match(entry.name)]
        if old and not earlier:
            raise UsageError(
                f"{old[0]} belongs to no report of exprtool and is left alone; choose another folder for --report."
            )
        for entry in old:
            entry.unlink()
        # From now on the folder is known as a report's, also after a kill.
        write_bytes(page, _MARK + b"<title>This report is not finished</title>")

    def add(self, entry: ReportEntry) -> None:
        """Add one output; its previews are made now and its pictures need not be kept."""
        self._number += 1
        self._counts[entry.status] += 1
        if entry.label:
            self._labels.setdefault(entry.label)
        for stage, seconds in entry.timings.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        was, now = _pixels(entry.before, entry.icc), _pixels(entry.after, entry.icc)
        before, preview_size, size = self._before(entry.input, was)
        after = None
        if now is not None:
            after, preview_size = self._preview(now, "after")
            size = size or now.size
        record = {
            "number": self._number,
            "input": entry.input,
            "output": entry.output,
            "output_link": self._link(entry.output),
            "label": entry.label,
            "status": entry.status,
            "error": entry.error,
            "faces": list(entry.faces),
            "timings": dict(entry.timings),
            "notes": list(entry.notes),
            "before": before,
            "after": after,
            "preview_size": preview_size,
            "closeups": self._closeups(entry.faces, was, now),
            "size": entry.size or size,
        }
        try:
            # ASCII: file names may hold bytes that are no text, which JSON escapes can carry and UTF-8 cannot
            self._journal.write(json.dumps(record, default=_plain).encode() + b"\n")
        except OSError as error:
            raise write_error(self.folder, error) from error

    def close(self) -> Path:
        """Write the page from what was added; returns its path. Closing again changes nothing."""
        page = self.folder / "index.html"
        if self._journal.closed:
            return page
        pieces = report_page.page(
            self.title,
            self._subtitle(),
            self._counts,
            (entry for entry in self._entries() if entry["status"] in ("failed", "no_face", "refused")),
            self._seconds,
            self._entries(),
        )
        with atomic_write(page) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
        self._journal.close()
        return page

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The entries so far; two readers may be under way, each goes on from where it was."""
        self._journal.flush()
        at = 0
        while True:
            self._journal.seek(at)
            line = self._journal.readline()
            if not line:
                return
            at = self._journal.tell()
            yield json.loads(line)

    def _subtitle(self) -> str:
        count = sum(self._counts.values())
        labels = list(self._labels)
        what = ", ".join(labels[:7]) + (" …" if labels[7:] else "")
        parts = [what, "1 picture" if count == 1 else f"{count} pictures", time.strftime("%Y-%m-%d %H:%M")]
        parts.append(f"took {report_page.duration(time.monotonic() - self._start)}")
        return " · ".join(part for part in parts if part)

    def _link(self, output: str | None) -> str | None:
        """The way from the report to an output, where there is one that does not name this machine's folders."""
        if not output or output == "-" or not Path(output).exists():
            return None
        try:
            return Path(os.path.relpath(Path(output).resolve(), self.folder.resolve())).as_posix()
        except ValueError:  # another drive
            return None

    def _before(self, name: str, picture: _Pixels | None) -> _Remembered:
        """The preview of the input, made once where it has several outputs: (name, its size, the photo's size)."""
        if picture is None:
            return None, None, None
        made = self._inputs.get(name)
        if made is None:
            made = (*self._preview(picture, "before"), picture.size)
            self._inputs[name] = made
            if len(self._inputs) > _REMEMBERED:
                self._inputs.popitem(last=False)
        return made

    def _preview(self, picture: _Pixels, which: str, side: int = PREVIEW_SIDE) -> tuple[str, tuple[int, int]]:
        """Save a picture, at most ``side`` long; returns its name in the folder and its size (h, w)."""
        import cv2
        from PIL import Image as pillow

        (height, width), pixels = picture.size, picture.rgb
        if (scale := side / max(height, width)) < 1:
            height, width = max(1, round(scale * height)), max(1, round(scale * width))
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        encoded = io.BytesIO()
        pillow.fromarray(pixels).save(encoded, "JPEG", quality=90, optimize=True, icc_profile=picture.icc)
        name = f"{_PICTURES}/{self._number:05d}-{which}.jpg"
        write_bytes(self.folder / name, encoded.getvalue())
        return name, (height, width)

    def _closeups(
        self, faces: Sequence[Mapping[str, Any]], before: _Pixels | None, after: _Pixels | None
    ) -> list[dict[str, Any]]:
        """Before and after of each edited face that the preview of the whole photo shows too small."""
        if before is None or after is None or before.size != after.size:
            return []
        height, width = before.size
        made: list[dict[str, Any]] = []
        for place, face in enumerate(faces, start=1):
            if not face.get("edited") or not face.get("box") or len(made) == MAX_CLOSEUPS:
                continue
            x0, y0, x1, y1 = (float(value) for value in face["box"])
            reach = 0.8 * max(x1 - x0, y1 - y0)
            if reach < 1 or 2 * reach > _LARGE_ENOUGH * max(height, width):
                continue
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            rows = slice(max(0, round(y - reach)), max(1, min(height, round(y + reach))))
            columns = slice(max(0, round(x - reach)), max(1, min(width, round(x + reach))))
            was, now = (_Pixels(picture.rgb[rows, columns], picture.icc) for picture in (before, after))
            if 0 in was.size:
                continue
            number = int(face.get("index", place))
            first, size = self._preview(was, f"face{place}-before", CLOSEUP_SIDE)
            second, _ = self._preview(now, f"face{place}-after", CLOSEUP_SIDE)
            made.append({"face": number, "before": first, "after": second, "size": size})
        return made


def _is_ours(page: Path) -> bool:
    """Whether this is the page of a report (or of one that was begun), and a file of its own and no link."""
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as file:
        return _MARK in file.read(4096)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """An upright RGB image and its colour profile."""

    rgb: Image
    icc: bytes | None

    @property
    def size(self) -> tuple[int, int]:
        return self.rgb.shape[0], self.rgb.shape[1]


def _pixels(source: Image | Path | None, icc: bytes | None) -> _Pixels | None:
    if source is None:
        return None
    if isinstance(source, Path):
        from exprtool.images import read_image

        photo = read_image(source)
        return _Pixels(photo.rgb, photo.icc)
    return _Pixels(source, icc)


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays, paths and sets in backends' details, as JSON knows them."""
    for method in ("tolist", "item"):
        with contextlib.suppress(AttributeError):
            return getattr(value, method)()
    return str(value)
