"""Records of edits: written into every format, read back, and nothing that stood in the XMP gets lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from exprtool import images, provenance
from exprtool.cli.main import app
from exprtool.errors import ImageError
from exprtool.images import Photo, read_image, write_image
from exprtool.pictures import xmp
from exprtool.provenance import COMPOSITE_SYNTHETIC, COMPOSITE_WITH_TRAINED_MODEL, Provenance, read_xmp, stamp
from exprtool.types import Edit

RECORD = Provenance(
    "blendshape", False, {"happy": 0.6, "surprised": 0.3}, {"browInnerUp": 0.25}, strength=1.2, seed=7, faces=3
)
TRAINED = Provenance("usgan", True, {"sad": 1.0}, timeline="neutral@0s sad@2s")
WHOLLY_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAMERA_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Somebody's Toolkit">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="uuid:1" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
    xmp:CreatorTool="Kamera &amp; Co" xmlns:odd="urn:nobody:knows/" odd:thing="&lt;5"/>
  <rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:Iptc4xmpExt="{iptc}">
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Grüße aus 東京</rdf:li></rdf:Alt></dc:title>
   {extra}
   <!-- a remark -->
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"


def camera_packet(extra: str = "") -> bytes:
    return CAMERA_PACKET.format(iptc=IPTC, extra=extra).encode()


def test_a_record_comes_back_as_it_was() -> None:
    declared = read_xmp(stamp(None, RECORD))
    assert declared.digital_source_type == COMPOSITE_SYNTHETIC
    assert declared.edits == (RECORD,)
    assert read_xmp(stamp(None, TRAINED)).digital_source_type == COMPOSITE_WITH_TRAINED_MODEL


def test_the_vocabulary_is_iptcs() -> None:
    base = "http://cv.iptc.org/newscodes/digitalsourcetype/"
    assert TRAINED.digital_source_type == base + "compositeWithTrainedAlgorithmicMedia"
    assert RECORD.digital_source_type == base + "compositeSynthetic"
    packet = xmp.Packet(stamp(None, TRAINED))
    assert packet.value(IPTC, "DigitalSourceType") == TRAINED.digital_source_type


def test_a_record_of_an_edit() -> None:
    record = Provenance.of(Edit({"sad": 0.5}, {"jawOpen": 0.2}, strength=0.8, seed=3), "onnx", trained=True, faces=2)
    assert (record.backend, record.trained, record.strength, record.seed, record.faces) == ("onnx", True, 0.8, 3, 2)
    assert record.weights == {"sad": 0.5} and record.controls == {"jawOpen": 0.2}


def test_the_same_edit_gives_the_same_bytes() -> None:
    assert stamp(camera_packet(), RECORD) == stamp(camera_packet(), RECORD)


def test_what_stood_in_the_packet_is_kept() -> None:
    stamped = stamp(camera_packet(), RECORD)
    assert read_xmp(stamped).edits == (RECORD,)
    text = stamped.decode()
    for kept in (
        'xmp:Rating="4"',
        "Grüße aus 東京",
        "Kamera &amp; Co",
        'odd:thing="&lt;5"',
        "a remark",
        "Somebody's Toolkit",
    ):
        assert kept in text, kept
    packet = xmp.Packet(stamped)
    assert packet.value("http://ns.adobe.com/xap/1.0/", "CreatorTool") == "Kamera & Co"
    assert {each.getAttributeNS(xmp.RDF, "about") for each in packet.descriptions()} == {"uuid:1"}


def test_a_second_edit_is_added_to_the_first() -> None:
    twice = read_xmp(stamp(stamp(camera_packet(), RECORD), TRAINED))
    assert twice.edits == (RECORD, TRAINED)
    assert twice.digital_source_type == COMPOSITE_WITH_TRAINED_MODEL
    assert read_xmp(stamp(stamp(None, TRAINED), RECORD)).digital_source_type == COMPOSITE_WITH_TRAINED_MODEL


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture", COMPOSITE_SYNTHETIC),
        (WHOLLY_GENERATED, WHOLLY_GENERATED),
    ],
)
@pytest.mark.parametrize("as_element", [True, False])
def test_an_earlier_declaration_is_only_replaced_by_a_stronger_one(before: str, after: str, as_element: bool) -> None:
    if as_element:
        packet = camera_packet(f"<Iptc4xmpExt:DigitalSourceType>{before}</Iptc4xmpExt:DigitalSourceType>")
    else:
        packet = camera_packet().replace(
            b'odd:thing="', f'xmlns:i="{IPTC}" i:DigitalSourceType="{before}" odd:thing="'.encode()
        )
    stamped = stamp(packet, RECORD)
    assert read_xmp(stamped).digital_source_type == after
    opened = xmp.Packet(stamped)
    attributes = sum(each.hasAttributeNS(IPTC, "DigitalSourceType") for each in opened.descriptions())
    assert attributes + len(opened.elements(IPTC, "DigitalSourceType")) == 1


def test_a_namespace_under_another_prefix_is_recognised() -> None:
    renamed = stamp(None, RECORD).replace(b"<exprtool:", b"<e:").replace(b"</exprtool:", b"</e:")
    renamed = renamed.replace(b"xmlns:exprtool=", b"xmlns:e=")
    assert read_xmp(renamed).edits == (RECORD,)
    assert read_xmp(stamp(renamed, TRAINED)).edits == (RECORD, TRAINED)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_packets_in_other_encodings(encoding: str) -> None:
    text = camera_packet().decode().replace("\ufeff", "")
    assert read_xmp(stamp(text.encode(encoding), RECORD)).edits == (RECORD,)
    assert "東京" in stamp(text.encode(encoding), RECORD).decode()


@pytest.mark.parametrize(
    "packet",
    [
        b'<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>',
        b'<?xml version="1.0"?><!DOCTYPE l SYSTEM "file:///etc/passwd"><x/>',
        b"<x:xmpmeta>",
        b"\xff\xfe\xff",
        b"<a>no rdf</a>",
    ],
)
def test_bombs_and_broken_packets_are_refused(packet: bytes) -> None:
    with pytest.raises(xmp.DamagedXmp):
        stamp(packet, RECORD)


def test_an_entity_bomb_costs_nothing() -> None:
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 30))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "0123456789">{lines}]><x>&e29;</x>'.encode("utf-16")
    with pytest.raises(xmp.DamagedXmp, match="document type"):
        xmp.Packet(bomb)


@pytest.mark.parametrize("format", images.FORMATS)
def test_every_format_carries_the_record(tmp_path: Path, shared: Path, format: str) -> None:
    if format == "HEIC":
        pytest.importorskip("pillow_heif")
    photo = read_image(shared / "photos" / "man2-person-group.jpg")
    path = tmp_path / f"out{images.suffix_of(format)}"
    if images.holds_xmp(format):
        write_image(photo, photo.rgb, path, xmp=stamp(photo.xmp, RECORD))
        assert not provenance.sidecar_path(path).exists()
    else:
        write_image(photo, photo.rgb, path)
        provenance.write_sidecar(path, [RECORD])
    assert provenance.read(path).edits == (RECORD,)
    assert provenance.read(path).digital_source_type == COMPOSITE_SYNTHETIC
    again = read_image(path)
    if images.holds_xmp(format):  # and it survives being written once more, by whoever keeps XMP
        write_image(again, again.rgb, tmp_path / "again.png")
        assert provenance.read(tmp_path / "again.png").edits == (RECORD,)


def test_record_of_a_16_bit_png(tmp_path: Path) -> None:
    import cv2

    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    photo = read_image(tmp_path / "deep.png")
    write_image(photo, photo.rgb, tmp_path / "out.png", xmp=stamp(photo.xmp, TRAINED))
    assert provenance.read(tmp_path / "out.png").edits == (TRAINED,)


def test_the_record_of_a_film_stands_beside_it(tmp_path: Path) -> None:
    film = tmp_path / "a.mp4"
    film.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99))
    with pytest.raises(ImageError, match="film"):
        provenance.read(film)
    provenance.write_sidecar(film, [TRAINED, RECORD])
    declared = provenance.read(film)
    assert declared.edits == (TRAINED, RECORD)
    assert declared.digital_source_type == COMPOSITE_WITH_TRAINED_MODEL
    provenance.sidecar_path(film).write_text("{}")
    with pytest.raises(ImageError, match=r"a\.mp4\.provenance\.json"):
        provenance.read(film)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_record_of_a_film_in_its_own_comment(tmp_path: Path, suffix: str) -> None:
    import av

    film = tmp_path / f"a{suffix}"
    options = {"movflags": "use_metadata_tags"} if suffix == ".mp4" else {}
    with av.open(str(film), "w", options=options) as container:
        container.metadata.update(provenance.film_tags({"comment": "my own words"}, TRAINED))
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    declared = provenance.read(film)
    assert declared.edits == (TRAINED,) and declared.digital_source_type == COMPOSITE_WITH_TRAINED_MODEL
    with av.open(str(film)) as container:
        assert "my own words" in container.metadata.values()


def test_a_film_keeps_what_stood_in_its_tags_and_its_earlier_records() -> None:
    twice = provenance.film_tags(provenance.film_tags({"TITLE": "T"}, RECORD), TRAINED)
    assert twice["TITLE"] == "T" and set(twice) == {"TITLE", "comment"}
    assert provenance.read_film_tags(twice) == provenance.Declaration(COMPOSITE_WITH_TRAINED_MODEL, (RECORD, TRAINED))
    full = provenance.film_tags({"COMMENT": "a", "Description": "b", "synopsis": "c"}, TRAINED)
    assert full["COMMENT"].startswith("a\n") and (full["Description"], full["synopsis"]) == ("b", "c")
    assert provenance.read_film_tags(full).edits == (TRAINED,)
    assert provenance.read_film_tags({"comment": "holidays"}) == provenance.Declaration()
    with pytest.raises(ImageError, match="damaged"):
        provenance.read_film_tags({"comment": "; record {1}"})


def test_an_incomplete_record_is_an_error_and_not_a_guess(tmp_path: Path) -> None:
    broken = stamp(None, RECORD).replace(b"exprtool:Seed>7<", b"exprtool:Seed>many<")
    with pytest.raises(xmp.DamagedXmp):
        read_xmp(broken)
    photo = Photo.from_rgb(np.zeros((4, 5, 3), np.uint8))
    write_image(photo, photo.rgb, tmp_path / "a.png", xmp=broken)
    with pytest.raises(ImageError, match=r"a\.png.*damaged"):
        provenance.read(tmp_path / "a.png")


# -- exprtool verify --------------------------------------------------------------------------------------------------


def test_verify_in_words_and_exit_codes(tmp_path: Path) -> None:
    photo = Photo.from_rgb(np.zeros((4, 5, 3), np.uint8))
    edited, plain = tmp_path / "edited.png", tmp_path / "plain.png"
    write_image(photo, photo.rgb, edited, xmp=stamp(None, RECORD))
    Image.new("RGB", (5, 4)).save(plain)
    run = CliRunner().invoke(app, ["verify", str(edited)])
    assert run.exit_code == 0
    for word in ("edited.png", "compositeSynthetic", "blendshape", "happy 0.6", "browInnerUp 0.25", "1.2", "3 faces"):
        assert word in run.stdout, word
    run = CliRunner().invoke(app, ["verify", str(plain), str(edited)])
    assert run.exit_code == 1
    assert "plain.png: no record" in run.stdout and "blendshape" in run.stdout
    run = CliRunner().invoke(app, ["verify", str(tmp_path / "nowhere.png")])
    assert run.exit_code == 1 and "does not exist" in run.output


def test_verify_json(tmp_path: Path) -> None:
    photo = Photo.from_rgb(np.zeros((4, 5, 3), np.uint8))
    write_image(photo, photo.rgb, tmp_path / "a.jpg", xmp=stamp(None, TRAINED))
    (tmp_path / "b.jpg").write_bytes(b"")
    run = CliRunner().invoke(app, ["verify", "--json", str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    assert run.exit_code == 1
    first, second = map(json.loads, run.stdout.splitlines())
    assert first["recorded"] and first["edits"][0]["backend"] == "usgan" and first["error"] is None
    assert first["digital_source_type"] == COMPOSITE_WITH_TRAINED_MODEL
    assert not second["recorded"] and "empty" in second["error"]
