"""Two expressions of one person, and the exact flow from the one to the other.

Every render of a portrait knows its backward flow to the portrait. From a render S and a render T follows the flow
from T to S: a pixel p of T shows the portrait's point n = p + f_T(p), which S shows at the q with q + f_S(q) = n, so
that g(p) = q - p. The equation for q is solved by fixed-point iteration, which converges because an expression moves
neighbouring skin nearly alike (the flow's gradient is well below 1 wherever nothing was painted).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from exprtool.types import FacePatch, Image
from exprtool_blendshape.fit import worn_by_landmarks
from exprtool_synth.canvas import Canvas, crop_landmarks
from exprtool_synth.proportions import reshaped
from exprtool_synth.states import vector_of

_ITERATIONS = 8
_WHOLE = slice(None), slice(None)


@dataclass(frozen=True, eq=False)
class Render:
    """A canvas in some state.

    ``image`` (S, S, 3) uint8; ``flow`` (S, S, 2) float32 to the portrait itself, in canvas pixels; ``painted`` (S, S)
    float32 in [0, 1] where the flow does not hold. ``weights`` (C,) are what it really wears: what the renderer gave
    it, which is what was asked for and what a face keeps when its expression is taken off (`targets.weights_for`); of
    the portrait as it was (``drawn`` is False), what the fit found. Few portraits are wholly at rest.
    """

    image: Image
    flow: NDArray[np.float32]
    painted: NDArray[np.float32]
    weights: NDArray[np.float32]
    drawn: bool = True


@dataclass(frozen=True, eq=False)
class Pair:
    """One training pair at the network's size S.

    ``source`` and ``target`` (S, S, 3) uint8 RGB; ``flow`` (S, S, 2) float16, backward, in crop pixels: the target at p
    shows what the source has at p + flow; ``painted`` (S, S) uint8, 255 where the target shows what the source does
    not. The weights (C,) are those of `names.CONTROLS`: what the faces wear, see `Render`. The points (68, 2) float32
    are the landmarks, in crop pixels, as a predictor finds them in the pictures. ``source_drawn`` (1,) uint8 is 1 where
    the source is a render and 0 where it is the portrait's own picture.

    ``other_points`` (68, 2) float32 in crop pixels are the portrait's landmarks in other proportions
    (`exprtool_synth.proportions`), without a picture, and ``other_weights`` (C,) what a fit finds in these.
    """

    source: Image
    target: Image
    flow: NDArray[np.float16]
    painted: NDArray[np.uint8]
    source_weights: NDArray[np.float32]
    target_weights: NDArray[np.float32]
    source_points: NDArray[np.float32]
    target_points: NDArray[np.float32]
    source_drawn: NDArray[np.uint8]
    other_points: NDArray[np.float32]
    other_weights: NDArray[np.float32]


def untouched(canvas: Canvas, worn: Mapping[str, float]) -> Render:
    """The portrait itself as a render; ``worn`` is what the fit found, by control."""
    side = canvas.image.shape[0]
    zero = np.zeros((side, side), np.float32)
    return Render(canvas.image, np.zeros((side, side, 2), np.float32), zero, vector_of(worn), drawn=False)


def rendered(canvas: Canvas, patch: FacePatch) -> Render:
    """A backend's patch over the canvas; raises ValueError for a patch that does not tell its flow and weights."""
    if patch.flow is None or patch.painted is None or "target" not in patch.details:
        raise ValueError("training pairs need a backend that tells its flow and weights")
    alpha = patch.alpha[..., None]
    image = np.clip(canvas.image * (1 - alpha) + patch.pixels * alpha + 0.5, 0, 255).astype(np.uint8)
    weights = vector_of(patch.details["target"])
    return Render(image, patch.flow.astype(np.float32), patch.painted.astype(np.float32), weights)


def make_pair(
    canvas: Canvas, source: Render, target: Render, random: np.random.Generator, known: Pair | None = None
) -> Pair:
    """The pair of two renders of one canvas, brought to the network's size; ``random`` draws the other proportions.

    ``known`` is the pair that has the source for its target, None where that is the portrait's own picture: there
    its landmarks were looked for already.
    """
    flow, painted = flow_between(source, target, canvas.window)
    before, after = canvas.crop(source.image) if known is None else known.target, canvas.crop(target.image)
    others = reshaped(canvas.crop_points, canvas.size, random)
    return Pair(
        before,
        after,
        (canvas.shrunk(flow) / canvas.supersampling).astype(np.float16),
        np.clip(canvas.shrunk(painted) * 255 + 0.5, 0, 255).astype(np.uint8),
        source.weights,
        target.weights,
        canvas.crop_points.astype(np.float32) if known is None else known.target_points,
        crop_landmarks(after).astype(np.float32),
        np.array([source.drawn], np.uint8),
        others.astype(np.float32),
        vector_of(worn_by_landmarks(others)),
    )


def flow_between(
    source: Render, target: Render, window: tuple[slice, slice] = _WHOLE
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Backward flow (h, w, 2) from target to source in canvas pixels, and where it does not hold (h, w) in [0, 1].

    Both at the target's pixels in ``window``, rows and columns of the canvas.
    """
    flow, painted = target.flow[window], target.painted[window]
    if not source.drawn:
        return flow, painted
    along = np.arange(target.flow.shape[0], dtype=np.float32)
    here = np.stack(np.meshgrid(along[window[1]], along[window[0]]), axis=-1)
    wanted = here + flow
    there = wanted.copy()
    for _ in range(_ITERATIONS):
        there = wanted - _sample(source.flow, there)
    return there - here, np.maximum(painted, _sample(source.painted, there))


def _sample(values: NDArray[np.float32], at: NDArray[np.float32]) -> NDArray[np.float32]:
    sampled = cv2.remap(values, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, dtype=np.float32)


def stack(pairs: Sequence[Pair]) -> dict[str, NDArray]:
    """Pairs as arrays with the pair first, by the names of `Pair`'s fields."""
    return {field.name: np.stack([getattr(pair, field.name) for pair in pairs]) for field in fields(Pair)}
