"""The straight path of one photo: detect, select, prepare, generate, paste."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import exprtool
from exprtool.errors import ExprtoolError, ModelError, NoFaceError, UnknownNameError, UsageError
from exprtool.faces.select import Selection
from exprtool.pipeline import Session
from exprtool.types import Backend, Edit, FacePatch, FaceRefusal, Image


@pytest.fixture
def picture() -> Image:
    """Noise, wider than high: a transposed or shifted patch would show."""
    return np.random.default_rng(0).integers(1, 255, (240, 400, 3), dtype=np.uint8)


def test_only_pixels_with_alpha_change(fakes: SimpleNamespace, picture: Image) -> None:
    before = picture.copy()
    result = exprtool.edit_image(picture, "happy", backend="green", detector="middle")
    assert result.edited == 1
    assert result.faces[0].backend == "green"
    assert np.array_equal(picture, before), "the input was written to"
    assert np.array_equal(result.image[~result.changed], before[~result.changed])
    assert 0.05 < result.changed.mean() < 0.6
    assert (result.image[120, 200] == [0, 200, 0]).all()


def test_strength_zero_changes_nothing(fakes: SimpleNamespace, picture: Image) -> None:
    edit = Edit({"happy": 1.0}, strength=0.0)
    result = exprtool.edit_image(picture, edit, backend="green", detector="middle")
    assert np.array_equal(result.image, picture)
    assert not result.changed.any()


def test_no_face_says_what_was_tried(fakes: SimpleNamespace) -> None:
    with pytest.raises(NoFaceError, match=r"no face was found"):
        exprtool.edit_image(np.zeros((100, 150, 3), np.uint8), "sad", backend="green", detector="middle")


def test_unselected_faces_keep_their_reason(fakes: SimpleNamespace, picture: Image) -> None:
    with pytest.raises(NoFaceError, match="too small"):
        Session("green", "middle").edit_image(picture, "sad", Selection(min_face=1000))


def test_a_refused_face_is_reported_and_left_alone_unless_forced(fakes: SimpleNamespace, picture: Image) -> None:
    session = Session("picky", "middle")
    result = session.edit_image(picture, "sad")
    assert (result.edited, result.faces[0].reason) == (0, "stands too far left")
    assert np.array_equal(result.image, picture)
    prepared = session.prepare(session.find(picture).selected)
    assert session.check(prepared, Edit({"sad": 1.0})) == ["stands too far left"]
    assert session.check(prepared, Edit({"sad": 1.0}, force=True)) == [None]
    assert session.edit_image(picture, Edit({"sad": 1.0}, force=True)).edited == 1


def test_a_face_that_one_backend_refuses_goes_to_the_next(fakes: SimpleNamespace, picture: Image) -> None:
    session = Session("picky", "middle")
    session.chain._links += Session("green", "middle").chain._links
    result = session.edit_image(picture, "sad")
    assert (result.edited, result.faces[0].backend) == (1, "green")
    prepared = session.prepare(session.find(picture).selected)
    assert session.check(prepared, Edit({"sad": 1.0})) == [None]


def test_a_refusal_that_settles_it_asks_no_other_backend(fakes: SimpleNamespace, picture: Image) -> None:
    class Covered(Backend):
        def check(self, prepared: Sequence[Any], edit: Edit) -> list[FaceRefusal | None]:
            return [None if edit.force else FaceRefusal("a hand covers it", settles=True) for _ in prepared]

        def generate(self, prepared: Sequence[Any], edit: Edit) -> list[FacePatch | FaceRefusal]:
            return [refusal for refusal in self.check(prepared, edit) if refusal]

    session = Session(Covered(), "middle")
    session.chain._links += Session("green", "middle").chain._links
    result = session.edit_image(picture, "sad")
    assert (result.edited, result.faces[0].reason) == (0, "a hand covers it")
    assert np.array_equal(result.image, picture)
    prepared = session.prepare(session.find(picture).selected)
    assert session.check(prepared, Edit({"sad": 1.0})) == ["a hand covers it"]


def test_names_that_no_plugin_carries_list_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"debgu.*Did you mean 'debug'"):
        Session("debgu")
    with pytest.raises(UnknownNameError, match=r"detector.*dlib"):
        Session("debug", "dlibb")
    with pytest.raises(UsageError, match="nothing after a colon"):
        Session("debug:x")


def test_edits_that_a_backend_cannot_do_are_refused_before_any_work(fakes: SimpleNamespace, picture: Image) -> None:
    session = Session("green", "middle")
    session.chain.require(Edit({"happy": 1.0}, {"jawOpen": 0.5}))
    with pytest.raises(UnknownNameError, match=r"jawOpn.*jawOpen"):
        session.chain.require(Edit({}, {"jawOpn": 0.5}))
    region = session.find(picture).selected[0]
    with pytest.raises(UsageError, match="another photo"):
        session.chain.require(Edit(reference=region))


def test_auto_without_any_ready_backend_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from exprtool import plugins

    empty = plugins.Registry(detectors=plugins.registry().detectors)
    monkeypatch.setattr(plugins, "registry", lambda: empty)
    with pytest.raises(ModelError, match="exprtool doctor"):
        Session("auto", "dlib")


def test_a_backend_that_answers_too_few_faces_is_named(picture: Image, fakes: SimpleNamespace) -> None:
    class Forgetful(Backend):
        def generate(self, prepared, edit):
            return []

    with pytest.raises(ExprtoolError, match=r"'Forgetful' answered 0 of 1 faces in generate"):
        exprtool.edit_image(picture, "happy", backend=Forgetful(), detector="middle")


def test_a_backend_that_prepares_once_serves_many_expressions(picture: Image, fakes: SimpleNamespace) -> None:
    session = Session("green", "middle")
    prospect = session.find(picture)
    prepared = session.prepare(prospect.selected)
    images = [
        session.finish(prospect, session.generate(prepared, Edit({"sad": 1.0}, strength=s)), {}) for s in (0.2, 1)
    ]
    assert images[0].image[120, 200, 1] != images[1].image[120, 200, 1]


def test_refusal_at_prepare_is_reported(picture: Image, fakes: SimpleNamespace) -> None:
    class Never(Backend):
        def prepare(self, regions):
            return [FaceRefusal("not today") for _ in regions]

        def generate(self, prepared, edit):
            raise AssertionError("nothing was prepared")

    result = exprtool.edit_image(picture, "happy", backend=Never(), detector="middle")
    assert result.faces[0].reason == "not today"
