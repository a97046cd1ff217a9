"""Content Credentials (C2PA manifests): whether a file carries one. An edit makes it stale."""

from __future__ import annotations

from exprtool.pictures import containers, exif

_MANIFEST_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""The type of the uuid box that holds a manifest in HEIC, AVIF and MP4 (C2PA 2.1, section A.5)."""
_GIF_MANIFEST = b"\x21\xff\x0bC2PA_GIF"
TIFF_MANIFEST = 52545
"""The tag that holds a manifest in TIFF (C2PA 2.1, section A.3)."""
_MANIFEST_LABEL_WITHIN = 64
"""Bytes at the start of a store within which its label stands."""


def is_manifest(payload: bytes) -> bool:
    """Whether JUMBF boxes are a C2PA manifest store."""
    return b"jumdc2pa" in payload[:_MANIFEST_LABEL_WITHIN]


def has_manifest(data: bytes, format: str) -> bool:
    """Whether a file of one of `exprtool.images.FORMATS`, or an MP4, carries a C2PA manifest."""
    if format == "JPEG":
        segments = containers.jpeg_segments(data)
        return any(marker == containers.APP11 and is_manifest(payload) for marker, payload in segments)
    if format == "PNG":
        return any(kind == containers.PNG_MANIFEST for kind, _ in containers.png_chunks(data))
    if format == "WEBP":
        return any(kind == b"C2PA" for kind, _, _ in containers.riff_chunks(data))
    if format == "TIFF":
        return any(TIFF_MANIFEST in directory for directory in exif.numbers_by_directory(data))
    if format == "GIF":
        return _GIF_MANIFEST in data
    boxes = containers.boxes(data)
    return any(kind == b"uuid" and data[start : start + 16] == _MANIFEST_BOX for kind, start, _ in boxes)
