"""Joining the edited picture with everything else of the input: sound, subtitles, data, chapters, metadata.

Packets of other streams are copied bit for bit with their own time stamps. What an output container cannot hold is
re-encoded (sound) or left out (the rest), and said so.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from exprtool.errors import UsageError, VideoError
from exprtool.files import atomic_write
from exprtool.videos.clip import ClipInfo, is_cover, main_stream, opened
from exprtool.videos.encoder import EncoderPlan
from exprtool.videos.segments import StoredPacket, decoding_times, read_segment

FORMATS = ("mp4", "mov", "mkv", "webm", "gif", "webp")
_MUXER = {"mkv": "matroska", "mp4": "mp4", "mov": "mov", "webm": "webm"}
_KEPT_SUFFIXES = {"mp4": "mp4", "m4v": "mp4", "mov": "mov", "mkv": "mkv", "webm": "webm", "gif": "gif", "webp": "webp"}
_SOUND = {"mp4": "aac", "mov": "aac", "mkv": "libopus", "webm": "libopus"}


@dataclass(frozen=True)
class Trim:
    """A stretch of the input in exact seconds, ``end`` excluded; None reaches to the clip's own end."""

    start: Fraction | None = None
    end: Fraction | None = None

    @property
    def shift(self) -> Fraction:
        return self.start or Fraction(0)

    def holds(self, start: Fraction, end: Fraction) -> bool:
        """Whether something shown from ``start`` to ``end`` lies at least partly inside."""
        return (self.start is None or end > self.start) and (self.end is None or start < self.end)


@dataclass(frozen=True)
class CopyOptions:
    """What of the input, beside the picture, goes along."""

    audio: bool = True
    trim: Trim = field(default_factory=Trim)
    metadata: dict[str, str] = field(default_factory=dict)
    """Entries added to the container's own (provenance)."""


def output_format(info: ClipInfo, wanted: str | None, output: Path | None) -> str:
    """The container of the output: ``--format``, else the output's suffix, else the input's own where it can be kept.

    Other inputs become MP4, or Matroska where MP4 cannot hold their sound.
    """
    if wanted is not None:
        name = wanted.lower().lstrip(".")
        if name not in FORMATS:
            from exprtool.errors import UnknownNameError

            raise UnknownNameError("video format", wanted, FORMATS)
        return name
    if output is not None and output.suffix:
        name = _KEPT_SUFFIXES.get(output.suffix.lower().lstrip("."))
        if name is None:
            raise UsageError(
                f"{output}: exprtool does not write {output.suffix} files. Use one of "
                f"{', '.join('.' + one for one in FORMATS)}."
            )
        return name
    kept = _KEPT_SUFFIXES.get(info.path.suffix.lower().lstrip("."))
    if kept:
        return kept
    sounds = {stream.split()[1] for stream in info.streams if stream.startswith("audio ")}
    return "mp4" if sounds <= {"aac", "mp3", "mp2", "mp1", "ac3", "eac3", "alac", "opus", "dts", "flac"} else "mkv"


@dataclass
class _Copied:
    """One stream of the input and its counterpart in the output."""

    source: Any
    target: Any
    encoder: _SoundEncoder | None = None


