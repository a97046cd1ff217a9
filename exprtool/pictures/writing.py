"""Encoding pictures: edited pixels go in among the photo's own samples, and all that stood around them comes along."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import TiffImagePlugin

from exprtool.errors import ImageError
from exprtool.files import write_bytes
from exprtool.pictures import containers, deep, exif, gain_map, jpeg
from exprtool.pictures import xmp as xmp_packets
from exprtool.pictures.formats import BY_NAME, format_named, require_heif
from exprtool.pictures.gif import GifWriter
from exprtool.pictures.jpeg import DEFAULT_QUALITY, to_pillow
from exprtool.pictures.lossy import matching_quality
from exprtool.pictures.metadata import DIRECTORY_TAGS, ICC_TAG, STRUCTURAL_TAGS, XMP_TAG
from exprtool.pictures.photo import Photo
from exprtool.pictures.samples import Samples
from exprtool.pictures.tiff import encode_tiff
from exprtool.types import Image

PNG_LEVEL = 4  # twice as fast as the customary 6 for 2 % more bytes
# exact: colours under full transparency are samples as well. Half the time of the customary effort for 15 % more bytes.
LOSSLESS_WEBP: Mapping[str, Any] = {"lossless": True, "exact": True, "method": 1, "quality": 20}


def write_image(
    photo: Photo,
    rgb: Image,
    target: Path | None,
    *,
    format: str | None = None,
    quality: int | None = None,
    xmp: bytes | None = None,
    changed: NDArray[np.bool_] | None = None,
) -> bytes | None:
    """Encode ``rgb`` (H, W, 3) uint8, the edited ``photo.rgb``, and write it to ``target`` in one step.

    ``format`` goes before the target's suffix, which goes before the photo's own format. ``quality`` (1 to 100) is for
    lossy formats; without it a JPEG keeps its quantisation, subsampling and scan order, and what was lossless stays so.
    ``xmp`` takes the place of the photo's packet. Where ``changed`` (H, W) is False, and wherever ``rgb`` equals
    ``photo.rgb``, lossless formats get the photo's own samples bit for bit. With ``target`` None the encoded bytes are
    returned. What the format cannot hold is told beforehand by `conversion_notes`.

    Raises `ImageError` where the sizes differ or the format cannot hold such a picture, `WriteError` where the target
    cannot be written, `UnknownNameError` for an unknown format.
    """
    if rgb.shape != photo.rgb.shape or rgb.dtype != np.uint8 or (changed is not None and changed.shape != photo.size):
        mask = "" if changed is None else f" and a mask {changed.shape}"
        raise ImageError(
            f"{photo.name}: expected pixels {photo.rgb.shape} uint8 (H, W, 3), got {rgb.shape} {rgb.dtype}{mask}; "
            "an edit must not change the size of a photo."
        )
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"quality {quality} is out of range; choose 1 to 100.")
    kind = output_format(photo, target, format)
    samples = photo.samples.edited(photo.rgb, rgb, changed)
    packet = photo.xmp if xmp is None else xmp
    try:
        data = _encode(photo, _fitted(samples, kind), rgb, kind, quality, packet)
    except (ValueError, OSError, RuntimeError, SystemError) as error:  # what Pillow's encoders raise
        raise ImageError(f"{photo.name} cannot be encoded as {kind}: {error}; try another --format.") from error
    if target is None:
        return data
    write_bytes(target, data)
    return None


def output_format(photo: Photo, target: Path | None, format: str | None = None) -> str:
    """The format in which `write_image` would write; raises `UnknownNameError`."""
    if format is not None:
        return format_named(format)
    if target is not None:
        return format_named(target.suffix or target.name)
    return photo.format


def conversion_notes(photo: Photo, format: str) -> tuple[str, ...]:
    """What writing ``photo`` in ``format`` cannot keep, for the user's report."""
    kind = format_named(format)
    can = BY_NAME[kind]
    notes: list[str] = []
    if photo.samples.alpha and not can.alpha:
        notes.append(f"{kind} has no transparency: it was put on white")
    if photo.samples.deep and not can.deep:
        notes.append(f"{kind} has 8 bits per channel: 16 were rounded")
    if photo.icc and (not can.profile or (photo.samples.grey and not can.grey)):
        notes.append(f"the ICC profile does not fit into {kind} and was left out")
    if photo.exif and not can.exif:
        notes.append(f"{kind} has no room for EXIF: it was left out")
    if photo.xmp and not can.xmp:
        notes.append(f"{kind} has no room for XMP: it was left out")
    if photo.gain_map is not None and kind == "JPEG":
        notes.append("its HDR gain map is kept, and drawn anew where the face was edited")
    elif photo.gain_map is not None:
        notes.append(f"its HDR gain map does not go into {kind} here: the result is SDR")
    return tuple(notes)


