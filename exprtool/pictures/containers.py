"""The outer structure of PNG, JPEG and GIF files: taking metadata out of one file and putting it into another.

Pixels are left to the codecs. What stands around them (chunks, segments, extensions) is copied byte for byte, so that
also those parts survive that no codec knows: captions, comments, colour hints.
"""

from __future__ import annotations

import hashlib
import re
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


def png_end(data: bytes) -> int:
    """Where the PNG ends, behind its IEND; the end of ``data`` where that is missing."""
    position = len(PNG_SIGNATURE)
    for kind, payload in png_chunks(data):
        position += 12 + len(payload)
        if kind == b"IEND":
            return position
    return len(data)


def png_with_chunks(data: bytes, extra: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The PNG ``data`` with ``extra`` right behind its header, in place of its own ancillary chunks."""
    parts = [PNG_SIGNATURE]
    for kind, payload in png_chunks(data):
        if kind[:1].isupper() or kind == b"tRNS":  # critical chunks carry the picture
            parts.append(png_chunk(kind, payload))
        if kind == b"IHDR":
            parts += [png_chunk(*chunk) for chunk in extra]
    return b"".join(parts)


_LONGEST_TEXT = 1 << 26
"""Bytes of a compressed text that are looked at."""


def png_text(kind: bytes, payload: bytes) -> bytes:
    """The text of a tEXt, zTXt or iTXt chunk as bytes, decompressed; what cannot be is returned as it is."""
    rest = payload.partition(b"\0")[2]
    compressed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if kind == b"iTXt":  # flag, method, language and translated keyword stand before the text
        rest = rest[2:].split(b"\0", 2)[-1]
    elif kind == b"zTXt":
        rest = rest[1:]
    if compressed:
        try:
            return zlib.decompressobj().decompress(rest, _LONGEST_TEXT)
        except zlib.error:
            return rest
    return rest


PNG_MANIFEST = b"caBX"
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

APP0, APP1, APP2, APP11, APP13, APP14, COM = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xFE
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers that begin a frame (SOF)."""
JPEG_ROOM = 65533
"""The longest payload of one segment."""

JPEG_EXIF = b"Exif\x00\x00"
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
JPEG_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\x00"
JPEG_ICC = b"ICC_PROFILE\x00"
JPEG_MULTI_PICTURE = b"MPF\x00"
JPEG_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\x00"
JPEG_PHOTOSHOP = b"Photoshop 3.0\x00"


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (marker, payload) pairs that stand before the first scan."""
    for marker, start, end in jpeg_markers(data):
        if marker == SOS:
            return
        yield marker, data[start:end]


def jpeg_markers(data: bytes, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """The markers of the JPEG that begins at ``start``: (marker, begin and end of its payload), to the first scan's."""
    position = start + 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker == EOI or length < 2:
            return
        yield marker, position + 4, position + 2 + length
        if marker == SOS:
            return
        position += 2 + length


# In a scan, FF is followed by 00, by a restart marker or by another FF; anything else is the next marker.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def jpeg_end(data: bytes, start: int = 0) -> int:
    """Where the JPEG that begins at ``start`` ends, behind its EOI; the end of ``data`` where that is missing."""
    position = start
    for _, _, end in jpeg_markers(data, start):
        position = end
    while (position := after_scan(data, position)) + 4 <= len(data) or data[position : position + 2] == b"\xff\xd9":
        if data[position + 1] == EOI:
            return position + 2
        position += 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])
    return len(data)


def after_scan(data: bytes, position: int) -> int:
    """Where the next marker stands behind coded samples at ``position``; the end of ``data`` where there is none."""
    found = _AFTER_SCAN.search(data, position)
    return found.start() if found else len(data)


def jpeg_extended_xmp(data: bytes, name: str) -> bytes | None:
    """The extension of a JPEG's XMP packet under its name (GUID); None where a part is missing or is another one's."""
    parts: dict[int, bytes] = {}
    total = 0
    head = JPEG_EXTENDED_XMP + name.encode()
    for marker, payload in jpeg_segments(data):
        if marker == APP1 and payload.startswith(head) and len(payload) >= len(head) + 8:
            total, offset = struct.unpack_from(">II", payload, len(head))
            parts[offset] = payload[len(head) + 8 :]
    whole = b"".join(parts[offset] for offset in sorted(parts))
    return whole if whole and len(whole) == total else None


