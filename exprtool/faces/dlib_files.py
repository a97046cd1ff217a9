"""dlib's detector, landmark predictors and face embedding, and where their files lie.

The weights come with the ``face_recognition_models`` package. They are opened by path: importing that package needs
``pkg_resources``, which current setuptools no longer carries.

Threads
-------
A predictor only reads itself and is shared. The detectors and the embedding network write into themselves while they
work, so every thread gets its own.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exprtool.errors import ModelError

PACKAGE = "face_recognition_models"
LANDMARKS_68 = "shape_predictor_68_face_landmarks.dat"
LANDMARKS_5 = "shape_predictor_5_face_landmarks.dat"
CNN_DETECTOR = "mmod_human_face_detector.dat"
EMBEDDING = "dlib_face_recognition_resnet_model_v1.dat"
REMEDY = f"python -m pip install dlib-bin {PACKAGE}"

LANDMARKS_68_LICENCE = (
    "trained on iBUG 300-W, whose licence excludes commercial use: https://github.com/davisking/dlib-models"
)
"""As dlib's author says in the README of dlib-models, with the advice to ask Imperial College London."""

_of_this_thread = threading.local()


def missing() -> str:
    """What of dlib is not installed, in words; empty when everything is there. Imports nothing."""
    if find_spec("dlib") is None:
        return "the dlib package is not installed"
    if find_spec(PACKAGE) is None:
        return f"the {PACKAGE} package, which carries dlib's landmark files, is not installed"
    absent = [name for name in (LANDMARKS_68, LANDMARKS_5, CNN_DETECTOR, EMBEDDING) if not (_folder() / name).is_file()]
    return f"the {PACKAGE} package lacks {', '.join(absent)}" if absent else ""


def check_landmarks_licence(commercial_only: bool) -> None:
    """Raise `LicenceError` where only weights for commercial use are wanted: every face is measured with the 68 points.

    The file comes with a package of its own and not through the catalogue of weights, so it is refused here.
    """
    if commercial_only:
        from exprtool.weights.catalogue import COMMERCIAL_VARIABLE, LicenceError

        raise LicenceError(
            f"Faces cannot be measured: dlib's {LANDMARKS_68} ({LANDMARKS_68_LICENCE}) may not be used commercially, "
            f"and every detector and backend needs it so far. Leave out --commercial-only and {COMMERCIAL_VARIABLE} "
            "where your use is not commercial."
        )


def path_of(name: str) -> Path:
    """Where one of the weight files lies. Raises `ModelError` when dlib or the package with its files is missing."""
    if reason := missing():
        raise ModelError(f"Faces cannot be measured: {reason}. Run: {REMEDY}")
    return _folder() / name


def predictor(points: int) -> Any:
    """The ``dlib.shape_predictor`` with 5 or 68 points; shared between threads, loaded once."""
    return _predictor(points)


def frontal_detector() -> Any:
    """dlib's HOG detector of upright frontal faces; one per thread."""
    if not hasattr(_of_this_thread, "detector"):
        import dlib

        _of_this_thread.detector = dlib.get_frontal_face_detector()  # type: ignore[attr-defined]
    return _of_this_thread.detector


def cnn_detector() -> Any:
    """The ``dlib.cnn_face_detection_model_v1``, slow and hard to deceive; one per thread."""
    if not hasattr(_of_this_thread, "cnn"):
        path = path_of(CNN_DETECTOR)
        import dlib

        _of_this_thread.cnn = dlib.cnn_face_detection_model_v1(str(path))  # type: ignore[attr-defined]
    return _of_this_thread.cnn


def embedding_network() -> Any:
    """The ``dlib.face_recognition_model_v1``; one per thread."""
    if not hasattr(_of_this_thread, "embedding"):
        path = path_of(EMBEDDING)
        import dlib

        _of_this_thread.embedding = dlib.face_recognition_model_v1(str(path))  # type: ignore[attr-defined]
    return _of_this_thread.embedding


_loading = threading.Lock()


def _predictor(points: int) -> Any:
    with _loading:  # or two threads that start together would both read the 100 MB
        return _load_predictor(points)


@cache
def _load_predictor(points: int) -> Any:
    path = path_of({5: LANDMARKS_5, 68: LANDMARKS_68}[points])
    import dlib

    return dlib.shape_predictor(str(path))  # type: ignore[attr-defined]


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations, PACKAGE
    return Path(next(iter(spec.submodule_search_locations))) / "models"
