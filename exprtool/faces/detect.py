"""Find every face in a photo, whatever the detector, the photo's size, and the way it was turned.

A photo is looked at in steps. The first look is at a reduced size. The second is as large as it must be for small
faces, up to twice the photo's own size; if what was found is near the smallest that this look can see, or nothing was
found, a third goes deeper still. Only where no look at the upright photo finds anything, it is turned: first by
quarters (a photo taken sideways), then obliquely. What a detector takes for a face must also look like one to the
landmark predictor; what does not is kept aside with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exprtool.faces.align import Matrix, compose, invert, transform
from exprtool.faces.landmarks import box_around, refine68, roll_of
from exprtool.faces.plausible import why_no_face
from exprtool.types import Detector, Face, Image


@dataclass(frozen=True)
class RejectedFace:
    """Something that a detector took for a face, and why it is not counted as one."""

    face: Face
    reason: str


@dataclass(frozen=True)
class FoundFaces:
    """The faces of one image from left to right, each with 68 landmarks, and how they were found.

    ``tried`` names the looks that were taken, in order, for the report: "at 640 px", "at 2000 px", "turned by 90
    degrees". ``rejected`` is what was found and not believed.
    """

    faces: tuple[Face, ...]
    tried: tuple[str, ...] = ()
    rejected: tuple[RejectedFace, ...] = ()


SMALLEST_USEFUL = 36.0
"""Faces with fewer pixels than this show too little for an edit; no look is made larger for them."""

_LARGEST_SCALE = 2.0
_SECOND_LOOK = 4.2e6  # pixels
_THIRD_LOOK = 16e6
_TILE = 2048
_QUARTERS = (90, 270, 180)
_OBLIQUE = (30, 330, 60, 300, 120, 240, 150, 210)


def find_faces(image: Image, detector: Detector, *, min_face: float = 0.0) -> FoundFaces:
    """Find the faces of an RGB image (H, W, 3) uint8.

    ``min_face`` is the size in pixels below which faces are of no interest: a larger value saves looking closely. The
    answer's landmarks, boxes and rolls are those of `exprtool.faces.landmarks.refine68`, in image coordinates; where
    the detector itself gives 68 landmarks, these are kept. Raises `ModelError` when dlib's landmark file is missing.
    """
    search = _Search(image, detector, max(min_face, SMALLEST_USEFUL))
    search.run()
    faces = sorted((face for face in search.faces if face.size >= min_face), key=lambda face: face.centre)
    return FoundFaces(tuple(faces), tuple(search.tried), tuple(search.rejected))


class _Search:
    """The looks at one image, and what they have found so far."""

    def __init__(self, image: Image, detector: Detector, smallest: float) -> None:
        self.image, self.detector, self.smallest = image, detector, smallest
        self.faces: list[Face] = []
        self.rejected: list[RejectedFace] = []
        self.tried: list[str] = []
        height, width = image.shape[:2]
        overview = min(1.0, detector.overview / max(height, width))
        close = max(overview, min(_LARGEST_SCALE, detector.smallest / smallest))
        self.overview = overview
        self.second = max(overview, min(close, (_SECOND_LOOK / (height * width)) ** 0.5))
        self.third = max(self.second, min(close, (_THIRD_LOOK / (height * width)) ** 0.5))

    def run(self) -> None:
        self.look(self.overview)
        if self.second > 1.25 * self.overview:
            self.look(self.second)
        if self.third > 1.25 * self.second and self.may_miss_small(self.second):
            self.look(self.third)
        if self.faces:
            return
        for angles in (_QUARTERS, _OBLIQUE):
            if angle := self.best_turn(angles, self.overview):
                self.look(self.second, angle)
                return
        if self.second > 1.25 * self.overview and (angle := self.best_turn(_QUARTERS, self.second)):
            self.look(self.third, angle)

    def may_miss_small(self, scale: float) -> bool:
        """Whether faces smaller than a look can see are to be expected: sizes in one photo are seldom far apart."""
        limit = self.detector.smallest / scale
        return not self.faces or min(face.size for face in self.faces) < 2 * limit

    def best_turn(self, angles: Iterable[int], scale: float) -> int | None:
        """Look at the image turned by each angle; keep the faces of the one that shows the most, and return it."""
        best: tuple[float, int, list[Face]] = (0.0, 0, [])
        for angle in angles:
            found = self.seen(scale, angle)
            total = sum(face.score for face in found)
            if total > best[0]:
                best = (total, angle, found)
        self.add(best[2])
        return best[1] if best[2] else None

    def look(self, scale: float, angle: int = 0) -> None:
        self.add(self.seen(scale, angle))

    def seen(self, scale: float, angle: int = 0) -> list[Face]:
        """The believable faces of the image at a scale and turned clockwise by ``angle`` degrees."""
        height, width = self.image.shape[:2]
        turn = f", turned by {angle} degrees" if angle else ""
        self.tried.append(f"at {round(max(height, width) * scale)} px{turn}")
        found = []
        for face in _detect(self.image, self.detector, scale, angle):
            face = face if face.landmarks68 is not None else refine68(self.image, face)
            reason = why_no_face(self.image, face)
            if reason:
                self.rejected.append(RejectedFace(face, reason))
            else:
                found.append(face)
        return found

    def add(self, found: Sequence[Face]) -> None:
        self.faces = merge(self.faces + list(found))


def merge(faces: Sequence[Face]) -> list[Face]:
    """Drop every face that shows the same head as one with a higher score."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not any(_same(face, other) for other in kept):
            kept.append(face)
    return kept


