"""What the input's coding was, the output's is: subsampling, associated alpha, the size of lossy files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from exprtool.errors import ImageError
from exprtool.images import read_image, write_image
from exprtool.pictures import jpeg
from exprtool.pictures.photo import JpegTraits
from exprtool.pictures.samples import Samples

HEIGHT, WIDTH = 75, 117  # no multiple of any block


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([128 + 100 * np.sin(x / 9), 2 * y + 40, 255 - x * 2], axis=-1).clip(0, 255).astype(np.uint8)


def tables(quality: int) -> tuple[tuple[int, ...], ...]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(io.BytesIO(buffer.getvalue())) as opened:
        assert isinstance(opened, JpegImagePlugin.JpegImageFile)
        return tuple(tuple(opened.quantization[number]) for number in (0, 1))


SAMPLINGS = {"4:4:0": ((1, 2), (1, 1), (1, 1)), "4:1:1": ((4, 1), (1, 1), (1, 1)), "4:1:0": ((4, 2), (1, 1), (1, 1))}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("progressive", [False, True])
def test_every_chroma_subsampling_is_kept(picture: NDArray[np.uint8], sampling: str, progressive: bool) -> None:
    factors = SAMPLINGS[sampling]
    data = jpeg.encode(Samples(picture), JpegTraits(tables(93), factors, progressive, False), dpi=(300, 300))
    photo = read_image(data)
    assert np.abs(photo.rgb.astype(int) - picture).mean() < 5
    out = write_image(photo, photo.rgb, None)
    assert out is not None
    with Image.open(io.BytesIO(out)) as after:
        assert isinstance(after, JpegImagePlugin.JpegImageFile)
        assert tuple((layer[1], layer[2]) for layer in after.layer) == factors
        assert tuple(tuple(after.quantization[number]) for number in (0, 1)) == tables(93)
        assert bool(after.info.get("progressive")) == progressive and after.info["dpi"] == (300, 300)
        assert np.abs(np.asarray(after).astype(int) - photo.rgb).mean() < 3
    import cv2

    again = cv2.imdecode(np.frombuffer(out, np.uint8), cv2.IMREAD_COLOR)  # a decoder of its own
    assert again is not None and np.abs(again[..., ::-1].astype(int) - photo.rgb).mean() < 3


def test_subsampling_turns_with_the_photo(picture: NDArray[np.uint8]) -> None:
    block = Image.Exif()
    block[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", subsampling=1, exif=block)
    photo = read_image(buffer.getvalue())
    assert photo.jpeg is not None and photo.jpeg.factors == ((1, 2), (1, 1), (1, 1))
    out = write_image(photo, photo.rgb, None)
    assert out is not None and np.abs(read_image(out).rgb.astype(int) - photo.rgb).mean() < 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_associated_alpha_stays_as_it_is(tmp_path: Path, bits: int, compression: str | None) -> None:
    most = 2**bits - 1
    dice = np.random.default_rng(bits)
    alpha = dice.integers(0, most + 1, (HEIGHT, WIDTH, 1))
    alpha[:9] = 0
    colours = dice.integers(0, most + 1, (HEIGHT, WIDTH, 3)) * alpha // most
    values = np.concatenate([colours, alpha], axis=2).astype(np.uint8 if bits == 8 else np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="rgb", extrasamples=["assocalpha"], compression=compression)
    photo = read_image(path)
    straight = np.where(alpha > 0, colours * 255 / np.maximum(alpha, 1), 0)
    assert photo.notes == () and np.abs(photo.rgb - straight).max() <= 1
    changed = np.zeros((HEIGHT, WIDTH), bool)
    changed[20:40, 30:60] = True
    rgb = photo.rgb.copy()
    rgb[changed] = (250, 10, 90)
    target = tmp_path / "b.tif"
    write_image(photo, rgb, target, changed=changed)
    with tifffile.TiffFile(target) as file:
        page = file.pages.first
        after = page.asarray()
        assert page.tags[338].value == (1,) or page.tags[338].value == 1
    assert np.array_equal(after[~changed], values[~changed])
    assert np.array_equal(after[changed][:, 3], values[changed][:, 3])
    visible = changed & (alpha[..., 0] > most // 4)
    assert np.abs(read_image(target).rgb[visible].astype(int) - (250, 10, 90)).max() <= 3
    flat = write_image(photo, photo.rgb, None, format="png")
    assert flat is not None and np.abs(read_image(flat).rgb.astype(int) - photo.rgb).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_under_ordinary_alpha_are_not_multiplied(bits: int, compression: str | None) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, 4)).astype(kind)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="rgb", extrasamples=["unassalpha"], compression=compression)
    photo = read_image(buffer.getvalue())
    assert np.array_equal(photo.samples.values, values)
    out = write_image(photo, photo.rgb, None)
    assert out is not None and np.array_equal(read_image(out).samples.values, values)


@pytest.mark.parametrize("kind", ["dng", "cfa", "cr2"])
def test_raw_files_are_refused_with_the_way_out(tmp_path: Path, picture: NDArray[np.uint8], kind: str) -> None:
    path = tmp_path / "a.tif"
    extra = [(50706, 1, 4, bytes((1, 4, 0, 0)), True)] if kind == "dng" else []
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, photometric="rgb", subifds=1, extratags=extra)
        writer.write(picture[..., 0], photometric=32803 if kind != "dng" else "minisblack", subfiletype=0)
    if kind == "cr2":
        data = path.read_bytes()
        path.write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(4) + data[8:])
    with pytest.raises(ImageError, match=r"a\.tif is a camera's raw file; develop it"):
        read_image(path)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"FUJIFILMCCD-RAW 0201", "raw file"),
        (b"IIU\0\x18\0\0\0", "raw file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
)
def test_other_files_of_cameras_are_told_what_they_are(head: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_image(head + bytes(99), name="a.xyz")


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "HEIC"])
@pytest.mark.parametrize("quality", [35, 75])
def test_a_lossy_file_comes_back_about_as_large(picture: NDArray[np.uint8], format: str, quality: int) -> None:
    if format == "HEIC":
        pytest.importorskip("pillow_heif").register_heif_opener()
    noise = np.random.default_rng(0).normal(0, 9, (HEIGHT * 2, WIDTH * 2, 3))
    textured = (np.kron(picture, np.ones((2, 2, 1))) + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(textured).save(buffer, {"HEIC": "HEIF"}.get(format, format), quality=quality)
    photo = read_image(buffer.getvalue())
    out = write_image(photo, photo.rgb, None)
    assert out is not None and 0.75 < len(out) / len(buffer.getvalue()) < 1.05
    best = write_image(photo, photo.rgb, None, quality=98)
    assert best is not None and len(best) > 1.3 * len(out), "a quality that is asked for is taken"
