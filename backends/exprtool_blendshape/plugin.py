"""What exprtool is told about this backend. Listing it loads nothing; see `exprtool_blendshape.backend` for the
work."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from exprtool.anatomy.names import CONTROLS, STEMS
from exprtool.expressions import EXPRESSIONS, VARIANTS
from exprtool.extras import install_command
from exprtool.hookspecs import hookimpl
from exprtool.types import Backend, BackendSpec, Readiness
from exprtool_blendshape.weights import FACE_MODEL

QUALITY = 90


def _load(device: str) -> Backend:
    from exprtool_blendshape.backend import BlendshapeBackend

    return BlendshapeBackend()


def _readiness() -> Readiness:
    missing = [package for package in ("cv2", "numba", "scipy") if find_spec(package) is None]
    if missing:
        return Readiness(False, f"not installed: {', '.join(missing)}", install_command("blendshape"))
    return Readiness(True)


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    register(
        BackendSpec(
            name="blendshape",
            summary="Moves the photo's own pixels as a fitted 3D face model says. No generator network.",
            load=_load,
            expressions=(*EXPRESSIONS, *VARIANTS),
            controls=tuple(sorted((*CONTROLS, *STEMS))),
            needs=(FACE_MODEL,),
            quality=QUALITY,
            trained=False,
            reference=True,
            readiness=_readiness,
        )
    )
