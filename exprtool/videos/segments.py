"""Finished pieces of a clip on disk, and the journal that lets a killed run go on.

Beside the output stands a work folder. Its ``journal.jsonl`` begins with what the run is (hash of the input, hash of
everything that determines the pixels and the encoding, the frames of each segment) and gets one line for every segment
that is complete on disk. A line is written only after its segment was flushed to the disk, so that after a power cut
the journal never promises more than there is. Each segment is a closed stretch of encoded video: joining those of two
runs gives the same bits as one run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from exprtool.errors import UsageError, VideoError

_MAGIC = b"exprseg1"
_RECORD = struct.Struct("<qqIB")
_KEY = 1
_JOURNAL = "journal.jsonl"
VERSION = 1


@dataclass(frozen=True)
class StoredPacket:
    """One encoded picture: time stamp and duration in the clip's time base."""

    pts: int
    duration: int
    key: bool
    data: bytes


class SegmentWriter:
    """Writes packets into a temporary file that becomes the segment when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_suffix(".part")
        self._file: BinaryIO = self._temporary.open("wb")
        self._hash = hashlib.sha256()
        self.packets = 0
        self._put(_MAGIC)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)

    def add(self, pts: int, duration: int, key: bool, data: bytes) -> None:
        self._put(_RECORD.pack(pts, duration, len(data), _KEY if key else 0))
        self._put(data)
        self.packets += 1

    def finish(self) -> str:
        """Flush to the disk, give the segment its name, and return its sha256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        return self._hash.hexdigest()

    def discard(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def read_segment(path: Path, payload: bool = True) -> Iterator[StoredPacket]:
    """The packets of a segment in decoding order; without ``payload`` their data is skipped (empty)."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise VideoError(f"{path}: is not a segment of this version. Start anew with --overwrite.")
        while head := file.read(_RECORD.size):
            if len(head) < _RECORD.size:
                raise VideoError(f"{path}: the segment is cut off. Start anew with --overwrite.")
            pts, duration, size, flags = _RECORD.unpack(head)
            if payload:
                data = file.read(size)
                if len(data) < size:
                    raise VideoError(f"{path}: the segment is cut off. Start anew with --overwrite.")
            else:
                file.seek(size, os.SEEK_CUR)
                data = b""
            yield StoredPacket(pts, duration, bool(flags & _KEY), data)


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
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(options: Mapping[str, Any]) -> str:
    """sha256 of a JSON-ready description."""
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()


class WorkFolder:
    """The folder beside an output in which its segments grow; locked against a second run while it is open."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f".{output.name}.exprtool")
        self._lock: BinaryIO | None = None
        self._journal: BinaryIO | None = None
        self.header: dict[str, Any] = {}
        self.done: dict[int, str] = {}
        """Hashes of the finished segments by number."""

    @property
    def exists(self) -> bool:
        return (self.path / _JOURNAL).exists()

    def open(self, identity: Mapping[str, Any], *, resume: bool, overwrite: bool) -> bool:
        """Take the folder; True where an earlier run of the same work is gone on with.

        ``identity`` names the input and options of this run. Raises `UsageError` where an unfinished run is there and
        neither ``resume`` nor ``overwrite`` says what to do with it, or where it is of another input or with other
        options.
        """
        there = self.exists
        if there and not resume and not overwrite:
            raise UsageError(
                f"{self.output}: an unfinished run lies in {self.path}. Add --resume to go on with it, or --overwrite "
                "to begin anew."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise VideoError(
                f"{self.output}: cannot make the work folder {self.path.name} beside it ({error.strerror}). "
                "Choose an output in a folder that may be written."
            ) from error
        if there and resume:
            header, done = self._read_journal()
            if header is not None:
                self._compare(header, identity)
                self.header, self.done = header, done
                self._journal = self._truncated_journal(header, done)
                return True
        self._clear()
        self.header = {"version": VERSION, **identity}
        self._journal = (self.path / _JOURNAL).open("ab")
        self._append(self.header)
        return False

    def _take_lock(self) -> None:
        self._lock = (self.path / "lock").open("ab")
        try:
            import fcntl
        except ImportError:  # no such locks on this system; the journal's hashes still guard the result
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self.output}: another run is writing it right now ({self.path}). Wait for it."
            ) from None

    def _compare(self, header: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        for key, what in (("version", "another version"), ("input", "another input"), ("options", "other options")):
            mine = VERSION if key == "version" else identity[key]
            if header.get(key) != mine:
                detail = ""
                if key == "options":
                    theirs = header.get("options") or {}
                    names = sorted(
                        n for n in {*theirs, *identity["options"]} if theirs.get(n) != identity["options"].get(n)
                    )
                    detail = f" ({', '.join(names)})"
                raise UsageError(
                    f"{self.output}: the unfinished run beside it is of {what}{detail}. Give the same again to go on "
                    "with --resume, or --overwrite to begin anew."
                )

    def _read_journal(self) -> tuple[dict[str, Any] | None, dict[int, str]]:
        """The header (None where not even that is whole) and the finished segments whose files are intact."""
        lines = (self.path / _JOURNAL).read_bytes().split(b"\n")
        records: list[dict[str, Any]] = []
        for line in lines[:-1]:  # a line without its newline was cut off
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        if not records:
            return None, {}
        done: dict[int, str] = {}
        for record in records[1:]:
            number, digest = int(record["segment"]), str(record["sha256"])
            path = self.segment(number)
            if path.exists() and file_hash(path) == digest:
                done[number] = digest
        return records[0], done

    def _truncated_journal(self, header: Mapping[str, Any], done: Mapping[int, str]) -> BinaryIO:
        """Rewrite the journal with what was found intact, so that later lines follow a whole one."""
        fresh = self.path / "journal.new"
        lines = [header, *({"segment": number, "sha256": digest} for number, digest in sorted(done.items()))]
        with fresh.open("wb") as file:
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / _JOURNAL)
        return (self.path / _JOURNAL).open("ab")

    def _append(self, record: Mapping[str, Any]) -> None:
        assert self._journal is not None
        self._journal.write(json.dumps(record).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def segment(self, number: int) -> Path:
        return self.path / f"{number:06d}.seg"

    def finished(self, number: int, digest: str) -> None:
        """Note that a segment is complete on disk."""
        self._append({"segment": number, "sha256": digest})
        self.done[number] = digest

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != "lock":
                entry.unlink() if not entry.is_dir() else shutil.rmtree(entry)

    def close(self) -> None:
        for file in (self._journal, self._lock):
            if file is not None:
                file.close()
        self._journal = self._lock = None

    def remove(self) -> None:
        """Delete the folder: the output is complete, or nothing worth keeping was made."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