def _same(a: Face, b: Face) -> bool:
    """Whether two detections are of one head: eyes, nose and mouth lie together, or the boxes cover each other."""
    size = min(a.size, b.size)
    apart = np.linalg.norm(np.asarray(a.landmarks5) - np.asarray(b.landmarks5), axis=1).mean()
    return bool(apart < 0.25 * size) or _overlap(a, b) > 0.4


def _overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.box, b.box
    inner = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    both = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inner
    return inner / both if both > 0 else 0.0


def _detect(image: Image, detector: Detector, scale: float, angle: int) -> list[Face]:
    """Detect in the image scaled and turned, in tiles where that is large; faces in image coordinates."""
    picture, picture_from_image = _turned(image, scale, angle)
    image_from_picture = invert(picture_from_image)
    faces = []
    for x, y, tile in _tiles(picture, detector.smallest):
        image_from_tile = compose(image_from_picture, np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))
        faces += [_moved(face, image_from_tile) for face in detector.detect(tile)]
    return faces


def _turned(image: Image, scale: float, angle: int) -> tuple[Image, Matrix]:
    """The image scaled and turned clockwise by ``angle`` degrees, whole, and the matrix (2, 3) to it."""
    import cv2

    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    fx, fy = size[0] / width, size[1] / height
    matrix = np.array([[fx, 0.0, (fx - 1) / 2], [0.0, fy, (fy - 1) / 2]])
    w, h = size
    if angle % 90 == 0:
        image = np.ascontiguousarray(np.rot90(image, -angle // 90))
        turn = {
            0: [[1, 0, 0], [0, 1, 0]],
            90: [[0, -1, h - 1], [1, 0, 0]],
            180: [[-1, 0, w - 1], [0, -1, h - 1]],
            270: [[0, 1, 0], [-1, 0, w - 1]],
        }[angle]
        return image, compose(np.array(turn, dtype=np.float64), matrix)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear = np.array([[cos, -sin], [sin, cos]])
    target = np.ceil(np.abs(linear) @ size).astype(int)
    middle, new_middle = (np.array(size) - 1) / 2, (target - 1) / 2
    turned = np.column_stack([linear, new_middle - linear @ middle])
    return cv2.warpAffine(image, turned, (int(target[0]), int(target[1]))), compose(turned, matrix)


def _tiles(picture: Image, smallest: float) -> Iterable[tuple[int, int, Image]]:
    """Parts of a large picture that overlap by more than the faces looked for in it; a small one whole."""
    height, width = picture.shape[:2]
    if height * width <= _SECOND_LOOK * 1.01:
        yield 0, 0, picture
        return
    overlap = int(4 * smallest)
    for y in _starts(height, overlap):
        for x in _starts(width, overlap):
            yield x, y, picture[y : y + _TILE, x : x + _TILE]


def _starts(length: int, overlap: int) -> list[int]:
    if length <= _TILE:
        return [0]
    count = -(-(length - overlap) // (_TILE - overlap))
    return [round(i * (length - _TILE) / (count - 1)) for i in range(count)]


def _moved(face: Face, matrix: Matrix) -> Face:
    """The face through a similarity (2, 3): image coordinates from those of a picture of it."""
    x0, y0, x1, y1 = face.box
    corners = transform(matrix, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]))
    five = transform(matrix, face.landmarks5)
    points = None if face.landmarks68 is None else transform(matrix, face.landmarks68)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    box = (float(left), float(top), float(right), float(bottom))
    if points is not None:
        box = box_around(points)
    return replace(face, box=box, landmarks5=five, landmarks68=points, roll=roll_of(five))
