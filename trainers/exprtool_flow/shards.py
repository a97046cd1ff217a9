"""The pairs of `exprtool data synth`, read where they lie: a set of any size takes no memory of its own."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from exprtool.anatomy.names import CONTROLS
from exprtool.documents import parse_json
from exprtool.errors import DataError
from exprtool_synth.dataset import FORMAT
from exprtool_synth.pairs import Pair

FIELDS = tuple(field.name for field in fields(Pair))
_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a zip member: lengths of the name and of the extra field, after 26 bytes; what follows both is the content."""


@dataclass(frozen=True, eq=False)
class StoredPair:
    """One pair as stored, see `exprtool_synth.pairs.Pair`: arrays that are read from disk when they are used."""

    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    flow: NDArray[np.float16]
    painted: NDArray[np.uint8]
    source_weights: NDArray[np.float32]
    target_weights: NDArray[np.float32]
    source_points: NDArray[np.float32]
    target_points: NDArray[np.float32]
    source_drawn: NDArray[np.uint8]
    other_points: NDArray[np.float32]
    other_weights: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PairSet:
    """All pairs of one or several sets. ``portraits`` (N,) names each pair's portrait, ``datasheets`` say what the
    sets are, ``fingerprint`` is the SHA-256 of these and so of the content."""

    shards: Sequence[dict[str, NDArray[Any]]]
    places: NDArray[np.int64]
    portraits: NDArray[np.str_]
    datasheets: Sequence[dict[str, Any]]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.places)

    @property
    def size(self) -> int:
        """Side of the pairs in pixels."""
        return int(self.shards[0]["source"].shape[1])

    def __getitem__(self, index: int) -> StoredPair:
        shard, row = self.places[index]
        return StoredPair(**{name: self.shards[shard][name][row] for name in FIELDS})

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs to train on and pairs of held-out people, by a hash of the person: the same whatever else is there."""
        people = np.array([person_of(str(name)) for name in self.portraits])
        held = {name for name in set(people) if _share(name, seed) < fraction}
        out = np.isin(people, sorted(held))
        return np.flatnonzero(~out), np.flatnonzero(out)


def person_of(portrait: str) -> str:
    """Who is on a portrait: sets that hold several of one person give them one file name in folders of their own, and
    the folders come first in the portrait's name."""
    return portrait.rsplit("-", 1)[-1]


def open_sets(folders: Sequence[Path]) -> PairSet:
    """Open finished sets; `DataError` for one that is unfinished, damaged, or of another making."""
    if not folders:
        raise DataError("No data: give --data FOLDER, a set made by `exprtool data synth`.")
    shards: list[dict[str, NDArray[Any]]] = []
    places: list[tuple[int, int]] = []
    portraits: list[str] = []
    datasheets = [_datasheet(folder) for folder in folders]
    for folder, sheet in zip(folders, datasheets, strict=True):
        before = len(places)
        for shard in sheet["shards"]:
            arrays = open_shard(folder / shard["file"])
            if len(arrays["source"]) != shard["pairs"]:
                raise DataError(f"{folder / shard['file']} does not hold the {shard['pairs']} pairs of its datasheet.")
            places += [(len(shards), row) for row in range(shard["pairs"])]
            shards.append(arrays)
        portraits += [source["name"] for source in sheet["sources"] for _ in range(source["pairs"])]
        if len(portraits) != len(places) or len(places) == before:
            raise DataError(f"{folder}: its datasheet lists {len(portraits) - before} pairs by portrait. Make it anew.")
    if len(sizes := {shard["source"].shape[1] for shard in shards}) > 1:
        raise DataError(f"The sets have pairs of different sizes: {sorted(sizes)}. Make them with one --size.")
    text = json.dumps(datasheets, sort_keys=True)
    return PairSet(shards, np.array(places), np.array(portraits), datasheets, hashlib.sha256(text.encode()).hexdigest())


def open_shard(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an uncompressed .npz file, each mapped from the file; `DataError` where that is not possible."""
    try:
        arrays: dict[str, NDArray[Any]] = {}
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise DataError(f"{path} is compressed; sets of `exprtool data synth` are not. Make it anew.")
                file.seek(member.header_offset)
                lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                file.seek(sum(lengths), 1)
                if npy.read_magic(file) != (1, 0):
                    raise DataError(f"{path}: {member.filename} is written in an unknown version. Make it anew.")
                shape, fortran, dtype = npy.read_array_header_1_0(file)
                if fortran or dtype.hasobject:
                    raise DataError(f"{path}: {member.filename} is no plain array. Make it anew.")
                name = member.filename.removesuffix(".npy")
                arrays[name] = np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)
    except (OSError, zipfile.BadZipFile, struct.error, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Make the set anew with `exprtool data synth`.") from error
    if missing := sorted(set(FIELDS) - set(arrays)):
        raise DataError(f"{path} lacks {', '.join(missing)}: it is no shard of pairs.")
    return arrays


def _datasheet(folder: Path) -> dict[str, Any]:
    path = folder / "datasheet.json"
    try:
        sheet = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds no finished set ({path.name}: {error}). Finish it with `exprtool data synth`."
        ) from error
    if sheet.get("format") != FORMAT:
        raise DataError(f"{path} has format {sheet.get('format')!r}, expected {FORMAT}. Make the set anew.")
    if tuple(sheet["controls"]) != CONTROLS:
        raise DataError(f"{path} counts other controls than the face model has now. Make the set anew.")
    if not sheet["pairs"]:
        raise DataError(f"{folder} holds no pairs: every portrait was left out. {path} says why.")
    return sheet


def _share(name: str, seed: int) -> float:
    """A number in [0, 1) that the name alone decides."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
