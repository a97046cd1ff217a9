"""The only way for pictures in and out: one decode, one encode, and everything but the edited pixels kept.

Inside, a picture is RGB uint8 and upright. What the file held beyond that (alpha, 16 bits, grey, ICC profile, EXIF,
XMP, density, captions, JPEG's quantisation) waits in the `Photo` and goes back into the output. What a format cannot
hold is said in notes, never dropped in silence.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, ImageCms, JpegImagePlugin, TiffImagePlugin
from PIL import Image as PillowImage

from exprtool import containers, deep, exif, xmp
from exprtool.errors import ImageError, UnknownNameError
from exprtool.files import write_bytes
from exprtool.gif import GifWriter
from exprtool.samples import Samples, Values, turned_upright
from exprtool.tiff import decode_tiff, encode_tiff
from exprtool.types import Image

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before they are decoded. 200 megapixels is what the largest phone sensors give."""

DEFAULT_QUALITY = 95
PNG_LEVEL = 4  # twice as fast as the customary 6 for 2 % more bytes
# exact: colours under full transparency are samples as well. Half the time of the customary effort for 15 % more bytes.
LOSSLESS_WEBP: Mapping[str, Any] = {"lossless": True, "exact": True, "method": 1, "quality": 20}


@dataclass(frozen=True)
class _Format:
    """What a file format can hold."""

    suffixes: tuple[str, ...]
    alpha: bool = True
    grey: bool = True
    deep: bool = False
    profile: bool = True
    exif: bool = True
    xmp: bool = True


_FORMATS: dict[str, _Format] = {
    "JPEG": _Format((".jpg", ".jpeg", ".jpe", ".jfif"), alpha=False),
    "PNG": _Format((".png", ".apng"), deep=True),
    "WEBP": _Format((".webp",), grey=False),
    "TIFF": _Format((".tif", ".tiff"), deep=True),
    "BMP": _Format((".bmp", ".dib"), alpha=False, profile=False, exif=False, xmp=False),
    "GIF": _Format((".gif",), profile=False, exif=False),
    "AVIF": _Format((".avif",), grey=False),
    "HEIC": _Format((".heic", ".heif", ".hif"), grey=False),
}
FORMATS: tuple[str, ...] = tuple(_FORMATS)
IMAGE_SUFFIXES: frozenset[str] = frozenset(suffix for each in _FORMATS.values() for suffix in each.suffixes)
"""The suffixes, in lower case, of files that `read_image` and `write_image` deal with."""


class AnimatedImageError(ImageError):
    """A picture that moves, where a still one is needed; `exprtool.animations` reads these."""


