"""The gain map of an HDR photo (Ultra HDR, ISO 21496-1, Apple's): found behind the JPEG, kept with the edit.

A gain map is a small picture that tells how much brighter a display with more range is to show each place. It stays
true where the photo was not edited. It also shows the old face, so where the photo was edited it is drawn anew from the
new pixels.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from exprtool.pictures import containers, jpeg, xmp
from exprtool.pictures.copies import Span
from exprtool.pictures.forms import as_values
from exprtool.pictures.photo import GainMap, JpegTraits
from exprtool.pictures.samples import Samples, luma, turned_upright
from exprtool.types import Image

_APPLES = b"urn:com:apple:photo:2020:aux:hdrgainmap"
_VERSION_ONLY = 4
"""Bytes of the ISO 21496-1 segment that only announces a gain map; one that describes it is longer."""
_VISIBLE = 2
"""Levels of 255 by which a pixel may change without its gain being drawn anew."""
_BINS, _FEW = 16, 8
"""Steps of brightness for which a usual gain is found, and places that it takes at least."""


def describes_itself(picture: bytes) -> bool:
    """Whether a JPEG says that it is a gain map, and how it is to be applied."""
    for marker, payload in containers.jpeg_segments(picture):
        if payload.startswith(containers.JPEG_GAIN_MAP):
            if len(payload) - len(containers.JPEG_GAIN_MAP) > _VERSION_ONLY:
                return True
        elif marker == containers.APP1 and payload.startswith(containers.JPEG_XMP):
            packet = payload[len(containers.JPEG_XMP) :]
            try:
                if _APPLES in packet or xmp.names_gain_map(packet):
                    return True
            except xmp.DamagedXmp:
                continue
    return False


def find(data: bytes, pictures: list[Span], orientation: int, size: tuple[int, int]) -> tuple[GainMap, Span] | None:
    """The gain map among the JPEGs behind a photo of ``size`` (h, w), and where it lies in ``data``; None without one.

    ``pictures`` are where those JPEGs lie. What cannot be read counts as none.
    """
    for start, end in pictures:
        picture = data[start:end]
        if not describes_itself(picture):
            continue
        try:
            with PillowImage.open(io.BytesIO(picture), formats=("JPEG", "MPO")) as opened:
                if opened.mode not in ("L", "RGB") or opened.size[0] * opened.size[1] > size[0] * size[1]:
                    continue
                traits = traits_of(opened, lying=orientation >= 5)
                values = turned_upright(as_values(opened), orientation)
        except Exception:  # a decoder may raise anything on broken bytes
            continue
        if traits is None:
            continue
        kept = tuple(
            (marker, payload)
            for marker, payload in containers.jpeg_segments(picture)
            if payload.startswith((containers.JPEG_XMP, containers.JPEG_GAIN_MAP, containers.JPEG_ICC))
        )
        return GainMap(values, traits, kept, None, False), (start, end)
    return None


def traits_of(opened: PillowImage.Image, *, lying: bool) -> JpegTraits | None:
    """How a JPEG was encoded; None for one with other components than grey, YCbCr or RGB. ``lying`` swaps rows and
    columns, as the picture will."""
    from PIL import JpegImagePlugin

    if not isinstance(opened, JpegImagePlugin.JpegImageFile) or opened.layers not in (1, 3):
        return None
    used = [layer[3] for layer in opened.layer]
    while len(used) > 1 and used[-1] == used[-2]:
        used.pop()
    tables = tuple(tuple(opened.quantization[number]) for number in used)
    identifiers = tuple(layer[0] for layer in opened.layer)
    as_rgb = opened.layers == 3 and (opened.info.get("adobe_transform") == 0 or identifiers == (82, 71, 66))
    factors = tuple((layer[2], layer[1]) if lying else (layer[1], layer[2]) for layer in opened.layer)
    return JpegTraits(tables, _reduced(factors), bool(opened.info.get("progressive")), as_rgb)


def _reduced(factors: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The same sampling in the smallest numbers: (2, 2) for every component is (1, 1) for every one."""
    across, down = (int(np.gcd.reduce([pair[axis] for pair in factors])) for axis in (0, 1))
    return tuple((h // max(1, across), v // max(1, down)) for h, v in factors)


def healed(gain_map: GainMap, before: Image, after: Image) -> GainMap:
    """The gain map for the photo ``after`` an edit of ``before``, both (H, W, 3) uint8.

    Where they differ, the map is drawn anew: how bright a place is in the photo tells how much it is raised, as it did
    around there before the edit, and what that leaves unexplained comes smoothly from the edge of the edit.
    """
    import cv2

    height, width = gain_map.values.shape[:2]
    differs = (np.abs(after.astype(np.int16) - before).max(axis=2) > _VISIBLE).astype(np.float32)
    hole = cv2.resize(differs, (width, height), interpolation=cv2.INTER_AREA) > 0
    # Coding in blocks and the display's interpolation spread what stands beside the hole's edge.
    hole = cv2.dilate(hole.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    if not hole.any():
        return gain_map
    x, y, w, h = cv2.boundingRect(hole.astype(np.uint8))
    margin = max(8, max(w, h) // 4)
    place = (slice(max(0, y - margin), y + h + margin), slice(max(0, x - margin), x + w + margin))
    old, new = (
        np.asarray(
            cv2.resize(luma(np.ascontiguousarray(each)), (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
        for each in (before, after)
    )
    old, new = old[place], new[place]
    values, mask = gain_map.values[place], hole[place]
    outside = (~mask).astype(np.float32)
    spread = max(2.0, max(w, h) / 8)
    weight = cv2.GaussianBlur(outside, (0, 0), spread)
    filled = np.empty_like(values)
    for channel in range(values.shape[2]):
        plane = values[..., channel].astype(np.float32)
        curve = _gain_by_brightness(old, plane)
        unexplained = cv2.GaussianBlur((plane - curve[old]) * outside, (0, 0), spread) / np.maximum(weight, 1e-3)
        filled[..., channel] = np.clip(np.rint(curve[new] + unexplained), 0, 255)
    result = gain_map.values.copy()
    np.copyto(result[place], filled, where=mask[..., np.newaxis])
    return replace(gain_map, values=result)


def _gain_by_brightness(brightness: NDArray[np.uint8], gains: NDArray[np.float32]) -> NDArray[np.float32]:
    """The usual gain (256,) of each brightness: the median in each of `_BINS` steps, interpolated between them."""
    steps = brightness // (256 // _BINS)
    known = [(step, np.median(gains[steps == step])) for step in range(_BINS) if (steps == step).sum() >= _FEW]
    if not known:
        return np.full(256, np.median(gains), np.float32)
    middles = [(step + 0.5) * (256 // _BINS) for step, _ in known]
    return np.interp(np.arange(256), middles, [gain for _, gain in known]).astype(np.float32)


def encode(gain_map: GainMap) -> bytes:
    """The gain map as a JPEG of its own, coded as it was."""
    plain = jpeg.encode(Samples(gain_map.values), gain_map.traits)
    return containers.jpeg_with_segments(plain, gain_map.segments)


# The index of a Multi-Picture Format file (CIPA DC-007, section 5.2): a TIFF structure with one directory.
_ENTRY = 16
_PRIMARY = 0x030000
"""Attribute of the first entry: "baseline MP primary image"; the gain map's type is undefined (0)."""


def multi_picture_segment() -> tuple[int, bytes]:
    """An index of two pictures with the numbers still open; see `joined`."""
    directory = struct.pack(">H", 3)
    directory += struct.pack(">HHI4s", 0xB000, 7, 4, b"0100")  # version
    directory += struct.pack(">HHII", 0xB001, 4, 1, 2)  # number of pictures
    directory += struct.pack(">HHII", 0xB002, 7, 2 * _ENTRY, 8 + 2 + 3 * 12 + 4)
    directory += struct.pack(">I", 0)
    return containers.APP2, containers.JPEG_MULTI_PICTURE + b"MM\0*" + struct.pack(">I", 8) + directory + bytes(32)


def joined(photo: bytes, second: bytes) -> bytes:
    """The JPEG ``photo``, which holds a `multi_picture_segment`, with ``second`` behind it and the index filled in."""
    for _, start, end in containers.jpeg_markers(photo):
        if photo[start:end].startswith(containers.JPEG_MULTI_PICTURE):
            origin = start + len(containers.JPEG_MULTI_PICTURE)  # offsets count from the index's own header
            entries = struct.pack(">IIIHH", _PRIMARY, len(photo), 0, 0, 0)
            entries += struct.pack(">IIIHH", 0, len(second), len(photo) - origin, 0, 0)
            return photo[: end - len(entries)] + entries + photo[end:] + second
    raise ValueError("the photo holds no index of its pictures")
