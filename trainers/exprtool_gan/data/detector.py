"""The face detector that prepares data: by name, or the best one that is ready."""

from __future__ import annotations

from exprtool.pipeline import Session
from exprtool.types import Backend, Detector


class _NoBackend(Backend):
    def generate(self, prepared, edit):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def detector_name(wish: str) -> str:
    """The name of the detector that ``wish`` stands for; loads nothing."""
    return Session(_NoBackend(), wish).detector_name


def load_detector(wish: str, device: str = "cpu") -> tuple[str, Detector]:
    session = Session(_NoBackend(), wish, device)
    return session.detector_name, session.detector
