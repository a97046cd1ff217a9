"""What stands in a picture file beside the pixels, taken out of it and made true for the upright picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import ExifTags, TiffImagePlugin
from PIL import Image as PillowImage

from exprtool.pictures import containers, credentials, exif, gain_map, jpeg, xmp
from exprtool.pictures.copies import holds_picture, pictures_in
from exprtool.pictures.credentials import TIFF_MANIFEST
from exprtool.pictures.photo import Photo

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


def xmp_packet(opened: PillowImage.Image, data: bytes, notes: list[str] | None = None) -> bytes | None:
    """The XMP packet, one that a JPEG holds in several parts put together. A damaged further part goes into ``notes``.

    May raise `xmp.DamagedXmp`.
    """
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        packet = opened.tag_v2.get(XMP_TAG)
    elif opened.format == "GIF":
        packet = containers.gif_xmp(data)
    else:
        packet = opened.info.get("xmp") or opened.info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    if not isinstance(packet, bytes) or not packet.strip(b"\0 \r\n\t"):
        return None
    if opened.format in ("JPEG", "MPO") and (name := xmp.extension_of(packet)):
        try:
            return xmp.joined(packet, containers.jpeg_extended_xmp(data, name))
        except xmp.DamagedXmp as error:
            if notes is not None:
                notes.append(f"the second part of its XMP is left out ({error})")
            return xmp.joined(packet)
    return packet


def with_metadata(photo: Photo, opened: PillowImage.Image, data: bytes, orientation: int, notes: list[str]) -> Photo:
    """Everything beyond the pixels, made true for the upright picture.

    ``orientation`` (1 to 8) is how the pixels lay in the file. Other copies of the picture are left out, and named.
    """
    lying = orientation >= 5
    found = _Found(notes)
    photo = replace(photo, icc=_profile(photo, opened, notes), xmp=_xmp(photo, opened, data, found))
    photo = replace(photo, exif=_exif(photo, opened, found))
    dpi = opened.info.get("dpi")
    if dpi is not None:
        dpi = (float(dpi[0]), float(dpi[1]))
        photo = replace(photo, dpi=(dpi[1], dpi[0]) if lying else dpi)
    if photo.format == "PNG":
        photo = replace(photo, png_chunks=_png_extras(data, found))
    elif photo.format == "JPEG":
        photo = _with_jpeg_parts(photo, opened, data, orientation, found)
    elif isinstance(opened, TiffImagePlugin.TiffImageFile):
        photo = replace(photo, tiff_tags=_tiff_extras(opened, found), tiff_compression=opened.info.get("compression"))
    elif photo.format == "WEBP":
        photo = replace(photo, lossless=_webp_is_lossless(data))
    elif photo.format in ("AVIF", "HEIC"):
        _name_further_pictures(opened, found)
        photo = replace(photo, lossless=False)
    if photo.format != "JPEG" and (behind := containers.behind_the_end(data, photo.format)):
        notes.append(f"what stands behind the picture's end is left out: {containers.in_words(behind)}")
    if photo.xmp and xmp.has_attachments(photo.xmp):
        photo = replace(photo, xmp=xmp.without_attachments(photo.xmp))
        if not found.attachments_named and photo.gain_map is None:
            notes.append("the film or gain map that its XMP speaks of is left out")
    if found.manifest or credentials.has_manifest(data, photo.format):
        photo = replace(photo, had_manifest=True)
        notes.append("its C2PA manifest is left out: it vouches for the unedited picture only")
    if found.copies:
        notes.append(f"left out, because it shows the unedited picture: {', '.join(dict.fromkeys(found.copies))}")
    if not photo.lossless:
        photo = replace(photo, coded_size=len(data))
    return replace(photo, notes=tuple(notes))


@dataclass
class _Found:
    """What the parts of a file turn out to hold, for the notes."""

    notes: list[str]
    copies: list[str] = field(default_factory=list)
    manifest: bool = False
    attachments_named: bool = False


def _profile(photo: Photo, opened: PillowImage.Image, notes: list[str]) -> bytes | None:
    profile = opened.info.get("icc_profile") or None
    if profile and profile[16:20] != (b"GRAY" if photo.samples.grey else b"RGB "):
        if opened.mode not in ("CMYK", "LAB"):
            notes.append("its ICC profile does not fit its pixels and is left out")
        return None
    return profile


def _exif(photo: Photo, opened: PillowImage.Image, found: _Found) -> bytes | None:
    block = _tiff_as_exif(opened) if photo.format == "TIFF" else exif_block(opened)
    if block is None:
        return None
    block, had_previews = exif.without_previews(exif.for_upright(block, photo.size))
    if had_previews:
        found.copies.append("previews in its EXIF")
    if exif.has_thumbnail(block):
        found.notes.append("its EXIF thumbnail is drawn anew")
    return block


def _xmp(photo: Photo, opened: PillowImage.Image, data: bytes, found: _Found) -> bytes | None:
    try:
        packet = xmp_packet(opened, data, found.notes)
        if packet is None:
            return None
        # Where EXIF states no orientation nothing was turned, and what XMP says of it stays as true as it was.
        block = exif_block(opened)
        if photo.format == "TIFF" or (block and exif.stated_orientation(block)):
            packet = xmp.for_upright(packet, photo.size)
        packet, copies = xmp.without_copies(packet)
        packet, found.manifest = xmp.without_manifest_link(packet)
    except xmp.DamagedXmp as error:
        found.notes.append(f"its XMP packet is damaged and left out ({error})")
        return None
    found.copies += copies
    return packet


_PNG_KEPT = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"tEXt", b"zTXt", b"iTXt")
_PNG_SPENT = (
    b"iCCP",
    b"eXIf",
    b"tRNS",
    b"bKGD",
    b"hIST",
    b"sBIT",
    b"sPLT",
    b"tIME",
    b"iDOT",
    b"acTL",
    b"fcTL",
    b"fdAT",
)
"""Chunks that are written anew, or that speak of how the old pixels were stored."""


def _png_extras(data: bytes, found: _Found) -> tuple[tuple[bytes, bytes], ...]:
    """Chunks that stay true: text, colour hints, density. Profile, EXIF and XMP are handled by themselves."""
    kept: list[tuple[bytes, bytes]] = []
    unknown: list[str] = []
    for kind, payload in containers.png_chunks(data):
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            if containers.is_png_xmp(kind, payload) or payload.startswith(b"Raw profile type exif\0"):
                continue
            if holds_picture(containers.png_text(kind, payload)):
                keyword = payload.split(b"\0", 1)[0].decode("latin-1")
                found.copies.append(f"the picture in its text {keyword!r}")
                continue
        if kind in _PNG_KEPT:
            kept.append((kind, payload))
        elif kind[:1].islower() and kind not in _PNG_SPENT and kind != containers.PNG_MANIFEST:
            unknown.append(kind.decode("latin-1"))
    if unknown:
        found.notes.append(f"chunks of unknown meaning are left out: {', '.join(dict.fromkeys(unknown))}")
    return tuple(kept)


def _with_jpeg_parts(photo: Photo, opened: PillowImage.Image, data: bytes, orientation: int, found: _Found) -> Photo:
    """What only JPEG files have: segments, further pictures behind the first, a gain map."""
    segments = list(containers.jpeg_segments(data))
    photo = replace(
        photo,
        lossless=False,
        jpeg=gain_map.traits_of(opened, lying=orientation >= 5),
        jpeg_segments=_jpeg_extras(segments, found),
    )
    traits = photo.jpeg
    if traits and not traits.stored_as_rgb and len(traits.factors) == 3 and not jpeg.can_code(traits.factors):
        found.notes.append("its chroma sampling is of a rare kind and becomes 4:4:4")
    end = containers.jpeg_end(data)
    pictures = [(end + start, end + stop) for start, stop in pictures_in(data[end:])]
    pictures = [span for span in pictures if data[span[0] : span[0] + 2] == b"\xff\xd8"]
    marker = next((payload for _, payload in segments if payload.startswith(containers.JPEG_GAIN_MAP)), None)
    in_xmp = photo.xmp is not None and xmp.names_gain_map(photo.xmp)
    mapped = gain_map.find(data, pictures, orientation, photo.size)
    if mapped is not None:
        kept, span = mapped
        pictures.remove(span)
        photo = replace(photo, gain_map=replace(kept, marker=marker, in_xmp=in_xmp))
    elif marker is not None or in_xmp:
        found.notes.append("its HDR gain map cannot be read and is left out: the result is SDR")
        found.attachments_named = True
    if pictures:
        found.notes.append(
            f"only the first of its {1 + len(pictures)} pictures is used (the rest are previews, depth or gain maps)"
        )
    rest = data[end:]
    for start, stop in sorted(pictures + ([mapped[1]] if mapped else []), reverse=True):
        rest = rest[: start - end] + rest[stop - end :]
    if containers.is_more_than_padding(rest):
        found.notes.append(f"what stands behind the picture's end is left out: {containers.in_words(rest)}")
        found.attachments_named = True
    return photo


_WRITTEN_ANEW = (
    *(containers.JPEG_EXIF, containers.JPEG_XMP, containers.JPEG_EXTENDED_XMP, containers.JPEG_ICC),
    *(containers.JPEG_MULTI_PICTURE, containers.JPEG_GAIN_MAP),
)


def _jpeg_extras(segments: Sequence[tuple[int, bytes]], found: _Found) -> tuple[tuple[int, bytes], ...]:
    """Segments that stay true: captions, comments, what makers put there; without those that hold pictures."""
    kept: list[tuple[int, bytes]] = []
    photoshop = b""
    for (marker, name), payloads in _grouped(segments):
        whole = b"".join(payloads)
        if marker == containers.APP13 and name == containers.JPEG_PHOTOSHOP:
            photoshop = b"".join(payload[len(name) :] for payload in payloads)
        elif marker == containers.APP0:
            if name == b"JFXX\0" or any(len(p) >= 14 and p[12] and p[13] for p in payloads):
                found.copies.append("the JFIF thumbnail")
        elif marker == containers.APP11 and whole.startswith(b"JP"):
            # Boxes of JPEG's own (ISO 19566-5): a C2PA manifest, named elsewhere, or a part of the picture (JPEG XT).
            if not credentials.is_manifest(whole):
                found.copies.append("JUMBF boxes")
        elif marker == containers.APP2 and name.startswith(b"FPXR"):
            found.copies.append("the FlashPix preview")
        elif payloads[0].startswith(_WRITTEN_ANEW) or marker == containers.APP14:
            continue
        elif marker == containers.COM or containers.APP1 <= marker <= 0xEF:
            # A picture may go on from one segment to the next.
            if any(map(holds_picture, payloads)):
                what = name.rstrip(b"\0").decode("latin-1") or "unnamed"
                found.copies.append(
                    f"the picture in segment APP{marker - 0xE0} {what!r}"
                    if marker != containers.COM
                    else "the picture in its comment"
                )
            else:
                kept += [(marker, payload) for payload in payloads]
    if photoshop:
        kept += containers.jpeg_photoshop_segments(_photoshop_without_copies(photoshop, found))
    return tuple(kept)


def _grouped(segments: Sequence[tuple[int, bytes]]) -> list[tuple[tuple[int, bytes], list[bytes]]]:
    """The payloads of application segments and comments under (marker, name), in order."""
    groups: dict[tuple[int, bytes], list[bytes]] = {}
    for marker, payload in segments:
        if marker == containers.COM:
            groups.setdefault((marker, payload[:_LONGEST_NAME]), []).append(payload)
        elif containers.APP0 <= marker <= 0xEF:
            head, zero, _ = payload[:_LONGEST_NAME].partition(b"\0")
            groups.setdefault((marker, head + zero), []).append(payload)
    return list(groups.items())


_LONGEST_NAME = 40
"""Bytes within which the name at the head of a segment ends, if it has one."""


def _photoshop_without_copies(resources: bytes, found: _Found) -> bytes:
    """Photoshop's image resources (captions, paths ...) without the small copies of the picture."""
    blocks, rest = containers.photoshop_resources(resources)
    kept = []
    for number, block in blocks:
        if containers.is_photoshop_thumbnail(number) or holds_picture(block):
            found.copies.append("Photoshop's thumbnail")
        else:
            kept.append(block)
    return b"".join(kept) + (b"" if holds_picture(rest) else rest)


