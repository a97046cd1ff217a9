"""The detectors that exprtool brings along: dlib, InsightFace and YuNet.

Only what they are is said here; what they do stands in `exprtool.faces.detectors`, which is imported when one is
loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from exprtool.extras import install_command
from exprtool.faces import dlib_files
from exprtool.faces.weights import BUFFALO_L, BUFFALO_SC, YUNET
from exprtool.hookspecs import hookimpl
from exprtool.types import Detector, DetectorSpec, Readiness


def _dlib_readiness() -> Readiness:
    reason = dlib_files.missing()
    return Readiness(not reason, reason, dlib_files.REMEDY if reason else "")


def _needs_dlib_too(package: str, remedy: str) -> Readiness | None:
    """Every detector is refined by dlib's landmarks, so a missing dlib stops them all."""
    if find_spec(package) is None:
        return Readiness(False, f"the {package} package is not installed", remedy)
    dlib = _dlib_readiness()
    return None if dlib.ready else dlib


def _insightface_readiness() -> Readiness:
    if obstacle := _needs_dlib_too("insightface", install_command("insightface")):
        return obstacle
    from exprtool.faces.packs import installed_packs

    if installed_packs():
        return Readiness(True)
    return Readiness(
        False,
        "no model pack is here (they are for non-commercial research only)",
        f"exprtool models fetch {BUFFALO_SC.name}, or --detector insightface:FOLDER with a pack of your own",
    )


def _yunet_readiness() -> Readiness:
    if obstacle := _needs_dlib_too("cv2", "python -m pip install opencv-python"):
        return obstacle
    from exprtool.weights import catalogue as models

    if models.is_there(YUNET):
        return Readiness(True)
    return Readiness(
        False,
        "its model file is not here",
        f"exprtool models fetch {YUNET.name}, or --detector yunet:FILE.onnx",
    )


def _load_dlib(device: str, argument: str | None) -> Detector:
    from exprtool.faces.detectors import DlibDetector

    return DlibDetector.load(device, argument)


def _load_insightface(device: str, argument: str | None) -> Detector:
    from exprtool.faces.detectors import InsightFaceDetector

    return InsightFaceDetector.load(device, argument)


def _load_yunet(device: str, argument: str | None) -> Detector:
    from exprtool.faces.detectors import YuNetDetector

    return YuNetDetector.load(device, argument)


@hookimpl
def register_detectors(register: Callable[[DetectorSpec], None]) -> None:
    register(
        DetectorSpec(
            name="dlib",
            summary="HOG detector inside dlib; nothing to download, any use",
            load=_load_dlib,
            quality=10,
            readiness=_dlib_readiness,
        )
    )
    register(
        DetectorSpec(
            name="yunet",
            summary="YuNet network on OpenCV: fast, finds small and turned faces, any use; yunet:FILE.onnx",
            load=_load_yunet,
            needs=(YUNET,),
            quality=20,
            readiness=_yunet_readiness,
        )
    )
    register(
        DetectorSpec(
            name="insightface",
            summary="SCRFD network of an InsightFace model pack: insightface:PACK or insightface:FOLDER",
            load=_load_insightface,
            needs=(BUFFALO_L, BUFFALO_SC),
            needs_any=True,
            devices=("cpu", "cuda"),
            quality=30,
            readiness=_insightface_readiness,
        )
    )
