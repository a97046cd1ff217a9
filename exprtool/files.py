"""Writing files so that nobody ever sees half of one.

Everything that exprtool writes goes into a temporary file beside its target and is moved there in one step when it is
complete and on disk. The temporary name is a function of the target's, so what a killed run left behind is taken over
and finished by the next one instead of piling up.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exprtool.errors import WriteError

try:
    import fcntl
except ImportError:  # Windows has no flock; there two writers of one file are not told apart
    fcntl = None

TEMPORARY_SUFFIX = ".part"
_LONGEST_NAME = 255

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
    errno.ELOOP: "its symbolic links point at each other; choose another output with -o",
    errno.EIO: "the disk reports an error; check it or choose another output folder with -o",
    errno.EEXIST: "a file is where a folder is needed; choose another output with -o",
}


def temporary_path(target: Path) -> Path:
    """Where `atomic_write` keeps the unfinished file for ``target``: hidden, beside it, ending in ``.part``."""
    name = f".{target.name}{TEMPORARY_SUFFIX}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}{TEMPORARY_SUFFIX}"
    return target.with_name(name)


@contextmanager
def atomic_write(target: Path | str) -> Iterator[Path]:
    """Give the body a path to write to; when the body ends well, that file becomes ``target`` in one step.

    The path exists already, is empty, lies in the target's own folder (made if missing) and does not end in the
    target's suffix: name the format to writers that would guess it. The data reach the disk before the rename. If the
    body raises, the temporary file is removed and an older ``target`` stays as it was. A symbolic link is followed: the
    file that it points to is replaced, the link stays. An existing target keeps its permissions.

    Raises `WriteError` where the folder cannot be written, the disk is full or another process is writing the same
    file; other errors of the body pass unchanged.
    """
    target = Path(target)
    try:
        final = target.resolve() if target.is_symlink() else target
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(final)
        lock = _claim(temporary, target)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise write_error(target, error) from error
    try:
        try:
            yield temporary
            _flush(temporary)
            if final.exists():
                temporary.chmod(final.stat().st_mode & 0o7777)
            temporary.replace(final)
        except OSError as error:
            if error.errno in _REASONS and _concerns(error, temporary):
                raise write_error(target, error) from error
            raise
        _flush_folder(final.parent)
    except BaseException:
        # A cleanup that fails must not hide the reason why it was needed.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


def write_bytes(target: Path | str, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically; raises `WriteError`."""
    with atomic_write(target) as temporary:
        temporary.write_bytes(data)


def write_error(target: Path | str, error: BaseException) -> WriteError:
    """The error to show for an `OSError` met while writing ``target``."""
    number = getattr(error, "errno", None)
    reason = _REASONS.get(number or 0) or f"{getattr(error, 'strerror', None) or error}; choose another output with -o"
    return WriteError(f"Cannot write {target}: {reason}.")


def _claim(temporary: Path, target: Path) -> int:
    """Open the temporary file for us alone and empty it; returns the descriptor that holds the lock."""
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise WriteError(
                        f"Cannot write {target}: another process is writing it now; wait for it or choose another "
                        "output with -o."
                    ) from None
                except OSError:
                    pass  # a file system without locks: as on Windows
            # Between open and lock another writer may have finished and moved the file away under its final name:
            # emptying it then would destroy a finished output.
            try:
                if os.path.samestat(os.fstat(descriptor), temporary.stat(follow_symlinks=False)):
                    os.truncate(temporary, 0)
                    return descriptor
            except FileNotFoundError:
                pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _concerns(error: OSError, temporary: Path) -> bool:
    """Whether an error of the body is about the file that is being written and not about one that it reads."""
    return error.filename is None or Path(os.fsdecode(error.filename)) == temporary


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; some systems cannot open a folder, and there it is left to them."""
    with contextlib.suppress(OSError):
        _flush(folder)


def take_after(path: Path, source: Path, *, times: bool = False) -> None:
    """Give the file at ``path`` the permissions of ``source``, never set-user-ID and the like, and with ``times`` also
    when it was last read and changed.

    To be called before the file appears under its name, so that a private one is never open to others.
    """
    found = source.stat()
    path.chmod(found.st_mode & 0o777)
    if times:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
