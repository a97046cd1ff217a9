"""The work folder of an output: finished segments, and the journal that lets a killed run go on.

Its ``journal.jsonl`` begins with what the run is (the output's name, the hash of the input, everything that determines
the pixels and the encoding) and gets one line for every segment that is complete on disk. A line is written only after
its segment was flushed to the disk, so that after a power cut the journal never promises more than there is.

The folder's name is drawn at random. A later run finds it by its journal, and takes nothing for its own that is not a
plain file in a real folder of the same user, with a journal that names the same output.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from exprtool.errors import UsageError, VideoError
from exprtool.videos.private import SUFFIX, PrivateFolder
from exprtool.videos.segments import Segment

try:
    import fcntl
except ImportError:  # no such locks on this system; the journal's hashes still guard the result
    fcntl = None

_JOURNAL = "journal.jsonl"
_ANALYSIS = "analysis.npz"
_OURS = re.compile(r"(journal\.jsonl|analysis\.npz|\d{6}\.seg)(\.part)?")
_KIND = "exprtool work folder"
_LONGEST_LINE = 1 << 20
VERSION = 2
"""Of what stands in such a folder; an unfinished run of another version is of no use to this one."""


class WorkFolder:
    """The folder beside an output in which its segments grow; locked against a second run while it is open."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.header: dict[str, Any] = {}
        self.done: dict[int, str] = {}
        """Hashes of the finished segments by number."""
        self._folder: PrivateFolder | None = None
        self._journal: BinaryIO | None = None

    @property
    def folder(self) -> PrivateFolder:
        assert self._folder is not None, "open the work folder first"
        return self._folder

    @staticmethod
    def find(output: Path) -> Path | None:
        """Where an unfinished run of this output lies, or None."""
        with contextlib.closing(_left_behind(output)) as found:
            for folder, _ in found:
                folder.close()
                return folder.path
        return None

    def open(self, identity: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Take the folder; True where an earlier run of the same work is gone on with.

        ``identity`` names the input and options of this run. The same work is gone on with unless ``overwrite`` says
        otherwise; the result is the same. Raises `UsageError` where finished segments of another input or of other
        options are there and ``overwrite`` does not give them up, or where another run has the folder now.
        """
        try:
            for folder, lines in _left_behind(self.output):
                if self._take(folder, lines, identity, overwrite=overwrite):
                    return True
            self._folder = PrivateFolder.beside(self.output)
            _lock(self._folder)
        except OSError as error:
            raise VideoError(
                f"{self.output}: cannot make the work folder beside it ({error.strerror or error}). "
                "Choose an output in a folder that may be written, with space left."
            ) from error
        self.header = {"kind": _KIND, "output": self.output.name, "version": VERSION, **identity}
        self._journal = self._folder.create(_JOURNAL)
        self._append(self.header)
        return False

    def _take(self, folder: PrivateFolder, lines: list[Any], identity: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Go on in a folder that an earlier run left, or clear it away."""
        if not _lock(folder):
            folder.close()
            raise UsageError(f"{self.output}: another run is writing it right now ({folder.path}). Wait for it.")
        header, done = lines[0], _intact(folder, lines[1:])
        difference = _difference(header, identity)
        if not difference and not overwrite:
            self._folder, self.header, self.done = folder, header, done
            records = [header, *({"segment": number, "sha256": digest} for number, digest in sorted(done.items()))]
            # Later lines must follow a whole one, and a run that was killed may have left half of one.
            folder.store(_JOURNAL, b"".join(json.dumps(record).encode() + b"\n" for record in records))
            self._journal = folder.append(_JOURNAL)
            return True
        if done and not overwrite and header["version"] == VERSION:
            path = folder.path
            folder.close()
            raise UsageError(
                f"{self.output}: an unfinished run of {difference} lies in {path}. Give the same again to go on with "
                "it, or --overwrite to begin anew."
            )
        _clear(folder)
        return False

    def _append(self, record: Mapping[str, Any]) -> None:
        assert self._journal is not None
        self._journal.write(json.dumps(record).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def segment(self, number: int) -> Segment:
        return Segment(self.folder, f"{number:06d}.seg")

    def finished(self, number: int, digest: str) -> None:
        """Note that a segment is complete on disk."""
        self._append({"segment": number, "sha256": digest})
        self.done[number] = digest

    def store_analysis(self, data: bytes) -> None:
        self.folder.store(_ANALYSIS, data)

    def read_analysis(self) -> bytes | None:
        """What `store_analysis` stored, or None."""
        try:
            with self.folder.open(_ANALYSIS) as file:
                return file.read()
        except OSError:
            return None

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        if self._folder is not None:
            self._folder.close()
        self._journal = self._folder = None

    def remove(self) -> None:
        """Delete what is in the folder, and the folder: the output is complete, or nothing worth keeping was made."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._folder is not None:
            _clear(self._folder)
            self._folder = None

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; a run that failed before its first finished segment leaves nothing behind."""
        if kind is not None and not self.done:
            self.remove()
        self.close()


def _left_behind(output: Path) -> Generator[tuple[PrivateFolder, list[Any]]]:
    """Open folders of earlier runs of this output, with the whole lines of their journals."""
    try:
        with os.scandir(output.parent) as entries:
            names = sorted(
                entry.name for entry in entries if entry.name.startswith(".") and entry.name.endswith(SUFFIX)
            )
    except OSError:
        return
    for name in names:
        try:
            folder = PrivateFolder(output.with_name(name))
        except OSError:
            continue
        lines = _journal_of(folder)
        if lines and lines[0].get("kind") == _KIND and lines[0].get("output") == output.name and "version" in lines[0]:
            yield folder, lines
        else:
            folder.close()


def _journal_of(folder: PrivateFolder) -> list[Any]:
    lines: list[Any] = []
    try:
        with folder.open(_JOURNAL) as file:
            # A line without its newline was cut off.
            while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
                lines.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return lines if lines and isinstance(lines[0], dict) else []


def _intact(folder: PrivateFolder, records: list[Any]) -> dict[int, str]:
    """The finished segments whose files are what the journal says."""
    done: dict[int, str] = {}
    for record in records:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            number, digest = int(record["segment"]), str(record["sha256"])
            if Segment(folder, f"{number:06d}.seg").hash() == digest:
                done[number] = digest
    return done


def _difference(header: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """What distinguishes an unfinished run from this one, in words; "" for the same work."""
    if header["version"] != VERSION:
        return "another version"
    if header.get("input") != identity["input"]:
        return "another input"
    theirs, mine = header.get("options") or {}, identity["options"]
    names = sorted(name for name in {*theirs, *mine} if theirs.get(name) != _plain(mine.get(name)))
    return f"other options ({', '.join(names)})" if names else ""


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _lock(folder: PrivateFolder) -> bool:
    """Hold the folder for this run, until it is closed; False where another run has it."""
    if fcntl is None or folder.descriptor is None:
        return True
    try:
        fcntl.flock(folder.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _clear(folder: PrivateFolder) -> None:
    """Delete what runs of ours make in such a folder, and the folder if nothing else is in it."""
    with contextlib.suppress(OSError):
        for name in folder.names():
            if _OURS.fullmatch(name):
                folder.delete(name)
    folder.remove()
