"""What a clip is: streams, times, colours and orientation, read once before any work."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool.errors import VideoError
from exprtool.videos.orientation import Orientation

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".mxf", ".wmv",
        ".flv", ".3gp", ".ogv", ".vob", ".gif", ".webp",
    }
)  # fmt: skip
ANIMATION_SUFFIXES = frozenset({".gif", ".webp"})

_INTERLACED = {2: "top field first", 3: "bottom field first", 4: "top field first", 5: "bottom field first"}


@dataclass(frozen=True)
class Colour:
    """ITU-T H.273 codes as FFmpeg numbers them; 2 (range: 0) means unspecified."""

    range: int = 0
    primaries: int = 2
    transfer: int = 2
    matrix: int = 2


@dataclass(frozen=True)
class ClipInfo:
    """Facts about one clip.

    ``height`` and ``width`` are those of the stored picture; ``size`` is the upright (h, w) that faces are found in.
    ``time_base`` is the unit of every time stamp. ``frames`` and ``duration`` (seconds) are what the container claims,
    or None. ``animation`` is true for GIF and WebP. ``notes`` are for the user: what is unusual about this clip.
    """

    path: Path
    container: str
    codec: str
    height: int
    width: int
    pix_fmt: str
    time_base: Fraction
    rate: Fraction | None
    frames: int | None
    duration: float | None
    start: float
    orientation: Orientation = field(default_factory=Orientation)
    pixel_aspect: Fraction | None = None
    colour: Colour = field(default_factory=Colour)
    interlaced: str | None = None
    animation: bool = False
    streams: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hdr: bool = False
    loop: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        return self.orientation.size(self.height, self.width)

    def seconds(self, pts: int) -> float:
        return float(pts * self.time_base)


def looks_like_video(path: Path) -> bool:
    """Whether the file's name is that of a clip (or an animation)."""
    return path.suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a clip for reading; FFmpeg's errors become `VideoError` with what to do about them."""
    import av
    from av.error import FFmpegError

    if not path.exists():
        raise VideoError(f"{path}: there is no such file. Check the path.")
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a clip.")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    try:
        container = av.open(str(path), "r", metadata_errors="replace")
    except PermissionError as error:
        raise VideoError(f"{path}: may not be read. Change its permissions.") from error
    except (FFmpegError, ValueError, OSError) as error:
        raise VideoError(
            f"{path}: cannot be read as a video ({_reason(error)}). The file is damaged, cut off before its index "
            "(an MP4 whose recording was interrupted lacks it), or no video; check whether a player opens it."
        ) from error
    try:
        yield container
    finally:
        container.close()


def main_stream(container: InputContainer, path: Path) -> VideoStream:
    """The video stream to edit: the first that is no cover picture; raises where there is none."""
    for stream in container.streams.video:
        if not is_cover(stream):
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    if kinds == ["audio"] or kinds == ["audio", "video"]:
        raise VideoError(f"{path}: holds sound only, no video stream. Give a clip with a picture.")
    raise VideoError(f"{path}: holds no video stream (only {', '.join(kinds) or 'nothing'}).")


def is_cover(stream: Any) -> bool:
    """Whether a video stream is a still cover picture."""
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def probe(path: Path) -> ClipInfo:
    """Read what a clip is; decodes its first picture. Raises `VideoError` where there is none."""
    if path.suffix.lower() in ANIMATION_SUFFIXES:
        from exprtool.videos.animation import probe_animation

        return probe_animation(path)
    return _probe_stream(path)


def _probe_stream(path: Path) -> ClipInfo:
    from av.error import FFmpegError

    with opened(path) as container:
        stream = main_stream(container, path)
        context = stream.codec_context
        if context is None:
            raise VideoError(
                f"{path}: its video codec ({stream.codec_tag or 'unknown'}) has no decoder in this build of FFmpeg. "
                "Convert the clip to H.264 first."
            )
        first, failures = None, 0
        for packet in container.demux(stream):
            try:
                pictures = packet.decode()
            except FFmpegError:
                failures += 1
                continue
            if pictures:
                first = pictures[0]
                break
        if first is None:
            why = f"none of its {failures} packets decodes" if failures else "it holds zero frames"
            raise VideoError(f"{path}: has no picture to edit ({why}). The file is damaged or was cut off.")
        orientation = Orientation()
        side_data: Any = first.side_data
        if "DISPLAYMATRIX" in {data.type.name for data in side_data}:
            orientation = Orientation.from_matrix(struct.unpack("=9i", bytes(side_data["DISPLAYMATRIX"])[:36]))
        time_base = stream.time_base or Fraction(1, 1000)
        duration = stream.duration * time_base if stream.duration else None
        if duration is None and container.duration:
            duration = Fraction(container.duration, 1_000_000)
        info = ClipInfo(
            path=path,
            container=container.format.name,
            codec=context.codec.canonical_name,
            height=first.height,
            width=first.width,
            pix_fmt=first.format.name,
            time_base=time_base,
            rate=stream.average_rate or stream.guessed_rate,
            frames=stream.frames or None,
            duration=float(duration) if duration is not None else None,
            start=float((stream.start_time or 0) * time_base),
            orientation=orientation,
            pixel_aspect=stream.sample_aspect_ratio or None,
            colour=Colour(
                range=_full_or(first.color_range, first.format.name),
                primaries=int(first.color_primaries),
                transfer=int(first.color_trc),
                matrix=int(first.colorspace),
            ),
            interlaced=_field_order(context.field_order, first.interlaced_frame),
            streams=tuple(_describe(one) for one in container.streams),
            hdr=int(first.color_trc) in (16, 18),
            extra={"denominators": sorted({one.time_base.denominator for one in container.streams if one.time_base})},
        )
    return replace(info, notes=tuple(_notes(info)))


def _full_or(color_range: int, pix_fmt: str) -> int:
    return 2 if pix_fmt.startswith("yuvj") else int(color_range)


def _field_order(order: int, interlaced: bool) -> str | None:
    if interlaced or order in _INTERLACED:
        return _INTERLACED.get(order, "field order unknown")
    return None


def _describe(stream: Any) -> str:
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None else (stream.codec_tag or "unknown").strip("\0")
    language = stream.metadata.get("language")
    return f"{stream.type} {name}" + (f" ({language})" if language and language != "und" else "")


def _notes(info: ClipInfo) -> Iterator[str]:
    if info.interlaced:
        yield (
            f"interlaced ({info.interlaced}): both fields of a frame are edited as one picture and stored as "
            "progressive; deinterlace first (for example with FFmpeg's bwdif) for clean motion"
        )
    if info.orientation.matrix and not (
        info.orientation.transpose or info.orientation.flip_x or info.orientation.flip_y
    ):
        a, b, _, c, d = info.orientation.matrix[:5]
        if b or c or a <= 0 or d <= 0:
            yield "turned by an angle that is no multiple of 90 degrees: kept in the file, not applied to find faces"
    if info.hdr:
        yield "high dynamic range: edited in its own transfer curve; mastering display figures are not carried over"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
