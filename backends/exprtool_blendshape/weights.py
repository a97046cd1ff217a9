"""Where the face model's file comes from, and how it is packed from upstream's tree of meshes.

Upstream is a repository of text meshes (one OBJ per shape, some 350 MB unpacked). `pack` makes one compact file of
them: float16 offsets from the neutral mesh, 11 MB, the same bytes every time.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

from exprtool.errors import ModelError
from exprtool.types import WeightFile

_COMMIT = "1922d84282a3faf345dbf949c4a63b09f87907bc"
"""Upstream has no releases; later commits number the vertices differently."""
_NEUTRAL = "generic_neutral_mesh"
_IDENTITIES = 60
"""How many of upstream's 100 identity shapes are kept; they come in order of the variance they explain."""


def pack(archive: Path, target: Path) -> None:
    """Pack the zip of upstream's repository into the model file.

    The archive holds ``*/FaceXModel/``: ``generic_neutral_mesh.obj``, ``identityNNN.obj``, and one OBJ for each
    expression shape, all of one topology. Raises `ModelError` where one is missing or of another shape.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(archive) as tree:
            meshes = {
                Path(name).stem: name
                for name in tree.namelist()
                if name.endswith(".obj") and Path(name).parent.name == "FaceXModel"
            }
            if _NEUTRAL not in meshes:
                raise ModelError(
                    f"{archive} holds no FaceXModel/generic_neutral_mesh.obj; is it ICT-FaceKit's archive?"
                )
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
    except zipfile.BadZipFile as error:
        raise ModelError(f"{archive} is not a zip archive ({error}). Download it again.") from error
    with target.open("wb") as out:
        np.savez_compressed(
            out,
            vertices=vertices.astype(np.float32),
            uv=uv,
            quads=quads,
            uv_quads=uv_quads,
            identity=identity,
            expression=expression,
            identity_names=np.array(identities),
            expression_names=np.array(expressions),
        )


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
    sha256="a6066bcd321e481225c11bd9d539a08fbfb3c009a2379c3c13f97a92c65328aa",
    size=11287233,
    licence="MIT",
    commercial=True,
    origin="https://github.com/ICT-VGL/ICT-FaceKit",
    urls=tuple(f"https://github.com/{owner}/ICT-FaceKit/archive/{_COMMIT}.zip" for owner in ("ICT-VGL", "USC-ICT")),
    summary="Morphable face model with expression shapes (USC ICT, light version), packed from its meshes.",
    pack=pack,
)
