"""Which picture formats there are: their names, suffixes and first bytes, and what each can hold."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from exprtool.errors import ImageError, UnknownNameError
from exprtool.extras import install_command
from exprtool.pictures import containers


@dataclass(frozen=True)
class Format:
    """What a file format can hold."""

    suffixes: tuple[str, ...]
    alpha: bool = True
    grey: bool = True
    deep: bool = False
    profile: bool = True
    exif: bool = True
    xmp: bool = True


BY_NAME: dict[str, Format] = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), alpha=False),
    "PNG": Format((".png", ".apng"), deep=True),
    "WEBP": Format((".webp",), grey=False),
    "TIFF": Format((".tif", ".tiff"), deep=True),
    "BMP": Format((".bmp", ".dib"), alpha=False, profile=False, exif=False, xmp=False),
    "GIF": Format((".gif",), profile=False, exif=False),
    "AVIF": Format((".avif",), grey=False),
    "HEIC": Format((".heic", ".heif", ".hif"), grey=False),
}
FORMATS: tuple[str, ...] = tuple(BY_NAME)
IMAGE_SUFFIXES: frozenset[str] = frozenset(suffix for each in BY_NAME.values() for suffix in each.suffixes)
"""The suffixes, in lower case, of files that `read_image` and `write_image` deal with."""


def format_named(name: str) -> str:
    """The format for a name or suffix ("jpg", ".JPG", "jpeg"); raises `UnknownNameError` that lists the known."""
    wanted = "." + name.lower().lstrip(".")
    for known, each in BY_NAME.items():
        if wanted in each.suffixes or wanted == f".{known.lower()}":
            return known
    raise UnknownNameError("image format", name, sorted(known.lower() for known in BY_NAME))


def suffix_of(image_format: str) -> str:
    """The customary suffix of a format: ".jpg" for "jpeg"; raises `UnknownNameError`."""
    return BY_NAME[format_named(image_format)].suffixes[0]


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


def holds_xmp(format: str) -> bool:
    """Whether a format has room for XMP; where not, provenance goes into a file beside the picture."""
    return BY_NAME[format_named(format)].xmp


def not_a_picture(label: str, head: bytes) -> str:
    """What to tell the user about a file whose first bytes are no picture's."""
    known = ", ".join(BY_NAME)
    if not head:
        return f"{label} is empty (0 bytes); copy or download it again."
    if head.startswith(_RAW_SIGNATURES) or head[4:12] == b"ftypcrx ":
        return raw_in_words(label)
    if head.startswith(_JPEG_XL_SIGNATURES):
        return f"{label} is a JPEG XL picture, which exprtool does not read; convert it to one of {known}."
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3") or head[8:11] == b"AVI":
        return f"{label} is a film, not a picture; edit it with `exprtool video`."
    if head.startswith(b"%PDF"):
        return f"{label} is a PDF, not a picture; export the page as {known}."
    if _is_text(head):
        return f"{label} is text, not a picture, whatever its name says; give one of {known}."
    return f"{label} is not a picture that exprtool knows; convert it to one of {known}."


# Fujifilm, Panasonic, Olympus (three), Sigma, Minolta; those that are TIFF files inside are told by their tags.
_RAW_SIGNATURES = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM")
_JPEG_XL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL ")


def raw_in_words(label: str) -> str:
    return (
        f"{label} is a camera's raw file; develop it to TIFF or JPEG first (darktable, RawTherapee, the camera's own "
        "program), and edit that."
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head[:-3].decode() if len(head) > 8 else head.decode()  # the last character may be cut
    except UnicodeDecodeError as error:
        if error.start < len(head) - 8:
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character in "\t\r\n\f\ufeff" for character in text)


@functools.cache
def _register_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def require_heif(verb: str) -> None:
    """Raise `ImageError` that says what to install where HEIC cannot be dealt with; ``verb`` is read or write."""
    if not _register_heif():
        raise ImageError(
            f"To {verb} HEIC, exprtool needs pillow-heif: {install_command('heic')}, or use JPEG or PNG instead."
        )
