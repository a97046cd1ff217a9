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

from exprtool.faces.align import Matrix, compose, crop, invert, transform
from exprtool.faces.landmarks import box_around, refine68, roll_of
from exprtool.types import Detector, Face, Image


@dataclass(frozen=True)
class RejectedFace:
    """Something that a detector took for a face, and why it is not counted as one."""

    face: Face
    reason: str


@dataclass(frozen=True)
class FoundFaces:
    """The faces of one image from left to right, each with 68 landmarks, and how they were found.

    ``tried`` names the looks that were taken, in order, for the report: "at 640 px", "turned by 90, 180, 270 degrees".
    ``rejected`` is what was found and not believed.
    """

    faces: tuple[Face, ...]
    tried: tuple[str, ...] = ()
    rejected: tuple[RejectedFace, ...] = ()


SMALLEST_USEFUL = 36.0
"""Faces with fewer pixels than this show too little for an edit; no look is made larger for them."""

_LEAST_SIDE = 16  # pixels
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
    if min(image.shape[:2]) < _LEAST_SIDE:
        return FoundFaces((), (f"nothing, as a picture of {image.shape[1]} x {image.shape[0]} px cannot show a face",))
    search = _Search(image, detector, max(min_face, SMALLEST_USEFUL))
    search.run()
    faces = sorted((face for face in search.faces if face.size >= min_face), key=lambda face: face.centre)
    rejected: list[RejectedFace] = []
    for item in search.rejected:  # several looks may have shown the same thing
        if not any(_same(item.face, other) for other in [*search.faces, *(known.face for known in rejected)]):
            rejected.append(item)
    return FoundFaces(tuple(faces), tuple(dict.fromkeys(search.tried)), tuple(rejected))


