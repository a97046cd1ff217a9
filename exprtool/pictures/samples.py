"""A photo's own samples: grey or colour, with or without alpha, 8 or 16 bits; and how an edit in RGB gets into them.

An edit is made in 8-bit RGB. Every sample of a pixel that the edit left alone keeps its bits, whatever their form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exprtool.types import Image, IntBox

Values = NDArray[np.uint8 | np.uint16]

_ROWS = 256  # rows in work at a time, so that temporary arrays of large photos stay small


@dataclass(frozen=True, eq=False)
class Samples:
    """``values`` (H, W, C) uint8 or uint16, upright; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    ``premultiplied`` tells that the colours are stored multiplied by alpha (TIFF calls that associated alpha).
    """

    values: Values
    premultiplied: bool = False

    @property
    def channels(self) -> int:
        return self.values.shape[2]

    @property
    def grey(self) -> bool:
        return self.channels < 3

    @property
    def alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def deep(self) -> bool:
        """Whether there are 16 bits per sample."""
        return self.values.dtype == np.uint16

    @property
    def mode(self) -> str:
        """Pillow's name for the form, without regard to depth."""
        return ("L", "LA", "RGB", "RGBA")[self.channels - 1]

    def rgb(self) -> Image:
        """The picture as (H, W, 3) uint8 without alpha; for 8-bit RGB these are the values themselves, not a copy."""
        if self.channels == 3 and not self.deep:
            return np.asarray(self.values, dtype=np.uint8)
        height, width = self.values.shape[:2]
        rgb = np.empty((height, width, 3), dtype=np.uint8)
        colours = slice(0, 1) if self.grey else slice(0, 3)
        for top in range(0, height, _ROWS):
            strip = self.values[top : top + _ROWS]
            rgb[top : top + _ROWS] = to_8_bits(
                _divided(strip)[..., colours] if self.premultiplied else strip[..., colours]
            )
        return rgb

    def edited(self, before: Image, after: Image, changed: NDArray[np.bool_] | None = None) -> Samples:
        """The samples after an edit that led from ``before`` (what `rgb` returned) to ``after``, both (H, W, 3) uint8.

        Only pixels that differ, and that ``changed`` (H, W) allows where it is given, are touched. Colours of a grey
        photo become their luma (ITU-R BT.601), 16-bit samples move by 257 times what the 8-bit ones moved by, which
        keeps their finer steps, and alpha stays.
        """
        height, width = before.shape[:2]
        box = (0, 0, width, height) if changed is None else _box(changed)
        if box is None:
            return self
        values = self.values.copy()
        x0, y0, x1, y1 = box
        colours = slice(0, 1) if self.grey else slice(0, 3)
        for top in range(y0, y1, _ROWS):
            place = (slice(top, min(top + _ROWS, y1)), slice(x0, x1))
            old, new = before[place], after[place]
            moved = (old != new).any(axis=2)
            if changed is not None:
                moved &= changed[place]
            if not moved.any():
                continue
            if self.grey:
                old, new = old[..., :1], luma(new)[..., np.newaxis]
            target = values[place][..., colours]
            if self.deep:
                difference = (new.astype(np.int64) - old) * 257
                if self.premultiplied:
                    difference = np.rint(difference * (values[place][..., -1:] / 65535)).astype(np.int64)
                fresh = np.clip(target + difference, 0, 65535).astype(np.uint16)
            elif self.premultiplied:
                fresh = np.rint(new * (values[place][..., -1:] / 255)).astype(np.uint8)
            else:
                fresh = new
            np.copyto(target, fresh, where=moved[..., np.newaxis])
        return replace(self, values=values)

    def in_8_bits(self) -> Samples:
        """The same picture with 8 bits per sample."""
        return replace(self, values=to_8_bits(self.values))

    def straight(self) -> Samples:
        """The same picture with colours that are not multiplied by alpha."""
        if not self.premultiplied:
            return self
        straight = np.empty_like(self.values)
        for top in range(0, len(straight), _ROWS):
            straight[top : top + _ROWS] = _divided(self.values[top : top + _ROWS])
        return Samples(straight)

    def flattened(self) -> Samples:
        """The picture on white, without alpha (8 bits only)."""
        if not self.alpha:
            return self
        height, width, channels = self.values.shape
        flat = np.empty((height, width, channels - 1), dtype=np.uint8)
        for top in range(0, height, _ROWS):
            strip = self.values[top : top + _ROWS].astype(np.uint32)
            alpha = strip[..., -1:]
            flat[top : top + _ROWS] = (strip[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255
        return Samples(flat)

    def in_colour(self) -> Samples:
        """Grey repeated into red, green and blue."""
        if not self.grey:
            return self
        return replace(self, values=np.concatenate([self.values[..., :1]] * 3 + [self.values[..., 1:]], axis=2))


def _divided(strip: Values) -> Values:
    """Premultiplied samples (h, W, C) with their colours divided by alpha; where that is 0, there is no colour."""
    most = np.iinfo(strip.dtype).max
    alpha = strip[..., -1:].astype(np.float64)
    colours = np.where(alpha > 0, strip[..., :-1] * (most / np.maximum(alpha, 1)), 0)
    return np.concatenate([np.rint(np.minimum(colours, most)).astype(strip.dtype), strip[..., -1:]], axis=2)


def to_8_bits(values: Values) -> NDArray[np.uint8]:
    """16-bit samples rounded to 8 bits (v / 257); 8-bit ones as they are."""
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8)
    return ((values.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def luma(rgb: Image) -> NDArray[np.uint8]:
    """Luma (H, W) of ITU-R BT.601; exact for grey."""
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)  # 0.299, 0.587, 0.114 of 65536
    return ((rgb @ weights + 32768) >> 16).astype(np.uint8)


def turned_upright(values: Values, orientation: int) -> Values:
    """Samples (H, W, C) turned as EXIF orientation 1 to 8 asks for (CIPA DC-008, section 4.6.4)."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def _box(changed: NDArray[np.bool_]) -> IntBox | None:
    """The smallest box around the pixels that are True; None where there are none."""
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
