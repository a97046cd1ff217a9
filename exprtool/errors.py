"""Errors that a user can act on.

Every message says what happened, to which file or name, and what to do about it. Only the command line turns them
into exit codes; the library raises and never prints.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ExprtoolError(Exception):
    """Base class: something that went wrong and that the message tells how to mend.

    The first argument is the message; further ones are lines below it, such as a list of what was tried. File names in
    them may hold line breaks of their own, so whoever prints an error prints argument by argument.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(ExprtoolError):
    """The request itself cannot be carried out; nothing was written (exit code 2)."""


class UnknownNameError(UsageError):
    """A name that no plugin, preset or registry entry carries.

    The message lists every known name, and the nearest one first when the name looks like a slip of the finger.
    ``also`` are further spellings of the known ones, near which it may be, but which are not listed.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], also: Iterable[str] = ()) -> None:
        self.kind, self.name, self.known, self.also = kind, name, tuple(known), tuple(also)
        near = get_close_matches(name, (*self.known, *self.also), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listing = ", ".join(self.known) or "none"
        super().__init__(f"Unknown {kind} {name!r}.{hint} Known: {listing}.")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
        """As worker processes hand it on."""
        return type(self), (self.kind, self.name, self.known, self.also)


class ImageError(ExprtoolError):
    """A picture that could not be read or written."""


class VideoError(ExprtoolError):
    """A clip that could not be read or written."""


class WriteError(ExprtoolError):
    """A file that could not be written: full disk, read-only folder, missing permission."""


class NoFaceError(ExprtoolError):
    """No face was found where one is needed."""


class ModelError(ExprtoolError):
    """A weight file that is missing, damaged, refused by its licence, or unreadable."""


class NotReadyError(ModelError, UsageError):
    """Weights that are not there: the request cannot be carried out, and nothing was written (exit code 2)."""


class MissingPackageError(ModelError):
    """A library that one of exprtool's extras brings is not installed."""


class PluginError(ExprtoolError):
    """A plugin that registers something the core cannot accept."""


class DeviceError(ExprtoolError):
    """The device that was asked for is not there or cannot be used."""


class DataError(ExprtoolError):
    """Training or evaluation data that cannot be used as it is."""


class TrainingError(ExprtoolError):
    """A training run that cannot start, continue or save."""
