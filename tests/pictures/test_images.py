"""Pictures in and out: what a file held comes back, and what cannot be read is refused in one clear line."""

from __future__ import annotations

import io
import os
import random
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, JpegImagePlugin, TiffImagePlugin

from exprtool import images
from exprtool.errors import ImageError, UnknownNameError
from exprtool.images import Photo, conversion_notes, read_image, write_image
from exprtool.pictures import containers, deep, exif
from exprtool.pictures import formats as image_formats
from exprtool.pixels.composite import claimed_pixels, paste, verify_outside
from exprtool.types import Face, FacePatch, FaceRegion

HEIGHT, WIDTH = 90, 134
BOX = (slice(20, 50), slice(30, 90))
UNTURN = {  # what turns an upright picture into the stored one
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    ' tiff:Orientation="{}" dc:source="camera 7"/></rdf:RDF></x:xmpmeta>'
)
CMYK_PROFILES = (
    Path("/usr/share/color/icc/ghostscript/default_cmyk.icc"),
    Path("/usr/share/color/icc/colord/SWOP2006_Coated3v2.icc"),
)
MAKER_NOTE = b"MAKER\0" + bytes(range(200))


@pytest.fixture(scope="module")
def base(shared: Path) -> NDArray[np.uint8]:
    """A piece (90, 134, 3) of a real photo."""
    with Image.open(shared / "photos" / "detection1.jpg") as photo:
        return np.asarray(photo.crop((300, 150, 300 + WIDTH, 150 + HEIGHT)).convert("RGB"))


@pytest.fixture(scope="module")
def profile() -> bytes:
    """An RGB profile that is not the one that anybody would put in by default."""
    return (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"sRGB built-in", b"Test profile!")
    )


def exif_of(orientation: int, thumbnail: bytes | None = None) -> bytes:
    """A block as cameras write it: little-endian, maker's note with fixed offset, thumbnail in the second directory."""
    entries: list[tuple[int, int, int, bytes]] = [
        (0x010F, 2, 8, b"Testcam\0"),
        (0x0112, 3, 1, struct.pack("<H", orientation)),
        (0x8769, 4, 1, b""),
    ]
    first_at, second_count = 8, 3 if thumbnail else 0
    first_size = 2 + 12 * len(entries) + 4
    details_at = first_at + first_size
    details_size = 2 + 12 * 3 + 4
    second_at = details_at + details_size
    second_size = 2 + 12 * second_count + 4 if thumbnail else 0
    make_at = second_at + second_size
    note_at = make_at + 8
    thumbnail_at = note_at + len(MAKER_NOTE)
    block = b"II*\0" + struct.pack("<I", first_at) + struct.pack("<H", len(entries))
    block += struct.pack("<HHII", 0x010F, 2, 8, make_at)
    block += struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    block += struct.pack("<HHII", 0x8769, 4, 1, details_at)
    block += struct.pack("<I", second_at if thumbnail else 0)
    block += struct.pack("<H", 3) + struct.pack("<HHII", 0x927C, 7, len(MAKER_NOTE), note_at)
    block += struct.pack("<HHII", 0xA002, 4, 1, 4000) + struct.pack("<HHII", 0xA003, 4, 1, 3000) + struct.pack("<I", 0)
    if thumbnail:
        block += struct.pack("<H", 3) + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
        block += struct.pack("<HHII", 0x0201, 4, 1, thumbnail_at)
        block += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + struct.pack("<I", 0)
    return block + b"Testcam\0" + MAKER_NOTE + (thumbnail or b"")


