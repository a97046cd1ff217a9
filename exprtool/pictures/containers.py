"""The outer structure of PNG, JPEG and GIF files: taking metadata out of one file and putting it into another.

Pixels are left to the codecs. What stands around them (chunks, segments, extensions) is copied byte for byte, so that
also those parts survive that no codec knows: captions, comments, colour hints.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# -- PNG: length, type, payload, CRC (PNG 3rd edition, section 5.3) --------------------------------------------------


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (type, payload) pairs of a PNG; ends at the first damaged one."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            return
        yield data[position + 4 : position + 8], data[position + 8 : end - 4]
        position = end


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_with_chunks(data: bytes, extra: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The PNG ``data`` with ``extra`` right behind its header, in place of its own ancillary chunks."""
    parts = [PNG_SIGNATURE]
    for kind, payload in png_chunks(data):
        if kind[:1].isupper() or kind == b"tRNS":  # critical chunks carry the picture
            parts.append(png_chunk(kind, payload))
        if kind == b"IHDR":
            parts += [png_chunk(*chunk) for chunk in extra]
    return b"".join(parts)


_PNG_XMP_KEYWORD = b"XML:com.adobe.xmp"


def png_xmp_chunk(xmp: bytes) -> tuple[bytes, bytes]:
    return b"iTXt", _PNG_XMP_KEYWORD + b"\0\0\0\0\0" + xmp


def is_png_xmp(kind: bytes, payload: bytes) -> bool:
    return kind == b"iTXt" and payload.startswith(_PNG_XMP_KEYWORD + b"\0")


def png_icc_chunk(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)


def png_density_chunk(dpi: tuple[float, float]) -> tuple[bytes, bytes]:
    return b"pHYs", struct.pack(">IIB", round(dpi[0] / 0.0254), round(dpi[1] / 0.0254), 1)


# -- JPEG: marker, length, payload (ITU T.81, annex B) ---------------------------------------------------------------

APP0, APP1, APP2, APP13, APP14, COM = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
JPEG_ROOM = 65533
"""The longest payload of one segment."""

JPEG_EXIF = b"Exif\x00\x00"
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
JPEG_ICC = b"ICC_PROFILE\x00"
JPEG_MULTI_PICTURE = b"MPF\x00"
JPEG_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\x00"
JPEG_PHOTOSHOP = b"Photoshop 3.0\x00"


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (marker, payload) pairs that stand before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def jpeg_with_segments(data: bytes, extra: Sequence[tuple[int, bytes]]) -> bytes:
    """The JPEG ``data`` with ``extra`` behind its own JFIF header, if it has one."""
    position = 2
    if data[2:4] == b"\xff\xe0":
        position += 2 + struct.unpack_from(">H", data, 4)[0]
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload for marker, payload in extra)
    return data[:position] + segments + data[position:]


def jpeg_icc_segments(profile: bytes) -> list[tuple[int, bytes]]:
    """A profile split over as many segments as it needs (ICC.1:2010, annex B.4)."""
    room = JPEG_ROOM - len(JPEG_ICC) - 2
    pieces = [profile[start : start + room] for start in range(0, len(profile), room)]
    return [(APP2, JPEG_ICC + bytes((number, len(pieces))) + piece) for number, piece in enumerate(pieces, 1)]


_PHOTOSHOP_THUMBNAILS = (0x0409, 0x040C)


def photoshop_without_thumbnails(payload: bytes) -> bytes:
    """An APP13 payload (image resource blocks: captions, paths ...) without the small copies of the picture."""
    kept, position = bytearray(JPEG_PHOTOSHOP), len(JPEG_PHOTOSHOP)
    while position + 12 <= len(payload) and payload[position : position + 4] == b"8BIM":
        (number,) = struct.unpack_from(">H", payload, position + 4)
        name = 1 + payload[position + 6]
        size_at = position + 6 + name + name % 2
        if size_at + 4 > len(payload):
            break
        (size,) = struct.unpack_from(">I", payload, size_at)
        end = size_at + 4 + size + size % 2
        if number not in _PHOTOSHOP_THUMBNAILS:
            kept += payload[position:end]
        position = end
    return bytes(kept + payload[position:])


# -- GIF: application extension with XMP (XMP specification, part 3, section 1.1.2) ----------------------------------

_GIF_XMP_HEAD = b"\x21\xff\x0bXMP DataXMP"
_GIF_XMP_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"


def gif_xmp_extension(xmp: bytes) -> bytes:
    """The packet stands there unsplit; the trailer leads readers that know only blocks out of it again."""
    return _GIF_XMP_HEAD + xmp + _GIF_XMP_TRAILER


def gif_xmp(data: bytes) -> bytes | None:
    """The XMP packet of a GIF, or None."""
    start = data.find(_GIF_XMP_HEAD)
    end = data.find(_GIF_XMP_TRAILER, start)
    return data[start + len(_GIF_XMP_HEAD) : end] if 0 <= start < end else None
