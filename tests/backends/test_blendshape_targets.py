"""From a wanted expression to weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from exprtool.anatomy.names import CONTROLS
from exprtool.anatomy.steady import smoothed
from exprtool.anatomy.targets import HIGHEST, Move, presets, weights_for
from exprtool.errors import UnknownNameError
from exprtool.expressions import EXPRESSIONS, VARIANTS
from exprtool.types import Edit

SMILE = {"mouthSmileLeft": 0.6, "mouthSmileRight": 0.55, "cheekSquintLeft": 0.3, "jawOpen": 0.1, "browDownLeft": 0.05}


def test_presets_cover_the_seven_expressions_with_known_controls() -> None:
    assert tuple(presets()) == (*EXPRESSIONS, *VARIANTS)
    for name, moves in presets().items():
        assert set(moves) <= set(CONTROLS)
        assert all(0 <= move.amount <= HIGHEST and 0 <= move.onset < 1 for move in moves.values()), name
    assert not presets()["neutral"]


def test_presets_treat_both_sides_alike() -> None:
    for moves in presets().values():
        for control, move in moves.items():
            if control.endswith("Left"):
                assert moves[control[:-4] + "Right"] == move


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_strength_0_is_exactly_what_the_face_wears(expression: str) -> None:
    assert weights_for(Edit(weights={expression: 1.0}, strength=0.0), SMILE) == SMILE
    assert weights_for(Edit(weights={expression: 1.0}, strength=0.0), SMILE, rest={"jawOpen": 0.3}) == SMILE


def test_a_smile_made_sad_does_not_smile() -> None:
    for expression in ("sad", "angry", "surprised", "neutral"):
        weights = weights_for(Edit(weights={expression: 1.0}), SMILE)
        assert weights.get("mouthSmileLeft", 0.0) < 0.01, expression


def test_a_trace_is_kept_as_the_shape_of_the_face() -> None:
    trace = {"mouthPucker": 0.06, "browInnerUpLeft": 0.05}
    weights = weights_for(Edit(weights={"neutral": 1.0}), trace)
    assert weights["mouthPucker"] == pytest.approx(0.06, rel=0.1)
    smiling = weights_for(Edit(weights={"neutral": 1.0}), trace | {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8})
    assert smiling.get("mouthPucker", 0.0) < 0.001, "beside a smile it is part of the smile"
    assert smiling["browInnerUpLeft"] == pytest.approx(0.05, rel=0.1), "but not in another part of the face"


def test_a_frown_is_absolute_even_on_raised_brows() -> None:
    raised = {"browInnerUpLeft": 0.5, "browInnerUpRight": 0.5}
    weights = weights_for(Edit(weights={"angry": 1.0}), raised)
    assert "browInnerUpLeft" not in weights
    assert weights["browDownLeft"] == presets()["angry"]["browDownLeft"].amount


def test_strength_leads_from_one_to_the_other_without_turning_back() -> None:
    for expression in EXPRESSIONS:
        path = [weights_for(Edit(weights={expression: 1.0}, strength=i / 10), SMILE) for i in range(11)]
        for control in {name for weights in path for name in weights}:
            values = [weights.get(control, 0.0) for weights in path]
            steps = [b - a for a, b in pairwise(values)]
            assert min(steps) >= -1e-9 or max(steps) <= 1e-9, (expression, control)


def test_a_faint_smile_keeps_the_lips_together() -> None:
    faint = weights_for(Edit(weights={"happy": 1.0}, strength=0.4), {})
    full = weights_for(Edit(weights={"happy": 1.0}), {})
    assert faint["mouthSmileLeft"] > 0.1
    assert "jawOpen" not in faint and full["jawOpen"] > 0.05
    assert Move(1.0, 0.5).progress(0.75) == pytest.approx(0.5)
    assert weights_for(Edit(weights={"happy": 0.4}), {}) == pytest.approx(faint), "an amount is a strength"


def test_a_variant_is_its_expression_but_for_what_it_names_anew() -> None:
    closed, happy = presets()["happy-closed"], presets()["happy"]
    assert closed.keys() == happy.keys() and closed["mouthSmileLeft"].amount > 0.4
    weights = weights_for(Edit(weights={"happy-closed": 1.0}, strength=1.5), {})
    assert not weights.keys() & {"jawOpen", "mouthLowerDownLeft", "mouthUpperUpLeft"}, "the lips stay together"
    assert weights_for(Edit(weights={"happy": 1.0}), {})["mouthLowerDownLeft"] > 0


def test_brows_as_they_are_built_stay_under_a_smile_and_a_frown_goes() -> None:
    heavy = {"browDownLeft": 0.3, "browDownRight": 0.3}
    assert weights_for(Edit(weights={"happy": 1.0}), heavy)["browDownLeft"] > 0.24
    high = {"browInnerUpLeft": 0.9, "browInnerUpRight": 0.9}
    assert weights_for(Edit(weights={"happy": 1.0}), high)["browInnerUpLeft"] == 0.9, "raised ones look happy, too"
    assert weights_for(Edit(weights={"neutral": 1.0}), high).get("browInnerUpLeft", 0.0) < 0.1
    both = weights_for(Edit(weights={"happy": 0.5, "angry": 0.5}), high)
    assert both.get("browInnerUpLeft", 0.0) == 0.0, "what one of a blend names is set"
    frown = {f"{name}{side}": 1.2 for name in ("browDown", "corrugator") for side in ("Left", "Right")}
    assert weights_for(Edit(weights={"happy": 1.0}), frown).get("browDownLeft", 0.0) < 0.05


def test_blends_add_up_and_controls_come_on_top() -> None:
    blend = weights_for(Edit(weights={"sad": 0.5, "surprised": 0.5}), {})
    sad, surprised = (presets()[name]["browInnerUpLeft"].amount for name in ("sad", "surprised"))
    assert blend["browInnerUpLeft"] == pytest.approx(0.5 * sad + 0.5 * surprised)
    more = weights_for(Edit(weights={"sad": 1.0}, controls={"jawOpen": 0.3}), SMILE)
    assert more["jawOpen"] == pytest.approx(0.3)
    alone = weights_for(Edit(controls={"browInnerUp": 0.6}), SMILE)
    assert alone == SMILE | {"browInnerUpLeft": 0.6, "browInnerUpRight": 0.6}


def test_weights_stay_in_range() -> None:
    weights = weights_for(Edit(weights={"angry": 1.5}, strength=1.5), SMILE)
    assert max(weights.values()) <= HIGHEST and min(weights.values()) >= 0


def test_a_reference_is_copied() -> None:
    assert weights_for(Edit(), {"jawOpen": 0.4}, reference=SMILE) == pytest.approx(SMILE)
    half = weights_for(Edit(strength=0.5), {}, reference=SMILE)
    assert half["mouthSmileLeft"] == pytest.approx(0.3)


def test_asymmetry_comes_from_the_seed() -> None:
    first = weights_for(Edit(weights={"happy": 1.0}, asymmetry=0.2, seed=3), {})
    assert first == weights_for(Edit(weights={"happy": 1.0}, asymmetry=0.2, seed=3), {})
    assert first != weights_for(Edit(weights={"happy": 1.0}, asymmetry=0.2, seed=4), {})
    assert abs(first["mouthSmileLeft"] - first["mouthSmileRight"]) > 0.01
    plain = weights_for(Edit(weights={"happy": 1.0}), {})
    assert first["mouthSmileLeft"] + first["mouthSmileRight"] == pytest.approx(2 * plain["mouthSmileLeft"])


def test_speech_goes_on_under_an_edit_of_a_clip() -> None:
    rest = {"jawOpen": 0.05, "mouthSmileLeft": 0.1}
    edit = Edit(weights={"happy": 1.0}, additive=True)
    closed = weights_for(edit, {"jawOpen": 0.05}, rest=rest)
    talking = weights_for(edit, {"jawOpen": 0.35}, rest=rest)
    assert talking["jawOpen"] - closed["jawOpen"] == pytest.approx(0.3)


def test_a_blink_survives_widened_eyes() -> None:
    edit = Edit(weights={"surprised": 1.0}, additive=True)
    shut = weights_for(edit, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, rest={})
    assert shut["eyeBlinkLeft"] == 1.0 and shut.get("eyeWideLeft", 0.0) == 0.0
    open_ = weights_for(edit, {}, rest={})
    assert open_["eyeWideLeft"] > 0.5


def test_lids_that_are_open_are_widened_alike_however_the_fit_shakes() -> None:
    edit = Edit(weights={"surprised": 1.0}, additive=True)
    wide = [weights_for(edit, {"eyeBlinkLeft": blink}, rest={})["eyeWideLeft"] for blink in (0.0, 0.03, 0.07)]
    assert wide[0] == wide[1] == wide[2]


def shaking(n: int, size: float = 0.1) -> list[dict[str, float]]:
    random = np.random.default_rng(0)
    return [{"browInnerUpLeft": 0.3 + float(shake)} for shake in random.normal(0, size, n)]


def around(worn: list[dict[str, float]], i: int) -> list[tuple[float, dict[str, float]]]:
    return [((k - i) / 25, worn[k]) for k in range(max(0, i - 8), min(len(worn), i + 9))]


def test_what_is_taken_off_along_a_track_does_not_shake() -> None:
    worn = shaking(80)
    steady = [smoothed(worn[i], around(worn, i)) for i in range(80)]
    before = np.array([one["browInnerUpLeft"] for one in worn])
    after = np.array([one["browInnerUpLeft"] for one in steady])
    assert np.abs(np.diff(after, 2)).mean() < 0.1 * np.abs(np.diff(before, 2)).mean()
    assert after.mean() == pytest.approx(before.mean(), abs=0.02)


def test_a_grin_that_comes_at_once_is_taken_off_at_once() -> None:
    grin = {f"mouthSmile{side}": 0.9 for side in ("Left", "Right")}
    worn: list[dict[str, float]] = [{} for _ in range(20)] + [grin for _ in range(20)]
    steady = [smoothed(worn[i], around(worn, i)).get("mouthSmileLeft", 0.0) for i in range(40)]
    assert max(steady[:20]) < 0.1 and min(steady[20:]) > 0.8
    assert smoothed(grin, []) == grin


def test_unknown_names_raise() -> None:
    with pytest.raises(UnknownNameError, match="expression 'joyful'"):
        weights_for(Edit(weights={"joyful": 1.0}), {})
    with pytest.raises(UnknownNameError, match="control 'smile'"):
        weights_for(Edit(controls={"smile": 1.0}), {})