def _name_further_pictures(opened: PillowImage.Image, found: _Found) -> None:
    """What a HEIC holds beside its picture is not written; say what it was."""
    info = opened.info
    kinds = " ".join(str(kind) for kind in info.get("aux", ()))
    if "hdrgainmap" in kinds or "21496" in kinds:
        found.notes.append("its HDR gain map is left out: the result is SDR")
    if info.get("depth_images") or "depth" in kinds:
        found.copies.append("the depth map")
    if info.get("thumbnails"):
        found.copies.append("the thumbnail")
    others = [kind for kind in info.get("aux", ()) if "gainmap" not in kind and "21496" not in kind]
    if any("depth" not in kind and "alpha" not in kind for kind in others):
        found.copies.append("mattes")


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


_PHOTOSHOP_RESOURCES, _PHOTOSHOP_LAYERS = 34377, 37724


def _tiff_extras(opened: TiffImagePlugin.TiffImageFile, found: _Found) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags that describe the picture and not the file, with their types, and the EXIF and GPS directories."""
    kept = TiffImagePlugin.ImageFileDirectory_v2()
    if getattr(opened, "n_frames", 1) > 1 or _SUB_DIRECTORIES in opened.tag_v2:
        found.copies.append("smaller versions of the picture")
    for tag in opened.tag_v2:
        if tag in STRUCTURAL_TAGS or tag in (XMP_TAG, ICC_TAG, TIFF_MANIFEST, *DIRECTORY_TAGS):
            continue
        value = _plain(opened.tag_v2[tag])
        if tag == _PHOTOSHOP_LAYERS:
            found.copies.append("Photoshop's layers")
            continue
        if tag == _PHOTOSHOP_RESOURCES and isinstance(value, bytes):
            value = _photoshop_without_copies(value, found)
            if not value:
                continue
        elif isinstance(value, bytes | str) and holds_picture(value if isinstance(value, bytes) else value.encode()):
            found.copies.append(f"the picture in its tag {tag}")
            continue
        kept[tag] = value
        kept.tagtype[tag] = opened.tag_v2.tagtype[tag]
    whole = opened.getexif()
    for tag in DIRECTORY_TAGS:
        if directory := _without_copies(dict(whole.get_ifd(tag)), found):
            kept[tag] = directory
    return kept


_SUB_DIRECTORIES = 330


def _plain(value: Any) -> Any:
    """Pillow gives some tags' bytes as the only element of a tuple."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], bytes) else value


