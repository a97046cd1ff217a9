"""Joining the edited picture with everything else of the input: sound, subtitles, data, chapters, metadata.

Packets of other streams are copied bit for bit with their own time stamps. What an output container cannot hold is
re-encoded (sound) or left out (the rest), and said so.
"""

from __future__ import annotations

import heapq
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from exprtool.door import Door
from exprtool.errors import UsageError, VideoError
from exprtool.videos.clip import codec_of, file_url, is_cover, main_stream, opened
from exprtool.videos.clock import Follower, move, offsets_of
from exprtool.videos.encoder import EncoderPlan
from exprtool.videos.segments import BESIDE, Segment, decoding_times
from exprtool.videos.types import ClipInfo

FORMATS = ("mp4", "mov", "mkv", "webm", "gif", "webp", "png")
MOVING_PICTURES = {"gif": "GIF", "webp": "WEBP", "png": "PNG"}
"""Those that `exprtool.pictures.moving` writes, under its own names."""
_MUXER = {"mkv": "matroska", "mp4": "mp4", "mov": "mov", "webm": "webm"}
_KEPT_SUFFIXES = {**{name: name for name in FORMATS}, "m4v": "mp4", "apng": "png"}
_SOUND = {"mp4": "aac", "mov": "aac", "mkv": "libopus", "webm": "libopus"}


@dataclass(frozen=True)
class Trim:
    """A stretch of the input in exact seconds of its clock, ``end`` excluded; None reaches to the clip's own end.

    ``shift`` is what is taken off every time stamp.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    shift: Fraction = Fraction(0)

    def holds(self, start: Fraction, end: Fraction) -> bool:
        """Whether something shown from ``start`` to ``end`` lies at least partly inside."""
        return (self.start is None or end > self.start) and (self.end is None or start < self.end)


@dataclass(frozen=True)
class CopyOptions:
    """What of the input, beside the picture, goes along."""

    audio: bool = True
    trim: Trim = field(default_factory=Trim)
    door: Door = field(default_factory=Door)


def kept_suffix(suffix: str) -> str | None:
    """The container that a file name's ending stands for, or None for one that exprtool does not write."""
    return _KEPT_SUFFIXES.get(suffix.lower().lstrip("."))


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
        name = kept_suffix(output.suffix)
        if name is None:
            raise UsageError(
                f"{output}: exprtool does not write {output.suffix} files. Use one of "
                f"{', '.join('.' + one for one in FORMATS)}."
            )
        return name
    kept = kept_suffix(info.path.suffix)
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
    moved: int = 0
    written: int = 0
    _last: int | None = None

    def keep_order(self, packet: Any) -> None:
        """Let decoding times rise strictly: a file with any that does not is refused by most containers."""
        wanted = packet.dts if packet.dts is not None else packet.pts
        if wanted is None or (self._last is not None and wanted <= self._last):
            wanted = self._last + 1 if self._last is not None else 0
            self.moved += 1
        self.written += 1
        packet.dts = self._last = wanted
        if packet.pts is None or packet.pts < wanted:
            packet.pts = wanted


