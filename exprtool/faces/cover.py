"""When something covers a followed face: a hand before the mouth, a cup, a microphone.

Detectors see such faces, and the landmark predictor puts its points on the hand. But it guesses there: its answers for
slightly different boxes lie several times as far apart as on the same face uncovered (`disagreement68`). How far they
lie apart on an uncovered face differs from face to face, so each track is compared with its own better half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exprtool.timeline import ease

PARTS = (slice(27, 36), slice(48, 68))
"""Nose and mouth: what covers a face covers one of them. Brows are covered by hair, eyes by their lids and glasses."""
USUAL = np.array([0.0020, 0.0023])
"""Mean disagreement of the points of each part on faces that nothing covers."""
_COVERED = (1.8, 2.6)
"""Disagreement over the track's own from which on the face counts as partly, and as wholly covered. On a face that
talks, laughs and nods it stays below 1.7; fingers before a mouth bring it to 2.5 to 10."""
_OWN = 0.25
"""Quantile of the track's disagreements that is taken for the uncovered face's."""
_ALONG = 0.13
"""Seconds to either side over which the median is taken: a single guess may be off."""


def parts_of(disagreement: NDArray[np.float64]) -> NDArray[np.float64]:
    """The disagreement (68,) of one look, as that of nose and mouth in units of the usual, (2,)."""
    return np.array([disagreement[part].mean() for part in PARTS]) / USUAL


def own_level(stretches: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """What is normal on a track's face, (2,), at least the usual; from its looks, (n, 2) each, NaN where none was."""
    looks = np.concatenate([np.zeros((0, 2)), *(one[np.isfinite(one).all(axis=1)] for one in stretches)])
    return np.maximum(np.quantile(looks, _OWN, axis=0), 1.0) if len(looks) else np.ones(2)


def uncovered(
    looks: NDArray[np.floating], level: NDArray[np.floating], at: NDArray[np.floating]
) -> NDArray[np.float64]:
    """1 where a face is free, 0 where it is covered, for each frame of a stretch, (n,).

    ``looks`` (n, 2) are `parts_of`, NaN in frames that were not looked at; ``at`` (n,) are the frames' seconds.
    """
    seen = np.flatnonzero(np.isfinite(looks).all(axis=1))
    if not seen.size:
        return np.ones(len(looks))
    score = (looks[seen] / level).max(axis=1)
    low, high = np.searchsorted(at[seen], at[seen] - _ALONG), np.searchsorted(at[seen], at[seen] + _ALONG, "right")
    steady = np.array([np.median(score[a:b]) for a, b in zip(low, high, strict=True)])
    least, most = _COVERED
    free = np.array([1.0 - ease((one - least) / (most - least)) for one in steady])
    return np.interp(np.arange(len(looks)), seen, free)
