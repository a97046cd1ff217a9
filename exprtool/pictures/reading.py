"""Decoding pictures; everything that can be wrong with a file ends here as one clear error."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage
from PIL import TiffImagePlugin

from exprtool.errors import ImageError
from exprtool.pictures import credentials, deep, exif
from exprtool.pictures.formats import BY_NAME, not_a_picture, raw_in_words, require_heif, sniff
from exprtool.pictures.forms import as_values, plain_form
from exprtool.pictures.metadata import exif_block, with_metadata, xmp_packet
from exprtool.pictures.photo import Photo
from exprtool.pictures.samples import Samples, Values, turned_upright
from exprtool.pictures.tiff import decode_tiff, is_raw, with_straight_label
from exprtool.wording import told_apart

MAX_PIXELS = 200_000_000
"""Larger pictures are refused before they are decoded. 200 megapixels is what the largest phone sensors give."""


class AnimatedImageError(ImageError):
    """A picture that moves, where a still one is needed; `exprtool.pictures.moving` reads these."""


def read_image(source: Path | str | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a picture from a file or from bytes.

    The content decides on the format, not the suffix. Raises `ImageError` naming the file and the way out: missing,
    unreadable, empty, not a picture, truncated, more than ``max_pixels``, a sample format that would lose precision;
    `AnimatedImageError` where there are several frames.
    """
    data, label, suffix = _load(source, name)
    photo, frames = _decode(data, label, suffix, max_pixels)
    if frames > 1:
        raise AnimatedImageError(
            f"{label} is an animation of {frames} frames; edit it with `exprtool video`, or save the frame that you "
            "want as PNG."
        )
    return photo


def count_pixels(path: Path) -> int:
    """How many pixels a picture claims to have, without decoding it; 0 where that cannot be read."""
    try:
        with path.open("rb") as file:
            found = sniff(file.read(64))
            if found is None:
                return 0
            _prepare_pillow()
            file.seek(0)
            if found == "HEIC":
                require_heif("read")
            with PillowImage.open(file, formats=_plugins(found)) as opened:
                return opened.size[0] * opened.size[1]
    except PillowImage.DecompressionBombError as error:
        stated = re.search(r"\d+", str(error))
        return int(stated[0]) if stated else 0
    except Exception:  # a decoder may raise anything on broken bytes; `read_image` will say what is wrong
        return 0


def carries_manifest(source: Path | str | bytes) -> bool:
    """Whether a picture carries a C2PA manifest; raises `ImageError`."""
    data, label, _ = _load(source, None)
    return credentials.has_manifest(data, _format_of(data, label))


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
    """Like `read_image`, for a picture that may move; see `exprtool.pictures.moving`."""
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
            orientation = exif.orientation(exif_block(opened) or b"")
            values = as_values(plain_form(opened, photo.name, []))
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
        return xmp_packet(opened, data)


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
                raise ImageError(not_a_picture(label, head))
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
        raise ImageError(not_a_picture(label, data[:64]))
    return found


class _guarded:
    """Turns whatever a decoder raises over a broken file into one `ImageError` that names the file."""

    def __init__(self, label: str, max_pixels: int = MAX_PIXELS) -> None:
        self.label, self.max_pixels = label, max_pixels

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, (ImageError, MemoryError)):
            return
        if isinstance(error, PillowImage.DecompressionBombError):
            stated = re.search(r"\d+", str(error))
            raise _too_large(self.label, int(stated[0]) if stated else None, self.max_pixels) from error
        text = str(error).strip() or type(error).__name__
        if "truncated" in text.lower() or isinstance(error, EOFError):
            raise ImageError(f"{self.label} is truncated: its end is missing; copy or download it again.") from error
        if isinstance(error, PillowImage.UnidentifiedImageError):
            text = "its header is damaged or of a rare kind"
        raise ImageError(
            f"{self.label} cannot be decoded: {text.rstrip('.')}; it is damaged, copy or download it again."
        ) from error


def _too_large(label: str, pixels: int | None, limit: int) -> ImageError:
    value, most = told_apart((pixels or 0) / 1e6, limit / 1e6)
    stated = f"{value} megapixels" if pixels else "too many pixels"
    return ImageError(
        f"{label} claims {stated}; exprtool reads up to {most} here. If it is genuine, scale it down first, or raise "
        "--max-pixels on a machine with more memory."
    )


_PILLOWS_OWN_LIMIT = 1024 * 1024 * 1024 // 4 // 3
_PILLOWS_WARNINGS = re.compile(r"PIL\.")


