"""``exprtool animate``: a short clip or GIF from one photo."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from exprtool.cli import common, printing
from exprtool.cli.common import OUTPUT_PANEL
from exprtool.cli.video import VIDEO_PANEL, KeepTimes, Ramp, TimelineExpr
from exprtool.errors import UsageError


def add_to(app: typer.Typer) -> None:
    app.command()(animate)


def animate(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photo with a face.")],
    expr: TimelineExpr = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            metavar="OUT",
            help="A clip or GIF. [default: an MP4 here]",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="[default: as the timeline needs, at least 4]", rich_help_panel=VIDEO_PANEL)
    ] = None,
    fps: Annotated[int, typer.Option(min=1, max=60, help="Frames per second.", rich_help_panel=VIDEO_PANEL)] = 25,
    ramp: Ramp = 0.6,
    strength: common.Strength = 1.0,
    controls: common.Set = None,
    asymmetry: common.Asymmetry = 0.0,
    seed: common.Seed = 0,
    backend: common.BackendName = "auto",
    detector: common.DetectorName = "auto",
    device: common.Device = "auto",
    commercial_only: common.CommercialOnly = False,
    faces: common.Faces = "all",
    force: common.Force = False,
    no_blinks: Annotated[
        bool, typer.Option("--no-blinks", help="Keep the eyes open.", rich_help_panel=VIDEO_PANEL)
    ] = False,
    still: Annotated[
        bool,
        typer.Option("--still", help="Hold each expression quite still, without drift.", rich_help_panel=VIDEO_PANEL),
    ] = False,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=64, metavar="PX", help="Longest side. [default: 1280, and 480 for a GIF]", rich_help_panel=VIDEO_PANEL
        ),
    ] = None,
    codec: Annotated[str | None, typer.Option(help="h264, h265, vp9, av1, ...", rich_help_panel=VIDEO_PANEL)] = None,
    crf: Annotated[float | None, typer.Option(help="Constant rate factor.", rich_help_panel=VIDEO_PANEL)] = None,
    quality: Annotated[
        float | None, typer.Option(min=1, max=100, help="In one scale for every codec.", rich_help_panel=VIDEO_PANEL)
    ] = None,
    clip_format: Annotated[
        str | None, typer.Option("--format", help="mp4, mov, mkv, webm, gif, webp or png.", rich_help_panel=VIDEO_PANEL)
    ] = None,
    overwrite: common.Overwrite = False,
    no_provenance: common.NoProvenance = False,
    keep_times: KeepTimes = False,
    as_json: common.AsJson = False,
    quiet: common.Quiet = False,
) -> None:
    """Make a photo's face go through expressions, as a short clip or GIF.

    Times are seconds of the clip: --expr "happy@0.5s neutral@2.5s surprised=0.8@4s".
    """
    common.quieten_libraries()
    from exprtool import images
    from exprtool.cli.video import base_edit, make_timelines
    from exprtool.pipeline import Session
    from exprtool.videos.container import FORMATS
    from exprtool.videos.encoder import EncodeOptions
    from exprtool.videos.from_photo import AnimateOptions, check_length
    from exprtool.videos.from_photo import animate as make

    timelines = make_timelines(expr, ramp, custom=bool(controls))
    if len(timelines) != 1:
        raise UsageError(
            "`exprtool animate` makes one clip: give one --expr, with several expressions in it if wanted."
        )
    check_length(seconds)
    timeline = next(iter(timelines.values()))
    ending = clip_format or "mp4"
    if output is None:
        if ending not in FORMATS:
            from exprtool.errors import UnknownNameError

            raise UnknownNameError("video format", ending, FORMATS)
        output = Path(f"{photo.stem}-{timeline.label}.{ending}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists already. Add --overwrite to replace it.")
    is_gif = output.suffix.lower() == ".gif" or clip_format == "gif"
    session = Session(backend, detector, device, commercial_only=commercial_only)
    edit = base_edit(
        session, timelines, strength=strength, controls=controls, like=None, asymmetry=asymmetry, seed=seed, force=force
    )
    options = AnimateOptions(
        selection=common.make_selection(session, faces, None, common.DEFAULT_SIMILARITY, 0.0),
        seconds=seconds,
        rate=fps,
        blinks=not no_blinks,
        drift=not still,
        max_side=max_side or (480 if is_gif else 1280),
        format=clip_format,
        encode=EncodeOptions(codec=codec, crf=crf, quality=quality),
        provenance=not no_provenance,
        keep_times=keep_times,
    )
    picture = images.read_image(photo).rgb
    console = printing.console()
    result = make(session, picture, output, edit, timeline, options, source=photo, stop=threading.Event())
    if as_json:
        record = {
            "input": str(photo), "output": str(result.output), "expression": timeline.label, "status": "edited",
            "timeline": timeline.text, "frames": result.frames, "size": list(result.size), "notes": list(result.notes),
            "timings": {stage: round(value, 4) for stage, value in result.timings.items()},
        }  # fmt: skip
        printing.json_line(record)
    if not quiet:
        console.print(f"{photo} -> {result.output}: {result.frames} frames")
        for note in dict.fromkeys([*result.notes, *session.notes]):
            console.print(f"  note: {note}")
