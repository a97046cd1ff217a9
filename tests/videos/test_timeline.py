"""Timelines: how they are read, and what they want when."""

from __future__ import annotations

import itertools

import pytest

from exprtool.errors import UnknownNameError, UsageError
from exprtool.timeline import Moment, ease, parse_moment, parse_timeline

TIMES = [i / 25 for i in range(250)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2.5", 2.5), ("2.5s", 2.5), ("0", 0), (".5s", 0.5), ("1:02.5", 62.5), ("1:00:02", 3602), ("90s", 90)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    moment = parse_moment(text, "--start")
    assert moment.seconds == pytest.approx(seconds)
    assert moment.resolve(TIMES) == pytest.approx(seconds)


def test_frames_are_read_and_stand_where_the_frame_is() -> None:
    for text in ("f75", "75f"):
        assert parse_moment(text, "--start") == Moment(frame=75)
    uneven = [0.0, 0.1, 0.5, 0.6]
    assert parse_moment("f2", "--start").resolve(uneven) == 0.5
    assert parse_moment("f4", "--start").resolve(uneven) == pytest.approx(0.7)


@pytest.mark.parametrize("text", ["", "abc", "-1", "1:75", "1:2:75", "f", "2.5.1", "nan", "1e9s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the time"):
        parse_moment(text, "--start")


def test_one_blend_holds_throughout() -> None:
    timeline = parse_timeline("happy=0.6,surprised=0.3")
    resolved = timeline.resolved(TIMES)
    for time in (0.0, 3.0, 9.9):
        assert resolved.at(time).weights == {"happy": 0.6, "surprised": 0.3}
        assert resolved.at(time).amount == 1.0
    assert timeline.label == "happy0.6-surprised0.3"


def test_a_timeline_goes_from_key_to_key() -> None:
    resolved = parse_timeline("happy@0s neutral@2.5s surprised=0.8@4s", ramp=0.5).resolved(TIMES)
    assert resolved.at(0.0).weights == {"happy": 1.0}
    assert resolved.at(0.0).amount == 1.0, "what is wanted from the beginning is there from the beginning"
    assert resolved.at(2.5).weights == {"happy": 1.0}
    middle = resolved.at(2.75)
    assert middle.weights == pytest.approx({"happy": 0.5, "neutral": 0.5})
    assert resolved.at(3.5).weights == {"neutral": 1.0}
    assert resolved.at(9.0).weights == pytest.approx({"surprised": 0.8})


def test_before_the_first_key_the_face_is_left_alone_and_eased_in() -> None:
    resolved = parse_timeline("happy@2s", ramp=1.0).resolved(TIMES)
    assert resolved.at(1.99).amount == 0.0
    assert resolved.at(2.5).amount == pytest.approx(0.5)
    assert resolved.at(3.0).amount == 1.0
    assert resolved.at(2.5).weights == {"happy": 1.0}


def test_changes_never_jump() -> None:
    resolved = parse_timeline("happy@1s sad@1.3s neutral@1.5s surprised@4s", ramp=0.6).resolved(TIMES)

    def state(time: float) -> dict[str, float]:
        wanted = resolved.at(time)
        return {name: wanted.amount * weight for name, weight in wanted.weights.items()}

    fine = [i / 1000 for i in range(5000)]
    for before, after in itertools.pairwise(fine):
        a, b = state(before), state(after)
        assert max(abs(a.get(name, 0) - b.get(name, 0)) for name in {*a, *b}) < 0.004


def test_no_ramp_is_a_step() -> None:
    resolved = parse_timeline("happy@1s sad@2s", ramp=0).resolved(TIMES)
    assert resolved.at(0.999).amount == 0.0
    assert resolved.at(1.0).weights == {"happy": 1.0}
    assert resolved.at(2.0).weights == {"sad": 1.0}


def test_easing_is_flat_at_both_ends() -> None:
    assert (ease(-1), ease(0), ease(0.5), ease(1), ease(2)) == (0, 0, 0.5, 1, 1)
    assert ease(0.01) < 0.001 and ease(0.99) > 0.999


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("happy@", "lacks the time"),
        ("happy sad@2s", "give every expression its time"),
        ("happy@2s sad@1s", "must rise"),
        ("happy@2s sad@2s", "must rise"),
        ("happy@soon", "cannot read the time"),
    ],
)
def test_what_is_no_timeline_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_timeline(text)


def test_unknown_expressions_list_the_known() -> None:
    with pytest.raises(UnknownNameError, match="happy"):
        parse_timeline("hapy@0s")


def test_frames_and_seconds_that_cross_are_refused_for_the_clip_at_hand() -> None:
    timeline = parse_timeline("happy@f50 sad@1s")
    with pytest.raises(UsageError, match="must come after"):
        timeline.resolved(TIMES)


def test_a_negative_ramp_is_refused() -> None:
    with pytest.raises(UsageError, match="--ramp"):
        parse_timeline("happy", ramp=-1)
