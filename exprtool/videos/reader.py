"""Frames of a clip, one after another, with the time stamps they have in the file."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exprtool.errors import VideoError
from exprtool.videos.clip import decoder, main_stream, opened
from exprtool.videos.clock import Clock
from exprtool.videos.picture import FULL_RANGE, FramePicture, Picture, native, working_format
from exprtool.videos.types import ClipFrame, ClipInfo, ReadLog

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


def read_frames(info: ClipInfo, log: ReadLog | None = None, threads: int = 0) -> Iterator[ClipFrame]:
    """Every frame of a clip in the order of display; memory does not grow with its length.

    Raises `VideoError` where the picture changes its size in mid-stream. Frames that do not decode are kept (see
    `ClipFrame`); what was met is counted in ``log``.
    """
    log = log if log is not None else ReadLog()
    if info.animation:
        from exprtool.videos.animation import read_frames_of

        yield from read_frames_of(info, log)
        return
    yield from _lasting(_number(_pictures(info, log, threads), info, log), info)


def _lasting(frames: Iterator[ClipFrame], info: ClipInfo) -> Iterator[ClipFrame]:
    """Let each frame last until the next, and the last one to the end of its track.

    What containers note beside a frame cannot be relied on: MP4 notes the time to the next frame in *decoding* order.
    """
    held: ClipFrame | None = None
    for frame in frames:
        if held is not None:
            yield replace(held, duration=frame.pts - held.pts)
        held = frame
    if held is not None:
        whole = info.end is not None and info.frames == held.index + 1
        yield replace(held, duration=max(held.duration, info.end - held.pts)) if whole and info.end else held


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

    expected: list[tuple[int, int]] = []  # heap of (pts, duration) of packets whose picture has not come out
    keys: list[tuple[int, int]] = []  # (number, pts) of the packets from which decoding can begin
    failures = 0
    with opened(info.path) as container:
        stream = main_stream(container, info.path)
        decode = decoder(stream, threads)
        for number, packet in enumerate(_packets(container, stream, log)):
            if packet.size and packet.pts is not None and not packet.is_discard:
                heapq.heappush(expected, (packet.pts, packet.duration or 0))
                if packet.is_keyframe:
                    keys.append((number, packet.pts))
            try:
                frames = decode(packet)
            except FFmpegError:
                failures += packet.size > 0
                continue
            for frame in frames:
                pts = _time(frame)
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
    if not expected:
        log.lost_packets = failures
        return
    late = {pts: frame for frame in _tail(info, keys, expected[0][0]) if (pts := _time(frame)) is not None}
    failures = max(failures, len(expected) - len(late)) if late or failures else 0
    while expected:
        pts, duration = heapq.heappop(expected)
        if pts in late:
            yield _Raw(pts, duration or late[pts].duration, late[pts])
        elif failures:
            failures -= 1
            yield _Raw(pts, duration, None)
    log.lost_packets = failures


def _time(frame: VideoFrame) -> int | None:
    return frame.pts if frame.pts is not None else frame.dts


def _tail(info: ClipInfo, keys: Sequence[tuple[int, int]], since: int) -> Iterator[VideoFrame]:
    """The pictures from ``since`` on, decoded once more by one thread, which a damaged packet costs one picture.

    Several threads lose what they hold together with it when the end of the file comes right after. There are never
    more pictures than a decoder keeps back.
    """
    from av.error import FFmpegError

    begin = max((number for number, pts in keys if pts <= since), default=0)
    with opened(info.path) as container:
        stream = main_stream(container, info.path)
        decode = decoder(stream, 1)
        for number, packet in enumerate(_packets(container, stream, ReadLog())):
            if number < begin:
                continue
            try:
                frames = decode(packet)
            except FFmpegError:
                continue
            yield from (frame for frame in frames if (_time(frame) or 0) >= since)


def _packets(container: Any, stream: Any, log: ReadLog) -> Iterator[Any]:
    """Demultiplex, on one clock; a file that breaks off ends the stream, with the reason in the log, not an error."""
    from av.error import FFmpegError

    packets = container.demux(stream)
    clock = Clock(container.format.name)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except FFmpegError as error:
            log.cut_off = str(error.strerror)
            yield from _flush(stream)
            break
        clock.mend(packet)
        yield packet
    log.restarts = len(clock.offsets) - 1


def _flush(stream: Any) -> Iterator[Any]:
    from av.packet import Packet

    last = Packet()
    last.stream = stream
    yield last
