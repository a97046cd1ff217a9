"""Finished pieces of a clip on disk.

Each segment is a closed stretch of encoded video: joining those of two runs gives the same bits as one run.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from exprtool.errors import VideoError
from exprtool.videos.private import PrivateFolder

_MAGIC = b"exprseg2"
_RECORD = struct.Struct("<qqIIB")
_KEY = 1
BESIDE = "matroska_block_additional"


@dataclass(frozen=True)
class StoredPacket:
    """One encoded picture: time stamp and duration in the clip's time base (0: unknown).

    ``extra`` is what goes into the container beside the picture: VP8's and VP9's transparency.
    """

    pts: int
    duration: int
    key: bool
    data: bytes
    extra: bytes = b""


@dataclass(frozen=True)
class Segment:
    """The segment ``name`` of a work folder, which need not be there yet."""

    folder: PrivateFolder
    name: str

    def read(self, payload: bool = True) -> Iterator[StoredPacket]:
        """Its packets in decoding order; without ``payload`` their data is skipped (empty)."""
        with self.folder.open(self.name) as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise VideoError(f"{self}: is not a segment of this version. Start anew with --overwrite.")
            while head := file.read(_RECORD.size):
                if len(head) < _RECORD.size:
                    raise VideoError(f"{self}: the segment is cut off. Start anew with --overwrite.")
                pts, duration, size, extra_size, flags = _RECORD.unpack(head)
                data = extra = b""
                if payload:
                    data, extra = file.read(size), file.read(extra_size)
                    if len(data) + len(extra) < size + extra_size:
                        raise VideoError(f"{self}: the segment is cut off. Start anew with --overwrite.")
                else:
                    file.seek(size + extra_size, os.SEEK_CUR)
                yield StoredPacket(pts, duration, bool(flags & _KEY), data, extra)

    def hash(self) -> str | None:
        """Its sha256, or None where it is not there."""
        try:
            with self.folder.open(self.name) as file:
                return _digest(file)
        except OSError:
            return None

    def __str__(self) -> str:
        return str(self.folder.path / self.name)


class SegmentWriter:
    """Writes packets into a temporary file that becomes the segment when it is complete."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._temporary = segment.name + ".part"
        self._file = segment.folder.create(self._temporary)
        self._hash = hashlib.sha256()
        self.packets = 0
        self._put(_MAGIC)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)

    def add(self, one: StoredPacket) -> None:
        self._put(_RECORD.pack(one.pts, one.duration, len(one.data), len(one.extra), _KEY if one.key else 0))
        self._put(one.data + one.extra)
        self.packets += 1

    def add_packet(self, packet: Any, durations: dict[int, int]) -> None:
        """Append what an encoder gave; the picture lasts as long as ``durations`` (by time stamp) says of it."""
        pts = packet.pts or 0
        extra = bytes(packet.get_sidedata(BESIDE)) if packet.has_sidedata(BESIDE) else b""
        self.add(StoredPacket(pts, durations.pop(pts, 0), packet.is_keyframe, bytes(packet), extra))

    def finish(self) -> str:
        """Flush to the disk, give the segment its name, and return its sha256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._segment.folder.rename(self._temporary, self._segment.name)
        return self._hash.hexdigest()

    def discard(self) -> None:
        self._file.close()
        self._segment.folder.delete(self._temporary)


def decoding_times(pts: Sequence[int], step: int) -> list[int]:
    """Decoding time stamps for display time stamps given in decoding order.

    They rise strictly and none is later than its picture's display: those are the display times in order, delayed by
    the deepest reordering. The ones before the first display time go back by ``step`` each.
    """
    shown = sorted(pts)
    rank = {time: place for place, time in enumerate(shown)}
    delay = max((place - rank[time] for place, time in enumerate(pts)), default=0)
    early = [shown[0] - (delay - place) * step for place in range(min(delay, len(pts)))] if pts else []
    return early + shown[: len(pts) - len(early)]


def file_hash(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
