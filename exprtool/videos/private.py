"""A folder for this program alone, beside an output: nobody can make it write or delete anywhere else.

Its name is drawn at random and made exclusively, its files are reached through the open folder (not by path), and no
link in it is followed. On systems without such calls (Windows) they are reached by path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Any, BinaryIO

SUFFIX = ".exprtool"
_BY_DESCRIPTOR = {os.open, os.unlink, os.rename, os.stat} <= os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NAME_BYTES = 100
"""How much of the output's name its folder bears; with what is added, every file system takes it."""


class PrivateFolder:
    """An existing folder, held open. Names are those of files directly in it."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, for a link or another user's folder as for one that is not there."""
        self.path = path
        self._descriptor: int | None = None
        if _BY_DESCRIPTOR:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
            if os.fstat(self._descriptor).st_uid != os.geteuid():
                self.close()
                raise PermissionError(f"{path} belongs to another user")
        elif not path.is_dir() or path.is_symlink():
            raise NotADirectoryError(f"{path} is no folder")

    @classmethod
    def beside(cls, output: Path) -> PrivateFolder:
        """A new, empty folder in the output's own one (made if missing)."""
        output.parent.mkdir(parents=True, exist_ok=True)
        head = os.fsencode(output.name)[:_NAME_BYTES].decode(errors="ignore")
        path = output.with_name(f".{head}-{secrets.token_hex(8)}{SUFFIX}")
        path.mkdir(mode=0o700)
        return cls(path)

    @property
    def descriptor(self) -> int | None:
        """Of the folder itself, for a lock; None where the system has none."""
        return self._descriptor

    def _where(self, name: str) -> tuple[str | Path, dict[str, Any]]:
        if self._descriptor is None:
            return self.path / name, {}
        return name, {"dir_fd": self._descriptor}

    def _open(self, name: str, flags: int, mode: str) -> BinaryIO:
        place, options = self._where(name)
        descriptor = os.open(place, flags | _NO_LINK | getattr(os, "O_BINARY", 0), 0o600, **options)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.path / name} is no plain file")
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]

    def open(self, name: str) -> BinaryIO:
        """For reading; raises `OSError` for anything but a plain file."""
        return self._open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0), "rb")

    def append(self, name: str) -> BinaryIO:
        return self._open(name, os.O_WRONLY | os.O_APPEND, "ab")

    def create(self, name: str) -> BinaryIO:
        """A new file for writing, in place of one of that name that an earlier run left."""
        self.delete(name)
        return self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "wb")

    def store(self, name: str, data: bytes) -> None:
        """Write a whole file; it has its name only when it is on the disk."""
        with self.create(name + ".part") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.rename(name + ".part", name)

    def rename(self, name: str, other: str) -> None:
        if self._descriptor is None:
            (self.path / name).replace(self.path / other)
        else:
            os.rename(name, other, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def delete(self, name: str) -> None:
        """Delete a file or a link, never what it points to; nothing where there is none."""
        place, options = self._where(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place, **options)

    def names(self) -> list[str]:
        with os.scandir(self.path if self._descriptor is None else self._descriptor) as entries:
            return sorted(entry.name for entry in entries)

    def remove(self) -> None:
        """Close it, and delete it if it is empty."""
        with contextlib.suppress(OSError):
            same = self._descriptor is None or os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
            if same:
                self.path.rmdir()
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