@dataclass(frozen=True, eq=False)
class JpegTraits:
    """How a JPEG was encoded: its quantisation tables (64 numbers each, row by row), and the rest.

    The tables are those of the components in order; the last one serves all that follow.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int | None
    progressive: bool
    stored_as_rgb: bool


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded picture and all that it takes to write it back.

    ``rgb`` is upright, (H, W, 3) uint8, read-only. ``format`` is one of `FORMATS`, by content. ``notes`` say what was
    done to it at the door, for the user's report. ``icc``, ``exif`` (from its TIFF header on, orientation already 1)
    and ``xmp`` are as in the file or None; ``dpi`` is (x, y).
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

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the upright picture."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @classmethod
    def from_rgb(cls, rgb: Image, name: str = "picture") -> Photo:
        """A photo without a file behind it, from (H, W, 3) uint8."""
        return cls(rgb, "PNG", name, Samples(rgb))


# -- formats ----------------------------------------------------------------------------------------------------------


def format_named(name: str) -> str:
    """The format for a name or suffix ("jpg", ".JPG", "jpeg"); raises `UnknownNameError` that lists the known."""
    wanted = "." + name.lower().lstrip(".")
    for known, each in _FORMATS.items():
        if wanted in each.suffixes or wanted == f".{known.lower()}":
            return known
    raise UnknownNameError("image format", name, sorted(known.lower() for known in _FORMATS))


def suffix_of(image_format: str) -> str:
    """The customary suffix of a format: ".jpg" for "jpeg"; raises `UnknownNameError`."""
    return _FORMATS[format_named(image_format)].suffixes[0]


def sniff(head: bytes) -> str | None:
    """The format that the first bytes of a file (32 are enough) announce; None for anything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(containers.PNG_SIGNATURE):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:2] == b"BM" and len(head) >= 18:
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12]} | {head[start : start + 4] for start in range(16, len(head) - 3, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIC"
    return None


# -- reading ----------------------------------------------------------------------------------------------------------


def read_image(source: Path | str | bytes, *, name: str | None = None) -> Photo:
    """Decode a picture from a file or from bytes.

    The content decides on the format, not the suffix. Raises `ImageError` naming the file and the way out: missing,
    unreadable, empty, not a picture, truncated, more than `MAX_PIXELS`, a sample format that would lose precision;
    `AnimatedImageError` where there are several frames.
    """
    data, label, suffix = _load(source, name)
    photo, frames = _decode(data, label, suffix)
    if frames > 1:
        raise AnimatedImageError(
            f"{label} is an animation of {frames} frames; edit it with `exprtool video`, or save the frame that you "
            "want as PNG."
        )
    return photo


@dataclass(frozen=True, eq=False)
class FirstFrame:
    """What `read_first_frame` found: the file's bytes, its first frame with all metadata, and how it plays.

    ``loop`` is the number of repetitions, 0 for ever, None to play once. ``still_first`` says that the first frame is
    only for programs that cannot play the rest (PNG).
    """

    data: bytes
    photo: Photo
    frames: int
    loop: int | None
    still_first: bool


def read_first_frame(source: Path | str | bytes, *, name: str | None = None) -> FirstFrame:
    """Like `read_image`, for a picture that may move; see `exprtool.animations`."""
    data, label, suffix = _load(source, name)
    photo, frames = _decode(data, label, suffix)
    with _guarded(label), _open(data, photo.format) as opened:
        loop = opened.info.get("loop")
        return FirstFrame(data, photo, frames, loop, bool(getattr(opened, "default_image", False)))


def decode_frames(data: bytes, photo: Photo) -> Iterator[tuple[Photo, float]]:
    """The frames of the animation that ``photo`` is the first of, one by one, with their durations in milliseconds."""
    with _guarded(photo.name), _open(data, photo.format) as opened:
        for number in range(getattr(opened, "n_frames", 1)):
            opened.seek(number)
            opened.load()
            orientation = exif.orientation(_exif_block(opened) or b"")
            values = _as_values(_plain(opened, photo.name, []))
            yield (
                _plain_photo(turned_upright(values, orientation), photo.format, photo.name),
                float(opened.info.get("duration", 0) or 0),
            )


def read_xmp_packet(source: Path | str | bytes, *, name: str | None = None) -> bytes | None:
    """The XMP packet of a picture as it stands in the file, or None; pixels are not decoded. Raises `ImageError`."""
    data, label, _ = _load(source, name)
    with _guarded(label), _open(data, _format_of(data, label)) as opened:
        if opened.format == "PNG":
            opened.load()  # it may stand behind the pixels
        return _packet(opened, data)


def _load(source: Path | str | bytes, name: str | None) -> tuple[bytes, str, str]:
    """The bytes, the name for messages and the suffix."""
    if isinstance(source, bytes):
        return source, name or "the picture", Path(name or "").suffix.lower()
    path = Path(source)
    label = name or str(path)
    try:
        if path.is_dir():
            raise ImageError(
                f"{label} is a folder, not a picture; give the picture, or a folder to a command for many."
            )
        with path.open("rb") as file:
            head = file.read(64)
            if sniff(head) is None:  # a film of many gigabytes is not read into memory to be refused
                raise ImageError(_not_a_picture(label, head))
            return head + file.read(), label, path.suffix.lower()
    except FileNotFoundError:
        raise ImageError(f"{label} does not exist; check the name.") from None
    except PermissionError:
        raise ImageError(f"{label} cannot be read: permission denied; check its permissions (chmod u+r).") from None
    except OSError as error:
        raise ImageError(f"{label} cannot be read: {error.strerror or error}; check the disk.") from error


def _format_of(data: bytes, label: str) -> str:
    found = sniff(data[:64])
    if found is None:
        raise ImageError(_not_a_picture(label, data[:64]))
    return found


def _not_a_picture(label: str, head: bytes) -> str:
    known = ", ".join(_FORMATS)
    if not head:
        return f"{label} is empty (0 bytes); copy or download it again."
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3") or head[8:11] == b"AVI":
        return f"{label} is a film, not a picture; edit it with `exprtool video`."
    if head.startswith(b"%PDF"):
        return f"{label} is a PDF, not a picture; export the page as {known}."
    if _is_text(head):
        return f"{label} is text, not a picture, whatever its name says; give one of {known}."
    return f"{label} is not a picture that exprtool knows; convert it to one of {known}."


def _is_text(head: bytes) -> bool:
    try:
        text = head[:-3].decode() if len(head) > 8 else head.decode()  # the last character may be cut
    except UnicodeDecodeError as error:
        if error.start < len(head) - 8:
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character in "\t\r\n\f\ufeff" for character in text)


class _guarded:
    """Turns whatever a decoder raises over a broken file into one `ImageError` that names the file."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, (ImageError, MemoryError)):
            return
        if isinstance(error, PillowImage.DecompressionBombError):
            stated = re.search(r"\d+", str(error))
            raise _too_large(self.label, int(stated[0]) if stated else None) from error
        text = str(error).strip() or type(error).__name__
        if "truncated" in text.lower() or isinstance(error, EOFError):
            raise ImageError(f"{self.label} is truncated: its end is missing; copy or download it again.") from error
        if isinstance(error, PillowImage.UnidentifiedImageError):
            text = "its header is damaged or of a rare kind"
        raise ImageError(
            f"{self.label} cannot be decoded: {text.rstrip('.')}; it is damaged, copy or download it again."
        ) from error


def _too_large(label: str, pixels: int | None) -> ImageError:
    stated = f"{pixels / 1e6:.0f} megapixels" if pixels else "too many pixels"
    return ImageError(
        f"{label} claims {stated}; exprtool reads up to {MAX_PIXELS // 1_000_000}. "
        "If it is genuine, scale it down first."
    )


_PILLOWS_OWN_LIMIT = 1024 * 1024 * 1024 // 4 // 3
_PILLOWS_WARNINGS = re.compile(r"PIL\.")


def _prepare_pillow() -> None:
    """Settle what Pillow and Python keep in globals.

    Pillow's limit on pixels is raised to ours where it is still the default (a host that chose its own is respected),
    and its warnings, which would be printed past us, are silenced: what matters in them is in our errors and notes.
    """
    if PillowImage.MAX_IMAGE_PIXELS == _PILLOWS_OWN_LIMIT:
        PillowImage.MAX_IMAGE_PIXELS = MAX_PIXELS
    if ("ignore", None, Warning, _PILLOWS_WARNINGS, 0) not in warnings.filters:  # also after a host has reset them
        warnings.filterwarnings("ignore", module=_PILLOWS_WARNINGS.pattern)


def _open(data: bytes, image_format: str) -> PillowImage.Image:
    _prepare_pillow()
    plugins = {"JPEG": ("JPEG", "MPO"), "HEIC": ("HEIF",)}.get(image_format, (image_format,))
    if image_format == "HEIC":
        _require_heif("read")
    return PillowImage.open(io.BytesIO(data), formats=plugins)


@functools.cache
def _register_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _require_heif(verb: str) -> None:
    if not _register_heif():
        raise ImageError(
            f"To {verb} HEIC, exprtool needs pillow-heif: pip install 'exprtool[heic]', or use JPEG or PNG instead."
        )


def _plain_photo(values: Values, image_format: str, label: str) -> Photo:
    samples = Samples(values)
    rgb = samples.rgb()
    rgb.flags.writeable = False
    return Photo(rgb, image_format, label, samples)


def _as_values(picture: PillowImage.Image) -> Values:
    """The samples (H, W, C) of a picture in mode L, LA, RGB or RGBA."""
    values = np.asarray(picture)
    return values if values.ndim == 3 else values[..., np.newaxis]


def _decode(data: bytes, label: str, suffix: str) -> tuple[Photo, int]:
    """The (first) picture and how many there are to play."""
    found = _format_of(data, label)
    notes: list[str] = []
    if suffix and suffix not in _FORMATS[found].suffixes:
        notes.append(f"it is a {found} file, in spite of its suffix {suffix}")
    with _guarded(label), _open(data, found) as opened:
        if opened.size[0] * opened.size[1] > MAX_PIXELS:
            raise _too_large(label, opened.size[0] * opened.size[1])
        frames = getattr(opened, "n_frames", 1)
        if found == "TIFF":
            _check_pages(opened, frames, label)
        if found in ("TIFF", "JPEG", "HEIC"):
            if found != "TIFF" and frames > 1:
                notes.append(f"only the first of its {frames} pictures is used (the rest are previews or depth)")
            frames = 1
        lying = _lies(opened, found)
        values, orientation = _values(opened, data, found, label, notes, frames == 1)
        photo = _plain_photo(turned_upright(values, orientation), found, label)
        return _with_metadata(photo, opened, data, lying, notes), frames


def _lies(opened: PillowImage.Image, found: str) -> bool:
    """Whether rows of the file are columns of the upright picture (to be asked before Pillow has turned it)."""
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        return opened.tag_v2.get(274, 1) >= 5
    return found != "HEIC" and exif.orientation(_exif_block(opened) or b"") >= 5


def _check_pages(opened: PillowImage.Image, frames: int, label: str) -> None:
    """A TIFF may hold smaller copies of its picture; several pages are something else, and none may get lost."""
    pages = 1
    for number in range(1, frames):
        opened.seek(number)
        assert isinstance(opened, TiffImagePlugin.TiffImageFile)
        pages += not opened.tag_v2.get(254, 0) & 1
    opened.seek(0)
    if pages > 1:
        raise ImageError(
            f"{label} holds {pages} pages; split them into files (for example `tiffsplit`) and give those."
        )


def _values(
    opened: PillowImage.Image, data: bytes, found: str, label: str, notes: list[str], still: bool
) -> tuple[Values, int]:
    """The samples (H, W, C) and the orientation in which they still lie."""
    if found == "PNG" and still and deep.png_is_deep(data):
        opened.load()  # OpenCV would pass over a damaged or missing end
        return deep.decode_png(data), exif.orientation(_exif_block(opened) or b"")
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        tags = opened.tag_v2
        bits = set(tags.get(258, (1,)))
        kinds = set(tags.get(339, (1,)))
        if kinds != {1} or not bits <= {1, 2, 4, 8, 16} or len(bits) > 1:
            stated = "floating-point" if 3 in kinds else "signed" if 2 in kinds else f"{max(bits)}-bit"
            raise ImageError(f"{label} has {stated} samples; convert it to 8 or 16 bits per channel (unsigned) first.")
        photometric, count, extra = tags.get(262, 1), tags.get(277, 1), tags.get(338, (2,))
        simple = (photometric, count) in ((1, 1), (2, 3), (2, 4))
        if bits == {16} and not simple:
            raise ImageError(f"{label} has 16-bit samples that are neither grey nor RGB; convert it to RGB first.")
        compressed = opened.info.get("compression") in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
        if bits == {16} or (bits == {8} and simple and compressed and extra == (2,)):
            return decode_tiff(data, planar=tags.get(284, 1) == 2 and count > 1), tags.get(274, 1)
    opened.load()
    # Pillow turns TIFF itself when it loads; libheif turns HEIC.
    orientation = 1 if found in ("TIFF", "HEIC") else exif.orientation(_exif_block(opened) or b"")
    values = _as_values(_plain(opened, label, notes))
    bits = _coded_bits(data) if found in ("AVIF", "HEIC") else 16 if found == "PNG" and deep.png_is_deep(data) else 8
    if bits > 8:
        notes.append(f"its {bits} bits per channel were read as 8")
    return values, orientation


def _coded_bits(data: bytes) -> int:
    """Bits per channel of an AVIF or HEIC, from its pixel information property (ISO 23008-12, section 6.5.6)."""
    found = data.find(b"pixi", 0, 1 << 16)
    return data[found + 9] if 0 < found < len(data) - 9 and data[found + 8] else 8


def _plain(opened: PillowImage.Image, label: str, notes: list[str]) -> PillowImage.Image:
    """The picture in one of the modes L, LA, RGB, RGBA, by the most faithful way."""
    mode = opened.mode
    transparent = opened.has_transparency_data
    if mode in ("L", "LA", "RGB", "RGBA") and (mode.endswith("A") or not transparent):
        return opened
    if mode in ("L", "RGB"):
        notes.append("its transparent colour became an alpha channel")
        return opened.convert(mode + "A")
    if mode in ("P", "PA"):
        if opened.format != "GIF":  # which goes back into a palette
            notes.append("its palette became true colour, so that new colours fit in")
        return opened.convert("RGBA" if transparent else "RGB")
    if mode == "1":
        notes.append("its black and white became grey, so that new shades fit in")
        return opened.convert("L")
    if mode == "La":
        return opened.convert("LA")
    if mode == "RGBa":
        return opened.convert("RGBA")
    if mode in ("CMYK", "LAB"):
        return _to_srgb(opened, notes)
    if mode in ("YCbCr", "RGBX"):
        return opened.convert("RGB")
    raise ImageError(
        f"{label} has samples of a kind ({mode}) that would lose precision here; convert it to unsigned RGB or grey "
        "of 8 or 16 bits per channel first."
    )


def _to_srgb(opened: PillowImage.Image, notes: list[str]) -> PillowImage.Image:
    """CMYK or Lab as sRGB, by the embedded profile where there is a usable one."""
    srgb = ImageCms.createProfile("sRGB")
    profile = opened.info.get("icc_profile")
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    if opened.mode == "LAB":
        notes.append("Lab was converted to sRGB")
        profile = ImageCms.createProfile("LAB")
    elif profile:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(opened, profile, srgb, intent, "RGB", flags=flags)
            notes.append("CMYK was converted to sRGB by its own profile")
            assert converted is not None
            return converted
        except (ImageCms.PyCMSError, OSError):
            notes.append("CMYK was converted to RGB without its profile, which is damaged")
            return opened.convert("RGB")
    else:
        notes.append("CMYK without a profile was converted to RGB, so colours may differ a little")
        return opened.convert("RGB")
    converted = ImageCms.profileToProfile(opened, profile, srgb, intent, "RGB", flags=flags)
    assert converted is not None
    return converted


# -- metadata ---------------------------------------------------------------------------------------------------------

# Tags that describe how this very file stores its samples; the writer of another file states its own.
_STRUCTURAL_RANGES = (
    *((254, 259), (262, 262), (266, 266), (273, 274), (277, 281), (284, 284), (292, 293), (301, 301)),
    *((317, 325), (330, 330), (332, 332), (338, 343), (347, 347), (512, 521), (529, 532)),
)
_STRUCTURAL_TAGS = frozenset(tag for first, last in _STRUCTURAL_RANGES for tag in range(first, last + 1))
_XMP_TAG, _ICC_TAG = 700, 34675
_DIRECTORY_TAGS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def _exif_block(opened: PillowImage.Image) -> bytes | None:
    """The EXIF block as it stands in the file, from its TIFF header on."""
    block = opened.info.get("exif")
    if block is None and "Raw profile type exif" in opened.info:
        block = opened.getexif().tobytes()
    if not isinstance(block, bytes) or not block:
        return None
    return block.removeprefix(exif.HEADER) or None


def _packet(opened: PillowImage.Image, data: bytes) -> bytes | None:
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        packet = opened.tag_v2.get(_XMP_TAG)
    elif opened.format == "GIF":
        packet = containers.gif_xmp(data)
    else:
        packet = opened.info.get("xmp") or opened.info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    return packet if isinstance(packet, bytes) and packet.strip(b"\0 \r\n\t") else None


def _with_metadata(photo: Photo, opened: PillowImage.Image, data: bytes, lying: bool, notes: list[str]) -> Photo:
    """Everything beyond the pixels, made true for the upright picture."""
    size = photo.size
    profile = opened.info.get("icc_profile") or None
    if profile and profile[16:20] != (b"GRAY" if photo.samples.grey else b"RGB "):
        if opened.mode not in ("CMYK", "LAB"):
            notes.append("its ICC profile does not fit its pixels and is left out")
        profile = None
    block = _tiff_as_exif(opened) if photo.format == "TIFF" else _exif_block(opened)
    packet = _packet(opened, data)
    if packet is not None:
        try:
            packet = xmp.for_upright(packet, size) if block or photo.format == "TIFF" else packet
            xmp.Packet(packet)
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


def _jpeg_extras(data: bytes, notes: list[str]) -> tuple[tuple[int, bytes], ...]:
    """Segments that stay true: captions, comments, what makers put there."""
    kept: list[tuple[int, bytes]] = []
    for marker, payload in containers.jpeg_segments(data):
        if marker == containers.APP13 and payload.startswith(containers.JPEG_PHOTOSHOP):
            kept.append((marker, containers.photoshop_without_thumbnails(payload)))
        elif marker == containers.APP2 and payload.startswith(containers.JPEG_MULTI_PICTURE):
            continue  # offsets of pictures that are not written
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
        if tag in _STRUCTURAL_TAGS or tag in (_XMP_TAG, _ICC_TAG, *_DIRECTORY_TAGS):
            continue
        kept[tag] = opened.tag_v2[tag]
        kept.tagtype[tag] = opened.tag_v2.tagtype[tag]
    whole = opened.getexif()
    for tag in _DIRECTORY_TAGS:
        if directory := whole.get_ifd(tag):
            kept[tag] = dict(directory)
    return kept


def _tiff_as_exif(opened: PillowImage.Image) -> bytes | None:
    """The tags of a TIFF that EXIF knows as well, as a block for other formats."""
    assert isinstance(opened, TiffImagePlugin.TiffImageFile)
    whole, block = opened.getexif(), PillowImage.Exif()
    for tag in whole:
        if tag in ExifTags.TAGS and tag not in _STRUCTURAL_TAGS and tag not in (_XMP_TAG, _ICC_TAG, 33723, 34377):
            block[tag] = whole.get_ifd(tag) if tag in _DIRECTORY_TAGS else whole[tag]
    return block.tobytes().removeprefix(exif.HEADER) if len(block) else None


# -- writing ----------------------------------------------------------------------------------------------------------


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
    can = _FORMATS[kind]
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
    return tuple(notes)


def holds_xmp(format: str) -> bool:
    """Whether a format has room for XMP; where not, provenance goes into a file beside the picture."""
    return _FORMATS[format_named(format)].xmp


def _fitted(samples: Samples, kind: str) -> Samples:
    """The samples in a form that the format can hold."""
    can = _FORMATS[kind]
    if samples.deep and not can.deep:
        samples = samples.in_8_bits()
    if samples.alpha and not can.alpha:
        samples = samples.flattened()
    return samples if can.grey else samples.in_colour()


def _encode(photo: Photo, samples: Samples, rgb: Image, kind: str, quality: int | None, packet: bytes | None) -> bytes:
    can = _FORMATS[kind]
    profile = photo.icc if can.profile and (can.grey or not photo.samples.grey) else None
    block = photo.exif
    if block and exif.has_thumbnail(block):
        block = exif.with_thumbnail(block, PillowImage.fromarray(rgb))
    if packet is not None:
        packet = _without_thumbnails(packet)
    if kind == "PNG":
        return _encode_png(photo, samples, profile, block, packet)
    if kind == "JPEG":
        return _encode_jpeg(photo, samples, quality, profile, block, packet)
    if kind == "TIFF":
        return _encode_tiff(photo, samples, profile, block, packet)
    picture = _to_pillow(samples)
    options: dict[str, Any] = {}
    if can.profile and profile:
        options["icc_profile"] = profile
    if can.exif and block:
        options["exif"] = exif.HEADER + block
    if can.xmp and packet:
        options["xmp"] = packet
    if photo.dpi:
        options["dpi"] = photo.dpi
    if kind == "WEBP":
        lossless = photo.lossless and quality is None
        options |= LOSSLESS_WEBP if lossless else {"quality": quality or DEFAULT_QUALITY}
    elif kind in ("AVIF", "HEIC"):
        options["quality"] = quality or 90
        if kind == "HEIC":
            _require_heif("write")
    elif kind == "GIF":
        return _encode_gif(samples, (rgb != photo.rgb).any(axis=2), packet)
    return _save(picture, {"HEIC": "HEIF"}.get(kind, kind), **options)


def _without_thumbnails(packet: bytes) -> bytes:
    return xmp.without_thumbnails(packet) if b"Thumbnails" in packet else packet


def _to_pillow(samples: Samples) -> PillowImage.Image:
    values = samples.values[..., 0] if samples.channels == 1 else samples.values
    return PillowImage.fromarray(values)


def _save(picture: PillowImage.Image, plugin: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, plugin, **options)
    return buffer.getvalue()


def _encode_gif(samples: Samples, edited: NDArray[np.bool_], packet: bytes | None) -> bytes:
    buffer = io.BytesIO()
    writer = GifWriter(buffer, (samples.values.shape[0], samples.values.shape[1]), xmp=packet)
    opaque = samples.values[..., -1] >= 128 if samples.alpha else None
    writer.add(samples.in_colour().rgb(), opaque, edited=edited)
    writer.close()
    return buffer.getvalue()


def _encode_png(
    photo: Photo, samples: Samples, profile: bytes | None, block: bytes | None, packet: bytes | None
) -> bytes:
    if samples.deep:
        plain = deep.encode_png(np.asarray(samples.values, dtype=np.uint16), PNG_LEVEL)
    else:
        plain = _save(_to_pillow(samples), "PNG", compress_level=PNG_LEVEL)
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
    quality: int | None,
    profile: bytes | None,
    block: bytes | None,
    packet: bytes | None,
) -> bytes:
    options: dict[str, Any] = {"dpi": photo.dpi} if photo.dpi else {}
    traits = photo.jpeg
    if quality is not None or traits is None:
        options |= {"quality": quality or DEFAULT_QUALITY}
        if quality is None or quality >= 90:
            options["subsampling"] = 0
        if traits:
            options["progressive"] = traits.progressive
    else:
        options |= {
            "qtables": [list(table) for table in traits.tables],
            "progressive": traits.progressive,
            "keep_rgb": traits.stored_as_rgb,
        }
        options["subsampling"] = 0 if traits.subsampling is None else traits.subsampling
    extra: list[tuple[int, bytes]] = []
    if block:
        extra.append((containers.APP1, containers.JPEG_EXIF + block))
    if packet:
        extra.append((containers.APP1, containers.JPEG_XMP + packet))
    if profile:
        extra += containers.jpeg_icc_segments(profile)
    extra += photo.jpeg_segments
    for marker, payload in extra:
        if len(payload) > containers.JPEG_ROOM:
            what = "EXIF" if payload.startswith(containers.JPEG_EXIF) else "XMP"
            raise ValueError(f"its {what} of {len(payload)} bytes does not fit into a JPEG segment (marker {marker:X})")
    return containers.jpeg_with_segments(_save(_to_pillow(samples), "JPEG", **options), extra)


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
            if tag not in _STRUCTURAL_TAGS:
                tags[tag] = whole.get_ifd(tag) if tag in _DIRECTORY_TAGS else whole[tag]
    if photo.dpi and 282 not in tags:
        tags[282], tags[283], tags[296] = photo.dpi[0], photo.dpi[1], 2
    if profile:
        tags[_ICC_TAG] = profile
        tags.tagtype[_ICC_TAG] = 7
    if packet:
        tags[_XMP_TAG] = packet
        tags.tagtype[_XMP_TAG] = 1
    if samples.deep and samples.channels == 2:  # no reader that we know takes 16-bit grey with alpha from TIFF
        samples = samples.in_colour()
    return encode_tiff(samples.values, tags, compressed=photo.tiff_compression != "raw")