def _fitted(samples: Samples, kind: str) -> Samples:
    """The samples in a form that the format can hold."""
    can = BY_NAME[kind]
    if kind != "TIFF":
        samples = samples.straight()
    if samples.deep and not can.deep:
        samples = samples.in_8_bits()
    if samples.alpha and not can.alpha:
        samples = samples.flattened()
    return samples if can.grey else samples.in_colour()


def _encode(
    photo: Photo,
    samples: Samples,
    rgb: Image,
    kind: str,
    quality: int | None,
    packet: bytes | None,
) -> bytes:
    can = BY_NAME[kind]
    profile = photo.icc if can.profile and (can.grey or not photo.samples.grey) else None
    block = photo.exif
    if block and exif.has_thumbnail(block):
        block = exif.with_thumbnail(block, PillowImage.fromarray(rgb))
    if kind == "PNG":
        return _encode_png(photo, samples, profile, block, packet)
    if kind == "JPEG":
        return _encode_jpeg(photo, samples, rgb, quality, profile, block, packet)
    if kind == "TIFF":
        return _encode_tiff(photo, samples, profile, block, packet)
    picture = to_pillow(samples)
    options: dict[str, Any] = {}
    if can.profile and profile:
        options["icc_profile"] = profile
    if can.exif and block:
        options["exif"] = exif.HEADER + block
    if can.xmp and packet:
        options["xmp"] = packet
    if photo.dpi:
        options["dpi"] = photo.dpi
    if kind == "HEIC":
        require_heif("write")
    if kind == "WEBP" and photo.lossless and quality is None:
        options |= LOSSLESS_WEBP
    elif kind in _LOSSY_QUALITIES:
        options["quality"] = quality or _quality_of(photo, picture, kind)
    elif kind == "GIF":
        return _encode_gif(samples, (rgb != photo.rgb).any(axis=2), packet)
    return _save(picture, _PLUGINS.get(kind, kind), **options)


_PLUGINS = {"HEIC": "HEIF"}
_LOSSY_QUALITIES = {"WEBP": DEFAULT_QUALITY, "AVIF": 90, "HEIC": 90}
"""The quality, in the format's own scale, of pictures that come from another format."""


def _quality_of(photo: Photo, picture: PillowImage.Image, kind: str) -> int:
    """The input's own quality where it is known or can be found out."""
    if photo.coded_size is None or photo.format != kind:
        return _LOSSY_QUALITIES[kind]
    beside = sum(len(part or b"") for part in (photo.exif, photo.xmp, photo.icc))
    return matching_quality(
        picture,
        photo.coded_size - beside,
        lambda sample, quality: _save(sample, _PLUGINS.get(kind, kind), quality=quality),
    )


def _save(picture: PillowImage.Image, plugin: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, plugin, **options)
    return buffer.getvalue()


def _encode_gif(samples: Samples, edited: NDArray[np.bool_], packet: bytes | None) -> bytes:
    buffer = io.BytesIO()
    writer = GifWriter(buffer, (samples.values.shape[0], samples.values.shape[1]), xmp=packet)
    opaque = samples.values[..., -1] >= 128 if samples.alpha else None
    writer.add(samples.in_colour().rgb(), opaque, edited=edited, dither=True)
    writer.close()
    return buffer.getvalue()


