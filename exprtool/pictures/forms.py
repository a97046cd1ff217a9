"""From the many forms in which Pillow decodes pictures to the four that exprtool works with: L, LA, RGB, RGBA."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageCms

from exprtool.errors import ImageError
from exprtool.pictures.samples import Values


def plain_form(opened: PillowImage.Image, label: str, notes: list[str]) -> PillowImage.Image:
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


def as_values(picture: PillowImage.Image) -> Values:
    """The samples (H, W, C) of a picture in mode L, LA, RGB or RGBA."""
    values = np.asarray(picture)
    return values if values.ndim == 3 else values[..., np.newaxis]
