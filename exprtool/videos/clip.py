"""What a clip is: streams, times, colours and orientation, read once before any work."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool.errors import VideoError
from exprtool.videos.orientation import Orientation
from exprtool.videos.types import ClipInfo, Colour

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".mxf", ".wmv",
        ".flv", ".3gp", ".ogv", ".vob", ".gif", ".webp", ".apng",
    }
)  # fmt: skip
ANIMATION_SUFFIXES = frozenset({".gif", ".webp", ".png", ".apng"})

_INTERLACED = {2: "top field first", 3: "bottom field first", 4: "top field first", 5: "bottom field first"}


def file_url(path: Path) -> str:
    """The path as FFmpeg takes it: without the protocol ``12:30 interview.mp4`` would be read as one named "12"."""
    return f"file:{path}"


_PLAYLISTS = frozenset({"applehttp", "concat", "concatf", "dash", "hls", "imf", "rtsp", "sdp", "tedcaptions"})
"""Formats that name other files or addresses to read from; a clip never makes exprtool open anything but itself."""


@cache
def _reading_options() -> dict[str, str]:
    import av

    plain = sorted(name for name in av.formats_available if not _PLAYLISTS & set(name.split(",")))
    return {"protocol_whitelist": "file", "format_whitelist": ",".join(plain)}


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
        container = av.open(file_url(path), "r", options=_reading_options(), metadata_errors="replace")
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


_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these pass over the transparency that WebM stores beside each picture."""


def decoder(stream: VideoStream, threads: int) -> Callable[[Any], list[VideoFrame]]:
    """What decodes a stream's packets; ``threads`` 0 takes as many as the machine has cores."""
    import av
    from av.codec import CodecContext

    tags = {name.lower(): text for name, text in stream.metadata.items()}
    name = _ALPHA_DECODERS.get(stream.codec_context.codec.canonical_name)
    if tags.get("alpha_mode") == "1" and name in av.codecs_available:
        own: Any = CodecContext.create(name, "r")
        own.thread_count = threads
        return lambda packet: own.decode(packet if packet.size else None)
    if threads != 1:
        stream.thread_type = "AUTO"  # type: ignore[assignment]
    stream.codec_context.thread_count = threads
    return lambda packet: packet.decode()


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
                f"{path}: its video codec ({codec_of(stream)}) has no decoder in this build of FFmpeg. "
                "Convert the clip to H.264 first."
            )
        first, failures = None, 0
        decode = decoder(stream, 0)
        for packet in container.demux(stream):
            try:
                pictures = decode(packet)
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
            mastering=_mastering(first),
            dynamic=" and ".join(words for name, words in _DYNAMIC.items() if _side_data(first, name)),
            light=_light(first),
            end=(stream.start_time or 0) + stream.duration if stream.duration else None,
            origin=_origin(container, time_base),
            extra={"denominators": sorted({one.time_base.denominator for one in container.streams if one.time_base})},
        )
    return replace(info, notes=tuple(_notes(info)))


_DYNAMIC = {"DYNAMIC_HDR_PLUS": "HDR10+ data", "DOVI_RPU_BUFFER": "Dolby Vision data"}
_MASTERING = struct.Struct("=20i2i")
"""FFmpeg's AVMasteringDisplayMetadata: three primaries and white (x, y), least and greatest luminance, as fractions;
then which of both kinds are given."""


def _side_data(frame: Any, name: str) -> bytes:
    return next((bytes(one) for one in frame.side_data if one.type.name == name), b"")


def _mastering(frame: Any) -> str:
    """The display that a picture was mastered on, in units of 0.00002 (chromaticity) and 0.0001 cd/m2 (luminance)."""
    data = _side_data(frame, "MASTERING_DISPLAY_METADATA")
    if len(data) < _MASTERING.size:
        return ""
    *numbers, primaries, luminance = _MASTERING.unpack(data[: _MASTERING.size])
    pairs = [Fraction(n, d or 1) for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
    if not primaries or not luminance:
        return ""
    red, green, blue, white = (f"({round(pairs[i] * 50000)},{round(pairs[i + 1] * 50000)})" for i in range(0, 8, 2))
    return f"G{green}B{blue}R{red}WP{white}L({round(pairs[9] * 10000)},{round(pairs[8] * 10000)})"


def _light(frame: Any) -> str:
    """Greatest light level of a pixel and of a frame on average, cd/m2."""
    data = _side_data(frame, "CONTENT_LIGHT_LEVEL")
    return ",".join(str(one) for one in struct.unpack("=2I", data[:8])) if len(data) >= 8 else ""


_LATE = 10.0
"""Seconds. Nobody records a clip that shows nothing for so long: its clock was running before it began."""


def _origin(container: InputContainer, time_base: Fraction) -> Fraction:
    """When a late clip's first stream begins, as a whole number of the picture's ticks; 0 for any other clip."""
    starts = [one.start_time * one.time_base for one in container.streams if one.start_time and one.time_base]
    first = min(starts, default=Fraction(0))
    return first // time_base * time_base if first >= _LATE else Fraction(0)


def _full_or(color_range: int, pix_fmt: str) -> int:
    return 2 if pix_fmt.startswith("yuvj") else int(color_range)


def _field_order(order: int, interlaced: bool) -> str | None:
    if interlaced or order in _INTERLACED:
        return _INTERLACED.get(order, "field order unknown")
    return None


def codec_of(stream: Any) -> str:
    """The name of a stream's codec; data without a codec go by their handler's name, such as "GoPro MET"."""
    context = stream.codec_context
    if context is not None:
        return str(context.codec.canonical_name)
    handler = stream.metadata.get("handler_name") or stream.metadata.get("HANDLER_NAME")
    return str(handler or (stream.type == "attachment" and stream.name) or "unknown")


def _describe(stream: Any) -> str:
    language = stream.metadata.get("language")
    return f"{stream.type} {codec_of(stream)}" + (f" ({language})" if language and language != "und" else "")


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
    if info.origin:
        yield f"its clock begins at {float(info.origin):.1f} s; the output begins at zero"
    if info.hdr:
        yield "high dynamic range: edited in its own transfer curve"
    if info.dynamic:
        yield f"its {info.dynamic} (how each scene is to be shown) describe the unedited picture and were left out"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
