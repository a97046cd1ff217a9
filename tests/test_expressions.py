"""Reading what the user writes after --expr."""

from __future__ import annotations

import pytest

from exprtool.errors import UnknownNameError, UsageError
from exprtool.expressions import ALIASES, EXPRESSIONS, canonical, label, parse, parse_all


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("happy", {"happy": 1.0}),
        ("fear", {"afraid": 1.0}),
        ("AN", {"angry": 1.0}),
        (" Happy = 0.6 ", {"happy": 0.6}),
        ("happy=0.6,surprised=0.3", {"happy": 0.6, "surprised": 0.3}),
        ("SUS=1.5", {"surprised": 1.5}),
        ("sad=0", {"sad": 0.0}),
    ],
)
def test_parse(text: str, weights: dict[str, float]) -> None:
    assert parse(text) == weights


@pytest.mark.parametrize("text", ["", "happy,", "=0.5", "happy=", "happy=x", "happy=-0.1", "happy=1.6", "happy=nan"])
def test_unreadable_blends_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_a_name_given_twice_is_refused_even_by_its_alias() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse("happy=0.2,smile=0.3")


def test_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="surprised") as caught:
        canonical("suprised")
    assert "Did you mean 'surprised'" in str(caught.value)
    assert all(name in str(caught.value) for name in EXPRESSIONS)


def test_every_alias_leads_to_one_of_the_seven() -> None:
    assert set(ALIASES.values()) == set(EXPRESSIONS)
    assert all(canonical(name.upper()) == target for name, target in ALIASES.items())


def test_all_stands_for_the_seven_and_repeats_are_one_output() -> None:
    assert [name for name, _ in parse_all(["all"])] == list(EXPRESSIONS)
    assert parse_all(["happy", "smile", "HA=1.0"]) == [("happy", {"happy": 1.0})]


def test_labels_tell_blends_apart_and_are_safe_in_file_names() -> None:
    labels = [name for name, _ in parse_all(["happy", "happy=0.6", "happy=0.6,surprised=0.3"])]
    assert labels == ["happy", "happy0.6", "happy0.6-surprised0.3"]
    assert not any(set(label({"happy": 0.5})) & set('/\\:*?"<>| '))
