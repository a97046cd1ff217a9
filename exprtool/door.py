"""The only way out: every output leaves with the record of its edit, its input's permissions, and whole.

A picture carries the record in XMP, a film in its tags, and what has room for neither gets a file beside it. Whoever
writes an output opens it through a `Door`; how the bytes get there safely is known to `exprtool.files`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exprtool import provenance
from exprtool.files import atomic_write
from exprtool.provenance import Provenance

_OWNER_WRITES = stat.S_IRUSR | stat.S_IWUSR
_PERMISSIONS = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO
"""Who may read, write and execute; set-user-ID and the like are never handed on."""


@dataclass(frozen=True)
class Door:
    """How the outputs of one input leave.

    ``source`` is the input, whose permissions they take (its owner may always write them), and with ``keep_times`` its
    times; None for one without a file, such as standard input. ``records`` tell of the edit, one for each backend;
    none where the user wants none.
    """

    source: Path | None = None
    records: Sequence[Provenance] = ()
    keep_times: bool = False

    def xmp(self, packet: bytes | None = None) -> bytes | None:
        """A picture's XMP packet with the records added; raises `exprtool.pictures.xmp.DamagedXmp`."""
        for record in self.records:
            packet = provenance.stamp(packet, record)
        return packet

    def tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        """A film's tags with the records added."""
        stamped = dict(tags)
        for record in self.records:
            stamped = provenance.film_tags(stamped, record)
        return stamped

    @contextmanager
    def open(self, target: Path) -> Iterator[Path]:
        """A path to write to, which becomes ``target`` in one step; see `exprtool.files.atomic_write`."""
        with atomic_write(target) as temporary:
            yield temporary
            if self.source is not None:
                given = self.source.stat()
                temporary.chmod(stat.S_IMODE(given.st_mode) & _PERMISSIONS | _OWNER_WRITES)
                if self.keep_times:
                    os.utime(temporary, ns=(given.st_atime_ns, given.st_mtime_ns))

    def write(self, target: Path, data: bytes, *, beside: bool = False) -> None:
        """Write a whole output; ``beside`` puts the records into a file next to it, for formats without room."""
        with self.open(target) as temporary:
            temporary.write_bytes(data)
        if beside and self.records:
            provenance.write_sidecar(target, self.records)