def write_container(
    info: ClipInfo,
    plan: EncoderPlan,
    segments: Sequence[Path],
    target: Path,
    container: str,
    options: CopyOptions,
) -> list[str]:
    """Write the finished output in one step; returns what the user should know about it.

    ``segments`` hold the encoded picture in the clip's time base. The file appears under its name only when it is
    complete. Raises `VideoError` where a stream cannot be written, `WriteError` for the disk.
    """
    from av.error import FFmpegError

    notes: list[str] = []
    shift = _exact(options.trim.shift, info.time_base)
    times = [packet.pts - shift for path in segments for packet in read_segment(path, payload=False)]
    if not times:
        raise VideoError(f"{target}: no frame lies in the wanted stretch. Check --start and --end.")
    if len(set(times)) != len(times):
        raise VideoError(f"{target}: the work folder holds a frame twice. Start anew with --overwrite.")
    step = max(1, round(1 / (plan.rate * plan.time_base))) if plan.rate else 1
    decode = decoding_times(times, step)
    with atomic_write(target) as temporary:
        try:
            _write(info, plan, segments, temporary, container, options, decode, shift, notes)
        except (FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno and error.errno < 1000:
                raise OSError(error.errno, error.strerror) from error
            raise VideoError(f"{target}: cannot be written as {container} ({error}). Try --format mkv.") from error
    return notes


def _exact(seconds: Fraction, time_base: Fraction) -> int:
    return round(seconds / time_base)


def _write(
    info: ClipInfo,
    plan: EncoderPlan,
    segments: Sequence[Path],
    temporary: Path,
    container: str,
    options: CopyOptions,
    decode: Sequence[int],
    shift: int,
    notes: list[str],
) -> None:
    import av

    settings: dict[str, str] = {}
    if container in ("mp4", "mov"):
        settings["movflags"] = "+faststart+use_metadata_tags" if container == "mov" else "+faststart"
        settings["video_track_timescale"] = str(_timescale(info.time_base))
        settings["movie_timescale"] = str(_movie_timescale(info))
    if container in ("mkv", "webm"):
        # Sound may begin a little before zero (the codec's priming); moving everything would move the picture.
        settings["avoid_negative_ts"] = "disabled"
        if any((time - shift) * info.time_base % Fraction(1, 1000) for time in decode):
            notes.append("Matroska counts in milliseconds: time stamps were rounded to the nearest")
    source = None if info.animation else opened(info.path)
    with av.open(str(temporary), "w", format=_MUXER[container], container_options=settings) as out:
        if source is None:
            video = _video_stream(out, plan, info, None)
            out.metadata.update(options.metadata)
            packets: Iterator[tuple[Fraction, int, Any]] = _picture_packets(segments, decode, shift, video, plan)
            for _, _, packet in packets:
                out.mux(packet)
            return
        with source as container_in:
            main = main_stream(container_in, info.path)
            video = _video_stream(out, plan, info, main)
            copied = _other_streams(container_in, main, out, options, container, notes)
            out.metadata.update({k: v for k, v in container_in.metadata.items() if k not in _OWN_TAGS})
            out.metadata.update(options.metadata)
            _chapters(container_in, out, options.trim)
            pictures = _picture_packets(segments, decode, shift, video, plan)
            others = _other_packets(container_in, copied, options.trim)
            for _, _, packet in heapq.merge(pictures, others, key=lambda item: item[:2]):
                out.mux(packet)


_OWN_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})


def _timescale(time_base: Fraction) -> int:
    """MP4's ticks per second, such that every time stamp is a whole number of them."""
    scale = time_base.denominator
    while scale < 1000:
        scale *= 2
    return scale


def _movie_timescale(info: ClipInfo) -> int:
    """Ticks in which MP4 notes when a track begins; a common multiple of all tracks' keeps their offsets exact."""
    scale = _timescale(info.time_base)
    for denominator in info.extra.get("denominators", ()):
        wider = math.lcm(scale, int(denominator))
        if wider < 1 << 31:
            scale = wider
    return scale


def _video_stream(out: Any, plan: EncoderPlan, info: ClipInfo, main: Any) -> Any:
    stream = out.add_stream(plan.codec, rate=plan.rate or 25, time_base=plan.time_base)
    plan.configure(stream.codec_context)
    stream.time_base = plan.time_base
    if info.orientation.matrix:
        stream.set_display_matrix(info.orientation.matrix)
    if plan.codec == "libx265" and out.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # the tag that every player takes
    if main is not None:
        stream.metadata.update({k: v for k, v in main.metadata.items() if k not in ("encoder", "vendor_id")})
        stream.disposition = main.disposition
    return stream


def _picture_packets(
    segments: Sequence[Path], decode: Sequence[int], shift: int, stream: Any, plan: EncoderPlan
) -> Iterator[tuple[Fraction, int, Any]]:
    from av.packet import Packet

    number = 0
    for path in segments:
        for stored in read_segment(path):
            packet = Packet(stored.data)
            packet.stream = stream
            packet.time_base = plan.time_base
            packet.pts, packet.dts = stored.pts - shift, decode[number]
            packet.duration = stored.duration
            packet.is_keyframe = stored.key
            yield Fraction(decode[number]) * plan.time_base, 0, packet
            number += 1


def _other_streams(
    source: Any, main: Any, out: Any, options: CopyOptions, container: str, notes: list[str]
) -> dict[int, _Copied]:
    """Make a stream in the output for every other one of the input that it can hold."""
    copied: dict[int, _Copied] = {}
    supported = out.supported_codecs
    for stream in source.streams:
        if stream is main or stream.index == main.index:
            continue
        if stream.type == "audio" and not options.audio:
            continue
        label = f"{stream.type} stream {stream.index}"
        if stream.type == "attachment":
            if container == "mkv":
                out.add_attachment(stream.name or f"attachment{stream.index}", stream.mimetype or "", stream.data)
            else:
                notes.append(f"{label} left out: {container} holds no attachments")
            continue
        context = stream.codec_context
        name = context.codec.name if context is not None else None
        if stream.type == "audio" and context is None:
            notes.append(f"{label} left out: this build of FFmpeg does not know its codec")
            continue
        target = _same_stream(out, stream, supported)
        if target is not None:
            _carry(stream, target)
            copied[stream.index] = _Copied(stream, target)
        elif stream.type == "audio":
            encoder = _SoundEncoder(out, stream, _SOUND[container])
            _carry(stream, encoder.target)
            copied[stream.index] = _Copied(stream, encoder.target, encoder)
            notes.append(
                f"{label} re-encoded from {name} to {_SOUND[container]}: {container} cannot hold {name} "
                "(--format mkv keeps it as it is)"
            )
        else:
            what = "cover picture" if stream.type == "video" and is_cover(stream) else label
            notes.append(f"{what} left out: {container} cannot hold {name or 'it'} (--format mkv may)")
    return copied


