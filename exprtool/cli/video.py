"""``exprtool video``: clips in, clips out."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exprtool.cli import common, printing
from exprtool.cli.common import EXPRESSION_PANEL, OUTPUT_PANEL
from exprtool.errors import ExprtoolError, UsageError
from exprtool.stopping import StopRequest

if TYPE_CHECKING:
    from exprtool.pipeline import Session
    from exprtool.plan import Input, Output
    from exprtool.reports.gallery import Report
    from exprtool.timeline import Timeline
    from exprtool.types import Edit
    from exprtool.videos.analysis import Analysis
    from exprtool.videos.edit import VideoOptions, VideoResult

VIDEO_PANEL = "Video"
EXIT_INTERRUPTED = 130

TimelineExpr = Annotated[
    list[str] | None,
    typer.Option(
        "--expr",
        "-e",
        help="happy, a blend happy=0.6,surprised=0.3, or a timeline 'happy@0s neutral@2.5s surprised=0.8@4s'. "
        "Repeat it for more outputs.",
        rich_help_panel=EXPRESSION_PANEL,
    ),
]
Ramp = Annotated[
    float,
    typer.Option(
        min=0.0, metavar="SECONDS", help="How long a change of expression takes.", rich_help_panel=EXPRESSION_PANEL
    ),
]

KeepTimes = Annotated[
    bool, typer.Option("--keep-times", help="Give outputs the input's file times.", rich_help_panel=OUTPUT_PANEL)
]


def add_to(app: typer.Typer) -> None:
    app.command()(video)


def video(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Clips, folders (searched recursively), or globs.")
    ],
    expr: TimelineExpr = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            metavar="OUT",
            help="A file for one clip, a folder for more. [default: beside the input]",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    ramp: Ramp = 0.6,
    strength: common.Strength = 1.0,
    controls: common.Set = None,
    like: common.Like = None,
    asymmetry: common.Asymmetry = 0.0,
    seed: common.Seed = 0,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin here: 2.5s, 1:02.5, or frame f75. The rest is cut off.",
            rich_help_panel=VIDEO_PANEL,
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="End before this time or frame.", rich_help_panel=VIDEO_PANEL)
    ] = None,
    backend: common.BackendName = "auto",
    detector: common.DetectorName = "auto",
    device: common.Device = "auto",
    commercial_only: common.CommercialOnly = False,
    faces: common.Faces = "all",
    person: common.Person = None,
    similarity: common.Similarity = common.DEFAULT_SIMILARITY,
    min_face: common.MinFace = 0.0,
    force: common.Force = False,
    preview: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only write a contact sheet of N frames, before and after.",
            rich_help_panel=VIDEO_PANEL,
        ),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the original beside the edit.", rich_help_panel=VIDEO_PANEL)
    ] = False,
    codec: Annotated[
        str | None,
        typer.Option(help="h264, h265, vp9, av1, ffv1, ... [default: h264, vp9 in WebM]", rich_help_panel=VIDEO_PANEL),
    ] = None,
    crf: Annotated[
        float | None,
        typer.Option(help="Constant rate factor in the codec's own scale; 0 is lossless.", rich_help_panel=VIDEO_PANEL),
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option(min=1, max=100, help="Quality in one scale for every codec.", rich_help_panel=VIDEO_PANEL),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="The codec's speed: ultrafast to veryslow.", rich_help_panel=VIDEO_PANEL)
    ] = None,
    pix_fmt: Annotated[
        str | None, typer.Option("--pix-fmt", help="[default: the input's own]", rich_help_panel=VIDEO_PANEL)
    ] = None,
    no_audio: Annotated[
        bool, typer.Option("--no-audio", help="Leave out the sound.", rich_help_panel=VIDEO_PANEL)
    ] = False,
    video_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="mp4, mov, mkv, webm, gif, webp or png. [default: the input's]",
            rich_help_panel=VIDEO_PANEL,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was cut short; without it, the same command does so, too.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Copy clips without a face to the output.", rich_help_panel=OUTPUT_PANEL),
    ] = False,
    overwrite: common.Overwrite = False,
    skip_existing: common.SkipExisting = False,
    as_json: common.AsJson = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a gallery of before and after there.", rich_help_panel=OUTPUT_PANEL),
    ] = None,
    no_provenance: common.NoProvenance = False,
    keep_times: KeepTimes = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Give the faces in clips an expression; sound, time stamps and all other pixels stay as they are.

    A run that was interrupted or killed goes on where the same command is given again. Exit codes: 0 all edited; 1 some
    failed or had no face, the rest is done; 2 refused, nothing written; 130 interrupted, finished segments kept.
    """
    common.quieten_libraries()
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other; give one of them.")
    from exprtool.pipeline import Session
    from exprtool.plan import expand_inputs
    from exprtool.timeline import parse_moment
    from exprtool.videos.clip import VIDEO_SUFFIXES
    from exprtool.videos.edit import VideoOptions
    from exprtool.videos.encoder import EncodeOptions, find_encoder

    timelines = make_timelines(expr, ramp, custom=bool(controls or like))
    if codec is not None:
        find_encoder(codec)
    exclude = Path(output) if output is not None else None
    sources = expand_inputs(inputs, VIDEO_SUFFIXES, exclude=exclude)
    if any(source.path is None for source in sources):
        raise UsageError("A clip cannot be read from standard input: it has to be read twice. Give a file.")
    session = Session(backend, detector, device, commercial_only=commercial_only)
    edit = base_edit(
        session, timelines, strength=strength, controls=controls, like=like, asymmetry=asymmetry, seed=seed, force=force
    )
    options = VideoOptions(
        selection=common.make_selection(session, faces, person, similarity, min_face),
        encode=EncodeOptions(codec, crf, quality, preset, pix_fmt, side_by_side),
        format=video_format,
        start=parse_moment(start, "--start") if start is not None else None,
        end=parse_moment(end, "--end") if end is not None else None,
        audio=not no_audio,
        overwrite=overwrite,
        keep=keep,
        provenance=not no_provenance,
        keep_times=keep_times,
    )
    policy = common.existing_policy(overwrite, skip_existing)
    if preview is not None:
        suffix = Path(output).suffix.lower() if output and len(sources) * len(timelines) == 1 else ".jpg"
        outputs = _plan(
            sources, timelines, output, {source: suffix or ".jpg" for source in sources}, policy, preview=True
        )
    else:
        outputs = _plan(sources, timelines, output, _suffixes(sources, options, output, timelines), policy)
    with _Run(session, edit, timelines, options, as_json=as_json, report=report, quiet=quiet, verbose=verbose) as run:
        for item in outputs:
            run.do(item, preview)
    if run.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if not run.all_edited:
        raise typer.Exit(2 if run.refused_all else 1)