def _without_copies(directory: dict[int, Any], found: _Found) -> dict[int, Any]:
    """A directory of EXIF without values that hold pictures, such as the preview in a maker's note."""
    kept = {}
    for tag, listed in directory.items():
        value = _plain(listed)
        if isinstance(value, bytes) and (spans := pictures_in(value)):
            found.copies.append("previews in its EXIF")
            blank = bytearray(value)
            for start, end in spans:
                blank[start:end] = bytes(end - start)
            value = bytes(blank)
        kept[tag] = value
    return kept


_NOT_EXIF = (XMP_TAG, ICC_TAG, _PHOTOSHOP_RESOURCES, _PHOTOSHOP_LAYERS, TIFF_MANIFEST, 33723)


def _tiff_as_exif(opened: PillowImage.Image) -> bytes | None:
    """The tags of a TIFF that EXIF knows as well, as a block for other formats."""
    assert isinstance(opened, TiffImagePlugin.TiffImageFile)
    whole, block = opened.getexif(), PillowImage.Exif()
    for tag in whole:
        if tag in ExifTags.TAGS and tag not in STRUCTURAL_TAGS and tag not in _NOT_EXIF:
            block[tag] = whole.get_ifd(tag) if tag in DIRECTORY_TAGS else whole[tag]
    return block.tobytes().removeprefix(exif.HEADER) if len(block) else None