def _encode_png(
    photo: Photo, samples: Samples, profile: bytes | None, block: bytes | None, packet: bytes | None
) -> bytes:
    if samples.deep:
        plain = deep.encode_png(np.asarray(samples.values, dtype=np.uint16), PNG_LEVEL)
    else:
        plain = _save(to_pillow(samples), "PNG", compress_level=PNG_LEVEL)
    return containers.png_with_chunks(plain, _png_metadata(photo, profile, block, packet))


def png_metadata(photo: Photo, packet: bytes | None) -> list[tuple[bytes, bytes]]:
    """The ancillary chunks (type, payload) that belong into a colour PNG of ``photo``."""
    return _png_metadata(photo, None if photo.samples.grey else photo.icc, photo.exif, packet)


def _png_metadata(
    photo: Photo, profile: bytes | None, block: bytes | None, packet: bytes | None
) -> list[tuple[bytes, bytes]]:
    extra = list(photo.png_chunks)
    kinds = {kind for kind, _ in extra}
    if photo.dpi and b"pHYs" not in kinds:
        extra.append(containers.png_density_chunk(photo.dpi))
    if profile:
        extra.append(containers.png_icc_chunk(profile))
    if block:
        extra.append((b"eXIf", block))
    if packet:
        extra.append(containers.png_xmp_chunk(packet))
    return extra


def _encode_jpeg(
    photo: Photo,
    samples: Samples,
    rgb: Image,
    quality: int | None,
    profile: bytes | None,
    block: bytes | None,
    packet: bytes | None,
) -> bytes:
    second = None
    extra: list[tuple[int, bytes]] = []
    if photo.gain_map is not None:
        second = gain_map.encode(gain_map.healed(photo.gain_map, photo.rgb, rgb))
        if photo.gain_map.in_xmp:
            packet = xmp_packets.with_gain_map(packet, len(second))
    if block:
        extra += containers.jpeg_exif_segments(block)
    if packet:
        head, extension = xmp_packets.split(packet, containers.JPEG_ROOM - len(containers.JPEG_XMP))
        extra.append((containers.APP1, containers.JPEG_XMP + head))
        extra += containers.jpeg_extended_xmp_segments(extension) if extension else []
    if profile:
        extra += containers.jpeg_icc_segments(profile)
    extra += photo.jpeg_segments
    if photo.gain_map is not None and second is not None:
        if photo.gain_map.marker:
            extra.append((containers.APP2, photo.gain_map.marker))
        extra.append(gain_map.multi_picture_segment())
    data = containers.jpeg_with_segments(jpeg.encode(samples, photo.jpeg, quality, photo.dpi), extra)
    return data if second is None else gain_map.joined(data, second)


def _encode_tiff(
    photo: Photo, samples: Samples, profile: bytes | None, block: bytes | None, packet: bytes | None
) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if photo.tiff_tags is not None:
        for tag in photo.tiff_tags:
            tags[tag] = photo.tiff_tags[tag]
            if tag in photo.tiff_tags.tagtype:
                tags.tagtype[tag] = photo.tiff_tags.tagtype[tag]
    elif block:
        whole = PillowImage.Exif()
        whole.load(block)
        for tag in whole:
            if tag not in STRUCTURAL_TAGS:
                tags[tag] = whole.get_ifd(tag) if tag in DIRECTORY_TAGS else whole[tag]
    if photo.dpi and 282 not in tags:
        tags[282], tags[283], tags[296] = photo.dpi[0], photo.dpi[1], 2
    if profile:
        tags[ICC_TAG] = profile
        tags.tagtype[ICC_TAG] = 7
    if packet:
        tags[XMP_TAG] = packet
        tags.tagtype[XMP_TAG] = 1
    if samples.deep and samples.channels == 2:  # no reader that we know takes 16-bit grey with alpha from TIFF
        samples = samples.in_colour()
    return encode_tiff(
        samples.values, tags, compressed=photo.tiff_compression != "raw", premultiplied=samples.premultiplied
    )
