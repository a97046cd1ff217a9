"""Coding the pixels of a JPEG as its input was coded: quantisation, chroma subsampling, order of the scans."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image as PillowImage

from exprtool.pictures import containers
from exprtool.pictures.photo import JpegTraits
from exprtool.pictures.samples import Samples

DEFAULT_QUALITY = 95
_FULL_CHROMA_FROM = 90
"""From this quality on chroma is not subsampled unless the input's was."""
_PILLOWS_SAMPLINGS: dict[tuple[tuple[int, int], ...], int] = {
    ((1, 1), (1, 1), (1, 1)): 0,
    ((2, 1), (1, 1), (1, 1)): 1,
    ((2, 2), (1, 1), (1, 1)): 2,
}


def encode(
    samples: Samples, traits: JpegTraits | None, quality: int | None = None, dpi: tuple[float, float] | None = None
) -> bytes:
    """A JPEG of grey or RGB samples (H, W, C) uint8 with nothing in it but the picture and its density.

    Without ``quality`` it is coded as ``traits`` say, or in `DEFAULT_QUALITY` where there are none.
    """
    options: dict[str, Any] = {"dpi": dpi} if dpi else {}
    if quality is not None or traits is None:
        options |= {"quality": quality or DEFAULT_QUALITY}
        if quality is None or quality >= _FULL_CHROMA_FROM:
            options["subsampling"] = 0
        if traits:
            options["progressive"] = traits.progressive
        return _save(to_pillow(samples), **options)
    options["progressive"] = traits.progressive
    tables = [list(table) for table in traits.tables]
    if samples.grey:
        return _save(to_pillow(samples), qtables=tables[:1], **options)
    subsampling = _PILLOWS_SAMPLINGS.get(traits.factors)
    if subsampling is None and not traits.stored_as_rgb and can_code(traits.factors):
        return _encode_by_planes(to_pillow(samples), traits, options)
    return _save(
        to_pillow(samples),
        qtables=tables,
        keep_rgb=traits.stored_as_rgb,
        subsampling=0 if subsampling is None else subsampling,
        **options,
    )


def can_code(factors: tuple[tuple[int, int], ...]) -> bool:
    """Whether chroma with these sampling factors can be written: those that are whole fractions of the largest."""
    if len(factors) != 3:
        return False
    across, down = max(h for h, _ in factors), max(v for _, v in factors)
    return all(across % h == 0 and down % v == 0 for h, v in factors)


def _encode_by_planes(picture: PillowImage.Image, traits: JpegTraits, options: dict[str, Any]) -> bytes:
    """A JPEG in any subsampling, such as 4:4:0 and 4:1:1, which Pillow does not offer.

    Each component is coded as a grey JPEG of its own size. The scans of such a file are, byte for byte, those of a
    component in a file of several scans (ITU T.81, section A.2.2: in a scan with one component the blocks are its own,
    in raster order), so they only have to be put together under a common frame header.
    """
    factors = traits.factors
    across, down = max(h for h, _ in factors), max(v for _, v in factors)
    planes = picture.convert("YCbCr").split()
    body, tables, frame = b"", b"", (0xC0, 8)
    for number, (plane, (h, v)) in enumerate(zip(planes, factors, strict=True), start=1):
        smaller = plane.reduce((across // h, down // v)) if (h, v) != (across, down) else plane
        table = list(traits.tables[min(number, len(traits.tables)) - 1])
        coded = _save(smaller, qtables=[table], **options)
        position = 0
        for marker, start, end in containers.jpeg_markers(coded):
            payload = coded[start:end]
            if marker == 0xDB:  # quantisation: precision and number of the table, then its numbers
                tables += _segment(marker, bytes((payload[0] & 0xF0 | number - 1,)) + payload[1:])
            elif marker in containers.FRAMES:
                frame = (marker, payload[0])
            elif marker == 0xC4:
                body += _segment(marker, payload)
            position = start
        # From the first scan on: further scans (progressive) with their Huffman tables between them, up to EOI.
        body += _renamed_scans(coded, position - 4, number)
    width, height = picture.size
    header = struct.pack(">BHHB", frame[1], height, width, 3)
    for number, (h, v) in enumerate(factors, start=1):
        header += bytes((number, h << 4 | v, number - 1))
    head = _save(PillowImage.new("L", (1, 1)), **{"dpi": options["dpi"]} if "dpi" in options else {})
    (jfif,) = struct.unpack_from(">H", head, 4)
    return head[: 4 + jfif] + tables + _segment(frame[0], header) + body + b"\xff\xd9"


def _renamed_scans(coded: bytes, position: int, component: int) -> bytes:
    """Everything from the first scan at ``position`` to EOI, with the scans' component 1 called ``component``."""
    out = bytearray()
    while coded[position + 1] != containers.EOI:
        marker = coded[position + 1]
        (length,) = struct.unpack_from(">H", coded, position + 2)
        payload = bytearray(coded[position + 4 : position + 2 + length])
        if marker == containers.SOS:
            payload[1] = component
        out += _segment(marker, bytes(payload))
        position += 2 + length
        if marker == containers.SOS:
            after = containers.after_scan(coded, position)
            out += coded[position:after]
            position = after
    return bytes(out)


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def to_pillow(samples: Samples) -> PillowImage.Image:
    values = samples.values[..., 0] if samples.channels == 1 else samples.values
    return PillowImage.fromarray(values)


def _save(picture: PillowImage.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()