def make_timelines(expr: Sequence[str] | None, ramp: float, *, custom: bool) -> dict[str, Timeline]:
    """Read every ``--expr`` as a timeline, by label; with ``custom`` there may be none (--like or --set alone)."""
    from exprtool.expressions import EXPRESSIONS
    from exprtool.timeline import Key, Timeline, parse_timeline

    if not expr:
        if not custom:
            raise UsageError(
                "Name the wanted expression with --expr (happy, 'happy@0s neutral@2s', ...), --like PHOTO or "
                "--set CONTROL=WEIGHT."
            )
        return {"custom": Timeline((Key({}),), ramp)}
    texts = [text for one in expr for text in (EXPRESSIONS if one.strip().lower() == "all" else (one,))]
    timelines: dict[str, Timeline] = {}
    for text in texts:
        timeline = parse_timeline(text, ramp)
        known = timelines.setdefault(timeline.label, timeline)
        if known.text.split() != timeline.text.split():
            raise UsageError(
                f"--expr {known.text!r} and {text!r} would give outputs of the same name; run them one by one with -o."
            )
    return timelines


def base_edit(
    session: Session,
    timelines: Mapping[str, Timeline],
    *,
    strength: float,
    controls: Sequence[str] | None,
    like: Path | None,
    asymmetry: float,
    seed: int,
    force: bool,
) -> Edit:
    """The edit without its expression; checks that the session's backends can do every blend of the timelines."""
    from dataclasses import replace

    from exprtool.types import Edit

    if like is not None and not all(timeline.text == "" for timeline in timelines.values()):
        raise UsageError("--expr and --like both name the wanted expression; give one of them.")
    reference = common.largest_face(session, like)[1] if like is not None else None
    edit = Edit({}, common.parse_controls(controls), strength, reference, asymmetry, seed, force=force)
    for timeline in timelines.values():
        for key in timeline.keys:
            session.chain.require(replace(edit, weights=key.weights))
    return edit


