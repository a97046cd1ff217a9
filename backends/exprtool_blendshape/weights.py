"""Where the face model's file comes from, and how it is packed from upstream's tree of meshes.

Upstream is a repository of text meshes (one OBJ per shape, some 350 MB unpacked). `pack` makes one compact file of
them: float16 offsets from the neutral mesh, the same bytes on every machine. It is not compressed, because what comes
out of that depends on the build of zlib.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from exprtool.errors import ModelError
from exprtool.types import WeightFile

_COMMIT = "1922d84282a3faf345dbf949c4a63b09f87907bc"
"""Upstream has no releases; later commits number the vertices differently."""
_NEUTRAL = "generic_neutral_mesh"
_IDENTITIES = 60
"""How many of upstream's 100 identity shapes are kept; they come in order of the variance they explain."""


_MOST_OF_A_MESH, _MOST_OF_ALL_MESHES = 16 << 20, 1 << 30
"""Bytes of one text mesh and of all: upstream's have some 350 million in all, two or three each."""
_MOST_OF_A_MODEL = 64 << 20
"""Bytes of the model's arrays in all; packed they are a third of it."""


_ARRAYS = (
    "vertices", "uv", "quads", "uv_quads", "identity", "expression", "identity_names", "expression_names",
)  # fmt: skip


def pack(archive: Path, target: Path) -> None:
    """Pack the zip of upstream's repository, or a model file that was packed with compression, into the model file.

    The repository holds ``*/FaceXModel/``: ``generic_neutral_mesh.obj``, ``identityNNN.obj``, and one OBJ for each
    expression shape, all of one topology. Raises `ModelError` where one is missing or of another shape.
    """
    try:
        with zipfile.ZipFile(archive) as tree:
            packed = f"{_ARRAYS[0]}.npy" in tree.namelist()
            _check_sizes(tree, archive, packed)
        _store(_unpacked(archive) if packed else _meshes(archive), target)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{archive} is not a zip archive ({error}). Download it again.") from error


def _check_sizes(tree: zipfile.ZipFile, archive: Path, packed: bool) -> None:
    """Refuse members that declare more than they can need, before memory is taken for them; zipfile reads no more
    than what is declared."""
    wanted = [info for info in tree.infolist() if info.filename.endswith(".npy" if packed else ".obj")]
    largest = max((info.file_size for info in wanted), default=0)
    whole = sum(info.file_size for info in wanted)
    if packed and whole > _MOST_OF_A_MODEL:
        raise ModelError(f"{archive} unpacks to {whole} bytes, which no face model has. Download it again.")
    if not packed and (largest > _MOST_OF_A_MESH or whole > _MOST_OF_ALL_MESHES):
        raise ModelError(
            f"{archive} unpacks to meshes of {whole} bytes, one of {largest}: ICT-FaceKit's are smaller. Download it "
            "again."
        )


def _unpacked(archive: Path) -> dict[str, Any]:
    import numpy as np

    with np.load(archive, allow_pickle=False) as file:
        if missing := sorted(set(_ARRAYS) - set(file.files)):
            raise ModelError(f"{archive} lacks {', '.join(missing)}: it is no packed face model.")
        return {name: file[name] for name in _ARRAYS}


def _store(arrays: Mapping[str, Any], target: Path) -> None:
    """Write an .npz file that depends on nothing but the arrays: no compression, no times, no system's attributes."""
    import numpy as np

    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        for name in _ARRAYS:
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o600 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(arrays[name]), (1, 0), allow_pickle=False)
            file.writestr(member, content.getvalue())


def _meshes(archive: Path) -> dict[str, Any]:
    import numpy as np

    with zipfile.ZipFile(archive) as tree:
        meshes = {
            Path(name).stem: name
            for name in tree.namelist()
            if name.endswith(".obj") and Path(name).parent.name == "FaceXModel"
        }
        if _NEUTRAL not in meshes:
            raise ModelError(f"{archive} holds no FaceXModel/generic_neutral_mesh.obj; is it ICT-FaceKit's archive?")
        identities = sorted(name for name in meshes if name.startswith("identity"))[:_IDENTITIES]
        expressions = sorted(set(meshes) - {_NEUTRAL} - {n for n in meshes if n.startswith("identity")})
        if not identities or not expressions:
            raise ModelError(f"{archive} holds no identity or no expression shapes; is it ICT-FaceKit's archive?")
        with tree.open(meshes[_NEUTRAL]) as file:
            vertices, uv, quads, uv_quads = _read_obj(file, archive)

        def offsets(name: str):
            with tree.open(meshes[name]) as file:
                shape = _read_vertices(file)
            if shape.shape != vertices.shape:
                raise ModelError(f"{archive}: {name}.obj has {len(shape)} vertices, the neutral {len(vertices)}.")
            return (shape - vertices).astype(np.float16)

        identity = np.stack([offsets(name) for name in identities])
        expression = np.stack([offsets(name) for name in expressions])
    return {
        "vertices": vertices.astype(np.float32),
        "uv": uv,
        "quads": quads,
        "uv_quads": uv_quads,
        "identity": identity,
        "expression": expression,
        "identity_names": np.array(identities),
        "expression_names": np.array(expressions),
    }


def _read_vertices(file: IO[bytes]):
    """The ``v`` lines of an OBJ file as (V, 3) float64."""
    import numpy as np

    rows = [line.split()[1:4] for line in file if line.startswith(b"v ")]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _read_obj(file: IO[bytes], archive: Path):
    """Vertices, texture coordinates, and the polygons' vertex and texture numbers (a triangle repeats its last)."""
    import numpy as np

    vertices, uv, quads, uv_quads = [], [], [], []
    for line in file:
        words = line.split()
        if not words:
            continue
        if words[0] == b"v":
            vertices.append(words[1:4])
        elif words[0] == b"vt":
            uv.append(words[1:3])
        elif words[0] == b"f":
            corners = [corner.split(b"/") for corner in words[1:]]
            if len(corners) not in (3, 4) or any(len(corner) < 2 for corner in corners):
                raise ModelError(f"{archive}: a polygon that is no textured triangle or quad: {line!r}.")
            corners += corners[-1:] * (4 - len(corners))
            quads.append([int(corner[0]) - 1 for corner in corners])
            uv_quads.append([int(corner[1]) - 1 for corner in corners])
    return (
        np.array(vertices, dtype=np.float64).reshape(-1, 3),
        np.array(uv, dtype=np.float32).reshape(-1, 2),
        np.array(quads, dtype=np.int32).reshape(-1, 4),
        np.array(uv_quads, dtype=np.int32).reshape(-1, 4),
    )


FACE_MODEL = WeightFile(
    name="ict-facekit",
    file="ict_facekit_light.npz",
    sha256="0bcf3f43c48a63cf4a4dc2042dd1178ca116f1fe801f6822772c0b74e6412564",
    size=20161090,
    licence="MIT",
    commercial=True,
    origin="https://github.com/ICT-VGL/ICT-FaceKit",
    urls=tuple(f"https://github.com/{owner}/ICT-FaceKit/archive/{_COMMIT}.zip" for owner in ("ICT-VGL", "USC-ICT")),
    summary="Morphable face model with expression shapes (USC ICT, light version), packed from its meshes.",
    pack=pack,
)
