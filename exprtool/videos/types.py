"""What the rooms for clips hand each other: facts about a clip, its frames, and what went wrong while reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from exprtool.videos.orientation import Orientation
from exprtool.videos.picture import Picture


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
    or None. ``end`` is when the track ends by the container's own account, in the clip's time base. ``origin`` is the
    time in seconds that outputs take for zero: 0, or when a clip begins whose clock was running long before.
    ``mastering`` and ``light`` describe the display that HDR video was mastered on and its brightness, as x265 writes
    them. ``animation`` is true for GIF, WebP and PNG. ``notes`` are for the user: what is unusual about this clip.
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
    mastering: str = ""
    light: str = ""
    dynamic: str = ""
    loop: int = 0
    end: int | None = None
    origin: Fraction = Fraction(0)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        return self.orientation.size(self.height, self.width)

    def seconds(self, pts: int) -> float:
        return float(pts * self.time_base)


@dataclass(frozen=True, eq=False)
class ClipFrame:
    """One frame. ``pts`` and ``duration`` are in the clip's time base; the last one's is 0 where the file does not say.

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
    restarts: int = 0
    """How often the file's clock began anew or jumped ahead."""
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
        if self.restarts:
            lines.append(f"{restarts_note(self.restarts)}; the parts follow each other without a gap")
        if self.cut_off:
            lines.append(f"the file ends early ({self.cut_off}); what is there was edited")
        return lines


def restarts_note(times: int) -> str:
    return f"the file's clock jumps {'once' if times == 1 else f'{times} times'}"


def _these(indices: list[int], what: str) -> str:
    shown = ", ".join(str(index) for index in indices[:8]) + (", ..." if len(indices) > 8 else "")
    return f"{'frame' if len(indices) == 1 else 'frames'} {shown} {what}"
