"""Nothing of the unedited picture travels along: previews, layers, depth maps, originals, films, stale manifests."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from exprtool import images
from exprtool.images import read_image, write_image
from exprtool.pictures import containers, exif, xmp
from exprtool.pictures.copies import holds_picture, pictures_in

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def face() -> Pixels:
    """A smooth picture (96, 128, 3) with something in it."""
    y, x = np.mgrid[:96, :128]
    return np.stack([x * 2, y * 2, np.hypot(x - 64, y - 48) * 3], axis=-1).clip(0, 255).astype(np.uint8)


def encoded(pixels: Pixels, format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def preview(face: Pixels) -> bytes:
    return encoded(face[::2, ::2])


def coded_part(preview: bytes) -> bytes:
    """60 bytes of its scan, in step with the groups of three that base64 makes."""
    return preview[len(preview) // 3 * 3 - 90 :][:60]


def packet(properties: str) -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="camera 7" {properties}/></rdf:RDF></x:xmpmeta>'
    ).encode()


def rewritten(data: bytes, target: str | None = None) -> tuple[bytes, str]:
    """What an edit of everything makes of a file, and the notes as one text."""
    photo = read_image(data)
    out = write_image(photo, 255 - photo.rgb, None, format=target)
    assert out is not None
    return out, " / ".join((*photo.notes, *images.conversion_notes(photo, target or photo.format)))


def with_segment(face: Pixels, marker: int, payload: bytes, *more: tuple[int, bytes]) -> bytes:
    return containers.jpeg_with_segments(encoded(face), [(marker, payload), *more])


# -- finding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_pictures_are_found_wherever_they_lie(face: Pixels, format: str) -> None:
    picture = encoded(face, format)
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    found = pictures_in(noise + picture + noise)
    assert [start for start, _ in found] == [5000]
    assert found[0][1] >= 5000 + len(picture)
    for written in (base64.b64encode(picture), base64.encodebytes(picture)):
        assert holds_picture(b'{"thumb": "data:image/x;base64,' + written + b'"}')


def test_ordinary_data_hold_no_pictures() -> None:
    noise = np.random.default_rng(1).integers(0, 256, 2_000_000, dtype=np.uint8).tobytes()
    assert pictures_in(noise) == [] and not holds_picture(base64.b64encode(noise[:300_000]))
    assert not holds_picture(b"\xff\xd8\xff is how a JPEG begins; GIF is another format")


def test_the_end_of_a_jpeg_with_several_scans(face: Pixels) -> None:
    for options in ({}, {"progressive": True}, {"quality": 30, "restart_marker_blocks": 2}):
        data = encoded(face, **options)
        assert containers.jpeg_end(data + b"tail") == len(data)
        assert pictures_in(b"x" + data + b"tail") == [(1, 1 + len(data))]


# -- JPEG -------------------------------------------------------------------------------------------------------------


def jpeg_holders() -> dict[str, Callable[[Pixels, bytes], bytes]]:
    def gimage(face: Pixels, preview: bytes) -> bytes:
        body = packet(
            'xmlns:GImage="http://ns.google.com/photos/1.0/image/" GImage:Mime="image/jpeg" '
            f'GImage:Data="{base64.b64encode(preview).decode()}" '
            'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" GDepth:Format="RangeInverse" GDepth:Near="0.5"'
        )
        extension = containers.jpeg_extended_xmp_segments(body)
        name = extension[0][1][len(containers.JPEG_EXTENDED_XMP) :][:32].decode()
        head = packet(f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{name}"')
        return with_segment(face, containers.APP1, containers.JPEG_XMP + head, *extension)

    def anything_in_xmp(face: Pixels, preview: bytes) -> bytes:
        text = base64.b64encode(preview).decode()
        return with_segment(
            face, containers.APP1, containers.JPEG_XMP + packet(f'xmlns:my="urn:my/" my:stash="{text}"')
        )

    def photoshop(face: Pixels, preview: bytes) -> bytes:
        whole = b"".join(
            b"8BIM" + struct.pack(">HHI", number, 0, len(part)) + part + b"\0" * (len(part) % 2)
            for number, part in ((0x0404, b"\x1c\x02\x78\0\x07caption"), (0x040C, bytes(28) + preview))
        )
        pieces = [whole[:900], whole[900:]]  # the thumbnail goes on in the next segment
        return containers.jpeg_with_segments(
            encoded(face), [(containers.APP13, containers.JPEG_PHOTOSHOP + piece) for piece in pieces]
        )

    return {
        "original (GImage)": gimage,
        "my:stash": anything_in_xmp,
        "FlashPix": lambda face, preview: with_segment(face, containers.APP2, b"FPXR\0\0\x02" + bytes(6) + preview),
        "JFIF thumbnail": lambda face, preview: with_segment(face, containers.APP0, b"JFXX\0\x10" + preview),
        "APP4": lambda face, preview: with_segment(face, 0xE4, b"MAKER\0" + preview),
        "APP5": lambda face, preview: containers.jpeg_with_segments(
            encoded(face), [(0xE5, b"MAKER\0" + preview[:700]), (0xE5, b"MAKER\0" + preview[700:])]
        ),
        "comment": lambda face, preview: with_segment(face, containers.COM, base64.b64encode(preview)),
        "Photoshop's thumbnail": photoshop,
    }


@pytest.mark.parametrize("holder", list(jpeg_holders()))
def test_a_copy_inside_a_jpeg_is_left_out_and_named(face: Pixels, preview: bytes, holder: str) -> None:
    data = jpeg_holders()[holder](face, preview)
    out, notes = rewritten(data)
    assert holder in notes and "unedited picture" in notes
    assert coded_part(preview) not in out and base64.b64encode(coded_part(preview)) not in out
    assert len(pictures_in(out)) == 1
    if holder == "original (GImage)":
        assert b"camera 7" in out and b"GImage:" not in out and b"GDepth:" not in out
    if holder == "Photoshop's thumbnail":
        assert b"caption" in out


def exif_with(tag: int, value: bytes) -> bytes:
    block = Image.Exif()
    block[0x010F] = "Testcam"
    block.get_ifd(0x8769)[tag] = value
    return block.tobytes()


def test_previews_in_a_makers_note_are_blanked_where_they_lie(face: Pixels, preview: bytes) -> None:
    block = exif_with(0x927C, b"MAKER\0" + preview + b"the rest")
    out, notes = rewritten(encoded(face, exif=block))
    kept = read_image(out).exif
    assert "previews in its EXIF" in notes
    assert kept is not None and len(kept) == len(block) - 6
    assert b"MAKER\0" in kept and b"the rest" in kept and coded_part(preview) not in kept
    out, notes = rewritten(encoded(face, exif=block), "tiff")
    assert coded_part(preview) not in out and b"the rest" in out


def test_raw_samples_of_a_thumbnail_are_blanked() -> None:
    samples = bytes(range(1, 201))
    first = 8 + 2 + 4
    head = struct.pack("<HI", 0, first) + struct.pack("<H", 2)
    head += struct.pack("<HHII", 0x0111, 4, 1, first + 2 + 24 + 4) + struct.pack("<HHII", 0x0117, 4, 1, len(samples))
    block = b"II*\0" + struct.pack("<I", 8) + head + struct.pack("<I", 0) + samples
    assert exif.has_thumbnail(block)
    cleared, found = exif.without_previews(block)
    assert found and samples[:50] not in cleared and not exif.has_thumbnail(cleared)


@pytest.mark.parametrize(
    ("tail", "word"),
    [
        (b"\0\0\0\x18ftypmp42" + bytes(range(1, 256)) * 9, "film"),
        (
            b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + b"ftypmp42" + bytes(99) + b"SEFH" + bytes(20) + b"SEFT",
            "Samsung",
        ),
        (b"some other bytes" * 8, "128 bytes"),
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_bytes_behind_the_end_are_named(face: Pixels, format: str, tail: bytes, word: str) -> None:
    data = encoded(face, format)
    out, notes = rewritten(data + tail)
    assert word in notes and tail[20:60] not in out
    assert rewritten(data + bytes(64))[1] == rewritten(data)[1], "padding is nothing to speak of"


# -- other formats ----------------------------------------------------------------------------------------------------


def test_layers_and_thumbnail_of_a_tiff(face: Pixels, preview: bytes) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    thumbnail = bytes(28) + preview
    blocks = b"8BIM\x04\x0c\0\0" + struct.pack(">I", len(thumbnail)) + thumbnail + b"\0" * (len(thumbnail) % 2)
    blocks += b"8BIM\x04\x04\0\0" + struct.pack(">I", 12) + b"\x1c\x02\x78\0\x07caption"
    for tag, value in {
        34377: blocks,
        37724: b"Adobe Photoshop Document Data Block\0" + preview,
        65000: preview,
    }.items():
        tags[tag], tags.tagtype[tag] = value, 7
    tags[305] = "Somebody's"
    out, notes = rewritten(encoded(face, "TIFF", tiffinfo=tags))
    for words in ("Photoshop's layers", "Photoshop's thumbnail", "tag 65000"):
        assert words in notes
    assert pictures_in(out) == [] and b"Data Block" not in out and b"caption" in out and b"Somebody's" in out


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_picture_in_a_text_of_a_png(face: Pixels, preview: bytes, kind: bytes) -> None:
    import zlib

    text = b"\n8bim\n    %d\n" % len(preview) + preview.hex().encode()
    text = zlib.compress(text) if kind == b"zTXt" else text
    between = {b"tEXt": b"\0", b"zTXt": b"\0\0", b"iTXt": b"\0\0\0\0\0"}[kind]
    extra = [(kind, b"Raw profile type 8bim" + between + text), (b"tEXt", b"Author\0Somebody"), (b"caBX", b"jumb")]
    out, notes = rewritten(containers.png_with_chunks(encoded(face, "PNG"), extra))
    assert "Raw profile type 8bim" in notes and "C2PA" in notes
    assert [chunk for chunk in containers.png_chunks(out) if chunk[0] in (b"tEXt", b"zTXt", b"iTXt", b"caBX")] == [
        (b"tEXt", b"Author\0Somebody")
    ]


# -- C2PA -------------------------------------------------------------------------------------------------------------

MANIFEST = (
    b"JP\0\x01\0\0\0\x01" + b"\0\0\0\x3cjumb\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9bq\x03c2pa" + bytes(30)
)


def test_a_stale_manifest_is_removed_named_and_told_by_verify(face: Pixels, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from exprtool.cli.main import app
    from exprtool.provenance import Provenance, stamp

    link = packet('xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="https://example.org/manifest"')
    source = tmp_path / "a.jpg"
    extra = [(containers.APP1, containers.JPEG_XMP + link)]
    source.write_bytes(with_segment(face, containers.APP11, MANIFEST, *extra))
    assert "carries a C2PA manifest" in CliRunner().invoke(app, ["verify", str(source)]).stdout
    photo = read_image(source)
    assert photo.had_manifest and any("C2PA" in note for note in photo.notes)
    record = Provenance("test", False, removed="C2PA manifest")
    target = tmp_path / "b.jpg"
    write_image(photo, 255 - photo.rgb, target, xmp=stamp(photo.xmp, record))
    assert b"c2pa" not in target.read_bytes() and b"example.org" not in target.read_bytes()
    told = CliRunner().invoke(app, ["verify", str(target)]).stdout
    assert "removed: C2PA manifest" in told and "carries" not in told


# -- XMP and EXIF of any size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [65_000, 400_000])
def test_large_xmp_is_written_in_two_parts_and_read_back(face: Pixels, size: int) -> None:
    from exprtool.provenance import Provenance, read_xmp, stamp

    text = "Crop; Heal brush. " * (size // 18)
    data = packet(f'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:History="{text}"')
    photo = read_image(containers.png_with_chunks(encoded(face, "PNG"), [containers.png_xmp_chunk(data)]))
    record = Provenance("test", False)
    out = write_image(photo, photo.rgb, None, format="jpeg", xmp=stamp(photo.xmp, record))
    assert out is not None
    first = next(payload for _, payload in containers.jpeg_segments(out) if payload.startswith(containers.JPEG_XMP))
    assert len(first) < 65_534 and b"HasExtendedXMP" in first
    assert read_xmp(first[len(containers.JPEG_XMP) :]).edits == (record,), "our own record stays in the first part"
    again = read_image(out).xmp
    assert again is not None and text.encode() in again and b"HasExtendedXMP" not in again
    assert read_xmp(again).edits == (record,) and b"camera 7" in again


def test_an_extension_that_is_incomplete_is_told(face: Pixels) -> None:
    head = packet('xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="0123456789ABCDEF"')
    photo = read_image(with_segment(face, containers.APP1, containers.JPEG_XMP + head))
    assert any("second part" in note for note in photo.notes)
    assert photo.xmp is not None and b"camera 7" in photo.xmp and b"HasExtended" not in photo.xmp


def test_exif_of_more_than_a_segment(face: Pixels) -> None:
    note = np.random.default_rng(2).integers(0, 255, 90_000, dtype=np.uint8).tobytes()
    block = exif_with(0x927C, note)
    data = containers.jpeg_with_segments(encoded(face), containers.jpeg_exif_segments(block[6:]))
    out, _ = rewritten(data)
    again = read_image(out).exif
    assert again is not None and note in again
    assert sum(payload.startswith(containers.JPEG_EXIF) for _, payload in containers.jpeg_segments(out)) == 2


@pytest.mark.parametrize("depth", [50, 3000])
def test_a_deeply_nested_packet_does_not_keep_a_photo_from_being_edited(face: Pixels, depth: int) -> None:
    nested = "<dc:a>" * depth + "</dc:a>" * depth
    data = packet("").replace(b'camera 7" />', f'camera 7">{nested}</rdf:Description>'.encode())
    data = data.replace(b'camera 7"/>', f'camera 7">{nested}</rdf:Description>'.encode())
    photo = read_image(containers.png_with_chunks(encoded(face, "PNG"), [containers.png_xmp_chunk(data)]))
    assert write_image(photo, 255 - photo.rgb, None) is not None
    if depth == 50:
        assert photo.xmp is not None and photo.xmp.count(b"<dc:a") == 50
    else:
        assert photo.xmp is None and any("nested" in note for note in photo.notes)


def test_splitting_keeps_every_property() -> None:
    long = "x" * 3000
    data = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}" xmlns:a="urn:a/"><rdf:Description '
        f'rdf:about="u" a:p="{long}" a:q="short"><a:r><rdf:Seq><rdf:li>{long}</rdf:li></rdf:Seq></a:r>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()
    head, rest = xmp.split(data, 2500)
    assert rest is not None and len(head) <= 2500 and b"short" in head
    whole = xmp.Packet(xmp.joined(head, rest))
    assert whole.value("urn:a/", "p") == long and whole.value("urn:a/", "q") == "short"
    assert long in whole.elements("urn:a/", "r")[0].toxml()
