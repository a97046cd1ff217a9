"""What stands in a picture file beside the pixels, taken out of it and made true for the upright picture."""

from __future__ import annotations

from dataclasses import replace

from PIL import ExifTags, JpegImagePlugin, TiffImagePlugin
from PIL import Image as PillowImage

from exprtool.pictures import containers, exif, xmp
from exprtool.pictures.photo import JpegTraits, Photo

# Tags that describe how this very file stores its samples; the writer of another file states its own.
_STRUCTURAL_RANGES = (
    *((254, 259), (262, 262), (266, 266), (273, 274), (277, 281), (284, 284), (292, 293), (301, 301)),
    *((317, 325), (330, 330), (332, 332), (338, 343), (347, 347), (512, 521), (529, 532)),
)
STRUCTURAL_TAGS = frozenset(tag for first, last in _STRUCTURAL_RANGES for tag in range(first, last + 1))
XMP_TAG, ICC_TAG = 700, 34675
DIRECTORY_TAGS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def exif_block(opened: PillowImage.Image) -> bytes | None:
    """The EXIF block as it stands in the file, from its TIFF header on."""
    block = opened.info.get("exif")
    if block is None and "Raw profile type exif" in opened.info:
        block = opened.getexif().tobytes()
    if not isinstance(block, bytes) or not block:
        return None
    return block.removeprefix(exif.HEADER) or None


def xmp_packet(opened: PillowImage.Image, data: bytes) -> bytes | None:
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        packet = opened.tag_v2.get(XMP_TAG)
    elif opened.format == "GIF":
        packet = containers.gif_xmp(data)
    else:
        packet = opened.info.get("xmp") or opened.info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    return packet if isinstance(packet, bytes) and packet.strip(b"\0 \r\n\t") else None


def with_metadata(photo: Photo, opened: PillowImage.Image, data: bytes, lying: bool, notes: list[str]) -> Photo:
    """Everything beyond the pixels, made true for the upright picture."""
    size = photo.size
    profile = opened.info.get("icc_profile") or None
    if profile and profile[16:20] != (b"GRAY" if photo.samples.grey else b"RGB "):
        if opened.mode not in ("CMYK", "LAB"):
            notes.append("its ICC profile does not fit its pixels and is left out")
        profile = None
    block = _tiff_as_exif(opened) if photo.format == "TIFF" else exif_block(opened)
    packet = xmp_packet(opened, data)
    if packet is not None:
        try:
            # Where EXIF states no orientation nothing was turned, and what XMP says of it stays as true as it was.
            if photo.format == "TIFF" or (block and exif.stated_orientation(block)):
                packet = xmp.for_upright(packet, size)
            if xmp.has_attachments(packet):
                notes.append("the film or gain map that is attached to it is left out")
                packet = xmp.without_attachments(packet)
        except xmp.DamagedXmp as error:
            notes.append(f"its XMP packet is damaged and left out ({error})")
            packet = None
    if block is not None:
        block = exif.for_upright(block, size)
    dpi = opened.info.get("dpi")
    if dpi is not None:
        dpi = (float(dpi[0]), float(dpi[1]))
        dpi = (dpi[1], dpi[0]) if lying else dpi
    photo = replace(photo, icc=profile, exif=block, xmp=packet, dpi=dpi)
    if photo.format == "PNG":
        photo = replace(photo, png_chunks=_png_extras(data))
    elif isinstance(opened, JpegImagePlugin.JpegImageFile):
        photo = replace(photo, lossless=False, jpeg=_jpeg_traits(opened), jpeg_segments=_jpeg_extras(data, notes))
    elif isinstance(opened, TiffImagePlugin.TiffImageFile):
        photo = replace(photo, tiff_tags=_tiff_extras(opened), tiff_compression=opened.info.get("compression"))
    elif photo.format == "WEBP":
        photo = replace(photo, lossless=_webp_is_lossless(data))
    elif photo.format in ("AVIF", "HEIC"):
        photo = replace(photo, lossless=False)
    return replace(photo, notes=tuple(notes))