def write_container(
    info: ClipInfo,
    plan: EncoderPlan,
    segments: Sequence[Segment],
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
    times = [one.pts - shift for segment in segments for one in segment.read(payload=False)]
    if not times:
        raise VideoError(f"{target}: no frame lies in the wanted stretch. Check --start and --end.")
    if len(set(times)) != len(times):
        raise VideoError(f"{target}: the work folder holds a frame twice. Start anew with --overwrite.")
    step = max(1, round(1 / (plan.rate * plan.time_base))) if plan.rate else 1
    schedule = _Schedule(shift, decoding_times(times, step), step)
    with options.door.open(target) as temporary:
        try:
            tags = _write(info, plan, segments, temporary, container, options, schedule, notes)
            notes += _lost_tags(tags, temporary, container)
        except (FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno and error.errno < 1000:
                raise OSError(error.errno, error.strerror) from error
            raise VideoError(f"{target}: cannot be written as {container} ({error}). Try --format mkv.") from error
    return notes


@dataclass(frozen=True)
class _Schedule:
    """Times of the picture in its own ticks: what is taken off, when each packet is decoded, the nominal duration."""

    shift: int
    decode: Sequence[int]
    step: int


def _exact(seconds: Fraction, time_base: Fraction) -> int:
    return round(seconds / time_base)


def _write(
    info: ClipInfo,
    plan: EncoderPlan,
    segments: Sequence[Segment],
    temporary: Path,
    container: str,
    options: CopyOptions,
    schedule: _Schedule,
    notes: list[str],
) -> dict[str, str]:
    """Write everything; returns the tags of the whole file that it was given."""
    import av

    with ExitStack() as stack:
        source: Any = None if info.animation else stack.enter_context(opened(info.path))
        tags = _tags(source.metadata if source is not None else {}, options.door)
        settings: dict[str, str] = {}
        if container in ("mp4", "mov"):
            free = container == "mov" or not {name.lower() for name in tags} <= _MP4_TAGS
            settings["movflags"] = "+faststart" + "+use_metadata_tags" * free
            settings["video_track_timescale"] = str(_timescale(info.time_base))
            settings["movie_timescale"] = str(_movie_timescale(info))
        if container in ("mkv", "webm"):
            # Sound may begin a little before zero (the codec's priming); moving everything would move the picture.
            settings["avoid_negative_ts"] = "disabled"
            if any(time * info.time_base % Fraction(1, 1000) for time in schedule.decode):
                notes.append("Matroska counts in milliseconds: time stamps were rounded to the nearest")
        out = stack.enter_context(
            av.open(file_url(temporary), "w", format=_MUXER[container], container_options=settings)
        )
        main = main_stream(source, info.path) if source is not None else None
        video = _video_stream(out, plan, info, main)
        out.metadata.update(tags)
        packets: Iterator[_Timed] = _picture_packets(segments, schedule, video, plan)
        if source is not None:
            copied = _other_streams(source, info, video, out, options, container, notes)
            _chapters(source, out, options.trim)
            packets = heapq.merge(packets, _other_packets(source, info, copied, options.trim, notes), key=_order)
        for _, _, packet in packets:
            out.mux(packet)
    return tags


_Timed = tuple[Fraction, int, Any]
"""(seconds by which it is interleaved, number of the output's stream, packet)"""


def _order(item: _Timed) -> tuple[Fraction, int]:
    return item[:2]


_MP4_TAGS = frozenset(
    {
        "album", "album_artist", "artist", "comment", "compilation", "composer", "copyright", "creation_time", "date",
        "description", "disc", "encoder", "episode_id", "episode_sort", "gapless_playback", "genre", "grouping",
        "hd_video", "keywords", "location", "lyrics", "media_type", "network", "rating", "season_number", "show",
        "sort_album", "sort_album_artist", "sort_artist", "sort_composer", "sort_name", "sort_show", "synopsis",
        "title", "track",
    }
)  # fmt: skip
"""Tags for which MP4 has places that every program knows; with any other, all go under their full names instead."""


def _tags(given: Mapping[str, str], door: Door) -> dict[str, str]:
    """The whole file's tags: the input's own, the user's comment among them, and the record of the edit."""
    tags = {name: text for name, text in given.items() if name.lower() not in _OWN_TAGS}
    for name in [name for name in tags if "-" in name]:
        if tags.get(name.partition("-")[0]) == tags[name]:  # FFmpeg reads MP4's place twice, once with its language
            del tags[name]
    return door.tags(tags)


def _lost_tags(tags: Mapping[str, str], written: Path, container: str) -> list[str]:
    """What of the tags cannot be read back."""
    with opened(written) as again:
        kept = {name.lower(): text for name, text in again.metadata.items()}
    lost = sorted(name for name in tags if name.lower() not in kept and name.lower() != "creation_time")
    return [f"{container} did not keep the tags {', '.join(lost)}"] if lost else []


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
        _carry_tags(main, stream)
        if not plan.alpha:
            stream.metadata.pop("alpha_mode", None)
        stream.disposition = main.disposition
    return stream


def _picture_packets(
    segments: Sequence[Segment], schedule: _Schedule, stream: Any, plan: EncoderPlan
) -> Iterator[_Timed]:
    from av.packet import Packet, PacketSideData, packet_sidedata_type_from_literal

    times = iter(schedule.decode)
    for segment in segments:
        for stored in segment.read():
            packet = Packet(stored.data)
            packet.stream = stream
            packet.time_base = plan.time_base
            packet.pts, packet.dts = stored.pts - schedule.shift, next(times)
            packet.duration = stored.duration or schedule.step
            packet.is_keyframe = stored.key
            if stored.extra:
                make: Any = PacketSideData  # its constructor is missing from PyAV's type stubs
                beside = make(packet_sidedata_type_from_literal(BESIDE), len(stored.extra))
                beside.update(stored.extra)
                beside.to_packet(packet)
            yield Fraction(packet.dts) * plan.time_base, 0, packet


def _other_streams(
    source: Any, info: ClipInfo, video: Any, out: Any, options: CopyOptions, container: str, notes: list[str]
) -> dict[int, _Copied]:
    """Make a stream in the output for every other one of the input that it can hold; the rest is named in a note.

    ``video`` is the picture's own stream in the output.
    """
    from av.stream import Discard

    main = main_stream(source, info.path)
    copied: dict[int, _Copied] = {}
    supported = out.supported_codecs
    for stream in source.streams:
        if stream.index == main.index or (stream.type == "audio" and not options.audio):
            continue
        name = codec_of(stream)
        label = f"{stream.type} stream {stream.index} ({name})"
        if stream.type == "attachment":
            if container == "mkv":
                out.add_attachment(stream.name or f"attachment{stream.index}", stream.mimetype or "", stream.data)
            else:
                notes.append(f"{label} left out: {container} holds no attachments (--format mkv does)")
        elif stream.type == "video" and is_cover(stream):
            _cover(info, stream, out, container, copied, notes)
        elif stream.type == "data" and "timecode" in stream.metadata:
            video.metadata.setdefault("timecode", stream.metadata["timecode"])  # makes a track of its own in MP4
        elif stream.discard == Discard.all and source.chapters():
            pass  # MP4's text track of the chapters, which the output gets from them
        elif (target := _same_stream(source, out, stream, supported, container)) is not None:
            _carry(stream, target)
            copied[stream.index] = _Copied(stream, target)
        elif stream.type == "audio" and stream.codec_context is not None:
            encoder = _SoundEncoder(out, stream, _SOUND[container])
            _carry(stream, encoder.target)
            copied[stream.index] = _Copied(stream, encoder.target, encoder)
            way = "" if container == "mkv" else " (--format mkv holds more)"
            notes.append(f"{label} re-encoded as {_SOUND[container]}: {container} cannot hold it{way}")
        elif stream.codec_context is None and stream.type in ("audio", "video", "subtitle"):
            notes.append(f"{label} left out: this build of FFmpeg does not know its codec")
        else:
            notes.append(f"{label} left out: {container} cannot hold it")
    return copied


_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


def _cover(info: ClipInfo, stream: Any, out: Any, container: str, copied: dict[int, _Copied], notes: list[str]) -> None:
    """Take a cover picture along: in Matroska as the attachment that it is there, in MP4 as a picture of its own."""
    kind = _COVERS.get(codec_of(stream))
    target = None
    if container == "mkv" and kind is not None:
        with opened(info.path) as again:
            data = next((bytes(one) for one in again.demux(again.streams[stream.index]) if one.size), None)
        if data is not None:
            tags = {name.lower(): text for name, text in stream.metadata.items()}
            out.add_attachment(tags.get("filename", kind[0]), tags.get("mimetype", kind[1]), data)
            target = out
    elif container in ("mp4", "mov") and kind is not None:
        target = out.add_stream_from_template(stream, opaque=True)
        _carry(stream, target)
        copied[stream.index] = _Copied(stream, target)
    if target is None:
        notes.append(f"cover picture left out: {container} cannot hold it (--format mkv may)")
    else:
        notes.append("the cover picture was kept as it is: it is not edited")


def _same_stream(source: Any, out: Any, stream: Any, supported: set[str], container: str) -> Any:
    """A stream of the same codec in the output, or None where the container cannot hold it."""
    context = stream.codec_context
    if context is None:
        return out.add_stream_from_template(stream) if _holds_data(source, stream, container) else None
    names = {context.codec.name, context.codec.canonical_name}
    if not names & supported:
        return None
    try:
        return out.add_stream_from_template(stream, opaque=True)
    except ValueError:
        return None


def _holds_data(source: Any, stream: Any, container: str) -> bool:
    """Whether MP4 or MOV takes a data track of another such file: tried on a file in memory, since none can tell."""
    import av
    from av.error import FFmpegError

    if container not in ("mp4", "mov") or stream.type != "data" or "mov" not in source.format.name.split(","):
        return False
    memory = io.BytesIO()
    try:
        with av.open(memory, "w", format=container) as trial:
            target = trial.add_stream_from_template(stream)
            trial.start_encoding()
            packet = av.Packet(b"\0" * 8)
            packet.stream, packet.time_base, packet.pts, packet.dts, packet.duration = target, stream.time_base, 0, 0, 1
            trial.mux(packet)
        memory.seek(0)
        with av.open(memory, "r", metadata_errors="replace") as again:
            return len(again.streams) == 1
    except (FFmpegError, ValueError):
        return False


def _carry_tags(source: Any, target: Any) -> None:
    target.metadata.update({k: v for k, v in source.metadata.items() if k.lower() not in _STREAM_TAGS})


_STREAM_TAGS = frozenset({"encoder", "vendor_id", "duration", "filename", "mimetype"})
"""What writers of files put there themselves."""


def _carry(source: Any, target: Any) -> None:
    _carry_tags(source, target)
    target.disposition = source.disposition
    if source.time_base is not None:
        target.time_base = source.time_base


def _other_packets(
    source: Any, info: ClipInfo, copied: dict[int, _Copied], trim: Trim, notes: list[str]
) -> Iterator[_Timed]:
    """Packets of all copied streams in the file's order, each with the time by which to interleave it."""
    from av.error import FFmpegError

    streams = [one.source for one in copied.values()]
    if not streams:
        return
    offsets = offsets_of(info.path)
    clocks = {index: Follower(offsets) for index in copied}
    latest = Fraction(-(10**9))
    packets = source.demux(streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            break
        if packet.size == 0:
            continue
        one = copied[packet.stream.index]
        clocks[packet.stream.index].mend(packet)
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
        move(packet, -trim.shift)
        one.keep_order(packet)
        packet.stream = one.target
        # A file's order is not strictly that of time; never going back keeps the merge with the picture a merge.
        yield latest, 1 + one.target.index, packet
    for one in copied.values():
        if one.encoder is not None:
            for made in one.encoder.finish():
                yield latest, 1 + one.target.index, made
        if one.encoder is None and not one.written:
            notes.append(
                f"{one.source.type} stream {one.source.index} ({codec_of(one.source)}) left out: it holds nothing"
            )
        if one.moved:
            notes.append(
                f"{one.moved} time stamps of {one.source.type} stream {one.source.index} were missing or ran backwards "
                "and were mended"
            )


_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def _layout_for(codec: str, source: Any) -> str:
    """The source's channel layout, or the usual one where it has no name or the encoder does not take it."""
    from av.codec import CodecContext
    from av.error import FFmpegError

    for name in (source.layout.name, _USUAL_LAYOUTS.get(source.layout.nb_channels, "stereo")):
        trial: Any = CodecContext.create(codec, "w")
        try:
            trial.layout, trial.sample_rate, trial.format = name, 48000, trial.codec.audio_formats[0]
            trial.time_base = Fraction(1, 48000)
            trial.open()
        except (FFmpegError, ValueError):
            continue
        return name
    return "stereo"


class _SoundEncoder:
    """Re-encodes one audio stream into what the output container can hold."""

    def __init__(self, out: Any, source: Any, codec: str) -> None:
        from av.audio.resampler import AudioResampler

        context = source.codec_context
        rate = 48000 if codec == "libopus" else context.sample_rate
        layout = _layout_for(codec, context)
        self.target = out.add_stream(codec, rate=rate, layout=layout)
        self.target.bit_rate = 96_000 * max(1, context.layout.nb_channels)
        encoder = self.target.codec_context
        self._resampler = AudioResampler(
            format=encoder.format.name, layout=layout, rate=rate, frame_size=encoder.frame_size or 1024
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
            if frame.pts is not None:
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


__all__ = ["FORMATS", "CopyOptions", "Trim", "output_format", "write_container"]
