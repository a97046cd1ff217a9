"""The only way for pictures in and out: one decode, one encode, and everything but the edited pixels kept.

Inside, a picture is RGB uint8 and upright. What the file held beyond that (alpha, 16 bits, grey, ICC profile, EXIF,
XMP, density, captions, JPEG's quantisation) waits in the `Photo` and goes back into the output. What a format cannot
hold is said in notes, never dropped in silence. Moving pictures are in `exprtool.pictures.moving`.
"""

from exprtool.pictures.formats import FORMATS, IMAGE_SUFFIXES, format_named, holds_xmp, sniff, suffix_of
from exprtool.pictures.photo import JpegTraits, Photo
from exprtool.pictures.reading import (
    MAX_PIXELS,
    AnimatedImageError,
    carries_manifest,
    count_pixels,
    read_image,
    read_xmp_packet,
)
from exprtool.pictures.writing import DEFAULT_QUALITY, conversion_notes, output_format, write_image

__all__ = [
    "DEFAULT_QUALITY",
    "FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "AnimatedImageError",
    "JpegTraits",
    "Photo",
    "carries_manifest",
    "conversion_notes",
    "count_pixels",
    "format_named",
    "holds_xmp",
    "output_format",
    "read_image",
    "read_xmp_packet",
    "sniff",
    "suffix_of",
    "write_image",
]
