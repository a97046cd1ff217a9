"""What the user sees while a batch runs: a live bar on a terminal, plain lines elsewhere, JSON lines on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from exprtool.cli import common, printing
from exprtool.errors import ExprtoolError

if TYPE_CHECKING:
    from exprtool.batch import OutputReport
    from exprtool.reports.gallery import Report
    from exprtool.types import Image


_MOST_ENDINGS = 8


class Screen:
    """Shows reports as they come in, and keeps count. A context manager: leaving it clears the bar and sums up."""

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        verbose: bool = False,
        as_json: bool = False,
        report: Path | None = None,
        strict: bool = False,
        passed_over: Sequence[Path] = (),
    ) -> None:
        self._strict, self._passed_over = strict, passed_over
        self.total, self.quiet, self.verbose, self.as_json = total, quiet, verbose, as_json
        self.counts = {"edited": 0, "refused": 0, "no_face": 0, "skipped": 0, "failed": 0}
        self.faces = 0
        self.gallery_failed = False
        self.console = printing.console()
        self._gallery: Report | None = _open_gallery(report) if report else None
        self._bar = Progress(
            TextColumn("{task.description} {task.fields[name]}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[faces]} faces"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self._bar.add_task("editing", total=total, faces=0, rate="", name="")

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.stop()
        with self._while_gallery_works():
            if self._gallery:
                self._gallery.close()
        if kind is KeyboardInterrupt:
            self.console.print(
                f"interrupted: {self.summary()} What is finished is kept; --skip-existing goes on from there.",
                markup=False,
            )
        elif kind is None and not self.quiet:
            self.console.print(self.summary())

    @property
    def all_edited(self) -> bool:
        """Whether nothing failed, the gallery included, and no photo was without a face (or, if strict, refused)."""
        refused = self._strict and self.counts["refused"] > 0
        return self.counts["failed"] == self.counts["no_face"] == 0 and not refused and not self.gallery_failed

    @property
    def complete(self) -> bool:
        """Whether something became of every output."""
        return sum(self.counts.values()) == self.total

    def stopping(self) -> None:
        """Say that somebody asked to stop, and what happens now."""
        self.console.print("finishing the photos at work; press Ctrl-C again to stop at once")

    def summary(self) -> str:
        done = self.counts
        parts = [f"{done['edited']} edited ({self.faces} face{'s' if self.faces != 1 else ''})"]
        parts += [f"{done['skipped']} already there"] if done["skipped"] else []
        parts += [f"{done['refused']} left as they are"] if done["refused"] else []
        parts += [f"{done['no_face']} without a face"] if done["no_face"] else []
        parts += [f"{done['failed']} failed"] if done["failed"] else []
        missing = self.total - sum(done.values())
        parts += [f"{missing} not reached"] if missing else []
        return ", ".join(parts) + "." + self._passed_over_in_words()

    def _passed_over_in_words(self) -> str:
        """How many files of the folders are no photos that exprtool edits, by their endings."""
        if not self._passed_over:
            return ""
        endings = Counter(path.suffix.lower() or "without an ending" for path in self._passed_over)
        listed = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(_MOST_ENDINGS))
        more = len(endings) - _MOST_ENDINGS
        return f" Passed over: {listed}{f' and {more} other endings' if more > 0 else ''}."

    def remark(self, notes: Iterable[str]) -> None:
        """Show remarks that concern the whole run, such as an unused GPU."""
        if not self.quiet:
            for note in dict.fromkeys(notes):
                self.console.print(f"note: {note}")

    def show(self, report: OutputReport, before: Image | None, after: Image | None) -> None:
        """Take in one finished output; called in order by `exprtool.batch.run_batch`."""
        self.counts[report.status] += 1
        edited = sum(face.edited for face in report.faces)
        self.faces += edited if report.status == "edited" else 0
        if self.as_json:
            printing.json_line(report.as_json())
        self._add_to_gallery(report, before, after)
        if report.status in ("failed", "no_face", "refused"):
            message = common.naming(report.output.source.name, report.error or "")
            self.console.print(message, style="red" if report.status == "failed" else None)
            if report.trace and self.verbose:
                self.console.trace(report.trace)
        elif not self.quiet and (self.verbose or not self.console.is_terminal):
            self.console.print(self._line(report, edited))
        self._advance(_short(report.output.source.name))

    def _add_to_gallery(self, report: OutputReport, before: Image | None, after: Image | None) -> None:
        from exprtool.reports.gallery import ReportEntry

        with self._while_gallery_works():
            if self._gallery:
                self._gallery.add(ReportEntry.of(report.as_json(), before, after, report.icc))

    @contextmanager
    def _while_gallery_works(self) -> Iterator[None]:
        """The photos are what matters: where the gallery cannot be written, it ends and they go on."""
        try:
            yield
        except ExprtoolError as error:
            self._gallery, self.gallery_failed = None, True
            self.console.print(f"the report is incomplete: {error}", style="red")

    def _advance(self, name: str) -> None:
        done = sum(self.counts.values())
        elapsed = self._bar.tasks[0].elapsed or 0.0
        rate = f"{done / elapsed:.1f}/s" if elapsed > 0 else ""
        self._bar.update(self._task, completed=done, faces=self.faces, rate=rate, name=name)

    def _line(self, report: OutputReport, edited: int) -> str:
        done = sum(self.counts.values())
        head = f"[{done}/{self.total}] {report.output.source.name} -> {report.output.name}"
        if report.status == "skipped":
            return f"{head}: already there"
        left = [f"face {i} left alone: {face.reason}" for i, face in enumerate(report.faces, 1) if face.reason]
        count = f"{edited} face{'s' if edited != 1 else ''}"
        return f"{head}: " + "; ".join([count, *left, *report.notes])


def _short(name: str, longest: int = 40) -> str:
    """The end of a file's name, fit for the bar."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return plain if len(plain) <= longest else f"...{plain[3 - longest :]}"


def _open_gallery(folder: Path) -> Report:
    from exprtool.reports.gallery import Report

    return Report(folder)
