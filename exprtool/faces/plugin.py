"""The detectors that exprtool brings along: dlib, InsightFace and YuNet.

Only what they are is said here; what they do stands in `exprtool.faces.detectors`, which is imported when one is
loaded.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from exprtool.errors import ModelError
from exprtool.extras import install_command
from exprtool.faces import dlib_files
from exprtool.hookspecs import hookimpl
from exprtool.types import Detector, DetectorSpec, Readiness, WeightFile

YUNET = WeightFile(
    name="yunet",
    file="face_detection_yunet_2023mar.onnx",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    size=232_589,
    licence="MIT",
    commercial=True,
    origin="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
    urls=(
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/"
        "face_detection_yunet_2023mar.onnx",
    ),
    summary="YuNet face detector (Wu, Peng and Yu, Machine Intelligence Research 2023)",
)

_INSIGHTFACE_LICENCE = "InsightFace models: non-commercial research only"


def _member(name: str, size: int) -> Callable[[Path, Path], None]:
    """Take one file of ``size`` bytes out of a downloaded model pack: of the packs only the detector is needed."""

    def unpack(downloaded: Path, target: Path) -> None:
        try:
            with zipfile.ZipFile(downloaded) as pack:
                inside = next((entry for entry in pack.infolist() if Path(entry.filename).name == name), None)
                if inside is None:
                    raise ModelError(f"{downloaded}: this is not the expected model pack; it holds no {name}.")
                if inside.file_size != size:  # and zipfile reads no more than what is declared
                    raise ModelError(f"{downloaded}: its {name} has {inside.file_size} bytes instead of {size}.")
                with pack.open(inside) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
        except zipfile.BadZipFile as error:
            raise ModelError(f"{downloaded}: not a zip file ({error}). Fetch it again.") from error

    return unpack


BUFFALO_L = WeightFile(
    name="insightface-buffalo_l",
    file="insightface/buffalo_l/det_10g.onnx",
    sha256="5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
    size=16_923_827,
    licence=_INSIGHTFACE_LICENCE,
    commercial=False,
    origin="https://github.com/deepinsight/insightface/tree/master/model_zoo",
    urls=("https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip",),
    summary="SCRFD-10G face detector of InsightFace's pack buffalo_l",
    pack=_member("det_10g.onnx", 16_923_827),
    download_size=288_621_354,
)
BUFFALO_SC = WeightFile(
    name="insightface-buffalo_sc",
    file="insightface/buffalo_sc/det_500m.onnx",
    sha256="5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
    size=2_524_817,
    licence=_INSIGHTFACE_LICENCE,
    commercial=False,
    origin="https://github.com/deepinsight/insightface/tree/master/model_zoo",
    urls=("https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_sc.zip",),
    summary="SCRFD-500M face detector of InsightFace's pack buffalo_sc",
    pack=_member("det_500m.onnx", 2_524_817),
    download_size=14_969_382,
)
PACKS = {"buffalo_l": BUFFALO_L, "buffalo_sc": BUFFALO_SC}


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
