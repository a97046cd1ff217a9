"""HDR photos: the gain map stays with the edit, upright, and without the old face."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from exprtool import images
from exprtool.images import read_image, write_image
from exprtool.pictures import containers, exif, gain_map, xmp

HEIGHT, WIDTH = 96, 160
PARAMETERS = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" {}/></rdf:RDF></x:xmpmeta>'
)
ISO_VERSION, ISO_PARAMETERS = bytes(4), bytes(range(1, 60))


def jpeg(pixels: NDArray[np.uint8], segments: list[tuple[int, bytes]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return containers.jpeg_with_segments(buffer.getvalue(), segments)


def xmp_segment(attributes: str) -> tuple[int, bytes]:
    return containers.APP1, containers.JPEG_XMP + PARAMETERS.format(attributes).encode()


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y * 2, 255 - x], axis=-1).astype(np.uint8)


@pytest.fixture
def gains() -> NDArray[np.uint8]:
    """A quarter of the photo: even, with a black mark where the old mouth is, and a bright one far away."""
    values = np.full((HEIGHT // 4, WIDTH // 4), 150, np.uint8)
    values[10:14, 4:14] = 0
    values[18:22, 32:38] = 250
    return values


def ultra_hdr(photo: NDArray[np.uint8], gains: NDArray[np.uint8], *, iso: bool, orientation: int = 1) -> bytes:
    if iso:
        mark = (containers.APP2, containers.JPEG_GAIN_MAP + ISO_VERSION)
        second = jpeg(gains, [(containers.APP2, containers.JPEG_GAIN_MAP + ISO_PARAMETERS)])
    else:
        mark = xmp_segment('hdrgm:Version="1.0"')
        second = jpeg(gains, [xmp_segment('hdrgm:Version="1.0" hdrgm:GainMapMax="2.3"')])
    block = Image.Exif()
    block[0x0112] = orientation
    first = (containers.APP1, block.tobytes())
    return gain_map.joined(jpeg(photo, [first, mark, gain_map.multi_picture_segment()]), second)


def second_picture(data: bytes) -> bytes:
    """What the index of pictures points at, read by hand."""
    for _, start, end in containers.jpeg_markers(data):
        if data[start:end].startswith(b"MPF\0"):
            size, offset = struct.unpack_from(">II", data, end - 12)
            assert struct.unpack_from(">II", data, end - 28)[0] == start + 4 + offset == containers.jpeg_end(data)
            assert start + 4 + offset + size == len(data)
            return data[start + 4 + offset :]
    raise AssertionError("no index")


@pytest.mark.parametrize("iso", [False, True])
def test_the_gain_map_is_kept_and_healed(photo: NDArray[np.uint8], gains: NDArray[np.uint8], iso: bool) -> None:
    read = read_image(ultra_hdr(photo, gains, iso=iso))
    assert read.gain_map is not None and read.notes == ()
    changed = np.zeros((HEIGHT, WIDTH), bool)
    changed[36:60, 12:60] = True
    edited = read.rgb.copy()
    edited[changed] = 128
    out = write_image(read, edited, None, changed=changed)
    assert out is not None and any("gain map is kept" in note for note in images.conversion_notes(read, "jpeg"))
    second = second_picture(out)
    with Image.open(io.BytesIO(second)) as opened:
        after = np.asarray(opened).astype(int)
    assert after.shape == gains.shape
    assert np.abs(after[10:14, 4:14] - 150).max() < 12, "the mark is gone, as bright as around"
    far = np.ones(gains.shape, bool)
    far[5:20, 0:20] = False
    assert np.abs(after - gains)[far].max() < 12
    if iso:
        assert ISO_PARAMETERS in second and containers.JPEG_GAIN_MAP + ISO_VERSION in out[: -len(second)]
    else:
        assert b'GainMapMax="2.3"' in second
        head = read_image(out)
        first = next(p for _, p in containers.jpeg_segments(out) if p.startswith(containers.JPEG_XMP))
        assert f'Item:Length="{len(second)}"'.encode() in first and xmp.names_gain_map(first[29:])
        assert head.gain_map is not None and head.xmp is not None and b"Item:Length" not in head.xmp


def test_the_gain_map_is_turned_with_the_photo(photo: NDArray[np.uint8], gains: NDArray[np.uint8]) -> None:
    read = read_image(ultra_hdr(photo, gains, iso=False, orientation=6))
    out = write_image(read, read.rgb, None)
    assert read.size == (WIDTH, HEIGHT) and out is not None
    assert exif.orientation(read_image(out).exif or b"") == 1
    with Image.open(io.BytesIO(second_picture(out))) as opened:
        assert np.abs(np.asarray(opened).astype(int) - np.rot90(gains, -1)).mean() < 6


def test_other_formats_say_that_the_result_is_sdr(photo: NDArray[np.uint8], gains: NDArray[np.uint8]) -> None:
    read = read_image(ultra_hdr(photo, gains, iso=False))
    out = write_image(read, read.rgb, None, format="png")
    assert out is not None and b"hdrgm:" not in out
    assert any("SDR" in note for note in images.conversion_notes(read, "png"))


def test_a_map_without_parameters_is_left_out_and_named(photo: NDArray[np.uint8], gains: NDArray[np.uint8]) -> None:
    marked = jpeg(photo, [(containers.APP2, containers.JPEG_GAIN_MAP + ISO_VERSION)])
    read = read_image(marked + jpeg(gains, []))
    out = write_image(read, read.rgb, None)
    assert read.gain_map is None and any("HDR" in note and "SDR" in note for note in read.notes)
    assert out is not None and b"21496" not in out and out.count(b"\xff\xd8\xff") == 1


def test_a_photo_that_is_edited_all_over(photo: NDArray[np.uint8], gains: NDArray[np.uint8]) -> None:
    read = read_image(ultra_hdr(photo, gains, iso=False))
    assert read.gain_map is not None
    healed = gain_map.healed(read.gain_map, read.rgb, 255 - read.rgb).values[..., 0]
    left = healed[6:18, 2:16].astype(int)
    assert np.abs(left[4:8, 2:12].mean() - left.mean()) < 10, "nothing is left of the mark"


def test_what_is_drawn_anew_follows_the_new_brightness(photo: NDArray[np.uint8]) -> None:
    bright = np.repeat(photo[..., 1:2], 3, axis=2)  # brighter from row to row
    gains = bright[::4, ::4, 0]  # and raised as much
    read = read_image(ultra_hdr(bright, gains, iso=False))
    assert read.gain_map is not None
    after = read.rgb.copy()
    after[24:56, 40:80] = after[24:56, 40:80][::-1]
    healed = gain_map.healed(read.gain_map, read.rgb, after).values[..., 0].astype(int)
    assert np.abs(healed - after[2::4, 2::4, 0]).mean() < 8
    assert np.abs(healed[7:13, 12:18] - gains[7:13, 12:18][::-1]).mean() < 15