def jpeg_extended_xmp_segments(extension: bytes) -> list[tuple[int, bytes]]:
    """An extension of XMP under the name that its MD5 gives it, split over as many segments as it needs."""
    name = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    head = JPEG_EXTENDED_XMP + name.encode() + struct.pack(">I", len(extension))
    room = JPEG_ROOM - len(head) - 4
    return [
        (APP1, head + struct.pack(">I", start) + extension[start : start + room])
        for start in range(0, len(extension), room)
    ]


def jpeg_exif_segments(block: bytes) -> list[tuple[int, bytes]]:
    """An EXIF block split over as many segments as it needs. The standard knows one, readers in use know several."""
    room = JPEG_ROOM - len(JPEG_EXIF)
    return [(APP1, JPEG_EXIF + block[start : start + room]) for start in range(0, len(block), room)]


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


# -- Photoshop's image resources (Adobe Photoshop file formats specification, "Image Resource Blocks") -----------------

_PHOTOSHOP_THUMBNAILS = (0x0409, 0x040C)
_PHOTOSHOP_SIGNATURES = (b"8BIM", b"AgHg", b"DCSR", b"MeSa", b"PHUT")


def photoshop_resources(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The image resources (number, whole block) of ``data``, and the bytes behind them that are none."""
    blocks: list[tuple[int, bytes]] = []
    position = 0
    while position + 12 <= len(data) and data[position : position + 4] in _PHOTOSHOP_SIGNATURES:
        (number,) = struct.unpack_from(">H", data, position + 4)
        name = 1 + data[position + 6]
        size_at = position + 6 + name + name % 2
        if size_at + 4 > len(data):
            break
        (size,) = struct.unpack_from(">I", data, size_at)
        end = min(size_at + 4 + size + size % 2, len(data))
        blocks.append((number, data[position:end]))
        position = end
    return blocks, data[position:]


def is_photoshop_thumbnail(number: int) -> bool:
    return number in _PHOTOSHOP_THUMBNAILS


def jpeg_photoshop_segments(resources: bytes) -> list[tuple[int, bytes]]:
    """Image resources split over as many segments as they need."""
    room = JPEG_ROOM - len(JPEG_PHOTOSHOP)
    return [(APP13, JPEG_PHOTOSHOP + resources[start : start + room]) for start in range(0, len(resources), room)]


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


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a RIFF file: (type, begin and end of the payload)."""
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], position + 8, position + 8 + length
        position += 8 + length + length % 2


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The top-level boxes of a HEIC, AVIF or MP4 (ISO 14496-12, section 4.2): (type, begin and end of the content)."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        begin = position + 8
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, position + 8)
            begin += 8
        end = len(data) if length == 0 else position + length
        if end < begin:
            return
        yield kind, begin, end
        position = end


_PICTURE_BOXES = (b"ftyp", b"meta", b"mdat", b"idat", b"free", b"skip", b"uuid", b"moov", b"pdin", b"styp")


def behind_the_end(data: bytes, format: str) -> bytes:
    """What stands behind the end of the picture; empty for padding, and for formats whose end is not stated."""
    rest = b""
    if format == "JPEG":
        rest = data[jpeg_end(data) :]
    elif format == "PNG":
        rest = data[png_end(data) :]
    elif format == "WEBP":
        rest = data[8 + int.from_bytes(data[4:8], "little") :]
    elif format == "BMP":
        stated = int.from_bytes(data[2:6], "little")
        rest = data[stated:] if stated >= 54 else b""
    elif format in ("HEIC", "AVIF"):
        rest = b"".join(data[start:end] for kind, start, end in boxes(data) if kind not in _PICTURE_BOXES)
    return rest if is_more_than_padding(rest) else b""


def is_more_than_padding(rest: bytes) -> bool:
    return bool(rest.strip(b"\0\xff\r\n "))


def in_words(rest: bytes) -> str:
    """What the bytes behind a picture's end are, for a note."""
    film = b"ftyp" in rest or b"MotionPhoto_Data" in rest
    if rest[-4:] == b"SEFT" or b"SEFH" in rest[-4096:]:
        return f"Samsung's trailer{' with a film (motion photo)' if film else ''}"
    return "a film (motion photo)" if film else f"{len(rest)} bytes"
