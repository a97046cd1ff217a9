"""Copies of the unedited picture that travel inside other data: previews, layers, depth maps, second pictures.

An edit that left them in place would give away what it changed. Blocks that are known to hold pictures are dealt with
where their formats are read; here are found those in blocks that nobody has described, by the pictures' own signatures.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct

from exprtool.pictures import containers

Span = tuple[int, int]
"""Begin and end (exclusive) of bytes."""

_SIGNATURES = re.compile(
    rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|ftyp(?:hei|avi|mif1|msf1|hev)", re.DOTALL
)
_LEAST_TEXT = 64  # fewer characters of base64 or hexadecimal than this hold no picture that shows anything
_BASE64 = re.compile(
    rb"(?:/9j/|iVBORw0KGgo|UklGR|R0lGOD[dl]h|AAAA[\w+/]{2,4}Z0eXB(?:oZWl|hdml|taWYx|tc2Yx|oZXZ))[\w+/=\s]{%d,}"
    % _LEAST_TEXT
)
_HEXADECIMAL = re.compile(rb"(?:ffd8ff|89504e470d0a1a0a|52494646)[0-9a-f\s]{%d,}" % _LEAST_TEXT, re.IGNORECASE)
_LONGEST_PROBE = 1 << 16  # characters of a text that are decoded to see whether a picture begins there


def pictures_in(data: bytes) -> list[Span]:
    """Where pictures (JPEG, PNG, WebP, GIF, HEIC, AVIF) lie in ``data``; one that is cut off reaches to its end."""
    spans: list[Span] = []
    position = 0
    while found := _SIGNATURES.search(data, position):
        start, kind = found.start(), found[0]
        end = None
        if kind[:2] == b"\xff\xd8":
            end = _jpeg_end(data, start)
        elif kind[:1] == b"\x89":
            end = start + containers.png_end(data[start:])
        elif kind[:4] == b"RIFF":
            end = start + 8 + struct.unpack_from("<I", data, start + 4)[0]
        elif kind[:3] == b"GIF":
            # Its end is known only to who decodes it. A screen of no size is no picture.
            end = len(data) if data[start + 6 : start + 10].strip(b"\0") else None
        elif start >= 4:
            start, end = start - 4, len(data)
        if end is None:
            position = found.end()
            continue
        position = min(end, len(data))
        spans.append((start, position))
    return spans


def holds_picture(data: bytes) -> bool:
    """Whether a picture lies in ``data``, as it is or written in base64 or hexadecimal digits."""
    if pictures_in(data):
        return True
    for found in _BASE64.finditer(data):
        text = re.sub(rb"[\s=]", b"", found[0][:_LONGEST_PROBE])
        if pictures_in(base64.b64decode(text[: len(text) // 4 * 4])):
            return True
    for found in _HEXADECIMAL.finditer(data):
        text = re.sub(rb"\s", b"", found[0][:_LONGEST_PROBE])
        if pictures_in(binascii.unhexlify(text[: len(text) // 2 * 2])):
            return True
    return False


def _jpeg_end(data: bytes, start: int) -> int | None:
    """Where the JPEG that begins at ``start`` ends, or None where the bytes only look like the beginning of one."""
    framed = False
    for marker, _, payload_end in containers.jpeg_markers(data, start):
        framed |= marker in containers.FRAMES
        if marker == containers.SOS:
            return containers.jpeg_end(data, start) if framed else None
        if payload_end > len(data):  # cut off, as in a block that goes on in another segment
            return len(data) if framed or marker in (0xDB, 0xC4, *range(0xE0, 0xF0)) else None
    return None
