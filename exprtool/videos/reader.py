"""Frames of a clip, one after another, with the time stamps they have in the file."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exprtool.errors import VideoError
from exprtool.videos.clip import ClipInfo, main_stream, opened
from exprtool.videos.picture import FULL_RANGE, FramePicture, Picture, native, working_format

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True, eq=False)
class ClipFrame:
    """One frame. ``pts`` and ``duration`` are in the clip's time base (duration 0 where the file does not say).

    ``picture`` is None where the frame did not decode: its place in time is kept by showing the one before it again.
    ``damaged`` tells of a picture that the decoder could only guess in part.
    """

    index: int
    pts: int
    duration: int
    picture: Picture | None
    damaged: bool = False


@dataclass
class ReadLog:
    """What went wrong while reading; filled as the frames go by."""

    undecoded: list[int] = field(default_factory=list)
    """Indices of frames that did not decode and are shown as repeats."""
    damaged: list[int] = field(default_factory=list)
    lost_packets: int = 0
    """Packets that did not decode and whose place in time is unknown."""
    moved: int = 0
    """Time stamps that were missing or ran backwards and had to be made up."""
    cut_off: str | None = None
    """Why the file ended before its end, or None."""

    def notes(self) -> list[str]:
        lines = []
        if self.undecoded:
            lines.append(f"{_these(self.undecoded, 'did not decode; shown as')} a repeat of the frame before")
        if self.damaged:
            lines.append(f"{_these(self.damaged, 'decoded with errors; kept as')} the decoder gave them, not edited")
        if self.lost_packets:
            lines.append(f"{self.lost_packets} damaged packets gave no picture")
        if self.moved:
            lines.append(f"{self.moved} time stamps were missing or ran backwards in the file and were mended")
        if self.cut_off:
            lines.append(f"the file ends early ({self.cut_off}); what is there was edited")
        return lines


def _these(indices: list[int], what: str) -> str:
    shown = ", ".join(str(index) for index in indices[:8]) + (", ..." if len(indices) > 8 else "")
    return f"{'frame' if len(indices) == 1 else 'frames'} {shown} {what}"


def read_frames(info: ClipInfo, log: ReadLog | None = None, threads: int = 0) -> Iterator[ClipFrame]:
    """Every frame of a clip in the order of display; memory does not grow with its length.

    Raises `VideoError` where the picture changes its size in mid-stream. Frames that do not decode are kept (see
    `ClipFrame`); what was met is counted in ``log``.
    """
    log = log if log is not None else ReadLog()
    if info.animation:
        from exprtool.videos.animation import read_animation

        yield from read_animation(info)
        return
    yield from _number(_pictures(info, log, threads), info, log)


@dataclass(frozen=True, eq=False)
class _Raw:
    pts: int | None
    duration: int
    frame: VideoFrame | None


def _number(raws: Iterator[_Raw], info: ClipInfo, log: ReadLog) -> Iterator[ClipFrame]:
    """Give frames their index and a time stamp that is later than the one before."""
    last: int | None = None
    step = max(1, round(1 / (info.rate * info.time_base))) if info.rate else 1
    waiting: list[_Raw] = []
    index = 0
    seen_first = False
    for raw in raws:
        if raw.frame is None and not seen_first:
            waiting.append(raw)  # nothing to repeat yet: the first picture that decodes will stand in
            continue
        queue = [*waiting, raw]
        waiting = []
        seen_first = True
        for one in queue:
            pts = one.pts
            if pts is None or (last is not None and pts <= last):
                log.moved += 1
                pts = 0 if last is None else last + step
            picture: Picture | None = None
            damaged = False
            if one.frame is not None:
                picture, damaged = _picture(one.frame, info, index), bool(one.frame.is_corrupt)
                if damaged:
                    log.damaged.append(index)
            else:
                log.undecoded.append(index)
                if last is None or queue[0] is not raw:
                    assert raw.frame is not None
                    picture = _picture(raw.frame, info, index).copy()
            yield ClipFrame(index, pts, one.duration, picture, damaged or one.frame is None)
            last, index = pts, index + 1


def _picture(frame: VideoFrame, info: ClipInfo, index: int) -> FramePicture:
    if (frame.height, frame.width) != (info.height, info.width):
        time = f" ({frame.time:.2f} s)" if frame.pts is not None else ""
        raise VideoError(
            f"{info.path}: the picture changes from {info.width}x{info.height} to {frame.width}x{frame.height} at "
            f"frame {index}{time}. One output cannot hold two sizes: cut the clip there (see --start and --end) and "
            "edit the parts one by one."
        )
    wanted = working_format(info.pix_fmt)
    if frame.format.name != wanted:
        frame = frame.reformat(format=wanted)
    assert native(frame.format.name)
    full = info.colour.range == FULL_RANGE
    return FramePicture(frame, info.orientation, full, info.colour.matrix)


def _pictures(info: ClipInfo, log: ReadLog, threads: int) -> Iterator[_Raw]:
    """Decode; where a packet fails, put a gap at its time stamp."""
    from av.error import FFmpegError

    with opened(info.path) as container:
        stream = main_stream(container, info.path)
        stream.thread_type = "AUTO"  # type: ignore[assignment]
        stream.codec_context.thread_count = threads
        expected: list[tuple[int, int]] = []  # heap of (pts, duration) of packets whose picture has not come out
        failures = 0
        packets = _packets(container, stream, log)
        for packet in packets:
            if packet.size and packet.pts is not None and not packet.is_discard:
                heapq.heappush(expected, (packet.pts, packet.duration or 0))
            try:
                frames: list[Any] = packet.decode()
            except FFmpegError:
                failures += 1
                continue
            for frame in frames:
                pts = frame.pts if frame.pts is not None else frame.dts
                while pts is not None and expected and expected[0][0] < pts:
                    missing, duration = heapq.heappop(expected)
                    if failures:
                        failures -= 1
                        yield _Raw(missing, duration, None)
                duration = frame.duration
                if expected and expected[0][0] == pts:
                    # The container's word on how long the picture shows; decoders fill in the nominal rate.
                    duration = heapq.heappop(expected)[1] or duration
                yield _Raw(pts, duration, frame)
        while expected and failures:
            missing, duration = heapq.heappop(expected)
            failures -= 1
            yield _Raw(missing, duration, None)
        log.lost_packets = failures


def _packets(container: Any, stream: Any, log: ReadLog) -> Iterator[Any]:
    """Demultiplex; a file that breaks off ends the stream, with the reason in the log, instead of raising."""
    from av.error import FFmpegError

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError as error:
            log.cut_off = str(error.strerror)
            yield from _flush(stream)
            return
        yield packet


def _flush(stream: Any) -> Iterator[Any]:
    from av.packet import Packet

    last = Packet()
    last.stream = stream
    yield last


def count_frames(path: Path) -> int:
    """How many frames a clip decodes to."""
    from exprtool.videos.clip import probe

    return sum(1 for _ in read_frames(probe(path)))
