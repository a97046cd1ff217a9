"""Writing files so that nobody ever sees half of one, and reading those that may be anything.

Everything that exprtool writes goes into a temporary file in its target's folder and gets the target's name in one step
when it is complete and on disk. Until then the file has no name at all where the system allows that (Linux's
O_TMPFILE), so a killed run leaves nothing behind; elsewhere its name is random and made for this run alone. Whoever
may write to the folder can therefore put nothing in its way, and no symbolic link is ever written through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exprtool.errors import WriteError

TEMPORARY_SUFFIX = ".part"
_LONGEST_STEM = 200
"""Bytes of the target's name kept in the temporary one; file systems allow 255 for the whole of it."""
_OPEN_FILES = Path("/proc/self/fd")
"""Where Linux shows a process its open files: a way to write to one by a path that nobody can swap."""

_REASONS: dict[int, str] = {
    errno.ENOSPC: "the disk is full; free some space or choose another output folder with -o",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another output folder with -o",
    errno.EFBIG: "the file would be larger than is allowed here; raise the limit (ulimit -f) or choose another folder",
    errno.EROFS: "the folder is read-only; choose another output folder with -o",
    errno.EACCES: "permission denied; make the folder writable or choose another one with -o",
    errno.EPERM: "the system does not allow it; make the folder writable or choose another one with -o",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another output with -o",
    errno.EISDIR: "there is a folder of that name; choose another output with -o",
    errno.ENAMETOOLONG: "the name is too long for this disk; choose a shorter output name with -o",
    errno.ELOOP: "a symbolic link stands there, and nothing is written through links; remove it, or name the file that "
    "it leads to with -o",
    errno.EIO: "the disk reports an error; check it or choose another output folder with -o",
    errno.EEXIST: "a file is where a folder is needed; choose another output with -o",
}


@contextmanager
def atomic_write(target: Path | str) -> Iterator[Path]:
    """Give the body a path to write to; when the body ends well, that file becomes ``target`` in one step.

    The path exists already, is empty, and ends neither in the target's name nor in its suffix: name the format to
    writers that would guess it. The file lies on the target's own disk (its folder is made if missing), and its data
    reach the disk before it gets the name. If the body raises, nothing is left of it and an older ``target`` stays as
    it was. An existing target is replaced and hands on its permissions, but for set-user-ID and the like; of two
    processes that write one target the later one wins, whole.

    Raises `WriteError` where the target is a symbolic link or a folder, its folder cannot be written, or the disk is
    full; other errors of the body pass unchanged.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = _Draft(target)
    except OSError as error:
        raise write_error(target, error) from error
    with contextlib.closing(draft):
        try:
            yield draft.path
            draft.finish()
        except OSError as error:
            if error.errno in _REASONS and _concerns(error, draft.path):
                raise write_error(target, error) from error
            raise


def write_bytes(target: Path | str, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically; raises `WriteError`."""
    with atomic_write(target) as temporary:
        temporary.write_bytes(data)


def write_error(target: Path | str, error: BaseException) -> WriteError:
    """The error to show for an `OSError` met while writing ``target``."""
    number = getattr(error, "errno", None)
    reason = _REASONS.get(number or 0) or f"{getattr(error, 'strerror', None) or error}; choose another output with -o"
    return WriteError(f"Cannot write {target}: {reason}.")


def read_regular(path: Path | str, most: int) -> bytes:
    """The contents of a plain file of at most ``most`` bytes.

    Pipes and devices are refused, because they could keep one waiting or never end. Raises `OSError` with a reason in
    words, as for a file that is not there.
    """
    # Opening a pipe without O_NONBLOCK waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device and not a file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than the {most} bytes that such a file may have", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def is_special(path: Path | str) -> bool:
    """Whether this is a pipe, a socket or a device. A link that leads nowhere is not: reading it reports it."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (Path.stat raises for names that no file can have)
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


class _Draft:
    """A file that is being written for ``target``: made by this process, seen by nobody, gone unless `finish`ed.

    Everything is done relative to the target's folder as it was opened, so that swapping the folder for a link in the
    middle leads nowhere.
    """

    def __init__(self, target: Path) -> None:
        self._target, self._name = target, ""
        self._folder = _open_folder(target.parent)
        try:
            self._mode = self._mode_of_target()
            self._descriptor = self._make()
        except BaseException:
            self._close_folder()
            raise
        held = _OPEN_FILES / str(self._descriptor)
        self.path = held if held.exists() else target.with_name(self._name)

    def _mode_of_target(self) -> int | None:
        """The permissions of the file that will be replaced; `OSError` for what must not be."""
        try:
            mode = os.stat(self._target.name if self._folder else self._target, dir_fd=self._folder,
                           follow_symlinks=False).st_mode  # fmt: skip
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return mode & 0o777

    def _make(self) -> int:
        if self._folder is not None and hasattr(os, "O_TMPFILE") and _OPEN_FILES.is_dir():
            # Some file systems (NFS, older network and layered ones) know no files without a name.
            with contextlib.suppress(OSError):
                return os.open(".", os.O_TMPFILE | os.O_RDWR, 0o666, dir_fd=self._folder)
        self._name = self._fresh_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return os.open(self._at(self._name), flags, 0o666, dir_fd=self._folder)

    def _fresh_name(self) -> str:
        stem = os.fsencode(self._target.name)[:_LONGEST_STEM].decode("utf-8", "ignore")
        return f".{stem}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"

    def _at(self, name: str) -> str | Path:
        return name if self._folder is not None else self._target.with_name(name)

    def _is_ours(self) -> bool:
        """Whether the temporary name still means the file that this process made."""
        try:
            found = os.stat(self._at(self._name), dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(os.fstat(self._descriptor), found)

    def finish(self) -> None:
        """Have the bytes on the disk, then give them the target's name."""
        if self._mode is not None and hasattr(os, "fchmod"):
            os.fchmod(self._descriptor, self._mode)
        os.fsync(self._descriptor)
        self._mode_of_target()  # a link or a folder may have been put there meanwhile
        if not self._name:
            name = self._fresh_name()
            os.link(_OPEN_FILES / str(self._descriptor), name, dst_dir_fd=self._folder, follow_symlinks=True)
            self._name = name
        if not self._is_ours():
            raise WriteError(
                f"Cannot write {self._target}: another program took the place of the unfinished file. Choose an output "
                "folder with -o that only you can write to."
            )
        os.replace(self._at(self._name), self._at(self._target.name), src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._name = ""
        if self._folder is not None:
            with contextlib.suppress(OSError):  # some file systems cannot flush a folder; there it is left to them
                os.fsync(self._folder)

    def close(self) -> None:
        """Delete what was not finished. A cleanup that fails must not hide the reason why it was needed."""
        with contextlib.suppress(OSError):
            if self._name and self._is_ours():
                os.unlink(self._at(self._name), dir_fd=self._folder)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._close_folder()

    def _close_folder(self) -> None:
        if self._folder is not None:
            os.close(self._folder)


def _open_folder(folder: Path) -> int | None:
    """A descriptor of the folder; None where the system has no such thing (Windows)."""
    if os.open not in os.supports_dir_fd:
        return None
    return os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def _concerns(error: OSError, temporary: Path) -> bool:
    """Whether an error of the body is about the file that is being written and not about one that it reads."""
    return error.filename is None or Path(os.fsdecode(error.filename)) == temporary