def _suffixes(
    sources: Sequence[Input], options: VideoOptions, output: str | None, timelines: Mapping[str, Timeline]
) -> dict[Input, str]:
    """The ending of each input's output."""
    from exprtool.videos.clip import probe
    from exprtool.videos.container import kept_suffix, output_format

    single = output is not None and len(sources) == 1 and len(timelines) == 1 and Path(output).suffix != ""
    if options.format is None and single and not Path(str(output)).is_dir():
        return {sources[0]: Path(str(output)).suffix.lower()}
    endings: dict[Input, str] = {}
    for source in sources:
        assert source.path is not None
        try:
            ending = output_format(probe(source.path), options.format, None)
            own = source.path.suffix.lower()
            endings[source] = own if kept_suffix(own) == ending else f".{ending}"
        except UsageError:
            raise
        except Exception:
            endings[source] = ".mp4"  # it will be reported when its turn comes
    return endings


def _plan(
    sources: Sequence[Input],
    timelines: Mapping[str, Timeline],
    output: str | None,
    endings: Mapping[Input, str],
    policy: str,
    *,
    preview: bool = False,
) -> list[Output]:
    """Pair inputs with outputs; inputs are planned by the ending that their outputs get."""
    from exprtool.plan import plan_outputs

    labels = [f"{label}-preview" if preview else label for label in timelines]
    folder = output
    if output is not None and len(sources) > 1:
        folder = output.rstrip("/") + "/"
    planned: list[Output] = []
    for ending in dict.fromkeys(endings.values()):
        group = [source for source in sources if endings[source] == ending]
        planned += plan_outputs(group, labels, folder, suffix=ending, suffixes=[ending], existing=policy)
    taken: dict[str, Output] = {}
    for item in planned:
        other = taken.setdefault(str(item.path).casefold(), item)
        if other is not item:
            raise UsageError(
                f"{other.source.name} and {item.source.name} would both be written to {item.path}. Rename one, or edit "
                "them into different folders."
            )
    order = {source: place for place, source in enumerate(sources)}
    return sorted(planned, key=lambda item: order[item.source])


