"""The pictures that measures are taken on: aligned crops, and the photos that they were cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import DataError
from exprtool.faces.align import CropTemplate, crop, crop_from_image, invert, transform
from exprtool.measures.identity import face_from_landmarks
from exprtool.types import Face, Image


@dataclass(frozen=True, eq=False)
class Pictures:
    """Aligned crops to measure on.

    ``images`` is (N, S, S, 3) uint8 RGB; ``landmarks`` (N, 68, 2) in crop pixels or None; ``expressions`` what each
    shows (None: unknown); ``files`` the photos and ``matrices`` (N, 2, 3) the maps from photo to crop, both None where
    only the crops are there. ``description`` says in a few words what this is. ``people`` (N) says who is shown and
    ``datasets`` (N) from which data set, both empty where unknown; ``template`` where eyes and mouth lie, where all are
    cut alike. ``pool`` holds all pictures that these were taken from, other photos of the same people among them.
    """

    images: NDArray[np.uint8]
    landmarks: NDArray[np.floating] | None
    expressions: tuple[str | None, ...]
    names: tuple[str, ...]
    description: str = ""
    files: tuple[Path, ...] | None = None
    matrices: NDArray[np.float64] | None = None
    people: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    template: CropTemplate | None = None
    pool: Pictures | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        return int(self.images.shape[1])

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Pictures:
        """Some of them, in the order given."""
        chosen = [int(i) for i in indices]
        return Pictures(
            np.asarray(self.images[chosen]),
            None if self.landmarks is None else np.asarray(self.landmarks[chosen]),
            tuple(self.expressions[i] for i in chosen),
            tuple(self.names[i] for i in chosen),
            self.description,
            None if self.files is None else tuple(self.files[i] for i in chosen),
            None if self.matrices is None else self.matrices[chosen],
            tuple(self.people[i] for i in chosen) if self.people else (),
            tuple(self.datasets[i] for i in chosen) if self.datasets else (),
            self.template,
            self.pool,
        )

    def recut(self, size: int, template: CropTemplate) -> Pictures:
        """The same faces as crops of another size or template: from the photos where they are there, else resampled.

        Raises `DataError` where the landmarks of a face are unknown and the template differs.
        """
        if size == self.size and template == self.template:
            return self
        images = np.empty((len(self), size, size, 3), np.uint8)
        landmarks = np.empty((len(self), 68, 2), np.float32)
        matrices = np.empty((len(self), 2, 3))
        for i in range(len(self)):
            image, face, _ = self.photo(i)
            assert face.landmarks68 is not None
            matrices[i] = crop_from_image(face, size, template)
            images[i] = crop(image, matrices[i], size)
            landmarks[i] = transform(matrices[i], face.landmarks68)
        pool = self.pool
        return replace(
            self,
            images=images,
            landmarks=landmarks,
            matrices=matrices if self.files is not None else None,
            template=template,
            pool=None if pool is None else pool.take(self.partners_in(pool)).recut(size, template),
        )

    def partners_in(self, pool: Pictures) -> list[int]:
        """The places in ``pool`` of these people's photos."""
        mine = set(self.people)
        return [i for i, person in enumerate(pool.people) if person in mine]

    def photo(self, i: int) -> tuple[Image, Face, NDArray[np.float64]]:
        """The photo that crop ``i`` was cut from, the face in it, and the (2, 3) map from the photo to the crop.

        Where the photos are not there the crop itself is the photo. Raises `DataError` where the face's landmarks are
        unknown.
        """
        from exprtool.images import read_image

        points = None if self.landmarks is None else np.asarray(self.landmarks[i], dtype=np.float64)
        if points is None or not np.isfinite(points).all():
            raise DataError(f"{self.names[i]}: where the face lies is unknown. Prepare the data with --crop aligned.")
        if self.files is None or self.matrices is None:
            image, matrix = np.ascontiguousarray(self.images[i]), np.eye(2, 3)
        else:
            image, matrix = read_image(self.files[i]).rgb, self.matrices[i]
        face = face_from_landmarks(transform(invert(matrix), points))
        assert face is not None
        return image, face, matrix
