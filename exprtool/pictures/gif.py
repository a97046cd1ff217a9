"""Writing GIF frame by frame (GIF89a), so that pixels that nobody edited keep their exact colours.

Pillow compresses the single frames; what stands around them is written here, because Pillow keeps all frames in memory
and picks palettes without knowing which colours must stay.

Each frame stores only the rectangle that changed, and the pixels in it that did not change are transparent. What an
earlier frame could not show exactly is mended as soon as a frame has room for it, and else stands as it is: drawn anew
with every palette it would shimmer.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from exprtool.pictures import containers
from exprtool.types import Image, IntBox

Mask = NDArray[np.bool_]
_COLOURS = 256
_CODE = np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
_SAMPLE = 20_000
_FEW = 8  # with fewer free palette entries than this, new colours are mapped to those that are there


class GifWriter:
    """Frames into a file, one after the other; nothing but the last one is kept, as it was meant and as it is shown."""

    def __init__(self, file: BinaryIO, size: tuple[int, int], *, loop: int | None = None, xmp: bytes | None = None):
        """``size`` is (h, w); ``loop`` counts repetitions, 0 for ever, None to play once."""
        self._file = file
        self._last: tuple[Image, Image, Mask] | None = None
        self._first = True
        file.write(b"GIF89a" + struct.pack("<HHBBB", size[1], size[0], 0x70, 0, 0))
        if loop is not None:
            file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", loop) + b"\0")
        if xmp:
            file.write(containers.gif_xmp_extension(xmp))

    def add(
        self,
        rgb: Image,
        opaque: Mask | None = None,
        *,
        edited: Mask | None = None,
        duration: float = 0,
        transparent_later: bool = False,
        dither: bool = False,
    ) -> None:
        """Append a frame (H, W, 3), shown for ``duration`` milliseconds.

        ``opaque`` (H, W) is False where it is transparent. ``edited`` (H, W) marks the pixels whose colours may be
        approximated where a palette of 256 does not suffice; the others are kept exactly as long as it does.
        ``transparent_later`` says that some frame after this one may uncover pixels that this one fills. ``dither``
        spreads errors over neighbours, which serves a still picture; in a moving one such patterns crawl.
        """
        opaque = np.ones(rgb.shape[:2], dtype=np.bool_) if opaque is None else opaque
        wanted = opaque
        if self._last is not None:
            meant, shown, before = self._last
            wanted = opaque & ((rgb != shown).any(axis=2) | ~before)
            if len(np.unique(rgb[wanted].astype(np.uint32) @ _CODE)) >= _COLOURS:
                wanted = opaque & ((rgb != meant).any(axis=2) | ~before)
        # Readers take what a first frame does not cover, or a disposed one leaves, for opaque unless it is a hole.
        whole = transparent_later or self._first
        self._first = False
        x0, y0, x1, y1 = (0, 0, rgb.shape[1], rgb.shape[0]) if whole else _box(wanted)
        place = (slice(y0, y1), slice(x0, x1))
        approximate = np.zeros_like(wanted) if edited is None else edited
        indices, palette, hole = _indexed(
            rgb[place], wanted[place], opaque[place], approximate[place], transparent_later, dither
        )
        if transparent_later:
            self._last = None
        else:
            shown = np.zeros_like(rgb) if self._last is None else self._last[1]
            drawn = indices != hole if hole is not None else np.ones_like(indices, dtype=np.bool_)
            shown[place][drawn] = palette[indices[drawn]]
            self._last = rgb.copy(), shown, opaque
        disposal = 2 if transparent_later else 1  # restored to transparent, or left standing
        hundredths = min(max(round(duration / 10), 0), 0xFFFF)
        flags = disposal << 2 | (hole is not None)
        self._file.write(b"\x21\xf9\x04" + struct.pack("<BHB", flags, hundredths, hole or 0) + b"\0")
        self._file.write(b"\x2c" + struct.pack("<HHHHB", x0, y0, x1 - x0, y1 - y0, 0x87))
        self._file.write(palette.tobytes() + _compressed(indices))

    def close(self) -> None:
        self._file.write(b"\x3b")


def _box(wanted: Mask) -> IntBox:
    """The smallest box around the True pixels; one pixel where there are none, since a frame must have an area."""
    rows, columns = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _indexed(
    rgb: Image, wanted: Mask, opaque: Mask, approximate: Mask, hole_needed: bool, dither: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int | None]:
    """Indices (h, w), palette (256, 3) and the index that stands for transparent (None: there is none).

    Only ``wanted`` pixels must be drawn; the other ``opaque`` ones may be, for they show that already.
    """
    codes = rgb.astype(np.uint32) @ _CODE  # (h, w), one number per colour
    if not hole_needed and opaque.all() and len(np.unique(codes)) <= _COLOURS:
        wanted = opaque  # everything fits, and no entry is lost to transparency
    room = _COLOURS if wanted.all() and not hole_needed else _COLOURS - 1
    colours = np.unique(codes[wanted])
    if len(colours) <= room:
        exact = wanted
        indices = np.zeros(codes.shape, dtype=np.uint8)
    else:
        exact = wanted & ~approximate
        colours, counts = np.unique(codes[exact], return_counts=True)
        if len(colours) > 2 * _COLOURS:  # a true-colour picture: the best palette for all of it
            colours, exact = colours[:0], np.zeros_like(wanted)
        elif len(colours) > room:
            colours = np.sort(colours[np.argsort(-counts, kind="stable")[:room]])
        free = room - len(colours)
        if free >= _FEW:
            # Found on a sample and refined (k-means), a palette is within 10 % of the error of one found on all pixels.
            chosen = _unpacked(codes[wanted & ~exact])
            sample = chosen[:: max(1, len(chosen) // _SAMPLE)][np.newaxis]  # a picture of one row
            few = PillowImage.fromarray(np.ascontiguousarray(sample)).quantize(
                free, PillowImage.Quantize.MEDIANCUT, kmeans=1, dither=PillowImage.Dither.NONE
            )
            fresh = few.getpalette() or []
            colours = np.unique(
                np.concatenate([colours, np.array(fresh, dtype=np.uint32).reshape(-1, 3)[:free] @ _CODE])
            )
        indices = _mapped(rgb, _unpacked(colours), dither)
    place = np.searchsorted(colours, codes).clip(0, max(len(colours) - 1, 0))
    if len(colours):
        exact = exact & (colours[place] == codes)
        indices[exact] = place[exact]
    palette = np.zeros((_COLOURS, 3), dtype=np.uint8)
    palette[: len(colours)] = _unpacked(colours)
    if room == _COLOURS:
        return indices, palette, None
    hole = _COLOURS - 1
    indices[~wanted] = hole
    return indices, palette, hole


def _unpacked(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)


def _mapped(rgb: Image, colours: NDArray[np.uint8], dither: bool) -> NDArray[np.uint8]:
    """The index of the nearest colour for every pixel, with ``dither`` with the error spread over its neighbours."""
    palette = PillowImage.new("P", (1, 1))
    padded = np.concatenate([colours, np.repeat(colours[:1], _COLOURS - len(colours), axis=0)])
    palette.putpalette(padded.tobytes())
    mapped = PillowImage.fromarray(np.ascontiguousarray(rgb)).quantize(
        palette=palette, dither=PillowImage.Dither.FLOYDSTEINBERG if dither else PillowImage.Dither.NONE
    )
    indices = np.array(mapped, dtype=np.uint8)
    indices[indices >= len(colours)] = 0  # the padding repeats the first colour
    return indices


def _compressed(indices: NDArray[np.uint8]) -> bytes:
    """The LZW code size and data blocks of a frame, cut out of a GIF that Pillow makes of it."""
    picture = PillowImage.fromarray(indices)
    picture.putpalette(bytes(range(256)) * 3)
    buffer = io.BytesIO()
    picture.save(buffer, "GIF", optimize=False, interlace=0)
    data = buffer.getvalue()
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[position] == 0x21:
        position += 2
        while data[position]:
            position += 1 + data[position]
        position += 1
    local = data[position + 9]
    position += 10 + (3 << (local & 7) + 1 if local & 0x80 else 0)
    return data[position:-1]
