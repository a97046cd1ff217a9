"""The weight files of the detectors that exprtool brings along."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from exprtool.errors import ModelError
from exprtool.types import WeightFile

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
