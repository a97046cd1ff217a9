"""The face detector that prepares data: by name, or the best one that is ready."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exprtool import plugins
from exprtool.choice import load_detector
from exprtool.errors import ModelError
from exprtool.types import Detector, Image
from exprtool.weights.catalogue import commercial_only_from_environment, readiness

__all__ = ["detector_name", "landmarks_in", "load_detector"]

_SEARCH_SIDE = 256


def detector_name(wish: str) -> str:
    """What ``wish`` stands for, for the settings of prepared data (the choice of `load_detector`); loads nothing."""
    known = plugins.registry()
    if wish != "auto":
        known.detector(wish.partition(":")[0])
        return wish
    commercial_only = commercial_only_from_environment()
    ready = [spec for spec in known.detectors.values() if readiness(spec, commercial_only).ready]
    if not ready:
        raise ModelError("No face detector is ready. Run `exprtool doctor` to see why.")
    return max(ready, key=lambda spec: spec.quality).name


def landmarks_in(crop: Image, detector: Detector) -> NDArray[np.float64]:
    """The 68 landmarks (68, 2) of the largest face in a crop that was not aligned, in its pixels; NaN without a face.

    One quick look at the crop, enlarged: `find_faces` would turn drawings around and search them for seconds.
    """
    import cv2

    from exprtool.faces.landmarks import refine68

    factor = max(1, -(-_SEARCH_SIDE // crop.shape[0]))
    large = np.asarray(cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    faces = detector.detect(large)
    if not faces:
        return np.full((68, 2), np.nan)
    points = refine68(large, max(faces, key=lambda face: face.size)).landmarks68
    assert points is not None
    return (points + 0.5) / factor - 0.5
