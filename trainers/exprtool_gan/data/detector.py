"""The face detector that prepares data: by name, or the best one that is ready."""

from __future__ import annotations

from exprtool import plugins
from exprtool.errors import ModelError
from exprtool.models import commercial_only_from_environment, readiness
from exprtool.pipeline import load_detector

__all__ = ["detector_name", "load_detector"]


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
