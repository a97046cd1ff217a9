"""Making EXIF true again after the picture was turned upright and edited.

The block is patched where it lies instead of being written anew: makers' notes hold offsets that only survive if
nothing moves. EXIF is a TIFF structure: a header, then directories (IFD) of 12-byte entries (TIFF 6.0, section 2;
CIPA DC-008, section 4.6).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image as PillowImage

from exprtool.pictures.copies import pictures_in

HEADER = b"Exif\x00\x00"
"""What JPEG puts before the TIFF structure; the functions here take and return the block without it."""

_IMAGE_WIDTH, _IMAGE_LENGTH = 0x0100, 0x0101
_ORIENTATION = 0x0112
_EXIF_DIRECTORY = 0x8769
_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION = 0xA002, 0xA003
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SUB_DIRECTORIES = 0x014A
_STRIP_OFFSETS, _STRIP_LENGTHS = 0x0111, 0x0117
_TILE_OFFSETS, _TILE_LENGTHS = 0x0144, 0x0145
_SHORT, _LONG, _IFD = 3, 4, 13
_MOST_DIRECTORIES = 64  # a chain of them may go round in a circle
_THUMBNAIL_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20)


@dataclass(frozen=True)
class _Entry:
    position: int
    kind: int
    count: int
    value: int
    """The number itself for a single SHORT or LONG, else an offset."""


def orientation(exif: bytes) -> int:
    """The orientation 1 to 8 that the block states; 1 where it states none or is damaged."""
    return stated_orientation(exif) or 1


def stated_orientation(exif: bytes) -> int | None:
    """The orientation 1 to 8 that the block states, or None."""
    block = _Block.parse(exif)
    entry = block.directory(block.first)[0].get(_ORIENTATION) if block else None
    return entry.value if entry and entry.kind == _SHORT and 1 <= entry.value <= 8 else None


def with_orientation(block: bytes, value: int) -> bytes | None:
    """A TIFF structure (EXIF block or TIFF file) with another orientation and no other change; None if damaged."""
    parsed = _Block.parse(block)
    if parsed is None:
        return None
    entry = parsed.directory(parsed.first)[0].get(_ORIENTATION)
    return block if entry is None or entry.value == value else _with_value(block, entry, value)


def with_number(block: bytes, tag: int, value: int, *, instead_of: int) -> bytes | None:
    """A TIFF structure with another number under a tag of its first directory; None where it is not ``instead_of``."""
    parsed = _Block.parse(block)
    entry = parsed.directory(parsed.first)[0].get(tag) if parsed else None
    if entry is None or entry.count != 1 or entry.value != instead_of:
        return None
    return _with_value(block, entry, value)


def _with_value(block: bytes, entry: _Entry, value: int) -> bytes:
    """A copy of the block with another number in one entry. Blocks may be whole files, so only now it is copied."""
    parsed = _Block.parse(bytearray(block))
    assert parsed is not None
    parsed.set(entry, value)
    return bytes(parsed.data)


def numbers_by_directory(block: bytes) -> list[dict[int, int]]:
    """{tag: number or offset} of each directory of a TIFF structure, in the chain or below one."""
    parsed = _Block.parse(block)
    if parsed is None:
        return []
    waiting, found = [parsed.first], []
    while waiting and len(found) < _MOST_DIRECTORIES:
        directory, after, _ = parsed.directory(waiting.pop(0))
        found.append({tag: entry.value for tag, entry in directory.items()})
        waiting += parsed.numbers(directory.get(_SUB_DIRECTORIES)) + ([after] if after else [])
    return found


def has_thumbnail(exif: bytes) -> bool:
    block = _Block.parse(bytearray(exif))
    if block is None:
        return False
    second = block.directory(block.directory(block.first)[1])[0]
    return _THUMBNAIL_OFFSET in second or _STRIP_OFFSETS in second


def without_previews(exif: bytes) -> tuple[bytes, bool]:
    """The block without pictures in it but the thumbnail (see `with_thumbnail`), and whether there were any.

    Previews in makers' notes, in further directories and as raw samples are overwritten with zeros where they lie, so
    that nothing moves.
    """
    data = bytearray(exif)
    block, thumbnail, found = _Block.parse(data), (0, 0), False
    if block is not None:
        first, second_at, link = block.directory(block.first)
        second = block.directory(second_at)[0]
        if _THUMBNAIL_OFFSET in second and _THUMBNAIL_LENGTH in second:
            start = second[_THUMBNAIL_OFFSET].value
            thumbnail = (start, start + second[_THUMBNAIL_LENGTH].value)
        elif block.clear_samples(second):
            struct.pack_into(block.order + "I", data, link, 0)
            found = True
        further = [block.directory(second_at)[1]] if second_at else []
        further += block.numbers(first.get(_SUB_DIRECTORIES))
        for _ in range(_MOST_DIRECTORIES):
            if not further:
                break
            directory, after, _ = block.directory(further.pop())
            found |= block.clear_samples(directory)
            further += [after] if after else []
    for start, end in pictures_in(bytes(data)):
        if thumbnail[0] <= start < thumbnail[1]:
            continue
        data[start:end] = bytes(end - start)
        found = True
    return bytes(data), found


def for_upright(exif: bytes, size: tuple[int, int]) -> bytes:
    """The block for the upright picture of ``size`` (h, w): orientation 1 and the stated sizes corrected.

    The thumbnail is left as it is; see `with_thumbnail`. A damaged block comes back unchanged.
    """
    block = _Block.parse(bytearray(exif))
    if block is None:
        return exif
    height, width = size
    first, second_at, _ = block.directory(block.first)
    block.set(first.get(_ORIENTATION), 1)
    block.set(first.get(_IMAGE_WIDTH), width)
    block.set(first.get(_IMAGE_LENGTH), height)
    if pointer := first.get(_EXIF_DIRECTORY):
        details = block.directory(pointer.value)[0]
        block.set(details.get(_PIXEL_X_DIMENSION), width)
        block.set(details.get(_PIXEL_Y_DIMENSION), height)
    block.set(block.directory(second_at)[0].get(_ORIENTATION), 1)
    return bytes(block.data)


def with_thumbnail(exif: bytes, picture: PillowImage.Image) -> bytes:
    """The block with its thumbnail drawn anew from ``picture`` (upright RGB), so that it does not show the old face.

    The new one takes the old one's place, hence not more bytes than that had. Where none fits, the thumbnail is
    removed and its bytes are cleared; so is one that is not JPEG. A block without any comes back unchanged.
    """
    block = _Block.parse(bytearray(exif))
    if block is None:
        return exif
    second_at, link = block.directory(block.first)[1:]
    second = block.directory(second_at)[0]
    start, length = second.get(_THUMBNAIL_OFFSET), second.get(_THUMBNAIL_LENGTH)
    if start is None or length is None:
        if block.clear_samples(second):
            struct.pack_into(block.order + "I", block.data, link, 0)
        return bytes(block.data)
    end = start.value + length.value
    if end > len(block.data):
        return exif
    old_size = _jpeg_size(bytes(block.data[start.value : end]))
    block.data[start.value : end] = bytes(length.value)
    new = _draw_thumbnail(picture, old_size, length.value)
    if new:
        block.data[start.value : start.value + len(new)] = new
        block.set(length, len(new))
    else:
        struct.pack_into(block.order + "I", block.data, link, 0)
    return bytes(block.data)


def _jpeg_size(data: bytes) -> int:
    """The longer side of a thumbnail, or the customary 160 where it cannot be read."""
    try:
        with PillowImage.open(io.BytesIO(data), formats=("JPEG",)) as old:
            return max(old.size)
    except Exception:  # a decoder may raise anything on broken bytes; the size is a matter of taste here
        return 160


def _draw_thumbnail(picture: PillowImage.Image, side: int, room: int) -> bytes | None:
    small = picture.copy()
    small.thumbnail((side, side), reducing_gap=2.0)
    for quality in _THUMBNAIL_QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= room:
            return buffer.getvalue()
    return None


@dataclass
class _Block:
    data: Any
    """bytes, or a bytearray where something is to be changed."""
    order: str
    first: int

    @classmethod
    def parse(cls, data: bytes | bytearray) -> _Block | None:
        order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(bytes(data[:4]))
        if order is None or len(data) < 8:
            return None
        return cls(data, order, struct.unpack_from(order + "I", data, 4)[0])

    def directory(self, offset: int) -> tuple[dict[int, _Entry], int, int]:
        """The entries of the directory at ``offset``, the offset of the next one (0: none) and where that stands."""
        if not 8 <= offset <= len(self.data) - 2:
            return {}, 0, 0
        (count,) = struct.unpack_from(self.order + "H", self.data, offset)
        link = offset + 2 + 12 * count
        if link + 4 > len(self.data):
            return {}, 0, 0
        entries: dict[int, _Entry] = {}
        for position in range(offset + 2, link, 12):
            tag, kind, values = struct.unpack_from(self.order + "HHI", self.data, position)
            form = "H" if kind == _SHORT and values == 1 else "I"
            (value,) = struct.unpack_from(self.order + form, self.data, position + 8)
            entries[tag] = _Entry(position, kind, values, value)
        return entries, struct.unpack_from(self.order + "I", self.data, link)[0], link

    def numbers(self, entry: _Entry | None) -> list[int]:
        """All SHORT or LONG values of an entry; as many as the block holds."""
        if entry is None or entry.kind not in (_SHORT, _LONG, _IFD):
            return []
        form, size = ("H", 2) if entry.kind == _SHORT else ("I", 4)
        start = entry.position + 8
        if entry.count * size > 4:
            (start,) = struct.unpack_from(self.order + "I", self.data, start)
        count = max(0, min(entry.count, (len(self.data) - start) // size))
        return list(struct.unpack_from(f"{self.order}{count}{form}", self.data, start))

    def clear_samples(self, directory: dict[int, _Entry]) -> bool:
        """Overwrite the strips or tiles that a directory points at; whether it had any."""
        had = False
        for offsets, lengths in ((_STRIP_OFFSETS, _STRIP_LENGTHS), (_TILE_OFFSETS, _TILE_LENGTHS)):
            had |= offsets in directory
            starts, sizes = self.numbers(directory.get(offsets)), self.numbers(directory.get(lengths))
            for start, size in zip(starts, sizes, strict=False):
                end = min(start + size, len(self.data))
                if 8 <= start < end:
                    self.data[start:end] = bytes(end - start)
        return had

    def set(self, entry: _Entry | None, value: int) -> None:
        """Overwrite a single number; entries that are missing or of another kind are left alone."""
        if entry is None or entry.count != 1 or entry.kind not in (_SHORT, _LONG):
            return
        if entry.kind == _SHORT and value > 0xFFFF:
            return
        struct.pack_into(self.order + ("H" if entry.kind == _SHORT else "I"), self.data, entry.position + 8, value)
