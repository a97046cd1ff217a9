"""The backend ``debug``: shows what a backend sees, and proves that the rest of the photo stays untouched.

It draws the region's border, the aligned crop that networks are given, the landmarks, and the outline of the face. Its
alpha is 1 where something is drawn and 0 everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exprtool.expressions import EXPRESSIONS
from exprtool.hookspecs import hookimpl
from exprtool.types import Backend, BackendSpec, Edit, FacePatch, FaceRefusal, FaceRegion

if TYPE_CHECKING:
    from collections.abc import Callable

GREEN, YELLOW, RED, BLUE = (60, 220, 90), (250, 210, 40), (240, 60, 60), (70, 130, 250)


class DebugBackend(Backend):
    """Draws on each region what a backend is given."""

    def generate(self, prepared: Sequence[Any], edit: Edit) -> list[FacePatch | FaceRefusal]:
        return [_draw(region, edit) for region in prepared]


def _draw(region: FaceRegion, edit: Edit) -> FacePatch:
    import cv2

    from exprtool.faces.align import US_GAN_TEMPLATE, crop_from_image

    h, w = region.pixels.shape[:2]
    pen = max(1, round(region.face.size / 150))
    pixels = region.pixels.copy()
    drawn = np.zeros((h, w), np.uint8)

    def polygon(points: np.ndarray, colour: tuple[int, int, int]) -> None:
        corners = [np.round(points).astype(np.int32).reshape(-1, 1, 2)]
        cv2.polylines(pixels, corners, True, colour, pen)
        cv2.polylines(drawn, corners, True, 1, pen)

    def dot(x: float, y: float, colour: tuple[int, int, int]) -> None:
        centre = (round(x), round(y))
        cv2.circle(pixels, centre, pen, colour, -1)
        cv2.circle(drawn, centre, pen, 1, -1)

    polygon(np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], float), BLUE)
    size = 128
    image_from_crop = cv2.invertAffineTransform(crop_from_image(region.face, size, US_GAN_TEMPLATE))
    side = np.array([[0, 0], [size, 0], [size, size], [0, size]], float) - 0.5
    polygon(region.to_region(side @ image_from_crop[:, :2].T + image_from_crop[:, 2]), YELLOW)
    x0, y0, x1, y1 = region.face.box
    polygon(region.to_region(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)), GREEN)
    for x, y in region.landmarks68 if region.landmarks68 is not None else ():
        dot(x, y, GREEN)
    for x, y in region.landmarks5:
        dot(x, y, RED)
    text = " ".join(f"{name}={amount:g}" for name, amount in {**edit.weights, **edit.controls}.items())
    for canvas, colour in ((pixels, YELLOW), (drawn, 1)):
        cv2.putText(canvas, text, (3 * pen, h - 4 * pen), cv2.FONT_HERSHEY_SIMPLEX, 0.4 * pen, colour, pen)
    return FacePatch(pixels, drawn.astype(np.float32))


@hookimpl
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    register(
        BackendSpec(
            name="debug",
            summary="Draws region, crop and landmarks: what a backend sees.",
            load=lambda device: DebugBackend(),
            expressions=EXPRESSIONS,
            trained=False,
        )
    )
