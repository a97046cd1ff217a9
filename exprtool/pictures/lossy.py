"""The quality in which to write WebP, AVIF and HEIC, whose files do not say in which quality they were made."""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image as PillowImage

_SAMPLE = 1 << 18
"""Pixels that are encoded to find out how large the whole would become."""
_TILES = 4
"""The sample consists of so many tiles across and down, spread evenly over the picture."""
_ALIGNMENT = 64  # the largest block of HEVC and AV1
_LOWEST, _HIGHEST = 10, 98
_CLOSE_ENOUGH = 0.95
"""Share of the room that a quality has to use for the search to end; one step of quality is about as much."""


def matching_quality(picture: PillowImage.Image, size: int, encode: Callable[[PillowImage.Image, int], bytes]) -> int:
    """The highest quality in which ``picture`` takes no more than ``size`` bytes, as measured on a sample of it.

    The picture was decoded from a file of that size, so this is about the quality that it was made in; a higher one
    makes the file larger and nothing better.
    """
    sample = _sample(picture)
    room = size * sample.width * sample.height / (picture.width * picture.height)
    low, high = _LOWEST, _HIGHEST
    while low < high:
        middle = (low + high + 1) // 2
        taken = len(encode(sample, middle))
        if taken <= room:
            low = middle
            if taken >= _CLOSE_ENOUGH * room:
                break
        else:
            high = middle - 1
    return low


def _sample(picture: PillowImage.Image) -> PillowImage.Image:
    if picture.width * picture.height <= _SAMPLE:
        return picture
    share = math.sqrt(_SAMPLE / (picture.width * picture.height)) / _TILES
    width, height = (max(1, round(side * share / _ALIGNMENT)) * _ALIGNMENT for side in picture.size)
    width, height = min(width, picture.width // _TILES), min(height, picture.height // _TILES)
    sample = PillowImage.new(picture.mode, (width * _TILES, height * _TILES))
    for row in range(_TILES):
        for column in range(_TILES):
            left = round(column * (picture.width - width) / (_TILES - 1))
            top = round(row * (picture.height - height) / (_TILES - 1))
            tile = picture.crop((left, top, left + width, top + height))
            sample.paste(tile, (column * width, row * height))
    return sample