def _png_extras(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Chunks that stay true: text, colour hints, density. Profile, EXIF and XMP are handled by themselves."""
    kept = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"tEXt", b"zTXt", b"iTXt")
    return tuple(
        (kind, payload)
        for kind, payload in containers.png_chunks(data)
        if kind in kept
        and not containers.is_png_xmp(kind, payload)
        and not payload.startswith(b"Raw profile type exif\0")
    )


_FURTHER_PICTURES = (containers.JPEG_MULTI_PICTURE, containers.JPEG_GAIN_MAP)


def _jpeg_extras(data: bytes, notes: list[str]) -> tuple[tuple[int, bytes], ...]:
    """Segments that stay true: captions, comments, what makers put there."""
    kept: list[tuple[int, bytes]] = []
    for marker, payload in containers.jpeg_segments(data):
        if marker == containers.APP13 and payload.startswith(containers.JPEG_PHOTOSHOP):
            kept.append((marker, containers.photoshop_without_thumbnails(payload)))
        elif marker == containers.APP2 and payload.startswith(_FURTHER_PICTURES):
            continue  # speaks of pictures that are not written
        elif marker == containers.COM or (
            containers.APP1 <= marker <= 0xEF
            and marker != containers.APP14
            and not payload.startswith((containers.JPEG_EXIF, containers.JPEG_XMP, containers.JPEG_ICC))
        ):
            kept.append((marker, payload))
    return tuple(kept)


def _jpeg_traits(opened: JpegImagePlugin.JpegImageFile) -> JpegTraits | None:
    if opened.layers not in (1, 3):
        return None
    used = [layer[3] for layer in opened.layer]
    while len(used) > 1 and used[-1] == used[-2]:
        used.pop()
    tables = tuple(tuple(opened.quantization[number]) for number in used)
    sampling = JpegImagePlugin.get_sampling(opened)
    identifiers = tuple(layer[0] for layer in opened.layer)
    as_rgb = opened.layers == 3 and (opened.info.get("adobe_transform") == 0 or identifiers == (82, 71, 66))
    progressive = bool(opened.info.get("progressive"))
    return JpegTraits(tables, sampling if sampling >= 0 else None, progressive, as_rgb)


def _webp_is_lossless(data: bytes) -> bool:
    """Whether the (first) picture of a WebP is coded without loss."""
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        # A frame of an animation is a chunk of chunks behind a header of 16 bytes.
        position += 8 + (16 if kind == b"ANMF" else length + length % 2)
    return False


def _tiff_extras(opened: TiffImagePlugin.TiffImageFile) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags that describe the picture and not the file, with their types, and the EXIF and GPS directories."""
    kept = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in opened.tag_v2:
        if tag in STRUCTURAL_TAGS or tag in (XMP_TAG, ICC_TAG, *DIRECTORY_TAGS):
            continue
        kept[tag] = opened.tag_v2[tag]
        kept.tagtype[tag] = opened.tag_v2.tagtype[tag]
    whole = opened.getexif()
    for tag in DIRECTORY_TAGS:
        if directory := whole.get_ifd(tag):
            kept[tag] = dict(directory)
    return kept


def _tiff_as_exif(opened: PillowImage.Image) -> bytes | None:
    """The tags of a TIFF that EXIF knows as well, as a block for other formats."""
    assert isinstance(opened, TiffImagePlugin.TiffImageFile)
    whole, block = opened.getexif(), PillowImage.Exif()
    for tag in whole:
        if tag in ExifTags.TAGS and tag not in STRUCTURAL_TAGS and tag not in (XMP_TAG, ICC_TAG, 33723, 34377):
            block[tag] = whole.get_ifd(tag) if tag in DIRECTORY_TAGS else whole[tag]
    return block.tobytes().removeprefix(exif.HEADER) if len(block) else None