def encoded(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def stored(base: NDArray[np.uint8], orientation: int) -> Image.Image:
    method = UNTURN[orientation]
    picture = Image.fromarray(base)
    return picture if method is None else picture.transpose(method)


def with_box(rgb: NDArray[np.uint8], box: tuple[slice, slice] = BOX) -> NDArray[np.uint8]:
    edited = rgb.copy()
    edited[box] = 255 - edited[box]
    return edited


def outside(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.ones(shape[:2], dtype=bool)
    mask[BOX] = False
    return mask


def encode(photo: Photo, rgb: NDArray[np.uint8], format: str, **options: object) -> bytes:
    data = write_image(photo, rgb, None, format=format, **options)  # type: ignore[arg-type]
    assert data is not None
    return data


def png(values: NDArray[np.uint16] | NDArray[np.uint8], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand, independent of the libraries under test; values (H, W, C)."""
    height, width, channels = values.shape
    depth = 8 * values.dtype.itemsize
    rows = values.astype(values.dtype.newbyteorder(">"))
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return containers.PNG_SIGNATURE + b"".join(containers.png_chunk(*part) for part in parts)


def unpng(data: bytes) -> NDArray[np.uint16]:
    """The samples of a 16-bit PNG, by a decoder of our own (all five filters)."""
    chunks = list(containers.png_chunks(data))
    width, height, depth, colour = struct.unpack_from(">IIBB", dict(chunks)[b"IHDR"])
    assert depth == 16
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    raw = zlib.decompress(b"".join(payload for kind, payload in chunks if kind == b"IDAT"))
    step, stride = 2 * channels, 2 * channels * width
    above = bytearray(stride)
    rows = []
    for y in range(height):
        kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride):
            a, b = row[x - step] if x >= step else 0, above[x]
            c = above[x - step] if x >= step else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[x] = (row[x] + (0, a, b, (a + b) // 2, nearest)[kind]) & 255
        rows.append(bytes(row))
        above = row
    return np.frombuffer(b"".join(rows), dtype=">u2").reshape(height, width, channels).astype(np.uint16)


# -- orientation and metadata -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_lossless(
    base: NDArray[np.uint8], profile: bytes, tmp_path: Path, orientation: int, format: str
) -> None:
    picture = stored(base, orientation)
    block = exif_of(orientation)
    options: dict[str, object] = {"icc_profile": profile}
    if format == "TIFF":
        data = encoded(
            picture,
            "TIFF",
            tiffinfo={274: orientation, 271: "Testcam", 700: XMP.format(orientation).encode()},
            **options,
        )
    elif format == "PNG":
        extra = [
            (b"eXIf", block),
            containers.png_icc_chunk(profile),
            containers.png_xmp_chunk(XMP.format(orientation).encode()),
        ]
        data = containers.png_with_chunks(encoded(picture, "PNG"), extra)
    else:
        options |= {
            "lossless": True,
            "exact": True,
            "exif": exif.HEADER + block,
            "xmp": XMP.format(orientation).encode(),
        }
        data = encoded(picture, "WEBP", **options)
    path = tmp_path / f"in{images.suffix_of(format)}"
    path.write_bytes(data)
    photo = read_image(path)
    assert photo.format == format and photo.size == (HEIGHT, WIDTH)
    assert np.array_equal(photo.rgb, base)
    changed = ~outside(base.shape)
    target = tmp_path / "out" / f"out{images.suffix_of(format)}"
    assert write_image(photo, with_box(photo.rgb), target, changed=changed) is None
    with Image.open(target) as result:
        assert result.format == format
        result.load()
        assert result.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert result.getexif()[ExifTags.Base.Make] == "Testcam"
        assert result.info["icc_profile"] == profile
        upright = ImageOps.exif_transpose(result)
        pixels = np.asarray(upright.convert("RGB"))
    assert np.array_equal(pixels[outside(base.shape)], base[outside(base.shape)])
    assert np.array_equal(pixels[BOX], 255 - base[BOX])
    again = read_image(target)
    assert again.xmp is not None and b'Orientation="1"' in again.xmp and b"camera 7" in again.xmp
    if format != "TIFF":
        assert again.exif is not None and MAKER_NOTE in again.exif
        assert again.exif == exif.for_upright(block, (HEIGHT, WIDTH))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_jpeg(base: NDArray[np.uint8], profile: bytes, orientation: int) -> None:
    data = encoded(
        stored(base, orientation), "JPEG", quality=92, exif=exif.HEADER + exif_of(orientation), icc_profile=profile
    )
    photo = read_image(data, name="phone.jpg")
    with Image.open(io.BytesIO(data)) as source:
        assert np.array_equal(photo.rgb, np.asarray(ImageOps.exif_transpose(source)))
    with Image.open(io.BytesIO(encode(photo, photo.rgb, "jpeg"))) as result:
        assert result.size == (WIDTH, HEIGHT)
        assert result.getexif()[ExifTags.Base.Orientation] == 1
        assert result.getexif().get_ifd(ExifTags.IFD.Exif)[0xA002] == WIDTH
        assert result.info["icc_profile"] == profile
        assert MAKER_NOTE in result.info["exif"]
        assert np.abs(np.asarray(result, dtype=int) - photo.rgb).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_from_the_file_through_the_patch_to_the_file(
    base: NDArray[np.uint8], profile: bytes, tmp_path: Path, orientation: int
) -> None:
    """What the user is promised: where no patch has alpha, a PNG output is its input turned upright, bit for bit."""
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    extra = [(b"eXIf", exif_of(orientation)), containers.png_icc_chunk(profile)]
    source.write_bytes(containers.png_with_chunks(encoded(stored(base, orientation), "PNG"), extra))
    photo = read_image(source)
    box = (30, 20, 91, 63)
    region = FaceRegion(Face((40, 25, 80, 60), 1.0, np.zeros((5, 2))), box, photo.rgb[20:63, 30:91])
    y, x = np.mgrid[-1:1:43j, -1:1:61j]
    alpha = np.clip(2 - 2.2 * (x * x + y * y), 0, 1).astype(np.float32)
    patch = FacePatch(255 - region.pixels, alpha)
    result, changed = paste(photo.rgb, [region], [patch])
    write_image(photo, result, target, changed=changed)
    with Image.open(source) as before, Image.open(target) as after:
        upright = np.asarray(ImageOps.exif_transpose(before))
        shown = np.asarray(ImageOps.exif_transpose(after))
        assert after.info["icc_profile"] == profile
        assert after.getexif()[ExifTags.Base.Make] == "Testcam" and MAKER_NOTE in after.info["exif"]
    verify_outside(upright, shown, claimed_pixels(photo.size, [region], [patch]))
    assert (shown != upright).any()


def test_png_without_edit_keeps_every_ancillary_chunk(base: NDArray[np.uint8]) -> None:
    chunks = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
        (b"tEXt", b"Author\0Somebody"),
        (b"iTXt", b"Title\0\0\0\0\0Gr\xc3\xbc\xc3\x9fe"),
    ]
    photo = read_image(png(base, *chunks))
    kept = list(containers.png_chunks(encode(photo, photo.rgb, "png")))
    assert [chunk for chunk in kept if chunk[0] in (b"gAMA", b"pHYs", b"tEXt", b"iTXt")] == chunks
    assert photo.dpi == pytest.approx((300, 300), abs=0.01)


def test_thumbnail_is_drawn_anew(base: NDArray[np.uint8]) -> None:
    old = encoded(Image.fromarray(base).resize((80, 54)), "JPEG", quality=90)
    data = encoded(stored(base, 6), "JPEG", exif=exif.HEADER + exif_of(6, old))
    photo = read_image(data)
    edited = np.full_like(photo.rgb, 240)
    block = read_image(encode(photo, edited, "jpeg")).exif
    assert block is not None and old not in block and MAKER_NOTE in block
    second = Image.Exif()
    second.load(block)
    directory = second.get_ifd(ExifTags.IFD.IFD1)
    start, length = directory[0x0201], directory[0x0202]
    assert directory[0x0112] == 1
    with Image.open(io.BytesIO(block[start : start + length])) as small:
        assert small.size[0] > small.size[1]
        assert np.asarray(small).mean() > 230
    tiny = exif.with_thumbnail(exif_of(1, b"\xff\xd8\xff\xd9" * 3), Image.fromarray(base))
    assert not exif.has_thumbnail(tiny) and b"\xff\xd8\xff\xd9" not in tiny  # no room: removed and cleared
    strips = exif_of(1, b"raw samples").replace(struct.pack("<HHI", 0x0201, 4, 1), struct.pack("<HHI", 0x0111, 4, 1))
    assert exif.has_thumbnail(strips)
    assert not exif.has_thumbnail(exif.with_thumbnail(strips, Image.fromarray(base)))


def test_damaged_exif_is_carried_along_and_not_trusted(base: NDArray[np.uint8]) -> None:
    for block in (
        b"II*\0\xff\xff\xff\xff",
        b"XX",
        b"MM\0*\0\0\0\x08\xff\xff",
        exif_of(1)[:20],
        b"II*\0\x08\0\0\0\x01\0",
    ):
        assert exif.orientation(block) == 1
        assert exif.for_upright(block, (3, 4)) == block
        assert exif.with_thumbnail(block, Image.fromarray(base)) == block
    assert exif.orientation(exif_of(9)) == 1


def test_captions_and_comments_survive(base: NDArray[np.uint8]) -> None:
    caption = b"8BIM\x04\x04\0\0" + struct.pack(">I", 12) + b"\x1c\x02\x78\0\x07caption"
    thumbnail = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 4) + b"face"
    segment = containers.JPEG_PHOTOSHOP + thumbnail + caption
    extra = [(containers.APP13, segment), (containers.COM, b"a remark"), (0xE5, b"maker's own")]
    data = containers.jpeg_with_segments(encoded(Image.fromarray(base), "JPEG"), extra)
    photo = read_image(data)
    kept = list(containers.jpeg_segments(encode(photo, photo.rgb, "jpeg")))
    assert (containers.COM, b"a remark") in kept and (0xE5, b"maker's own") in kept
    assert (containers.APP13, containers.JPEG_PHOTOSHOP + caption) in kept


# -- sample formats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_8_bit_forms_keep_their_samples(base: NDArray[np.uint8], mode: str, format: str) -> None:
    picture = Image.fromarray(base).convert(mode)
    if mode.endswith("A"):
        picture.putalpha(
            Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH).astype(np.uint8))
        )
    photo = read_image(encoded(picture, format))
    assert photo.notes == ()
    with Image.open(io.BytesIO(encode(photo, with_box(photo.rgb), format, changed=~outside(base.shape)))) as result:
        assert result.mode == mode
        before, after = np.asarray(picture), np.asarray(result)
    mask = outside(base.shape)
    assert np.array_equal(before[mask], after[mask])
    if mode.endswith("A"):
        assert np.array_equal(before[..., -1], after[..., -1])
    colours = before[BOX] if mode == "L" else before[BOX][..., : len(mode.rstrip("A"))]
    changed = after[BOX] if mode == "L" else after[BOX][..., : len(mode.rstrip("A"))]
    assert np.array_equal(changed, 255 - colours)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_png(base: NDArray[np.uint8], channels: int, orientation: int) -> None:
    rng = np.random.default_rng(channels)
    values = rng.integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    photo = read_image(png(values, (b"eXIf", exif_of(orientation))))
    upright = np.rot90(values, -1) if orientation == 6 else values
    assert photo.size == upright.shape[:2] and photo.samples.deep
    colours = upright[..., :1] if channels < 3 else upright[..., :3]
    assert np.array_equal(photo.rgb, np.broadcast_to(np.rint(colours / 257).astype(np.uint8), photo.rgb.shape))
    data = encode(photo, with_box(photo.rgb), "png")
    result = unpng(data)
    mask = outside(upright.shape)
    assert np.array_equal(result[mask], upright[mask])
    if channels in (2, 4):
        assert np.array_equal(result[..., -1], upright[..., -1])
    seen = read_image(data)
    assert np.abs(seen.rgb[BOX].astype(int) - (255 - photo.rgb[BOX].astype(int))).max() <= 1
    assert len(np.unique(result[BOX][..., 0] % 257)) > 100  # the depth below 8 bits is alive in the edited part


@pytest.mark.parametrize(("channels", "planar"), [(1, False), (3, False), (3, True), (4, False)])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff(tmp_path: Path, channels: int, planar: bool, compression: str | None) -> None:
    rng = np.random.default_rng(channels)
    values = rng.integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(values, 2, 0) if planar else values if channels > 1 else values[..., 0],
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig=None if channels == 1 else "separate" if planar else "contig",
        extrasamples=["unassalpha"] if channels == 4 else None,
        compression=compression,
        byteorder=">" if channels == 3 else "<",
        software="Somebody's",
        resolution=(300, 300),
        extratags=[(274, 3, 1, 8, True)],
    )
    photo = read_image(path)
    upright = np.rot90(values, 1)
    assert photo.size == (WIDTH, HEIGHT)
    target = tmp_path / "out.tif"
    write_image(photo, with_box(photo.rgb), target)
    result = tifffile.imread(target).reshape(WIDTH, HEIGHT, channels)
    mask = outside(upright.shape)
    assert result.dtype == np.uint16 and np.array_equal(result[mask], upright[mask])
    assert not np.array_equal(result[BOX], upright[BOX])
    with Image.open(target) as written:
        assert isinstance(written, TiffImagePlugin.TiffImageFile)
        assert written.tag_v2[305] == "Somebody's" and written.tag_v2.get(274, 1) == 1
        assert written.info["dpi"] == pytest.approx((300, 300))
    assert np.array_equal(read_image(target).rgb[mask], photo.rgb[mask])


def test_deep_tiff_with_lzw(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.tiff"), values)  # LZW with predictor
    assert np.array_equal(read_image(tmp_path / "a.tiff").samples.values, values[..., ::-1])


def test_palette_and_bilevel_become_true_shades(base: NDArray[np.uint8]) -> None:
    palette = Image.fromarray(base).quantize(64)
    photo = read_image(encoded(palette, "PNG"))
    assert any("palette" in note for note in photo.notes)
    with Image.open(io.BytesIO(encode(photo, with_box(photo.rgb), "png"))) as result:
        mask = outside(base.shape)
        assert np.array_equal(np.asarray(result)[mask], np.asarray(palette.convert("RGB"))[mask])
    see_through = read_image(encoded(palette, "PNG", transparency=3))
    assert see_through.samples.mode == "RGBA"
    assert np.array_equal(see_through.samples.values[..., 3] == 0, np.asarray(palette) == 3)
    bilevel = Image.fromarray(base).convert("1")
    for format in ("PNG", "TIFF", "BMP"):
        photo = read_image(encoded(bilevel, format))
        assert any("black and white" in note for note in photo.notes)
        with Image.open(io.BytesIO(encode(photo, photo.rgb, format))) as result:
            assert np.array_equal(np.asarray(result.convert("L")), np.asarray(bilevel.convert("L")))


def test_transparent_colour_becomes_alpha(base: NDArray[np.uint8]) -> None:
    grey = np.asarray(Image.fromarray(base).convert("L"))[..., np.newaxis]
    photo = read_image(png(grey, (b"tRNS", struct.pack(">H", int(grey[0, 0, 0])))))
    assert photo.samples.mode == "LA" and any("transparent" in note for note in photo.notes)
    assert np.array_equal(photo.samples.values[..., 1] == 0, grey[..., 0] == grey[0, 0, 0])


@pytest.mark.parametrize("inverted", [False, True])
def test_cmyk_is_read_in_its_true_colours(base: NDArray[np.uint8], inverted: bool) -> None:
    cmyk = Image.fromarray(base).convert("CMYK")
    if inverted:  # as Adobe writes it; Pillow writes CMYK JPEG so
        photo = read_image(encoded(cmyk, "JPEG", quality=98, subsampling=0))
        tolerance = 4.0
    else:
        photo = read_image(encoded(cmyk, "TIFF"))
        tolerance = 0.0
    assert any("CMYK" in note for note in photo.notes)
    assert np.abs(photo.rgb.astype(int) - np.asarray(cmyk.convert("RGB"), dtype=int)).mean() <= tolerance
    with Image.open(io.BytesIO(encode(photo, photo.rgb, "jpeg"))) as result:
        assert result.mode == "RGB"
        assert np.abs(np.asarray(result, dtype=int) - photo.rgb).mean() < 3


def test_cmyk_with_a_profile_is_colour_managed(base: NDArray[np.uint8]) -> None:
    found = next((path for path in CMYK_PROFILES if path.is_file()), None)
    if found is None:
        pytest.skip("needs a CMYK profile, such as ghostscript's")
    press = ImageCms.ImageCmsProfile(str(found))
    srgb = ImageCms.createProfile("sRGB")
    cmyk = ImageCms.profileToProfile(Image.fromarray(base), srgb, press, outputMode="CMYK")
    assert cmyk is not None
    photo = read_image(encoded(cmyk, "TIFF", icc_profile=press.tobytes()))
    naive = np.asarray(cmyk.convert("RGB"), dtype=int)
    managed = np.abs(photo.rgb.astype(int) - base).mean()
    assert managed < 12 and managed < 0.6 * np.abs(naive - base).mean()
    assert any("its own profile" in note for note in photo.notes)
    assert photo.icc is None and "icc_profile" not in Image.open(io.BytesIO(encode(photo, photo.rgb, "png"))).info


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_formats_that_turn_by_themselves(base: NDArray[np.uint8], format: str, orientation: int) -> None:
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    block = exif.HEADER + exif_of(orientation)
    data = encoded(stored(base, orientation), format, exif=block, quality=95)
    photo = read_image(data)
    assert photo.size == (HEIGHT, WIDTH)
    assert np.abs(photo.rgb.astype(int) - base).mean() < 8
    again = read_image(encode(photo, photo.rgb, format))
    assert again.size == (HEIGHT, WIDTH) and again.exif is not None and exif.orientation(again.exif) == 1


def test_lab_is_converted(base: NDArray[np.uint8]) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    picture = ImageCms.profileToProfile(Image.fromarray(base), srgb, lab, outputMode="LAB")
    assert picture is not None
    photo = read_image(encoded(picture, "TIFF"))
    assert np.abs(photo.rgb.astype(int) - base).mean() < 2


def test_a_profile_of_another_colour_space_is_not_attached(base: NDArray[np.uint8], profile: bytes) -> None:
    grey_profile = profile[:16] + b"GRAY" + profile[20:]
    photo = read_image(encoded(Image.fromarray(base), "PNG", icc_profile=grey_profile))
    assert photo.icc is None and any("ICC" in note for note in photo.notes)
    grey = read_image(encoded(Image.fromarray(base).convert("L"), "PNG", icc_profile=grey_profile))
    assert grey.icc == grey_profile
    assert b"iCCP" in dict(containers.png_chunks(encode(grey, grey.rgb, "png")))
    assert "icc_profile" not in Image.open(io.BytesIO(encode(grey, grey.rgb, "webp"))).info
    assert any("ICC" in note for note in conversion_notes(grey, "webp"))


@pytest.mark.parametrize("kind", ["float", "signed", "wide", "cmyk16", "pages"])
def test_what_would_lose_precision_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.tif"
    values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    if kind == "pages":
        page = Image.fromarray(values.astype(np.uint8))
        page.save(path, save_all=True, append_images=[page, page])
    elif kind == "cmyk16":
        tifffile.imwrite(path, np.zeros((HEIGHT, WIDTH, 4), np.uint16), photometric="separated")
    else:
        tifffile.imwrite(path, values.astype({"float": np.float32, "signed": np.int16, "wide": np.uint32}[kind]))
    with pytest.raises(ImageError, match=r"odd\.tif.*(convert it|split them)"):
        read_image(path)


def test_tiff_with_a_preview_page_is_read(tmp_path: Path, base: NDArray[np.uint8]) -> None:
    path = tmp_path / "preview.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(base, photometric="rgb")
        writer.write(base[::4, ::4], photometric="rgb", subfiletype=1)
    assert np.array_equal(read_image(path).rgb, base)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_compression(base: NDArray[np.uint8], compression: str) -> None:
    photo = read_image(encoded(Image.fromarray(base), "TIFF", compression=compression))
    with Image.open(io.BytesIO(encode(photo, photo.rgb, "tiff"))) as result:
        assert result.info["compression"] == ("raw" if compression == "raw" else "tiff_adobe_deflate")
        assert np.array_equal(np.asarray(result), photo.rgb)


# -- JPEG -------------------------------------------------------------------------------------------------------------


def test_jpeg_keeps_quantisation_subsampling_and_scan_order(shared: Path) -> None:
    for path in sorted((shared / "photos").glob("*.jp*g")):
        photo = read_image(path)
        with Image.open(path) as before, Image.open(io.BytesIO(encode(photo, photo.rgb, "jpeg"))) as after:
            assert isinstance(before, JpegImagePlugin.JpegImageFile)
            assert isinstance(after, JpegImagePlugin.JpegImageFile)
            assert after.quantization == before.quantization, path.name
            assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before), path.name
            assert bool(after.info.get("progressive")) == bool(before.info.get("progressive")), path.name
            assert after.info.get("icc_profile") == before.info.get("icc_profile")
            assert after.info.get("dpi") == before.info.get("dpi")


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_traits_generated(base: NDArray[np.uint8], subsampling: int, progressive: bool) -> None:
    photo = read_image(
        encoded(Image.fromarray(base), "JPEG", quality=63, subsampling=subsampling, progressive=progressive)
    )
    with Image.open(io.BytesIO(encode(photo, photo.rgb, "jpeg"))) as after:
        assert isinstance(after, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(after) == subsampling
        assert bool(after.info.get("progressive")) == progressive
    with Image.open(io.BytesIO(encode(photo, photo.rgb, "jpeg", quality=30))) as coarse:
        assert isinstance(coarse, JpegImagePlugin.JpegImageFile)
        assert photo.jpeg is not None and tuple(coarse.quantization[0]) != photo.jpeg.tables[0]


def test_grey_and_rgb_coded_jpeg(base: NDArray[np.uint8]) -> None:
    grey = read_image(encoded(Image.fromarray(base).convert("L"), "JPEG", quality=80))
    with Image.open(io.BytesIO(encode(grey, with_box(grey.rgb), "jpeg"))) as result:
        assert result.mode == "L"
    coded_as_rgb = read_image(encoded(Image.fromarray(base), "JPEG", quality=95, keep_rgb=True))
    with Image.open(io.BytesIO(encode(coded_as_rgb, coded_as_rgb.rgb, "jpeg"))) as result:
        assert isinstance(result, JpegImagePlugin.JpegImageFile)
        assert tuple(layer[0] for layer in result.layer) == (82, 71, 66)
        assert np.abs(np.asarray(result, dtype=int) - coded_as_rgb.rgb).mean() < 2


def test_second_picture_in_a_jpeg_is_said_to_be_left_out(base: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(base)
    photo = read_image(encoded(picture, "MPO", save_all=True, append_images=[picture]), name="stereo.jpg")
    assert photo.format == "JPEG" and any("first of its 2" in note for note in photo.notes)
    assert b"MPF\0" not in encode(photo, photo.rgb, "jpeg")


def test_what_phones_attach_is_left_out_and_said_so(base: NDArray[np.uint8]) -> None:
    packet = XMP.format(1).replace(
        'dc:source="camera 7"',
        'dc:source="camera 7" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1" '
        'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"',
    )
    data = encoded(Image.fromarray(base), "JPEG", xmp=packet.encode())
    data = containers.jpeg_with_segments(data, [(containers.APP2, containers.JPEG_GAIN_MAP + bytes(4))])
    photo = read_image(data + b"\0\0\0\x18ftypmp42" + bytes(100))
    assert any("gain map" in note for note in photo.notes)
    result = encode(photo, photo.rgb, "jpeg")
    assert b"MotionPhoto" not in result and b"hdrgm:Version" not in result and b"21496" not in result
    assert b"camera 7" in result


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", images.FORMATS)
def test_every_format_from_every_format(base: NDArray[np.uint8], format: str) -> None:
    if format == "HEIC":
        pytest.importorskip("pillow_heif")
    original = Photo.from_rgb(base)
    first = encode(original, base, format)
    photo = read_image(first, name=f"x{images.suffix_of(format)}")
    assert photo.format == format
    for other in images.FORMATS:
        if other == "HEIC" and not image_formats._register_heif():
            continue
        result = read_image(encode(photo, with_box(photo.rgb), other))
        difference = np.abs(result.rgb.astype(int) - with_box(photo.rgb))
        limit = {"GIF": 40, "AVIF": 8, "HEIC": 8, "JPEG": 4, "WEBP": 4 if not photo.lossless else 0}.get(other, 0)
        assert difference.mean() <= limit, (other, difference.mean())


def test_gif_keeps_the_colours_of_what_was_not_edited(base: NDArray[np.uint8]) -> None:
    source = encoded(Image.fromarray(base).quantize(200), "GIF")
    photo = read_image(source)
    assert photo.notes == ()
    edited = np.asarray(Image.fromarray(with_box(photo.rgb)).rotate(2))[BOX]  # many new colours
    rgb = photo.rgb.copy()
    rgb[BOX] = edited
    result = read_image(encode(photo, rgb, "gif")).rgb
    mask = outside(base.shape)
    assert np.array_equal(result[mask], photo.rgb[mask])
    assert np.abs(result[BOX].astype(int) - edited).mean() < 12


def test_alpha_is_put_on_white_where_the_format_has_none(base: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(base).convert("RGBA")
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, WIDTH // 2 :] = 255
    picture.putalpha(Image.fromarray(alpha))
    photo = read_image(encoded(picture, "PNG"))
    assert any("white" in note for note in conversion_notes(photo, "jpeg"))
    assert conversion_notes(photo, "webp") == ()
    result = read_image(encode(photo, photo.rgb, "bmp"))
    assert (result.rgb[:, : WIDTH // 2] == 255).all()
    assert np.array_equal(result.rgb[:, WIDTH // 2 :], base[:, WIDTH // 2 :])


def test_lossless_webp_keeps_colours_under_transparency(base: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(base).convert("RGBA")
    picture.putalpha(0)
    photo = read_image(encoded(picture, "WEBP", lossless=True, exact=True))
    assert photo.lossless
    assert np.array_equal(read_image(encode(photo, photo.rgb, "webp")).samples.values, np.asarray(picture))
    lossy = read_image(encoded(picture, "WEBP", quality=60))
    assert not lossy.lossless


def test_conversion_notes_of_a_deep_photo() -> None:
    photo = read_image(png(np.full((8, 9, 3), 30000, np.uint16), (b"eXIf", exif_of(1))))
    notes = conversion_notes(photo, "bmp")
    assert any("8 bits" in note for note in notes) and any("EXIF" in note for note in notes)
    assert conversion_notes(photo, "png") == ()


def test_metadata_cross_between_formats(base: NDArray[np.uint8], profile: bytes) -> None:
    data = encoded(
        Image.fromarray(base),
        "JPEG",
        exif=exif.HEADER + exif_of(1),
        icc_profile=profile,
        xmp=XMP.format(1).encode(),
        dpi=(240, 240),
    )
    photo = read_image(data)
    for format in ("png", "tiff", "webp", "avif"):
        result = read_image(encode(photo, photo.rgb, format))
        assert result.icc == profile, format
        assert result.xmp is not None and b"camera 7" in result.xmp, format
        assert result.exif is not None and b"Testcam" in result.exif, format
        if format in ("png", "tiff"):
            assert result.dpi == pytest.approx((240, 240), abs=0.02), format
    assert not images.holds_xmp("bmp") and images.holds_xmp("gif")
    assert read_image(encode(photo, photo.rgb, "gif")).xmp is not None


def test_deep_tiff_carries_metadata(base: NDArray[np.uint8], profile: bytes) -> None:
    chunks = [
        (b"eXIf", exif_of(1)),
        containers.png_icc_chunk(profile),
        containers.png_xmp_chunk(XMP.format(1).encode()),
    ]
    photo = read_image(png(base.astype(np.uint16) * 257, *chunks))
    with Image.open(io.BytesIO(encode(photo, photo.rgb, "tiff"))) as result:
        assert result.info["icc_profile"] == profile
        assert result.getexif()[ExifTags.Base.Make] == "Testcam"
        assert result.getexif().get_ifd(ExifTags.IFD.Exif)[0x927C] == MAKER_NOTE
        assert isinstance(result, TiffImagePlugin.TiffImageFile)
        assert b"camera 7" in result.tag_v2[700]


def test_heic_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, base: NDArray[np.uint8]
) -> None:
    pytest.importorskip("pillow_heif")
    data = encode(Photo.from_rgb(base), base, "heic")
    assert read_image(data).format == "HEIC"
    monkeypatch.setattr(image_formats, "_register_heif", lambda: False)
    with pytest.raises(ImageError, match=r"pip install 'pillow-heif"):
        read_image(data, name="a.heic")
    with pytest.raises(ImageError, match=r"pip install 'pillow-heif"):
        encode(Photo.from_rgb(base), base, "heic")


def test_names_of_formats() -> None:
    assert images.format_named("jpg") == images.format_named(".JPEG") == "JPEG"
    assert images.suffix_of("tiff") == ".tif"
    with pytest.raises(UnknownNameError, match=r"jpeg.*png"):
        images.format_named("jpge")
    with pytest.raises(UnknownNameError):
        write_image(Photo.from_rgb(np.zeros((4, 5, 3), np.uint8)), np.zeros((4, 5, 3), np.uint8), Path("x.xyz"))


def test_sizes_are_checked() -> None:
    photo = Photo.from_rgb(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ImageError, match=r"\(4, 5, 3\).*\(5, 4, 3\)"):
        write_image(photo, np.zeros((5, 4, 3), np.uint8), None)
    with pytest.raises(ImageError, match="quality"):
        write_image(photo, photo.rgb, None, quality=101)


# -- bad input --------------------------------------------------------------------------------------------------------


def bomb(format: str) -> bytes:
    side = 30000
    if format == "PNG":
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        return (
            containers.PNG_SIGNATURE
            + containers.png_chunk(b"IHDR", header)
            + containers.png_chunk(b"IDAT", zlib.compress(b"\0" * 99))
        )
    if format == "GIF":
        return (
            b"GIF89a"
            + struct.pack("<HHBBB", side, side, 0x80, 0, 0)
            + b"\0" * 6
            + b"\x2c"
            + struct.pack("<HHHHB", 0, 0, side, side, 0)
            + b"\x02\x02\x44\x01\0;"
        )
    if format == "BMP":
        return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    if format == "WEBP":
        vp8x = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + 2 * (16382).to_bytes(3, "little")
        vp8l = b"VP8L" + struct.pack("<I", 6) + b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\0"
        body = b"WEBP" + vp8x + vp8l
        return b"RIFF" + struct.pack("<I", len(body)) + body
    if format == "TIFF":
        directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
        for tag, value in {
            256: side,
            257: side,
            258: (8, 8, 8),
            259: 1,
            262: 2,
            273: 8,
            277: 3,
            278: side,
            279: 10,
        }.items():
            directory[tag] = value
        buffer = io.BytesIO()
        directory.save(buffer)
        return buffer.getvalue() + b"\0" * 10
    small = encoded(Image.new("RGB", (16, 16)), "JPEG")
    at = small.index(b"\xff\xc0")
    return small[: at + 5] + struct.pack(">HH", side, side) + small[at + 9 :]


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG"])
def test_decompression_bombs_are_refused_before_decoding(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageError, match=r"bomb.*(reads up to 200|cannot be decoded)") as caught:
        read_image(bomb(format), name=f"bomb{images.suffix_of(format)}")
    if format != "WEBP":  # 16383 x 16383 is its largest; libwebp itself refuses the empty picture
        assert "900 megapixels" in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", images.FORMATS)
def test_truncated_files(
    base: NDArray[np.uint8], tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if format == "HEIC":
        pytest.importorskip("pillow_heif")
    data = encode(Photo.from_rgb(base), base, format)
    for fraction in (0.3, 0.6, 0.9):
        path = tmp_path / f"cut{images.suffix_of(format)}"
        path.write_bytes(data[: int(len(data) * fraction)])
        with pytest.raises(ImageError, match=r"cut\.\w+ .*again"):
            read_image(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_deep_files(tmp_path: Path, compression: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="rgb", compression=compression)
    for data, name in ((buffer.getvalue(), "deep.tif"), (png(values), "deep.png")):
        for fraction in (0.3, 0.6, 0.9, 0.99):
            with pytest.raises(ImageError, match=r"deep\.\w+ .*again"):
                read_image(data[: int(len(data) * fraction)], name=name)
    assert capfd.readouterr() == ("", "")


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    cases = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"Dear Sir,\n" * 30, "text"),
        "film.jpg": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99), "video"),
        "paper.png": (b"%PDF-1.7\n", "PDF"),
        "noise.png": (bytes(range(200, 0, -1)), "convert"),
        "short.bmp": (b"BM\0\0", "convert"),
    }
    for name, (content, word) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name}.*{word}"):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "nowhere.jpg")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_unreadable_file() -> None:
    """Permissions do not bite root: there, a child that became somebody else makes the attempt."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name) / "secret.png"
        path.write_bytes(png(np.zeros((3, 4, 3), np.uint8)))
        path.chmod(0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                read_image(path)
                os.write(writer, b"read")
            except ImageError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            message = answer.read().decode()
        os.waitpid(child, 0)
        assert "secret.png" in message and "permission" in message and "chmod" in message


def test_content_wins_over_suffix(tmp_path: Path, base: NDArray[np.uint8]) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(png(base))
    photo = read_image(path)
    assert photo.format == "PNG" and np.array_equal(photo.rgb, base)
    assert any("PNG" in note and ".jpg" in note for note in photo.notes)


def test_animation_is_refused_here(base: NDArray[np.uint8]) -> None:
    frames = [Image.fromarray(np.roll(base, 9 * step, axis=1)) for step in range(3)]
    for format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=80)
        with pytest.raises(images.AnimatedImageError, match="3 frames"):
            read_image(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_damaged_bytes_never_raise_anything_else(
    base: NDArray[np.uint8], format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    small = base[:24, :31]
    photo = Photo.from_rgb(small)
    data = encode(photo, small, format, xmp=XMP.format(1).encode())
    dice = random.Random(format)
    for _ in range(80):
        damaged = bytearray(data)
        for _ in range(dice.choice((1, 3, 20))):
            damaged[dice.randrange(12 if dice.random() < 0.5 else 0, len(damaged))] = dice.randrange(256)
        try:
            assert read_image(bytes(damaged), name="damaged").rgb.dtype == np.uint8
        except ImageError as error:
            assert "damaged" in str(error)
    assert capfd.readouterr() == ("", "")


def test_damaged_xmp_is_left_out_with_a_note(base: NDArray[np.uint8]) -> None:
    for packet in (b"<x:xmpmeta", b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + XMP.format(1).encode(), b"<a/>"):
        photo = read_image(png(base, containers.png_xmp_chunk(packet)))
        assert photo.xmp is None and any("XMP" in note for note in photo.notes)


def test_pixels_are_read_only(base: NDArray[np.uint8]) -> None:
    photo = read_image(png(base))
    with pytest.raises(ValueError, match="read-only"):
        photo.rgb[0, 0] = 0


def test_deep_encoders_and_own_decoder_agree() -> None:
    values = np.random.default_rng(5).integers(0, 65536, (5, 7, 2), dtype=np.uint16)
    assert np.array_equal(unpng(deep.encode_png(values, 4)), values)
    assert np.array_equal(unpng(png(values)), values)
