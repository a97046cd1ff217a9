"""A decoded picture together with all that it takes to write it back."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import TiffImagePlugin

from exprtool.pictures.samples import Samples, Values
from exprtool.types import Image


@dataclass(frozen=True, eq=False)
class JpegTraits:
    """How a JPEG was encoded: its quantisation tables (64 numbers each, row by row), and the rest.

    The tables are those of the components in order; the last one serves all that follow. ``factors`` are the sampling
    factors (horizontal, vertical) of the components, as they lie in the upright picture.
    """

    tables: tuple[tuple[int, ...], ...]
    factors: tuple[tuple[int, int], ...]
    progressive: bool
    stored_as_rgb: bool


@dataclass(frozen=True, eq=False)
class GainMap:
    """The second picture of an HDR photo: how much brighter each place is to be shown than the (SDR) photo has it.

    ``values`` (h, w, C) uint8 lie upright; ``segments`` are the JPEG segments that say how they are to be applied.
    ``marker`` is what the photo itself says of it under ISO 21496-1, ``in_xmp`` whether it names it in its XMP.
    """

    values: Values
    traits: JpegTraits
    segments: tuple[tuple[int, bytes], ...]
    marker: bytes | None
    in_xmp: bool


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded picture and all that it takes to write it back.

    ``rgb`` is upright, (H, W, 3) uint8, read-only. ``format`` is one of `exprtool.images.FORMATS`, by content.
    ``notes`` say what was done to it at the door, for the user's report. ``icc``, ``exif`` (from its TIFF header on,
    orientation already 1) and ``xmp`` are as in the file or None, but without copies of the picture in them; ``dpi`` is
    (x, y). ``coded_size`` is the file's size in bytes where its coding is lossy, ``had_manifest`` tells that it came
    with a C2PA manifest, which an edit makes untrue.
    """

    rgb: Image
    format: str
    name: str
    samples: Samples
    notes: tuple[str, ...] = ()
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    lossless: bool = True
    jpeg: JpegTraits | None = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    jpeg_segments: tuple[tuple[int, bytes], ...] = ()
    tiff_tags: TiffImagePlugin.ImageFileDirectory_v2 | None = None
    tiff_compression: str | None = None
    gain_map: GainMap | None = None
    coded_size: int | None = None
    had_manifest: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the upright picture."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @classmethod
    def from_rgb(cls, rgb: Image, name: str = "picture") -> Photo:
        """A photo without a file behind it, from (H, W, 3) uint8."""
        return cls(rgb, "PNG", name, Samples(rgb))