def _prepare_pillow(max_pixels: int = MAX_PIXELS) -> None:
    """Settle what Pillow and Python keep in globals.

    Pillow's limit on pixels is raised to ours where it is still the default (a host that chose its own is respected),
    and its warnings, which would be printed past us, are silenced: what matters in them is in our errors and notes.
    """
    if PillowImage.MAX_IMAGE_PIXELS == _PILLOWS_OWN_LIMIT:
        PillowImage.MAX_IMAGE_PIXELS = MAX_PIXELS
    if PillowImage.MAX_IMAGE_PIXELS is not None and max_pixels > MAX_PIXELS:  # the user's own wish
        PillowImage.MAX_IMAGE_PIXELS = max(PillowImage.MAX_IMAGE_PIXELS, max_pixels)
    if ("ignore", None, Warning, _PILLOWS_WARNINGS, 0) not in warnings.filters:  # also after a host has reset them
        warnings.filterwarnings("ignore", module=_PILLOWS_WARNINGS.pattern)


def _open(data: bytes, image_format: str, max_pixels: int = MAX_PIXELS) -> PillowImage.Image:
    _prepare_pillow(max_pixels)
    if image_format == "HEIC":
        require_heif("read")
    return PillowImage.open(io.BytesIO(data), formats=_plugins(image_format))


def _plugins(image_format: str) -> tuple[str, ...]:
    return {"JPEG": ("JPEG", "MPO"), "HEIC": ("HEIF",)}.get(image_format, (image_format,))


def _plain_photo(values: Values, image_format: str, label: str, *, premultiplied: bool = False) -> Photo:
    samples = Samples(values, premultiplied and values.shape[2] in (2, 4))
    rgb = samples.rgb()
    rgb.flags.writeable = False
    return Photo(rgb, image_format, label, samples)


def _decode(data: bytes, label: str, suffix: str, max_pixels: int = MAX_PIXELS) -> tuple[Photo, int]:
    """The (first) picture and how many there are to play."""
    found = _format_of(data, label)
    notes: list[str] = []
    if suffix and suffix not in BY_NAME[found].suffixes:
        notes.append(f"it is a {found} file, in spite of its suffix {suffix}")
    premultiplied = False
    if found == "TIFF":
        if is_raw(data):
            raise ImageError(raw_in_words(label))
        straight = with_straight_label(data)
        data, premultiplied = straight or data, straight is not None
    with _guarded(label, max_pixels), _open(data, found, max_pixels) as opened:
        if opened.size[0] * opened.size[1] > max_pixels:
            raise _too_large(label, opened.size[0] * opened.size[1], max_pixels)
        frames = getattr(opened, "n_frames", 1)
        if found == "TIFF":
            _check_pages(opened, frames, label)
        if found in ("TIFF", "JPEG", "HEIC"):
            if found == "HEIC" and frames > 1:
                notes.append(f"only the first of its {frames} pictures is used (the rest are previews or depth)")
            frames = 1
        stored = _stored_orientation(opened, found)
        values, orientation = _values(opened, data, found, label, notes, frames == 1)
        photo = _plain_photo(turned_upright(values, orientation), found, label, premultiplied=premultiplied)
        return with_metadata(photo, opened, data, stored, notes), frames


def _stored_orientation(opened: PillowImage.Image, found: str) -> int:
    """How the rows and columns lie in the file (to be asked before Pillow has turned it)."""
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        return opened.tag_v2.get(274, 1)
    return 1 if found == "HEIC" else exif.orientation(exif_block(opened) or b"")


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
        return deep.decode_png(data), exif.orientation(exif_block(opened) or b"")
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
        planar = tags.get(284, 1) == 2 and count > 1
        unused = count - {1: 1, 2: 3}.get(photometric, count) - (extra[0] in (1, 2))
        if unused > 0:
            notes.append(f"{unused} of its {count} channels, neither colour nor transparency, are left out")
        compressed = opened.info.get("compression") in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
        # Of 8 bits OpenCV multiplies colours by alpha.
        if bits == {16} or (bits == {8} and simple and compressed and not planar and count in (1, 3)):
            try:
                values = decode_tiff(data, planar=planar)
                return (values[..., : count - unused] if unused > 0 else values), tags.get(274, 1)
            except (KeyError, NotImplementedError) as error:  # tifffile asks for another package
                raise ImageError(
                    f"{label} is compressed in a way that cannot be read for 16-bit planes; save it uncompressed first."
                ) from error
    opened.load()
    # Pillow turns TIFF itself when it loads; libheif turns HEIC.
    orientation = 1 if found in ("TIFF", "HEIC") else exif.orientation(exif_block(opened) or b"")
    values = as_values(plain_form(opened, label, notes))
    bits = _coded_bits(data) if found in ("AVIF", "HEIC") else 16 if found == "PNG" and deep.png_is_deep(data) else 8
    if bits > 8:
        notes.append(f"its {bits} bits per channel were read as 8")
    return values, orientation


def _coded_bits(data: bytes) -> int:
    """Bits per channel of an AVIF or HEIC, from its pixel information property (ISO 23008-12, section 6.5.6)."""
    found = data.find(b"pixi", 0, 1 << 16)
    return data[found + 9] if 0 < found < len(data) - 9 and data[found + 8] else 8
