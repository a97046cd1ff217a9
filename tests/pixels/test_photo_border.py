"""No edit brings in what lies beyond the photo, however far it moves."""

from __future__ import annotations

import numpy as np
import pytest

from exprtool.pixels.photo_border import hold_within


@pytest.mark.parametrize("motion", [0.3, 5.0, 80.0])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_all_that_is_shown_lies_in_the_photo_and_nothing_folds(motion: float, axis: int, sign: int) -> None:
    size = (90, 140)
    flow = np.zeros((*size, 2), np.float32)
    flow[..., axis] = sign * motion
    hold_within(flow, (0, 0), size)
    count = size[1 - axis]
    at = np.moveaxis(flow[..., axis], 1 - axis, 0)[:, 7] + np.arange(count)
    assert at.min() >= 0 and at.max() <= count - 1 and (np.diff(at) > 0).all()
    away = at[0] if sign > 0 else count - 1 - at[-1]
    assert away > 0.35 * min(motion, 100), "at the other border motion goes on"
    assert not flow[..., 1 - axis].any()


def test_pieces_are_held_as_the_whole_is_and_unknown_photos_not_at_all() -> None:
    random = np.random.default_rng(0)
    whole = random.normal(0, 6, (90, 140, 2)).astype(np.float32)
    piece, free = whole[20:70, 90:140].copy(), whole.copy()
    hold_within(whole, (0, 0), (90, 140))
    hold_within(piece, (90, 20), (90, 140))
    np.testing.assert_allclose(piece, whole[20:70, 90:140], atol=0.05)
    unknown = free.copy()
    hold_within(unknown, (0, 0), None)
    assert np.array_equal(unknown, free)
    inside = free.copy()
    hold_within(inside, (4000, 4000), (9000, 9000))
    assert np.array_equal(inside, free), "far from every border no bit changes"