class _Search:
    """The looks at one image, and what they have found so far."""

    def __init__(self, image: Image, detector: Detector, smallest: float) -> None:
        self.image, self.detector = image, detector
        self.faces: list[Face] = []
        self.rejected: list[RejectedFace] = []
        self.tried: list[str] = []
        height, width = image.shape[:2]
        overview = min(1.0, detector.overview / max(height, width))
        close = min(_LARGEST_SCALE, detector.smallest / smallest)
        second = min(close, (_SECOND_LOOK / (height * width)) ** 0.5)
        third = min(close, (_THIRD_LOOK / (height * width)) ** 0.5)
        self.overview = overview
        # a look that is hardly larger than the one before it shows nothing new
        self.second = second if second > 1.25 * overview else None
        self.third = third if third > 1.25 * max(second, overview) else None

    def run(self) -> None:
        self.look_at_all()
        if self.faces:
            if angle := self.better_turn():
                upright, self.faces = self.faces, []
                self.look_at_all(angle)
                self.faces = self.faces or upright
            return
        if self.turn(_QUARTERS, self.overview):
            return
        self.look_slowly()
        if not self.faces and not self.turn(_OBLIQUE, 0.7 * self.overview) and self.second:
            self.turn(_QUARTERS, self.second)

    def look_at_all(self, angle: int = 0) -> None:
        """The first, second and, where small faces may be missing, third look."""
        self.look(self.overview, angle)
        if self.second:
            self.look(self.second, angle)
        if self.third and self.may_miss_small(self.second or self.overview):
            self.look(self.third, angle)
        if not self.faces:
            self.look(0.6 * self.overview, angle, margin=True)

    def may_miss_small(self, scale: float) -> bool:
        """Whether faces smaller than a look can see are to be expected: sizes in one photo are seldom far apart."""
        limit = self.detector.smallest / scale
        return not self.faces or min(face.size for face in self.faces) < 2 * limit

    def turn(self, angles: Iterable[int], scale: float) -> bool:
        """Look at the image turned by each angle, and stay with the best, or else second best, that shows a face."""
        angles = tuple(angles)
        views = {angle: self.refined(_detect(self.image, self.detector, scale, angle)) for angle in angles}
        self.tried.append(f"turned by {', '.join(map(str, sorted(angles)))} degrees")
        best_first = sorted(views, key=lambda angle: -max((face.score for face in views[angle]), default=-np.inf))
        for angle in best_first[:2]:
            self.add(views[angle])
            if self.faces:
                self.look_at_all(angle)
                return True
        return False

    def better_turn(self) -> int:
        """The quarter turn by which the faces found look more upright than as they are, 0 where there is none.

        Networks find sideways and upside-down faces too, but then tell little of where eyes and mouth are. Their score
        is what gives them away: it is higher when the same face stands upright.
        """
        best = sorted(self.faces, key=lambda face: -face.score)[:3]
        if best[0].score >= self.detector.sure:
            return 0
        totals = {angle: sum(self.score_turned(face, angle) for face in best) for angle in (0, *_QUARTERS)}
        winner = max(totals, key=totals.__getitem__)
        return winner if totals[winner] > totals[0] + 0.02 * len(best) else 0

    def score_turned(self, face: Face, angle: int) -> float:
        """The score of one face when its surroundings are turned, 0 where it is not found then."""
        wide = 2.6 * face.size
        size = max(128, round(1.4 * 2.6 * self.detector.smallest))
        scale = size / wide
        middle = np.array(face.centre)
        part = crop(self.image, np.column_stack([np.eye(2) * scale, (size - 1) / 2 - scale * middle]), size)
        found = self.detector.detect(np.ascontiguousarray(np.rot90(part, -angle // 90)))
        near = [hit.score for hit in found if np.abs(np.array(hit.centre) - size / 2).max() < 0.25 * size]
        return max(near, default=0.0)

    def look(self, scale: float, angle: int = 0, *, margin: bool = False) -> None:
        self.add(self.seen(scale, angle, margin=margin))

    def look_slowly(self) -> None:
        if type(self.detector).detect_slowly is not Detector.detect_slowly:
            self.tried.append("a slower search")
            self.add(self.refined(self.detector.detect_slowly(self.image)))

    def seen(self, scale: float, angle: int = 0, *, margin: bool = False) -> list[Face]:
        """What may be a face in the image at a scale and turned clockwise by ``angle`` degrees."""
        longer = round(max(self.image.shape[:2]) * scale)
        turn = f" turned by {angle} degrees" if angle else ""
        self.tried.append(f"at {longer} px{turn}{' with a margin' if margin else ''}")
        return self.refined(_detect(self.image, self.detector, scale, angle, margin))

    def refined(self, faces: Iterable[Face]) -> list[Face]:
        return [face if face.landmarks68 is not None else refine68(self.image, face) for face in faces]

    def add(self, found: Sequence[Face]) -> None:
        """Take in what was found, once, as far as it can be believed."""
        believed = []
        for face in merge([*self.faces, *found]):
            if face not in self.faces and (reason := self.doubt(face)):
                self.rejected.append(RejectedFace(face, reason))
            else:
                believed.append(face)
        self.faces = believed

    def doubt(self, face: Face) -> str | None:
        """Why something is not to be taken for a face, or None."""
        height, width = self.image.shape[:2]
        slack = 0.02 * face.size
        five = np.asarray(face.landmarks5)
        if (five < -slack).any() or (five > np.array([width - 1, height - 1]) + slack).any():
            return "eyes, nose or mouth lie beyond the picture's edge"
        if face.score < self.detector.sure and not self.detector.confirms(self.image, face):
            return f"a closer look does not confirm it (score {face.score:.2f})"
        return None


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


def _detect(image: Image, detector: Detector, scale: float, angle: int, margin: bool = False) -> list[Face]:
    """Detect in the image scaled and turned, in tiles where that is large; faces in image coordinates.

    With a margin, the picture is framed: detectors overlook faces that fill it.
    """
    picture, picture_from_image = _turned(image, scale, angle)
    if margin:
        edge = max(picture.shape[:2]) // 3
        picture = np.pad(picture, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
        picture_from_image = compose(np.array([[1.0, 0.0, edge], [0.0, 1.0, edge]]), picture_from_image)
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
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)
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
    image = np.asarray(cv2.warpAffine(image, turned, (int(target[0]), int(target[1]))), dtype=np.uint8)
    return image, compose(turned, matrix)


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