class _Run:
    """The outputs of one call, one after another: progress, reports, and what Ctrl-C means."""

    def __init__(
        self,
        session: Session,
        edit: Edit,
        timelines: Mapping[str, Timeline],
        options: VideoOptions,
        *,
        as_json: bool,
        report: Path | None,
        quiet: bool,
        verbose: bool,
    ) -> None:
        self.session, self.edit, self.timelines, self.options = session, edit, dict(timelines), options
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.console = printing.console()
        self._stopping = StopRequest(self._say_stopping)
        self.stop = self._stopping.event
        self.all_edited = True
        self.refused_all = True
        self.interrupted = False
        self._analysis: tuple[Path, Analysis] | None = None
        self._gallery: Report | None = None
        if report is not None:
            from exprtool.reports.gallery import Report

            self._gallery = Report(report)

    def __enter__(self) -> _Run:
        self._stopping.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.__exit__(None, None, None)
        if self._gallery is not None:
            self._gallery.close()
        if not self.quiet:
            for note in dict.fromkeys(self.session.notes):
                self.console.print(f"note: {note}")

    def _say_stopping(self) -> None:
        self.console.print("finishing the segment at work; press Ctrl-C again to stop at once")

    def do(self, item: Output, preview: int | None) -> None:
        """Make one output and report it; errors of one clip do not keep the next from its turn."""
        from exprtool.videos.edit import VideoInterrupted

        assert item.source.path is not None and item.path is not None
        if self.stop.is_set():
            self.interrupted = True
            return
        source, target = item.source.path, item.path
        label = item.label.removesuffix("-preview") if preview else item.label
        timeline = self.timelines[label]
        if os.path.lexists(target) and not self.options.overwrite:
            self.refused_all = False
            self._say(f"{source} -> {target}: already there")
            return
        try:
            with self._progress(source.name) as progress:
                report = (
                    self._preview(source, target, timeline, preview, progress)
                    if preview
                    else self._edit(source, target, timeline, progress)
                )
        except VideoInterrupted as error:
            self.interrupted = True
            self.console.print(f"exprtool: {error}")
        except Exception as error:  # whatever one clip has in store, the next one gets its turn
            self._failed(source, label, error)
        else:
            self.refused_all = False
            report()

    def _failed(self, source: Path, label: str, error: Exception) -> None:
        from exprtool.errors import WriteError

        self.all_edited = False
        self.refused_all = self.refused_all and isinstance(error, UsageError)
        known = isinstance(error, ExprtoolError)
        text = str(error) if known else f"{source}: {type(error).__name__}: {error}"
        if isinstance(error, UsageError | WriteError) or not known:
            text = common.naming(str(source), text)
        self.console.print(f"exprtool: {text}", style="red")
        if self.verbose and not known:
            self.console.trace("".join(traceback.format_exception(error)))
        self._record({"input": str(source), "output": None, "expression": label, "status": "failed", "error": text})

    def _edit(self, source: Path, target: Path, timeline: Timeline, progress: Any) -> Callable[[], None]:
        """Make one output; returns what reports it."""
        from exprtool.videos.edit import edit_video

        known = self._analysis[1] if self._analysis and self._analysis[0] == source else None
        result = edit_video(
            self.session, source, target, self.edit, timeline, self.options, analysis=known, stop=self.stop,
            progress=progress,
        )  # fmt: skip
        self._analysis = (source, result.analysis)
        return partial(self._report, result, result.as_json(self.edit, timeline))

    def _report(self, result: VideoResult, record: Mapping[str, Any]) -> None:
        self._record(record)
        self._gallery_entry(result, record)
        if result.status != "edited":
            self.all_edited = False
            self.console.print(f"{result.input}: {result.error}")
        else:
            self._say(_line(result))
        if not self.quiet:
            for note in result.notes:
                self.console.print(f"  note: {note}")

    def _preview(self, source: Path, target: Path, timeline: Timeline, count: int, progress: Any) -> Callable[[], None]:
        from exprtool.door import Door
        from exprtool.videos.edit import preview as make_preview
        from exprtool.videos.sheet import save_sheet

        made = make_preview(
            self.session, source, self.edit, timeline, count, self.options, stop=self.stop, progress=progress
        )
        records = (made.record,) if self.options.provenance else ()
        save_sheet(made.sheet, target, Door(source, records, self.options.keep_times))
        times = made.times
        record = {
            "input": str(source), "output": str(target), "expression": timeline.label, "status": "edited",
            "error": None, "frames": {str(index): round(time, 4) for index, time in times.items()},
        }  # fmt: skip

        def report() -> None:
            self._record(record)
            self._say(f"{source} -> {target}: {len(times)} frames")

        return report

    def _record(self, record: Mapping[str, Any]) -> None:
        if self.as_json:
            printing.json_line(record)

    def _gallery_entry(self, result: VideoResult, record: Mapping[str, Any]) -> None:
        if self._gallery is None:
            return
        from exprtool.reports.gallery import ReportEntry

        self._gallery.add(
            ReportEntry(
                input=record["input"],
                output=record["output"],
                label=record["expression"],
                status=record["status"],
                error=record["error"],
                faces=record["faces"],
                timings=record["timings"],
                before=result.before,
                after=result.after,
                size=result.info.size,
                notes=record["notes"],
            )
        )

    def _say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text)

    @contextmanager
    def _progress(self, name: str) -> Iterator[Any]:
        """A bar on a terminal, nothing elsewhere."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=self.quiet or not self.console.is_terminal,
        )
        words = {"analyse": "following faces in", "render": "editing"}
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(printing.printable(f"{words[stage]} {name}"), total=total or None, rate="")
            task = next(one for one in bar.tasks if one.id == tasks[stage])
            rate = f"{done / task.elapsed:.1f}/s" if task.elapsed else ""
            bar.update(tasks[stage], completed=done, rate=rate)

        with bar:
            yield show


def _line(result: VideoResult) -> str:
    edited = sum(track.edited > 0 for track in result.tracks)
    left = [
        f"face {track.track.number} left alone: {track.reason}" for track in result.tracks if track.reason is not None
    ]
    count = f"{edited} face{'s' if edited != 1 else ''} in {result.edited_frames} of {result.frames} frames"
    resumed = [f"{result.resumed} finished segments taken over"] if result.resumed else []
    return f"{result.input} -> {result.output}: " + "; ".join([count, *left, *resumed])
