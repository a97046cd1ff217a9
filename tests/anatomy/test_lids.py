"""Closed eyes: lids that are shut stay shut, whatever is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exprtool.anatomy.eyes import ALONE, awake
from exprtool.anatomy.steady import CLOSED, keep_shut
from exprtool.images import read_image
from exprtool.pipeline import Session
from exprtool.types import Edit


def test_how_far_an_eye_is_open_in_a_photo_alone() -> None:
    assert awake(0.05, ALONE) == 0.0 and awake(0.16, ALONE) == 1.0
    assert 0.2 < awake(0.12, ALONE) < 0.8


def test_shut_lids_are_neither_opened_nor_widened_each_on_its_own() -> None:
    source = {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9, "eyeSquintLeft": 0.3}
    target = {"eyeWideLeft": 0.8, "eyeWideRight": 0.8, "eyeBlinkRight": 0.1, "jawOpen": 0.4}
    assert keep_shut(target, source, {"Left": 0.0, "Right": 1.0})
    assert target == {
        "eyeWideLeft": 0.0, "eyeBlinkLeft": 0.9, "eyeSquintLeft": 0.3,
        "eyeWideRight": 0.8, "eyeBlinkRight": 0.1, "jawOpen": 0.4,
    }  # fmt: skip
    half = {"eyeWideLeft": 0.8}
    assert not keep_shut(half, {}, {"Left": 0.75}) and half["eyeWideLeft"] == pytest.approx(0.6)
    closing = {"eyeBlinkLeft": 1.0}
    assert not keep_shut(closing, {"eyeBlinkLeft": 0.9}, {"Left": 0.0}) and closing["eyeBlinkLeft"] == 1.0


@pytest.mark.parametrize("backend", ["default", "blendshape"])
def test_a_photo_of_closed_eyes_keeps_them_and_says_so(shared: Path, face_model: Path, backend: str) -> None:
    photo = read_image(shared / "faces" / "fairface_open" / "train_23689.jpg").rgb
    session = Session(backend)
    (face,) = session.generate(session.prepare(session.find(photo).selected), Edit({"surprised": 1.0}))
    assert face.edited and CLOSED in face.notes
    assert face.patch is not None and face.region is not None and face.region.landmarks68 is not None
    for lids in (slice(36, 42), slice(42, 48)):
        x, y = np.round(face.region.landmarks68[lids].mean(0)).astype(int)
        assert face.patch.painted[y - 2 : y + 3, x - 3 : x + 4].max() < 0.1, "nothing is painted between the lids"
