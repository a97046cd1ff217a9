"""Time stamps of files whose clock restarts or jumps in the middle: joined recordings, broadcasts, stream dumps.

The picture's own packets decide where a part ends and the next begins; every other stream is moved along with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

_BACK = Fraction(3, 10)
"""Seconds. Decoding times never run backwards; smaller steps back are errors of single packets."""
_AHEAD = Fraction(10)
"""Seconds without a packet that are taken for a jump of the clock; FFmpeg's own ``dts_delta_threshold``."""
_JUMPING = frozenset({"mpegts", "mpeg"})
"""Formats whose clock may jump ahead at any packet (ISO 13818-1, discontinuity_indicator)."""


class Clock:
    """Moves the picture's packets, in the file's order, onto a clock that never runs backwards.

    ``offsets`` are the seconds that were added in each part of the file, 0 in the first.
    """

    def __init__(self, container: str) -> None:
        self.offsets: list[Fraction] = [Fraction(0)]
        self._jumps = container in _JUMPING
        self._decoded: Fraction | None = None
        self._shown = Fraction(0)

    def mend(self, packet: Any) -> None:
        """Add the offset of the packet's part to its time stamps."""
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            return
        base, step = packet.time_base, (packet.duration or 0) * packet.time_base
        shown = (packet.pts if packet.pts is not None else time) * base
        decoded = time * base + self.offsets[-1]
        if self._decoded is None:
            self._shown = shown
        elif decoded < self._decoded - _BACK or (self._jumps and decoded > self._decoded + _AHEAD):
            self.offsets.append(self._shown - shown)  # the new part is shown when all of the old one has been
            decoded = time * base + self.offsets[-1]
        self._decoded = decoded + step
        self._shown = max(self._shown, shown + self.offsets[-1] + step)
        move(packet, self.offsets[-1])


class Follower:
    """Moves the packets of another stream by the ``offsets`` that a `Clock` found for the picture's."""

    def __init__(self, offsets: Sequence[Fraction]) -> None:
        self._offsets = list(offsets)
        self._part = 0
        self._end: Fraction | None = None

    def mend(self, packet: Any) -> None:
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            return
        begin = time * packet.time_base
        if self._end is not None:
            end = self._end
            later = range(self._part, len(self._offsets))
            self._part = min(later, key=lambda part: abs(begin + self._offsets[part] - end))
        self._end = begin + self._offsets[self._part] + (packet.duration or 0) * packet.time_base
        move(packet, self._offsets[self._part])


def move(packet: Any, seconds: Fraction) -> None:
    """Add ``seconds``, rounded to the packet's own unit, to its time stamps."""
    ticks = round(seconds / packet.time_base)
    if ticks:
        packet.pts = packet.pts + ticks if packet.pts is not None else None
        packet.dts = packet.dts + ticks if packet.dts is not None else None


def offsets_of(path: Path) -> list[Fraction]:
    """What a `Clock` adds in each part of a clip; reads its packets without decoding them."""
    from av.error import FFmpegError

    from exprtool.videos.clip import main_stream, opened

    with opened(path) as container:
        clock = Clock(container.format.name)
        try:
            for packet in container.demux(main_stream(container, path)):
                clock.mend(packet)
        except FFmpegError:  # the file breaks off; the parts up to there are known
            pass
    return clock.offsets
