"""A backend around any network that turns an aligned face crop and a label into a changed crop.

The network sees S x S pixels; its answer is taken as a residual, what it adds to the crop (eq. 1 of the US-GAN paper
read backwards), and that is added to the photo's own pixels. So skin keeps its pores. Where the network changes so
much that what it shows is something new (teeth where lips were), its picture is painted over instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import UnknownNameError, UsageError
from exprtool.faces.align import Matrix, crop, crop_from_image
from exprtool.model_card import CropCard
from exprtool.pixels.lift import CropAnswer, lift
from exprtool.pixels.ramps import Ramp
from exprtool.types import Backend, Edit, FacePatch, FaceRefusal, FaceRegion, Image

Residual = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""Crops (N, 3, S, S) in the card's range and channel order, labels (N, C) one-hot -> what the network adds to them
(N, 3, S, S) in the same range, not cut to it."""

BATCH = 16
PAINT_FROM, PAINT_TO = 48.0, 96.0
"""Change in grey levels, averaged over a few crop pixels, from which on the network's picture begins to replace the
photo's pixels, and at which it has."""


@dataclass(frozen=True, eq=False)
class AlignedCrop:
    """A face as the network is to see it: (S, S, 3) RGB uint8, and where it was taken from (crop from image)."""

    region: FaceRegion
    matrix: Matrix
    pixels: Image


class CropBackend(Backend):
    """Runs ``residual`` on aligned crops as ``card`` describes, ``batch`` at a time, and lifts what it answers.

    A blend is the sum of its expressions' residuals, each by its weight: networks of this kind were only shown one
    expression at a time. ``Edit.strength`` scales the sum.
    """

    def __init__(self, card: CropCard, residual: Residual, *, batch: int = BATCH) -> None:
        self.card = card
        self._residual, self._batch = residual, batch

    def prepare(self, regions: Sequence[FaceRegion]) -> list[AlignedCrop | FaceRefusal]:
        return [self._aligned(region) for region in regions]

    def generate(self, prepared: Sequence[Any], edit: Edit) -> list[FacePatch | FaceRefusal]:
        """Raises `UsageError` for an edit by controls or by example, and `UnknownNameError` for an expression that
        the network does not know."""
        weights = self._weights(edit)
        if not prepared:
            return []
        residuals = self.residuals(np.stack([each.pixels for each in prepared]), weights)
        return [self._patch(each, residual) for each, residual in zip(prepared, residuals, strict=True)]

    def residuals(
        self, crops: NDArray[np.uint8], weights: Mapping[str, float], sources: Sequence[str | None] | None = None
    ) -> NDArray[np.float32]:
        """What the network adds to crops (N, S, S, 3) RGB for a blend of its labels: (N, S, S, 3) in grey levels.

        ``sources`` are the expressions that the crops are known to wear, for networks that must be told.
        """
        total = np.zeros(crops.shape, dtype=np.float32)
        for label, weight in weights.items():
            place = self.card.index(label)
            if weight == 0:
                continue
            for start in range(0, len(crops), self._batch):
                part = slice(start, start + self._batch)
                x = self.card_input(crops[part])
                c = np.zeros((len(x), len(self.card.labels)), dtype=np.float32)
                c[:, place] = 1
                total[part] += weight * self._grey_levels(self._residual(x, c))
        return total

    def card_input(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (N, S, S, 3) RGB uint8 as the network wants them: (N, 3, S, S), the card's range and channel order."""
        low, high = self.card.low, self.card.high
        ordered = crops if self.card.channels == "rgb" else crops[..., ::-1]
        values = ordered.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def _grey_levels(self, residual: NDArray[np.float32]) -> NDArray[np.float32]:
        levels = residual.transpose(0, 2, 3, 1) * np.float32(255 / (self.card.high - self.card.low))
        return levels if self.card.channels == "rgb" else levels[..., ::-1]

    def _weights(self, edit: Edit) -> dict[str, float]:
        if edit.controls or edit.reference is not None:
            raise UsageError(
                "This network knows whole expressions only, no controls and no examples to copy: use --expr, or "
                "another --backend."
            )
        for name in edit.weights:
            if name not in self.card.labels:
                raise UnknownNameError("expression of this model", name, self.card.labels)
        return {name: weight * edit.strength for name, weight in edit.weights.items()}

    def _aligned(self, region: FaceRegion) -> AlignedCrop | FaceRefusal:
        matrix = crop_from_image(region.face, self.card.size, self.card.template)
        # the same map from the region's own pixels: x_image = x_region + corner
        from_region = matrix.copy()
        from_region[:, 2] += matrix[:, :2] @ np.asarray(region.box[:2], dtype=np.float64)
        return AlignedCrop(region, matrix, crop(region.pixels, from_region, self.card.size))

    def _patch(self, aligned: AlignedCrop, residual: NDArray[np.float32]) -> FacePatch:
        height, width = aligned.region.pixels.shape[:2]
        if not residual.any():
            return FacePatch(aligned.region.pixels.copy(), np.zeros((height, width), dtype=np.float32))
        answer = crop_answer(aligned.pixels, residual)
        change = float(np.abs(residual).mean())
        return lift(aligned.region, aligned.matrix, answer, details={"mean_change": round(change, 3)})


def crop_answer(pixels: Image, residual: NDArray[np.float32]) -> CropAnswer:
    """A residual (S, S, 3) in grey levels on a crop (S, S, 3) as an answer to lift, with what is new as paint."""
    import cv2

    size = np.abs(residual).mean(axis=2)
    size = cv2.GaussianBlur(size, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)
    mask = Ramp(PAINT_FROM, PAINT_TO)(size).astype(np.float32)
    if not mask.any():
        return CropAnswer(residual=residual)
    painted = np.clip(pixels.astype(np.float32) + residual, 0, 255)
    return CropAnswer(residual=residual, paint=painted, paint_mask=mask)