def _same_stream(out: Any, stream: Any, supported: set[str]) -> Any:
    """A stream of the same codec in the output, or None where the container cannot hold it."""
    context = stream.codec_context
    if context is None:
        if stream.type != "data" or out.format.name not in ("mov",):
            return None
        try:
            return out.add_stream_from_template(stream)
        except (ValueError, RuntimeError):
            return None
    names = {context.codec.name, context.codec.canonical_name}
    if not names & supported:
        return None
    try:
        return out.add_stream_from_template(stream, opaque=True)
    except ValueError:
        return None


def _carry(source: Any, target: Any) -> None:
    target.metadata.update({k: v for k, v in source.metadata.items() if k not in ("encoder", "vendor_id")})
    target.disposition = source.disposition
    if source.time_base is not None:
        target.time_base = source.time_base


def _other_packets(source: Any, copied: dict[int, _Copied], trim: Trim) -> Iterator[tuple[Fraction, int, Any]]:
    """Packets of all copied streams in the file's order, each with the time by which to interleave it."""
    from av.error import FFmpegError

    streams = [one.source for one in copied.values()]
    if not streams:
        return
    latest = Fraction(-(10**9))
    packets = source.demux(streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            break
        one = copied[packet.stream.index]
        if packet.size == 0:
            continue
        time_base = packet.time_base
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            begin = time * time_base
            if not trim.holds(begin, begin + max(1, packet.duration or 0) * time_base):
                continue
            latest = max(latest, begin - trim.shift)
        if one.encoder is not None:
            for made in one.encoder.feed(packet, trim):
                yield latest, 1 + one.target.index, made
            continue
        if trim.shift:
            shift = _exact(trim.shift, time_base)
            packet.pts = packet.pts - shift if packet.pts is not None else None
            packet.dts = packet.dts - shift if packet.dts is not None else None
        packet.stream = one.target
        # A file's order is not strictly that of time; never going back keeps the merge with the picture a merge.
        yield latest, 1 + one.target.index, packet
    for one in copied.values():
        if one.encoder is not None:
            for made in one.encoder.finish():
                yield latest, 1 + one.target.index, made


class _SoundEncoder:
    """Re-encodes one audio stream into what the output container can hold."""

    def __init__(self, out: Any, source: Any, codec: str) -> None:
        from av.audio.resampler import AudioResampler

        context = source.codec_context
        rate = 48000 if codec == "libopus" else context.sample_rate
        self.target = out.add_stream(codec, rate=rate, layout=context.layout.name)
        self.target.bit_rate = 96_000 * max(1, context.layout.nb_channels)
        encoder = self.target.codec_context
        self._resampler = AudioResampler(
            format=encoder.format.name, layout=context.layout.name, rate=rate, frame_size=encoder.frame_size or 1024
        )
        self._rate = rate
        self._opened = False

    def feed(self, packet: Any, trim: Trim) -> Iterable[Any]:
        from av.error import FFmpegError

        try:
            frames = packet.decode()
        except FFmpegError:
            return
        for frame in frames:
            if trim.shift and frame.pts is not None:
                frame.pts -= _exact(trim.shift, frame.time_base)
            for part in self._resampler.resample(frame):
                yield from self.target.encode(part)

    def finish(self) -> Iterable[Any]:
        for part in self._resampler.resample(None):
            yield from self.target.encode(part)
        yield from self.target.encode(None)


def _chapters(source: Any, out: Any, trim: Trim) -> None:
    chapters = []
    for chapter in source.chapters():
        base = chapter["time_base"] or Fraction(1)
        start, end = chapter["start"] * base, chapter["end"] * base
        if trim.holds(start, end):
            shift = _exact(trim.shift, base)
            chapters.append({**chapter, "start": max(0, chapter["start"] - shift), "end": chapter["end"] - shift})
    if chapters:
        out.set_chapters(chapters)


__all__ = ["FORMATS", "CopyOptions", "StoredPacket", "Trim", "output_format", "write_container"]
