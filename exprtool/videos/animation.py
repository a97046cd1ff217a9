"""GIF, WebP and animated PNG as clips."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from exprtool.errors import ImageError, VideoError
from exprtool.pictures.moving import Animation, read_animation
from exprtool.videos.picture import ArrayPicture
from exprtool.videos.types import ClipFrame, ClipInfo, ReadLog

MILLISECOND = Fraction(1, 1000)


def probe_animation(path: Path) -> ClipInfo:
    """What an animation is. A still picture is refused: it belongs to ``exprtool edit`` or ``exprtool animate``."""
    try:
        found = read_animation(path)
    except ImageError as error:
        raise VideoError(str(error)) from error
    if found.frames < 2:
        raise VideoError(
            f"{path}: is a still picture, not a clip. Use `exprtool edit`, or `exprtool animate` to move it."
        )
    kind = found.photo.format.lower()
    height, width = found.photo.size
    return ClipInfo(
        path=path, container=kind, codec=kind, height=height, width=width,
        pix_fmt="rgba" if found.photo.samples.alpha else "rgb24", time_base=MILLISECOND, rate=None,
        frames=found.frames, duration=None, start=0.0, animation=True, streams=(f"video {kind}",),
        loop=1 if found.loop is None else found.loop, notes=found.photo.notes, extra={"animation": found},
    )  # fmt: skip


def animation_of(info: ClipInfo) -> Animation:
    """The animation that `probe_animation` opened."""
    found = info.extra["animation"]
    assert isinstance(found, Animation)
    return found


def read_frames_of(info: ClipInfo, log: ReadLog) -> Iterator[ClipFrame]:
    """Every composed frame with its time in milliseconds; frames that a damaged file lacks end it."""
    time, index = 0, 0
    frames = iter(animation_of(info))
    while True:
        try:
            frame = next(frames, None)
        except ImageError as error:
            if index == 0:
                raise VideoError(str(error)) from error
            log.cut_off = f"frame {index} does not decode"
            return
        if frame is None:
            return
        values = np.array(frame.photo.samples.in_8_bits().in_colour().values, np.uint8)
        duration = round(frame.duration)
        yield ClipFrame(index, time, duration, ArrayPicture(values))
        time, index = time + max(duration, 1), index + 1
